"Properties of the losses for clips and their sentences, for whatever batch comes."
import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from videomamba_nb.pair_losses import draw_negatives, frame_similarity, mask_words, mlm_loss, vtc_loss, vtc_rows, vtm_loss

seeds = st.integers(0, 2**32-1)
batches = st.lists(st.integers(0, 4), min_size=1, max_size=9)
kinds = st.sampled_from(['softmax', 'sigmoid'])


def draw(seed, *shape): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

@settings(max_examples=60, deadline=None)
@given(batches, seeds, kinds)
def test_a_shuffled_batch_has_shuffled_losses(idx, seed, kind):
    idx,sim = torch.tensor(idx),4*draw(seed, len(idx), len(idx))
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(idx)))
    whole = vtc_loss(sim, idx, kind)
    assert whole.shape == (len(idx),) and whole.isfinite().all() and (whole > -1e-9).all()
    torch.testing.assert_close(vtc_loss(sim[order][:,order], idx[order], kind), whole[order])
    torch.testing.assert_close(vtc_loss(sim.T, idx, kind), whole)

@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), seeds)
def test_without_duplicates_it_is_symmetric_cross_entropy(b, seed):
    sim,idx = 4*draw(seed, b, b),torch.from_numpy(np.random.default_rng(seed).permutation(100)[:b])
    want = (F.cross_entropy(sim, torch.arange(b))+F.cross_entropy(sim.T, torch.arange(b)))/2
    torch.testing.assert_close(vtc_loss(sim, idx).mean(), want)

@settings(max_examples=30, deadline=None)
@given(batches, seeds, kinds)
def test_shares_of_the_rows_make_the_whole(idx, seed, kind):
    idx,sim,cut = torch.tensor(idx),draw(seed, len(idx), len(idx)),len(idx)//2
    parts = [(vtc_rows(sim[s], idx[s], idx, kind)+vtc_rows(sim.T[s], idx[s], idx, kind))/2
             for s in (slice(0, cut), slice(cut, None)) if len(idx[s])]
    torch.testing.assert_close(torch.cat(parts), vtc_loss(sim, idx, kind))

@settings(max_examples=60, deadline=None)
@given(batches, seeds, st.booleans())
def test_no_negative_is_about_the_same(idx, seed, hard):
    idx,rng = torch.tensor(idx),np.random.default_rng(seed)
    for drawn in draw_negatives(50*draw(seed, len(idx), len(idx)), idx, rng, hard):
        for own,other in zip(idx, drawn.tolist()):
            if other < 0: assert (idx == own).all()
            else: assert idx[other] != own

@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 4), st.floats(.1, 100))
def test_similarity_asks_for_directions_only(seed, p, factor):
    video,text = draw(seed, 3, p, 5),draw(seed+1 if seed < 2**32-1 else 0, 4, 5)
    sim = frame_similarity(video, text)
    assert sim.abs().max() <= 1+1e-9
    torch.testing.assert_close(frame_similarity(video*factor, text/factor), sim)
    torch.testing.assert_close(frame_similarity(video.flip(1), text), sim)

@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 5))
def test_matching_is_the_mean_of_what_is_kept(seed, b):
    logits,ok = draw(seed, 3*b, 2),torch.from_numpy(np.random.default_rng(seed).random(3*b) < .6)
    loss,truth = vtm_loss(logits, ok),(torch.arange(3*b) < b).long()
    want = F.cross_entropy(logits[ok], truth[ok]) if ok.any() else torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(loss.mean(), want)

@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 4), st.integers(2, 7), st.floats(0, 1))
def test_masked_words_give_the_mean_over_gaps(seed, b, n, p):
    class Few:
        pad,cls,sep,mask = range(4)
        def __len__(self): return 12
    rng = np.random.default_rng(seed)
    ids = torch.from_numpy(rng.integers(2, 12, (b, n)))
    ids[:,0] = Few.cls
    asked,labels = mask_words(ids, torch.ones(b, n, dtype=torch.bool), Few(), rng, p, spare_sep=True)
    assert asked.dtype == labels.dtype == ids.dtype and (labels[ids <= Few.sep] == -100).all()
    logits,gaps = draw(seed, b, n, 12),labels >= 0
    want = F.cross_entropy(logits[gaps], labels[gaps]) if gaps.any() else torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(mlm_loss(logits, labels).mean(), want)
