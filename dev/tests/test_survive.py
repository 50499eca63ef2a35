"What a training lives through: a full disk, a dying reader, broken and unreadable clips. Kills are in test_resume.py."
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from videomamba_nb.model import VideoMamba
from videomamba_nb.saving import read_run
from videomamba_nb.train import TrainConfig, fit
from videomamba_nb.video import VideoError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = dict(epochs=3, batch_size=6, lr=1e-2, mixup=.8, smoothing=.1, ema=.9, seed=1)


class Noise:
    "Clips from (epoch, number)."
    classes,epoch = ('a', 'b', 'c'),0
    samples = [(f'{i}.mp4', i % 3) for i in range(24)]
    def __len__(self): return len(self.samples)
    def set_epoch(self, epoch): self.epoch = epoch
    def __getitem__(self, i):
        return torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(100*self.epoch+i)), i % 3

def small():
    torch.manual_seed(0)
    return VideoMamba(img_size=8, patch_size=4, depth=2, embed_dim=16, num_frames=2, num_classes=3, drop_path_rate=.2,
                      ssm_cfg=dict(d_state=2))

def train(data=None, folder=None, **kw):
    m = small()
    rows = fit(m, data or Noise(), Noise(), TrainConfig(**CONFIG | kw), folder, 'cpu', show=False)
    return m.state_dict(), rows

@pytest.fixture(scope='module')
def calm(): return train()[0]

def same(a, b):
    for k in a: assert torch.equal(a[k], b[k]), k


def test_averaged_weights_survive_a_stop(tmp_path, calm):
    class Unplugged(Noise):
        def __getitem__(self, i):
            if self.epoch == 2 and i == 7: raise KeyboardInterrupt
            return super().__getitem__(i)
    with pytest.raises(KeyboardInterrupt, match='2 epochs are safe'): train(Unplugged(), tmp_path/'run')
    same(train(Noise(), tmp_path/'run')[0], calm)

def test_best_file_holds_the_averaged_weights(tmp_path):
    from safetensors.torch import load_file
    weights,_ = train(Noise(), tmp_path/'run', epochs=1)
    same(weights, load_file(tmp_path/'run'/'best.safetensors'))
    last = torch.load(tmp_path/'run'/'last.pt', weights_only=True)['model']
    assert (last['head.weight']-weights['head.weight']).abs().max() > 1e-4

class Shot(Noise):
    "Kills the process that reads clip 7 of epoch 1, once."
    def __init__(self, mark): self.mark = mark
    def __getitem__(self, i):
        if self.epoch == 1 and i == 7 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(i)

@pytest.mark.skipif(sys.platform == 'win32', reason='needs SIGKILL')
def test_a_dying_reader_changes_no_bit(tmp_path, calm):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        weights,_ = train(Shot(tmp_path/'shot'), workers=1)
    assert (tmp_path/'shot').exists() and any('reading on with new ones' in str(o.message) for o in said)
    same(weights, calm)

DISK = '''
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from test_survive import Noise, train
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def fill(self, epoch):
    "From epoch 1 on no file may grow beyond 20 kB: writing fails as on a full disk."
    self.epoch = epoch
    if epoch == 1: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
Noise.set_epoch = fill
try: train(Noise(), sys.argv[1])
except OSError as e: print(e)
'''

@pytest.mark.skipif(sys.platform == 'win32', reason='needs resource limits')
def test_full_disk(tmp_path, calm):
    run = tmp_path/'run'
    env = os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    line = [sys.executable, '-c', DISK, str(run), str(Path(__file__).parent)]
    r = subprocess.run(line, env=env, capture_output=True, text=True, timeout=120)
    assert 'the checkpoint before it is kept; make room on the disk' in r.stdout, r.stderr[-2000:]
    assert len(read_run(run)['history']) == 1 and not list(run.glob('.*.tmp'))
    same(train(Noise(), run)[0], calm)

def test_unreadable_clips_keep_their_neighbours_labels():
    seen = {}
    class Holes(Noise):
        def __getitem__(self, i):
            if i in (3, 10): raise VideoError(f'{i}.mp4', 'moov atom not found')
            seen[i] = super().__getitem__(i)[1]
            return super().__getitem__(i)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        _,rows = train(Holes(), epochs=1)
    assert rows[0]['unread'] == 2 and seen == {i: i % 3 for i in range(24) if i not in (3, 10)}
    text, = (str(o.message) for o in said if 'could not be read' in str(o.message))
    assert '2 of 24' in text and '3.mp4 (moov atom not found)' in text and '10.mp4' in text

def test_too_many_unreadable_clips_stop(tmp_path):
    class Gone(Noise):
        def __getitem__(self, i): raise VideoError(f'{i}.mp4', 'no such file')
    with pytest.raises(ValueError, match='24 of 24 clips.*look at the paths'): train(Gone(), tmp_path/'run')
    assert not list((tmp_path/'run').glob('*.pt'))

def test_a_broken_number_keeps_the_last_good_checkpoint(tmp_path, calm):
    class Broken(Noise):
        def __getitem__(self, i):
            x,y = super().__getitem__(i)
            return (x*float('nan') if (self.epoch, i) == (2, 5) else x), y
    with pytest.raises(FloatingPointError, match=r'step \d of epoch 3; the clips were .*5.mp4'):
        train(Broken(), tmp_path/'run')
    assert len(read_run(tmp_path/'run')['history']) == 2
    same(train(Noise(), tmp_path/'run')[0], calm)

def test_copies_of_a_clip_are_trained_on_and_named():
    class Twice(Noise):
        copies,bad = 2,None
        def __getitem__(self, i):
            x,y = super().__getitem__(i)
            return torch.stack([x, -x]), 7 if i == self.bad else y
    once,twice = (train(o(), epochs=1, mixup=0.)[0] for o in (Noise, Twice))
    assert (once['head.weight']-twice['head.weight']).abs().max() > 1e-4
    wrong = Twice()
    wrong.bad = 5
    with pytest.raises(ValueError, match='^5.mp4 has label 7'): train(wrong, epochs=1)

def test_windows_of_one_bad_film_all_count():
    class Windows(Noise):
        samples = [(f'{i//6}.mp4', i % 3) for i in range(24)]
        def __getitem__(self, i):
            if i in (0, 1): raise VideoError('0.mp4', 'is cut off')
            return super().__getitem__(i)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        _,rows = train(Windows(), epochs=1)
    assert rows[0]['unread'] == 2 and any('2 of 24 clips' in str(o.message) for o in said)
