"ATTEMPT: its equation by hand, its limit, its counts, its temperature, its state"
import math
import pytest, torch
from bayes_prompt.baselines.attempt import Attempt
from bayes_prompt.callbacks import Checkpoint
from bayes_prompt.data import load_task
from bayes_prompt.engine import Inputs, prompt_losses
from bayes_prompt.evaluate import predict
from bayes_prompt.prompt import encode, init_prompts
from bayes_prompt.train import PromptTuning, fit, make_optimizer

def eight(bb, name='supersense', **kw): return encode(bb, load_task(name).train[:8], 24, 6, **kw)
def rate(bb): return .02 if bb.name == 'mini' else .3
def make(bb, **kw):
    x = init_prompts(bb, 4, 6)
    return Attempt(bb, x[:3], x[3], **dict(lr=rate(bb), lr_attention=.01, temperature=4.) | kw)
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
    m = Attempt(t5_base, x, x[0])
    counts = {n: sum(p.numel() for p in ps) for n, (ps, _) in m.groups().items()}
    assert counts == dict(prompts=76_800, attention=153_600 + 1_536)
    assert m.trainable() == 231_936 and abs(m.temperature - 2087) < 1
    assert Attempt(t5_base, x, x[0], 'abcdefgh').trainable() == 231_936 # one target of that name
    assert Attempt(t5_base, x, x[0], list('abcdefgh')).trainable() == 8*76_800 + 155_136

def test_without_the_mixture_it_is_prompt_tuning(bb):
    m, exs = make(bb, mix=0.), eight(bb)
    pt = PromptTuning(bb, init_prompts(bb, 4, 6)[3], rate(bb))
    a, b = [[h['loss'] for h in fit(x, lambda t: [exs[t % 4:t % 4 + 4]], 6)] for x in (m, pt)]
    assert torch.allclose(m.targets[0], pt.prompt, atol=1e-6) and a == pytest.approx(b, abs=1e-5)

def test_eq_1_by_hand(tiny):
    m, exs = make(tiny, tasks=['a', 'b']), [e for n in 'ab' for e in eight(tiny, task=n)][::3]
    with torch.no_grad():
        m.targets[1] += .5
        down, _, up, ln = m.net
        for e in exs:
            z = up.weight @ torch.nn.functional.silu(down.weight @ tiny.embed(torch.tensor(e.ids)).max(0).values)
            h = (z - z.mean())/(z.var(unbiased=False) + ln.eps).sqrt()*ln.weight + ln.bias
            own = m.targets['ab'.index(e.task)]
            stack = torch.cat([m.sources, own[None]])
            a = torch.tensor([float(p.max(0).values @ h)/4. for p in stack]).softmax(0)
            want = own + sum(w*p for w, p in zip(a, stack))
            assert torch.allclose(m.attention([e])[0], a, atol=1e-5)
            assert torch.allclose(alone(m, e), want, atol=1e-5)

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
    m = Attempt(tiny, sources, torch.zeros(6, 32), lr=0., lr_attention=.01, temperature=20.)
    a = m.attention(exs)
    fit(m, lambda t: [exs], 30)
    b = m.attention(exs)
    assert a.shape == (8, 4) and torch.allclose(b.sum(1), torch.ones(8))
    assert (b.argmax(1) == 1).all() and (b[:, 1] > a[:, 1]).all()

def test_the_temperature_sets_how_far_weights_can_spread(bb):
    "At the distance of the prompts' peaks they do, at width times e on these backbones they hardly do"
    exs, sources = eight(bb), init_prompts(bb, 4, 6)
    def spread(temperature):
        a = make(bb, temperature=temperature).attention(exs)
        return (a.amax(1) - a.amin(1)).mean().item()
    apart = torch.pdist(sources.amax(1)).mean().item()
    assert spread(apart) > .1 > .05 > spread(0.) == spread(bb.width*math.e)

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
    with pytest.raises(ValueError, match='expected a temperature, or 0'): Attempt(tiny, x, x[0], temperature=-1.)
