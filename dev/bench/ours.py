"What the package has to offer a benchmark: its scans under one call, its model on a chosen scan, its linear layers."
import os
import sys
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache, partial
from importlib.util import find_spec
from unittest.mock import patch

import torch
import torch.nn.functional as F
from rivals import NEEDS_MAMBAPY, SCANS, linear_layers, one_direction

from videomamba_nb import bmamba, scan
from videomamba_nb.core import set_seed
from videomamba_nb.model import create_model

try:
    from videomamba_nb import block_cpu
except ImportError:
    block_cpu = None


def make_scan(b=1, e=384, n=16, l=1569, dtype=torch.float32, grads=False, seed=0):
    "Arguments for both directions and the gate, with the statistics of a fresh VideoMamba: steps from .001 to .1."
    g = torch.Generator().manual_seed(seed)
    def leaf(x):
        return x.to(dtype).requires_grad_(grads)
    def signal(k):
        return leaf(torch.randn(b, l, k, generator=g, dtype=torch.float64).transpose(1, 2))
    def direction():
        steps = torch.exp(torch.empty(e, dtype=torch.float64).uniform_(-6.9, -2.3, generator=g))
        A = -torch.arange(1, n+1, dtype=torch.float64)*torch.exp(.2*torch.randn(e, n, generator=g, dtype=torch.float64))
        return dict(u=signal(e), delta=signal(e), A=leaf(A), B=signal(n), C=signal(n), D=leaf(torch.ones(e)),
                    delta_bias=leaf(bmamba.softplus_inverse(steps)), delta_softplus=True)
    return direction(), direction(), signal(e)


def leaves(fwd, bwd, z):
    "The tensors among the arguments."
    return [o for o in (*fwd.values(), *bwd.values(), z) if isinstance(o, torch.Tensor)]


def _two_calls(one, fwd, bwd, z):
    "Both directions with a scan of one direction: flip, scan, flip back."
    signals = ('u', 'delta', 'B', 'C')
    bwd = {k: v.flip(-1) if k in signals else v for k, v in bwd.items()}
    return one(**fwd, z=z) + one(**bwd, z=None if z is None else z.flip(-1)).flip(-1)


def bi_scan(name):
    "A scan of both directions, `f(fwd, bwd, z)`: a backend of the package, or a rival."
    if name in SCANS:
        return SCANS[name]
    if hasattr(scan, 'bi_selective_scan'):
        return lambda fwd, bwd, z=None: scan.bi_selective_scan(fwd, bwd, z=z, backend=name)
    one = partial(scan.selective_scan, backend=name)
    return lambda fwd, bwd, z=None: _two_calls(one, fwd, bwd, z)


@cache
def can_run(name):
    "Whether this scan can run here; the reason goes to stderr if not."
    why = '' if name in SCANS else scan.scan_backends().get(name, 'unknown name')
    if name == 'mambapy' and find_spec('mambapy') is None:
        why = NEEDS_MAMBAPY
    if why:
        print(f'{name}: {why}', file=sys.stderr)
    return not why


@contextmanager
def model_scan(name):
    "Run models on one scan, a backend of the package or a rival; `RuntimeError` if the rival was never called."
    target = 'bi_selective_scan' if hasattr(bmamba, 'bi_selective_scan') else 'selective_scan'
    two, calls = target.startswith('bi'), []
    if name in SCANS:
        def fn(*args, backend='auto', **kwargs):
            calls.append(name)
            return (SCANS[name] if two else one_direction(name))(*args, **kwargs)
        change = patch.object(bmamba, target, fn)
    else:
        change = nullcontext() if two else patch.object(bmamba, target, partial(scan.selective_scan, backend=name))
    with patch.dict(os.environ, VIDEOMAMBA_SCAN='chunked' if name in SCANS else name), change:
        yield
    if name in SCANS and not calls:
        raise RuntimeError(f'the block does not call bmamba.{target}: this was not {name}')


def linear_kinds():
    "Names of the linear layers to compare with: PyTorch's, and the package's own if it has one."
    return ['torch', 'own'] if hasattr(block_cpu, 'linear') else ['torch']


@contextmanager
def same_linear(kind):
    "All models, ours and the rivals, on the same linear layers."
    own = getattr(block_cpu, 'linear', None)
    with ExitStack() as stack:
        if kind == 'own':
            stack.enter_context(linear_layers(own))
        elif own is not None:
            for name, module in list(sys.modules.items()):
                if name.startswith('videomamba_nb') and getattr(module, 'linear', None) is own:
                    stack.enter_context(patch.object(module, 'linear', F.linear))
        yield


def tiny(num_frames, **kwargs):
    "VideoMamba-Ti for clips of 224 x 224 pixels and 400 classes."
    set_seed(0)
    return create_model('videomamba_tiny', **dict(num_frames=num_frames, num_classes=400, drop_path_rate=0.) | kwargs)
