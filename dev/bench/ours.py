"What the package has to offer a benchmark: its scans under one call, its model on a chosen scan, its linear layers."
import os
import sys
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from importlib.util import find_spec
from unittest.mock import patch

import torch
from rivals import NEEDS_MAMBAPY, SCANS, linear_layers

from videomamba_nb import block_cpu, bmamba, product_cpu, scan
from videomamba_nb.core import set_seed
from videomamba_nb.model import create_model


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


def bi_scan(name):
    "A scan of both directions, `f(fwd, bwd, z)`: a backend of the package, or a rival."
    return SCANS.get(name) or partial(scan.bi_selective_scan, backend=name)


@cache
def can_run(name):
    "Whether this scan can run here; the reason goes to stderr if not."
    why = '' if name in SCANS else scan.scan_backends('cpu').get(name, 'unknown name')
    if name == 'mambapy' and find_spec('mambapy') is None:
        why = NEEDS_MAMBAPY
    if why:
        print(f'{name}: {why}', file=sys.stderr)
    return not why


@contextmanager
def model_scan(name):
    """Run models on one scan: a backend of the package with the block that goes with it, a rival in the block with our
    kernels around it, or 'PyTorch block, mambapy'; `RuntimeError` if the rival was never called."""
    *plain, name = name.split(', ')
    if name not in SCANS:
        with patch.dict(os.environ, VIDEOMAMBA_SCAN=name):
            yield
        return
    calls = []
    def fn(fwd, bwd, z=None, **kwargs):
        calls.append(name)
        return SCANS[name](fwd, bwd, z)
    with (patch.dict(os.environ, VIDEOMAMBA_SCAN='chunked' if plain else 'cpu'),
          patch.object(bmamba, 'bi_selective_scan', fn), patch.object(bmamba, 'fast_mixer', lambda *args: None)):
        yield
    if not calls:
        raise RuntimeError(f'the block does not call bi_selective_scan: this was not {name}')


def linear_kinds():
    "Names of the linear layers to compare with: PyTorch's, and the package's own if its kernels run here."
    return ['torch', 'own'] if can_run('cpu') else ['torch']


@contextmanager
def same_linear(kind):
    "All models, ours and the rivals, on the same linear layers."
    with ExitStack() as stack:
        block_cpu.free_workspace() # plans remember the product they were made for
        stack.callback(block_cpu.free_workspace)
        if kind == 'own':
            stack.enter_context(linear_layers(product_cpu.linear))
        else:
            stack.enter_context(patch.object(product_cpu, 'choose_product', lambda *args: 'torch'))
        yield


def tiny(num_frames, **kwargs):
    "VideoMamba-Ti for clips of 224 x 224 pixels and 400 classes."
    set_seed(0)
    return create_model('videomamba_tiny', **dict(num_frames=num_frames, num_classes=400, drop_path_rate=0.) | kwargs)
