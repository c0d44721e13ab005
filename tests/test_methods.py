"Every method through the same run: records, costs, limits, several targets, early stopping, resume"
import json
from dataclasses import replace
import pytest, torch
from bayes_prompt import experiment
from bayes_prompt.experiment import METHODS, TRANSFER, Config, Context, make_config, run

SMALL = dict(backbone='tiny-t5', sources=['amazon', 'nyt'], m=3, source_steps=3, source_batch=2, steps=3, limit=12, k=2, length=4, sigma=.1, source_lr=.3)
WEIGHTS = {'finetune', 'lora', 'adapters', 'bitfit', 'hyperformer', 'hyperdecoder'}

@pytest.mark.parametrize('method', METHODS)
def test_every_method_gives_a_record(method, tmp_path):
    before = [p.clone() for p in experiment._backbone('tiny-t5', 'cpu').model.parameters()]
    r = run(SMALL, tmp_path, method=method)
    assert r['scores']['n'] == 12 and r == run(SMALL, tmp_path, method=method)
    cost = r['cost']
    assert cost['per_target'] == r['trainable'] and (cost['total'] > r['trainable']) == (method in TRANSFER) and (cost['source_tokens'] > 0) == (method in TRANSFER)
    assert (cost['target_tokens'] > 0) == (method != 'source') and cost['evaluate_tokens'] > 0 and cost['target_steps'] == (0 if method == 'source' else 3)
    assert all(torch.equal(a, b) for a, b in zip(before, experiment._backbone('tiny-t5', 'cpu').model.parameters()))
    assert {'nll', 'brier', 'ece'} <= set(r['scores'])

@pytest.mark.parametrize('method', METHODS)
def test_a_seed_reproduces_every_method(method, tmp_path):
    a, b = [run(SMALL, tmp_path/str(i), method=method) for i in range(2)]
    assert all(a[k] == b[k] for k in ('scores', 'loss', 'source_history', 'train_indices'))

@pytest.mark.parametrize('method', METHODS)
def test_several_targets(method, tmp_path):
    r = run(SMALL, tmp_path, method=method, targets=['spam', 'context'])
    assert list(r['all_scores']) == ['movie', 'spam', 'context'] and r['all_scores']['movie'] == r['scores'] and r['cost']['per_target'] == pytest.approx(r['trainable']/3)
    assert sorted(r['all_train_indices']) == ['context', 'movie', 'spam']

def test_bmtpt_with_one_particle_and_no_prior_is_vanilla_transfer(tmp_path):
    a = run(SMALL, tmp_path, method='bmtpt', m=1, prior='none', decompose=False)
    b = run(SMALL, tmp_path, method='vanilla')
    assert a['loss'] == b['loss'] and a['scores'] == b['scores']

@pytest.mark.parametrize('change', [dict(m=m) for m in (1, 5, 7, 10, 15)] + [dict(kernel=k) for k in ('imq', 'laplacian', 'linear', 'none')] + [dict(prior=p) for p in ('mixture', 'gaussian', 'none')]
                         + [dict(bandwidth=b) for b in ('liu', 'numpyro')] + [dict(blocks=b) for b in ('token', 'coordinate')] + [dict(kappa=1), dict(full=False), dict(noise=True, optimizer='sgd'), dict(repulsion=0.)], ids=str)
def test_every_option_of_bmtpt_changes_the_run(change, tmp_path):
    a, b = run(SMALL, tmp_path), run(SMALL, tmp_path, **change)
    assert a['scores']['nll'] != b['scores']['nll'] and b['scores']['nll'] == b['scores']['nll']

def test_sampled_source_tasks_leave_the_score_unbiased(tmp_path):
    "Over all draws of one task out of two, K/κ times its gradient averages to the gradient of both"
    from bayes_prompt.source import SourceSVGD
    ctx = Context(make_config(SMALL, sources=['amazon', 'nyt']), tmp_path, False)
    x = experiment.init_prompts(ctx.backbone, 2, 4)
    batch = [v[:2] for v in ctx.sources.values()]
    def grad(b):
        s = SourceSVGD(ctx.backbone, x, 2, kernel='none')
        s.backward(b, 0)
        return s.particles.grad
    assert torch.allclose((grad(batch[:1]) + grad(batch[1:]))/2, grad(batch), atol=1e-6)

def test_early_stopping_is_in_the_record(tmp_path):
    r = run(SMALL, tmp_path, method='pt', steps=8, judge_every=2, patience=2)
    assert list(r['judged']) == ['2', '4', '6', '8'][:len(r['judged'])] and len(r['loss']) == 2*len(r['judged'])

def test_a_long_target_stage_resumes_exactly(tmp_path, monkeypatch):
    long = SMALL | dict(method='pt', steps=103)
    whole = run(long, tmp_path/'a')
    batch, seen = Context.batch, []
    def dies(self, t):
        if t == 101 and not seen:
            seen.append(t)
            raise KeyboardInterrupt
        return batch(self, t)
    monkeypatch.setattr(Context, 'batch', dies)
    with pytest.raises(KeyboardInterrupt): run(long, tmp_path/'b')
    assert len(list((tmp_path/'b/sources').glob('*.pt'))) == 1
    again = run(long, tmp_path/'b')
    assert again['loss'] == whole['loss'] and again['scores'] == whole['scores'] and not list((tmp_path/'b/sources').glob('*.pt'))

def test_names_of_records_stay_while_later_options_are_unused(tmp_path):
    "A record of the repository is found again under today's name"
    f = next(experiment.Path(experiment.bayes_prompt.__path__[0]).parent.joinpath('results/demo').glob('*-pt-*.json'))
    r = json.loads(f.read_text())
    (tmp_path/f.name).write_text(f.read_text())
    assert run({k: v for k, v in r['config'].items()}, tmp_path) == r

@pytest.mark.parametrize('change,message', [(dict(targets=['movie']), 'further tasks'), (dict(targets=['amazon']), 'among its own sources'), (dict(full=False, decompose=False), 'something to train'),
    (dict(method='spot', top=3), 'at most the number of source tasks'), (dict(noise=True), 'optimizer "sgd"'), (dict(blocks='rows'), "nearest is"), (dict(patience=-1), '0 or more'), (dict(targets=['spma']), "nearest is 'spam'")])
def test_wrong_options_get_a_sentence(change, message):
    with pytest.raises(ValueError, match=message) as e: make_config(SMALL, **change)
    assert '\n' not in str(e.value)


def test_the_method_of_contributing_runs(monkeypatch, tmp_path):
    "The example that newcomers start from"
    import re
    from bayes_prompt.train import PromptMethod
    text = (experiment.Path(experiment.bayes_prompt.__path__[0]).parent/'CONTRIBUTING.md').read_text()
    names = dict(torch=torch, PromptMethod=PromptMethod)
    exec(re.search(r'```python\n(class .*?)```', text, re.S)[1], names)
    monkeypatch.setitem(METHODS, 'scaled', names['scaled'])
    r = run(SMALL, tmp_path, method='scaled', steps=8, lr=.1)
    assert r['trainable'] == 1 and len(set(r['loss'])) > 1 and r['cost']['source_tokens'] > 0

def test_a_changed_task_of_your_own_is_another_run(tmp_path):
    from bayes_prompt.tasks import TASKS
    def go(labels, n=30):
        (tmp_path/'t.json').write_text(json.dumps(dict(mine=dict(fields=['text'], labels=labels))))
        (tmp_path/'mine.csv').write_text('text,label\n' + ''.join(f'text {i},{i % 2}\n' for i in range(n)))
        try: return run(SMALL, tmp_path/'out', method='pt', tasks=str(tmp_path/'t.json'), target='mine', sources=['spam'])
        finally: TASKS.pop('mine')
    a, b, c = go(['no', 'yes']), go(['bad', 'good']), go(['no', 'yes'], 40)
    assert len({x['scores']['nll'] for x in (a, b, c)}) == 3 and go(['no', 'yes'], 40) == c and len(list((tmp_path/'out').glob('*.json'))) == 3

def test_lengths_of_their_own_are_not_one_length(tmp_path):
    "max_src=0 with tasks of different limits has another name than the target's limit for all"
    runs = [run(SMALL, tmp_path, method='pt', target='movie', sources=['superglue-cb'], max_src=n) for n in (0, 40)]
    assert len(list(tmp_path.glob('*.json'))) == 2 and runs[0]['scores'] == runs[1]['scores']

def test_a_stage_is_found_again_with_other_threads(tmp_path):
    before, n = torch.get_num_threads(), []
    try:
        for t in (1, 2):
            torch.set_num_threads(t)
            n.append(Context(make_config(SMALL), tmp_path, False).weights)
    finally: torch.set_num_threads(before)
    assert n[0] == n[1]

def test_a_resumed_source_stage_counts_all_its_tokens(tmp_path, monkeypatch):
    cfg = SMALL | dict(method='vanilla', source_steps=30)
    whole = run(cfg, tmp_path/'a')['cost']
    real, seen = experiment.learn_posterior, []
    def dies(*args, **kw):
        if seen: return real(*args, **kw)
        seen.append(1)
        from bayes_prompt.source import SourceSVGD
        backward = SourceSVGD.backward
        def stop(self, batch, step):
            if step == 27: raise KeyboardInterrupt
            return backward(self, batch, step)
        with monkeypatch.context() as m:
            m.setattr(SourceSVGD, 'backward', stop)
            return real(*args, **kw)
    monkeypatch.setattr(experiment, 'learn_posterior', dies)
    with pytest.raises(KeyboardInterrupt): run(cfg, tmp_path/'b')
    again = run(cfg, tmp_path/'b')['cost']
    assert again['source_tokens'] == whole['source_tokens'] and again['target_tokens'] == whole['target_tokens']

def test_several_targets_reach_the_table(tmp_path):
    from bayes_prompt.results import frame, plot, table
    df = frame([run(SMALL, tmp_path, method='pt', targets=['movie_score'])])
    assert list(df.target) == ['movie', 'movie_score'] and list(df.metric) == ['accuracy', 'pearson']
    with pytest.raises(ValueError, match='one run per seed'): table(frame([run(SMALL, tmp_path, method='pt', lr=lr) for lr in (.1, .2)]))
    plot(frame([run(SMALL, tmp_path, method=m) for m in METHODS]))

def test_a_checkpoint_of_another_start_is_refused(tmp_path):
    from bayes_prompt.target import adapt
    ctx = Context(make_config(SMALL), tmp_path, False)
    adapt(ctx.backbone, ctx.train['movie'], ctx.start(0), steps=1, checkpoint=tmp_path/'s.pt')
    with pytest.raises(ValueError, match='another run'): adapt(ctx.backbone, ctx.train['movie'], ctx.start(1), steps=1, checkpoint=tmp_path/'s.pt')

def test_lists_on_the_command_line():
    from bayes_prompt.cli import parse_changes
    assert parse_changes(['targets=tweets,nyt', 'sources=spam']) == dict(targets=['tweets', 'nyt'], sources=['spam'])
