"Scan orders from outside: any size, models in every order, files, copies, compilers, and the scripts that measure them."
import copy
import csv
import sys

import bench_orders
import pytest
import torch
import train_orders
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from videomamba_nb.core import fill_by_rule, input_by_rule, test_tensor
from videomamba_nb.model import VideoMamba, delta_maps, load_model
from videomamba_nb.reading import Reading, reading_plan
from videomamba_nb.scan_order import (
    SCAN_ORDERS,
    check_order,
    inverse,
    list_orders,
    neighbour_distances,
    permutations,
    places,
    register_order,
    schedule,
)
from videomamba_nb.weights import save_model

ORDERS = list_orders()
size = st.integers(1, 12)


def small(order, **kwargs):
    kw = dict(img_size=(16, 24), patch_size=8, depth=3, embed_dim=16, num_classes=5, num_frames=4)
    return fill_by_rule(VideoMamba(**kw | kwargs, scan_order=order)).eval(), input_by_rule(2, 3, 4, 16, 24)


@pytest.mark.parametrize('name', ORDERS)
def test_contract(name): check_order(name)

@pytest.mark.parametrize('name', ORDERS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(t=size, h=size, w=size)
def test_any_size(name, t, h, w):
    for order in permutations(name, t, h, w):
        assert order.dtype == torch.int64 and order.sort().values.tolist() == list(range(t*h*w))
        assert order[inverse(order)].tolist() == inverse(order)[order].tolist() == list(range(t*h*w))
    for k, v in neighbour_distances(name, t, h, w).items():
        pairs = dict(zip(('next column', 'next row', 'next frame'), (t*h*(w-1), t*(h-1)*w, (t-1)*h*w)))
        assert len(v) == pairs[k] and v.min() >= 1 and v.max() < t*h*w

@pytest.mark.parametrize('name', ORDERS)
@pytest.mark.parametrize('depth', [1, 2, 5, 24])
def test_schedules_use_every_path_they_have(name, depth):
    plan, n = schedule(name, depth), len(permutations(name, 2, 3, 4))
    used = {o for passes in plan for p in passes for o in p}
    assert len(plan) == depth and used <= set(range(n))
    if depth > 1: assert used == set(range(n))

class Work(TorchDispatchMode):
    "Counts calls, and elements written."
    calls = elements = 0
    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        out = f(*args, **kwargs or {})
        self.calls += 1
        self.elements += sum(o.numel() for o in torch.utils._pytree.tree_leaves(out) if isinstance(o, torch.Tensor))
        return out

@pytest.mark.parametrize('name', ORDERS)
def test_orders_are_cheap(name):
    "No loop over places: few calls, and work in proportion to the length."
    for grid in ((16, 32, 32), (64, 125, 125)):
        with Work() as work: permutations(name, *grid)
        assert work.calls < 600 and work.elements < 600*grid[0]*grid[1]*grid[2]

def test_a_loop_over_places_is_not_cheap():
    def slow(t, h, w): return torch.stack([torch.tensor(i) for i in range(t*h*w)])
    with Work() as work: permutations(slow, 16, 8, 8)
    assert work.calls > 600


@pytest.mark.parametrize('name', ORDERS)
def test_a_file_keeps_the_order(name, tmp_path):
    m, x = small(name)
    save_model(m, tmp_path/'m.safetensors')
    again, _ = load_model(tmp_path/'m.safetensors')
    assert again.config == m.config and again.config['scan_order'] == name
    test_tensor(again(x), m(x), rtol=0., atol=0.)

def test_a_file_keeps_a_list(tmp_path):
    m, x = small(['hilbert', 'spatiotemporal_v1', 'alternating'])
    save_model(m, tmp_path/'m.safetensors')
    again, _ = load_model(tmp_path/'m.safetensors')
    assert again.config == m.config
    test_tensor(again(x), m(x), rtol=0., atol=0.)

def test_a_file_with_a_name_nobody_knows(tmp_path):
    register_order('mine', lambda t, h, w: places(t, h, w).flip(0).flatten())
    try: save_model(small('mine')[0], tmp_path/'m.safetensors')
    finally: del SCAN_ORDERS['mine']
    with pytest.raises(ValueError, match="unknown scan order 'mine'.*register_order"): load_model(tmp_path/'m.safetensors')

def test_weights_have_the_same_names_in_every_order():
    assert len({tuple(small(k)[0].state_dict()) for k in ORDERS}) == 1


@pytest.mark.parametrize('name', ORDERS)
def test_all_tokens_come_home(name):
    "With mixers that only see the token itself, the order changes nothing."
    def blind(m):
        for layer in m.layers:
            for way in ('', '_b'):
                conv = getattr(layer.mixer, f'conv1d{way}')
                conv.weight.data[..., :-1] = 0
                getattr(layer.mixer, f'x_proj{way}').weight.data[-2*layer.mixer.d_state:] = 0
        return m.double()
    m, x = small(name)
    want = blind(small('spatial_first')[0]).forward_features(x.double())
    test_tensor(blind(m).forward_features(x.double()), want, rtol=1e-10, atol=1e-10)

@pytest.mark.parametrize('name', ORDERS)
def test_switch_copy_and_pictures(name):
    m, x = small('spatial_first')
    want = small(name)[0]
    other = copy.deepcopy(m)
    other.set_scan_order(name)
    test_tensor(other(x), want(x), rtol=0., atol=0.)
    test_tensor(copy.deepcopy(other)(x), want(x), rtol=0., atol=0.)
    assert m.config['scan_order'] == 'spatial_first' and other.config['scan_order'] == name
    picture = small(name, num_frames=None)[0]
    assert picture(x[:, :, 0]).isfinite().all() and delta_maps(picture, x[:, :, 0]).shape == (3, 2, 2, 2, 3)

@pytest.mark.parametrize('name', ORDERS)
def test_recomputing_changes_no_gradient(name):
    grads = []
    for kwargs in ({}, dict(use_checkpoint=True, checkpoint_num=3)):
        m, x = small(name, **kwargs)
        m.train(), m.drop_path.eval()
        for layer in m.layers: layer.drop_path.eval()
        grads.append(torch.autograd.grad(m(x).square().sum(), list(m.parameters())))
    for a, b in zip(*grads): test_tensor(a, b, rtol=1e-5, atol=1e-6)

@pytest.mark.parametrize('name', ORDERS)
def test_half_precision_stays_close(name):
    m, x = small(name)
    with torch.no_grad():
        with torch.autocast('cpu', torch.bfloat16): y = m(x)
        test_tensor(y.float(), m(x), rtol=3e-2, atol=8e-2)

def test_one_frame_costs_nothing():
    for name in ORDERS[:7]: assert not list(Reading(name, 4, 1, 5, 3).buffers())
    assert reading_plan('cross_scan', 2, 3, 1, 4)[1] == [((0, 0),)]*2


@pytest.mark.parametrize('name', [*ORDERS, ('snake', 'spatiotemporal_v1', 'cross_scan')], ids=str)
def test_compiled_and_exported(name):
    torch._dynamo.reset()
    m, x = small(name)
    compiled = torch.compile(m, backend='eager', fullgraph=True)
    test_tensor(compiled(x), m(x), rtol=1e-5, atol=1e-6)
    test_tensor(torch.export.export(m, (x,)).module()(x), m(x), rtol=1e-5, atol=1e-6)
    torch._dynamo.reset()


def test_bench_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, 'argv', ['bench_orders.py', '--quick', '--out', str(tmp_path)])
    bench_orders.main()
    rows = list(csv.DictReader(open(tmp_path/'orders.csv')))
    assert {(r['step'], r['order']) for r in rows} == {(s, o) for s in ('build', 'forward', 'train') for o in ORDERS}
    assert all(float(r['ms']) > 0 and r['commit'] for r in rows)

def test_training_goes_on_where_it_was(monkeypatch, tmp_path, capsys):
    pytest.importorskip('sklearn'), pytest.importorskip('skimage')
    for orders in (['snake'], ['snake', 'spatiotemporal_v2']):
        monkeypatch.setattr(sys, 'argv', ['train_orders.py', '--quick', '--out', str(tmp_path), '--orders', *orders])
        train_orders.main()
        assert '1 trainings to do' in capsys.readouterr().out
    rows = list(csv.DictReader(open(tmp_path/'train_orders.csv')))
    assert [(r['order'], r['seed']) for r in rows] == [('snake', '0'), ('spatiotemporal_v2', '0')]
