"""Agreement with numbers that the authors' own classes computed.

The environment variable VIDEOMAMBA_GOLDEN names the folder that holds them (its README describes the files); without it
these tests skip. Self-distillation: `test_golden_distill.py`; masked pre-training: `test_masked.py`; the encoder of the
video-text model: `test_video_encoder.py`.
"""
import json
import os
from pathlib import Path

import pytest
import reference
import torch
from safetensors.torch import load_file

from videomamba_nb.bmamba import Mamba
from videomamba_nb.model import VideoMamba, create_model, list_models
from videomamba_nb.scan import scan_backends, selective_scan
from videomamba_nb.weights import load_weights

GOLDEN = Path(os.environ.get('VIDEOMAMBA_GOLDEN') or 'missing')
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason='VIDEOMAMBA_GOLDEN does not name a folder of reference values')
DTYPES = {'f32': torch.float32, 'f64': torch.float64}
OUT,GRAD = {'f32': 2e-5, 'f64': 1e-9},{'f32': 5e-5, 'f64': 1e-9} # absolute; as a fraction of the largest entry


def cases(pattern, kinds):
    "Names of the files that hold one of `kinds`."
    found = [p for p in sorted(GOLDEN.glob(pattern)) if json.loads(p.read_text()).get('kind') in kinds]
    return [p.relative_to(GOLDEN).with_suffix('').as_posix() for p in found] or ['none']

def read(name):
    "Tensors and description of one case."
    return load_file(GOLDEN/f'{name}.safetensors'), json.loads((GOLDEN/f'{name}.json').read_text())

def near(ours, theirs, tol, name):
    "Fail with the largest difference, where it is, and what was allowed."
    assert ours.shape == theirs.shape, f'{name}: {tuple(ours.shape)} is not {tuple(theirs.shape)}'
    worst = (ours.double()-theirs.double()).abs().max().item()
    assert worst <= tol, f'{name} differs by {worst:.2g}, more than {tol:.2g}'

def near_grad(ours, theirs, p, name): near(ours, theirs, GRAD[p]*max(theirs.abs().max().item(), 1e-12), name)


def same_inside(t, meta, model, x, blocks, p):
    "What every block returned, and all gradients that were kept."
    for i,pair in enumerate(blocks):
        for ours,key in zip(pair, ('hidden','residual')):
            if f'block.{p}.{i}.{key}' in t: near(ours, t[f'block.{p}.{i}.{key}'], OUT[p], f'block {i} {key}')
    near_grad(x.grad, t[f'grad.{p}.input'], p, 'gradient of the input')
    silent = set(meta['params_without_gradient'])
    for k,v in model.named_parameters():
        assert (v.grad is None) == (k in silent), f'{k}: gradient {"missing" if v.grad is None else "not expected"}'
        if f'grad.f64.{k}' in t: near_grad(v.grad, t[f'grad.f64.{k}'], p, f'gradient of {k}')

def same_sizes(meta, model):
    "Length, largest entry and sum of every gradient."
    for k,v in model.named_parameters():
        want = meta['param_grad_summary_f64'].get(k)
        if want is None: continue
        ours = dict(l2=v.grad.norm().item(), maxabs=v.grad.abs().max().item())
        assert ours == pytest.approx({o: want[o] for o in ours}, rel=1e-9, abs=1e-12), k
        assert v.grad.sum().item() == pytest.approx(want['sum'], abs=1e-9*want['l2']*v.numel()**.5), k

def same_layout(meta, model):
    "Names, their order, shapes, counts, drop path rates and what does not decay."
    ours = [[k, list(v.shape), str(v.dtype).removeprefix('torch.')] for k,v in model.state_dict().items()]
    assert sorted(ours) == sorted(meta['keys'])
    assert [k for k,*_ in ours] == [k for k,*_ in meta['keys']], 'same names, another order'
    assert sum(v.numel() for v in model.parameters()) == meta['num_params']
    rates = [layer.drop_path.p for layer in model.layers]+[model.drop_path.p]
    assert rates == pytest.approx(meta['drop_path_per_block']+[meta['drop_path_final']])
    assert model.no_weight_decay() == set(meta['no_weight_decay'])


# ---- the scan

def backends():
    "Each with the precisions it can run."
    for p,dtype in DTYPES.items():
        yield from ((k,p) for k,why in {'auto': '', **scan_backends('cpu', dtype)}.items() if not why)

@pytest.mark.parametrize('backend, p', backends())
@pytest.mark.parametrize('name', cases('scan_*.json', ['selective_scan']))
def test_scan(name, backend, p):
    t,meta = read(name)
    args = {k[6:]: v.to(DTYPES[p]).requires_grad_() for k,v in t.items() if k.startswith('input.')}
    out,last = selective_scan(**args, delta_softplus=meta['delta_softplus'], return_last_state=True, backend=backend)
    for ours,key in (out,'out'),(last,'last_state'):
        want = t[f'out.{p}.{key}']
        large = 2e-6*want.abs().max().item() if p == 'f32' else 0 # long sums of large values round more
        near(ours, want, max(OUT[p], large), key)
    (out*t['cotangent.out'].to(out.dtype)).sum().backward()
    for k,v in args.items(): near_grad(v.grad, t[f'grad.{p}.{k}'], p, f'gradient of {k}')


# ---- whole models

def arguments(meta):
    "The official arguments, in the words of our constructor."
    kw = {k: tuple(v) if isinstance(v, list) else v for k,v in meta['kwargs'].items()}
    kw.pop('fused_add_norm', None) # another way to compute the same
    if meta['kind'] == 'image': kw = {'stride': 16, 'num_frames': None} | kw # there, stride does not follow patch_size
    return kw

def run(name, p):
    "One forward and backward pass: tensors, description, model, input, logits, what every block returned."
    t,meta = read(name)
    model = VideoMamba(**arguments(meta)).eval().to(DTYPES[p])
    model.load_state_dict({k[6:]: v for k,v in t.items() if k.startswith('param.')}, strict=True)
    blocks = []
    for layer in model.layers: layer.register_forward_hook(lambda m, args, out: blocks.append(out))
    x = t['input.x'].to(DTYPES[p]).requires_grad_()
    logits = model(x)
    (logits*t['cotangent.logits'].to(logits.dtype)).sum().backward()
    return t, meta, model, x, logits, blocks

@pytest.mark.parametrize('p', DTYPES)
@pytest.mark.parametrize('name', cases('model_*.json', ['image', 'video']))
def test_model(name, p):
    t,meta,model,x,logits,blocks = run(name, p)
    near(logits, t[f'out.{p}.logits'], OUT[p], 'logits')
    same_inside(t, meta, model, x, blocks, p)

@pytest.mark.parametrize('name', cases('model_*.json', ['image', 'video']))
def test_every_gradient_has_the_right_size(name):
    _,meta,model,*_ = run(name, 'f64')
    same_sizes(meta, model)


# ---- names, shapes, counts, rates and the start of training

@pytest.mark.parametrize('name', cases('keys/keys_*.json', ['image', 'video']))
def test_keys(name):
    meta = json.loads((GOLDEN/f'{name}.json').read_text())
    kw = arguments(meta)
    model = create_model(meta['builder'], **kw) if meta['builder'] in list_models() else VideoMamba(**kw)
    same_layout(meta, model)

@pytest.mark.parametrize('kind', ['image', 'video'])
def test_initialisation(kind):
    stats = json.loads((GOLDEN/'init_stats.json').read_text())[kind]
    kw = stats['kwargs'] if kind == 'video' else {'num_frames': None} | stats['kwargs']
    state = VideoMamba(**kw).state_dict()
    for k,want in stats['params'].items():
        v,n = state[k].double(),state[k].numel()
        assert list(v.shape) == want['shape'], k
        assert v.mean().item() == pytest.approx(want['mean'], abs=8*want['std']/n**.5+1e-7), k
        assert v.std(correction=0).item() == pytest.approx(want['std'], rel=8/n**.5, abs=1e-7), k
        assert v.abs().max() <= 1.5*max(abs(want['min']), abs(want['max']))+1e-6, k


# ---- values that a formula fills in

def vectors(): return json.loads((GOLDEN/'fill_rule_vectors.json').read_text())

def filled(module):
    "The module with every parameter set by the rule, in float32."
    values = reference.fill_rule({k: v.numpy() for k,v in module.state_dict().items()})
    module.load_state_dict({k: torch.from_numpy(v).float() for k,v in values.items()})
    return module.eval()

def ruled(*shape): return torch.from_numpy(reference.input_rule(*shape)).float()

@torch.no_grad()
@pytest.mark.parametrize('bimamba', [True, False])
def test_mixer_vectors(bimamba):
    y,v = filled(Mamba(8, bimamba=bimamba))(ruled(1, 10, 8))[0],vectors()
    names = ('mixer d8 L10: first token','mixer: last token') if bimamba else ('mixer bimamba=False first','... last')
    for row,name in zip((0,-1), names): near(y[row], torch.tensor(v[name]), 2e-6, name)
    if bimamba: near(torch.stack([y.sum(), y.abs().sum()]), torch.tensor(v['mixer sum/abs']), 5e-6, 'sums')

@torch.no_grad()
@pytest.mark.parametrize('name, kw', [
    ('image logits', dict(num_frames=None)), ('video f4 k1 logits', dict(num_frames=4)),
    ('video f4 k2 logits', dict(num_frames=4, kernel_size=2))])
def test_model_vectors(name, kw):
    model = filled(VideoMamba(img_size=32, patch_size=16, depth=2, embed_dim=32, num_classes=5, **kw))
    x = ruled(1, 3, 32, 32) if kw['num_frames'] is None else ruled(1, 3, 4, 32, 32)
    near(model(x)[0], torch.tensor(vectors()[name]), 2e-5, name)
    if 'k1' in name:
        near(model.forward_features(x)[0,0,:6], torch.tensor(vectors()['video f4 k1 feat[:6]']), 1e-5, 'features')


# ---- checkpoints loaded into another size

@pytest.mark.parametrize('p', DTYPES)
@pytest.mark.parametrize('name', cases('load_*.json', ['image', 'video']))
def test_load(name, p):
    t,meta = read(name)
    model = VideoMamba(**arguments(meta)).eval()
    own = model.state_dict()
    for k in meta['untouched']: own[k].copy_(t[f'dst.{k}'])
    source = {k[4:]: v for k,v in t.items() if k.startswith('src.')}
    head = 'drop' if 'head.weight' in meta['untouched'] else 'auto'
    report = load_weights(model, source, center='center=False' not in meta['how'], head=head)
    assert sorted(report.untouched) == sorted(meta['untouched'])
    for k in meta['copied']: assert torch.equal(own[k], source[k]), k
    for k in meta['transformed']: near(own[k], t[f'dst.{k}'], 1e-6, k)
    logits = model.to(DTYPES[p])(t['input.x'].to(DTYPES[p]))
    near(logits, t[f'out.{p}.logits'], OUT[p] if p == 'f32' else 1e-6, 'logits') # embeddings were resized in float32
