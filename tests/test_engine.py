"One loop: its losses, gradients, scores and texts are those of plain transformers, whatever the chunks"
import copy, random
from dataclasses import replace
import pytest, torch
from transformers import BartConfig, BartForConditionalGeneration, M2M100Config, M2M100ForConditionalGeneration
from bayes_prompt.backbone import Backbone, load_backbone
from bayes_prompt.data import load_task
from bayes_prompt.engine import PLAIN, PerExample, accumulate, generate, label_scores, like_length, loss_and_grad, loss_matrix, nll, prompt_losses
from bayes_prompt.packed import pack
from bayes_prompt.prompt import Example, encode, init_prompts, label_ids

TASKS = ['movie', 'context', 'supersense', 'movie_score']

def batches(bb, b=2, length=6): return [encode(bb, load_task(t).train[:b], 48, length, t) for t in TASKS]

def alone(bb, prompt, e):
    "The loss of one example in a plain call"
    emb = torch.cat([prompt, bb.embed(torch.tensor(e.ids))])[None]
    return bb.model(inputs_embeds=emb, attention_mask=torch.ones(emb.shape[:2], dtype=torch.long), labels=torch.tensor([e.labels])).loss

def test_a_score_equals_plain_transformers(bb):
    "Loss and gradient of each particle on each task: ours in one batch, and alone through the model's own forward pass"
    x, bs = init_prompts(bb, 3, 6, seed=1), batches(bb)
    losses, grads = loss_and_grad(bb, x, bs)
    for m in range(3):
        p = x[m].clone().requires_grad_()
        want = torch.stack([torch.stack([alone(bb, p, e) for e in b]).mean() for b in bs])
        want.sum().backward()
        assert torch.allclose(losses[m], want.detach(), atol=1e-5)
        assert torch.allclose(grads[m], p.grad, atol=1e-5*p.grad.abs().max().item() + 1e-6)

@pytest.mark.parametrize('budget', [1, 200, 10**6])
def test_chunks_change_nothing(bb, budget):
    x, bs = init_prompts(bb, 3, 6), batches(bb, 3)
    (l0, g0), (l1, g1) = loss_and_grad(bb, x, bs), loss_and_grad(bb, x, bs, budget=budget)
    assert torch.allclose(l0, l1, atol=1e-5) and (g0-g1).norm() < 1e-4*g0.norm()

def test_each_pair_is_in_one_chunk_within_the_budget():
    r = random.Random(0)
    for _ in range(200):
        sizes, m, budget = r.choices(range(1, 300), k=r.randint(1, 9)), r.randint(1, 15), r.randint(1, 1000)
        cs = like_length(sizes, m, budget)
        assert sorted((i, k) for c in cs for i, a, b in c for k in range(a, b)) == [(i, k) for i in range(len(sizes)) for k in range(m)]
        for c in cs:
            some = [sizes[i] for i, _, _ in c]
            assert len({(a, b) for _, a, b in c}) == 1 and max(some) <= 1.15*min(some)
            assert len(c) == 1 or m*len(c)*max(some) <= budget
    assert like_length([5, 5, 5], 2, 1000, slack=1.) == [[(0, 0, 2), (1, 0, 2), (2, 0, 2)]]

def test_the_matrix_is_that_of_loss_and_grad(bb):
    bs = batches(bb, 3)
    w = torch.tensor([2., 0., .3, 1.])
    l, g = loss_and_grad(bb, init_prompts(bb, 3, 6), bs, w)
    x = init_prompts(bb, 3, 6).requires_grad_()
    matrix = loss_matrix(bb, x, bs)
    (matrix*w).sum().backward()
    assert torch.allclose(matrix, l, atol=1e-5) and (x.grad - g).norm() < 1e-4*g.norm()

def test_weights_are_of_tasks(tiny):
    x, bs = init_prompts(tiny, 2, 6), batches(tiny)
    gs = [loss_and_grad(tiny, x, [b])[1] for b in bs]
    g = loss_and_grad(tiny, x, bs, [1., 2., 0., -1.])[1]
    assert (g - (gs[0] + 2*gs[1] - gs[3])).norm() < 1e-4*g.norm()

def test_what_goes_through_is_counted(tiny):
    exs, x = [Example((7,)*n, (5, 3)) for n in (4, 4, 30)], init_prompts(tiny, 3, 6)
    before = dict(tiny.meter)
    loss_and_grad(tiny, x, [exs])
    assert tiny.meter['sequences'] - before.get('sequences', 0) == 9 and tiny.meter['tokens'] - before.get('tokens', 0) == 3*(10 + 10 + 36)

# prompts that depend on the example

def by_task(own): return PerExample(lambda inputs: torch.stack([own[e.task] for e in inputs.examples]), 6)

@pytest.mark.parametrize('engine', ['plain', 'packed'])
@pytest.mark.parametrize('budget', [1, 60, 10**6])
def test_a_prompt_for_each_example(engine, budget):
    "Losses, gradients and scores are those of each task's prompt by itself"
    b = pack(load_backbone('tiny-t5', dtype='float64'), engine)
    bs, x = batches(b, 3), init_prompts(b, 4, 6).double()
    own = {t: p.clone().requires_grad_() for t, p in zip(TASKS, x)}
    losses, none = loss_and_grad(b, by_task(own), bs, budget=budget)
    assert none is None and losses.shape == (1, 4)
    for k, t in enumerate(TASKS):
        l, g = loss_and_grad(b, x[k:k+1], [bs[k]])
        assert torch.allclose(losses[0, k], l[0, 0], atol=1e-9) and (own[t].grad - g[0]).norm() < 1e-6*g.norm()
        s = [label_scores(b, p, bs[k], ['good', 'very bad'], budget) for p in (by_task(own), x[k:k+1])]
        assert s[0].shape == (1, 3, 2) and torch.allclose(*s, rtol=1e-5)

@pytest.mark.parametrize('engine', ['plain', 'packed'])
def test_it_is_told_what_it_may_depend_on(engine):
    b = pack(load_backbone('tiny-t5'), engine)
    exs, seen = [Example(tuple(range(100, 100+n)), (5, 3), str(n)) for n in (9, 4, 30, 8, 5)], []
    def f(inputs):
        seen.extend(inputs.index)
        assert [exs[i] for i in inputs.index] == inputs.examples
        for k, e in enumerate(inputs.examples):
            assert torch.equal(inputs.emb[k, :len(e.ids)], b.embed(torch.tensor(e.ids)))
            if inputs.mask is None: assert inputs.emb.shape[1] == len(e.ids)
            else: assert inputs.mask[k].tolist() == [1]*len(e.ids) + [0]*(inputs.mask.shape[1] - len(e.ids))
        return b.embed.weight[:2].expand(len(exs[:len(inputs.index)]), 2, -1)
    losses = loss_and_grad(b, PerExample(lambda inputs: f(inputs).clone().requires_grad_(), 2), [exs])[0]
    assert sorted(seen) == [0, 1, 2, 3, 4] and torch.allclose(losses, loss_and_grad(b, b.embed.weight[None, :2], [exs])[0], rtol=1e-5)

@pytest.mark.parametrize('engine', ['plain', 'packed'])
@pytest.mark.parametrize('shape', [(3, 5, 32), (3, 6, 31), (2, 6, 32), (6, 32)])
def test_prompts_of_a_wrong_shape(engine, shape):
    b = pack(load_backbone('tiny-t5'), engine)
    with pytest.raises(ValueError, match=r'expected a prompt for each example, \[3, 6, 32\], got'): loss_and_grad(b, PerExample(lambda _: torch.zeros(shape), 6), [[Example((5, 6), (7, 3))]*3])

def test_terms_with_weights_of_their_own(bb):
    "Each example's sum and count of label tokens beside its loss"
    exs, x = [e for b in batches(bb, 2) for e in b], init_prompts(bb, 2, 6).requires_grad_()
    def terms(backbone, prompts, examples, chunk):
        out, labels = PLAIN.forward(backbone, prompts, examples, chunk)
        total, n = nll(out.logits, labels), (labels != -100).sum(1)
        return torch.stack([total, total/n], 1).view(-1, len(chunk), 2).transpose(0, 1).flatten(0, 1)
    w = torch.rand(len(exs), 2, generator=torch.Generator().manual_seed(0))
    got = accumulate(bb, x, exs, w, terms, budget=100)
    y = x.detach().clone().requires_grad_()
    means = prompt_losses(bb, y, exs)
    both = torch.stack([means*torch.tensor([len(e.labels) for e in exs]), means], 2)
    (both*w).sum().backward()
    assert got.shape == (2, len(exs), 2) and torch.allclose(got, both.detach(), atol=1e-4) and (x.grad - y.grad).norm() < 1e-4*y.grad.norm()

# answers

def test_ranking_agrees_with_the_loss(bb):
    task = load_task('supersense')
    part, x = task.validation[:6], init_prompts(bb, 2, 6)
    exs = encode(bb, part, 40, 6)
    s = label_scores(bb, x, exs, list(task.choices))
    n = torch.tensor([len(e.labels) for e in exs])
    gold = torch.stack([s[:, i, task.choices.index(y)] for i, (_, y) in enumerate(part)], 1)
    with torch.no_grad(): assert torch.allclose(-gold/n, prompt_losses(bb, x, exs), atol=1e-4)

@pytest.mark.parametrize('choices, says', [([], 'got none'), ('positive', "got the text 'positive'"), (['good', 'Good'], "'good' and 'Good' are the same tokens")])
def test_choices_that_cannot_be_ranked(tiny, choices, says):
    with pytest.raises(ValueError, match=says): label_scores(tiny, init_prompts(tiny, 1, 3), [Example((5,), (7, 3))], choices)

def by_hand(b, prompt, e, n):
    "Greedy decoding with one full pass for each token"
    emb, ids = torch.cat([prompt, b.embed(torch.tensor(e.ids))])[None], [b.model.config.decoder_start_token_id]
    end = b.tokenizer.eos_token_id
    while len(ids) <= n and (len(ids) == 1 or ids[-1] != end):
        with torch.no_grad(): ids.append(b.model(inputs_embeds=emb, decoder_input_ids=torch.tensor([ids])).logits[0, -1].argmax().item())
    return b.tokenizer.decode(ids[1:], skip_special_tokens=True).strip()

def test_text_is_greedy_and_padding_changes_none(bb):
    exs, x = encode(bb, load_task('supersense').validation[:6], 40, 6), init_prompts(bb, 1, 6)
    out = generate(bb, x[0], exs, 4)
    assert out == generate(bb, x, exs, 4) == [generate(bb, x[0], [e], 4)[0] for e in exs] == [by_hand(bb, x[0], e, 4) for e in exs]
    with pytest.raises(ValueError, match='free text is generated with one prompt, got 2'): generate(bb, init_prompts(bb, 2, 6), exs)
    assert generate(bb, x, [], 4) == []

class Words:
    "A tokenizer of numbers for a BART: a first token before every target"
    bos_token_id = cls_token_id = 0
    pad_token_id, eos_token_id, sep_token_id = 1, 2, 2
    def __call__(self, text_target): return dict(input_ids=[0, *map(int, text_target.split()), 2])
    def decode(self, ids, skip_special_tokens=True): return ' '.join(str(i) for i in ids if i > 2)
    def batch_decode(self, ids, **kw): return [self.decode(i.tolist()) for i in ids]

@pytest.fixture(scope='module')
def bart():
    torch.manual_seed(0)
    model = BartForConditionalGeneration(BartConfig(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
                                                    encoder_ffn_dim=16, decoder_ffn_dim=16, init_std=.5)).requires_grad_(False).eval()
    return Backbone('bart', model, Words())

def test_a_bart_learns_and_says_its_whole_answer(bart):
    "Its first token is not lost, though the checkpoint forces one upon generation"
    model = copy.deepcopy(bart.model).requires_grad_()
    model.generation_config.forced_bos_token_id = 0
    b, none = replace(bart, model=model), torch.zeros(1, 0, 16)
    exs = [Example(ids, label_ids(b, [y])[0]) for ids, y in [((7, 8, 9), '11 12'), ((5, 6), '13')]]
    opt = torch.optim.Adam(model.parameters(), .01)
    for _ in range(40):
        opt.zero_grad()
        loss_and_grad(b, none, [exs])
        opt.step()
    assert generate(b, none, exs, 6) == ['11 12', '13'] and label_scores(b, none, exs, ['11 12', '13'])[0].argmax(-1).tolist() == [0, 1]

def init_prompts_of(bart): return torch.randn(1, 4, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()

@pytest.mark.parametrize('options', [dict(forced_bos_token_id=9), dict(min_length=9), dict(no_repeat_ngram_size=1), dict(repetition_penalty=5.), dict(suppress_tokens=list(range(3, 30))), dict(forced_eos_token_id=2, max_length=3),
                                     dict(num_beams=4, do_sample=True), dict(bad_words_ids=[[i] for i in range(3, 40)]), dict(eos_token_id=[2, 5, 6, 7, 8, *range(10, 50)])])
def test_options_of_the_checkpoint_are_left_out(bart, options):
    x, exs = init_prompts_of(bart).detach(), [Example((n, n+1, n+2), (0, 2)) for n in range(5, 40)]
    want = [by_hand(bart, x[0], e, 5) for e in exs]
    assert max(len(set(w.split())) for w in want) > 1
    model = bart.model
    old = model.generation_config
    try:
        model.generation_config = type(old)(**old.to_dict() | options)
        assert generate(bart, x, exs, 5) == want and all(getattr(model.generation_config, k) == v for k, v in options.items())
    finally: model.generation_config = old

def test_a_model_that_does_not_move_labels_itself():
    "M2M100 and NLLB lack prepare_decoder_input_ids_from_labels; their own loss says what is right"
    torch.manual_seed(0)
    model = M2M100ForConditionalGeneration(M2M100Config(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16))
    assert not hasattr(model, 'prepare_decoder_input_ids_from_labels')
    b = Backbone('m2m', model.requires_grad_(False).eval(), Words())
    x, exs = init_prompts_of(b).detach(), [Example((7, 8, 9), (40, 11, 12, 2)), Example((7, 9), (40, 11, 2))]
    losses = prompt_losses(b, x, exs)
    for k, e in enumerate(exs): assert torch.allclose(losses[0, k], alone(b, x[0], e), atol=1e-5)
    s = label_scores(b, x, exs, ['11 12', '11'])
    assert s.shape == (1, 2, 2) and generate(b, x, exs, 3) == [by_hand(b, x[0], e, 3) for e in exs]

# memory

@pytest.mark.parametrize('engine', ['plain', 'packed'])
def test_out_of_memory_in_an_answer_halves_the_budget(engine, monkeypatch):
    b = replace(pack(load_backbone('tiny-t5'), engine), budget=512)
    exs, x = [Example(tuple(range(100, 100+n)), (5, 3)) for n in (30, 12, 5, 31)], init_prompts(b, 1, 4)
    want, texts, calls = label_scores(b, x, exs, ['good', 'bad']), generate(b, x, exs, 3), []
    real = torch.nn.functional.cross_entropy
    def fails(*a, **kw):
        calls.append(1)
        if len(calls) == 1: raise torch.OutOfMemoryError('CUDA out of memory')
        return real(*a, **kw)
    monkeypatch.setattr(torch.nn.functional, 'cross_entropy', fails)
    with pytest.warns(UserWarning, match='went on with 256 tokens in a forward pass instead of 512'): got = label_scores(b, x, exs, ['good', 'bad'])
    assert torch.allclose(got, want, rtol=1e-5) and b.budget == 256
    generates = type(b.model).generate
    def fails_once(self, *a, **kw):
        if b.budget == 256: raise torch.OutOfMemoryError('CUDA out of memory')
        return generates(self, *a, **kw)
    monkeypatch.setattr(type(b.model), 'generate', fails_once)
    with pytest.warns(UserWarning, match='went on with 128'): assert generate(b, x, exs, 3) == texts
