"SPoT, ATTEMPT and the Fisher merge: their limits, counts and state"
import pytest, torch
from transformers import T5Config, T5ForConditionalGeneration
from bayes_prompt.backbone import Backbone, load_backbone
from bayes_prompt.baselines.attempt import Attempt
from bayes_prompt.baselines.merge import fisher, merge
from bayes_prompt.baselines.spot import retrieve, similarity
from bayes_prompt.data import load_task
from bayes_prompt.engine import Inputs, nll, prompt_losses
from bayes_prompt.gaussian import Gaussian, product
from bayes_prompt.prompt import encode, init_prompts
from bayes_prompt.source import learn_prompts
from bayes_prompt.target import adapt
from bayes_prompt.train import PromptTuning, fit, make_optimizer, predict

@pytest.fixture(scope='module', params=['tiny-t5', 'mini'])
def bb(request): return load_backbone(request.param)

@pytest.fixture(scope='module')
def tiny(): return load_backbone('tiny-t5')

def eight(bb, name='supersense', **kw): return encode(bb, load_task(name).train[:8], 24, 6, **kw)
def rate(bb): return .02 if bb.name == 'mini' else .3
def make(bb, **kw):
    x = init_prompts(bb, 4, 6)
    return Attempt(bb, x[:3], x[3], **(dict(lr=rate(bb), lr_attention=.01, temperature=4.) | kw))

# SPoT

def test_similarity_is_the_cosine_of_row_means():
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    s = similarity(x)
    for i in range(4):
        for j in range(4): assert torch.isclose(s[i, j], torch.cosine_similarity(x[i].mean(0), x[j].mean(0), dim=0), atol=1e-6)
    assert torch.allclose(s, similarity(x[:, [2, 0, 1]]), atol=1e-6) and torch.allclose(s, similarity(3*x), atol=1e-6)
    assert torch.equal(similarity(x, x[:1]), s[:, :1])

def test_retrieval_is_the_limit_of_the_mean():
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1))
    early = x[2] + .1*torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    assert torch.equal(retrieve(x, early), x[2])
    assert torch.allclose(retrieve(x, early, top=4, weighted=False), x.mean(0), atol=1e-6)
    s = similarity(x, early[None])[:, 0].clamp(min=0)
    assert torch.allclose(retrieve(x, early, top=4), (s[:, None, None]*x).sum(0)/s.sum(), atol=1e-6)
    assert torch.equal(retrieve(x, early, keys=x[[2, 1, 0, 3]]), x[0])   # compared with the keys, taken from the sources
    assert torch.allclose(retrieve(x[:1], -x[0], top=1), x[0])           # even if nothing is similar there is a start

def test_a_target_that_is_a_source_retrieves_it(tiny):
    tasks = ['tweets', 'supersense', 'acceptability']
    kw = dict(length=6, steps=12, lr=.3, b=4)
    post = learn_prompts(tiny, {n: encode(tiny, load_task(n).train[:40], 24, 6) for n in tasks}, **kw)
    early = learn_prompts(tiny, {n: encode(tiny, load_task(n).train[40:80], 24, 6) for n in tasks[::-1]}, **kw)
    start = [retrieve(post.particles, e) for e in early.particles]
    assert all(torch.equal(s, p) for s, p in zip(start[::-1], post.particles))
    exs = eight(tiny, tasks[0])
    assert adapt(tiny, exs, start[-1], steps=5, b=8).history[-1]['loss'] < prompt_losses(tiny, start[-1][None], exs).mean()

def test_spot_refuses_bad_input():
    x = torch.zeros(3, 2, 4)
    with pytest.raises(ValueError, match='from 1 to the number of source prompts 3, got 4'): retrieve(x, x[0], top=4)
    with pytest.raises(ValueError, match='expected prompts'): similarity(x[0])
    with pytest.raises(ValueError, match='expected prompts'): similarity(x, x[..., :3])

# ATTEMPT

def test_attempt_lowers_its_loss_and_leaves_the_rest_alone(bb):
    before = {k: v.clone() for k, v in bb.model.state_dict().items()}
    m, exs = make(bb), eight(bb)
    sources, start = m.sources.clone(), [p.detach().clone() for ps, _ in m.groups().values() for p in ps]
    h = fit(m, lambda t: [exs], 12)
    assert h[-1]['loss'] < .95*h[0]['loss']
    assert all(torch.equal(before[k], v) for k, v in bb.model.state_dict().items()) and all(p.grad is None for p in bb.model.parameters())
    assert torch.equal(sources, m.sources)
    assert not any(torch.equal(p, q) for p, q in zip(start, [p for ps, _ in m.groups().values() for p in ps]))   # LayerNorm too

def test_attempt_groups(tiny):
    m = make(tiny, tasks=['a', 'b'], lr=.3, lr_attention=.05)
    ps = {n: p for n, (p, _) in m.groups().items()}
    assert list(ps) == ['prompts', 'attention'] and [lr for _, lr in m.groups().values()] == [.3, .05]
    have = {id(m.targets), *map(id, m.net.parameters())}
    flat = [id(p) for g in ps.values() for p in g]
    assert set(flat) == have and len(flat) == len(have) and all(p.requires_grad for g in ps.values() for p in g) and not m.sources.requires_grad
    assert [len(g['params']) for g in make_optimizer(m).param_groups] == [1, 4]
    assert m.trainable() == 2*6*32 + 2*32*100 + 2*32

def test_published_counts():
    cfg = T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12, d_kv=64, vocab_size=32128)
    with torch.device('meta'): model = T5ForConditionalGeneration(cfg)
    b = Backbone('t5-base', model, load_backbone('mini').tokenizer)
    m = Attempt(b, torch.zeros(6, 100, 768), torch.zeros(100, 768))
    assert {n: sum(p.numel() for p in ps) for n, (ps, _) in m.groups().items()} == dict(prompts=76_800, attention=153_600 + 1_536)
    assert m.trainable() == 231_936 and abs(m.temperature - 2087) < 1
    assert Attempt(b, torch.zeros(6, 100, 768), torch.zeros(100, 768), 'abcdefgh').trainable() == 231_936
    assert Attempt(b, torch.zeros(6, 100, 768), torch.zeros(100, 768), list('abcdefgh')).trainable() == 8*76_800 + 155_136

def test_attempt_without_the_mixture_is_prompt_tuning(bb):
    m, exs = make(bb, mix=0.), eight(bb)
    pt = PromptTuning(bb, init_prompts(bb, 4, 6)[3], rate(bb))
    a, b = fit(m, lambda t: [exs[t % 4:t % 4 + 4]], 6), fit(pt, lambda t: [exs[t % 4:t % 4 + 4]], 6)
    assert torch.allclose(m.targets[0], pt.prompt, atol=1e-6) and [h['loss'] for h in a] == pytest.approx([h['loss'] for h in b], abs=1e-5)

def test_eq_1_by_hand(tiny):
    m, exs = make(tiny, tasks=['a', 'b']), [e for n in 'ab' for e in eight(tiny, task=n)][::3]
    with torch.no_grad():
        m.targets[1] += .5
        for e in exs:
            d, _, u, ln = m.net
            z = u.weight @ torch.nn.functional.silu(d.weight @ tiny.embed(torch.tensor(e.ids)).max(0).values)
            h = (z - z.mean())/(z.var(unbiased=False) + ln.eps).sqrt()*ln.weight + ln.bias
            own = m.targets['ab'.index(e.task)]
            stack = torch.cat([m.sources, own[None]])
            a = torch.tensor([float(p.max(0).values @ h)/4. for p in stack]).softmax(0)
            want = own + sum(w*p for w, p in zip(a, stack))
            assert torch.allclose(m.attention([e])[0], a, atol=1e-5)
            assert torch.allclose(m.prompts().f(Inputs(tiny.embed(torch.tensor([e.ids])), None, [e], [0]))[0], want, atol=1e-5)

def test_padding_changes_no_prompt_and_no_loss(bb):
    m, exs = make(bb), eight(bb)
    assert len({len(e.ids) for e in exs}) > 1
    emb = torch.nn.utils.rnn.pad_sequence([bb.embed(torch.tensor(e.ids)) for e in exs], batch_first=True, padding_value=99.)   # such padding would win
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(e.ids)) for e in exs], batch_first=True)
    with torch.no_grad():
        alone = [m.prompts().f(Inputs(bb.embed(torch.tensor([e.ids])), None, [e], [0]))[0] for e in exs]
        assert torch.allclose(m.prompts().f(Inputs(emb, mask, exs, range(len(exs)))), torch.stack(alone), atol=1e-5)
        together = prompt_losses(bb, m.prompts(), exs)[0]
        assert torch.allclose(together, torch.stack([prompt_losses(bb, m.prompts(), [e])[0, 0] for e in exs]), atol=1e-4)

def test_attention_sums_to_one_and_finds_a_planted_source(tiny):
    "One source prompt solves the target, the others are random; the target's own prompt is held at zero"
    exs = eight(tiny)
    good = PromptTuning(tiny, init_prompts(tiny, 1, 6, seed=3)[0])
    fit(good, lambda t: [exs], 40)
    noise = init_prompts(tiny, 2, 6, seed=4)*good.prompt.norm().item()/init_prompts(tiny, 1, 6, seed=4).norm()
    m = Attempt(tiny, torch.stack([noise[0], good.prompt.detach(), noise[1]]), torch.zeros(6, 32), lr=0., lr_attention=.01, temperature=20.)
    a = m.attention(exs)
    fit(m, lambda t: [exs], 30)
    b = m.attention(exs)
    assert a.shape == (8, 4) and torch.allclose(b.sum(1), torch.ones(8))
    assert (b.argmax(1) == 1).all() and (b[:, 1] > a[:, 1]).all()

def test_several_targets_have_a_prompt_each_and_share_the_attention(tiny):
    m = make(tiny, tasks=['a', 'b'])
    a, b = eight(tiny, task='a'), eight(tiny, task='b')
    start, net = m.targets.detach().clone(), [p.detach().clone() for p in m.net.parameters()]
    fit(m, lambda t: [a], 2)
    assert torch.equal(m.targets[1], start[1]) and not torch.equal(m.targets[0], start[0]) and not any(torch.equal(p, q) for p, q in zip(net, m.net.parameters()))
    mixed = [x for p in zip(a, b) for x in p]   # one batch of both tasks
    with torch.no_grad():
        l = prompt_losses(tiny, m.prompts(), mixed)[0]
        assert torch.allclose(l[::2], prompt_losses(tiny, m.prompts(), a)[0], atol=1e-4) and torch.allclose(l[1::2], prompt_losses(tiny, m.prompts(), b)[0], atol=1e-4)
    assert (l[::2] - l[1::2]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="one of the targets.*got the task 'c'"): m.attention(eight(tiny, 'tweets', task='c'))
    assert make(tiny, tasks='movie').attention(eight(tiny, 'tweets', task='anything')).shape == (8, 4)

def test_attempt_survives_save_and_load(bb, tmp_path):
    exs, task = eight(bb), load_task('supersense')
    a, b = make(bb), make(bb, seed=5)
    fit(a, lambda t: [exs], 4)
    torch.save([p.detach() for ps, _ in a.groups().values() for p in ps], tmp_path/'a.pt')
    with torch.no_grad():
        for p, q in zip([p for ps, _ in b.groups().values() for p in ps], torch.load(tmp_path/'a.pt', weights_only=True)): p.copy_(q)
        assert torch.equal(prompt_losses(bb, a.prompts(), exs), prompt_losses(bb, b.prompts(), exs)) and torch.equal(a.attention(exs), b.attention(exs))
    assert predict(bb, a.prompts(), exs, task.choices) == predict(bb, b.prompts(), exs, task.choices)
    assert predict(bb, a.prompts(), exs[:2], max_new_tokens=3) == predict(bb, b.prompts(), exs[:2], max_new_tokens=3)

def test_attempt_resumes_to_the_same_bits(tiny, tmp_path):
    exs, (a, b, c) = eight(tiny), [make(tiny) for _ in range(3)]
    def dies(t):
        if t == 4: raise KeyboardInterrupt
        return [exs]
    fit(a, lambda t: [exs], 6)
    with pytest.raises(KeyboardInterrupt): fit(b, dies, 6, checkpoint=tmp_path/'s.pt', every=3)
    fit(c, lambda t: [exs], 6, checkpoint=tmp_path/'s.pt', every=3)
    for p, q in zip(a.groups().values(), c.groups().values()): assert all(torch.equal(x, y) for x, y in zip(p[0], q[0]))

def test_attempt_is_deterministic_by_seed_and_leaves_the_global_generator(tiny):
    exs, state = eight(tiny), torch.get_rng_state()
    a, b, c = make(tiny, seed=1), make(tiny, seed=1), make(tiny, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    for m in (a, b): fit(m, lambda t: [exs], 3)
    assert torch.equal(a.attention(exs), b.attention(exs)) and torch.equal(a.targets, b.targets) and not torch.equal(a.net[0].weight, c.net[0].weight)

def test_attempt_refuses_bad_input(tiny):
    x = init_prompts(tiny, 2, 6)
    with pytest.raises(ValueError, match=r'expected sources \[K, P, 32\]'): Attempt(tiny, x, x[0, :3])
    with pytest.raises(ValueError, match=r'expected sources \[K, P, 32\]'): Attempt(tiny, x[..., :8], x[0, :, :8])
    with pytest.raises(ValueError, match='each once'): Attempt(tiny, x, x[0], tasks=['a', 'a'])
    with pytest.raises(ValueError, match='temperature above 0'): Attempt(tiny, x, x[0], temperature=0.)

# Merge

def test_fisher_is_the_mean_of_squared_gradients(bb):
    "One example at a time, through the model's own forward pass and the exact label"
    exs, p = eight(bb), init_prompts(bb, 1, 6)[0]
    want = torch.zeros_like(p)
    for e in exs:
        x = p.clone().requires_grad_()
        emb = torch.cat([x, bb.embed(torch.tensor(e.ids))])[None]
        labels = torch.tensor([e.labels])
        logits = bb.model(inputs_embeds=emb, decoder_input_ids=bb.model.prepare_decoder_input_ids_from_labels(labels=labels)).logits
        want += torch.autograd.grad(nll(logits, labels).sum(), x)[0]**2/len(exs)
    for budget in (1, 100, 10**6): assert (fisher(bb, p, exs, budget) - want).norm() < 1e-3*want.norm()
    assert (want >= 0).all() and want.max() > 0 and all(q.grad is None for q in bb.model.parameters())
    with pytest.raises(ValueError, match='at least one example'): fisher(bb, p, [])

def test_equal_fishers_give_the_mean(tiny):
    x = init_prompts(tiny, 3, 6)
    f = fisher(tiny, x[0], eight(tiny))
    assert torch.allclose(merge(x, torch.stack([f]*3)), x.mean(0), atol=1e-6)
    assert torch.allclose(merge(x, torch.rand(3, 6, 32), floor=1e9), x.mean(0), atol=1e-6)
    assert torch.allclose(merge(x[:1], f[None]), x[0], atol=1e-6)

def test_merge_is_the_product_of_gaussians():
    g = torch.Generator().manual_seed(0)
    x, f = torch.randn(3, 2, 3, generator=g, dtype=torch.float64), torch.rand(3, 2, 3, generator=g, dtype=torch.float64) + .01
    exact = product([Gaussian(m.flatten(), precision=torch.diag(p.flatten())) for m, p in zip(x, f)]).mean
    assert torch.allclose(merge(x, f, floor=1e-12).flatten(), exact, atol=1e-12)
    assert torch.allclose(merge(x, 1e-9*f), merge(x, f))   # the unit of the precision does not matter
    sure = torch.stack([f[0], f[1]*1e8, f[2]])
    assert torch.allclose(merge(x, sure, floor=1e-12), x[1], atol=1e-6)

def test_merge_refuses_bad_input():
    x = torch.ones(2, 3, 4)
    for f, kw, message in [(x[:1], {}, 'stack one of each'), (-x, {}, 'finite precisions'), (0*x, {}, 'not all 0'), (x/0, {}, 'finite precisions'), (x, dict(floor=0.), 'floor above 0')]:
        with pytest.raises(ValueError, match=message): merge(x, f, **kw)
