"Self-distillation from outside: what holds for any vectors, any scan order, half precision, and through the real loop."
import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from videomamba_nb.core import fill_by_rule, input_by_rule, test_tensor
from videomamba_nb.distill import (
    Distill,
    DistillVideoMamba,
    Logits,
    Teacher,
    create_distill,
    soft_gap,
    student_of,
    token_gap,
    unit,
)
from videomamba_nb.model import VideoMamba, load_model
from videomamba_nb.objective import Classify
from videomamba_nb.recipe import TrainConfig
from videomamba_nb.train import fit

RESULTS = Path(__file__).parents[1]/'experiments'/'results'
SIZE = dict(img_size=8, patch_size=4, depth=2, num_classes=3, num_frames=2)


def teacher(**kw): return fill_by_rule(VideoMamba(**SIZE | dict(embed_dim=16) | kw))

def student(**kw): return fill_by_rule(DistillVideoMamba(**SIZE | dict(embed_dim=24, teacher_embed_dim=16) | kw))

def batch(n=4): return input_by_rule(n, 3, 2, 8, 8), torch.arange(n) % 3

def draw(seed, *shape): return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---- the two distances, for any input

@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 6), st.integers(2, 8), st.floats(1e-3, 1e3))
def test_only_directions_count(seed, b, m, d, scale):
    x,y = draw(seed, b, m, d),draw(seed+1, b, m, d)
    gap = token_gap(unit(x), unit(y))
    assert gap.shape == (b,) and (gap >= -1e-12).all() and (gap <= 4+1e-12).all()
    turn = torch.linalg.qr(draw(seed+2, d, d))[0]
    order = torch.randperm(m, generator=torch.Generator().manual_seed(seed))
    for other in (token_gap(unit(scale*x), unit(y)), token_gap(unit(y), unit(x)), token_gap(unit(x @ turn), unit(y @ turn)),
                  token_gap(unit(x)[:, order], unit(y)[:, order])):
        test_tensor(other, gap, rtol=1e-9, atol=1e-9)
    test_tensor(token_gap(unit(x), unit(-x)), torch.full_like(gap, 4.), rtol=1e-9)

@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6), st.floats(.3, 10), st.floats(-5, 5))
def test_only_differences_of_scores_count(seed, k, tau, shift):
    mine,his = draw(seed, 3, k),draw(seed+1, 3, k)
    gap = soft_gap(mine, his, tau)
    assert (gap > 0).all()
    test_tensor(soft_gap(mine+shift, his-shift, tau), gap, rtol=1e-9, atol=1e-12)
    test_tensor(soft_gap(his, his, tau), torch.zeros_like(gap), atol=1e-12)
    p,q = ((o/tau).softmax(1).numpy() for o in (his, mine))
    np.testing.assert_allclose(gap.numpy(), tau**2*(p*np.log(p/q)).sum(1), rtol=1e-8, atol=1e-12)

def test_a_high_temperature_compares_scores():
    "For a large tau the distance tends to half the variance of the difference of scores, over k classes."
    mine,his = draw(0, 2, 5),draw(1, 2, 5)
    test_tensor(soft_gap(mine, his, 1e4), (his-mine).var(1, correction=0)/2, rtol=1e-3, atol=1e-6)


# ---- the teacher

def test_the_name_is_the_same_everywhere():
    assert repr(Teacher(teacher())) == '<VideoMamba 63fc8cc9>'
    assert repr(Teacher(teacher().bfloat16())) != repr(Teacher(teacher()))

@pytest.mark.parametrize('order', ['temporal_first', 'spatiotemporal_v2', 'hilbert'])
def test_tokens_are_places_in_any_order(order):
    "A teacher that reads in another order still answers place by place."
    x,_ = batch(2)
    one = Teacher(teacher(scan_order=order))
    test_tensor(one(x)[1], unit(one.model.forward_features(x)), rtol=0., atol=0.)
    free = Teacher(teacher(depth=1, scan_order=order, bimamba=True))
    for layer in free.model.layers: layer.mixer.out_proj.weight.zero_() # no token hears of another
    test_tensor(free(x)[1], unit(free.model.norm_f(free.model.embed(x))), rtol=1e-5, atol=1e-6)

def test_any_of_the_models_can_teach():
    x,_ = batch()
    plain = teacher()
    for kind in ('teacher', 'student'):
        other = DistillVideoMamba(**SIZE, embed_dim=16, model_type=kind)
        other.load_state_dict(plain.state_dict(), strict=kind == 'teacher')
        for a,b in zip(Teacher(other)(x), Teacher(plain)(x)): test_tensor(a, b, rtol=0., atol=0.)
    test_tensor(DistillVideoMamba(**SIZE, embed_dim=16, model_type='teacher')(x)[1].norm(dim=-1), torch.ones(4, 9))

def test_half_precision_compares_in_float32():
    x,y = batch()
    asked,m = Distill(teacher(), 3),student()
    exact = asked(m, x, y, np.random.default_rng(0))[0]
    with torch.autocast('cpu', torch.bfloat16): loss,(_,shown) = asked(m, x, y, np.random.default_rng(0))[0],m(x)
    assert shown.dtype == loss.dtype == torch.float32
    test_tensor(shown.norm(dim=-1), torch.ones(4, 9), rtol=1e-5)
    test_tensor(loss, exact, rtol=5e-2, atol=5e-2)
    half = Logits(teacher(), 3)(lambda x: m(x)[0].bfloat16(), x, y, np.random.default_rng(0))[0]
    assert half.dtype == torch.float32
    assert {o.dtype for o in Teacher(teacher().bfloat16())(x.bfloat16())} == {torch.float32}


# ---- through the loop

class Counting(Teacher):
    "Notes how often it is asked, and in which mode."
    asked = 0
    def __call__(self, x):
        self.asked += 1
        assert not self.model.training and torch.is_grad_enabled()
        return super().__call__(x)

@pytest.mark.parametrize('until, batches', [(None, 6), (2, 4), (0, 0)])
def test_the_loop_asks_the_teacher_as_long_as_it_stays(until, batches):
    data,m,given = TensorDataset(*batch(4)),student(),teacher()
    objective = Distill(given, 3, until=until)
    objective.teacher = Counting(given)
    before = {k: v.clone() for k,v in objective.teacher.model.state_dict().items()}
    own = m.distill_head[1].weight.clone()
    fit(m, data, data, TrainConfig(epochs=3, batch_size=2, lr=1e-2), device='cpu', show=False, objective=objective)
    assert objective.teacher.asked == batches
    for k,v in objective.teacher.model.state_dict().items(): assert torch.equal(v, before[k]), k
    assert torch.equal(own, m.distill_head[1].weight) == (until == 0), 'the head learns while the teacher is there'

@pytest.mark.parametrize('make', [Distill, Logits])
def test_a_weight_of_nothing_is_plain_training(make):
    data,config = TensorDataset(*batch(4)),TrainConfig(epochs=2, batch_size=2, lr=1e-2, mixup=.8)
    class Alone(Classify):
        def __call__(self, model, *args): return super().__call__(lambda x: model(x)[0], *args)
    nothing = dict(weight=0.) if make is Distill else dict(alpha=0.)
    a,b = student(drop_path_rate=.2),student(drop_path_rate=.2)
    fit(a, data, None, config, device='cpu', show=False, objective=make(teacher(), 3, mixup=.8, **nothing))
    fit(b, data, None, config, device='cpu', show=False, objective=Alone(3, mixup=.8))
    for (k,p),q in zip(a.named_parameters(), b.parameters()):
        if not k.startswith('distill_head'): test_tensor(p, q, rtol=1e-4, atol=1e-5)

def test_best_weights_are_a_classifier(tmp_path):
    data,m = TensorDataset(*batch(4)),student()
    config = TrainConfig(epochs=1, batch_size=2, lr=1e-2)
    fit(m, data, data, config, tmp_path, 'cpu', show=False, objective=Distill(teacher(), 3))
    x,_ = batch(2)
    plain,meta = load_model(tmp_path/'best.safetensors')
    assert type(plain) is VideoMamba and meta['epoch'] == 1
    test_tensor(plain(x), m(x)[0], rtol=0., atol=0.)
    m.save_pretrained(tmp_path/'folder')
    again = DistillVideoMamba.from_pretrained(tmp_path/'folder', teacher_embed_dim=16)
    for a,b in zip(again(x), m(x)): test_tensor(a, b, rtol=0., atol=0.)
    resized = student_of(m.resize(num_frames=4, img_size=12))
    assert resized(torch.zeros(1, 3, 4, 12, 12)).shape == (1, 3)

def test_an_official_file_of_a_student(tmp_path):
    m,(x,_) = student(num_frames=None),batch(2)
    torch.save({'model': m.state_dict(), 'epoch': 1}, tmp_path/'m.pth')
    again = DistillVideoMamba.from_pretrained(tmp_path/'m.pth', teacher_embed_dim=16)
    plain = VideoMamba.from_pretrained(tmp_path/'m.pth')
    for a,b in zip(again(x[:, :, 0]), m(x[:, :, 0])): test_tensor(a, b, rtol=0., atol=0.)
    test_tensor(plain(x[:, :, 0]), m(x[:, :, 0])[0], rtol=0., atol=0.)

def test_the_student_keeps_device_type_and_names():
    m = student().double()
    m.classes = ['a', 'b', 'c']
    plain = student_of(m.train())
    assert plain.classes == m.classes and plain.cls_token.dtype == torch.float64 and not plain.training and m.training

@pytest.mark.parametrize('size, width', [('tiny', 192), ('small', 384), ('middle', 576), ('base', 768)])
def test_sizes_by_name(size, width):
    kw = dict(depth=1, img_size=16, num_classes=2)
    m = create_distill(f'videomamba_{size}_distill', **kw)
    assert (m.distill_head[1].in_features, m.distill_head[1].out_features) == (width, 384)
    assert not hasattr(create_distill(f'videomamba_{size}_distill', **kw, model_type='teacher'), 'distill_head')


# ---- the table of the experiment

def test_every_row_has_its_curve():
    rows,curves = (list(csv.DictReader(open(RESULTS/f'{name}.csv'))) for name in ('distill', 'distill_curves'))
    key = lambda r: tuple(r[k] for k in ('size', 'teaching', 'shift', 'seed'))
    assert len({key(r) for r in rows}) == len(rows) and {key(r) for r in rows} == {key(r) for r in curves}
    last = {key(r): int(r['epochs']) for r in rows}
    for k,group in itertools.groupby(curves, key):
        assert [int(r['epoch']) for r in group] == list(range(1, last[k]+1)), k
