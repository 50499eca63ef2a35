"What the tools in this folder share: where the notebooks are, how to read and write them, and the flags of a cell."
import configparser
import json
import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_parser = configparser.ConfigParser(delimiters=['='], interpolation=None)
_parser.read(ROOT/'settings.ini', encoding='utf-8')
SETTINGS = _parser['DEFAULT']
NBS,LIB = ROOT/SETTINGS['nbs_path'],ROOT/SETTINGS['lib_path']


def notebooks(names=()):
    "All notebooks in reading order, or those whose name starts with one of `names` (a path or `11` will do)."
    found = sorted(p for p in NBS.rglob('*.ipynb') if not any(o[0] in '._' for o in p.relative_to(NBS).parts))
    if not names: return found
    stems = [Path(n).name.removesuffix('.ipynb') for n in names]
    for s in stems:
        if not any(p.stem.startswith(s) for p in found): raise SystemExit(f'no notebook starts with {s!r} in {NBS}')
    exact = {p.stem for p in found}.intersection(stems)
    return [p for p in found if p.stem in exact or any(p.stem.startswith(s) for s in stems if s not in exact)]


def read_nb(path): return json.loads(Path(path).read_text(encoding='utf-8'))

def nb_text(nb): return json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False)+'\n'

def write_nb(nb, path):
    "Write all of the notebook or nothing, and leave an unchanged file alone."
    path,text = Path(path),nb_text(nb)
    if path.exists() and path.read_text(encoding='utf-8') == text: return
    tmp = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        tmp.write_text(text, encoding='utf-8', newline='\n')
        os.replace(tmp, path)
    finally: tmp.unlink(missing_ok=True)


def source(cell): return ''.join(cell['source'])

def flags(cell):
    "The `#|` directives on top of a cell, as a dict: {'export': '', 'eval': 'false'}."
    found = {}
    for line in source(cell).splitlines():
        if line.strip() and not line.startswith('#|'): break
        if m := re.match(r'#\|\s*([\w-]+):?\s*(.*)', line): found[m[1]] = m[2].strip()
    return found

def is_export(cell): return cell['cell_type'] == 'code' and not {'export','exports','exporti'}.isdisjoint(flags(cell))
