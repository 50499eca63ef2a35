"""How far each form of the scan is from float64, against length and against step size.
Run: python dev/bench/accuracy.py [--quick] [--out FOLDER]. Writes scan_accuracy.csv."""
import argparse
import tempfile

import ours
import rivals
import torch
from common import RESULTS, write_rows

from videomamba_nb.scan import scan_backends, selective_scan

LENGTHS = tuple(2**k for k in range(4, 15))
SCALES = (1e-4, 1e-3, 1e-2, .1, .5, 1, 2, 5, 10, 20)


def make_args(l, scale=None, e=8, n=16, seed=0):
    "One direction in float64, no softplus: steps as a fresh VideoMamba takes them, or all near `scale`."
    g = torch.Generator().manual_seed(seed)
    def randn(*size):
        return torch.randn(*size, generator=g, dtype=torch.float64)
    spread = torch.rand(1, e, l, generator=g, dtype=torch.float64)
    delta = torch.exp(-6.9 + 4.6*spread) if scale is None else scale*(.5+spread)
    A = -torch.arange(1, n+1, dtype=torch.float64).repeat(e, 1)
    return dict(u=randn(1, e, l), delta=delta, A=A, B=randn(1, n, l), C=randn(1, n, l))


def log_space(u, delta, A, B, C, chunk):
    "Chunks by cumulative sums: x_t = P_t * cumsum(write_t/P_t), where P_t decays from the start of the chunk."
    h, ys = u.new_zeros(len(u), *A.shape), []
    for s in range(0, u.shape[-1], chunk):
        d, x, b, c = (o[..., s:s+chunk] for o in (delta, delta*u, B, C))
        P = torch.exp(d.cumsum(-1)[:, :, None]*A[..., None]) # b e n chunk
        states = P*(torch.cumsum(x[:, :, None]*b[:, None]/P, -1) + h[..., None])
        ys.append((states*c[:, None]).sum(2))
        h = states[..., -1]
    return torch.cat(ys, -1)


def low_state(u, delta, A, B, C, dtype=torch.bfloat16):
    "The loop with its state rounded to `dtype` after every token."
    h, ys = u.new_zeros(len(u), *A.shape), []
    for i in range(u.shape[-1]):
        h = torch.exp(delta[:, :, i, None]*A)*h + (delta*u)[:, :, i, None]*B[:, None, :, i]
        h = h.to(dtype).to(u.dtype)
        ys.append((h*C[:, None, :, i]).sum(-1))
    return torch.stack(ys, -1)


def forms():
    "Name -> scan of one direction: the package's, mambapy's if it is here, and three that fail by overflow or rounding."
    def package(name):
        return lambda args: selective_scan(**args, backend=name)
    found = {k: package(k) for k, why in scan_backends().items() if not why and k not in ('triton', 'cuda')}
    if ours.can_run('mambapy'):
        found['mambapy'] = lambda args: rivals.one_direction('mambapy')(**args, delta_softplus=False)
    return found | {'log-space, chunks of 16': lambda args: log_space(**args, chunk=16),
                    'log-space, whole length': lambda args: log_space(**args, chunk=args['u'].shape[-1]),
                    'seq, bfloat16 state': lambda args: low_state(**args)}


def error(y, want):
    "Largest difference relative to the largest entry, and the share of entries that are finite."
    finite = y.isfinite().double().mean().item()
    worst = ((y.double()-want).abs().max()/want.abs().max()).item()
    return dict(error=f'{worst:.3e}' if finite == 1 else 'nan', finite=round(finite, 4))


@torch.no_grad()
def compare(against, l, scale=None):
    "Rows of all forms in float32 for one input."
    args = make_args(l, scale)
    single = {k: v.float() for k, v in args.items()}
    exact = {k: v.double() for k, v in single.items()} # the inputs as float32 holds them
    want = selective_scan(**exact, backend='seq')
    return [dict(against=against, l=l, scale='' if scale is None else scale, form=name, **error(f(single), want))
            for name, f in forms().items()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quick', action='store_true', help='short inputs, into a temporary folder')
    parser.add_argument('--out', help='folder for scan_accuracy.csv')
    args = parser.parse_args()
    out = args.out or (tempfile.mkdtemp(prefix='accuracy_') if args.quick else RESULTS)
    rows = []
    for l in LENGTHS[:3] if args.quick else LENGTHS:
        rows += compare('length', l)
        print(*(f"{row['form']} {row['error']}" for row in rows if row['l'] == l), sep=', ', flush=True)
    for scale in SCALES:
        rows += compare('scale', 64 if args.quick else 512, scale)
        print(scale, *(f"{row['form']} {row['error']}" for row in rows if row['scale'] == scale), sep=', ', flush=True)
    print('wrote', write_rows('scan_accuracy', rows, out))


if __name__ == '__main__':
    main()
