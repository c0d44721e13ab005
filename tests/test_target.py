"Priors against exact answers; one road to a target"
import pytest, torch
from bayes_prompt.callbacks import Checkpoint
from bayes_prompt.data import load_task
from bayes_prompt.engine import prompt_losses
from bayes_prompt.prompt import encode, init_prompts
from bayes_prompt.settings import Target
from bayes_prompt.source import SourcePosterior
from bayes_prompt.target import PRIORS, SharedPrompt, adapt, prior_energy, target_method, tune
from bayes_prompt.train import PromptTuning

def eight(bb, task='supersense'): return encode(bb, load_task(task).train[:8], 32, 6, task=task)
def posterior(bb, m=3): return SourcePosterior(init_prompts(bb, m, 6), ['amazon'], bb.name)
def value(bb, exs, p):
    with torch.no_grad(): return prompt_losses(bb, p[None], exs).mean().item()

@pytest.mark.parametrize('changes', [{}, dict(low=False, prior='gaussian'), dict(prior='mixture'), dict(prior='none'), dict(full=False)], ids=str)
def test_it_lowers_the_loss_on_eight_examples(bb, changes):
    exs, post, lr = eight(bb), posterior(bb), .02 if bb.name == 'mini' else .3
    t = adapt(bb, exs, post, steps=10, lr=lr, lr_low=lr, sigma=10., **changes)
    assert value(bb, exs, t.prompt) < value(bb, exs, post.mean)

def test_prompt_tuning_lowers_it_too(bb):
    exs, x = eight(bb), init_prompts(bb, 1, 6)[0]
    assert value(bb, exs, adapt(bb, exs, x, steps=10, lr=.02 if bb.name == 'mini' else .3).prompt) < value(bb, exs, x)

@pytest.mark.parametrize('prior', PRIORS)
def test_energies_have_the_right_gradient(prior):
    g = torch.Generator().manual_seed(0)
    x, theta = torch.randn(4, 2, 3, generator=g, dtype=torch.float64), torch.randn(2, 3, generator=g, dtype=torch.float64, requires_grad=True)
    if prior != 'none': assert torch.autograd.gradcheck(lambda t: prior_energy(x, t, prior, .7), theta)

def test_the_prior_pulls_on_the_product(tiny):
    "Its energy does not change when a scale moves between Θ and u"
    m = target_method(tiny, posterior(tiny), Target(sigma=1.), {'': []})
    m.full.data += 1
    a = m.penalty().item()
    m.full.data *= 2
    m.u.data /= 2
    assert m.penalty().item() == pytest.approx(a)

def test_what_is_trained(bb):
    def groups(**kw): return {n: sum(p.numel() for p in ps) for n, (ps, _) in target_method(bb, posterior(bb), Target(**kw), {'': []}).groups().items()}
    assert groups() == dict(full=6*bb.width, low=6 + bb.width) and groups(low=False) == dict(full=6*bb.width) and groups(full=False) == dict(low=6 + bb.width)

def test_several_targets_with_one_name_each_equal_alone_when_nothing_is_shared(tiny):
    "Vectors only: each target's u, v see only its own examples"
    post, both = posterior(tiny), dict(a=eight(tiny), b=eight(tiny, 'context'))
    from dataclasses import replace
    both = {t: [replace(e, task=t) for e in exs] for t, exs in both.items()}
    o = Target(steps=3, full=False, prior='none', optimizer='sgd', lr_low=.1)
    together = adapt(tiny, both, post, o).method.products()
    for i, (t, exs) in enumerate(both.items()):
        assert torch.allclose(together[i], adapt(tiny, {t: exs}, post, o).method.products()[0], atol=1e-5)

def test_a_kill_changes_nothing(tiny, tmp_path, monkeypatch):
    exs, post, kw = eight(tiny), posterior(tiny), dict(steps=6, seed=1)
    want, plain = adapt(tiny, exs, post, **kw), SharedPrompt.backward
    def dies(self, batch, step):
        if step == 4: raise KeyboardInterrupt
        return plain(self, batch, step)
    with monkeypatch.context() as m:
        m.setattr(SharedPrompt, 'backward', dies)
        with pytest.raises(KeyboardInterrupt): adapt(tiny, exs, post, callbacks=[Checkpoint(tmp_path/'s', 2)], **kw)
    got = adapt(tiny, exs, post, callbacks=[Checkpoint(tmp_path/'s', 2)], **kw)
    assert torch.equal(want.prompt, got.prompt) and want.history == got.history
    with pytest.raises(ValueError, match='another run'): adapt(tiny, exs, post, callbacks=[Checkpoint(tmp_path/'s', 2)], steps=6, seed=2)

def test_what_is_refused(tiny, mini):
    exs, post = eight(tiny), posterior(tiny)
    for f, said in [(lambda: adapt(tiny, [], post), 'at least one training example'), (lambda: adapt(mini, exs, post), 'do not transfer between backbones'), (lambda: adapt(tiny, exs, post, prior='meen'), "nearest is 'mean'"),
                    (lambda: adapt(tiny, exs, post, sigma=0.), 'target.sigma: expected at least'), (lambda: SharedPrompt(tiny, post.mean, prior='mean'), 'made of particles'), (lambda: SharedPrompt(tiny, post.mean, train=('all',)), "'full', 'low' or both"),
                    (lambda: tune(PromptTuning(tiny, post.mean), dict(a=[])), "target 'a'"), (lambda: prior_energy(post.particles, post.mean, 'mean', -1.), 'above 0')]:
        with pytest.raises(ValueError, match=said): f()

def test_evidence_is_the_weight_of_the_loss(tiny):
    exs, post = eight(tiny), posterior(tiny)
    def energy(**kw):
        m = target_method(tiny, post, Target(sigma=1., **kw), dict(a=exs))
        m.full.data += 1
        return float(m.penalty().detach())
    one, tokens = energy(), sum(len(e.labels) for e in exs)
    assert [one/energy(evidence=e) for e in ('examples', 'tokens', 5.)] == pytest.approx([8, tokens, 5])
    with pytest.raises(ValueError, match='target.evidence'): Target(evidence=0.)
    with pytest.raises(ValueError, match="no target.evidence 'exampels'; the nearest is 'examples'"): Target(evidence='exampels')

def test_sigma_has_units(tiny):
    from bayes_prompt.target import sigma_of
    x = posterior(tiny).particles
    rms = tiny.embed.weight.square().mean().sqrt().item()
    assert sigma_of(tiny, x, Target(sigma=2.)) == 2 and sigma_of(tiny, x, Target(sigma=2., unit='embeddings')) == pytest.approx(2*rms)
    assert sigma_of(tiny, 3*x, Target(unit='particles')) == pytest.approx(3*sigma_of(tiny, x, Target(unit='particles')))
    with pytest.raises(ValueError, match='at least two'): sigma_of(tiny, x[:1], Target(unit='particles'))

def test_the_scalar_example():
    "32 observations of mean 3, prior N(0, 1): the mode of the posterior is 32·3/33, that of the recipe 1.5"
    for evidence, want in ((32, 32*3/33), (1, 1.5)):
        theta = torch.tensor([want], dtype=torch.float64, requires_grad=True)
        loss = (theta - 3).square().sum()/2 + prior_energy(torch.zeros(1, 1, dtype=torch.float64), theta, 'mean', 1.)/evidence
        assert torch.autograd.grad(loss, theta)[0].abs().item() < 1e-12

def test_targets_in_another_order_are_another_training(tiny, tmp_path):
    from dataclasses import replace
    both = {t: [replace(e, task=t) for e in eight(tiny)] for t in 'ab'}
    adapt(tiny, both, posterior(tiny), steps=2, callbacks=[Checkpoint(tmp_path/'s')])
    with pytest.raises(ValueError, match='another run'): adapt(tiny, dict(reversed(both.items())), posterior(tiny), steps=2, callbacks=[Checkpoint(tmp_path/'s')])

@pytest.mark.parametrize('M, D, sigma', [(5, 7, .8), (2, 3, .3), (1, 4, 2.), (6, 2, 1.1)])
def test_energies_are_those_of_the_densities(M, D, sigma):
    "The kernel density of the particles and their Gaussian, as torch has them; `mean` is the bound of the first by Jensen"
    from torch.distributions import MultivariateNormal
    g = torch.Generator().manual_seed(M)
    x, theta = torch.randn(M, D, generator=g, dtype=torch.float64), torch.randn(D, generator=g, dtype=torch.float64)
    def normal(mean, cov): return MultivariateNormal(mean, cov).log_prob(theta) - MultivariateNormal(mean, cov).log_prob(mean) # without its constant
    round_ = sigma**2*torch.eye(D, dtype=torch.float64)
    spread = torch.cov(x.T).reshape(D, D) if M > 1 else 0
    want = dict(mean=normal(x.mean(0), round_), gaussian=normal(x.mean(0), round_ + spread), mixture=torch.stack([normal(p, round_) for p in x]).exp().mean().log())
    for prior, w in want.items(): assert prior_energy(x, theta, prior, sigma).item() == pytest.approx(-w.item(), abs=1e-10)

@pytest.mark.parametrize('evidence, want', [('examples', 32*3/33), ('one', 1.5), (4., 2.4)])
def test_adapt_finds_the_mode_of_the_scalar_example(evidence, want, tiny, monkeypatch):
    "Every coordinate is a mean of 32 observations around 3 with variance 1, its prior N(0, 1)"
    from bayes_prompt import train
    monkeypatch.setattr(train, 'loss_and_grad', lambda bb, x, batch, *rest: ((x.detach() - 3).square().sum((1, 2))[:, None]/2, x.detach() - 3))
    prior = SourcePosterior(torch.zeros(2, 6, tiny.width), ['amazon'], tiny.name)
    got = adapt(tiny, eight(tiny)*4, prior, steps=300, lr=.5, low=False, optimizer='sgd', sigma=1., evidence=evidence, batch=1)
    assert torch.allclose(got.prompt, torch.tensor(want), atol=1e-3)

def test_published_counts(t5_base):
    "A target's share, l·d/N + l + d, and the particles of the source stage"
    from bayes_prompt.source import SourceSVGD
    particles = torch.zeros(5, 100, 768, device='meta')
    assert SourceSVGD(t5_base, particles, 6).trainable() == 384_000
    for n, each in ((1, 77_668), (5, 16_228), (8, 10_468), (21, 95_028/21)):
        zeros = torch.zeros(100, 768)
        shared = SharedPrompt(t5_base, zeros, [*map(str, range(n))], torch.ones(100), torch.ones(768))
        assert shared.trainable() == pytest.approx(n*each)
