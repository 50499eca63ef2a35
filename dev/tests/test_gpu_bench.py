"The GPU benchmark, without a GPU: its dry run, its contestants around a stand-in, and what it does when time is short."
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from notebooks import ROOT

sys.path.insert(0, str(ROOT/'dev/bench'))

import gpu_rivals
import gpu_scan
from common import read_rows

from videomamba_nb.core import fill_by_rule, input_by_rule, test_tensor
from videomamba_nb.ssm import selective_scan_seq

TABLES = ('build', 'rates', 'correct', 'scan', 'block', 'layer', 'profile')


def run(*args, **env):
    r = subprocess.run([sys.executable, ROOT/'dev/bench/gpu_scan.py', *args], capture_output=True, text=True, cwd=ROOT,
                       env={**os.environ, 'PYTHONPATH': str(ROOT), 'CUDA_VISIBLE_DEVICES': '', 'OMP_NUM_THREADS': '1'} | env)
    assert r.returncode == 0, r.stdout[-2000:]+r.stderr[-2000:]
    return r.stdout

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "One dry run and its tables."
    folder = tmp_path_factory.mktemp('results')
    text = run('--dry-run', '--results', str(folder))
    return SimpleNamespace(path=folder, text=text)

def test_every_step_writes_its_table(folder):
    for name in TABLES: assert read_rows(f'gpu_{name}', folder.path), name
    assert 'predicted | measured' in folder.text and 'not measured' in folder.text

def test_checks_hold_and_say_so(folder):
    rows = read_rows('gpu_correct', folder.path)
    assert {r['dtype'] for r in rows} == {'float32', 'bfloat16', 'float16'}
    assert all(r['ok'] == '1' for r in rows)
    assert '0 of' in folder.text.split('correctness:')[1]

def test_a_second_run_measures_nothing_again(folder):
    before = {k: len(read_rows(f'gpu_{k}', folder.path)) for k in TABLES}
    run('--dry-run', '--results', str(folder.path))
    after = {k: len(read_rows(f'gpu_{k}', folder.path)) for k in TABLES}
    assert after == before | dict(build=before['build']+1)

def test_short_of_time_it_stops_and_goes_on(tmp_path):
    text = run('--dry-run', '--results', str(tmp_path), '--budget', '1', '--steps', 'rates,scan')
    assert 'out of time' in text and not read_rows('gpu_scan', tmp_path)
    run('--dry-run', '--results', str(tmp_path), '--steps', 'scan')
    assert read_rows('gpu_scan', tmp_path)

def test_without_a_gpu_it_says_so():
    if torch.cuda.is_available(): pytest.skip('there is a GPU')
    text = run('--steps', 'build,rates,report')
    assert text.splitlines()[0].startswith('no CUDA device here')

def test_a_wrong_step_is_refused():
    with pytest.raises(SystemExit): gpu_scan.parse(['--steps', 'scan,sing'])

def test_a_wrong_form_is_found(monkeypatch, tmp_path):
    "A form that reads one state too few must fail the checks, and the report."
    form = gpu_rivals.scan_form_named('chunked')
    spoilt = lambda *a: (lambda y, *rest: (1.001*y, *rest))(*form.scan_forward(*a))
    monkeypatch.setattr(gpu_scan, 'scan_form_named', lambda name: SimpleNamespace(scan_forward=spoilt,
                                                                                 scan_backward=form.scan_backward))
    args = gpu_scan.parse(['--dry-run', '--results', str(tmp_path), '--steps', 'correct'])
    job = gpu_scan.Run(args)
    gpu_scan.step_correct(job)
    assert any(r['ok'] == '0' and r['what'] == 'out' for r in read_rows('gpu_correct', tmp_path))
    assert gpu_scan.step_report(job) is False


# ---- the stock contestants, around a stand-in for the extension

def stand_in(monkeypatch):
    def scan(u, delta, A, B, C, D, z, bias): return selective_scan_seq(u, delta, A, B, C, D, z, bias, True)
    def fwd(u, delta, A, B, C, D, z, bias, softplus, /):
        assert all(o.stride(-1) == 1 for o in (u, delta, B, C, z)) and softplus
        return [scan(u, delta, A, B, C, D, None, bias), torch.zeros(1), scan(u, delta, A, B, C, D, z, bias)]
    def bwd(u, delta, A, B, C, D, z, bias, g, x, out, dz, softplus, again, /):
        xs = [o.detach().requires_grad_() for o in (u, delta, A, B, C, D, z, bias)]
        with torch.enable_grad(): gu, gd, gA, gB, gC, gD, gz, gb = torch.autograd.grad(scan(*xs), xs, g)
        return [gu, gd, gA, gB, gC, gD, gb, gz]
    monkeypatch.setitem(sys.modules, 'selective_scan_cuda', SimpleNamespace(fwd=fwd, bwd=bwd))

def test_stock_contestants_compute_the_scan(monkeypatch):
    stand_in(monkeypatch)
    torch.manual_seed(0)
    x = gpu_rivals.inputs((2, 6, 21), torch.float32, 'cpu')
    want = gpu_rivals.loop(x, False)()
    for name in ('stock', 'stock padded'):
        one, other = (o[..., :21] for o in gpu_rivals.SCANS[name](x, False)())
        test_tensor(one + other.flip(-1), want, rtol=1e-4, atol=1e-4)
    test_tensor(gpu_rivals.SCANS['chunked'](x, False)()[0], want, rtol=1e-4, atol=1e-4)
    for name in ('stock', 'stock, flips', 'stock padded', 'loop'): gpu_rivals.SCANS[name](x, True)()

def test_the_fork_mixer_is_the_block(monkeypatch):
    stand_in(monkeypatch)
    ours, fork = (fill_by_rule(o(8)) for o in (gpu_rivals.Mamba, gpu_rivals.ForkMixer))
    x = input_by_rule(2, 7, 8).requires_grad_()
    test_tensor(fork(x), ours(x), rtol=1e-4, atol=1e-6)
    for m in (ours, fork): m(x).square().sum().backward()
    for p, q in zip(ours.parameters(), fork.parameters()):
        test_tensor(q.grad, p.grad, rtol=1e-3, atol=1e-6)

def test_floors_are_those_of_the_note():
    "64 frames of VideoMamba-M: 1.00 ms of exponentials, 0.32 ms of bytes, on a card with 4.3 TB/s."
    low = gpu_rivals.floors((8, 1152, 12545), gpu_rivals.Rates())
    assert abs(low['exp_ms']-1.) < .01 and abs(low['issue_ms']-1.04) < .01 and abs(low['bytes_ms']-.32) < .01

def test_ncu_pages_are_read():
    (kernel, values), = gpu_scan.parse_profile(gpu_scan.SAMPLE)
    assert kernel == 'walk' and set(values.values()) == {'1216'}
    assert gpu_scan.parse_profile('==ERROR== no permission') == []
