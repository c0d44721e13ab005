"""Make the records in `results/` that the pages of findings read.

Resumable: a run whose record exists is not repeated. What was chosen on which part, and in which order, is told in `nbs/60_demo.ipynb`.
"""
import shutil
from pathlib import Path
from fastcore.script import call_parse
from tqdm.auto import tqdm
from bayes_prompt.cli import DEMO, SETTING, demo_configs
from bayes_prompt.experiment import run
from bayes_prompt.tasks import suite

DEV = dict(target='movie', sources=['amazon', 'tweets', 'nyt', 'spam']) # a related target that the demo does not report
RELATED = DEMO['targets'][0]

def search():
    "Each method's learning rate with equal effort, then the prior's width, on the validation part of another target"
    for seed in (100, 101, 102):
        common = SETTING | DEV | dict(split='validation', seed=seed, source_seed=100)
        for lr in (.01, .03, .1):
            for method in DEMO['methods']: yield common | dict(method=method, lr=lr, lr_low=lr, prior='none')
        for sigma in (4., 16.): yield common | dict(method='bmtpt', lr=.03, lr_low=.03, sigma=sigma)

def demo():
    "The demo's own runs"
    return demo_configs()

def seeds():
    "Seven more draws of the related target's examples"
    return [c for c in demo_configs(range(3, 10)) if c['target'] == RELATED]

def rates():
    "The related target at a higher learning rate than the search chose"
    return [c for c in demo_configs(lr=.03, lr_low=.03) if c['target'] == RELATED]

def control():
    "BMTPT without repulsion between the particles"
    return [c for c in demo_configs(repulsion=0.) if c['target'] == RELATED and c['method'] == 'bmtpt']

def domains():
    "The frozen configuration on two domains of sentiment that no trial and no search looked at"
    for t in ('tweets', 'nyt'):
        rest = [d for d in ('movie', 'amazon', 'tweets', 'nyt') if d != t]
        yield from (c | dict(target=t, sources=[*rest, 'spam']) for c in demo_configs(5) if c['target'] == RELATED)

def yardstick():
    "Prompt tuning against fine-tuning of the same backbone: all training data, equal steps and batch, learning rates chosen on the validation part of `movie`"
    common = dict(k=0, max_src=96, steps=200, batch=16, length=20, limit=500, validate=True)
    grid, judges = dict(pt=(.02, .04), finetune=(5e-5, 2e-4)), ('movie',)
    def config(t, m, lr): return common | dict(target=t, sources=['tweets' if t != 'tweets' else 'nyt'], method=m, lr=lr) | (dict(lr_weights=lr) if m == 'finetune' else {})
    def value(m, lr): return sum(run(config(t, m, lr), 'results/yardstick')['validation']['accuracy'] for t in judges)
    yield from (config(t, m, lr) for m, lrs in grid.items() for lr in lrs for t in judges)
    best = {m: max(lrs, key=lambda lr: value(m, lr)) for m, lrs in grid.items()}
    yield from (config(t.name, m, lr) for t in suite('mini') for m, lr in best.items())
    yield config('movie', 'pt', best['pt']) | dict(steps=600, limit=1000) # is it the backbone, or the number of steps?

PROMPTS, WEIGHTS = ('pt', 'vanilla', 'spot', 'attempt', 'mpt', 'merge', 'bmtpt', 'average'), ('lora', 'adapters', 'bitfit', 'hyperformer', 'hyperdecoder', 'finetune')

def at_rate(method, rate):
    "A method at one of three learning rates; a prompt's factors and attention have the prompt's"
    if method in PROMPTS: return SETTING | dict(method=method, sigma=16.) | dict(zip(('lr', 'lr_low'), [(.003, .01, .03)[rate]]*2))
    return SETTING | dict(method=method, lr_weights=(1e-4, 5e-4, 2e-3)[rate])

def tune():
    "Three learning rates of every method, on the validation part of a target that is not reported"
    return [at_rate(m, i) | DEV | dict(split='validation', seed=100, source_seed=100, limit=200) for m in (*PROMPTS, *WEIGHTS) for i in range(3)]

def compare():
    "Every method at the rate that `tune` chose, on a domain of sentiment and an unrelated task"
    import json
    tuned = {}
    for f in Path('results/tune').glob('*.json'):
        r = json.loads(f.read_text())
        rate = r['config']['lr_weights'] if r['config']['method'] in WEIGHTS else r['config']['lr']
        tuned.setdefault(r['config']['method'], {}).setdefault(rate, []).append(r['scores'][r['metric']])
    best = {m: max(sorted(rs), key=lambda x: sum(rs[x])/len(rs[x])) for m,rs in tuned.items()}
    rates = {m: [i for i in range(3) if at_rate(m, i).get('lr_weights', at_rate(m, i).get('lr')) == x][0] for m,x in best.items()}
    for seed in range(3):
        for t in ('tweets', 'acceptability'):
            rest = [d for d in ('movie', 'amazon', 'tweets', 'nyt') if d != t][:3]
            for m in (*PROMPTS, *WEIGHTS): yield at_rate(m, rates[m]) | dict(target=t, sources=[*rest, 'spam'], seed=seed)

@call_parse
def main(
    what:str # search, demo, seeds, rates, control, domains, yardstick, tune or compare
):
    "Run a group of experiments into results/<what>"
    out, posteriors = Path('results')/what, Path('results/demo/sources')
    if what in ('seeds', 'rates') and posteriors.exists(): shutil.copytree(posteriors, out/'sources', dirs_exist_ok=True) # these start from the demo's
    for c in tqdm(dict(search=search, demo=demo, seeds=seeds, rates=rates, control=control, domains=domains, yardstick=yardstick, tune=tune, compare=compare)[what]()):
        r = run(c, out)
        s, k = r['scores'], r['config']
        tqdm.write(f'{k["target"]:13} {k["method"]:8} seed {k["seed"]} lr {k["lr"]:<6} sigma {k["sigma"]:<5} {r["metric"]} {s[r["metric"]]:.3f} (majority {s["majority"]:.3f})  {r["seconds"]["total"]:.0f} s')
