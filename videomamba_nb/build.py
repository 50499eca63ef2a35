"C code at first use"
import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from videomamba_nb.core import cache_dir

class BuildError(RuntimeError):
    "C code could not be compiled or loaded; the message says why, in one line."

def compilers()->list: # Commands, each a list of words
    "C compilers of this machine, the preferred one first: `$CC`, cc, gcc, clang, then ziglang if installed."
    named = [shlex.split(os.environ['CC'])] if os.environ.get('CC') else []
    found = [[k] for k in ('cc', 'gcc', 'clang') if shutil.which(k)]
    zig = [[sys.executable, '-m', 'ziglang', 'cc']] if importlib.util.find_spec('ziglang') else []
    return named + found + zig

_BASE = ['-O3', '-std=c99', '-shared', '-ffp-contract=fast', '-fno-math-errno', '-fno-trapping-math']

def flag_sets()->list: # Lists of options
    "Options to try, the fastest first: for this very processor with OpenMP, without it, then for any processor."
    arm = platform.machine().lower() in ('arm64', 'aarch64')
    native,system = '-mcpu=native' if arm else '-march=native',[] if os.name == 'nt' else ['-fPIC', '-lm']
    return [_BASE + o + system for o in ([native, '-fopenmp'], [native], ['-fopenmp'], [])]

@functools.cache
def cpu_id()->str: # Changes when compiled code may not run any more
    "Name and abilities of the processor."
    info = Path('/proc/cpuinfo')
    if info.exists():
        kept = ('model name', 'flags', 'Features', 'CPU part', 'CPU implementer')
        lines = info.read_text().split('\n\n')[0].splitlines()
        return '\n'.join(o for o in lines if o.split(':')[0].strip() in kept)
    if sys.platform != 'darwin': return platform.processor()
    return subprocess.run(['sysctl', '-n', 'machdep.cpu.brand_string'], capture_output=True, text=True).stdout

def build_key(
    source:str, # C code
    compiler:list, # Command
)->str: # 16 hexadecimal digits
    "Changes with the code, the compiler, its options, the processor and the system."
    text = [source, shlex.join(compiler), str(flag_sets()), cpu_id(), platform.platform(), platform.machine()]
    return hashlib.sha256('\n'.join(text).encode()).hexdigest()[:16]

_PROBE = 'import ctypes,sys; sys.exit(ctypes.CDLL(sys.argv[1]).probe())'

def _attempt(command, **kwargs):
    "Run a command; '' or what went wrong, in one line."
    try: r = subprocess.run(command, capture_output=True, text=True, timeout=120, **kwargs)
    except (OSError, subprocess.SubprocessError) as e: return f'{command[0]}: {e}'
    said = ' '.join((r.stderr or r.stdout).split())[:200]
    return '' if r.returncode == 0 else f'{command[0]} ended with {r.returncode}: {said}'

def _compile(source, compiler, path):
    "Compile into a folder of its own, try the result in a process of its own, and only then put it in place."
    with tempfile.TemporaryDirectory(dir=path.parent, prefix='.build') as tmp:
        code,made = Path(tmp)/'kernels.c',Path(tmp)/path.name
        code.write_text(source, encoding='utf-8')
        for flags in flag_sets():
            options = [o for o in flags if o != '-lm'] + ['-o', str(made), str(code)] + ['-lm']*('-lm' in flags)
            why = _attempt(compiler + options) or _attempt([sys.executable, '-I', '-c', _PROBE, str(made)])
            if why: continue
            try: os.replace(made, path)
            except PermissionError: # another process has it in use (Windows)
                if not path.exists(): raise
            return ''
    return why

def load_library(
    source:str, # C code with a function `int probe(void)` that tries its parts and returns 0
    name:str, # How to call the file
)->tuple: # (the loaded library, was it compiled just now?)
    "Compile C code, or load what was compiled before; `BuildError` with the reason if neither works."
    tried = compilers()
    if not tried: raise BuildError('no C compiler found: install gcc or clang, or pip install ziglang')
    try: folder = cache_dir('kernels')
    except OSError as e: raise BuildError(f'no folder for compiled code: {e}; set VIDEOMAMBA_CACHE') from None
    for compiler in tried:
        path = folder/f'{name}-{build_key(source, compiler)}.{"dll" if os.name == "nt" else "so"}'
        try:
            fresh = not path.exists()
            why = _compile(source, compiler, path) if fresh else ''
            if not why: return ctypes.CDLL(str(path)), fresh
        except OSError as e: why = str(e)
    raise BuildError(f'compiling {name} failed: {why}')
