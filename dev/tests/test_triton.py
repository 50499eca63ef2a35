"""The Triton kernels as machine code for sm_90, compiled without a GPU: no spills, and no more registers and instructions
per token, channel and state than the notebooks say. Their results are tested in the notebooks, by Triton's interpreter.
"""
import csv
import importlib.util
import json
import os
import platform
import subprocess
import sys

import pytest
from notebooks import LIB, ROOT

ready = importlib.util.find_spec('triton') and sys.platform == 'linux' and platform.machine() == 'x86_64'
pytestmark = pytest.mark.skipif(not ready, reason='Triton with its assembler comes for Linux on x86-64: pip install triton')

LIMITS = { # name: (registers, bytes of shared memory, instructions per element)
    'first half': (176, 0, 8.5), 'second half': (176, 0, 9.5),
    'first half, training': (176, 0, 8.5), 'second half, training': (176, 0, 9.5),
    'chunk states': (176, 0, 7), 'chunk scan': (176, 0, 9.5),
    'backward, states again': (255, 128, 7.5), 'backward, undo': (255, 128, 29),
}


@pytest.fixture(scope='module')
def compiled():
    "Fresh rows by name, from a process in which no other test switched the interpreter on."
    env = {k: v for k,v in os.environ.items() if k != 'TRITON_INTERPRET'} | {'PYTHONPATH': str(ROOT)}
    r = subprocess.run([sys.executable, ROOT/'dev/bench/sass.py', '--quick'], capture_output=True, text=True, env=env)
    assert r.returncode == 0, r.stderr[-4000:]
    return {o['name']: o for o in json.loads(r.stdout)}

def within(row, registers, shared, slots):
    return row['spills'] == 0 and row['registers'] <= registers and row['shared'] <= shared and row['slots'] <= slots

@pytest.mark.parametrize('name', LIMITS)
def test_machine_code_stays_lean(compiled, name):
    assert within(compiled[name], *LIMITS[name]), compiled[name]

def test_forward_is_bound_by_exponentials(compiled):
    for half in ('first half', 'second half'): assert compiled[half]['slots'] < compiled[half]['unit'] <= 10

def test_another_layout_is_noticed(compiled):
    assert not within(compiled['states on lanes'], *LIMITS['first half'])

def test_the_notebooks_show_these_numbers(compiled):
    with open(ROOT/'dev/bench/results/sass.csv', newline='') as f: shown = {o['name']: o for o in csv.DictReader(f)}
    for name,row in compiled.items():
        assert abs(float(shown[name]['slots'])-row['slots']) < .5, f'{name}: run python dev/bench/sass.py again'

CONTRACT = '''
import functools
from videomamba_nb import contract, scan
contract.check_bi_scan(functools.partial(scan.bi_selective_scan, backend="triton"))
contract.check_scan(functools.partial(scan.selective_scan, backend="triton"))'''

def test_contract():
    "Everything that any scan must do, through the operators, in the interpreter: about a minute."
    if not (LIB/'contract.py').exists(): pytest.skip('this version has no contract module')
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'TRITON_INTERPRET': '1', 'OMP_NUM_THREADS': '1'}
    r = subprocess.run([sys.executable, '-c', CONTRACT], capture_output=True, text=True, env=env)
    assert r.returncode == 0, r.stderr[-4000:]
