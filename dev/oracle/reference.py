"""A second VideoMamba, in plain NumPy and float64, to hold the package against. It shares no code with it.

Written from the formulas, slowly and plainly: one token after the other, one patch after the other. It reads nothing
but a state dict (names and arrays), the arguments of the model and an input.
"""
import numpy as np


def sigmoid(x): return 1/(1+np.exp(-x))

def silu(x): return x*sigmoid(x)

def softplus(x): return np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 20))))


def scan(u, dt, A, B, C, D):
    "h_t = exp(dt_t A) h_(t-1) + dt_t B_t u_t and y_t = C_t h_t + D u_t; u, dt (l, e), A (e, n), B, C (l, n), D (e)."
    h,y = np.zeros_like(A),np.zeros_like(u)
    for t in range(len(u)):
        h = np.exp(dt[t][:,None]*A)*h + (dt[t]*u[t])[:,None]*B[t][None]
        y[t] = h @ C[t] + D*u[t]
    return y

def causal_conv(x, weight, bias):
    "y_t = bias + sum over k of weight_k x_(t-K+1+k); x (l, e), weight (e, K)."
    y = np.zeros_like(x) + (0 if bias is None else bias)
    K = weight.shape[1]
    for t in range(len(x)):
        for k in range(K):
            if t-K+1+k >= 0: y[t] += weight[:,k]*x[t-K+1+k]
    return y

def one_way(p, x, z, m, n):
    "One direction of the mixer; `m` is '' or '_b', `n` the size of the state."
    u = silu(causal_conv(x, p[f'conv1d{m}.weight'][:,0], p.get(f'conv1d{m}.bias')))
    row = u @ p[f'x_proj{m}.weight'].T
    r = row.shape[1]-2*n
    dt = softplus(row[:,:r] @ p[f'dt_proj{m}.weight'].T + p[f'dt_proj{m}.bias'])
    A = -np.exp(p['A_b_log' if m else 'A_log'])
    return scan(u, dt, A, row[:,r:r+n], row[:,r+n:], p['D_b' if m else 'D'])*silu(z)

def along(p, x, z, m, n, path):
    "One direction that reads its tokens along `path`; its output where the tokens lie."
    y = np.zeros_like(x)
    y[path] = one_way(p, x[path], z[path], m, n)
    return y

def mixer(p, x, bimamba=True, passes=None):
    "The Mamba mixer on one sequence (l, d): mean over `passes`, pairs of paths, the second of which is read from its end."
    xz = x @ p['in_proj.weight'].T + p.get('in_proj.bias', 0)
    x,z = np.split(xz, 2, axis=1)
    n,plain = p['A_log'].shape[1],np.arange(len(x))
    ys = []
    for f,b in passes or [(plain, plain)]:
        ys.append(along(p, x, z, '', n, f) + (along(p, x, z, '_b', n, b[::-1]) if bimamba else 0))
    return np.mean(ys, 0) @ p['out_proj.weight'].T + p.get('out_proj.bias', 0)

def path(grid, key):
    "The class token, then all places sorted by `key` of frame, row and column."
    at = list(np.ndindex(*grid))
    return np.array([0, *(1+k for k in sorted(range(len(at)), key=lambda k: key(*at[k])))])

def passes_of(name, i, depth, grid):
    "What layer `i` reads in the orders of the paper, and in the cross-scan."
    s,t = path(grid, lambda t, h, w: (t, h, w)),path(grid, lambda t, h, w: (h, w, t))
    if name == 'cross_scan': return [(s,s)]+[(path(grid, lambda t, h, w: (t, w, h)),)*2]
    if name == 'spatiotemporal_v1': return [(s,t)]
    if name == 'spatiotemporal_v2': return [(s,s), (t,t)]
    early = i < depth/2
    temporal = dict(spatial_first=False, temporal_first=True, spatial_then_temporal=not early,
                    temporal_then_spatial=early, alternating=i % 2 == 1)[name]
    return [(t,t) if temporal else (s,s)]


def norm(p, x, eps, rms):
    "RMSNorm or LayerNorm over the last axis."
    if not rms: x = x-x.mean(-1, keepdims=True)
    return x/np.sqrt((x**2).mean(-1, keepdims=True)+eps)*p['weight'] + (0 if rms else p['bias'])

def patches(weight, bias, x, stride):
    "Correlate x (c, t, h, w) with weight (d, c, kt, kh, kw) at every step; tokens (t, h, w, d)."
    k = weight.shape[2:]
    grid = [(n-o)//s + 1 for n,o,s in zip(x.shape[1:], k, stride)]
    out = np.zeros((*grid, len(weight)))
    for i,j,l in np.ndindex(*grid):
        a,b,c = i*stride[0],j*stride[1],l*stride[2]
        out[i,j,l] = np.tensordot(weight, x[:,a:a+k[0],b:b+k[1],c:c+k[2]], 4) + bias
    return out

def under(p, prefix): return {k[len(prefix):]: v for k,v in p.items() if k.startswith(prefix)}

def embed(p, x, stride):
    "Tokens (1+t*h*w, d) of one clip (c, t, h, w): class token first, then frame by frame, row by row."
    weight = p['patch_embed.proj.weight']
    if weight.ndim == 4: weight = weight[:,:,None]
    tok = patches(weight, p['patch_embed.proj.bias'], x, (weight.shape[2], *stride))
    t,h,w,d = tok.shape
    tok = tok + p['pos_embed'][0,1:].reshape(1, h, w, d)
    if 'temporal_pos_embedding' in p: tok = tok + p['temporal_pos_embedding'][0].reshape(t, 1, 1, d)
    cls = p['cls_token'][0] + p['pos_embed'][0,:1]
    return np.concatenate([cls, tok.reshape(-1, d)])

def forward_one(p, x, depth, stride, eps=1e-5, rms=True, bimamba=True, passes=None):
    "Logits, all normalised tokens, and what each block returns, for one clip; `passes` of each layer as in `mixer`."
    residual,blocks = embed(p, x, stride),[]
    for i in range(depth):
        q = under(p, f'layers.{i}.')
        out = mixer(under(q, 'mixer.'), norm(under(q, 'norm.'), residual, eps, rms), bimamba, passes and passes[i])
        blocks.append((out, residual))
        residual = residual+out
    tokens = norm(under(p, 'norm_f.'), residual, eps, rms)
    logits = p['head.weight'] @ tokens[0] + p['head.bias'] if 'head.weight' in p else tokens[0]
    return logits, tokens, blocks

def forward(state, x, config, passes=None):
    "Logits (b, k) and tokens (b, m, d) of clips (b, c, t, h, w) or pictures (b, c, h, w), in float64."
    p = {k: np.asarray(v, dtype=np.float64) for k,v in state.items()}
    x = np.asarray(x, dtype=np.float64)
    if x.ndim == 4: x = x[:,:,None]
    stride = config.get('stride') or config['patch_size']
    stride = stride if isinstance(stride, (tuple, list)) else (stride, stride)
    args = dict(depth=config['depth'], stride=tuple(stride), eps=config.get('norm_epsilon', 1e-5),
                rms=config.get('rms_norm', True), bimamba=config.get('bimamba', True), passes=passes)
    logits,tokens,_ = zip(*(forward_one(p, o, **args) for o in x))
    return np.stack(logits), np.stack(tokens)


def fill_rule(state):
    "Parameter values that a formula gives, so that numbers can be compared without a file (name -> float64 array)."
    filled = {}
    for k,name in enumerate(sorted(state)):
        shape = np.shape(state[name])
        i = np.arange(np.prod(shape, dtype=np.int64))
        v = (.6*(((7*i*i + 13*i + 31*k + 5) % 101)/101 - .5)).reshape(shape)
        last = name.split('.')[-1]
        if last in ('A_log', 'A_b_log'): v = v+np.log(np.arange(1, shape[1]+1))
        elif last in ('D', 'D_b') or name.endswith(('norm.weight', 'norm_f.weight')): v = v+1
        elif name.endswith(('dt_proj.bias', 'dt_proj_b.bias')): v = v-2
        filled[name] = v
    return filled

def input_rule(*shape):
    "An input that a formula gives."
    i = np.arange(np.prod(shape, dtype=np.int64))
    return (2*(((3*i*i + 11*i) % 97)/97 - .5)).reshape(shape)


# ---- weights for another size

def linear_weight(s): return max(0., 1-abs(s))

def cubic_weight(s, a=-.75):
    s = abs(s)
    if s <= 1: return (a+2)*s**3 - (a+3)*s**2 + 1
    return a*s**3 - 5*a*s**2 + 8*a*s - 4*a if s < 2 else 0.

def between(n, m, weight):
    "Matrix (m, n) that reads n entries at m points; entry centres at half steps, the last entry counts on."
    out = np.zeros((m, n))
    for i in range(m):
        x = (i+.5)*n/m-.5
        for j in range(int(np.floor(x))-1, int(np.floor(x))+3): out[i,min(max(j, 0), n-1)] += weight(x-j)
    return out

def adapted(state, grid, frames=None, kernel_size=None, center=True):
    "What a square image or clip checkpoint becomes for another grid (h, w), number of token frames and tubelet."
    p = {k: np.asarray(v, dtype=np.float64) for k,v in state.items()}
    pos = p['pos_embed'][0]
    n = round((len(pos)-1)**.5)
    if (n, n) != tuple(grid):
        rows,cols = (between(n, m, cubic_weight) for m in grid)
        places = np.einsum('ih,hwd,jw->ijd', rows, pos[1:].reshape(n, n, -1), cols)
        p['pos_embed'] = np.concatenate([pos[:1], places.reshape(-1, pos.shape[1])])[None]
    t = 'temporal_pos_embedding'
    if t in p and p[t].shape[1] != frames: p[t] = between(p[t].shape[1], frames, linear_weight)[None] @ p[t]
    kernel = p['patch_embed.proj.weight']
    if kernel_size and kernel.ndim == 4:
        share = np.eye(kernel_size)[kernel_size//2] if center else np.full(kernel_size, 1/kernel_size)
        p['patch_embed.proj.weight'] = kernel[:,:,None]*share[:,None,None]
    return p
