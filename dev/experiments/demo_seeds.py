"""Run the whole demo for several seeds and write down what came out, one row per seed.

    python dev/experiments/demo_seeds.py              seeds 0, 1 and 2: about five minutes each
    python dev/experiments/demo_seeds.py --ship       also copy the weights and the picture of seed 0 into the package

A run that was stopped goes on where it was.
"""
import argparse
import csv
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT/'dev'/'bench')]

from common import where  # noqa: E402

from videomamba_nb.core import cache_dir  # noqa: E402
from videomamba_nb.demo import demo  # noqa: E402

RESULT = Path(__file__).parent/'results'/'demo_seeds.csv'


def row(seed, report):
    "What one demo measured, and where."
    seconds, at = report['seconds'], where()
    return dict(seed=seed, top1=round(report['top1'], 4), top1_views=round(report['top1_views'], 4),
                top5_views=round(report['top5_views'], 4), test_clips=report['test_clips'],
                train_seconds=seconds['training'], total_seconds=round(sum(seconds.values()), 1),
                cpu=at['device'], **{k: report.get(k, at[k]) for k in ('threads', 'date', 'commit', 'torch', 'python')})


def write(rows):
    "Write the rows so far."
    RESULT.parent.mkdir(exist_ok=True)
    with open(RESULT, 'w', newline='') as f:
        writer = csv.DictWriter(f, list(rows[0]), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    p.add_argument('--ship', action='store_true', help='copy weights and picture of the first seed into the package')
    args = p.parse_args()
    rows, home = [], cache_dir('demo_seeds')
    for seed in args.seeds:
        report = demo(home/f'seed{seed}', seed=seed)
        rows.append(row(seed, report))
        write(rows)
        print(rows[-1], flush=True)
    if args.ship:
        first = home/f'seed{args.seeds[0]}'
        shutil.copyfile(first/'moving_digits.safetensors', ROOT/'videomamba_nb'/'shipped'/'moving_digits.safetensors')
        shutil.copyfile(first/'demo.png', ROOT/'nbs'/'img'/'demo.png')


if __name__ == '__main__':
    main()
