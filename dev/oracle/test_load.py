"Checkpoints of one size in models of another, against formulas of their own: sizes, tubelets, wrappings and chains."
import itertools

import pytest
import reference
import torch

from videomamba_nb.model import VideoMamba
from videomamba_nb.weights import WeightsError, load_weights

SIZE = dict(patch_size=8, depth=2, embed_dim=16)
HEAD = ('head.weight','head.bias')
WRAPS = {'bare': lambda s: s, 'model': lambda s: {'model': s}, 'module': lambda s: {'module': s, 'epoch': 3},
         'ddp': lambda s: {'model': {f'module.{k}': v for k,v in s.items()}, 'optimizer': {'state': {}}},
         'backbone': lambda s: {f'backbone.{k}': v for k,v in s.items()},
         'encoder': lambda s: {f'encoder.{k}': v for k,v in s.items()},
         'compiled': lambda s: {f'_orig_mod.{k}': v for k,v in s.items()},
         'headless': lambda s: {f'encoder.{k}': v for k,v in s.items() if k not in HEAD}}


def make(**kw):
    "A model of random weights, none of them at zero."
    m = VideoMamba(**SIZE | kw)
    with torch.no_grad():
        for p in m.parameters(): p.copy_(torch.randn_like(p))
    return m

def holds(model, want, untouched=()):
    "Is every tensor what the formulas say?"
    for k,v in model.state_dict().items():
        if k in untouched: continue
        err = (v.double()-torch.as_tensor(want[k])).abs().max().item()
        assert err < 1e-5, f'{k} is off by {err:.2g}'

@pytest.mark.parametrize('wrap', WRAPS)
@pytest.mark.parametrize('new, tubelet, center', itertools.product((24, 40, (16,56)), (1,2,3), (True,False)))
def test_image_to_clips(new, tubelet, center, wrap):
    image = make(img_size=24, num_frames=None, num_classes=5).state_dict()
    model = make(img_size=new, num_frames=6, kernel_size=tubelet, num_classes=5)
    own = {k: v.clone() for k,v in model.state_dict().items()}
    untouched = {'temporal_pos_embedding', *(HEAD if wrap == 'headless' else ())}
    report = load_weights(model, WRAPS[wrap](image), center=center)
    assert set(report.untouched) == untouched and len(report.loaded) == len(own)-len(untouched)
    holds(model, reference.adapted(image, model.grid[1:], model.grid[0], tubelet, center), untouched)
    for k in untouched: assert torch.equal(model.state_dict()[k], own[k])

@pytest.mark.parametrize('new, frames, tubelet', itertools.product((16, 24, 48), (4, 8, 10), (1,2)))
def test_clips_to_clips(new, frames, tubelet):
    old = make(img_size=24, num_frames=4*tubelet, kernel_size=tubelet, num_classes=5).state_dict()
    model = make(img_size=new, num_frames=frames, kernel_size=tubelet, num_classes=5)
    assert not load_weights(model, old).untouched
    holds(model, reference.adapted(old, model.grid[1:], model.grid[0]))

def test_a_chain():
    "Image, larger image, clips, longer clips: each step by its formula."
    steps = [dict(img_size=24), dict(img_size=40), dict(img_size=40, num_frames=4, kernel_size=2),
             dict(img_size=48, num_frames=10, kernel_size=2)]
    state = make(**dict(num_frames=None, num_classes=5) | steps[0]).state_dict()
    for kw in steps[1:]:
        model = make(**dict(num_frames=None, num_classes=5) | kw)
        untouched = load_weights(model, state).untouched
        grid = (1, *model.grid)[-3:]
        holds(model, reference.adapted(state, grid[1:], grid[0], kw.get('kernel_size')), untouched)
        state = model.state_dict()

@pytest.mark.parametrize('old, new', itertools.product(((1,4), (2,4), (2,6)), ((2,4), (3,6), (1,4))))
def test_tubelets_that_differ(old, new):
    "From one frame a tubelet can grow; from several there is no rule, and the model stays as it was."
    source = make(img_size=16, kernel_size=old[0], num_frames=old[1], num_classes=5).state_dict()
    model = make(img_size=16, kernel_size=new[0], num_frames=new[1], num_classes=5)
    own = {k: v.clone() for k,v in model.state_dict().items()}
    if old[0] in (1, new[0]):
        kernel = source['patch_embed.proj.weight']
        load_weights(model, source)
        middle = model.state_dict()['patch_embed.proj.weight'][:,:,new[0]//2]
        assert torch.equal(middle, kernel[:,:,old[0]//2])
    else:
        with pytest.raises(WeightsError, match='patch_embed.proj.weight'): load_weights(model, source)
        assert all(torch.equal(v, own[k]) for k,v in model.state_dict().items())

@pytest.mark.parametrize('axis', (0,1))
def test_resize_of_a_grid_that_is_no_square(axis):
    "Positions that depend on the row alone, or on the column alone, still do so afterwards."
    model = make(img_size=(24,40), num_frames=4, num_classes=5)
    places = torch.arange(3.)[:,None].expand(3, 5) if axis == 0 else torch.arange(5.).expand(3, 5)
    with torch.no_grad(): model.pos_embed[0,1:] = places.reshape(-1, 1)
    model.resize(img_size=(56,32))
    table = model.pos_embed[0,1:,0].detach().view(7, 4)
    assert table.std(1-axis).max() < 1e-5 and (table.diff(dim=axis) > 0).all()

def test_the_first_400_of_710_classes():
    source = make(img_size=16, num_frames=2, num_classes=710).state_dict()
    model = make(img_size=16, num_frames=2, num_classes=400)
    assert not load_weights(model, source).untouched
    for k in HEAD: assert torch.equal(model.state_dict()[k], source[k][:400])
