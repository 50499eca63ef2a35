"What every benchmark shares: fair medians, and a row that says where it was measured."
import csv
import datetime
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


def medians(calls, rounds=7, warmup=1, limit=60.):
    "Time `calls` (name -> function) in turn, round by round, and return the median of each in milliseconds."
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
    return {name: statistics.median(ts) for name, ts in times.items()}


def write_rows(name, rows):
    "Write `rows` to `results/<name>.csv`, each with where it was measured."
    RESULTS.mkdir(exist_ok=True)
    rows = [where() | row for row in rows]
    with open(RESULTS/f'{name}.csv', 'w', newline='') as f:
        writer = csv.DictWriter(f, fieldnames=list(rows[0]), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    return RESULTS/f'{name}.csv'
