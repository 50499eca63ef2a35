"""What this processor can do at most: exponentials, the recurrence in registers, multiply-adds, memory.
Run: python dev/bench/cpu_floor.py [--out FOLDER] [--rounds 15]"""
import argparse
import ctypes
import os
import shutil
import statistics
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from common import RESULTS, write_rows

SOURCE = Path(__file__).with_name('cpu_floor.c')
FLAGS = '-O3 -std=gnu99 -ffp-contract=fast -fno-math-errno -fno-trapping-math -shared -fPIC'.split()
LIMIT = 3e-7 # an exponential with a larger relative error does not count as a floor


def build(folder=None):
    "Compile the C source for this processor and load it; `RuntimeError` if that is not possible here."
    cc = os.environ.get('CC') or next((o for o in ('cc', 'gcc', 'clang') if shutil.which(o)), None)
    if cc is None:
        raise RuntimeError('the floors need a C compiler: install gcc or clang, or name one in CC')
    with tempfile.TemporaryDirectory() as tmp:
        lib, errors = Path(folder or tmp)/'cpu_floor.so', []
        for arch in ('-march=native', '-mcpu=native'): # the second for ARM with clang
            r = subprocess.run([cc, *FLAGS, arch, str(SOURCE), '-o', str(lib), '-lm'], capture_output=True, text=True)
            if r.returncode == 0:
                return _typed(ctypes.CDLL(str(lib)))
            errors.append(r.stderr.strip()[-500:])
    raise RuntimeError(f'{cc} cannot build {SOURCE.name}: {errors}')


def _typed(lib):
    i, l, d, p = ctypes.c_int, ctypes.c_long, ctypes.c_double, ctypes.c_void_p
    kinds = dict(exp_count=(i,), exp_name=(ctypes.c_char_p, i), exp_run=(None, i, p, p, l), exp_time=(d, i, l),
                 recurrence_time=(d, i, i, l), fma_rate=(d, l), triad_time=(d, p, p, p, l, l), floor_init=(None,))
    for name, (result, *args) in kinds.items():
        getattr(lib, name).restype, getattr(lib, name).argtypes = result, args
    lib.floor_init()
    return lib


def names(lib):
    "The algorithms that this processor can run, by number."
    return [lib.exp_name(k).decode() for k in range(lib.exp_count())]


def exp2(lib, k, x):
    "Algorithm number `k` on a float32 array."
    n = len(x)
    x = np.ascontiguousarray(np.pad(x, (0, -n % 16)), dtype=np.float32)
    y = np.empty_like(x)
    lib.exp_run(k, x.ctypes.data, y.ctypes.data, len(x))
    return y[:n]


def accuracy(lib, k):
    "Largest relative error on [-126, 0], or infinity if what lies below does not vanish."
    x = np.linspace(-126, 0, 2**20, dtype=np.float32)
    far = exp2(lib, k, np.array([-127, -150, -1e4, -1e30], dtype=np.float32))
    if not (np.all(far >= 0) and np.all(far <= 1.2e-38)):
        return float('inf')
    want = np.exp2(x.astype(np.float64))
    return float(np.abs(exp2(lib, k, x)/want - 1).max())


def _together(f, threads, pool):
    "Run `f` on each thread at the same time (ctypes lets go of the interpreter) and return the slowest."
    return max(pool.map(lambda _: f(), range(threads)))


def _reps(f, seconds=.02):
    "Repetitions that take about `seconds`, where f(reps) gives seconds per repetition."
    f(20)
    return max(20, int(seconds/f(20)))


def _median(f, threads, rounds):
    with ThreadPoolExecutor(threads) as pool:
        return statistics.median(_together(f, threads, pool) for _ in range(rounds))


def exp_rows(lib, threads, rounds=15):
    "Nanoseconds per exponential and per recurrence step of every algorithm, over all threads."
    rows, blocks = [], (4, 8, 16)
    for k, name in enumerate(names(lib)):
        error = accuracy(lib, k)
        row = dict(threads=threads, unit='ns', error=f'{error:.1e}', counts=int(error <= LIMIT))
        reps = _reps(lambda n: lib.exp_time(k, n)*2048)
        value = _median(lambda: lib.exp_time(k, reps), threads, rounds)/threads*1e9
        rows.append(row | dict(quantity='exp', name=name, value=round(value, 5)))
        for i, block in enumerate(blocks):
            if lib.recurrence_time(k, i, 1) < 0:
                continue
            reps = _reps(lambda n: lib.recurrence_time(k, i, n)*8192)
            value = _median(lambda: lib.recurrence_time(k, i, reps), threads, rounds)/threads*1e9
            label = f'{name}, {block} states' if name != 'plain_deg5' else name
            rows.append(row | dict(quantity='recurrence', name=label, value=round(value, 5)))
    return rows


def memory_rows(lib, threads, rounds=15, megabytes=(16, 128)):
    "Gigabytes per second of a[i] = b[i] + s*c[i], 12 bytes per number, for arrays of two sizes."
    rows = []
    for mb in megabytes:
        n = mb*2**18//threads
        arrays = [[np.ones(n, np.float32) for _ in range(3)] for _ in range(threads)]
        reps = max(1, 256//mb)
        with ThreadPoolExecutor(threads) as pool:
            times = [max(pool.map(lambda a: lib.triad_time(*(o.ctypes.data for o in a), n, reps), arrays)) for _ in range(rounds)]
        value = 12*n*threads*reps/statistics.median(times)/1e9
        rows.append(dict(quantity='triad', name=f'arrays of {mb} MB', threads=threads, value=round(value, 2), unit='GB/s'))
    return rows


def measure(lib, threads=(1, 2), rounds=15, megabytes=(16, 128)):
    "Every ceiling, as rows: medians over `rounds`."
    rows = []
    for t in threads:
        rows += exp_rows(lib, t, rounds)
        rate = _median(lambda: -lib.fma_rate(10**6), t, rounds)
        rows.append(dict(quantity='fma', name='multiply-adds', threads=t, value=round(-rate*t/1e9, 1), unit='GFLOP/s'))
        rows += memory_rows(lib, t, rounds, megabytes)
    keys = ('quantity', 'name', 'threads', 'value', 'unit', 'error', 'counts')
    return [{k: row.get(k, '') for k in keys} for row in rows]


def floors(rows):
    "The best value of each quantity: (quantity, threads) -> number; exponentials must be accurate to count."
    best = {}
    for row in rows:
        if str(row['counts']) == '0':
            continue
        key, value = (row['quantity'], int(row['threads'])), float(row['value'])
        better = min if row['unit'] == 'ns' else max
        best[key] = better(best.get(key, value), value)
    return best


def best_exp(lib, rounds=5):
    "Number of the fastest exponential that is accurate enough."
    ks = [k for k in range(lib.exp_count()) if accuracy(lib, k) <= LIMIT]
    return min(ks, key=lambda k: _median(lambda: lib.exp_time(k, 2000), 1, rounds))


def exp_call(lib, k, count, threads, pool, repeat=20):
    "A function that times `count` exponentials over all threads, in milliseconds; repeated so that starting costs nothing."
    reps = max(1, count*repeat//threads//2048)
    return lambda: _together(lambda: lib.exp_time(k, reps), threads, pool)*count/threads*1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', default=RESULTS, help='folder for cpu_floor.csv')
    parser.add_argument('--rounds', type=int, default=15)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        rows = measure(build(tmp), (1, 2) if (os.cpu_count() or 1) > 1 else (1,), args.rounds)
    for row in rows:
        print(*(f'{k}={v}' for k, v in row.items() if v != ''))
    for (quantity, threads), value in floors(rows).items():
        print(f'floor: {quantity}, threads {threads}: {value}')
    print('wrote', write_rows('cpu_floor', rows, args.out))


if __name__ == '__main__':
    main()
