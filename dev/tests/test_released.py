"Files in the official video-text layout, in every wrapping they may come in, and with anything wrong with them."
import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from videomamba_nb.checkpoint import WeightsError
from videomamba_nb.layout import official_keys
from videomamba_nb.released import load_released, official_state, open_released, read_released, save_released
from videomamba_nb.towers import VideoTextConfig
from videomamba_nb.videotext import VideoText

CONFIG = VideoTextConfig(
    dict(num_frames=2, img_size=16, patch_size=8, depth=2, embed_dim=8, clip_output_dim=6, align_pre_last=True),
    dict(vocab_size=12, hidden_size=8, layers=2, fusion_layer=1, heads=2, intermediate_size=8, positions=6, dropout=0.), 4)
SHAPES = official_keys(CONFIG, (8, 1, 8, 4, 6))
NAMES = sorted(SHAPES)
TWINS = ['text_encoder.cls.predictions.decoder.weight', 'text_encoder.cls.predictions.decoder.bias']
few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def numbered(model, seed):
    "The model with numbers of its own, exact in bfloat16."
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters(): p.copy_(torch.randn(p.shape, generator=g).bfloat16())
    return model

def official(seed=1, mlm=True):
    "What a file holds, its teacher included."
    eyes = {k.removeprefix('clip_teacher.'): torch.ones(v) for k,v in SHAPES.items() if k.startswith('clip_teacher.')}
    return official_state(numbered(VideoText(CONFIG.change(text=dict(mlm=mlm))), seed), eyes)

def same(a, b): return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k,v in a.items())

def plain(state): return {k.replace('.bert.', '.'): v for k,v in state.items() if '.cls.' not in k}


@few
@given(st.sampled_from([(), ('model',), ('module',), ('model','module')]), st.sampled_from(['', 'module.', 'model.']),
       st.sampled_from([torch.float32, torch.bfloat16, torch.float64]), st.booleans(), st.booleans(), st.booleans(),
       st.booleans(), st.booleans())
def test_wrapping(entries, prefix, dtype, twins, places, teacher, file_mlm, model_mlm):
    "Whatever it is wrapped in, the same numbers arrive, or what is missing is named."
    state = official(mlm=file_mlm)
    if not twins: state = {k: v for k,v in state.items() if k not in TWINS}
    if not places: state = {k: v for k,v in state.items() if not k.endswith('position_ids')}
    if not teacher: state = {k: v for k,v in state.items() if not k.startswith('clip_teacher')}
    content = {prefix+k: v.to(dtype) if v.is_floating_point() else v for k,v in state.items()}
    for o in entries: content = {o: content, 'epoch': 3}
    model = numbered(VideoText(CONFIG.change(text=dict(mlm=model_mlm))), 2)
    if model_mlm and not file_mlm:
        with pytest.raises(WeightsError, match='mlm=False'): load_released(model, content)
        return
    report = load_released(model, content)
    want = numbered(VideoText(CONFIG.change(text=dict(mlm=file_mlm))), 1).state_dict()
    assert same(model.state_dict(), want if file_mlm == model_mlm else plain(want))
    assert report.untouched == [] and sorted(report.loaded) == sorted(model.state_dict())
    assert len(report.unused) == 20*teacher + 7*(file_mlm and not model_mlm)


@few
@given(st.sampled_from([k for k in NAMES if k not in TWINS and 'position_ids' not in k]),
       st.sampled_from(['gone','renamed','larger','nan','twice']))
def test_one_thing_wrong(name, how):
    "One tensor that is not as it should be is named, and the model stays as it was."
    state,model = official(),numbered(VideoText(CONFIG), 2)
    eyes = name.startswith('clip_teacher')
    if how in ('gone','renamed'): v = state.pop(name)
    if how == 'renamed': state[name+'_'] = v
    if how == 'larger': state[name] = torch.ones(*state[name].shape, 2)
    if how == 'nan': state[name] = state[name]*float('nan')
    if how == 'twice': state['module.'+name] = state[name]
    before = {k: v.clone() for k,v in model.state_dict().items()}
    if eyes and how in ('gone','renamed','larger'): # nobody asked for it
        load_released(model, state)
        return
    words = 'two models' if how == 'twice' else name.split('.')[-1]
    with pytest.raises(WeightsError, match=words): load_released(model, state)
    assert same(model.state_dict(), before)


@pytest.mark.parametrize('mlm', [True, False])
@pytest.mark.parametrize('end', ['.pth', '.pt'])
def test_through_a_file(tmp_path, mlm, end):
    "What was saved comes back bit for bit, into a model that the file alone describes."
    model,path = numbered(VideoText(CONFIG.change(text=dict(mlm=mlm))), 3),tmp_path/f'a{end}'
    for dtype in (torch.float32, torch.bfloat16):
        save_released(model, path, dtype=dtype)
        assert same(open_released(path, heads=2).state_dict(), model.state_dict())
    assert read_released(path).teacher == {}

def test_files_that_are_something_else(tmp_path):
    (tmp_path/'text.pth').write_text('<html>not found</html>')
    torch.save({'model': {'a': torch.ones(2)}}, tmp_path/'other.pth')
    for file,words in (('text.pth','web page'), ('other.pth','expected a video-text model, found unknown')):
        with pytest.raises(WeightsError, match=words): read_released(tmp_path/file)
