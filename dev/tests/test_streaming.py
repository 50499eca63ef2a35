"Long videos in pieces: any cut gives the same tokens, every file is read once and in full, and nothing is left behind."
import copy
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import bench_streaming
import memory
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videomamba_nb import pieces, streaming
from videomamba_nb.core import fill_by_rule, input_by_rule, test_tensor
from videomamba_nb.model import VideoMamba
from videomamba_nb.pieces import TokenFile, frame_source, group_frames, video_pieces
from videomamba_nb.scan_order import list_orders
from videomamba_nb.streaming import check_stream, disk_bytes, step_direction, stream_features, stream_probs
from videomamba_nb.video import read_frames, write_video

ROOT = Path(__file__).resolve().parents[2]
SMALL = dict(img_size=8, patch_size=4, depth=2, embed_dim=16, num_frames=4, num_classes=3)

@pytest.fixture(scope='module', autouse=True)
def one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)

def make(**kwargs): return fill_by_rule(VideoMamba(**SMALL | kwargs))

def whole(model, x):
    with torch.no_grad(): return copy.deepcopy(model).resize(x.shape[1]).forward_features(x[None])[0]


# ---- any cut gives the same tokens

@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=5), st.integers(1, 60), st.sampled_from(list_orders()),
       st.integers(1, 3), st.booleans())
def test_cuts_and_chunks_do_not_matter(cuts, chunk, order, k, wide):
    t = sum(cuts)
    if t < k: return
    model, x = make(scan_order=order, kernel_size=k, num_frames=3, residual_in_fp32=wide), input_by_rule(3, t, 8, 8)
    x = x[:, :t//k*k]
    cut = [o for o in x.split(cuts[0] or 1, 1)] + [x[:, :0]]
    got = stream_features(model, iter(cut), 'tokens', chunk, show=False)
    test_tensor(got, whole(model, x), atol=1e-5)

def test_other_kinds_of_models():
    check_stream(lambda m, x, n: stream_features(m, x, 'tokens', n, show=False), ['biases, three taps', 'LayerNorm'])

def test_the_carry_is_no_longer_than_needed():
    mixer = make().layers[0].mixer
    for n, left in ((1, 1), (3, 3), (9, 3)):
        tail, state = step_direction(mixer, torch.randn(1, n, 16))[1]
        assert tail.shape == (1, left, 32) and state.shape == (1, 32, 16)

def test_what_is_kept_follows_from_the_tokens(tmp_path):
    model, x = make(img_size=(8, 12)), input_by_rule(3, 7, 8, 12)
    y, how = whole(model, x), dict(chunk=5, folder=tmp_path, show=False)
    test_tensor(stream_features(model, x, **how), y[0], atol=1e-5)
    test_tensor(stream_features(model, x, 'pooled', **how), y[1:].mean(0), atol=1e-5)
    test_tensor(stream_features(model, x, 'per_frame', **how), y[1:].view(7, 6, 16).mean(1), atol=1e-5)
    kept = stream_features(model, x, 'tokens', out=tmp_path/'new'/'all.npy', **how)
    test_tensor(torch.tensor(kept), y, atol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == ['new'] and os.listdir(tmp_path/'new') == ['all.npy']
    test_tensor(stream_probs(model, x, **how), model.head(y[0]).softmax(0).detach(), atol=1e-5)

@pytest.mark.parametrize('dtype,tol', [(torch.bfloat16, .06), (torch.float64, 1e-10)])
@pytest.mark.parametrize('wide', [True, False])
def test_other_dtypes(tmp_path, dtype, tol, wide):
    model, x = make(residual_in_fp32=wide).to(dtype), input_by_rule(3, 6, 8, 8).to(dtype)
    got, want = stream_features(model, x, 'tokens', 7, show=False), whole(model, x)
    assert got.dtype == dtype and (got-want).abs().max() < tol
    run = streaming._Stream(model, tmp_path, 7)
    run.tokens.append(torch.zeros(3, 16))
    assert run.wanted(slice(0, 2)).dtype == (torch.promote_types(dtype, torch.float32) if wide else dtype)

def test_files_have_the_size_that_was_said(tmp_path, monkeypatch):
    seen, keep = [], streaming._Stream.keep
    def look(self, what, out):
        seen.append(sum(p.stat().st_size for p in self.folder.iterdir()))
        return keep(self, what, out)
    monkeypatch.setattr(streaming._Stream, 'keep', look)
    for model in (make(), make(kernel_size=2), make().double(), make(img_size=(8, 16))):
        x = input_by_rule(3, 6, *model.input_shape[2:], dtype=model.cls_token.dtype)
        stream_features(model, x, folder=tmp_path, show=False)
        assert seen.pop() == disk_bytes(model, 6)


# ---- files

@pytest.fixture(scope='module')
def frames():
    blocks = np.random.default_rng(0).integers(0, 256, (50, 2, 3, 3), dtype=np.uint8)
    return blocks.repeat(8, 1).repeat(8, 2)

KINDS = [('a.mp4', {}), ('b.mp4', dict(bf='3', g='12')), ('c.mkv', {}), ('d.avi', {}), ('e.ts', {})]

@pytest.mark.parametrize('name,options', KINDS)
def test_every_kind_of_file_is_read_in_full(tmp_path, frames, name, options):
    path = tmp_path/name
    write_video(path, frames, **options)
    want = pieces.to_view(read_frames(path, lambda n: np.arange(n)), 8)
    for kwargs, idx in ((dict(), range(50)), (dict(every=7), range(0, 50, 7)), (dict(frames=3), (8, 24, 41))):
        n, found = video_pieces(path, 8, **kwargs)
        got = torch.cat(list(found), 1)
        assert n == len(idx) == got.shape[1]
        test_tensor(got, want[:, list(idx)], rtol=0., atol=0.)

def test_a_file_is_streamed(tmp_path, frames):
    write_video(tmp_path/'a.mp4', frames)
    model, x = make(), pieces.to_view(read_frames(tmp_path/'a.mp4', lambda n: np.arange(n)), 8)
    test_tensor(stream_features(model, tmp_path/'a.mp4', 'tokens', 9, show=False), whole(model, x), atol=1e-5)
    few = stream_features(model, str(tmp_path/'a.mp4'), 'tokens', every=10, show=False)
    test_tensor(few, whole(model, x[:, ::10]), atol=1e-5)

def test_groups_let_go_of_large_pieces():
    groups = group_frames([torch.zeros(1, 1000, 1, 1), torch.zeros(1, 3, 1, 1)], 998)
    assert next(groups).shape[1] == 998
    assert next(groups).untyped_storage().nbytes() == 5*4

def test_nothing_is_read_before_it_is_needed():
    model, taken = make(), []
    _, found = frame_source(model, (taken.append(i) or torch.zeros(3, 2, 8, 8) for i in range(9)))
    assert not taken and next(found).shape[1] == 2 and taken == [0]

def test_rows_of_a_file(tmp_path):
    f, x = TokenFile(tmp_path/'a', 3), torch.randn(9, 3)
    for part in x.split(4): f.append(part)
    order = torch.randperm(9)
    for rows in (slice(0, 9), slice(3, 3), order, order[:1], order[2:5]):
        test_tensor(f.read(rows), x[rows], rtol=0., atol=0.)
    f.write(order, x[order]*2)
    f.write(order[:1], x[order[:1]])
    x2 = x*2
    x2[order[0]] = x[order[0]]
    test_tensor(f.read(slice(0, 9)), x2, rtol=0., atol=0.)


# ---- nothing is left behind

CHILD = '''
import sys, torch
from videomamba_nb.core import fill_by_rule
from videomamba_nb.model import VideoMamba
from videomamba_nb.streaming import stream_features
torch.set_num_threads(1)
model = fill_by_rule(VideoMamba(img_size=8, patch_size=4, depth=200, embed_dim=16, num_frames=4, num_classes=3))
def endless():
    for i in range(400):
        if i == 3: print('here', flush=True)
        yield torch.zeros(3, 4, 8, 8)
stream_features(model, endless(), chunk=1, folder=sys.argv[1], show=False)
'''

def test_ctrl_c(tmp_path):
    env = os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    p = subprocess.Popen([sys.executable, '-c', CHILD, str(tmp_path)], env=env, **pipes)
    assert p.stdout.readline().strip() == 'here' and len(list(tmp_path.glob('stream-*/*'))) == 2
    p.send_signal(signal.SIGINT)
    assert 'KeyboardInterrupt' in p.communicate(timeout=30)[1]
    assert not list(tmp_path.iterdir())

@pytest.mark.parametrize('moment', ['sweep', 'normed'])
def test_an_error_on_the_way(tmp_path, monkeypatch, moment):
    "In a layer, and while the result is written: both folders are empty afterwards."
    def stop(*args): raise KeyboardInterrupt
    monkeypatch.setattr(streaming._Stream, moment, stop)
    for folder in ('work', 'kept'): (tmp_path/folder).mkdir()
    where = dict(folder=tmp_path/'work', out=tmp_path/'kept'/'a.npy')
    with pytest.raises(KeyboardInterrupt):
        stream_features(make(), input_by_rule(3, 5, 8, 8), 'tokens', show=False, **where)
    assert not os.listdir(tmp_path/'work') and not os.listdir(tmp_path/'kept')

def test_a_disk_that_fills_up(tmp_path, monkeypatch):
    "Known beforehand, found out on the way, and while the result is written."
    free, usage, model, x = [0], pieces.shutil.disk_usage, make(), input_by_rule(3, 5, 8, 8)
    monkeypatch.setattr(pieces.shutil, 'disk_usage', lambda folder: usage(folder)._replace(free=free[0]))
    need = disk_bytes(model, 5)
    free[0] = need-1
    how = dict(folder=tmp_path, show=False)
    with pytest.raises(OSError, match=f'{need} more bytes are needed') as e: stream_features(model, x, **how)
    assert e.value.errno == errno.ENOSPC
    free[0] = need-4*16-1 # the class token is written already
    with pytest.raises(OSError, match='more bytes are needed'): stream_features(model, iter([x]), **how)
    free[0] = need
    for source in (x, iter([x])): stream_features(model, source, 'tokens', out=tmp_path/'a.npy', **how)
    free[0] = need//2-1
    run = streaming._Stream(model, tmp_path, 9)
    run.tokens.append(torch.zeros(21, 16)), run.parts.append(torch.zeros(21, 16))
    with pytest.raises(OSError, match=f'{need//2} more bytes'): run.save(tmp_path/'b.npy')
    assert sorted(os.listdir(tmp_path)) == ['a.npy', 'tokens']


# ---- memory, and the measurements

@pytest.mark.skipif(not memory.available(), reason='this system does not tell the peak of one call')
def test_memory_does_not_grow():
    "Sixteen times the frames, and far less than sixteen times the memory; what lies on disk is larger than it."
    model = VideoMamba(img_size=64, depth=1, embed_dim=192, num_frames=16, num_classes=0)
    x = torch.randn(3, 16, 64, 64)
    def mib(n): return memory.peak(lambda: stream_features(model, (x for _ in range(n//16)), chunk=256, show=False))
    mib(64)
    short, long, disk = mib(64), mib(1024), disk_bytes(model, 1024)/2**20
    assert long < max(2*short, 12) < disk, (short, long, disk)

def test_bench(tmp_path):
    "Streamed and at once agree, windows are something else, and one measurement in a process of its own."
    size = dict(img_size=32, embed_dim=32, depth=2)
    run = lambda way, frames: bench_streaming.call(way, bench_streaming.make(**size), frames, 33)()
    a, b, c = (run(w, 40) for w in ('stream', 'whole', 'stream'))
    test_tensor(a, b, atol=1e-5)
    test_tensor(a, c, rtol=0., atol=0.)
    w = run('windows', 32)
    assert w.shape == a.shape and (w-a).abs().max() > 1e-3
    if memory.available():
        row = bench_streaming.measure('stream', 16, 64, tmp_path)
        assert row['mib'] > 0 and row['core_seconds'] > 0 and row['disk_mib'] == .4 and row['difference'] == ''
