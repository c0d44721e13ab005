"LoRA, Adapters and BitFit: published counts, and their equations by hand"
import copy
from dataclasses import replace
import pytest, torch, torch.nn.functional as F
from bayes_prompt.baselines.weights import Adapters, BitFit, LoRA
from bayes_prompt.engine import prompt_losses
from bayes_prompt.backbone import load_backbone
from bayes_prompt.evaluate import predict
from test_causal import CONFIGS, saved
from weight_methods import CHOICES, examples, losses, train, trained

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

# decoders alone

@pytest.fixture(scope='module')
def decoders(tmp_path_factory):
    root, kept = tmp_path_factory.mktemp('weights'), {}
    def get(name):
        if name not in kept: kept[name] = load_backbone(saved(name, root/name))
        return kept[name]
    return get

DECODERS = pytest.mark.parametrize('name', CONFIGS)

@DECODERS
@pytest.mark.parametrize('make', [LoRA, Adapters, BitFit])
def test_a_decoder_alone_starts_as_it_is_and_learns(make, name, decoders):
    b = decoders(name)
    exs, m = examples(b, 4), make(b, lr=1e-2)
    with torch.no_grad(): start = prompt_losses(b, torch.zeros(1, 0, b.width), exs)
    assert torch.equal(losses(m, exs), start)
    before = [p.clone() for p in b.model.parameters()]
    h = train(m, exs, 20)
    assert h[-1] < h[0] - .1 and all(torch.equal(p, q) for p, q in zip(before, b.model.parameters()))
    assert set(predict(m.backbone, m.prompts(), exs, CHOICES)) <= set(CHOICES)

@DECODERS
def test_adapters_are_two_a_layer(name, decoders):
    "After the attention and the feed-forward, before their sum with the residual"
    names = [n for n, x in Adapters(decoders(name)).backbone.model.named_modules() if hasattr(x, 'adapter')]
    assert len(names) == 2*2 and not any(a.startswith(f'{b}.') for a in names for b in names)

@pytest.mark.parametrize('name', ['llama', 'gpt2', 'gpt_neox', 'phi', 'bloom'])
def test_adapters_of_a_decoder_add_to_what_the_sublayer_adds(name, decoders):
    "The residual goes past the adapter: with sublayers that give 0, only the adapter of 0 is added"
    m = trained(Adapters, decoders(name))
    model = m.backbone.model
    ends = {n: x for n, x in model.named_modules() if hasattr(x, 'adapter')}
    layer = next(n for n in ends).split('.0.')[0] + '.0'
    block, added = model.get_submodule(layer), []
    with torch.no_grad():
        for n, x in ends.items():
            if not n.startswith(f'{layer}.'): continue
            last = [y for y in x.modules() if hasattr(y, 'weight') and y is not x.adapter.down and y is not x.adapter.up]
            for y in [last[-1]] if name != 'bloom' else [x]:
                y.weight.zero_()
                if getattr(y, 'bias', None) is not None: y.bias.zero_()
            added.append(x.adapter(torch.zeros(m.backbone.width)))
        seen = {}
        block.register_forward_pre_hook(lambda mod, args, kw: seen.update(x=args[0]), with_kwargs=True)
        block.register_forward_hook(lambda mod, args, out: seen.update(y=out[0] if isinstance(out, tuple) else out))
        model(inputs_embeds=random(1, 3, m.backbone.width))
    torch.testing.assert_close(seen['y'].reshape(seen['x'].shape), seen['x'] + sum(added), atol=1e-5, rtol=1e-5)

@pytest.mark.parametrize('name,names,shapes', [
    ('gpt2', {'c_attn'}, (32, 96)), ('gpt_neox', {'query_key_value'}, (32, 96)), ('llama', {'q_proj', 'v_proj'}, (32, 32))])
def test_lora_of_a_decoder_is_its_merged_matrix(name, names, shapes, decoders):
    "Also where the matrix is kept transposed"
    b = decoders(name)
    exs, m = examples(b, 4), trained(LoRA, b)
    merged = copy.deepcopy(b.model)
    layers = {n: layer for n, layer in m.backbone.model.named_modules() if hasattr(layer, 'lora_A')}
    assert {n.rsplit('.', 1)[-1] for n in layers} == names
    for n, layer in layers.items():
        update = 16/8 * layer.lora_B['default'].weight.detach() @ layer.lora_A['default'].weight.detach()
        merged.get_submodule(n).weight.data += update.T if name == 'gpt2' else update
    first = next(iter(layers.values()))
    assert (first.lora_A['default'].in_features, first.lora_B['default'].out_features) == shapes
    with torch.no_grad(): want = prompt_losses(replace(b, model=merged, engine=None), torch.zeros(1, 0, b.width), exs)
    torch.testing.assert_close(losses(m, exs), want, atol=1e-4, rtol=1e-5)

def test_bitfit_of_gpt2_frees_the_biases_of_its_matrices(decoders):
    model = BitFit(decoders('gpt2')).backbone.model
    assert model.transformer.h[0].attn.c_attn.bias.requires_grad and not model.transformer.h[0].attn.c_attn.weight.requires_grad
