#!/usr/bin/env python3
"""Write README.md from nbs/index.ipynb and its stored outputs. With `--check`, only say whether it is up to date.

Hidden cells are left out, pictures go to nbs/img/readme_*.png, and links that start in nbs/ are made to work from here.
"""
import base64
import re
import sys

from notebooks import NBS, ROOT, flags, read_nb, source

README,IMG = ROOT/'README.md',NBS/'img'
MARK = '<!-- Written from nbs/index.ipynb by dev/make_readme.py: edit there, not here. -->\n\n'
LINK = re.compile(r'(\]\(|src=")([^)"\s]+)')


def from_root(text):
    "Turn links relative to nbs/ into links relative to the root."
    def fix(m):
        target = m[2]
        if re.match(r'[a-z]+:|#|/', target): return m[0]
        return m[1]+(target[3:] if target.startswith('../') else f'{NBS.name}/{target}')
    return LINK.sub(fix, text)

def fenced(text, language=''): return f'```{language}\n{text.strip(chr(10))}\n```'

def picture(output, alt, pictures):
    "Keep a picture under the next free name; its markdown."
    path = IMG/f'readme_{len(pictures)+1}.png'
    pictures[path] = base64.b64decode(''.join(output['data']['image/png']))
    return f'![{alt}]({path.relative_to(ROOT).as_posix()})'

def shown(cell, pictures):
    "The parts of a code cell that a reader sees: source, then outputs."
    f = flags(cell)
    if not {'hide','default_exp'}.isdisjoint(f): return
    code = '\n'.join(o for o in source(cell).splitlines() if not o.startswith('#|'))
    if code.strip() and f.get('echo') != 'false': yield fenced(code, 'python')
    for o in cell['outputs']:
        data = o.get('data', {})
        if 'image/png' in data: yield picture(o, f.get('fig-alt', 'The picture that the code above draws'), pictures)
        elif 'text/markdown' in data: yield from_root(''.join(data['text/markdown']))
        elif text := o.get('text') or data.get('text/plain'): yield fenced(''.join(text))

def build():
    "Text of the README, and its pictures (path -> bytes)."
    parts,pictures = [],{}
    for cell in read_nb(NBS/'index.ipynb')['cells']:
        if cell['cell_type'] == 'markdown': parts.append(from_root(source(cell)))
        elif cell['cell_type'] == 'code': parts += shown(cell, pictures)
    return MARK+'\n\n'.join(parts)+'\n', pictures

def main():
    text,pictures = build()
    old = README.read_text(encoding='utf-8') if README.exists() else ''
    spare = set(IMG.glob('readme_*.png'))-set(pictures)
    stale = [p for p,b in pictures.items() if not p.exists() or p.read_bytes() != b]
    if '--check' in sys.argv[1:]:
        if old != text or spare or stale: sys.exit('README.md is not what nbs/index.ipynb says: run `make readme`')
        return
    IMG.mkdir(exist_ok=True)
    for p in spare: p.unlink()
    for p in stale: p.write_bytes(pictures[p])
    if old != text: README.write_text(text, encoding='utf-8', newline='\n')

if __name__ == '__main__': main()
