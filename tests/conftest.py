"Before torch is imported: threads that spin while they wait make two busy cores several times slower"
import os
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')

import torch


def rng(seed=0): return torch.Generator().manual_seed(seed)

def rand(*shape, seed=0, dtype=torch.float64): return torch.randn(*shape, dtype=dtype, generator=rng(seed))

def close(a, b, tol=1e-12): torch.testing.assert_close(a, b, rtol=tol, atol=tol)

def random_gaussian(d, seed, K=None):
    "A Gaussian with a random covariance, or a batch of K"
    from bayes_prompt.gaussian import Gaussian
    batch = [K] if K else []
    a = rand(*batch, d, d+2, seed=seed)
    return Gaussian(rand(*batch, d, seed=seed+100), cov=a@a.mT/d)

import pytest

@pytest.fixture(scope='session')
def tiny():
    "A random T5"
    from bayes_prompt.backbone import load_backbone
    return load_backbone('tiny-t5')

@pytest.fixture(scope='session')
def mini():
    "The trained backbone of the package"
    from bayes_prompt.backbone import load_backbone
    return load_backbone('mini')

@pytest.fixture(scope='session', params=['mini', 'tiny-t5'])
def bb(request): return request.getfixturevalue(dict(mini='mini').get(request.param, 'tiny'))
