"""Search of a folder of clips, with real files and real processes: killed in the middle, two at once, files that come
and go, damaged indexes."""
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import bench_search
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from videomamba_nb import cli
from videomamba_nb.index_file import NAME, IndexFile
from videomamba_nb.indexing import build_index
from videomamba_nb.pair_losses import frame_similarity
from videomamba_nb.search import search
from videomamba_nb.search_parts import ClipReader, Colours
from videomamba_nb.video import write_video
from videomamba_nb.videotext import VideoText, load_videotext, save_videotext
from videomamba_nb.words import Words

MODEL = Colours()
FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

def solid(rgb, t=4): return np.full((t,16,16,3), rgb, dtype=np.uint8)

def content(file):
    "What an index says, whatever the order of its rows."
    with IndexFile(file) as index:
        blobs = dict(o for part in index.features() for o in part)
        clips = [index.clip(i) for i in blobs]
        rows = [(c['path'], c['first'], c['end'], c['fps'], blobs[i], c['thumbnail']) for i,c in zip(blobs, clips)]
        return sorted(rows), {p: o[2:] for p,o in index.files().items()}

def fresh(folder, tmp_path, **how):
    "What an index made from scratch says."
    build_index(MODEL, folder, tmp_path/'fresh.sqlite', again=True, **how)
    return content(tmp_path/'fresh.sqlite')

@pytest.fixture(scope='module')
def pool(tmp_path_factory):
    "Bytes of different films, and of one that is none."
    d,films = tmp_path_factory.mktemp('pool'),[]
    for i,rgb in enumerate([(250,0,0), (0,250,0), (0,0,250), (200,200,0)]):
        write_video(d/f'{i}.mp4', solid(rgb, 4+5*i), fps=5)
        films.append((d/f'{i}.mp4').read_bytes())
    return [*films, b'no film at all']

def many_clips(folder, n, film):
    "Films with the same pictures and different bytes: a number in a box that players leave alone."
    folder.mkdir()
    for i in range(n): (folder/f'{i:03}.mp4').write_bytes(film+b'\0\0\0\x0cfree'+i.to_bytes(4, 'big'))
    return folder

@pytest.fixture
def many(tmp_path, pool): return many_clips(tmp_path/'many', 70, pool[0])

SLOW = '''
import sys, time
from videomamba_nb.indexing import build_index
from videomamba_nb.pair_losses import frame_similarity
from videomamba_nb.search_parts import ClipReader, Colours
class Slow(Colours):
    def encode_video(self, x):
        time.sleep(.02)
        return super().encode_video(x)
print(build_index(Slow(), sys.argv[1], batch_size=1, show=False).read)
'''

def start(folder): return subprocess.Popen([sys.executable, '-c', SLOW, folder], stdout=subprocess.PIPE, text=True)

def kept(file):
    try:
        with IndexFile(file) as index: return len(index.files())
    except (ValueError, OSError): return 0

def test_killed_in_the_middle(many, tmp_path):
    "What was written before the kill is whole, and is not read again."
    p,until = start(many),time.monotonic()+60
    while kept(many/NAME) < 32 and p.poll() is None and time.monotonic() < until: time.sleep(.02)
    p.send_signal(signal.SIGKILL)
    assert p.wait(30) == -signal.SIGKILL
    n = kept(many/NAME)
    assert 32 <= n < 70
    with sqlite3.connect(many/NAME) as c: assert c.execute('PRAGMA integrity_check').fetchone() == ('ok',)
    assert search(MODEL, many, 'red', k=1)[0].score > .9 # half an index answers, too
    report = build_index(MODEL, many)
    assert (report.unchanged, report.read, report.files) == (n, 70-n, 70)
    assert content(many/NAME) == fresh(many, tmp_path)

def test_two_at_once(many, tmp_path):
    runs = [start(many), start(many)]
    told = [p.communicate(timeout=90)[0] for p in runs]
    assert [p.returncode for p in runs] == [0, 0] and all(int(o) > 0 for o in told)
    assert content(many/NAME) == fresh(many, tmp_path)

NAMES = st.sampled_from(['a.mp4', 'b.mkv', 'deep/c.mp4', 'deep/d e.mp4'])
STEPS = st.lists(st.one_of(st.tuples(st.just('put'), NAMES, st.integers(0, 4)), st.tuples(st.just('move'), NAMES, NAMES),
                           st.tuples(st.just('drop'), NAMES, st.none()), st.tuples(st.just('touch'), NAMES, st.none()),
                           st.tuples(st.just('index'), st.none(), st.none())), min_size=2, max_size=10)

@FEW
@given(STEPS)
def test_an_index_brought_up_to_date_is_one_from_scratch(pool, tmp_path_factory, steps):
    tmp = tmp_path_factory.mktemp('live')
    folder = tmp/'films'
    (folder/'deep').mkdir(parents=True)
    for do,a,b in steps:
        path = folder/(a or '.')
        if do == 'put': path.write_bytes(pool[b])
        elif do == 'index': build_index(MODEL, folder, window=1.)
        elif not path.exists(): continue
        elif do == 'move': path.rename(folder/b)
        elif do == 'drop': path.unlink()
        else: os.utime(path, ns=(1, 1))
    report = build_index(MODEL, folder, window=1.)
    assert content(folder/NAME) == fresh(folder, tmp, window=1.)
    again = build_index(MODEL, folder)
    assert (again.read, again.known, again.removed, again.failed) == (0, 0, 0, report.failed)

def test_a_folder_that_moves_with_its_index(pool, tmp_path):
    (tmp_path/'here').mkdir()
    for i in range(2): (tmp_path/'here'/f'{i}.mp4').write_bytes(pool[i])
    build_index(MODEL, tmp_path/'here')
    (tmp_path/'here').rename(tmp_path/'there')
    hits = search(MODEL, tmp_path/'there', 'red', rerank=2)
    assert hits[0].file == tmp_path/'there'/'0.mp4' and hits.notes == []
    assert build_index(MODEL, tmp_path/'there').unchanged == 2

def test_loader_processes(pool, tmp_path):
    for i,o in enumerate(pool): (tmp_path/f'{i}.mp4').write_bytes(o)
    one,two = (build_index(MODEL, tmp_path, tmp_path/f'{n}.sqlite', window=1., workers=n) for n in (0, 2))
    assert one.failed == two.failed and content(tmp_path/'0.sqlite') == content(tmp_path/'2.sqlite')


# ---- damage

@pytest.fixture(scope='module')
def healthy(pool, tmp_path_factory):
    "An index, and what it answers."
    d = tmp_path_factory.mktemp('healthy')
    for i,o in enumerate(pool): (d/f'{i}.mp4').write_bytes(o)
    build_index(MODEL, d, window=1.)
    return d, [(o.path, o.score, o.start) for o in search(MODEL, d, 'red', k=99)]

@settings(FEW, max_examples=60)
@given(st.data())
def test_a_byte_that_flips(healthy, data):
    "One clear error, or an answer; and a score is never that of other numbers."
    (d,want),file = healthy,healthy[0]/'hurt.sqlite'
    raw = bytearray((d/NAME).read_bytes())
    at = data.draw(st.integers(0, len(raw)-1))
    raw[at] ^= data.draw(st.integers(1, 255))
    file.write_bytes(raw)
    scores = lambda: [o.score for o in search(MODEL, file, 'red', k=99)]
    for ask in (scores, lambda: build_index(MODEL, d, file, show=False)):
        try: found = ask()
        except (ValueError, OSError) as e: assert 'hurt.sqlite' in str(e)
        else:
            if isinstance(found, list): assert set(found) <= {o[1] for o in want}

@settings(FEW, max_examples=20)
@given(st.floats(0, .999))
def test_a_file_cut_short(healthy, share):
    (d,_),file = healthy,healthy[0]/'cut.sqlite'
    raw = (d/NAME).read_bytes()
    file.write_bytes(raw[:int(share*len(raw))])
    with pytest.raises(ValueError, match='cut.sqlite'): search(MODEL, file, 'red')
    report = build_index(MODEL, d, file, again=True, window=1.)
    assert content(file) == content(d/NAME) and list(report.failed) == ['4.mp4']

def test_clear_words(healthy, tmp_path):
    "What a user meets: no clips, no index, no place to write, somebody who is writing."
    d,_ = healthy
    empty = tmp_path/'empty'
    empty.mkdir()
    assert repr(build_index(MODEL, empty)) == f'0 files, 0 clips (nothing to do); no video in {empty}'
    assert search(MODEL, empty, 'red').notes == [f'{empty} holds no clip']
    with pytest.raises(ValueError, match='there is no index'): search(MODEL, tmp_path, 'red')
    (tmp_path/'taken'/NAME).mkdir(parents=True)
    shutil.copy(d/'0.mp4', tmp_path/'taken'/'0.mp4')
    with pytest.raises(OSError, match='name a file elsewhere with file= \\(--out\\)'): build_index(MODEL, tmp_path/'taken')
    with IndexFile(d/NAME, write=True) as one, IndexFile(d/NAME, write=True, wait=.1) as two, one.change():
        with pytest.raises(OSError, match='being written by another process'), two.change(): pass

@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0, reason='root may write everywhere')
def test_a_folder_that_may_not_be_written(healthy, tmp_path):
    films = tmp_path/'films'
    films.mkdir()
    shutil.copy(healthy[0]/'0.mp4', films/'0.mp4')
    films.chmod(0o555)
    try:
        with pytest.raises(OSError, match='--out'): build_index(MODEL, films)
        assert build_index(MODEL, films, tmp_path/'else.sqlite').files == 1
    finally: films.chmod(0o755)

def test_the_benchmark_runs():
    row, = bench_search.main(['--quick'])
    assert row['clips'] == 100 and row['search_s'] > 0

def test_any_program_can_read_it(healthy):
    with sqlite3.connect(healthy[0]/NAME) as c:
        about = dict(c.execute('SELECT key, value FROM about'))
        path,frames,error = c.execute('SELECT path, frames, error FROM files ORDER BY path').fetchall()[-1]
        shape,n = c.execute('SELECT shape, length(feature) FROM clips').fetchone()
    assert (path, frames) == ('4.mp4', 0) and 'not a video' in error
    assert (json.loads(shape), n) == ([3], 6) and json.loads(about['window']) == 1 and json.loads(about['folder']) == '.'


# ---- the commands, with weights of a file

@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    "A model of two towers that has learned nothing."
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp('weights')/'pair.safetensors'
    save_videotext(VideoText('toy', Words.learn(['a red seven moving left'])), file)
    return file

def call(capsys, *args):
    "Exit code, standard output, error output."
    rc = cli.main([str(o) for o in args])
    return (rc, *capsys.readouterr())

def test_index_and_search(pool, weights, tmp_path, capsys):
    for i in range(3): (tmp_path/f'{i}.mp4').write_bytes(pool[i])
    rc,out,err = call(capsys, 'index', tmp_path, '--weights', weights, '--window', '1s', '--json')
    assert (rc, err, json.loads(out)['files']) == (0, '', 3)
    rc,out,err = call(capsys, 'search', 'a red seven', tmp_path, '-k', 3, '--json')
    found = json.loads(out)
    want = search(load_videotext(weights), tmp_path, 'a red seven', k=3)
    assert (rc, err, found['notes']) == (0, '', [])
    assert [(o['rank'], o['path'], o['score']) for o in found['hits']] == [(i+1, o.path, o.score) for i,o in enumerate(want)]
    rc,out,err = call(capsys, 'search', 'a crimson seven', tmp_path, '--rerank', 4, '--each', '--html', tmp_path/'page.html')
    assert rc == 0 and out.count('\n') == 3 and 'the model never learned: crimson\n' in err
    assert (tmp_path/'page.html').read_text(encoding='utf-8').count('data:image/webp') == 3

def test_scores_are_cosines(pool, weights, tmp_path):
    "What the index keeps in 16 bits gives the scores of the model itself."
    for i in range(4): (tmp_path/f'{i}.mp4').write_bytes(pool[i])
    model = load_videotext(weights)
    build_index(model, tmp_path)
    text = model.encode_text(['a red seven']).feature
    parts = list(ClipReader(model, tmp_path, [f'{i}.mp4' for i in range(4)]))
    with torch.no_grad(): video = model.encode_video(torch.stack([o.view for o in parts]))
    want = frame_similarity(video.feature, text)[:,0]
    hits = {o.path: o for o in search(model, tmp_path, 'a red seven', k=9)}
    torch.testing.assert_close(torch.tensor([hits[o.path].score for o in parts]), want, atol=1e-3, rtol=0)
    judged = {o.path: o.score for o in search(model, tmp_path, 'a red seven', k=9, rerank=9)}
    with torch.no_grad(): want = model.match(video, model.encode_text(['a red seven']*4))
    torch.testing.assert_close(torch.tensor([judged[o.path] for o in parts]), want, atol=1e-4, rtol=1e-3)

def test_ctrl_c(pool, weights, tmp_path):
    "Every finished file is kept, and the message says so."
    folder = many_clips(tmp_path/'films', 150, pool[0])
    command = [sys.executable, '-m', 'videomamba_nb.cli', 'index', folder, '--weights', weights, '--batch-size', '1']
    p,until = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True),time.monotonic()+60
    while kept(folder/NAME) < 32 and p.poll() is None and time.monotonic() < until: time.sleep(.02)
    p.send_signal(signal.SIGINT)
    out,err = p.communicate(timeout=60)
    n = kept(folder/NAME)
    assert p.returncode == 130 and not out and 'Traceback' not in err
    assert 32 <= n < 150 and f'stopped: {n} of 150 files are safe in' in err and 'the same call goes on' in err
