import sys
from pathlib import Path

import pytest

DEV = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(DEV), str(DEV/'bench')] # the tools of this folder: notebooks, check_style, ...

@pytest.fixture(scope='module')
def browser():
    "Chromium, for tests that are marked `needs_browser`."
    from browsing import BROWSER
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=BROWSER, args=['--no-sandbox', '--disable-dev-shm-usage'])
        yield b
        b.close()
