"""Found clips in a real browser: they play, they stop, they speak; and the box to type in, in a JupyterLab.

With EXPLORER_SHOTS=FOLDER pictures of the pages are kept there.
"""
import json

import numpy as np
import pytest
from browsing import RUN, WRONG, jupyterlab, needs_browser, needs_lab, shot, tab

from videomamba_nb.indexing import build_index
from videomamba_nb.search import search
from videomamba_nb.search_page import save_search
from videomamba_nb.search_parts import Colours
from videomamba_nb.video import write_video

COLOURS = dict(red=(250,0,0), green=(0,250,0), blue=(0,0,250), yellow=(220,220,0), white=(250,250,250))

def disc(rgb, t=20, h=48, w=64):
    "A disc of a colour that crosses the picture."
    y,x = np.mgrid[:h,:w]
    out = np.zeros((t,h,w,3), dtype=np.uint8)
    for i in range(t): out[i][(y-h/2)**2+(x-8-i*(w-16)/(t-1))**2 < 150] = rgb
    return out

@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    "A folder with an index."
    d = tmp_path_factory.mktemp('clips')
    for name,rgb in COLOURS.items(): write_video(d/f'a {name} disc.mp4', disc(rgb), fps=10)
    build_index(Colours(), d)
    return d

@pytest.fixture
def page_file(clips, tmp_path):
    hits = search(Colours(), clips, 'yellow crimson', k=4)
    return save_search(tmp_path/'found.html', hits)

def looks(picture, n=5):
    "How many different looks a picture has within half a second."
    picture.evaluate('img => img.decode()')
    seen = set()
    for _ in range(n):
        seen.add(picture.screenshot())
        picture.page.wait_for_timeout(100)
    return len(seen)

@needs_browser
def test_clips_play_and_pause(browser, page_file):
    "A picture changes while its clip plays, and no more when it is paused."
    with tab(browser) as page:
        page.goto(page_file.as_uri())
        assert page.inner_text('h1') == '“yellow crimson”'
        assert page.inner_text('.says') == '4 clips. The model never learned: crimson.'
        assert page.locator('li').count() == 4 and 'a yellow disc.mp4' in page.inner_text('li:nth-child(1) strong')
        assert looks(page.locator('li:nth-child(1) img')) > 1
        button = page.locator('li:nth-child(1) figure button')
        assert button.get_attribute('aria-label').startswith('Pause a yellow disc.mp4, 0:00-0:02')
        button.click()
        assert button.get_attribute('aria-label').startswith('Play ')
        assert looks(page.locator('li:nth-child(1) img')) == 1
        assert looks(page.locator('li:nth-child(2) img')) > 1 # the others go on
        page.click('.all')
        assert page.inner_text('.all') == 'Play all'
        assert page.eval_on_selector_all('img', 'a => a.every(o => o.src.startsWith("data:image/jpeg"))')

HERE = 'document.activeElement.getAttribute("aria-label")'

@needs_browser
def test_keyboard_and_words(browser, page_file):
    with tab(browser) as page:
        page.goto(page_file.as_uri())
        alts = page.eval_on_selector_all('img', 'a => a.map(o => o.alt)')
        assert len(set(alts)) == 4 and all('found for “yellow crimson”' in o and '.mp4' in o for o in alts)
        seen = []
        for _ in range(5):
            page.keyboard.press('Tab')
            seen.append(page.evaluate(f'{HERE} || document.activeElement.innerText'))
        assert seen[0] == 'Pause all' and all(o.startswith('Pause a ') for o in seen[1:])
        page.keyboard.press('Space')
        assert page.evaluate(HERE).startswith('Play a ')
        page.keyboard.press('Enter')
        assert page.evaluate(HERE).startswith('Pause a ')

LOOKS = {'found': dict(viewport={'width': 1000, 'height': 480}),
         'found_dark_phone': dict(viewport={'width': 390, 'height': 844}, color_scheme='dark', device_scale_factor=2)}

@needs_browser
@pytest.mark.parametrize('name', LOOKS)
def test_looks(browser, page_file, name):
    with tab(browser, **LOOKS[name]) as page:
        page.goto(page_file.as_uri())
        page.wait_for_function('[...document.images].every(o => o.complete && o.naturalWidth)')
        assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')
        ground = page.evaluate('getComputedStyle(document.body).backgroundColor')
        assert (ground == 'rgb(255, 255, 255)') == (name == 'found')
        page.wait_for_timeout(700)
        shot(page, name)

@needs_browser
def test_less_motion(browser, page_file):
    with tab(browser, reduced_motion='reduce') as page:
        page.goto(page_file.as_uri())
        assert page.inner_text('.all') == 'Play all'
        assert page.eval_on_selector_all('img', 'a => a.every(o => o.src.startsWith("data:image/jpeg"))')

@needs_browser
def test_a_film_that_has_left(browser, clips, tmp_path):
    (clips/'a red disc.mp4').rename(tmp_path/'away.mp4')
    try: saved = save_search(tmp_path/'found.html', search(Colours(), clips, 'red', k=1))
    finally: (tmp_path/'away.mp4').rename(clips/'a red disc.mp4')
    with tab(browser) as page:
        page.goto(saved.as_uri())
        assert 'The file is not there' in page.inner_text('figcaption') and page.locator('button').count() == 0
        assert page.eval_on_selector('img', 'o => o.decode().then(() => o.naturalWidth)') == 128


# ---- JupyterLab

CELLS = ['''from videomamba_nb.search_page import search_box
from videomamba_nb.search_parts import Colours
box = search_box(Colours(), {folder!r}, k=2)
box''', "search_box(Colours(), {folder!r}, 'green', k=1, widget=False)", "print('hits', [o.path for o in box.hits])"]

@pytest.fixture
def lab(tmp_path, clips):
    def write(folder):
        code = dict(cell_type='code', metadata={}, outputs=[], execution_count=None)
        cells = [code | dict(id=f'0badcaf{i}', source=o.format(folder=str(clips))) for i,o in enumerate(CELLS)]
        kernel = dict(kernelspec=dict(display_name='python3', language='python', name='python3'))
        nb = dict(cells=cells, metadata=kernel, nbformat=4, nbformat_minor=5)
        (folder/'search.ipynb').write_text(json.dumps(nb), encoding='utf-8')
    with jupyterlab(tmp_path, 'search', write) as address: yield address

TOLD = "[...document.querySelectorAll('.jp-OutputArea-output')].pop().innerText.includes('a red disc')"

@needs_lab
def test_in_jupyterlab(browser, lab):
    "Type, press Enter, see the clips, ask for nothing; and Python knows what was found."
    with tab(browser, home=lab, viewport={'width': 1300, 'height': 1100}) as page:
        page.goto(f'{lab}/lab/tree/search.ipynb?reset&token=search')
        page.wait_for_selector('.jp-Notebook .jp-Cell')
        page.evaluate(RUN)
        page.wait_for_selector(f'.vm-search input, {WRONG}', timeout=120_000)
        assert page.locator(WRONG).all_inner_texts() == []
        page.get_by_label('Find clips of').fill('blue')
        page.keyboard.press('Enter')
        page.wait_for_selector('.vm-search li')
        assert page.inner_text('.vm-search .says') == '2 clips.'
        assert 'a blue disc.mp4' in page.inner_text('.vm-search li strong')
        assert looks(page.locator('.vm-search li img').first) > 1
        shot(page, 'search_lab')
        page.get_by_label('Find clips of').press_sequentially(' aabb') # keys that are commands of a notebook
        page.get_by_role('button', name='Search', exact=True).click()
        page.wait_for_function("document.querySelector('.vm-search .says').innerText.includes('never learned: aabb')")
        page.get_by_label('Find clips of').fill('  ')
        page.keyboard.press('Enter')
        page.wait_for_function("document.querySelector('.vm-search .says').innerText.includes('question is empty')")
        assert page.locator('.vm-search .says.wrong').count() == 1 and page.locator('.vm-search li').count() == 0
        page.get_by_label('Find clips of').fill('red')
        page.keyboard.press('Enter')
        page.wait_for_selector('.vm-search li')
        frame = page.wait_for_selector('iframe[title="Found clips"]').content_frame()
        frame.wait_for_selector('li img')
        assert 'a green disc.mp4' in frame.inner_text('li strong')
        page.locator('.jp-CodeCell').last.click()
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell')")
        page.wait_for_function(TOLD)
        assert page.locator(WRONG).all_inner_texts() == []
