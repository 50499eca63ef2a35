"""How much memory one call needs beyond what is there before it: each measurement in a process of its own (Linux).
Run: python dev/bench/memory.py scan cpu 3137, or: python dev/bench/memory.py model vit 64"""
import argparse
import contextlib
import ctypes
import gc
import subprocess
import sys
from pathlib import Path

import torch

STATUS, CLEAR = Path('/proc/self/status'), Path('/proc/self/clear_refs')


def available():
    "Whether this system can tell the peak of one call."
    try:
        CLEAR.write_text('5')
    except OSError:
        return False
    return 'VmHWM' in STATUS.read_text()


def _mib(key):
    return next(int(o.split()[1])/1024 for o in STATUS.read_text().splitlines() if o.startswith(key))


def peak(f):
    "MiB that `f` needs at most beyond what the process holds before it."
    gc.collect()
    with contextlib.suppress(OSError, AttributeError): # glibc: give back what earlier calls left
        ctypes.CDLL(None).malloc_trim(0)
    before = _mib('VmRSS')
    CLEAR.write_text('5')
    f()
    return _mib('VmHWM')-before


def scan_call(name, length, train=False, e=384):
    "A scan of both directions, forward or with gradients."
    import ours
    run = ours.bi_scan(name)
    def call(l):
        fwd, bwd, z = ours.make_scan(e=e, l=l, grads=train)
        def f():
            with torch.set_grad_enabled(train):
                y = run(fwd, bwd, z)
            if train:
                y.sum().backward()
        return f
    call(64)() # compile and load whatever the first call needs
    return call(length)


def model_call(name, frames):
    "One forward pass of a whole model on one clip."
    import ours
    import rivals
    kind = ours.linear_kinds()[-1]
    make = {'vit': rivals.vit, 'timesformer': rivals.timesformer}.get(name, ours.tiny)
    scan = contextlib.nullcontext if make is not ours.tiny else lambda: ours.model_scan(name)
    def call(t):
        model, x = make(t).eval(), torch.randn(1, 3, t, 224, 224)
        def f():
            with ours.same_linear(kind), scan(), torch.inference_mode():
                model(x)
        return f
    call(1)()
    return call(frames)


def measure(kind, name, size, train=False, threads=1):
    "MiB of one call, in a fresh process; None if that process fails."
    command = [sys.executable, __file__, kind, name, str(size), '--threads', str(threads)]
    r = subprocess.run(command + ['--train']*train, capture_output=True, text=True)
    if r.returncode:
        print(f'{kind} {name} {size}: {r.stderr.strip()[-300:]}', file=sys.stderr)
        return None
    return float(r.stdout.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('kind', choices=['scan', 'model'])
    parser.add_argument('name', help='backend of a scan or of VideoMamba-Ti, vit or timesformer')
    parser.add_argument('size', type=int, help='tokens of a scan, frames of a model')
    parser.add_argument('--train', action='store_true', help='with gradients (scan only)')
    parser.add_argument('--threads', type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    call = scan_call(args.name, args.size, args.train) if args.kind == 'scan' else model_call(args.name, args.size)
    print(f'{peak(call):.2f}')


if __name__ == '__main__':
    main()
