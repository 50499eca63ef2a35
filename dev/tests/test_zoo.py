"""Published weights over a real connection: a small server that speaks as the Hub does, well and badly. No other network."""
import dataclasses
import errno
import hashlib
import http.server
import inspect
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
import types
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st
from notebooks import ROOT

from videomamba_nb import model, zoo
from videomamba_nb.zoo import Published, fetch_weights, find_weights, forget_weights, label_names, list_weights

NAME = 'videomamba_t16_k400_f8_res224'
OTHER = 'videomamba_t16_k400_f16_res224'
PAGE = b'<!DOCTYPE html><html><title>Welcome to our hotel</title></html>'
POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 28000000\n'


def archive(text='weights', size=300_000):
    "A zip archive that no compression shortens, as .pth files are."
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as z: z.writestr(zipfile.ZipInfo('archive/data/0'), (text.encode()*size)[:size])
    return out.getvalue()

@dataclasses.dataclass
class Reply:
    "What the server has under one address, and what it does wrong."
    content: bytes = b''
    etag: str | None = None # SHA-256 of the content, if left out
    commit: str | None = 'c'*40
    status: int = 200
    cuts: list = dataclasses.field(default_factory=list) # bytes sent before the line breaks, one per GET; then all
    resumes: bool = True # a request for the rest is served
    delay: float = 0.
    elsewhere: bool = False # redirect to another host, as the Hub does for large files

    def tag(self): return self.etag or hashlib.sha256(self.content).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args): pass

    def do_HEAD(self): self.answer()

    def do_GET(self): self.answer()

    def answer(self):
        self.server.log.append((self.command, self.path, self.headers.get('Authorization')))
        reply = self.server.replies.get(self.path.removeprefix('/cdn'))
        if reply is None: return self.say(404, {'X-Error-Code': 'EntryNotFound', 'X-Repo-Commit': 'c'*40})
        time.sleep(reply.delay)
        head = {'ETag': f'"{reply.tag()}"', 'Accept-Ranges': 'bytes'}
        if reply.commit: head['X-Repo-Commit'] = reply.commit
        if reply.status != 200: return self.say(reply.status)
        if reply.elsewhere and not self.path.startswith('/cdn'):
            head |= {'X-Linked-Etag': head['ETag'], 'X-Linked-Size': str(len(reply.content)), 'ETag': '"of the pointer"'}
            return self.say(302, head | {'Location': f'http://localhost:{self.server.server_port}/cdn{self.path}'})
        self.send(reply, head)

    def send(self, reply, head):
        start = int((self.headers.get('Range') or 'bytes=0-').removeprefix('bytes=').rstrip('-'))
        if start and not reply.resumes: return self.say(500)
        rest,n = reply.content[start:],len(reply.content)
        if start: head |= {'Content-Range': f'bytes {start}-{n-1}/{n}'}
        if self.command == 'HEAD': return self.say(200, head, b'', len(rest))
        cut = reply.cuts.pop(0) if reply.cuts else None
        self.say(206 if start else 200, head, rest[:cut], len(rest))
        if cut is not None: self.close_connection = True

    def say(self, status, head=None, body=b'', length=None):
        self.send_response(status)
        for k,v in (head or {}).items(): self.send_header(k, v)
        self.send_header('Content-Length', str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)


class Hub(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.replies,self.log,self.url = {},[],f'http://127.0.0.1:{self.server_port}'
        threading.Thread(target=self.serve_forever, kwargs=dict(poll_interval=.02), daemon=True).start()

    def handle_error(self, request, address):
        if not isinstance(sys.exc_info()[1], ConnectionError): super().handle_error(request, address) # who asked has left

    def put(self, content=b'', name=NAME, revision='main', **kwargs):
        reply = self.replies[f'/OpenGVLab/VideoMamba/resolve/{revision}/{name}.pth'] = Reply(content, **kwargs)
        return reply

    def put_labels(self, content, file='something-something-v2-id2label.json', **kwargs):
        self.replies[f'/datasets/huggingface/label-files/resolve/main/{file}'] = Reply(content, **kwargs)

    def asked(self): return [method for method,path,_ in self.log if '/resolve/' in path]

    def stop(self):
        self.shutdown()
        self.server_close()

@pytest.fixture
def cache(tmp_path): return tmp_path/'cache'

def point_to(monkeypatch, url, cache):
    "Send the Hub's client to another address, as its environment variables do before it is imported."
    to = dict(ENDPOINT=url, HUGGINGFACE_CO_URL_TEMPLATE=url+'/{repo_id}/resolve/{revision}/{filename}',
              HF_HUB_OFFLINE=False, HF_HUB_CACHE=str(cache), HF_HUB_DISABLE_XET=True, HF_HUB_ETAG_TIMEOUT=2,
              DOWNLOAD_CHUNK_SIZE=50_000)
    for name,value in to.items(): monkeypatch.setattr(constants, name, value)
    for name in ('HF_TOKEN','HTTP_PROXY','http_proxy','ALL_PROXY','all_proxy'): monkeypatch.delenv(name, raising=False)
    huggingface_hub.close_session()

@pytest.fixture
def hub(monkeypatch, cache):
    server = Hub()
    point_to(monkeypatch, server.url, cache)
    yield server
    server.stop()

def names(cache):
    "All that lies in the cache under a name of weights or as a blob, complete or not."
    found = [o for part in ('blobs','snapshots') for o in cache.glob(f'*/{part}/**/*')]
    return sorted(o.name for o in found if o.is_symlink() or o.is_file())

def fails(error, *words, **kwargs):
    "The call fails with just this kind of error, in one line that holds the words and is no essay."
    with pytest.raises(error) as found: fetch_weights(NAME, **kwargs)
    text = str(found.value)
    assert type(found.value) is error, text
    assert f'{NAME}.pth' in text and '\n' not in text and len(text) < 700, text
    for word in words: assert word in text, text
    assert found.value.__context__ is None or found.value.__suppress_context__, 'no chain of other errors'
    return text


# ---- it works

@pytest.mark.parametrize('elsewhere', [False,True])
def test_download_then_cache(hub, cache, elsewhere):
    reply = hub.put(archive(), elsewhere=elsewhere)
    path = fetch_weights(NAME)
    assert path.name == f'{NAME}.pth' and cache in path.parents and path.read_bytes() == reply.content
    assert hub.asked().count('GET') == 1
    before = len(hub.log)
    assert fetch_weights(find_weights(NAME).urls[0]) == path and len(hub.log) == before, 'the cache answers'
    hub.stop()
    assert fetch_weights(f'{NAME}.pth', local_files_only=True) == path

def test_environment_variables_reach_a_fresh_process(hub, cache):
    reply = hub.put(archive())
    env = {k: v for k,v in os.environ.items() if 'proxy' not in k.lower() and k != 'HF_TOKEN'}
    env |= dict(HF_ENDPOINT=hub.url, HF_HUB_CACHE=str(cache), HF_HUB_OFFLINE='0', HF_HUB_DISABLE_XET='1')
    env['PYTHONPATH'] = str(ROOT)
    code = f'from videomamba_nb.zoo import fetch_weights; print(fetch_weights({NAME!r}))'
    out = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, cwd=cache.parent)
    assert out.returncode == 0, out.stderr[-2000:]
    assert Path(out.stdout.strip()).read_bytes() == reply.content

def test_force_download_asks_again(hub):
    hub.put(archive('old'), commit='1'*40)
    assert b'old' in fetch_weights(NAME).read_bytes()
    hub.put(archive('new'), commit='2'*40)
    assert b'old' in fetch_weights(NAME).read_bytes()
    assert b'new' in fetch_weights(NAME, force_download=True).read_bytes()

def test_force_download_replaces_the_same_version(hub):
    reply = hub.put(archive())
    path = fetch_weights(NAME)
    path.resolve().write_bytes(archive('damaged'))
    assert fetch_weights(NAME, force_download=True).read_bytes() == reply.content

def test_force_download_that_fails_keeps_the_old_file(hub):
    hub.put(archive())
    path = fetch_weights(NAME)
    hub.put(archive(), status=503)
    fails(ConnectionError, force_download=True)
    assert fetch_weights(NAME) == path and path.is_file()

def test_versions(hub):
    hub.put(archive('first'), revision='v1', commit='1'*40)
    hub.put(archive('last'), commit='2'*40)
    assert b'first' in fetch_weights(NAME, revision='v1').read_bytes()
    assert b'last' in fetch_weights(NAME).read_bytes()
    fails(FileNotFoundError, 'version v2', revision='v2')

def test_token_goes_to_the_hub_only(hub):
    hub.put(archive(), elsewhere=True)
    fetch_weights(NAME, token='hf_secret')
    assert {auth for _,path,auth in hub.log if not path.startswith('/cdn')} == {'Bearer hf_secret'}
    assert {auth for _,path,auth in hub.log if path.startswith('/cdn')} == {None}

def test_many_at_once(hub, cache):
    reply = hub.put(archive())
    with ThreadPoolExecutor(4) as pool: paths = set(pool.map(fetch_weights, [NAME]*8))
    assert len(paths) == 1 and paths.pop().read_bytes() == reply.content
    assert names(cache) == sorted([f'{NAME}.pth', reply.tag()])


# ---- the line breaks

def test_cut_and_resumed(hub):
    reply = hub.put(archive(), cuts=[100_000])
    assert fetch_weights(NAME).read_bytes() == reply.content
    assert hub.asked().count('GET') == 2

def test_cut_for_good_leaves_nothing(hub, cache):
    reply = hub.put(archive(), cuts=[100_000], resumes=False)
    fails(ConnectionError, *find_weights(NAME).urls)
    assert names(cache) == []
    assert fetch_weights(NAME).read_bytes() == reply.content, 'a later call succeeds'

def test_cut_again_and_again(hub, cache, monkeypatch):
    monkeypatch.setattr('huggingface_hub.file_download.time', types.SimpleNamespace(sleep=lambda s: None))
    hub.put(archive(), cuts=[0]*50)
    fails(ConnectionError)
    assert names(cache) == [] and hub.asked().count('GET') < 10

def test_silence(hub, cache, monkeypatch):
    monkeypatch.setattr(constants, 'HF_HUB_ETAG_TIMEOUT', .3)
    hub.put(archive(), delay=1.)
    fails(ConnectionError)
    assert hub.asked() == ['HEAD'] and names(cache) == [], 'asked once, not again and again'

def test_nobody_there(monkeypatch, cache):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0)) # taken, and nobody listens
        point_to(monkeypatch, f'http://127.0.0.1:{s.getsockname()[1]}', cache)
        waits = []
        monkeypatch.setattr(time, 'sleep', waits.append)
        fails(ConnectionError, *find_weights(NAME).urls, 'give the path')
    assert waits == [], 'no waiting between questions'

def test_local_files_only_asks_nobody(hub):
    hub.put(archive())
    fails(ConnectionError, 'local_files_only', local_files_only=True)
    assert label_names('ssv2', local_files_only=True) is None and hub.log == []

def test_offline_mode_asks_nobody(hub, monkeypatch):
    hub.put(archive())
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    fails(ConnectionError, 'HF_HUB_OFFLINE')
    assert hub.log == []
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    path = fetch_weights(NAME)
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    assert fetch_weights(NAME) == path


# ---- the answer is no

@pytest.mark.parametrize('status,error,words', [
    (404, FileNotFoundError, ['version main']), (401, PermissionError, ['401','hf auth login']),
    (403, PermissionError, ['403']),
    (410, ConnectionError, []), (429, ConnectionError, []), (500, ConnectionError, ['500']),
    (503, ConnectionError, ['503'])])
def test_refusals(hub, cache, status, error, words):
    hub.put(status=status)
    fails(error, *words, find_weights(NAME).urls[1])
    assert hub.asked() == ['HEAD'] and names(cache) == []

def test_unknown_to_the_hub(hub):
    fails(FileNotFoundError, 'version main')

def test_unknown_name_asks_nobody(hub):
    with pytest.raises(ValueError, match='close to it'): fetch_weights('videomamba_t16_k400_f9_res224')
    assert hub.log == []

def test_no_room(hub, cache, monkeypatch):
    def full(*args, **kwargs): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    hub.put(archive())
    monkeypatch.setattr('huggingface_hub.file_download.http_get', full)
    fails(OSError, os.strerror(errno.ENOSPC), 'cache_dir')
    assert names(cache) == []

def test_cache_that_is_a_file(hub, tmp_path):
    hub.put(archive())
    (tmp_path/'taken').touch()
    fails(OSError, 'could not be written', 'cache_dir', cache_dir=tmp_path/'taken')


# ---- something else arrives

@pytest.mark.parametrize('content,words', [
    (PAGE, 'a web page'), (b'\n\n  <html>', 'a web page'), (POINTER, 'Git LFS pointer'), (b'', 'empty'),
    (b'{"error": "quota"}', 'starts with'), (b'Not Found', 'starts with'), (archive()[:200_000], 'cut short')])
def test_not_weights(hub, cache, content, words):
    hub.put(content)
    text = fails(OSError, words, 'removed from the cache')
    assert str(cache) not in text and names(cache) == []
    reply = hub.put(archive(), commit='d'*40)
    assert fetch_weights(NAME).read_bytes() == reply.content, 'a later call finds no trace of it'

def test_other_bytes_than_announced(hub, cache):
    hub.put(archive('other'), etag=hashlib.sha256(archive()).hexdigest())
    fails(OSError, 'SHA-256')
    assert names(cache) == []

def test_a_plain_etag_promises_nothing(hub):
    reply = hub.put(archive(), etag='0123456789abcdef')
    assert fetch_weights(NAME).read_bytes() == reply.content

def test_a_page_for_every_address(hub, cache):
    "The login page of a network answers 200 to everything, but does not know the headers of the Hub."
    hub.put(PAGE, commit=None)
    fails(ConnectionError)
    assert names(cache) == []

def test_a_page_that_another_program_left_in_the_cache(hub, cache):
    reply = hub.put(archive())
    path = fetch_weights(NAME)
    path.resolve().write_bytes(PAGE)
    fails(OSError, 'a web page')
    assert fetch_weights(NAME).read_bytes() == reply.content


# ---- forget

def test_forget_leaves_the_others(hub, cache):
    hub.put(archive('a')), hub.put(archive('b'), OTHER)
    path,other = fetch_weights(NAME),fetch_weights(OTHER)
    blob = path.resolve()
    assert forget_weights(path) == [path, blob] and not os.path.lexists(path) and not blob.exists()
    assert other.read_bytes() == archive('b') and len(names(cache)) == 2
    assert forget_weights(path) == [] and forget_weights(NAME) == []
    assert [o.name for o in forget_weights(OTHER)] == [other.name, hashlib.sha256(archive('b')).hexdigest()]

def test_forget_every_link_to_the_bytes(hub, cache):
    for version in '12': hub.put(archive(), revision=version*40, commit=version*40)
    a,b = (fetch_weights(NAME, revision=version*40) for version in '12')
    assert a != b and a.resolve() == b.resolve()
    assert set(forget_weights(a)) == {a, b, a.parents[2]/'blobs'/hashlib.sha256(archive()).hexdigest()}
    assert names(cache) == []

def test_forget_one_version_by_path_and_all_by_name(hub, cache):
    for version in '12': hub.put(archive(version), revision=version*40, commit=version*40)
    a,b = (fetch_weights(NAME, revision=version*40) for version in '12')
    forget_weights(a)
    assert b.read_bytes() == archive('2')
    a = fetch_weights(NAME, revision='1'*40)
    forget_weights(NAME)
    assert names(cache) == [] and not os.path.lexists(a)

def test_forget_follows_links_inside_the_cache_only(cache, tmp_path):
    "A store that several repositories share is one more link; a file outside the cache is not ours."
    repo = cache/'models--OpenGVLab--VideoMamba'
    for o in (repo/'blobs', repo/'snapshots'/'1', cache/'blobs'/'ab'): o.mkdir(parents=True)
    (cache/'blobs'/'ab'/'abc').write_bytes(archive())
    (tmp_path/'mine.pth').write_bytes(archive())
    (repo/'blobs'/'e').symlink_to('../../blobs/ab/abc')
    (repo/'snapshots'/'1'/f'{NAME}.pth').symlink_to('../../blobs/e')
    (repo/'snapshots'/'1'/f'{OTHER}.pth').symlink_to(tmp_path/'mine.pth')
    assert len(forget_weights(NAME, cache)) == 3
    assert len(forget_weights(OTHER, cache)) == 1 and (tmp_path/'mine.pth').exists()
    assert [o for o in cache.rglob('*') if not o.is_dir()] == []

def test_forget_spares_your_own_files(hub, tmp_path):
    hub.put(archive())
    cached = fetch_weights(NAME)
    for path in (tmp_path/f'{NAME}.pth', tmp_path/'snapshots'/'best'/f'{NAME}.pth'):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert forget_weights(path) == [] and path.exists()
        assert fetch_weights(path) == path
    assert cached.is_file()


# ---- names of classes

CLASSES = json.dumps({str(i): f'class {i}' for i in range(174)}).encode()

def test_label_names(hub):
    hub.put_labels(CLASSES)
    got = label_names('ssv2')
    assert got[0] == 'class 0' and got[173] == 'class 173' and len(got) == 174
    before = len(hub.log)
    assert label_names('SthSthV2') == got and len(hub.log) == before
    assert label_names('in1k') is None, 'not on the server'
    before = len(hub.log)
    assert [label_names(o) for o in ('breakfast','coin','5M')] == [None]*3 and len(hub.log) == before

def test_names_of_kinetics_are_in_the_order_of_the_authors(hub):
    "Not the alphabet: https://github.com/Sense-X/UniFormer/issues/38. Some numbers as printed in issue 72 there."
    got = label_names('k400')
    known = {'drawing': 8, 'sled dog racing': 19, 'skydiving': 39, 'playing saxophone': 67, 'water skiing': 123,
             'playing controller': 151, 'sniffing': 193, 'hugging': 222, 'somersaulting': 259, 'auctioning': 323}
    assert {name: got.index(name) for name in known} == known and hub.log == []
    assert len(got) == len(set(got)) == 400 and not any(a == b for a,b in zip(got, sorted(got)))

@pytest.mark.parametrize('content', [
    b'', b'{', b'[]', b'7', b'['*200_000,
    CLASSES.replace(b'"173"', b'"174"'), CLASSES.replace(b'"class 7"', b'7'), PAGE, b'\xff\xfe',
    json.dumps({str(i): 'x' for i in range(175)}).encode()])
def test_damaged_label_names(hub, cache, content):
    hub.put_labels(content)
    with pytest.warns(UserWarning, match='v2-id2label.json is left aside'): assert label_names('ssv2') is None
    assert names(cache) == []
    hub.put_labels(CLASSES)
    assert len(label_names('ssv2')) == 174

def test_label_names_never_fail(hub, monkeypatch):
    for status in (401, 404, 500):
        hub.put_labels(CLASSES, status=status)
        assert label_names('ssv2') is None
    monkeypatch.setattr(constants, 'HF_HUB_ETAG_TIMEOUT', .2)
    hub.put_labels(CLASSES, delay=.6)
    assert label_names('ssv2') is None
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    before = len(hub.log)
    assert label_names('ssv2') is None and len(hub.log) == before
    with pytest.raises(ValueError, match='known: in1k'): label_names('charades')


# ---- the table

def test_the_table_is_complete():
    count = {task: len(list_weights(task=task)) for task in ('image','video','masked','video-text')}
    assert count == {'image': 10, 'video': 48, 'masked': 2, 'video-text': 3}
    assert len(set(list_weights().names)) == 63
    count = {data: len(list_weights(data, task='video')) for data in ('k400','ssv2','breakfast','coin')}
    assert count == {'k400': 20, 'ssv2': 12, 'breakfast': 8, 'coin': 8}

def test_every_row_is_whole():
    known = inspect.signature(model.VideoMamba).parameters
    for o in list_weights():
        assert set(o.config()) <= set(known) and o.res % 16 == 0
        tested = o.task in ('image','video')
        assert (o.top1 is not None) == (o.gflops is not None) == (o.classes is not None) == tested, o.name
        assert (o.clips is not None) == (o.crops is not None) == (o.task == 'video'), o.name
        assert (o.frames is None) == (o.task == 'image')
        assert (o.top5 is not None) == (o.data in ('k400','ssv2') and tested)
        assert o.top1 is None or 60 < o.top1 < (o.top5 or 100)
        assert o.note == '' or o.note.endswith('.') and o.note.isascii()

def test_the_file_that_holds_fewer_frames():
    row, = [o for o in list_weights() if o.stored]
    assert (row.name, row.frames, row.config()['num_frames']) == ('videomamba_m16_breakfast_mask_ft_f64_res224', 64, 32)

def test_sizes_are_those_of_the_model():
    assert list(zoo.SIZES) == model.list_models()

def test_the_table_is_shipped():
    text = (ROOT/'setup.py').read_text()
    assert 'shipped/*' in text and 'videomamba_nb/shipped' in (ROOT/'MANIFEST.in').read_text()

def test_import_is_light():
    code = 'import sys; import videomamba_nb.zoo; print(*sorted({k.split(".")[0] for k in sys.modules}))'
    env = os.environ | {'PYTHONPATH': str(ROOT)}
    out = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
    assert not {'torch','numpy','huggingface_hub','matplotlib'} & set(out.stdout.split()) and out.returncode == 0

@given(st.text(max_size=60))
def test_any_name_is_found_or_refused(name):
    try: assert isinstance(find_weights(name), Published)
    except ValueError as e: assert 'list_weights() shows all names' in str(e) and len(str(e)) < 700

@given(st.sampled_from(('data','model','frames','res','init','task')),
       st.one_of(st.text(max_size=20), st.integers(), st.none(), st.booleans()))
def test_any_filter_selects_or_is_refused(column, value):
    try: assert len(list_weights(**{column: value})) > 0
    except ValueError as e: assert f'{column}={value!r}' in str(e) and 'known: ' in str(e)
