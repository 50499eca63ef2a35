"The library, the README and the notebooks are in step, and the notebooks are clean."
import shutil
import subprocess
import sys

import pytest
from notebooks import LIB, NBS, ROOT, notebooks


def nbdev(call, folder):
    "Run an nbdev function in a copy of the project."
    module,name = call.rsplit('.', 1)
    code = f'from {module} import {name}; {name}()'
    r = subprocess.run([sys.executable, '-c', code], cwd=folder, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    return r.stdout+r.stderr

@pytest.fixture
def copy(tmp_path):
    "Settings and notebooks, without the library."
    for name in ('settings.ini','pyproject.toml'): shutil.copy(ROOT/name, tmp_path)
    shutil.copytree(NBS, tmp_path/NBS.name, ignore=shutil.ignore_patterns('.*', '*_files'))
    return tmp_path

def test_library_is_what_the_notebooks_export(copy):
    nbdev('nbdev.doclinks.nbdev_export', copy)
    fresh,ours = ({p.relative_to(o/LIB.name).as_posix(): p.read_text(encoding='utf-8') for p in (o/LIB.name).rglob('*.py')}
                  for o in (copy, ROOT))
    assert sorted(fresh) == sorted(ours), 'run `make export`; a module without a notebook must be deleted'
    assert not [k for k in fresh if fresh[k] != ours[k]], 'run `make export`'

def test_notebooks_are_clean(copy):
    nbdev('nbdev.clean.nbdev_clean', copy)
    dirty = [p.name for p in notebooks() if (copy/NBS.name/p.relative_to(NBS)).read_bytes() != p.read_bytes()]
    assert not dirty, f'run `make notebooks NBS="{" ".join(dirty)}"`, or `nbdev_clean` to keep the outputs as they are'

def test_c_code_is_what_the_notebooks_tell():
    r = subprocess.run([sys.executable, ROOT/'dev/export_c.py', '--check'], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout+r.stderr

def test_c_blocks_are_found_in_order(copy):
    "A changed block is noticed, and written in its place."
    shutil.copytree(ROOT/'dev', copy/'dev', ignore=shutil.ignore_patterns('__pycache__', 'bench', 'experiments'))
    (copy/LIB.name).mkdir()
    tool,path = [sys.executable, copy/'dev/export_c.py'],copy/LIB.name/'csrc/kernels.c'
    subprocess.run(tool, check=True)
    assert path.read_text(encoding='utf-8') == (LIB/'csrc/kernels.c').read_text(encoding='utf-8')
    nb = copy/NBS.name/'14_scan_cpu.ipynb'
    nb.write_text(nb.read_text(encoding='utf-8').replace('#define T 16', '#define T 32'), encoding='utf-8')
    assert subprocess.run([*tool, '--check'], capture_output=True).returncode == 1
    subprocess.run(tool, check=True)
    assert '#define T 32' in path.read_text(encoding='utf-8')
    assert subprocess.run([*tool, '--check']).returncode == 0

def test_readme_is_in_step():
    r = subprocess.run([sys.executable, ROOT/'dev/make_readme.py', '--check'], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout+r.stderr
