"Packed rows give the numbers of the plain path for every kind of T5; what happens when memory runs out"
import random, warnings
from dataclasses import replace
import pytest, torch
from transformers import MT5Config, MT5ForConditionalGeneration, T5Config, T5ForConditionalGeneration
from bayes_prompt.backbone import Backbone, load_backbone
from bayes_prompt.baselines.weights import LoRA
from bayes_prompt.engine import PerExample, label_scores, loss_and_grad
from bayes_prompt.packed import Packed, pack, packed_chunks
from bayes_prompt.prompt import Example, init_prompts
from bayes_prompt.run import run
from bayes_prompt.train import PromptTuning, fit
from conftest import SMALL

FAMILIES = {'v1.0': (T5ForConditionalGeneration, T5Config, dict(feed_forward_proj='relu', tie_word_embeddings=True)),
            'ungated gelu': (T5ForConditionalGeneration, T5Config, dict(feed_forward_proj='gelu', tie_word_embeddings=False, num_decoder_layers=3)),
            'v1.1': (T5ForConditionalGeneration, T5Config, dict(feed_forward_proj='gated-gelu', tie_word_embeddings=False)),
            'flan': (T5ForConditionalGeneration, T5Config, dict(feed_forward_proj='gated-gelu', tie_word_embeddings=False, d_kv=16, num_heads=3)),  # heads times their width is not the width
            'mT5': (MT5ForConditionalGeneration, MT5Config, dict(feed_forward_proj='gated-gelu', tie_word_embeddings=False))}

@pytest.fixture(scope='module', params=FAMILIES)
def t5(request):
    make, config, kind = FAMILIES[request.param]
    tok = load_backbone('tiny-t5').tokenizer
    torch.manual_seed(1)
    model = make(config(**dict(vocab_size=500, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0, pad_token_id=0) | kind))
    for n, p in model.named_parameters():
        if 'norm' in n: torch.nn.init.uniform_(p, .5, 1.5)  # a norm's weight that is all ones could be forgotten
        elif 'wi' in n or 'wo' in n: p.data *= 5            # and an activation near 0 is nearly linear
    if request.param != 'v1.0': model.lm_head.weight = torch.nn.Parameter(.3*torch.randn(500, 32))  # transformers 5 ties all heads of a new model; the checkpoints have their own
    assert (model.lm_head.weight is model.shared.weight) == (request.param == 'v1.0')
    return Backbone(request.param, model.double().requires_grad_(False).eval(), tok)

class Numbers:
    "A tokenizer of token ids"
    bos_token_id = cls_token_id = None
    pad_token_id, eos_token_id = 0, 1
    def __call__(self, text_target): return dict(input_ids=[int(i) for i in text_target.split()])

def examples(lengths, seed=0, longest=5):
    r = random.Random(seed)
    return [Example(tuple(r.choices(range(5, 500), k=n)), tuple(r.choices(range(5, 500), k=r.randint(1, longest)))) for n in lengths]

@pytest.mark.parametrize('m', [1, 5, 15])
@pytest.mark.parametrize('lengths, longest, budget', [((7, 7, 7, 7), 1, 1024), ((1, 140, 9, 33), 5, 1024), ((1, 140, 9, 33), 5, 60), ((20, 3, 21, 22), 40, 500)], ids=['one length', 'many', 'small budget', 'long labels'])
def test_losses_and_gradients_are_the_plain_ones(t5, m, lengths, longest, budget):
    exs, x = examples(lengths, longest=longest), init_prompts(t5, m, 6, top=400).double()
    batches, w = [exs[:1], exs[1:]], [2., .3]
    (l0, g0), (l1, g1) = loss_and_grad(t5, x, batches, w), loss_and_grad(pack(t5), x, batches, w, budget)
    assert l1.dtype == torch.float64 and l1.shape == (m, 2)
    assert (l1 - l0).abs().max() < 1e-9 and (g1 - g0).norm() < 1e-6*g0.norm()

def test_both_ways_of_cross_attention(t5):
    exs, x = examples((30, 12, 5)), init_prompts(t5, 3, 4, top=400).double()
    (l0, g0), (l1, g1) = [loss_and_grad(replace(t5, engine=Packed(t5.model, absorb)), x, [exs]) for absorb in (True, False)]
    assert (l1 - l0).abs().max() < 1e-9 and (g1 - g0).norm() < 1e-9*g0.norm()

def test_scores_of_labels_are_the_plain_ones(t5):
    exs, x = examples((30, 12, 5, 31)), init_prompts(t5, 3, 4, top=400).double()
    b = replace(t5, tokenizer=Numbers())
    for choices in (['7 9', '8'], ['5 6 7 8 9 10 11 12 13 14 15', '6', '20 21']):
        s0, s1, s2 = label_scores(b, x, exs, choices), label_scores(pack(b), x, exs, choices), label_scores(pack(b), x, exs, choices, budget=20)
        assert s1.shape == (3, 4, len(choices)) and torch.allclose(s0, s1, rtol=1e-6) and torch.allclose(s0, s2, rtol=1e-6)

def test_every_pair_is_in_one_list_of_about_the_budget():
    r = random.Random(0)
    for _ in range(200):
        lengths, m, budget = r.choices(range(1, 300), k=r.randint(1, 9)), r.randint(1, 15), r.randint(1, 1000)
        cs = packed_chunks(lengths, m, budget)
        assert sorted((i, k) for c in cs for i, a, b in c for k in range(a, b)) == [(i, k) for i in range(len(lengths)) for k in range(m)]
        assert all(sum((b-a)*lengths[i] for i, a, b in c) <= budget + max(lengths) for c in cs) and [i for c in cs for i, _, _ in c] == sorted((i for c in cs for i, _, _ in c), key=lambda i: lengths[i])

def test_no_padding_is_counted(t5):
    exs, x, before = examples((30, 12, 5)), init_prompts(t5, 3, 4, top=400).double(), t5.meter['tokens']
    loss_and_grad(pack(t5), x, [exs])
    assert t5.meter['tokens'] - before == 3*sum(4+n for n in (30, 12, 5))

def test_what_it_is_chosen_for(t5):
    assert pack(t5).engine and pack(t5, 'packed').engine and pack(t5, 'plain').engine is None and pack(load_backbone('mini')).engine is None
    with pytest.raises(ValueError, match='no engine \'fast\'.*auto, packed, plain'): pack(t5, 'fast')

def test_what_it_cannot_do_is_refused_also_later(t5):
    exs, x = examples((5, 6)), init_prompts(load_backbone('tiny-t5'), 2, 3)
    for change in (lambda m: m.train(), lambda m: m.lm_head.requires_grad_()):
        b = pack(load_backbone('tiny-t5'))
        change(b.model)
        for f in (lambda: pack(b), lambda: loss_and_grad(b, x, [exs]), lambda: label_scores(b, x, exs, ['good'])):
            with pytest.raises(ValueError, match='a frozen model in eval mode: freeze it, or use engine="plain"'): f()
    with pytest.raises(ValueError, match='made for another model'): loss_and_grad(replace(b, model=load_backbone('tiny-t5').model), x, [exs])

def test_changed_weights_are_seen(t5):
    "Nothing is copied or kept from them"
    b, exs = load_backbone('tiny-t5'), examples((5, 60))
    x, p = init_prompts(b, 2, 3), pack(b)
    first = loss_and_grad(p, x, [exs])[0]
    with torch.no_grad():
        for w in b.model.parameters(): w.mul_(1.2)
    a, c = loss_and_grad(b, x, [exs])[0], loss_and_grad(p, x, [exs])[0]
    assert torch.allclose(a, c, rtol=1e-4) and not torch.allclose(a, first, rtol=1e-2)

@pytest.mark.parametrize('engine', ['plain', 'packed'])
@pytest.mark.parametrize('call, says', [
    (lambda b, x, e: loss_and_grad(b, x[0], [e]), r'expected prompts \[M, P, 32\] for backbone \'tiny-t5\', got \[3, 32\]'),
    (lambda b, x, e: loss_and_grad(b, x[..., :8], [e]), r'expected prompts \[M, P, 32\].*got \[2, 3, 8\]'),
    (lambda b, x, e: loss_and_grad(b, x, [e], [1., 2.]), 'a weight of each of 1 tasks, got 2'),
    (lambda b, x, e: loss_and_grad(b, x, [e, e], [1.]), 'a weight of each of 2 tasks, got 1'),
    (lambda b, x, e: loss_and_grad(b, x, [e, []]), 'got an empty batch'),
    (lambda b, x, e: loss_and_grad(b, x, [[Example((5,), ())]]), 'input and label tokens'),
    (lambda b, x, e: loss_and_grad(b, x, [[Example((), (5,))]]), 'input and label tokens'),
    (lambda b, x, e: label_scores(b, x, e, []), 'at least one verbalised label, got none'),
    (lambda b, x, e: loss_and_grad(b, x.tolist(), [e]), r'expected prompts \[M, P, 32\].*got list'),
    (lambda b, x, e: label_scores(b, x[..., :8], e, ['good']), r'got \[2, 3, 8\]')])
def test_bad_input_is_one_sentence_on_both_engines(engine, call, says):
    b = pack(load_backbone('tiny-t5'), engine)
    with pytest.raises(ValueError, match=says): call(b, init_prompts(b, 2, 3), examples((5, 6)))

@pytest.mark.parametrize('engine', ['plain', 'packed'])
def test_nothing_to_score(engine):
    b = pack(load_backbone('tiny-t5'), engine)
    assert label_scores(b, init_prompts(b, 2, 3), [], ['good', 'bad']).shape == (2, 0, 2)

@pytest.mark.parametrize('engine', ['plain', 'packed'])
def test_the_budget_holds_also_in_evaluation(engine, monkeypatch):
    "Many particles of a long example, and many labels: forward passes have about as many rows as the budget says"
    b, seen = pack(load_backbone('tiny-t5'), engine), []
    stack = type(b.model.encoder)
    real = stack.forward
    monkeypatch.setattr(stack, 'forward', lambda self, *a, inputs_embeds=None, **kw: (inputs_embeds is not None and seen.append(inputs_embeds.shape[0]*inputs_embeds.shape[1])) or real(self, *a, inputs_embeds=inputs_embeds, **kw))
    encode = Packed.encode
    monkeypatch.setattr(Packed, 'encode', lambda self, x, ranges: seen.append(len(x)) or encode(self, x, ranges))
    exs, x = examples((300, 90, 20)), init_prompts(b, 15, 10)
    scores = label_scores(b, x, exs, ['good', 'bad'], budget=700)
    assert max(seen) < 1.5*700 and len(seen) > 6
    loss_and_grad(b, x, [exs], budget=700)
    assert max(seen) < 1.5*700 and torch.allclose(scores, label_scores(b, x, exs, ['good', 'bad']), rtol=1e-4)
    seen.clear()
    label_scores(b, x[:1], examples([5]*50), ['good']*60, budget=700)
    assert len(seen) > 5   # the decoder's rows count too

def test_methods_on_weights_leave_it(t5):
    b = pack(load_backbone('tiny-t5'))
    assert LoRA(b).backbone.engine is None and b.engine

@pytest.mark.parametrize('budget', [40, 1024])
def test_prompts_of_each_example_go_the_same_way(t5, budget):
    "They depend on the embeddings and on a parameter"
    exs, x = examples((30, 12, 5, 31, 5)), init_prompts(t5, 1, 4, top=400).double().requires_grad_()
    def f(inputs):
        emb = inputs.emb if inputs.mask is None else inputs.emb*inputs.mask[..., None]
        return x*(1 + emb.sum(1, keepdim=True))
    got = []
    words = replace(t5, tokenizer=Numbers())
    for b in (words, pack(words)):
        x.grad, prompts = None, PerExample(f, 4)
        losses, _ = loss_and_grad(b, prompts, [exs[:2], exs[2:]], budget=budget)
        got.append((losses, x.grad, label_scores(b, prompts, exs, ['7 9 8', '8'], budget)))
    (l0, g0, s0), (l1, g1, s1) = got
    assert (l1 - l0).abs().max() < 1e-9 and (g1 - g0).norm() < 1e-6*g0.norm() and torch.allclose(s0, s1, rtol=1e-6)

def test_bfloat16_weights_take_prompts_in_float32():
    "The gradient comes in float32 and points where that of float32 weights does"
    full, half = load_backbone('tiny-t5'), load_backbone('tiny-t5', dtype=torch.bfloat16)
    exs, x = examples((30, 12, 5)), init_prompts(full, 3, 4)
    l, g = loss_and_grad(full, x, [exs])
    for b in (half, pack(half)):
        l1, g1 = loss_and_grad(b, x, [exs])
        assert g1.dtype == torch.float32 and torch.allclose(l1, l, rtol=1e-2) and torch.cosine_similarity(g1.flatten(), g.flatten(), 0) > .99

def test_a_run_is_the_same_on_both_engines(tmp_path):
    a, b = [run(SMALL, tmp_path/e, engine=e) for e in ('plain', 'packed')]
    assert a['loss'] == pytest.approx(b['loss'], rel=1e-4) and a['scores']['nll'] == pytest.approx(b['scores']['nll'], rel=1e-4)
    assert a['cost']['source_tokens'] >= b['cost']['source_tokens'] > 0

def test_bfloat16_in_a_run(tmp_path):
    assert run(SMALL, tmp_path, dtype='bfloat16')['scores']['n'] == 12
    with pytest.raises(ValueError, match='LoRA trains weights, and small steps are lost in bfloat16: use compute.dtype=float32'): run(SMALL, tmp_path, dtype='bfloat16', method='lora')
    with pytest.raises(ValueError, match="no compute.dtype 'float16'"): run(SMALL, tmp_path, dtype='float16')

@pytest.mark.parametrize('engine', ['plain', 'packed'])
def test_out_of_memory_halves_the_budget_and_loses_nothing(engine, monkeypatch):
    "The device fails in the middle of a step, when some gradients are there already"
    exs = examples((30, 12, 5, 31))
    def tuned(budget, room):
        b = replace(pack(load_backbone('tiny-t5'), engine), budget=budget)
        calls, real = [], torch.Tensor.backward
        def backward(self, *a, **kw):
            calls.append(1)
            real(self, *a, **kw)
            if b.budget > room and len(calls) == 2: raise torch.OutOfMemoryError('CUDA out of memory')
        monkeypatch.setattr(torch.Tensor, 'backward', backward)
        pt = PromptTuning(b, init_prompts(b, 1, 4)[0], lr=.1)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter('always')
            fit(pt, lambda t: [exs], 3)
        monkeypatch.setattr(torch.Tensor, 'backward', real)
        return pt.prompt, [str(w.message) for w in said if 'memory' in str(w.message)]
    (a, none), (b, one) = tuned(128, 128), tuned(256, 200)
    assert none == [] and torch.equal(a, b)
    assert one == ['out of memory: went on with 128 tokens in a forward pass instead of 256']
