"The runner that writes outputs: it skips what it must, names what fails, and changes nothing the second time."
import shutil
import subprocess
import sys

import pytest
import run_nbs
from notebooks import ROOT, read_nb, write_nb

OLD = [dict(output_type='stream', name='stdout', text=['kept\n'])]
NOISY = r'print("\x1b[31mred\x1b[0m"); print("noise", file=sys.stderr)'
CELLS = ['# title\n\n> line', 'import sys\nimport torch', f'{NOISY}\ntorch.rand(2)', '#| cuda\n1/0', '#| eval: false\n1/0',
         'import matplotlib.pyplot as plt', 'fig = plt.plot([0,1])', 'object()', 'x = 1']

def cell(i, source):
    kind = dict(cell_type='code', execution_count=7, outputs=list(OLD)) if i else dict(cell_type='markdown')
    return dict(id=f'c{i}', metadata={}, source=source.splitlines(True)) | kind

@pytest.fixture
def nb(tmp_path):
    "The path of a notebook in a project of its own, with its own copy of the runner."
    for name in ('settings.ini','dev/notebooks.py','dev/run_nbs.py'):
        (tmp_path/name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT/name, tmp_path/name)
    (tmp_path/'nbs').mkdir()
    return tmp_path/'nbs/99_test.ipynb'

def save(path, cells):
    meta = dict(kernelspec=dict(display_name='python3', language='python', name='python3'))
    write_nb(dict(cells=[cell(i, o) for i,o in enumerate(cells)], metadata=meta, nbformat=4, nbformat_minor=5), path)

def run(path, *args):
    runner = path.parents[1]/'dev/run_nbs.py'
    r = subprocess.run([sys.executable, runner, path.stem, *args], capture_output=True, text=True)
    return r.returncode, r.stdout+r.stderr

def test_runs_twice_alike(nb):
    save(nb, CELLS)
    assert run(nb)[0] == 0
    first = nb.read_bytes()
    assert run(nb)[0] == 0 and nb.read_bytes() == first
    outs = [c.get('outputs') for c in read_nb(nb)['cells']]
    assert outs[2][0]['text'] == ['red\n'] and len(outs[2]) == 2 # no stderr, no colours
    assert outs[3] == outs[4] == OLD # skipped cells keep theirs
    assert 'image/png' in outs[6][0]['data']
    assert outs[7][0]['data']['text/plain'] == ['<object>'] # no address
    assert outs[8] == [] # an old output does not survive a run
    assert run(nb, '--check')[0] == 0
    stale = read_nb(nb)
    stale['cells'][7]['outputs'][0]['data']['text/plain'] = ['<dog>']
    write_nb(stale, nb)
    rc,text = run(nb, '--check')
    assert rc == 1 and '-<dog>' in text and '+<object>' in text

def test_failure_names_the_cell(nb):
    save(nb, [*CELLS, 'def half(): 1/0\nhalf()'])
    before = nb.read_bytes()
    rc,text = run(nb)
    assert rc == 1 and nb.read_bytes() == before
    for part in ('99_test.ipynb, cell 9', 'half()', 'ZeroDivisionError'): assert part in text

def test_comparison_allows_rounding_only():
    assert run_nbs.same(['loss 0.50001'], ['loss 0.50002'])
    assert not run_nbs.same(['loss 0.50'], ['loss 0.51'])
    assert not run_nbs.same(['loss 0.5'], ['gain 0.5'])
    assert run_nbs.tidy('10%\r20%\r100%\n\x1b[1mbold') == '100%\nbold'
