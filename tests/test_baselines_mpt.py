"""Multitask prompt tuning: its loss against plain transformers calls, its limit, its subsets, its counts, its resume."""
import pytest, torch, torch.nn.functional as F
from bayes_prompt.backbone import load_backbone
from bayes_prompt.baselines.mpt import MPTSource, target_start
from bayes_prompt.callbacks import Checkpoint
from bayes_prompt.data import load_task
from bayes_prompt.engine import prompt_losses
from bayes_prompt.prompt import Example, encode, init_prompts
from bayes_prompt.target import SharedPrompt
from bayes_prompt.evaluate import predict
from bayes_prompt.run import run
from bayes_prompt.train import PromptTuning, fit, make_optimizer
from test_causal import saved

NAMES = ['tweets', 'spam', 'hypernym']
RATE, DROP = {'tiny-t5': 1., 'mini': .1}, {'tiny-t5': .95, 'mini': .8}   # a random T5 answers to large steps only, and little

def data(bb, n=4, names=NAMES): return [encode(bb, load_task(t).train[:n], max_src=16, task=t) for t in names]

def source(bb, k=3, seed=0, **kw):
    x = init_prompts(bb, k+1, 4, seed)
    return MPTSource(bb, x[0], NAMES[:k], **dict(teachers=x[1:], lr=.02, lr_low=.02) | kw)

def shake(m, scale=.3, seed=5):
    "Factors away from one"
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in (m.u, m.v): p.add_(scale*torch.randn(p.shape, generator=g))
    return m

def terms(bb, x, teacher, e, tau=1.):
    "CE, KL and the squared errors of decoder and encoder of one example, by plain calls without batching and without our code"
    labels, out = torch.tensor([e.labels]), []
    for p in (x, teacher):
        emb = torch.cat([p, bb.embed(torch.tensor(e.ids))])[None]
        out.append(bb.model(inputs_embeds=emb, labels=labels, output_hidden_states=True))
    (s, t), rows = out, len(x) + len(e.ids)
    p, q = [(o.logits[0]/tau).softmax(-1) for o in out]
    kl = (q*(q.log() - p.log())).sum(-1).mean()
    decoder = ((s.decoder_hidden_states[-1] - t.decoder_hidden_states[-1])**2).mean()
    encoder = ((s.encoder_hidden_states[-1] - t.encoder_hidden_states[-1])**2).sum()/(rows*bb.width)
    return s.loss, kl, decoder, encoder

def gradients(m, batch, step=0):
    for p in (m.full, m.u, m.v): p.grad = None
    log = m.backward(batch, step)
    return log, [p.grad.clone() for p in (m.full, m.u, m.v)]

def close(a, b, rtol=1e-3): return all((x - y).norm() <= rtol*y.norm() for x, y in zip(a, b))

@pytest.mark.parametrize('length,n,max_src', [(4, 3, 16), (7, 2, 30)])
def test_loss_and_gradient_are_those_of_equation_2(bb, length, n, max_src):
    "Texts and labels of unequal length: neither padding counts"
    x = init_prompts(bb, 4, length)
    m = shake(MPTSource(bb, x[0], NAMES, x[1:], distill=.7, hidden=.3, temperature=2., subset=False))
    batch = [encode(bb, load_task(t).train[:n], max_src, length, t) for t in NAMES]
    first = batch[0][0]
    batch[0][0] = Example(first.ids[:5], first.labels[:-1]*3 + first.labels[-1:], 'tweets')
    batch[1] = batch[1][:1]   # a mean over each task's examples, then a sum over the tasks
    assert len({len(e.ids) for es in batch for e in es}) > 1
    log, got = gradients(m, batch)
    leaves = [p.detach().clone().requires_grad_() for p in (m.full, m.u, m.v)]
    total, means = 0., []
    for k, es in enumerate(batch):
        x = leaves[0] * torch.outer(leaves[1][k], leaves[2][k])
        ce, kl, decoder, encoder = [sum(t)/len(es) for t in zip(*[terms(bb, x, m.teachers[k], e, 2.) for e in es])]
        total = total + ce + .7*(kl + .3*(decoder + encoder))
        means.append([t.item() for t in (ce, kl, decoder, encoder)])
    total.backward()
    assert list(log) == ['loss', 'kl', 'decoder', 'encoder'] and min(means[0]) > 0
    assert close(got, [p.grad for p in leaves])
    assert torch.allclose(torch.tensor(list(log.values())), torch.tensor(means).mean(0), rtol=1e-4, atol=1e-6)

def test_each_stack_teaches(tiny):
    "The error of each has a gradient of its own"
    exs = data(tiny, 2)
    logs = {}
    for part in ('decoder', 'encoder'):
        m = shake(source(tiny, subset=False))
        m.weights = dict.fromkeys(m.weights, 0.) | {part: 1.}
        logs[part] = gradients(m, exs)[1]
    assert all(g.abs().max() > 0 for gs in logs.values() for g in gs)
    assert not close(logs['encoder'], logs['decoder'], rtol=.1)

def test_chunks_and_padding_change_nothing(tiny):
    m, exs = shake(source(tiny, subset=False)), data(tiny, 6)
    split = [gradients(m, [[es[i]] for es in exs])[1] for i in range(6)]
    assert close(gradients(m, exs)[1], [sum(g)/6 for g in zip(*split)])

def test_lowers_its_loss_on_eight_examples(bb):
    m, exs = source(bb, 2, lr=RATE[bb.name], lr_low=RATE[bb.name], distill=.1), data(bb, 4, NAMES[:2])
    h = fit(m, lambda t: exs, 15)
    assert sum(map(len, exs)) == 8 and h[-1]['loss'] < DROP[bb.name]*h[0]['loss']

@pytest.mark.parametrize('optimizer', ['sgd', 'adam'])
def test_frozen_factors_and_no_distillation_are_vanilla_transfer(bb, optimizer):
    exs = data(bb, 8)
    def batch(t): return [es[2*t % 8:2*t % 8+2] for es in exs]
    start = init_prompts(bb, 1, 4, 3)[0]
    m, pt = MPTSource(bb, start, NAMES, lr=.02, distill=0, subset=False, decompose=False), PromptTuning(bb, start, .02)
    for steps in (1, 4):
        a, b = fit(m, batch, steps, optimizer), fit(pt, batch, steps, optimizer)
        assert torch.allclose(m.full, pt.prompt, atol=1e-5) and all(abs(i['loss'] - j['loss']) < 1e-4 for i, j in zip(a, b))
    assert not torch.allclose(m.full, start, atol=1e-3)

def test_trains_exactly_its_groups(bb):
    m, exs = source(bb), data(bb, 1)
    before = [p.detach().clone() for p in (*bb.model.parameters(), *bb.model.buffers(), m.teachers)]
    g = m.groups()
    assert list(g) == ['shared', 'low'] and all(ps for ps, _ in g.values())
    held = [v for v in vars(m).values() if isinstance(v, torch.Tensor) and v.requires_grad]
    assert {id(p) for ps, _ in g.values() for p in ps} == {id(v) for v in held} and len(held) == 3
    start = [p.detach().clone() for p in held]
    fit(m, lambda t: exs, 2)
    assert not any(torch.equal(p, q) for p, q in zip(start, held))
    assert all(torch.equal(p, q) for p, q in zip(before, (*bb.model.parameters(), *bb.model.buffers(), m.teachers))) and all(p.grad is None for p in bb.model.parameters())
    frozen = source(bb, decompose=False)
    assert list(frozen.groups()) == ['shared'] and frozen.trainable() == 4*bb.width
    fit(frozen, lambda t: exs, 2)
    assert (frozen.u == 1).all() and (frozen.v == 1).all()

def test_factors_start_at_one(tiny):
    m = source(tiny)
    assert torch.equal(m.products(), m.full.expand(3, -1, -1))

def test_subset_is_a_function_of_seed_and_step_and_unbiased(tiny):
    names = [f't{i}' for i in range(5)]
    m, again, other = [MPTSource(tiny, torch.zeros(2, 32), names, distill=0, seed=s) for s in (1, 1, 2)]
    seen = [m.sampled(t) for t in range(3000)]
    assert [again.sampled(t) for t in reversed(range(3000))] == seen[::-1] and [other.sampled(t) for t in range(50)] != seen[:50]
    sizes = torch.bincount(torch.tensor([len(s) for s in seen]))[2:]
    assert len(sizes) == 4 and (sizes/3000 - .25).abs().max() < .04
    weight = sum(torch.zeros(5).index_fill(0, torch.tensor(s), 5/len(s)) for s in seen)/3000
    assert (weight - 1).abs().max() < .07
    assert [MPTSource(tiny, torch.zeros(2, 32), names[:k], distill=0).sampled(0) for k in (1, 2)] == [[0], [0, 1]]

def test_subset_rescales_and_leaves_the_others_alone(tiny):
    m, exs = shake(source(tiny)), data(tiny, 2)
    step = next(t for t in range(50) if len(m.sampled(t)) == 2)
    log, got = gradients(m, exs, step)
    m.subset, alone = False, []
    for k in m.sampled(0): # each task's own gradient: the whole less the rest
        one = source(tiny, 3, subset=False); one.tasks, one.teachers = [NAMES[k]], m.teachers[k:k+1]
        one.full, one.u, one.v = [p.detach().clone().requires_grad_() for p in (m.full, m.u[k:k+1], m.v[k:k+1])]
        alone.append(gradients(one, [exs[k]])[1])
    m.subset = True
    s = m.sampled(step)
    assert close(got[:1], [1.5*sum(alone[k][0] for k in s)])
    for k in range(3):
        for i in (1, 2): assert close([got[i][k]], [1.5*alone[k][i][0]]) if k in s else not got[i][k].any()

def test_distillation_and_its_parts_matter(tiny):
    exs = data(tiny, 2)
    def end(**kw):
        m = source(tiny, subset=False, **kw)
        fit(m, lambda t: exs, 5)
        return m.full.detach()
    ends = [end(), end(distill=0), end(hidden=0), end(temperature=4.), end(decompose=False)]
    assert all(not torch.allclose(a, b, atol=1e-4) for i, a in enumerate(ends) for b in ends[:i])
    assert torch.equal(end(distill=0), end(distill=0, teachers=None))

def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it(bb):
    m = source(bb, subset=False)
    m.teachers = shake(m).products().detach()
    log = m.backward(data(bb, 2), 0)
    assert log['kl'] == pytest.approx(0, abs=1e-5) and log['loss'] > .1
    assert log['decoder'] == pytest.approx(0, abs=1e-8) and log['encoder'] == pytest.approx(0, abs=1e-8)

def test_student_approaches_its_teacher(tiny):
    exs, kl = data(tiny, 2), []
    for d in (0., 20.):
        h = fit(source(tiny, subset=False, distill=d, lr=.05, lr_low=.05), lambda t: exs, 30)
        kl.append((h[0]['kl'], h[-1]['kl']))
    assert kl[1][1] < .5*kl[1][0] and kl[1][1] < kl[0][1]

def test_deterministic_by_seed(tiny):
    exs = data(tiny, 2)
    def end(seed, noise):
        torch.manual_seed(noise)
        m = source(tiny, seed=0); m.seed = seed
        fit(m, lambda t: exs, 4)
        return m.products()
    assert torch.equal(end(0, 1), end(0, 2)) and not torch.equal(end(0, 1), end(1, 1))

def test_a_killed_run_resumes_to_the_bit(bb, tmp_path):
    exs = data(bb, 4)
    def batch(t): return [[es[t % 4]] for es in exs]
    def killed(t):
        if t == 5: raise KeyboardInterrupt
        return batch(t)
    def saved(): return Checkpoint(tmp_path/'mpt.safetensors', every=3)
    a, b, c = [source(bb) for _ in range(3)]
    ha = fit(a, batch, 8)
    with pytest.raises(KeyboardInterrupt): fit(b, killed, 8, callbacks=[saved()], key='mpt')
    hc = fit(c, batch, 8, callbacks=[saved()], key='mpt')
    assert ha == hc and all(torch.equal(p, q) for p, q in zip((a.full, a.u, a.v), (c.full, c.u, c.v))) and not torch.equal(a.full, b.full)
    with pytest.raises(ValueError, match='another run'): fit(source(bb), batch, 8, callbacks=[saved()], key='other')

def test_saved_parameters_predict_the_same(tiny, tmp_path):
    exs, choices = data(tiny, 4), ['negative', 'positive', 'ham']
    m = shake(source(tiny))
    torch.save([p.detach() for ps, _ in m.groups().values() for p in ps], tmp_path/'p.pt')
    new = source(tiny, seed=0)
    with torch.no_grad():
        for p, q in zip([p for ps, _ in new.groups().values() for p in ps], torch.load(tmp_path/'p.pt', weights_only=True)): p.copy_(q)
    mixed = sum(exs, [])
    assert torch.equal(prompt_losses(tiny, m.prompts(), mixed), prompt_losses(tiny, new.prompts(), mixed))
    assert predict(tiny, m.prompts(), mixed, choices) == predict(tiny, new.prompts(), mixed, choices)

def test_one_mixed_batch_serves_every_task(bb):
    m, exs = shake(source(bb)), data(bb, 3)
    with torch.no_grad():
        mixed = prompt_losses(bb, m.prompts(), [e for es in zip(*exs) for e in es])[0].view(3, 3).T
        alone = torch.stack([prompt_losses(bb, m.products()[k:k+1], es)[0] for k, es in enumerate(exs)])
    assert torch.allclose(mixed, alone, atol=1e-4)

def test_target_stage(bb):
    m = shake(source(bb))
    full, u, v = target_start(m)
    assert torch.equal(full, m.full) and torch.equal(u, m.u.mean(0)) and torch.equal(v, m.v.mean(0)) and not (full.requires_grad or u.requires_grad or v.requires_grad)
    t, kept = SharedPrompt(bb, full, ('',), u, v, lr=RATE[bb.name], lr_low=RATE[bb.name]), m.full.detach().clone()
    assert torch.allclose(t.prompts()[0], m.full*torch.outer(u, v))
    exs = data(bb, 8)[:1]
    h = fit(t, lambda t: exs, 15)
    assert h[-1]['loss'] < DROP[bb.name]*h[0]['loss'] and torch.equal(m.full, kept)   # the source stage is not written to

def test_published_counts(t5_base):
    assert sum(p.numel() for p in t5_base.model.parameters()) == 222_903_552
    m = MPTSource(t5_base, torch.zeros(100, 768), list('abcdef'), distill=0)
    assert m.trainable() == 100*768 + 6*(100+768) and sum(p.numel() for g in make_optimizer(m).param_groups for p in g['params']) == m.trainable()
    full, u, v = target_start(m)
    assert SharedPrompt(t5_base, full, ('',), u, v).trainable() == 77_668
    assert SharedPrompt(t5_base, full, tuple('abcdefgh'), u, v).trainable() == 8*10_468

def test_bad_input_is_refused(tiny):
    x, exs = init_prompts(tiny, 4, 4), data(tiny, 1)
    for kw, said in [(dict(), 'needs teachers'), (dict(teachers=x[1:3]), 'a teacher for each task'), (dict(teachers=x[1:, :2]), 'a teacher for each task'), (dict(distill=0, temperature=0), 'temperature'),
                     (dict(distill=0, tasks=['a', 'a']), 'each once'), (dict(distill=0, tasks=[]), 'one or more'), (dict(distill=0, start=x), r'\[P, 32\]'), (dict(distill=0, start=x[0, :, :8]), r'\[P, 32\]')]:
        with pytest.raises(ValueError, match=said): MPTSource(tiny, **dict(start=x[0], tasks=NAMES) | kw)
    m = source(tiny)
    for batch in (exs[:2], [[], *exs[1:]]):
        with pytest.raises(ValueError, match='examples of each of'): m.backward(batch, 0)
    m.subset = False
    with pytest.raises(ValueError, match="expected an example of 'tweets', got one of 'hypernym'"): m.backward(exs[::-1], 0)
    with pytest.raises(ValueError, match="got one of 'movie'"): prompt_losses(tiny, m.prompts(), [Example(exs[0][0].ids, exs[0][0].labels, 'movie')])

@pytest.mark.parametrize('given,rates', [({}, (.3, .4)), ({'mpt.lr': .06}, (.06, .08)), ({'mpt.lr_low': .1}, (.3, .1))])
def test_both_source_rates(given, rates, tmp_path, monkeypatch):
    "Unless given, source.lr and a third more"
    seen = []
    def noted(m, *args, **kw):
        seen.append({name: lr for name, (_, lr) in m.groups().items()})
        return fit(m, *args, **kw)
    monkeypatch.setattr('bayes_prompt.baselines.mpt.fit', noted)
    small = {'compute.backbone': 'tiny-t5', 'length': 4, 'data.limit': 4, 'source.tasks': ['amazon', 'nyt'],
             'source.steps': 1, 'source.lr': .3, 'target.steps': 1, 'target.k': 1}
    run(small | {'method': 'mpt'} | given, tmp_path)
    assert seen == [dict(shared=pytest.approx(rates[0]), low=pytest.approx(rates[1]))]

def test_a_decoder_alone_has_one_stack(tmp_path):
    "Its states count at the tokens that predict the labels"
    b = load_backbone(saved('llama', tmp_path/'llama'))
    x, exs = init_prompts(b, 3, 4), encode(b, [('a warm film', 'positive'), ('flat', 'negative')], 20, 4)
    m = MPTSource(b, x[0], ['a', 'b'], x[1:], distill=.7, hidden=.3, temperature=2.)
    log = m.backward([exs[:1], exs[1:]], 0)
    leaf, total, errors = x[0].clone().requires_grad_(), 0., []
    for e, teacher in zip(exs, x[1:]):
        ids = torch.tensor(e.ids + e.labels)
        outs = [b.model(inputs_embeds=torch.cat([p, b.embed(ids)])[None], output_hidden_states=True) for p in (leaf, teacher)]
        at = slice(-len(e.labels)-1, -1)
        z, q = [(o.logits[0, at]/2).log_softmax(-1) for o in outs]
        ce = F.cross_entropy(outs[0].logits[0, at], torch.tensor(e.labels))
        kl = (q.exp()*(q - z)).sum(-1).mean()
        error = (outs[0].hidden_states[-1][0, at] - outs[1].hidden_states[-1][0, at]).square().mean()
        total = total + ce + .7*(kl + .3*error)
        errors.append(error.item())
    total.backward()
    assert list(log) == ['loss', 'kl', 'decoder'] and log['decoder'] == pytest.approx(sum(errors)/2, rel=1e-3)
    assert (m.full.grad - leaf.grad).norm() < 1e-3*leaf.grad.norm()
