"One project, four files that describe it: they agree."
import ast
import importlib
import json
import re
import runpy
import shlex
import sys

import pytest
import setuptools
from notebooks import LIB, ROOT, SETTINGS
from packaging.requirements import Requirement

from videomamba_nb import __version__, doctor

tomllib = importlib.import_module('tomllib' if sys.version_info >= (3, 11) else 'tomli') # pytest brings tomli
PYPROJECT = tomllib.loads((ROOT/'pyproject.toml').read_text(encoding='utf-8'))
TOOLS = {'torchvision','timm','torchaudio','nbdev','execnb','fastcore','ghapi','jupyter','jupyterlab','notebook','ipykernel',
         'ipython','pytest','hypothesis','beartype','ruff','scikit-learn','scikit-image','scikit-video','mamba-ssm',
         'causal-conv1d','triton','transformers','mambapy','webdataset','accelerate','pandas','scipy','anywidget','ipywidgets',
         'playwright','onnx','onnxscript','onnxruntime'}

def wanted(key): return [Requirement(o) for o in shlex.split(SETTINGS[key])]

def names(requirements): return {o.name for o in requirements}

def pins():
    lines = (ROOT/'constraints.txt').read_text(encoding='utf-8').splitlines()
    return [Requirement(o) for o in lines if o.strip() and not o.startswith('#')]


def test_nbdev_2_and_3_read_the_same():
    for key,value in PYPROJECT['tool']['nbdev'].items():
        assert SETTINGS[key].lower() == str(value).lower(), key
    assert PYPROJECT['project']['name'] == SETTINGS['lib_name'] == SETTINGS['repo']
    assert PYPROJECT['project']['requires-python'] == f'>={SETTINGS["min_python"]}'
    assert PYPROJECT['project']['urls'] == {'Repository': SETTINGS['git_url']} # nbdev 3 writes a docs url into modules

def test_settings_hold_plain_values():
    assert not [k for k,v in SETTINGS.items() if '%(' in v], 'nbdev_bump_version would expand these'

def test_runtime_stays_light():
    assert not names(wanted('requirements')) & TOOLS
    assert len(wanted('requirements')) <= 12

def test_imports_are_required():
    "What the library imports at the top of a module is a runtime requirement, and nothing else is."
    found = set()
    for p in LIB.rglob('*.py'):
        for o in ast.parse(p.read_text(encoding='utf-8')).body:
            if isinstance(o, ast.Import): found |= {a.name.split('.')[0] for a in o.names}
            if isinstance(o, ast.ImportFrom) and not o.level: found.add(o.module.split('.')[0])
    assert found-set(sys.stdlib_module_names)-{LIB.name} <= names(wanted('requirements'))-{'decord'}

@pytest.mark.parametrize('key', ['requirements','widget_requirements','demo_requirements','onnx_requirements',
                                 'clip_requirements','text_requirements','scale_requirements','bench_requirements','dev_requirements'])
def test_constraints_pin_it(key):
    for need in wanted(key):
        found = [p for p in pins() if p.name == need.name]
        assert found, f'{need.name} is not pinned in constraints.txt'
        for p in found:
            version, = (s.version for s in p.specifier)
            assert need.specifier.contains(version), f'{p} is not {need}'

@pytest.mark.parametrize('extra', ['demo','widget','onnx','clip','text','scale'])
def test_extra_is_part_of_dev(extra):
    assert names(wanted(f'{extra}_requirements')) <= names(wanted('dev_requirements'))

def test_setup_only_reads(monkeypatch):
    got = {}
    monkeypatch.setattr(setuptools, 'setup', got.update)
    runpy.run_path(str(ROOT/'setup.py'))
    assert got['version'] == SETTINGS['version'] == __version__
    assert got['install_requires'] == shlex.split(SETTINGS['requirements'])
    assert set(got['extras_require']) == {'widget','onnx','demo','clip','text','scale','cuda','bench','dev'}
    assert got['python_requires'] == f'>={SETTINGS["min_python"]}'
    assert got['entry_points']['console_scripts'] == [SETTINGS['console_scripts']]
    text = (ROOT/'setup.py').read_text(encoding='utf-8')
    assert not [o for o in names(wanted('requirements')) if f"'{o}" in text], 'requirements belong in settings.ini'

def test_files_beside_the_modules_are_shipped(monkeypatch):
    "In the wheel through setup.py, in the source archive through MANIFEST.in."
    got = {}
    monkeypatch.setattr(setuptools, 'setup', got.update)
    runpy.run_path(str(ROOT/'setup.py'))
    shipped = {p for o in got['package_data'][LIB.name] for p in LIB.glob(o)}
    beside = {p for p in LIB.rglob('*') if p.is_file() and p.suffix not in ('.py', '.pyc')}
    assert {'kernels.c', 'moving_digits.safetensors', 'explorer.html'} <= {p.name for p in shipped} and beside == shipped
    lines = [o.split() for o in (ROOT/'MANIFEST.in').read_text(encoding='utf-8').splitlines()]
    globs = [(ROOT/folder,o) for kind,folder,*names in lines if kind == 'recursive-include' for o in names]
    listed = {p for folder,o in globs for p in folder.rglob(o)}
    assert shipped <= listed

def test_doctor_knows_the_requirements():
    checks = {o['package']: o for o in doctor._CHECKS}
    runtime = wanted('requirements')
    assert {k for k,o in checks.items() if o.get('needed', True)} == names(runtime)-{'decord'}
    extras = [o for key in ('widget', 'demo', 'cuda') for o in wanted(f'{key}_requirements')]
    assert names(runtime + extras) <= set(checks)
    for need in runtime:
        least = checks[need.name].get('least')
        assert str(need.specifier) == (f'>={least}' if least else ''), need

def test_ci_runs_what_people_run():
    run = (ROOT/'.ci/run').read_text(encoding='utf-8')
    assert re.search(r'^make test$', run, re.M)
    for flow in (ROOT/'.github/workflows').glob('*.yml'): assert '.ci/run' in flow.read_text(encoding='utf-8')

def test_no_file_is_forgotten():
    "Notebooks are whole JSON, and nothing temporary lies among them."
    for p in (ROOT/SETTINGS['nbs_path']).rglob('*.ipynb'):
        if '.ipynb_checkpoints' not in p.parts: json.loads(p.read_text(encoding='utf-8'))
    assert not list((ROOT/SETTINGS['nbs_path']).glob('.*.tmp'))
