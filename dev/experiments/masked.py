"""Does masked pre-training help? A small student learns from a teacher of single frames, then from few labels.

    python dev/experiments/masked.py                    every arm, seeds 1 to 6
    python dev/experiments/masked.py --arms tube        some arms
    python dev/experiments/masked.py --quick            few clips, one epoch, into a temporary folder: does it run?

The teacher is an image VideoMamba that learned on single frames in which of 8 x 8 cells the digit is. A student sees 2400
unlabelled clips of MovingDigits, masked, three times, and is then fine-tuned on 320 of them with labels, for 20 epochs.
`scratch` has the fine-tuning only, `scratch_long` as many epochs of it as the others' clips add up to. Each seed has its own
labelled clips, weights and order. No test clip chooses anything: the last weights count. The three arms that matter most
come first, each with all seeds, then the other masks, then the rest; a stopped run goes on with the next row. One row per
arm and seed goes to `results/masked.csv`, with the processor time of each part: an arm takes about 20 seconds of one core,
all of it about twenty minutes.
"""
import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT/'dev'/'bench')]

from common import append_rows, read_rows  # noqa: E402

from videomamba_nb.core import cache_dir, set_seed  # noqa: E402
from videomamba_nb.demo import DEMO_CONFIG, DEMO_DATA, DEMO_MODEL, lively_start  # noqa: E402
from videomamba_nb.digits import MOTIONS, moving_digits  # noqa: E402
from videomamba_nb.evaluate import evaluate  # noqa: E402
from videomamba_nb.masked import MaskedVideoMamba, classifier_of  # noqa: E402
from videomamba_nb.model import VideoMamba, load_model  # noqa: E402
from videomamba_nb.recipe import TrainConfig  # noqa: E402
from videomamba_nb.teacher import Align, FrameTeacher, digit_frames  # noqa: E402
from videomamba_nb.train import fit  # noqa: E402
from videomamba_nb.weights import save_model  # noqa: E402

RESULTS = Path(__file__).parent/'results'
WIDTH,CELLS,LABELLED = DEMO_MODEL['embed_dim'],8,320
TEACH = TrainConfig(epochs=6, batch_size=32, lr=5e-3, warmup_epochs=.25, clip_grad=1.)
PRETRAIN,TUNE = replace(DEMO_CONFIG, epochs=3, group=1),replace(DEMO_CONFIG, epochs=20)
LONG = TUNE.epochs+PRETRAIN.epochs*2400//LABELLED # as many clips as pre-training and fine-tuning
ARMS = {'scratch': None, 'attention': {}, 'scratch_long': None, 'attention, last block left out': dict(pre=True),
        'tube': {}, 'frame_row': {}, 'clip_row': {}, 'random': {},
        'attention, teacher untrained': dict(teacher='fresh'), 'attention, ratio .5': dict(ratio=.5)}
TIERS = list(ARMS)[:3],list(ARMS)[3:8],list(ARMS)[8:]
GROUPS = dict(wander=('left', 'right', 'up', 'down'), turn=('turn left', 'turn right'), size=('grow', 'shrink'))


def image_model(path, n=4000, config=TEACH):
    "The teacher's model, trained once and kept."
    if path.exists(): return load_model(path)[0]
    set_seed(0)
    model = lively_start(VideoMamba(**DEMO_MODEL | dict(num_frames=None, kernel_size=1, num_classes=CELLS**2)))
    fit(model, TensorDataset(*digit_frames(n, cells=CELLS)), config=config)
    x,y = digit_frames(min(n, 500), 'valid', cells=CELLS)
    with torch.no_grad(): right = (model(x).argmax(1) == y).float().mean().item()
    print(f'teacher: {right:.1%} of unseen frames right', flush=True)
    save_model(model, path, accuracy=right)
    return model

def in_tensors(data):
    "All clips of a data set, each cropped once."
    xs,ys = zip(*(data[i] for i in range(len(data))))
    return TensorDataset(torch.stack(xs), torch.tensor(ys))

def students(seed, **kw):
    "A fresh classifier, and a masked student with the same weights."
    set_seed(seed)
    plain = lively_start(VideoMamba(**DEMO_MODEL))
    masked = MaskedVideoMamba(**{k: v for k,v in DEMO_MODEL.items() if k != 'num_classes'}, clip_output_dim=WIDTH, **kw)
    own = masked.state_dict()
    masked.load_state_dict(own | {k: v for k,v in plain.state_dict().items() if k in own})
    return plain, masked

def test_groups(model, test):
    "Accuracy over all test clips, and over those that wander, turn, and change their size."
    found = evaluate(model, test)
    hits = (found.probs.argmax(1) == found.labels).float()
    def share(names): return round(hits[[MOTIONS[i] in names for i in found.labels.tolist()]].mean().item(), 4)
    return dict(top1=round(found.top1, 4), **{k: share(v) for k,v in GROUPS.items()})

def one(arm, seed, data, teachers):
    "Pre-train, fine-tune and test; a row."
    how,pre,tune = ARMS[arm],replace(PRETRAIN, seed=seed),replace(TUNE, seed=seed)
    kind,start,cosine = arm.split(',')[0],time.process_time(),''
    model,masked = students(seed, align_pre_last=bool(how and how.get('pre')))
    if how is not None:
        asked = Align(teachers[how.get('teacher', 'trained')], kind, how.get('ratio', .8))
        history = fit(masked, data['free'], None, pre, show=False, objective=asked)
        model,cosine = classifier_of(masked, len(MOTIONS)),round(history[-1]['train_cosine'], 4)
    middle = time.process_time()
    if arm == 'scratch_long': tune = replace(tune, epochs=LONG)
    n,clips = LABELLED,data['free'].tensors
    few = TensorDataset(*(o[(seed*n) % len(clips[0]):][:n] for o in clips))
    history = fit(model, few, None, tune, show=False)
    loss = round(history[-1]['train_loss'], 4)
    row = dict(arm=arm, seed=seed, **test_groups(model, data['test']), cosine=cosine, train_loss=loss)
    return row | dict(pretrain_clips=len(clips[0]), pretrain_epochs=0 if how is None else pre.epochs, labelled=len(few),
                      tune_epochs=tune.epochs, test_clips=len(data['test']), pretrain_cpu=round(middle-start, 1),
                      tune_cpu=round(time.process_time()-middle, 1))


def main():
    global PRETRAIN, TUNE, LONG, LABELLED
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--arms', nargs='+', default=list(ARMS), choices=list(ARMS), metavar='ARM')
    p.add_argument('--seeds', type=int, nargs='+', default=[1, 2, 3, 4, 5, 6])
    p.add_argument('--quick', action='store_true', help='few clips, one epoch, into a temporary folder')
    args = p.parse_args()
    home,results,clips,teach = cache_dir('masked_trial'),RESULTS,dict(train=2400, test=400),{}
    if args.quick:
        home = results = Path(tempfile.mkdtemp())
        clips,args.seeds,LABELLED,LONG = dict(train=32, test=16),args.seeds[:1],16,2
        PRETRAIN,TUNE = replace(PRETRAIN, epochs=1),replace(TUNE, epochs=1)
        teach = dict(n=64, config=replace(TEACH, epochs=1))
    torch.set_num_threads(1)
    results.mkdir(exist_ok=True)
    frames = image_model(home/'teacher.safetensors', **teach)
    set_seed(0)
    fresh = lively_start(VideoMamba(**frames.config))
    teachers = {k: FrameTeacher(m, DEMO_MODEL['kernel_size']) for k,m in dict(trained=frames, fresh=fresh).items()}
    root = home/'clips' if args.quick else None
    data = dict(free=in_tensors(moving_digits('train', root, clips['train'], **DEMO_DATA)),
                test=moving_digits('test', root, clips['test'], **DEMO_DATA).in_memory())
    done = {(r['arm'], r['seed']) for r in read_rows('masked', results)}
    todo = [(arm, seed) for tier in TIERS for seed in args.seeds for arm in tier if arm in args.arms]
    for arm,seed in todo:
        if (arm, str(seed)) in done: continue
        row = one(arm, seed, data, teachers)
        append_rows('masked', [row], results)
        print({k: row[k] for k in ('arm', 'seed', 'top1', 'cosine', 'pretrain_cpu', 'tune_cpu')}, flush=True)


if __name__ == '__main__':
    main()
