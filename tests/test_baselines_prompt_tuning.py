"Prompt tuning and vanilla transfer as `run` knows them: P·H numbers, and one particle without a prior is the second"
from types import SimpleNamespace
import torch
from bayes_prompt.baselines.prompt_tuning import prompt_tuning, vanilla_transfer
from bayes_prompt.prompt import init_prompts
from bayes_prompt.settings import Target
from bayes_prompt.train import PromptTuning

def context(bb):
    "Just what they use; `fit` gives the method back as it starts"
    pooled = SimpleNamespace(mean=init_prompts(bb, 1, 4, seed=7)[0])
    def posterior(m):
        assert m == 1
        return pooled
    return SimpleNamespace(backbone=bb, config=SimpleNamespace(target=Target(lr=.2)), start=lambda: init_prompts(bb, 1, 4)[0],
                           posterior=posterior, fit=lambda method: method)

def test_they_differ_in_the_start_alone(tiny, t5_base):
    scratch, vanilla = [f(context(tiny)) for f in (prompt_tuning, vanilla_transfer)]
    for m, seed in ((scratch, 0), (vanilla, 7)):
        assert torch.equal(m.prompt, init_prompts(tiny, 1, 4, seed=seed)[0])
        assert {name: lr for name, (_, lr) in m.groups().items()} == {'prompt': .2} and m.trainable() == 4*32
    assert PromptTuning(t5_base, torch.zeros(100, 768, device='meta')).trainable() == 76_800
