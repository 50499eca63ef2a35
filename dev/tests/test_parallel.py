"Two real processes end with the weights of one: shares, sums, errors and checkpoints, under torchrun."
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.distributed.is_available() or sys.platform == 'win32', reason='needs Gloo')
ROOT = Path(__file__).resolve().parents[2]

JOB = '''
import math, sys, warnings
from pathlib import Path
import torch
torch.set_num_threads(1)
from videomamba_nb.model import VideoMamba
from videomamba_nb.parallel import place
from videomamba_nb.train import TrainConfig, fit
from videomamba_nb.video import VideoError

class Noise:
    "Clips from (epoch, number); one may be unreadable, one may hold a broken number."
    classes = ('a', 'b', 'c')
    def __init__(self, n, hole=None, broken=None):
        self.samples,self.hole,self.broken,self.epoch = [(f'{i}.mp4', i % 3) for i in range(n)],hole,broken,0
    def __len__(self): return len(self.samples)
    def set_epoch(self, epoch): self.epoch = epoch
    def __getitem__(self, i):
        if i == self.hole: raise VideoError(f'{i}.mp4', 'the file is empty')
        x = torch.randn(3,2,8,8, generator=torch.Generator().manual_seed(100*self.epoch+i))
        return (x*math.nan if i == self.broken else x), i % 3

def model():
    torch.manual_seed(0)
    return VideoMamba(img_size=8, patch_size=4, depth=2, embed_dim=16, num_frames=2, num_classes=3, drop_path_rate=0.,
                      ssm_cfg=dict(d_state=2))

RECIPE = dict(epochs=2, batch_size=7, lr=1e-2, warmup_epochs=.5, mixup=.8, cutmix=1., smoothing=.1, clip_grad=.5,
              layer_decay=.75, ema=.5)
out,p = Path(sys.argv[1]),place()

def run(name, train, folder=None, **kw):
    "Train and note the weights and the history."
    m = model()
    rows = fit(m, train, Noise(11, hole=4), TrainConfig(**RECIPE | kw), folder, 'cpu', show=False)
    if p.first: torch.save(dict(weights=m.state_dict(), rows=rows), out/f'{name}-{p.world}.pt')

def score(name, views):
    "Evaluate views of videos, three each, that do not divide evenly."
    from videomamba_nb.evaluate import evaluate
    class Views(Noise):
        def __len__(self): return views
        def view(self, i): return i//3, i % 3, 0
        def __getitem__(self, i): return super().__getitem__(i)[0], i//3 % 3
    m = model()
    torch.nn.init.normal_(m.head.weight)
    r = evaluate(m, Views(9), batch_size=2, device='cpu')
    if p.first: torch.save(dict(paths=r.paths, probs=r.probs, labels=r.labels), out/f'{name}-{p.world}.pt')

class Unplugged(Noise):
    "Stops a process alone in the second epoch; many processes go on from there."
    def __getitem__(self, i):
        if p.world == 1 and self.epoch == 1: raise KeyboardInterrupt
        return super().__getitem__(i)

warnings.simplefilter('ignore')
try: run('resumed', Unplugged(23), out/'run')
except KeyboardInterrupt: pass
run('plain', Noise(23))
run('pieces', Noise(23), accumulate=2, workers=1)
run('hole', Noise(23, hole=3), mixup=0., cutmix=0.) # a missing clip shifts the mirrors of a share
run('short', Noise(3), batch_size=8)
score('uneven', 13)
score('one', 1)
try: run('broken', Noise(14, broken=6))
except FloatingPointError as e: (out/f'error-{p.world}-{p.rank}.txt').write_text(str(e))
'''

def start(folder, processes):
    "Run the job, alone or under torchrun."
    (folder/'job.py').write_text(JOB)
    many = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(processes)]
    line = [sys.executable, *(many if processes > 1 else []), str(folder/'job.py'), str(folder)]
    env = os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'TQDM_DISABLE': '1'}
    r = subprocess.run(line, env=env, capture_output=True, text=True, timeout=240)
    assert r.returncode == 0, r.stderr[-3000:]

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp('parallel')
    for n in (1, 2): start(d, n)
    return d

@pytest.mark.parametrize('name', ['plain', 'pieces', 'hole', 'short'])
def test_same_weights(folder, name):
    one,two = (torch.load(folder/f'{name}-{n}.pt', weights_only=True) for n in (1, 2))
    for k,w in one['weights'].items(): torch.testing.assert_close(two['weights'][k], w, rtol=1e-3, atol=2e-5, msg=k)
    for a,b in zip(one['rows'], two['rows'], strict=True):
        for k in a.keys()-{'seconds'}: assert b[k] == pytest.approx(a[k], rel=1e-3, abs=1e-5), k

def test_many_go_on_where_one_stopped(folder):
    one,two = (torch.load(folder/f'{n}.pt', weights_only=True) for n in ('plain-1', 'resumed-2'))
    for k,w in one['weights'].items(): torch.testing.assert_close(two['weights'][k], w, rtol=1e-3, atol=2e-5, msg=k)
    assert two['rows'][0]['train_loss'] == one['rows'][0]['train_loss'], 'epoch 1 was not done again'

def test_pieces_are_the_whole(folder):
    whole,cut = (torch.load(folder/f'{n}-1.pt', weights_only=True)['weights'] for n in ('plain', 'pieces'))
    for k,w in whole.items(): torch.testing.assert_close(cut[k], w, rtol=1e-3, atol=2e-5, msg=k)

def test_training_moved_the_weights(folder):
    "Else all of the above would hold for a loop that does nothing."
    a,b = (torch.load(folder/f'{n}-1.pt', weights_only=True)['weights'] for n in ('plain', 'short'))
    assert (a['head.weight']-b['head.weight']).abs().max() > 1e-2

@pytest.mark.parametrize('name,videos', [('uneven', 5), ('one', 1)])
def test_evaluation_counts_every_video_once(folder, name, videos):
    one,two = (torch.load(folder/f'{name}-{n}.pt', weights_only=True) for n in (1, 2))
    assert one['paths'] == two['paths'] and len(one['paths']) == videos
    assert torch.equal(one['labels'], two['labels']) and len(one['probs']) == videos
    torch.testing.assert_close(two['probs'], one['probs'], rtol=1e-4, atol=1e-6)
    assert videos == 1 or (one['probs'][0]-one['probs'][1]).abs().max() > 1e-3

def test_unreadable_clips_count_once(folder):
    for n in (1, 2):
        rows = torch.load(folder/f'hole-{n}.pt', weights_only=True)['rows']
        assert [r['unread'] for r in rows] == [1, 2], 'one in validation, and one in training where its turn came'

def test_all_processes_stop_and_name_the_files(folder):
    one = (folder/'error-1-0.txt').read_text()
    two = [(folder/f'error-2-{r}.txt').read_text() for r in (0, 1)]
    assert two[0] == two[1] and 'the loss is nan' in two[0]
    names = [set(o.split('the clips were ')[1].split(', ')) for o in (one, two[0])]
    assert names[0] == names[1] and '6.mp4' in names[0] and len(names[0]) == 7
