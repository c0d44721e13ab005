"Folders as users have them: each gives what plain calls of transformers give, or one sentence"
import json, os, shutil, warnings
import pytest, torch, transformers as hf
from safetensors.torch import load_file, save_file
from bayes_prompt.backbone import load_backbone
from bayes_prompt.engine import decoder_inputs, generate, label_scores, loss_and_grad, loss_matrix, prompt_losses
from bayes_prompt.packed import pack
from bayes_prompt.prompt import encode, init_prompts, label_ids
from bayes_prompt.settings import Target
from bayes_prompt.target import sigma_of
from families import FAMILIES, OF_BART, OF_T5, SCALE, make_folder, set_config, set_json, write_tokenizer, write_vocabulary

pytestmark = pytest.mark.filterwarnings('ignore:Recommended')   # sacremoses, of Marian
PAIRS = [('review: the acting is good', 'positive'), ('a flat and lifeless movie', 'not at all'), ('who wrote it ?', 'nobody knows')]
LANGUAGE = dict(m2m100='fr', nllb='fra_Latn', mbart='fr_XX', mbart50='fr_XX')
NAMES = list(FAMILIES)

@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    "The folder of a family, made once"
    root, made = tmp_path_factory.mktemp('families'), {}
    def get(name):
        if name not in made: made[name] = make_folder(name, root/name)
        return made[name]
    return get

@pytest.fixture
def copy(folder, tmp_path):
    "A copy of a family's folder, without some of its files"
    def get(name, *without):
        d = shutil.copytree(folder(name), tmp_path/f'{name}-{len(list(tmp_path.iterdir()))}')
        for pattern in without:
            for f in d.glob(pattern): f.unlink()
        return d
    return get

def loaded(d, name=None):
    b = load_backbone(d)
    b.model.double()
    if name in LANGUAGE: b.tokenizer.tgt_lang = LANGUAGE[name]
    return b

class Direct:
    "The same by calls of transformers"
    def __init__(self, d, name):
        self.model = hf.AutoModelForSeq2SeqLM.from_pretrained(d, dtype=torch.float64).eval()
        self.tok = FAMILIES[name][0].from_pretrained(d, **({'tgt_lang': LANGUAGE[name]} if name in LANGUAGE else {}))
        self.scale = SCALE.get(name, 1.)
    def target(self, text): return torch.tensor([self.tok(text_target=text)['input_ids']])
    def by_ids(self, first, text, target):
        "With token ids in the prompt's place"
        ids = torch.tensor([first + self.tok(text)['input_ids']])
        return self.model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=self.target(target)).loss
    def joined(self, prompt, text):
        return torch.cat([prompt, self.scale*self.model.get_input_embeddings()(torch.tensor(self.tok(text)['input_ids']))])[None]
    def loss(self, prompt, text, target): return self.model(inputs_embeds=self.joined(prompt, text), labels=self.target(target)).loss
    @torch.no_grad()
    def answer(self, prompt, text, n, start):
        ids, never = [start], self.model.generation_config.bad_words_ids or []
        while len(ids) == 1 or len(ids) <= n and ids[-1] != self.tok.eos_token_id:
            logits = self.model(inputs_embeds=self.joined(prompt, text), decoder_input_ids=torch.tensor([ids])).logits[0, -1]
            logits[[i for w in never for i in w]] = -torch.inf
            ids.append(logits.argmax().item())
        around = self.tok(text_target='')['input_ids']
        return self.tok.decode([i for i in ids[1:] if i not in around], skip_special_tokens=True).strip()

def close(got, want, tol=1e-9): torch.testing.assert_close(torch.as_tensor(got), torch.as_tensor(want, dtype=got.dtype), rtol=tol, atol=tol)

# ---- what is computed

@pytest.mark.parametrize('name', NAMES)
def test_losses_gradients_scores_and_answers_are_those_of_transformers(folder, name):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warnings.filterwarnings('ignore', 'Recommended')
        b = loaded(folder(name), name)
    direct, text = Direct(folder(name), name), 'a warm film'
    first = direct.tok(text, add_special_tokens=False)['input_ids']
    x = init_prompts(b, 1, len(first), text=text).double()
    exs = encode(b, PAIRS, length=len(first))
    assert [list(e.labels) for e in exs] == [direct.target(t)[0].tolist() for _, t in PAIRS]
    want = torch.stack([direct.by_ids(first, *p) for p in PAIRS])
    close(loss_matrix(b, x, [[e] for e in exs])[0], want)
    close(prompt_losses(b, x, exs)[0], want)   # padded to the longest
    y = torch.stack([x[0], x[0].flip(0)]).requires_grad_()
    both = torch.stack([torch.stack([direct.loss(p, *q) for q in PAIRS]) for p in y])
    close(both[0], want)
    both.sum().backward()
    losses, gradient = loss_and_grad(b, y.detach(), [[e] for e in exs])
    close(losses, both.detach())
    close(gradient, y.grad, 1e-8)
    packed = pack(b)
    if packed.engine: close(loss_and_grad(packed, y.detach(), [[e] for e in exs])[1], y.grad, 1e-4)   # its norms are summed in float32
    with torch.no_grad(): scores = torch.tensor([[-direct.loss(x[0], s, t)*direct.target(t).numel() for _, t in PAIRS] for s, _ in PAIRS])
    for engine in (b, packed): close(label_scores(engine, x, exs, [t for _, t in PAIRS])[0], scores, 1e-5)
    start = direct.model.prepare_decoder_input_ids_from_labels(direct.target('good'))[0, 0].item() if hasattr(direct.model, 'prepare_decoder_input_ids_from_labels') else 2
    assert generate(b, x, exs, 6) == [direct.answer(x[0], s, 6, start) for s, _ in PAIRS]

@pytest.mark.parametrize('name', ['t5', 'bart', 'marian', 'm2m100'])
def test_options_of_generation_that_came_with_a_model_do_not_fight_the_task(folder, copy, name):
    d = copy(name)
    set_json(d/'generation_config.json', num_beams=4, no_repeat_ngram_size=1, suppress_tokens=[3, 4, 5], begin_suppress_tokens=[7], forced_bos_token_id=6, forced_eos_token_id=1, max_length=3,
             min_length=10, do_sample=True, temperature=.3, repetition_penalty=3., eos_token_id=[1, 9], decoder_start_token_id=5)
    a, b = loaded(folder(name), name), loaded(d, name)
    x, exs = init_prompts(a, 1, 5).double(), encode(a, PAIRS)
    assert generate(b, x, exs, 9) == generate(a, x, exs, 9)

def test_marian_never_writes_padding(folder, copy):
    d = copy('marian')
    pad = json.loads((d/'config.json').read_text())['pad_token_id']
    w = load_file(d/'model.safetensors')
    w['final_logits_bias'][0, pad] = 1e3   # as if the head, which was never trained for it, liked it best
    save_file(w, d/'model.safetensors', {'format': 'pt'})
    def answers(): return generate(b := loaded(d), init_prompts(b, 1, 3).double(), encode(b, PAIRS), 4)
    assert answers() == ['', '', '']
    set_json(d/'generation_config.json', bad_words_ids=[[pad]])
    assert all(answers())

@pytest.mark.parametrize('name', ['t5', 'pegasus', 'mbart'])
def test_the_unit_of_a_prior_is_the_size_of_embedded_tokens(folder, name):
    b = load_backbone(folder(name))
    every = b.embed(torch.arange(b.embed.num_embeddings))
    close(torch.tensor(sigma_of(b, every[None, :2], Target(unit='embeddings', sigma=1.))), every.square().mean().sqrt(), 1e-5)

# ---- forms of a tokenizer

TEXTS = ['a warm , funny film', '  two  spaces and\nnewline', 'Yes', 'yes', 'ünï']
ALONE = ['t5', 't5-v1.1', 'mt5', 'umt5', 'longt5', 'bart', 'pegasus', 'mbart']   # families of which one file is enough

def same_ids(d, folder, name):
    got, want = load_backbone(d).tokenizer, FAMILIES[name][0].from_pretrained(folder(name))
    assert [got(t)['input_ids'] for t in TEXTS] == [want(t)['input_ids'] for t in TEXTS]
    assert (got.eos_token_id, got.pad_token_id) == (want.eos_token_id, want.pad_token_id)
    b, c = loaded(folder(name)), loaded(d)
    x = init_prompts(b, 2, 4).double()
    if name != 'm2m100': assert torch.equal(loss_matrix(b, x, [encode(b, PAIRS)]), loss_matrix(c, x, [encode(c, PAIRS)]))

@pytest.mark.parametrize('name', [n for n in ALONE if n != 'bart'])
def test_a_sentencepiece_file_alone(folder, copy, name): same_ids(copy(name, 'token*'), folder, name)

@pytest.mark.parametrize('name', ALONE)
def test_a_tokenizer_json_alone(folder, copy, name):
    d = copy(name, 'token*', 'spiece*', 'sentencepiece*', 'vocab.json', 'merges.txt')
    FAMILIES[name][0].from_pretrained(folder(name))._tokenizer.save(str(d/'tokenizer.json'))
    same_ids(d, folder, name)

@pytest.mark.parametrize('name', NAMES)
def test_a_tokenizer_that_transformers_saved(folder, copy, name):
    d = copy(name, 'token*', 'spiece*', 'sentencepiece*', 'vocab.json', 'merges.txt', '*.spm')
    FAMILIES[name][0].from_pretrained(folder(name)).save_pretrained(d)
    same_ids(d, folder, name)

@pytest.mark.parametrize('name', ALONE)
def test_a_tokenizer_named_by_older_versions(folder, copy, name):
    "`T5TokenizerFast`, files beside that list special and added tokens, a class that the user switched off"
    d = copy(name)
    set_json(d/'tokenizer_config.json', tokenizer_class=FAMILIES[name][0].__name__ + 'Fast', use_fast=False, model_max_length=512)
    tok = FAMILIES[name][0].from_pretrained(folder(name))
    (d/'special_tokens_map.json').write_text(json.dumps({k: getattr(tok, k) for k in ('eos_token', 'pad_token', 'unk_token')}))
    same_ids(d, folder, name)

@pytest.mark.parametrize('name', ['t5', 'bart', 'pegasus', 'mbart'])
def test_a_tokenizer_without_a_class(folder, copy, name):
    d = copy(name)
    (d/'tokenizer_config.json').write_text('{"model_max_length": 512}')
    same_ids(d, folder, name)

# ---- forms of weights

def shards(d, model):
    (d/'model.safetensors').unlink()
    model.save_pretrained(d, max_shard_size='8KB')
    assert len(list(d.glob('model-*.safetensors'))) > 2

def pickled(d, model, **kw):
    (d/'model.safetensors').unlink()
    torch.save(model.state_dict(), d/'pytorch_model.bin', **kw)

def pickled_shards(d, model):
    (d/'model.safetensors').unlink()
    w, where = model.state_dict(), {}
    for i in range(2):
        part = dict(list(w.items())[i::2])
        where |= {k: f'pytorch_model-{i}.bin' for k in part}
        torch.save(part, d/f'pytorch_model-{i}.bin')
    (d/'pytorch_model.bin.index.json').write_text(json.dumps(dict(metadata={}, weight_map=where)))

def rewritten(d, f, **meta):
    save_file({k: w.contiguous() for k, w in f(load_file(d/'model.safetensors')).items()}, d/'model.safetensors', meta or {'format': 'pt'})

def of_old(d, model):
    "Copies of the shared table under each name it has, and a bias that T5 once had"
    table = model.get_input_embeddings().weight.detach()
    names = [k for k in model.state_dict() if k.endswith('embed_tokens.weight') or k == 'lm_head.weight' and model.lm_head.weight is model.get_input_embeddings().weight]
    extra = {'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight': torch.zeros(32, 4)} if model.config.model_type == 't5' else {}
    rewritten(d, lambda w: w | {k: table.clone() for k in names} | extra)

WEIGHTS = dict(
    shards=shards, pickled=pickled, pickled_of_old=lambda d, m: pickled(d, m, _use_new_zipfile_serialization=False), pickled_shards=pickled_shards, of_old=of_old,
    without_format=lambda d, m: rewritten(d, lambda w: w, made='by hand'), float64=lambda d, m: rewritten(d, lambda w: {k: v.double() for k, v in w.items()}))

@pytest.mark.parametrize('form', WEIGHTS)
@pytest.mark.parametrize('name', ['t5', 't5-v1.1', 'umt5', 'longt5-global', 'bart', 'pegasus', 'm2m100'])
def test_weights_in_each_form_are_the_same(folder, copy, name, form):
    b, d = load_backbone(folder(name)), copy(name)
    WEIGHTS[form](d, b.model)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        c = load_backbone(d)
    assert all(torch.equal(v, c.model.state_dict()[k]) for k, v in b.model.state_dict().items())

@pytest.mark.parametrize('dtype, said', [(torch.bfloat16, 'dtype'), (torch.float16, 'torch_dtype')])
@pytest.mark.parametrize('name', ['t5-v1.1', 'pegasus'])
def test_narrow_weights_are_computed_with_in_float32(folder, copy, name, dtype, said):
    d = copy(name)
    rewritten(d, lambda w: {k: v.to(dtype) for k, v in w.items()})
    set_config(d, **{said: str(dtype)[6:]})
    b = load_backbone(d)
    assert {p.dtype for p in b.model.parameters()} == {torch.float32}
    x, exs, direct = init_prompts(b, 1, 4), encode(b, PAIRS), Direct(d, name)   # which reads them in float64, exactly
    close(loss_matrix(b, x, [exs])[0, 0], torch.stack([direct.loss(x[0].double(), *p) for p in PAIRS]).mean().detach(), 1e-5)

# ---- tables and heads

def test_a_head_is_padded_or_cut_with_its_table(folder, copy):
    b = load_backbone(folder('t5-v1.1'))
    x, exs, n = init_prompts(b, 2, 4), encode(b, PAIRS), len(b.tokenizer)
    assert n < b.embed.num_embeddings
    for rows in (n, n + 60):
        d = copy('t5-v1.1')
        def sized(w): return torch.cat([w, w.new_zeros(80, 16)])[:rows]
        rewritten(d, lambda w: {k: sized(v) if k in ('shared.weight', 'lm_head.weight') else v for k, v in w.items()})
        set_config(d, vocab_size=rows)
        m = Direct(d, 't5-v1.1')
        assert m.model.lm_head.weight.shape[0] == rows
        close(loss_matrix(load_backbone(d), x, [exs])[:, 0], torch.stack([torch.stack([m.loss(p.double(), *q) for q in PAIRS]).mean().detach() for p in x]), 1e-5)
    d = copy('t5-v1.1')
    rewritten(d, lambda w: w | {'lm_head.weight': w['lm_head.weight'][:-9]})
    refused(d, 'such as lm_head.weight, has another shape')

@pytest.mark.parametrize('name', ['t5-v1.1', 'mt5', 'umt5'])
def test_a_head_of_its_own_that_is_not_there(copy, name):
    d = copy(name)
    rewritten(d, lambda w: {k: v for k, v in w.items() if k != 'lm_head.weight'})
    refused(d, 'would be random', 'missing (lm_head.weight')

def test_an_untied_bart(folder, copy):
    d = copy('bart')
    table = load_file(d/'model.safetensors')['model.shared.weight']
    copies = {f'model.{side}.embed_tokens.weight': table.clone() for side in ('encoder', 'decoder')}   # transformers 5 does not tie these either
    rewritten(d, lambda w: w | copies | {'lm_head.weight': torch.ones_like(table)})
    set_config(d, tie_word_embeddings=False)
    m = load_backbone(d).model
    assert (m.lm_head.weight == 1).all() and not (m.model.shared.weight == 1).all()
    rewritten(d, lambda w: {k: v for k, v in w.items() if k != 'lm_head.weight'})
    refused(d, 'missing (lm_head.weight')

def test_an_encoder_with_another_table_than_the_model_says(copy):
    "A tie that was broken by saving: the table is not what the encoder looks into"
    d = copy('t5')
    rewritten(d, lambda w: w | {'encoder.embed_tokens.weight': 2*w['shared.weight']})
    refused(d, 'reads embeddings in another way than tokens')

# ---- what is refused

def refused(d, *says):
    with pytest.raises(ValueError) as e: load_backbone(d)
    said = str(e.value)
    assert '\n' not in said and len(said) < 700 and all(s in said for s in (*says, str(d))), said

class Runs:
    "Pickled, it would make a file"
    def __reduce__(self): return os.system, ('touch /tmp/bayes_prompt_was_run',)

def written(name, content): return lambda d: (d/name).write_bytes(content)
def without(*names): return lambda d: [f.unlink() for n in names for f in d.glob(n)]
def index(d, f):
    shards(d, load_backbone(d).model)
    path = d/'model.safetensors.index.json'
    path.write_text(f(path.read_text()))
def one_shard_less(d):
    index(d, lambda s: s)
    sorted(d.glob('model-*'))[1].unlink()
def renamed(prefix): return lambda d: rewritten(d, lambda w: {prefix + k: v for k, v in w.items()})
def executable(d):
    without('model*')(d)
    torch.save({'a': Runs()}, d/'pytorch_model.bin')
def only(name):
    def f(d):
        without('model*')(d)
        (d/name).write_bytes(b'x')
    return f
def adapter(d):
    from peft import LoraConfig, get_peft_model
    get_peft_model(load_backbone(d).model, LoraConfig(task_type='SEQ_2_SEQ_LM', r=2, target_modules=['q', 'v'])).save_pretrained(d)
def wrapped(d):
    from peft import LoraConfig, get_peft_model
    model = get_peft_model(load_backbone(d).model, LoraConfig(task_type='SEQ_2_SEQ_LM', r=2, target_modules=['q', 'v']))
    save_file({k: v.clone() for k, v in model.state_dict().items()}, d/'model.safetensors', {'format': 'pt'})

def own_code(d):
    "Which transformers would ask about on the terminal"
    set_config(d, model_type='mine', auto_map={'AutoConfig': 'mine.Config', 'AutoModelForSeq2SeqLM': 'mine.Model'})
    (d/'mine.py').write_text('import os\nos.system("touch /tmp/bayes_prompt_was_run")\n')

POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 9\n'
DAMAGED = dict(
    no_configuration=(without('config.json'), 'It has no config.json'), no_weights=(without('model*'), 'It has no weights of PyTorch'), no_vocabulary=(without('spiece.model'), 'knows no words'),
    no_tokenizer=(without('spiece.model', 'token*'), 'knows no words'), empty_weights=(written('model.safetensors', b''), 'Empty: model.safetensors'),
    empty_vocabulary=(written('spiece.model', b''), 'Empty: spiece.model'), empty_configuration=(written('config.json', b''), 'Empty: config.json'),
    pointer=(written('model.safetensors', POINTER), 'run git lfs pull: model.safetensors'), pointers=(written('spiece.model', POINTER), 'run git lfs pull: spiece.model'),
    header=(written('model.safetensors', b'\xff'*200), 'The loader of its weights said'), vocabulary=(written('spiece.model', b'\xff'*200), 'The loader of its tokenizer said'),
    tokenizer_json=(written('tokenizer.json', b'{"model"'), 'The loader of its tokenizer said'),
    tensorflow=(only('tf_model.h5'), 'only tf_model.h5'), flax=(only('flax_model.msgpack'), 'only flax_model.msgpack'), no_pickle=(only('pytorch_model.bin'), 'weights said'),
    executable=(executable, 'Python objects, which are never run'), a_shard_is_missing=(one_shard_less, 'model-00002-of-'),
    index_names_others=(lambda d: index(d, lambda s: s.replace('00003-of', '00099-of')), 'model-00099-of-'), index_is_cut=(lambda d: index(d, lambda s: s[:50]), 'The loader of its weights said'),
    no_index=(lambda d: [index(d, lambda s: s), (d/'model.safetensors.index.json').unlink()], 'without the index'),
    module=(renamed('module.'), 'would be random', '(module.'), compiled=(renamed('_orig_mod.'), 'would be random'), model=(renamed('model.'), 'would be random'), peft=(wrapped, 'would be random', 'base_layer'),
    a_part=(lambda d: rewritten(d, lambda w: {k: v for k, v in w.items() if 'EncDecAttention' not in k}), 'EncDecAttention'),
    a_shape=(lambda d: set_config(d, d_ff=40), 'mismatched (decoder.block.0.layer.2.DenseReluDense.wi.weight'), rows=(lambda d: set_config(d, vocab_size=240), 'mismatched (', 'shared.weight'),
    layers=(lambda d: set_config(d, num_layers=3), 'missing (encoder.block.2'), no_numbers=(lambda d: rewritten(d, lambda w: w | {'shared.weight': w['shared.weight']*torch.nan}), 'no finite numbers'),
    quantised=(lambda d: set_config(d, quantization_config=dict(quant_method='bitsandbytes', load_in_4bit=True)), 'quantised weights'),
    no_start=(lambda d: set_config(d, decoder_start_token_id=None), 'set decoder_start_token_id and pad_token_id'), no_padding=(lambda d: set_config(d, pad_token_id=None), 'set decoder_start_token_id and pad_token_id'),
    half=(lambda d: set_config(d, is_encoder_decoder=False), 'is_encoder_decoder is false'), own_code=(own_code, 'The loader of its configuration said'),
    adapter=(adapter, 'an adapter beside its weights'), adapter_alone=(lambda d: [adapter(d), without('model*', 'config.json')(d)], 'It holds an adapter of PEFT'),
    added=(lambda d: set_json(d/'tokenizer_config.json', additional_special_tokens=[f'<{i}>' for i in range(9)] + [f'<extra_id_{i}>' for i in range(100)]), 'embedding table of 168 rows'))

@pytest.mark.parametrize('damage', DAMAGED)
def test_a_folder_that_is_not_whole_is_one_sentence(copy, damage):
    d, (f, *says) = copy('t5'), DAMAGED[damage]
    f(d)
    refused(d, *says)
    assert not os.path.exists('/tmp/bayes_prompt_was_run')

@pytest.mark.parametrize('name, without, says', [
    ('bart', ['vocab.json', 'merges.txt'], 'knows no words'), ('pegasus', ['spiece*'], 'The loader of its tokenizer said'), ('mbart', ['sentencepiece*'], 'knows no words'), ('nllb', ['tokenizer.json'], 'knows no words'),
    ('byt5', ['token*'], 'knows no words'), ('umt5', ['spiece*'], 'knows no words'), ('longt5', ['spiece*', 'token*'], 'knows no words'),
    ('marian', ['vocab.json'], 'The loader of its tokenizer said'), ('marian', ['source.spm'], 'The loader of its tokenizer said'), ('m2m100', ['sentencepiece*'], 'The loader of its tokenizer said')])
def test_a_vocabulary_that_is_missing(copy, name, without, says): refused(copy(name, *without), 'is not a whole encoder–decoder', says)

def test_words_that_a_user_added_are_no_vocabulary(folder, copy):
    d = copy('t5', 'spiece*')
    (d/'added_tokens.json').write_text(json.dumps({f'word{i}': 104 + i for i in range(20)}))
    set_json(d/'tokenizer_config.json', added_tokens_decoder={str(104+i): dict(content=f'word{i}', special=False) for i in range(20)})
    refused(d, 'knows no words')

def test_a_vocabulary_of_another_model(folder, copy):
    d = copy('t5', 'spiece*', 'token*')
    for f in ('vocab.json', 'merges.txt', 'tokenizer_config.json'): shutil.copy(folder('bart')/f, d)
    refused(d, 'ids up to 319', '168 rows', 'do not belong together')
    d = copy('t5', 'spiece*', 'token*')
    write_tokenizer('marian', d)   # its ids fit, but a text ends with another
    with pytest.warns(UserWarning, match=r'ids up to 63 and ends texts with 0, not 1, and the model a table of 168 rows: make sure'): load_backbone(d)

def test_a_vocabulary_much_smaller_than_the_table(folder, copy):
    d = copy('t5', 'model*')
    FAMILIES['t5'][1](hf.T5Config(vocab_size=2000, **OF_T5)).save_pretrained(d)
    with pytest.warns(UserWarning, match='ids up to 163, and the model a table of 2000 rows'): load_backbone(d)

S = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
B = {k: v for k, v in OF_BART.items()}
OTHERS = dict(
    T5EncoderModel=lambda: hf.T5EncoderModel(hf.T5Config(vocab_size=168, **OF_T5)), T5ForTokenClassification=lambda: hf.T5ForTokenClassification(hf.T5Config(vocab_size=168, **OF_T5)),
    BertModel=lambda: hf.BertModel(hf.BertConfig(vocab_size=168, **S)), BertForSequenceClassification=lambda: hf.BertForSequenceClassification(hf.BertConfig(vocab_size=168, **S)),
    DebertaV2Model=lambda: hf.DebertaV2Model(hf.DebertaV2Config(vocab_size=168, **S)), ViTModel=lambda: hf.ViTModel(hf.ViTConfig(image_size=16, patch_size=8, **S)),
    WhisperForConditionalGeneration=lambda: hf.WhisperForConditionalGeneration(hf.WhisperConfig(
        vocab_size=168, num_mel_bins=8, pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2, begin_suppress_tokens=None, **{k: v for k, v in B.items() if k != 'max_position_embeddings'})))

@pytest.mark.parametrize('kind', OTHERS)
def test_a_model_that_does_not_write_text_is_named(copy, kind):
    d = copy('t5', 'model*', 'config.json', 'generation_config.json')
    OTHERS[kind]().save_pretrained(d)
    refused(d, kind)

def test_an_encoder_that_says_it_has_a_decoder(copy):
    d = copy('t5', 'model*')
    OTHERS['T5EncoderModel']().save_pretrained(d)
    set_config(d, is_encoder_decoder=True)
    refused(d, 'a T5EncoderModel, read as a T5ForConditionalGeneration', 'missing (decoder')

def test_a_masked_language_model_looks_ahead(copy):
    d = copy('t5', 'model*', 'config.json')
    torch.manual_seed(0)
    hf.BertForMaskedLM(hf.BertConfig(vocab_size=168, initializer_range=.5, **S)).save_pretrained(d)
    refused(d, 'looks ahead')

def test_a_base_model_without_its_tied_head_is_whole(copy):
    d = copy('t5', 'model*')
    model = hf.T5Model(hf.T5Config(vocab_size=168, **OF_T5))
    model.save_pretrained(d)
    assert torch.equal(load_backbone(d).embed.weight, model.shared.weight)

def test_weights_of_another_head_are_said(copy):
    d = copy('bart', 'model*')
    hf.BartForSequenceClassification(hf.BartConfig(vocab_size=320, **OF_BART)).save_pretrained(d)
    with pytest.warns(UserWarning, match='does not use: 4 unexpected .classification_head'): load_backbone(d)

def test_a_file_is_no_folder(folder): refused(folder('t5')/'model.safetensors', 'is a file: name the folder')

def test_an_encoder_that_reads_embeddings_in_another_way_is_refused(folder, monkeypatch):
    "As Pegasus would be, if nobody multiplied"
    monkeypatch.setattr('bayes_prompt.backbone.embedding', lambda model: model.get_input_embeddings())
    refused(folder('pegasus'), "'pegasus' reads embeddings in another way than tokens")

# ---- positions and languages

@pytest.mark.parametrize('name', ['bart', 'pegasus', 'marian', 'm2m100'])
def test_prompt_and_text_fill_the_positions_there_are(folder, name):
    b, direct, text = loaded(folder(name), name), Direct(folder(name), name), 'a warm film'
    first = direct.tok(text, add_special_tokens=False)['input_ids']
    x = init_prompts(b, 1, len(first), text=text).double()
    e, = encode(b, [('a flat and lifeless movie '*9, 'good')], max_src=99, length=len(first))
    assert b.max_len == 48 and len(e.ids) + len(first) == 48 and e.cut
    ids = torch.tensor([[*first, *e.ids]])
    close(loss_matrix(b, x, [[e]])[0, 0], direct.model(input_ids=ids, labels=direct.target('good')).loss.detach())
    with pytest.raises(ValueError, match='at most 40 rows, got 41'): init_prompts(b, 1, 41)

@pytest.mark.parametrize('name', ['bart', 'pegasus', 'marian', 'nllb'])
def test_a_target_longer_than_the_decoder(folder, name):
    b = loaded(folder(name))
    with pytest.raises(ValueError, match=r"target 'positive positive .*' has \d+ tokens, and backbone .* writes at most 48"): encode(b, [('a', 'good'), ('b', 'positive '*40)])
    long, = encode(b, [('a film', 'fox '*9)])
    x = init_prompts(b, 1, 3).double()
    assert loss_matrix(b, x, [[long]]).isfinite().all() and generate(b, x, [long], 99) == generate(b, x, [long], 48)

def test_positions_of_either_side(copy):
    d = copy('bart', 'model*', 'config.json')
    sizes = {k: v for k, v in OF_BART.items() if k != 'max_position_embeddings'}
    hf.LEDForConditionalGeneration(hf.LEDConfig(vocab_size=320, attention_window=8, max_encoder_position_embeddings=64, max_decoder_position_embeddings=32, **sizes)).save_pretrained(d)
    b = load_backbone(d)
    assert (b.max_len, b.max_target) == (64, 32)

def test_a_language_of_targets_is_asked_for(folder, copy):
    b = load_backbone(folder('m2m100'))
    with pytest.raises(ValueError, match='got None: set tgt_lang in its tokenizer_config.json') as e: label_ids(b, ['good'])
    assert '\n' not in str(e.value)
    d = copy('m2m100')
    set_json(d/'tokenizer_config.json', src_lang='de', tgt_lang='fr')
    b = load_backbone(d)
    tok = hf.M2M100Tokenizer.from_pretrained(folder('m2m100'), src_lang='de', tgt_lang='fr')
    e, = encode(b, [('a film', 'good')])
    assert list(e.ids) == tok('a film')['input_ids'] and list(e.labels) == tok(text_target='good')['input_ids']
    assert e.labels[0] == tok.get_lang_id('fr') and e.ids[0] == tok.get_lang_id('de')

def test_a_word_that_a_translator_lacks_is_no_language(folder):
    b = load_backbone(folder('mbart'))
    assert b.tokenizer.unk_token_id in label_ids(b, ['да'])[0]

@pytest.mark.parametrize('name', ['nllb', 'mbart50'])
def test_the_language_of_targets_is_the_texts_unless_it_is_set(folder, name):
    b = load_backbone(folder(name))
    e, = encode(b, [('a film', 'good')])
    assert e.ids[0] == e.labels[0] != b.tokenizer.unk_token_id
    b.tokenizer.tgt_lang = LANGUAGE[name]
    assert label_ids(b, ['good'])[0][0] == b.tokenizer.convert_tokens_to_ids(LANGUAGE[name])
    b.tokenizer.tgt_lang = 'xx'
    with pytest.raises(ValueError, match="got 'xx': set tgt_lang"): label_ids(b, ['good'])

def test_languages_that_are_missing_never_pass(folder, copy):
    "Of NLLB's sentencepiece.bpe.model alone, transformers makes a tokenizer that knows none"
    d = copy('nllb', 'token*')
    write_vocabulary('nllb', d)
    (d/'tokenizer_config.json').write_text('{"tokenizer_class": "NllbTokenizer"}')
    refused(d, "does not know the language 'eng_Latn'")
    d = copy('m2m100', 'model*')
    hf.M2M100ForConditionalGeneration(hf.M2M100Config(vocab_size=96, **OF_BART)).save_pretrained(d)
    refused(d, '96 rows', 'do not belong together')

# ---- texts and choices

@pytest.mark.parametrize('name', ['byt5', 'marian', 'm2m100'])
def test_what_just_fits_is_not_cut(folder, name):
    "Also of tokenizers in Python, which do not say what they left out"
    b = loaded(folder(name), name)
    pair = [('a flat and lifeless movie', 'good')]
    n = len(encode(b, pair)[0].ids)
    assert [encode(b, pair, max_src=m)[0].cut for m in (n-1, n, n+1)] == [True, False, False]

def test_choices_that_a_vocabulary_merges(folder, copy):
    b = load_backbone(folder('t5'))
    with pytest.raises(ValueError, match='are the same tokens'): label_ids(b, ['да', 'не'], distinct=True)
    assert len(set(label_ids(load_backbone(folder('byt5')), ['да', 'не', 'Yes', 'yes'], distinct=True))) == 4
    from tokenizers import normalizers
    d, tok = copy('t5', 'spiece*'), hf.T5Tokenizer.from_pretrained(folder('t5'))
    tok._tokenizer.normalizer = normalizers.Lowercase()
    hf.PreTrainedTokenizerFast(tokenizer_object=tok._tokenizer, eos_token='</s>', pad_token='<pad>', unk_token='<unk>').save_pretrained(d)
    set_json(d/'tokenizer_config.json', tokenizer_class='PreTrainedTokenizerFast')
    with pytest.raises(ValueError, match="'Yes' and 'yes' are the same tokens"): label_ids(load_backbone(d), ['Yes', 'yes'], distinct=True)
