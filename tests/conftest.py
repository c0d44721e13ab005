"Before torch is imported: threads that spin while they wait make two busy cores several times slower"
import os
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')

from dataclasses import replace
import pytest

@pytest.fixture(scope='session')
def tiny():
    "A random T5"
    from bayes_prompt.backbone import load_backbone
    return load_backbone('tiny-t5')

@pytest.fixture(scope='session')
def mini():
    "The trained small BART"
    from bayes_prompt.backbone import load_backbone
    return load_backbone('mini')

@pytest.fixture(scope='session')
def t5_base(tiny):
    "T5-base's architecture without weights"
    import torch
    from transformers import T5Config, T5ForConditionalGeneration
    with torch.device('meta'):
        model = T5ForConditionalGeneration(T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12))
    return replace(tiny, name='t5-base', model=model.requires_grad_(False).eval())

@pytest.fixture(params=['tiny', 'mini'])
def bb(request):
    "Either of them"
    return request.getfixturevalue(request.param)
