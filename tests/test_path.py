"The path from text to record, on the trained backbone and on a random T5"
import errno, json, os, signal, subprocess, sys, time
from pathlib import Path
import pytest, torch
from bayes_prompt import experiment
from bayes_prompt.backbone import load_backbone
from bayes_prompt.cli import bp_run
from bayes_prompt.data import batch_indices, few_shot, load_task
from bayes_prompt.engine import generate, label_scores, loss_and_grad, loss_matrix, prompt_losses
from bayes_prompt.experiment import check_out, make_config, run, write_json
from bayes_prompt.prompt import encode, init_prompts, label_ids
from bayes_prompt.source import SourcePosterior, SourceSVGD, learn_posterior
from bayes_prompt.svgd import svgd_direction
from bayes_prompt.target import PRIORS, TargetPrompt, adapt
from bayes_prompt.train import PromptTuning, evaluate, fit, predict, save_atomic

TASKS = ['movie', 'context', 'supersense', 'movie_score']

@pytest.fixture(scope='module', params=['mini', 'tiny-t5'])
def bb(request): return load_backbone(request.param)

def batches(bb, b=2, length=6): return [encode(bb, load_task(t).train[:b], 48, length) for t in TASKS]

def test_a_score_equals_plain_transformers(bb):
    "Loss and gradient of each particle on each task: ours in one batch, and alone through the model's own forward pass"
    x, bs = init_prompts(bb, 3, 6, seed=1), batches(bb)
    losses, grads = loss_and_grad(bb, x, bs)
    for m in range(3):
        p, want = x[m].clone().requires_grad_(), []
        for b in bs:
            each = []
            for e in b:
                emb = torch.cat([p, bb.embed(torch.tensor(e.ids))])[None]
                each.append(bb.model(inputs_embeds=emb, attention_mask=torch.ones(emb.shape[:2], dtype=torch.long), labels=torch.tensor([e.labels])).loss)
            want.append(torch.stack(each).mean())
        sum(want).backward()
        assert torch.allclose(losses[m], torch.stack(want).detach(), atol=1e-5)
        assert torch.allclose(grads[m], p.grad, atol=1e-5*p.grad.abs().max().item() + 1e-6)

@pytest.mark.parametrize('budget', [1, 200, 10**6])
def test_chunks_change_nothing(bb, budget):
    x, bs = init_prompts(bb, 3, 6), batches(bb, 3)
    (l0, g0), (l1, g1) = loss_and_grad(bb, x, bs), loss_and_grad(bb, x, bs, budget=budget)
    assert torch.allclose(l0, l1, atol=1e-5) and (g0-g1).norm() < 1e-4*g0.norm()
    assert torch.allclose(l0, loss_matrix(bb, x, bs), atol=1e-5)

def test_the_backbone_is_frozen(bb):
    before = {k: v.clone() for k, v in bb.model.state_dict().items()}
    learn_posterior(bb, dict(zip(TASKS, batches(bb))), m=2, length=6, steps=3, lr=.05)
    assert not bb.model.training and all(not p.requires_grad and p.grad is None for p in bb.model.parameters())
    assert all(torch.equal(before[k], v) for k, v in bb.model.state_dict().items())

def test_a_step_is_the_svgd_direction(bb):
    "One plain step of the source stage is ε φ of page 01"
    x, bs = init_prompts(bb, 3, 6), batches(bb)
    method = SourceSVGD(bb, x, len(bs), lr=.1)
    fit(method, lambda t: bs, 1, 'sgd')
    phi = svgd_direction(x, -loss_and_grad(bb, x, bs)[1])
    assert torch.allclose(method.particles.detach(), x + .1*phi, atol=1e-6)

def test_sampled_tasks_keep_the_score_unbiased(bb):
    "The mean over all κ=2 subsets of the rescaled score is the full score"
    from itertools import combinations
    x, bs = init_prompts(bb, 2, 6), batches(bb)
    full = loss_and_grad(bb, x, bs)[1]
    pairs = list(combinations(bs, 2))
    part = sum(loss_and_grad(bb, x, list(p), weights=[len(bs)/2]*2)[1] for p in pairs)/len(pairs)
    assert (full-part).norm() < 1e-4*full.norm()

def test_each_method_lowers_its_loss_on_eight_examples(bb):
    exs = encode(bb, load_task('supersense').train[:8], 32, 6)
    x, lr = init_prompts(bb, 3, 6), .02 if bb.name == 'mini' else .3
    post = SourcePosterior(x, ['amazon'], bb.name)
    def value(p):
        with torch.no_grad(): return prompt_losses(bb, p[None], exs).mean().item()
    for start, kw in [(x[0], {}), (post, {}), (post, dict(decompose=False, prior='gaussian')), (post, dict(prior='mixture')), (post, dict(prior='none'))]:
        t = adapt(bb, exs, start, steps=10, b=8, lr=lr, lr_low=lr, sigma=10., **kw)
        begin = start if isinstance(start, torch.Tensor) else start.mean
        assert value(t.prompt) < value(begin), kw

def test_groups_partition_what_is_trained(bb):
    for method, n in [(PromptTuning(bb, init_prompts(bb, 1, 6)[0]), 6*bb.width), (TargetPrompt(bb, init_prompts(bb, 3, 6)), 6*bb.width + 6 + bb.width)]:
        ps = [p for g, _ in method.groups().values() for p in g]
        assert len({id(p) for p in ps}) == len(ps) and method.trainable() == n

def test_ranking_agrees_with_the_loss_and_generation_runs(bb):
    task = load_task('supersense')
    part, x = task.validation[:6], init_prompts(bb, 2, 6)
    exs = encode(bb, part, 40, 6)
    s = label_scores(bb, x, exs, list(task.choices))
    n = torch.tensor([len(e.labels) for e in exs])
    gold = torch.stack([s[:, i, task.choices.index(y)] for i, (_, y) in enumerate(part)], 1)
    with torch.no_grad(): assert torch.allclose(-gold/n, prompt_losses(bb, x, exs), atol=1e-4)
    one = [predict(bb, x[i:i+1], exs, task.choices) for i in range(2)]
    assert set(predict(bb, x, exs, task.choices)) <= set(task.choices) and len(one[0]) == 6
    out = generate(bb, x[0], exs, 4)
    assert len(out) == 6 and all(isinstance(o, str) for o in out)
    assert out == [generate(bb, x[0], [e], 4)[0] for e in exs]   # padding changes no answer

def test_generation_is_greedy(bb):
    "The first generated token is the arg max of the logits that the loss sees"
    exs, p = encode(bb, load_task('movie').train[:2], 40, 6), init_prompts(bb, 1, 6)
    emb = torch.cat([p[0], bb.embed(torch.tensor(exs[0].ids))])[None]
    with torch.no_grad():
        dec = bb.model.prepare_decoder_input_ids_from_labels(labels=torch.tensor([[5]]))
        want = bb.model(inputs_embeds=emb, attention_mask=torch.ones(emb.shape[:2], dtype=torch.long), decoder_input_ids=dec).logits[0, 0].argmax()
        got = bb.model.generate(inputs_embeds=emb, attention_mask=torch.ones(emb.shape[:2], dtype=torch.long), max_new_tokens=1, do_sample=False)[0, -1]
    assert got == want

@pytest.mark.parametrize('optimizer', ['adam', 'adafactor'])
def test_a_killed_source_stage_resumes_to_the_same_bits(bb, tmp_path, optimizer):
    sources, kw = dict(zip(TASKS, batches(bb, 4))), dict(m=3, length=6, steps=6, lr=.02, kappa=2, seed=2, optimizer=optimizer)
    want = learn_posterior(bb, sources, **kw)
    calls, plain = [], SourceSVGD.backward
    def dies(self, batch, step):
        calls.append(step)
        if step == 4: raise KeyboardInterrupt
        return plain(self, batch, step)
    with pytest.MonkeyPatch.context() as mp:
        mp.setattr(SourceSVGD, 'backward', dies)
        with pytest.raises(KeyboardInterrupt): learn_posterior(bb, sources, checkpoint=tmp_path/'s.pt', every=2, **kw)
    n = len(calls)
    got = learn_posterior(bb, sources, checkpoint=tmp_path/'s.pt', every=2, **kw)
    assert n == 5 and torch.equal(want.particles, got.particles) and want.history == got.history
    with pytest.raises(ValueError, match='another run'): learn_posterior(bb, sources, checkpoint=tmp_path/'s.pt', **(kw | dict(seed=3)))

def small(bb, **kw): return dict(backbone=bb.name, sources=['amazon', 'nyt'], m=2, length=4, source_steps=3, steps=3, k=2, limit=20) | kw

@pytest.mark.parametrize('method', experiment.METHODS)
def test_every_method_runs_and_repeats(bb, tmp_path, method):
    c = small(bb, method=method, lr=1e-3)
    a, b = [run(c, tmp_path/d) for d in 'ab']
    assert a['scores'] == b['scores'] and a['loss'] == b['loss'] and a['scores']['n'] == 20
    assert json.loads(next((tmp_path/'a').glob('*.json')).read_text()) == a
    assert run(c, tmp_path/'a') == a and not list(tmp_path.rglob('*.part'))

def test_seeds_share_a_source_posterior_and_source_seeds_do_not(bb, tmp_path):
    a, b, c = [run(small(bb, **kw), tmp_path) for kw in (dict(seed=1), dict(seed=2), dict(seed=1, source_seed=1))]
    assert len(list((tmp_path/'sources').iterdir())) == 2
    assert a['source_history'] == b['source_history'] != c['source_history']
    assert a['train_indices'] == c['train_indices'] != b['train_indices']

def test_one_particle_without_prior_is_vanilla_transfer(bb, tmp_path):
    a = run(small(bb, method='vanilla'), tmp_path)
    b = run(small(bb, method='bmtpt', m=1, prior='none', decompose=False), tmp_path)
    assert a['loss'] == b['loss'] and a['scores'] == b['scores']

def test_a_full_disk_costs_nothing(bb, tmp_path, monkeypatch):
    run(small(bb), tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
    def full(*a, **k): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match='No space left'): run(small(bb, target='spam', method='pt'), tmp_path)
    with pytest.raises(OSError, match='No space left'): save_atomic({}, tmp_path/'x.pt')
    assert before == {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}

def test_a_small_disk_is_seen_before_any_work(tmp_path):
    with pytest.raises(OSError, match='make room'): check_out(tmp_path, need=10**9)

@pytest.mark.skipif(os.geteuid() == 0 and not Path('/proc/1').exists(), reason='needs a place that nobody can write to')
def test_a_folder_without_permission(tmp_path):
    with pytest.raises(OSError, match='cannot write to'): check_out('/proc/1/results')

@pytest.mark.parametrize('bad, said', [
    (dict(target='moovie'), "nearest is 'movie'"), (dict(sede=1), "nearest is 'seed'"), (dict(k=10**6), 'ask for at most'), (dict(length=5000), 'shorter prompt'),
    (dict(m=0), 'at least 1'), (dict(backbone='minni'), "nearest known name is 'mini'"), (dict(prior='meen'), "nearest is 'mean'"), (dict(kappa=9), 'number of source tasks'), (dict(backbone='tiny-t5', length=10**5), 'shorter prompt'), (dict(kernel='rbff'), "nearest is 'rbf'"),
    (dict(seed=-1), '0 or more'), (dict(lr=float('inf')), 'finite'), (dict(sources=['nyt', 'nyt']), 'different tasks'), (dict(device='cudda'), 'not available'), (dict(max_src=3), 'at least 8 tokens'),
   
    (dict(data_dir='/nowhere'), 'no folder')])
def test_bad_input_is_one_sentence(bad, said, tmp_path):
    args = [f'{k}={json.dumps(v)}' for k, v in (dict(backbone='mini', source_steps=2, steps=2) | bad).items()]
    with pytest.raises(SystemExit) as e: bp_run([args[0], '--out', str(tmp_path), *args[1:]])
    assert said in e.value.code and len(e.value.code.splitlines()) == 1   # sys.exit prints it and exits with status 1
    assert not [p for p in tmp_path.rglob('*') if p.is_file()]

def test_other_data_under_the_same_names_is_another_posterior(bb, tmp_path):
    import pyarrow.parquet as pq, bayes_prompt
    data, assets = tmp_path/'data', Path(bayes_prompt.__path__[0])/'assets'/'mini'
    data.mkdir()
    for t in ('amazon', 'nyt', 'movie'): (data/f'{t}.parquet').write_bytes((assets/f'{t}.parquet').read_bytes())
    c = small(bb, method='source', data_dir=str(data))
    a = run(c, tmp_path)
    t = pq.read_table(data/'amazon.parquet')
    pq.write_table(t.slice(len(t)//2), data/'amazon.parquet')
    b = run(c | dict(seed=1), tmp_path)
    assert a['source_history'] != b['source_history']

def test_a_run_that_ends_in_nonsense_is_no_result(bb, tmp_path):
    with pytest.raises(ValueError, match='finite'): run(small(bb, method='finetune', optimizer='sgd', lr_weights=1e38, steps=2), tmp_path)
    assert not list(tmp_path.glob('*.json'))

@pytest.mark.parametrize('text', [None, '', ' '])
def test_an_empty_field_is_refused(text):
    from bayes_prompt.tasks import TASKS as T
    with pytest.raises(ValueError, match='empty'): T['context'].to_text(dict(word='bank', sentence1='The bank.', sentence2=text, label='True'))
    assert T['movie'].to_text(dict(sentence='fine')) == ('movie sentence: fine', None)

def test_ctrl_c_says_what_is_kept_and_goes_on(tmp_path):
    args = [Path(sys.executable).with_name('bp_demo'), '--quick', '--backbone', 'tiny-t5', '--out', str(tmp_path)]
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background of a script inherits that it is ignored
    p = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    while not list(tmp_path.glob('*.json')):
        assert p.poll() is None, p.stderr.read()
        time.sleep(.05)
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=60)
    assert p.returncode == 130 and 'kept' in err and 'the same command goes on' in err and 'Traceback' not in err
    kept = {f.name: f.stat().st_mtime_ns for f in tmp_path.glob('*.json')}
    r = subprocess.run(args, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    assert all((tmp_path/f).stat().st_mtime_ns == t for f, t in kept.items()) and len(list(tmp_path.glob('*.json'))) == 6
    assert 'bmtpt' in (tmp_path/'table.txt').read_text() and (tmp_path/'figure.png').stat().st_size > 5000
