"Full fine-tuning trains everything, of a copy"
import torch
from bayes_prompt.baselines.finetuning import FineTuning
from weight_methods import examples, losses, train

def test_everything_is_free(tiny, t5_base):
    m, before = FineTuning(tiny, lr=1e-2), [p.clone() for p in tiny.model.parameters()]
    start = [p.detach().clone() for p in m.parameters()]
    exs = examples(tiny)
    with torch.no_grad(): first = losses(m, exs).mean()
    h = train(m, exs, 10)
    assert h[-1] < .8*first and len(start) == len(before)
    assert sum(not torch.equal(p, q) for p, q in zip(m.parameters(), start)) > .9*len(start)
    assert all(torch.equal(p, q) and not p.requires_grad for p, q in zip(tiny.model.parameters(), before))
    assert FineTuning(t5_base).trainable() == 222_903_552
