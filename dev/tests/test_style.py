"The budgets of check_style.py hold, and each rule can fail."
import check_style as style
import pytest
from notebooks import notebooks, write_nb


@pytest.mark.parametrize('path', notebooks(), ids=lambda p: p.stem)
def test_notebook(path): assert not list(style.notebook_rules(path))

@pytest.mark.parametrize('path', style.modules(), ids=lambda p: p.stem)
def test_module(path): assert not list(style.module_rules(path))


def cell(source, kind='code', **kw):
    code = dict(execution_count=None, outputs=[]) if kind == 'code' else {}
    return dict(cell_type=kind, id='a', metadata={}, source=source.splitlines(True)) | code | kw

def out(kind, text): return [dict(output_type='display_data', metadata={}, data={kind: [text]})]

BAD = {
    'more than 110': cell('x = '+'1+'*60+'1'),
    'more than 30': cell('#| export\n'+'x = 1\n'*31),
    'plt.show': cell('plt.show()'),
    'default_device': cell('model.cuda()'),
    'finish it': cell('Later: TODO', 'markdown'),
    'cell of their own': cell('import os\nos.getcwd()'),
    'more than 120': cell('word '*121, 'markdown'),
    'C block has 41': cell('Text.\n\n```c\n'+'x++;\n'*41+'```', 'markdown'),
    'C line has 121': cell('```c\n'+'x'*121+'\n```', 'markdown'),
    'leads nowhere': cell('see [this](99_nothing.ipynb)', 'markdown'),
    'a heading stands alone': cell('## Title\n\nOne.\n\nTwo.', 'markdown'),
    'saved with an error': cell('1/0', outputs=[dict(output_type='error', ename='ValueError', evalue='', traceback=[])]),
    'stderr': cell('1', outputs=[dict(output_type='stream', name='stderr', text=['warning'])]),
    'widget': cell('1', outputs=out('application/vnd.jupyter.widget-view+json', '')),
    'colour codes': cell('1', outputs=out('text/plain', '\x1b[31mred')),
    'path of one machine': cell('1', outputs=out('text/plain', "'/home/someone/clip.mp4'")),
    'figure of': cell('1', outputs=out('image/png', 'a'*120_000)),
}

@pytest.mark.parametrize('message', BAD)
def test_rule_can_fail(message, tmp_path):
    assert any(message in o for o in style.cell_rules(BAD[message], tmp_path)), message

def test_notebook_rules_can_fail(tmp_path):
    path = tmp_path/'Untitled.ipynb'
    write_nb(dict(cells=[cell('x')]*101, metadata={}, nbformat=4, nbformat_minor=5), path)
    found = ' '.join(style.notebook_rules(path))
    for message in ('101 cells','no name for a notebook','cell 0 must be','without a word'): assert message in found

def test_module_rules_can_fail(tmp_path):
    path = tmp_path/'m.py'
    path.write_text('def f(a, # fine\n      b):\n    "no end"\nclass C: pass\n'+'x = 1\n'*251)
    found = ' '.join(style.module_rules(path))
    for message in ('f: b has no comment','docstring of f does not end','C has no docstring','more than 250'):
        assert message in found
    assert 'f: a' not in found
