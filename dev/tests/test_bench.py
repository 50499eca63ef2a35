"The benchmarks run, on tiny shapes, and what they compare with is right. No test asserts a time."
import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from types import SimpleNamespace

import accuracy
import bars
import bench_cpu
import common
import cpu_floor
import memory
import numpy as np
import ours
import pytest
import rivals
import torch
import torch.nn.functional as F
from notebooks import ROOT

TINY = dict(img_size=32, depth=2)
needs_mambapy = pytest.mark.skipif(find_spec('mambapy') is None, reason=rivals.NEEDS_MAMBAPY)
has_cc = sys.platform != 'win32' and any(map(shutil.which, ('cc', 'gcc', 'clang')))
needs_cc = pytest.mark.skipif(not has_cc, reason='no C compiler here')
RIVALS = ['loop', pytest.param('mambapy', marks=needs_mambapy)]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

@pytest.fixture(scope='module')
def lib(tmp_path_factory):
    return cpu_floor.build(tmp_path_factory.mktemp('floor'))

def grads(name, args):
    y = ours.bi_scan(name)(*args)
    return [y, *torch.autograd.grad(y, ours.leaves(*args), torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y))]

def near(got, want, tol):
    assert got.shape == want.shape and got.dtype == want.dtype
    assert (got-want).abs().max() <= tol*want.abs().max()


@pytest.mark.parametrize('l', [1, 2, 7, 33])
@pytest.mark.parametrize('name', RIVALS)
def test_rival_scans_are_right(name, l):
    "Values and gradients, both directions, against the loop of the package in float64."
    args = ours.make_scan(2, 6, 3, l, dtype=torch.float64, grads=True)
    for got, want in zip(grads(name, args), grads('seq', args)): near(got, want, 1e-10)

@pytest.mark.parametrize('name', RIVALS)
def test_rivals_of_one_direction_are_right(name):
    fwd, _, z = ours.make_scan(2, 6, 3, 20, dtype=torch.float64)
    near(rivals.one_direction(name)(**fwd, z=z), ours.scan.selective_scan(**fwd, z=z, backend='seq'), 1e-10)

def test_second_direction_runs_right_to_left():
    "A change at token 5 reaches only later outputs through the first direction, only earlier ones through the second."
    fwd, bwd, _ = ours.make_scan(1, 4, 3, 12)
    y = rivals.loop_scan(fwd, bwd)
    for args, side in ((fwd, slice(0, 5)), (bwd, slice(6, None))):
        u = args['u'].clone()
        u[..., 5] += 1
        other = [args | dict(u=u) if o is args else o for o in (fwd, bwd)]
        same = (rivals.loop_scan(*other) == y).all(1)[0]
        assert same[side].all() and not same[5] and same.sum() < len(same)-2

@pytest.mark.parametrize('name', RIVALS)
def test_models_run_on_rival_scans(name):
    model, x = ours.tiny(2, **TINY).eval(), torch.randn(1, 3, 2, 32, 32)
    with torch.no_grad(), ours.model_scan('seq'): want = model(x)
    for backend in (name, f'PyTorch block, {name}', 'chunked', 'cpu'):
        with torch.no_grad(), ours.model_scan(backend): near(model(x), want, 1e-5)

def test_a_rival_that_is_not_called_is_told():
    with pytest.raises(RuntimeError, match='does not call'):
        with ours.model_scan('loop'): pass

def test_mambapy_missing_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mambapy.pscan', None)
    with pytest.raises(ImportError, match='pip install'): rivals.mambapy_scan(*ours.make_scan(1, 2, 2, 4))

@pytest.mark.parametrize('make', [rivals.vit, rivals.timesformer])
def test_transformers(make):
    "Shapes, every parameter learns, samples do not mix, and frames and their order matter."
    torch.manual_seed(0)
    model, x = make(3, num_classes=7, **TINY), torch.randn(2, 3, 3, 32, 32)
    y = model(x)
    assert y.shape == (2, 7)
    F.cross_entropy(y, torch.tensor([1, 2])).backward()
    for k, p in model.named_parameters(): assert p.grad is not None and p.grad.abs().sum() > 0, k
    near(model(x[1:]), y[1:], 1e-5)
    assert (model(x.flip(2))-y).abs().max() > 1e-5

@pytest.mark.parametrize('make,millions', [(rivals.vit, 5.6), (rivals.timesformer, 7.8)])
def test_transformers_have_their_published_size(make, millions):
    assert abs(sum(p.numel() for p in make(8).parameters())/1e6 - millions) < .1

def test_attention_is_divided():
    "One block: a token hears its own place in other frames, and not other places in other frames."
    torch.manual_seed(0)
    block = rivals.DividedBlock(8, 2)
    with torch.no_grad():
        for p in block.attn.out.parameters(): p.zero_() # along time only
    x = torch.randn(1, 1+3*4, 8, requires_grad=True)
    block(x, 3)[0, 1+4+2].sum().backward() # frame 1, place 2
    heard = x.grad[0, 1:].abs().sum(-1).view(3, 4) > 0
    assert heard[:, 2].all() and heard.sum() == 3

def test_linear_layers_can_be_chosen():
    calls = []
    def fn(x, weight, bias):
        calls.append(x.shape)
        return F.linear(x, weight, bias)
    model, x = rivals.timesformer(2, **TINY), torch.randn(1, 3, 2, 32, 32)
    with rivals.linear_layers(fn): y = model(x)
    assert len(calls) == 2*7 + 1
    near(model(x), y, 1e-6)
    assert len(calls) == 2*7 + 1


@needs_cc
@pytest.mark.parametrize('grads', [False, True])
def test_linear_layers_are_the_same_for_all(monkeypatch, grads):
    "'own': the transformers use the package's linear; 'torch': the package uses PyTorch's."
    seen = []
    def chosen(*args):
        seen.append(1)
        return 'torch'
    monkeypatch.setattr(ours.product_cpu, 'choose_product', chosen)
    transformer, mamba, x = rivals.vit(2, **TINY).eval(), ours.tiny(2, **TINY).eval(), torch.randn(1, 3, 2, 32, 32)
    for kind, model in ((k, m) for k in ('own', 'torch') for m in (transformer, mamba)):
        seen.clear()
        with torch.set_grad_enabled(grads), ours.same_linear(kind): model(x)
        assert bool(seen) == (kind == 'own'), (kind, type(model))

@needs_cc
def test_exponentials_are_accurate(lib):
    "Every algorithm and variant on [-126, 0]; one without a clamp and one whose slow decays drift must not count."
    left_out = ('avx2_deg5_unclamped', 'avx512_table32_deg2')
    x = np.linspace(-126, 0, 1000, dtype=np.float32)
    for k, name in enumerate(cpu_floor.names(lib)):
        for v in cpu_floor.variants(lib.exp_time, k):
            y = cpu_floor.exp2(lib, k, x, v)
            assert np.abs(y/np.exp2(x.astype(np.float64))-1).max() <= cpu_floor.LIMIT, (name, v)
        assert (cpu_floor.accuracy(lib, k) <= cpu_floor.LIMIT) == (name not in left_out), name

@needs_cc
def test_floors(lib):
    rows = cpu_floor.exp_rows(lib, 1, rounds=1) + cpu_floor.memory_rows(lib, 1, 1, (1,))
    best = cpu_floor.floors([{'counts': ''} | row for row in rows])
    assert set(best) == {('exp', 1), ('recurrence', 1), ('triad', 1)} and all(v > 0 for v in best.values())
    assert lib.fma_rate(1000) > 0

@pytest.mark.skipif(not memory.available(), reason='this system does not tell the peak of one call')
def test_memory_sees_an_array():
    assert 30 < memory.peak(lambda: torch.ones(8*2**20)) < 40

@pytest.mark.parametrize('step', ['scan', 'model', 'train'])
def test_tables(step):
    for config in bench_cpu.tables(step, quick=True):
        rows = bench_cpu.measure(step, config, 1, 0., quick=True)
        names = {row['backend'] for row in rows}
        assert 'chunked' in names and ('loop' in names or step == 'train') and all(row['ms'] > 0 for row in rows)
        assert step == 'scan' or names >= {'vit', 'timesformer'}

@needs_cc
def test_share_table(lib):
    rows = bench_cpu.measure('floor', dict(b=1, e=8, n=4, l=9), 1, 0., lib=lib)
    assert {row['backend'] for row in rows} >= {'exp floor', 'recurrence floor', 'chunked'}

def test_accuracy():
    rows = {row['form']: row for row in accuracy.compare('scale', 64, 2.)}
    assert all(float(rows[k]['error']) < 1e-5 for k in ('seq', 'tree', 'chunked'))
    assert rows['log-space, whole length']['error'] == 'nan'
    assert float(rows['seq, bfloat16 state']['error']) > 1e-4
    short = {row['form']: row for row in accuracy.compare('length', 16)}
    assert float(short['log-space, whole length']['error']) < 1e-5 # right as long as nothing overflows

def test_rows_are_appended_and_resumed(tmp_path):
    config = dict(malloc='default', l=5)
    for backend in ('a', 'b'): common.append_rows('t', [config | dict(backend=backend, ms=2.)], tmp_path)
    rows = common.read_rows('t', tmp_path)
    assert [row['backend'] for row in rows] == ['a', 'b'] and common.read_rows('none', tmp_path) == []
    here = common.where()
    assert bench_cpu.is_done(rows, config, here)
    for other in (config | dict(l=6), config | dict(malloc='tuned')): assert not bench_cpu.is_done(rows, other, here)
    assert not bench_cpu.is_done(rows, config, here | dict(commit='another'))

@pytest.mark.skipif(common._busy() is None, reason='this system does not tell how busy it is')
def test_others_are_noticed():
    busy = 'import time; t = time.time()\nwhile time.time() < t+1.5: pass'
    with subprocess.Popen([sys.executable, '-c', busy]), common.Others() as others: time.sleep(1.2)
    assert others.share > .2/os.cpu_count()

def test_bars(tmp_path, capsys):
    "A bar passes where it is reached with every malloc it names, fails where one is not, else is not measured."
    config = bars.SCAN | dict(grads=0, threads=2)
    ms = dict(default=dict(cpu=1, mambapy=120, loop=60, chunked=20), tuned=dict(cpu=1, mambapy=50, loop=45, chunked=20))
    rows = [config | dict(malloc=m, backend=k, ms=v, others=.3) for m, o in ms.items() for k, v in o.items()]
    common.append_rows('cpu_scan', rows, tmp_path)
    bars.report(tmp_path)
    out = capsys.readouterr().out
    told = {line[:62].strip(): line.split()[-1] for line in out.splitlines() if line}
    assert told['scan forward, cpu against loop'] == 'FAIL' # 60 and 45, where 50 is needed
    assert told['scan forward, chunked against mambapy'] == 'FAIL' # 6 and 2.5
    assert told['scan forward + backward, cpu against loop'] == 'measured'
    assert '2 tables were measured while others' in out
    assert bars.verdict(dict(a=40, b=41), 40, True) == 'pass' and bars.verdict(dict(a=1.2), 1.1, False) == 'FAIL'

def test_command_line(tmp_path):
    "Each malloc in its own process; what a commit has measured is not measured again."
    bench_cpu.child(SimpleNamespace(child='scan', malloc='default', threads=1, rounds=1, limit=0., quick=True, resume=True,
                                    out=tmp_path))
    options = '--quick --only scan --threads 1 --rounds 1 --resume --malloc default,tuned --out'.split()
    r = subprocess.run([sys.executable, ROOT/'dev/bench/bench_cpu.py', *options, tmp_path], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    rows = common.read_rows('cpu_scan', tmp_path)
    keys = [(row['malloc'], row['grads'], row['backend']) for row in rows]
    assert len(keys) == len(set(keys)) and ('default', '1', 'loop') in keys
    assert not common.has_glibc() or ('tuned', '0', 'chunked') in keys
    assert 'not measured' in r.stdout
