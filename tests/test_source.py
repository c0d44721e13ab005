"The source stage: its score, SVGD's step, the posterior's files, resume"
from itertools import combinations
import pytest, torch
from bayes_prompt.callbacks import Checkpoint
from bayes_prompt.data import load_task
from bayes_prompt.engine import loss_and_grad
from bayes_prompt.prompt import encode, init_prompts
from bayes_prompt.settings import SVGD, Source
from bayes_prompt.source import SourcePosterior, SourceSVGD, learn_posterior, learn_prompts
from bayes_prompt.store import Damaged
from bayes_prompt.svgd import svgd_direction
from bayes_prompt.train import fit

TASKS = ['movie', 'context', 'supersense', 'movie_score']
def sources(bb, b=4): return {t: encode(bb, load_task(t).train[:b], 48, 6) for t in TASKS}

def test_a_step_is_the_svgd_direction(bb):
    "One plain step of the source stage is ε φ"
    x, batch = init_prompts(bb, 3, 6), list(sources(bb, 2).values())
    method = SourceSVGD(bb, x, len(batch), lr=.1)
    fit(method, lambda t: batch, 1, 'sgd')
    phi = svgd_direction(x, -loss_and_grad(bb, x, batch)[1])
    assert torch.allclose(method.particles.detach(), x + .1*phi, atol=1e-6)

def test_sampled_tasks_keep_the_score_unbiased(bb):
    "The mean over all κ=2 subsets of the rescaled score is the full score"
    x, batch = init_prompts(bb, 2, 6), list(sources(bb, 2).values())
    def score(some):
        m = SourceSVGD(bb, x, len(batch), svgd=SVGD(kernel='none'))
        m.backward(list(some), 0)
        return m.particles.grad
    full, pairs = score(batch), list(combinations(batch, 2))
    part = sum(map(score, pairs))/len(pairs)
    assert (full - part).norm() < 1e-4*full.norm()

def test_beta_scales_the_score_and_not_the_repulsion(tiny):
    x, batch = init_prompts(tiny, 2, 6), list(sources(tiny, 2).values())
    def phi(beta):
        m = SourceSVGD(tiny, x, len(batch), beta=beta)
        m.backward(batch, 0)
        return -m.particles.grad
    _, g = loss_and_grad(tiny, x, batch)
    assert torch.allclose(phi(3.), svgd_direction(x, -3*g), atol=1e-6) and not torch.allclose(phi(3.), phi(1.))

@pytest.mark.parametrize('optimizer', ['adam', 'adafactor'])
def test_a_killed_source_stage_resumes_to_the_same_bits(bb, tmp_path, monkeypatch, optimizer):
    start, o = init_prompts(bb, 3, 6, seed=2), Source(steps=6, lr=.02, kappa=2, seed=2, optimizer=optimizer, batch=1)
    want, calls, plain = learn_posterior(bb, sources(bb), start, o), [], SourceSVGD.backward
    def dies(self, batch, step):
        calls.append(step)
        if step == 4: raise KeyboardInterrupt
        return plain(self, batch, step)
    with monkeypatch.context() as m:
        m.setattr(SourceSVGD, 'backward', dies)
        with pytest.raises(KeyboardInterrupt): learn_posterior(bb, sources(bb), start, o, [Checkpoint(tmp_path/'s', 2)])
    n = len(calls)
    got = learn_posterior(bb, sources(bb), start, o, [Checkpoint(tmp_path/'s', 2)])
    assert n == 5 and torch.equal(want.particles, got.particles) and want.history == got.history
    for other in (lambda: learn_posterior(bb, sources(bb), start, o, [Checkpoint(tmp_path/'s')], seed=3), lambda: learn_posterior(bb, sources(bb), start+1, o, [Checkpoint(tmp_path/'s')]),
                  lambda: learn_posterior(bb, sources(bb, 3), start, o, [Checkpoint(tmp_path/'s')])):
        with pytest.raises(ValueError, match='another run'): other()

def test_the_backbone_is_frozen(bb):
    before = {k: v.clone() for k, v in bb.model.state_dict().items()}
    learn_posterior(bb, sources(bb), init_prompts(bb, 2, 6), steps=3, lr=.05, batch=1)
    assert not bb.model.training and all(not p.requires_grad and p.grad is None for p in bb.model.parameters())
    assert all(torch.equal(before[k], v) for k, v in bb.model.state_dict().items())

def test_noisy_svgd_has_its_temperature_under_the_schedule(tiny, monkeypatch):
    "On N(0, I) the particles of noisy SVGD keep variance 1, though the step size rises and falls"
    from bayes_prompt import source
    monkeypatch.setattr(source, 'loss_and_grad', lambda bb, x, batch, weights: (torch.zeros(len(x), 1), x.detach().clone()))
    torch.manual_seed(0)
    P, M = 5, 20 # 160 coordinates
    post = learn_posterior(tiny, dict(a=sources(tiny)['movie']), torch.randn(M, P, tiny.width), steps=1500, lr=.5, batch=1, optimizer='sgd', svgd=SVGD(noise=True))
    assert post.particles.var().item() == pytest.approx(1, abs=.15)

def test_learn_prompts_are_single_runs(bb):
    "Each is what it would be without the others"
    start, s = init_prompts(bb, 1, 6)[0], sources(bb)
    all_, one = learn_prompts(bb, s, start, steps=3, lr=.02), learn_prompts(bb, dict(movie=s['movie']), start, steps=3, lr=.02)
    assert torch.equal(all_.particles[0], one.particles[0]) and all_.particles.shape == (4, 6, bb.width) and all_.config['separate']

def test_bad_sources(tiny):
    start = init_prompts(tiny, 2, 6)
    for f, x in ((learn_posterior, start), (learn_prompts, start[0])):
        with pytest.raises(ValueError, match='at least one source task'): f(tiny, {}, x)
        with pytest.raises(ValueError, match="'b' has no examples"): f(tiny, dict(sources(tiny), b=[]), x)
        with pytest.raises(ValueError, match="nearest is 'source.lr'"): f(tiny, sources(tiny), x, learning_rate=.1)
        with pytest.raises(ValueError, match='source.kappa'): f(tiny, sources(tiny), x, kappa=5)

def test_a_posterior_survives_its_files_or_says_why_not(tmp_path):
    post = SourcePosterior(torch.randn(2, 3, 4), ['a', 'b'], 'mini', dict(steps=3), [dict(loss=1.), dict(loss=.5)])
    post.save(tmp_path)
    again = SourcePosterior.load(tmp_path)
    assert torch.equal(post.particles, again.particles) and vars(post).keys() == vars(again).keys() and again.history == post.history and again.config == post.config
    (tmp_path/'posterior.safetensors').write_bytes((tmp_path/'posterior.safetensors').read_bytes()[:-1])
    with pytest.raises(Damaged, match='posterior'): SourcePosterior.load(tmp_path)
    with pytest.raises(ValueError, match='no posterior'): SourcePosterior.load(tmp_path/'none')

def test_skipped_steps_of_separate_prompts_are_counted(tiny, monkeypatch):
    from bayes_prompt import source
    histories = iter([[dict(loss=1.), dict(loss=1., skipped=1)], [dict(loss=3.), dict(loss=3., skipped=1)]])
    monkeypatch.setattr(source, 'fit', lambda *a, **k: next(histories))
    examples = encode(tiny, [('a', 'b')])
    history = learn_prompts(tiny, dict(one=examples, two=examples), init_prompts(tiny, 1, 2)[0], steps=2).history
    assert history == [dict(loss=2.), dict(loss=2., skipped=2)]
