"Words and text encoder against `transformers`, and on captions, sizes and lengths that nobody chose by hand."
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videomamba_nb.core import test_tensor as same
from videomamba_nb.text_encoder import TextEncoder, load_bert
from videomamba_nb.words import SPECIAL, Words, clean_caption

few = settings(max_examples=40, deadline=None)
captions = st.lists(st.text(st.sampled_from("abcd é,.!-/%&猫😀 \t"), min_size=1, max_size=30), min_size=1, max_size=4)
SIZE = dict(vocab_size=40, hidden_size=16, layers=4, fusion_layer=2, heads=4, intermediate_size=24, positions=12,
            encoder_width=10)
BOTH = (torch.float32, 2e-6), (torch.float64, 1e-12)


@pytest.fixture(scope='module')
def hf():
    return pytest.importorskip('transformers')

def wild(m, dtype):
    "Weights in which no part can hide."
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in m.parameters(): p.copy_(torch.randn(p.shape, generator=g)*.3)
    return m.to(dtype).eval()

def batch(dtype):
    g = torch.Generator().manual_seed(1)
    ids,mask = torch.randint(40, (3,9), generator=g),torch.arange(9) < torch.tensor([[9],[5],[2]])
    return ids, mask, torch.randn(3,7,10, generator=g, dtype=dtype)

def common():
    keys = dict(vocab_size=40, hidden_size=16, num_attention_heads=4, intermediate_size=24, layer_norm_eps=1e-12)
    return keys | dict(max_position_embeddings=12, hidden_act='gelu')

def part(state, start): return {k.removeprefix(start): v for k,v in state.items() if k.startswith(start)}


# ---- the encoder against two classes of transformers

@pytest.mark.parametrize('dtype,tol', BOTH)
def test_first_half_is_bert(hf, dtype, tol):
    m = wild(TextEncoder(**SIZE), dtype)
    ref = hf.BertModel(hf.BertConfig(**common(), num_hidden_layers=2), add_pooling_layer=False).to(dtype).eval()
    state = {k: v for k,v in part(m.state_dict(), 'bert.').items() if k in ref.state_dict()}
    assert ref.load_state_dict(state, strict=False).missing_keys in ([], ['embeddings.position_ids'])
    ids,mask,_ = batch(dtype)
    same(m.encode(ids, mask)[mask], ref(ids, attention_mask=mask.long()).last_hidden_state[mask], tol, tol)

@pytest.mark.parametrize('dtype,tol', BOTH)
def test_second_half_is_blip(hf, dtype, tol):
    m = wild(TextEncoder(**SIZE, mlm=False), dtype)
    odd = dict(bos_token_id=1, sep_token_id=2, eos_token_id=2)
    config = hf.BlipTextConfig(**common(), **odd, num_hidden_layers=2, encoder_hidden_size=10, is_decoder=True)
    ref = hf.BlipTextModel(config, add_pooling_layer=False).to(dtype).eval()
    state = m.state_dict()
    state = {f'encoder.layer.{i}.{k}': v for i in range(2) for k,v in part(state, f'encoder.layer.{i+2}.').items()}
    left = ref.load_state_dict(state, strict=False)
    assert not left.unexpected_keys and all(k.startswith('embeddings.') for k in left.missing_keys)
    ids,mask,vision = batch(dtype)
    hidden = m.encode(ids, mask)
    args = dict(attention_mask=mask.long(), encoder_hidden_states=vision, is_decoder=False)
    same(m.fuse(hidden, mask, vision)[mask], ref(encoder_embeds=hidden, **args).last_hidden_state[mask], tol, tol)
    args['encoder_hidden_states'] = vision[:,:3] # that class ignores a mask of patches here, so cut them off
    want = ref(encoder_embeds=hidden, **args).last_hidden_state[mask]
    same(m.fuse(hidden, mask, vision, torch.arange(7).expand(3,7) < 3)[mask], want, tol, tol)

@pytest.mark.parametrize('dtype,tol', BOTH)
def test_head_is_that_of_bert(hf, dtype, tol):
    m = wild(TextEncoder(**SIZE), dtype)
    ref = hf.BertForMaskedLM(hf.BertConfig(**common(), num_hidden_layers=2)).to(dtype).eval()
    ref.load_state_dict({k: v for k,v in m.state_dict().items() if k in ref.state_dict()}, strict=False)
    hidden = torch.randn(2,3,16, dtype=dtype)
    same(m.predict_words(hidden), ref.cls(hidden), tol, tol)

def test_weights_of_bert_are_taken(hf, tmp_path):
    ref = hf.BertForMaskedLM(hf.BertConfig(**common(), num_hidden_layers=4)).eval()
    ref.save_pretrained(tmp_path)
    m = TextEncoder(**SIZE | dict(fusion_layer=3)).eval()
    report = load_bert(m, tmp_path)
    assert len(report.untouched) == 10 and all('.crossattention.' in k for k in report.untouched)
    ids,mask,_ = batch(torch.float32)
    want = ref.bert(ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states[3]
    same(m.encode(ids, mask)[mask], want[mask], 1e-5, 1e-6)
    same(m.predict_words(want), ref.cls(want), 1e-5, 1e-6)


# ---- promises

@few
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 3), st.integers(1, 5), st.integers(0, 99))
def test_padding_and_company_change_nothing(lengths, more, patches, seed):
    torch.manual_seed(seed)
    m = TextEncoder(**SIZE).eval()
    n,b = max(lengths),len(lengths)
    ids,vision = torch.randint(40, (b,n+more)),torch.randn(b,patches,10)
    mask = torch.arange(n+more) < torch.tensor(lengths)[:,None]
    full = m.read(ids, mask, vision)
    for i,k in enumerate(lengths):
        row = slice(i, i+1)
        same(full[row,:k], m.read(ids[row,:k], mask[row,:k], vision[row]), 1e-4, 1e-5)


# ---- words

def vocabulary(tmp_path):
    path = tmp_path/'vocab.txt'
    tokens = [*SPECIAL, *'abcd', '##a', '##b', '##c', 'ab', '##cd', 'e', '猫', '%', ',', '!', 'cab', 'dad', '##dad']
    path.write_text('\n'.join(tokens)+'\n', encoding='utf-8')
    return path

@pytest.fixture(scope='module')
def pair(hf, tmp_path_factory):
    path = vocabulary(tmp_path_factory.mktemp('words'))
    ref = hf.BertTokenizer(str(path), do_lower_case=True)
    ref.save_pretrained(path.parent/'saved') # with a tokenizer.json of its own making
    return [Words.load(path, max_len=12), Words.load(path.parent/'saved', max_len=12)], ref

@few
@given(captions)
def test_ids_are_those_of_bert(pair, texts):
    ours,ref = pair
    texts = [o for o in map(clean_caption, texts) if ref.tokenize(o)]
    if not texts: return
    want = ref(texts, padding='max_length', truncation=True, max_length=12, return_tensors='pt')
    for words in ours:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            t = words(texts, 12)
        same(t.ids, want['input_ids'])
        same(t.mask, want['attention_mask'].bool())
