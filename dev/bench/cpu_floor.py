"""What this processor can do at most: exponentials, the recurrence in registers, multiply-adds, memory.
Run: python dev/bench/cpu_floor.py [--out FOLDER] [--rounds 15] [--threads 1,2]"""
import argparse
import ctypes
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from common import RESULTS, write_rows

SOURCE = Path(__file__).with_name('cpu_floor.c')
FLAGS = '-O3 -std=gnu99 -ffp-contract=fast -fno-math-errno -fno-trapping-math -shared -fPIC'.split()
LIMIT = 3e-7 # an exponential with a larger relative error does not count as a floor
DRIFT = 1e-6 # nor one whose slow decays are all too slow, or all too fast, by more than this share of their rate


def build(folder):
    "Compile the C source for this processor into `folder`, and load it; `RuntimeError` if that is not possible here."
    cc = os.environ.get('CC') or next((o for o in ('cc', 'gcc', 'clang') if shutil.which(o)), None)
    if cc is None:
        raise RuntimeError('the floors need a C compiler: install gcc or clang, or name one in CC')
    lib, errors = Path(folder)/'cpu_floor.so', []
    for arch in ('-march=native', '-mcpu=native'): # the second for ARM with clang
        r = subprocess.run([cc, *FLAGS, arch, str(SOURCE), '-o', str(lib), '-lm'], capture_output=True, text=True)
        if r.returncode == 0:
            return _typed(ctypes.CDLL(str(lib)))
        errors.append(r.stderr.strip()[-500:])
    raise RuntimeError(f'{cc} cannot build {SOURCE.name}: {errors}')


def _typed(lib):
    i, l, d, p = ctypes.c_int, ctypes.c_long, ctypes.c_double, ctypes.c_void_p
    kinds = dict(exp_count=(i,), exp_name=(ctypes.c_char_p, i), exp_width=(i, i), exp_run=(None, i, i, p, p, l),
                 exp_time=(d, i, i, l), recurrence_time=(d, i, i, l), fma_rate=(d, l), triad_time=(d, p, p, p, l, l),
                 floor_init=(None,))
    for name, (result, *args) in kinds.items():
        getattr(lib, name).restype, getattr(lib, name).argtypes = result, args
    lib.floor_init()
    return lib


def names(lib):
    "The algorithms that this processor can run, by number."
    return [lib.exp_name(k).decode() for k in range(lib.exp_count())]


def exp2(lib, k, x, variant=0):
    "Algorithm number `k` on a float32 array."
    n = len(x)
    x = np.ascontiguousarray(np.pad(x, (0, -n % 64)), dtype=np.float32)
    y = np.empty_like(x)
    lib.exp_run(k, variant, x.ctypes.data, y.ctypes.data, len(x))
    return y[:n]


def drift(lib, k):
    "Mean relative error of the rate that slow decays have: what thousands of tokens add up."
    x = np.linspace(-.01, -.001, 2**16, dtype=np.float32)
    return float(abs(np.mean(np.log2(exp2(lib, k, x).astype(np.float64))/x - 1)))


def accuracy(lib, k):
    "Largest relative error on [-126, 0], or infinity if what lies below does not vanish or slow decays drift."
    x = np.linspace(-126, 0, 2**20, dtype=np.float32)
    far = exp2(lib, k, np.array([-127, -150, -1e4, -1e30], dtype=np.float32))
    if not (np.all(far >= 0) and np.all(far <= 1.2e-38)) or drift(lib, k) > DRIFT:
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


def _best(f, threads, rounds):
    "The quickest of some rounds: a ceiling is the best ever seen, whoever else uses the machine."
    with ThreadPoolExecutor(threads) as pool:
        return min(_together(f, threads, pool) for _ in range(rounds))


def variants(time, k):
    "Numbers of the variants of algorithm `k` that `time` can run."
    return [v for v in range(4) if time(k, v, 1) >= 0]


def _exp_row(time, size, k, v, threads, rounds):
    "Nanoseconds per number for one variant, over all threads."
    reps = _reps(lambda n: time(k, v, n)*size)
    return round(_best(lambda: time(k, v, reps), threads, rounds)/threads*1e9, 5)


def exp_rows(lib, threads, rounds=15):
    "Every exponential, alone and in the recurrence."
    rows, kinds = [], (('exp', lib.exp_time, 'vectors'), ('recurrence', lib.recurrence_time, 'states'))
    for k, name in enumerate(names(lib)):
        error = accuracy(lib, k)
        for quantity, time, at_once in kinds:
            size = size_of(lib, quantity, k)
            several = len(variants(time, k)) > 1
            for v in variants(time, k):
                rows.append(dict(quantity=quantity, name=f'{name}, {2**v} {at_once} at once' if several else name,
                                 threads=threads, value=_exp_row(time, size, k, v, threads, rounds), unit='ns',
                                 error=f'{error:.1e}', counts=int(error <= LIMIT)))
    return rows


def triad(lib, megabytes, threads, rounds):
    "Gigabytes per second of a[i] = b[i] + s*c[i], 12 bytes per number, on arrays that fill `megabytes` each."
    n, reps = megabytes*2**18//threads, max(1, 256//megabytes)
    arrays = [[np.ones(n, np.float32) for _ in range(3)] for _ in range(threads)]
    def one(own):
        return lib.triad_time(*(o.ctypes.data for o in own), n, reps)
    with ThreadPoolExecutor(threads) as pool:
        seconds = min(max(pool.map(one, arrays)) for _ in range(rounds))
    return 12*n*threads*reps/seconds/1e9


def memory_rows(lib, threads, rounds=15, megabytes=(16, 128)):
    "Gigabytes per second of a[i] = b[i] + s*c[i], 12 bytes per number, for arrays of two sizes."
    return [dict(quantity='triad', name=f'arrays of {o} MB', threads=threads, unit='GB/s',
                 value=round(triad(lib, o, threads, rounds), 2)) for o in megabytes]


def measure(lib, threads=(1, 2), rounds=15, megabytes=(16, 128)):
    "Every ceiling, as rows: the best of `rounds`."
    rows = []
    for t in threads:
        rows += exp_rows(lib, t, rounds)
        rate = 1/_best(lambda: 1/lib.fma_rate(10**6), t, rounds) # of the slowest thread
        rows.append(dict(quantity='fma', name='multiply-adds', threads=t, value=round(rate*t/1e9, 1), unit='GFLOP/s'))
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


def best_variant(lib, time, rounds=5):
    "The fastest that is accurate enough, of `lib.exp_time` or `lib.recurrence_time`: its two numbers."
    pairs = [(k, v) for k in range(lib.exp_count()) if accuracy(lib, k) <= LIMIT for v in variants(time, k)]
    return min(pairs, key=lambda o: _best(lambda: time(*o, 1000), 1, rounds))


def size_of(lib, quantity, k):
    "Numbers that one repetition computes: an array of exponentials, or 64 tokens of 16 states in one vector of channels."
    return 2048 if quantity == 'exp' else 64*16*lib.exp_width(k)


def floor_call(time, size, best, count, threads, pool):
    "A function that does `count` exponentials or steps of the recurrence, shared between the threads of `pool`."
    reps = max(1, round(count/threads/size))
    return lambda: _together(lambda: time(*best, reps), threads, pool)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', default=RESULTS, help='folder for cpu_floor.csv')
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--threads', default='1,2', help='how many at the same time')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        rows = measure(build(tmp), [int(o) for o in args.threads.split(',')], args.rounds)
    for row in rows:
        print(*(f'{k}={v}' for k, v in row.items() if v != ''))
    for (quantity, threads), value in floors(rows).items():
        print(f'floor: {quantity}, threads {threads}: {value}')
    print('wrote', write_rows('cpu_floor', rows, args.out))


if __name__ == '__main__':
    main()
