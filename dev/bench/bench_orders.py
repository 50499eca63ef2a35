"""What a scan order costs: building it at a million tokens, and running a model in it.

    python dev/bench/bench_orders.py             everything, on every thread PyTorch takes
    python dev/bench/bench_orders.py --quick     tiny shapes, into a temporary folder: does it run?

All calls of a table take turns, round by round; each number is a median. `ratio` is the median of the ratios to
`spatial_first` in the same round, which a busy machine disturbs less. The column `others` is
the share of the machine that other processes used meanwhile: measure again where it is not near 0.
"""
import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path

import torch
from common import RESULTS, Others, timings, write_rows

from videomamba_nb.core import fill_by_rule, input_by_rule
from videomamba_nb.model import VideoMamba
from videomamba_nb.scan_order import list_orders, permutations

MILLION = 64, 125, 125
TINY = dict(img_size=224, patch_size=16, depth=24, embed_dim=192, num_frames=8, num_classes=400)
QUICK = dict(img_size=16, patch_size=8, depth=2, embed_dim=32, num_frames=4, num_classes=5)


def build_calls(grid):
    "Build the permutations of every order for one grid."
    return {k: partial(permutations, k, *grid) for k in list_orders()}


def forward(model, x):
    "Logits without gradients."
    with torch.no_grad():
        return model(x)


def train(model, x):
    "Forward, and all gradients."
    model.zero_grad(set_to_none=True)
    model(x).square().sum().backward()


def model_calls(what, size):
    "One model per order, with the same weights."
    x, calls = None, {}
    for name in list_orders():
        model = fill_by_rule(VideoMamba(**size, drop_path_rate=0., scan_order=name)).train(what is train)
        x = input_by_rule(1, *model.input_shape) if x is None else x
        calls[name] = partial(what, model, x)
    return calls


def measure(step, grid, calls, rounds):
    "Rows of one table."
    with Others() as others:
        times = timings(calls, rounds, limit=150.)
    t, h, w = grid
    def ratio(ms):
        return statistics.median(a/b for a, b in zip(ms, times['spatial_first']))
    return [dict(step=step, order=k, t=t, h=h, w=w, ms=round(statistics.median(v), 3), ratio=round(ratio(v), 3),
                 rounds=len(v), others=others.share) for k, v in times.items()]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--quick', action='store_true', help='tiny shapes, into a temporary folder')
    p.add_argument('--rounds', type=int, default=7, help='how often each call takes its turn (7)')
    p.add_argument('--out', type=Path, help='folder for the table; `results`, or a temporary one with --quick')
    args = p.parse_args()
    grid, size, rounds = ((2, 3, 4), QUICK, 2) if args.quick else (MILLION, TINY, args.rounds)
    patches = size['num_frames'], *[size['img_size']//size['patch_size']]*2
    rows = measure('build', grid, build_calls(grid), rounds)
    for what in (forward, train):
        rows += measure(what.__name__, patches, model_calls(what, size), rounds)
    for row in rows:
        print(row, flush=True)
    out = args.out or (Path(tempfile.mkdtemp()) if args.quick else RESULTS)
    print('wrote', write_rows('orders', rows, out))


if __name__ == '__main__':
    main()
