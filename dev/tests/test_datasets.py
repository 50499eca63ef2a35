"""Data sets in their official formats, made here: lists, split files, videos, folders of frames, pictures, windows.

Every frame carries its number as the brightness of its two halves, so a wrong frame cannot pass.
"""
import inspect
import json
import subprocess
import sys
from pathlib import Path

import bench_loader
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from videomamba_nb import cli
from videomamba_nb.annotations import find_dataset, list_datasets, read_split
from videomamba_nb.check_data import check_data, spread, try_file
from videomamba_nb.data import VideoDataset, normalize, read_list, sample_frames
from videomamba_nb.datasets import like_target, lost_files, open_dataset, view_target
from videomamba_nb.lists import Row, check_rows, read_rows, scan_rows
from videomamba_nb.sources import Pictures, check_dataset, sample_folder, sample_window, time_windows
from videomamba_nb.video import VideoError, write_video

SMALL = dict(num_frames=4, size=16)


def numbered(n, h=32, w=32):
    i,x = np.ogrid[:n, :w]
    return np.tile((np.where(x < w//2, i%10, i//10)*25)[:, None, :, None], (1, h, 1, 3)).astype(np.uint8)

def numbers(clip):
    w = clip.shape[2]//2
    return [round(f[:, :w-4].mean()/25)+10*round(f[:, w+4:].mean()/25) for f in clip]

def put(path, text=''):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path

def link(path, to):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.hardlink_to(to)

@pytest.fixture(scope='session')
def films(tmp_path_factory):
    "Three short videos in three containers, and a long one of 100 s at one frame per second."
    d = tmp_path_factory.mktemp('films')
    for name,n,fps in (('a.mp4', 20, 10), ('b.mkv', 33, 10), ('c.avi', 8, 10), ('long.mp4', 100, 1)):
        write_video(d/name, numbered(n), fps)
    return d

@pytest.fixture(scope='session')
def home(films, tmp_path_factory):
    "Each known kind of data set, in its official layout."
    d = tmp_path_factory.mktemp('sets')
    for o in ('train', 'val', 'test'):
        put(d/'k400'/f'{o}.csv', f'{o}/a.mp4,3\n{o}/b.mkv,399\n')
        for f in ('a.mp4', 'b.mkv'): link(d/'k400'/o/f, films/f)
        put(d/'ssv2'/f'{o}.csv', '000123 173\n78 0\n')
        put(d/'folders'/f'{o}.csv', '000123 33 173\n78 5 0\n')
        put(d/'coin'/f'{o}.csv', 'long.mp4,179,100\na.mp4,0,2.0\n')
        put(d/'like'/f'{o}.csv', f'long.mp4,{like_target(9, 1)},100\n')
        put(d/'in'/'meta'/f'{o}.txt', 'n01/a.JPEG 0\nn02/b c.JPEG 999\n')
        for name,size in (('n01/a.JPEG', (40, 30)), ('n02/b c.JPEG', (20, 50))):
            (d/'in'/o/name).parent.mkdir(parents=True)
            Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)).save(d/'in'/o/name)
    for name,f in (('000123', 'a.mp4'), ('78', 'b.mkv')): link(d/'ssv2'/'videos'/f'{name}.webm', films/f)
    for name,n in (('000123', 33), ('78', 5)):
        (d/'folders'/name).mkdir()
        for i,f in enumerate(numbered(n), 1): Image.fromarray(f).save(d/'folders'/name/f'img_{i:05}.jpg', quality=95)
    for name in ('coin', 'like'):
        for f in ('long.mp4', 'a.mp4'): link(d/name/f, films/f)
    ucf,hmdb = d/'ucf'/'ucfTrainTestlist',d/'hmdb'/'testTrainMulti_7030_splits'
    put(ucf/'classInd.txt', '1 Archery\r\n2 Bowling\r\n')
    for k in (1, 2, 3):
        put(ucf/f'trainlist0{k}.txt', f'Archery/v_{k}.avi 1\nBowling/v_0.avi 2\n')
        put(ucf/f'testlist0{k}.txt', f'Bowling/v_{k}.avi\n')
        for c in ('Archery', 'Bowling'): link(d/'ucf'/'UCF-101'/c/f'v_{k}.avi', films/'c.avi')
        for c in ('wave', 'brush_hair'):
            put(hmdb/f'{c}_test_split{k}.txt', f'm[1].avi {k%3} \nm2.avi {(k+1)%3} \nm3.avi {(k+2)%3} \n')
    link(d/'ucf'/'UCF-101'/'Bowling'/'v_0.avi', films/'c.avi')
    for c in ('wave', 'brush_hair'):
        for f in ('m[1].avi', 'm2.avi', 'm3.avi'): link(d/'hmdb'/c/f, films/'c.avi')
    return d

OPEN = { # case: name of the data set, folder, more arguments, shape of x, labels
    'k400': ('k400', 'k400', {}, (3, 4, 16, 16), [3, 399]),
    'mit': ('mitv1_sparse', 'k400', dict(), None, None), # 399 is above its 339 classes
    'ssv2': ('ssv2', 'ssv2', dict(prefix='videos', suffix='.webm'), (3, 4, 16, 16), [173, 0]),
    'frames': ('ssv2-frames', 'folders', {}, (3, 4, 16, 16), [173, 0]),
    'coin': ('coin', 'coin', {}, (3, 4, 16, 16), [179, 0]),
    'windows': ('coin', 'coin', dict(windows=True), (3, 4, 16, 16), [179]*5+[0]),
    'breakfast': ('breakfast', 'coin', {}, None, None), # 179 is above its 10 classes
    'like': ('lvu-like', 'like', dict(windows=True), (3, 4, 16, 16), [like_target(9, 1)]*5),
    'ucf101': ('ucf101', 'ucf', dict(fold=2), (3, 4, 16, 16), [0, 1]),
    'hmdb51': ('hmdb51', 'hmdb', dict(fold=3), (3, 4, 16, 16), [0, 1]),
    'imagenet': ('imagenet', 'in', dict(num_frames=1), (3, 16, 16), [0, 999]),
    'csv': ('csv', 'k400', {}, (3, 4, 16, 16), [3, 399]),
}

@pytest.mark.parametrize('case', OPEN)
def test_open_and_keep_the_contract(home, case):
    name,folder,how,shape,labels = OPEN[case]
    def make(mode): return open_dataset(name, home/folder, mode=mode, **SMALL | how)
    if shape is None:
        with pytest.raises(ValueError, match='labels above'): make('train')
        return
    check_dataset(make, shape)
    assert [y for _,y in make('val').samples] == labels
    x,y = next(iter(DataLoader(make('train'), batch_size=2, num_workers=0)))
    assert x.shape == (2, *shape) and y.dtype == (torch.float32 if 'like' in name else torch.int64)
    report = check_data(name, home/folder, decode=None, show=False, **{k: v for k,v in how.items() if k != 'num_frames'})
    assert report.ok or all('files in train' in o for o in report.problems), report # the same files in all splits

def test_published_numbers():
    table = {o.name: o for o in list_datasets()}
    assert table['k400'].videos == (240436, 19787) and table['lvu-genre'].videos == (2807, 569, 584)
    assert {o.sampling for o in table.values()} == {'sparse', 'ssv2', ''} and table['ssv2'].sampling == 'ssv2'
    assert all(o.metric == ('top-1' if o.classes != 0 else 'squared error') for o in table.values())

def test_ucf_and_hmdb_splits(home):
    for k in (1, 2, 3):
        train,test = (read_split(find_dataset('ucf101'), home/'ucf', o, fold=k) for o in ('train', 'test'))
        assert [r[:2] for r in train.rows] == [(f'Archery/v_{k}.avi', 0), ('Bowling/v_0.avi', 1)] and not train.wrong
        assert [r[:2] for r in test.rows] == [(f'Bowling/v_{k}.avi', 1)]
        train,test = (read_split(find_dataset('hmdb51'), home/'hmdb', o, fold=k) for o in ('train', 'val'))
        files = ['m[1].avi', 'm2.avi', 'm3.avi']
        assert [r[:2] for r in train.rows] == [(f'{c}/{files[(1-k)%3]}', y) for y,c in enumerate(train.names)]
        assert [r[:2] for r in test.rows] == [(f'{c}/{files[(2-k)%3]}', y) for y,c in enumerate(train.names)]
    assert open_dataset('hmdb51', home/'hmdb', **SMALL).classes == ('brush_hair', 'wave')


# ---- frame rules: the examples of the official code, and the frames that really come out

def test_frames_of_videos(home):
    ds = open_dataset('k400', home/'k400', 'test', **SMALL)
    assert len(ds) == 2*4*3 and numbers(ds.frames(12+3)) == sample_frames(33, 4, 'sparse', 'test', 1, 4).tolist()
    ds = open_dataset('ssv2', home/'ssv2', 'test', prefix='videos', suffix='.webm', **SMALL)
    assert len(ds) == 2*2*3 and numbers(ds.frames(3)) == sample_frames(20, 4, 'ssv2', 'test', 1, 2).tolist()

def test_frames_of_folders(home):
    ds = open_dataset('ssv2-frames', home/'folders', 'val', num_frames=8, size=16)
    assert numbers(ds.frames(0)) == [2, 6, 10, 14, 18, 22, 26, 30] and numbers(ds.frames(1)) == [0, 0, 0, 0, 1, 2, 3, 4]
    ds = open_dataset('ssv2-frames', home/'folders', 'test', num_frames=8, size=16, num_clips=3)
    assert numbers(ds.frames(6)) == [int(33/8*i+2*33/8/3) for i in range(8)]
    ds = open_dataset('ssv2-frames', home/'folders', **SMALL)
    seen = np.array([numbers(ds.frames(0, np.random.default_rng(s))) for s in range(30)])
    assert (seen//8 == np.arange(4)).all() and len(np.unique(seen)) > 20

def test_frames_of_windows(home):
    ds = open_dataset('coin', home/'coin', 'val', windows=True, num_frames=8, size=16)
    assert ds.spans == [(0, 60), (16, 76), (32, 92), (48, 100), (64, 100), (0, 2)]
    ends = [60, 76, 92, 99, 99]
    for i,(a,b) in enumerate(zip((0, 16, 32, 48, 64), ends)):
        assert numbers(ds.frames(i)) == [a+round((b-a)/8*k)+int((b-a)/16) for k in range(8)]
    ds = open_dataset('coin', home/'coin', 'test', windows=True, **SMALL)
    assert (ds.num_clips, ds.num_crops, len(ds)) == (10, 3, 180)
    assert numbers(ds.frames(30+29)) == [16+round(15*k)+int(15/11*10) for k in range(4)]

def test_official_window_example():
    assert sample_window(480, 2280, 8).tolist() == [592, 817, 1042, 1267, 1492, 1717, 1942, 2167]
    assert time_windows(100) == [(0, 60), (16, 76), (32, 92), (48, 100), (64, 100)]
    assert time_windows(60) == [(0, 60), (16, 60)] and time_windows(59) == [(0, 59)]

@settings(max_examples=100, deadline=None)
@given(st.floats(.01, 4000), st.floats(1, 90), st.floats(.5, 40), st.floats(0, 40))
def test_windows_cover_and_stay_inside(duration, length, stride, keep):
    w = time_windows(duration, length, stride, keep)
    assert w[0][0] == 0 and all(0 <= a < b <= duration and b-a <= length+1e-9 for a,b in w)
    assert all(a[0]+stride == pytest.approx(b[0]) for a,b in zip(w, w[1:]))
    if stride+keep <= length: assert w[-1][1] == duration

@settings(max_examples=100, deadline=None)
@given(st.integers(1, 500), st.integers(1, 64), st.sampled_from(['train', 'val', 'test']), st.integers(1, 6),
       st.integers(0, 9))
def test_rules_stay_inside(n, F, mode, C, seed):
    for idx in (sample_folder(n, F, mode, C-1, C, np.random.default_rng(seed)),
                sample_window(seed, seed+n-1, F, mode, C-1, C, np.random.default_rng(seed))-seed):
        assert idx.shape == (F,) and idx.min() >= 0 and idx.max() < n and (np.diff(idx) >= 0).all()

def test_pictures(home):
    ds = open_dataset('imagenet', home/'in', 'val', size=28)
    path = home/'in'/'val'/'n01'/'a.JPEG'
    with Image.open(path) as im: x = np.array(im.convert('RGB').resize((32, int(32*40/30)), Image.Resampling.BICUBIC))
    top,left = round((x.shape[0]-28)/2),2
    assert torch.equal(ds[0][0], normalize(x[None, top:top+28, left:left+28])[:, 0])
    assert open_dataset('imagenet', home/'in', size=28).flip and not ds.flip

@pytest.mark.skipif('augment' not in inspect.signature(VideoDataset.__init__).parameters, reason='no augment yet')
def test_augment_reaches_every_kind(home):
    seen = []
    def augment(clip, size, rng):
        seen.append(clip.shape)
        return torch.zeros(3, len(clip), size, size)
    for name,folder,shape in (('coin', 'coin', (3, 4, 16, 16)), ('imagenet', 'in', (3, 16, 16))):
        how = SMALL if name == 'coin' else dict(size=16)
        assert open_dataset(name, home/folder, augment=augment, **how)[0][0].shape == shape
        assert open_dataset(name, home/folder, augment=augment, copies=2, **how)[0][0].shape == (2, *shape)
    assert seen[0] == (4, 32, 32, 3) and seen[3] == (1, 40, 30, 3)

def test_workers_change_nothing(home):
    ds = open_dataset('coin', home/'coin', windows=True, **SMALL)
    a,b = (torch.cat([x for x,_ in DataLoader(ds, 2, num_workers=k, timeout=60*k)]) for k in (0, 1))
    assert torch.equal(a, b)


# ---- lists with mistakes: told when opened, and told with all others by check_data

WRONG = { # text of train.csv: (part of the message, data set)
    'a.mp4\n': ('wrong number of columns', 'k400'), 'a.mp4,\n': ("the label '' is not", 'k400'),
    'a.mp4,cat\n': ("'cat' is not a whole number", 'k400'), 'a.mp4,3.0\n': ("'3.0' is not a whole", 'k400'),
    'a.mp4,3,9\n': ('wrong number of columns: expected path,label', 'k400'), 'a.mp4 3 9\n': ('wrong number', 'k400'),
    'a.mp4,400\n': ('labels above 399', 'k400'), 'a.mp4,-1\n': ('negative labels (1)', 'k400'),
    'a.mp4,3\na.mp4,4\n': ('files with two labels (1): a.mp4 (3 in line 1, 4 in line 2)', 'k400'),
    's3://bucket/a.mp4,3\n': ('copy the files to a disk', 'k400'), 'path,label\n': ('holds no samples', 'k400'),
    '': ('holds no samples', 'k400'), 'gone.mp4,3\n': ('gone.mp4', 'k400'), 'empty.mp4,3\n': ('empty.mp4', 'k400'),
    'x/a.mp4,3\n': ('the list says x/ before names', 'k400'), 'a,3\n': ("pass suffix='.mp4'", 'k400'),
    'a.avi,3\n': ('the files end in .mp4', 'k400'), 'deep.mp4,3\n': ("prefix='", 'k400'),
    'a.mp4,3\n'.encode('utf-16'): ('no text in UTF-8', 'k400'), 'a 5\n': ('expected path,frames,label', 'ssv2-frames'),
    'a 0 5\n': ("the frames '0' is not", 'ssv2-frames'), 'a.mp4,x\n': ("the value 'x' is not a number", 'lvu-view'),
}

@pytest.mark.parametrize('text', WRONG, ids=lambda o: repr(o)[:20])
def test_mistakes_are_told(films, tmp_path, text):
    message,name = WRONG[text]
    put(tmp_path/'train.csv', text)
    link(tmp_path/'a.mp4', films/'a.mp4')
    link(tmp_path/'sub'/'deep.mp4', films/'a.mp4')
    put(tmp_path/'empty.mp4')
    with pytest.raises((ValueError, FileNotFoundError)) as e: open_dataset(name, tmp_path, **SMALL)
    report = check_data(name, tmp_path, show=False)
    assert message in str(e.value) and not report.ok and any(message in o for o in report.problems), (str(e.value), report)
    assert '\n' not in str(e.value)

def test_oddities_are_warned_of(films, tmp_path):
    for o in ('cam1', 'cam2'): link(tmp_path/o/'P03_tea.avi', films/'c.avi')
    put(tmp_path/'train.csv', 'cam1/P03_tea.avi,0\ncam1/P03_tea.avi,0\n')
    put(tmp_path/'test.csv', 'cam1/P03_tea.avi,0\ncam2/P03_tea.avi,1\n')
    r = check_data('breakfast', tmp_path, show=False)
    assert [r.splits[o]['published'] for o in ('train', 'test')] == [1577, 0] and r.splits['test']['samples'] == 2
    words = ('nothing new (1)', 'merged by the official test (1): P03_tea', 'without a sample in train (1): 1',
             '(9 of 10): 1, 2')
    assert [any(w in o for o in r.warnings) for w in words] == [True]*4 and len(r.warnings) == 4
    same = tmp_path/'cam1'/'P03_tea.avi'
    assert r.problems == [f'files in train and test (1): {same}'] and r.counts['test'] == {0: 1, 1: 1}

def test_no_list(tmp_path):
    for folder,word in ((tmp_path, 'looked for train.csv, train.txt'), (tmp_path/'no', 'there is no such folder')):
        with pytest.raises(FileNotFoundError, match=word): open_dataset('k400', folder)
        assert word in check_data('k400', folder).problems[0]

def test_missing_files_are_counted(tmp_path):
    put(tmp_path/'train.csv', ''.join(f'{k}.mp4 {k}\n' for k in range(12)))
    put(tmp_path/'3.mp4', 'x')
    r = check_data('csv', tmp_path)
    text, = r.problems
    assert 'missing files (11 of 12)' in text and text.count('.mp4') == 5 and 'and 6 more' in text

def test_damaged_files_are_found(films, tmp_path):
    link(tmp_path/'a.mp4', films/'a.mp4')
    whole = (films/'b.mkv').read_bytes()
    put(tmp_path/'cut.mkv', whole[:len(whole)*2//3])
    put(tmp_path/'text.mp4', 'no video'*100)
    put(tmp_path/'train.csv', 'a.mp4,0\ncut.mkv,1\ntext.mp4,2\n')
    assert check_data('csv', tmp_path).ok
    r = check_data('csv', tmp_path, decode=None, show=False)
    assert r.splits['train']['opened'] == 3 and len(r.problems) == 1 and 'text.mp4 is not a video' in r.problems[0]
    assert len(r.warnings) == 1 and 'cut.mkv cut short or damaged' in r.warnings[0]

@pytest.mark.parametrize('name,duration,odd', [('a.mp4', 2., False), ('a.mp4', 2.9, False), ('a.mp4', 1.1, False),
    ('a.mp4', 3.1, True), ('a.mp4', .9, True), ('long.mp4', 101.9, False), ('long.mp4', 103., True),
    ('long.mp4', 97., True)])
def test_durations_are_compared(films, name, duration, odd):
    why,found = try_file(find_dataset('coin'), Row(str(films/name), 0, duration=duration))
    assert why == '' and bool(found) == odd and (not odd or f'the list says {duration:g} s, the file has' in found)

def test_raw_targets_are_warned_of(films, tmp_path):
    for name,good,bad in (('lvu-like', [-9.138, 0, .861], [-9.2, .95]),
                          ('lvu-view', [-11.76, 0, 12.], [-11.8, 13., 128000.])):
        put(tmp_path/name/'train.csv', ''.join(f'{films}/a.mp4?{y},{y}\n' for y in good))
        assert not check_data(name, tmp_path/name).warnings
        put(tmp_path/name/'train.csv', ''.join(f'{films}/a.mp4?{y},{y}\n' for y in good+bad))
        text, = check_data(name, tmp_path/name).warnings
        assert f'({len(bad)})' in text and f'make them with {name[4:]}_target' in text

def test_names_of_classes(films, tmp_path):
    put(tmp_path/'train.csv', f'{films}/a.mp4,0\n{films}/b.mkv,2\n')
    put(tmp_path/'classes.txt', 'cat\r\nred dog\n\n')
    assert check_data('csv', tmp_path).problems == ['labels without a name, of 2 (1): 2']
    put(tmp_path/'classes.txt', 'cat\r\nred dog\n\nelk')
    assert open_dataset('csv', tmp_path, **SMALL).classes == ('cat', 'red dog', 'elk') and check_data('csv', tmp_path).ok
    assert any('names 3 classes, coin has 180' in o for o in check_data('coin', tmp_path).problems)

def test_folders_of_frames_are_counted(home, tmp_path):
    put(tmp_path/'train.csv', f'{home}/folders/78 6 0\n{home}/folders/000123 30 0\n{home}/folders/train.csv 3 0\n')
    r = check_data('ssv2-frames', tmp_path, decode=None, show=False)
    assert [any(w in o for o in r.problems) for w in ('too few pictures (1 of 3)', '000123 holds more pictures than the 30',
                                                       'missing files (1 of 3)')] == [True]*3
    rows = [Row(str(home/'folders'/'78'), 0, frames=5)]
    assert not any(lost_files(find_dataset('ssv2-frames'), rows).values())

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 300), st.integers(1, 40))
def test_spread(n, k):
    found = spread(n, k)
    assert len(found) == min(n, k) == len(set(found)) and found == sorted(found) and all(0 <= i < n for i in found)
    assert n < k or k == 1 or (found[0], found[-1]) == (0, n-1)


# ---- the reader of lists

NAMES = st.text('abc 7,.é"/', min_size=1).map(str.strip).filter(lambda o: o and '"' not in o[:1])
WORDS = {',': 'commas', ' ': 'spaces', '\t': 'tabs'}

@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(NAMES, st.integers(0, 999), st.integers(0, 99)), min_size=1, max_size=8),
       sep=st.sampled_from(',\t '), head=st.booleans(), bom=st.booleans(), end=st.sampled_from(['\n', '\r\n']),
       three=st.booleans())
def test_lists_come_back(tmp_path_factory, rows, sep, head, bom, end, three):
    "Names in quotes, any separator, with and without heading, byte order mark and blank lines."
    path = tmp_path_factory.getbasetemp()/'come_back.csv'
    columns = ('path', 'label', 'duration') if three else ('path', 'label')
    def quoted(p): return '"'+p.replace('"', '""')+'"'
    lines = [sep.join(columns)]*head + [sep.join([quoted(p), str(y), str(d)][:len(columns)]) for p,y,d in rows]
    path.write_text('\ufeff'*bom + (end+end).join(lines), encoding='utf-8', newline='')
    found = read_rows(path, [('path', 'label'), ('path', 'label', 'duration')], sep)
    assert [(r.path, r.label, r.duration) for r in found] == [(p, y, d if three else None) for p,y,d in rows]

def test_separator_is_seen_or_said(tmp_path):
    for sep in ',\t ':
        put(tmp_path/'l.csv', f'a b.mp4{sep}3\nc.mp4{sep}4\n')
        assert [r[:2] for r in read_rows(tmp_path/'l.csv')] == [('a b.mp4', 3), ('c.mp4', 4)]
        for other in WORDS:
            if other not in (sep, ' ') or (other == ' ' and sep == ','):
                with pytest.raises(ValueError, match=f'with {WORDS[other]} between'): read_rows(tmp_path/'l.csv', sep=other)
    put(tmp_path/'l.csv', '000123,3\n0e5,4\n')
    assert read_list(tmp_path/'l.csv', root='') == [('000123', 3), ('0e5', 4)]

def test_all_wrong_lines_are_told(tmp_path):
    put(tmp_path/'l.csv', 'a,1\nb\n\nc,x\n"d,1\n')
    rows,wrong = scan_rows(tmp_path/'l.csv')
    assert [r.line for r in rows] == [1] and [o.split(':')[0].rsplit(' ', 1)[1] for o in wrong] == ['2', '4', '5']
    assert check_rows(rows, 2) == ([], [])

def test_targets():
    assert view_target(np.e**11.76425435683139) == pytest.approx(0, abs=1e-9)
    assert like_target(1, 1) == pytest.approx(5-9.138220535629456)


# ---- the command

def run(*args): return cli.main(['check-data', *map(str, args)])

def test_command(home, films, tmp_path, capsys):
    put(tmp_path/'train.csv', f'{films}/a.mp4,0\n')
    assert run(tmp_path) == 0
    out,err = capsys.readouterr()
    assert out.startswith(f'csv in {tmp_path}: no problems\n  train  1 sample, 1 in each of 1 classes') and err == ''
    assert run(home/'ssv2', '--data', 'ssv2', '--split', 'val', '--json') == 1
    report = json.loads(capsys.readouterr().out)
    assert not report['ok'] and list(report['splits']) == ['val'] and 'missing files (2 of 2)' in report['problems'][0]
    how = '--data ssv2 --split train --prefix videos --suffix .webm --decode all'.split()
    assert run(home/'ssv2', *how) == 0 and '2 opened' in capsys.readouterr().out
    assert run(home/'coin', '--data', 'coin', '--split', 'train', '--windows', '--decode', '1') == 0
    assert run(home/'hmdb', '--data', 'hmdb51', '--fold', '3') == 0
    capsys.readouterr()
    assert run(tmp_path, '--data', 'cats') == 1
    out,err = capsys.readouterr()
    assert out == '' and err.startswith("videomamba: no data set is called 'cats'") and err.count('\n') == 1
    assert [run(tmp_path, *o) for o in (['--split', 'dev'], ['--decode', '-1'], ['--fold', '4'])] == [2, 2, 2]

def test_real_command(tmp_path):
    put(tmp_path/'train.csv', 'gone.mp4,0\n')
    words = [sys.executable, '-m', 'videomamba_nb.cli', 'check-data', str(tmp_path)]
    r = subprocess.run(words, capture_output=True, text=True)
    assert r.returncode == 1 and 'problem: train: missing files (1 of 1)' in r.stdout and 'Traceback' not in r.stderr


# ---- the benchmark

def test_loader_benchmark(tmp_path):
    bench_loader.film(tmp_path/'f.mp4', 1, (32, 64))
    for reader in ('decord', 'av', 'av_in_order'):
        row = bench_loader.clips_per_second([(tmp_path/'f.mp4', 0)], reader, 0, 16, .01)
        assert row['clips'] >= 4 and row['clips_per_s'] > 0 and row['cpu_ms'] > 0


def test_a_bad_file_is_named(tmp_path):
    put(tmp_path/'a.png', 'no picture')
    with pytest.raises(VideoError, match='a.png: is no picture'): Pictures([Row(str(tmp_path/'a.png'), 0)])[0]
    assert Path(put(tmp_path/'train.txt', 'a.png 0\n')).exists()
    with pytest.raises(VideoError, match='a.png'): open_dataset('imagenet', tmp_path, size=8)[0]
