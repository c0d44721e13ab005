"Prompts as files and as PEFT adapters, and several of them in one batch"
import hashlib, json, os, warnings
import pytest, torch
from safetensors.torch import save, save_file
from bayes_prompt.backbone import load_backbone
from bayes_prompt.data import load_task
from bayes_prompt.engine import generate, padded, prompt_losses
from bayes_prompt.interchange import PromptBank, from_peft, load_prompt, save_prompt, to_peft
from bayes_prompt.prompt import encode, init_prompts
from bayes_prompt.evaluate import predict
from bayes_prompt.store import load_tensors, save_tensors
from bayes_prompt.train import PromptTuning, fit
peft = pytest.importorskip('peft')
pytestmark = pytest.mark.filterwarnings('ignore::FutureWarning')

PAIRS = [('spam text: buy it now, it is cheap and good', 'spam'), ('spam text: hello', 'ham'), ('supersense gloss: a tall plant with a trunk and leaves', 'plant')]

def weights(bb): return [p.clone() for p in bb.model.parameters()]

def noisy(bb, p=5, seed=0): return init_prompts(bb, 1, p, seed)[0] + .1*torch.randn(p, bb.width, generator=torch.Generator().manual_seed(seed)) # not rows of the table

def one_sentence(e): return '\n' not in str(e.value)

# files

def test_round_trip(bb, tmp_path):
    p, about = noisy(bb), dict(task='spam', scores=[.5, None], nested=dict(a=1))
    save_prompt(p.requires_grad_(), tmp_path/'a'/'b', bb, about)
    got, back = load_prompt(tmp_path/'a'/'b', bb)
    assert torch.equal(got, p) and back == about and not got.requires_grad
    assert [f.name for f in (tmp_path/'a'/'b').iterdir()] == ['prompt.safetensors']
    assert torch.equal(load_prompt(tmp_path/'a'/'b')[0], p) and torch.equal(load_prompt(tmp_path/'a'/'b', bb.name)[0], p)
    assert load_tensors(tmp_path/'a'/'b'/'prompt.safetensors')[1]['shape'] == list(p.shape)
    exs = encode(bb, PAIRS, length=5)
    assert predict(bb, got[None], exs, ['ham', 'spam']) == predict(bb, p[None], exs, ['ham', 'spam'])

def test_dtype_and_views_survive(tiny, tmp_path):
    p = noisy(tiny, 8)[::2].bfloat16() # a view that is not contiguous
    save_prompt(p, tmp_path, 'tiny-t5')
    got, about = load_prompt(tmp_path, tiny)
    assert got.dtype == torch.bfloat16 and torch.equal(got, p) and about == {}

def test_another_backbone_is_refused(tiny, tmp_path):
    save_prompt(noisy(tiny), tmp_path, tiny)
    for other in ('mini', load_backbone('mini')):
        with pytest.raises(ValueError, match="belongs to backbone 'tiny-t5', got 'mini'") as e: load_prompt(tmp_path, other)
        assert one_sentence(e)

def test_another_width_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match='width 16, expected 32'): save_prompt(torch.ones(3, 16), tmp_path, tiny)
    save_prompt(torch.ones(3, 16), tmp_path, 'tiny-t5') # by name the width is not known
    with pytest.raises(ValueError, match='width 16, expected 32') as e: load_prompt(tmp_path, tiny)
    assert one_sentence(e)
    for f in (lambda: to_peft(torch.ones(3, 16), tiny, tmp_path), lambda: PromptBank(tiny, dict(a=torch.ones(3, 16)), dict(a=()))):
        with pytest.raises(ValueError, match='width 16, expected 32'): f()

@pytest.mark.parametrize('bad,say', [(torch.ones(2, 3, 32), r'\(2, 3, 32\)'), (torch.ones(0, 32), r'\(0, 32\)'), ([[1.]], 'list'), (torch.full((2, 32), float('nan')), 'not finite')])
def test_no_matrix_is_refused(tiny, tmp_path, bad, say):
    with pytest.raises(ValueError, match=say): save_prompt(bad, tmp_path, tiny)
    assert not list(tmp_path.iterdir())

def save_as_version_01(prompt, path, name, about):
    "Two files, as the first version wrote them"
    path.mkdir(parents=True, exist_ok=True)
    data = save({'prompt': prompt})
    (path/'prompt.safetensors').write_bytes(data)
    note = dict(backbone=name, shape=list(prompt.shape), sha256=hashlib.sha256(data).hexdigest(), about=about)
    (path/'prompt.json').write_text(json.dumps(note, indent=1))

def test_prompts_of_the_first_version_are_read(tiny, tmp_path):
    p = noisy(tiny)
    save_as_version_01(p, tmp_path, 'tiny-t5', dict(a=1))
    got, about = load_prompt(tmp_path, tiny)
    assert torch.equal(got, p) and about == dict(a=1)
    with pytest.raises(ValueError, match="belongs to backbone 'tiny-t5'"): load_prompt(tmp_path, 'mini')
    save_prompt(noisy(tiny, seed=1), tmp_path, tiny)   # replaces both files
    assert torch.equal(load_prompt(tmp_path, tiny)[0], noisy(tiny, seed=1)) and not (tmp_path/'prompt.json').exists()

@pytest.mark.parametrize('old', [False, True])
def test_a_damaged_file_is_refused(tiny, tmp_path, old):
    p = noisy(tiny)
    if old: save_as_version_01(p, tmp_path, 'tiny-t5', {})
    else: save_prompt(p, tmp_path, tiny, dict(a=1))
    for file in tmp_path.iterdir():
        data = file.read_bytes()
        flipped = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
        damaged = [data[:n] for n in (0, 5, len(data)//2, len(data)-1)] + [flipped]*(file.suffix != '.json')
        for bad in damaged:
            file.write_bytes(bad)
            with pytest.raises(ValueError, match='cut off|damaged') as e: load_prompt(tmp_path, tiny)
            assert one_sentence(e)
        file.write_bytes(data)
    (tmp_path/'prompt.safetensors').unlink()
    with pytest.raises(ValueError, match='no prompt in'): load_prompt(tmp_path, tiny)

def test_files_of_two_savings_are_refused(tiny, tmp_path):
    save_as_version_01(noisy(tiny), tmp_path, 'tiny-t5', {})
    note = (tmp_path/'prompt.json').read_text()
    save_as_version_01(noisy(tiny, seed=1), tmp_path, 'tiny-t5', {})
    (tmp_path/'prompt.json').write_text(note)
    with pytest.raises(ValueError, match='not of one saving'): load_prompt(tmp_path, tiny)

@pytest.mark.parametrize('note', ['[]', 'null', '{}', '{"sha256": 3}'])
def test_a_note_that_is_none_is_refused(tiny, tmp_path, note):
    save_as_version_01(noisy(tiny), tmp_path, 'tiny-t5', {})
    (tmp_path/'prompt.json').write_text(note)
    with pytest.raises(ValueError, match='cut off') as e: load_prompt(tmp_path, tiny)
    assert one_sentence(e)

def test_other_tensors_are_no_prompt(tiny, tmp_path):
    save_tensors(tmp_path/'prompt.safetensors', dict(particles=torch.ones(2, 3)), dict(backbone='mini', about={}))
    with pytest.raises(ValueError, match='is no prompt'): load_prompt(tmp_path)

def test_failed_write_leaves_the_old(tiny, tmp_path, monkeypatch):
    save_prompt(noisy(tiny), tmp_path, tiny)
    def full(a, b): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match='No space left on device; what was there before is untouched'): save_prompt(noisy(tiny, seed=1), tmp_path, tiny)
    assert torch.equal(load_prompt(tmp_path, tiny)[0], noisy(tiny)) and not list(tmp_path.glob('.*'))

def test_about_that_json_cannot_hold(tiny, tmp_path):
    with pytest.raises(ValueError, match='about') as e: save_prompt(noisy(tiny), tmp_path, tiny, dict(x=torch.ones(2)))
    assert one_sentence(e) and not list(tmp_path.iterdir())

# PEFT

def peft_inputs(bb, exs):
    n = torch.tensor([len(e.ids) for e in exs])
    ids = padded([e.ids for e in exs], bb.tokenizer.pad_token_id)
    return dict(input_ids=ids, attention_mask=(torch.arange(ids.shape[1]) < n[:, None]).long(), labels=padded([e.labels for e in exs], -100))

def plain(bb, prompt, exs):
    "Logits of one example at a time, without anything of ours: neither batch nor mask"
    out = []
    for e in exs: out.append(bb.model(inputs_embeds=torch.cat([prompt, bb.embed(torch.tensor(e.ids))])[None], labels=torch.tensor([e.labels])).logits[0])
    return out

@torch.no_grad()
def same_logits(theirs, bb, prompt, exs, **kw):
    got = theirs(**peft_inputs(bb, exs), **kw).logits
    return max((g[:len(w)] - w).abs().max().item() for g, w in zip(got, plain(bb, prompt, exs)))

def test_export(bb, tmp_path):
    before, p, exs = weights(bb), noisy(bb), encode(bb, PAIRS, length=5)
    to_peft(p, bb, tmp_path)
    theirs = peft.PeftModel.from_pretrained(bb.model, str(tmp_path))
    assert same_logits(theirs, bb, p, exs) < 1e-5
    assert same_logits(theirs, bb, p.flip(1), exs) > 1e-3 # the logits do depend on the prompt
    with torch.no_grad(): # our own path, through chunks and eq. (1)
        x = peft_inputs(bb, exs)
        loss = torch.nn.functional.cross_entropy(theirs(**x).logits.transpose(1, 2), x['labels'], reduction='none', ignore_index=-100).sum(1) / (x['labels'] != -100).sum(1)
        assert torch.allclose(loss, prompt_losses(bb, p[None], exs)[0], atol=1e-5)
    x.pop('labels')
    said = bb.tokenizer.batch_decode(theirs.generate(**x, max_new_tokens=5, do_sample=False, num_beams=1), skip_special_tokens=True)
    assert [s.strip() for s in said] == generate(bb, p, exs, 5)
    assert theirs.prompt_encoder.default.embedding.weight.shape == p.shape # no second prompt
    assert all(torch.equal(a, b) for a, b in zip(before, bb.model.parameters()))
    assert torch.equal(from_peft(tmp_path, bb), p)

def test_export_loads_without_naming_the_model(tmp_path):
    bb = load_backbone('mini')
    to_peft(noisy(bb), bb, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        theirs = peft.AutoPeftModelForSeq2SeqLM.from_pretrained(str(tmp_path), dtype=torch.float32) # its files are float16
    assert same_logits(theirs, bb, noisy(bb), encode(bb, PAIRS, length=5)) < 1e-5

def saved(bb, tmp_path, config, **kw):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        m = peft.get_peft_model(bb.model, config(task_type='SEQ_2_SEQ_LM', num_virtual_tokens=4, **kw))
    m.save_pretrained(tmp_path)
    return m

@pytest.mark.parametrize('n', [1, 2])
def test_import_prompt_tuning(bb, tmp_path, n):
    theirs, exs = saved(bb, tmp_path, peft.PromptTuningConfig, num_transformer_submodules=n), encode(bb, PAIRS, length=4)
    assert len(theirs.prompt_encoder.default.embedding.weight) == 4*n
    p = from_peft(tmp_path, bb)
    assert p.shape == (4, bb.width) and not p.requires_grad and same_logits(theirs, bb, p, exs) < 1e-5

def test_import_multitask(bb, tmp_path):
    theirs, exs = saved(bb, tmp_path, peft.MultitaskPromptTuningConfig, num_transformer_submodules=1, num_tasks=3, num_ranks=2), encode(bb, PAIRS, length=4)
    for k in range(3): assert same_logits(theirs, bb, from_peft(tmp_path, bb, k), exs, task_ids=torch.full((3,), k)) < 1e-5
    assert (from_peft(tmp_path, bb, 0) - from_peft(tmp_path, bb, 1)).abs().max() > 1e-5
    for k in (3, -1):
        with pytest.raises(ValueError, match='tasks 0 to 2'): from_peft(tmp_path, bb, k)

def test_import_multitask_with_a_decoder_prompt(tiny, tmp_path):
    "PEFT's forward has the second prompt in the decoder, its generate has not: the import equals generate, and says so"
    theirs, exs = saved(tiny, tmp_path, peft.MultitaskPromptTuningConfig, num_tasks=1), encode(tiny, PAIRS, length=4)
    with torch.no_grad():
        e = theirs.prompt_encoder.default
        e.prefix_task_cols.fill_(1); e.prefix_task_rows.fill_(1)
    theirs.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match='second prompt in the decoder'): p = from_peft(tmp_path, tiny)
    x = peft_inputs(tiny, exs)
    y, ids = x.pop('labels'), torch.zeros(3, dtype=torch.long)
    said = tiny.tokenizer.batch_decode(theirs.generate(**x, task_ids=ids, max_new_tokens=6, do_sample=False, num_beams=1), skip_special_tokens=True)
    assert [s.strip() for s in said] == generate(tiny, p, exs, 6) and any(said)
    with torch.no_grad():
        full = theirs(**x, labels=y, task_ids=ids).logits
        assert full.shape[1] == 4 + y.shape[1] and (full[0, 4:4+len(exs[0].labels)] - plain(tiny, p, exs)[0]).abs().max() > 1e-3

def test_import_refuses(tiny, tmp_path):
    with pytest.raises(ValueError, match='no adapter in'): from_peft(tmp_path, tiny)
    m = peft.get_peft_model(load_backbone('tiny-t5').model, peft.LoraConfig(task_type='SEQ_2_SEQ_LM', target_modules=['q']))
    m.save_pretrained(tmp_path/'lora')
    with pytest.raises(ValueError, match="got 'LORA'") as e: from_peft(tmp_path/'lora', tiny)
    assert one_sentence(e)
    to_peft(noisy(tiny), tiny, tmp_path/'p')
    with pytest.raises(ValueError, match='width 32, expected 384'), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        from_peft(tmp_path/'p', load_backbone('mini'))
    c = tmp_path/'p'/'adapter_config.json'
    old = c.read_text()
    c.write_text(old.replace('SEQ_2_SEQ_LM', 'CAUSAL_LM'))
    with pytest.raises(ValueError, match='CAUSAL_LM'): from_peft(tmp_path/'p', tiny)
    c.write_text(old.replace('"tiny-t5"', '"google/flan-t5-small"'))
    with pytest.warns(UserWarning, match="trained on 'google/flan-t5-small'"): from_peft(tmp_path/'p', tiny)
    for f, text in ((c, old), (tmp_path/'p'/'adapter_model.safetensors', None)):
        f.write_bytes(f.read_bytes()[:50])
        with pytest.raises(ValueError, match='cut off') as e: from_peft(tmp_path/'p', tiny)
        assert one_sentence(e)
        if text: f.write_text(text)

@pytest.mark.parametrize('config, weights, says', [
    ('[]', {}, 'cannot be read'), ('{}', {}, 'cannot be read'), ('null', {}, 'cannot be read'),
    (dict(peft_type='PROMPT_TUNING'), {'other': torch.ones(2, 32)}, "lacks the weights 'prompt_embeddings'"),
    (dict(peft_type='PROMPT_TUNING'), {'prompt_embeddings': torch.ones(32)}, r'expected one matrix \[P, H\]'),
    (dict(peft_type='PROMPT_TUNING', num_virtual_tokens='two'), {'prompt_embeddings': torch.ones(2, 32)}, "its configuration says 'two'"),
    (dict(peft_type='MULTITASK_PROMPT_TUNING'), {'prompt_embeddings': torch.ones(2, 32)}, "lacks the weights 'prefix_task_cols'"),
    (dict(peft_type='MULTITASK_PROMPT_TUNING'), {'prompt_embeddings': torch.ones(2, 32), 'prefix_task_cols': torch.ones(1, 3, 1), 'prefix_task_rows': torch.ones(1, 2, 5)}, 'do not fit together')])
def test_a_malformed_adapter_is_one_sentence(tiny, tmp_path, config, weights, says):
    if isinstance(config, dict): config = json.dumps(dict(task_type='SEQ_2_SEQ_LM', num_virtual_tokens=2) | config)
    (tmp_path/'adapter_config.json').write_text(config)
    (tmp_path/'adapter_model.bin').write_bytes(b'')
    with pytest.raises(ValueError, match='no adapter in'): from_peft(tmp_path, tiny)
    save_file(weights, tmp_path/'adapter_model.safetensors')
    with pytest.raises(ValueError, match=says) as e: from_peft(tmp_path, tiny)
    assert one_sentence(e)

# several tasks in one batch

@pytest.fixture(scope='module')
def served(bb):
    "Prompts of three tasks, far enough apart that a swap would show"
    tasks = {n: load_task(n) for n in ('spam', 'supersense', 'movie')}
    lengths = dict(spam=5, supersense=5, movie=3)
    prompts = {n: noisy(bb, lengths[n], seed=i) for i, n in enumerate(tasks)}
    if bb.name == 'tiny-t5': # its answers are all alike before
        for n, t in tasks.items():
            exs = encode(bb, t.train[:8], 32, lengths[n])
            pt = PromptTuning(bb, prompts[n], lr=.3)
            fit(pt, lambda s: [exs], 5)
            prompts[n] = pt.prompt.detach()
    return tasks, prompts

def mix(tasks, n=6): return [(s, name) for rows in zip(*[[(s, name) for s, _ in t.test[:n]] for name, t in tasks.items()]) for s, name in rows]

def test_mixed_is_task_by_task(bb, served):
    tasks, prompts = served
    before, bank = weights(bb), PromptBank(bb, prompts, {n: t.choices for n, t in tasks.items()})
    texts, names = zip(*mix(tasks))
    mixed = bank.predict(texts, names)
    for n, t in tasks.items():
        at = [i for i, m in enumerate(names) if m == n]
        want = predict(bb, prompts[n][None], encode(bb, [(texts[i], 'x') for i in at], length=len(prompts[n])), t.choices)
        assert [mixed[i] for i in at] == want == bank.predict([texts[i] for i in at], [n]*len(at))
        assert set(want) <= set(t.choices)
    back = bank.predict(texts[::-1], names[::-1])
    assert back[::-1] == mixed # the order does not matter
    assert all(torch.equal(a, b) for a, b in zip(before, bb.model.parameters()))

def test_each_row_has_its_own_prompt(bb, served):
    "The same text under each task's prompt: free text is the most telling"
    tasks, prompts = served
    bank = PromptBank(bb, prompts, {n: () for n in prompts})
    text = tasks['supersense'].test[0][0]
    got = bank.predict([text]*3, list(prompts), max_new_tokens=6)
    assert got == [generate(bb, p, encode(bb, [(text, 'x')], length=len(p)), 6)[0] for p in prompts.values()]

def test_labels_of_other_tasks_are_masked(tiny):
    p = noisy(tiny)
    bank = PromptBank(tiny, dict(a=p, b=p, c=p), dict(a=['ham', 'spam'], b=['plant', 'ham'], c=['food']))
    text = PAIRS[0][0]
    for t, got in zip('abc', bank.predict([text]*3, 'abc')): assert got == predict(tiny, p[None], encode(tiny, [(text, 'x')]), bank.choices[t])[0] and got in bank.choices[t]

def test_free_text_and_labels_in_one_batch(tiny):
    p = noisy(tiny)
    bank = PromptBank(tiny, dict(a=p, b=p), dict(a=['ham', 'spam'], b=()))
    texts = [s for s, _ in PAIRS]
    exs = encode(tiny, PAIRS, length=5)
    ranked, free = predict(tiny, p[None], exs, ['ham', 'spam']), generate(tiny, p, exs, 4)
    assert bank.predict(texts, ['a', 'b', 'a'], max_new_tokens=4) == [ranked[0], free[1], ranked[2]]

def test_labels_of_two_tasks_may_be_the_same_tokens(tiny):
    "The vocabulary knows no capitals"
    bank = PromptBank(tiny, dict(a=noisy(tiny), b=noisy(tiny)), dict(a=['Ham', 'spam'], b=['ham', 'Spam']))
    upper, lower = bank.predict([PAIRS[0][0]]*2, 'ab')
    assert upper.lower() == lower.lower() and upper in ('Ham', 'spam') and lower in ('ham', 'Spam')
    with pytest.raises(ValueError, match="'ham' and 'HAM' are the same tokens"): PromptBank(tiny, dict(a=noisy(tiny)), dict(a=['ham', 'HAM']))

def test_one_pass_of_the_encoder(tiny):
    bank = PromptBank(tiny, dict(a=noisy(tiny), b=noisy(tiny, seed=1)), dict(a=['ham', 'spam'], b=['plant', 'food']))
    calls = []
    hook = tiny.model.get_encoder().register_forward_hook(lambda m, a, out: calls.append(len(out.last_hidden_state)))
    try: bank.predict(['a tall tree']*4, list('abab'))
    finally: hook.remove()
    assert calls == [4]

def test_bank_refuses(tiny):
    p = noisy(tiny)
    bank = PromptBank(tiny, dict(spam=p, movie=p), dict(spam=['ham', 'spam'], movie=()))
    with pytest.raises(ValueError, match="no prompt for task 'movies'; the nearest is 'movie'") as e: bank.predict(['a'], ['movies'])
    assert one_sentence(e) and bank.predict([], []) == []
    with pytest.raises(ValueError, match='2 texts and 1 tasks'): bank.predict(['a', 'b'], ['spam'])
    with pytest.raises(ValueError, match='got none'): PromptBank(tiny, {}, {})
    with pytest.raises(ValueError, match="'b'"): PromptBank(tiny, dict(a=p), dict(a=(), b=()))
    with pytest.raises(ValueError, match='got the text'): PromptBank(tiny, dict(a=p), dict(a='ham'))
    with pytest.raises(ValueError, match='empty'): bank.predict([' '], ['spam'])

@pytest.mark.parametrize('n', [-1, 0, 7, True, 2., '6', None])
def test_a_configuration_of_other_rows_than_the_weights_is_refused(n, tiny, tmp_path):
    to_peft(init_prompts(tiny, 1, 6)[0], tiny, tmp_path)
    file = tmp_path/'adapter_config.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | dict(num_virtual_tokens=n)))
    with pytest.raises(ValueError, match='has a prompt of 6 rows'): from_peft(tmp_path, tiny)
