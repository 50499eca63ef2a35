#!/usr/bin/env python3
"""Run notebooks from top to bottom and keep their outputs: the only way an output gets into a notebook.

    dev/run_nbs.py                  all notebooks, in reading order
    dev/run_nbs.py 11 20_scan       those whose names start so
    HAVE=slow dev/run_nbs.py 30     also run the cells flagged `slow`
    dev/run_nbs.py --check          write nothing, fail if a text output is not what it was

Cells flagged `notest`, `cuda` or `slow` are skipped, and keep their outputs, unless HAVE names the flag; so are cells
with `eval: false` and the one that exports. Seeds, threads and figures are fixed, so that a second run changes no byte.
"""
import argparse
import difflib
import os
import random
import re
import subprocess
import sys
import time

from notebooks import NBS, ROOT, SETTINGS, flags, notebooks, read_nb, source, write_nb

ENV = {'PYTHONHASHSEED': '0', 'OMP_NUM_THREADS': '2', 'MKL_NUM_THREADS': '2', 'OMP_WAIT_POLICY': 'PASSIVE',
       'TZ': 'UTC', 'COLUMNS': '100', 'TQDM_DISABLE': '1', 'NO_COLOR': '1', 'HF_HUB_OFFLINE': '1',
       'CUBLAS_WORKSPACE_CONFIG': ':4096:8'}
ANSI = re.compile(r'\x1b\[[0-9;?]*[ -/]*[@-~]')
NUMBER = re.compile(r'(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?')


def skipped(cell, have):
    "Does this cell keep its old output?"
    f = flags(cell)
    lacking = set(SETTINGS['tst_flags'].split())-set(have)
    return cell['cell_type'] != 'code' or lacking & f.keys() or f.get('eval') == 'false' or 'nbdev_export(' in source(cell)

def tidy(text):
    "Drop colours, and of lines that overwrite themselves all but the last state."
    lines = ANSI.sub('', text).replace('\r\n', '\n').split('\n')
    return '\n'.join(line.rstrip('\r').rsplit('\r', 1)[-1] for line in lines)

def kept(outputs):
    "The outputs worth keeping: no stderr, no widgets, plain text tidied."
    for o in outputs:
        if o['output_type'] == 'stream':
            text = tidy(''.join(o['text']))
            if o['name'] == 'stdout' and text.strip(): yield {**o, 'text': text.splitlines(True)}
        else:
            data = {k: v for k,v in o['data'].items() if 'widget' not in k}
            if 'text/plain' in data: data['text/plain'] = tidy(''.join(data['text/plain'])).splitlines(True)
            if len(data) == len(o['data']): yield {**o, 'data': data}

def shell(path):
    "A fresh IPython with seeds set and figures that come out the same each time."
    import numpy as np
    import torch
    from execnb.shell import CaptureShell
    sys.path.insert(0, str(ROOT))
    os.chdir(path.parent)
    k = CaptureShell(path, mpl_format='png')
    k.run("set_matplotlib_formats('png', bbox_inches='tight', metadata={'Software': None})")
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return k

def run(path, have):
    "Run one notebook in this process; the notebook with its new outputs, or exit naming the cell that failed."
    from nbdev.clean import _nbdev_clean
    nb,k = read_nb(path),shell(path)
    for i,cell in enumerate(nb['cells']):
        if skipped(cell, have): continue
        outputs = k.run(source(cell))
        if k.exc:
            from execnb.shell import format_exc
            where = f'{path.relative_to(ROOT)}, cell {i} of {len(nb["cells"])} (id {cell["id"]})'
            trace = tidy(''.join(format_exc(k.exc)[-6:]))
            raise SystemExit(f'\nFAILED {where}; the file is left as it was\n\n{source(cell)}\n\n{trace}')
        cell['outputs'] = list(kept(outputs))
    _nbdev_clean(nb)
    return nb


def text_of(cell):
    "All that can be compared in a cell's outputs: the text, and the kinds of pictures."
    lines = []
    for o in cell.get('outputs', []):
        data = o.get('data', {'text': o.get('text', '')})
        for kind in sorted(data):
            lines += ''.join(data[kind]).splitlines() if kind.startswith('text') else [f'<{kind}>']
    return lines

def same(a, b):
    "Equal text, where numbers may differ in the digits that another processor rounds differently."
    a,b = '\n'.join(a),'\n'.join(b)
    if NUMBER.sub('#', a) != NUMBER.sub('#', b): return False
    pairs = zip(map(float, NUMBER.findall(a)), map(float, NUMBER.findall(b)))
    return all(abs(x-y) <= 1e-3*max(abs(x), abs(y))+1e-5 for x,y in pairs)

def changes(old, new, path):
    "What differs between two runs of a notebook, as lines to print."
    for i,(a,b) in enumerate(zip(old['cells'], new['cells'])):
        if same(text_of(a), text_of(b)): continue
        yield f'\n{path.relative_to(ROOT)}, cell {i} (id {a["id"]}): the stored output is stale'
        yield from difflib.unified_diff(text_of(a), text_of(b), 'stored', 'now', n=1, lineterm='')


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('names', nargs='*', help='notebooks: a path, a name, or how the name starts')
    p.add_argument('--check', action='store_true', help='compare with the stored outputs and write nothing')
    p.add_argument('--one', action='store_true', help=argparse.SUPPRESS)
    args = p.parse_args()
    paths,have = notebooks(args.names),os.environ.get('HAVE', '').split()
    if not args.one: sys.exit(max((run_apart(o, args.check, have) for o in paths), default=0))
    path, = paths
    old = read_nb(path)
    new = run(path, have)
    if args.check:
        diff = list(changes(old, new, path))
        if diff: sys.exit('\n'.join(diff))
    elif read_nb(path) != old: sys.exit(f'{path.name} was edited while it ran, so it is left alone: run it again')
    else: write_nb(new, path)

def run_apart(path, check, have):
    "Run one notebook in a process of its own, so that none can lean on what another left behind."
    start = time.time()
    env = {**os.environ, **ENV}
    if 'cuda' not in have: env['CUDA_VISIBLE_DEVICES'] = ''
    cmd = [sys.executable, __file__, '--one', str(path.relative_to(NBS))] + ['--check']*check
    rc = subprocess.run(cmd, env=env).returncode
    print(f'{"ok" if rc == 0 else "FAILED"}  {path.relative_to(ROOT)}  {time.time()-start:.0f} s', flush=True)
    return rc

if __name__ == '__main__': main()
