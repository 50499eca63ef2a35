"""Files as they come: many formats, cuts and damages, loader processes, and data sets made by two at once.

Every frame carries its number as black and white blocks, so a wrong frame cannot pass. No ffmpeg program is needed.
"""
import multiprocessing as mp
import os
import signal
import struct
import subprocess
import sys
import time
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from videomamba_nb import data, digits
from videomamba_nb.data import VideoDataset, read_video
from videomamba_nb.video import VideoError, read_frames, video_length, write_video

pytestmark = pytest.mark.filterwarnings('ignore:.*cut short or damaged', 'ignore:.*fork')
BACKENDS = ['auto', 'av', 'av_in_order']
N = 60
X264 = {'g': '20', 'bf': '3', 'preset': 'veryfast', 'crf': '18', 'threads': '1'}
START = mp.get_all_start_methods()


def numbered(n, w=192, h=96):
    i,y,x = np.ogrid[:n, :h, :w]
    clip = np.stack([(x*2+5*i) % 256 + 0*y, (y*2+3*i) % 256 + 0*x, ((x+y)//2+7*i) % 256], -1).astype(np.uint8)
    for b in range(12): clip[:, :16, b*16:b*16+16] = 255*((np.arange(n) >> b) & 1)[:, None, None, None]
    return clip

def which(clip):
    return [sum(int(f[4:12, b*16+4:b*16+12].mean() > 127) << b for b in range(12)) for f in clip]

def encode(path, codec='libx264', n=N, pix='yuv420p', options=X264, fmt=None, mux=None, times=None, fps=25, **size):
    with av.open(str(path), 'w', format=fmt, options=mux or {}) as box:
        s = box.add_stream(codec, rate=fps, options=options)
        clip = numbered(n, **size)
        s.height,s.width,s.pix_fmt = *clip.shape[1:3],pix
        if times: s.codec_context.time_base = Fraction(1, 90000)
        for i,f in enumerate(clip):
            frame = av.VideoFrame.from_ndarray(f, format='rgb24')
            if times: frame.pts,frame.time_base = times[i],s.codec_context.time_base
            box.mux(s.encode(frame))
        box.mux(s.encode())

def remux(src, dst, start=0., fmt=None, mux=None):
    with av.open(str(src)) as a, av.open(str(dst), 'w', format=fmt, options=mux or {}) as b:
        i = a.streams.video[0]
        o,skip = b.add_stream_from_template(i),round(start/i.time_base)
        packets = [p for p in a.demux(i) if p.size]
        first = max([k for k,p in enumerate(packets) if p.is_keyframe and p.pts <= skip], default=0)
        for p in packets[first:]:
            p.pts,p.dts,p.stream = p.pts-skip,p.dts-skip,o
            b.mux(p)

def edit(src, dst, *edits):
    "Replace the edit list: (milliseconds, first frame or -1 for nothing) each."
    d = src.read_bytes()
    with av.open(str(src)) as box: per_frame = round(1/(25*box.streams.video[0].time_base))
    rows = [struct.pack('>IiI', ms, f if f < 0 else (f+2)*per_frame, 1 << 16) for ms,f in edits]
    body = b'elst'+struct.pack('>II', 0, len(rows))+b''.join(rows)
    i = d.index(b'elst')-4
    old = int.from_bytes(d[i:i+4], 'big')
    out = bytearray(d[:i]+struct.pack('>I', 4+len(body))+body+d[i+old:])
    for name in (b'moov', b'trak', b'edts'):
        k = d.index(name)-4
        out[k:k+4] = struct.pack('>I', int.from_bytes(d[k:k+4], 'big')+4+len(body)-old)
    dst.write_bytes(out)

def has(codec):
    try: return bool(av.codec.Codec(codec, 'w'))
    except Exception: return False


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp('clips')
    encode(d/'plain.mp4')
    encode(d/'faststart.mp4', mux={'movflags': 'faststart'})
    encode(d/'fragments.mp4', mux={'movflags': 'frag_keyframe+empty_moov'})
    return d


# ---- whole files: all of them right, by every reader that takes them

FORMATS = {
    'x.mp4': {}, 'x.mov': {}, 'x.mkv': {}, 'x.flv': {}, 'bframes.avi': {}, 'raw.h264': dict(fmt='h264'),
    'open_gop.mp4': dict(options=X264 | {'x264-params': 'open-gop=1'}), 'full_range.mp4': dict(pix='yuvj420p'),
    'xvid.avi': dict(codec='mpeg4', options={'qscale': '3', 'b': '4000000'}),
    'vp9.webm': dict(codec='libvpx-vp9', options={'deadline': 'realtime', 'cpu-used': '8', 'crf': '20', 'b': '0'}),
    'hevc.mp4': dict(codec='libx265', options={'preset': 'ultrafast', 'crf': '18', 'x265-params': 'log-level=none'}),
    'av1.mp4': dict(codec='libsvtav1', options={'preset': '10', 'crf': '30', 'svtav1-params': 'lp=1'}, n=12),
    'ffv1.mkv': dict(codec='ffv1', options={}), 'mjpeg.avi': dict(codec='mjpeg', pix='yuvj420p', options={}),
    'ps.mpg': dict(codec='mpeg2video', fmt='mpeg', options={'b': '6000000', 'bf': '2'}), 'tv.ts': dict(fmt='mpegts'),
    'tv_called.mp4': dict(fmt='mpegts'), 'odd.mp4': dict(w=317, h=239, pix='yuv444p'), 'half_odd.mp4': dict(w=318, h=238),
    'one.mp4': dict(n=1), 'two.mp4': dict(n=2), 'ten_bit.mp4': dict(pix='yuv420p10le'),
}

@pytest.mark.parametrize('name', FORMATS)
def test_formats(tmp_path, name):
    how = FORMATS[name]
    if not has(how.get('codec', 'libx264')): pytest.skip(f"no encoder {how['codec']} here")
    encode(tmp_path/name, **how)
    n = how.get('n', N)
    for backend in BACKENDS:
        assert which(read_frames(tmp_path/name, np.arange, backend)) == list(range(n)), backend
        assert which(read_frames(tmp_path/name, lambda n: [n-1, 0, n//2, n//2], backend)) == [n-1, 0, n//2, n//2]
    a,b = (read_frames(tmp_path/name, np.arange, k) for k in ('auto', 'av'))
    if name != 'ten_bit.mp4': assert (a == b).all() # the two round 10 bits to 8 in their own ways

def test_variable_rate(tmp_path):
    times = np.cumsum(np.random.default_rng(0).choice([1500, 3000, 9000], N)).tolist()
    encode(tmp_path/'v.mp4', times=times)
    for backend in BACKENDS: assert which(read_frames(tmp_path/'v.mp4', np.arange, backend)) == list(range(N))

@pytest.mark.parametrize('width', [16, 24, 40, 48, 72, 99, 200])
def test_every_width(tmp_path, width):
    "decord cannot deliver pictures of 16, 24, 48 and 72 pixels width; PyAV steps in."
    clip = np.random.default_rng(width).integers(0, 256, (3,40,width,3), dtype=np.uint8)
    write_video(tmp_path/'w.mp4', clip)
    a,b = (read_frames(tmp_path/'w.mp4', np.arange, k) for k in ('auto', 'av'))
    assert a.shape == clip.shape and (a == b).all()

def test_long_file(tmp_path):
    encode(tmp_path/'long.mkv', n=2000, h=32, options={'preset': 'ultrafast', 'g': '250', 'threads': '1'})
    assert which(read_video(tmp_path/'long.mkv', 8, backend='av')) == which(read_video(tmp_path/'long.mkv', 8)) \
        == data.sample_frames(2000, 8).tolist()


# ---- edit lists: what a player shows, in its order

EDITS = {'start': [((N-7)*40, 7)], 'end': [(800, 0)], 'last_two': [((N-2)*40, 0)], 'late': [(500, -1), (N*40, 0)],
         'late_and_end': [(500, -1), (800, 0)], 'two_pieces': [(400, 40), (400, 0)], 'skip': [(400, 5), (400, 45)]}

@pytest.mark.parametrize('name', EDITS)
def test_edit_lists(folder, tmp_path, name):
    edit(folder/'plain.mp4', tmp_path/'e.mp4', *EDITS[name])
    with av.open(str(tmp_path/'e.mp4')) as box:
        shown = which(f.to_ndarray(format='rgb24') for f in box.decode(video=0))
    assert shown != list(range(N)) or name == 'late'
    for backend in BACKENDS:
        assert which(read_frames(tmp_path/'e.mp4', np.arange, backend)) == shown
        assert which(read_frames(tmp_path/'e.mp4', lambda n: [n-1, 0], backend)) == [shown[-1], shown[0]]

@pytest.mark.parametrize('suffix', ['mp4', 'mov', 'mkv', 'ts'])
def test_stream_copy_of_a_cut(folder, tmp_path, suffix):
    remux(folder/'plain.mp4', tmp_path/f'c.{suffix}', start=1.08, fmt='mpegts' if suffix == 'ts' else None)
    first = 27 if suffix in ('mp4', 'mov') else 20 # the others have no edit list and begin at the key frame
    for backend in BACKENDS:
        assert which(read_frames(tmp_path/f'c.{suffix}', np.arange, backend)) == list(range(first, N))


# ---- cut short: the beginning, without a gap, or an error

@pytest.mark.parametrize('name', ['plain.mp4', 'faststart.mp4', 'fragments.mp4', 'x.mkv', 'x.ts', 'vp.avi', 'bf.avi'])
def test_truncated(folder, tmp_path, name):
    if name == 'vp.avi': encode(tmp_path/name, 'mpeg4', options={'qscale': '3', 'b': '4000000'})
    elif name in ('x.ts', 'x.mkv', 'bf.avi'): encode(tmp_path/name, fmt='mpegts' if name == 'x.ts' else None)
    else: (tmp_path/name).write_bytes((folder/name).read_bytes())
    whole,saved = (tmp_path/name).read_bytes(),{}
    cuts = np.random.default_rng(0).integers(1, len(whole), 25).tolist() + [len(whole)-1]
    for end in cuts:
        (tmp_path/f'cut_{name}').write_bytes(whole[:end])
        for backend in ('auto', 'av'):
            try: seen = which(read_frames(tmp_path/f'cut_{name}', np.arange, backend))
            except VideoError as e: seen = []; assert f'cut_{name}' in str(e) and e.args[1]
            assert seen == list(range(len(seen))), (end, backend)
            saved[end, backend] = len(seen)
    if name != 'plain.mp4': assert max(saved.values()) > N/2 # something was saved
    else: assert saved[cuts[0], 'auto'] == 0

def test_truncation_is_said(folder, tmp_path):
    whole = (folder/'faststart.mp4').read_bytes()
    (tmp_path/'t.mp4').write_bytes(whole[:len(whole)*2//3])
    with pytest.warns(UserWarning, match=f'frames can be read .its header says {N}'): read_video(tmp_path/'t.mp4')

def test_damage_never_crashes(folder, tmp_path):
    whole = (folder/'faststart.mp4').read_bytes()
    for seed in range(30):
        rng,d = np.random.default_rng(seed),bytearray(whole)
        for k in rng.integers(0, len(d), rng.choice([1, 20, 300])): d[k] = rng.integers(256)
        (tmp_path/'d.mp4').write_bytes(d)
        for backend in ('auto', 'av'):
            try: assert read_video(tmp_path/'d.mp4', 4, backend=backend).shape[0] == 4
            except VideoError as e: assert 'd.mp4' in str(e)


# ---- no video at all

def test_not_a_video(tmp_path):
    from PIL import Image
    Image.fromarray(numbered(1)[0]).save(tmp_path/'picture.png')
    (tmp_path/'picture_called.mp4').write_bytes((tmp_path/'picture.png').read_bytes())
    (tmp_path/'text.mp4').write_text('Dear reader,\n'*99)
    (tmp_path/'text.txt').write_text('Dear reader,\n'*99)
    (tmp_path/'noise.mp4').write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path/'list.m3u8').write_text('#EXTM3U\n#EXTINF:1,\npicture.png\n')
    (tmp_path/'empty.mp4').touch()
    (tmp_path/'ebml.mkv').write_bytes(b'\x1aE\xdf\xa3')
    (tmp_path/'riff.avi').write_bytes(b'RIFF')
    (tmp_path/'box.mp4').write_bytes(b'\0\0\0\x08ftyp')
    (tmp_path/'folder.mp4').mkdir()
    for path in [*tmp_path.iterdir(), tmp_path/'missing.mp4', tmp_path/('x'*300), 'nul\0byte.mp4']:
        for backend in ['decord', *BACKENDS]:
            with pytest.raises(VideoError) as e: read_video(path, backend=backend)
            assert e.value.args[1] and str(path) in str(e.value)

@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no pipes here')
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path/'p.mp4')
    with pytest.raises(VideoError, match='not a regular file'): read_video(tmp_path/'p.mp4')

def test_sound_only(tmp_path):
    for name in ('song.m4a', 'song.mp4'):
        with av.open(str(tmp_path/name), 'w', format='mp4') as box:
            s = box.add_stream('aac', rate=44100, layout='mono')
            f = av.AudioFrame.from_ndarray(np.zeros((1,1024), 'float32'), format='fltp', layout='mono')
            f.sample_rate = 44100
            box.mux(s.encode(f))
            box.mux(s.encode())
        with pytest.raises(VideoError, match='sound but no video'): read_video(tmp_path/name)

def test_without_decord(folder, monkeypatch):
    want = read_video(folder/'plain.mp4')
    monkeypatch.setitem(sys.modules, 'decord', None)
    assert (read_video(folder/'plain.mp4') == want).all()
    assert video_length(folder/'plain.mp4') == (N, 25.)
    with pytest.raises(VideoError, match='pip install decord'): read_video(folder/'plain.mp4', backend='decord')

def test_nothing_leaks(folder):
    def fds(): return len(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else 0
    for backend in BACKENDS: read_video(folder/'plain.mp4', backend=backend)
    before = fds()
    for _ in range(20):
        for backend in BACKENDS: read_video(folder/'plain.mp4', 2, backend=backend)
    assert fds() <= before+1


# ---- loader processes

def epoch(ds, workers, how, e=0):
    ds.set_epoch(e)
    how = dict(multiprocessing_context=how, timeout=60) if workers else {}
    x,y = zip(*DataLoader(ds, batch_size=2, num_workers=workers, **how), strict=True)
    return torch.cat(x),torch.cat(y)

@pytest.mark.parametrize('how,mode', [(o, m) for o in ('fork', 'spawn') if o in START for m in ('train', 'val')][:3])
def test_workers_change_nothing(folder, how, mode):
    ds = VideoDataset([(folder/'plain.mp4', i) for i in range(3)]+[(folder/'faststart.mp4', 3)], 4, 32, mode)
    for e in (0, 1) if how == 'fork' else (1,):
        a,b = epoch(ds, 0, None, e),epoch(ds, 2, how, e)
        assert torch.equal(a[0], b[0]) and a[1].tolist() == b[1].tolist() == [0, 1, 2, 3]
    assert mode == 'val' or not torch.equal(a[0][0], a[0][1]) # the same file twice, two draws

@pytest.mark.parametrize('how', [o for o in ('fork', 'spawn') if o in START])
def test_epochs_reach_living_workers(folder, how):
    ds = VideoDataset([(folder/'plain.mp4', 0)]*2, 4, 32, 'train')
    dl = DataLoader(ds, num_workers=1, persistent_workers=True, multiprocessing_context=how, timeout=60)
    for e in (0, 1, 0):
        ds.set_epoch(e)
        got = torch.cat([x for x,_ in dl])
        assert torch.equal(got, epoch(ds, 0, None, e)[0])

def test_a_bad_file_is_named_by_a_worker(folder):
    ds = VideoDataset([(folder/'plain.mp4', 0), (folder/'gone.mp4', 1)], 4, 32)
    with pytest.raises(VideoError, match='gone.mp4'): epoch(ds, 1, START[0])


# ---- MovingDigits: whole or not there

MAKE = """from videomamba_nb.digits import moving_digits
ds = moving_digits('test', root={!r}, n={})
print(len(ds), ds[0][1])"""

def start(root, n):
    return subprocess.Popen([sys.executable, '-c', MAKE.format(str(root), n)], stdout=subprocess.PIPE, text=True,
                            env=os.environ | {'TQDM_DISABLE': '1', 'OMP_NUM_THREADS': '1'})

def test_two_at_once(tmp_path):
    both = [start(tmp_path, 40) for _ in range(2)]
    assert [p.communicate(timeout=200)[0].split() for p in both] == [['40', '0']]*2
    assert [p.name for p in tmp_path.iterdir()] == ['test-40-seed0-recipe1']
    assert len(digits.moving_digits('test', root=tmp_path, n=40)) == 40

@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='cannot kill here')
def test_killed_while_making(tmp_path):
    p = start(tmp_path, 100_000)
    end = time.time()+100
    while time.time() < end and not list(tmp_path.glob('.making-*/0001*.mp4')): time.sleep(.05)
    p.kill()
    p.wait()
    left = list(tmp_path.iterdir())
    assert len(left) == 1 and left[0].name.startswith('.making-')
    assert len(digits.moving_digits('test', root=tmp_path, n=8)) == 8
    os.utime(left[0], (0, 0)) # as if it had lain there for a while: the next run sweeps it away
    digits.moving_digits('test', root=tmp_path, n=9)
    assert sorted(p.name[:7] for p in tmp_path.iterdir()) == ['test-8-', 'test-9-']

@pytest.mark.parametrize('damage', ['file', 'cut', 'list', 'half_list', 'row', 'header'])
def test_damaged_cache_is_made_again(tmp_path, damage):
    digits.moving_digits('valid', root=tmp_path, n=8)
    d, = tmp_path.iterdir()
    want = {p.name: p.read_bytes() for p in d.iterdir()}
    if damage == 'file': (d/'00003.mp4').unlink()
    if damage == 'cut': (d/'00003.mp4').write_bytes(want['00003.mp4'][:100])
    if damage == 'list': (d/'clips.csv').unlink()
    if damage == 'half_list': (d/'clips.csv').write_bytes(want['clips.csv'][:-7])
    if damage == 'row': (d/'clips.csv').write_bytes(b''.join(want['clips.csv'].splitlines(True)[:-1]))
    if damage == 'header': (d/'clips.csv').write_bytes(want['clips.csv'][20:])
    digits.moving_digits('valid', root=tmp_path, n=8)
    assert {p.name: p.read_bytes() for p in d.iterdir()} == want and len(list(tmp_path.iterdir())) == 1

def test_missing_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
    with pytest.raises(ImportError, match='pip install scikit-learn'): digits.moving_digits('test', root=tmp_path, n=8)
    assert not [p for p in tmp_path.iterdir() if not p.name.startswith('.')]
