"""Masked pre-training: agreement with numbers that the authors' own class computed, for any size of it.

As in `test_golden.py`, VIDEOMAMBA_GOLDEN names the folder with the reference values; without it these tests skip.
"""
import json

import pytest
import torch
from test_golden import DTYPES, GOLDEN, OUT, cases, near, read, same_inside, same_layout, same_sizes
from test_golden import pytestmark as pytestmark

from videomamba_nb.masked import MaskedVideoMamba, sinusoid
from videomamba_nb.zoo import SIZES


def arguments(kwargs):
    "The official arguments, in the words of our constructor."
    kw = {k: tuple(v) if isinstance(v, list) else v for k,v in kwargs.items()}
    return kw | dict(align_pre_last=kw.pop('fused_add_norm', True)) # the fused branch is the official default

def run(name, p):
    "One forward and backward pass: tensors, description, model, input, answers, what every block returned."
    t,meta = read(name)
    model = MaskedVideoMamba(**arguments(meta['kwargs'])).eval().to(DTYPES[p])
    model.load_state_dict({k[6:]: v for k,v in t.items() if k.startswith('param.')}, strict=True)
    blocks = []
    for layer in model.layers: layer.register_forward_hook(lambda m, args, out: blocks.append(out))
    x = t['input.x'].to(DTYPES[p]).requires_grad_()
    out = model(x, t['input.mask'], **meta.get('call_kwargs', {}))
    (out*t['cotangent.clip'].to(out.dtype)).sum().backward()
    return t, meta, model, x, out, blocks

@pytest.mark.parametrize('p', DTYPES)
@pytest.mark.parametrize('name', cases('model_*.json', ['pretrain']))
def test_model(name, p):
    t,meta,model,x,out,blocks = run(name, p)
    near(out, t[f'out.{p}.clip'], OUT[p], 'answers')
    same_inside(t, meta, model, x, blocks, p)

@pytest.mark.parametrize('name', cases('model_*.json', ['pretrain']))
def test_every_gradient_has_the_right_size(name):
    _,meta,model,*_ = run(name, 'f64')
    same_sizes(meta, model)

@pytest.mark.parametrize('name', cases('model_*.json', ['pretrain']))
def test_table_of_positions(name):
    t,meta = read(name)
    model = MaskedVideoMamba(**arguments(meta['kwargs']))
    assert torch.equal(model.clip_pos_embed, t['aux.clip_pos_embed'].reshape(model.clip_pos_embed.shape).float())
    assert torch.equal(model.double().clip_pos_embed, sinusoid(*model.clip_pos_embed.shape))

@pytest.mark.parametrize('name', cases('keys/keys_*.json', ['pretrain']))
def test_keys(name):
    meta = json.loads((GOLDEN/f'{name}.json').read_text())
    size = dict(zip(('depth','embed_dim'), SIZES.get(meta['builder'].removesuffix('_pretrain'), ())))
    model = MaskedVideoMamba(**size | arguments(meta['kwargs']))
    same_layout(meta, model)

def test_initialisation():
    stats = json.loads((GOLDEN/'init_stats.json').read_text())['pretrain']
    state = MaskedVideoMamba(**arguments(stats['kwargs'])).state_dict()
    for k,want in stats['params'].items():
        v,n = state[k].double(),state[k].numel()
        assert list(v.shape) == want['shape'], k
        assert v.mean().item() == pytest.approx(want['mean'], abs=8*want['std']/n**.5+1e-7), k
        assert v.std(correction=0).item() == pytest.approx(want['std'], rel=8/n**.5, abs=1e-7), k
        assert v.abs().max() <= 1.5*max(abs(want['min']), abs(want['max']))+1e-6, k
