"Answers and features from real files: killed and resumed, broken files, long ones, and every kind of source."
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from videomamba_nb import features, inference
from videomamba_nb.core import fill_by_rule, test_tensor
from videomamba_nb.features import WHAT, FileViews, feature_file, feature_map, fingerprint, load_features, windows
from videomamba_nb.inference import extract_features, predict, source_views
from videomamba_nb.model import VideoMamba
from videomamba_nb.video import VideoError, write_video

ROOT = Path(__file__).resolve().parents[2]
SMALL = dict(img_size=16, patch_size=8, depth=2, embed_dim=16, num_classes=5)

def clip_model(**kwargs): return fill_by_rule(VideoMamba(**SMALL | dict(num_frames=4) | kwargs))

def clip(n, seed=0, size=(24, 32)):
    "Blocks of colour that change from frame to frame, so that codecs keep them."
    blocks = np.random.default_rng([n, seed]).integers(0, 256, (n, size[0]//8, size[1]//8, 3), dtype=np.uint8)
    return blocks.repeat(8, 1).repeat(8, 2)

@pytest.fixture(scope='module', autouse=True)
def one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)

@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    "Files of several lengths, two of one name."
    root,names = tmp_path_factory.mktemp('videos'),{'cam1/tea': 9, 'cam2/tea': 9, 'short': 2, 'long': 31}
    for i,(name,n) in enumerate(names.items()): write_video(root/f'{name}.mp4', clip(n, i))
    return [root/f'{name}.mp4' for name in names]

def quiet(*args, **kwargs):
    "Features without the warning about bad files."
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return extract_features(*args, **dict(device='cpu', show=False) | kwargs)


# ---- killed and resumed

CHILD = '''
import sys, time
import torch
torch.set_num_threads(1)
from videomamba_nb import features
from videomamba_nb.core import fill_by_rule
from videomamba_nb.inference import extract_features
from videomamba_nb.model import VideoMamba
out,moment,*files = sys.argv[1:]

class Slow(VideoMamba):
    calls = 0
    def forward_features(self, x):
        self.calls += 1
        if moment == 'compute' and self.calls == 4: wait()
        return super().forward_features(x)

def wait():
    print('here', flush=True)
    time.sleep(120)

save,writes = features.save_file,[]
def half_save(tensors, path, **kwargs):
    "The second time, write half a file and wait for the kill."
    save(tensors, path, **kwargs)
    writes.append(path)
    if moment == 'write' and len(writes) == 2:
        with open(path, 'rb+') as f: f.truncate(path.stat().st_size//2)
        wait()
features.save_file = half_save
model = fill_by_rule(Slow(img_size=16, patch_size=8, depth=2, embed_dim=16, num_classes=5, num_frames=4))
extract_features(model, files, 'per_frame', out, window=8, stride=4, batch_size=1, device='cpu', show=False)
print('done', flush=True)
'''

def child(out, moment, files):
    env = os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    line = [sys.executable, '-c', CHILD, str(out), moment, *map(str, files)]
    return subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

@pytest.mark.parametrize('moment', ['compute', 'write'])
def test_killed_and_resumed(tmp_path, videos, moment, monkeypatch):
    "Signal 9 in a batch or in a write: what was kept is used, and the rest ends with the same numbers."
    p = child(tmp_path/'out', moment, videos)
    assert p.stdout.readline().strip() == 'here'
    p.send_signal(signal.SIGKILL)
    p.communicate(timeout=30)
    kept = load_features(tmp_path/'out')
    assert len(kept) == 1, 'one video was complete'
    how = dict(what='per_frame', window=8, stride=4)
    straight,read = quiet(clip_model(), videos, **how),[]
    views = features._Stream.views
    monkeypatch.setattr(features._Stream, 'views', lambda self, path: [read.append(path)] and views(self, path))
    again = quiet(clip_model(), videos, out=tmp_path/'out', **how)
    assert read == [str(v) for v in videos[1:]], 'the finished video was read again'
    for a,b in zip(again, straight): test_tensor(a, b)
    assert again.paths == straight.paths == [str(v) for v in videos]

def test_ctrl_c_says_what_is_safe(tmp_path, videos):
    "A real signal; the video that was complete is kept, and the same call goes on."
    p = child(tmp_path/'out', 'compute', videos)
    assert p.stdout.readline().strip() == 'here'
    p.send_signal(signal.SIGINT)
    _,said = p.communicate(timeout=30)
    assert said.strip().splitlines()[-1].startswith('KeyboardInterrupt: stopped: 1 of 4 videos are safe in')
    assert not list((tmp_path/'out').glob('.*.tmp')) and len(load_features(tmp_path/'out')) == 1

def test_old_halves_are_swept(tmp_path, videos):
    for name,age in (('.old.1.tmp', 7200), ('.new.1.tmp', 0)):
        (tmp_path/name).write_text('half')
        os.utime(tmp_path/name, (os.stat(tmp_path).st_mtime-age,)*2)
    quiet(clip_model(), videos[:1], out=tmp_path)
    assert {p.name for p in tmp_path.glob('.*.tmp')} == {'.new.1.tmp'}


# ---- what is done, and what is not

def computed(monkeypatch, call):
    "How many videos a call reads."
    read,views = [],features._Stream.views
    with monkeypatch.context() as m:
        m.setattr(features._Stream, 'views', lambda self, path: [read.append(path)] and views(self, path))
        call()
    return len(read)

def test_only_what_changed(tmp_path, videos, monkeypatch):
    model,n = clip_model(),len(videos)
    def again(model=model, files=videos, **kwargs):
        return computed(monkeypatch, lambda: quiet(model, files, **dict(out=tmp_path/'out') | kwargs))
    assert [again(), again(), again(batch_size=1), again(workers=2)] == [n, 0, 0, 0]
    write_video(videos[2], clip(2, 99)) # another video under the same name
    assert [again(), again()] == [1, 0]
    os.utime(videos[2], (0, 0)) # or so its owner says
    assert [again(), again()] == [1, 0]
    dense,four = dict(sampling='dense'),dict(window=4)
    for a,b in (({}, dict(what='map')), ({}, four), ({}, dense), (dense, dense | dict(rate=2)),
                (four, four | dict(stride=2)), (four, four | dict(unit='seconds'))):
        assert (again(**a), again(**a), again(**b), again(**b))[1:] == (0, n, 0), (a, b)
    other = clip_model(norm_epsilon=1e-3)
    assert [again(other), again(other)] == [n, 0]
    orders = ['spatial_first', 'temporal_first'],['temporal_first', 'spatial_first'],'temporal_first'
    for order in (clip_model(scan_order=o) for o in orders): assert [again(order), again(order)] == [n, 0]
    (tmp_path/'out').joinpath(feature_file('', videos[0]).name).write_bytes(b'torn')
    assert [again(order), again(order)] == [1, 0]
    tuned = clip_model(scan_order='temporal_first')
    with torch.no_grad(): tuned.head.weight[0,0] += 1
    assert fingerprint(tuned) != fingerprint(order) and again(tuned) == n

def test_same_name_in_two_folders(tmp_path, videos):
    f = quiet(clip_model(), videos[:2]*2, out=tmp_path/'out')
    assert len(f) == 2 == len(list((tmp_path/'out').glob('tea-*.safetensors')))
    assert (f[0]-f[1]).abs().max() > 1e-3
    test_tensor(load_features(tmp_path/'out').x, f.x)

def test_bad_files(tmp_path, videos):
    "Each is named with its reason, whoever reads it; repaired, it comes off the list."
    whole = videos[3].read_bytes()
    bad = {'torn.mp4': whole[:200], 'empty.mp4': b'', 'text.mp4': b'not a video'}
    for name,text in bad.items(): (tmp_path/name).write_bytes(text)
    files = [*(tmp_path/o for o in bad), *videos, tmp_path/'none.mp4']
    for workers in (0, 2):
        with pytest.warns(UserWarning, match='4 of 8 videos could not be read.*torn.mp4'):
            f = extract_features(clip_model(), files, out=tmp_path/f'out{workers}', show=False, workers=workers, window=8)
        assert f.paths == [str(v) for v in videos]
        assert {Path(p).name: why for p,why in f.failed.items()}.keys() == bad.keys() | {'none.mp4'}
        assert 'No such file' in f.failed[str(tmp_path/'none.mp4')] and 'empty' in f.failed[str(tmp_path/'empty.mp4')]
        assert json.loads((tmp_path/f'out{workers}/failed.json').read_text()) == f.failed
        assert 'torn.mp4' in repr(f) and '4 failed' in repr(f)
    (tmp_path/'torn.mp4').write_bytes(whole)
    f = quiet(clip_model(), files, out=tmp_path/'out0', window=8)
    assert len(f) == 5 and len(load_features(tmp_path/'out0').failed) == 3
    test_tensor(f[0], f[4])
    none = quiet(clip_model(), files[1:3])
    assert len(none) == 0 and none.x == [] and len(none.failed) == 2

def test_a_file_that_breaks_half_way(videos, monkeypatch):
    "No features of the part that could be read, and the others are not touched."
    def views(self, path):
        for i,o in enumerate(whole(self, path)):
            if path.endswith('long.mp4') and i == 3: raise VideoError(path, 'breaks here')
            yield o
    whole,straight = features._Stream.views,quiet(clip_model(), videos, window=4)
    monkeypatch.setattr(features._Stream, 'views', views)
    for batch in (1, 3, 50):
        f = quiet(clip_model(), videos, window=4, batch_size=batch)
        assert list(f.failed.values()) == ['breaks here'] and len(f) == 3
        for a,b in zip(f, straight): test_tensor(a, b, atol=1e-5)


# ---- the same numbers however they are computed

def test_batches_workers_and_kinds(videos):
    model = clip_model()
    for window in (None, 8):
        f = {what: quiet(model, videos, what, window=window) for what in WHAT}
        for how in (dict(batch_size=1), dict(batch_size=3), dict(batch_size=64, workers=2)):
            for a,b in zip(quiet(model, videos, 'map', window=window, **how), f['map']): test_tensor(a, b, atol=1e-5)
        for full,mean,steps in zip(f['map'], f['pooled'], f['per_frame']):
            test_tensor(full.mean((-1, -2, -3)), mean, atol=1e-5)
            test_tensor(full.mean((-1, -2)).transpose(-1, -2), steps, atol=1e-5)
    x = source_views(model, videos[0])
    test_tensor(quiet(model, videos[:1], 'map')[0], feature_map(model, x)[0].detach(), atol=1e-5)
    test_tensor(quiet(model, videos[:1])[0], model.forward_features(x)[0,0].detach(), atol=1e-5)

def test_windows_are_views_of_their_frames(videos):
    model,how = clip_model(),dict(sampling='dense', rate=1)
    f = quiet(model, videos[3:], window=4, stride=3, **how)
    frames = inference.read_frames(videos[3], np.arange)
    _,spans,_ = f.part(0)
    assert spans.tolist() == [list(o) for o in windows(31, 4, 3)]
    for (a,b),row in zip(spans.tolist(), f[0]):
        test_tensor(row, model.forward_features(source_views(model, frames[a:b], **how))[0,0].detach(), atol=1e-5)

def test_readers_agree(videos):
    f = [quiet(clip_model(), videos, window=5, backend=o) for o in (None, 'auto', 'av', 'av_in_order')]
    assert FileViews(clip_model(), [], 5).backend == 'av' and FileViews(clip_model(), []).backend == 'auto'
    for other in f[1:]:
        for a,b in zip(f[0], other): test_tensor(a, b)

def test_every_view_once(videos):
    "However many processes read, and in the order of time."
    data = FileViews(clip_model(), videos, 4)
    for workers in (0, 1, 2):
        seen = [(p, tuple(span), last) for p,span,last,_ in DataLoader(data, None, num_workers=workers)]
        assert len(seen) == len(set(seen)) == 3+3+1+8
        for path in map(str, videos):
            spans,last = zip(*(o[1:] for o in seen if o[0] == path))
            assert list(spans) == sorted(spans) and last == (False,)*(len(spans)-1)+(True,)

def test_crops_go_along_the_longer_side():
    wide = np.zeros((4, 16, 48, 3), dtype=np.uint8)
    wide[:,:,16:32],wide[:,:,32:] = 100,200
    views = source_views(clip_model(), wide, crops=3)
    levels = [o.mean().item() for o in views]
    assert levels == sorted(levels) and levels[0] < levels[2]
    test_tensor(views[1:2], source_views(clip_model(), wide))

def test_image_model(videos, tmp_path):
    model = fill_by_rule(VideoMamba(**SMALL | dict(num_frames=None)))
    f = quiet(model, videos, 'map', tmp_path)
    assert f.x.shape == (4, 16, 1, 2, 2)
    middle = inference.read_frames(videos[0], lambda n: [(n-1)//2])
    test_tensor(f[0], feature_map(model, source_views(model, middle[0]))[0].detach(), atol=1e-5)
    assert quiet(model, videos[3:], window=10).part(0)[0].shape == (4, 16)

def test_half_precision(videos):
    f,half = (quiet(m, videos) for m in (clip_model(), clip_model().to(torch.bfloat16)))
    assert half.x.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(f.x, half.x).min() > .98
    assert predict(clip_model().to(torch.bfloat16), videos[0], device='cpu').probs.dtype == torch.float32

@settings(max_examples=300, deadline=None)
@given(st.integers(1, 500), st.integers(1, 90), st.data())
def test_every_frame_is_in_a_window(n, window, data):
    stride = data.draw(st.integers(1, window))
    spans = windows(n, window, stride)
    assert set().union(*(range(a, b) for a,b in spans)) == set(range(n))
    assert spans[0][0] == 0 and spans[-1][1] == n and {b-a for a,b in spans} == {min(window, n)}
    starts = [a for a,_ in spans]
    assert starts == sorted(set(starts)) and max(np.diff(starts), default=0) <= stride

@settings(max_examples=100, deadline=None)
@given(st.integers(1, 400), st.floats(.05, 9), st.floats(.01, 1), st.sampled_from([10, 24, 25, 29.97, 60]))
def test_seconds_cover_the_video_too(n, seconds, share, fps):
    data = FileViews(clip_model(), [], seconds, seconds*share, 'seconds')
    spans = data.spans('a.mp4', n, fps)
    assert set().union(*(range(a, b) for a,b in spans)) == set(range(n)) and spans[-1][1] == n


# ---- one source, many kinds

def test_sources_agree(videos, tmp_path):
    from PIL import Image
    model,frames = clip_model(),inference.read_frames(videos[0], np.arange)
    p = predict(model, videos[0], device='cpu')
    ready = source_views(model, videos[0])
    listed = predict(model, [str(videos[0]), frames, torch.tensor(frames)])
    for q in (*listed, *predict(model, ready), predict(model, ready[0])):
        test_tensor(q.probs, p.probs, atol=1e-5)
        assert q.indices == p.indices
    test_tensor(predict(model.double(), videos[0]).probs.float(), p.probs, rtol=1e-4, atol=1e-5)
    model.float()
    Image.fromarray(frames[0]).save(tmp_path/'a.png')
    Image.fromarray(frames[0]).save(tmp_path/'no_picture_by_name.mp4', format='png')
    for name in ('a.png', 'no_picture_by_name.mp4'):
        test_tensor(predict(model, tmp_path/name).probs, predict(model, frames[0]).probs)
    test_tensor(predict(model, frames[0]).probs, predict(model, frames[[0]*4]).probs)

@pytest.mark.parametrize('how', [{}, dict(sampling='ssv2', clips=2), dict(sampling='dense', rate=2, clips=3, crops=2)])
def test_agrees_with_the_test_protocol(videos, how):
    "The same views as `evaluate` takes, so the same probabilities."
    from videomamba_nb.evaluate import file_probs
    model,how = clip_model(),dict(clips=4, crops=3) | how
    for path in videos:
        p = predict(model, path, 9, device='cpu', **how)
        test_tensor(p.probs, file_probs(model, path, device='cpu', **how)[p.indices], atol=1e-5)

@pytest.mark.parametrize('n', [1, 5, 16, 17, 100, 301])
def test_one_view_reads_the_frames_of_the_official_demo(n):
    "16 frames at round(i*seg)+int(seg/2) with seg = (n-1)/16, and of them the middle square."
    number = np.arange(n, dtype=np.uint16)
    frames = np.zeros((n, 16, 20, 3), dtype=np.uint8)
    frames[:,4,10,0],frames[:,4,10,1],frames[:,:,:2],frames[:,:,18:] = number % 256,number//256,255,255
    x = source_views(clip_model(num_frames=16), frames)[0]
    raw = (x*torch.tensor([.229, .224, .225]).view(3, 1, 1, 1)+torch.tensor([.485, .456, .406]).view(3, 1, 1, 1))*255
    seen = (raw[0,:,4,8]+256*raw[1,:,4,8]).round().long().tolist()
    seg = (n-1)/16
    assert seen == [min(n-1, int(np.round(seg*i))+int(seg/2)) for i in range(16)]
    assert raw[2].abs().max() < 1, 'the borders are cut off'

def test_names():
    model,x = clip_model(),clip(4)
    assert predict(model, x, 2).labels == [f'class {i}' for i in predict(model, x, 2).indices]
    model.classes = list('abcde')
    assert predict(model, x, 9).labels == ['abcde'[i] for i in predict(model, x, 9).indices]
    assert predict(model, x, 1, labels=tuple('vwxyz')).labels[0] in 'vwxyz'
    model.classes = None
    assert predict(model, x, 1).labels[0].startswith('class ')
    model.classes = ['a']
    with pytest.raises(ValueError, match='1 labels for a model of 5 classes'): predict(model, x)

def test_training_goes_on():
    "Features carry gradients where asked for, and asking for answers leaves none behind."
    model,x = clip_model(),torch.randn(2, 3, 4, 16, 16)
    predict(model, x)
    assert all(p.grad is None for p in model.parameters()) and not model.training
    feature_map(model, x).square().mean().backward()
    assert model.patch_embed.proj.weight.grad.abs().sum() > 0
