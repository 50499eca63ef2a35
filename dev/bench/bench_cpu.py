"""VideoMamba on a CPU against what people use today: scans, whole models, training steps, memory, and the floor.

    python dev/bench/bench_cpu.py                        everything, 1 and 2 threads, default and tuned malloc
    python dev/bench/bench_cpu.py --only scan,floor      some steps of floor, scan, model, train, memory
    python dev/bench/bench_cpu.py --resume               what an interrupted run of this commit has left out
    python dev/bench/bench_cpu.py --quick                tiny shapes, into a temporary folder: does it run?
    python dev/bench/bars.py                             the summary again, from the tables

Within a table all calls take turns, round by round, in one process of its own; each number is a median. A table is one
size, number of threads and setting of malloc (tuned: glibc keeps large blocks that are freed; the same for everybody).
The column `others` is the share of the machine that other processes used meanwhile: measure again where it is not near 0.
The column `triad` is the memory bandwidth at that time, in GB/s. On a virtual machine it tells which cores one was
given: two that share a last cache pass their results on quickly, two that do not have more bandwidth and less speed."""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import metadata
from pathlib import Path

import bars
import cpu_floor
import memory
import ours
import rivals
import torch
import torch.nn.functional as F
from common import RESULTS, Others, append_rows, has_glibc, read_rows, timings, tune_malloc, where, write_rows

STEPS = ('floor', 'scan', 'model', 'train', 'memory')
LENGTHS = (197, 785, 1569, 3137, 6273, 12545)
TINY = dict(img_size=32, depth=2)
REPEAT = 20 # the floor is repeated this often, so that starting threads costs nothing beside it


def tables(step, quick=False, threads=2):
    "The sizes to measure in one step."
    if step in ('floor', 'scan'):
        size = dict(b=1, e=32, n=4) if quick else dict(b=1, e=384, n=16)
        if step == 'floor':
            return [size | dict(l=l) for l in ((65,) if quick else (1569, 12545))]
        return [size | dict(l=l, grads=g) for g in (0, 1) for l in ((65,) if quick else LENGTHS)]
    frames = (2,) if quick else (8, 16, 32, 64) if step == 'model' and threads > 1 else (8,)
    return [dict(frames=t, linear=kind) for t in frames for kind in ours.linear_kinds()]


def scan_calls(b, e, n, l, grads):
    "Every scan of both directions that can run, forward or with all gradients."
    fwd, bwd, z = ours.make_scan(b, e, n, l, grads=bool(grads))
    leaves, go = ours.leaves(fwd, bwd, z), torch.ones(b, e, l)
    def call(scan):
        with torch.set_grad_enabled(bool(grads)):
            y = scan(fwd, bwd, z)
        if grads:
            torch.autograd.grad(y, leaves, go)
    slow = dict(loop=3137) if grads else {} # the loop's gradients cost the square of the length
    names = [k for k in ('cpu', 'chunked', 'mambapy', 'loop') if ours.can_run(k) and l <= slow.get(k, l)]
    return {k: partial(call, ours.bi_scan(k)) for k in names}


def floor_calls(lib, pool, threads, b, e, n, l):
    "The scan beside the exponentials and the recurrence that it cannot do without, both directions."
    calls, count = {}, REPEAT*2*b*e*n*l
    for k, time in (('exp', lib.exp_time), ('recurrence', lib.recurrence_time)):
        best = cpu_floor.best_variant(lib, time)
        size = cpu_floor.size_of(lib, k, best[0])
        calls[f'{k} floor'] = cpu_floor.floor_call(time, size, best, count, threads, pool)
    scans = scan_calls(b, e, n, l, 0)
    return calls | {k: v for k, v in scans.items() if k in ('cpu', 'chunked')}


def model_calls(frames, train, size):
    "VideoMamba-Ti on every scan, and the transformers, on one clip: forward, or a training step without the optimiser."
    names = [k for k in ('cpu', 'chunked', 'mambapy') if ours.can_run(k) and (k != 'mambapy' or frames <= 8)]
    if not train and frames <= 8:
        names += ['loop'] + ['PyTorch block, mambapy']*ours.can_run('mambapy')
    side = size.get('img_size', 224)
    x, target = torch.randn(1, 3, frames, side, side), torch.tensor([3])
    def step(model):
        if not train:
            with torch.no_grad():
                return model(x)
        model.zero_grad()
        F.cross_entropy(model(x), target).backward()
    def scanned(model, name):
        with ours.model_scan(name):
            step(model)
    mamba = ours.tiny(frames, **size).train(train)
    calls = {k: partial(scanned, mamba, k) for k in names}
    for make in (rivals.vit, rivals.timesformer):
        calls[make.__name__] = partial(step, make(frames, **size).train(train))
    return calls


def measure(step, config, rounds, limit, quick=False, lib=None):
    "Rows of one table."
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        if step == 'floor':
            times = timings(floor_calls(lib, pool, threads, **config), rounds, limit=limit)
            times = {k: [t/REPEAT for t in ts] if k.endswith('floor') else ts for k, ts in times.items()}
        elif step == 'scan':
            times = timings(scan_calls(**config), rounds, limit=limit)
        else:
            with ours.same_linear(config['linear']):
                calls = model_calls(config['frames'], step == 'train', TINY if quick else {})
                times = timings(calls, rounds, limit=limit)
    return [config | dict(backend=k, ms=round(statistics.median(ts), 4), least=round(min(ts), 4), rounds=len(ts))
            for k, ts in times.items()]


def versions():
    "Versions that a comparison depends on."
    try:
        return dict(mambapy=metadata.version('mambapy'))
    except metadata.PackageNotFoundError:
        return dict(mambapy='')


def is_done(rows, config, here):
    "Whether a table of this commit and machine holds this configuration."
    want = {k: str(v) for k, v in (config | {k: here[k] for k in ('commit', 'device', 'threads')}).items()}
    return any(all(row.get(k) == v for k, v in want.items()) for row in rows)


def show(step, config, rows):
    size = ' '.join(f'{k}={v}' for k, v in config.items())
    print(f'{step} {size}: ' + ', '.join(f"{row['backend']} {row['ms']:.2f}" for row in rows) + ' ms', flush=True)


def child(args):
    "One step with one number of threads and one malloc, in this process."
    step = args.child
    if args.malloc == 'tuned':
        tune_malloc()
    torch.set_num_threads(args.threads)
    setting, name = dict(malloc=args.malloc) | versions(), {'floor': 'cpu_share'}.get(step, f'cpu_{step}')
    with tempfile.TemporaryDirectory() as tmp:
        try:
            lib = cpu_floor.build(tmp)
        except RuntimeError:
            if step == 'floor':
                raise
            lib = None
        for config in tables(step, args.quick, args.threads):
            if args.resume and is_done(read_rows(name, args.out), setting | config, where()):
                continue
            triad = lib and round(cpu_floor.triad(lib, 128, args.threads, 3), 1)
            with Others() as others:
                rows = measure(step, config, args.rounds, args.limit, args.quick, lib)
            state = dict(others=others.share, triad=triad)
            append_rows(name, [setting | row | state for row in rows], args.out)
            show(step, dict(threads=args.threads, malloc=args.malloc) | state | config, rows)


def memory_step(args):
    "Peak memory of scans and of whole models, each in a fresh process, with the default malloc and one thread."
    if not memory.available():
        print('memory: this system does not tell the peak of one call', file=sys.stderr)
        return
    torch.set_num_threads(1)
    lengths, frames = ((65,), 2) if args.quick else ((1569, 12545), 64)
    plan = [dict(kind='scan', size=l, train=0, backend=k) for l in lengths for k in ('cpu', 'chunked', 'mambapy', 'loop')]
    plan += [dict(kind='scan', size=lengths[0], train=1, backend=k) for k in ('cpu', 'chunked', 'mambapy', 'loop')]
    plan += [dict(kind='model', size=frames, train=0, backend=k) for k in ('cpu', 'chunked', 'vit', 'timesformer')]
    missing = {k for k in ('cpu', 'chunked', 'mambapy') if not ours.can_run(k)}
    for row in plan:
        if row['backend'] in missing or args.resume and is_done(read_rows('cpu_memory', args.out), row, where()):
            continue
        mib = memory.measure(row['kind'], row['backend'], row['size'], bool(row['train']))
        if mib is not None:
            append_rows('cpu_memory', [row | dict(mib=mib)], args.out)
            print('memory', *(f'{k}={v}' for k, v in row.items()), f'{mib:.1f} MiB', flush=True)


def ceilings(args):
    "The ceilings of the machine, into cpu_floor.csv."
    here = where() | dict(threads=args.threads[-1])
    if args.resume and is_done(read_rows('cpu_floor', args.out), dict(quantity='triad'), here):
        return
    with tempfile.TemporaryDirectory() as tmp:
        rows = cpu_floor.measure(cpu_floor.build(tmp), args.threads, 3 if args.quick else 15)
    write_rows('cpu_floor', rows, args.out)
    for (quantity, threads), value in cpu_floor.floors(rows).items():
        print(f'floor {quantity} threads={threads}: {value}', flush=True)


def spawn(step, malloc, threads, args):
    "Run one step in a process of its own; a failure is told and the rest goes on."
    command = [sys.executable, __file__, '--child', step, '--malloc', malloc, '--threads', str(threads),
               '--rounds', str(args.rounds), '--limit', str(args.limit), '--out', str(args.out)]
    command += ['--quick']*args.quick + ['--resume']*args.resume
    r = subprocess.run(command, env=os.environ | dict(OMP_NUM_THREADS=str(threads)))
    if r.returncode:
        print(f'{step}, malloc {malloc}, threads {threads}: failed with {r.returncode}', file=sys.stderr)
    return r.returncode


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', default=','.join(STEPS), help='steps, with commas between')
    parser.add_argument('--threads', default='1,2', help='numbers of threads')
    parser.add_argument('--malloc', default='default,tuned', help='settings of malloc')
    parser.add_argument('--rounds', type=int, default=15, help='rounds of a table')
    parser.add_argument('--limit', type=float, default=40., help='seconds after which a table ends, two rounds at least')
    parser.add_argument('--resume', action='store_true', help='keep what this commit has measured on this machine')
    parser.add_argument('--quick', action='store_true', help='tiny shapes, to see that everything runs')
    parser.add_argument('--out', type=Path, help='folder for the tables')
    parser.add_argument('--child', help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.only = args.only.split(',')
    if set(args.only) - set(STEPS):
        parser.error(f'--only knows {", ".join(STEPS)}')
    return args


def main():
    args = parse()
    if args.child:
        args.threads = int(args.threads)
        return child(args)
    args.threads = [int(o) for o in args.threads.split(',')]
    args.out = args.out or (Path(tempfile.mkdtemp(prefix='bench_cpu_')) if args.quick else RESULTS)
    mallocs, failed = args.malloc.split(','), 0
    if 'tuned' in mallocs and not has_glibc():
        mallocs.remove('tuned')
        print('tuned malloc needs glibc: left out', file=sys.stderr)
    for step in STEPS:
        if step not in args.only:
            continue
        if not args.resume:
            for name in ('cpu_share', 'cpu_floor') if step == 'floor' else (f'cpu_{step}',):
                (args.out/f'{name}.csv').unlink(missing_ok=True)
        if step == 'memory':
            memory_step(args)
            continue
        if step == 'floor':
            ceilings(args)
        for threads in args.threads:
            for malloc in mallocs:
                failed |= spawn(step, malloc, threads, args)
    bars.report(args.out)
    sys.exit(failed)


if __name__ == '__main__':
    main()
