"LoRA, Adapters, BitFit, HyperFormer and HyperDecoder: what they train, where they start, what they leave alone"
import copy
from dataclasses import replace
import pytest
import torch, torch.nn.functional as F
from transformers import T5Config, T5ForConditionalGeneration
from bayes_prompt.backbone import load_backbone
from bayes_prompt.baselines.hyper import HyperDecoder, HyperFormer, adapt
from bayes_prompt.baselines.weights import Adapters, BitFit, LoRA
from bayes_prompt.data import load_task
from bayes_prompt.engine import Inputs, label_scores, loss_and_grad, prompt_losses
from bayes_prompt.prompt import encode
from bayes_prompt.train import fit, predict

TASKS = ['a', 'b']
def hyperformer(bb, lr=3e-4, **kw): return HyperFormer(bb, TASKS, lr, **kw)
ALL = [LoRA, Adapters, BitFit, hyperformer, HyperDecoder]
SEEDED = [LoRA, Adapters, hyperformer, HyperDecoder]
each = pytest.mark.parametrize('make', ALL)

@pytest.fixture(scope='module')
def tiny(): return load_backbone('tiny-t5')
@pytest.fixture(scope='module')
def mini(): return load_backbone('mini')
@pytest.fixture(scope='module')
def t5_base(tiny):
    with torch.device('meta'):
        return replace(tiny, name='t5-base', model=T5ForConditionalGeneration(T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12, d_kv=64, vocab_size=32128)).eval())

CHOICES = load_task('spam').choices
def examples(bb, n=8):
    part = load_task('spam').train[:n] # of several lengths, tasks mixed
    return [replace(e, ids=e.ids[:10+2*i], task=TASKS[i % 2]) for i, e in enumerate(encode(bb, part, max_src=24))]
def losses(method, exs):
    with torch.no_grad(): return prompt_losses(method.backbone, method.prompts(), exs)
def params(method): return [p for ps, _ in method.groups().values() for p in ps]
def train(method, exs, steps=5): return [h['loss'] for h in fit(method, lambda t: [exs], steps=steps)]
def trained(make, bb, **kw):
    m = make(bb, lr=1e-2, **kw)
    train(m, examples(bb))
    return m

@each
@pytest.mark.parametrize('name', ['tiny-t5', 'mini'])
def test_starts_as_the_backbone(make, name, request):
    bb = request.getfixturevalue(name[:4])
    exs, m = examples(bb), make(bb)
    with torch.no_grad(): start = prompt_losses(bb, torch.zeros(1, 0, bb.width), exs)
    assert torch.equal(losses(m, exs), start)

@each
def test_lowers_loss_and_changes_only_its_own(make, tiny):
    exs, before = examples(tiny), {n: p.clone() for n, p in tiny.model.named_parameters()}
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in tiny.model.modules())
    m = make(tiny, lr=3e-2)
    own = {id(p): p.detach().clone() for p in params(m)}
    h = train(m, exs, 30)
    assert h[-1] < .6*h[0]
    assert all(torch.equal(p, before[n]) and not p.requires_grad and p.grad is None for n, p in tiny.model.named_parameters()) # the backbone is as it was
    assert hooks == sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in tiny.model.modules()) and not any(hasattr(x, 'adapter') for x in tiny.model.modules())
    for n, p in m.backbone.model.named_parameters():
        if id(p) not in own: assert torch.equal(p, before[n.replace('.base_layer', '')])
    still = [p for p in params(m) if torch.equal(p, own[id(p)])]
    assert sum(p.numel() for p in still) < .05*m.trainable(), f'{len(still)} of {len(own)} parameters never moved'

@each
@pytest.mark.parametrize('name', ['tiny-t5', 'mini'])
def test_groups_partition(make, name, request):
    m = make(request.getfixturevalue(name[:4]))
    ids = [id(p) for p in params(m)]
    assert all(ps for ps, _ in m.groups().values()) and len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in m.backbone.model.parameters() if p.requires_grad}
    assert m.trainable() == sum(p.numel() for p in m.backbone.model.parameters() if p.requires_grad)

@each
def test_gradients_stay_in_the_groups(make, tiny):
    m = make(tiny)
    m.backward([examples(tiny)], 0)
    assert {id(p) for p in m.backbone.model.parameters() if p.grad is not None} <= {id(p) for p in params(m)}
    assert any(p.grad.abs().max() > 0 for p in params(m) if p.grad is not None)

@each
def test_save_and_load(make, tiny, tmp_path):
    exs, m = examples(tiny), trained(make, tiny)
    torch.save([p.detach() for p in params(m)], tmp_path/'state.pt')
    other = make(tiny, **({} if make is BitFit else dict(seed=1)))
    with torch.no_grad():
        for p, q in zip(params(other), torch.load(tmp_path/'state.pt', weights_only=True)): p.copy_(q)
    assert not torch.equal(losses(m, exs), losses(make(tiny), exs))
    assert torch.equal(losses(m, exs), losses(other, exs)) and predict(m.backbone, m.prompts(), exs, CHOICES) == predict(other.backbone, other.prompts(), exs, CHOICES)

@each
def test_resumes(make, tiny, tmp_path):
    exs, whole, first, second = examples(tiny), make(tiny), make(tiny), make(tiny)
    h = fit(whole, lambda t: [exs], steps=4, checkpoint=str(tmp_path/'a.pt'), every=2)
    class Stop(Exception): pass
    def stop(t):
        if t == 3: raise Stop
        return [exs]
    with pytest.raises(Stop): fit(first, stop, steps=4, checkpoint=str(tmp_path/'b.pt'), every=2)
    assert fit(second, lambda t: [exs], steps=4, checkpoint=str(tmp_path/'b.pt'), every=2) == h
    assert all(torch.equal(p, q) for p, q in zip(params(whole), params(second)))

@pytest.mark.parametrize('make', SEEDED)
def test_seed(make, tiny):
    state = torch.get_rng_state()
    a, b, c = make(tiny, seed=3), make(tiny, seed=3), make(tiny, seed=4)
    assert torch.equal(state, torch.get_rng_state()) # the global generator is not touched
    assert all(torch.equal(p, q) for p, q in zip(params(a), params(b))) and not all(torch.equal(p, q) for p, q in zip(params(a), params(c)))
    exs = examples(tiny)
    assert train(a, exs, 3) == train(b, exs, 3)

@each
def test_deepcopy(make, tiny):
    exs, m = examples(tiny), trained(make, tiny)
    before = losses(m, exs)
    m.backward([exs], 0) # a pass with a graph leaves nothing that cannot be copied
    twin = copy.deepcopy(m)
    assert torch.equal(losses(twin, exs), before)
    train(twin, exs)
    assert torch.equal(losses(m, exs), before) and not torch.equal(losses(twin, exs), before)

@each
def test_mixed_batch_equals_each_alone(make, tiny):
    exs, m = examples(tiny), trained(make, tiny)
    torch.testing.assert_close(losses(m, exs), torch.cat([losses(m, [e]) for e in exs], 1), atol=2e-5, rtol=1e-5)

@each
def test_scores_repeat_for_choices(make, tiny): # the decoder sees each sequence once per choice
    exs, m = examples(tiny), trained(make, tiny)
    s = label_scores(m.backbone, m.prompts(), exs, CHOICES)
    for i, e in enumerate(exs):
        for c, y in enumerate(CHOICES):
            e2 = replace(encode(tiny, [('x', y)])[0], ids=e.ids, task=e.task)
            assert abs(s[0, i, c] + losses(m, [e2]).item()*len(e2.labels)) < 1e-3

@each
@pytest.mark.parametrize('name', ['tiny-t5', 'mini'])
def test_generate(make, name, request): # a cache, one token a pass, gives what whole passes give
    bb = request.getfixturevalue(name[:4])
    exs = examples(bb, 3)
    m = make(bb, lr=1e-2)
    train(m, exs, 3)
    alone = [predict(m.backbone, m.prompts(), [e], max_new_tokens=4)[0] for e in exs]
    assert predict(m.backbone, m.prompts(), exs, max_new_tokens=4) == alone
    def tokens(**kw):
        if make is hyperformer: m.announce(Inputs(torch.zeros(1, 1, bb.width), None, exs[:1], [0]))
        return m.backbone.model.generate(torch.tensor([exs[0].ids]), max_new_tokens=4, do_sample=False, **kw).tolist()
    assert tokens(num_beams=1, use_cache=True) == tokens(num_beams=1, use_cache=False)
    assert tokens(num_beams=3) # beams repeat each sequence

@each
def test_bfloat16(make):
    bb = load_backbone('tiny-t5', dtype=torch.bfloat16)
    m = make(bb, lr=1e-2)
    new = [p for n, p in m.backbone.model.named_parameters() if p.requires_grad and 'layer_norm.weight' not in n]
    assert all(p.dtype is torch.float32 for p in new) # what is added is float32
    h = train(m, examples(bb))
    assert h[-1] < h[0]

def test_published_counts(t5_base):
    assert LoRA(t5_base).trainable() == 884_736
    assert {g: sum(p.numel() for p in ps) for g, (ps, _) in Adapters(t5_base).groups().items()} == dict(adapters=48*37_656, layer_norms=62*768)
    assert Adapters(t5_base).trainable() == 1_855_104 and BitFit(t5_base).trainable() == 282_496
    assert HyperFormer(t5_base, list('abcdefgh')).trainable() == 5_211_056
    hd = HyperDecoder(t5_base)
    assert hd.trainable() == 14_078_008 and hd.backbone.model.hyper.static.numel() == 12*99_136

def test_lora_is_its_merged_matrix(tiny):
    exs, m = examples(tiny), trained(LoRA, tiny)
    merged = copy.deepcopy(tiny.model)
    n = 0
    for name, layer in m.backbone.model.named_modules():
        if hasattr(layer, 'lora_A'):
            n += 1
            merged.get_submodule(name).weight.data += 16/8 * layer.lora_B['default'].weight.detach() @ layer.lora_A['default'].weight.detach()
    assert n == 2*6 # q and v of two encoder attentions and of two and two in the decoder
    with torch.no_grad(): torch.testing.assert_close(losses(m, exs), prompt_losses(replace(tiny, model=merged), torch.zeros(1, 0, 32), exs), atol=1e-4, rtol=1e-5)

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
    x, a = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0)), ff.adapter
    y = F.relu(x @ ff.wi.weight.T) @ ff.wo.weight.T
    torch.testing.assert_close(ff(x), y + F.gelu(y @ a.down.weight.T + a.down.bias) @ a.up.weight.T + a.up.bias)

def test_bitfit(tiny, mini):
    m = trained(BitFit, tiny)
    model = m.backbone.model
    assert model.lm_head.weight is model.shared.weight and model.lm_head.weight.data_ptr() != tiny.model.lm_head.weight.data_ptr()
    q, x = model.encoder.block[0].layer[0].SelfAttention.q, torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    assert q.added_bias.abs().max() > 0
    torch.testing.assert_close(q(x), x @ q.weight.T + q.added_bias)
    own = BitFit(mini).backbone.model
    assert own.model.encoder.layers[0].fc1.bias.requires_grad and not hasattr(own.model.encoder.layers[0].fc1, 'added_bias') and own.lm_head.added_bias.numel() == 11008

def test_hyperformer_tasks(tiny):
    exs, m = examples(tiny), trained(hyperformer, tiny)
    h = m.backbone.model.hyper
    def both(): return losses(m, [replace(e, task='a') for e in exs]), losses(m, [replace(e, task='b') for e in exs])
    assert not torch.allclose(*both(), atol=1e-4)
    with torch.no_grad(): h.task.weight[1] = h.task.weight[0]
    assert torch.equal(*both()) # equal embeddings: one model for both

def test_hyperformer_with_one_task_ignores_which(tiny): # one task is one set of adapters: the name alone changes nothing
    exs = examples(tiny)
    a, b = [HyperFormer(tiny, [t], lr=1e-2) for t in TASKS]
    assert train(a, [replace(e, task='a') for e in exs]) == train(b, [replace(e, task='b') for e in exs])

def test_hyperformer_adapter_equation():
    g = torch.Generator().manual_seed(0)
    b, h = 3, 8
    y, w = torch.randn(4, 5, h, generator=g), torch.randn(2, 2*b*h + b + 3*h, generator=g)
    out = adapt(y, w, b, norm=True)
    for i in range(4):
        r = w[i//2] # each of the two sequences stands twice in a row
        D, d, U, u, gain, shift = r[:h*b].view(h, b), r[h*b:h*b+b], r[h*b+b:2*h*b+b].view(b, h), r[2*h*b+b:2*h*b+b+h], r[-2*h:-h], r[-h:]
        torch.testing.assert_close(out[i], y[i] + F.layer_norm(F.gelu(y[i] @ D + d) @ U + u, (h,), gain, shift))

def test_hyperformer_refuses(tiny):
    exs, m = examples(tiny), hyperformer(tiny)
    with pytest.raises(ValueError, match="no task 'c'.*one of"): losses(m, [replace(e, task='c') for e in exs])
    with pytest.raises(ValueError, match='each once'): HyperFormer(tiny, ['a', 'a'])
    with pytest.raises(ValueError, match='each once'): HyperFormer(tiny, [])
    losses(m, exs)
    with pytest.raises(ValueError, match='announcement'): prompt_losses(m.backbone, torch.zeros(1, 0, 32), exs) # not with the tasks of the pass before
    with pytest.raises(ValueError, match='multiple of the 2'): adapt(torch.zeros(3, 1, 8), torch.zeros(2, 2*8+1+8), 1)

def test_hyperdecoder_inputs(tiny):
    exs, m = examples(tiny), trained(HyperDecoder, tiny)
    h, seen = m.backbone.model.hyper, []
    m.backbone.model.get_decoder().register_forward_pre_hook(lambda *a: seen.append(h.weights(h.pooled, 0).detach()))
    batch = losses(m, exs)
    assert torch.pdist(seen[0]).min() > 0 # different inputs, different adapters of the decoder
    losses(m, exs[:1])
    torch.testing.assert_close(seen[1][0], seen[0][0], atol=1e-5, rtol=1e-4) # padding is not pooled
    with torch.no_grad(): h.net.head.weight.zero_()
    seen.clear(); losses(m, exs)
    assert torch.pdist(seen[0]).max() == 0 and not torch.equal(batch, losses(m, exs)) # without it: one adapter for all inputs

def test_wrong_backbone(tiny):
    odd = replace(tiny, model=torch.nn.Sequential(torch.nn.Linear(4, 4)))
    for cls in (LoRA, Adapters):
        with pytest.raises(ValueError, match='use a'): cls(odd)

def test_chunks_announce_their_own_tasks(tiny): # a step may take several passes
    exs, m = examples(tiny), trained(hyperformer, tiny)
    a = loss_and_grad(m.backbone, m.prompts(), [exs], budget=10_000)[0]
    b = loss_and_grad(m.backbone, m.prompts(), [exs], budget=1)[0]
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-5)
