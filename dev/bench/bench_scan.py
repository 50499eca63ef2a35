"Time every scan backend against length, forward and with gradients. Run: python dev/bench/bench_scan.py"
import torch
from common import medians, write_rows

from videomamba_nb.core import set_seed
from videomamba_nb.scan import scan_backends, selective_scan


def make_args(b, e, n, length):
    "Arguments of the size of one VideoMamba direction."
    set_seed(0)
    return dict(u=torch.randn(b, e, length), delta=torch.randn(b, e, length), A=-torch.rand(e, n)*16,
                B=torch.randn(b, n, length), C=torch.randn(b, n, length), D=torch.ones(e), z=torch.randn(b, e, length),
                delta_bias=torch.zeros(e), delta_softplus=True)


def calls(args, names, grads):
    "One function per backend."
    def run(name):
        with torch.set_grad_enabled(grads):
            y = selective_scan(**args, backend=name)
            if grads:
                y.sum().backward()
    if grads:
        args = {k: v.requires_grad_() if isinstance(v, torch.Tensor) else v for k, v in args.items()}
    return {name: (lambda name=name: run(name)) for name in names}


def main():
    names = [k for k, why in scan_backends().items() if not why]
    rows = []
    for length in (49, 197, 393, 785, 1569):
        args = make_args(1, 384, 16, length)
        for grads in (False, True):
            for name, ms in medians(calls(args, names, grads)).items():
                rows.append(dict(b=1, e=384, n=16, l=length, grads=int(grads), backend=name, ms=round(ms, 3)))
                print(rows[-1], flush=True)
    print('wrote', write_rows('scan', rows))


if __name__ == '__main__':
    main()
