"What the tests of weight methods share"
from dataclasses import replace
import torch
from bayes_prompt.baselines.hyper import HyperFormer
from bayes_prompt.data import load_task
from bayes_prompt.engine import prompt_losses
from bayes_prompt.prompt import encode
from bayes_prompt.train import fit

TASKS = ['a', 'b']
CHOICES = load_task('spam').choices

def hyperformer(bb, lr=0., **kw): return HyperFormer(bb, TASKS, lr, **kw)

def examples(bb, n=8):
    "Of several lengths, tasks mixed"
    encoded = encode(bb, load_task('spam').train[:n], max_src=24)
    return [replace(e, ids=e.ids[:10+2*i], task=TASKS[i % 2]) for i, e in enumerate(encoded)]

@torch.no_grad()
def losses(method, exs): return prompt_losses(method.backbone, method.prompts(), exs)

def train(method, exs, steps=5): return [h['loss'] for h in fit(method, lambda t: [exs], steps=steps)]

def trained(make, bb, **kw):
    m = make(bb, lr=1e-2, **kw)
    train(m, examples(bb))
    return m
