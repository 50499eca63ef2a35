"""Does a larger model overfit where a smaller one does not, and does the smaller one help as its teacher? (paper, Fig. 6)

    python dev/experiments/distill.py              all of it: about half an hour on one core
    python dev/experiments/distill.py --quick      one seed, a few epochs, nothing kept: does it run?

Handwritten digits, 200 of them for training, drawn by the seed from the first 1000 of scikit-learn's; 100 others are looked
at after each epoch, 300 and the last 497 once at the end. First as they are, so that all can be learnt by heart; then moved
by up to a point in each epoch; then with the official augmentation of pictures (RandAugment, random crops, erasing, mixup,
cutmix; no mirror, since digits have a left and a right) for twice as many epochs. A run that was stopped
goes on with the next row.
"""
import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT/'dev'/'bench')]

from common import append_rows, read_rows  # noqa: E402

from videomamba_nb.augment import Augment  # noqa: E402
from videomamba_nb.core import cache_dir, set_seed  # noqa: E402
from videomamba_nb.demo import lively_start  # noqa: E402
from videomamba_nb.distill import Distill, DistillVideoMamba, Logits, Teacher, student_of  # noqa: E402
from videomamba_nb.model import VideoMamba, load_model  # noqa: E402
from videomamba_nb.objective import Classify  # noqa: E402
from videomamba_nb.recipe import TrainConfig  # noqa: E402
from videomamba_nb.train import fit  # noqa: E402
from videomamba_nb.weights import save_model  # noqa: E402

RESULTS = Path(__file__).parent/'results'
WIDTH = {'S': 32, 'M': 64, 'B': 128}
SPLITS = {'train': (0, 1000), 'valid': (1000, 1300), 'test': (1300, 1797)}
IMAGES, WATCHED, EPOCHS = 200, 100, 30
CONFIG = TrainConfig(batch_size=20, lr=3e-3, min_lr=1e-5, warmup_epochs=3, clip_grad=5.)
SMOOTHING = .1
STRONG = Augment('rand-m9-mstd0.5-inc1', scale=(.35, 1.), flip=0., erase=.25, how='bicubic', fill=(0, 0, 0),
                 mean=(.5,)*3, std=(.5,)*3)
MIXING = dict(mixup=.8, cutmix=1.)


class Digits:
    "Digits of 16 x 16 points; while training, moved by up to a point, or augmented as ImageNet is."
    classes = [str(i) for i in range(10)]

    def __init__(self, numbers, shift=0):
        d = load_digits()
        x = torch.tensor(d.images[numbers], dtype=torch.float32)[:, None]/8-1
        self.x = F.interpolate(x, scale_factor=2, mode='bicubic', align_corners=False)
        self.y, self.shift, self.epoch = torch.tensor(d.target[numbers]), shift, 0

    def __len__(self):
        return len(self.y)

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, i):
        x, rng = self.x[i], np.random.default_rng([self.epoch, i])
        if self.shift == 'official':
            picture = ((x.clamp(-1, 1)+1)*127.5).round().byte().numpy().transpose(1, 2, 0)
            x = STRONG(np.repeat(picture, 3, 2)[None], 16, rng)[:, 0].mean(0, keepdim=True)
        elif self.shift:
            by = rng.integers(-self.shift, self.shift+1, 2)
            x = F.pad(x, [self.shift]*4, value=-1.).roll(tuple(by.tolist()), (1, 2))
            x = x[:, self.shift:-self.shift, self.shift:-self.shift]
        return x, int(self.y[i])


def make(size, teaching):
    "A fresh model."
    kw = dict(img_size=16, patch_size=4, depth=2, embed_dim=WIDTH[size], channels=1, num_classes=10, num_frames=None)
    compares = teaching in ('features', 'early')
    model = DistillVideoMamba(**kw, teacher_embed_dim=WIDTH['S']) if compares else VideoMamba(**kw)
    return lively_start(model, dt_bias=0.)


def objective(teaching, teacher, epochs, shift):
    "What the student is asked for."
    mixing = MIXING if shift == 'official' else {}
    if teaching == 'none':
        return Classify(10, SMOOTHING, **mixing)
    if teaching == 'answers':
        return Logits(teacher, 10, SMOOTHING, **mixing)
    return Distill(teacher, 10, SMOOTHING, **mixing, until=epochs//2 if teaching == 'early' else None)


@torch.no_grad()
def score(model, data):
    "Accuracy and cross entropy."
    logits = torch.cat([model(x) for x in data.x.split(100)])
    return (logits.argmax(1) == data.y).float().mean().item(), F.cross_entropy(logits, data.y).item()


def train(size, teaching, shift, seed, epochs, home):
    "Train one model: what it is worth, and its curves."
    set_seed(seed)
    chosen = np.random.default_rng(seed).permutation(SPLITS['train'][1])[:IMAGES]
    model, file = make(size, teaching), home/f'S-{shift}-{seed}.safetensors'
    teacher = None if teaching == 'none' else load_model(file)[0]
    data = {k: Digits(chosen if k == 'train' else np.arange(*SPLITS[k]), shift if k == 'train' else 0) for k in SPLITS}
    watched = torch.utils.data.Subset(data['valid'], range(WATCHED))
    start, config = time.process_time(), TrainConfig(**vars(CONFIG) | dict(epochs=epochs, seed=seed))
    history = fit(model, data['train'], watched, config, device='cpu', show=False,
                  objective=objective(teaching, teacher, epochs, shift))
    plain = student_of(model) if isinstance(model, DistillVideoMamba) else model.eval()
    if teaching == 'none' and size == 'S':
        save_model(plain, file)
    row = dict(size=size, teaching=teaching, shift=shift, seed=seed, width=WIDTH[size], images=IMAGES, epochs=epochs,
               parameters=sum(p.numel() for p in plain.parameters()))
    for k, o in data.items():
        row |= dict(zip((f'{k}_accuracy', f'{k}_loss'), (round(v, 4) for v in score(plain, o))))
    row |= dict(cosine=round(cosine(model, teacher, data['test']), 4) if teaching in ('features', 'early') else '',
                cpu_seconds=round(time.process_time()-start, 1))
    keys = ('train_accuracy', 'train_loss', 'valid_accuracy', 'valid_loss')
    curve = [dict(size=size, teaching=teaching, shift=shift, seed=seed, epoch=r['epoch'],
                  **{k: round(r[k], 4) for k in keys}) for r in history]
    return row, curve


@torch.no_grad()
def cosine(model, teacher, data):
    "How near the student's tokens are to the teacher's, on digits that neither has seen."
    return (model(data.x)[1]*Teacher(teacher)(data.x)[1]).sum(-1).mean().item()


def plan(seeds):
    "Which models to train, in rounds over the seeds, teachers first: whatever is done so far can be compared."
    first = [('S', 'none'), ('M', 'none'), ('B', 'none'), ('M', 'features'), ('B', 'features')]
    more = [(size, teaching) for teaching in ('answers', 'early') for size in ('M', 'B')]
    rounds = [(shift, models) for shift in (0, 1) for models in (first, more)]
    for shift, models in rounds:
        for seed in seeds:
            yield from ((size, teaching, shift, seed) for size, teaching in models)
    for seed in seeds:
        yield from ((size, teaching, 'official', seed) for size, teaching in (*first, ('M', 'answers'), ('B', 'answers')))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2, 3, 4])
    p.add_argument('--epochs', type=int, default=EPOCHS)
    p.add_argument('--quick', action='store_true', help='one seed and two epochs, in a folder that is thrown away')
    args = p.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as tmp:
        folder, home = (Path(tmp), Path(tmp)) if args.quick else (RESULTS, cache_dir('distill'))
        seeds, epochs = ([0], 2) if args.quick else (args.seeds, args.epochs)
        for what in plan(seeds):
            size, teaching, shift, seed = what
            done = {(r['size'], r['teaching'], r['shift'], int(r['seed'])) for r in read_rows('distill', folder)}
            teaches = teaching == 'none' and size == 'S'
            known = (size, teaching, str(shift), seed) in done
            if known and not (teaches and not (home/f'S-{shift}-{seed}.safetensors').exists()):
                continue
            row, curve = train(*what, epochs*(2 if shift == 'official' else 1), home)
            print(row, flush=True)
            if not known:
                append_rows('distill_curves', curve, folder)
                append_rows('distill', [row], folder)


if __name__ == '__main__':
    main()
