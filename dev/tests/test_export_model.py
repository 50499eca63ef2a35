"Every variant of the model leaves Python and gives the same answers; what cannot says why, and leaves nothing behind."
import json
import subprocess
import sys

import pytest
import torch

from videomamba_nb import export, onnx_export
from videomamba_nb.core import fill_by_rule
from videomamba_nb.export import check_export, export_program, load_program, operators
from videomamba_nb.model import VideoMamba
from videomamba_nb.onnx_export import export_onnx, load_onnx
from videomamba_nb.scan_order import list_orders, temporal_first

SMALL = dict(img_size=16, patch_size=8, depth=1, embed_dim=16, num_classes=5, num_frames=2)
OTHER_MIXER = dict(d_state=5, d_conv=3, expand=1, conv_bias=False, bias=True)
VARIANTS = {
    'picture, one way, no head': dict(num_frames=None, bimamba=False, num_classes=0),
    'overlapping grey picture': dict(num_frames=None, stride=4, channels=1),
    'tubelets, layer norm': dict(num_frames=4, kernel_size=2, rms_norm=False),
    'oblong, other mixer, half stream': dict(img_size=(16, 24), ssm_cfg=OTHER_MIXER, residual_in_fp32=False),
    'checkpointed, dropped': dict(use_checkpoint=True, checkpoint_num=2, drop_rate=.5, fc_drop_rate=.5, drop_path_rate=.5),
    'order of its own': dict(scan_order=temporal_first),
    'order per layer': dict(scan_order=['snake', 'spatiotemporal_v1'], depth=2)}
SIZES = {'9 tokens': dict(img_size=32, num_frames=2, depth=2), '65 tokens': dict(img_size=64, num_frames=4, depth=3)}


def small(**kwargs): return fill_by_rule(VideoMamba(**SMALL | kwargs))

def plain(program): return not [k for k in operators(program) if not k.startswith('aten')]

@pytest.mark.parametrize('variant', VARIANTS)
def test_every_variant(variant):
    "As traced and in standard operators, for any number of clips; a model in training mode stays in it."
    model = small(**VARIANTS[variant]).train()
    program = export_program(model)
    assert 'videomamba_nb.scan.default' in operators(program)
    assert model.training and all(m.training for m in model.modules())
    assert check_export(program.module(), model, batches=(1, 3)) < 1e-5
    program = export.standard_operators(program)
    assert plain(program)
    assert check_export(program.module(), model, batches=(1, 3)) < 1e-5

@pytest.mark.parametrize('order', list_orders())
def test_every_order(order):
    "Two layers, since the orders differ between layers; plain tokens to and fro are all that an order adds."
    model = small(scan_order=order, depth=2)
    assert check_export(export_program(model).module(), model, batches=(1, 3)) < 1e-5

@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions(dtype):
    model = small().to(dtype)
    tol = 1e-10 if dtype == torch.float64 else 3e-2
    program = export_program(model, batch=2)
    for p in (program, export.standard_operators(program)): check_export(p.module(), model, (2,), tol)

@pytest.mark.parametrize('size', SIZES.values(), ids=SIZES)
def test_onnx(size, tmp_path):
    model = small(**size | dict(patch_size=16, embed_dim=32))
    report = export_onnx(model, tmp_path/'a.onnx', classes=['x', 'y'])
    run, about = load_onnx(tmp_path/'a.onnx', threads=1)
    assert report.error < 1e-5 and check_export(run, model, (1, 2, 5)) < 1e-5
    assert report.operators['Scan'] == size['depth']
    assert about['classes'] == ['x', 'y'] and about['shape'] == list(model.input_shape) and about['mean']
    assert [p.name for p in tmp_path.iterdir()] == ['a.onnx']
    assert b'site-packages' not in (tmp_path/'a.onnx').read_bytes(), 'no traces of the machine'

def test_onnx_of_other_variants(tmp_path):
    "A picture model without a head, one direction only; two paths in a layer, in blocks, for one clip."
    model = small(num_frames=None, num_classes=0, bimamba=False, rms_norm=False, channels=1)
    export_onnx(model, tmp_path/'picture.onnx', opset=23)
    run, about = load_onnx(tmp_path/'picture.onnx')
    assert (about['input'], about['output'], 'mean' in about) == ('image', 'features', False)
    assert check_export(run, model) < 1e-5
    model = small(scan_order=['spatiotemporal_v1'])
    report = export_onnx(model, tmp_path/'paths.onnx', batch=1, scan='blocks')
    assert report.error < 1e-5 and 'Scan' not in report.operators
    assert load_onnx(tmp_path/'paths.onnx')[1]['config']['scan_order'] == ['spatiotemporal_v1']

def test_an_order_of_its_own_is_described_by_name():
    assert export._about(small(scan_order=[temporal_first]))['config']['scan_order'] == ['temporal_first']
    assert export._about(small(scan_order=temporal_first), classes=['a'])['config']['scan_order'] == 'temporal_first'

def test_onnx_reads_alone(tmp_path):
    "A Python without PyTorch and without this package runs the file."
    model = small()
    export_onnx(model, tmp_path/'a.onnx')
    code = '''
import sys
sys.modules['torch'] = sys.modules['videomamba_nb'] = None
import json, numpy, onnxruntime
s = onnxruntime.InferenceSession('a.onnx', providers=['CPUExecutionProvider'])
print(json.dumps(s.run(None, {'clip': numpy.ones((2, 3, 2, 16, 16), numpy.float32)})[0].tolist()))'''
    out = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-500:]
    with torch.no_grad(): want = model(torch.ones(2, 3, 2, 16, 16))
    torch.testing.assert_close(torch.tensor(json.loads(out.stdout)), want, rtol=1e-4, atol=1e-4)

def test_nothing_wrong_is_left_behind(tmp_path, monkeypatch):
    "A file whose answers are wrong never gets its name."
    model, wrong = small(), small()
    torch.nn.init.zeros_(wrong.layers[0].mixer.x_proj_b.weight)
    trace = export._trace
    monkeypatch.setattr(onnx_export, '_trace', lambda _, batch: trace(wrong, batch))
    with pytest.raises(AssertionError): export_onnx(model, tmp_path/'a.onnx')
    assert not list(tmp_path.iterdir())

def test_onnx_without_onnxruntime(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    report = export_onnx(small(), tmp_path/'a.onnx', batch=1)
    assert report.error is None and 'not checked: pip install onnxruntime' in repr(report)
    with pytest.raises(ImportError, match='pip install onnxruntime'): load_onnx(tmp_path/'a.onnx')

def test_onnx_without_the_exporter(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    with pytest.raises(ImportError, match='pip install onnx onnxscript'): export_onnx(small(), tmp_path/'a.onnx')
    assert not list(tmp_path.iterdir())

def test_limits(tmp_path, monkeypatch):
    model,half = small(),small().bfloat16()
    with pytest.raises(ValueError, match='opset must be from 18'): export_onnx(model, tmp_path/'a.onnx', opset=11)
    with pytest.raises(ValueError, match='torch.bfloat16; use model.float'): export_onnx(half, tmp_path/'a.onnx')
    with pytest.raises(ValueError, match="batch must be 'dynamic'"): export_program(model, batch=-1)
    with pytest.raises(ValueError, match="batch must be 'dynamic'"): export_onnx(model, tmp_path/'a.onnx', batch='any')
    monkeypatch.setattr(onnx_export, '_MOST', 1000)
    with pytest.raises(ValueError, match='holds 2 GB at most'): export_onnx(model, tmp_path/'a.onnx')
    with monkeypatch.context() as m:
        m.setattr(torch.onnx, 'export', lambda model, f: None) # as in a PyTorch of long ago
        with pytest.raises(ValueError, match='use a newer one'): export_onnx(model, tmp_path/'a.onnx')
    for forced in ('seq', 'tree'):
        monkeypatch.setenv('VIDEOMAMBA_SCAN', forced)
        with pytest.raises(ValueError, match='unset it to export'): export_program(model)
    assert not list(tmp_path.iterdir())

def test_traced_without_kernels(monkeypatch, tmp_path):
    "Where the compiled kernels are out of the way, the scan is still one operator."
    monkeypatch.setenv('VIDEOMAMBA_SCAN', 'chunked')
    model = small()
    program = export_program(model, tmp_path/'a.pt2', note=1)
    assert [k for k in operators(program) if 'videomamba' in k] == ['videomamba_nb.scan.default']
    program, about = load_program(tmp_path/'a.pt2')
    assert about['note'] == 1 and check_export(program.module(), model) < 1e-5
    assert plain(export.standard_operators(program))
