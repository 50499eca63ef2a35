"""What does the shipped model need? Accuracy with changed frames, and with covered places, for all test clips.

    python dev/experiments/saliency.py            400 clips: about ten minutes on one core
    python dev/experiments/saliency.py --quick    16 clips and one random draw, to try it out

`sensitivity.csv` has a row per change of the frames and draw; `saliency.csv` one per paint, map, curve, draw and share of
the places. `nbs/43a_sensitivity.ipynb` shows both.
"""
import argparse
import csv
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT/'dev'/'bench')]

from common import where  # noqa: E402

from videomamba_nb.digits import moving_digits  # noqa: E402
from videomamba_nb.evaluate import look, shipped_weights  # noqa: E402
from videomamba_nb.model import load_model  # noqa: E402
from videomamba_nb.saliency import attention_maps, rollout  # noqa: E402
from videomamba_nb.sensitivity import (  # noqa: E402
    change_frames,
    frame_sensitivity,
    gradient_maps,
    occlusion_maps,
    removal_curve,
)

STEPS = 8


def paints(x):
    "What may stand where a place was covered."
    black = change_frames(x[:1, :, :1], lambda t, rng: torch.full((t,), -1).numpy())
    return {'mean colour': x.mean((2, 3, 4), keepdim=True), 'black': black.expand(len(x), -1, -1, -1, -1),
            'median in time': x.median(2, keepdim=True).values}


def in_parts(f, *tensors, n=50):
    "Call f on n clips at a time."
    return torch.cat([f(*o) for o in zip(*(t.split(n) for t in tensors))])


def all_maps(model, x, fill, draws):
    "Name and number of draw -> a map of every clip."
    moved = F.pad((x[:, :, 1:]-x[:, :, :-1]).abs().sum(1, keepdim=True), (0, 0, 0, 0, 0, 1))
    maps = {'occlusion': in_parts(lambda o, p: occlusion_maps(model, o, fill=p), x, fill),
            'gradient': in_parts(lambda o: gradient_maps(model, o), x),
            'rollout': in_parts(lambda o: rollout(model, o), x),
            'attention': in_parts(lambda o: attention_maps(model, o)[:, -1].mean(0), x),
            'Delta': in_parts(lambda o: look(model, o), x),
            'what moved': F.avg_pool3d(moved, model.patch_embed.proj.kernel_size)[:, 0]}
    maps = {(k, 0): v for k, v in maps.items()}
    for s in range(draws):
        maps['random', s] = torch.rand(len(x), *model.grid, generator=torch.Generator().manual_seed(s))
    return maps


def frame_rows(model, x, y, seeds):
    "Accuracy under each change of frames, one row per draw."
    data = TensorDataset(x, y)
    found = frame_sensitivity(model, data, seeds=range(seeds), device='cpu')
    return [dict(change=k, seed=s, accuracy=round(o, 4)) for k, v in found.items() for s, o in enumerate(v.tolist())]


def curve_rows(model, x, y, draws):
    "Accuracy at each step of each curve."
    rows = []
    for paint, fill in paints(x).items():
        for (name, seed), maps in all_maps(model, x, fill, draws).items():
            for curve in ('delete', 'insert'):
                found = removal_curve(model, x, y, maps, curve == 'insert', STEPS, fill)
                rows += [dict(fill=paint, map=name, curve=curve, seed=seed, share=round(s/STEPS, 3), accuracy=round(o, 4))
                         for s, o in enumerate(found.tolist())]
            print(f'{paint:15}{name:12}{seed}', *(f'{r["accuracy"]:.2f}' for r in rows[-2*(STEPS+1):]), flush=True)
    return rows


def write(path, rows, about):
    "Rows with what they were measured on."
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w', newline='') as f:
        writer = csv.DictWriter(f, [*rows[0], *about], lineterminator='\n')
        writer.writeheader()
        writer.writerows(r | about for r in rows)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--quick', action='store_true', help='few clips, one random draw')
    p.add_argument('--only', choices=['frames', 'maps'], help='one of the two tables')
    p.add_argument('--out', default=str(Path(__file__).parent/'results'), help='folder for the tables')
    args = p.parse_args()
    torch.set_num_threads(1)
    model, meta = load_model(shipped_weights())
    n, draws, at, out = 16 if args.quick else 400, 1 if args.quick else 5, where(), Path(args.out)
    data = moving_digits('test', n=n, num_frames=16, size=32, sampling=meta['sampling'], rate=meta['rate'])
    x, y = torch.stack([data[i][0] for i in range(n)]), torch.tensor([data[i][1] for i in range(n)])
    about = dict(clips=n, cpu=at['device'], **{k: at[k] for k in ('threads', 'date', 'commit', 'torch', 'python')})
    if args.only != 'maps': write(out/'sensitivity.csv', frame_rows(model, x, y, draws), about)
    if args.only != 'frames': write(out/'saliency.csv', curve_rows(model, x, y, draws), about)


if __name__ == '__main__':
    main()
