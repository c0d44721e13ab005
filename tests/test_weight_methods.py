"All methods that train weights: where they start, what they leave alone, that they can be saved, resumed, copied"
import copy
from dataclasses import replace
from functools import partial
import pytest, torch
from bayes_prompt.backbone import load_backbone
from bayes_prompt.baselines.finetuning import FineTuning
from bayes_prompt.baselines.hyper import HyperDecoder
from bayes_prompt.baselines.weights import Adapters, BitFit, LoRA
from bayes_prompt.callbacks import Checkpoint
from bayes_prompt.engine import Inputs, label_scores, prompt_losses
from bayes_prompt.evaluate import predict
from bayes_prompt.options import methods
from bayes_prompt.prompt import encode
from bayes_prompt.run import run
from bayes_prompt.train import fit, make_optimizer
from weight_methods import CHOICES, examples, hyperformer, losses, train, trained

sequential, mlp = partial(HyperDecoder, placement='sequential'), partial(HyperDecoder, mlp=True)
SEEDED = dict(LoRA=LoRA, Adapters=Adapters, HyperFormer=hyperformer, HyperDecoder=HyperDecoder, sequential=sequential, mlp=mlp)
ALL = SEEDED | dict(BitFit=BitFit)
each = pytest.mark.parametrize('make', ALL.values(), ids=ALL)
backbones = pytest.mark.parametrize('name', ['tiny', 'mini'])

@each
@backbones
def test_starts_as_the_backbone(make, name, request):
    bb = request.getfixturevalue(name)
    exs, m = examples(bb), make(bb)
    with torch.no_grad(): start = prompt_losses(bb, torch.zeros(1, 0, bb.width), exs)
    assert torch.equal(losses(m, exs), start)

def hooks(model): return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

@each
def test_lowers_loss_and_changes_only_its_own(make, tiny):
    exs, before, hooked = examples(tiny), {n: p.clone() for n, p in tiny.model.named_parameters()}, hooks(tiny.model)
    m = make(tiny, lr=3e-2)
    own = {id(p): p.detach().clone() for p in m.parameters()}
    h = train(m, exs, 30)
    assert h[-1] < .6*h[0]
    for n, p in tiny.model.named_parameters(): # the backbone is as it was
        assert torch.equal(p, before[n]) and not p.requires_grad and p.grad is None
    assert hooked == hooks(tiny.model) and not any(hasattr(x, 'adapter') for x in tiny.model.modules())
    for n, p in m.backbone.model.named_parameters():
        if id(p) not in own: assert torch.equal(p, before[n.replace('.base_layer', '')])
    still = [p for p in m.parameters() if torch.equal(p, own[id(p)])]
    assert sum(p.numel() for p in still) < .05*m.trainable(), f'{len(still)} of {len(own)} parameters never moved'

@each
@backbones
def test_groups_partition(make, name, request):
    m = make(request.getfixturevalue(name))
    ids, free = [id(p) for p in m.parameters()], [p for p in m.backbone.model.parameters() if p.requires_grad]
    assert all(ps for ps, _ in m.groups().values()) and len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in free}
    assert m.trainable() == sum(p.numel() for p in free)

@each
def test_gradients_stay_in_the_groups(make, tiny):
    m = make(tiny)
    m.backward([examples(tiny)], 0)
    assert {id(p) for p in m.backbone.model.parameters() if p.grad is not None} <= {id(p) for p in m.parameters()}
    assert any(p.grad.abs().max() > 0 for p in m.parameters() if p.grad is not None)

@each
def test_save_and_load(make, tiny, tmp_path):
    exs, m = examples(tiny), trained(make, tiny)
    torch.save([p.detach() for p in m.parameters()], tmp_path/'state.pt')
    other = make(tiny, **({} if make is BitFit else dict(seed=1)))
    with torch.no_grad():
        for p, q in zip(other.parameters(), torch.load(tmp_path/'state.pt', weights_only=True)): p.copy_(q)
    assert not torch.equal(losses(m, exs), losses(make(tiny), exs))
    assert torch.equal(losses(m, exs), losses(other, exs))
    assert predict(m.backbone, m.prompts(), exs, CHOICES) == predict(other.backbone, other.prompts(), exs, CHOICES)

@each
def test_resumes(make, tiny, tmp_path):
    exs, (whole, first, second) = examples(tiny), [make(tiny) for _ in range(3)]
    def go(m, batch, name): return fit(m, batch, steps=4, callbacks=[Checkpoint(tmp_path/name, every=2)])
    class Stop(Exception): pass
    def stop(t):
        if t == 3: raise Stop
        return [exs]
    h = go(whole, lambda t: [exs], 'a.safetensors')
    with pytest.raises(Stop): go(first, stop, 'b.safetensors')
    assert go(second, lambda t: [exs], 'b.safetensors') == h
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), second.parameters()))

@pytest.mark.parametrize('make', SEEDED.values(), ids=SEEDED)
def test_seed(make, tiny):
    state = torch.get_rng_state()
    a, b, c = make(tiny, seed=3), make(tiny, seed=3), make(tiny, seed=4)
    assert torch.equal(state, torch.get_rng_state()) # the global generator is not touched
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
    assert not all(torch.equal(p, q) for p, q in zip(a.parameters(), c.parameters()))
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
def test_scores_repeat_for_choices(make, tiny):
    "The decoder sees each sequence once per choice"
    exs, m = examples(tiny), trained(make, tiny)
    s = label_scores(m.backbone, m.prompts(), exs, CHOICES)
    for i, e in enumerate(exs):
        for c, y in enumerate(CHOICES):
            e2 = replace(encode(tiny, [('x', y)])[0], ids=e.ids, task=e.task)
            assert abs(s[0, i, c] + losses(m, [e2]).item()*len(e2.labels)) < 1e-3

@each
@backbones
def test_generate(make, name, request):
    "A cache, one token a pass, gives what whole passes give"
    bb = request.getfixturevalue(name)
    exs, m = examples(bb, 3), make(bb, lr=1e-2)
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

def test_the_usual_rate_stands_in_the_class(tiny):
    made = [make(tiny) for make in (FineTuning, *ALL.values())]
    assert [{lr for _, lr in m.groups().values()} for m in made] == [{3e-4}]*(1 + len(ALL))
    assert all({lr for _, lr in make(tiny, lr=.5).groups().values()} == {.5} for make in (FineTuning, *ALL.values()))

@pytest.mark.parametrize('given,rate', [({}, 3e-4), ({'target.lr_weights': .02}, .02)], ids=['usual', 'given'])
@pytest.mark.parametrize('method', [m.name for m in methods().values() if m.trains == 'weights'])
def test_a_run_trains_at_the_usual_rate_unless_one_is_given(method, given, rate, tmp_path, monkeypatch):
    "Of the published configurations; read off the optimiser of the run itself, whatever the rates of prompts are"
    rates = []
    def noted(*args):
        optimizer = make_optimizer(*args)
        rates.extend(g['lr'] for g in optimizer.param_groups)
        return optimizer
    monkeypatch.setattr('bayes_prompt.train.make_optimizer', noted)
    small = {'compute.backbone': 'tiny-t5', 'length': 4, 'data.limit': 4, 'target.steps': 1, 'target.k': 1, 'target.lr': .7}
    run(small | {'method': method} | given, tmp_path)
    assert set(rates) == {rate}

def test_all_of_them_are_here():
    "A new weight method is tested like the others"
    registered = [m.name for m in methods().values() if m.trains == 'weights']
    assert sorted(registered) == sorted(n.lower() for n in ['finetune', *ALL] if n not in ('sequential', 'mlp'))
