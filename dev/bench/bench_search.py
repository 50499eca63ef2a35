"""What an index costs, and what a question costs, against the number of clips.

    python dev/bench/bench_search.py             1000 to 64 000 clips, on one thread
    python dev/bench/bench_search.py --quick     100 clips, into a temporary folder: does it run?

Features are random, 512 numbers each, with thumbnails of 3000 bytes; ten clips make a file. Times are of the processor, so
that others on the machine disturb them less, and medians; encoding clips and sentences is left out: it depends on the model.
"""
import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import RESULTS, write_rows

from videomamba_nb.index_file import Clip, IndexFile
from videomamba_nb.search import _best
from videomamba_nb.search_parts import to_bytes


def fill(file, vectors):
    "Write an index with ten clips per file, a thousand files at a time."
    blobs, group = to_bytes(vectors), 1000
    with IndexFile(file, write=True) as index:
        index.start(dict(folder='.'), ())
        files = [blobs[i:i+10] for i in range(0, len(blobs), 10)]
        for start in range(0, len(files), group):
            with index.change():
                for i, rows in enumerate(files[start:start+group], start):
                    clips = [Clip(100*j, 100*j+100, o, (len(vectors[0]),), bytes(3000)) for j, o in enumerate(rows)]
                    index.put(f'{i:06}.mp4', (1, i), str(i), clips, 1000, 10.)


def spent(call):
    "Seconds of the processor, and the answer."
    start = time.process_time()
    found = call()
    return time.process_time()-start, found


def measure(n, folder, width=512, rounds=5):
    "One row for an index of n clips."
    file = folder/f'{n}.sqlite'
    vectors = torch.nn.functional.normalize(torch.randn(n, width), dim=1)
    write_s, _ = spent(lambda: fill(file, vectors))
    def ask():
        with IndexFile(file) as index:
            return _best(index, folder, vectors[n//2].numpy(), 5, False)[0]
    times, answers = zip(*(spent(ask) for _ in range(rounds)))
    assert all(o[0].score > .99 for o in answers), 'a vector must find itself'
    size = file.stat().st_size
    file.unlink()
    return dict(clips=n, width=width, megabytes=round(size/1e6, 2), write_s=round(write_s, 3),
                search_s=round(statistics.median(times), 4), rounds=rounds)


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--quick', action='store_true', help='tiny, into a temporary folder')
    args = p.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as tmp:
        rows = [measure(n, Path(tmp)) for n in ((100,) if args.quick else (1000, 4000, 16_000, 64_000))]
        write_rows('search', rows, tmp if args.quick else RESULTS)
    for row in rows: print(row)
    return rows


if __name__ == '__main__': main()
