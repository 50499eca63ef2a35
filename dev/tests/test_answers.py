"The decoder and its ranking on random weights, weights of answers, and accuracies against loops."
from collections import Counter, namedtuple
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from videomamba_nb.answers import (
    AnswerDecoder,
    AnswerModel,
    answer_likelihood,
    answer_loss,
    answer_rows,
    check_decoder,
    check_rank,
    rank_answers,
    start_from_fusion,
)
from videomamba_nb.core import test_tensor
from videomamba_nb.quiz import evaluate_answers, exact_match, soft_accuracy
from videomamba_nb.text_encoder import TextEncoder
from videomamba_nb.words import Words

few = settings(max_examples=25, deadline=None)
LIST = ['one', 'two', 'red', 'red one', 'red two', 'dark red two']
ASK = ['what is it', 'how many', 'which colour has it']
Seen = namedtuple('Seen', 'tokens')
Row = namedtuple('Row', 'question answers')

class Small(nn.Module):
    def __init__(self, vision=6):
        super().__init__()
        self.words = Words.learn([*ASK, *LIST], max_len=8)
        self.text_encoder = TextEncoder(len(self.words), 8, 3, 1, 2, 12, 8, encoder_width=vision, mlm=False)
    def encode_video(self, x): return Seen(x)

def wild(vision=6, layers=2, seed=0):
    "A model whose weights are large."
    m,g = AnswerModel(Small(vision), layers).eval(),torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in m.parameters(): p.copy_(.4*torch.randn(p.shape, generator=g))
    return m

def films(n, seed=0, vision=6): return torch.randn(n, 3, vision, generator=torch.Generator().manual_seed(seed))


# ---- decoder

def test_decoder_keeps_its_contract(): check_decoder(AnswerDecoder)

@few
@given(st.integers(1, 7), st.data())
def test_nobody_sees_ahead(n, data):
    g = torch.Generator().manual_seed(n)
    m = AnswerDecoder(11, 8, 2, 2, 12, 9).eval()
    ids,states = torch.randint(11, (2,n), generator=g),torch.randn(2, 3, 8, generator=g)
    t = data.draw(st.integers(0, n-1))
    changed = ids.clone()
    changed[:,t] = (ids[:,t]+1) % 11
    mask = torch.ones(2, 3, dtype=torch.bool)
    gap = (m(changed, states, mask)-m(ids, states, mask)).abs().amax((0,2))
    assert gap[:t].max() == 0 if t else True
    assert gap[t] > 1e-6

@pytest.mark.parametrize('mlm', [True, False])
@pytest.mark.parametrize('vision', [6, 8])
def test_start_from_fusion(mlm, vision):
    encoder = TextEncoder(20, 8, 4, 2, 2, 12, 9, encoder_width=vision, mlm=mlm)
    decoder = AnswerDecoder(20, 8, 2, 2, 12, 9)
    report,found = start_from_fusion(decoder, encoder),decoder.state_dict()
    fresh = {k for k in found if k.startswith('cls.') and not mlm
             or vision != 8 and k.endswith(('crossattention.self.key.weight','crossattention.self.value.weight'))}
    assert set(report.untouched) == fresh and set(report.loaded) == set(found)-fresh
    source = {k if mlm else f'bert.{k}': v for k,v in encoder.state_dict().items()}
    for k in report.loaded:
        parts = k.split('.')
        if 'layer' in parts: parts[3] = str(int(parts[3])+2)
        test_tensor(found[k], source['.'.join(parts)])


# ---- likelihood and ranking

@few
@given(st.lists(st.sampled_from(LIST), min_size=1, max_size=5, unique=True), st.integers(1, 7), st.integers(1, 9),
       st.integers(0, 3))
def test_ranking_against_single_answers(answers, k, batch, seed):
    m,x = wild(seed=seed),films(3, seed)
    check_rank(lambda *a: rank_answers(*a, batch_size=batch), m, x, ASK, answers)
    a,b = (rank_answers(m, x, ASK, answers, k, first_twice=o) for o in (False, True))
    assert torch.equal(a.isfinite(), b.isfinite()) and (b[b.isfinite()] <= a[a.isfinite()]).all()

def test_likelihoods_of_all_texts_sum_to_one():
    "Every text of up to two words over a vocabulary of three, and those that go on."
    m = AnswerDecoder(3, 8, 1, 2, 12, 9).eval()
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in m.parameters(): p.copy_(.5*torch.randn(p.shape, generator=g))
    states,mask = torch.randn(1, 3, 8, generator=g),torch.ones(1, 3, dtype=torch.bool)
    Rows = namedtuple('Rows', 'ids mask')
    def chance(text): # 0 ends a text
        rows = Rows(torch.tensor([[1,*text]]), torch.ones(1, len(text)+1, dtype=torch.bool))
        return answer_likelihood(m(rows.ids, states, mask), rows).exp().item()
    ended = [(0,),*((a,0) for a in (1,2))]
    open_ = [(a,b) for a in (1,2) for b in (1,2)]
    assert sum(map(chance, ended))+sum(map(chance, open_)) == pytest.approx(1, abs=1e-5)

people = st.lists(st.sampled_from(LIST), min_size=1, max_size=6)

@few
@given(st.lists(people, min_size=1, max_size=3))
def test_loss_is_the_mean_over_people(given):
    "One term per person, all with the same weight, gives the same as different answers with their shares."
    m,x,n = wild(),films(3)[:len(given)],len(given)
    loss = answer_loss(m, x, ASK[:n], given)
    scores = rank_answers(m, x, ASK[:n], LIST)
    for i,told in enumerate(given):
        want = -np.mean([scores[i,LIST.index(o)].item() for o in told])
        assert loss[i].item() == pytest.approx(want, rel=1e-4)
    texts,owner,weight = answer_rows(given)
    assert [texts[j] for j in range(len(texts)) if owner[j] == 0] == list(Counter(given[0]))
    assert weight[owner == 0].sum().item() == pytest.approx(1)

def test_gradients_reach_all_parts():
    m = wild().train()
    answer_loss(m, films(3), ASK, ['one', ['two','red'], 'red two']).mean().backward()
    silent = [k for k,p in m.named_parameters() if p.grad is None]
    assert silent == []


# ---- accuracy

@few
@given(st.sampled_from(LIST), st.lists(st.sampled_from(LIST), min_size=2, max_size=7))
def test_soft_accuracy_over_all_subsets(said, told):
    subsets = list(combinations(told, len(told)-1))
    want = np.mean([min(1, o.count(said)/3) for o in subsets])
    assert soft_accuracy([said], [told])[0] == pytest.approx(want)
    assert exact_match([said], [told])[0] == (said in told)

class Asked:
    def __init__(self, rows): self.rows,self.x = rows,films(len(rows))
    def __len__(self): return len(self.rows)
    def __getitem__(self, i): return self.x[i],''

@few
@given(st.lists(st.tuples(st.sampled_from(ASK), people), min_size=1, max_size=5), st.integers(1, 4))
def test_a_quiz_in_batches(rows, batch):
    m,data = wild(),Asked([Row(*o) for o in rows])
    found = evaluate_answers(m, data, LIST[:4], batch, device='cpu')
    best = rank_answers(m, data.x, [q for q,_ in rows], LIST[:4]).argmax(1)
    assert found.predicted == [LIST[j] for j in best]
    assert found.exact.right == sum(p in a for p,(_,a) in zip(found.predicted, rows))
    assert found.outside == sum(not set(a) & set(LIST[:4]) for _,a in rows) and found.exact.chance == 1/4
    assert soft_accuracy(['one', 'one'], ['one', ['two']]).tolist() == [1, 0]

def test_what_cannot_be_asked():
    m = wild()
    with pytest.raises(ValueError, match='no question'): evaluate_answers(m, Asked([]), LIST)
    two = Asked([Row(ASK[0], 'one')])
    two.x = torch.zeros(1, 2, 3, 4, 4, 4)
    with pytest.raises(ValueError, match='one clip'): evaluate_answers(m, two, LIST)
