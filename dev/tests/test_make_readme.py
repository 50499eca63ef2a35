"The README's converter: links work from the root, hidden cells stay hidden, pictures become files."
import make_readme
import pytest
from notebooks import write_nb

PNG = 'iVBORw0KGgo='

@pytest.fixture
def project(tmp_path, monkeypatch):
    for name,path in dict(ROOT='', NBS='nbs', README='README.md', IMG='nbs/img').items():
        monkeypatch.setattr(make_readme, name, tmp_path/path)
    (tmp_path/'nbs').mkdir()
    code = dict(cell_type='code', execution_count=None, metadata={}, id='c')
    picture = dict(output_type='display_data', metadata={}, data={'image/png': PNG, 'text/plain': ['<Figure>']})
    seen = dict(output_type='stream', name='stdout', text=['seen\n'])
    cells = [
        dict(cell_type='markdown', metadata={}, id='m', source=['# t\n', '[a](11_scan.ipynb#x) [b](../LICENSE) [c](https://d.e)']),
        code | dict(source=['#| hide\n', 'secret'], outputs=[]),
        code | dict(source=['#| fig-alt: A line.\n', 'draw()'], outputs=[picture]),
        code | dict(source=['#| echo: false\n', 'quiet()'], outputs=[seen])]
    write_nb(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5), tmp_path/'nbs/index.ipynb')
    return tmp_path

def test_readme(project, monkeypatch):
    monkeypatch.setattr('sys.argv', ['make_readme.py'])
    make_readme.main()
    text = (project/'README.md').read_text()
    assert '[a](nbs/11_scan.ipynb#x) [b](LICENSE) [c](https://d.e)' in text
    assert '```python\ndraw()\n```\n\n![A line.](nbs/img/readme_1.png)' in text
    assert '```\nseen\n```' in text and 'quiet' not in text and 'secret' not in text and 'Figure' not in text
    assert (project/'nbs/img/readme_1.png').read_bytes()[:4] == b'\x89PNG'
    monkeypatch.setattr('sys.argv', ['make_readme.py', '--check'])
    make_readme.main()
    (project/'nbs/img/readme_1.png').write_bytes(b'other')
    with pytest.raises(SystemExit, match='make readme'): make_readme.main()
