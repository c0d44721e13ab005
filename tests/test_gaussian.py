"Products of Gaussians: the density they are, in every form of their factors, and the best an average can do"
import math

import pytest
import torch
from conftest import close, rand, random_gaussian, rng

from bayes_prompt.gaussian import Gaussian, best_convex_combination, product


def test_product_is_the_density_product():
    gs = [random_gaussian(4, i) for i in range(3)]
    p, x = product(gs), rand(6, 4, seed=9)
    diff = p.log_prob(x) - sum(g.log_prob(x) for g in gs)
    close(diff, diff[:1].expand(6), 1e-9)
    close(p.score(x), sum(g.score(x) for g in gs), 1e-9)
    y = x.clone().requires_grad_()
    close(p.score(x), torch.autograd.grad(p.log_prob(y).sum(), y)[0], 1e-9)
    batch = product(Gaussian(torch.stack([g.mean for g in gs]), cov=torch.stack([g.cov for g in gs])))
    close(batch.mean, p.mean)
    close(batch.cov, p.cov)

def test_batches_of_products():
    a, b = random_gaussian(3, 0, K=5), random_gaussian(3, 1, K=5)
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
    w = lam.flip(0)/(lam + lam.flip(0))       # in the common eigenbasis each coordinate is a weighted average
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
    x, y = Gaussian([1., 7.], cov=[[0., 0.], [0., 3.]]), Gaussian([5., 2.], cov=[[3., 0.], [0., 0.]])
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
    def by_precision(i): return forms == 'precision' or (forms == 'mixed' and i % 2)
    p = product([Gaussian(g.mean, precision=g.precision) if by_precision(i) else g for i,g in enumerate(gs)])
    close(p.mean, mean, 1e-9)
    close(p.cov, want, 1e-9)
    x = rand(6, 5, seed=3)
    close(p.log_prob(x), torch.distributions.MultivariateNormal(mean, want).log_prob(x), 1e-8)
    assert (p.whiten(p.sample(20_000, rng())).T.cov() - torch.eye(5)).abs().max() < .05

def test_best_convex_combination_meets_its_optimality_conditions():
    for seed in range(20):
        gs = random_gaussian(6, seed, K=4)
        w, x = best_convex_combination(gs)
        grad = -gs.mean@product(gs).score(x)    # of the energy in w: equal where w > 0, no smaller elsewhere
        assert (w >= 0).all() and abs(w.sum() - 1) < 1e-12
        gap = grad - w@grad
        assert (gap > -1e-7).all() and (gap[w > 0].abs() < 1e-7).all()

def test_mixtures_multiply_pair_by_pair():
    "Each pair has the weight w_i w_j N(m_i; m_j, Σ_i + Σ_j)"
    a, b = random_gaussian(2, 0, K=2), random_gaussian(2, 1, K=3)
    v, w, x = rand(2).exp(), rand(3, seed=1).exp(), rand(5, 2, seed=2)
    def mixture(w, gs): return sum(wi*g.log_prob(x).exp() for wi,g in zip(w, gs))
    pairs = [(vi*wj*Gaussian(gi.mean, cov=gi.cov + gj.cov).log_prob(gj.mean).exp(), product([gi, gj]))
             for vi,gi in zip(v, a) for wj,gj in zip(w, b)]
    close(mixture(*zip(*pairs)), mixture(v, a)*mixture(w, b), 1e-9)

X = rand(4, 2)

@pytest.mark.parametrize('bad,message', [
    (lambda: Gaussian([0., 0.], cov=[[1., 0.], [0., -1.]]), 'negative eigenvalues'),
    (lambda: Gaussian([0., 0.], cov=[[1., 0.], [0., 0.]]).log_prob(X), 'positive definite'),
    (lambda: product([Gaussian([i, 0.], cov=[[0., 0.], [0., 1.]]) for i in (0., 1.)]), 'product is empty'),
    (lambda: product([Gaussian([0., 0.], cov=torch.eye(2)), Gaussian([0., 0.], precision=[[-2., 0.], [0., 1.]])]), 'improper'),
    (lambda: product([]), 'at least one'),
    (lambda: product(random_gaussian(2, 0)), 'single'),
    (lambda: product([random_gaussian(2, 0), random_gaussian(3, 0)]), 'same dimension'),
    (lambda: product([Gaussian([0., 0.], precision=[[1., 0.], [0., 0.]])]*2), 'improper'),
    (lambda: Gaussian([0., 0.], precision=[[1., 0.], [0., 0.]]).cov, 'positive definite'),
    (lambda: Gaussian([0., 0.]), 'exactly one'),
    (lambda: Gaussian([0., 0.], cov=torch.eye(3)), r'got \[2\] and \[3, 3\]'),
    (lambda: Gaussian([0., 0.], cov=[[1., .5], [0., 1.]]), 'symmetric'),
    (lambda: Gaussian([0., 0.], cov=[[1., math.nan], [math.nan, 1.]]), 'finite symmetric')])
def test_bad_input_gets_a_sentence(bad, message):
    with pytest.raises(ValueError, match=message) as e: bad()
    assert '\n' not in str(e.value)
