"Properties of SVGD and of Gaussian products that the pages leave out"
import math

import numpy as np
import pytest
import torch

from bayes_prompt.gaussian import Gaussian, best_convex_combination, product
from bayes_prompt.svgd import (bandwidths, effective_rank, imq_kernel, kernel_matrix, kernels, ksd, median_bandwidth, mode_occupancy, pairwise, predicted_ratio,
                               rbf_kernel, repulsion_ratio, svgd, svgd_direction, total_variance)

KERNELS = ['rbf', 'imq', 'laplacian', 'linear', 'none']
def rng(seed=0): return torch.Generator().manual_seed(seed)
def rand(*shape, seed=0, dtype=torch.float64): return torch.randn(*shape, dtype=dtype, generator=rng(seed))
def close(a, b, tol=1e-12): torch.testing.assert_close(a, b, rtol=tol, atol=tol)

def random_gaussian(d, seed, K=None):
    a = rand(*([K] if K else []), d, d+2, seed=seed)
    return Gaussian(rand(*([K] if K else []), d, seed=seed+100), cov=a@a.mT/d)

def by_autograd(x, s, kernel, h):
    y = x.clone().requires_grad_()
    d2 = (y[:,None] - x[None]).square().sum(-1)
    k = kernel(d2 + 1e-300*torch.eye(len(x), dtype=x.dtype), h)[0]     # so that a root has a derivative at 0
    grad = torch.stack([torch.autograd.grad(k[:,i].sum(), y, retain_graph=True)[0].sum(0) for i in range(len(x))])
    return (k.detach().T@s + grad)/len(x)


@pytest.mark.parametrize('kernel', ['rbf', 'imq', 'laplacian'])
@pytest.mark.parametrize('M,D', [(2, 1), (3, 5), (5, 700), (17, 2)])
def test_direction_is_autograds(kernel, M, D):
    x,s = rand(2, M, D)
    for h in (median_bandwidth(x), torch.tensor(3.*D, dtype=x.dtype)):
        for dx in (0, 10): close(svgd_direction(x+dx, s, kernel, h), by_autograd(x, s, kernels[kernel], h), 1e-10)

def test_direction_of_a_callable_kernel():
    def gauss_mix(d2, h):
        ks = [rbf_kernel(d2, a*h) for a in (.5, 2)]
        return sum(k for k,_ in ks), sum(dk for _,dk in ks)
    x,s = rand(2, 6, 4)
    close(svgd_direction(x, s, gauss_mix), by_autograd(x, s, gauss_mix, median_bandwidth(x)), 1e-10)
    close(svgd_direction(x, s, bandwidth=lambda x, d2: d2.max()), svgd_direction(x, s, bandwidth=pairwise(x).max()))
    close(svgd_direction(x, s, bandwidth=median_bandwidth), svgd_direction(x, s))

@pytest.mark.parametrize('kernel', ['rbf', 'imq', 'laplacian'])
def test_derivative_of_kernel(kernel):
    d2 = torch.linspace(.01, 9, 50, dtype=torch.float64, requires_grad=True)
    k,dk = kernels[kernel](d2, torch.tensor(1.7, dtype=d2.dtype))
    close(dk, torch.autograd.grad(k.sum(), d2)[0])

@pytest.mark.parametrize('kernel', KERNELS)
def test_equivariance(kernel):
    x,s = rand(2, 7, 4)
    phi = svgd_direction(x, s, kernel)
    q,_ = torch.linalg.qr(rand(4, 4, seed=1))
    close(svgd_direction(x@q, s@q, kernel), phi@q)
    close(svgd_direction(x + rand(4, seed=2), s, kernel), phi)
    p = torch.randperm(7, generator=rng(3))
    close(svgd_direction(x[p], s[p], kernel), phi[p])
    for a in (1e-3, 1e3): close(svgd_direction(a*x, s/a, kernel), phi/a, 1e-9)

@pytest.mark.parametrize('kernel', KERNELS)
def test_float32_with_a_large_offset(kernel):
    x,s = rand(5, 76_800, dtype=torch.float32) + 10, rand(5, 76_800, seed=1, dtype=torch.float32)
    for scale in (1., 0.):     # also the repulsion on its own
        phi, exact = (svgd_direction(*(o.to(t) for o in (x, scale*s)), kernel) for t in (torch.float32, torch.float64))
        assert phi.dtype == torch.float32
        assert (phi - exact).norm() <= 1e-5*exact.norm()

@pytest.mark.parametrize('shape', [(6,), (6, 8), (6, 2, 4), (6, 2, 2, 2)])
def test_any_trailing_shape(shape):
    x,s = rand(2, *shape)
    flat = svgd_direction(x.reshape(6, -1), s.reshape(6, -1))
    close(svgd_direction(x, s), flat.reshape(shape))
    close(svgd_direction(x.mT.contiguous().mT if x.ndim > 1 else x, s), flat.reshape(shape))    # not contiguous
    assert svgd(lambda x: -x, x, 3, trace=True)[1].shape == (4, *shape)
    assert total_variance(x) > 0 and 1 <= effective_rank(x) <= 5

@pytest.mark.parametrize('kernel', KERNELS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_one_particle_and_coincident_particles(kernel, dtype):
    s = rand(4, 3, dtype=dtype)
    x = rand(1, 3, seed=1, dtype=dtype)
    close(svgd_direction(x, s[:1], kernel), s[:1], 0)
    close(svgd_direction(x.expand(4, 3), s, kernel), s if kernel == 'none' else s.mean(0).expand(4, 3), 1e-6)
    y = torch.cat([x.expand(3, 3), x + 1])           # half of the pairs, so that the median is in between; then most, so that it is 0
    assert svgd_direction(y, s, kernel).isfinite().all()
    y,s = torch.cat([x.expand(4, 3), x + 1]), rand(5, 3, dtype=dtype)
    assert median_bandwidth(y) == 0
    if kernel in ('rbf', 'imq', 'laplacian'): close(svgd_direction(y, s, kernel), torch.cat([s[:4].sum(0).expand(4, 3), s[4:]])/5, 1e-3)
    assert effective_rank(x.expand(4, 3)) == total_variance(x.expand(4, 3)) == 0

@pytest.mark.parametrize('kernel', ['rbf', 'imq', 'laplacian'])
def test_blocks_are_separate_runs(kernel):
    x,s = rand(2, 5, 4, 3)
    for i in range(4): close(svgd_direction(x, s, kernel, blocks='token')[:,i], svgd_direction(x[:,i], s[:,i], kernel))
    flat = svgd_direction(x, s, kernel, blocks='coordinate').reshape(5, 12)
    for i in range(12): close(flat[:,i], svgd_direction(x.reshape(5, 12)[:,i], s.reshape(5, 12)[:,i], kernel))
    assert kernel_matrix(x, kernel, blocks='token').shape == (4, 5, 5) and kernel_matrix(x, kernel).shape == (5, 5)
    close(svgd_direction(x[:,:1], s[:,:1], blocks='token'), svgd_direction(x[:,:1], s[:,:1]))

@pytest.mark.parametrize('M', [2, 3, 4, 5, 8])
def test_bandwidth_rules_by_numpy(M):
    x = rand(M, 6)
    full = ((x[:,None] - x[None])**2).sum(-1).numpy()
    off = full[~np.eye(M, dtype=bool)]
    want = dict(median=np.median(off)/np.log(M), liu=np.median(full)/np.log(M + 1), blackjax=np.median(off**.5)**2/np.log(M), numpyro=np.median(full**.5)**2/np.log(M))
    assert set(want) == set(bandwidths)
    for name,h in want.items():
        close(bandwidths[name](x), torch.tensor(h))
        if h > 0: close(svgd_direction(x, -x, bandwidth=name), svgd_direction(x, -x, bandwidth=float(h)))

def test_damping_and_repulsion_scale():
    x,s = rand(2, 6, 4)
    phi,off = svgd_direction(x, s), svgd_direction(x, 0*s)
    close(svgd_direction(x, s, damping=.3), phi - .7*s/6)
    close(svgd_direction(x, s, repulsion=3.), phi + 2*off)

def test_linear_kernel_is_exact_for_a_gaussian():
    "At rest with more particles than dimensions: the mean, and the covariance with 1/M"
    p = random_gaussian(3, 0)
    lr = .3/torch.linalg.eigvalsh(p.precision)[-1].item()
    x = svgd(p.score, rand(12, 3), 20_000, lr, kernel='linear')
    close(x.mean(0), p.mean, 1e-6)
    close(x.T.cov(correction=0), p.cov, 1e-6)

def test_ksd_by_autograd():
    p,x = random_gaussian(3, 0), rand(5, 3)
    s,h = p.score(x), median_bandwidth(x)
    def k(a, b): return imq_kernel(((a - b)**2).sum(), h)[0]
    def u(i, j):
        a,b = x[i].clone().requires_grad_(), x[j].clone().requires_grad_()
        ga,gb = torch.autograd.grad(k(a, b), (a, b), create_graph=True)
        trace = sum(torch.autograd.grad(ga[c], b, retain_graph=True)[0][c] for c in range(3))
        return (k(a, b)*s[i]@s[j] + s[i]@gb + s[j]@ga + trace).item()
    us = np.array([[u(i, j) for j in range(5)] for i in range(5)])
    assert abs(ksd(x, s) - us.mean()) < 1e-10
    assert abs(ksd(x, s, unbiased=True) - us[~np.eye(5, dtype=bool)].mean()) < 1e-10

def test_ksd_sees_a_wrong_density():
    x = rand(300, 2)
    assert abs(ksd(x, -x, unbiased=True)) < .05 < ksd(x, -x/4, unbiased=True)
    assert ksd(x, -x) > ksd(x, -x, unbiased=True)

def test_mode_occupancy():
    x = torch.tensor([[0., 0.], [1., 0.], [9., 9.], [8., 9.], [9., 8.]])
    close(mode_occupancy(x, torch.tensor([[0., 0.], [9., 9.], [50., 0.]])), torch.tensor([.4, .6, 0.]))

@pytest.mark.parametrize('kw', [dict(optimizer='adam'), dict(noise=True), dict(temperature=lambda t: 5/(t + 1)), dict(blocks='token', noise=True)])
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
    hot = svgd(lambda x: -x, rand(200, 1), 600, .1, 'adam', temperature=4.)
    assert abs(hot.var() - 4) < .3

def test_progress_is_shown(capsys):
    svgd(lambda x: -x, rand(3, 2), 5, progress=True)
    assert '5/5' in capsys.readouterr().err

def test_inputs_are_left_alone():
    x,s = rand(2, 5, 3)
    x_,s_ = x.clone(), s.clone()
    svgd_direction(x, s)
    svgd(lambda x: s, x, 3, optimizer='adam')
    assert torch.equal(x, x_) and torch.equal(s, s_) and x.grad is None

@pytest.mark.parametrize('bad,message', [
    (lambda x: svgd_direction(x, -x, kernel='rfb'), "nearest is 'rbf'"),
    (lambda x: svgd_direction(x, -x, bandwidth='mediam'), "nearest is 'median'"),
    (lambda x: svgd_direction(x, -x, bandwidth=-1.), 'bandwidth'),
    (lambda x: svgd(lambda x: -x, x, optimizer='adan'), "nearest is 'adam'"),
    (lambda x: svgd(lambda x: -x, x, optimizer='adam', noise=True), 'plain step'),
    (lambda x: svgd_direction(x, x[:,:2]), r'shape \[4, 3\], got \[4, 2\]'),
    (lambda x: svgd_direction(x.long(), x.long()), 'floating-point'),
    (lambda x: svgd_direction(x[:0], x[:0]), 'floating-point particles'),
    (lambda x: svgd_direction(x, x.clone().index_fill_(0, torch.tensor([1, 3]), math.nan)), r'score of particle\(s\) \[1, 3\]'),
    (lambda x: svgd_direction(x, x.clone().index_fill_(0, torch.tensor([2]), math.inf)), r'score of particle\(s\) \[2\]'),
    (lambda x: svgd_direction(x/0, -x), r'position of particle\(s\) \[0, 1, 2, 3\]'),
    (lambda x: svgd_direction(x, -x, blocks='tokens'), "nearest is 'token'"),
    (lambda x: ksd(x, -x, kernel='laplacian'), "use 'imq' or 'rbf'"),
    (lambda x: ksd(x[:1], -x[:1], unbiased=True), 'at least two particles'),
    (lambda x: ksd(0*x, -x), 'coincide'),
    (lambda x: Gaussian([0., 0.], cov=[[1., 0.], [0., -1.]]), 'negative eigenvalues'),
    (lambda x: Gaussian([0., 0.], cov=[[1., 0.], [0., 0.]]).log_prob(x[:,:2]), 'positive definite'),
    (lambda x: product([Gaussian([i, 0.], cov=[[0., 0.], [0., 1.]]) for i in (0., 1.)]), 'product is empty'),
    (lambda x: product([Gaussian([0., 0.], cov=[[1., 0.], [0., 1.]]), Gaussian([0., 0.], precision=[[-2., 0.], [0., 1.]])]), 'improper'),
    (lambda x: product([]), 'at least one'),
    (lambda x: product(random_gaussian(2, 0)), 'single'),
    (lambda x: product([random_gaussian(2, 0), random_gaussian(3, 0)]), 'same dimension'),
    (lambda x: product([Gaussian([0., 0.], precision=[[1., 0.], [0., 0.]])]*2), 'improper'),
    (lambda x: Gaussian([0., 0.], precision=[[1., 0.], [0., 0.]]).cov, 'positive definite'),
    (lambda x: Gaussian([0., 0.]), 'exactly one'),
    (lambda x: Gaussian([0., 0.], cov=[[1., .5], [0., 1.]]), 'symmetric'),
    (lambda x: Gaussian([0., 0.], cov=[[1., math.nan], [math.nan, 1.]]), 'finite symmetric')])
def test_bad_input_gets_a_sentence(bad, message):
    with pytest.raises(ValueError, match=message) as e: bad(rand(4, 3))
    assert '\n' not in str(e.value)


def test_product_is_the_density_product():
    gs = [random_gaussian(4, i) for i in range(3)]
    p,x = product(gs), rand(6, 4, seed=9)
    diff = p.log_prob(x) - sum(g.log_prob(x) for g in gs)
    close(diff, diff[:1].expand(6), 1e-9)
    close(p.score(x), sum(g.score(x) for g in gs), 1e-9)
    y = x.clone().requires_grad_()
    close(p.score(x), torch.autograd.grad(p.log_prob(y).sum(), y)[0], 1e-9)
    batch = product(Gaussian(torch.stack([g.mean for g in gs]), cov=torch.stack([g.cov for g in gs])))
    close(batch.mean, p.mean)
    close(batch.cov, p.cov)

def test_batches_of_products():
    a,b = random_gaussian(3, 0, K=5), random_gaussian(3, 1, K=5)
    p = product([a, b])
    for k in range(5):
        one = product([Gaussian(g.mean[k], cov=g.cov[k]) for g in (a, b)])
        close(p.mean[k], one.mean, 1e-9)
        close(p.cov[k], one.cov, 1e-9)
    x = rand(5, 3)
    close(p.log_prob(x), torch.distributions.MultivariateNormal(p.mean, p.cov).log_prob(x), 1e-9)
    assert p.sample(7, rng()).shape == (7, 5, 3)
    assert torch.equal(p.sample(7, rng()), p.sample(7, rng()))

@pytest.mark.parametrize('offset', [0., 1e6])
def test_product_of_ill_conditioned_factors(offset):
    q,_ = torch.linalg.qr(rand(6, 6))
    lam = torch.logspace(-5, 5, 6, dtype=torch.float64)
    mus = rand(2, 6) + offset
    gs = [Gaussian(m, precision=q*l@q.T) for m,l in zip(mus, (lam, lam.flip(0)))]
    w = (lam.flip(0)/(lam + lam.flip(0)))       # in the common eigenbasis each coordinate is a weighted average
    close(product(gs).mean, q@((1-w)*(q.T@mus[0]) + w*(q.T@mus[1])), 1e-9)

@pytest.mark.parametrize('eps', [1e-4, 1e-8, 1e-12])
def test_thin_ridges_cross(eps):
    "Two covariances of condition number 1/eps: nothing is lost, as only their sum is inverted"
    u = torch.linalg.qr(rand(2, 2))[0]
    gs = [Gaussian(a, cov=a.outer(a) + eps*b.outer(b)) for a,b in (u, u.flip(0))]
    p = product(gs)
    want = eps/(1 + eps)*u.sum(0)
    assert (p.mean - want).norm() <= 1e-3*want.norm() + 1e-16
    assert (p.cov - torch.eye(2)*eps/(1 + eps)).norm() <= 1e-3*eps + 1e-16

def test_exact_directions():
    "Singular covariances fix directions; singular precisions leave them open; both may meet"
    x,y = Gaussian([1., 7.], cov=[[0., 0.], [0., 3.]]), Gaussian([5., 2.], cov=[[3., 0.], [0., 0.]])
    close(product([x, y]).mean, torch.tensor([1., 2.], dtype=torch.float64))
    assert product([x, y]).cov.abs().max() < 1e-12
    line = Gaussian([0., 4.], precision=[[0., 0.], [0., 1/3]])
    p = product([x, line])
    close(p.mean, torch.tensor([1., 5.5], dtype=torch.float64))
    close(p.cov, torch.tensor([[0., 0.], [0., 1.5]], dtype=torch.float64))
    z = x.sample(50, rng())
    assert (z[:,0] == 1).all() and z[:,1].std() > 1

@pytest.mark.parametrize('forms', ['cov', 'precision', 'mixed'])
def test_product_in_all_forms(forms):
    gs = [random_gaussian(5, i) for i in range(4)]
    want = torch.linalg.inv(sum(torch.linalg.inv(g.cov) for g in gs))
    mean = want@sum(torch.linalg.inv(g.cov)@g.mean for g in gs)
    fs = [Gaussian(g.mean, precision=g.precision) if forms == 'precision' or (forms == 'mixed' and i % 2) else g for i,g in enumerate(gs)]
    p = product(fs)
    close(p.mean, mean, 1e-9)
    close(p.cov, want, 1e-9)
    x = rand(6, 5, seed=3)
    close(p.log_prob(x), torch.distributions.MultivariateNormal(mean, want).log_prob(x), 1e-8)
    assert (p.whiten(p.sample(20_000, rng())).T.cov() - torch.eye(5)).abs().max() < .05

def test_best_convex_combination_meets_its_optimality_conditions():
    for seed in range(20):
        gs = random_gaussian(6, seed, K=4)
        w,x = best_convex_combination(gs)
        grad = -gs.mean@product(gs).score(x)    # of the energy in w: equal where w > 0, no smaller elsewhere
        assert (w >= 0).all() and abs(w.sum() - 1) < 1e-12
        gap = grad - w@grad
        assert (gap > -1e-7).all() and (gap[w > 0].abs() < 1e-7).all()


def test_svgd_samples_a_product():
    "Mean and covariance of a three-dimensional product"
    p = product([random_gaussian(3, i) for i in range(3)])
    x = svgd(p.score, rand(100, 3), 500, .05, 'adam')
    assert 2*p.excess_energy(x.mean(0)) < 1e-2**2
    assert (x.T.cov() - p.cov).norm() < .2*p.cov.norm()

def test_one_particle_finds_the_mode_of_a_product():
    p = product([random_gaussian(5, i) for i in range(4)])
    lr = 1/torch.linalg.eigvalsh(p.precision)[-1].item()
    close(svgd(p.score, rand(1, 5), 2000, lr)[0], p.mean, 1e-8)

@pytest.mark.parametrize('M', [2, 4, 8])
def test_collapse(M):
    x = svgd(lambda x: -x, rand(M, 50), 400, 1.)
    assert abs(total_variance(x) - math.log(M)) < 1e-6
    assert abs(effective_rank(x) - (M-1)) < 1e-6         # a regular simplex
    assert abs(repulsion_ratio(x, -x) - 1) < 1e-6
    k = kernel_matrix(x)
    close(k, torch.eye(M, dtype=k.dtype)*(1 - 1/M) + 1/M, 1e-6)

def test_ratio_is_as_predicted():
    for M in (3, 5, 10):
        x = rand(M, 50_000, dtype=torch.float32)
        assert abs(repulsion_ratio(x, -x)/predicted_ratio(M, 50_000) - 1) < .02

def test_noise_is_reproducible_and_needs_no_interaction():
    x = rand(4, 3)
    a,b,c = (svgd(lambda x: -x, x, 5, noise=True, generator=rng(i)) for i in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    y = svgd(lambda x: -x, rand(4, 20_000), 200, .05, kernel='none', noise=True, generator=rng())     # independent Langevin chains
    close(y@y.T/20_000, torch.eye(4, dtype=y.dtype)/(1 - .05/2), .03)                                 # their exact stationary variance

def test_a_torch_optimiser_and_a_score_by_autograd():
    p,x = random_gaussian(3, 0), rand(6, 3)
    def score(x): return torch.autograd.grad(p.log_prob(x.requires_grad_()).sum(), x)[0]
    for opt in ('adam', torch.optim.Adam): close(svgd(score, x, 20, .1, opt), svgd(p.score, x, 20, .1, 'adam'), 1e-9)
    close(svgd(score, x, 1, .1), x + .1*svgd_direction(x, p.score(x)), 1e-9)
