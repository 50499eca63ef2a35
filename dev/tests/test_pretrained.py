"From files to models: official layouts of the real sizes, damaged files, and models that stay as they were."
import io
import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from videomamba_nb.checkpoint import WeightsError
from videomamba_nb.core import fill_by_rule
from videomamba_nb.model import VideoMamba, create_model
from videomamba_nb.weights import load_weights, save_official
from videomamba_nb.zoo import find_weights

SIZE = dict(img_size=16, patch_size=8, depth=1, embed_dim=16, num_frames=2, num_classes=3)
NAME = 'videomamba_t16_k400_f8_res224'


def torch_bytes(o, **kw):
    f = io.BytesIO()
    torch.save(o, f, **kw)
    return f.getvalue()

@pytest.fixture(scope='module')
def model(): return fill_by_rule(VideoMamba(**SIZE))

@pytest.fixture(scope='module')
def whole(model):
    "The same weights in each format."
    state = model.state_dict()
    return dict(zip=torch_bytes(state), old=torch_bytes({'model': state}, _use_new_zipfile_serialization=False),
                safetensors=save(state))

def unchanged(model, source):
    "Loading must end in a WeightsError of a few lines, and leave every number alone."
    own = {k: v.clone() for k,v in model.state_dict().items()}
    with pytest.raises(WeightsError) as e: load_weights(model, source)
    assert all(torch.equal(v, own[k]) for k,v in model.state_dict().items())
    assert len(str(e.value)) < 2000
    return str(e.value)


# ---- damage

@pytest.mark.parametrize('kind', ['zip', 'old', 'safetensors'])
@pytest.mark.parametrize('share', [0, .001, .01, .1, .25, .5, .75, .9, .99, .999])
def test_cut_short(tmp_path, whole, kind, share):
    (tmp_path/'f').write_bytes(whole[kind][:int(share*len(whole[kind]))])
    assert 'f' in unchanged(VideoMamba(**SIZE), tmp_path/'f')

def spoiled(state):
    "State dicts that are no weights of this model, by what is wrong."
    k,v = 'layers.0.mixer.D',state['layers.0.mixer.D']
    yield 'empty', {}
    yield 'a list', {'model': [1, 2]}
    yield 'texts', dict.fromkeys(state, 'x')
    yield 'nan', state | {k: v*torch.nan}
    yield 'infinite', state | {k: v/0}
    yield 'whole numbers', {o: x.long() for o,x in state.items()}
    yield 'complex', state | {k: v.to(torch.complex64)}
    yield 'turned', state | {'head.weight': state['head.weight'].T.contiguous()}
    yield 'one too few', {o: x for o,x in state.items() if o != k}
    yield 'one too many', state | {'more': v}
    yield 'no layers', {o: x for o,x in state.items() if not o.startswith('layers')}
    yield 'another depth', state | {o.replace('layers.0', 'layers.1'): x for o,x in state.items() if 'layers.0' in o}
    yield 'one direction', {o: x for o,x in state.items() if '_b' not in o}
    yield 'another prefix', {f'net.{o}': x for o,x in state.items()}
    yield 'twice', state | {f'module.{o}': x for o,x in state.items()}

WRONG = ['empty', 'a list', 'texts', 'nan', 'infinite', 'whole numbers', 'complex', 'turned', 'one too few', 'one too many',
         'no layers', 'another depth', 'one direction', 'another prefix', 'twice']

@pytest.mark.parametrize('wrong', WRONG)
def test_spoiled(tmp_path, model, wrong):
    state = dict(spoiled(model.state_dict()))[wrong]
    unchanged(VideoMamba(**SIZE), state)
    torch.save(state, tmp_path/'f.pth')
    assert 'f.pth' in unchanged(VideoMamba(**SIZE), tmp_path/'f.pth')

@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(['zip', 'old', 'safetensors']), at=st.floats(0, 1, exclude_max=True), byte=st.integers(1, 255))
def test_a_flipped_byte(tmp_path, whole, kind, at, byte):
    "All is loaded, or nothing and a WeightsError: safetensors and the old format have no checksum, zip archives do."
    data = bytearray(whole[kind])
    data[int(at*len(data))] ^= byte
    (tmp_path/'f').write_bytes(data)
    model = VideoMamba(**SIZE)
    own = {k: v.clone() for k,v in model.state_dict().items()}
    try: assert not load_weights(model, tmp_path/'f').problems
    except WeightsError: assert all(torch.equal(v, own[k]) for k,v in model.state_dict().items())

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(tmp_path, model, dtype):
    torch.save({k: v.to(dtype) for k,v in model.state_dict().items()}, tmp_path/'f.pth')
    again = VideoMamba.from_pretrained(tmp_path/'f.pth')
    for k,v in model.state_dict().items(): assert torch.equal(again.state_dict()[k], v.to(dtype).float())


# ---- published names, from a cache as the hub's client keeps it

def cached(folder, data, name=NAME):
    "A cache that holds `data` as one published file."
    repo = folder/'models--OpenGVLab--VideoMamba'
    for o in ('blobs', 'refs', f'snapshots/{"1"*40}'): (repo/o).mkdir(parents=True, exist_ok=True)
    (repo/'refs'/'main').write_text('1'*40)
    (repo/'blobs'/'b').write_bytes(data)
    link = repo/f'snapshots/{"1"*40}/{name}.pth'
    link.symlink_to('../../blobs/b')
    return link

def test_a_published_name_without_a_network(tmp_path):
    "The architecture, layout and classes of the real file, numbers of our own: one line, offline."
    real = fill_by_rule(create_model('videomamba_tiny', num_classes=400, num_frames=8))
    save_official(real, tmp_path/'f')
    cached(tmp_path, (tmp_path/'f').read_bytes())
    model = VideoMamba.from_pretrained(NAME, cache_dir=tmp_path, local_files_only=True)
    assert model.classes[0] == 'riding a bike' and len(model.classes) == 400 and not model.report.untouched
    for k,v in real.state_dict().items(): assert torch.equal(model.state_dict()[k], v)
    longer = VideoMamba.from_pretrained(NAME, cache_dir=tmp_path, local_files_only=True, num_frames=16, num_classes=10)
    assert longer.classes is None and longer.report.untouched == ['head.weight', 'head.bias']
    assert longer.temporal_pos_embedding.shape == (1, 16, 192)

@pytest.mark.parametrize('wrong', ['another size', 'cut', 'a page'])
def test_a_wrong_file_leaves_the_cache(tmp_path, model, whole, wrong):
    data = {'another size': whole['zip'], 'cut': whole['zip'][:-500], 'a page': b'<html>404</html>'}[wrong]
    link = cached(tmp_path, data)
    with pytest.raises((WeightsError, OSError), match=NAME):
        VideoMamba.from_pretrained(NAME, cache_dir=tmp_path, local_files_only=True)
    assert not os.path.lexists(link) and not list((tmp_path/'models--OpenGVLab--VideoMamba'/'blobs').iterdir())

def test_a_wish_that_fails_keeps_the_cache(tmp_path):
    "The user asks for another depth: the file is right, and stays."
    save_official(create_model('videomamba_tiny', num_classes=400, num_frames=8), tmp_path/'f')
    link = cached(tmp_path, (tmp_path/'f').read_bytes())
    with pytest.raises(WeightsError): VideoMamba.from_pretrained(NAME, cache_dir=tmp_path, local_files_only=True, depth=3)
    assert link.exists()

def test_frames_that_the_file_really_holds(tmp_path):
    "One published file says 64 frames and holds 32: the model is built for what is there."
    row = find_weights('videomamba_m16_breakfast_mask_ft_f64_res224')
    assert (row.frames, row.config()['num_frames']) == (64, 32)
