"""Groupings of views against a slow rule, real files with equal names, the command, and published runs from outside."""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videomamba_nb import cli
from videomamba_nb.evaluate import evaluate, merged_views, view_keys
from videomamba_nb.model import VideoMamba
from videomamba_nb.protocol import is_possible, possible_accuracies, protocol_data
from videomamba_nb.published import find_recipe, learning_rates, list_recipes, steps
from videomamba_nb.video import write_video
from videomamba_nb.weights import save_model

SMALL = dict(img_size=16, patch_size=8, depth=1, embed_dim=8, num_frames=2, num_classes=2, ssm_cfg=dict(d_state=2))


class Listed:
    "Paths with labels, without files; every path has `clips` x `crops` views."
    def __init__(self, samples, clips, crops): self.samples,self.clips,self.crops = samples,clips,crops
    def __len__(self): return len(self.samples)*self.clips*self.crops
    def view(self, i):
        s,v = divmod(i, self.clips*self.crops)
        return (s, *divmod(v, self.crops))

def slow_official(data, values):
    "The published rule, one view at a time."
    kept,labels = {},{}
    for i in range(len(data)):
        s,clip,crop = data.view(i)
        path,y = data.samples[s]
        name = path.split('/')[-1].split('.')[0]
        kept.setdefault(name, {}).setdefault((clip, crop), values[i])
        labels.setdefault(name, y)
    return list(kept), torch.stack([torch.stack(list(o.values())).mean(0) for o in kept.values()]), list(labels.values())

def label(path, official): # one per file, or one per base name
    return len(path.split('/')[-1].split('.')[0] if official else path) % 2

names = st.lists(st.sampled_from(['a/x.mp4', 'b/x.mp4', 'a/xy.avi', 'c/x.y.mkv', 'c/z', 'd.e/z.mp4']),
                 min_size=1, max_size=8)

@settings(max_examples=60, deadline=None)
@given(names, st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_official_grouping_is_the_published_rule(paths, clips, crops, seed):
    data = Listed([(p, label(p, True)) for p in paths], clips, crops)
    values = torch.rand(len(data), 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = torch.tensor([data.samples[data.view(i)[0]][1] for i in range(len(data))])
    found,mean,truth,left = merged_views(data, values, y, official=True)
    want,slow,labels = slow_official(data, values)
    assert (found, truth) == (want, labels)
    torch.testing.assert_close(mean, slow)
    assert len(left) == len(paths)-len(want)

@settings(max_examples=40, deadline=None)
@given(names, st.integers(1, 3), st.integers(1, 3))
def test_every_view_counts_for_its_own_file(paths, clips, crops):
    data = Listed([(p, label(p, False)) for p in paths], clips, crops)
    keys,kept = view_keys(data)
    assert kept == list(range(len(data)))
    assert keys == [os.path.abspath(p) for p in paths for _ in range(clips*crops)]

def test_labels_that_contradict():
    views = Listed([('a/x.mp4', 0), ('a/x.mp4', 1)], 1, 1)
    with pytest.raises(ValueError, match='x.mp4 is listed with the labels 0 and 1'):
        merged_views(views, torch.zeros(2, 1), torch.tensor([0, 1]))
    views = Listed([('a/x.mp4', 0), ('b/x.mp4', 1), ('b/y.mp4', 1), ('c/y.mp4', 0), ('c/z', 0)], 1, 1)
    with pytest.warns(UserWarning, match='2 base names .* such as x with the labels 0 and 1'):
        found = merged_views(views, torch.arange(5.)[:,None], torch.tensor([0, 1, 1, 0, 0]), official=True)
    assert found[0] == ['x', 'y', 'z'] and found[2] == [0, 1, 0] and found[3] == ('b/x.mp4', 'c/y.mp4')


# ---- real files, and the command

@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "Two folders with files of the same name, one dark and one bright, a list, and a small model."
    d = tmp_path_factory.mktemp('protocol')
    for folder,grey in (('cam1', 30), ('cam2', 220)):
        (d/folder).mkdir()
        write_video(d/folder/'tea.mp4', np.full((4, 16, 16, 3), grey, dtype=np.uint8))
    write_video(d/'cam1'/'milk.mp4', np.full((4, 16, 16, 3), 120, dtype=np.uint8))
    (d/'list.csv').write_text('cam1/tea.mp4,1\ncam2/tea.mp4,1\ncam1/milk.mp4,0\n')
    (d/'odd.csv').write_text('cam1/tea.mp4,1\ncam2/tea.mp4,0\n')
    torch.manual_seed(0)
    save_model(VideoMamba(**SMALL).eval(), d/'small.safetensors', classes=['milk', 'tea'])
    return d

def call(home, *args):
    "Exit code, standard output, error output."
    run = [sys.executable, '-m', 'videomamba_nb.cli', *map(str, args)]
    env = os.environ | dict(HF_HUB_OFFLINE='1', OMP_NUM_THREADS='1')
    r = subprocess.run(run, cwd=home, env=env, capture_output=True, text=True, timeout=120)
    assert 'Traceback' not in r.stderr, r.stderr
    return r.returncode, r.stdout, r.stderr

def test_evaluate_both_ways(home):
    m = VideoMamba.from_pretrained(home/'small.safetensors')
    files = [(str(home/'cam1'/'tea.mp4'), 1), (str(home/'cam2'/'tea.mp4'), 1), (str(home/'cam1'/'milk.mp4'), 0)]
    by_file,by_name = (evaluate(m, protocol_data('ssv2', files, m), official_grouping=o) for o in (False, True))
    assert [Path(p).parent.name for p in by_file.paths] == ['cam1', 'cam2', 'cam1'] and by_file.left_out == ()
    assert by_name.paths == ['tea', 'milk'] and by_name.left_out == (files[1][0],)
    torch.testing.assert_close(by_name.probs, by_file.probs[[0, 2]])
    assert (by_file.probs[0] != by_file.probs[1]).any()
    assert 'official' not in repr(by_file) and '2 videos' in repr(by_name) and '1 more left out' in repr(by_name)

def test_command_answers_in_json(home, capsys):
    how = ['--weights', str(home/'small.safetensors'), '--views', '2x1', '--json', '--official-grouping']
    assert cli.main(['evaluate', str(home/'list.csv'), *how]) == 0
    out,err = capsys.readouterr()
    r = json.loads(out)
    assert (err, r['videos'], r['official_grouping']) == ('', 2, True)
    assert [Path(o).parent.name for o in r['left_out']] == ['cam2'] and [o['path'] for o in r['rows']] == ['tea', 'milk']

def test_command_warns(home):
    rc,out,err = call(home, 'evaluate', 'odd.csv', '--weights', 'small.safetensors', '--views', '1x1', '--official-grouping')
    assert rc == 0 and '1 videos' in out and '1 more left out' in out
    assert err.startswith('videomamba: official grouping: 1 base names') and err.count('\n') == 1


# ---- numbers

@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5000), st.integers(0, 2), st.data())
def test_every_share_is_possible(n, digits, data):
    k = data.draw(st.integers(0, n))
    assert is_possible(round(100*k/n, digits), n, digits)

def test_breakfast():
    counts = [n for n in range(2, 411) if all(is_possible(a, n) for a in (94.3, 94.8, 95.3, 95.8, 96.9, 97.4, 97.9))]
    assert counts == [192, 383, 384, 385] and not set(possible_accuracies(410)) & {94.3, 94.8, 95.3, 95.8, 96.9, 97.4, 97.9}

@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list_recipes(task='video').names), st.integers(1, 64), st.integers(1, 64))
def test_rates_are_proportional_and_steps_inverse(name, a, b):
    r = find_recipe(name)
    for x,y in zip(learning_rates(r, 2*a), learning_rates(r, 2*a*b)): assert y == pytest.approx(x*b)
    assert steps(r, 100_000, 2*a)[0] == r.epochs*(100_000//a)
    assert steps(r, r.total//2)[0] == r.epochs and learning_rates(r, r.total) == learning_rates(r)
