"What we promise on two CPU cores, beside what was measured. Run: python dev/bench/bars.py [FOLDER]"
import sys
from pathlib import Path

from common import RESULTS, read_rows

SCAN = dict(b=1, e=384, n=16, l=1569)
BOTH, DEFAULT, TUNED = ('default', 'tuned'), ('default',), ('tuned',)


def find(rows, key, **want):
    "The last value that fits, or None."
    found = [row for row in rows if all(row.get(k) == str(v) for k, v in want.items())]
    return float(found[-1][key]) if found else None


def ratio(top, bottom):
    return None if top is None or not bottom else top/bottom


def times_faster(rows, who, than, **config):
    "How many times as fast `who` is as `than`."
    return ratio(find(rows, 'ms', backend=than, **config), find(rows, 'ms', backend=who, **config))


def _scan_bars():
    for who, than, grads, need, mallocs in (
            ('cpu', 'mambapy', 0, 40, BOTH), ('cpu', 'mambapy', 0, 100, DEFAULT), ('cpu', 'loop', 0, 50, BOTH),
            ('cpu', 'mambapy', 1, 30, BOTH), ('cpu', 'loop', 1, 120, BOTH),
            ('chunked', 'mambapy', 0, 4, BOTH), ('chunked', 'mambapy', 1, 4, BOTH)):
        what = 'forward + backward' if grads else 'forward'
        yield f'scan {what}, {who} against {than}', 'scan', who, than, need, mallocs, SCAN | dict(grads=grads, threads=2)
    for threads, need in ((1, .45), (2, .35)):
        label = f'scan, share of the exponentials it needs, threads {threads}'
        yield label, 'share', 'cpu', 'exp floor', need, BOTH, SCAN | dict(threads=threads)


def _model_bars():
    for t, than, need in ((8, 'mambapy', 12), (8, 'loop', 15), (8, 'vit', 1.5), (32, 'vit', 5), (8, 'timesformer', 1),
                          (16, 'timesformer', 1), (32, 'timesformer', 1), (64, 'timesformer', 1)):
        label = f'VideoMamba-Ti forward, {t} frames, against {than}'
        yield label, 'model', 'cpu', than, need, BOTH, dict(frames=t, threads=2)
    for than, need in (('mambapy', 8), ('timesformer', 1)):
        label = f'VideoMamba-Ti training step, 8 frames, against {than}'
        yield label, 'train', 'cpu', than, need, BOTH, dict(frames=8, threads=2)


def speed_bars(folder=RESULTS):
    "Each bar with its values by malloc: (label, values, need, whether more is better)."
    rows = {k: read_rows(f'cpu_{k}', folder) for k in ('scan', 'share', 'model', 'train')}
    for label, step, who, than, need, mallocs, config in [*_scan_bars(), *_model_bars()]:
        linear = {}
        if step in ('model', 'train'): # all on the package's linear layers where it has some, else on PyTorch's
            linear = dict(linear='own' if any(row['linear'] == 'own' for row in rows[step]) else 'torch')
        yield label, {m: times_faster(rows[step], who, than, malloc=m, **config, **linear) for m in mallocs}, need, True


def memory_bars(folder=RESULTS):
    "The same for memory: a scan needs its output and 10 % at most, a model no more than the ViT."
    rows = read_rows('cpu_memory', folder)
    output = SCAN['e']*4/2**20
    for l in (1569, 12545):
        extra = find(rows, 'mib', kind='scan', size=l, train=0, backend='cpu')
        yield f'memory of a scan of {l} tokens, against its output', dict(default=ratio(extra, l*output)), 1.1, False
    extra, vit = (find(rows, 'mib', kind='model', size=64, backend=k) for k in ('cpu', 'vit'))
    yield 'memory of VideoMamba-Ti, 64 frames, against ViT-Ti', dict(default=ratio(extra, vit)), 1, False


def verdict(values, need, more):
    "'pass' if every value reaches the bar, 'FAIL' if one does not, else 'not measured'."
    if any(v is not None and (v < need if more else v > need) for v in values.values()):
        return 'FAIL'
    return 'not measured' if None in values.values() else 'pass'


def disturbed(folder=RESULTS, most=.05):
    "How many tables were measured while others used more than `most` of the machine."
    rows = [row for step in ('share', 'scan', 'model', 'train') for row in read_rows(f'cpu_{step}', folder)]
    keys = ('threads', 'malloc', 'b', 'e', 'l', 'grads', 'frames', 'linear')
    return len({tuple(row.get(k) for k in keys) for row in rows if float(row.get('others') or 0) > most})


def report(folder=RESULTS):
    "Print every bar; return how many fail."
    failed = 0
    print(f'\n{"bar":62} {"need":>7} {"default":>8} {"tuned":>8}')
    for label, values, need, more in [*speed_bars(folder), *memory_bars(folder)]:
        cells = ['' if m not in values else '?' if values[m] is None else f'{values[m]:.2f}' for m in BOTH]
        told = verdict(values, need, more)
        failed += told == 'FAIL'
        print(f'{label:62} {("" if more else "<= ")+str(need):>7} {cells[0]:>8} {cells[1]:>8}  {told}')
    if n := disturbed(folder):
        print(f'{n} tables were measured while others used more than 5 % of the machine (column others): measure them again')
    return failed


if __name__ == '__main__':
    report(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS)
