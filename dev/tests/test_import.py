"Importing is light, and needs neither a GPU, nor a compiler, nor any extra."
import os
import subprocess
import sys

import pytest
from notebooks import LIB, ROOT

EXTRAS = ['sklearn','skimage','skvideo','nbdev','fastcore','execnb','IPython','ipywidgets','jupyterlab','pytest',
          'hypothesis','beartype','torchvision','timm','triton','mamba_ssm','causal_conv1d','selective_scan_cuda']
HEAVY = ['matplotlib','av','decord','sklearn','skimage','nbdev','fastcore','IPython','mamba_ssm']
MODULES = sorted('.'.join(p.relative_to(LIB.parent).with_suffix('').parts) for p in LIB.rglob('*.py') if p.name[0] != '_')


def run(code, **env):
    "Run code in a fresh Python; what it printed."
    home = {k: os.environ[k] for k in ('HOME','USERPROFILE','SYSTEMROOT') if k in os.environ}
    r = subprocess.run([sys.executable, '-c', code], env=home | {'PYTHONPATH': str(ROOT), 'PATH': ''} | env,
                       cwd=ROOT.parent, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
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

def test_a_model_runs_without_compiler():
    code = '''
import torch
from videomamba_nb.model import VideoMamba
m = VideoMamba(img_size=8, patch_size=4, depth=1, embed_dim=8, num_frames=2, num_classes=3)
m(torch.randn(1, 3, 2, 8, 8)).sum().backward()
print("done")'''
    assert run(code, CUDA_VISIBLE_DEVICES='').split() == ['done']
