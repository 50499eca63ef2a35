"""The vision encoder of the video-text model: agreement with numbers that the authors' own class computed.

As in `test_golden.py`, VIDEOMAMBA_GOLDEN names the folder with the reference values; without it these tests skip.
"""
import json
from types import SimpleNamespace

import numpy as np
import pytest
import reference
import torch
from test_golden import DTYPES, GOLDEN, OUT, cases, near, read, same_inside, same_layout, same_sizes

from videomamba_nb.layout import official_keys
from videomamba_nb.masked import sinusoid
from videomamba_nb.masks import draw_mask
from videomamba_nb.video_encoder import VideoEncoder

golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason='VIDEOMAMBA_GOLDEN does not name a folder of reference values')
MODELS = pytest.mark.parametrize('name', cases('model_*.json', ['mm']))


def arguments(kwargs):
    "The official arguments, in the words of our constructor."
    kw = {k: tuple(v) if isinstance(v, list) else v for k,v in kwargs.items()}
    return kw | dict(align_pre_last=kw.pop('fused_add_norm', True), pool_by='frame')

def outputs(model, *args, **kwargs):
    "Name -> tensor, as the reference values have them."
    out = model(*args, **kwargs)
    names = ('x_vis','pooled','clip') if len(out) == 3 else ('x_vis','clip')
    return {k: v for k,v in zip(names, out) if v is not None}

def run(name, p):
    "One forward and backward pass: tensors, description, model, input, outputs, what every block returned."
    t,meta = read(name)
    model = VideoEncoder(**arguments(meta['kwargs'])).eval().to(DTYPES[p])
    model.load_state_dict({k[6:]: v for k,v in t.items() if k.startswith('param.')}, strict=True)
    blocks = []
    for layer in model.layers: layer.register_forward_hook(lambda m, args, out: blocks.append(out))
    x = t['input.x'].to(DTYPES[p]).requires_grad_()
    out = outputs(model, x, t.get('input.mask'), **meta.get('call_kwargs', {}))
    sum((v*t[f'cotangent.{k}'].to(v.dtype)).sum() for k,v in out.items()).backward()
    return t, meta, model, x, out, blocks

@golden
@MODELS
@pytest.mark.parametrize('p', DTYPES)
def test_model(name, p):
    t,meta,model,x,out,blocks = run(name, p)
    assert list(out) == list(meta['outputs'])
    for k,v in out.items(): near(v, t[f'out.{p}.{k}'], OUT[p], k)
    same_inside(t, meta, model, x, blocks, p)

@golden
@MODELS
def test_every_gradient_has_the_right_size(name):
    _,meta,model,*_ = run(name, 'f64')
    same_sizes(meta, model)

@golden
@MODELS
def test_table_of_positions(name):
    t,meta = read(name)
    model = VideoEncoder(**arguments(meta['kwargs']))
    for k,v in t.items():
        if k.startswith('aux.'): assert torch.equal(model.clip_pos_embed[:v.shape[1]], v[0].float()), k
    assert torch.equal(model.double().clip_pos_embed, sinusoid(*model.clip_pos_embed.shape))

@golden
@pytest.mark.parametrize('name', cases('keys/keys_*.json', ['mm']))
def test_keys(name):
    meta = json.loads((GOLDEN/f'{name}.json').read_text())
    model = VideoEncoder(**arguments(meta['kwargs']))
    same_layout(meta, model)

@golden
def test_initialisation():
    stats = json.loads((GOLDEN/'init_stats.json').read_text())['mm']
    state = VideoEncoder(**arguments(stats['kwargs'])).state_dict()
    for k,want in stats['params'].items():
        v,n = state[k].double(),state[k].numel()
        assert list(v.shape) == want['shape'], k
        assert v.mean().item() == pytest.approx(want['mean'], abs=8*want['std']/n**.5+1e-7), k
        assert v.std(correction=0).item() == pytest.approx(want['std'], rel=8/n**.5, abs=1e-7), k
        assert v.abs().max() <= 1.5*max(abs(want['min']), abs(want['max']))+1e-6, k


# ---- every variant against the second implementation in NumPy

def blocks(p, tokens, config):
    "Sums that enter each block, and the last one, for one sequence."
    sums = [tokens]
    for i in range(config['depth']):
        q = reference.under(p, f'layers.{i}.')
        y = reference.norm(reference.under(q, 'norm.'), sums[-1], 1e-5, config.get('rms_norm', True))
        sums.append(sums[-1]+reference.mixer(reference.under(q, 'mixer.'), y))
    return sums

def answer(p, i, x, where):
    "The decoder of answer `i`."
    q = reference.under(p, f'clip_decoder.{i}.')
    return reference.norm(reference.under(q, 'norm.'), (x+where) @ q['head.weight'].T + q['head.bias'], 1e-5, False)

def pooled_by_hand(cls, frames, kind, keep_temporal):
    "`frames` is a list of (n, d); one row per pooled vector."
    means = [f.mean(0) for f in frames] if keep_temporal else [np.concatenate(frames).mean(0)]
    if kind == 'cls': return np.stack([cls])
    if kind == 'avg': return np.stack(means)
    if kind == 'cls_cat_avg' and not keep_temporal: return np.stack([cls, *means])
    return np.stack([cls+o for o in means])

def table(m, d):
    "Sines and cosines of positions, as float32 values."
    out = np.zeros((m, d))
    for p in range(m):
        for i in range(d): out[p,i] = (np.cos if i % 2 else np.sin)(p/10000**(i//2*2/d))
    return out.astype(np.float32).astype(np.float64)

def by_hand(model, x, mask, use_image, keep_temporal):
    "Tokens with class token, pooled vectors and answers of one clip (c, t, h, w) or picture (c, 1, h, w)."
    c,p = model.config,{k: v.double().numpy() for k,v in model.state_dict().items()}
    if use_image:
        p.pop('temporal_pos_embedding')
        x = np.repeat(x, c['kernel_size'], 1)
    tokens = reference.embed(p, x, (c['patch_size'],)*2)
    keep = [j for j in range(len(tokens)) if mask is None or not mask[j]]
    rms,sums = c['rms_norm'],blocks(p, tokens[keep], c)
    out = reference.norm(reference.under(p, 'norm.'), sums[-1], 1e-5, rms)
    n,t = len(tokens)-1,(1 if use_image else c['num_frames']//c['kernel_size'])
    parts = t if use_image or c['pool_by'] == 'tubelet' else c['num_frames']
    if parts == t: frames = [out[1:][[(j-1)//(n//t) == i for j in keep[1:]]] for i in range(t)]
    else: frames = np.split(out[1:], parts)
    pooled = reference.norm(reference.under(p, 'pool_norm.'), pooled_by_hand(out[0], frames, c['pool_type'], keep_temporal),
                            1e-5, False) if c['add_pool_norm'] else None
    if mask is None: return out, pooled, None
    where,k,step = table(len(tokens), tokens.shape[1])[keep],c['clip_return_layer'],c['clip_student_return_interval']
    lower = [sums[c['depth']-i*step] for i in range(k-1, 0, -1)]
    lower = [reference.norm(reference.under(p, 'norm.'), o, 1e-5, rms) for o in lower]
    top = sums[-2] if c['align_pre_last'] else sums[-1]
    return out, pooled, np.stack([answer(p, i, o, where) for i,o in enumerate([*lower, top])])

VARIANTS = {
    'as trained on clips': (dict(align_pre_last=True), 'tube', False, False),
    'as trained on pictures': (dict(align_pre_last=True), 'random', True, False),
    'whole clips': (dict(), None, False, True),
    'whole pictures': (dict(), None, True, True),
    'class token': (dict(pool_type='cls'), None, False, True),
    'mean': (dict(pool_type='avg'), 'tube', False, True),
    'mean of a clip': (dict(pool_type='avg'), 'random', False, False),
    'two vectors': (dict(pool_type='cls_cat_avg'), 'random', False, False),
    'two that become one': (dict(pool_type='cls_cat_avg'), 'frame_row', False, True),
    'a picture, two vectors': (dict(pool_type='cls_cat_avg'), None, True, False),
    'no pool norm': (dict(add_pool_norm=False), 'random', False, True),
    'two answers': (dict(clip_return_layer=2, clip_student_return_interval=2, align_pre_last=True), 'random', False, False),
    'three answers': (dict(clip_return_layer=3), 'tube', False, True),
    'tubelets': (dict(kernel_size=2), 'tube', False, True),
    'half tubelets': (dict(kernel_size=2, pool_by='frame'), 'tube', False, True),
    'half tubelets, whole': (dict(kernel_size=2, pool_by='frame', pool_type='avg'), None, False, True),
    'a picture in a tubelet': (dict(kernel_size=2, pool_by='frame'), 'random', True, True),
    'centred norm': (dict(rms_norm=False), 'tube', False, True)}

@torch.no_grad()
@pytest.mark.parametrize('case', VARIANTS)
def test_by_hand(case):
    kw,kind,use_image,keep_temporal = VARIANTS[case]
    size = dict(img_size=16, patch_size=4, depth=3, embed_dim=12, num_frames=4, clip_output_dim=5)
    model = VideoEncoder(**size | kw).eval().double()
    for v in model.parameters(): v.copy_(torch.randn_like(v)*.3+.2)
    grid = (1, *model.grid[1:]) if use_image else model.grid
    mask = draw_mask(kind, grid, .5, np.random.default_rng(0), batch=2) if kind else None
    x = torch.randn(2, 3, 1 if use_image else 4, 16, 16).double()
    ours = outputs(model, x, mask, use_image, keep_temporal)
    for i in range(2):
        hide = None if mask is None else mask[i].tolist()
        tokens,pooled,clip = by_hand(model, x[i].numpy(), hide, use_image, keep_temporal)
        want = dict(x_vis=tokens[1:] if model.config['add_pool_norm'] else tokens, pooled=pooled, clip=clip)
        want = {k: v for k,v in want.items() if v is not None}
        assert sorted(ours) == sorted(want)
        for k,v in want.items():
            near(ours[k][:,i] if k == 'clip' else ours[k][i], torch.from_numpy(v), 1e-9, f'{case}: {k}')


# ---- the layout of a whole released file

@golden
@pytest.mark.parametrize('name', cases('keys/keys_*.json', ['mm']))
def test_layout(name):
    "The part of the vision tower, written down from the sizes."
    meta = json.loads((GOLDEN/f'{name}.json').read_text())
    config = SimpleNamespace(vision=arguments(meta['kwargs']), text={}, width=512)
    ours = {k.removeprefix('vision_encoder.'): v for k,v in official_keys(config).items() if k.startswith('vision_encoder.')}
    assert ours == {k: tuple(v) for k,v,_ in meta['keys']}
