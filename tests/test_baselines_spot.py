"SPoT: the similarity, its limits, and that a target which is a source finds it"
import pytest, torch
from bayes_prompt.baselines.spot import retrieve, similarity
from bayes_prompt.data import load_task
from bayes_prompt.engine import prompt_losses
from bayes_prompt.prompt import encode, init_prompts
from bayes_prompt.source import learn_prompts
from bayes_prompt.target import adapt

def random(seed, *shape): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

def test_similarity_is_the_cosine_of_row_means():
    x = random(0, 4, 3, 5)
    s = similarity(x)
    for i in range(4):
        for j in range(4): assert torch.isclose(s[i, j], torch.cosine_similarity(x[i].mean(0), x[j].mean(0), dim=0), atol=1e-6)
    assert torch.allclose(s, similarity(x[:, [2, 0, 1]]), atol=1e-6) and torch.allclose(s, similarity(3*x), atol=1e-6)
    assert torch.equal(similarity(x, x[:1]), s[:, :1])

def test_retrieval_is_the_limit_of_the_mean():
    x = random(1, 4, 3, 5)
    early = x[2] + .1*random(2, 3, 5)
    assert torch.equal(retrieve(x, early), x[2])
    assert torch.allclose(retrieve(x, early, top=4, weighted=False), x.mean(0), atol=1e-6)
    s = similarity(x, early[None])[:, 0].clamp(min=0)
    assert torch.allclose(retrieve(x, early, top=4), (s[:, None, None]*x).sum(0)/s.sum(), atol=1e-6)

def test_early_keys_are_compared_and_finished_prompts_taken():
    x = random(1, 4, 3, 5)
    assert torch.equal(retrieve(x, x[2], keys=x[[2, 1, 0, 3]]), x[0])

def test_there_is_a_start_even_if_nothing_is_similar():
    x = random(1, 1, 3, 5)
    assert torch.allclose(retrieve(x, -x[0]), x[0])

def test_a_target_that_is_a_source_retrieves_it(tiny):
    tasks = ['tweets', 'supersense', 'acceptability']
    def learn(names, rows):
        sources = {n: encode(tiny, load_task(n).train[rows], 24, 6) for n in names}
        return learn_prompts(tiny, sources, init_prompts(tiny, 1, 6)[0], steps=12, lr=.3, batch=4).particles
    finished, early = learn(tasks, slice(40)), learn(tasks[::-1], slice(40, 80))
    starts = [retrieve(finished, e) for e in early][::-1]
    assert all(torch.equal(s, p) for s, p in zip(starts, finished))
    exs = encode(tiny, load_task(tasks[0]).train[:8], 24, 6)
    history = adapt(tiny, exs, starts[0], steps=5, batch=8, lr=.3).history
    assert history[-1]['loss'] < prompt_losses(tiny, starts[0][None], exs).mean()

def test_spot_refuses_bad_input():
    x = torch.zeros(3, 2, 4)
    with pytest.raises(ValueError, match='from 1 to the number of source prompts 3, got 4'): retrieve(x, x[0], top=4)
    with pytest.raises(ValueError, match='expected prompts'): similarity(x[0])
    with pytest.raises(ValueError, match='expected prompts'): similarity(x, x[..., :3])
