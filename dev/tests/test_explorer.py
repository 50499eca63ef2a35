"""The explorer in a real browser: the page without a kernel, and the widget in a JupyterLab.

With EXPLORER_SHOTS=FOLDER the pictures of the page are kept there.
"""
import json
import shutil
import statistics
import time
from contextlib import contextmanager

import numpy as np
import pytest
from browsing import RUN, WRONG, jupyterlab, needs_browser, needs_lab, shot, tab
from notebooks import LIB, NBS

from videomamba_nb.evaluate import shipped_weights
from videomamba_nb.explorer import explorer_html, page_curves, save_explorer
from videomamba_nb.scan_order import list_orders, permutations, spatial_first
from videomamba_nb.video import write_video

SIZES = [(1, 1, 1), (2, 3, 4), (4, 5, 3), (1, 6, 5), (8, 2, 1)]

def moving_square(t=16, side=48):
    "A bright square that walks over a gradient."
    clip = np.zeros((t, side, side, 3), dtype=np.uint8) + np.arange(side, dtype=np.uint8)[:,None]*3
    for i in range(t): clip[i,8:24,2*i:2*i+16] = (250, 200, 60)
    return clip

@contextmanager
def explorer(browser, tmp_path, how=None, **kwargs):
    "The saved page, open."
    path = save_explorer(tmp_path/'explorer.html', **kwargs)
    with tab(browser, **how or {}) as page:
        page.goto(path.as_uri())
        page.wait_for_function('window.explorer && explorer.ready()')
        yield page

def state(page, key): return page.evaluate(f'explorer.state().{key}')

def paths(name, *size): return [p.tolist() for p in permutations(name, *size)]

def keys(name, n): return [name] if n == 1 else [f'{name}#{i}' for i in range(n)]

def say(record_property, **facts):
    for k,v in facts.items():
        record_property(k, v)
        print(f'{k}: {v}')


def test_the_page_is_small(record_property):
    kb = len(explorer_html(t=16).encode())/1000
    say(record_property, page_kb=round(kb, 1))
    assert kb <= 200

def test_its_source_is_for_people():
    "Short files, short lines, and no address of another site but those of standards."
    for p in (LIB/'web').iterdir():
        lines = p.read_text(encoding='utf-8').splitlines()
        assert len(lines) <= 300 and max(map(len, lines)) <= 125, p.name
        assert 'http' not in ''.join(lines), p.name

def test_curves_are_told_by_name():
    "Every registered order that the page has a curve for stays short, at any size."
    assert {'spatial_first', 'temporal_first', 'column_first'} <= set(page_curves())
    assert len(explorer_html(t=16)) - len(explorer_html(t=1)) < 100

@needs_browser
def test_the_page_makes_the_orders_of_python(browser, tmp_path):
    with explorer(browser, tmp_path) as page:
        for size in [*SIZES, (8, 7, 7), (16, 14, 14)]:
            for name in list_orders():
                want = paths(name, *size)
                for key,path in zip(keys(name, len(want)), want, strict=True):
                    assert page.evaluate('a => explorer.order(...a)', [key, *size]) == path, (name, size)

@needs_browser
def test_it_draws_the_orders_of_python(browser, tmp_path):
    "The heads visit the tokens in Python's order, forward, backward, and both at once."
    with explorer(browser, tmp_path) as page:
        for size in SIZES:
            assert page.evaluate('s => explorer.resize(...s)', size)
            for name in list_orders():
                want = paths(name, *size)
                for key,path in zip(keys(name, len(want)), want, strict=True):
                    page.evaluate('o => explorer.set({order: o})', key)
                    for direction,heads in {'forward': [path], 'backward': [path[::-1]], 'both': [path, path[::-1]]}.items():
                        page.evaluate('d => explorer.set({direction: d})', direction)
                        assert page.evaluate('explorer.walk()') == [list(o) for o in zip(*heads)], (name, size, direction)

@needs_browser
def test_an_order_without_a_curve(browser, tmp_path):
    "It travels as a list, is drawn, and is not guessed at another size."
    orders = {'mine': lambda t, h, w: spatial_first(t, h, w).roll(1)}
    with explorer(browser, tmp_path, t=2, h=3, w=3, orders=orders, order='mine') as page:
        assert page.evaluate('explorer.walk()') == [[17]] + [[i] for i in range(17)]
        page.fill('#t', '3')
        page.press('#t', 'Enter')
        assert 'computed in Python for 2 × 3 × 3' in page.inner_text('#error')
        assert state(page, 'size') == dict(t=2, h=3, w=3)
        page.select_option('#order', 'spatial_first')
        page.fill('#t', '4')
        page.press('#t', 'Enter')
        assert state(page, 'size.t') == 4 and page.is_hidden('#error')
        page.select_option('#order', 'mine') # refused here, and the choice goes back
        assert page.is_visible('#error') and page.input_value('#order') == 'spatial_first'

@needs_browser
def test_controls(browser, tmp_path):
    with explorer(browser, tmp_path, clip=moving_square(), t=4, h=5, w=6) as page:
        page.click('#next')
        page.click('#next')
        page.click('#back')
        assert state(page, 'k') == 1 and page.inner_text('#where') == '1 of 119'
        page.fill('#position', '60')
        assert state(page, 'k') == 60
        page.fill('#speed', '3')
        page.click('#play')
        page.wait_for_function('explorer.state().k === 119 && !explorer.state().playing')
        assert page.inner_text('#play') == 'Play'
        page.select_option('#other', 'temporal_first')
        assert page.is_visible('#panel-b canvas.view')
        page.check('[name=direction][value=both]', force=True)
        page.check('[name=layout][value=strip]', force=True)
        page.fill('#delta', '-2')
        assert state(page, 'delta') == pytest.approx(.01) and state(page, 'direction') == 'both'
        page.select_option('#show', 'influence')
        page.select_option('#other', '')
        assert page.is_hidden('#panel-b')

@needs_browser
@pytest.mark.parametrize('layout', ['stack', 'strip'])
def test_point_and_click(browser, tmp_path, layout):
    with explorer(browser, tmp_path, t=4, h=5, w=6) as page:
        page.evaluate('l => explorer.set({layout: l})', layout)
        for place in (0, 17, 29): # of the nearest frame, which nothing covers
            x,y = page.evaluate('p => explorer.spot(p)', place)
            page.mouse.move(x, y)
            assert f'read at {place}' in page.inner_text('#panel-a .pointed')
            page.mouse.click(x, y)
            assert state(page, 'token') == place
        cells = page.eval_on_selector_all('#around tbody tr', 'o => o.map(r => r.innerText.split("\\t"))')
        assert [o[1] for o in cells] == ['−1', '–', '−6', '–', '–', '+30']
        assert [o[2] for o in cells] == ['read before', 'outside', 'read before', 'outside', 'outside', '74\u00a0%']
        places = page.eval_on_selector_all('#places tbody tr', 'o => o.map(r => r.innerText.split("\\t"))')
        want = {k: ' · '.join(str(p.index(29)) for p in paths(k, 4, 5, 6)) for k in list_orders()}
        assert {o[0]: o[1] for o in places} == want

NAMELESS = """all => all.filter(o => !(o.labels?.length || o.getAttribute('aria-label') || o.tagName === 'BUTTON' &&
  o.innerText || o.tagName === 'OUTPUT' && o.htmlFor.length)).map(o => o.id || o.outerHTML.slice(0, 60))"""

@needs_browser
def test_keyboard_alone(browser, tmp_path):
    with explorer(browser, tmp_path, t=4, h=5, w=6) as page:
        nameless = page.eval_on_selector_all('button, select, input, canvas, output', NAMELESS)
        assert nameless == []
        seen = []
        for _ in range(40):
            page.keyboard.press('Tab')
            seen.append(page.evaluate('document.activeElement.id || document.activeElement.className'))
            if seen[-1] == 'view': break
        assert {'order', 'other', 'show', 'play', 'back', 'next', 'position', 'speed', 'view'} <= set(seen)
        start = state(page, 'token')
        moves = dict(ArrowRight=1, ArrowDown=6, PageDown=30, ArrowLeft=-1, ArrowUp=-6, PageUp=-30)
        for key,by in moves.items():
            before = state(page, 'token')
            page.keyboard.press(key)
            assert state(page, 'token') == before+by
        assert state(page, 'token') == start and 'Frame 2, row 2, column 3' in page.inner_text('#live')
        for key,k in {'.': 1, 'End': 119, ',': 118, 'Home': 0}.items():
            page.keyboard.press(key)
            assert state(page, 'k') == k
        page.keyboard.press('Space')
        assert state(page, 'playing')
        page.keyboard.press('Space')
        assert not state(page, 'playing')
        yaw = state(page, 'yaw')
        page.keyboard.press('Shift+ArrowRight')
        assert state(page, 'yaw') > yaw
        for _ in range(9): page.keyboard.press('ArrowUp')
        assert page.inner_text('#live') == 'The clip ends here.'

@needs_browser
def test_challenges(browser, tmp_path):
    with explorer(browser, tmp_path, t=8, h=14, w=14) as page:
        def check(i):
            page.click(f'#tasks li:nth-child({i}) button')
            answer = page.locator(f'#tasks li:nth-child({i}) [role=status]')
            return answer.get_attribute('data-ok') == 'true', answer.inner_text()
        assert check(1) == (False, 'Not yet: with spatial_first the next frame is up to 196 steps away.')
        page.select_option('#order', 'temporal_first')
        assert check(1)[0]
        assert 'spatial_first' in check(2)[1]
        page.select_option('#order', 'spatial_first')
        assert not check(2)[0]
        page.fill('#delta', '-2.46') # 0.00347
        assert check(2)[0]
        assert check(3) == (False, 'Not yet: below 1\u00a0% reaches left, above, frame before.')
        page.check('[name=direction][value=both]', force=True)
        assert check(3)[0]
        page.evaluate('explorer.set({token: 0})')
        assert 'at its edge' in check(3)[1]
        page.evaluate('explorer.resize(1, 2, 2)')
        assert 'at least 4 x 7 x 7' in check(1)[1]

@needs_browser
def test_bad_input(browser, tmp_path):
    with explorer(browser, tmp_path, t=2, h=3, w=3) as page:
        for field,value,why in (('t', '0', 'Frames must be'), ('h', '-2', 'Rows must be'), ('w', '', 'Columns must be'),
                                ('t', '1.5', 'Frames must be'), ('w', '9999', 'draws up to')):
            page.fill(f'#{field}', value)
            page.press(f'#{field}', 'Enter')
            assert why in page.inner_text('#error') and state(page, 'size') == dict(t=2, h=3, w=3)
            page.fill(f'#{field}', '2' if field == 't' else '3')
            page.press(f'#{field}', 'Enter')
            assert page.is_hidden('#error')
        page.fill('#a', '-1')
        page.press('#a', 'Enter')
        assert '|A| must be' in page.inner_text('#error') and state(page, 'a') == 1

@needs_browser
def test_a_file_of_the_reader(browser, tmp_path):
    with explorer(browser, tmp_path, t=2, h=3, w=3) as page:
        (tmp_path/'notes.mp4').write_text('no video')
        page.set_input_files('#file', tmp_path/'notes.mp4')
        page.wait_for_function('explorer.error()')
        assert page.inner_text('#error') == 'notes.mp4 is not a video that this browser can read.'
        write_video(tmp_path/'clip.mp4', moving_square())
        page.set_input_files('#file', tmp_path/'clip.mp4')
        page.wait_for_function('!explorer.error()', timeout=20_000)
        assert 'clip.mp4 lies behind' in page.inner_text('#live')

@needs_browser
def test_frame_times(browser, tmp_path, record_property):
    "Recorded, not judged: a machine may be busy. Only a page that stands still fails."
    with explorer(browser, tmp_path, clip=moving_square(side=112), t=16, h=14, w=14, other='temporal_first') as page:
        for layout in ('stack', 'strip'):
            page.evaluate('l => explorer.set({layout: l, direction: "both", speed: 300})', layout)
            times = page.evaluate('explorer.measure(120)')
            draw,gap = (statistics.median(times[k]) for k in ('draw', 'gap'))
            worst = sorted(times['draw'])[int(.95*len(times['draw']))]
            say(record_property, **{f'{layout}_draw_ms': round(draw, 2), f'{layout}_draw_ms_95': round(worst, 2),
                                    f'{layout}_frames_per_s': round(1000/gap, 1)})
            assert draw < 200

@needs_browser
def test_a_trained_model_over_it(browser, tmp_path):
    with explorer(browser, tmp_path, clip=moving_square(), model=shipped_weights(), other='temporal_first') as page:
        assert state(page, 'size') == dict(t=4, h=4, w=4) and page.is_visible('#layer')
        page.select_option('#layer', '1')
        page.select_option('#scan', '1')
        assert 'mean Δ here' in page.inner_text('#token-says') and 'Δ =' in page.inner_text('#legend')
        shot(page, 'model', full_page=True)

LOOKS = {'desktop': dict(), 'dark': dict(color_scheme='dark'),
         'phone': dict(viewport={'width': 390, 'height': 844}, device_scale_factor=2, color_scheme='dark', has_touch=True)}

@needs_browser
@pytest.mark.parametrize('name', LOOKS)
def test_looks(browser, tmp_path, name):
    "Nothing runs out of the window, and the page follows the reader's colours."
    clip = moving_square(side=112)
    with explorer(browser, tmp_path, how=LOOKS[name], clip=clip, t=8, h=14, w=14, other='temporal_first') as page:
        page.evaluate('explorer.set({k: 500, direction: "both"})')
        assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')
        ground = page.evaluate('getComputedStyle(document.body).backgroundColor')
        assert (ground == 'rgb(255, 255, 255)') == (name == 'desktop')
        shot(page, name, full_page=True)
        page.evaluate('explorer.set({layout: "strip", show: "influence", direction: "forward"})')
        shot(page, f'{name}_strip', full_page=True)


# ---- JupyterLab

LAB_CELL = """
def picky(t, h, w): return spatial_first(t, h, w) if t < 5 else torch.zeros(t*h*w, dtype=torch.int64)
made = explore(file, orders=dict(picky=picky)"""

def lab_notebook(folder):
    """The notebook without its last cell, which exports. Its widget gets a name and an order that fails for five frames;
    new cells show the page without a widget, and tell what Python knows."""
    nb = json.loads((NBS/'60_explorer.ipynb').read_text(encoding='utf-8'))
    nb['cells'].pop()
    for c in nb['cells']:
        text = ''.join(c['source'])
        if '\nexplore(file' in text: c['source'] = text.replace('\nexplore(file', LAB_CELL)+'\nmade'
    for i,text in enumerate(('explore(t=2, h=2, w=3, widget=False)', "print('state', json.dumps(made.state))")):
        nb['cells'].append(dict(cell_type='code', id=f'0badcaf{i}', metadata={}, outputs=[], execution_count=None,
                                source=text))
    (folder/'explorer.ipynb').write_text(json.dumps(nb), encoding='utf-8')
    shutil.copytree(NBS/'img', folder/'img')

@pytest.fixture
def lab(tmp_path):
    "A running JupyterLab on a copy of the notebook: its address, up to the path."
    with jupyterlab(tmp_path, 'explorer', lab_notebook) as address: yield address

FRAME = 'iframe[title="Scan order explorer"]'
TOLD = "[...document.querySelectorAll('.jp-OutputArea-output')].pop().innerText.includes('temporal_first\"')"

@needs_lab
def test_in_jupyterlab(browser, lab):
    "Run the notebook, move the controls, and compare what is drawn with Python."
    with tab(browser, home=lab, viewport={'width': 1400, 'height': 1200}) as page:
        page.goto(f'{lab}/lab/tree/explorer.ipynb?reset&token=explorer')
        page.wait_for_selector('.jp-Notebook .jp-Cell')
        page.evaluate(RUN)
        box = page.wait_for_selector(f'{FRAME}, {WRONG}', timeout=120_000)
        assert page.locator(WRONG).all_inner_texts() == []
        frame = box.content_frame()
        frame.wait_for_function('window.explorer && explorer.ready() && explorer.state().size.t === 4')
        frame.fill('#t', '3')
        frame.press('#t', 'Enter')
        frame.wait_for_function('explorer.state().size.t === 3') # Python has answered
        for name in list_orders():
            want = paths(name, 3, 4, 4)
            for key,path in zip(keys(name, len(want)), want, strict=True):
                frame.select_option('#order', key)
                assert frame.evaluate('explorer.walk()') == [[p] for p in path]
        frame.fill('#t', '0')
        frame.press('#t', 'Enter')
        assert 'Frames must be' in frame.inner_text('#error')
        frame.fill('#t', '5')
        frame.press('#t', 'Enter')
        frame.wait_for_function('explorer.error().startsWith("picky is no order of 5 x 4 x 4 tokens")')
        assert state(frame, 'size') == dict(t=3, h=4, w=4)
        frame.select_option('#order', 'temporal_first')
        frame.click('#next')
        shot(page, 'lab')
        plain = page.query_selector_all(FRAME)[1].content_frame()
        plain.wait_for_function('window.explorer && explorer.ready()')
        assert plain.evaluate('explorer.walk()') == [[p] for p in range(12)]
        time.sleep(.5)
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell')")
        page.wait_for_function(TOLD)
        assert page.locator(WRONG).all_inner_texts() == []
        told = json.loads(page.locator('.jp-OutputArea-output').last.inner_text().removeprefix('state '))
        assert told['order'] == 'temporal_first' and told['size'] == dict(t=3, h=4, w=4)
