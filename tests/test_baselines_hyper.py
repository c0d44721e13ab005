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
    for kw, more in [({}, 0), (dict(placement='sequential'), 0), (dict(mlp=True), 2*(768*768 + 768))]:
        hd = HyperDecoder(t5_base, **kw)
        assert hd.trainable() == 14_078_008 + more and hd.backbone.model.hyper.static.numel() == 12*99_136

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

def plain_adapter(x, w, b):
    "U relu(D x + d) + u of one sequence"
    h = x.shape[-1]
    D, U = w[:h*b].view(h, b), w[h*b+b:2*h*b+b].view(b, h)
    return (x @ D + w[h*b:h*b+b]).relu() @ U + w[2*h*b+b:]

def written(hyper, pooled, layer):
    "Eq. (4) for one input"
    first, head = hyper.net.mlp[0], hyper.net.head
    z = first.weight @ torch.cat([pooled, hyper.net.places[0].weight[layer]]) + first.bias
    return head.weight @ z.relu() + head.bias

@pytest.mark.parametrize('stack', ['encoder', 'decoder'])
@pytest.mark.parametrize('name,shape', [('tiny', (2, 3)), ('tiny', (3, 5)), ('mini', (2, 4))])
def test_parallel_adapters_see_what_their_sublayer_sees(stack, name, shape, request):
    "x + FF(norm(x)) + U relu(D x + d) + u, by hand, for a T5 and for a BART, in the last layer of each stack"
    m = trained(HyperDecoder, request.getfixturevalue(name))
    hyper, model = m.backbone.model.hyper, m.backbone.model
    x, pooled = random(*shape, m.backbone.width), random(shape[0], m.backbone.width, seed=1)
    decoder = stack == 'decoder'
    layers = getattr(model, stack).block if name == 'tiny' else getattr(model.model, stack).layers
    at = len(layers) - 1
    hyper.pooled = pooled if decoder else None # as a pass of the decoder has it
    ws = [written(hyper, p, at) if decoder else hyper.static[at] for p in pooled]
    added = torch.stack([plain_adapter(s, w, hyper.b) for s, w in zip(x, ws)])
    if name == 'tiny':
        layer = layers[at].layer[-1]
        inner, norm = layer.DenseReluDense, layer.layer_norm
        normed = x*(x.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()*norm.weight
        want = x + F.relu(normed @ inner.wi.weight.T) @ inner.wo.weight.T + added
        got = layer(x)
    else:
        layer = layers[at]
        inside = layer.activation_fn(x @ layer.fc1.weight.T + layer.fc1.bias)
        want = inside @ layer.fc2.weight.T + layer.fc2.bias + added
        got = layer.fc2(layer.activation_fn(layer.fc1(x)))
    assert added.abs().max() > 1e-4 and hyper.x is None
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)

def test_two_more_layers_read_the_input(tiny):
    "The hypernetwork is given linear(relu(linear(mean))), and starts with the same weights"
    exs, m = examples(tiny), trained(HyperDecoder, tiny, mlp=True)
    hyper, pooled = m.backbone.model.hyper, random(1, 32)
    a, _, b = hyper.mlp
    z = (pooled[0] @ a.weight.T + a.bias).relu() @ b.weight.T + b.bias
    torch.testing.assert_close(hyper.weights(pooled, 1)[0], written(hyper, z, 1))
    with_, without = [HyperDecoder(tiny, mlp=mlp).backbone.model.hyper for mlp in (True, False)]
    assert torch.equal(with_.net.head.weight, without.net.head.weight) and not list(without.mlp.parameters())
    assert not torch.equal(losses(m, exs), losses(trained(HyperDecoder, tiny), exs))

def test_placement_is_checked(tiny):
    with pytest.raises(ValueError, match="no placement 'paralel'; the nearest is 'parallel'"): HyperDecoder(tiny, placement='paralel')
