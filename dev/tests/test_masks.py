"Masks, masked models and alignment on grids, ratios and seeds that nobody chose by hand."
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from videomamba_nb.core import test_tensor as same
from videomamba_nb.masked import MaskedVideoMamba, alignment, classifier_of, sinusoid, tap_layers
from videomamba_nb.masks import MASKS, draw_mask, mask_counts, take, visible_tokens
from videomamba_nb.teacher import Align, Teacher

few = settings(max_examples=60, deadline=None)
grids = st.tuples(*[st.integers(1, 7)]*3)
ratios = st.floats(0, .99)
seeds = st.integers(0, 2**32-1)


def attention(seed, grid, batch):
    "Attention in which some places get none."
    a = torch.rand(batch, *grid, generator=torch.Generator().manual_seed(seed % 2**31))
    return a*(a > .1)

@few
@given(st.sampled_from(list(MASKS)), grids, ratios, seeds, st.integers(1, 4))
def test_every_mask_keeps_its_promise(kind, grid, ratio, seed, batch):
    t,h,w = grid
    try: draws,n,k = mask_counts(kind, grid, ratio)
    except ValueError as e:
        assert ratio and 'hides none' in str(e)
        return
    a = attention(seed, grid, batch)
    if kind == 'attention': assume((a.flatten(2) > 0).sum(2).min() >= n-k)
    draw = lambda s: draw_mask(kind, grid, ratio, np.random.default_rng(s), a, batch)
    mask = draw(seed)
    assert mask.dtype == torch.bool and mask.shape == (batch, 1+t*h*w) and not mask[:,0].any()
    assert torch.equal(mask, draw(seed))
    x = mask[:,1:].view(batch, t, h, w)
    want = dict(random=int(ratio*(t*h*w)), clip_row=t*int(ratio*h)*w, frame_row=t*int(ratio*h)*w)
    assert (mask.sum(1) == want.get(kind, t*int(ratio*(h*w)))).all()
    if kind == 'tube': assert torch.equal(x, x[:,:1].expand_as(x))
    if 'row' in kind: assert torch.equal(x.all(3), x.any(3))
    if kind not in ('random','clip_row'): assert (x.flatten(2).sum(2) == x[0,0].sum()).all()
    if kind == 'attention': assert not (~x & (a == 0)).any()
    keep = visible_tokens(mask, batch, grid)
    assert torch.equal(keep, keep.sort(1)[0]) and keep.shape[1] == 1+t*h*w-mask[0].sum()
    assert not mask.gather(1, keep).any()

@few
@given(grids, seeds, st.integers(1, 3))
def test_take_is_what_a_mask_selects(grid, seed, batch):
    mask = draw_mask('random', grid, .5 if math.prod(grid) > 1 else 0., np.random.default_rng(seed), batch=batch)
    x = torch.randn(*mask.shape, 3)
    same(take(x, visible_tokens(mask, batch, grid)), x[~mask].view(batch, -1, 3), rtol=0., atol=0.)

def test_rows_of_the_paper():
    rng,ones = np.random.default_rng(0),torch.ones(1, 8, 14, 14)
    hidden = {k: draw_mask(k, (8,14,14), .8, rng, ones)[0,1:].view(8,14,14) for k in MASKS}
    assert hidden['random'].sum() == 1254 and hidden['tube'][0].sum() == 156
    assert hidden['clip_row'].all(2).sum() == 88 and hidden['frame_row'].all(2).sum(1).tolist() == [11]*8
    assert hidden['attention'].flatten(1).sum(1).tolist() == [156]*8

def test_no_draw_but_from_the_generator():
    np.random.seed(0)
    torch.manual_seed(0)
    states = np.random.get_state()[1].copy(),torch.get_rng_state()
    for kind in MASKS: draw_mask(kind, (2,3,4), .7, np.random.default_rng(0), torch.ones(2,2,3,4), 2)
    assert (np.random.get_state()[1] == states[0]).all() and torch.equal(torch.get_rng_state(), states[1])

@few
@given(st.integers(1, 40), st.integers(1, 12), st.floats(1, 4))
def test_taps(depth, layers, interval):
    last = depth-1-int((layers-1)*interval)
    if last < 0:
        with pytest.raises(ValueError, match=f'the model has {depth}'): tap_layers(depth, layers, interval)
        return
    taps = tap_layers(depth, layers, interval)
    assert taps[-1] == depth-1 and taps[0] == last and len(set(taps)) == layers and taps == sorted(taps)

@few
@given(st.integers(1, 60), st.integers(1, 17))
def test_sinusoid(m, d):
    table = sinusoid(m, d)
    for p,i in ((m-1, d-1), (m//2, d//2)):
        angle = p/10000**(2*(i//2)/d)
        assert table[p,i].item() == pytest.approx(math.cos(angle) if i % 2 else math.sin(angle), abs=1e-6)

SIZE = dict(img_size=16, patch_size=8, depth=2, embed_dim=8, ssm_cfg=dict(d_state=2))

@settings(max_examples=12, deadline=None)
@given(st.sampled_from(['random','tube','frame_row']), st.sampled_from(['spatial_first','temporal_first','alternating']),
       st.booleans(), seeds)
def test_hidden_places_do_not_matter_and_visible_ones_do(kind, order, pre, seed):
    torch.manual_seed(0)
    m = MaskedVideoMamba(**SIZE, num_frames=4, kernel_size=2, scan_order=order, clip_output_dim=5, align_pre_last=pre)
    m = m.double()
    x = torch.randn(2, 3, 4, 16, 16, dtype=torch.float64)
    mask = draw_mask(kind, m.grid, .5, np.random.default_rng(seed), batch=2)
    noise = mask[:,1:].view(2,2,2,2).repeat_interleave(2, 1).repeat_interleave(8, 2).repeat_interleave(8, 3)[:,None].double()
    out = m(x, mask)
    assert out.shape == (1, 2, 5, 5)
    same(m(x+noise, mask), out, rtol=0., atol=0.)
    same(m(x[1:], mask[1:])[:,0], out[:,1], rtol=1e-9, atol=1e-10)
    assert (m(x+1-noise, mask)-out).abs().max() > 1e-6

def test_drop_path_is_off_unless_asked_for():
    for rate in (None, .3):
        m = MaskedVideoMamba(**SIZE, num_frames=2, **{} if rate is None else dict(drop_path_rate=rate))
        assert m.drop_path.p == (rate or 0.) and m.config['drop_path_rate'] == (rate or 0.)

def test_recomputed_mixers_give_the_same_gradients():
    grads = []
    for n in (0, 2):
        torch.manual_seed(0)
        m = MaskedVideoMamba(**SIZE, num_frames=2, use_checkpoint=n > 0, checkpoint_num=n, scan_order='temporal_first')
        mask = draw_mask('tube', m.grid, .5, np.random.default_rng(0), batch=2)
        m(torch.linspace(-1, 1, 2*3*2*256).view(2, 3, 2, 16, 16), mask).square().sum(-1).cumsum(-1).sum().backward()
        grads.append(m.layers[0].mixer.in_proj.weight.grad)
    same(*grads, rtol=1e-4, atol=1e-7)

@pytest.mark.parametrize('rms', [True, False])
def test_a_classifier_takes_everything_but_norm_and_head(rms):
    m = MaskedVideoMamba(**SIZE | dict(img_size=(16,24)), num_frames=4, kernel_size=2, rms_norm=rms)
    with torch.no_grad():
        for p in m.parameters(): p.copy_(torch.randn_like(p))
    c = classifier_of(m, 3)
    fresh = {k for k,p in c.state_dict().items() if k not in m.state_dict()}
    want = {'head.weight','head.bias','norm_f.weight'} | (set() if rms else {'norm_f.bias'})
    assert fresh == set(c.report.untouched) == want
    for k,p in c.state_dict().items():
        if k not in fresh: assert torch.equal(p, m.state_dict()[k]), k
    assert classifier_of(m, 3, img_size=(24,24), num_frames=8).grid == (4,3,3)
    assert 'never trained' not in repr(c.report)

class Copies(Teacher):
    "Says the mean colour of each place."
    def look(self, frames):
        x = torch.nn.functional.avg_pool2d(frames, 8)
        return torch.cat([x.mean((2,3))[...,None], x.flatten(2)], 2).transpose(1, 2), x.square().sum(1)

@few
@given(st.sampled_from(list(MASKS)), seeds, st.integers(1, 3))
def test_targets_lie_where_the_answers_do(kind, seed, layers):
    x = torch.randn(2, 3, 2, 16, 24, generator=torch.Generator().manual_seed(seed % 2**31))
    y,_ = Copies()(x)
    loss,score = Align(Copies(), kind, .5)(lambda x, m: y[~m].view(1, 2, -1, 3).repeat(layers, 1, 1, 1), x, None,
                                           np.random.default_rng(seed))
    same(loss, torch.zeros(2), atol=1e-5)
    same(score, torch.ones(2), atol=1e-5)

@few
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), seeds)
def test_alignment_is_the_mean_of_its_parts(k, b, v, seed):
    g = torch.Generator().manual_seed(seed % 2**31)
    u,y = torch.randn(k, b, v, 3, generator=g),torch.randn(b, v, 3, generator=g)
    for kind in ('l2','mse','smooth_l1'):
        places = [(slice(i, i+1),slice(j, j+1),slice(n, n+1)) for i in range(k) for j in range(b) for n in range(v)]
        parts = torch.stack([alignment(u[o], y[o[1:]], kind) for o in places])
        same(alignment(u, y, kind), parts.view(k, b, v).mean((0,2)), rtol=1e-4, atol=1e-6)
    unit = [torch.nn.functional.normalize(o, dim=-1) for o in (u, y)]
    same(alignment(*unit), (unit[0]-unit[1]).square().sum(-1).mean((0,2)), rtol=1e-4, atol=1e-6)
