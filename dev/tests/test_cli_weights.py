"""The real command, in processes of its own: published weights, files good and bad, features, exports. No network."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from videomamba_nb.digits import unseen_clip
from videomamba_nb.evaluate import file_probs
from videomamba_nb.export import load_program
from videomamba_nb.features import load_features
from videomamba_nb.model import VideoMamba
from videomamba_nb.onnx_export import load_onnx
from videomamba_nb.weights import save_model, save_official

NAME = 'videomamba_t16_k400_f8_res224'
SMALL = dict(img_size=32, patch_size=8, depth=1, embed_dim=16, num_frames=4, num_classes=3, ssm_cfg=dict(d_state=2))
SCRIPT = Path(sys.executable).with_name('videomamba')
COMMAND = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, '-m', 'videomamba_nb.cli']


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "A folder with a video, weights in two formats, a damaged file, and an empty cache."
    d = tmp_path_factory.mktemp('cli')
    unseen_clip(d/'grow.mp4', 'grow', 4)
    torch.manual_seed(0)
    m = VideoMamba(**SMALL).eval()
    save_official(m, d/'small.pth')
    save_model(m, d/'small.safetensors', classes=['a', 'b', 'c'], sampling='dense', rate=1)
    (d/'torn.pth').write_bytes((d/'small.pth').read_bytes()[:20_000])
    return d

def env(home):
    return os.environ | dict(HF_HUB_OFFLINE='1', HF_HOME=str(home/'hf'), OMP_NUM_THREADS='1', COLUMNS='100')

def call(home, *args):
    "Exit code, standard output, error output."
    r = subprocess.run([*COMMAND, *map(str, args)], cwd=home, env=env(home), capture_output=True, text=True, timeout=120)
    assert 'Traceback' not in r.stderr, r.stderr
    return r.returncode, r.stdout, r.stderr

def one_line(err): return err.startswith('videomamba: ') and err.count('\n') == 1


# ---- the list, without PyTorch

@pytest.mark.parametrize('args', [['--help'], ['weights', '--help'], ['weights'], ['weights', NAME], ['doctor', '--help']])
def test_quick_commands_do_not_load_torch(home, args):
    run = [sys.executable, '-X', 'importtime', '-m', 'videomamba_nb.cli', *args]
    r = subprocess.run(run, env=env(home), capture_output=True, text=True, timeout=120)
    loaded = {line.rsplit('|', 1)[-1].strip() for line in r.stderr.splitlines() if line.startswith('import time:')}
    assert r.returncode == 0 and 'argparse' in loaded and not {'torch', 'numpy', 'matplotlib'} & loaded

def test_table(home):
    rc,out,err = call(home, 'weights', '--data', 'k400', '--model', 'tiny,small', '--frames', '8,16', '--json')
    rows = json.loads(out)
    assert (rc, err, len(rows)) == (0, '', 4) and {r['frames'] for r in rows} == {8, 16}
    rc,out,err = call(home, 'weights', '--data', 'k400', '--top1', '84')
    assert (rc, err) == (0, '') and out.count('\n') == 3 # a head and two rows
    rc,out,err = call(home, 'weights', '--data', 'ssv2', '--top1', '99')
    assert (rc, out, err) == (0, 'no published weights fit\n', '')

def test_one_name(home):
    rc,out,err = call(home, 'weights', NAME, 'm16_k400_mask_ft_f16_res224', '--json')
    rows = json.loads(out)
    assert (rc, err, [r['cached'] for r in rows]) == (0, '', [None, None])
    assert 'issue #70' in rows[1]['note'] and all(u.startswith('https://') for r in rows for u in r['urls'])

def test_a_reader_that_leaves(home):
    line = f'{COMMAND[0] if len(COMMAND) == 1 else " ".join(COMMAND)} weights | head -1'
    r = subprocess.run(['bash', '-c', line], env=env(home), capture_output=True, text=True)
    assert r.stdout.startswith('name') and not r.stderr

@pytest.mark.parametrize('args', [['classify', 'grow.mp4', '--weights', NAME], ['weights', NAME, '--download']])
def test_not_in_the_cache(home, args):
    rc,out,err = call(home, *args)
    assert (rc, out) == (1, '') and one_line(err)
    assert f'https://huggingface.co/OpenGVLab/VideoMamba/resolve/main/{NAME}.pth' in err

def test_in_the_cache(home, tmp_path):
    where = tmp_path/'hub'/'models--OpenGVLab--VideoMamba'
    file = where/'snapshots'/('c'*40)/f'{NAME}.pth'
    (where/'refs').mkdir(parents=True)
    (where/'refs'/'main').write_text('c'*40)
    file.parent.mkdir(parents=True)
    shutil.copy(home/'small.pth', file)
    how = dict(env=env(home) | dict(HF_HOME=str(tmp_path)), capture_output=True, text=True, timeout=120)
    r = subprocess.run([*COMMAND, 'weights', NAME, '--download'], **how)
    assert (r.returncode, r.stdout, r.stderr) == (0, f'{file}\n', '')
    r = subprocess.run([*COMMAND, 'classify', 'grow.mp4', '--weights', NAME], **how, cwd=home)
    assert r.returncode == 1 and one_line(r.stderr) and '24 layers of width 192' in r.stderr
    assert not file.exists() # a file of another size is no use to anybody


# ---- files

def test_what_a_file_holds(home):
    rc,out,err = call(home, 'weights', 'small.pth', 'small.safetensors', '--json')
    a,b = json.loads(out)
    assert (rc, err) == (0, '') and a['info'] == b['info'] and a['info']['depth'] == 1
    assert a['report']['untouched'] == [] and b['saved']['classes'] == ['a', 'b', 'c']

def test_damaged_file(home):
    rc,out,err = call(home, 'classify', 'grow.mp4', '--weights', 'torn.pth')
    assert (rc, out) == (1, '') and one_line(err) and 'torn.pth' in err

def test_classify_official_file(home):
    how = ['--weights', 'small.pth', '--views', '2x1', '--topk', 3, '--json']
    rc,out,err = call(home, 'classify', 'grow.mp4', 'torn.pth', *how)
    good,bad = json.loads(out)
    p = file_probs(VideoMamba.from_pretrained(home/'small.pth'), home/'grow.mp4', clips=2, crops=1)
    assert rc == 1 and one_line(err) and 'torn.pth' in err and sorted(bad) == ['error', 'path']
    assert [o['index'] for o in good['top']] == p.argsort(descending=True).tolist()
    assert [o['probability'] for o in good['top']] == [round(o, 4) for o in p.sort(descending=True).values.tolist()]


# ---- features

def test_features_stopped_and_resumed(home, tmp_path):
    (tmp_path/'films'/'deep').mkdir(parents=True)
    for i in range(120): shutil.copy(home/'grow.mp4', tmp_path/'films'/'deep'/f'{i:02}.mp4')
    (tmp_path/'films'/'bad.mkv').write_bytes(b'no film')
    args = ['features', tmp_path/'films', '--weights', home/'small.safetensors', '--batch-size', 1, '--out', tmp_path/'out']
    how = dict(env=env(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    p,until = subprocess.Popen([*COMMAND, *map(str, args)], **how),time.monotonic()+90
    done = lambda: len(list((tmp_path/'out').glob('*.safetensors')))
    while done() < 3 and p.poll() is None and time.monotonic() < until: time.sleep(.01)
    p.send_signal(signal.SIGINT)
    out,err = p.communicate(timeout=90)
    assert p.returncode == 130 and not out and 'Traceback' not in err and 'the same' in err
    before = {f: f.stat().st_mtime_ns for f in (tmp_path/'out').glob('*.safetensors')}
    assert 3 <= len(before) < 120
    rc,out,err = call(home, *args, '--json')
    rows = json.loads(out)
    assert rc == 1 and len(rows) == 121 and [r['path'] for r in rows if 'error' in r] == [str(tmp_path/'films'/'bad.mkv')]
    assert 'bad.mkv' in err and '120 of 121 videos' in err
    assert all(f.stat().st_mtime_ns == t for f,t in before.items()) # what was done is not done again
    x = load_features(tmp_path/'out').x
    assert x.shape == (120, 16) and (x == x[0]).all()


# ---- exports

@pytest.mark.parametrize('kind', ['onnx', 'pt2', 'safetensors', 'pth'])
def test_export_and_load_again(home, kind):
    if kind == 'onnx': pytest.importorskip('onnxruntime'), pytest.importorskip('onnxscript')
    how = ['--weights', 'small.safetensors', '--frames', 8, '--json']
    rc,out,err = call(home, 'export', *how, '--out', f'made/eight.{kind}')
    row = json.loads(out)
    assert rc == 0 and row['format'] == kind and row['reads'] == [3, 8, 32, 32] and 'from 4 to 8 frames' in err
    file,x = home/'made'/f'eight.{kind}',torch.randn(2, 3, 8, 32, 32)
    want = VideoMamba.from_pretrained(home/'small.safetensors', num_frames=8)(x)
    if kind == 'onnx':
        run,about = load_onnx(file)
        assert about['classes'] == ['a', 'b', 'c'] and row['error_of_scores'] < 1e-4
    elif kind == 'pt2': run = load_program(file)[0].module()
    else: run = VideoMamba.from_pretrained(file)
    torch.testing.assert_close(run(x).detach(), want.detach(), rtol=1e-4, atol=1e-4)

@pytest.mark.parametrize('args,code,word', [
    (['--out', 'a.onx'], 1, 'one of .onnx'), (['--out', 'a.pth', '--format', 'onnx'], 1, 'onnx was asked for'),
    (['--out', 'a', '--format', 'tflite'], 2, 'invalid choice'), ([], 2, '--out')])
def test_export_refused(home, args, code, word):
    rc,out,err = call(home, 'export', *args)
    assert (rc, out) == (code, '') and word in err and not (home/'a.pth').exists()

def test_export_without_onnx(home, tmp_path):
    for name in ('onnx', 'onnxscript'): (tmp_path/f'{name}.py').write_text(f'raise ImportError("no {name}")')
    how = dict(PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')]).strip(os.pathsep))
    r = subprocess.run([*COMMAND, 'export', '--weights', 'small.pth', '--out', 'b.onnx'], cwd=home, env=env(home) | how,
                       capture_output=True, text=True, timeout=120)
    assert r.returncode == 1 and one_line(r.stderr) and 'pip install onnx' in r.stderr and not (home/'b.onnx').exists()
