"Every annotation of the library is true: small calls with shapes and types checked, and one false note that is caught."
import os
import shutil
import subprocess
import sys
from pathlib import Path

from notebooks import LIB, ROOT

SCRIPT = Path(__file__).with_name('under_hook.py')

def run(folder):
    r = subprocess.run([sys.executable, '-W', 'ignore', SCRIPT], cwd=folder, capture_output=True, text=True,
                       env={**os.environ, 'PYTHONPATH': str(folder), 'MPLBACKEND': 'agg'})
    return r.returncode, r.stdout+r.stderr

def test_annotations_are_true():
    rc,text = run(ROOT)
    assert rc == 0, text[-4000:]

def test_a_false_annotation_is_caught(tmp_path):
    shutil.copytree(LIB, tmp_path/LIB.name, ignore=shutil.ignore_patterns('__pycache__'))
    path = tmp_path/LIB.name/'ssm.py'
    text = path.read_text(encoding='utf-8')
    true,false = "A:Float[Tensor,'e n']","A:Float[Tensor,'n e']"
    assert true in text
    path.write_text(text.replace(true, false), encoding='utf-8')
    rc,text = run(tmp_path)
    assert rc != 0 and 'TypeCheckError' in text
