"ATTEMPT: its equation by hand at several shapes, its limit, its counts, its temperature and units, its state, its options"
import copy, math
from dataclasses import replace
import pytest, torch
from bayes_prompt.baselines.attempt import Attempt, _UNITS
from bayes_prompt.callbacks import Checkpoint
from bayes_prompt.config import make_config
from bayes_prompt.data import load_task
from bayes_prompt.engine import Inputs, prompt_losses
from bayes_prompt.evaluate import predict
from bayes_prompt.options import methods
from bayes_prompt.prompt import encode, init_prompts
from bayes_prompt.protocol import Context
from bayes_prompt.run import method_of
from bayes_prompt.train import PromptTuning, fit, make_optimizer

def eight(bb, name='supersense', **kw): return encode(bb, load_task(name).train[:8], 24, 6, **kw)
def rate(bb): return .02 if bb.name == 'mini' else .3
def make(bb, **kw):
    x = init_prompts(bb, 4, 6)
    return Attempt(bb, x[:3], x[3], **dict(lr=rate(bb), lr_attention=.01) | kw)
def alone(m, e):
    "The prompt of one example"
    return m.prompts().f(Inputs(m.backbone.embed(torch.tensor([e.ids])), None, [e], [0]))[0]

def test_lowers_its_loss_and_leaves_the_rest_alone(bb):
    before = {k: v.clone() for k, v in bb.model.state_dict().items()}
    m, exs = make(bb), eight(bb)
    sources, start = m.sources.clone(), [p.detach().clone() for p in m.parameters()]
    h = fit(m, lambda t: [exs], 12)
    assert h[-1]['loss'] < .95*h[0]['loss']
    assert all(torch.equal(before[k], v) for k, v in bb.model.state_dict().items())
    assert all(p.grad is None for p in bb.model.parameters())
    assert torch.equal(sources, m.sources)
    assert not any(torch.equal(p, q) for p, q in zip(start, m.parameters())) # LayerNorm too

def test_groups(tiny):
    m = make(tiny, tasks=['a', 'b'], lr=.3, lr_attention=.05)
    groups, flat = m.groups(), m.parameters()
    assert list(groups) == ['prompts', 'attention'] and [lr for _, lr in groups.values()] == [.3, .05]
    want = {id(m.targets), *map(id, m.net.parameters())}
    assert {id(p) for p in flat} == want and len(flat) == len(want)
    assert all(p.requires_grad for p in flat) and not m.sources.requires_grad
    assert [len(g['params']) for g in make_optimizer(m).param_groups] == [1, 4]
    assert m.trainable() == 2*6*32 + 2*32*100 + 2*32

def test_published_counts(t5_base):
    x = torch.zeros(6, 100, 768, device='meta')
    m = Attempt(t5_base, x, x[0], unit='published', temperature=1.)
    counts = {n: sum(p.numel() for p in ps) for n, (ps, _) in m.groups().items()}
    assert counts == dict(prompts=76_800, attention=153_600 + 1_536)
    assert m.trainable() == 231_936 and abs(m.temperature - 2087) < 1
    for tasks, n in (('abcdefgh', 1), (list('abcdefgh'), 8)): # one target of that name, or eight
        assert Attempt(t5_base, x, x[0], tasks, unit='published').trainable() == n*76_800 + 155_136

def test_without_the_mixture_it_is_prompt_tuning(bb):
    m, exs = make(bb, mix=0.), eight(bb)
    pt = PromptTuning(bb, init_prompts(bb, 4, 6)[3], rate(bb))
    a, b = [[h['loss'] for h in fit(x, lambda t: [exs[t % 4:t % 4 + 4]], 6)] for x in (m, pt)]
    assert torch.allclose(m.targets[0], pt.prompt, atol=1e-6) and a == pytest.approx(b, abs=1e-5)

def by_hand(m, emb, own):
    "Eq. (1) of one example `[T, H]`, in plain torch and without the class's own functions: the weights, and P(x)"
    down, up, gain, bias = [p.detach() for p in m.net.parameters()]
    s, tau = m.size, m.temperature
    x = torch.stack([emb[:, d].max() for d in range(emb.shape[1])])/s
    z = down @ x
    y = up @ (z/(1 + (-z).exp()))
    h = (y - y.sum()/len(y))/(((y - y.sum()/len(y))**2).sum()/len(y) + 1e-5).sqrt()*gain + bias
    prompts = [*m.sources, own]
    e = torch.tensor([math.exp(float(sum(p[:, d].max()*h[d] for d in range(len(h))))/tau) for p in prompts])
    a = e/e.sum()
    return a, own + m.mix*sum(w*p for w, p in zip(a, prompts))

@pytest.mark.parametrize('k,rows,tokens,down,tasks,unit,mix', [
    (1, 1, 1, 3, 'a', 'embeddings', 1.), (3, 6, 9, 100, 'ab', 'embeddings', 1.), (6, 2, 17, 10, 'abc', 'published', 1.), (2, 5, 4, 100, 'ab', 'embeddings', .5)])
def test_eq_1_by_hand(k, rows, tokens, down, tasks, unit, mix, bb):
    g = torch.Generator().manual_seed(k + rows)
    def draw(*shape): return torch.randn(*shape, generator=g)
    size = _UNITS['embeddings'](bb)[0]
    m = Attempt(bb, size*draw(k, rows, bb.width), size*draw(rows, bb.width), list(tasks), temperature=.8, unit=unit, down=down, mix=mix)
    with torch.no_grad():
        m.targets += .5*size*draw(*m.targets.shape)
        for p in m.parameters()[-2:]: p += .1*draw(*p.shape) # a LayerNorm that has learnt
        exs = [e for t in tasks for e in eight(bb, task=t)[:2]]
        emb, mask = size*draw(len(exs), tokens, bb.width), torch.ones(len(exs), tokens)
        lengths = [1 + i % tokens for i in range(len(exs))]
        for i, n in enumerate(lengths): mask[i, n:] = 0
        got = m.prompts().f(Inputs(emb, mask, exs, range(len(exs))))
        a = m.weights(Inputs(emb, mask, exs, range(len(exs))), m.own(exs))
        for i, (e, n) in enumerate(zip(exs, lengths)):
            want, prompt = by_hand(m, emb[i, :n], m.targets[tasks.index(e.task)])
            torch.testing.assert_close(a[i], want, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(got[i], prompt, atol=1e-5*max(1., size), rtol=1e-4)

def test_attention_is_eq_1_on_embedded_texts(tiny):
    m = make(tiny, tasks=['a', 'b'])
    with torch.no_grad():
        for e in [e for n in 'ab' for e in eight(tiny, task=n)][::3]:
            a, prompt = by_hand(m, tiny.embed(torch.tensor(e.ids)), m.targets['ab'.index(e.task)])
            assert torch.allclose(m.attention([e])[0], a, atol=1e-5) and torch.allclose(alone(m, e), prompt, atol=1e-5)

def test_gradients_reach_the_target_through_its_maximum(tiny):
    "Of each dimension the largest row of the target's prompt"
    m = make(tiny)
    exs = eight(tiny)[:1]
    a = m.weights(Inputs(tiny.embed(torch.tensor([exs[0].ids])), None, exs, [0]), m.own(exs))
    a[0, -1].backward()
    grad = m.targets.grad[0]
    assert (grad != 0).sum(0).max() == 1

def test_weights_do_not_depend_on_the_scale_of_the_embeddings(bb):
    "All embeddings and prompts times c: the same weights; in the published unit others"
    exs, x = eight(bb), init_prompts(bb, 4, 6)
    def weights(c, **kw):
        model = copy.deepcopy(bb.model)
        model.get_input_embeddings().weight.data *= c
        return Attempt(replace(bb, model=model, engine=None), c*x[:3], c*x[3], **kw).attention(exs)
    for c in (.01, 7., 300.): assert torch.allclose(weights(c), weights(1.), atol=1e-4), c
    assert (weights(300., unit='published') - weights(1., unit='published')).abs().max() > .01

def test_units(bb):
    x = init_prompts(bb, 4, 6)
    rms = bb.embed.weight.float().square().mean().sqrt().item()
    def tau(**kw): return Attempt(bb, x[:3], x[3], **kw).temperature
    assert tau(temperature=2.) == pytest.approx(2*rms*bb.width**.5)
    assert tau(temperature=2., unit='published') == pytest.approx(2*math.e*bb.width)
    assert (Attempt(bb, x[:3], x[3]).size, Attempt(bb, x[:3], x[3], unit='published').size) == (pytest.approx(rms), 1.)

def test_padding_changes_no_prompt_and_no_loss(bb):
    m, exs = make(bb), eight(bb)
    assert len({len(e.ids) for e in exs}) > 1
    embedded = [bb.embed(torch.tensor(e.ids)) for e in exs]
    emb = torch.nn.utils.rnn.pad_sequence(embedded, batch_first=True, padding_value=99.) # such padding would win
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(e.ids)) for e in exs], batch_first=True)
    with torch.no_grad():
        together = m.prompts().f(Inputs(emb, mask, exs, range(len(exs))))
        assert torch.allclose(together, torch.stack([alone(m, e) for e in exs]), atol=1e-5)
        losses = prompt_losses(bb, m.prompts(), exs)[0]
        assert torch.allclose(losses, torch.stack([prompt_losses(bb, m.prompts(), [e])[0, 0] for e in exs]), atol=1e-4)

def test_attention_sums_to_one_and_finds_a_planted_source(tiny):
    "One source prompt solves the target, the others are random; the target's own prompt is held at zero"
    exs = eight(tiny)
    good = PromptTuning(tiny, init_prompts(tiny, 1, 6, seed=3)[0])
    fit(good, lambda t: [exs], 40)
    noise = init_prompts(tiny, 2, 6, seed=4)*good.prompt.norm().item()/init_prompts(tiny, 1, 6, seed=4).norm()
    sources = torch.stack([noise[0], good.prompt.detach(), noise[1]])
    m = Attempt(tiny, sources, torch.zeros(6, 32), lr=0., lr_attention=.01)
    a = m.attention(exs)
    fit(m, lambda t: [exs], 30)
    b = m.attention(exs)
    assert a.shape == (8, 4) and torch.allclose(b.sum(1), torch.ones(8))
    assert (b.argmax(1) == 1).all() and (b[:, 1] > a[:, 1]).all()

def test_the_temperature_sets_how_far_weights_can_spread(mini):
    "In the published unit the small embeddings of this backbone leave nothing of a difference"
    exs = eight(mini)
    def spread(**kw):
        a = make(mini, **kw).attention(exs)
        return (a.amax(1) - a.amin(1)).mean().item()
    assert spread(temperature=1.) > 2*spread(temperature=3.) > .1
    assert spread(temperature=1., unit='published') < .005

def test_temperature_has_its_limits(tiny):
    "Hot: uniform. Cold: the prompt with the greatest score"
    exs = eight(tiny)
    assert torch.allclose(make(tiny, temperature=1e6).attention(exs), torch.full((8, 4), .25), atol=1e-4)
    warm, cold = make(tiny).attention(exs), make(tiny, temperature=1e-3).attention(exs)
    assert torch.equal(cold.argmax(1), warm.argmax(1)) and cold.isfinite().all() and cold.amax(1).min() > .9

SMALL = {'method': 'attempt', 'compute.backbone': 'tiny-t5', 'length': 4, 'data.limit': 12, 'source.tasks': ['amazon', 'nyt'],
         'source.steps': 3, 'source.batch': 2, 'source.lr': .3, 'target.steps': 3, 'target.k': 2, 'target.lr': .2}

def started(tmp_path, **own):
    "The method as a run makes it, before it is trained"
    config = make_config(SMALL, **{f'attempt.{k}': v for k, v in own.items()})
    ctx = Context(config, tmp_path, progress=False)
    ctx.fit = lambda m: m
    return ctx, method_of(config)(ctx)

def test_options_reach_the_method(tmp_path):
    ctx, m = started(tmp_path)
    first = ctx.separate().particles[0]
    assert torch.equal(m.targets[0], first) and torch.equal(m.sources[0], first)
    assert (m.lr, m.lr_attention, m.size) == (.2, 1e-4, _UNITS['embeddings'](ctx.backbone)[0])
    ctx, m = started(tmp_path, start='random', lr_attention=0., unit='published', temperature=2.)
    assert torch.equal(m.targets[0], ctx.start()) and (m.lr_attention, m.temperature) == (.2, 2*math.e*32)

def test_one_set_of_defaults():
    "The class's, the method's, and the names of units"
    o, spec = methods()['attempt'].options(), Attempt.__init__.__defaults__
    args = Attempt.__init__.__code__.co_varnames[:Attempt.__init__.__code__.co_argcount]
    default = dict(zip(args[-len(spec):], spec))
    assert all(getattr(o, k) == default[k] for k in ('temperature', 'unit', 'lr_attention'))
    unit, = [f for f in o.__dataclass_fields__.values() if f.name == 'unit']
    assert list(unit.metadata['choices']) == list(_UNITS)

def test_several_targets_have_a_prompt_each_and_share_the_attention(tiny):
    m, a, b = make(tiny, tasks=['a', 'b']), eight(tiny, task='a'), eight(tiny, task='b')
    start, net = m.targets.detach().clone(), [p.detach().clone() for p in m.net.parameters()]
    fit(m, lambda t: [a], 2)
    assert torch.equal(m.targets[1], start[1]) and not torch.equal(m.targets[0], start[0])
    assert not any(torch.equal(p, q) for p, q in zip(net, m.net.parameters()))
    mixed = [x for p in zip(a, b) for x in p] # one batch of both tasks
    with torch.no_grad(): l, of_a, of_b = [prompt_losses(tiny, m.prompts(), exs)[0] for exs in (mixed, a, b)]
    assert torch.allclose(l[::2], of_a, atol=1e-4) and torch.allclose(l[1::2], of_b, atol=1e-4)
    assert (l[::2] - l[1::2]).abs().max() > 1e-3

def test_an_example_names_its_target(tiny):
    others = eight(tiny, 'tweets', task='c')
    with pytest.raises(ValueError, match="no target 'c'.*There are: a, b; name it"): make(tiny, tasks=['a', 'b']).attention(others)
    assert make(tiny, tasks='movie').attention(others).shape == (8, 4) # a single target serves every name

def test_survives_save_and_load(bb, tmp_path):
    exs, choices = eight(bb), load_task('supersense').choices
    a, b = make(bb), make(bb, seed=5)
    fit(a, lambda t: [exs], 4)
    torch.save([p.detach() for p in a.parameters()], tmp_path/'a.pt')
    with torch.no_grad():
        for p, q in zip(b.parameters(), torch.load(tmp_path/'a.pt', weights_only=True)): p.copy_(q)
        assert torch.equal(prompt_losses(bb, a.prompts(), exs), prompt_losses(bb, b.prompts(), exs))
    assert torch.equal(a.attention(exs), b.attention(exs))
    assert predict(bb, a.prompts(), exs, choices) == predict(bb, b.prompts(), exs, choices)
    assert predict(bb, a.prompts(), exs[:2], max_new_tokens=3) == predict(bb, b.prompts(), exs[:2], max_new_tokens=3)

def test_resumes_to_the_same_bits(tiny, tmp_path):
    exs, (a, b, c) = eight(tiny), [make(tiny) for _ in range(3)]
    def dies(t):
        if t == 4: raise KeyboardInterrupt
        return [exs]
    def kept(): return [Checkpoint(tmp_path/'s.safetensors', every=3)]
    fit(a, lambda t: [exs], 6)
    with pytest.raises(KeyboardInterrupt): fit(b, dies, 6, callbacks=kept())
    fit(c, lambda t: [exs], 6, callbacks=kept())
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters()))

def test_is_deterministic_by_seed_and_leaves_the_global_generator(tiny):
    exs, state = eight(tiny), torch.get_rng_state()
    a, b, c = make(tiny, seed=1), make(tiny, seed=1), make(tiny, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    for m in (a, b): fit(m, lambda t: [exs], 3)
    assert torch.equal(a.attention(exs), b.attention(exs)) and torch.equal(a.targets, b.targets)
    assert not torch.equal(a.net[0].weight, c.net[0].weight)

def test_refuses_bad_input(tiny):
    x = init_prompts(tiny, 2, 6)
    with pytest.raises(ValueError, match=r'expected sources \[K, P, 32\]'): Attempt(tiny, x, x[0, :3])
    with pytest.raises(ValueError, match=r'expected sources \[K, P, 32\]'): Attempt(tiny, x[..., :8], x[0, :, :8])
    with pytest.raises(ValueError, match='each once'): Attempt(tiny, x, x[0], tasks=['a', 'a'])
    for wrong in (-1., 0.):
        with pytest.raises(ValueError, match='expected a temperature above 0, got'): Attempt(tiny, x, x[0], temperature=wrong)
    with pytest.raises(ValueError, match="no unit 'embedding'; the nearest is 'embeddings'"): Attempt(tiny, x, x[0], unit='embedding')
