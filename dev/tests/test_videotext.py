"VideoText for whatever batch comes, in half precision, and across a save."
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videomamba_nb.checkpoint import read_file
from videomamba_nb.masks import draw_mask
from videomamba_nb.pair_losses import frame_similarity, scale_grad
from videomamba_nb.towers import CONFIGS, check_pair_model
from videomamba_nb.videotext import LOSSES, VideoText, load_videotext, save_videotext
from videomamba_nb.words import Words

TEXTS = ['a red dot', 'a blue dot falls slowly', 'it rains', 'a dog runs', 'dogs run', 'a red dog']
SMALL = dict(depth=1, embed_dim=16, num_frames=2, img_size=8, patch_size=4, clip_output_dim=5)
TEXT = dict(hidden_size=16, heads=2, intermediate_size=16)


def tiny(**kw):
    torch.manual_seed(0)
    config = CONFIGS['toy'].change(vision=SMALL | kw.pop('vision', {}), text=TEXT | kw.pop('text', {}), **kw)
    return VideoText(config, Words.learn(TEXTS))

def batch(b, seed=0):
    g = torch.Generator().manual_seed(seed)
    mask = draw_mask('tube', (2, 2, 2), .5, np.random.default_rng(seed), batch=b)
    return torch.randn(b, 3, 2, 8, 8, generator=g), TEXTS[:b], mask, torch.randn(b, 9, 5, generator=g)

@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(0, 2**16), st.booleans(), st.booleans())
def test_every_batch_has_finite_losses(idx, seed, hard, masked):
    x,texts,mask,target = batch(len(idx), seed)
    model,idx = tiny().train(),torch.tensor(idx)
    more = (mask, np.random.default_rng(seed), target) if masked else (None, np.random.default_rng(seed), None)
    losses = model(x, texts, idx, *more, hard=hard)
    assert list(losses) == list(LOSSES)[not masked:]
    for o in losses.values(): assert o.shape == idx.shape and o.isfinite().all()
    alone = torch.tensor([bool((idx == o).all()) for o in idx])
    assert (losses['vtm'][alone] == 0).all()
    sum(o.sum() for o in losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())

@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**16))
def test_losses_follow_their_pairs(seed):
    x,texts,mask,target = batch(6, seed)
    model,idx = tiny().eval(),torch.tensor([0, 1, 0, 2, 3, 3])
    order = torch.from_numpy(np.random.default_rng(seed).permutation(6))
    weights = dict(uta=1, vtc=1)
    with torch.no_grad():
        whole = model.losses(x, texts, idx, mask, None, target, weights)
        moved = model.losses(x[order], [texts[i] for i in order], idx[order], mask[order], None, target[order], weights)
    for k in weights: torch.testing.assert_close(moved[k], whole[k][order], rtol=1e-4, atol=1e-5)

@pytest.mark.parametrize('parts', [2, 3])
def test_processes_share_one_contrastive_loss(parts):
    x,texts,*_ = batch(6)
    model,idx = tiny().double().eval(),torch.tensor([0, 1, 0, 2, 3, 3])
    grad = lambda loss: torch.autograd.grad(loss, [model.vision_proj.weight, model.text_proj.weight, model.temp])
    video,text = model.encode_video(x.double()),model.encode_text(texts)
    whole = model.contrast(video, text, idx)
    true = grad(whole.mean())
    for scale in (1., 1/parts):
        model.config = model.config.change(vtc_grad_scale=scale)
        video,text = model.encode_video(x.double()),model.encode_text(texts)
        losses = []
        for rows in torch.arange(6).chunk(parts):
            every = [scale_grad(video.feature, scale), scale_grad(text.feature, scale), idx][::-1]
            losses.append(model.contrast(video.pick(rows), text.pick(rows), idx[rows], lambda o, every=every: every.pop()))
        torch.testing.assert_close(torch.cat(losses), whole)
        got = grad(sum(o.mean() for o in losses)/parts)
        for a,b,s in zip(got, true, (scale, scale, 1)): torch.testing.assert_close(a, s*b)

def test_half_precision():
    x,texts,mask,target = batch(4)
    model,idx = tiny().train(),torch.arange(4)
    plain = model.eval().losses(x, texts, idx, mask, None, target)
    with torch.autocast('cpu', torch.bfloat16): half = model.losses(x, texts, idx, mask, None, target)
    for k in LOSSES:
        assert half[k].dtype == torch.float32
        torch.testing.assert_close(half[k].mean(), plain[k].mean(), rtol=.1, atol=.1)

@pytest.mark.parametrize('kw', [dict(), dict(contrast='sigmoid', bias=-2.5, mask_p=.3, spare_sep=True),
                                dict(vision=dict(scan_order='temporal_first', pool_type='avg'), text=dict(mlm=False))])
def test_a_file_gives_the_same_model(tmp_path, kw):
    model = tiny(**kw).eval()
    save_videotext(model, tmp_path/'a.safetensors', about=[1, 'b'])
    again = load_videotext(tmp_path/'a.safetensors')
    x,texts,*_ = batch(4)
    with torch.no_grad():
        for m in (model, again): m.out = m.encode_video(x).feature, m.encode_text(texts).feature, *m.losses(
            x, texts, torch.arange(4)).values()
    assert all(torch.equal(a, b) for a,b in zip(model.out, again.out)) and again.meta == dict(about=[1, 'b'])
    same = lambda k: getattr(again.config, k) == getattr(model.config, k)
    assert all(map(same, ('contrast', 'bias', 'mask_p', 'spare_sep', 'width')))
    save_videotext(again, tmp_path/'b.safetensors', about=[1, 'b'])
    (one,about),(two,same) = (read_file(tmp_path/f'{o}.safetensors') for o in 'ab')
    assert about == same and list(one) == list(two) and all(torch.equal(one[k], two[k]) for k in one)

def test_any_order_of_reading_keeps_the_contract():
    for order in ('spatial_first', 'temporal_first'):
        model = tiny(vision=dict(scan_order=order)).eval()
        check_pair_model(model, batch(4)[0], TEXTS[:4])
        v,t = model.encode_video(batch(4)[0]),model.encode_text(TEXTS[:4])
        assert frame_similarity(v.feature, t.feature).abs().max() <= 1+1e-5
