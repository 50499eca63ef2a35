"Intervals, captions played backwards and back again, prompts in any order, and choices against loops."
from collections import namedtuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from videomamba_nb.core import test_tensor
from videomamba_nb.ranking import PURE, ColorModel, color_film
from videomamba_nb.zero_shot import (
    OPPOSITES,
    PromptClassifier,
    bootstrap,
    choice_scores,
    choose,
    class_vectors,
    pair_scores,
    prompts,
    reverse_captions,
    reverse_test,
    wilson,
)

Row = namedtuple('Row', 'path captions answer', defaults=(0,))
few = settings(max_examples=30, deadline=None)

class Films:
    "Films whose first caption (or the one that is the answer) is what they show."
    def __init__(self, told, answers=None):
        self.rows = [Row(f'{i}.mp4', tuple(o), (answers or [0]*len(told))[i]) for i,o in enumerate(told)]
    def __len__(self): return len(self.rows)
    def __getitem__(self, i): return color_film(self.rows[i].captions[self.rows[i].answer], 4),''


# ---- how sure

@few
@given(st.integers(1, 200), st.data())
def test_wilson(n, data):
    k = data.draw(st.integers(0, n))
    low,high = wilson(k, n)
    assert 0 <= low <= k/n+1e-12 and k/n-1e-12 <= high <= 1 and low < high
    assert wilson(n-k, n) == pytest.approx((1-high,1-low))
    narrow = wilson(4*k, 4*n)
    assert narrow[1]-narrow[0] < high-low < wilson(k, n, 2.6)[1]-wilson(k, n, 2.6)[0]+1e-12

def test_wilson_against_the_normal_test():
    "The ends are the chances from which the count lies 1.96 standard deviations away."
    for k,n in ((3,20),(15,20),(400,1000)):
        for p in wilson(k, n): assert abs(k/n-p)/(p*(1-p)/n)**.5 == pytest.approx(1.96, rel=1e-6)

def test_bootstrap_covers():
    rng = np.random.default_rng(0)
    found = [bootstrap(rng.normal(1, 1, 60), draws=300, seed=i) for i in range(120)]
    assert .88 < np.mean([low <= 1 <= high for _,low,high in found]) < .99
    assert bootstrap([0,1]*50, draws=250, seed=3) == bootstrap([0,1]*50, draws=250, seed=3)


# ---- played backwards

some = st.lists(st.sampled_from([o for p in OPPOSITES for o in p]+['a','seven','moves','it']), min_size=1, max_size=4)
captions = st.lists(some.map(' '.join), min_size=1, max_size=3).map(' then '.join)

@settings(max_examples=100, deadline=None)
@given(captions)
def test_backwards_twice_is_the_caption(text):
    back = reverse_captions(text)
    other = {a: b for p in OPPOSITES for a,b in (p,p[::-1])}
    by_hand = ' then '.join(' '.join(other.get(w, w) for w in part.split()) for part in reversed(text.split(' then ')))
    assert back == (None if by_hand == text else by_hand)
    if back: assert reverse_captions(back) == text

told = st.lists(st.sampled_from(['red then blue','blue then red','all red','green then red']), min_size=1, max_size=6)

@few
@given(told.filter(lambda o: set(o) != {'all red'}), st.integers(1, 4), st.sampled_from(['dual','match']))
def test_reverse_test_against_a_loop(told, batch, score):
    model,right = ColorModel(),0.
    can = [o for o in told if reverse_captions(o)]
    for o in can:
        video = model.encode_video(color_film(o, 4)[None])
        a,b = (pair_scores(model, video, model.encode_text([t]), score).item() for t in (o, reverse_captions(o)))
        right += 1. if a > b else .5 if a == b else 0.
    found = reverse_test(model, Films([(o,) for o in told]), score, batch)
    assert (found.right,found.n,found.left_out,found.chance) == (right,len(can),len(told)-len(can),.5)


# ---- names

@few
@given(st.permutations(list(PURE)), st.permutations(['{}','a {} film','{} then blue']), st.integers(1, 9))
def test_order_of_names_and_templates(names, templates, batch):
    model = ColorModel()
    want = dict(zip(PURE, class_vectors(model, list(PURE), ['{}','a {} film','{} then blue'])))
    got = class_vectors(model, names, templates, batch)
    for name,v in zip(names, got): test_tensor(v, want[name])
    test_tensor(got.norm(dim=1), torch.ones(3))

def test_classifier_by_hand():
    model,x = ColorModel(),torch.stack([color_film('red green green', 3), color_film('blue', 3)])
    test_tensor(PromptClassifier(model, ['green','red'], temp=.25)(x), torch.tensor([[2/3,1/3],[0,0]])/.25)
    assert prompts(['a_b'], ['{}!']) == [['a b!']]

def test_scores_of_pairs():
    g = torch.Generator().manual_seed(0)
    two = namedtuple('Two', 'feature')
    v,t = torch.randn(4, 3, 5, generator=g),torch.randn(4, 5, generator=g)
    want = torch.stack([F.cosine_similarity(a, b[None], dim=-1).mean() for a,b in zip(v, t)])
    test_tensor(pair_scores(ColorModel(), two(3*v), two(t/7)), want)


# ---- choices

options = ['blue then red','red then blue','all red','green then blue','all green']

@few
@given(st.permutations(range(5)), st.floats(0, 1), st.floats(.05, 2))
def test_choices_in_any_order(order, weight, temp):
    model = ColorModel()
    video = model.encode_video(color_film('green then blue', 4)[None])
    how = dict(match_weight=weight, dual_weight=1-weight, temp=temp)
    a,b = choice_scores(model, video, options, **how),choice_scores(model, video, [options[i] for i in order], **how)
    test_tensor(b, a[list(order)])
    assert 0 <= a.min() and a.max() <= 1

@few
@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.integers(1, 3))
def test_choose_in_batches(answers, batch):
    data = Films([options]*len(answers), answers)
    found,scores = choose(ColorModel(), data, batch, temp=.1)
    assert (found.right,found.n) == (len(answers),len(answers))
    for i,s in enumerate(scores):
        video = ColorModel().encode_video(data[i][0][None])
        test_tensor(s, choice_scores(ColorModel(), video, options, temp=.1))

def test_choices_over_several_clips():
    "Three clips per film; the mean over them counts, and a tie is no right answer."
    class Clips(Films):
        def __getitem__(self, i): return torch.stack([color_film(o, 4) for o in ('red blue','blue red','blue red')]),''
    model,data = ColorModel(),Clips([options]*2, [0, 2])
    found,scores = choose(model, data, temp=.1)
    assert (found.right,found.n,found.chance) == (1, 2, pytest.approx(.2))
    video = model.encode_video(data[0][0])
    yes = torch.stack([model.match(video.pick([k]*5), model.encode_text(options)).sigmoid() for k in range(3)]).mean(0)
    cos = F.cosine_similarity(video.feature[:,:,None], model.encode_text(options).feature, dim=3).mean((0, 1))
    for s in scores: test_tensor(s, .7*yes+.3*(cos/.1).softmax(0))
    two,same = choose(model, Clips([('red','green'), ('red','blue')], [0, 0]), match_weight=0., temp=1.)
    assert two.chance == .5 and two.right == 1 and same[1][0] == same[1][1], 'red and blue tie'

def test_draws_are_repeated():
    assert bootstrap([0,1,1]*20) == bootstrap([0,1,1]*20, seed=0)
    assert len(OPPOSITES) == len({frozenset(o) for o in OPPOSITES if len(set(o)) == 2})
