"""Long videos at our scale: VideoMamba against joint attention of equal size on LongEvents (nbs/41_long_video.ipynb).

    python dev/experiments/long_video.py              everything that is not in the tables yet
    python dev/experiments/long_video.py --only cost  one part: cost, short, long, heads, sparse or scratch
    python dev/experiments/long_video.py --quick      few clips and steps, into a temporary folder: does it run?

One row per measurement goes to `results/long_video.csv` (accuracy) or `results/long_video_cost.csv` (time and memory), and
what is there is not measured again. Models of short clips are kept in the cache folder. One thread. `seconds` are those of
the processor, so that other programs on the machine count little; `peak_mb` is what one training step needs at most beyond
what the process held before it.
"""
import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT/'dev'/'bench')]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from common import append_rows, read_rows  # noqa: E402
from memory import peak  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from videomamba_nb.core import cache_dir, set_seed  # noqa: E402
from videomamba_nb.data import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from videomamba_nb.demo import lively_start  # noqa: E402
from videomamba_nb.evaluate import shipped_weights  # noqa: E402
from videomamba_nb.events import long_events  # noqa: E402
from videomamba_nb.long_video import HEADS, FlashWindows, clip_features, fit_head, joint_like, lengthen  # noqa: E402
from videomamba_nb.model import VideoMamba  # noqa: E402
from videomamba_nb.recipe import TrainConfig  # noqa: E402
from videomamba_nb.train import fit  # noqa: E402

MODEL = dict(img_size=32, patch_size=16, num_frames=16, kernel_size=2, depth=2, embed_dim=64, num_classes=4,
             drop_path_rate=0., ssm_cfg=dict(d_state=4))
MODELS, SEEDS = ('videomamba', 'attention'), (0, 1, 2)
CONFIG = dict(videomamba=TrainConfig(batch_size=48, group=6, lr=5e-3, min_lr=1e-5, warmup_epochs=1., clip_grad=1.),
              attention=TrainConfig(batch_size=48, group=6, lr=2e-3, min_lr=1e-5, warmup_epochs=1., clip_grad=1.))
EPOCHS = dict(short=2, long=8, scratch=8)
CLIPS = dict(train=1200, valid=300, test=300)
LENGTHS, COST_LENGTHS, SPARSE = (16, 32, 64, 128), (16, 32, 64, 128, 256, 512), (16, 32, 64, 128, 256, 512)
COST = dict(patch_size=8) # sixteen tokens for two frames, so that attention has something to pay for


class Held(Dataset):
    "All clips of a data set as one tensor of bytes, normalised when they are handed out: small clips spend no time waiting."
    def __init__(self, clips, data):
        self.x = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).contiguous()
        self.y, self.classes = [y for _, y in data.samples], data.classes
        self.mean, self.std = (255*torch.tensor(o)[:, None, None, None] for o in (IMAGENET_MEAN, IMAGENET_STD))

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return (self.x[i]-self.mean)/self.std, self.y[i]


def whole(data):
    "The clips of `long_events`, as the data set hands them out."
    return Held([data.frames(i) for i in range(len(data))], data)


def windows(data, seed):
    "The windows of 16 frames that a model of short clips learns from."
    w = FlashWindows(data, 16, seed)
    clips = [w.held[p][s:s+16] for (p, _), s in zip(w.samples, w.starts)]
    return Held(clips, w)


def fresh(name, seed, **sizes):
    """A model from random numbers. Each has a start under which a narrow model learns: VideoMamba the lively one of the
    demo; attention larger positions, since at a tenth of this size it was still at chance after eight epochs."""
    set_seed(seed)
    model = VideoMamba(**MODEL | sizes)
    if name == 'videomamba':
        return lively_start(model)
    model = joint_like(model)
    with torch.no_grad():
        for k in ('pos_embed', 'temporal_pos_embedding'):
            getattr(model, k).mul_(10)
    return model


def accuracy(model, data):
    "Share of right answers."
    model.eval()
    with torch.no_grad():
        hits = [(model(x).argmax(1) == y).sum().item() for x, y in DataLoader(data, 32)]
    return sum(hits)/len(data)


class Bench:
    "Data, models of short clips and tables."
    def __init__(self, out=None, quick=False):
        self.home, self.out = out or cache_dir('long_video'), out or Path(__file__).parent/'results'
        self.root, self.quick = (out/'clips') if quick else None, quick
        self.clips = dict(train=48, valid=12, test=12) if quick else CLIPS
        self.epochs = dict.fromkeys(EPOCHS, 1) if quick else EPOCHS
        self.seeds = SEEDS[:1] if quick else SEEDS
        self.held = {}

    def data(self, split, length, **kwargs):
        "One data set in memory; only the latest length is kept."
        if length not in {k[1] for k in self.held}:
            self.held.clear()
        key = split, length, *kwargs.items()
        if key not in self.held:
            data = long_events(split, length, n=self.clips[split], root=self.root, mode='val', **kwargs)
            self.held[key] = data.in_memory()
        return self.held[key]

    def has(self, table, **key):
        "Whether a row is in a table."
        return any(all(r[k] == str(v) for k, v in key.items()) for r in read_rows(table, self.out))

    def note(self, what, model, frames, seed, start, hits):
        "Append a row of accuracy."
        row = dict(what=what, model=model, frames=frames, seed=seed, accuracy=round(hits, 4),
                   seconds=round(time.process_time()-start, 1), peak_mb='')
        append_rows('long_video', [row], self.out)
        print(row, flush=True)

    def train(self, model, name, data, seed, epochs):
        "The recipe of a model."
        fit(model, data, None, replace(CONFIG[name], seed=seed, epochs=epochs), device='cpu', show=False)
        return model

    def short(self, name, seed, length=64):
        "A model of 16 frames that knows the kinds of flashes, trained on windows of the long training videos."
        file, start = self.home/f'{name}-seed{seed}.pt', time.process_time()
        model = fresh(name, seed)
        if file.exists() and self.has('long_video', what='short', model=name, seed=seed):
            model.load_state_dict(torch.load(file, weights_only=True))
            return model
        self.train(model, name, windows(self.data('train', length), seed), seed, self.epochs['short'])
        torch.save(model.state_dict(), file)
        hits = accuracy(model, windows(self.data('test', length), seed))
        self.note('short', name, 16, seed, start, hits)
        return model

    def long(self, name, seed, length, scratch=False):
        "End to end on whole videos, from the model of short clips, or from random numbers."
        what = 'scratch' if scratch else 'long'
        if self.has('long_video', what=what, model=name, frames=length, seed=seed):
            return
        short = fresh(name, seed) if scratch else self.short(name, seed)
        set_seed(seed)
        model, start = lengthen(short, length), time.process_time()
        self.train(model, name, whole(self.data('train', length)), seed, self.epochs[what])
        torch.save(model.state_dict(), self.home/f'{what}-{name}-{length}-seed{seed}.pt')
        self.note(what, name, length, seed, start, accuracy(model, whole(self.data('test', length))))

    def heads(self, name, seed, length):
        "Heads on frozen features of short clips; `digits` is the model of MovingDigits that comes with the package."
        if all(self.has('long_video', what=f'head {k}', model=name, frames=length, seed=seed) for k in HEADS):
            return
        model = VideoMamba.from_pretrained(shipped_weights()) if name == 'digits' else self.short(name, seed)
        start = time.process_time()
        train, test = (clip_features(model, whole(self.data(k, length))) for k in ('train', 'test'))
        for kind in HEADS:
            self.note(f'head {kind}', name, length, seed, start, fit_head(kind, train, test, seed=seed))
            start = time.process_time()

    def sparse(self, name, seed, length):
        "The model of whole videos of 16 frames, given 16 frames spread over longer ones."
        if self.has('long_video', what='sparse', model=name, frames=length, seed=seed):
            return
        set_seed(seed)
        model, start = lengthen(self.short(name, seed), 16), time.process_time()
        model.load_state_dict(torch.load(self.home/f'long-{name}-16-seed{seed}.pt', weights_only=True))
        self.note('sparse', name, length, seed, start, accuracy(model, whole(self.data('test', length, num_frames=16))))

    def cost(self, name, length):
        "Time and memory of a training step with one clip, in a process of its own."
        if self.has('long_video_cost', model=name, frames=length):
            return
        command = [sys.executable, __file__, '--step', name, str(length)]
        r = subprocess.run(command, capture_output=True, text=True)
        if r.returncode:
            raise RuntimeError(r.stderr[-2000:])
        seconds, mb = r.stdout.split()[-2:]
        row = dict(what='step', model=name, frames=length, seed='', accuracy='', seconds=seconds, peak_mb=mb)
        append_rows('long_video_cost', [row], self.out)
        print(row, flush=True)


def step(name, length):
    "Seconds and MiB of a training step; `attention, all pairs` writes down every pair of tokens, as plain code would."
    model = fresh(name.split(',')[0], 0, num_frames=length, **COST).train()
    x, y = torch.randn(1, 3, length, 32, 32), torch.zeros(1, dtype=torch.int64)
    how = sdpa_kernel(SDPBackend.MATH) if ',' in name else contextlib.nullcontext()
    def once():
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
    with how:
        warm = fresh(name.split(',')[0], 0, num_frames=4, **COST).train()
        F.cross_entropy(warm(x[:, :, :4]), y).backward() # compile and load what the first call needs
        mb, times = peak(once), []
        while len(times) < 3 or sum(times) < 1 and len(times) < 30:
            start = time.process_time()
            once()
            times.append(time.process_time()-start)
    print(f'{sorted(times)[len(times)//2]:.5f} {mb:.1f}')


def main():
    parts = ('cost', 'short', 'long', 'heads', 'sparse', 'scratch')
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--only', nargs='+', choices=parts, default=parts)
    p.add_argument('--lengths', type=int, nargs='+', default=LENGTHS, help='for training')
    p.add_argument('--models', nargs='+', default=MODELS, choices=MODELS, help='for training')
    p.add_argument('--quick', action='store_true', help='few clips and steps, into a temporary folder')
    p.add_argument('--step', nargs=2, help=argparse.SUPPRESS)
    args = p.parse_args()
    torch.set_num_threads(1)
    if args.step:
        return step(args.step[0], int(args.step[1]))
    with tempfile.TemporaryDirectory() as folder:
        run = Bench(Path(folder), True) if args.quick else Bench()
        if args.quick:
            args.lengths = [16, 32]
        if 'short' in args.only:
            for seed in run.seeds:
                for name in args.models:
                    run.short(name, seed)
        for length in args.lengths if 'long' in args.only else ():
            for seed in run.seeds:
                for name in args.models:
                    run.long(name, seed, length)
        if 'heads' in args.only:
            for seed in run.seeds:
                for name in (*args.models, 'digits'):
                    run.heads(name, seed, 64)
        for length in COST_LENGTHS[:2 if args.quick else None] if 'cost' in args.only else ():
            for name in (*MODELS, 'attention, all pairs'):
                run.cost(name, length)
        for length in SPARSE[:2 if args.quick else None] if 'sparse' in args.only else ():
            for seed in run.seeds:
                for name in args.models:
                    run.sparse(name, seed, length)
        if 'scratch' in args.only:
            for name in args.models:
                run.long(name, 0, 32, scratch=True)


if __name__ == '__main__':
    main()
