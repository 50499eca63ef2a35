"""Compile the block's Triton kernels for an H100 or H200 without a GPU, and count what the compiler made of them.

    python dev/bench/offline.py        writes dev/bench/results/block_sass.csv
"""
import os
import re
import subprocess
import tempfile
from pathlib import Path

os.environ.pop('TRITON_INTERPRET', None)  # kernels to compile, not to interpret

from common import write_rows

from videomamba_nb import block_triton, norm_triton

SM = 90


def compiled(fn, pointers, numbers, constants, warps=1, options=None):
    "One kernel for sm_90: `pointers` and `numbers` give a type per name, 16-byte alignment is assumed for pointers."
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile
    names = fn.arg_names
    kinds = {k: f'*{v}' for k, v in pointers.items()} | numbers | dict.fromkeys(constants, 'constexpr')
    aligned = [k for k in names if k in pointers or (k in numbers and k in ('e', 'd', 'sb', 'sl', 'gb', 'gl', 'hb', 'hl'))]
    attrs = {(names.index(k),): [['tt.divisibility', 16]] for k in aligned}
    source = ASTSource(fn=fn, signature={k: kinds[k] for k in names}, constexprs=constants, attrs=attrs)
    return compile(source, target=GPUTarget('cuda', SM, 32), options=dict(num_warps=warps) | (options or {}))


def tool():
    "Triton brings NVIDIA's disassembler along."
    import triton
    return Path(triton.__file__).parent/'backends/nvidia/bin/cuobjdump'


def dump(kernel, flag):
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder)/'k.cubin'
        cubin.write_bytes(kernel.asm['cubin'])
        r = subprocess.run([tool(), flag, cubin], capture_output=True, text=True, check=True)
    return r.stdout+r.stderr


def resources(kernel):
    "Registers per thread, bytes spilled to memory, bytes of shared memory."
    found = re.search(r'REG:(\d+) STACK:(\d+) SHARED:(\d+)', dump(kernel, '-res-usage'))
    return dict(zip(('registers', 'spilled', 'shared'), map(int, found.groups())))


def longest_loop(kernel):
    "Instructions in the longest loop of the machine code, 0 if there is none."
    lines = re.findall(r'^\s+/\*([0-9a-f]{4,6})\*/\s+(.*?);', dump(kernel, '-sass'), re.M)
    at = {int(a, 16): i for i, (a, _) in enumerate(lines)}
    jumps = [(i, re.search(r'\bBRA\b.*?(0x[0-9a-f]+)', s)) for i, (_, s) in enumerate(lines)]
    back = [i-at[int(m[1], 16)]+1 for i, m in jumps if m and at.get(int(m[1], 16), i) < i]
    return max(back, default=0)


def conv(both=True, k=4, dtype='bf16'):
    signal = dict.fromkeys(('x_ptr', 'u_ptr', 'ub_ptr'), dtype)
    weight = dict.fromkeys(('w_ptr', 'b_ptr', 'wb_ptr', 'bb_ptr'), 'fp32')
    sizes = dict.fromkeys(('e', 'l', 'sb', 'sl'), 'i32')
    return compiled(block_triton._conv_fwd, signal | weight, sizes, dict(K=k, BOTH=both, E=128, T=64, U=4, se=1))


def conv_back(both=True, k=4, dtype='bf16'):
    signal = dict.fromkeys(('g_ptr', 'h_ptr', 'x_ptr', 'gx_ptr'), dtype)
    weight = dict.fromkeys(('w_ptr', 'b_ptr', 'wb_ptr', 'bb_ptr', 'sum_ptr'), 'fp32')
    sizes = dict.fromkeys(('e', 'l', 'sb', 'sl', 'gb', 'gl', 'hb', 'hl'), 'i32')
    return compiled(block_triton._conv_bwd, signal | weight, sizes, dict(K=k, BOTH=both, E=64, T=64, se=1, ge=1, he=1))


def norm(D=1024, dtype='bf16'):
    pointers = dict(x_ptr=dtype, r_ptr='fp32', w_ptr='fp32', y_ptr=dtype, s_ptr='fp32', rstd_ptr='fp32')
    return compiled(norm_triton._norm_fwd, pointers, dict(d='i32', eps='fp32'), dict(ADD=True, D=D), norm_triton._warps(D))


def norm_back(D=1024, dtype='bf16'):
    pointers = dict.fromkeys(('gs_ptr', 's_ptr', 'w_ptr', 'rstd_ptr', 'gr_ptr', 'sum_ptr'), 'fp32')
    pointers |= dict(gy_ptr=dtype, gx_ptr=dtype)
    sizes = dict.fromkeys(('d', 'rows', 'each'), 'i32')
    return compiled(norm_triton._norm_bwd, pointers, sizes, dict(LATER=True, BOTH=True, D=D), norm_triton._warps(D))


# name -> (compile, channel-tokens that one lane handles per turn of the loop)
KERNELS = {'convolution, both ways': (conv, 16), 'convolution, one way': (lambda: conv(both=False), 16),
           'its gradient, both ways': (conv_back, 2), 'its gradient, one way': (lambda: conv_back(both=False), 2),
           'sum and norm, d up to 512': (lambda: norm(512), 0), 'sum and norm, d up to 1024': (norm, 0),
           'their gradient, d up to 512': (lambda: norm_back(512), 16), 'their gradient, d up to 1024': (norm_back, 8)}


def measure(name):
    "What one kernel of `KERNELS` needs."
    make, per_lane = KERNELS[name]
    kernel = make()
    slots = round(longest_loop(kernel)/per_lane, 1) if per_lane else 0
    return dict(kernel=name) | resources(kernel) | dict(slots=slots)


def main():
    import triton
    rows = [dict(triton=triton.__version__, target=f'sm_{SM}') | measure(k) for k in KERNELS]
    for r in rows: print(r)
    print('wrote', write_rows('block_sass', rows))


if __name__ == '__main__':
    main()
