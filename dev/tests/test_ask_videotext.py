"Retrieval, prompts, choices and answers asked of a real, untrained VideoText: one number by every way that leads to it."
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F

from videomamba_nb.answers import AnswerModel, answer_loss, check_rank, rank_answers
from videomamba_nb.caption_data import CaptionDataset
from videomamba_nb.caption_files import Captioned
from videomamba_nb.captions import CAPTIONS, captioned_digits, unseen_scene
from videomamba_nb.data import VideoDataset
from videomamba_nb.films import films_of
from videomamba_nb.question_files import Choice, Question
from videomamba_nb.quiz import evaluate_answers
from videomamba_nb.ranking import ranks
from videomamba_nb.retrieval import encode_all, evaluate_retrieval, rerank
from videomamba_nb.videotext import VideoText
from videomamba_nb.words import Words
from videomamba_nb.zero_shot import PromptClassifier, choice_scores, choose, match_probs, reverse_captions, reverse_test

TOLD = ['a seven moves left', 'a one grows', 'the red five turns right then it grows']
Row = namedtuple('Row', 'path captions question answer answers')

class Films:
    "Three clips of noise."
    def __init__(self, clips=1, answers=()):
        g = torch.Generator().manual_seed(0)
        self.x = torch.randn(3, clips, 3, 8, 32, 32, generator=g)
        self.rows = [Row(f'{i}.mp4', (o,), 'which digit moves', 0, answers) for i,o in enumerate(TOLD)]
    def __len__(self): return 3
    def __getitem__(self, i): return self.x[i] if self.x.shape[1] > 1 else self.x[i,0],'',0

@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    told = [*TOLD, *map(reverse_captions, TOLD), 'which digit moves', 'a video of', *CAPTIONS]
    m = VideoText('toy', Words.learn(told)).eval()
    with torch.no_grad():
        for p in (*m.vision_proj.parameters(), *m.text_encoder.parameters()): p.mul_(4) # so that pairs differ
    return m

@torch.no_grad()
def test_both_scores(model):
    data = Films()
    e = encode_all(model, data, 2, 1, device='cpu')
    video,text = model.encode_video(data.x[:,0]),model.encode_text(TOLD)
    cos = [F.cosine_similarity(v[None], text.feature[:,None], dim=2).mean(1) for v in video.feature]
    sim = torch.stack(cos)
    assert (e.scores()-sim).abs().max() < 1e-4 and sim.std() > 1e-4
    a,b = rerank(model, e.videos, e.sentences, sim, 2, device='cpu')
    for i in range(3):
        for j in range(3):
            want = model.match(video.pick([i]), text.pick([j])).item()
            for o in (a[i,j], b[j,i]): assert o == -100 or o.item() == pytest.approx(want, abs=1e-3)
    assert ((a > -100).sum(1) == 2).all() and ((b > -100).sum(1) == 2).all()
    found = evaluate_retrieval(model, data, k=2, device='cpu')
    assert found['dual'].t2v.ranks.tolist() == ranks(sim.T, torch.eye(3).bool()).tolist()
    assert found['re-ranked'].v2t.ranks.tolist() == ranks(a, torch.eye(3).bool()).tolist()

@torch.no_grad()
def test_several_clips(model):
    many = encode_all(model, Films(2), device='cpu')
    assert many.m == 2 and many.scores('max').shape == (3, 3)
    assert (many.scores('max') >= many.scores()-1e-6).all()
    for how in ('mean','max'): evaluate_retrieval(model, Films(2), k=2, clips=how, device='cpu')

@torch.no_grad()
def test_sentences_for_classes(model):
    data,names = Films(),['seven', 'one']
    p = PromptClassifier(model, names, ['a {}'])(data.x[:,0])
    video,text = model.encode_video(data.x[:,0]),model.encode_text(['a seven', 'a one'])
    want = torch.einsum('vpr,sr->vs', video.feature, text.feature)/8/model.temp
    assert (p-want).abs().max() < 1e-3
    with pytest.warns(UserWarning, match='never read 1 of these words: zebra'): PromptClassifier(model, ['zebra'], ['a {}'])
    for score in ('dual','match'):
        share = reverse_test(model, data, score, 2, device='cpu')
        assert (share.n,share.left_out) == (3,0) and 0 <= share.right <= 3
    scores = choice_scores(model, video.pick([1]), TOLD)
    yes = model.match_logits(video.pick([1]*3), model.encode_text(TOLD)).softmax(1)[:,1]
    assert (match_probs(model, video.pick([1]*3), model.encode_text(TOLD))-yes).abs().max() < 1e-6
    cos = torch.einsum('pr,sr->s', video.feature[1], model.encode_text(TOLD).feature)/8
    assert (scores-(.7*yes+.3*(cos/model.temp).softmax(0))).abs().max() < 1e-4
    asked = Films(2)
    asked.rows = [r._replace(captions=tuple(TOLD), answer=i) for i,r in enumerate(asked.rows)]
    found,each = choose(model, asked, device='cpu')
    assert found.n == 3 and [o.shape for o in each] == [(3,)]*3

@torch.no_grad()
def test_captioned_digits(model, tmp_path):
    "A data set of files whose classes are sentences, with two views per film."
    data = captioned_digits('valid', tmp_path, n=6, mode='test', num_clips=2)
    films = films_of(data)
    assert [f.captions for f in films] == [[CAPTIONS[y]] for _,y in data.samples] and films[2].at == [4, 5]
    e = encode_all(model, data, 4, device='cpu')
    assert (e.m,len(e.names)) == (2,6) and e.texts == list(dict.fromkeys(f.captions[0] for f in films))
    one = model.encode_video(torch.stack([data[i][0] for i in films[2].at]))
    assert (e.videos.feature[4:6]-one.feature).abs().max() < 1e-4
    assert set(evaluate_retrieval(model, data, k=3, device='cpu')) == {'dual','re-ranked'}
    assert reverse_test(model, data, device='cpu').n == 6
    for o in CAPTIONS: assert reverse_captions(reverse_captions(o)) == o

@torch.no_grad()
def test_lists_of_captions_choices_and_questions(model, tmp_path):
    "What the lists of the package hold can be asked as it is."
    paths = [str(unseen_scene(tmp_path/f'{i}.mp4', CAPTIONS[40*i], i)) for i in range(3)]
    told = [(CAPTIONS[0],), (CAPTIONS[40], 'a seven'), (CAPTIONS[80],)]
    rows = [Captioned(p, c, i) for i,(p,c) in enumerate(zip(paths, told))]
    data = CaptionDataset(rows+[Captioned(paths[0], ('a one',), 0)], 8, 32)
    films = films_of(data)
    assert [len(f.captions) for f in films] == [2, 2, 1] and [f.at for f in films] == [[0], [1], [2]]
    found = evaluate_retrieval(model, data, k=2, device='cpu')
    assert [len(o.ranks) for o in (found['dual'].t2v, found['dual'].v2t)] == [5, 3]
    clips = VideoDataset([(p, i) for i,p in enumerate(paths)], 8, 32, 'val')
    clips.rows = [Choice(p, (CAPTIONS[0], CAPTIONS[40], CAPTIONS[80]), i) for i,p in enumerate(paths)]
    assert choose(model, clips, device='cpu')[0].n == 3
    clips.rows = [Question(p, 'which digit moves', ('seven', 'one', 'seven'), i) for i,p in enumerate(paths)]
    found = evaluate_answers(AnswerModel(model, 1), clips, ['seven', 'one'], device='cpu')
    worth = {'seven': 4/9, 'one': 2/9} # two of three people, one of three
    assert found.outside == 0 and found.soft.tolist() == pytest.approx([worth[o] for o in found.predicted])

def test_answers(model):
    m,data = AnswerModel(model, 2),Films(answers=('seven',))
    assert AnswerModel(model, 1).report.untouched == [], 'film and text are equally wide: all fits'
    assert all('layer.0.crossattention.' in o for o in m.report.untouched) and len(m.report.untouched) == 10
    loss = answer_loss(m.train(), data.x[:,0], ['which digit moves']*3, ['seven', ['one','one','five'], 'a red seven'])
    loss.mean().backward()
    for part in (m.decoder, model.vision_encoder.layers, model.text_encoder.bert.encoder):
        assert all(p.grad is not None for p in part.parameters())
    m.zero_grad()
    answers = ['seven', 'one', 'a red seven']
    check_rank(rank_answers, m.eval(), data.x[:,0], ['which digit moves']*3, answers)
    found = evaluate_answers(m, data, answers, device='cpu')
    assert len(found.predicted) == 3 and found.outside == 0
