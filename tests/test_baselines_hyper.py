"HyperFormer and HyperDecoder: published counts, what conditions their adapters, and the equations by hand"
from dataclasses import replace
import pytest, torch, torch.nn.functional as F
from bayes_prompt.baselines.hyper import HyperDecoder, HyperFormer, apply_adapter
from bayes_prompt.engine import loss_and_grad, prompt_losses
from weight_methods import TASKS, examples, hyperformer, losses, train, trained

def random(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
def named(exs, task): return [replace(e, task=task) for e in exs]

def test_published_counts(t5_base):
    assert HyperFormer(t5_base, list('abcdefgh')).trainable() == 5_211_056
    for placement in ('sequential', 'parallel'):
        hd = HyperDecoder(t5_base, placement=placement)
        assert hd.trainable() == 14_078_008 and hd.backbone.model.hyper.static.numel() == 12*99_136

def test_equal_task_embeddings_are_one_model(tiny):
    exs, m = examples(tiny), trained(hyperformer, tiny)
    h = m.backbone.model.hyper
    def both(): return [losses(m, named(exs, task)) for task in TASKS]
    assert not torch.allclose(*both(), atol=1e-4)
    with torch.no_grad(): h.task.weight[1] = h.task.weight[0]
    assert torch.equal(*both())

def test_hyperformer_with_one_task_ignores_which(tiny):
    "One task is one set of adapters: the name alone changes nothing"
    exs = examples(tiny)
    a, b = [train(HyperFormer(tiny, [t], lr=1e-2), named(exs, t)) for t in TASKS]
    assert a == b

@pytest.mark.parametrize('norm', [True, False])
@pytest.mark.parametrize('activation', [F.gelu, F.relu])
def test_adapter_equation(norm, activation):
    b, h = 3, 8
    y, w = random(4, 5, h), random(2, 2*b*h + b + (3 if norm else 1)*h, seed=1)
    out = apply_adapter(y, w, b, norm, activation)
    for i in range(4):
        r = w[i//2] # each of the two sequences stands twice in a row
        D, d = r[:h*b].view(h, b), r[h*b:h*b+b]
        U, u = r[h*b+b:2*h*b+b].view(b, h), r[2*h*b+b:2*h*b+b+h]
        want = activation(y[i] @ D + d) @ U + u
        if norm: want = F.layer_norm(want, (h,), r[-2*h:-h], r[-h:])
        torch.testing.assert_close(out[i], want)

def test_hyperformer_refuses(tiny):
    exs, m = examples(tiny), hyperformer(tiny)
    with pytest.raises(ValueError, match="no task 'c'.*There are: a, b; name it"): losses(m, named(exs, 'c'))
    for tasks in (['a', 'a'], []):
        with pytest.raises(ValueError, match='each once'): HyperFormer(tiny, tasks)
    losses(m, exs)
    with pytest.raises(ValueError, match='announcement'): # not with the tasks of the pass before
        prompt_losses(m.backbone, torch.zeros(1, 0, 32), exs)
    with pytest.raises(ValueError, match='multiple of the 2'): apply_adapter(torch.zeros(3, 1, 8), torch.zeros(2, 2*8+1+8), 1)

def test_chunks_announce_their_own_tasks(tiny):
    "A step may take several passes"
    exs, m = examples(tiny), trained(hyperformer, tiny)
    a, b = [loss_and_grad(m.backbone, m.prompts(), [exs], budget=n)[0] for n in (10_000, 1)]
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-5)

def test_hyperdecoder_inputs(tiny):
    exs, m = examples(tiny), trained(HyperDecoder, tiny)
    h, seen = m.backbone.model.hyper, []
    m.backbone.model.get_decoder().register_forward_pre_hook(lambda *a: seen.append(h.weights(h.pooled, 0).detach()))
    batch = losses(m, exs)
    assert torch.pdist(seen[0]).min() > 0 # different inputs, different adapters of the decoder
    losses(m, exs[:1])
    torch.testing.assert_close(seen[1][0], seen[0][0], atol=1e-5, rtol=1e-4) # padding is not pooled
    with torch.no_grad(): h.net.head.weight.zero_()
    seen.clear()
    without = losses(m, exs)
    assert torch.pdist(seen[0]).max() == 0 and not torch.equal(batch, without) # one adapter for all inputs

@pytest.mark.parametrize('name', ['tiny', 'mini'])
def test_parallel_adapters_see_what_their_sublayer_sees(name, request):
    "x + FF(norm(x)) + adapter(x) with relu, by hand, for a T5 and for a BART"
    m = trained(HyperDecoder, request.getfixturevalue(name), placement='parallel')
    hyper, model = m.backbone.model.hyper, m.backbone.model
    x = random(2, 3, m.backbone.width)
    added = apply_adapter(x, hyper.static[0][None], hyper.b, activation=F.relu)
    if name == 'tiny':
        layer = model.encoder.block[0].layer[1]
        inner = layer.DenseReluDense
        y = x + F.relu(layer.layer_norm(x) @ inner.wi.weight.T) @ inner.wo.weight.T + added
        got = layer(x)
    else:
        layer = model.model.encoder.layers[0]
        hidden = layer.activation_fn(x @ layer.fc1.weight.T + layer.fc1.bias)
        y = hidden @ layer.fc2.weight.T + layer.fc2.bias + added
        got = layer.fc2(layer.activation_fn(layer.fc1(x)))
    assert added.abs().max() > 1e-4 and hyper.x is None
    torch.testing.assert_close(got, y, atol=1e-5, rtol=1e-5)

def test_placement_is_checked(tiny):
    with pytest.raises(ValueError, match="no placement 'paralel'; the nearest is 'parallel'"): HyperDecoder(tiny, placement='paralel')
