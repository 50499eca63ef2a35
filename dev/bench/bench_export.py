"""What leaving Python costs: seconds to export, operators, size, time for one clip and error, for each way out.

    python dev/bench/bench_export.py --ways ours.pt2 loop.onnx portable.pt2    VideoMamba-Ti on 8 frames of 224 x 224
    python dev/bench/bench_export.py --depth 4 --append    with 4 layers, and ONNX in blocks too, which exports for minutes
    python dev/bench/bench_export.py --quick               a tiny model, into a temporary folder: does it run?

The ways run in turn, round by round; each time is a median. `error` is the largest difference from the model in Python, as a
share of the largest score; `export_s` holds the check of an ONNX file too. The column `others` is the share of the machine
that other processes used meanwhile: measure again where it is not near 0.
"""
import argparse
import tempfile
import time
from pathlib import Path

import torch
from common import RESULTS, Others, append_rows, medians, write_rows

from videomamba_nb.core import input_by_rule, set_seed
from videomamba_nb.export import check_export, export_program, load_program, operators
from videomamba_nb.model import VideoMamba, create_model
from videomamba_nb.onnx_export import export_onnx, load_onnx, onnx_operators

WAYS = {
    'ours.pt2': lambda model, path: export_program(model, path),
    'portable.pt2': lambda model, path: export_program(model, path, portable=True),
    'loop.onnx': lambda model, path: export_onnx(model, path),
    'blocks.onnx': lambda model, path: export_onnx(model, path, scan='blocks')}


def load(path, threads):
    "A function from clips to scores."
    return load_onnx(path, threads)[0] if path.suffix == '.onnx' else load_program(path)[0].module()


def export(model, name, path, threads):
    "Write one file: how to run it, and its row."
    start = time.perf_counter()
    WAYS[name](model, path)
    seconds = time.perf_counter()-start
    run = load(path, threads)
    count = onnx_operators(path) if path.suffix == '.onnx' else operators(load_program(path)[0])
    error = check_export(run, model, batches=(1,))
    row = dict(way=name, export_s=round(seconds, 1), mb=round(path.stat().st_size/1e6, 2),
               operators=sum(count.values()), error=f'{error:.1e}')
    print(row, flush=True)
    return run, row


def bench(model, rounds, folder, ways):
    "One row for each way out, the model in Python first."
    threads, x = torch.get_num_threads(), input_by_rule(1, *model.input_shape)
    made = {k: export(model, k, folder/k, threads) for k in ways}
    runs = {'python': model} | {k: run for k, (run, _) in made.items()}
    with torch.no_grad(), Others() as others:
        ms = medians({k: lambda f=f: f(x) for k, f in runs.items()}, rounds, limit=200.)
    rows = [dict(way='python', export_s='', mb='', operators='', error='')] + [row for _, row in made.values()]
    size = f'{len(model.layers)} layers, {tuple(model.input_shape)}'
    return [dict(model=size) | row | dict(ms=round(ms[row['way']], 2), others=others.share) for row in rows]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--quick', action='store_true')
    p.add_argument('--depth', type=int, default=24, help='layers')
    p.add_argument('--append', action='store_true', help='keep the rows that are there')
    p.add_argument('--ways', nargs='*', default=list(WAYS), choices=list(WAYS))
    args = p.parse_args()
    set_seed(0)
    small = dict(img_size=32, patch_size=8, depth=2, embed_dim=32, num_frames=2, num_classes=5)
    tiny = dict(num_frames=8, num_classes=400, depth=args.depth)
    model = (VideoMamba(**small) if args.quick else create_model('videomamba_tiny', **tiny)).eval()
    with tempfile.TemporaryDirectory() as tmp:
        rows = bench(model, 3 if args.quick else 5, Path(tmp), args.ways)
        path = (append_rows if args.append else write_rows)('export', rows, Path(tmp) if args.quick else RESULTS)
        print(path.read_text())

if __name__ == '__main__': main()
