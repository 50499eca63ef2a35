"""The rival of VideoMamba against PyTorch's own layers; windows, lengthening and heads from outside."""
import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from videomamba_nb import events, long_video
from videomamba_nb.core import fill_by_rule, input_by_rule, test_tensor
from videomamba_nb.long_video import JointTransformer, clip_features, fit_head, joint_like, lengthen
from videomamba_nb.model import VideoMamba

SIZES = dict(img_size=16, patch_size=8, depth=2, embed_dim=32, num_frames=4, kernel_size=2, num_classes=3)

def count(m): return sum(p.numel() for p in m.parameters())

def test_block_is_torchs_encoder_layer():
    "Same weights, same numbers, in float64."
    torch.manual_seed(0)
    mine = long_video._JointBlock(24, 3, 40).double()
    ref = nn.TransformerEncoderLayer(24, 3, 40, 0., 'gelu', batch_first=True, norm_first=True).double()
    for a,b in ((mine.attn.qkv.weight, ref.self_attn.in_proj_weight), (mine.attn.qkv.bias, ref.self_attn.in_proj_bias)):
        b.data.copy_(a.data)
    for a,b in ((mine.attn.proj, ref.self_attn.out_proj), (mine.norm1, ref.norm1), (mine.norm2, ref.norm2),
                (mine.mlp[0], ref.linear1), (mine.mlp[2], ref.linear2)): b.load_state_dict(a.state_dict())
    for m in (mine, ref): m.norm1.weight.data.mul_(1.5), m.norm2.bias.data.add_(.3)
    x = torch.randn(2, 7, 24, dtype=torch.float64)
    test_tensor(mine(x), ref.train()(x), rtol=1e-10, atol=1e-10)

def test_model_is_embed_blocks_norm_head():
    m = fill_by_rule(JointTransformer(**SIZES, heads=4)).double()
    x = input_by_rule(2, 3, 4, 16, 16, dtype=torch.float64)
    h = m.embed(x)
    for layer in m.layers: h = layer(h)
    test_tensor(m.forward_features(x), m.norm_f(h), rtol=1e-12, atol=1e-12)
    test_tensor(m(x), m.head(m.norm_f(h)[:,0]), rtol=1e-12, atol=1e-12)
    v = fill_by_rule(VideoMamba(**SIZES)).double() # the input of both is the same
    for k in ('patch_embed.proj.weight', 'patch_embed.proj.bias', 'pos_embed', 'cls_token', 'temporal_pos_embedding'):
        v.get_parameter(k).data.copy_(m.get_parameter(k).data)
    test_tensor(m.embed(x), v.embed(x), rtol=1e-12, atol=1e-12)

def test_start_of_the_tables():
    torch.manual_seed(0)
    m = JointTransformer(**SIZES | dict(img_size=64, num_frames=64), heads=4)
    for k in ('pos_embed', 'temporal_pos_embedding'): assert .015 < m.get_parameter(k).std() < .025
    for mlp_dim,hidden in ((None, 4*32), (5, 5)):
        assert JointTransformer(**SIZES, heads=4, mlp_dim=mlp_dim).layers[0].mlp[0].out_features == hidden
    assert m.no_weight_decay() <= {k for k,_ in m.named_parameters()}

@pytest.mark.parametrize('d_state,expand', [(4,2), (16,2), (16,3)])
def test_rival_is_as_close_as_it_can_be(d_state, expand):
    v = VideoMamba(**SIZES, ssm_cfg=dict(d_state=d_state, expand=expand))
    j = joint_like(v)
    assert abs(count(j)-count(v)) <= 2*(2*32+1)/2 # half of what one more unit in both MLPs adds
    for k in SIZES: assert j.config[k] == v.config[k]

def test_lengthen():
    torch.manual_seed(0)
    for m in (JointTransformer(**SIZES, heads=4), VideoMamba(**SIZES)):
        before = copy.deepcopy(m.state_dict())
        far = lengthen(m, 8, 200)
        for k,v in m.state_dict().items(): test_tensor(v, before[k])
        assert far.head.weight.shape == (200, 32) and .017 < far.head.weight.std() < .023 and not far.head.bias.any()
        assert far.config['num_classes'] == 200 and far.config['num_frames'] == 8 and m.config['num_frames'] == 4
        assert far(torch.zeros(1, 3, 8, 16, 16)).shape == (1, 200)

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32-1), st.integers(16, 80), st.data())
def test_windows_start_where_they_may(seed, n, data):
    "Every start that is right can come up, and no other; a window never holds the flash that it is not named for."
    rng = np.random.default_rng(seed)
    a,b = events.event_times(rng, n)
    window = data.draw(st.integers(2, n//2))
    for at in (a, b, None):
        want = set() if at is None else {at, at+1}
        inside = {s: {t for t in (a, a+1, b, b+1) if s <= t < s+window} for s in range(n-window+1)}
        allowed = {s for s,o in inside.items() if o == want and (at is not None or a < s < b)}
        drawn = {long_video._start(n, window, (a, b), at, rng) for _ in range(40)}
        assert drawn <= allowed
        if len(allowed) <= 4: assert drawn == allowed

def test_features_are_those_of_each_window():
    m = fill_by_rule(JointTransformer(**SIZES, heads=4))
    clips = [(input_by_rule(3, 12, 16, 16)*s, i) for i,s in enumerate((1, -1, .5))]
    x,y = clip_features(m, clips, batch_size=2)
    assert x.shape == (3, 3, 32) and y.tolist() == [0, 1, 2] and not m.training
    for i in range(3):
        for w in range(3):
            part = clips[i][0][None,:,4*w:4*w+4]
            test_tensor(x[i,w], m.forward_features(part)[0,0].detach(), rtol=1e-4, atol=1e-5)

def test_heads_forget_scale_and_repeat():
    g = torch.Generator().manual_seed(0)
    x,y = torch.randn(80, 3, 5, generator=g), torch.arange(80) % 2
    x[:,1,0] += 12*y-6
    train,test = (x[:60], y[:60]), (x[60:], y[60:])
    far = [(1000*o+70, t) for o,t in (train, test)]
    state = torch.random.get_rng_state()
    for kind in long_video.HEADS:
        a = fit_head(kind, train, test, steps=80, lr=.05)
        assert a == fit_head(kind, train, test, steps=80, lr=.05) and abs(a-fit_head(kind, *far, steps=80, lr=.05)) < .06
        assert a > .8
    assert (torch.random.get_rng_state() == state).all()
