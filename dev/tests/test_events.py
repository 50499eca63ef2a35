"""Long videos of two events, from outside: for any length the label is balanced against all that needs no memory."""
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videomamba_nb import events
from videomamba_nb.data import read_video

PICTURES = np.arange(4, dtype=np.uint8)[:,None,None,None].repeat(2, 1).repeat(2, 2).repeat(3, 3) # ground, then each kind

def group(seed, length):
    "The six videos of a group as rows of kinds, 0 for the ground, with labels and times."
    times = events.event_times(np.random.default_rng(seed), length)
    clips = [events.render_events(*o, PICTURES, times, length)[:,0,0,0] for o in events.ORDERS]
    return clips, [events.who_wins(*o) for o in events.ORDERS], times

def agree(keys, labels):
    "Whether each key comes as often with one label as with the other."
    n = Counter(zip(keys, labels))
    return all(n[k,0] == n[k,1] for k in keys)

seeds = st.integers(0, 2**32-1)

@settings(max_examples=200, deadline=None)
@given(seeds, st.integers(16, 600))
def test_inside_and_far_apart(seed, length):
    s1,s2 = events.event_times(np.random.default_rng(seed), length)
    assert 0 <= s1 and s2+2 <= length and s2-s1-2 >= length/2

@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(16, 100))
def test_label_is_balanced(seed, length):
    clips,labels,(s1,s2) = group(seed, length)
    assert sum(labels) == 3
    for clip,(a,b) in zip(clips, events.ORDERS):
        assert np.flatnonzero(clip).tolist() == [s1,s1+1,s2,s2+1]
        assert clip[[s1,s1+1,s2,s2+1]].tolist() == [a+1,a+1,b+1,b+1]
    for t in range(length): assert agree([c[t] for c in clips], labels)
    assert agree([tuple(np.sort(c)) for c in clips], labels)
    assert not agree([tuple(c) for c in clips], labels)

@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(16, 100), st.data())
def test_no_window_knows(seed, length, data):
    clips,labels,(s1,s2) = group(seed, length)
    width = data.draw(st.integers(1, s2-s1-1))
    start = data.draw(st.integers(0, length-width))
    assert agree([tuple(c[start:start+width]) for c in clips], labels)

def test_wide_windows_know():
    clips,labels,(s1,s2) = group(0, 32)
    assert not agree([tuple(c[s1+1:s2+1]) for c in clips], labels)

@pytest.mark.parametrize('length', [16,17,64])
def test_time_has_no_arrow(length):
    "Backward in time, the same pairs of starts are as likely: the spare frames before and after are exchangeable."
    rng = np.random.default_rng(0)
    draws = [events.event_times(rng, length) for _ in range(3000)]
    before,after = np.mean(draws, 0)[0],length-2-np.mean(draws, 0)[1]
    assert abs(before-after) < .1*max(1, length/16)

def test_every_kind_has_digits_in_every_split():
    for split in ('train','valid','test'):
        for k,group in zip(events.KINDS, events._kinds(split)): assert len(group) > 20, (split, k)

def test_pictures_show_their_colour():
    "The stroke of each kind is its own colour; the ground is grey; places outside a digit stay as they are."
    rng = np.random.default_rng(1)
    digits,photo = np.zeros((3,8,8)),rng.integers(0, 255, (50,60,3)).astype(np.uint8)
    digits[:,2:6,2:6] = 16
    look = events.draw_events_look(rng)
    x = events.event_pictures(digits, photo, look, 32).astype(int)
    assert x.shape == (4,32,32,3) and np.ptp(x[0], -1).max() <= 1
    for k in range(3):
        colour = look['color'][k].astype(int)
        assert np.abs(x[k+1,16,16]-colour).max() <= 1
        assert (x[k+1,0,0] == x[0,0,0]).all()
        nearest = np.abs(events._COLORS-x[k+1,16,16]).sum(1).argmin()
        assert nearest == k

def test_lengths_share_their_pictures(tmp_path):
    "512 frames differ from 16 in nothing but the wait."
    clips = {t: events.long_events('valid', t, n=6, root=tmp_path) for t in (16,48)}
    rows = {t: events.event_table(d) for t,d in clips.items()}
    for i in range(6):
        for k in ('at_first','at_second'):
            a,b = (read_video(clips[t].samples[i][0], None)[rows[t][i][k]] for t in clips)
            assert (a == b).all()
        assert rows[16][i]['digits'] == rows[48][i]['digits']

def test_handed_out(tmp_path):
    d = events.long_events('train', 32, n=12, root=tmp_path)
    x,y = d[7]
    assert x.shape == (3,32,32,32) and d.classes == events.WINNERS and y == d.samples[7][1]
    d.set_epoch(3)
    assert (d[7][0] == x).all() # nothing is cropped away or mirrored by chance
    few = events.long_events('train', 32, num_frames=8, size=16, n=12, root=tmp_path, mode='val')
    assert few[0][0].shape == (3,8,16,16)

def test_ground_is_pale_and_flashes_are_large():
    "A quarter of the photograph's contrast around middle grey; looks stay within their ranges."
    photo = np.zeros((40,40,3), dtype=np.uint8)
    look = events.draw_events_look(np.random.default_rng(0))
    for value,grey in ((0,96), (255,160)):
        x = events.event_pictures(np.zeros((3,8,8)), photo+np.uint8(value), look, 16)
        assert x.shape == (4,16,16,3) and (np.abs(x.astype(int)-grey) <= 1).all()
    looks = [events.draw_events_look(np.random.default_rng(i)) for i in range(200)]
    state = np.concatenate([o['state'] for o in looks])
    assert np.allclose(state.min(0), [.45,.45,-.03,.7], atol=.01) and np.allclose(state.max(0), [.55,.55,.03,1.], atol=.01)
    zoom,color = np.array([o['zoom'] for o in looks]),np.stack([o['color'] for o in looks])-events._COLORS
    assert .4 <= zoom.min() < .42 and .78 < zoom.max() <= .8
    assert color.min() < -24 and color.max() < 25.01 and color.min() > -25.01
