"The Fisher merge: the exact gradients, the product of Gaussians, its limits"
import pytest, torch
from bayes_prompt.baselines.merge import fisher, merge
from bayes_prompt.data import load_task
from bayes_prompt.engine import nll
from bayes_prompt.gaussian import Gaussian, product
from bayes_prompt.prompt import encode, init_prompts

def eight(bb): return encode(bb, load_task('supersense').train[:8], 24, 6)

def test_fisher_is_the_mean_of_squared_gradients(bb):
    "One example at a time, through the model's own forward pass and the exact label"
    exs, p = eight(bb), init_prompts(bb, 1, 6)[0]
    want = torch.zeros_like(p)
    for e in exs:
        x = p.clone().requires_grad_()
        emb = torch.cat([x, bb.embed(torch.tensor(e.ids))])[None]
        labels = torch.tensor([e.labels])
        logits = bb.model(inputs_embeds=emb, decoder_input_ids=bb.model.prepare_decoder_input_ids_from_labels(labels=labels)).logits
        want += torch.autograd.grad(nll(logits, labels).sum(), x)[0]**2/len(exs)
    for budget in (1, 100, 10**6): assert (fisher(bb, p, exs, budget) - want).norm() < 1e-3*want.norm()
    assert (want >= 0).all() and want.max() > 0 and all(q.grad is None for q in bb.model.parameters())
    with pytest.raises(ValueError, match='at least one example'): fisher(bb, p, [])

def test_equal_fishers_give_the_mean(tiny):
    x = init_prompts(tiny, 3, 6)
    f = fisher(tiny, x[0], eight(tiny))
    assert torch.allclose(merge(x, torch.stack([f]*3)), x.mean(0), atol=1e-6)
    assert torch.allclose(merge(x, torch.rand(3, 6, 32), floor=1e9), x.mean(0), atol=1e-6)
    assert torch.allclose(merge(x[:1], f[None]), x[0], atol=1e-6)

def test_merge_is_the_product_of_gaussians():
    g = torch.Generator().manual_seed(0)
    x, f = torch.randn(3, 2, 3, generator=g, dtype=torch.float64), torch.rand(3, 2, 3, generator=g, dtype=torch.float64) + .01
    exact = product([Gaussian(m.flatten(), precision=torch.diag(p.flatten())) for m, p in zip(x, f)]).mean
    assert torch.allclose(merge(x, f, floor=1e-12).flatten(), exact, atol=1e-12)
    assert torch.allclose(merge(x, 1e-9*f), merge(x, f))   # the unit of the precision does not matter
    sure = torch.stack([f[0], f[1]*1e8, f[2]])
    assert torch.allclose(merge(x, sure, floor=1e-12), x[1], atol=1e-6)

def test_merge_refuses_bad_input():
    x = torch.ones(2, 3, 4)
    for f, kw, message in [(x[:1], {}, 'stack one of each'), (-x, {}, 'finite precisions'), (0*x, {}, 'not all 0'), (x/0, {}, 'finite precisions'), (x, dict(floor=0.), 'floor above 0')]:
        with pytest.raises(ValueError, match=message): merge(x, f, **kw)
