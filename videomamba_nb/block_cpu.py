"C kernels for what surrounds the scan"
import threading
from ctypes import POINTER, Structure, c_float, c_int64, c_void_p
import time
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from videomamba_nb import scan_cpu
from videomamba_nb.scan_cpu import _Signal, call, channel_last, library, signal
from videomamba_nb.ssm import Direction

class _Conv(Structure):
    _fields_ = [(k, c_int64) for k in ('b', 'l', 'e', 'k', 'directions')] + [('x', _Signal), ('u', _Signal*2), ('w', c_void_p*2), ('bias', c_void_p*2)]
class _ConvGrads(Structure):
    _fields_ = [('x', _Signal), ('u', _Signal*2), ('w', c_void_p*2), ('bias', c_void_p*2)]
class _Norm(Structure):
    _fields_ = [('rows', c_int64), ('d', c_int64)] + [(k, c_void_p) for k in ('x', 'before', 'weight', 'sum', 'y', 'scale')] + [('eps', c_float)]
class _NormGrads(Structure): _fields_ = [(k, c_void_p) for k in ('y', 'sum', 'x', 'weight')]

def why_not(device, dtype): return scan_cpu.why_not(device, dtype, 1, 1, 1, 1)

def _describe(x, outs, weights, biases):
    b,e,l = x.shape
    s = _Conv(b, l, e, weights[0].shape[0], len(outs), signal(x))
    for way in range(len(outs)):
        s.u[way],s.w[way] = signal(outs[way]),weights[way].data_ptr()
        if biases[way] is not None: s.bias[way] = biases[way].data_ptr()
    return s

def _taps_first(w): return w.float().t().contiguous()
def _vector(x): return None if x is None else x.float().contiguous()

def bi_conv_forward(x, weight, bias, weight_b, bias_b):
    dtype,(b,e,l) = x.dtype,x.shape
    x,outs = x.float(),[channel_last(b, e, l) for _ in range(2)]
    conv_into(x, outs, [_taps_first(weight), _taps_first(weight_b)], [_vector(bias), _vector(bias_b)])
    return tuple(o.to(dtype) for o in outs)

def conv_into(x, outs, weights, biases): call(library(), 'conv_forward', _describe(x, outs, weights, biases))

def bi_conv_backward(gu, gu_b, x, weight, bias, weight_b, bias_b):
    dtype,(b,e,l),k = x.dtype,x.shape,weight.shape[1]
    weights,biases = [_taps_first(weight), _taps_first(weight_b)],[_vector(bias), _vector(bias_b)]
    x,gs,gx = x.float(),[gu.float(), gu_b.float()],channel_last(b, e, l)
    s = _describe(x, gs, weights, biases)
    G = _ConvGrads(x=signal(gx))
    gw,gb = torch.empty(2, b, k, e),torch.empty(2, b, e)
    for way in range(2): G.u[way],G.w[way],G.bias[way] = signal(gs[way]),gw[way].data_ptr(),gb[way].data_ptr()
    call(library(), 'conv_backward', s, G, tasks='conv_back')
    gw,gb = gw.sum(1).transpose(1, 2).to(weight.dtype),gb.sum(1).to(weight.dtype)
    return gx.to(dtype), gw[0].contiguous(), gb[0].clone(), gw[1].contiguous(), gb[1].clone()

def add_norm_forward(x, residual, weight, eps):
    dtype,x = x.dtype,x.float().contiguous()
    before = None if residual is None else residual.contiguous()
    s,y,scale = torch.empty_like(x),torch.empty_like(x),x.new_empty(x.shape[:-1])
    weight = weight.contiguous()
    a = _Norm(scale.numel(), x.shape[-1], x.data_ptr(), None if before is None else before.data_ptr(), weight.data_ptr(), s.data_ptr(), y.data_ptr(), scale.data_ptr(), eps)
    call(library(), 'norm_forward', a)
    return y.to(dtype), s, scale

def add_norm_backward(gy, gsum, s, weight, scale):
    gy,gsum = gy.float().contiguous(),None if gsum is None else gsum.contiguous()
    weight = weight.contiguous()
    rows,d = scale.numel(),s.shape[-1]
    gx,gw = torch.empty_like(s),s.new_empty(-(-rows//64), d)
    a = _Norm(rows, d, None, None, weight.data_ptr(), s.data_ptr(), None, scale.data_ptr(), 0.)
    G = _NormGrads(gy.data_ptr(), None if gsum is None else gsum.data_ptr(), gx.data_ptr(), gw.data_ptr())
    call(library(), 'norm_backward', a, G)
    return gx, gx, gw.sum(0)

_SPACE = threading.local()

def workspace(name, *shape):
    "A buffer that is used again by the next call of this thread; its content is whatever was there."
    held,size = _SPACE.__dict__,1
    for k in shape: size *= k
    if name not in held or held[name].numel() < size: held[name] = torch.empty(size)
    return held[name][:size].view(shape)

def free_workspace():
    "Give the buffers of this thread back."
    _SPACE.__dict__.clear()

def _onednn(x, weight, bias): return torch.ops.mkldnn._linear_pointwise(x, weight, bias, 'none', [], '')

_PRODUCTS = {'torch': F.linear, 'onednn': _onednn}
_CHOSEN = {}

def _seconds(fn, args):
    start = time.perf_counter()
    fn(*args)
    return time.perf_counter()-start

def choose_product(x, weight):
    "The fastest of the products for a size, found by timing each three times at its first use."
    rows = x.numel()//x.shape[-1]
    key = (rows.bit_length(), *weight.shape, torch.get_num_threads())
    if key not in _CHOSEN:
        args = x.detach().reshape(rows, -1), weight.detach(), None
        best = {}
        for name,fn in _PRODUCTS.items():
            try: best[name] = min(_seconds(fn, args) for _ in range(4))
            except (RuntimeError, AttributeError, NotImplementedError): continue
        usual = best['torch']*.93                  # a private function must be worth it
        _CHOSEN[key] = min((t,k) for k,t in (best | {'torch': usual}).items())[1]
    return _CHOSEN[key]

class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return _PRODUCTS[choose_product(x, weight)](x, weight, bias)
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        x,weight = ctx.saved_tensors
        rows = lambda o: o.reshape(-1, o.shape[-1])
        gx = _PRODUCTS[choose_product(g, weight.t())](g.contiguous(), weight.t().contiguous(), None)
        return gx, rows(g).t() @ rows(x), rows(g).sum(0) if ctx.biased else None

def linear(x, weight, bias=None):
    "`F.linear` by whichever product is fastest here for this size."
    if choose_product(x, weight) == 'torch': return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)

def _into(x, layer, name):
    "A linear layer whose output lies in the workspace."
    rows = x.reshape(-1, x.shape[-1])
    if choose_product(rows, layer.weight) != 'torch': out = _onednn(rows, layer.weight, layer.bias)
    else:
        out = workspace(name, len(rows), layer.out_features)
        torch.mm(rows, layer.weight.t(), out=out)
        if layer.bias is not None: out += layer.bias
    return out.view(*x.shape[:-1], -1)

def mix(mixer, hidden):
    "All of a bidirectional mixer without gradients, in buffers that stay; only the output is new."
    (b,l,_),r,n = hidden.shape,mixer.dt_rank,mixer.d_state
    x,z = _into(hidden, mixer.in_proj, 'xz').transpose(1, 2).chunk(2, 1)
    us = list(workspace('u', 2, b, l, x.shape[1]).transpose(2, 3))
    ways = ('', '_b')
    part = lambda name: [getattr(mixer, name+m) for m in ways]
    convs = part('conv1d')
    conv_into(x, us, [_taps_first(c.weight[:,0]) for c in convs], [_vector(c.bias) for c in convs])
    dirs = []
    for m,u,x_proj,dt_proj in zip(ways, us, part('x_proj'), part('dt_proj')):
        dt,B,C = (o.transpose(1, 2) for o in _into(u.transpose(1, 2), x_proj, 'p'+m).split([r, n, n], -1))
        A_log,D = (mixer.A_b_log, mixer.D_b) if m else (mixer.A_log, mixer.D)
        dirs.append(Direction(u, dt, -torch.exp(A_log), B[:,None], C[:,None], D, dt_proj.bias, dt_proj.weight))
    y = us[0]                                      # each output takes the place of an input that is used up
    call(library(), 'scan_forward', scan_cpu._describe(dirs, z, y, None, None, None, None, True))
    return F.linear(y.transpose(1, 2), mixer.out_proj.weight, mixer.out_proj.bias)
