"""Which augmentation helps, and which tells lies? The demo's small model on MovingDigits, several seeds.

    python dev/experiments/augment_trial.py                 every row, seeds 0, 1 and 2: about 20 seconds each on one core
    python dev/experiments/augment_trial.py --seeds 3       one more seed

Every training sees 240 clips 20 times. Weights, order of clips and draws follow from the seed, and nothing was tuned. One
row per training goes to `results/augment_trial.csv`; a run that was stopped goes on with the rows that are missing.
Accuracy is that after the last epoch, on 400 test clips.
"""
import argparse
import csv
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT/'dev'/'bench')]

from common import where  # noqa: E402

from videomamba_nb.augment import Augment  # noqa: E402
from videomamba_nb.core import set_seed  # noqa: E402
from videomamba_nb.demo import DEMO_CONFIG, DEMO_DATA, DEMO_MODEL, lively_start  # noqa: E402
from videomamba_nb.digits import moving_digits  # noqa: E402
from videomamba_nb.evaluate import evaluate  # noqa: E402
from videomamba_nb.model import VideoMamba  # noqa: E402
from videomamba_nb.train import fit  # noqa: E402

RESULT = Path(__file__).parent/'results'/'augment_trial.csv'
CLIPS, EPOCHS = 240, 20


@dataclass(frozen=True)
class PerFrame(Augment):
    "The mistake: every frame gets a draw of its own."
    def __call__(self, clip, size, rng):
        return torch.cat([Augment.__call__(self, frame[None], size, rng) for frame in clip], 1)


CROP = dict(scale=(.95, 1.), ratio=(1., 1.), flip=0., erase=0.) # as the demo's
HOW = {'crop': Augment(**CROP), 'mirror': Augment(**CROP | dict(flip=.5)),
       'weak': Augment('rand-m5-n2-mstd0.25-inc1', **CROP),
       'weak, per frame': PerFrame('rand-m5-n2-mstd0.25-inc1', **CROP)}


def train(how, seed, test):
    "Train and test one model; a row."
    set_seed(seed)
    model = lively_start(VideoMamba(**DEMO_MODEL))
    data = moving_digits('train', None, CLIPS, augment=HOW[how], **DEMO_DATA).in_memory()
    config = replace(DEMO_CONFIG, epochs=EPOCHS, warmup_epochs=2., seed=seed)
    start = time.perf_counter()
    history = fit(model, data, config=config, show=False)
    top1, last, at = evaluate(model, test).top1, history[-1], where()
    return dict(clips=CLIPS, augment=how, seed=seed, top1=round(top1, 4), train_loss=round(last['train_loss'], 4),
                train_top1=round(last['train_accuracy'], 4), epochs=config.epochs,
                seconds=round(time.perf_counter()-start, 1), cpu=at['device'],
                **{k: at[k] for k in ('threads', 'date', 'commit', 'torch', 'python')})


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    args = p.parse_args()
    torch.set_num_threads(1)
    rows = list(csv.DictReader(open(RESULT))) if RESULT.exists() else []
    done = {(r['augment'], r['seed']) for r in rows}
    test = moving_digits('test', None, 400, **DEMO_DATA).in_memory()
    for seed in args.seeds:
        for how in HOW:
            if (how, str(seed)) in done: continue
            rows.append(train(how, seed, test))
            RESULT.parent.mkdir(exist_ok=True)
            with open(RESULT, 'w', newline='') as f:
                writer = csv.DictWriter(f, list(rows[0]), lineterminator='\n')
                writer.writeheader()
                writer.writerows(rows)
            print(rows[-1], flush=True)


if __name__ == '__main__':
    main()
