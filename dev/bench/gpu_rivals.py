"Who is measured by gpu_scan.py: inputs, scans forward and back, layers, and the floors none of them can go below."
import importlib
import math
import os
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from videomamba_nb.bmamba import Mamba
from videomamba_nb.scan import scan_form_named
from videomamba_nb.scan_cuda import even_length
from videomamba_nb.ssm import Direction, selective_scan_seq

SHAPES = { # name: (samples, channels, tokens); the model they come from
    'M 64 frames': (8, 1152, 12545), 'M 16 frames': (8, 1152, 3137), 'M 8 frames': (32, 1152, 1569),
    'Ti 64 frames': (8, 384, 12545), 'Ti 8 frames': (64, 384, 1569), 'M image': (128, 1152, 197),
    'one clip': (1, 1152, 12545), 'even 2048': (32, 1152, 2048), 'even 12288': (8, 1152, 12288)}
TINY = {'tiny': (2, 8, 19), 'one clip': (1, 8, 33), 'even 12288': (1, 8, 32)}
N = 16


# ---- inputs

def direction(b, e, l, dtype, device, n=N):
    "Realistic ranges: steps around 0.001 to 0.1 with a spread per token, rates near -1 to -16."
    signal = lambda c: torch.randn(b, l, c, device=device).to(dtype).transpose(1, 2)
    start = torch.empty(e, device=device).uniform_(math.log(1e-3), math.log(.1)).exp()
    A = -torch.arange(1., n+1, device=device)*(.1*torch.randn(e, n, device=device)).exp()
    bias = start + torch.log(-torch.expm1(-start))
    return Direction(signal(e), (.5*signal(e).float()).to(dtype), A, signal(n)[:, None], signal(n)[:, None],
                     torch.randn(e, device=device), bias)


def inputs(shape, dtype, device, m=2, n=N):
    "One set: directions, a gate, and a gradient of the output, all channel-last."
    b, e, l = shape
    signal = lambda: torch.randn(b, l, e, device=device).to(dtype).transpose(1, 2)
    return SimpleNamespace(dirs=[direction(b, e, l, dtype, device, n) for _ in range(m)], z=signal(), g=signal())


# ---- scans: name -> function of one input set -> (forward, backward), each to be called without arguments

def form(name, **options):
    "One of our forms, as `selective_scan` would call it."
    def make(x, back):
        f = scan_form_named(name)
        args = x.dirs, x.z, None, True
        if not back:
            return lambda: f.scan_forward(*args, False, **options)
        saved = f.scan_forward(*args, True)[2]
        return lambda: f.scan_backward(x.g, None, *args, saved)
    return make


def loop(x, back):
    "The loop in PyTorch, with autograd for the way back."
    flip = lambda d: {k: v.flip(-1) if k in ('u', 'delta', 'B', 'C') else v for k, v in d.items() if v is not None}
    def forward(dirs):
        ys = [selective_scan_seq(**(flip(d) if i else {k: v for k, v in d.items() if v is not None}), delta_softplus=True)
              for i, d in enumerate(dirs)]
        y = sum(o.flip(-1) if i else o for i, o in enumerate(ys))
        return y*F.silu(x.z)
    if not back:
        return lambda: forward([d._asdict() for d in x.dirs])
    dirs = [{k: v if v is None else v.detach().requires_grad_() for k, v in d._asdict().items()} for d in x.dirs]
    leaves = [v for d in dirs for v in d.values() if v is not None]
    y = forward(dirs)
    return lambda: torch.autograd.grad(y, leaves, x.g, retain_graph=True)


def stock(flips=False, pad=False):
    "mamba-ssm's kernel as it is, on inputs that already lie as it asks; with `flips`, what VideoMamba's block adds to it."
    def make(x, back):
        ext = importlib.import_module('selective_scan_cuda')
        l = x.z.shape[-1]
        L = even_length(l) if pad else l
        lay = lambda o, flip=False, fill=0.: F.pad(o.flip(-1) if flip else o, (0, L-l), value=fill).contiguous()
        stop = -1e4 if pad else 0.
        sets = [[lay(d.u, i), lay(d.delta, i, stop), d.A, lay(d.B, i), lay(d.C, i), d.D, lay(x.z, i), d.delta_bias]
                for i, d in enumerate(x.dirs)]
        if back:
            kept = [ext.fwd(*s, True) for s in sets]
            g = lay(x.g)
            def backward():
                for i, (s, (out, states, _)) in enumerate(zip(sets, kept)):
                    got = ext.bwd(*s, g.flip(-1) if flips and i else g, states, out, None, True, False)
                    if flips and i:
                        torch.add(got[0], got[0].flip(-1))
                        torch.add(got[-1], got[-1].flip(-1))
            return backward
        def forward():
            ys = []
            for i, s in enumerate(sets):
                if flips and i: # the block flips both halves of its projection, and the answer
                    s = [s[0].flip(-1), *s[1:6], s[6].flip(-1), s[7]]
                ys.append(ext.fwd(*s, True)[2])
            return ys[0]+ys[1].flip(-1) if flips and len(ys) > 1 else ys
        return forward
    return make


SCANS = {'stock, flips': stock(flips=True), 'stock': stock(), 'stock padded': stock(pad=True),
         'triton': form('triton'), 'triton, not cut': form('triton', chunks=1), 'triton, cut in 8': form('triton', chunks=8),
         'cuda form': form('cuda'), 'chunked': form('chunked'), 'loop': loop}
SMALL = {'chunked': 2e8, 'loop': 5e7} # channel-tokens beyond which these would take minutes


def missing(name, device, dtype=torch.float32):
    "Why this contestant cannot run; empty if it can."
    if name.startswith('stock') or name == 'fork':
        if device != 'cuda':
            return 'needs a CUDA device'
        try:
            importlib.import_module('selective_scan_cuda')
        except Exception as e:
            return f'{type(e).__name__}: {e}'
        return ''
    if name == 'loop':
        return ''
    kind = name.split(',')[0].split()[0]
    try:
        return scan_form_named(kind).why_not(device, dtype, 384, 1569, N, 1)
    except Exception as e:
        return f'{type(e).__name__}: {e}'


# ---- layers

class StockScan(torch.autograd.Function):
    "mamba-ssm's own autograd around its kernel."
    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, z, bias):
        ext = importlib.import_module('selective_scan_cuda')
        u, delta, B, C, z = (o if o.stride(-1) == 1 else o.contiguous() for o in (u, delta, B, C, z))
        out, x, gated = ext.fwd(u, delta, A, B, C, D, z, bias, True)
        ctx.save_for_backward(u, delta, A, B, C, D, z, bias, x, out)
        return gated

    @staticmethod
    def backward(ctx, g):
        u, delta, A, B, C, D, z, bias, x, out = ctx.saved_tensors
        ext = importlib.import_module('selective_scan_cuda')
        gu, gd, gA, gB, gC, gD, gbias, gz = ext.bwd(u, delta, A, B, C, D, z, bias, g.contiguous(), x, out, None, True, False)
        return gu, gd, gA, gB, gC, gD, gz, gbias


class ForkMixer(Mamba):
    "The block as VideoMamba's repository runs it: everything twice, the second time on flipped copies."
    def forward(self, hidden):
        xz = self.in_proj(hidden).transpose(1, 2).contiguous()
        return self.out_proj((self.way(xz, '') + self.way(xz.flip(-1), '_b').flip(-1)).transpose(1, 2))

    def way(self, xz, m):
        conv, x_proj, dt_proj = (getattr(self, f'{k}{m}') for k in ('conv1d', 'x_proj', 'dt_proj'))
        A_log, D = (self.A_b_log, self.D_b) if m else (self.A_log, self.D)
        x, z = xz.chunk(2, 1)
        try:
            u = importlib.import_module('causal_conv1d').causal_conv1d_fn(x, conv.weight[:, 0], conv.bias, activation='silu')
        except ImportError:
            u = F.silu(conv(x)[..., :x.shape[-1]])
        dt, B, C = x_proj(u.transpose(1, 2)).split([self.dt_rank, self.d_state, self.d_state], -1)
        delta = F.linear(dt, dt_proj.weight).transpose(1, 2)
        B, C = (o.transpose(1, 2)[:, None] for o in (B, C))
        dtype = u.dtype
        return StockScan.apply(u, delta.to(dtype), -A_log.float().exp(), B.to(dtype), C.to(dtype), D.float(), z.to(dtype),
                               dt_proj.bias.float())


LAYERS = {'fork': ForkMixer, 'triton': Mamba, 'cuda form': Mamba, 'chunked': Mamba}


def layer(name, d, device):
    "One mixer, with its scan chosen through the environment."
    os.environ['VIDEOMAMBA_SCAN'] = '' if name == 'fork' else name.split()[0]
    torch.manual_seed(0)
    return LAYERS[name](d).to(device)


# ---- floors

class Rates:
    "What the card can do at most: exponentials, instructions of a lane, bytes, each per second."
    def __init__(self, processors=132, clock=1.98e9, bandwidth=4.3e12):
        self.exps, self.slots, self.bytes = processors*16*clock, processors*128*clock, bandwidth


def floors(shape, rates, m=2, size=2, back=False, slots=9.4):
    "Milliseconds that exponentials, instructions and bytes need at least, for the scan alone."
    points, passes = math.prod(shape), {(2, False): 6, (1, False): 4, (2, True): 12, (1, True): 8}[m, back]
    exps = points*(m*(N+1)*(2.1 if back else 1)+2)
    slots = (36.5 if back else slots)*N*m*points
    return dict(exp_ms=exps/rates.exps*1e3, issue_ms=slots/rates.slots*1e3, bytes_ms=passes*size*points/rates.bytes*1e3)
