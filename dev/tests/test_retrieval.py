"Ranks against sorted lists, truth against loops, re-ranking in every split of its pairs."
from collections import namedtuple
from statistics import mean, median

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videomamba_nb import retrieval
from videomamba_nb.core import test_tensor
from videomamba_nb.films import clip_batches, films_of, items_of, truth_of
from videomamba_nb.ranking import (
    PUBLISHED,
    ColorModel,
    Direction,
    check_ranks,
    color_film,
    dual_softmax,
    ranks,
    report,
    score_retrieval,
)
from videomamba_nb.retrieval import (
    UNRANKED,
    TableModel,
    check_rerank,
    dual_scores,
    encode_all,
    evaluate_retrieval,
    rerank,
)

Row = namedtuple('Row', 'path captions')
few = settings(max_examples=40, deadline=None)

@st.composite
def scored(draw, most=6):
    "Scores with many ties, and a truth in which each query has an answer."
    q,g = draw(st.integers(1, most)),draw(st.integers(1, most))
    sim = draw(st.lists(st.lists(st.integers(-2, 2), min_size=g, max_size=g), min_size=q, max_size=q))
    truth = draw(st.lists(st.lists(st.booleans(), min_size=g, max_size=g), min_size=q, max_size=q))
    for row in truth: row[draw(st.integers(0, g-1))] = True
    return torch.tensor(sim).double(),torch.tensor(truth)

def sorted_ranks(sim, truth, first):
    "Places in a sorted list; of equal scores wrong ones come first, or right ones."
    out = []
    for s,t in zip(sim.tolist(), truth.tolist()):
        order = sorted(zip(s, t), key=lambda o: (-o[0],o[1] != first))
        out.append(1+[right for _,right in order].index(True))
    return out


# ---- ranks

@few
@given(scored())
def test_ranks_are_places_in_sorted_lists(both):
    sim,truth = both
    worst,best = (sorted_ranks(sim, truth, o) for o in (False,True))
    assert ranks(sim, truth).tolist() == worst
    level = ((sim == sim.masked_fill(~truth, -9).amax(1, keepdim=True)) & ~truth).sum(1)
    if (truth.sum(1) == 1).all():
        assert ranks(sim, truth, 'best').tolist() == best
        assert ranks(sim, truth, 'middle').tolist() == [(a+b)/2 for a,b in zip(worst, best)]
    assert (ranks(sim, truth)-ranks(sim, truth, 'best')).tolist() == level.tolist()

@few
@given(scored(), st.randoms(use_true_random=False))
def test_ranks_do_not_depend_on_order_or_scale(both, rng):
    sim,truth = both
    cols,rows = (rng.sample(range(n), n) for n in sim.T.shape)
    want = ranks(sim, truth)
    test_tensor(ranks(sim[:,cols], truth[:,cols]), want)
    test_tensor(ranks(sim[rows], truth[rows]), want[rows])
    test_tensor(ranks(sim.float().exp()*3, truth), want)

@few
@given(scored())
def test_recall_median_and_mean(both):
    r = ranks(*both)
    d,plain = Direction(r),r.tolist()
    for k in (1,2,5): assert d.recall(k) == pytest.approx(100*mean(o <= k for o in plain))
    assert d.median == pytest.approx(median(plain)) and d.mean == pytest.approx(mean(plain))

def test_constant_scores_prove_nothing():
    flat,eye = torch.zeros(50, 50),torch.eye(50, dtype=torch.bool)
    r = score_retrieval(flat, eye)
    assert r.t2v.recall(10) == r.v2t.recall(10) == 0 and r.t2v.median == 50
    assert score_retrieval(torch.eye(50), eye).official()['r_mean'] == 100

@few
@given(scored())
def test_names_of_the_logs(both):
    sim,truth = both
    truth = truth | (~truth.any(0))[None] # each sentence has a film
    found = score_retrieval(sim, truth).official()
    assert found['img_r1'] == pytest.approx(100*mean(o <= 1 for o in sorted_ranks(sim.T, truth.T, False)))
    assert found['txt_r5'] == pytest.approx(100*mean(o <= 5 for o in sorted_ranks(sim, truth, False)))

def test_published_rows_are_printed():
    r = score_retrieval(torch.eye(3), torch.eye(3, dtype=torch.bool))
    for data in dict(PUBLISHED):
        text = report({'ours': r}, data[0])
        for row in PUBLISHED[data]: assert ' '.join(f'{x:5.1f}' for x in row) in text

def test_dual_softmax_by_hand():
    x = np.random.default_rng(0).normal(size=(3,4))
    e = np.exp(x/.2)
    want = np.log(e/e.sum(0))+np.log(e/e.sum(1, keepdims=True))
    test_tensor(dual_softmax(torch.tensor(x), .2), torch.tensor(want), rtol=1e-9)


# ---- who belongs to whom

words = st.sampled_from(['red','blue','red blue','green'])

@few
@given(st.lists(st.lists(words, max_size=3), min_size=1, max_size=5).filter(any), st.booleans())
def test_truth_against_loops(told, shared):
    rows = [Row(str(i), tuple(o)) for i,o in enumerate(told)]
    texts,truth = truth_of(rows, shared)
    every = [t for o in told for t in o]
    assert texts == (sorted(set(every), key=every.index) if shared else every)
    owner = [i for i,o in enumerate(told) for _ in o]
    for i,row in enumerate(truth.tolist()):
        for j,yes in enumerate(row): assert yes == (texts[j] in told[i] if shared else owner[j] == i)


@few
@given(st.lists(st.tuples(st.integers(0, 2), st.lists(words, max_size=2)), min_size=1, max_size=6), st.integers(1, 3))
def test_a_file_is_one_film(lines, views):
    "Lines of the same file are one film with all that is said of it; its clips are those of the first line."
    class Lines:
        rows = [Row(f'{k}.mp4', tuple(o)) for k,o in lines]
        def __len__(self): return len(lines)*views
        def view(self, i): return i//views,i % views,0
    films = films_of(Lines())
    assert [f.path for f in films] == list(dict.fromkeys(r.path for r in Lines.rows))
    for f in films:
        mine = [r for r in Lines.rows if r.path == f.path]
        assert f.captions == list(dict.fromkeys(t for r in mine for t in r.captions))
        first = Lines.rows.index(mine[0])
        assert f.at == list(range(first*views, first*views+views))
    assert sorted(i for o in items_of(Lines()) for i in o) == list(range(len(Lines())))

def test_clips_come_in_order():
    read = list(clip_batches(Films([['red'], ['blue'], ['green']]), [[2], [0], [1]], 2))
    assert [k for k,_ in read] == [[0, 1], [2]]
    for x,c in zip(torch.cat([x for _,x in read])[:,0], ('green','red','blue')): test_tensor(x, color_film(c, 4))


# ---- encode and re-rank

class Films:
    def __init__(self, told): self.rows = [Row(f'{i}.mp4', tuple(o)) for i,o in enumerate(told)]
    def __len__(self): return len(self.rows)
    def __getitem__(self, i): return color_film(' '.join(self.rows[i].captions) or 'green', 4),'',0

@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(words, max_size=2), min_size=1, max_size=5).filter(any), st.integers(1, 6), st.integers(1, 6))
def test_batches_do_not_matter(told, batch, text_batch):
    a = encode_all(ColorModel(), Films(told))
    b = encode_all(ColorModel(), Films(told), batch, text_batch)
    assert (a.texts,a.names) == (b.texts,b.names)
    for x,y in ((a.videos,b.videos),(a.sentences,b.sentences)):
        for o,p in zip(x[:3], y[:3]): test_tensor(o, p)
    test_tensor(a.scores(), b.scores())

@few
@given(scored(), st.integers(1, 7), st.integers(1, 9), st.integers(1, 3))
def test_rerank_by_hand(both, k, batch, m):
    sim,_ = both
    sim = sim+torch.linspace(0, .1, sim.numel()).view_as(sim) # no ties
    v,s = sim.shape
    table = torch.randn(v*m, s, generator=torch.Generator().manual_seed(v+7*s))
    model = TableModel(table)
    for how,reduce in (('mean',lambda x: x.mean(1)),('max',lambda x: x.amax(1))):
        logits = reduce(table.view(v, m, s))
        a,b = rerank(model, model.number(v*m), model.number(s), sim, k, batch, how)
        for got,want,near in ((a,logits,sim),(b,logits.T,sim.T)):
            for q in range(len(got)):
                best = near[q].argsort(descending=True)[:k].tolist()
                for g,x in enumerate(got[q].tolist()):
                    assert x == pytest.approx(want[q,g].item(), abs=1e-6) if g in best else x == UNRANKED

def test_shares_of_processes_add_up(monkeypatch):
    "Each process matches its own pairs, and their sum is what one of them would find."
    sim,model = torch.randn(5, 6),TableModel(torch.randn(5, 6))
    how = (model, model.number(5), model.number(6), sim, 2)
    want,parts = rerank(*how),[]
    monkeypatch.setattr(retrieval, 'add_up', lambda x: parts.append(x) or x)
    for r in range(30):
        monkeypatch.setattr(retrieval, 'shard', lambda n, r=r: list(range(r, n, 30)))
        rerank(*how)
    total = sum(parts)
    monkeypatch.setattr(retrieval, 'add_up', lambda x: total)
    for a,b in zip(rerank(*how), want): test_tensor(a, b)
    assert any((o == 0).all() for o in parts), 'some had nothing to do'

def test_contracts_are_kept():
    check_ranks(ranks)
    check_rerank(rerank)

def test_a_broken_file_stops_it():
    class Broken(Films):
        def __getitem__(self, i):
            if i == 1: raise OSError('1.mp4 cannot be read')
            return super().__getitem__(i)
    with pytest.raises(OSError, match='1.mp4'): evaluate_retrieval(ColorModel(), Broken([['red'], ['blue']]))

def test_dual_scores_of_long_vectors():
    x,y = torch.randn(3, 2, 4),torch.randn(5, 4)
    test_tensor(dual_scores(3*x, y/7), dual_scores(x, y), atol=1e-6)
    test_tensor(dual_scores(x[[0,2]], y), dual_scores(x, y)[[0,2]])
