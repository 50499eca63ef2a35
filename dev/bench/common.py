"What every benchmark shares: fair medians, and a row that says where it was measured."
import csv
import ctypes
import datetime
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

import torch

RESULTS = Path(__file__).parent/'results'


def cpu_name():
    "The processor's own name."
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    names = [o.split(':')[1].strip() for o in lines if o.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()


def where():
    "Date, commit, device and versions, for every row."
    def git(*args):
        return subprocess.run(['git', *args], capture_output=True, text=True, cwd=RESULTS.parent).stdout.strip()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()
    return dict(date=datetime.date.today().isoformat(), commit=git('rev-parse', '--short', 'HEAD') or 'none', device=device,
                threads=torch.get_num_threads(), torch=torch.__version__, python=platform.python_version())


def has_glibc():
    "Whether `tune_malloc` works here."
    return platform.libc_ver()[0] == 'glibc'


def tune_malloc():
    "Let glibc keep large blocks that are freed, for the rest of this process; `RuntimeError` if there is no glibc."
    if not has_glibc():
        raise RuntimeError('tuned malloc needs glibc')
    for option, value in ((-3, 1 << 30), (-1, 2**31-1)): # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
        if not ctypes.CDLL(None).mallopt(option, value):
            raise RuntimeError(f'glibc refused mallopt({option}, {value})')


def _busy():
    "Seconds that all cores together have worked so far, this process left out; None where the system does not tell."
    stat = Path('/proc/stat')
    if not stat.exists():
        return None
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, stat.read_text().split()[1:11])
    return (user+nice+system+irq+softirq+steal)/os.sysconf('SC_CLK_TCK') - time.process_time()


class Others:
    "How much of the machine others used within a `with` block: `share`, from 0 to 1, or None if unknown."
    def __enter__(self):
        self.busy, self.start, self.share = _busy(), time.perf_counter(), None
        return self

    def __exit__(self, *args):
        if self.busy is not None:
            seconds = (time.perf_counter()-self.start)*os.cpu_count()
            self.share = round(min(1., max(0., (_busy()-self.busy)/seconds)), 3)


def timings(calls, rounds=7, warmup=1, limit=60.):
    "Time `calls` (name -> function) in turn, round by round: name -> milliseconds of each round, two rounds at least."
    times = {name: [] for name in calls}
    start = time.perf_counter()
    for i in range(warmup+rounds):
        for name, call in calls.items():
            t = time.perf_counter()
            call()
            if i >= warmup:
                times[name].append((time.perf_counter()-t)*1e3)
        if i > warmup and time.perf_counter()-start > limit:
            break
    return times


def medians(calls, rounds=7, warmup=1, limit=60.):
    "The median of each call's `timings`, in milliseconds."
    return {name: statistics.median(ts) for name, ts in timings(calls, rounds, warmup, limit).items()}


def _write(path, rows, header):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w' if header else 'a', newline='') as f:
        writer = csv.DictWriter(f, fieldnames=list(rows[0]), lineterminator='\n')
        if header:
            writer.writeheader()
        writer.writerows(rows)
    return path


def _located(rows):
    here = where()
    return [here | row for row in rows]


def write_rows(name, rows, folder=RESULTS):
    "Write `rows` to `results/<name>.csv`, each with where it was measured."
    return _write(Path(folder)/f'{name}.csv', _located(rows), True)


def append_rows(name, rows, folder=RESULTS):
    "The same at the end of the file, which starts here if there is none."
    path = Path(folder)/f'{name}.csv'
    return _write(path, _located(rows), not path.exists())


def read_rows(name, folder=RESULTS):
    "The rows of `results/<name>.csv` as dicts of text; none if there is no such file."
    path = Path(folder)/f'{name}.csv'
    if not path.exists():
        return []
    with open(path, newline='') as f:
        return list(csv.DictReader(f))
