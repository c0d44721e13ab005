"SPoT: the similarity, its limits, that a target which is a source finds it, and what its two early sides cost"
import pytest, torch
from bayes_prompt.baselines import spot as page
from bayes_prompt.baselines.spot import retrieve, similarity
from bayes_prompt.config import make_config
from bayes_prompt.data import load_task
from bayes_prompt.engine import prompt_losses
from bayes_prompt.options import methods
from bayes_prompt.prompt import encode, init_prompts
from bayes_prompt.protocol import Context
from bayes_prompt.run import method_of, run
from bayes_prompt.source import learn_prompts
from bayes_prompt.target import adapt

def random(seed, *shape): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

def test_similarity_is_the_cosine_of_row_means():
    x = random(0, 4, 3, 5)
    s = similarity(x)
    for i in range(4):
        for j in range(4): assert torch.isclose(s[i, j], torch.cosine_similarity(x[i].mean(0), x[j].mean(0), dim=0), atol=1e-6)
    assert torch.allclose(s, similarity(x[:, [2, 0, 1]]), atol=1e-6) and torch.allclose(s, similarity(3*x), atol=1e-6)
    assert torch.equal(similarity(x, x[:1]), s[:, :1])

def test_retrieval_is_the_limit_of_the_mean():
    x = random(1, 4, 3, 5)
    early = x[2] + .1*random(2, 3, 5)
    assert torch.equal(retrieve(x, early), x[2])
    assert torch.allclose(retrieve(x, early, top=4, weighted=False), x.mean(0), atol=1e-6)
    s = similarity(x, early[None])[:, 0].clamp(min=0)
    assert torch.allclose(retrieve(x, early, top=4), (s[:, None, None]*x).sum(0)/s.sum(), atol=1e-6)

def test_early_keys_are_compared_and_finished_prompts_taken():
    x = random(1, 4, 3, 5)
    assert torch.equal(retrieve(x, x[2], keys=x[[2, 1, 0, 3]]), x[0])

def test_there_is_a_start_even_if_nothing_is_similar():
    x = random(1, 1, 3, 5)
    assert torch.allclose(retrieve(x, -x[0]), x[0])

def test_a_target_that_is_a_source_retrieves_it(tiny):
    tasks = ['tweets', 'supersense', 'acceptability']
    def learn(names, rows):
        sources = {n: encode(tiny, load_task(n).train[rows], 24, 6) for n in names}
        return learn_prompts(tiny, sources, init_prompts(tiny, 1, 6)[0], steps=12, lr=.3, batch=4).particles
    finished, early = learn(tasks, slice(40)), learn(tasks[::-1], slice(40, 80))
    starts = [retrieve(finished, e) for e in early][::-1]
    assert all(torch.equal(s, p) for s, p in zip(starts, finished))
    exs = encode(tiny, load_task(tasks[0]).train[:8], 24, 6)
    history = adapt(tiny, exs, starts[0], steps=5, batch=8, lr=.3).history
    assert history[-1]['loss'] < prompt_losses(tiny, starts[0][None], exs).mean()

def test_spot_refuses_bad_input():
    x = torch.zeros(3, 2, 4)
    with pytest.raises(ValueError, match='from 1 to the number of source prompts 3, got 4'): retrieve(x, x[0], top=4)
    with pytest.raises(ValueError, match='expected prompts'): similarity(x[0])
    with pytest.raises(ValueError, match='expected prompts'): similarity(x, x[..., :3])

SMALL = {'method': 'spot', 'compute.backbone': 'tiny-t5', 'length': 4, 'data.limit': 12, 'source.tasks': ['amazon', 'nyt', 'spam'],
         'source.steps': 3, 'source.batch': 2, 'source.lr': .3, 'source.seed': 5, 'target.steps': 8, 'target.batch': 3, 'target.lr': .2,
         'target.k': 2, 'target.optimizer': 'adagrad'}

def watched(monkeypatch, tmp_path, **own):
    "The context of a run, what `learn_prompts` was given, and the (start, rate, steps, end) of each `ctx.fit`"
    learnt, fitted = [], []
    def learn(bb, sources, start, options, *rest, **step):
        learnt.append((start, options, posterior := learn_prompts(bb, sources, start, options, *rest, **step)))
        return posterior
    monkeypatch.setattr(page, 'learn_prompts', learn)
    config = make_config(SMALL, **{f'spot.{k}': v for k, v in own.items()})
    ctx = Context(config, tmp_path, progress=False)
    def fit(method, steps=None, judged=True, real=ctx.fit):
        start = method.prompt.detach().clone()
        real(method, steps, judged)
        fitted.append((start, method.lr, steps, method.prompt.detach().clone()))
        return method
    ctx.fit = fit
    method_of(config)(ctx)
    return ctx, learnt, fitted

def test_defaults_are_the_papers():
    o = methods()['spot'].options()
    assert (o.keys, o.begin, o.top) == ('early', 'sources', 1)

@pytest.mark.parametrize('begin', ['sources', 'target'])
def test_early_keys_are_made_as_the_targets_early_prompt(begin, monkeypatch, tmp_path):
    "The same start, steps, rate, batch and optimiser on both sides; the retrieved one is finished"
    ctx, [(start, o, keys)], [early, rest] = watched(monkeypatch, tmp_path, begin=begin)
    seed = 5 if begin == 'sources' else 0
    assert torch.equal(start, ctx.start(seed)) and torch.equal(early[0], start) and not torch.equal(ctx.start(5), ctx.start(0))
    assert (o.steps, o.lr, o.batch, o.optimizer) == (2, .2, 3, 'adagrad') == (early[2], early[1], ctx.config.target.batch, ctx.config.target.optimizer)
    assert not torch.equal(keys.particles[0], start)
    finished = ctx.separate().particles
    best = similarity(keys.particles, early[3][None])[:, 0].argmax()
    assert torch.equal(rest[0], finished[best]) and rest[2] == 6

def test_the_history_of_a_record_is_that_of_the_finished_prompts(monkeypatch, tmp_path):
    ctx, *_ = watched(monkeypatch, tmp_path)
    assert len(ctx.source.history) == 3 and len(ctx.history) == 8

def test_finished_keys_need_no_stage(monkeypatch, tmp_path):
    ctx, learnt, (early, rest) = watched(monkeypatch, tmp_path, keys='finished')
    finished = ctx.separate().particles
    assert not learnt and torch.equal(rest[0], retrieve(finished, early[3]))

def test_early_steps_are_counted(tmp_path):
    "The target's in its steps; the sources' in the ledger, with their tokens and parameters"
    cost = {keys: run(SMALL | {'spot.keys': keys}, tmp_path/keys)['cost'] for keys in ('finished', 'early')}
    width = 32
    assert [c['target_steps'] for c in cost.values()] == [8, 8]
    assert cost['finished']['source_steps'] == 3*3 and cost['early']['source_steps'] == 3*3 + 3*2
    assert cost['early']['source_tokens'] > cost['finished']['source_tokens']
    assert cost['early']['target_tokens'] == pytest.approx(cost['finished']['target_tokens'], rel=.01)
    assert cost['finished']['total'] == (3 + 1)*4*width and cost['early']['total'] == (6 + 1)*4*width

def test_keys_from_a_targets_own_start_are_each_seeds(tmp_path):
    "The stage of one seed is not read by another"
    made = [run(SMALL | {'spot.begin': 'target', 'seed': seed}, tmp_path)['cost'] for seed in (0, 1)]
    assert len([f for f in (tmp_path/'sources').glob('*/posterior.safetensors')]) == 1 + 2
    assert made[0]['source_steps'] == made[1]['source_steps']

def test_early_prompts_of_sources_step_as_the_targets_do(tmp_path, monkeypatch):
    from bayes_prompt import source, target, train
    from bayes_prompt.run import run
    from conftest import SMALL
    seen = []
    def heard(method, batch, steps, optimizer='adam', warmup=.1, callbacks=(), key='', weight_decay=0.):
        seen.append((steps, optimizer, warmup, weight_decay))
        return train.fit(method, batch, steps, optimizer, warmup, callbacks, key, weight_decay)
    for module in (source, target): monkeypatch.setattr(module, 'fit', heard)
    run(SMALL, tmp_path, method='spot', steps=8, **{'target.warmup': .5, 'target.weight_decay': .01, 'target.optimizer': 'adamw'})
    early = [s for s in seen if s[0] == 2] # a quarter of the steps
    assert early == 3*[(2, 'adamw', .5, .01)] # two sources and the target
