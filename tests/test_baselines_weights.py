"LoRA, Adapters and BitFit: published counts, and their equations by hand"
import copy
from dataclasses import replace
import pytest, torch, torch.nn.functional as F
from bayes_prompt.baselines.weights import Adapters, BitFit, LoRA
from bayes_prompt.engine import prompt_losses
from weight_methods import examples, losses, train, trained

def random(*shape): return torch.randn(*shape, generator=torch.Generator().manual_seed(0))

def test_published_counts(t5_base):
    assert LoRA(t5_base).trainable() == 884_736
    parts = {name: sum(p.numel() for p in ps) for name, (ps, _) in Adapters(t5_base).groups().items()}
    assert parts == dict(adapters=48*37_656, layer_norms=62*768)
    assert Adapters(t5_base).trainable() == 1_855_104 and BitFit(t5_base).trainable() == 282_496

def test_lora_is_its_merged_matrix(tiny):
    exs, m = examples(tiny), trained(LoRA, tiny)
    merged = copy.deepcopy(tiny.model)
    layers = [(name, layer) for name, layer in m.backbone.model.named_modules() if hasattr(layer, 'lora_A')]
    for name, layer in layers:
        b, a = layer.lora_B['default'].weight.detach(), layer.lora_A['default'].weight.detach()
        merged.get_submodule(name).weight.data += 16/8 * b @ a
    assert len(layers) == 2*6 # q and v of two encoder attentions and of two and two in the decoder
    with torch.no_grad(): want = prompt_losses(replace(tiny, model=merged), torch.zeros(1, 0, 32), exs)
    torch.testing.assert_close(losses(m, exs), want, atol=1e-4, rtol=1e-5)

def test_lora_with_alpha_zero_is_the_backbone(tiny):
    exs, m = examples(tiny), LoRA(tiny, lr=1e-2, alpha=0)
    train(m, exs)
    assert torch.equal(losses(m, exs), losses(LoRA(tiny), exs))

def test_adapter_sites(tiny, mini):
    for bb, per_layer in [(tiny, 2*4), (mini, 2*8)]:
        names = [n for n, x in Adapters(bb).backbone.model.named_modules() if hasattr(x, 'adapter')]
        assert len(names) == per_layer and not any('EncDecAttention' in n or 'encoder_attn' in n for n in names)

def test_adapter_equation(tiny):
    m = trained(Adapters, tiny)
    ff = m.backbone.model.encoder.block[0].layer[1].DenseReluDense
    x, a = random(2, 3, 32), ff.adapter
    y = F.relu(x @ ff.wi.weight.T) @ ff.wo.weight.T
    z = F.gelu(y @ a.down.weight.T + a.down.bias) @ a.up.weight.T + a.up.bias
    torch.testing.assert_close(ff(x), y + z)

def test_bitfit(tiny, mini):
    model = trained(BitFit, tiny).backbone.model
    assert model.lm_head.weight is model.shared.weight
    assert model.lm_head.weight.data_ptr() != tiny.model.lm_head.weight.data_ptr()
    q, x = model.encoder.block[0].layer[0].SelfAttention.q, random(2, 32)
    assert q.added_bias.abs().max() > 0
    torch.testing.assert_close(q(x), x @ q.weight.T + q.added_bias)

def test_bitfit_trains_the_biases_that_there_are(mini):
    model = BitFit(mini).backbone.model
    fc1 = model.model.encoder.layers[0].fc1
    assert fc1.bias.requires_grad and not hasattr(fc1, 'added_bias')
    assert model.lm_head.added_bias.numel() == 11008

def test_another_kind_of_backbone_is_refused(tiny):
    odd = replace(tiny, model=torch.nn.Sequential(torch.nn.Linear(4, 4)))
    for cls in (LoRA, Adapters):
        with pytest.raises(ValueError, match='use a'): cls(odd)
