import ctypes
import functools
from concurrent.futures import ThreadPoolExecutor
from ctypes import POINTER, Structure, byref, c_int64, c_void_p
from importlib.resources import files

import torch
from torch import Tensor

from videomamba_nb.build import BuildError, load_library
from videomamba_nb.ssm import Direction

def _fields(**kinds): return [(name,kind) for kind,names in ((k,v) for k,v in kinds.items()) for name in names.split()]

class _Signal(Structure): _fields_ = [('p', c_void_p)] + [(k, c_int64) for k in 'bcl']
class _Way(Structure):
    _fields_ = [(k, _Signal) for k in ('u', 'delta', 'B', 'C')] \
             + [(k, c_void_p) for k in ('A', 'D', 'bias', 'weight', 'h0', 'last', 'starts')] \
             + [(k, c_int64) for k in ('Ae', 'An', 'We', 'Wr', 'Bg', 'Cg', 'r', 'softplus')]
class _Scan(Structure):
    _fields_ = [(k, c_int64) for k in ('b', 'l', 'e', 'n', 'groups', 'block', 'directions')] \
             + [(k, _Signal) for k in ('z', 'y', 'raw')] + [('d', _Way*2)]
class _Grads(Structure):
    _fields_ = [('u', _Signal), ('delta', _Signal)] + [(k, c_void_p) for k in ('B', 'C', 'A', 'D', 'bias', 'h0', 'last')]
class _ScanGrads(Structure): _fields_ = [('out', _Signal), ('z', _Signal), ('d', _Grads*2)]

CHUNK = 16

def kernel_source()->str: # C99
    "The C code of all CPU kernels."
    return files('videomamba_nb').joinpath('csrc/kernels.c').read_text(encoding='utf-8')

@functools.cache
def library()->ctypes.CDLL:
    "The compiled kernels, built at first use; `BuildError` with the reason if that cannot be."
    lib,fresh = load_library(kernel_source(), 'kernels')
    for name in ('scan', 'conv', 'conv_back', 'norm'): getattr(lib, f'{name}_tasks').restype = c_int64
    if fresh: _check_against_chunks(lib)
    return lib

def call(lib, name, *structs, tasks=''):
    "Run a kernel on all of PyTorch's threads; `MemoryError` if it found no memory."
    threads = torch.get_num_threads()
    refs = [byref(o) for o in structs]
    if threads == 1 or lib.uses_openmp(): failed = getattr(lib, name)(*refs, threads)
    else:
        task = getattr(lib, f'{name}_task')
        count = getattr(lib, f'{tasks or name.split("_")[0]}_tasks')(refs[0])
        failed = any(_pool(threads).map(lambda i: task(*refs, c_int64(i)), range(count)))
    if failed: raise MemoryError('the kernel found no memory for its scratch')

@functools.cache
def _pool(threads): return ThreadPoolExecutor(threads)

def signal(x):
    "A (b, e, l) tensor as the kernel sees it: where it lies, and its strides."
    return _Signal(x.data_ptr(), *x.stride())

def _row_signal(x): return _Signal(x.data_ptr(), x.stride(0), x.stride(2), x.stride(3)), x.stride(1)

def channel_last(b, e, l): return torch.empty(b, l, e).transpose(1, 2)

def _f32(x): return x if x is None or x.dtype == torch.float32 else x.float()

def _plain(d):
    "All of a direction in float32; parameters without gaps."
    d = Direction(*map(_f32, d))
    vector = lambda x: x if x is None else x.contiguous()
    return d._replace(D=vector(d.D), delta_bias=vector(d.delta_bias))

def block_size(per, rows, threads):
    "Channels of one task: wide for the memory's sake, but enough tasks that no thread waits long."
    return next((k for k in (64, 32) if per >= k and rows*-(-per//k) >= 3*threads), min(per, 16))

def _describe(dirs, z, y, raw, h0, last, states, softplus):
    b,e,l = y.shape
    n,g,m = dirs[0].A.shape[1],dirs[0].B.shape[1],len(dirs)
    s = _Scan(b, l, e, n, g, block_size(e//g, b*g, torch.get_num_threads()), m)
    s.y = signal(y)
    if z is not None: s.z = signal(z)
    if raw is not None: s.raw = signal(raw)
    for way,d in enumerate(dirs): _describe_way(s.d[way], d, softplus)
    for name,x in dict(h0=h0, last=last, starts=states).items():
        if x is not None:
            for way in range(m): setattr(s.d[way], name, x.data_ptr() + way*x.numel()//m*4)
    return s

def _describe_way(q, d, softplus):
    q.u,q.delta,q.softplus = signal(d.u),signal(d.delta),softplus
    (q.B,q.Bg),(q.C,q.Cg) = _row_signal(d.B),_row_signal(d.C)
    q.A,(q.Ae,q.An) = d.A.data_ptr(),d.A.stride()
    if d.D is not None: q.D = d.D.data_ptr()
    if d.delta_bias is not None: q.bias = d.delta_bias.data_ptr()
    if d.dt_weight is not None:
        q.weight,(q.We,q.Wr),q.r = d.dt_weight.data_ptr(),d.dt_weight.stride(),d.dt_weight.shape[1]

def new_saved(u, n, m, gated):
    b,e,l = u.shape
    raw = u.new_empty(b, l, e, dtype=torch.float32).transpose(1, 2) if gated else u.new_empty(0, dtype=torch.float32)
    return raw, u.new_empty(m*b*-(-l//CHUNK)*e*-(-n//4)*4, dtype=torch.float32)

def why_not(device, dtype, e, l, n, g):
    if device != 'cpu': return f'the C kernel runs on a CPU, and this is on {device}; use auto'
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f'the C kernel computes in float32, and this is {dtype}; use chunked'
    try: library()
    except BuildError as e: return str(e)
    return ''

def scan_forward(dirs, z, h0, softplus, keep):
    (b,e,l),n,m = dirs[0].u.shape,dirs[0].A.shape[1],len(dirs)
    dtype,dirs,z,h0 = dirs[0].u.dtype,[_plain(d) for d in dirs],_f32(z),_f32(h0)
    if h0 is not None: h0 = h0.contiguous()
    y,last = channel_last(b, e, l),torch.empty(m, b, e, n)
    saved = new_saved(y, n, m, z is not None) if keep else (y.new_empty(0), y.new_empty(0))
    raw = saved[0] if keep and z is not None else None
    call(library(), 'scan_forward', _describe(dirs, z, y, raw, h0, last, saved[1] if keep else None, softplus))
    return y.to(dtype), last, saved

def scan_backward(gout, glast, dirs, z, h0, softplus, saved):
    (b,e,l),n,g,m = dirs[0].u.shape,dirs[0].A.shape[1],dirs[0].B.shape[1],len(dirs)
    dirs,z,gout,h0,glast = [_plain(d) for d in dirs],_f32(z),_f32(gout),_f32(h0),_f32(glast)
    if h0 is not None: h0 = h0.contiguous()
    raw,states = saved
    s = _describe(dirs, z, gout, None if z is None else raw, h0, None, states, softplus)
    G = _ScanGrads(out=signal(gout))
    gz = None if z is None else channel_last(b, e, l)
    if z is not None: G.z = signal(gz)
    parts = -(-(e//g)//s.block)
    made = [_way_grads(G.d[way], b, e, l, n, g, parts) for way in range(m)]
    if glast is not None:
        glast = glast.contiguous()
        for way in range(m): G.d[way].last = glast[way].data_ptr()
    call(library(), 'scan_backward', s, G, tasks='scan')
    grads = [_finish(d, o) for d,o in zip(dirs, made)]
    return grads, gz, None if h0 is None else torch.stack([o['h0'] for o in made])

def _way_grads(q, b, e, l, n, g, parts):
    o = dict(B=torch.empty(parts, b, g, l, n), C=torch.empty(parts, b, g, l, n), A=torch.empty(b, e, n),
             D=torch.empty(b, e), bias=torch.empty(b, e), h0=torch.empty(b, e, n))
    for k,v in o.items(): setattr(q, k, v.data_ptr())
    o |= dict(u=channel_last(b, e, l), delta=channel_last(b, e, l))
    q.u,q.delta = signal(o['u']),signal(o['delta'])
    return o

def _finish(d, o):
    B,C = (o[k].sum(0).transpose(2, 3) for k in 'BC')
    A,D,bias = (o[k].sum(0) for k in ('A', 'D', 'bias'))
    delta,weight = o['delta'],None
    if d.dt_weight is not None:
        weight = torch.einsum('bel,brl->er', delta, d.delta)
        delta = torch.einsum('er,bel->brl', d.dt_weight, delta)
    return Direction(o['u'], delta, A, B, C, D if d.D is not None else None, bias if d.delta_bias is not None else None, weight)

def _check_against_chunks(lib):
    "The freshly built kernel must agree with the form in PyTorch; `BuildError` if not."
    from videomamba_nb import scan_chunked
    torch.manual_seed
    g = torch.Generator().manual_seed(0)
    r = lambda *s: torch.randn(*s, generator=g)
    dirs = [Direction(r(2,20,37), r(2,20,37), -r(20,6).exp(), r(2,1,6,37), r(2,1,6,37), r(20), r(20)) for _ in range(2)]
    z = r(2,20,37)
    want = scan_chunked.scan_forward(dirs, z, None, True, False)[0]
    y = channel_last(2, 20, 37)
    call(lib, 'scan_forward', _describe([_plain(d) for d in dirs], z, y, None, None, None, None, True))
    error = ((y-want).abs().max()/want.abs().max()).item()
    if not error < 1e-5: raise BuildError(f'the compiled kernel differs from the chunked form by {error:.0e}')


Signal = _Signal
def scan_into(dirs, z, y):
    "The scan without gradients, into a tensor that is there already; it may be the first direction's `u`."
    call(library(), 'scan_forward', _describe(dirs, z, y, None, None, None, None, True))
