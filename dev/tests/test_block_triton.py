"The block's Triton kernels, compiled for an H100 or H200 without a GPU: nothing spilled, few registers, few instructions."
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from notebooks import ROOT

LIMITS = { # name in dev/bench/offline.py: (registers, instructions per channel and token in the loop)
    'convolution, both ways': (128, 40), 'convolution, one way': (128, 24),
    'its gradient, both ways': (128, 95), 'its gradient, one way': (128, 62),
    'sum and norm, d up to 512': (160, 0), 'sum and norm, d up to 1024': (160, 0),
    'their gradient, d up to 512': (160, 22), 'their gradient, d up to 1024': (160, 25)}

NO_TRITON = 'import sys; sys.modules["triton"] = None\n'


def run(code, **env):
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True,
                       env={k: v for k,v in os.environ.items() if k != 'TRITON_INTERPRET'} | {'PYTHONPATH': str(ROOT)} | env)
    assert r.returncode == 0, r.stderr[-2000:]
    return r.stdout.strip()

MEASURE = """
import json, sys
sys.path.insert(0, 'dev/bench')
import offline
print(json.dumps({k: offline.measure(k) for k in offline.KERNELS}))"""

OTHERS = """
import sys
sys.path.insert(0, 'dev/bench')
import offline
kernels = [make(k=k) for make in (offline.conv, offline.conv_back) for k in (2, 3, 8)]
every = offline.conv, offline.conv_back, offline.norm, offline.norm_back
kernels += [make(dtype=d) for make in every for d in ('fp16', 'fp32')]
print(*[offline.resources(k)['spilled'] for k in kernels])"""

@pytest.fixture(scope='module')
def measured():
    "In a process of its own, since a kernel that was defined for the interpreter cannot be compiled."
    triton = pytest.importorskip('triton', reason='compiling needs the triton wheel, which this system lacks')
    if not (Path(triton.__file__).parent/'backends/nvidia/bin/cuobjdump').exists():
        pytest.skip('this triton brings no cuobjdump')
    return json.loads(run(MEASURE))

def test_every_kernel_has_limits(measured): assert set(LIMITS) == set(measured)

@pytest.mark.parametrize('name', LIMITS)
def test_machine_code(measured, name):
    got,(registers,slots) = measured[name],LIMITS[name]
    assert got['spilled'] == 0, got
    assert got['registers'] <= registers, got
    assert got['slots'] <= slots, got

def test_other_taps_and_precisions_spill_nothing(measured): assert set(run(OTHERS).split()) == {'0'}

def test_without_triton():
    "The modules import, and say what is missing."
    for module,call in (('block_triton', 'bi_conv_forward(torch.ones(1,2,3), torch.ones(2,4))'),
                        ('norm_triton', 'add_norm_forward(torch.ones(1,2), None, torch.ones(2))')):
        code = f'''{NO_TRITON}
import torch
from videomamba_nb import {module} as m
try: m.{call}
except ValueError as e: print(e)'''
        assert 'pip install triton' in run(code)

def test_a_cpu_without_the_interpreter_is_told():
    pytest.importorskip('triton')
    code = 'import torch; from videomamba_nb.block_triton import why_not; print(why_not("cpu", torch.float32))'
    assert 'need a CUDA device' in run(code)
