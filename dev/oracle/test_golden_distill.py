"""Self-distillation: agreement with numbers that the authors' own class computed.

Skips without the folder that VIDEOMAMBA_GOLDEN names, as `test_golden.py` does, whose helpers it uses.
"""
import json

import pytest
import torch
from test_golden import (
    DTYPES,
    GOLDEN,
    OUT,
    arguments,
    cases,
    filled,
    near,
    read,
    ruled,
    same_inside,
    same_layout,
    same_sizes,
    vectors,
)

from videomamba_nb.distill import DistillVideoMamba, create_distill, student_of
from videomamba_nb.model import VideoMamba
from videomamba_nb.weights import load_weights

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason='VIDEOMAMBA_GOLDEN does not name a folder of reference values')
MODELS, KEYS = cases('model_*.json', ['distill']), cases('keys/keys_*.json', ['distill'])


def params(t): return {k[6:]: v for k,v in t.items() if k.startswith('param.')}

def run(name, p):
    "One forward and backward pass: tensors, description, model, input, answers, what every block returned."
    t,meta = read(name)
    model = DistillVideoMamba(**arguments(meta)).eval().to(DTYPES[p])
    model.load_state_dict(params(t), strict=True)
    blocks = []
    for layer in model.layers: layer.register_forward_hook(lambda m, args, out: blocks.append(out))
    x = t['input.x'].to(DTYPES[p]).requires_grad_()
    out = dict(zip(('logits', 'feats'), model(x)))
    sum((out[k]*t[f'cotangent.{k}'].to(x.dtype)).sum() for k in out).backward()
    return t, meta, model, x, out, blocks

@pytest.mark.parametrize('p', DTYPES)
@pytest.mark.parametrize('name', MODELS)
def test_model(name, p):
    t,meta,model,x,out,blocks = run(name, p)
    for k,v in out.items(): near(v, t[f'out.{p}.{k}'], OUT[p], k)
    same_inside(t, meta, model, x, blocks, p)

@pytest.mark.parametrize('name', MODELS)
def test_every_gradient_has_the_right_size(name):
    _,meta,model,*_ = run(name, 'f64')
    same_sizes(meta, model)

@pytest.mark.parametrize('p', DTYPES)
@pytest.mark.parametrize('name', MODELS)
def test_the_classifier_inside(name, p):
    "Both ways to a plain model keep the official scores."
    t,meta,model,x,*_ = run(name, p)
    kw = {k: v for k,v in arguments(meta).items() if k not in ('teacher_embed_dim', 'model_type')}
    plain = VideoMamba(**dict(num_frames=None) | kw).eval()
    report = load_weights(plain, params(t))
    assert not report.untouched and {k.split('.')[0] for k in report.unused} <= {'distill_head'}
    for m in (student_of(model), plain.to(DTYPES[p])): near(m(x), t[f'out.{p}.logits'], OUT[p], 'logits')

@pytest.mark.parametrize('name', KEYS)
def test_keys(name):
    meta = json.loads((GOLDEN/f'{name}.json').read_text())
    registered = meta['builder'].startswith('videomamba_')
    model = create_distill(meta['builder'], **arguments(meta)) if registered else DistillVideoMamba(**arguments(meta))
    same_layout(meta, model)

def test_initialisation():
    stats = json.loads((GOLDEN/'init_stats.json').read_text())['distill']
    state = DistillVideoMamba(**stats['kwargs']).state_dict()
    assert {'distill_head.0.weight', 'distill_head.1.weight', 'distill_head.1.bias'} <= set(stats['params'])
    for k,want in stats['params'].items():
        v,n = state[k].double(),state[k].numel()
        assert list(v.shape) == want['shape'], k
        assert v.mean().item() == pytest.approx(want['mean'], abs=8*want['std']/n**.5+1e-7), k
        assert v.std(correction=0).item() == pytest.approx(want['std'], rel=8/n**.5, abs=1e-7), k
        assert v.abs().max() <= 1.5*max(abs(want['min']), abs(want['max']))+1e-6, k

@torch.no_grad()
def test_vectors():
    v,size = vectors(),dict(img_size=32, patch_size=16, depth=2, embed_dim=32, num_classes=5)
    student = filled(DistillVideoMamba(**size, teacher_embed_dim=6))
    student.distill_head[0].weight += 1 # the rule has its values around 1, as those of every norm
    logits,feats = student(ruled(1, 3, 32, 32))
    assert list(feats.shape) == v['distill student feats shape']
    near(logits[0], torch.tensor(v['distill student logits']), 2e-5, 'logits')
    for i in (0, 4): near(feats[0,i], torch.tensor(v[f'distill feats tok{i}']), 1e-5, f'token {i}')
    feats = filled(DistillVideoMamba(**size, model_type='teacher'))(ruled(1, 3, 32, 32))[1]
    near(feats[0,0,:6], torch.tensor(v['teacher feats tok0[:6]']), 1e-5, 'token 0 of the teacher')
