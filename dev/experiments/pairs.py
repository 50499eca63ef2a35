"""What teaches a small model to match clips with sentences? Two stages from scratch, other masks and other losses.

    python dev/experiments/pairs.py                     every arm, seeds 1 to 3
    python dev/experiments/pairs.py --arms all --seeds 4   some arms and seeds; this one gave the time on two threads
    python dev/experiments/pairs.py --quick             few clips, one epoch, into a temporary folder: does it run?

Captioned digits: 3000 clips with 320 sentences to learn from, 300 unseen clips (other digits, other photographs) to find.
`all` is the recipe of `pair_train.STAGES`: all losses, places hidden by what stands out, then nothing hidden. Every other
arm changes one thing. `short` is the same with less than half of the epochs, and the arms that differ from it are as
short, so that all can be run; `sigmoid`, which learns slowly, is there with all epochs too. After each stage the model is
asked on whole clips: text to video among the 300 (a clip whose sentence is the same counts, `own` counts the very clip
only), re-ranked by the match head, the test of reversed captions (left against right for the same clip, chance 50 %), and
the share of clips for which the nearest of all 320 sentences has the right digit, colour and motion. The last weights
count. The recipe was settled on runs with seed 0, while looking at these test clips; `46_pair_trial` asks about others.
One row per arm and seed goes to `results/pairs.csv`; a stopped run goes on with the next row.
"""
import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT/'dev'/'bench')]

from common import append_rows, read_rows  # noqa: E402

from videomamba_nb.captions import CAPTIONS, SCENES, captioned_digits  # noqa: E402
from videomamba_nb.core import set_seed  # noqa: E402
from videomamba_nb.pair_train import SMALL, STAGES, fit_stages, wide_start  # noqa: E402
from videomamba_nb.ranking import score_retrieval  # noqa: E402
from videomamba_nb.retrieval import encode_all, rerank  # noqa: E402
from videomamba_nb.videotext import VideoText, save_videotext  # noqa: E402
from videomamba_nb.words import Words  # noqa: E402
from videomamba_nb.zero_shot import reverse_test  # noqa: E402

RESULTS = Path(__file__).parent/'results'
SHORT = (6, 10)
ONE,NOT = dict(vtc=1.), lambda *out: {k: 1. for k in ('vtc', 'vtm', 'mlm') if k not in out}
ARMS = {'all': {}, 'short': dict(epochs=SHORT), 'random mask': dict(epochs=SHORT, mask='random'),
        'tube mask': dict(epochs=SHORT, mask='tube'), 'no masked stage': dict(epochs=(0, 10+4)),
        'vtc only': dict(epochs=SHORT, weights=ONE), 'without vtm': dict(epochs=SHORT, weights=NOT('vtm')),
        'without mlm': dict(epochs=SHORT, weights=NOT('mlm')),
        'sigmoid': dict(epochs=SHORT, weights=ONE, model=dict(contrast='sigmoid')),
        'sigmoid, all epochs': dict(weights=ONE, model=dict(contrast='sigmoid')),
        'hard negatives at once': dict(epochs=SHORT, hard_from=0), 'narrow start': dict(epochs=SHORT, wide=False)}
SEEDS = 1,2,3
MEASURES = ('r1', 'r5', 'r10', 'median', 'v2t_r1', 'own', 'reverse', 'digit', 'color', 'motion', 'reranked')
COLUMNS = [f'{s.name}_{k}' for s in STAGES for k in ('epochs', 'loss', 's', 'cpu', *MEASURES)]


def stages(seed, epochs=None, mask='attention', model=None, wide=True, quick=False, **rule):
    "The two stages of an arm."
    found = []
    for s,n in zip(STAGES, epochs or [s.config.epochs for s in STAGES]):
        if not n: continue
        more = rule | (dict(mask=mask) if s.name == 'masked' else {})
        late = dict(hard_from=s.rule['hard_from']*n//s.config.epochs) if 'hard_from' in s.rule else {}
        found.append(replace(s, config=replace(s.config, epochs=1 if quick else n, seed=seed), rule=s.rule | late | more))
    return found

@torch.no_grad()
def measure(model, test, match):
    "What a model can do on whole, unseen clips, in percent."
    e = encode_all(model, test)
    sim = e.scores()
    r = score_retrieval(sim, e.truth)
    asked = sim[:,[e.texts.index(r.captions[0]) for r in test.rows]]
    own = 100*(asked.argmax(0) == torch.arange(len(sim))).double().mean()
    out = {f'r{k}': r.t2v.recall(k) for k in (1, 5, 10)} | dict(median=r.t2v.median, v2t_r1=r.v2t.recall(1), own=own)
    told = reverse_test(model, test)
    out['reverse'] = 100*told.right/told.n
    near = model.encode_text(list(CAPTIONS)).feature
    best = (e.videos.feature.mean(1)@near.T).argmax(1).tolist()
    for part in ('digit', 'color', 'motion'):
        hits = [getattr(SCENES[i], part) == getattr(SCENES[y], part) for i,(_,y) in zip(best, test.samples)]
        out[part] = 100*sum(hits)/len(hits)
    if match:
        v2t,t2v = rerank(model, e.videos, e.sentences, sim, 32)
        out['reranked'] = score_retrieval(v2t, e.truth, t2v).t2v.recall(1)
    return {k: round(float(v), 2) for k,v in out.items()}

def run(arm, seed, train, test, quick, save=None):
    "Train one arm from scratch, and give its row."
    how = ARMS[arm]
    set_seed(seed)
    model = VideoText(SMALL.change(**how.get('model', {})), Words.learn(CAPTIONS, max_len=8))
    if how.get('wide', True): wide_start(model)
    row = dict(arm=arm, seed=seed, clips=len(train), threads=torch.get_num_threads()) | dict.fromkeys(COLUMNS, '')
    wall,cpu = time.time(),time.process_time()
    for s in stages(seed, quick=quick, **how):
        h = fit_stages(model, train, CAPTIONS, stages=(s,), show=False)[s.name]
        row |= {f'{s.name}_epochs': len(h), f'{s.name}_loss': round(h[-1]['train_loss'], 3),
                f'{s.name}_s': round(time.time()-wall, 1), f'{s.name}_cpu': round(time.process_time()-cpu, 1)}
        row |= {f'{s.name}_{k}': v for k,v in measure(model, test, 'vtm' in s.rule.get('weights', {'vtm': 1})).items()}
        wall,cpu = time.time(),time.process_time()
    if save: save_videotext(model, save, captions='captioned digits', **{k: v for k,v in row.items() if k != 'clips'})
    return row

def main(arms, seeds, quick, threads, save):
    torch.set_num_threads(threads)
    folder = Path(tempfile.mkdtemp()) if quick else RESULTS
    n = dict(n=128) if quick else {}
    root = folder if quick else None
    train,test = (captioned_digits(o, root, **n).in_memory() for o in ('train', 'test'))
    done = {(r['arm'], int(r['seed'])) for r in read_rows('pairs', folder)}
    for arm in arms:
        for seed in seeds:
            if (arm, seed) in done: continue
            row = run(arm, seed, train, test, quick, save)
            told = ('arm', 'seed', '_r1', 'reverse', '_s', '_cpu', 'reranked', 'digit')
            print({k: v for k,v in row.items() if k.endswith(told)}, flush=True)
            append_rows('pairs', [row], folder)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--arms', nargs='+', choices=ARMS, default=list(ARMS))
    p.add_argument('--seeds', nargs='+', type=int, default=SEEDS)
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--save', help='write the weights of the last run to this file')
    p.add_argument('--quick', action='store_true')
    o = p.parse_args()
    main(o.arms, o.seeds, o.quick, o.threads, o.save)
