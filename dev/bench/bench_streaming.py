"""Memory and time of a long video against its frames: streamed from disk, read at once, and in windows (Linux).

    python dev/bench/bench_streaming.py            16 to 4096 frames of 64 x 64, and 16384 streamed; each in a fresh process
    python dev/bench/bench_streaming.py --quick    a few frames, into a temporary folder: does it run?

`mib` is the peak of one call beyond what the process holds before it, the frames included: the streamed way and the
windows make each piece when they need it, the whole model needs all of them. Pages of files that are mapped count while
they are mapped. `disk_mib` is what lies in files meanwhile. `difference` is the largest between the class token and
that of the whole model. Windows of 16 frames give the mean of their class tokens, which is another answer.
`core_seconds` is what the processor spent: it says more than `seconds` where others were busy on the same machine,
which `others` tells.
"""
import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, Others, append_rows
from memory import peak

from videomamba_nb.core import set_seed
from videomamba_nb.model import VideoMamba
from videomamba_nb.streaming import disk_bytes, stream_features

WAYS, PIECE = ('stream', 'whole', 'windows'), 16
SIZE = dict(img_size=64, embed_dim=192, depth=8, num_classes=10, num_frames=PIECE)


def make(**kwargs):
    "A fresh model, the same in every process."
    set_seed(0)
    return VideoMamba(**SIZE | kwargs).eval()


def pieces(model, frames):
    "Frames of noise, 16 at a time, the same for every way."
    c, _, h, w = model.input_shape
    for i in range(0, frames, PIECE):
        g = torch.Generator().manual_seed(i)
        yield torch.randn(c, min(PIECE, frames-i), h, w, generator=g)


def call(way, model, frames, chunk):
    "A function that gives the class token."
    if way == 'stream':
        return lambda: stream_features(model, pieces(model, frames), chunk=chunk, show=False)
    if way == 'windows':
        run = lambda: sum(model.forward_features(x[None])[0, 0]*(PIECE/frames) for x in pieces(model, frames))
    else:
        model.resize(frames)
        run = lambda: model.forward_features(torch.cat(list(pieces(model, frames)), 1)[None])[0, 0]
    return torch.no_grad()(run)


def child(way, frames, chunk, out):
    "One measurement: the class token goes to a file, the numbers are printed."
    call(way, make(), PIECE, chunk)() # compile and load whatever the first call needs
    run, kept = call(way, make(), frames, chunk), []
    def timed():
        start = time.perf_counter(), time.process_time()
        kept.append(run())
        kept.extend((time.perf_counter()-start[0], time.process_time()-start[1]))
    mib = peak(timed)
    np.save(out, kept[0].numpy())
    print(f'{mib:.2f} {kept[1]:.3f} {kept[2]:.3f}')


def measure(way, frames, chunk, folder):
    "The row of one fresh process."
    out = Path(folder)/f'{way}{frames}.npy'
    command = [sys.executable, __file__, '--child', way, '--frames', str(frames), '--chunk', str(chunk), '--out', str(out)]
    with Others() as others:
        r = subprocess.run(command, capture_output=True, text=True)
    if r.returncode:
        raise SystemExit(f'{way} {frames}: {r.stderr.strip()[-300:]}')
    mib, seconds, core = map(float, r.stdout.split()[-3:])
    whole, difference = Path(folder)/f'whole{frames}.npy', ''
    if way != 'windows' and whole.exists():
        difference = f'{np.abs(np.load(out)-np.load(whole)).max():.1e}'
    disk = disk_bytes(make(), frames)/2**20 if way == 'stream' else 0
    row = dict(way=way, frames=frames, chunk=chunk if way == 'stream' else '', mib=round(mib, 1), disk_mib=round(disk, 1),
               seconds=round(seconds, 3), core_seconds=round(core, 3), difference=difference, others=others.share)
    print(row, flush=True)
    return row


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--quick', action='store_true', help='two sizes, and nothing is kept')
    p.add_argument('--chunk', type=int, default=2048, help='tokens in memory at a time')
    p.add_argument('--child', choices=WAYS, help=argparse.SUPPRESS)
    p.add_argument('--frames', type=int, help=argparse.SUPPRESS)
    p.add_argument('--out', help=argparse.SUPPRESS)
    args = p.parse_args()
    torch.set_num_threads(1)
    if args.child:
        return child(args.child, args.frames, args.chunk, args.out)
    sizes = [16, 32] if args.quick else [16, 64, 256, 1024, 4096]
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder) if args.quick else RESULTS
        (to/'streaming.csv').unlink(missing_ok=True)
        for way, n in [(w, n) for n in sizes for w in ('whole', 'stream', 'windows')] + [('stream', 16384)]*(not args.quick):
            append_rows('streaming', [measure(way, n, args.chunk, folder)], to)


if __name__ == '__main__':
    main()
