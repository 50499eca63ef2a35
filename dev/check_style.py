#!/usr/bin/env python3
"""The budgets that keep notebooks and modules readable. `dev/check_style.py [NAME ...]` lists what breaks them.

`--table` prints the measured numbers instead. Each rule is a small function that yields one line per problem.
"""
import argparse
import ast
import io
import json
import re
import statistics
import sys
import tokenize
from pathlib import Path

from notebooks import LIB, NBS, flags, is_export, notebooks, read_nb, source

CELLS = 100           # in a notebook
EXPORTED_LINES = 30   # in an exported cell, signature and docstring included
LINE = 110            # characters in a line of code that a reader sees; 140 in a hidden cell
WORDS = 120           # in a markdown cell
C_LINES,C_LINE = 40,120 # lines in a block of C, characters in a line of it
SILENT = 4            # code cells in a row without a word
MODULE = {'model.py': 350} # lines, blank ones and cell markers not counted; 250 for the others
FIGURE,NOTEBOOK = 80_000,700_000 # bytes
NAME = re.compile(r'index|\d\d[a-z]?_[a-z0-9_]+')
FORBIDDEN = {'plt.show': 'figures show themselves', '.cuda()': 'use default_device()',
             '%timeit': 'speeds come from dev/bench',
             'TODO': 'finish it', 'FIXME': 'finish it', 'sys.path': 'the package is installed'}
C_BLOCK = re.compile(r'^```c\n(.*?)^```$', re.M | re.S)
HOME = re.compile(r'(/(home|root|Users|work|tmp|private|var/folders)/|[A-Z]:\\Users)')


def is_code(cell): return cell['cell_type'] == 'code'

def is_hidden(cell): return is_code(cell) and not {'hide','default_exp'}.isdisjoint(flags(cell))

def lines_of(cell): return [o for o in source(cell).splitlines() if o.strip() and not o.startswith('#|')]

def words(text):
    "Words of running text: no tables, formulas, code blocks or folded answers."
    for block in (r'```.*?```', r'\$\$.*?\$\$', r'<details>.*?</details>'): text = re.sub(block, ' ', text, flags=re.S)
    text = '\n'.join(o for o in text.splitlines() if not o.lstrip().startswith('|'))
    return len(re.findall(r"[\w'`][^\s]*", text))


# ---- rules for one cell; each yields problems

def code_rules(cell):
    text,most = source(cell),LINE + 30*is_hidden(cell)
    for i,line in enumerate(text.splitlines()):
        if len(line) > most: yield f'line {i+1} has {len(line)} characters, more than {most}'
    n = len(lines_of(cell))
    if is_export(cell) and n > EXPORTED_LINES: yield f'exported cell has {n} lines, more than {EXPORTED_LINES}'
    for word,why in FORBIDDEN.items():
        if word in text and not (is_hidden(cell) and word == 'sys.path'): yield f'{word}: {why}'
    if not is_hidden(cell) and mixes_imports(text): yield 'imports belong in a cell of their own'

def mixes_imports(text):
    "Imports beside other statements? A doc build runs cells with imports alone."
    try: body = ast.parse(re.sub(r'^[%!].*$', 'pass', text, flags=re.M)).body
    except SyntaxError: return False # top-level await, magics
    kinds = {isinstance(o, (ast.Import, ast.ImportFrom)) for o in body}
    return len(kinds) == 2

def text_rules(cell):
    text = source(cell)
    if (n := words(text)) > WORDS: yield f'{n} words, more than {WORDS}'
    if text.count('—') > 1: yield 'more than one long dash'
    rest = [o for o in text.strip().splitlines()[1:] if o.strip()]
    if text.startswith('##') and (len(rest) > 1 or words(' '.join(rest)) > 40):
        yield 'a heading stands alone, or with one sentence'
    for word in ('TODO','FIXME'):
        if word in text: yield f'{word}: finish it'

def c_rules(cell):
    for block in C_BLOCK.findall(source(cell)):
        lines = block.splitlines()
        if len(lines) > C_LINES: yield f'C block has {len(lines)} lines, more than {C_LINES}'
        if (n := max(map(len, lines), default=0)) > C_LINE: yield f'C line has {n} characters, more than {C_LINE}'

def link_rules(cell, folder):
    "Every relative link and picture exists."
    for target in re.findall(r'\]\(([^)\s]+)\)|src="([^"]+)"', source(cell)):
        target = (target[0] or target[1]).split('#')[0]
        if target and not re.match(r'[a-z]+:', target) and not (folder/target).exists():
            yield f'link to {target} leads nowhere'

def output_rules(cell):
    for o in cell.get('outputs', []):
        kinds,text = set(o.get('data', {})),json.dumps(o)
        if o['output_type'] == 'error': yield f'saved with an error: {o.get("ename")}'
        if o.get('name') == 'stderr': yield 'saved with stderr output'
        if any('widget' in k or 'javascript' in k for k in kinds):
            yield 'saved with a widget or script, which does not show on GitHub'
        if r'\u001b[' in text: yield 'colour codes in the output'
        pictures = sum(len(''.join(v)) for k,v in o.get('data', {}).items() if k.startswith('image'))
        if pictures*3/4 > FIGURE: yield f'figure of {pictures*3//4000} kB, more than {FIGURE//1000}'
        plain = [v for k,v in o.get('data', {}).items() if k.startswith('text')]+[o.get('text', '')]
        if m := HOME.search('\n'.join(''.join(v) for v in plain)): yield f'path of one machine in the output: {m[0]}...'

def cell_rules(cell, folder):
    if is_code(cell): rules = (code_rules(cell), output_rules(cell))
    else: rules = (text_rules(cell), c_rules(cell), link_rules(cell, folder))
    for rule in rules: yield from rule


# ---- rules for a notebook

def order_rules(cells):
    "Never more than a few code cells without a sentence."
    run = 0
    for i,c in enumerate(cells):
        run = 0 if c['cell_type'] == 'markdown' else run + (not is_hidden(c))
        if run == SILENT+1: yield f'cell {i}: more than {SILENT} code cells without a word'

def frame_rules(cells, stem):
    "Name, title, subtitle, module name and the last cell."
    if not NAME.fullmatch(stem): yield f'{stem} is no name for a notebook: two digits, an underscore, the module'
    top = source(cells[0]).split('\n') if cells else ['']
    if not (top[0].startswith('# ') and any(o.startswith('> ') for o in top)):
        yield 'cell 0 must be "# title" and "> one line"'
    module = next((flags(c)['default_exp'] for c in cells if 'default_exp' in flags(c)), None)
    if module is None: return
    if module.split('.')[-1] != stem.split('_', 1)[-1]: yield f'exports to {module}, which is not the name of the file'
    if 'nbdev_export(' not in source(cells[-1]): yield 'the last cell must export'

def notebook_rules(path):
    "All problems of one notebook."
    nb = read_nb(path)
    cells = nb['cells']
    if len(cells) > CELLS: yield f'{len(cells)} cells, more than {CELLS}'
    if (n := path.stat().st_size) > NOTEBOOK: yield f'{n//1000} kB, more than {NOTEBOOK//1000}'
    yield from frame_rules(cells, path.stem)
    yield from order_rules(cells)
    for i,c in enumerate(cells): yield from (f'cell {i} ({c.get("id")}): {o}' for o in cell_rules(c, path.parent))


# ---- rules for a generated module

def comments(text):
    "Line number -> comment."
    found = tokenize.generate_tokens(io.StringIO(text).readline)
    return {t.start[0]: t.string for t in found if t.type == tokenize.COMMENT}

def documented(node, notes, where):
    "A docstring, and a docment on every parameter and on the return value."
    doc = ast.get_docstring(node)
    if not doc: yield f'{where} has no docstring'
    elif not doc.rstrip().endswith(('.','?','!',')',':')): yield f'the docstring of {where} does not end like a sentence'
    if isinstance(node, ast.ClassDef): return
    a = node.args
    every = a.posonlyargs+a.args+a.kwonlyargs+[o for o in (a.vararg, a.kwarg) if o]
    for o in every:
        if o.arg not in ('self','cls') and o.lineno not in notes: yield f'{where}: {o.arg} has no comment'
    if node.returns and node.returns.end_lineno not in notes: yield f'{where}: the return value has no comment'

def symbols(tree):
    "Public functions, classes and methods, each with its full name; `__init__` speaks through its class."
    for o in tree.body:
        if not isinstance(o, (ast.FunctionDef, ast.ClassDef)) or o.name.startswith('_'): continue
        yield o, o.name
        for m in o.body if isinstance(o, ast.ClassDef) else ():
            if isinstance(m, ast.FunctionDef) and (not m.name.startswith('_') or m.name == '__init__'):
                yield m, f'{o.name}.{m.name}'

def module_rules(path):
    "All problems of one module."
    text = path.read_text(encoding='utf-8')
    n = sum(bool(o.strip()) and not o.startswith('# %%') for o in text.splitlines())
    most = MODULE.get(path.name, 250)
    if n > most: yield f'{n} lines, more than {most}: split the notebook'
    notes = comments(text)
    for node,name in symbols(ast.parse(text)):
        for problem in documented(node, notes, name):
            if not (name.endswith('__init__') and 'docstring' in problem): yield problem

def modules(): return [p for p in sorted(LIB.rglob('*.py')) if p.name not in ('__init__.py','_modidx.py')]


def table(paths):
    "The numbers behind the budgets, one line per notebook."
    yield f'{"notebook":22}{"cells":>6}{"md:code":>8}{"words":>6}{"export":>7}{"max":>4}{"tests":>6}{"kB":>5}'
    for p in paths:
        cells = [c for c in read_nb(p)['cells'] if not is_hidden(c)]
        code = [c for c in cells if is_code(c)]
        programs = len(code) + sum(bool(C_BLOCK.search(source(c))) for c in cells if not is_code(c)) # text with C is both
        text = [words(source(c)) for c in cells if not is_code(c) and not source(c).startswith('#')]
        sizes = [len(lines_of(c)) for c in code if is_export(c)] or [0]
        tests = sum(len(re.findall(r'\btest_\w+\(|\bassert |expect_fail', source(c))) for c in read_nb(p)['cells'])
        ratio = (len(cells)-len(code))/max(programs, 1)
        yield (f'{p.stem:22}{len(cells):6}{ratio:8.2f}{statistics.median(text or [0]):6.0f}{statistics.median(sizes):7.0f}'
               f'{max(sizes):4}{tests:6}{p.stat().st_size//1000:5}')

def problems(names=()):
    "Every problem in the tree, as `file: what`."
    for p in notebooks(names): yield from (f'{p.name}: {o}' for o in notebook_rules(p))
    stems = {p.stem.split('_', 1)[-1] for p in notebooks(names)}
    for p in modules():
        if p.stem in stems or not names: yield from (f'{p.relative_to(LIB.parent)}: {o}' for o in module_rules(p))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('names', nargs='*', help='notebooks: a path, a name, or how the name starts')
    p.add_argument('--table', action='store_true', help='print the measured numbers')
    args = p.parse_args()
    if args.table: return print(*table(notebooks(args.names)), sep='\n')
    found = list(problems(args.names))
    print(*found, f'{len(found)} problems in {Path(NBS).name}/ and {LIB.name}/' if found else 'style: ok', sep='\n')
    sys.exit(bool(found))

if __name__ == '__main__': main()
