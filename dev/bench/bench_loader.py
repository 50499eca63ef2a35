"""Clips per second that a loader hands out: per reader, number of loader processes, and length of the files.

    python dev/bench/bench_loader.py             files of 10 s and of 3 minutes, 240 x 320 pixels: under 3 minutes
    python dev/bench/bench_loader.py --quick     tiny files, into a temporary folder: does it run?

Whole items are timed: open, decode 8 frames, crop to 224 x 224, normalise, hand over one by one. The clock starts when
the first clip arrives, so that starting the loader processes does not count. The reader that decodes from the first
frame on is timed in this process only. `cpu_ms` is the processor time per clip of all processes together, which a busy
machine disturbs little. `others` is the share of the machine that all other processes used meanwhile, the loader's
among them: without those, measure again where it is not near 0.
"""
import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, Others, write_rows
from torch.utils.data import DataLoader

from videomamba_nb.data import VideoDataset
from videomamba_nb.video import write_video

FPS = 25
FULL = dict(seconds=(10, 180), shape=(240, 320), size=224, spend=12.)
QUICK = dict(seconds=(1, 2), shape=(32, 64), size=16, spend=.1)


def film(path, seconds, shape):
    "A video of a soft texture that wanders, with a key frame every 10 s, as encoders put them unless told otherwise."
    h, w = shape
    rng = np.random.default_rng(0)
    page = np.kron(rng.integers(0, 256, (2*h//16, 2*w//16, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8))
    starts = [(abs((i//2) % (2*h) - h)//2, abs(i % w - w//2)) for i in range(seconds*FPS)]
    write_video(path, np.stack([page[y:y+h, x:x+w] for y, x in starts]), FPS, g='250')


def used():
    "Processor seconds of this process and of its children that have ended."
    return sum(os.times()[:4])


def clips_per_second(samples, reader, workers, size, spend):
    "An epoch of 4 to 64 clips, timed from its first clip on."
    def data(n):
        listed = [samples[i % len(samples)] for i in range(n)]
        return VideoDataset(listed, 8, size, 'train', backend=reader)
    start = time.perf_counter()
    data(1)[0]
    n = min(64, max(4, round(spend/(time.perf_counter()-start))))
    clips, cpu = iter(DataLoader(data(n+1), None, num_workers=workers, prefetch_factor=1 if workers else None)), used()
    next(clips)
    start = time.perf_counter()
    rate = sum(1 for _ in clips)/(time.perf_counter()-start)
    del clips # its processes end here, and their time is known
    return dict(clips_per_s=round(rate, 3), cpu_ms=round((used()-cpu)/(n+1)*1e3, 1), clips=n)


def measure(folder, seconds, shape, size, spend):
    "Rows of the table."
    rows = []
    for s in seconds:
        samples = [(folder/f'{s}_{k}.mp4', 0) for k in range(2)]
        film(samples[0][0], s, shape)
        os.link(*(p for p, _ in samples))
        for reader, workers in [(r, w) for r in ('decord', 'av') for w in (0, 1, 2)] + [('av_in_order', 0)]:
            with Others() as others:
                speed = clips_per_second(samples, reader, workers, size, spend)
            rows.append(dict(seconds=s, height=shape[0], width=shape[1], reader=reader, workers=workers) | speed
                        | dict(cores=os.cpu_count(), others=others.share))
            print(rows[-1], flush=True)
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--quick', action='store_true', help='tiny files, into a temporary folder')
    p.add_argument('--out', type=Path, help='folder for the table; `results`, or a temporary one with --quick')
    args = p.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as tmp:
        rows = measure(Path(tmp), **(QUICK if args.quick else FULL))
    out = args.out or (Path(tempfile.mkdtemp()) if args.quick else RESULTS)
    print('wrote', write_rows('loader', rows, out))


if __name__ == '__main__':
    main()
