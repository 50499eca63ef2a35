"""Everything about the scan that only a GPU can tell, in one command. Needs an H100 or H200, and ten minutes, twice.

    python dev/bench/gpu_scan.py --sdist mamba_ssm-2.3.2.post1.tar.gz      run it again to go on where it stopped
    python dev/bench/gpu_scan.py                                           without the stock kernel, or if it is installed
    python dev/bench/gpu_scan.py --dry-run                                 test of this script on a CPU, tiny sizes

Steps: build (the stock kernel, sm_90 only), rates, correct, scan, block, layer, profile, report. Each row is written to
`results/gpu_<step>.csv` as soon as it is known; rows that are there, of the same commit and device, are not measured
again. `--results` names another folder, `--steps` some of the steps, `--budget` the seconds of one run. The sdist may
also be named by MAMBA_SDIST; `--stock` names a folder with a built `selective_scan_cuda` (a `.so`, or a `.so.xz`).
"""
import argparse
import csv
import glob
import importlib
import io
import lzma
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import gpu_rivals as rivals
import torch
from common import RESULTS, append_rows, read_rows, where

from videomamba_nb import block_triton, conv_cuda
from videomamba_nb.norm_triton import add_norm_torch
from videomamba_nb.scan import scan_form_named
from videomamba_nb.ssm import Direction, selective_scan_seq

STEPS = ('build', 'rates', 'correct', 'scan', 'block', 'layer', 'profile', 'report')
LIMITS = { # of the relative error against float64: forward; u, delta, z; B, C; A, D, bias
    torch.float32: (2e-6, 1e-5, 1e-5, 2e-5), torch.bfloat16: (8e-3, 1e-2, 1e-2, 5e-3),
    torch.float16: (1.5e-3, 3e-3, 3e-3, 2e-3)}
GOALS = [ # what, rival, must, goal, stretch
    ('forward, both ways', 'stock, flips', 3, 4, 5), ('forward, both ways', 'stock padded', 1.8, 2.5, 3),
    ('backward, both ways', 'stock, flips', 2, 2.5, 3.5), ('forward, one way, even 12288', 'stock', 1.3, 1.8, 2.3),
    ('forward, both ways, one clip', 'stock, flips', 1, 1.5, 2), ('forward, both ways', 'loop', 100, 100, 100),
    ('layer, forward and backward', 'fork', 1.5, 2, 2.5)]
INSTRUCTIONS = {'stock': {'M 64 frames': '45', 'even 12288': '22.7'}, 'triton': {'M 64 frames': '9.6 to 11.3'}}


def short(dtype): return str(dtype).removeprefix('torch.')


class Run:
    "What the steps share: arguments, the clock, and the tables."
    def __init__(self, args):
        self.args, self.dry, self.end = args, args.dry_run, time.monotonic()+args.budget
        self.device = 'cpu' if self.dry else 'cuda'
        self.shapes = rivals.TINY if self.dry else rivals.SHAPES
        self.ours, self.stock = ('chunked', 'loop') if self.dry else ('triton', 'stock')
        self.here, self.out_of_time = {k: str(v) for k, v in where().items()}, False
        self.rates = rivals.Rates()

    def left(self): return self.end-time.monotonic()

    def time_for(self, seconds):
        "Is there time for one more? The first no is told, and ends the run."
        if self.left() < seconds and not self.out_of_time:
            self.out_of_time = True
            print(f'out of time ({self.left():.0f} s left): run the same command again to go on', flush=True)
        return not self.out_of_time

    def rows(self, step): return read_rows(f'gpu_{step}', self.args.results)

    def has(self, step, **key):
        key = {k: str(v) for k, v in key.items()} | {k: self.here[k] for k in ('commit', 'device')}
        return any(all(r.get(k) == v for k, v in key.items()) for r in self.rows(step))

    def add(self, step, **row):
        append_rows(f'gpu_{step}', [row], self.args.results)
        print(step, *[f'{k}={v}' for k, v in row.items() if v != ''], flush=True)

    def sync(self):
        if not self.dry: torch.cuda.synchronize()


# ---- time

def clock():
    "The clock of the processors in MHz, as it is."
    try:
        ask = 'nvidia-smi', '--query-gpu=clocks.sm', '--format=csv,noheader,nounits'
        r = subprocess.run(ask, capture_output=True, text=True)
        return r.stdout.split()[0] if r.returncode == 0 else ''
    except OSError: return ''

def measure(run, calls, least=50, most=1.5):
    "Median, 20th and 80th percentile in ms; the calls, one per input set, take turns."
    least = 3 if run.dry else least
    for call in calls: call()
    run.sync()
    start = time.perf_counter()
    calls[0]()
    run.sync()
    once = time.perf_counter()-start
    for i in range(max(1, min(10, int(.3/max(once, 1e-6))))): calls[i % len(calls)]()
    n = max(5, min(least, int(most/max(once, 1e-6)))) if not run.dry else 3
    times = gpu_times(calls, n) if not run.dry else cpu_times(calls, n)
    q = statistics.quantiles(times, n=5, method='inclusive')
    return dict(ms=round(statistics.median(times), 4), p20=round(q[0], 4), p80=round(q[3], 4), iterations=n)

def gpu_times(calls, n):
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(n)]
    for i, (a, b) in enumerate(marks):
        a.record()
        calls[i % len(calls)]()
        b.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) for a, b in marks]

def cpu_times(calls, n):
    times = []
    for i in range(n):
        t = time.perf_counter()
        calls[i % len(calls)]()
        times.append((time.perf_counter()-t)*1e3)
    return times

def graphed(call):
    "The call as a CUDA graph, for sizes at which starting kernels takes longer than running them."
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3): call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph): call()
    return graph.replay


# ---- build

FLAGS = ['-O3', '-std=c++17', '--expt-relaxed-constexpr', '--expt-extended-lambda', '--use_fast_math', '-lineinfo',
         *[f'-U__CUDA_NO_{o}__' for o in ('HALF_OPERATORS', 'HALF_CONVERSIONS', 'BFLOAT16_OPERATORS', 'BFLOAT16_CONVERSIONS',
                                          'BFLOAT162_OPERATORS', 'BFLOAT162_CONVERSIONS')]]

def stock_folder(run): return Path(run.args.stock or Path(tempfile.gettempdir())/'gpu_scan_stock')

def use_stock(folder):
    "Make a built extension in `folder` importable, unpacked if need be."
    for packed in folder.glob('selective_scan_cuda*.so.xz'):
        target = packed.with_suffix('')
        if not target.exists(): target.write_bytes(lzma.decompress(packed.read_bytes()))
    if str(folder) not in sys.path: sys.path.insert(0, str(folder))

def step_build(run):
    "The stock kernel: there, built here, or why not."
    folder, sdist = stock_folder(run), run.args.sdist or os.environ.get('MAMBA_SDIST')
    use_stock(folder)
    start, how = time.monotonic(), 'found'
    try:
        if run.dry: raise ImportError('a dry run builds nothing')
        try: importlib.import_module('selective_scan_cuda')
        except ImportError:
            if not sdist: raise
            compile_stock(sdist, folder)
            how = 'built'
            importlib.invalidate_caches()
            importlib.import_module('selective_scan_cuda')
    except Exception as e:
        lines = str(e).strip().splitlines() or ['']
        how = f'missing: {type(e).__name__}: {lines[0][:100]} ... {lines[-1][:100]}'
    run.add('build', stock=how, seconds=round(time.monotonic()-start, 1))

def compile_stock(sdist, folder):
    "The sources as they are, with the flags of their setup.py, for sm_90 alone."
    import torch.utils.cpp_extension as ext
    os.environ |= {'TORCH_CUDA_ARCH_LIST': '9.0', 'MAX_JOBS': str(os.cpu_count())}
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(sdist) as t: t.extractall(folder, **({'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}))
    source, = glob.glob(str(folder/'*/csrc/selective_scan'))
    files = [*sorted(glob.glob(f'{source}/*.cu')), f'{source}/selective_scan.cpp']
    ext.load('selective_scan_cuda', files, extra_include_paths=[source], build_directory=str(folder), verbose=False,
             extra_cflags=['-O3', '-std=c++17'], extra_cuda_cflags=FLAGS)


# ---- rates

def step_rates(run):
    "Processors, clock and copying speed of this card."
    if run.has('rates'): return
    n = 1 << (16 if run.dry else 29)
    a, b = torch.empty(n, dtype=torch.uint8, device=run.device), torch.empty(n, dtype=torch.uint8, device=run.device)
    ms = measure(run, [lambda: b.copy_(a)])['ms']
    count = 132 if run.dry else torch.cuda.get_device_properties(0).multi_processor_count
    run.add('rates', processors=count, copy_gb_s=round(2*n/ms/1e6, 1), clock_mhz_now='' if run.dry else clock(),
            clock_mhz_assumed=1980)

def read_rates(run):
    row = next((r for r in reversed(run.rows('rates')) if r['device'] == run.here['device']), None)
    if row and not run.dry: run.rates = rivals.Rates(int(row['processors']), 1.98e9, float(row['copy_gb_s'])*1e9)


# ---- correctness

CASES = { # name: (samples, channels, tokens, states)
    '197': (2, 72, 197, 16), '1': (2, 40, 1, 16), '2': (2, 40, 2, 16), '3': (2, 40, 3, 16), '5': (1, 40, 5, 16),
    '8 states': (1, 40, 67, 8), '32 states': (1, 40, 67, 32), '2049': (1, 24, 2049, 16)}

def wide(d): return Direction(*[None if o is None else o.double() for o in d])

def reference(x):
    "Output and gradients in float64, of the same rounded inputs."
    dirs = [Direction(*[None if o is None else o.detach().requires_grad_() for o in wide(d)]) for d in x.dirs]
    z, ys = x.z.double().requires_grad_(), []
    for i, d in enumerate(dirs):
        u, delta, B, C = ((o.flip(-1) if i else o) for o in (d.u, d.delta, d.B, d.C))
        y = selective_scan_seq(u, delta, d.A, B, C, D=d.D, delta_bias=d.delta_bias, delta_softplus=True)
        ys.append(y.flip(-1) if i else y)
    out = sum(ys)*torch.nn.functional.silu(z)
    leaves = [o for d in dirs for o in d if o is not None]
    grads = torch.autograd.grad(out, [*leaves, z], x.g.double())
    names = [f'{k}{i}' for i, d in enumerate(dirs) for k, o in d._asdict().items() if o is not None]
    return {'out': out.detach()} | dict(zip([*names, 'z'], grads))

def results(name, x):
    "The same from one of the forms, twice, to see whether it repeats itself."
    f, args, all_ = scan_form_named(name), (x.dirs, x.z, None, True), []
    for _ in range(2):
        out, _, saved = f.scan_forward(*args, True)
        grads, gz, _ = f.scan_backward(x.g, None, *args, saved)
        found = {f'{k}{i}': o for i, d in enumerate(grads) for k, o in d._asdict().items() if o is not None}
        all_.append({'out': out, 'z': gz} | found)
    same = [all(torch.equal(all_[0][k], all_[1][k]) for k in ks) for ks in (('out',), all_[0])]
    return all_[0], same

def limit(what, dtype):
    kind = what.rstrip('01')
    return LIMITS[dtype][0 if kind == 'out' else 1 if kind in ('u', 'delta', 'z') else 2 if kind in 'BC' else 3]

def error(got, want):
    e = ((got.double()-want).norm()/want.norm().clamp(min=1e-30)).item()
    return e if e == e else float('inf')

def step_correct(run):
    "Every form against float64, in three precisions; never worse than 1.5 times the stock kernel's own error."
    cases = {k: CASES[k] for k in ('1', '3')} if run.dry else CASES
    forms = ['chunked'] if run.dry else [k for k in ('triton', 'cuda', 'chunked') if not rivals.missing(k, run.device)]
    for case, (b, e, l, n) in cases.items():
        for dtype in LIMITS:
            if run.has('correct', case=case, dtype=short(dtype)) or not run.time_for(8): continue
            torch.manual_seed(0)
            x = rivals.inputs((b, e, l), dtype, run.device, n=n)
            want, rows, stock = reference(x), [], {}
            for name in sorted(forms, key=lambda o: o != 'cuda'):
                try: got, (out_same, all_same) = results(name, x)
                except Exception as err:
                    what = f'{type(err).__name__}: {str(err)[:120]}'
                    rows.append(dict(case=case, dtype=short(dtype), form=name, what=what, error='inf', limit='', ok=0,
                                     times_stock='', forward_repeats='', backward_repeats=''))
                    continue
                for k, w in want.items():
                    err = error(got[k], w)
                    if name == 'cuda': stock[k] = err
                    ratio = round(err/max(stock[k], 1e-12), 3) if k in stock and name != 'cuda' else ''
                    ok = err <= limit(k, dtype) and (ratio == '' or ratio <= 1.5 or err < 1e-7)
                    rows.append(dict(case=case, dtype=short(dtype), form=name, what=k, error=f'{err:.2e}',
                                     limit=limit(k, dtype), ok=int(ok), times_stock=ratio, forward_repeats=int(out_same),
                                     backward_repeats=int(all_same)))
            append_rows('gpu_correct', rows, run.args.results)
            bad = [f'{r["form"]} {r["what"]} {r["error"]}' for r in rows if not r['ok']]
            print('correct', case, short(dtype), 'NOT OK: '+', '.join(bad) if bad else 'ok', flush=True)
    step_huge(run)

def step_huge(run):
    "More than 2**31 numbers in one signal: the last sample must be what it is alone."
    if run.has('correct', case='huge') or not run.time_for(30): return
    b, e, l = (3, 8, 33) if run.dry else (112, 1536, 12545)
    if not run.dry and (torch.cuda.mem_get_info()[0] < 60e9 or rivals.missing('triton', 'cuda')): return
    x = rivals.inputs((b, e, l), torch.bfloat16, run.device, m=1)
    f, d = scan_form_named(run.ours), x.dirs[0]
    out = f.scan_forward([d], x.z, None, True, False)[0][-1:].clone()
    last = Direction(d.u[-1:].clone(), d.delta[-1:].clone(), d.A, d.B[-1:].clone(), d.C[-1:].clone(), d.D, d.delta_bias)
    err = error(f.scan_forward([last], x.z[-1:].clone(), None, True, False)[0], out.double())
    run.add('correct', case='huge', dtype='bfloat16', form=run.ours, what='out', error=f'{err:.2e}', limit=8e-3,
            ok=int(err <= 8e-3), times_stock='', forward_repeats='', backward_repeats='')


# ---- scan

def step_scan(run):
    "The table: every contestant, forward and back, both ways; one way at the stock kernel's best length."
    names = ['chunked', 'loop'] if run.dry else list(rivals.SCANS)
    most = ('M 64 frames', 'M 8 frames', 'Ti 8 frames', 'even 12288', 'one clip', 'tiny')
    order = sorted(run.shapes, key=lambda k: most.index(k) if k in most else 9)
    plan = [(s, 2, back, torch.bfloat16) for back in (False, True) for s in order]
    plan += [('even 12288', 1, False, torch.bfloat16)] + [(order[0], 2, b, torch.float32) for b in (False, True)]
    for shape, m, back, dtype in plan:
        key = dict(shape=shape, m=m, back=int(back), dtype=short(dtype))
        todo = [k for k in names if not run.has('scan', **key, name=k) and worth(run, k, shape, back)]
        if not todo or not run.time_for(10): continue
        torch.manual_seed(0)
        sets = [rivals.inputs(run.shapes[shape], dtype, run.device, m) for _ in range(3)]
        for name in todo:
            if run.time_for(6): one_scan(run, key, name, sets, back, dtype)
        del sets
        if not run.dry: torch.cuda.empty_cache()

def worth(run, name, shape, back):
    "Does this contestant belong to this size?"
    points = torch.Size(run.shapes[shape]).numel()
    if points > rivals.SMALL.get(name, 1e12) or (back and ('cut' in name or (name == 'loop' and not run.dry))): return False
    return not rivals.missing(name, run.device) and ('cut' not in name or shape in ('one clip', 'M 64 frames'))

def one_scan(run, key, name, sets, back, dtype):
    before, row = '' if run.dry else clock(), dict(ms='', p20='', p80='', iterations=0)
    note, peak = '', ''
    try:
        calls = [rivals.SCANS[name](x, back) for x in sets]
        if not run.dry: torch.cuda.reset_peak_memory_stats()
        base = 0 if run.dry else torch.cuda.memory_allocated()
        row = measure(run, calls)
        if not run.dry: peak = round((torch.cuda.max_memory_allocated()-base)/2**20)
        if not run.dry and key['shape'] == 'M image' and not back:
            try: note = f'as a CUDA graph {measure(run, [graphed(c) for c in calls])["ms"]} ms'
            except Exception as e: note = f'no CUDA graph: {type(e).__name__}'
    except Exception as e: note = f'{type(e).__name__}: {str(e)[:120]}'
    low = rivals.floors(run.shapes[key['shape']], run.rates, key['m'], sets[0].z.element_size(), back)
    share = round(max(low['exp_ms'], low['issue_ms'])/row['ms'], 3) if row['ms'] else ''
    run.add('scan', **key, name=name, **row, **{k: round(v, 4) for k, v in low.items()}, share_of_floor=share, peak_mb=peak,
            clock_before=before, clock_after='' if run.dry else clock(), note=note)
    if not run.dry: torch.cuda.empty_cache()


# ---- convolution, sum and norm

def step_block(run):
    "The other kernels of a block: right, and how far from the time that their bytes take."
    dtype = torch.bfloat16
    for shape in list(run.shapes)[:4]:
        b, e, l = run.shapes[shape]
        for what in ('convolution', 'convolution back', 'sum and norm', 'sum and norm back'):
            if run.has('block', shape=shape, what=what, name='pytorch') or not run.time_for(8): continue
            torch.manual_seed(0)
            makers, passes = block_calls(what, (b, e if 'conv' in what else e//2, l), dtype, run.device)
            want = makers['pytorch'](torch.float64)() if b*e*l < 4e7 else None
            for name, make in makers.items():
                try:
                    call = make(dtype)
                    err = '' if want is None else f'{max(error(g, w) for g, w in zip(call(), want)):.2e}'
                    row = measure(run, [call], least=30)
                except Exception as e_:
                    row, err = dict(ms='', p20='', p80='', iterations=0), f'{type(e_).__name__}: {str(e_)[:80]}'
                size = b*l*(e if 'conv' in what else e//2)*2
                run.add('block', shape=shape, what=what, name=name, **row,
                        bytes_ms=round(passes*size/run.rates.bytes*1e3, 4), error=err)

def block_calls(what, shape, dtype, device):
    "Contestants for one operation: name -> (dtype -> call); and the passes, in the tokens' dtype, that it needs at least."
    b, e, l = shape
    r = lambda *s: torch.randn(*s, device=device)
    signal = lambda: r(b, l, e).to(dtype).transpose(1, 2)
    x, g, h, ws = signal(), signal(), signal(), (r(e, 4), r(e), r(e, 4), r(e))
    forms = {}
    if not block_triton.why_not(device, dtype): forms['triton'] = block_triton
    if not conv_cuda.conv_why_not(device, dtype) and 'conv' in what: forms['stock'] = conv_cuda
    if 'conv' in what: return conv_calls(what, forms, x, g, h, ws)
    t = [o.transpose(1, 2) for o in (x, g)]
    return norm_calls(what, forms, *t, r(b, l, e), r(b, l, e), r(e))

def conv_calls(what, forms, x, g, h, ws):
    back = what.endswith('back')
    ours = {k: lambda _, f=f: (lambda: f.bi_conv_backward(g, h, x, *ws)) if back else (lambda: f.bi_conv_forward(x, *ws))
            for k, f in forms.items()}
    def plain(dtype):
        xs = [o.to(torch.float64 if dtype == torch.float64 else o.dtype).detach().requires_grad_() for o in (x, *ws)]
        if not back: return lambda: block_triton.bi_conv_torch(*[o.detach() for o in xs])
        us = block_triton.bi_conv_torch(*xs)
        return lambda: torch.autograd.grad(us, xs, [g.to(us[0].dtype), h.to(us[1].dtype)], retain_graph=True)
    return ours | dict(pytorch=plain), 4 if back else 3

def norm_calls(what, forms, x, gy, r, gs, w):
    back = what.endswith('back')
    def ours(f):
        _, s, rstd = f.add_norm_forward(x, r, w)
        return (lambda: f.add_norm_backward(gy, gs, s, w, rstd)) if back else (lambda: f.add_norm_forward(x, r, w))
    def plain(dtype):
        wide_ = dtype == torch.float64
        xs = [(o.double() if wide_ else o).detach().requires_grad_() for o in (x, r, w)]
        if not back: return lambda: add_norm_torch(*[o.detach() for o in xs])
        y, s, _ = add_norm_torch(*xs)
        return lambda: torch.autograd.grad([y, s], xs, [gy.to(y.dtype), gs.to(s.dtype)], retain_graph=True)
    size = r.element_size()/x.element_size() # passes of the stream, in those of the tokens
    return {k: lambda _, f=f: ours(f) for k, f in forms.items()} | dict(pytorch=plain), 1+3*size if back else 2+2*size


# ---- layer

def step_layer(run):
    "One mixer under bfloat16 autocast: forward, forward and backward, what it keeps between them, and its peak."
    old, names = os.environ.get('VIDEOMAMBA_SCAN'), ['chunked'] if run.dry else ['fork', 'triton', 'cuda form']
    for shape in list(run.shapes)[:1 if run.dry else 5]:
        b, e, l = run.shapes[shape]
        for name in names:
            if run.has('layer', shape=shape, name=name) or rivals.missing(name, run.device) or not run.time_for(12): continue
            try: row = one_layer(run, name, b, e//2, l)
            except Exception as err: row = dict(note=f'{type(err).__name__}: {str(err)[:120]}')
            full = dict.fromkeys(('forward_ms', 'both_ms', 'p20', 'p80', 'kept_mb', 'kept_signals', 'peak_mb', 'note'), '')
            run.add('layer', shape=shape, name=name, **full | row)
    os.environ['VIDEOMAMBA_SCAN'] = old or ''

def one_layer(run, name, b, d, l):
    m = rivals.layer(name, d, run.device)
    x = torch.randn(b, l, d, device=run.device, requires_grad=True)
    auto = lambda: torch.autocast(run.device, torch.bfloat16)
    def forward():
        with torch.no_grad(), auto(): return m(x)
    def both():
        with auto(): y = m(x)
        torch.autograd.grad(y.float().sum(), [x, *m.parameters()])
    fwd = measure(run, [forward], least=30)
    if not run.dry: torch.cuda.reset_peak_memory_stats()
    base = 0 if run.dry else torch.cuda.memory_allocated()
    all_ = measure(run, [both], least=30)
    peak = '' if run.dry else round((torch.cuda.max_memory_allocated()-base)/2**20)
    kept = saved_bytes(m, x, auto)
    return dict(forward_ms=fwd['ms'], both_ms=all_['ms'], p20=all_['p20'], p80=all_['p80'], kept_mb=round(kept/2**20, 1),
                kept_signals=round(kept/(2*b*l*2*d), 2), peak_mb=peak)

def saved_bytes(m, x, auto):
    "Bytes that autograd keeps for the way back, each block of memory once, weights left out."
    skip, blocks = {o.untyped_storage().data_ptr() for o in (*m.parameters(), x)}, {}
    def note(t):
        s = t.untyped_storage()
        if s.data_ptr() not in skip: blocks[s.data_ptr()] = (s.nbytes(), t)
        return t
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t), auto(): y = m(x)
    del y
    return sum(n for n, _ in blocks.values())


# ---- profile

METRICS = {'gpu__time_duration.sum': 'ns', 'smsp__inst_executed.sum': 'instructions',
           'launch__registers_per_thread': 'registers',
           'sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active': 'exp_unit_percent',
           'smsp__issue_active.avg.pct_of_peak_sustained_active': 'issue_percent',
           'lts__t_sectors_op_red.sum': 'reduction_sectors', 'dram__bytes.sum': 'dram_bytes'}
PROBES = [('stock', 'M 64 frames', 0), ('stock', 'even 12288', 0), ('triton', 'M 64 frames', 0), ('stock', 'M 64 frames', 1),
          ('triton', 'M 64 frames', 1)]

def step_profile(run):
    "What ncu counts, for the kernels whose speed is to be explained."
    tool = shutil.which('ncu')
    if not tool and not run.dry: return print('profile: no ncu on the path, skipped')
    for name, shape, back in [('chunked', 'tiny', 0)] if run.dry else PROBES:
        if run.has('profile', name=name, shape=shape, back=back) or rivals.missing(name, run.device): continue
        if not run.time_for(40): return
        text = SAMPLE if run.dry else profiled(run, tool, name, shape, back)
        found = parse_profile(text)
        if not found:
            run.add('profile', name=name, shape=shape, back=back, kernel=text[-200:].replace('\n', ' '), per_element='',
                    **dict.fromkeys(METRICS.values(), ''))
        points = torch.Size(run.shapes[shape]).numel()*rivals.N*2
        if found and not back: found += [('all', together([v for _, v in found]))]
        for kernel, values in found:
            per = float(values['instructions'])*32/points if values['instructions'] else 0
            run.add('profile', name=name, shape=shape, back=back, kernel=kernel[:60], per_element=round(per, 2), **values)

def together(all_):
    "Sums over kernels; a share of a peak has no sum, and is left to the kernels."
    total = {k: sum(float(v[k] or 0) for v in all_) for k in METRICS.values()}
    return {k: '' if 'percent' in k or k == 'registers' else v for k, v in total.items()}

def profiled(run, tool, name, shape, back):
    me = [sys.executable, __file__, '--probe', name, shape, str(back), '--stock', str(stock_folder(run))]
    cmd = [tool, '--clock-control', 'none', '--csv', '--page', 'raw', '--metrics', ','.join(METRICS),
           '--kernel-name', 'regex:selective_scan|_meet|_chunk|_pass|_bwd|_back|_state', *me]
    try: r = subprocess.run(cmd, capture_output=True, text=True, timeout=max(20, min(120, run.left())))
    except subprocess.TimeoutExpired: return 'ncu took too long'
    return r.stdout if r.returncode == 0 else (r.stdout+r.stderr)[-400:]

def parse_profile(text):
    "[(kernel, {value: text})] from ncu's raw page."
    lines = [o for o in text.splitlines() if o.startswith('"')]
    rows = list(csv.DictReader(io.StringIO('\n'.join(lines))))
    return [(r['Kernel Name'], {v: (r.get(k) or '').replace(',', '') for k, v in METRICS.items()})
            for r in rows if r.get('Kernel Name')]

SAMPLE = '==PROF== Connected\n"ID","Kernel Name",' + ','.join(f'"{k}"' for k in METRICS) + '\n"","",' \
    + ','.join('""' for _ in METRICS) + '\n"0","walk",' + ','.join('"1,216"' for _ in METRICS) + '\n'

def probe(run, name, shape, back):
    use_stock(stock_folder(run))
    torch.manual_seed(0)
    call = rivals.SCANS[name](rivals.inputs(run.shapes[shape], torch.bfloat16, run.device), bool(int(back)))
    call()
    run.sync()


# ---- report

def find(run, **key):
    key = {k: str(v) for k, v in key.items()} | {k: run.here[k] for k in ('commit', 'device')}
    return [r for r in run.rows('scan') if r['ms'] and all(r[k] == v for k, v in key.items())]

def ratios(run, what, rival):
    "{shape: rival's time over ours} for one line of the goals."
    if what.startswith('layer'):
        rows = [r for r in run.rows('layer') if r['both_ms'] and r['commit'] == run.here['commit']]
        t = {(r['shape'], r['name']): float(r['both_ms']) for r in rows}
        return {s: t[s, rival]/v for (s, n), v in t.items() if n == run.ours and (s, rival) in t}
    m, back = 1 if 'one way' in what else 2, int('backward' in what)
    rows = find(run, m=m, back=back, dtype='bfloat16')
    rows = [r for r in rows if what.endswith(r['shape']) or what.count(',') == 1]
    t = {(r['shape'], r['name']): float(r['ms']) for r in rows}
    return {s: t[s, rival]/v for (s, n), v in t.items() if n == run.ours and (s, rival) in t}

def step_report(run):
    "What was predicted, and what was measured, side by side."
    print('\npredicted | measured')
    for what, rival, must, goal, stretch in GOALS:
        got = ratios(run, what, 'loop' if run.dry and 'layer' not in what else rival)
        told = ', '.join(f'{s} {v:.2f}x' for s, v in got.items()) or 'not measured'
        print(f'{what} against {rival}: must {must}x, goal {goal}x, stretch {stretch}x | {told}')
    for r in find(run, m=2, back=0, dtype='bfloat16', name=run.ours):
        print(f'{r["shape"]}: floor {max(float(r["exp_ms"]), float(r["issue_ms"])):.2f} ms, goal 65 % of it | {r["ms"]} ms, '
              f'{float(r["share_of_floor"]):.0%}')
    for r in run.rows('layer'):
        if r['commit'] == run.here['commit']:
            print(f'kept per layer, {r["name"]}, {r["shape"]}: fork 7 signals, ours 3.3, goal half | {r["kept_signals"]}')
    for r in run.rows('profile'):
        want = INSTRUCTIONS.get(r['name'], {}).get(r['shape'], '') if r['back'] == '0' else ''
        want = want if r['kernel'] == 'all' else ''
        print(f'instructions per element, {r["name"]}, {r["shape"]}, {r["kernel"]}: {want or "no prediction"} | '
              f'{r["per_element"]}, exp unit {r["exp_unit_percent"]} %, issue {r["issue_percent"]} %')
    bad = [r for r in run.rows('correct') if r['ok'] == '0' and r['commit'] == run.here['commit']]
    print(f'correctness: {len(bad)} of {len(run.rows("correct"))} checks failed'
          + ''.join(f'\n  {r["form"]} {r["case"]} {r["dtype"]} {r["what"]}: {r["error"]}' for r in bad[:20]))
    return not bad


def parse(argv):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--sdist', help='mamba_ssm-*.tar.gz, to build the stock kernel from')
    p.add_argument('--stock', help='folder with, or for, a built selective_scan_cuda')
    p.add_argument('--results', default=str(RESULTS), help='folder for the tables')
    p.add_argument('--steps', default=','.join(STEPS), help='some of the steps, with commas')
    p.add_argument('--budget', type=float, default=560, help='seconds for this run')
    p.add_argument('--dry-run', action='store_true', help='test the script on a CPU')
    p.add_argument('--probe', nargs=3, help=argparse.SUPPRESS)
    args = p.parse_args(argv)
    wrong = set(args.steps.split(','))-set(STEPS)
    if wrong: p.error(f'no such step: {", ".join(sorted(wrong))}; there are {", ".join(STEPS)}')
    return args

def main(argv=None):
    args = parse(argv)
    if not args.dry_run and not torch.cuda.is_available():
        print('no CUDA device here, so nothing is measured; testing the script itself with a dry run')
        args.dry_run = True
    if args.probe: return probe(Run(args), *args.probe)
    folder = None
    if args.dry_run and args.results == str(RESULTS): args.results = folder = tempfile.mkdtemp()
    run, ok = Run(args), True
    try:
        for step in STEPS:
            if step not in args.steps.split(','): continue
            read_rates(run)
            ok = globals()[f'step_{step}'](run) is not False and ok
        print(f'{"dry run" if run.dry else "run"} ended with {run.left():.0f} of {args.budget:.0f} s left'
              + ('; run it again to go on' if run.out_of_time else ''))
    finally:
        if folder: shutil.rmtree(folder, ignore_errors=True)
    return int(not ok)


if __name__ == '__main__':
    sys.exit(main())
