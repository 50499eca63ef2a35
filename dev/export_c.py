#!/usr/bin/env python3
"""Write the C code of the package from the notebooks that tell it: every ```c block, in reading order.

With `--check`, only say whether the file is up to date.
"""
import sys

from check_style import C_BLOCK
from notebooks import LIB, NBS, notebooks, read_nb, source

KERNELS = LIB/'csrc/kernels.c'


def c_blocks(path):
    "The C blocks of a notebook's text."
    cells = [source(o) for o in read_nb(path)['cells'] if o['cell_type'] == 'markdown']
    return [o.strip('\n') for text in cells for o in C_BLOCK.findall(text)]

def build():
    "Text of the C file."
    told = {p: c_blocks(p) for p in notebooks()}
    names = ', '.join(p.relative_to(NBS.parent).as_posix() for p,blocks in told.items() if blocks)
    head = f'/* Written from {names} by dev/export_c.py: edit there, not here. */'
    return '\n\n'.join([head, *(o for blocks in told.values() for o in blocks)])+'\n'

def main():
    text = build()
    old = KERNELS.read_text(encoding='utf-8') if KERNELS.exists() else ''
    if old == text: return
    if '--check' in sys.argv[1:]: sys.exit(f'{KERNELS.name} is not what the notebooks say: run `make export`')
    KERNELS.parent.mkdir(exist_ok=True)
    KERNELS.write_text(text, encoding='utf-8', newline='\n')

if __name__ == '__main__': main()
