#!/usr/bin/env python3
"""Clips and sentences on one process or on many: the same command, the same numbers. Started in any of three ways:

    python dev/experiments/pairs_two.py --out run1
    torchrun --nproc_per_node 2 dev/experiments/pairs_two.py --out run2
    accelerate launch --multi_gpu --num_processes 2 dev/experiments/pairs_two.py --out run3

`--multi_gpu` is right without a GPU, too: it makes `accelerate` start processes; `--cpu` starts one. Each prints what it
found and writes `OUT/pairs.json`. With `--losses vtc` the numbers agree to rounding, however many processes there are;
wrong partners (VTM) and hidden words (MLM) are drawn by each process for itself.
"""
import argparse
import json
from pathlib import Path

import torch

from videomamba_nb.captions import CAPTIONS, captioned_digits
from videomamba_nb.pair_train import Stage, fit_stages
from videomamba_nb.parallel import from_first, join, own_device, place
from videomamba_nb.recipe import TrainConfig
from videomamba_nb.videotext import VideoText
from videomamba_nb.words import Words

HERE = Path(__file__).parent


def parser():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', type=Path, required=True, help='folder for weights and numbers')
    p.add_argument('--data', type=Path, help='folder for clips; the cache of the package if left out')
    p.add_argument('--clips', type=int, default=256, help='training clips')
    p.add_argument('--epochs', type=int, nargs=2, default=(4, 2), help='of the masked stage and of the other')
    p.add_argument('--batch', type=int, default=64, help='pairs per step, of all processes together')
    p.add_argument('--accumulate', type=int, default=1, help='pieces per process and step')
    p.add_argument('--losses', nargs='+', default=['vtc', 'vtm', 'mlm'], help='those with weight 1')
    p.add_argument('--amp', choices=['bf16', 'fp16'], help='half precision; weights stay in float32')
    p.add_argument('--device', default=None, help='a GPU each if there are any')
    return p

def stages(a):
    "Both stages; the masked one is left out if it has no epochs."
    common = dict(batch_size=a.batch, accumulate=a.accumulate, min_lr=2e-5, clip_grad=1., betas=(.9, .98), amp=a.amp)
    every = [Stage('masked', TrainConfig(a.epochs[0] or 1, lr=2e-3, **common), dict(mask='attention')),
             Stage('unmasked', TrainConfig(a.epochs[1] or 1, lr=3e-3, **common), dict(hard_from=10))]
    return tuple(s for s,n in zip(every, a.epochs) if n)

def main(args=None):
    a = parser().parse_args(args)
    join(own_device(a.device, place()))
    if place().first: captioned_digits('train', a.data, a.clips), captioned_digits('valid', a.data, a.clips//4)
    from_first(None) # the others wait until the clips are there
    train,valid = (captioned_digits(k, a.data, n).in_memory() for k,n in (('train', a.clips), ('valid', a.clips//4)))
    torch.manual_seed(0)
    model = VideoText('toy', Words.learn(CAPTIONS))
    found = fit_stages(model, train, CAPTIONS, valid, stages(a), a.out, place().first, device=a.device,
                       weights=dict.fromkeys(a.losses, 1.))
    if place().first: (a.out/'pairs.json').write_text(json.dumps(dict(world=place().world, found=found), indent=1))
    return found

if __name__ == '__main__': main()
