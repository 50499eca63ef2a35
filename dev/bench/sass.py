"""Count what Triton's machine code does per token, channel and state, without a GPU. Run: python dev/bench/sass.py

The package's own functions are called on tensors in main memory; every kernel they would launch is compiled for sm_90
with Triton's bundled assembler instead. The loop that does the work is found in the machine code and its instructions
are sorted. `slots` are instructions per element and lane, `unit` the cycles that the exponential unit is busy with one
(8 per instruction: it serves 4 lanes a cycle); an element is one token, channel and state.
"""
import argparse
import collections
import contextlib
import json
import re
import subprocess
import tempfile
from pathlib import Path
from unittest.mock import patch

import torch
import triton
import triton.language as tl
from common import write_rows
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from videomamba_nb import scan_triton, scan_triton_bwd
from videomamba_nb.ssm import Direction

KINDS = {'exp': r'MUFU', 'float': r'F(FMA|ADD|MUL)|HFMA2', 'load': r'LDG|LD\b', 'store': r'STG|ST\b|RED|ATOM',
         'spill': r'LDL|STL', 'shared': r'LDS|STS', 'shuffle': r'SHFL', 'select': r'F?SEL|[FI]SETP|F?MNMX|PLOP3|P2R|R2P',
         'sync': r'BAR|WARPSYNC|BSSY|BSYNC|DEPBAR|NOP|BRA|EXIT|CALL|RET|VOTE'}


class Sm90:
    "What Triton asks of a driver before it compiles: an H100 that is not there."
    def get_current_target(self): return GPUTarget('cuda', 90, 32)
    def get_current_device(self): return 0
    def get_current_stream(self, device): return 0
    def get_active_torch_device(self): return torch.device('cpu')


@contextlib.contextmanager
def compiling():
    "Inside, a launch only compiles; yields the list of (kernel's name, its options, what was compiled)."
    found, run = [], JITFunction.run
    def compile_only(self, *args, grid, warmup, **options):
        found.append((self.__name__, options, run(self, *args, grid=grid, warmup=True, **options)))
    triton.runtime.driver.set_active(Sm90())
    JITFunction.run = compile_only
    try:
        yield found
    finally:
        JITFunction.run = run


def dump(cubin, flag):
    "What cuobjdump says about a compiled kernel."
    with tempfile.TemporaryDirectory() as tmp:
        path = Path(tmp)/'kernel.cubin'
        path.write_bytes(cubin)
        tool = Path(triton.__file__).parent/'backends/nvidia/bin/cuobjdump'
        return subprocess.run([tool, flag, path], capture_output=True, text=True, check=True).stdout


def instructions(cubin):
    "Addresses and texts, in order."
    lines = re.findall(r'^\s+/\*([0-9a-f]{4,6})\*/\s+(.*?);?\s*/\*', dump(cubin, '-sass'), re.M)
    return [(int(a, 16), text) for a, text in lines]


def loops(code):
    "First and last line of each loop: a branch backward closes one."
    line = {a: i for i, (a, _) in enumerate(code)}
    for i, (a, text) in enumerate(code):
        m = re.search(r'\bBRA\b.*?(0x[0-9a-f]+)', text)
        if m and int(m[1], 16) < a:
            yield line[int(m[1], 16)], i


def kind(text):
    "What an instruction does; whatever is not listed is integer work or a move."
    op = next(o for o in text.split() if not o.startswith('@'))
    return next((k for k, p in KINDS.items() if re.match(p, op)), 'integer')


def innermost(code):
    "Instruction counts of each loop that holds no other and computes exponentials."
    spans = sorted(set(loops(code)))
    for s, e in spans:
        if not any(s <= a and b <= e and (a, b) != (s, e) for a, b in spans):
            text = [o for _, o in code[s:e+1]]
            counts = collections.Counter(map(kind, text))
            if counts['exp']:
                yield counts


def facts(compiled, tokens, channels, states, which=lambda counts: True):
    "Registers, spills, shared memory, and the cost of the heaviest innermost loop that `which` accepts."
    name, options, k = compiled
    usage = re.search(r'REG:(\d+) STACK:(\d+)', dump(k.asm['cubin'], '-res-usage'))
    counts = max(filter(which, innermost(instructions(k.asm['cubin']))), key=lambda c: sum(c.values()))
    elements = tokens*channels*states/(32*options['num_warps'])
    row = dict(kernel=name, channels=channels, tokens=tokens, registers=int(usage[1]), spills=int(usage[2]),
               shared=k.metadata.shared, slots=round(sum(counts.values())/elements, 2),
               unit=round(8*counts['exp']/elements, 2))
    return row | {f'{o} per token': round(counts[o]/tokens, 1) for o in (*KINDS, 'integer')}


@triton.jit
def time_on_lanes(u, x, A, B, C, y, L, E: tl.constexpr, N: tl.constexpr, T: tl.constexpr):
    "The road not taken: T tokens of one channel at a time, by a parallel scan along the lanes."
    d, b, t, n = tl.program_id(0), tl.program_id(1), tl.arange(0, T), tl.arange(0, N)
    A = tl.load(A + d*N + n)
    h = A*0.
    for i in range(0, L, T):
        row = b*L + i + t
        dt = tl.load(x + row*E + d).to(tl.float32)
        ui = tl.load(u + row*E + d).to(tl.float32)
        a = tl.exp2(dt[None, :]*A[:, None])
        new = (dt*ui)[None, :]*tl.trans(tl.load(B + row[:, None]*N + n[None, :]))
        new += tl.where(t == 0, 1., 0.)[None, :]*a*h[:, None]
        a, s = tl.associative_scan((a, new), 1, join)
        h = tl.sum(tl.where(t == T-1, 1., 0.)[None, :]*s, axis=1)
        tl.store(y + row*E + d, tl.sum(s*tl.trans(tl.load(C + row[:, None]*N + n[None, :])), axis=0))


@triton.jit
def join(a1, x1, a2, x2):
    "Two steps as one."
    return a1*a2, a2*x1 + x2


def arguments(dtype=torch.bfloat16, b=1, e=1152, length=301, n=16, m=2):
    "Both directions of a VideoMamba-M layer; only sizes, strides and dtypes matter, nothing is computed."
    def rows():
        return torch.empty(b, length, e, dtype=dtype).transpose(1, 2)
    def direction():
        BC = torch.empty(b, 1, n, length, dtype=dtype)
        return Direction(rows(), rows(), torch.empty(e, n), BC, BC, torch.empty(e), torch.empty(e))
    return [direction() for _ in range(m)], rows(), None, True


def forward(dtype=torch.bfloat16, keep=False, channels=32, n=16, m=2, chunks=1):
    "What a forward scan compiles."
    with compiling() as found, patch.object(scan_triton, 'channels_per_program', lambda *a: channels):
        scan_triton.scan_forward(*arguments(dtype, n=n, m=m), keep, chunks=chunks)
    return found


def backward(dtype=torch.bfloat16, n=16, **options):
    "What a backward scan compiles."
    dirs, z, h0, softplus = arguments(dtype, n=n)
    with compiling() as found:
        saved = scan_triton.new_saved(z, n, 2, True)
        scan_triton_bwd.backward(z, None, dirs, z, h0, softplus, saved, **options)
    return found


def meeting(name, tokens=4, channels=32, n=16, **options):
    "Rows of the two halves."
    for half, compiled in zip(('first half', 'second half'), forward(channels=channels, n=n, **options)):
        yield dict(name=half+name) | facts(compiled, tokens, channels, n)


def chunked():
    "Rows of the small-batch path."
    states, _, scan = forward(chunks=3)
    yield dict(name='chunk states') | facts(states, 4, 32, 16)
    yield dict(name='chunk scan') | facts(scan, 4, 32, 16)


def back(name='', dtype=torch.bfloat16):
    "Rows of the two loops of the backward kernel."
    compiled, = backward(dtype)
    yield dict(name='backward, states again'+name) | facts(compiled, 4, 32, 16, lambda c: not c['shuffle'])
    yield dict(name='backward, undo'+name) | facts(compiled, 4, 32, 16)


def misplaced():
    "A row for the layout that Triton would choose if it knew that `A` starts at a multiple of 16 bytes."
    with patch.object(scan_triton, '_meet', triton.jit(scan_triton._meet.fn, do_not_specialize=['L', 'split'])):
        yield next(meeting('')) | dict(name='states on lanes')


def parallel():
    "A row for the parallel scan over time."
    e, n, x, BC = 1152, 16, torch.empty(1, 301, 1152, dtype=torch.bfloat16), torch.empty(1, 301, 16)
    with compiling() as found:
        time_on_lanes[(e, 1)](x, x, torch.empty(e, n), BC, BC, x, 301, E=e, N=n, T=128, num_warps=1)
    yield dict(name='time on lanes') | facts(found[0], 128, 1, n)


def quick():
    "The rows that the tests limit."
    yield from (*meeting(''), *meeting(', training', keep=True), *chunked(), *back(), *misplaced())


def rows():
    "All that the notebooks show."
    yield from quick()
    yield from meeting(', 64 channels', tokens=2, channels=64)
    yield from meeting(', float32', dtype=torch.float32)
    yield from meeting(', 64 states', tokens=1, n=64)
    one, = forward(m=1)
    yield dict(name='one direction') | facts(one, 4, 32, 16)
    yield from parallel()
    yield from back(', float32', torch.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--quick', action='store_true', help='print the rows that the tests limit, and write nothing')
    if parser.parse_args().quick:
        return print(json.dumps(list(quick())))
    about = dict(device='sm_90, compiled and not run', triton=triton.__version__)
    found = [about | row for row in rows()]
    for row in found:
        print({k: row[k] for k in ('name', 'registers', 'spills', 'shared', 'slots', 'unit')})
    print('wrote', write_rows('sass', found))


if __name__ == '__main__':
    main()
