"What the tests share. Before torch is imported: threads that spin while they wait make two busy cores several times slower"
import os
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')

from dataclasses import replace
import pytest, torch

def rng(seed=0): return torch.Generator().manual_seed(seed)

def rand(*shape, seed=0, dtype=torch.float64): return torch.randn(*shape, dtype=dtype, generator=rng(seed))

def close(a, b, tol=1e-12): torch.testing.assert_close(a, b, rtol=tol, atol=tol)

def random_gaussian(d, seed, K=None):
    "A Gaussian with a random covariance, or a batch of K"
    from bayes_prompt.gaussian import Gaussian
    batch = [K] if K else []
    a = rand(*batch, d, d+2, seed=seed)
    return Gaussian(rand(*batch, d, seed=seed+100), cov=a@a.mT/d)

@pytest.fixture(scope='session')
def tiny():
    "A random T5"
    from bayes_prompt.backbone import load_backbone
    return load_backbone('tiny-t5')

@pytest.fixture(scope='session')
def mini():
    "The trained backbone of the package: a MiniLM encoder with a small decoder"
    from bayes_prompt.backbone import load_backbone
    return load_backbone('mini')

@pytest.fixture(scope='session', params=['mini', 'tiny'])
def bb(request): return request.getfixturevalue(request.param)

@pytest.fixture(scope='session')
def t5_base(tiny):
    "T5-base's architecture without weights"
    from transformers import T5Config, T5ForConditionalGeneration
    with torch.device('meta'):
        model = T5ForConditionalGeneration(T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12))
    return replace(tiny, name='t5-base', model=model.requires_grad_(False).eval())
