"""The vision encoder of the video-text model: agreement with numbers that the authors' own class computed.

As in `test_golden.py`, VIDEOMAMBA_GOLDEN names the folder with the reference values; without it these tests skip.
"""
import json

import pytest
import torch
from test_golden import DTYPES, GOLDEN, OUT, cases, near, read, same_inside, same_layout, same_sizes

from videomamba_nb.masked import sinusoid
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
