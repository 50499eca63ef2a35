"What browser tests share: a browser, a page that must not complain, and a JupyterLab."
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from notebooks import ROOT

BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome', 'chrome'))), None)
MISSING = 'playwright is not installed' if importlib.util.find_spec('playwright') is None else \
          '' if BROWSER else 'no Chromium or Chrome in PATH'
needs_browser = pytest.mark.skipif(bool(MISSING), reason=MISSING)
NO_LAB = MISSING or next((f'{o} is not installed' for o in ('anywidget', 'jupyterlab')
                          if importlib.util.find_spec(o) is None), '')
needs_lab = pytest.mark.skipif(bool(NO_LAB), reason=NO_LAB)
SHOTS = os.environ.get('EXPLORER_SHOTS') # a folder: pictures of pages are kept there

@contextmanager
def tab(browser, home=None, **how):
    "A page that must not complain, nor ask for anything outside `home`; how: viewport, color_scheme, ..."
    context = browser.new_context(**{'viewport': {'width': 1200, 'height': 1250}} | how)
    page,faults = context.new_page(),[]
    page.on('console', lambda m: faults.append(f'{m.text} {m.location}') if m.type == 'error' else None)
    page.on('pageerror', lambda e: faults.append(str(e)))
    def asked(request):
        outside = request.url.startswith(('http', 'ws')) and not (home and request.url.startswith(home))
        if outside: faults.append(f'asked for {request.url[:80]}')
    page.on('request', asked)
    page.faults = faults
    yield page
    context.close()
    assert not page.faults


def shot(page, name, **how):
    if SHOTS: page.screenshot(path=Path(SHOTS)/f'{name}.png', **how)


# ---- JupyterLab

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

@contextmanager
def jupyterlab(folder, token, write):
    "A running JupyterLab in a fresh folder, in which `write` has put a notebook: its address, up to the path."
    work,settings,port = folder/'work',folder/'settings',free_port()
    for name,text in {'notebook-extension/tracker': '{"windowingMode": "none"}', # every cell is there
                      'apputils-extension/notification': '{"fetchNews": "false"}'}.items():
        path = settings/'@jupyterlab'/f'{name}.jupyterlab-settings'
        path.parent.mkdir(parents=True)
        path.write_text(text)
    work.mkdir()
    write(work)
    env = os.environ | dict(JUPYTERLAB_SETTINGS_DIR=str(settings), PYTHONPATH=str(ROOT),
                            JUPYTER_CONFIG_DIR=str(folder/'config'), JUPYTER_RUNTIME_DIR=str(folder/'runtime'))
    command = [sys.executable, '-m', 'jupyterlab', '--allow-root', '--no-browser', '--ip=127.0.0.1', f'--port={port}',
               f'--IdentityProvider.token={token}', '--LabApp.expose_app_in_browser=True', f'--ServerApp.root_dir={work}',
               '--LabApp.extension_manager=readonly']
    with open(folder/'lab.log', 'w') as log:
        server = subprocess.Popen(command, cwd=work, env=env, stdout=log, stderr=log)
        try:
            for _ in range(120):
                try: urlopen(f'http://127.0.0.1:{port}/api?token={token}').close()
                except OSError: time.sleep(.5)
                else: break
            yield f'http://127.0.0.1:{port}'
        finally:
            server.terminate()
            server.wait(20)

RUN = """async () => {
  const app = window.jupyterapp;
  await app.restored;
  await app.shell.currentWidget.context.sessionContext.ready;
  await app.commands.execute('notebook:run-all-cells');
}"""

WRONG = ', '.join(f'[data-mime-type="application/vnd.jupyter.{o}"]' for o in ('error', 'stderr'))
