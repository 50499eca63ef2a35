"""What VideoMamba competes with: scans that people use on CPUs, and video transformers of the same size.
Scans read both directions, `scan(fwd, bwd, z)`: `fwd` and `bwd` hold arguments of `selective_scan`, (b, e, l) views of
channel-last memory; the second runs right to left over the same order of tokens."""
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

NEEDS_MAMBAPY = "mambapy is missing, which we compare with: pip install -c constraints.txt -e '.[bench]'"


def _tokens_first(u, delta, A, B, C, D=None, delta_bias=None, delta_softplus=True, dt_weight=None):
    "The arguments of one direction with tokens before channels; the step finished."
    u, delta, B, C = ((o[:, 0] if o.ndim == 4 else o).transpose(1, 2) for o in (u, delta, B, C))
    if dt_weight is not None:
        delta = F.linear(delta, dt_weight)
    if delta_bias is not None:
        delta = delta+delta_bias
    return u, F.softplus(delta) if delta_softplus else delta, A, B, C, D


def _both(states_out, fwd, bwd, z, flips):
    "Run `states_out` on each direction, add the skip, sum, gate; `flips`: it reads left to right only."
    out = 0
    for i, args in enumerate((fwd, bwd)):
        u, delta, A, B, C, D = _tokens_first(**args)
        turn = (lambda o: o.flip(1)) if i and flips else (lambda o: o)
        y = turn(states_out(*map(turn, (u, delta)), A, *map(turn, (B, C)), reverse=bool(i) and not flips))
        out = out + (y if D is None else y+D*u)
    out = out if z is None else out*F.silu(z.transpose(1, 2))
    return out.transpose(1, 2)


def _loop(u, delta, A, B, C, reverse):
    order = range(u.shape[1]-1, -1, -1) if reverse else range(u.shape[1])
    h, ys, du = torch.zeros_like(A).expand(len(u), -1, -1), [None]*u.shape[1], delta*u
    for i in order:
        h = torch.exp(delta[:, i, :, None]*A)*h + du[:, i, :, None]*B[:, i, None]
        ys[i] = (h@C[:, i, :, None]).squeeze(-1)
    return torch.stack(ys, 1)


def loop_scan(fwd, bwd, z=None):
    "One token at a time in Python, as mamba models run where no kernel is installed."
    return _both(_loop, fwd, bwd, z, flips=False)


def _mambapy(u, delta, A, B, C, reverse):
    try:
        from mambapy.pscan import pscan
    except ImportError as e:
        raise ImportError(NEEDS_MAMBAPY) from e
    states = pscan(torch.exp(delta[..., None]*A), (delta*u)[..., None]*B[:, :, None])
    return (states@C[..., None]).squeeze(-1)


def mambapy_scan(fwd, bwd, z=None):
    "The parallel scan of mambapy, once for each direction; `ImportError` says how to get it."
    return _both(_mambapy, fwd, bwd, z, flips=True)


SCANS = {'mambapy': mambapy_scan, 'loop': loop_scan}


def one_direction(name):
    "The same for one direction left to right, with the arguments of `selective_scan`."
    def run(*args, z=None, **kwargs):
        u, delta, A, B, C, D = _tokens_first(*args, **kwargs)
        y = {'mambapy': _mambapy, 'loop': _loop}[name](u, delta, A, B, C, reverse=False)
        y = y if D is None else y+D*u
        return (y if z is None else y*F.silu(z.transpose(1, 2))).transpose(1, 2)
    return run


# ---- transformers ----------------------------------------------------------------------------------------------------

_linear = F.linear


@contextmanager
def linear_layers(fn):
    "Let every linear layer of the transformers below call `fn(x, weight, bias)`."
    global _linear
    before, _linear = _linear, fn
    try:
        yield
    finally:
        _linear = before


class Linear(nn.Linear):
    "A linear layer that goes through the chosen function."
    def forward(self, x):
        return _linear(x, self.weight, self.bias)


class Attention(nn.Module):
    "Multi-head attention through PyTorch's fused kernel."
    def __init__(self, d, heads):
        super().__init__()
        self.heads, self.qkv, self.out = heads, Linear(d, 3*d), Linear(d, d)

    def forward(self, x):
        b, l, d = x.shape
        q, k, v = self.qkv(x).view(b, l, 3, self.heads, d//self.heads).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, l, d))


class JointBlock(nn.Module):
    "Every token of a clip attends to every other: (b, 1+t*p, d) -> the same."
    def __init__(self, d, heads):
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(d), Attention(d, heads), nn.LayerNorm(d)
        self.mlp = nn.Sequential(Linear(d, 4*d), nn.GELU(), Linear(4*d, d))

    def forward(self, x, frames):
        x = x+self.attn(self.norm1(x))
        return x+self.mlp(self.norm2(x))


class DividedBlock(JointBlock):
    "First along time at each place, then within each frame (TimeSformer, arXiv 2102.05095, section 3)."
    def __init__(self, d, heads):
        super().__init__(d, heads)
        self.norm_t, self.attn_t, self.fc_t = nn.LayerNorm(d), Attention(d, heads), Linear(d, d)

    def forward(self, x, frames):
        b, l, d = x.shape
        cls, x, p = x[:, :1], x[:, 1:].unflatten(1, (frames, -1)), (l-1)//frames
        t = x.transpose(1, 2).reshape(b*p, frames, d)
        t = self.fc_t(self.attn_t(self.norm_t(t)))
        x = x+t.view(b, p, frames, d).transpose(1, 2)
        s = torch.cat([cls[:, None].expand(-1, frames, -1, -1), x], 2).flatten(0, 1)
        s = self.attn(self.norm1(s)).unflatten(0, (b, frames))
        x = torch.cat([cls+s[:, :, 0].mean(1, keepdim=True), (x+s[:, :, 1:]).flatten(1, 2)], 1)
        return x+self.mlp(self.norm2(x))


class VideoTransformer(nn.Module):
    "ViT-Ti on clips with joint space-time attention, or TimeSformer-Ti with `divided`."
    def __init__(self, num_frames=8, divided=False, img_size=224, patch=16, d=192, depth=12, heads=3, num_classes=400):
        super().__init__()
        self.frames, places = num_frames, (img_size//patch)**2
        self.patch_embed = nn.Conv3d(3, d, (1, patch, patch), (1, patch, patch))
        self.cls, self.pos = nn.Parameter(torch.randn(1, 1, d)*.02), nn.Parameter(torch.randn(1, 1+places, d)*.02)
        self.time = nn.Parameter(torch.randn(1, num_frames, 1, d)*.02)
        self.blocks = nn.ModuleList((DividedBlock if divided else JointBlock)(d, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(d), Linear(d, num_classes)

    def forward(self, x):
        x = self.patch_embed(x).flatten(3).permute(0, 2, 3, 1) # b t p d
        x = (x + self.pos[:, None, 1:] + self.time).flatten(1, 2)
        x = torch.cat([(self.cls+self.pos[:, :1]).expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x, self.frames)
        return self.head(self.norm(x[:, 0]))


def vit(num_frames=8, **kwargs):
    "ViT-Ti with joint space-time attention."
    return VideoTransformer(num_frames, divided=False, **kwargs)


def timesformer(num_frames=8, **kwargs):
    "TimeSformer-Ti with divided attention."
    return VideoTransformer(num_frames, divided=True, **kwargs)
