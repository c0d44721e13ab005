"What the tests share. Before torch is imported: threads that spin while they wait make two busy cores several times slower"
import os
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
if 'PYTEST_XDIST_WORKER' in os.environ: os.environ.setdefault('OMP_NUM_THREADS', '1') # processes beside one another share the cores

from dataclasses import replace
from pathlib import Path
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

@pytest.fixture(autouse=True)
def own_tasks_go():
    "A task that a test describes is not there for the next one"
    from bayes_prompt.tasks import TASKS
    before = dict(TASKS)
    yield
    for name in set(TASKS) - set(before): TASKS.pop(name)
    TASKS.update(before)

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

# a run of a moment on a random T5
SMALL = dict(backbone='tiny-t5', sources=['amazon', 'nyt'], m=3, source_steps=3, source_batch=2, steps=3, limit=12, k=2, length=4, sigma=.1, source_lr=.3)

# ---- data: invented rows with the Hub's columns, and a Hub that serves them

HUB = Path(__file__).parent/'fixtures/hub'

@pytest.fixture
def hub_cache(monkeypatch, tmp_path):
    "A cache of its own"
    monkeypatch.setattr('datasets.config.HF_CACHE_HOME', str(tmp_path/'cache'))

def fake_hub(monkeypatch, refuse=()):
    "A Hub that serves the fixtures; ids in `refuse` are loading scripts, of which only the Parquet export can be read"
    from datasets import Dataset, concatenate_datasets
    from bayes_prompt.tasks import SUITES, suite
    calls = []
    class Api:
        def dataset_info(self, hub, timeout, revision=None): return type('Info', (), dict(sha='beef' if revision else '0123abc'))
    def load_dataset(path, config=None, split=None, revision=None, data_files=None, streaming=False):
        calls.append(dict(path=path, config=config, split=split, revision=revision, data_files=data_files, streaming=streaming))
        if path in refuse: raise RuntimeError('Dataset scripts are no longer supported')
        hub = path if path != 'parquet' else data_files[split].split('@')[0].removeprefix('hf://datasets/')
        config = config or data_files[split].split('/')[-3]
        found = [t for s in SUITES for t in suite(s) if t.hub == hub]
        found = [t for t in found if config in (t.config, *t.config.partition('[')[0].split('+'))]
        names = [t.name for t in found] if '[' in found[0].config else [found[0].name]  # tasks that are a subset each of one configuration
        ds = concatenate_datasets([Dataset.from_parquet(str(HUB/f'{n}/{split}.parquet')) for n in names])
        return ds.to_iterable_dataset() if streaming else ds
    monkeypatch.setattr('huggingface_hub.HfApi', Api)
    monkeypatch.setattr('datasets.load_dataset', load_dataset)
    return calls
