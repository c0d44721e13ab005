"How far particles spread: the collapse by its formula, its remedies, and the discrepancy by autograd"
import math

import numpy as np
import pytest
import torch
from conftest import close, rand, random_gaussian, rng

from bayes_prompt.collapse import (effective_rank, ksd, mode_occupancy, predicted_ratio, repulsion_ratio,
                                   total_variance)
from bayes_prompt.gaussian import product
from bayes_prompt.settings import SVGD
from bayes_prompt.svgd import imq_kernel, kernel_matrix, median_bandwidth, svgd, svgd_direction


@pytest.mark.parametrize('M', [2, 4, 8])
def test_collapse(M):
    x = svgd(lambda x: -x, rand(M, 50), 400, 1.)
    assert abs(total_variance(x) - math.log(M)) < 1e-6
    assert abs(effective_rank(x) - (M-1)) < 1e-6         # a regular simplex
    assert abs(repulsion_ratio(x, -x) - 1) < 1e-6
    k = kernel_matrix(x)
    close(k, torch.eye(M, dtype=k.dtype)*(1 - 1/M) + 1/M, 1e-6)

@pytest.mark.parametrize('options', [SVGD(repulsion=10.), SVGD(damping=.5)])
def test_scales_move_the_simplex_as_the_formula_says(options):
    "At rest λ - k = 2kMρ/h with k = 1/M and h = D/log M, and the total variance is D(M-1)/2M"
    M = 4
    x = svgd(lambda x: -x, rand(M, 50), 3000, .5, options)
    want = math.log(M)*options.repulsion*(1 - 1/M)/(options.damping - 1/M)
    assert abs(total_variance(x)/want - 1) < 1e-6

def test_ratio_is_as_predicted():
    for M in (3, 5, 10):
        x = rand(M, 50_000, dtype=torch.float32)
        assert abs(repulsion_ratio(x, -x)/predicted_ratio(M, 50_000) - 1) < .02

@pytest.mark.parametrize('options', [SVGD(), SVGD(kernel='imq', bandwidth=2.), SVGD(blocks='token')])
def test_ratio_is_that_of_the_directions_terms(options):
    x, s = rand(2, 5, 4, 3)
    drive = svgd_direction(x, s, SVGD(**(vars(options) | dict(repulsion=0.))))
    repulsion = svgd_direction(x, 0*s, options)
    assert abs(repulsion_ratio(x, s, options) - repulsion.norm()/drive.norm()) < 1e-12
    assert repulsion_ratio(x, s, options) == repulsion_ratio(x, s, SVGD(**(vars(options) | dict(repulsion=3., damping=.5))))

@pytest.mark.parametrize('shape', [(6,), (6, 8), (6, 2, 4), (6, 2, 2, 2)])
def test_any_trailing_shape(shape):
    x = rand(*shape)
    assert abs(total_variance(x) - x.var(0, correction=0).sum()) < 1e-12
    assert 1 <= effective_rank(x) <= 5

def test_coincident_particles_have_no_spread():
    x = rand(1, 3).expand(4, 3)
    assert effective_rank(x) == total_variance(x) == 0

def test_noisy_svgd_samples_a_correlated_product():
    "Five particles in two dimensions, over a long run"
    p, draws = product([random_gaussian(2, i) for i in range(2)]), []
    lr = .05/torch.linalg.eigvalsh(p.precision)[-1].item()
    def keep(t, x, s): draws.append(x.clone())
    svgd(p.score, p.sample(5, rng()), 6000, lr, SVGD(noise=True), generator=rng(1), callback=keep)
    z = torch.cat(draws[500:])
    assert (z.T.cov() - p.cov).norm() < .15*p.cov.norm()
    assert (2*p.excess_energy(z.mean(0))).sqrt() < .15

def test_mode_occupancy():
    x = torch.tensor([[0., 0.], [1., 0.], [9., 9.], [8., 9.], [9., 8.]])
    close(mode_occupancy(x, torch.tensor([[0., 0.], [9., 9.], [50., 0.]])), torch.tensor([.4, .6, 0.]))

def test_ksd_by_autograd():
    p, x = random_gaussian(3, 0), rand(5, 3)
    s, h = p.score(x), median_bandwidth(x)
    def k(a, b): return imq_kernel(((a - b)**2).sum(), h)[0]
    def u(i, j):
        a, b = x[i].clone().requires_grad_(), x[j].clone().requires_grad_()
        ga, gb = torch.autograd.grad(k(a, b), (a, b), create_graph=True)
        trace = sum(torch.autograd.grad(ga[c], b, retain_graph=True)[0][c] for c in range(3))
        return (k(a, b)*s[i]@s[j] + s[i]@gb + s[j]@ga + trace).item()
    us = np.array([[u(i, j) for j in range(5)] for i in range(5)])
    assert abs(ksd(x, s) - us.mean()) < 1e-10
    assert abs(ksd(x, s, unbiased=True) - us[~np.eye(5, dtype=bool)].mean()) < 1e-10
    assert ksd(x, s, bandwidth=float(h)) == pytest.approx(ksd(x, s), rel=1e-12)
    assert ksd(x.numpy(), s.numpy()) == ksd(x, s)

def test_ksd_sees_a_wrong_density():
    x = rand(300, 2)
    assert abs(ksd(x, -x, unbiased=True)) < .05 < ksd(x, -x/4, unbiased=True)
    assert ksd(x, -x) > ksd(x, -x, unbiased=True)

@pytest.mark.parametrize('bad,message', [
    (lambda x: ksd(x, -x, kernel='laplacian'), "use 'imq' or 'rbf'"),
    (lambda x: ksd(x, -x, kernel='imp'), "nearest is 'imq'"),
    (lambda x: ksd(x[:1], -x[:1], unbiased=True), 'at least two particles'),
    (lambda x: ksd(0*x, -x), 'coincide'),
    (lambda x: repulsion_ratio(x.numpy(), -x), 'torch tensor, got ndarray'),
    (lambda x: repulsion_ratio(x, x[:,:2]), r'shape \[4, 3\], got \[4, 2\]')])
def test_bad_input_gets_a_sentence(bad, message):
    with pytest.raises(ValueError, match=message) as e: bad(rand(4, 3))
    assert '\n' not in str(e.value)
