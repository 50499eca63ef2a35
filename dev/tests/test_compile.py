"Compilers and exporters see through the whole model: scan, convolution and norm are operators of PyTorch."
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from videomamba_nb import build
from videomamba_nb.core import fill_by_rule, input_by_rule, test_tensor
from videomamba_nb.model import VideoMamba


def small(**kwargs):
    size = dict(img_size=16, patch_size=8, depth=2, embed_dim=32, num_classes=5, num_frames=4)
    return fill_by_rule(VideoMamba(**size | kwargs)), input_by_rule(2, 3, 4, 16, 16)

@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()

@pytest.mark.parametrize('backend', ['eager', 'aot_eager'])
def test_compiled_model_gives_the_same(backend):
    "One graph without a break, equal logits and equal gradients."
    m,x = small()
    compiled = torch.compile(m, backend=backend, fullgraph=True)
    test_tensor(compiled(x), m(x), rtol=1e-5, atol=1e-6)
    grads = [torch.autograd.grad(f(x).square().sum(), list(m.parameters())) for f in (m, compiled)]
    for a,b in zip(*grads): test_tensor(a, b, rtol=1e-4, atol=1e-5)

def test_compiled_without_gradients():
    m,x = small()
    with torch.no_grad(): test_tensor(torch.compile(m, backend='aot_eager', fullgraph=True)(x), m(x), rtol=1e-5, atol=1e-6)

def test_exported_model_gives_the_same():
    m,x = small()
    program = torch.export.export(m, (x,))
    test_tensor(program.module()(x), m(x), rtol=1e-5, atol=1e-6)
    names = {str(n.target) for n in program.graph.nodes}
    assert 'videomamba_nb.scan.default' in names

def test_exported_model_survives_a_file(tmp_path):
    m,x = small()
    torch.export.save(torch.export.export(m, (x,)), tmp_path/'model.pt2')
    test_tensor(torch.export.load(tmp_path/'model.pt2').module()(x), m(x), rtol=1e-5, atol=1e-6)

def test_the_short_way_steps_aside():
    "Where someone looks on, the mixer runs part by part; the numbers do not change."
    m,x = small()
    with torch.no_grad():
        want = m(x)
        with FlopCounterMode(display=False) as counter: test_tensor(m(x), want, rtol=1e-5, atol=1e-6)
    d,e,l = 32,64,1+4*2*2
    products = 2*2*2*l*(3*d*e + 2*e*(2+2*16))         # clips x layers x 2 x (in, out, two x_proj)
    assert counter.get_total_flops() > products

VARIANTS = {
    'picture': dict(num_frames=None), 'tubelets': dict(kernel_size=2), 'layer norm': dict(rms_norm=False),
    'one way': dict(bimamba=False), 'features': dict(num_classes=0),
    'two paths': dict(scan_order='spatiotemporal_v1'), 'two passes': dict(scan_order='spatiotemporal_v2'),
    'order per layer': dict(scan_order=['hilbert', 'cross_scan']), 'small state': dict(ssm_cfg=dict(d_state=5))}

@pytest.mark.parametrize('variant', VARIANTS)
def test_compiled_variants(variant):
    "One graph without a break for every kind of model."
    m = small(**VARIANTS[variant])[0]
    x = input_by_rule(2, *m.input_shape)
    with torch.no_grad(): test_tensor(torch.compile(m, backend='aot_eager', fullgraph=True)(x), m(x), rtol=1e-5, atol=1e-6)

@pytest.mark.skipif(not build.compilers(), reason='inductor needs a C++ compiler')
def test_compiled_by_inductor():
    m,x = small(depth=1)
    with torch.no_grad(): test_tensor(torch.compile(m, fullgraph=True)(x), m(x), rtol=1e-4, atol=1e-5)
