"""Make the records in `results/` that the pages of findings read: the search, the demo, and the backbone's yardstick.

Resumable: a run whose record exists is not repeated. Everything is chosen on validation parts of tasks that the demo does not report.
"""
from fastcore.script import call_parse
from tqdm.auto import tqdm
from bayes_prompt.cli import demo_configs
from bayes_prompt.experiment import run
from bayes_prompt.tasks import suite

LRS = [.005, .01, .02, .04]

def search():
    "Learning rates per method and the prior's width, on the validation parts of a related and an unrelated target that the demo does not report"
    dev = [('amazon', ['movie', 'tweets', 'nyt', 'hypernym']), ('supersense', ['movie', 'tweets', 'nyt', 'hypernym'])]
    for target, sources in dev:
        common = dict(target=target, sources=sources, split='validation')
        for seed in (100, 101):
            for lr in LRS:
                for method in ('pt', 'vanilla'): yield common | dict(method=method, lr=lr, seed=seed)
                yield common | dict(method='bmtpt', lr=lr, lr_low=lr, seed=seed, prior='none')
            for sigma in (.1, .3, 1., 3.): yield common | dict(method='bmtpt', lr=.01, lr_low=.01, sigma=sigma, seed=seed)

def demo():
    "The demo's own runs"
    return demo_configs()

def yardstick():
    "Prompt tuning against fine-tuning of the same backbone: all training data, equal steps and batch, learning rates chosen on the validation parts of two tasks"
    common = dict(k=0, steps=300, batch=16, length=20, validate=True)
    grid = dict(pt=(.01, .02, .04), finetune=(3e-5, 1e-4, 3e-4))
    for method, lrs in grid.items():
        for t in ('movie', 'supersense'):
            for lr in lrs: yield common | dict(target=t, sources=['tweets'], method=method, lr=lr)
    best = {m: max(lrs, key=lambda lr: sum(run(common | dict(target=t, sources=['tweets'], method=m, lr=lr), 'results/yardstick')['validation']['accuracy']
                                           for t in ('movie', 'supersense'))) for m, lrs in grid.items()}
    for t in suite('mini'):
        for m, lr in best.items(): yield common | dict(target=t.name, sources=['tweets' if t.name != 'tweets' else 'nyt'], method=m, lr=lr)

@call_parse
def main(
    what:str='demo' # search, demo or yardstick
):
    "Run a group of experiments into results/<what>"
    for c in tqdm(dict(search=search, demo=demo, yardstick=yardstick)[what]()):
        r = run(c, f'results/{what}')
        s, k = r['scores'], r['config']
        tqdm.write(f'{k["target"]:13} {k["method"]:8} seed {k["seed"]} lr {k["lr"]:<6} sigma {k["sigma"]:<5} {r["metric"]} {s[r["metric"]]:.3f} (majority {s["majority"]:.3f})  {r["seconds"]["total"]:.0f} s')
