"Hidden attention of scans of any size, maps in any order, and changes of clips of any length."
import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videomamba_nb.core import fill_by_rule, input_by_rule, test_tensor
from videomamba_nb.model import VideoMamba
from videomamba_nb.saliency import (
    attention_maps,
    check_attention,
    hidden_attention,
    layer_inputs,
    mixer_ways,
    receptive_field,
    rollout,
    scan_matrix,
    scan_matrix_loop,
    scan_row,
)
from videomamba_nb.scan_order import list_orders
from videomamba_nb.sensitivity import CHANGES, change_frames, cover, removal_curve
from videomamba_nb.ssm import selective_scan_seq

ORDERS = list_orders()
few = settings(max_examples=25, deadline=None, derandomize=True)


def scan(b, e, n, l, groups, seed, scale):
    r = lambda *s: torch.from_numpy(np.random.default_rng([seed, *s]).standard_normal(s))
    return dict(u=r(b, e, l), delta=scale*r(b, e, l+1)[..., 1:].exp(), A=-r(e, n).exp(), B=r(b, groups, n, l),
                C=r(b, groups, n, l+2)[..., 2:], D=r(e))

@few
@given(b=st.integers(1, 2), e=st.sampled_from([2, 4]), n=st.integers(1, 5), l=st.integers(1, 24),
       groups=st.sampled_from([1, 2]), block=st.integers(1, 30), scale=st.sampled_from([1e-3, 1., 1e3]),
       seed=st.integers(0, 9))
def test_matrix_gives_the_scan(b, e, n, l, groups, block, scale, seed):
    args = scan(b, e, n, l, groups, seed, scale)
    M = scan_matrix(args, block=block)
    y = torch.einsum('bkij,bkj->bki', M, args['u'])
    want = selective_scan_seq(**args)
    test_tensor(y, want, rtol=1e-10, atol=1e-10*max(1., want.abs().max().item()))
    test_tensor(M, scan_matrix_loop(args), rtol=1e-9, atol=1e-10*max(1., M.abs().max().item()))
    i = seed*l//10
    test_tensor(scan_row(args, i, [e-1]), M[:, [e-1], i], rtol=1e-9, atol=1e-10*max(1., M.abs().max().item()))

def model_of(order, grid, depth=2, **kwargs):
    t, h, w = grid
    kw = dict(img_size=(4*h, 4*w), patch_size=4, depth=depth, embed_dim=8, num_classes=3, num_frames=t, scan_order=order)
    m = fill_by_rule(VideoMamba(**kw | kwargs)).double()
    return m, input_by_rule(2, 3, t, 4*h, 4*w, dtype=torch.float64)

@settings(max_examples=22, deadline=None, derandomize=True)
@given(order=st.sampled_from(ORDERS), t=st.integers(1, 3), h=st.integers(1, 3), w=st.integers(1, 3), bimamba=st.booleans())
def test_layers_are_their_matrices(order, t, h, w, bimamba):
    "Both directions, gate and projection from the matrices give what the layer gives; the class row is the map."
    try: m, x = model_of(order, (t, h, w), bimamba=bimamba)
    except ValueError: return # two paths need two directions
    maps = attention_maps(m, x)
    assert maps.shape == (2, 1+bimamba, 2, t, h, w) and not maps[:, 0].any()
    assert bimamba == bool(maps[:, -1].any()) and bimamba == bool(rollout(m, x).any())
    with torch.no_grad():
        for i, (layer, passes) in enumerate(zip(m.layers, layer_inputs(m, x))):
            rows = []
            for hidden, *split in passes:
                z, y, absolute = layer.mixer.in_proj(hidden).transpose(1, 2).chunk(2, 1)[1], 0, []
                for args, at in mixer_ways(layer.mixer, hidden, *split):
                    M = scan_matrix_loop(args)[..., at, :][..., at]
                    y = y + torch.einsum('bkij,bkj->bki', M, args['u'][..., at])
                    absolute.append(M.abs().mean(1))
                want = layer.mixer(hidden, *split)
                test_tensor(layer.mixer.out_proj((y*z*z.sigmoid()).transpose(1, 2)), want, rtol=1e-10, atol=1e-10)
                test_tensor(hidden_attention(layer.mixer, hidden, *split), torch.stack(absolute), rtol=1e-9, atol=1e-12)
                rows.append(torch.stack(absolute)[:, :, 0])
            test_tensor(maps[i], m.reading.maps_home(i, rows).unflatten(-1, m.grid), rtol=1e-9, atol=1e-12)

def test_the_contract_names_the_case():
    check_attention(scan_matrix)
    def no_skip_if_alone(args, channels):
        return scan_matrix(args if args['u'].shape[2] > 1 else args | dict(D=None), channels)
    with pytest.raises(AssertionError, match='one token'): check_attention(no_skip_if_alone)
    with pytest.raises(AssertionError, match=r'plain, channels \[3, 0\]'):
        check_attention(lambda args, channels: scan_matrix(args, channels and sorted(channels)))

def test_single_precision_on_a_long_scan():
    args = scan(1, 2, 4, 700, 1, 0, .3)
    M = scan_matrix({k: v.float() for k, v in args.items()})
    want = scan_matrix(args)
    assert M.dtype == torch.float32 and M.isfinite().all()
    assert (M.double()-want).abs().max() < 1e-4*want.abs().max()

@pytest.mark.parametrize('order', ['spatiotemporal_v1', 'hilbert'])
def test_the_field_of_a_place(order):
    m, x = model_of(order, (2, 2, 3), depth=1)
    J = torch.autograd.functional.jacobian(lambda o: m.forward_features(o)[:, 1+11].sum(0), x)
    test_tensor(receptive_field(m, x, (1, 1, 2), draws=8), J.square().sum((0, 2)).sqrt().mean(0), rtol=1e-9, atol=1e-12)
    assert x.grad is None and not x.requires_grad and all(p.grad is None for p in m.parameters())


@few
@given(name=st.sampled_from(list(CHANGES)), t=st.integers(1, 20), seed=st.integers(0, 5), first=st.integers(0, 5))
def test_changes_keep_frames_whole(name, t, seed, first):
    x = torch.arange(float(t)).view(1, 1, t, 1, 1).expand(2, 3, t, 2, 2)
    y = change_frames(x, name, seed, first)
    black = y[:, 0] < 0
    assert y.shape == x.shape and (y[~black[:, None].expand_as(y)] % 1 == 0).all()
    test_tensor(y, change_frames(torch.cat([x]*2), name, seed, first)[:2], rtol=0., atol=0.)
    test_tensor(y[1:], change_frames(x[:1], name, seed, first+1), rtol=0., atol=0.)
    if name != 'half black': assert not black.any()
    if name in ('as it is', 'reversed', 'shuffled', 'fours shuffled', 'shuffled in fours'):
        test_tensor(y.sort(2).values, x.contiguous(), rtol=0., atol=0.)

@few
@given(t=st.integers(1, 3), h=st.integers(1, 3), w=st.integers(1, 3), k=st.integers(1, 2), seed=st.integers(0, 9))
def test_cover_paints_places_and_nothing_else(t, h, w, k, seed):
    kw = dict(img_size=(4*h+1, 4*w), patch_size=4, depth=1, embed_dim=8, num_classes=2, num_frames=k*t, kernel_size=k)
    m = VideoMamba(**kw).eval()
    places = torch.rand(2, t, h, w, generator=torch.Generator().manual_seed(seed)) < .5
    x = cover(m, torch.zeros(2, 3, k*t, 4*h+1, 4*w), places, torch.ones(1, 1, 1, 1, 1))
    assert not x[..., 4*h:, :].any()
    assert torch.equal(x[:, 0, ::k, :4*h:4, ::4] > 0, places) and x.sum() == 3*k*16*places.sum()

def test_nothing_to_find_in_a_constant_map():
    m, x = model_of('spatial_first', (2, 2, 2))
    y = m(x).argmax(1)
    curve = removal_curve(m, x, y, torch.zeros(2, 2, 2, 2), steps=8)
    test_tensor(curve, removal_curve(m, x, y, -torch.arange(8.).view(1, 2, 2, 2).expand(2, -1, -1, -1), steps=8))

def test_the_experiment_runs(monkeypatch, tmp_path):
    pytest.importorskip('sklearn'), pytest.importorskip('skimage')
    path = Path(__file__).parents[1]/'experiments'/'saliency.py'
    spec = importlib.util.spec_from_file_location('saliency_experiment', path)
    experiment = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(experiment)
    monkeypatch.setattr(sys, 'argv', ['saliency.py', '--quick', '--only', 'frames', '--out', str(tmp_path)])
    experiment.main()
    rows = list(csv.DictReader(open(tmp_path/'sensitivity.csv')))
    assert [r['change'] for r in rows] == list(CHANGES) and all(r['clips'] == '16' and r['commit'] for r in rows)
