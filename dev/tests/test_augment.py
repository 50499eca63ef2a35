"Augmentation from outside: whatever the size, alike for all frames, from the generator alone, and as often as said."
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videomamba_nb import augment
from videomamba_nb.augment import Augment, augment_for, crop_box, erase_box, multi_scale_box, random_erase
from videomamba_nb.data import VideoDataset, normalize, random_crop, read_video, write_video
from videomamba_nb.policy import OPS, apply_steps, draw_step, rand_augment, read_policy

RECIPES = ('k400', 'ssv2', 'breakfast', 'coin', 'lvu', 'masked', 'imagenet')
STRINGS = ('rand-m7-n4-mstd0.5-inc1', 'rand-m5-n2-mstd0.25-inc1', 'rand-m9-mstd0.5-inc1', 'rand', 'v0')
few = settings(max_examples=40, deadline=None)
side, seeds = st.integers(1, 40), st.integers(0, 2**32)


def frames(t, h, w, seed=0): return np.random.default_rng(seed).integers(0, 256, (t, h, w, 3)).astype(np.uint8)

def rng(seed=0): return np.random.default_rng(seed)

def within(share, p, n): return abs(share-p) < 4*math.sqrt(p*(1-p)/n)


# ---- every recipe, every size

@few
@given(st.sampled_from(RECIPES), st.booleans(), st.integers(1, 20), side, side, side, seeds)
def test_any_clip(name, weak, t, h, w, size, seed):
    a, clip = augment_for(name, weak), frames(t, h, w)
    before = clip.copy()
    x = a(clip, size, rng(seed))
    assert x.shape == (3, t, size, size) and x.dtype == torch.float32 and x.isfinite().all()
    assert (clip == before).all()
    np.random.seed(seed % 7), torch.manual_seed(seed % 5)
    assert torch.equal(x, a(clip, size, rng(seed)))

@few
@given(st.sampled_from(RECIPES), st.booleans(), st.integers(2, 20), side, side, st.integers(1, 30), seeds)
def test_equal_frames_stay_equal(name, weak, t, h, w, size, seed):
    x = augment_for(name, weak, erase=0.)(np.repeat(frames(1, h, w), t, 0), size, rng(seed))
    assert torch.allclose(x, x[:, :1].expand_as(x), atol=1e-5) # `interpolate` rounds a ninth frame otherwise

@few
@given(st.sampled_from(STRINGS), st.sampled_from(('numbers', 'bilinear', 'bicubic')), st.booleans(), st.booleans(), seeds)
def test_the_order_of_steps(policy, how, multi, flip, seed):
    "What is drawn, in which order, and what is then done: replayed by hand."
    numbers = dict(mean=(0.,)*3, std=(1., 2., 1.))
    a = Augment(policy, flip=float(flip), erase=1., multi_scale=multi, how=how, fill=(1, 2, 3), **numbers)
    clip, r = frames(2, 30, 41, 5), rng(seed)
    steps = read_policy(policy).draw(r)
    box = multi_scale_box(30, 41, 16, r) if multi else crop_box(30, 41, r)
    assert (r.random() < flip) == flip
    if how == 'numbers':
        x = augment.cut_numbers(normalize(apply_steps(clip, steps, (1, 2, 3)), **numbers), box, 16)
        x = torch.from_numpy(x.numpy()[..., ::-1].copy()) if flip else x
    else:
        c = augment.cut_bytes(clip, box, 16, how)
        x = normalize(apply_steps(c[:, :, ::-1] if flip else c, steps, (1, 2, 3)), **numbers)
    assert torch.equal(random_erase(x, r, 1.), a(clip, 16, rng(seed)))

def test_how_often_mirrored_and_erased():
    clip, n = np.tile(np.arange(12, dtype=np.uint8)[None, None, :, None]*20, (1, 12, 1, 3)), 2000
    for flip, erase in ((.5, .25), (.2, .7)):
        a = Augment(scale=(1, 1), ratio=(1, 1), flip=flip, erase=erase)
        views = [a(clip, 12, rng(s)) for s in range(n)]
        plain, back = normalize(clip), normalize(clip).flip(-1)
        left = [min((x != o).any(0).float().mean() for o in (plain, back)) for x in views]
        mirrored = [(x != back).sum() < (x != plain).sum() for x in views]
        assert within(np.mean([o > 0 for o in left]), erase, n) and within(np.mean(mirrored), flip, n)
    a = Augment(scale=(1, 1), ratio=(1, 1), flip=0., erase=0.)
    assert all(torch.equal(a(clip, 12, rng(s)), plain) for s in range(50))


# ---- policies

@pytest.mark.parametrize('text', STRINGS)
def test_official_strings(text):
    policy = read_policy(text)
    for s in range(200):
        for name, strength in policy.draw(rng(s)): assert name in OPS and np.isfinite(strength)

@few
@given(st.text(max_size=12))
def test_nothing_odd_is_read(text):
    if text == 'v0': return
    with pytest.raises(ValueError): read_policy(text)

@few
@given(st.from_regex(r'rand(-[a-z]{1,5}[0-9.]{0,3}){1,3}', fullmatch=True))
def test_a_string_is_read_whole_or_refused(text):
    try: p = read_policy(text)
    except ValueError: return
    for part in text.split('-')[1:]:
        word = part.rstrip('0123456789.')
        assert getattr(p, word) == float(part[len(word):])

def test_draws_are_as_often_as_said():
    n, policy = 5000, rand_augment('rand-m7-n4-mstd0.5-inc1')
    steps = [policy.draw(rng(s)) for s in range(n)]
    flat = [o for d in steps for o in d]
    assert within(len(flat)/(4*n), .5, 4*n)
    for name in policy.ops: assert within(sum(o == name for o, _ in flat)/(4*n), .5/15, 4*n)
    for name, zero in (('Rotate', 0), ('ShearY', 0), ('TranslateXRel', 0), ('ColorIncreasing', 1)):
        a = np.array([x for o, x in flat if o == name])
        assert within((a > zero).mean(), .5, len(a))
    assert {len(d) for d in steps} == {0, 1, 2, 3, 4}
    assert all(within(np.mean([bool(draw_step('Invert', 5, p, rng(s))) for s in range(n)]), p, n) for p in (.1, .8))

@few
@given(st.sampled_from(sorted(OPS)), st.floats(0, 10), st.sampled_from((-1, 1)), side, side, st.integers(1, 20))
def test_any_operation_on_any_frames(name, m, s, h, w, t):
    clip = np.repeat(frames(1, h, w), t, 0)
    before, a = clip.copy(), OPS[name].strength(m, s)
    out = apply_steps(clip, [(name, a)])
    assert out.shape == clip.shape and out.dtype == np.uint8 and (out == out[:1]).all()
    assert (clip == before).all() and not np.shares_memory(out, clip)
    assert OPS[name].signed == (OPS[name].strength(5, 1) != OPS[name].strength(5, -1))
    if 'Posterize' in name: assert 0 <= a <= 4
    if 'Solarize' in name: assert 0 <= a <= 256

@few
@given(st.floats(0, 10), st.integers(-9, 9), side, side)
def test_operations_against_numpy(m, k, h, w):
    clip = frames(2, h, w, 3)
    i = clip.astype(int)
    def do(name, a): return apply_steps(clip, [(name, a)], (9, 8, 7))
    assert (do('Invert', 0.) == 255-i).all()
    for kind in ('Solarize', 'SolarizeIncreasing'):
        a = OPS[kind].strength(m, 1)
        assert (do(kind, a) == np.where(i >= a, 255-i, i)).all()
    add = OPS['SolarizeAdd'].strength(m, 1)
    assert (do('SolarizeAdd', add) == np.where(i < 128, np.minimum(i+add, 255), i)).all()
    for kind in ('Posterize', 'PosterizeIncreasing'):
        step = 2**(8-OPS[kind].strength(m, 1))
        assert (do(kind, OPS[kind].strength(m, 1)) == i//step*step).all()
    for name, axis, size in (('TranslateXRel', 2, w), ('TranslateYRel', 1, h)):
        want = np.empty_like(clip)
        for p in range(size):
            inside = 0 <= p+k < size
            where = (slice(None),)*axis+(p,)
            want[where] = clip[(slice(None),)*axis+(p+k,)] if inside else (9, 8, 7)
        assert (do(name, k/size) == want).all()
    for name in OPS: # what grows does nothing at magnitude 0
        still = name in increasing() and name not in ('AutoContrast', 'Equalize', 'Invert')
        assert not still or name.startswith('Posterize') or (do(name, OPS[name].strength(0, 1)) == clip).all(), name

def increasing(): return rand_augment('rand-inc1').ops


# ---- boxes

@few
@given(side, side, seeds, st.floats(.01, 1), st.floats(.2, 5))
def test_boxes_fit(h, w, seed, share, r):
    for t, l, a, b in (crop_box(h, w, rng(seed), (share, 1.), (r, r*1.5)), multi_scale_box(h, w, 7, rng(seed))):
        assert 0 <= t and 0 <= l and a >= 1 and b >= 1 and t+a <= h and l+b <= w
    t, l, a, b = erase_box(h, w, rng(seed))
    assert (t, l, a, b) == (0, 0, 0, 0) or (0 <= t and 0 <= l and 0 < a < h and 0 < b < w and t+a <= h and l+b <= w)

@few
@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 20), seeds)
def test_erasing_keeps_the_rest(h, w, t, seed):
    x = torch.from_numpy(np.random.default_rng(1).random((3, t, h, w), dtype=np.float32))
    y, r = random_erase(x, rng(seed), 1.), rng(seed)
    r.random()
    top, left, a, b = erase_box(h, w, r)
    inside = torch.zeros(h, w, dtype=bool)
    inside[top:top+a, left:left+b] = True
    assert torch.equal(y[..., ~inside], x[..., ~inside]) and (y[..., inside] != x[..., inside]).all()
    assert random_erase(x, rng(seed), 0.) is x

def test_crops_are_even():
    "Share of the area, shape and corner, against what they were drawn from."
    boxes = np.array([crop_box(400, 400, rng(s), (.1, .3), (.5, 2)) for s in range(4000)])
    share, r = boxes[:, 2]*boxes[:, 3]/160000, np.log2(boxes[:, 3]/boxes[:, 2])
    top, left = (boxes[:, :2]/(400-boxes[:, 2:])).T
    for v, lo, hi in ((share, .1, .3), (r, -1, 1), (top, 0, 1), (left, 0, 1)):
        got = np.histogram((v-lo)/(hi-lo), 4, (0, 1))[0]/4000
        assert all(within(o, .25, 4000) for o in got), got


# ---- in a data set

def test_a_data_set_with_and_without(tmp_path):
    path = tmp_path/'a.mp4'
    write_video(path, np.repeat(frames(1, 48, 64), 12, 0), fps=12)
    ds = VideoDataset([(path, 1)], 4, 24, 'train', flip=True, seed=3)
    for e in range(6): # as before there was an `augment`: frames, crop, mirror, in this order
        ds.set_epoch(e)
        r = np.random.default_rng([3, e, 0])
        clip = random_crop(read_video(path, 4, mode='train', rng=r), 24, r)
        assert torch.equal(ds[0][0], normalize(clip[:, :, ::-1] if r.random() < .5 else clip))
    a = augment_for('k400')
    one, two = (VideoDataset([(path, 1)], 4, 24, 'train', augment=a, copies=k, seed=3)[0][0] for k in (1, 2))
    r = np.random.default_rng([3, 0, 0])
    clip = read_video(path, 4, mode='train', rng=r)
    assert torch.equal(one, a(clip, 24, r)) and torch.equal(two, torch.stack([one, a(clip, 24, r)]))
