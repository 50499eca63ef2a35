"""Files that are damaged, or made to hurt: each opens as it was meant to, or is a WeightsError of a few lines.

Nothing in a file runs, no file costs much more memory than its size, and no error is one of another kind.
"""
import argparse
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from notebooks import ROOT
from safetensors.torch import save

from videomamba_nb.checkpoint import WeightsError, describe_state, read_file, unwrap

OLD = dict(_use_new_zipfile_serialization=False)
STATE = {'bias': torch.arange(3.), 'weight': torch.ones(4, 3, dtype=torch.float16), 'n': torch.tensor(5)}


def torch_bytes(o, **kwargs):
    f = io.BytesIO()
    torch.save(o, f, **kwargs)
    return f.getvalue()

ZIP,STREAM,SAFE = torch_bytes(STATE),torch_bytes(STATE, **OLD),save(STATE, metadata={'made': 'today'})
WHOLE = {'zip': ZIP, 'stream': STREAM, 'safetensors': SAFE}


class Call:
    "Its pickle calls a function."
    def __init__(self, f, *args): self.call = f,args
    def __reduce__(self): return self.call

class Own:
    "A class of ours, with a method that Python calls when it opens the pickle."
    def __setstate__(self, state): Path(state['marker']).touch()
    def __getstate__(self): return {'marker': MARKER}

MARKER = str(Path(__file__).with_name('.marker_of_test_damaged'))

@pytest.fixture(autouse=True)
def nothing_ran():
    yield
    ran = Path(MARKER).exists()
    Path(MARKER).unlink(missing_ok=True)
    assert not ran, 'something in a file was run'

def refused(path, *words):
    "The error for a file, which must be short and hold these words."
    with pytest.raises(WeightsError) as e: read_file(path)
    text = str(e.value)
    assert len(text) < 600 and str(path) in text, text
    assert 'weights_only=False' not in text
    for w in words: assert w in text, text
    return text

def put(tmp_path, data):
    (tmp_path/'f.pth').write_bytes(data)
    return tmp_path/'f.pth'


# ---- what is fine

def same(a, b): return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)

@pytest.mark.parametrize('kind', WHOLE)
def test_a_whole_file_opens_under_any_name(tmp_path, kind):
    for name in ('a.pth','a.safetensors','a','a.zip'):
        (tmp_path/name).write_bytes(WHOLE[kind])
        content,about = read_file(tmp_path/name)
        assert same(content, STATE) and about == ({'made': 'today'} if kind == 'safetensors' else {})

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64, torch.bool, torch.complex64])
def test_kinds_of_numbers(tmp_path, dtype):
    state = {'w': torch.arange(6).reshape(2, 3).to(dtype)}
    for how in ({}, OLD): assert same(read_file(put(tmp_path, torch_bytes(state, **how)))[0], state)

@pytest.mark.parametrize('protocol', [3, 4, 5])
def test_versions_of_pickle(tmp_path, protocol):
    "`weights_only` reads version 2 alone."
    for how in ({}, OLD):
        refused(put(tmp_path, torch_bytes(STATE, pickle_protocol=protocol, **how)), f'pickle_protocol={protocol}')

def training_file():
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4])
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    args = argparse.Namespace(lr=1e-3, model='videomamba_tiny', opt_betas=None, output_dir=Path('runs'), crops=[1, 3],
                              distributed=True, window_size=(8, 14, 14), device=torch.device('cuda:1'))
    return dict(model=model.state_dict(), optimizer=optimizer.state_dict(), lr_scheduler=scheduler.state_dict(), epoch=7,
                scaler={'scale': 65536., 'growth_factor': 2., '_growth_tracker': 0}, args=args,
                model_ema={k: v+1 for k,v in model.state_dict().items()})

@pytest.mark.parametrize('how', [{}, OLD])
def test_a_training_file_opens_whole(tmp_path, how):
    full = training_file()
    content,_ = read_file(put(tmp_path, torch_bytes(full, **how)))
    args = content['args']
    assert content.keys() == full.keys() and args.window_size == (8, 14, 14) and str(args.output_dir) == 'runs'
    assert content['lr_scheduler']['milestones'] == {2: 1, 4: 1}
    state,notes = unwrap(content)
    assert same(state, full['model']) and 'optimizer' in notes[0]
    assert same(unwrap(content, 'model_ema')[0], full['model_ema'])

def test_a_tensor_outlives_its_file(tmp_path):
    "Whoever overwrites a file while its tensors are in use must not end the process."
    for data in WHOLE.values():
        content,_ = read_file(put(tmp_path, data))
        put(tmp_path, b'')
        assert same(content, STATE)

def test_location_is_ignored(tmp_path):
    "A file that was saved on a GPU opens without one."
    data = rezip(lambda d: d.replace(b'\x03\0\0\0cpu', b'\x06\0\0\0cuda:3'))
    assert b'cuda:3' in data and same(read_file(put(tmp_path, data))[0], STATE)

# ---- damaged archives

def rezip(program=None, compress=zipfile.ZIP_STORED, **change):
    "The small archive with some members changed: name with `__` for a slash -> bytes, or None to leave it out."
    out,change = io.BytesIO(),{k.replace('__', '/'): v for k,v in change.items()}
    with zipfile.ZipFile(io.BytesIO(ZIP)) as z, zipfile.ZipFile(out, 'w', compress) as new:
        for o in z.infolist():
            name,data = o.filename.split('/', 1)[1],z.read(o)
            if program and name == 'data.pkl': data = program(data)
            data = change.get(name, data)
            if data is not None: new.writestr(o.filename, data)
    return out.getvalue()

def with_program(data): return rezip(lambda _: data)

def two_descriptions():
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as z:
        for k in 'ab': z.writestr(f'{k}/data.pkl', b'N.')
    return out.getvalue()

def overlapping():
    "A table of contents in which a thousand members share the bytes of one."
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as z:
        z.writestr('a/data.pkl', b'}.')
        z.writestr('a/data/0', bytes(10000))
        first = z.infolist()[1]
        for i in range(1, 1000):
            o = zipfile.ZipInfo(f'a/data/{i}')
            o.header_offset,o.file_size,o.compress_size,o.CRC = first.header_offset,10000,10000,first.CRC
            z.filelist.append(o)
        z._didModify = True
    return out.getvalue()

ARCHIVES = {
    'no description': (rezip(**{'data.pkl': None}), 'no data.pkl'),
    'two descriptions': (two_descriptions(), 'no data.pkl'),
    'an empty archive': (b'PK\5\6'+bytes(18), 'no data.pkl'),
    'a missing block': (rezip(data__0=None), 'missing'),
    'a short block': (rezip(data__0=b'abcd'), 'size'),
    'a long block': (rezip(data__0=bytes(999)), 'size'),
    'compressed': (rezip(compress=zipfile.ZIP_DEFLATED), 'unpack'),
    'a bomb': (rezip(compress=zipfile.ZIP_DEFLATED, data__0=bytes(10**7)), 'unpack'),
    'overlapping members': (overlapping(), 'unpack'),
    'wrong magic': (b'QK'+ZIP[2:], 'neither .pth nor .safetensors'),
    'half a description': (rezip(lambda d: d[:60]), 'damaged'),
    'an empty description': (with_program(b''), 'damaged'),
    'noise as description': (with_program(bytes(range(128, 256))), ''),
}

@pytest.mark.parametrize('what', ARCHIVES)
def test_archive(tmp_path, what):
    data,word = ARCHIVES[what]
    refused(put(tmp_path, data), word)

def test_torchscript(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as z:
        for k in ('data.pkl','constants.pkl'): z.writestr(f'a/{k}', b'}.')
    refused(put(tmp_path, out.getvalue()), 'TorchScript')

def test_a_deleted_or_flipped_number_is_noticed(tmp_path):
    at = ZIP.index(struct.pack('<3f', 0, 1, 2))
    refused(put(tmp_path, ZIP[:at+4]+b'\x01'+ZIP[at+5:]), 'damaged')

@pytest.mark.parametrize('kind', WHOLE)
def test_cut_off_anywhere(tmp_path, kind):
    data = WHOLE[kind]
    for n in sorted({*range(0, len(data), 41), *range(1, 40), len(data)-1}): refused(put(tmp_path, data[:n]))

@pytest.mark.parametrize('kind', WHOLE)
def test_header_bytes(tmp_path, kind):
    "Each of the first hundred bytes takes a few other values: refused, or no tensor changes."
    data = WHOLE[kind]
    for i in range(100):
        for flip in (1, 0x80, 0xff): opens_or_is_refused(tmp_path, data[:i]+bytes([data[i]^flip])+data[i+1:])


# ---- hostile programs

def forge(size=b'(K\x04K\x03t', stride=b'(K\x03K\x01t', offset=b'K\x00', numel=b'K\x0c', kind=b'ctorch\nFloatStorage\n',
          key=b'X\x01\0\0\x000', call=b'ctorch._utils\n_rebuild_tensor_v2\n', nbytes=48):
    "An archive with one tensor, `{'w': tensor}`, written by hand."
    storage = b'(X\x07\0\0\0storage'+kind+key+b'X\x03\0\0\0cpu'+numel+b'tQ'
    program = b'\x80\x02}X\x01\0\0\0w'+call+b'('+storage+offset+size+stride+b'\x89}tRs.'
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as z:
        for k,v in (('data.pkl', program), ('data/0', bytes(nbytes)), ('version', b'3\n')): z.writestr(f'a/{k}', v)
    return out.getvalue()

def test_the_forged_file_is_right(tmp_path):
    assert same(read_file(put(tmp_path, forge()))[0], {'w': torch.zeros(4, 3)})

HUGE = b'\x8a\x06'+(2**44).to_bytes(6, 'little') # an integer
FORGED = {
    'a huge tensor': dict(size=b'('+HUGE+b'K\x03t'),
    'a huge tensor that repeats one number': dict(size=b'('+HUGE+b'K\x03t', stride=b'(K\x00K\x00t'),
    'a huge block': dict(numel=HUGE),
    'an impossible block': dict(numel=b'\x8a\x09'+b'\xff'*8+b'\0'),
    'a negative block': dict(numel=b'J\xff\xff\xff\xff'),
    'a negative size': dict(size=b'(J\xff\xff\xff\xffK\x03t'),
    'a negative offset': dict(offset=b'J\xff\xff\xff\xff'),
    'an offset outside': dict(offset=b'K\x01'),
    'a stride outside': dict(stride=b'(K\x04K\x01t'),
    'one stride too few': dict(stride=b'(K\x03t'),
    'a size that is no number': dict(size=b'(X\x01\0\0\0aK\x03t'),
    'a size that is a fraction': dict(size=b'(G'+struct.pack('>d', 4.)+b'K\x03t'),
    'a hundred axes': dict(size=b'('+b'K\x01'*100+b't', stride=b'('+b'K\x01'*100+b't'),
    'a block that is not there': dict(key=b'X\x01\0\0\x001'),
    'a block in another folder': dict(key=b'X\x09\0\0\0../../etc'),
    'a key that is no text': dict(key=b'K\x00'),
    'a type that is none': dict(kind=b'X\x01\0\0\0a'),
    'a function as a type': dict(kind=b'cposix\nsystem\n'),
    'a sparse tensor': dict(call=b'ctorch._utils\n_rebuild_sparse_tensor\n'),
    'a quantized tensor': dict(call=b'ctorch._utils\n_rebuild_qtensor\n'),
    'a number in place of a function': dict(call=b'K\x05'),
    'a type of number in place of a function': dict(call=b'ctorch\nFloatStorage\n'),
}

@pytest.mark.parametrize('what', FORGED)
def test_forged_tensor(tmp_path, what): refused(put(tmp_path, forge(**FORGED[what])))

def test_a_small_block_for_many_numbers(tmp_path): refused(put(tmp_path, forge(nbytes=47)), 'size')

CALLS = {
    'the shell': (lambda: Call(os.system, f'touch {MARKER}'), 'system'),
    'eval': (lambda: Call(eval, f"open({MARKER!r}, 'w')"), 'eval'),
    'exec': (lambda: Call(exec, f"open({MARKER!r}, 'w')"), 'exec'),
    'getattr': (lambda: Call(getattr, Own, 'x'), 'getattr'),
    'a process': (lambda: Call(subprocess.run, ['touch', MARKER]), 'run'),
    'a file': (lambda: Call(open, MARKER, 'w'), 'open'),
    'torch.load': (lambda: Call(torch.load, MARKER), 'load'),
    'a pickle inside': (lambda: Call(pickle.loads, pickle.dumps(Call(os.system, f'touch {MARKER}'))), 'loads'),
    'a class of ours': (Own, 'Own'),
    'a module': (lambda: torch.nn.Linear(2, 2), 'state_dict()'),
    'a class itself': (lambda: Own, 'Own'),
}

@pytest.mark.parametrize('what', CALLS)
@pytest.mark.parametrize('how', [{}, OLD])
def test_calls_are_refused_by_name(tmp_path, what, how):
    make,name = CALLS[what]
    try: data = torch_bytes({**STATE, 'args': {'deep': [make()]}}, **how)
    except TypeError: return # a module cannot be pickled
    refused(put(tmp_path, data), name)

@pytest.mark.parametrize('what', CALLS)
def test_plain_pickles_are_refused(tmp_path, what):
    make,name = CALLS[what]
    try: data = pickle.dumps({'a': make()}, 2)
    except TypeError: return
    refused(put(tmp_path, data), name)
    refused(put(tmp_path, pickle.dumps({'a': make()}, 5)), 'pickle_protocol=5')

def test_an_old_text_pickle_is_refused(tmp_path):
    refused(put(tmp_path, pickle.dumps({'a': Call(os.system, f'touch {MARKER}')}, 0)), 'text')

def nested(n): return b'\x80\x02'+b'('*n+b'K\x01'+b't'*n+b'.'

PROGRAMS = {
    'instances the old way': b'(cos\nsystem\nX\x04\0\0\0true'+b'o.',
    'a class by its name': b'(X\x04\0\0\0trueios\nsystem\n.',
    'an extension': b'\x80\x02\x82\x01.',
    'no end': b'\x80\x02'+b'N'*5000,
    'a million steps': b'\x80\x02'+b'N'*1_500_000+b'.',
    'a stack that is empty': b'\x80\x02\x85\x86\x87.',
    'a mark that is not there': b'\x80\x02t.',
    'a memory that was not set': b'\x80\x02h\x07.',
    'a memory of a huge number': b'\x80\x02r\xff\xff\xff\xff.',
    'a text of a huge length': b'\x80\x04\x8d'+b'\xff'*7+b'\x7fabc.',
    'a number of a huge length': b'\x80\x02\x8b\xff\xff\xff\x7fabc.',
    'a number that is huge as text': b'L'+b'9'*20000+b'L\n.',
    'text that is no text': b'\x80\x02X\x02\0\0\0\xff\xfe.',
    'appends to a tuple': b'\x80\x02)K\x01a.',
    'appends to a dict': b'\x80\x02}K\x01a.',
    'items of a list': b'\x80\x02](K\x00K\x01u.',
    'a key without a value': b'\x80\x02}(K\x00u.',
    'a key that is a list': b'\x80\x02}]K\x01s.',
    'a key that is a deep tuple': b'\x80\x02}'+nested(200000)[2:-1]+b'K\x01s.',
    'the state of a number': b'\x80\x02K\x01}b.',
    'the state of a class': b'\x80\x02cargparse\nNamespace\n}X\x08\0\0\0__init__K\x01sb.',
    'a deep list': b'\x80\x02'+b']'*100000+b'a'*99999+b'.',
    'a list and not a dict': b'\x80\x02].',
    'a tensor type': b'\x80\x02ctorch\nTensor\n.',
    'a call with a thousand arguments': b'\x80\x02cpathlib\nPosixPath\n('+b'X\1\0\0\0a'*1000+b'tR.',
    'a very long path': b'\x80\x02cpathlib\nPosixPath\n(X\x88\x13\0\0'+b'a'*5000+b'tR.',
    'a long name': b'\x80\x02c'+b'a'*100000+b'\nb\n.',
    'a name that is no text': b'\x80\x02c\xff\xff\nb\n.',
}

@pytest.mark.parametrize('what', PROGRAMS)
def test_program(tmp_path, what):
    refused(put(tmp_path, with_program(PROGRAMS[what])))
    if PROGRAMS[what][:1] == b'\x80': refused(put(tmp_path, PROGRAMS[what]))

def test_a_dict_that_holds_itself(tmp_path):
    content,_ = read_file(put(tmp_path, with_program(b'\x80\x02}q\0X\x05\0\0\0modelh\0s.')))
    with pytest.raises(WeightsError): unwrap(content)

def test_laughs(tmp_path):
    "A list of the same list twice, thirty times: small in memory, and nothing walks through it."
    data = b'\x80\x02}X\x01\0\0\0a](]q\0'+b''.join(b'](h%ch%ceq%c' % (i, i, i+1) for i in range(40))+b'es.'
    content,_ = read_file(put(tmp_path, with_program(data)))
    with pytest.raises(WeightsError) as e: unwrap(content)
    assert len(str(e.value)) < 600

STREAMS = {
    'no blocks': lambda d: d[:d.rindex(b'.', 0, d.index(struct.pack('<3f', 0, 1, 2)))+1],
    'other sizes of blocks': lambda d: d.replace(struct.pack('<q', 12), struct.pack('<q', 2**40)),
    'a huge block': lambda d: d.replace(b'K\x0cN', b'J\0\0\0\x7fN'),
    'another magic number': lambda d: d.replace(b'\xf9 j\xa8P', b'\xf9 j\xa8Q'),
}

@pytest.mark.parametrize('what', STREAMS)
def test_stream(tmp_path, what):
    data = STREAMS[what](STREAM)
    assert data != STREAM, 'the lie was not told'
    refused(put(tmp_path, data))


# ---- safetensors

def safe(head, n, length=None):
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack('<Q', len(text) if length is None else length)+text+bytes(n)

def entry(a=0, b=4, shape=(1,), dtype='F32'): return dict(dtype=dtype, shape=list(shape), data_offsets=[a, b])

SAFES = {
    'a huge header': (safe({'w': entry()}, 4, 2**62), 'announces'),
    'a header of 200 MB': (safe({'w': entry()}, 4, 200_000_000), 'announces'),
    'a header one byte too long': (safe({'w': entry()}, 0), 'cut off'),
    'no JSON': (safe(b'{"w": nothing}', 4), 'JSON'),
    'half of JSON': (safe(b'{"w": {"dtype"', 4), 'JSON'),
    'deep JSON': (safe(b'{"w":'+b'['*200_000, 4), 'JSON'),
    'not UTF-8': (safe(b'{"\xff": 1}', 4), 'JSON'),
    'a number of many digits': (safe(b'{"w": '+b'9'*50_000+b'}', 4), ''),
    'a name twice': (safe(b'{"w": 1, "w": 2}', 4), 'twice'),
    'a name twice, in full': (safe(b'{"w": %b, "w": %b}' % ((json.dumps(entry()).encode(),)*2), 4), 'twice'),
    'no entry': (safe({'w': 3}, 4), "'w'"),
    'half an entry': (safe({'w': {'dtype': 'F32'}}, 4), "'w'"),
    'an unknown type': (safe({'w': entry(dtype='F7')}, 4), 'F7'),
    'a type that is a list': (safe({'w': entry(dtype=['F32'])}, 4), ''),
    'a negative shape': (safe({'w': entry(shape=(-1,))}, 4), "'w'"),
    'two negative shapes': (safe({'w': entry(shape=(-1, -1))}, 4), "'w'"),
    'a shape of fractions': (safe({'w': entry(shape=(1.,))}, 4), "'w'"),
    'a shape of truths': (safe({'w': entry(shape=(True,))}, 4), "'w'"),
    'a shape that is text': (safe(b'{"w": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}}', 4), ''),
    'a shape that is a number': (safe(b'{"w": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}}', 4), ''),
    'a huge shape': (safe({'w': entry(0, 2**45, (2**43,))}, 4), 'cut off'),
    'a shape that overflows': (safe({'w': entry(shape=(2**33, 2**33, 4))}, 4), "'w'"),
    'a hundred axes': (safe({'w': entry(shape=(1,)*100)}, 4), "'w'"),
    'one offset': (safe(b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}', 4), ''),
    'offsets backwards': (safe({'w': entry(4, 0)}, 4), "'w'"),
    'negative offsets': (safe({'w': entry(-4, 0)}, 4), "'w'"),
    'overlap': (safe({'v': entry(), 'w': entry()}, 4), 'overlap'),
    'half an overlap': (safe({'v': entry(0, 8, (2,)), 'w': entry(4, 8)}, 8), 'overlap'),
    'a gap': (safe({'w': entry(4, 8)}, 8), 'gap'),
    'outside': (safe({'w': entry(0, 400, (100,))}, 4), 'cut off'),
    'too few numbers for the shape': (safe({'w': entry(shape=(2,))}, 4), "'w'"),
    'more than is described': (safe({'w': entry()}, 5), 'belong to no tensor'),
    'a description that is text': (safe({'__metadata__': 'x', 'w': entry()}, 4), 'description'),
    'a long name': (safe({'w'*100_000: entry(shape=(2,))}, 4), ''),
}

@pytest.mark.parametrize('what', SAFES)
def test_safetensors(tmp_path, what):
    data,word = SAFES[what]
    refused(put(tmp_path, data), word)

def test_an_empty_safetensors(tmp_path):
    content,_ = read_file(put(tmp_path, safe(b'{"__metadata__":{}}', 0)))
    with pytest.raises(WeightsError, match='no weights'): unwrap(content)


# ---- no weights at all

OTHERS = {
    'empty': (b'', 'empty'), 'zeros': (bytes(5000), 'empty'), 'one byte': (b'\x80', ''),
    'text': (b'Not found\n', 'text'), 'a page': (b'\n<!DOCTYPE html>\n<html>', 'web page'),
    'XML': (b'<?xml version="1.0"?>', 'web page'),
    'a pointer of Git LFS': (b'version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n', 'git lfs pull'),
    'text in another alphabet': ('Страница не найдена'.encode(), 'text'), 'JSON': (b'{"a": {"b": 1}}', 'text'),
    'gzip': (b'\x1f\x8b\x08'+bytes(range(99)), 'neither .pth nor .safetensors'),
    'a picture': (b'\x89PNG\r\n\x1a\n'+bytes(99), 'neither .pth nor .safetensors'),
    'noise': (bytes(i*37 % 256 for i in range(2000)), ''),
}

@pytest.mark.parametrize('what', OTHERS)
def test_no_weights(tmp_path, what):
    data,word = OTHERS[what]
    refused(put(tmp_path, data), word)

@pytest.mark.parametrize('o', [[1, 2], torch.ones(3), (STATE,), 'text', 3, None])
def test_not_a_dict(tmp_path, o):
    for how in ({}, OLD): refused(put(tmp_path, torch_bytes(o, **how)), 'not a dict')

def test_texts_as_values(tmp_path):
    content,_ = read_file(put(tmp_path, torch_bytes({'a': 'text', 'b': 'x'*10_000})))
    with pytest.raises(WeightsError) as e: unwrap(content)
    assert "'a' is a str" in str(e.value) and len(str(e.value)) < 600

def test_a_meta_tensor(tmp_path):
    refused(put(tmp_path, torch_bytes({'w': torch.empty(3, device='meta')})), 'meta')

def test_conjugated(tmp_path):
    w = torch.tensor([1+2j, 3j]).conj()
    assert torch.equal(read_file(put(tmp_path, torch_bytes({'w': w})))[0]['w'], w)

def test_folder_and_nothing(tmp_path):
    refused(tmp_path, 'folder')
    for path in (tmp_path/'none.pth', tmp_path/'none'/'f.pth'):
        with pytest.raises(FileNotFoundError, match=str(path)): read_file(path)
    try: (tmp_path/'link').symlink_to(tmp_path/'gone')
    except OSError: pytest.skip('no links here')
    with pytest.raises(FileNotFoundError, match='link to nothing'): read_file(tmp_path/'link')

@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='needs named pipes')
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path/'pipe')
    refused(tmp_path/'pipe', 'not a file')

@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0, reason='root may read everything')
def test_unreadable(tmp_path):
    path = put(tmp_path, ZIP)
    path.chmod(0)
    refused(path, 'permissions')


# ---- anything

def opens_or_is_refused(tmp_path, data):
    "Whatever is in a file: tensors that can be used, or one short WeightsError."
    path = put(tmp_path, data)
    try: state,notes = unwrap(read_file(path)[0])
    except WeightsError as e:
        assert len(str(e)) < 600 and 'weights_only' not in str(e)
        return None
    assert sum(v.numel()*v.element_size() for v in state.values()) <= 16*len(data)
    for v in state.values(): v.clone()
    repr(describe_state(state))
    return state

HOW = 'flip','cut','insert','copy'
EDIT = st.tuples(st.sampled_from(HOW), st.integers(0, 10**6), st.binary(min_size=1, max_size=9))
EDITS = st.lists(EDIT, min_size=1, max_size=4)

def edited(data, edits):
    data = bytearray(data)
    for what,at,new in edits:
        at %= max(len(data), 1)
        if what == 'flip': data[at:at+len(new)] = bytes(a^b for a,b in zip(data[at:at+len(new)], new))
        elif what == 'cut': del data[at:at+len(new)]
        elif what == 'insert': data[at:at] = new
        else: data[at:at] = data[at//2:at//2+8*len(new)]
    return bytes(data)

BOUNDED = settings(max_examples=150, deadline=None, derandomize=True,
                   suppress_health_check=[HealthCheck.function_scoped_fixture])

@pytest.mark.parametrize('kind', WHOLE)
@given(EDITS)
@BOUNDED
def test_edited_bytes(tmp_path, kind, edits):
    state = opens_or_is_refused(tmp_path, edited(WHOLE[kind], edits))
    if kind == 'zip' and state is not None and state.keys() == STATE.keys():
        assert all(torch.equal(state[k], STATE[k]) for k in state), 'other numbers, and nobody noticed'

with zipfile.ZipFile(io.BytesIO(ZIP)) as z: PROGRAM = z.read('archive/data.pkl')

@given(EDITS)
@BOUNDED
def test_edited_programs(tmp_path, edits): opens_or_is_refused(tmp_path, with_program(edited(PROGRAM, edits)))

@given(EDITS)
@BOUNDED
def test_edited_headers(tmp_path, edits):
    n, = struct.unpack('<Q', SAFE[:8])
    head = edited(SAFE[8:8+n], edits)
    opens_or_is_refused(tmp_path, struct.pack('<Q', len(head))+head+SAFE[8+n:])

@given(st.binary(max_size=300), st.sampled_from([b'', b'PK\3\4', b'\x80\x02', struct.pack('<Q', 40)+b'{']))
@BOUNDED
def test_noise(tmp_path, data, start): opens_or_is_refused(tmp_path, start+data)


# ---- with little memory

WORST = {**{k: forge(**v) for k,v in FORGED.items() if 'huge' in k or 'impossible' in k},
         **{k: with_program(v) for k,v in PROGRAMS.items() if 'huge' in k or 'deep' in k or 'million' in k},
         **{k: v[0] for k,v in SAFES.items() if 'huge' in k or 'deep' in k or 'MB' in k},
         'bomb': ARCHIVES['a bomb'][0], 'overlap': ARCHIVES['overlapping members'][0],
         'stream': STREAMS['a huge block'](STREAM)}

LIMITED = '''
import resource, sys, torch
from pathlib import Path
from videomamba_nb.checkpoint import WeightsError, read_file
now = int(Path('/proc/self/statm').read_text().split()[0])*resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now+(1<<30), now+(1<<30)))
def peak(): # kB; unlike ru_maxrss it does not begin with the peak of the parent
    return next(int(o.split()[1]) for o in Path('/proc/self/status').read_text().splitlines() if o.startswith('VmHWM'))
before = peak()
for path in sorted(Path(sys.argv[1]).iterdir()):
    try: read_file(path)
    except WeightsError: print('refused')
    else: print('opened', path.name)
print((peak()-before)//1024)'''

@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='needs Linux')
def test_the_worst_with_little_memory(tmp_path):
    "One more gigabyte of address space is allowed, and less than 400 MB are taken at any time."
    for i,data in enumerate(WORST.values()): (tmp_path/f'{i:02}').write_bytes(data)
    r = subprocess.run([sys.executable, '-c', LIMITED, str(tmp_path)], cwd=ROOT.parent, capture_output=True, text=True,
                       timeout=120, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert r.returncode == 0, r.stderr[-500:]
    *lines,taken = r.stdout.splitlines()
    assert lines == ['refused']*len(WORST) and int(taken) < 400
