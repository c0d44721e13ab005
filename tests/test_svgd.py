"SVGD's direction and loop by autograd, by symmetry and by exact answers; what is refused, and how"
import math

import numpy as np
import pytest
import torch
from conftest import close, rand, random_gaussian, rng

from bayes_prompt.gaussian import product
from bayes_prompt.settings import SVGD
from bayes_prompt.svgd import (bandwidths, kernel_matrix, kernel_noise, kernels, median_bandwidth, pairwise, rbf_kernel,
                               svgd, svgd_direction)

KERNELS = ['rbf', 'imq', 'laplacian', 'linear', 'none']
SMOOTH = ['rbf', 'imq', 'laplacian']

def by_autograd(x, s, kernel, h):
    y = x.clone().requires_grad_()
    d2 = (y[:,None] - x[None]).square().sum(-1)
    k = kernel(d2 + 1e-300*torch.eye(len(x), dtype=x.dtype), h)[0]     # so that a root has a derivative at 0
    grad = torch.stack([torch.autograd.grad(k[:,i].sum(), y, retain_graph=True)[0].sum(0) for i in range(len(x))])
    return (k.detach().T@s + grad)/len(x)


@pytest.mark.parametrize('kernel', SMOOTH)
@pytest.mark.parametrize('M, D', [(2, 1), (3, 5), (5, 700), (17, 2)])
def test_direction_is_autograds(kernel, M, D):
    x, s = rand(2, M, D)
    for h in (median_bandwidth(x), torch.tensor(3.*D, dtype=x.dtype)):
        for dx in (0, 10):
            phi = svgd_direction(x + dx, s, SVGD(kernel=kernel, bandwidth=h))
            close(phi, by_autograd(x, s, kernels[kernel], h), 1e-10)

def test_direction_of_the_linear_kernel():
    x, s = rand(2, 8, 5)
    y = x - x.mean(0)
    h = median_bandwidth(x)
    close(svgd_direction(x, s, SVGD(kernel='linear')), ((1 + y@y.T/h)@s + 8*y/h)/8)     # ∇_{x_j} of 1 + y_j·y_i/h is y_i/h

def test_direction_of_a_callable_kernel():
    def gauss_mix(d2, h):
        ks = [rbf_kernel(d2, a*h) for a in (.5, 2)]
        return sum(k for k,_ in ks), sum(dk for _,dk in ks)
    x, s = rand(2, 6, 4)
    close(svgd_direction(x, s, SVGD(kernel=gauss_mix)), by_autograd(x, s, gauss_mix, median_bandwidth(x)), 1e-10)
    widest = svgd_direction(x, s, SVGD(bandwidth=lambda x, d2: d2.max()))
    close(widest, svgd_direction(x, s, SVGD(bandwidth=pairwise(x).max())))
    close(svgd_direction(x, s, SVGD(bandwidth=median_bandwidth)), svgd_direction(x, s))

@pytest.mark.parametrize('kernel', SMOOTH)
def test_derivative_of_kernel(kernel):
    d2 = torch.linspace(.01, 9, 50, dtype=torch.float64, requires_grad=True)
    k,dk = kernels[kernel](d2, torch.tensor(1.7, dtype=d2.dtype))
    close(dk, torch.autograd.grad(k.sum(), d2)[0])

@pytest.mark.parametrize('kernel', KERNELS)
def test_equivariance(kernel):
    def direction(x, s): return svgd_direction(x, s, SVGD(kernel=kernel))
    x, s = rand(2, 7, 4)
    phi = direction(x, s)
    q,_ = torch.linalg.qr(rand(4, 4, seed=1))
    close(direction(x@q, s@q), phi@q)
    close(direction(x + rand(4, seed=2), s), phi)
    p = torch.randperm(7, generator=rng(3))
    close(direction(x[p], s[p]), phi[p])
    for a in (1e-3, 1e3): close(direction(a*x, s/a), phi/a, 1e-9)

@pytest.mark.parametrize('kernel', KERNELS)
def test_float32_with_a_large_offset(kernel):
    x, s = rand(5, 76_800, dtype=torch.float32) + 10, rand(5, 76_800, seed=1, dtype=torch.float32)
    for scale in (1., 0.):     # also the repulsion on its own
        phi, exact = (svgd_direction(x.to(t), scale*s.to(t), SVGD(kernel=kernel)) for t in (torch.float32, torch.float64))
        assert phi.dtype == torch.float32
        assert (phi - exact).norm() <= 1e-5*exact.norm()

@pytest.mark.parametrize('M, D', [(31, 2000), (32, 2000), (33, 1100)])
@pytest.mark.parametrize('offset', [0., 100.])
def test_distances_of_many_particles(M, D, offset):
    "By products or by differences: the same digits, and no negative square"
    def exact(x): return (x.double()[:,None] - x.double()).square().sum(-1)
    x = torch.randn(M, D, generator=rng()) + offset
    got, want = pairwise(x), exact(x)
    assert torch.equal(got, got.T) and not got.diagonal().any() and torch.allclose(got.double(), want, rtol=3e-6)
    x[1] = x[0] + torch.randn(D, generator=rng(1))*1e-3*(1 + offset)   # far closer than the others
    assert torch.allclose(pairwise(x).double(), exact(x), rtol=3e-6, atol=0)

@pytest.mark.parametrize('kernel', ['rbf', 'imq', 'none'])
@pytest.mark.parametrize('repulsion', [1., 3., 0.])
def test_one_product_is_two(kernel, repulsion):
    "Where the derivative is a multiple of the kernel; the same particles in blocks of one go the longer way"
    x, s = torch.randn(2, 6, 1, 40, dtype=torch.float64, generator=rng())
    a, b = [svgd_direction(x, s, SVGD(kernel=kernel, bandwidth=30., repulsion=repulsion, blocks=blocks)) for blocks in ('all', 'token')]
    twice = torch.cat([x, x], 1)
    c = svgd_direction(twice, torch.cat([s, s], 1), SVGD(kernel=kernel, bandwidth=30., repulsion=repulsion, blocks='token'))   # two blocks
    assert torch.allclose(a, b, atol=1e-14) and torch.allclose(a, c[:, :1], atol=1e-14)

@pytest.mark.parametrize('shape', [(6,), (6, 8), (6, 2, 4), (6, 2, 2, 2)])
def test_any_trailing_shape(shape):
    x, s = rand(2, *shape)
    flat = svgd_direction(x.reshape(6, -1), s.reshape(6, -1))
    close(svgd_direction(x, s), flat.reshape(shape))
    close(svgd_direction(x.mT.contiguous().mT if x.ndim > 1 else x, s), flat.reshape(shape))    # not contiguous
    assert svgd(lambda x: -x, x, 3, trace=True)[1].shape == (4, *shape)

@pytest.mark.parametrize('kernel', KERNELS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_one_particle_and_coincident_particles(kernel, dtype):
    def direction(x, s): return svgd_direction(x, s, SVGD(kernel=kernel))
    s = rand(4, 3, dtype=dtype)
    x = rand(1, 3, seed=1, dtype=dtype)
    close(direction(x, s[:1]), s[:1], 0)
    close(direction(x.expand(4, 3), s), s if kernel == 'none' else s.mean(0).expand(4, 3), 1e-6)
    y = torch.cat([x.expand(3, 3), x + 1])           # half of the pairs, so that the median is in between; then most, so that it is 0
    assert direction(y, s).isfinite().all()
    y, s = torch.cat([x.expand(4, 3), x + 1]), rand(5, 3, dtype=dtype)
    assert median_bandwidth(y) == 0
    if kernel in SMOOTH: close(direction(y, s), torch.cat([s[:4].sum(0).expand(4, 3), s[4:]])/5, 1e-3)

@pytest.mark.parametrize('scale', [1e-30, 1e-22, 1e-20, 1e-19, 1e-18, 1e17])
@pytest.mark.parametrize('kernel', ['rbf', 'imq', 'linear', 'none'])
def test_squares_at_the_ends_of_float32_give_finite_directions(kernel, scale):
    for M in (2, 5, 50):
        x, s = rand(2, M, 3, dtype=torch.float32)
        assert svgd_direction(scale*x, s, SVGD(kernel=kernel)).isfinite().all()

@pytest.mark.parametrize('kernel', SMOOTH)
def test_blocks_are_separate_runs(kernel):
    x, s = rand(2, 5, 4, 3)
    whole, token, coordinate = (SVGD(kernel=kernel, blocks=b) for b in ('all', 'token', 'coordinate'))
    for i in range(4): close(svgd_direction(x, s, token)[:,i], svgd_direction(x[:,i], s[:,i], whole))
    flat = svgd_direction(x, s, coordinate).reshape(5, 12)
    for i in range(12): close(flat[:,i], svgd_direction(x.reshape(5, 12)[:,i], s.reshape(5, 12)[:,i], whole))
    assert kernel_matrix(x, token).shape == (4, 5, 5) and kernel_matrix(x, whole).shape == (5, 5)
    close(svgd_direction(x[:,:1], s[:,:1], token), svgd_direction(x[:,:1], s[:,:1], whole))

@pytest.mark.parametrize('M', [2, 3, 4, 5, 8])
def test_bandwidth_rules_by_numpy(M):
    x = rand(M, 6)
    full = ((x[:,None] - x[None])**2).sum(-1).numpy()
    off = full[~np.eye(M, dtype=bool)]
    want = dict(median=np.median(off)/np.log(M), liu=np.median(full)/np.log(M + 1),
                blackjax=np.median(off**.5)**2/np.log(M), numpyro=np.median(full**.5)**2/np.log(M))
    assert set(want) == set(bandwidths)
    for name,h in want.items():
        close(bandwidths[name](x), torch.tensor(h))
        if h > 0: close(svgd_direction(x, -x, SVGD(bandwidth=name)), svgd_direction(x, -x, SVGD(bandwidth=float(h))))

def test_damping_and_repulsion_scale():
    x, s = rand(2, 6, 4)
    phi, off = svgd_direction(x, s), svgd_direction(x, 0*s)
    close(svgd_direction(x, s, SVGD(damping=.3)), phi - .7*s/6)
    close(svgd_direction(x, s, SVGD(repulsion=3.)), phi + 2*off)

def test_linear_kernel_is_exact_for_a_gaussian():
    "At rest with more particles than dimensions: the mean, and the covariance with 1/M"
    p = random_gaussian(3, 0)
    lr = .3/torch.linalg.eigvalsh(p.precision)[-1].item()
    x = svgd(p.score, rand(12, 3), 20_000, lr, SVGD(kernel='linear'))
    close(x.mean(0), p.mean, 1e-6)
    close(x.T.cov(correction=0), p.cov, 1e-6)

def test_svgd_samples_a_product():
    "Mean and covariance of a three-dimensional product"
    p = product([random_gaussian(3, i) for i in range(3)])
    x = svgd(p.score, rand(100, 3), 500, .05, optimizer='adam')
    assert 2*p.excess_energy(x.mean(0)) < 1e-2**2
    assert (x.T.cov() - p.cov).norm() < .2*p.cov.norm()

def test_one_particle_finds_the_mode_of_a_product():
    p = product([random_gaussian(5, i) for i in range(4)])
    lr = 1/torch.linalg.eigvalsh(p.precision)[-1].item()
    close(svgd(p.score, rand(1, 5), 2000, lr)[0], p.mean, 1e-8)

@pytest.mark.parametrize('score,back,mean,var', [
    (lambda z: 3 - 2*z.exp(), torch.exp, 3/2, 3/4),
    (lambda z: (.5 - z)/.25, torch.exp, math.exp(.625), (math.exp(.25) - 1)*math.exp(1.25)),
    (lambda z: 2 - 7*z.sigmoid(), torch.sigmoid, 2/7, 10/49/8)], ids=['gamma', 'lognormal', 'beta'])
def test_densities_on_part_of_the_line(score, back, mean, var):
    "Through a transform to the whole line, with the score there"
    x = back(svgd(score, rand(100, 1), 800, .05, optimizer='adam'))
    assert abs(x.mean()/mean - 1) < .01 and abs(x.var(correction=0)/var - 1) < .1

def test_near_modes_have_the_mixtures_moments():
    w, mu, sd = (torch.tensor(o, dtype=torch.float64) for o in ([.7, .3], [-1.2, 1.2], .8))
    def score(x): return (torch.softmax(w.log() - (x - mu)**2/(2*sd**2), -1)*(mu - x)).sum(-1, keepdim=True)/sd**2
    x = svgd(score, rand(100, 1), 1500, .05, optimizer='adam')
    assert abs(x.mean() - w@mu) < .02
    assert abs(x.var(correction=0) - (w@mu**2 + sd**2 - (w@mu)**2)) < .05

@pytest.mark.parametrize('kw', [
    dict(optimizer='adam'), dict(options=SVGD(noise=True)), dict(temperature=lambda t: 5/(t + 1)),
    dict(options=SVGD(blocks='token', noise=True))])
def test_a_run_resumes_exactly(kw, tmp_path):
    "Interrupted between two steps, from what `torch.save` kept in a callback; the minibatches come from the same generator"
    x = rand(4, 2, 3)
    def run(steps, seed, **more):
        g = rng(seed)
        def score(x): return -x*torch.rand(1, generator=g, dtype=x.dtype)
        return svgd(score, x, steps, .05, generator=g, **kw, **more)
    state = {}
    def stop(t, *_):
        if t == 7:
            torch.save(state, tmp_path/'state.pt')
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): run(20, 0, state=state, callback=stop)
    state = torch.load(tmp_path/'state.pt')
    assert state['step'] == 7
    assert torch.equal(run(20, 5, state=state), run(20, 0))

def test_temperature_divides_the_score():
    x = rand(5, 3)
    close(svgd(lambda x: -x, x, 7, temperature=4.), svgd(lambda x: -x/4, x, 7))
    hot = svgd(lambda x: -x, rand(200, 1), 600, .1, optimizer='adam', temperature=4.)
    assert abs(hot.var() - 4) < .3

def test_progress_is_shown(capsys):
    svgd(lambda x: -x, rand(3, 2), 5, progress=True)
    assert '5/5' in capsys.readouterr().err

def test_inputs_are_left_alone():
    x, s = rand(2, 5, 3)
    x_, s_ = x.clone(), s.clone()
    svgd_direction(x, s)
    svgd(lambda x: s, x, 3, optimizer='adam')
    assert torch.equal(x, x_) and torch.equal(s, s_) and x.grad is None

def test_noise_has_the_kernels_covariance():
    x = rand(3, 100_000)
    noise = kernel_noise(x, generator=rng(1))
    close(noise@noise.T/100_000, kernel_matrix(x)/3, .01)

def test_noise_is_reproducible_and_needs_no_interaction():
    x = rand(4, 3)
    a, b, c = (svgd(lambda x: -x, x, 5, options=SVGD(noise=True), generator=rng(i)) for i in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    chains = SVGD(kernel='none', noise=True)                               # independent Langevin chains
    y = svgd(lambda x: -x, rand(4, 20_000), 200, .05, chains, generator=rng())
    close(y@y.T/20_000, torch.eye(4, dtype=y.dtype)/(1 - .05/2), .03)      # their exact stationary variance

def test_a_torch_optimiser_and_a_score_by_autograd():
    p, x = random_gaussian(3, 0), rand(6, 3)
    def score(x): return torch.autograd.grad(p.log_prob(x.requires_grad_()).sum(), x)[0]
    for opt in ('adam', torch.optim.Adam):
        close(svgd(score, x, 20, .1, optimizer=opt), svgd(p.score, x, 20, .1, optimizer='adam'), 1e-9)
    close(svgd(score, x, 1, .1), x + .1*svgd_direction(x, p.score(x)), 1e-9)

def spoilt(x, value, *particles): return x.clone().index_fill_(0, torch.tensor(particles), value)

@pytest.mark.parametrize('bad,message', [
    (lambda x: svgd_direction(x, -x, SVGD(kernel='rfb')), "nearest is 'rbf'"),
    (lambda x: svgd_direction(x, -x, SVGD(bandwidth='mediam')), "nearest is 'median'"),
    (lambda x: svgd_direction(x, -x, SVGD(blocks='tokens')), "nearest is 'token'"),
    (lambda x: svgd_direction(x, -x, SVGD(bandwidth=-1.)), 'bandwidth'),
    (lambda x: svgd_direction(x, -x, SVGD(bandwidth=math.nan)), 'bandwidth'),
    (lambda x: svgd(lambda x: -x, x, optimizer='adan'), "nearest is 'adam'"),
    (lambda x: svgd(lambda x: -x, x, options=SVGD(noise=True), optimizer='adam'), 'plain step'),
    (lambda x: svgd(lambda x: -x, x.numpy()), 'torch tensor, got ndarray'),
    (lambda x: svgd(lambda x: -x.numpy(), x), r'score tensor .* got \[4, 3\] \(ndarray\)'),
    (lambda x: svgd_direction(x, x[:,:2]), r'shape \[4, 3\], got \[4, 2\]'),
    (lambda x: svgd_direction(x, None), 'got None'),
    (lambda x: svgd_direction(x.numpy(), x), 'torch tensor, got ndarray'),
    (lambda x: svgd_direction(x.long(), x.long()), 'floating-point'),
    (lambda x: svgd_direction(x.bfloat16(), x), 'digits of float32'),
    (lambda x: kernel_matrix(x.half()), 'digits of float32'),
    (lambda x: kernel_noise(x.numpy()), 'torch tensor, got ndarray'),
    (lambda x: pairwise(x.numpy()), 'torch tensor, got ndarray'),
    (lambda x: svgd_direction(x[:0], x[:0]), 'at least one number'),
    (lambda x: svgd_direction(1e20*x.float(), x), 'overflow torch.float32'),
    (lambda x: svgd_direction(x, spoilt(x, math.nan, 1, 3)), r'score of particle\(s\) \[1, 3\]'),
    (lambda x: svgd_direction(x, spoilt(x, math.inf, 2)), r'score of particle\(s\) \[2\]'),
    (lambda x: svgd_direction(x/0, -x), r'position of particle\(s\) \[0, 1, 2, 3\]')])
def test_bad_input_gets_a_sentence(bad, message):
    with pytest.raises(ValueError, match=message) as e: bad(rand(4, 3))
    assert '\n' not in str(e.value)

# by definition: one pair after the other, the kernel differentiated by autograd

def median(values, power=1):
    return float(np.median([v**power for v in values]))**(1/power)

BANDWIDTHS = dict(                     # squared distances of pairs; the same with the diagonal and every pair twice; M
    median=lambda off, whole, M: median(off)/math.log(M),
    liu=lambda off, whole, M: median(whole)/math.log(M + 1),
    blackjax=lambda off, whole, M: median(off, .5)/math.log(M),
    numpyro=lambda off, whole, M: median(whole, .5)/math.log(M))

def pair(kernel, x, a, b, h):
    "k(a, b)"
    r2 = (a - b).square().sum()
    if kernel == 'linear': return 1 + ((a - x.mean(0))*(b - x.mean(0))).sum()/h
    if kernel == 'none': return float(len(x)*torch.equal(a, b)) + 0*a.sum()
    if kernel == 'laplacian': return (-r2.sqrt()/h**.5).exp() if r2 > 0 else 1 + 0*a.sum()
    return (-r2/h).exp() if kernel == 'rbf' else (1 + r2/h)**-.5

def by_definition(x, s, o):
    M = len(x)
    if o.blocks != 'all':
        columns = x.flatten(1).split(1 if o.blocks == 'coordinate' else x[0][0].numel(), 1)
        scores = s.flatten(1).split(columns[0].shape[1], 1)
        return torch.cat([by_definition(c, d, o.changed(blocks='all')) for c, d in zip(columns, scores)], 1).reshape(x.shape)
    y, g = x.flatten(1), s.flatten(1)
    whole = [float((a - b).square().sum()) for a in y for b in y]
    off = [whole[i*M + j] for i in range(M) for j in range(i)]
    h = BANDWIDTHS[o.bandwidth](off, whole, M) if isinstance(o.bandwidth, str) else o.bandwidth
    phi = torch.zeros_like(y)
    for i in range(M):
        for j in range(M):
            a = y[j].clone().requires_grad_()
            k = pair(o.kernel, y, a, y[i], h)
            slope, = torch.autograd.grad(k, a)
            phi[i] += ((o.damping if i == j else 1)*k.detach()*g[j] + o.repulsion*slope)/M
    return phi.reshape(x.shape)

@pytest.mark.parametrize('kernel', KERNELS)
@pytest.mark.parametrize('bandwidth', [*BANDWIDTHS, .37])
@pytest.mark.parametrize('blocks', ['all', 'token', 'coordinate'])
def test_direction_by_definition(kernel, bandwidth, blocks):
    for shape in ((3, 7), (4, 3, 2), (6, 1, 5)):
        for repulsion, damping in ((1., 1.), (0., 1.), (2.5, .3), (1., 4.)):
            o = SVGD(kernel=kernel, bandwidth=bandwidth, blocks=blocks, repulsion=repulsion, damping=damping)
            x, s = 1.7*rand(*shape) + 3, rand(*shape, seed=1)
            close(svgd_direction(x, s, o), by_definition(x, s, o), 1e-10)
