"Importing is light, and needs neither a GPU, nor a compiler, nor any extra."
import os
import subprocess
import sys

import pytest
from notebooks import LIB, ROOT

EXTRAS = ['sklearn','skimage','skvideo','nbdev','fastcore','execnb','IPython','ipywidgets','jupyterlab','pytest',
          'hypothesis','beartype','torchvision','timm','onnx','onnxscript','onnxruntime','triton','mamba_ssm','causal_conv1d','selective_scan_cuda']
HEAVY = ['matplotlib','av','decord','sklearn','skimage','nbdev','fastcore','IPython','mamba_ssm']
MODULES = sorted('.'.join(p.relative_to(LIB.parent).with_suffix('').parts) for p in LIB.rglob('*.py') if p.name[0] != '_')


def run(code, silent=False, **env):
    "Run code in a fresh Python; what it printed. With `silent` it must print nothing as an error."
    home = {k: os.environ[k] for k in ('HOME','USERPROFILE','SYSTEMROOT') if k in os.environ}
    r = subprocess.run([sys.executable, '-c', code], env=home | {'PYTHONPATH': str(ROOT), 'PATH': ''} | env,
                       cwd=ROOT.parent, capture_output=True, text=True)
    assert r.returncode == 0 and not (silent and r.stderr), r.stderr
    return r.stdout

def loaded(code):
    "Top-level packages that code imports, beyond those that PyTorch brings along by itself."
    show = 'import sys; print(*sorted({k.split(".")[0] for k in sys.modules}))'
    return set(run(f'{code}; {show}').split()), set(run(f'import torch; {show}').split())

def test_the_package_alone_imports_nothing():
    alone,_ = loaded('import videomamba_nb')
    assert not alone & {'torch','numpy','matplotlib'}

def test_the_model_imports_little():
    model,torch = loaded('from videomamba_nb.model import VideoMamba')
    assert not (model-torch) & {*HEAVY,'triton'}

@pytest.mark.parametrize('module', MODULES)
def test_no_extra_is_needed(module):
    "Each module imports where no extra is installed, no program is on the path and no GPU is visible."
    block = f'import sys; sys.modules.update(dict.fromkeys({EXTRAS}))'
    run(f'{block}; import importlib; importlib.import_module({module!r})', CUDA_VISIBLE_DEVICES='')

MODEL = '''
import torch
from videomamba_nb import scan, scan_chunked
taken = []
forward = scan_chunked.scan_forward
scan_chunked.scan_forward = lambda *a: taken.append('chunked') or forward(*a)
from videomamba_nb.model import VideoMamba
m = VideoMamba(img_size=8, patch_size=4, depth=1, embed_dim=8, num_frames=2, num_classes=3)
m(torch.randn(1, 3, 2, 8, 8)).sum().backward()
print(*taken)
print(scan.scan_backends('cpu')['cpu'])'''

def run_model(**env):
    "A small model, forward and backward, without a word on stderr: the chunked form is taken, and why the C form is not."
    taken,why = run(MODEL, silent=True, CUDA_VISIBLE_DEVICES='', **env).splitlines()
    assert set(taken.split()) == {'chunked'}
    return why

def test_a_model_runs_without_compiler(tmp_path):
    assert 'no C compiler found' in run_model(VIDEOMAMBA_CACHE=str(tmp_path))
    assert not list(tmp_path.iterdir())

def test_a_model_runs_with_a_failing_compiler(tmp_path):
    bad,count = tmp_path/'cc',tmp_path/'count'
    bad.write_text(f'#!{sys.executable}\nimport sys\nopen({str(count)!r}, "a").write("x")\nsys.exit("licence expired")')
    bad.chmod(0o755)
    why = run_model(CC=str(bad), VIDEOMAMBA_CACHE=str(tmp_path))
    assert 'licence expired' in why
    assert len(count.read_text()) <= 4, 'asked once per set of options, not once per layer'
    assert not list((tmp_path/'kernels').iterdir()), 'it leaves nothing behind'

def test_a_model_runs_where_nothing_can_be_written(tmp_path):
    "A file where the cache folder should be: not even root can write there."
    (tmp_path/'file').touch()
    why = run_model(PATH=os.environ['PATH'], VIDEOMAMBA_CACHE=str(tmp_path/'file'))
    assert 'set VIDEOMAMBA_CACHE' in why or 'no C compiler' in why
