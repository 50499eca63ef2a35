"Kill a training with signal 9 at the worst moments; resumed, it must end with the same bits as one left alone."
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]

CHILD = '''
import io, os, sys, time
import numpy as np
import torch
torch.set_num_threads(1)
from videomamba_nb.model import VideoMamba
from videomamba_nb.train import TrainConfig, fit

class Noise:
    classes = ('a', 'b', 'c')
    samples = [(f'{i}.mp4', i % 3) for i in range(24)]
    epoch = 0
    def __len__(self): return 24
    def set_epoch(self, epoch): self.epoch = epoch
    def __getitem__(self, i):
        if moment == 'epoch' and self.epoch == when and i == 5: wait()
        rng = np.random.default_rng([self.epoch, i])
        return torch.tensor(rng.normal(i % 3, 1, (3,2,8,8)), dtype=torch.float32), i % 3

def wait():
    print('here', flush=True)
    time.sleep(120)

folder, moment, when = sys.argv[1], sys.argv[2], int(sys.argv[3])
save, replace = torch.save, os.replace
def half_save(state, path):
    "Write half a checkpoint, and wait for the kill."
    if len(state['history']) != when+1: return save(state, path)
    whole = io.BytesIO()
    save(state, whole)
    with open(path, 'wb') as f: f.write(whole.getvalue()[:len(whole.getvalue())//2])
    wait()
def half_replace(src, dst):
    "Wait after the old checkpoint was moved away and before the new one is in place."
    if str(dst).endswith('last.pt') and data.epoch == when: wait()
    replace(src, dst)
if moment == 'write': torch.save = half_save
if moment == 'rename': os.replace = half_replace

torch.manual_seed(0)
model = VideoMamba(img_size=8, patch_size=4, depth=2, embed_dim=16, num_frames=2, num_classes=3, drop_path_rate=.3,
                   fc_drop_rate=.1, ssm_cfg=dict(d_state=2))
data = Noise()
config = TrainConfig(epochs=5, batch_size=8, lr=1e-2, mixup=.8, cutmix=1., smoothing=.1, clip_grad=1., seed=3)
fit(model, data, Noise(), config, folder, 'cpu', show=False)
print('done', flush=True)
'''

def start(folder, moment='never 0'):
    "A training in a process of its own, which stops to wait at a moment such as 'write 2'."
    env = os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'TQDM_DISABLE': '1'}
    line = [sys.executable, '-c', CHILD, str(folder), *moment.split()]
    return subprocess.Popen(line, env=env, stdout=subprocess.PIPE, text=True)

def finish(folder):
    "Let a training run to its end, and read what it saved last."
    out,_ = start(folder).communicate(timeout=120)
    assert out.split()[-1] == 'done'
    return torch.load(folder/'last.pt', weights_only=True)

def stop(child, sign=signal.SIGKILL):
    "Send a signal and wait for the end."
    child.send_signal(sign)
    child.wait(timeout=30)
    child.stdout.close()

def check_same(a, b):
    "The same weights, optimizer and history, bit for bit; only the seconds may differ."
    for k in a['model']: assert torch.equal(a['model'][k], b['model'][k]), k
    for i,state in a['opt']['state'].items():
        for k,v in state.items(): assert torch.equal(v, b['opt']['state'][i][k]), (i, k)
    rows = [[{k: v for k,v in r.items() if k != 'seconds'} for r in s['history']] for s in (a, b)]
    assert rows[0] == rows[1]

@pytest.fixture(scope='module')
def straight(tmp_path_factory):
    "What a training that nobody disturbs ends with."
    return finish(tmp_path_factory.mktemp('straight'))

def strike(folder, moment, sign=signal.SIGKILL):
    "Start, wait for the moment, and strike; the names of the files that are left."
    child = start(folder, moment)
    assert child.stdout.readline() == 'here\n'
    stop(child, sign)
    return {p.name for p in folder.iterdir()}

def test_one_accident_after_another(straight, tmp_path):
    assert not strike(tmp_path, 'epoch 0')
    assert 'last.pt' in strike(tmp_path, 'epoch 1', signal.SIGINT)
    left = strike(tmp_path, 'write 2')
    assert any(n.endswith('.tmp') for n in left) and 'last.pt' in left, left
    left = strike(tmp_path, 'rename 3')
    assert 'prev.pt' in left and 'last.pt' not in left, left
    check_same(finish(tmp_path), straight)
    assert not list(tmp_path.glob('.*.tmp'))

def test_killed_at_random(straight, tmp_path):
    child,deadline = start(tmp_path),time.monotonic()+60
    while not (tmp_path/'last.pt').exists() and time.monotonic() < deadline: time.sleep(.01)
    time.sleep(random.uniform(0, .2))
    stop(child)
    check_same(finish(tmp_path), straight)
