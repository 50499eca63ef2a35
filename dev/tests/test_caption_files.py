"Clips with sentences from outside: any list comes back, numbers mean what they say, no clip gets the words of another."
import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from videomamba_nb.caption_data import CaptionDataset
from videomamba_nb.caption_files import Captioned, number_rows, read_captions, rows_per_file, write_captions
from videomamba_nb.caption_rules import has_sides, mirrored_numbers, pick_frames, rate_frames, swap_sides
from videomamba_nb.data import denormalize, write_video
from videomamba_nb.loading import read_batches
from videomamba_nb.objective import Objective
from videomamba_nb.recipe import TrainConfig
from videomamba_nb.train import fit
from videomamba_nb.video import VideoError

some = settings(max_examples=25, deadline=None)
words = st.sampled_from('a cat dog turns left right now'.split())
sentence = st.lists(words, min_size=1, max_size=4).map(' '.join)
pairs = st.lists(st.tuples(st.sampled_from('abcdef'), st.lists(sentence, min_size=1, max_size=2)), min_size=1, max_size=12)


@pytest.fixture(scope='module')
def films(tmp_path_factory):
    "Eight films, each of a grey of its own, and a text that is called like a film."
    folder = tmp_path_factory.mktemp('films')
    for k in range(8):
        write_video(folder/f'{k}.mp4', np.full((6, 16, 20, 3), 30*k, np.uint8), qp='4', preset='ultrafast')
    (folder/'text.mp4').write_text('no film')
    return folder

def shown(x): return round(float(denormalize(x).mean())/30)

def rows_of(pairs): return [Captioned(p, tuple(said)) for p,said in pairs]


# ---- lists

@some
@given(st.lists(st.tuples(st.text('ab.', min_size=1), st.text('xy ,"\n\'', min_size=1).filter(str.strip)), min_size=1),
       st.sampled_from([',', '\t']), st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]), st.sampled_from(['\n', '\r\n']))
def test_what_csv_writes_is_read(tmp_path_factory, found, sep, quoting, end):
    out,path = io.StringIO(newline=''),tmp_path_factory.getbasetemp()/'list.txt'
    csv.writer(out, delimiter=sep, quoting=quoting, lineterminator=end).writerows([('file', 'text'), *found])
    path.write_bytes(out.getvalue().encode())
    assert [(r.path, r.captions) for r in read_captions(path, '')] == [(str(Path(p)), (o.strip(),)) for p,o in found]

@some
@given(st.lists(pairs, min_size=1, max_size=3), st.sampled_from(['csv', 'json', 'db']))
def test_several_lists(tmp_path_factory, lists, end):
    "Lists come back one behind the other, and rows have one number if and only if they have one file."
    folder = tmp_path_factory.getbasetemp()
    files = [write_captions(rows_of(o), folder/f'{i}.{end}', '.') for i,o in enumerate(lists)]
    rows = read_captions(files, [str(folder/f's{i % 2}') for i in range(len(files))])
    want = [(str(folder/f's{i % 2}'/p), said) for i,o in enumerate(lists) for p,said in o]
    if end != 'json': want = [(p, [o]) for p,said in want for o in said]
    assert [(r.path, list(r.captions)) for r in rows] == want
    assert all((a.idx == b.idx) == (a.path == b.path) for a in rows for b in rows)
    assert sum(len(r.captions) for r in rows_per_file(rows)) == sum(len(r.captions) for r in rows)

@some
@given(pairs)
def test_numbers_by_caption(found):
    "One number if and only if a chain of shared sentences leads from one row to the other."
    rows = number_rows(rows_of(found), 'caption')
    near = np.array([[bool(set(a.captions) & set(b.captions)) for b in rows] for a in rows])
    for _ in rows: near = near@near
    assert (near == [[a.idx == b.idx for b in rows] for a in rows]).all()
    seen = [r.idx for r in rows]
    assert sorted(set(seen)) == list(range(len(set(seen)))) and list(dict.fromkeys(seen)) == sorted(set(seen))

@some
@given(pairs, st.sampled_from(['file', 'caption', 'row']))
def test_mirrored_numbers(found, by):
    "A mirrored clip joins rows that say what it shows, or is alone; and mirrored twice it is what it was."
    rows = number_rows(rows_of(found), by)
    other,top = mirrored_numbers(rows),len({r.idx for r in rows})
    for r in rows:
        assert (r.idx in other) == any(has_sides(o) for q in rows if q.idx == r.idx for o in q.captions)
        if r.idx not in other: continue
        if other[r.idx] >= top: assert other[r.idx] == top+r.idx
        else:
            said = {swap_sides(o) for q in rows if q.idx == r.idx for o in q.captions if has_sides(o)}
            assert said & {o for q in rows if q.idx == other[r.idx] for o in q.captions}


# ---- frames

@some
@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 999), st.booleans())
def test_frames(n, m, seed, skip):
    a,b = (pick_frames(n, m, np.random.default_rng(seed), skip) for _ in range(2))
    middle = pick_frames(n, m, None, skip)
    assert (a == b).all() and all(len(o) == m and o[0] >= 0 and o[-1] < n and (np.diff(o) >= 0).all() for o in (a, middle))
    k = min(n, m)
    edge = np.linspace(0, n, k+1).astype(int)
    assert middle[:k].tolist() == [(lo+hi-1)//2 for lo,hi in zip(edge, edge[1:])]
    if not skip: assert all(lo <= i < hi for i,lo,hi in zip(a, edge, edge[1:]))
    elif (np.diff(edge) > 1).all(): assert all(lo <= i < hi-1 for i,lo,hi in zip(a, edge, edge[1:]))
    assert len(set(a[:k].tolist())) == k and (a[k:] == a[k-1]).all()

@some
@given(st.integers(1, 2000), st.integers(1, 20), st.sampled_from([10, 23.976, 25, 30]), st.sampled_from([.5, 1, 2, 4.]))
def test_rate(n, m, fps, rate):
    "As many steps of time as fit, each by its middle."
    step = 1/rate
    official = [round(o*fps) for o in np.arange(step/2, n/fps+step/2, step)]
    official = [o for o in official if o < n][:m] or [n-1]
    found = rate_frames(n, m, fps, rate).tolist()
    assert found == official+official[-1:]*(m-len(official))


# ---- clips with their own words

@some
@given(st.data(), st.sampled_from(['val', 'train']), st.sampled_from(['keep', 'swap', False]), st.integers(0, 3))
def test_no_clip_gets_the_words_of_another(films, data, mode, flip, epoch):
    "Whatever is broken, wherever it stands, in whatever order it is read."
    kinds = data.draw(st.lists(st.sampled_from([*range(8), 'text', 'gone']), min_size=1, max_size=10))
    rows = [Captioned(str(films/f'{o}.mp4'), (f'film {o} left', f'film {o} too'), 100+i) for i,o in enumerate(kinds)]
    ds = CaptionDataset(rows, 2, 12, mode, flip)
    ds.set_epoch(epoch)
    order = data.draw(st.permutations(range(len(rows))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    batches = [order[a:b] for a,b in zip([0, *cuts], [*cuts, len(rows)]) if a < b]
    seen,numbered = [],ds.numbered(7)
    for batch,b in zip(batches, read_batches(numbered, batches)):
        broken = [i for i in batch if not isinstance(kinds[i], int)]
        assert b.lost == len(broken) and set(b.unread) == {rows[i].path for i in broken}
        if b.x is None: continue
        said,idx = numbered.look_up(b.y)
        assert [o.split()[1] for o in said] == [str(shown(x)) for x in b.x] == [Path(o).stem for o in b.read]
        for i,x,o,k in zip(b.y.tolist(), b.x, said, idx.tolist()):
            clip,caption,number = ds[i-7]
            assert torch.equal(clip, x) and (caption, number) == (o, k)
            if mode == 'val': assert (o, k) == (rows[i-7].captions[0], rows[i-7].idx)
            assert ('right' in o) <= ds.mirrored(i-7) <= (flip == 'swap' and mode == 'train')
            assert k == rows[i-7].idx + ds.mirrored(i-7)*(100+len(rows))
        seen += [i-7 for i in b.y.tolist()]
    assert sorted(seen) == [i for i,o in enumerate(kinds) if isinstance(o, int)]
    for i,o in enumerate(kinds):
        if isinstance(o, int): continue
        with pytest.raises(VideoError, match=f'{o}.mp4'): ds[i]

def test_a_new_data_set_goes_on_with_the_same_draws(films):
    rows = [Captioned(str(films/f'{k % 4}.mp4'), ('turns left', 'sits', 'turns right'), k % 4) for k in range(8)]
    def make(): return CaptionDataset(rows, 3, 12, 'train', 'swap')
    old = make()
    items = {}
    for e in range(4):
        old.set_epoch(e)
        items[e] = [old[i] for i in range(8)]
        assert all(old.mirrored(i) == old.mirrored(i+4) for i in range(4)) # rows of one file turn together
    new = make()
    for e in (3, 1):
        new.set_epoch(e)
        for i in (5, 0, 7):
            assert torch.equal(new[i][0], items[e][i][0]) and new[i][1:] == items[e][i][1:]
    assert len({o[1:] for e in items for o in items[e]}) > 8


class Says(Objective):
    "The grey of a film against the number in its sentence: wrong words would be a large error."
    metric,sign = 'error',-1
    def __init__(self, *data): self.data = data
    def __repr__(self): return 'Says()'
    def __call__(self, model, x, y, rng=None):
        data = next(o for o in reversed(self.data) if int(y[0]) >= o.start)
        said,idx = data.look_up(y)
        want = torch.tensor([float(o.split()[1]) for o in said])
        assert idx.tolist() == want.long().tolist()
        error = (model(x)[:,0]-want)**2
        return error,error.detach()

class Grey(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(1, 1)
    def forward(self, x): return self.line(x.mean((1, 2, 3, 4))[:,None])

def test_fit_trains_on_pairs(films):
    "A training by row numbers, with files that cannot be read; the words of train and valid are told apart."
    def make(kinds, start):
        rows = [Captioned(str(films/f'{o}.mp4'), (f'film {n}',), n) for n,o in enumerate(kinds)]
        return CaptionDataset(rows, 2, 8).numbered(start)
    train,valid = make([0, 1, 2, 'text', 4, 5, 'gone', 7], 0),make([0, 1, 2, 3, 'gone'], 8)
    torch.manual_seed(0)
    config = TrainConfig(epochs=12, batch_size=4, lr=.6, warmup_epochs=0, unread=.5, weight_decay=0., seed=1)
    with pytest.warns(UserWarning, match='could not be read'):
        history = fit(Grey(), train, valid, config, show=False, objective=Says(train, valid), device='cpu')
    assert {o['unread'] for o in history} == {3}
    assert history[-1]['train_error'] < 1 and history[-1]['valid_error'] < 1
