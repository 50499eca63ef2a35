"""Train the same small model on MovingDigits in every scan order: same clips, same steps, several seeds.

    python dev/bench/train_orders.py                            every order, seeds 0, 1 and 2
    python dev/bench/train_orders.py --orders hilbert snake     some orders
    python dev/bench/train_orders.py --quick                    one epoch on few clips, into a temporary folder: does it run?

Seeds are the outer loop, so that a stopped run has compared all orders fairly as far as it got. It goes on where it was
stopped, even within a training. Weights, order of clips and crops follow from the seed alone and are the same for every
order. The budget is equal in clips, not in seconds, and both are written down: one training takes about two minutes on
one core, and twice that in an order that reads twice. One row per order and seed goes to `results/train_orders.csv`.
"""
import argparse
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from common import RESULTS, append_rows, read_rows

from videomamba_nb.core import cache_dir, set_seed
from videomamba_nb.demo import DEMO_CONFIG, DEMO_DATA, DEMO_MODEL, lively_start
from videomamba_nb.digits import moving_digits
from videomamba_nb.evaluate import evaluate
from videomamba_nb.model import VideoMamba, load_model
from videomamba_nb.scan_order import list_orders
from videomamba_nb.train import fit

# The demo's model and recipe, but for the depth: with four layers, halves and turns differ. 4 x 4 x 4 places.
# With finer patches in time, 8 x 4 x 4 places, this recipe was still at chance in spatial_first after several epochs.
# No other order was looked at before this was settled.
MODEL = DEMO_MODEL | dict(depth=4)
CONFIG = replace(DEMO_CONFIG, epochs=10)
CLIPS = dict(train=4000, valid=400, test=400)
QUICK = dict(train=32, valid=16, test=16)


def read_data(clips, root=None):
    "The three splits, in memory."
    return {k: moving_digits(k, root, n, **DEMO_DATA).in_memory() for k, n in clips.items()}


def one(order, seed, data, config, folder):
    "Train and test one model, or go on with it; a row."
    set_seed(seed)
    model = lively_start(VideoMamba(**MODEL, scan_order=order))
    start = time.perf_counter()
    history = fit(model, data['train'], data['valid'], replace(config, seed=seed), folder)
    best, saved = load_model(folder/'best.safetensors')
    found = evaluate(best, data['test'])
    return dict(order=order, seed=seed, top1=round(found.top1, 4), valid_top1=round(saved['valid_accuracy'], 4),
                best_epoch=saved['epoch'], epochs=config.epochs, train_clips=len(data['train']),
                test_clips=len(found.paths), train_loss=round(history[-1]['train_loss'], 4),
                seconds=round(sum(r['seconds'] for r in history), 1), wall=round(time.perf_counter()-start, 1))


def key(row):
    "What makes a row: order, seed and budget."
    return tuple(str(row[k]) for k in ('order', 'seed', 'epochs', 'train_clips'))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--orders', nargs='+', default=list_orders(), choices=list_orders(), metavar='ORDER')
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    p.add_argument('--epochs', type=int, default=CONFIG.epochs)
    p.add_argument('--quick', action='store_true', help='one epoch on few clips, into a temporary folder')
    p.add_argument('--out', type=Path, help='folder for runs and table, instead of the cache and `results`')
    args = p.parse_args()
    home, results, clips = args.out or cache_dir('train_orders'), args.out or RESULTS, CLIPS
    config = replace(CONFIG, epochs=args.epochs)
    if args.quick:
        home = results = args.out or Path(tempfile.mkdtemp())
        clips, config, args.seeds = QUICK, replace(config, epochs=1), args.seeds[:1]
    data = read_data(clips, home/'clips' if args.quick else None)
    done = {key(r) for r in read_rows('train_orders', results)}
    todo = [(s, o) for s in args.seeds for o in args.orders
            if key(dict(order=o, seed=s, epochs=config.epochs, train_clips=clips['train'])) not in done]
    print(f'{len(todo)} trainings to do, {len(done)} done; {asdict(config)}', flush=True)
    for i, (seed, order) in enumerate(todo):
        print(f'[{i+1}/{len(todo)}] {order}, seed {seed}', flush=True)
        row = one(order, seed, data, config, home/f'{order}-seed{seed}-epochs{config.epochs}-clips{clips["train"]}')
        print(row, append_rows('train_orders', [row], results), flush=True)


if __name__ == '__main__':
    main()
