"Pairs on two processes and in pieces: the numbers of one process with the whole batch. And how a run is started."
import json
import os
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videomamba_nb.parallel import Place
from videomamba_nb.scale import list_pair_recipes
from videomamba_nb.shards import Shard, deal, epoch_plan

pytestmark = pytest.mark.skipif(not torch.distributed.is_available() or sys.platform == 'win32', reason='needs Gloo')
ROOT = Path(__file__).resolve().parents[2]

JOB = '''
import sys, warnings
from pathlib import Path
import numpy as np, torch
from videomamba_nb.pair_train import Pairs
from videomamba_nb.parallel import add_up, collect, gather_rows, join, pair_split, place
from videomamba_nb.recipe import TrainConfig
from videomamba_nb.step import Run, gradient
from videomamba_nb.train import fit
from videomamba_nb.video import VideoError
from videomamba_nb.videotext import CONFIGS, VideoText
from videomamba_nb.words import Words

CAPTIONS = ['a red one', 'a blue two', 'green', 'A red one.', 'three of them', 'four'] # two are the same
WORDS = Words.learn(CAPTIONS)
out,p = Path(sys.argv[1]),place()

class Noise:
    "Clips from (epoch, number); one may be unreadable."
    classes = tuple(CAPTIONS)
    def __init__(self, n, hole=None): self.samples,self.hole,self.epoch = [(f'{i}.mp4', i % 6) for i in range(n)],hole,0
    def __len__(self): return len(self.samples)
    def set_epoch(self, epoch): self.epoch = epoch
    def __getitem__(self, i):
        if i == self.hole: raise VideoError(f'{i}.mp4', 'the file is empty')
        return torch.randn(3,2,8,8, generator=torch.Generator().manual_seed(100*self.epoch+i)).double(), i % 6

def model(double=True, **kw):
    torch.manual_seed(0)
    sizes = dict(num_frames=2, img_size=8, patch_size=4, depth=2, embed_dim=16, ssm_cfg=dict(d_state=2))
    text = dict(hidden_size=16, intermediate_size=32)
    m = VideoText(CONFIGS['toy'].change(vision=sizes, text=text, width=8, temp=.2, **kw), WORDS)
    return m.double() if double else m

def pairs(**kw): return Pairs(CAPTIONS, WORDS, **dict(weights=dict(vtc=1.)) | kw)

def step(name, n=7, double=True, scale=1., objective=None, **kw):
    "The gradient of one batch, whatever it is cut into."
    data,m = Noise(n),model(double, vtc_grad_scale=scale)
    run = Run(m, TrainConfig(batch_size=n, **kw), objective or pairs(), torch.device('cpu'))
    mine = pair_split(n, p.world)[p.rank]
    x,y = map(torch.stack, zip(*((data[i][0], torch.tensor(i % 6)) for i in mine))) if mine else (torch.empty(0),)*2
    sums = gradient(run, x if double else x.float(), y, (1,2))
    found = {k: o.grad for k,o in m.named_parameters() if o.grad is not None}
    if p.first: torch.save(dict(grads=found, sums=sums), out/f'{name}-{p.world}.pt')

def run(name, train, valid=9, objective=None, **kw):
    "Train and note the weights and the history."
    m = model()
    config = TrainConfig(**dict(epochs=2, batch_size=7, lr=1e-2, unread=.5) | kw)
    rows = fit(m, train, Noise(valid, hole=4), config, None, 'cpu', show=False, objective=objective or pairs())
    if p.first: torch.save(dict(weights=m.state_dict(), rows=rows), out/f'{name}-{p.world}.pt')

def local(x):
    "As officially: the rows of all, with the own ones alone under the gradient."
    sizes,every = collect(len(x)),gather_rows(x.detach())
    at = sum(sizes[:p.rank])
    return torch.cat([every[:at], x, every[at+len(x):]])

def official():
    "The official gradient of the encoders: each process has the loss of all pairs, and processes take the mean."
    data,m,n = Noise(7),model(),7
    mine = pair_split(n, p.world)[p.rank]
    x,idx = torch.stack([data[i][0] for i in mine]),torch.tensor([data[i][1] for i in mine])
    v,t = m.encode_video(x).feature,m.encode_text([CAPTIONS[i] for i in idx]).feature
    v,t,every = local(v),local(t),gather_rows(pairs().about[idx])
    video,text = (type('F', (), dict(feature=o)) for o in (v, t))
    m.contrast(video, text, every).mean().backward()
    found = {k: add_up(o.grad)/p.world for k,o in m.named_parameters() if o.grad is not None}
    if p.first: torch.save(found, out/f'official-{p.world}.pt')

warnings.simplefilter('ignore')
torch.set_num_threads(1)
join(torch.device('cpu'))
step('whole')
step('pieces', accumulate=3)
step('one', n=1)
step('lonely pieces', n=1, accumulate=2)
step('half', double=False, amp='bf16')
step('float', double=False)
step('scaled', scale=1/p.world)
step('alone', objective=pairs(gather=None))
step('small', objective=pairs(cached=False), accumulate=3)
run('plain', Noise(23))
run('cached', Noise(23), accumulate=2)
run('hole', Noise(17, hole=3), valid=6)
run('short', Noise(3), valid=1)
run('all', Noise(9), objective=pairs(weights=None, mask='random', grid=(2,2,2)), accumulate=2) # must not hang
try: run('broken', Noise(9), objective=pairs(weights=dict(vtc=float('nan'))))
except FloatingPointError as e: (out/f'error-{p.world}-{p.rank}.txt').write_text(str(e))
official()
'''

TORCHRUN = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']
ACCELERATE = ['-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', '2', '--num_machines', '1',
              '--mixed_precision', 'no', '--dynamo_backend', 'no', '--main_process_port', '0']

def start(*line):
    env = os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'TQDM_DISABLE': '1', 'CUDA_VISIBLE_DEVICES': ''}
    r = subprocess.run([sys.executable, *map(str, line)], env=env, capture_output=True, text=True, timeout=240)
    assert r.returncode == 0, r.stderr[-3000:]

def here(script, *args):
    "Run a script as one process, without a start."
    with pytest.MonkeyPatch.context() as m:
        m.setattr(sys, 'argv', [str(script), *map(str, args)])
        runpy.run_path(str(script), run_name='__main__')

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "All numbers of one process and of two, which accelerate starts."
    pytest.importorskip('accelerate')
    d = tmp_path_factory.mktemp('scale')
    (d/'job.py').write_text(JOB)
    here(d/'job.py', d)
    start(*ACCELERATE, d/'job.py', d)
    return d

def load(folder, name, world): return torch.load(folder/f'{name}-{world}.pt', weights_only=True)

def same(a, b, **kw):
    kw = dict(rtol=1e-6, atol=1e-9) | kw
    assert a.keys() == b.keys()
    for k,o in a.items(): torch.testing.assert_close(b[k], o, msg=lambda m, k=k: f'{k}: {m}', **kw)

@pytest.mark.parametrize('name', ['whole', 'pieces', 'one', 'lonely pieces'])
def test_gradient_of_two_processes(folder, name):
    one,two = (load(folder, name, n) for n in (1, 2))
    same(one['grads'], two['grads'])
    torch.testing.assert_close(one['sums'], two['sums'])

def test_pieces_have_the_gradient_of_the_whole(folder):
    for world in (1, 2): same(load(folder, 'whole', 1)['grads'], load(folder, 'pieces', world)['grads'])

def test_smaller_comparisons_are_another_loss(folder):
    "Else the tests above would hold for a loss without neighbours."
    whole = load(folder, 'whole', 1)['sums'][0]
    for name,world in (('alone', 2), ('small', 1), ('small', 2)): assert load(folder, name, world)['sums'][0] < .9*whole
    assert load(folder, 'alone', 1)['sums'][0] == whole

def test_official_gradient_is_a_share(folder):
    "On two processes the official gradient of the encoders is half of the true one; `vtc_grad_scale` says it, too."
    whole = load(folder, 'whole', 1)['grads']
    same(whole, load(folder, 'official', 1))
    two,scaled = load(folder, 'official', 2),load(folder, 'scaled', 2)['grads']
    for k,o in whole.items():
        part = 1 if k == 'temp' else 2
        torch.testing.assert_close(two[k]*part, o, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(scaled[k]*part, o, rtol=1e-6, atol=1e-9)

def test_half_precision_has_whole_weights(folder):
    full,half = (load(folder, k, 2)['grads'] for k in ('float', 'half'))
    assert {o.dtype for o in half.values()} == {torch.float32}
    flat = [torch.cat([o.flatten() for o in d.values()]) for d in (full, half)]
    assert 1e-4 < (flat[0]-flat[1]).norm()/flat[0].norm() < .1

@pytest.mark.parametrize('name', ['plain', 'cached', 'hole', 'short'])
def test_weights_and_history(folder, name):
    one,two = (load(folder, name, n) for n in (1, 2))
    same(one['weights'], two['weights'], rtol=1e-4, atol=1e-7)
    for a,b in zip(one['rows'], two['rows'], strict=True):
        for k in a.keys()-{'seconds'}: assert b[k] == pytest.approx(a[k], rel=1e-5), k

def test_training_with_all_losses_moves(folder):
    a,b = (load(folder, k, 2)['weights']['text_proj.weight'] for k in ('all', 'short'))
    assert (a-b).abs().max() > 1e-3

def test_all_processes_stop_at_nan(folder):
    told = [(folder/f'error-2-{r}.txt').read_text() for r in (0, 1)]
    assert told[0] == told[1] and 'the loss is nan' in told[0]

def test_torchrun_starts_the_script(tmp_path):
    "The script of the page, small: two processes say what one says."
    small = ['--data', tmp_path/'clips', '--clips', 12, '--epochs', 0, 1, '--batch', 4, '--losses', 'vtc', '--device', 'cpu']
    script = ROOT/'dev'/'experiments'/'pairs_two.py'
    found = []
    for how,name in ((here, 'one'), (partial(start, *TORCHRUN), 'two')):
        how(script, '--out', tmp_path/name, *small)
        found.append(json.loads((tmp_path/name/'pairs.json').read_text()))
    one,two = (o['found']['unmasked'][0] for o in found)
    assert [o['world'] for o in found] == [1, 2]
    for k in one.keys()-{'seconds'}: assert two[k] == pytest.approx(one[k], rel=1e-3, abs=1e-5), k

def test_the_recipes_are_the_published_ones():
    "Every number of the table, once more by hand."
    rows = {o.name: o for o in list_pair_recipes()}
    assert [*rows] == [f'{c}-{s}' for c in ('5M', '17M', '25M') for s in ('masked', 'unmasked')]
    for name,r in rows.items():
        corpus,stage = name.split('-')
        masked = stage == 'masked'
        assert (r.corpus, r.stage, r.gpus) == (corpus, stage, 16 if corpus == '5M' else 32)
        assert (r.epochs, r.warmup_epochs, r.lr, r.batch) == ((10, 1., 4e-4, 128) if masked else (1, .2, 8e-5, 64))
        assert (r.betas, r.weight_decay, r.clip_grad, r.drop_path, r.floor) == ((.9, .999), .05, None, .25, .01)
        assert (r.frames, r.size, r.text, r.precision) == (8, 224, 32, 'bf16')
        assert (r.mask, r.mask_video, r.mask_image) == (('attention', .8, .5) if masked else (None, None, None))
        assert (r.uta, r.vtc, r.vtm, r.mlm, r.teacher) == (float(masked), 1., 1., 1., 'clip_b16' if masked else None)
        between = f'videomamba_m16_{corpus}_masked_pt_f8_res224'
        last = f'videomamba_m16_{corpus}_f8_res224'
        assert (r.init, r.weights) == (('videomamba_m16_k400_mask_pt_f8_res224', between) if masked else (between, last))
        assert r.videos == ('WebVid-10M' if corpus == '25M' else 'WebVid-2.5M')
        assert r.images == ('CC3M' if corpus == '5M' else 'CC3M COCO VG SBU CC12M')
        assert bool(r.note) == (corpus == '25M')
    assert [rows[f'{c}-{s}'].total for c in ('5M', '25M') for s in ('masked', 'unmasked')] == [2048, 1024, 4096, 2048]

counts = st.lists(st.tuples(st.sampled_from(['video', 'image']), st.integers(0, 9)), min_size=1, max_size=9)

@settings(max_examples=60, deadline=None)
@given(counts, st.integers(1, 5), st.integers(1, 5), st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_every_clip_is_dealt_once(counts, batch, world, seed):
    shards = [Shard(f'{i}.tar', media, n) for i,(media,n) in enumerate(counts)]
    turns,kinds = epoch_plan(shards, batch, seed, world)
    for media in ('video', 'image'):
        parts = [deal(kinds[media], Place(r, world)) for r in range(world)]
        own = [[(o.path, i) for o,a,b in part for i in range(a, o.n, b)] for part in parts]
        every = [(o.path, i) for o in shards if o.media == media for i in range(o.n)]
        assert sorted(sum(own, [])) == sorted(every)
        assert turns.count(media) == -(-max(map(len, own))//batch), 'as many steps as the fullest part needs'
