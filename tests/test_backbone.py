"A backbone is loaded whole or refused; what fits into a device"
import json, shutil, warnings
from dataclasses import replace
import pytest, torch
from safetensors.torch import load_file, save_file
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration
from bayes_prompt.backbone import load_backbone, token_budget, within_memory

T5 = dict(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0, pad_token_id=0)
BART = dict(d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32)

@pytest.fixture(scope='module')
def tok(tiny): return tiny.tokenizer

@pytest.fixture(scope='module')
def folders(tok, tmp_path_factory):
    "Tiny models with their folders: T5 v1.0 with a tied head, T5 v1.1 with a head of its own, BART"
    root, out = tmp_path_factory.mktemp('models'), {}
    torch.manual_seed(0)
    own = T5ForConditionalGeneration(T5Config(vocab_size=len(tok), feed_forward_proj='gated-gelu', tie_word_embeddings=False, **T5))
    own.lm_head.weight = torch.nn.Parameter(torch.randn(len(tok), 32))
    models = {'t5': T5ForConditionalGeneration(T5Config(vocab_size=len(tok), **T5)), 'v1.1': own,
              'bart': BartForConditionalGeneration(BartConfig(vocab_size=len(tok), **BART))}
    for name, model in models.items():
        model.save_pretrained(root/name)
        tok.save_pretrained(root/name)
        out[name] = root/name, model
    return out

def changed(folder, tmp_path, weights=lambda w: w, **config):
    "A copy with other weights or another configuration"
    new = shutil.copytree(folder, tmp_path/'copy')
    save_file(weights(load_file(new/'model.safetensors')), new/'model.safetensors', {'format': 'pt'})
    if config: (new/'config.json').write_text(json.dumps(json.loads((new/'config.json').read_text()) | config))
    return new

def refused(folder, *says):
    with pytest.raises(ValueError) as e: load_backbone(folder)
    assert '\n' not in str(e.value) and all(s in str(e.value) for s in says), str(e.value)

def same(folder, model):
    b = load_backbone(folder)
    return all(torch.equal(p, q) for p, q in zip(b.model.parameters(), model.parameters()))

@pytest.mark.parametrize('name', ['t5', 'v1.1', 'bart'])
def test_a_whole_folder_is_loaded_with_its_own_weights(folders, name):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert same(*folders[name])
    b = load_backbone(folders[name][0])
    assert not b.model.training and not any(p.requires_grad for p in b.model.parameters()) and b.embed.weight.dtype == torch.float32

@pytest.mark.parametrize('name', ['t5', 'v1.1', 'bart'])
def test_weights_with_a_prefix_are_missing_ones(folders, tmp_path, name):
    "As a wrapper saves them; random numbers would take their place"
    folder = changed(folders[name][0], tmp_path, lambda w: {f'module.{k}': v for k, v in w.items()})
    refused(folder, 'would be random', 'missing (', 'unexpected (module.')

def test_a_prefix_that_transformers_knows_is_none_for_bart_and_refused_for_t5(folders, tmp_path):
    prefix = lambda w: {f'model.{k}': v for k, v in w.items()}
    refused(changed(folders['t5'][0], tmp_path/'a', prefix), 'missing (shared.weight', 'unexpected (model.')
    folder, model = folders['bart']
    try: assert same(changed(folder, tmp_path/'b', prefix), model)   # if it is loaded, then with these weights
    except ValueError as e: assert 'would be random' in str(e)

@pytest.mark.parametrize('name, part', [('t5', 'EncDecAttention'), ('t5', 'shared'), ('v1.1', 'wi_1'), ('bart', 'fc1'), ('bart', 'embed_positions')])
def test_a_part_that_is_missing_is_named(folders, tmp_path, name, part):
    refused(changed(folders[name][0], tmp_path, lambda w: {k: v for k, v in w.items() if part not in k}), 'would be random', part)

def test_a_weight_of_another_shape_is_named(folders, tmp_path):
    folder = changed(folders['t5'][0], tmp_path, lambda w: w | {'encoder.final_layer_norm.weight': torch.zeros(7)})
    refused(folder, '1 mismatched (encoder.final_layer_norm.weight)')

def test_a_head_of_its_own_is_missed(folders, tmp_path):
    "T5 v1.1 as on the Hub says that its head is not tied; transformers would tie it"
    folder, model = folders['v1.1']
    assert same(changed(folder, tmp_path/'a', tie_word_embeddings=False), model)
    refused(changed(folder, tmp_path/'b', lambda w: {k: v for k, v in w.items() if 'lm_head' not in k}, tie_word_embeddings=False), '1 missing (lm_head.weight)')

def test_tied_weights_need_not_be_there(folders, tmp_path):
    folder, model = folders['t5']
    assert 'lm_head.weight' not in load_file(folder/'model.safetensors') and same(folder, model)
    alias = changed(folder, tmp_path, lambda w: {'encoder.embed_tokens.weight' if k == 'shared.weight' else k: v for k, v in w.items()})
    assert same(alias, model)

def test_weights_that_are_left_over_are_said(folders, tmp_path):
    folder, model = folders['t5']
    extra = changed(folder, tmp_path, lambda w: w | {'classifier.weight': torch.zeros(2, 2)})
    with pytest.warns(UserWarning, match=r'does not use: 1 unexpected \(classifier.weight\)'): assert same(extra, model)

@pytest.mark.parametrize('name', ['t5', 'bart'])
def test_a_folder_without_tokenizer_files(folders, tmp_path, name):
    folder = shutil.copytree(folders[name][0], tmp_path/'copy')
    for f in folder.glob('token*'): f.unlink()
    refused(folder, 'is not a whole encoder–decoder with its tokenizer: save or fetch it again', 'knows no words')

def test_a_tokenizer_of_bytes_has_words_enough(tmp_path):
    from transformers import ByT5Tokenizer
    T5ForConditionalGeneration(T5Config(vocab_size=384, **T5)).save_pretrained(tmp_path)
    ByT5Tokenizer().save_pretrained(tmp_path)
    assert len(load_backbone(tmp_path).tokenizer('ab')['input_ids']) == 3

def test_a_tokenizer_with_more_tokens_than_the_model(tok, tmp_path):
    T5ForConditionalGeneration(T5Config(vocab_size=len(tok) - 3, **T5)).save_pretrained(tmp_path)
    tok.save_pretrained(tmp_path)
    refused(tmp_path, f'ids up to {len(tok)-1}', f'{len(tok)-3} rows')

def test_a_folder_that_says_it_is_another_model(folders, tmp_path):
    folder = shutil.copytree(folders['t5'][0], tmp_path/'copy')
    (folder/'config.json').write_text('{"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1}')
    refused(folder, 'would be random', 'missing (transformer.wte.weight', 'unexpected (')

@pytest.mark.parametrize('config', ['[]', '', '{"model_type": "t5", "d_model": "x"}', '{"model_type": "t5", "d_model": -1}'])
def test_a_damaged_folder(folders, tmp_path, config):
    folder = shutil.copytree(folders['t5'][0], tmp_path/'copy')
    (folder/'config.json').write_text(config)
    refused(folder, 'is not a whole encoder–decoder with its tokenizer')

def test_cut_weights_and_an_empty_folder(folders, tmp_path):
    folder = shutil.copytree(folders['t5'][0], tmp_path/'copy')
    (folder/'model.safetensors').write_bytes((folder/'model.safetensors').read_bytes()[:5000])
    refused(folder, 'is not a whole')
    (tmp_path/'empty').mkdir()
    refused(tmp_path/'empty', 'is not a whole')

@pytest.mark.parametrize('name, hint', [('minni', "nearest known name is 'mini'"), ('T5_small', "nearest known name is 't5-small'"), ('zzzzzz', 'a local folder or a Hugging Face id'), (None, 'no backbone')])
def test_an_unknown_name(name, hint):
    with pytest.raises(ValueError, match='no backbone') as e: load_backbone(name)
    assert hint in str(e.value) and '\n' not in str(e.value)

@pytest.mark.skipif(torch.cuda.is_available(), reason='for machines without a GPU')
@pytest.mark.parametrize('device', ['cuda', 'cuda:7'])
def test_no_gpu_is_one_sentence(device):
    with pytest.raises(ValueError, match=f"device '{device}' is not available here"): load_backbone('tiny-t5', device)

@pytest.mark.parametrize('device', ['meta', 'gpu', '', None, 1.5])
def test_no_device_is_one_sentence(device):
    with pytest.raises(ValueError, match='is not available here: use "cpu"'): load_backbone('tiny-t5', device)

def test_a_dtype_has_a_name(tiny):
    for dtype in ('bfloat16', torch.bfloat16): assert load_backbone('tiny-t5', dtype=dtype).embed.weight.dtype == torch.bfloat16
    for dtype in ('float16', torch.float16):
        with pytest.raises(ValueError, match='float16 overflows in T5'): load_backbone('tiny-t5', dtype=dtype)
    with pytest.raises(ValueError, match="no dtype 'int8'.*float32, bfloat16"): load_backbone('tiny-t5', dtype=torch.int8)

def test_the_random_t5_is_the_same_every_time_and_leaves_the_generator():
    state = torch.get_rng_state()
    a, b = load_backbone('tiny-t5'), load_backbone('tiny-t5')
    assert torch.equal(torch.get_rng_state(), state) and all(torch.equal(p, q) for p, q in zip(a.model.parameters(), b.model.parameters()))

def test_log_and_bars_are_as_before():
    from transformers import logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        logging.set_verbosity_info()
        logging.disable_progress_bar()
        with pytest.raises(ValueError): load_backbone('nobody/nothing')
        assert logging.get_verbosity() == logging.INFO and not logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity(level)
        if bars: logging.enable_progress_bar()

def test_positions(mini, tiny): assert mini.max_len == 320 and tiny.max_len is None and mini.width == 384

def test_no_room_at_all_is_one_sentence():
    b = load_backbone('tiny-t5')
    def f(): raise torch.OutOfMemoryError('CUDA out of memory')
    with pytest.raises(MemoryError, match='no room for 64 tokens at a time'): within_memory(b, f)

def test_the_budget_of_a_gpu_grows_with_its_memory():
    c = T5Config(d_model=768, num_layers=12, num_heads=12)
    assert token_budget(c, 0) == 1024
    assert token_budget(c, 80*2**30, 2) == 2*token_budget(c, 40*2**30, 2) > 4*token_budget(c, 16*2**30, 4) > 4096

@pytest.mark.parametrize('scale', [False, True])
def test_the_size_of_embeddings_is_that_of_what_the_model_sees(tiny, scale):
    "BART's may multiply its rows by the root of the width"
    small = dict(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                 decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32)
    bart = BartForConditionalGeneration(BartConfig(**small, scale_embedding=scale, bos_token_id=0, eos_token_id=2))
    rows = bart.get_input_embeddings().weight.detach()
    want = rows.square().mean().sqrt().item()*(4 if scale else 1)
    assert replace(tiny, model=bart).embedding_size == pytest.approx(want, rel=1e-5)
