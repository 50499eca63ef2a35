"""Masked pre-training: agreement with numbers that the authors' own class computed, for any size of it.

As in `test_golden.py`, VIDEOMAMBA_GOLDEN names the folder with the reference values; without it these tests skip.
"""
import json

import pytest
import torch
from test_golden import DTYPES, GOLDEN, OUT, cases, near, near_grad, read
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
    for i,pair in enumerate(blocks):
        for ours,key in zip(pair, ('hidden','residual')):
            if f'block.{p}.{i}.{key}' in t: near(ours, t[f'block.{p}.{i}.{key}'], OUT[p], f'block {i} {key}')
    near_grad(x.grad, t[f'grad.{p}.input'], p, 'gradient of the input')
    silent = set(meta['params_without_gradient'])
    for k,v in model.named_parameters():
        assert (v.grad is None) == (k in silent), f'{k}: gradient {"missing" if v.grad is None else "not expected"}'
        if f'grad.f64.{k}' in t: near_grad(v.grad, t[f'grad.f64.{k}'], p, f'gradient of {k}')

@pytest.mark.parametrize('name', cases('model_*.json', ['pretrain']))
def test_every_gradient_has_the_right_size(name):
    _,meta,model,*_ = run(name, 'f64')
    for k,v in model.named_parameters():
        want = meta['param_grad_summary_f64'].get(k)
        if want is None: continue
        ours = dict(l2=v.grad.norm().item(), maxabs=v.grad.abs().max().item())
        assert ours == pytest.approx({o: want[o] for o in ours}, rel=1e-9, abs=1e-12), k
        assert v.grad.sum().item() == pytest.approx(want['sum'], abs=1e-9*want['l2']*v.numel()**.5), k

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
    ours = [[k, list(v.shape), str(v.dtype).removeprefix('torch.')] for k,v in model.state_dict().items()]
    assert sorted(ours) == sorted(meta['keys'])
    assert [k for k,*_ in ours] == [k for k,*_ in meta['keys']], 'same names, another order'
    assert sum(v.numel() for v in model.parameters()) == meta['num_params']
    rates = [layer.drop_path.p for layer in model.layers]+[model.drop_path.p]
    assert rates == pytest.approx(meta['drop_path_per_block']+[meta['drop_path_final']])
    assert model.no_weight_decay() == set(meta['no_weight_decay'])

def test_initialisation():
    stats = json.loads((GOLDEN/'init_stats.json').read_text())['pretrain']
    state = MaskedVideoMamba(**arguments(stats['kwargs'])).state_dict()
    for k,want in stats['params'].items():
        v,n = state[k].double(),state[k].numel()
        assert list(v.shape) == want['shape'], k
        assert v.mean().item() == pytest.approx(want['mean'], abs=8*want['std']/n**.5+1e-7), k
        assert v.std(correction=0).item() == pytest.approx(want['std'], rel=8/n**.5, abs=1e-7), k
        assert v.abs().max() <= 1.5*max(abs(want['min']), abs(want['max']))+1e-6, k
