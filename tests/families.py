"Tiny models with random weights of the families that users have, and tokenizers trained here, as on the Hub"
import io, json
from functools import cache
import sentencepiece, torch, transformers as hf
from tokenizers import ByteLevelBPETokenizer

TEXT = 4*['a warm , funny , engaging film', 'a flat and lifeless movie', 'review: the acting is good', 'sentence: the plot is bad', 'positive', 'negative', 'not at all',
          'Which of the two is better ?', 'The quick brown fox jumps over the lazy dog', 'question: who wrote it ? answer: nobody knows']
OF_T5 = dict(d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, initializer_factor=3.)
OF_BART = dict(d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
               max_position_embeddings=48, init_std=.5)
OWN = OF_T5 | dict(feed_forward_proj='gated-gelu', tie_word_embeddings=False)
SCALED = OF_BART | dict(scale_embedding=True)
LIKE_T5 = dict(pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
T5, LONG, M2M = hf.T5ForConditionalGeneration, hf.LongT5ForConditionalGeneration, hf.M2M100ForConditionalGeneration

# name: tokenizer class, model class, configuration; Marian's pad is its last token
FAMILIES = {
    't5': (hf.T5Tokenizer, T5, hf.T5Config, OF_T5), 't5-v1.1': (hf.T5Tokenizer, T5, hf.T5Config, OWN), 'mt5': (hf.T5Tokenizer, hf.MT5ForConditionalGeneration, hf.MT5Config, OWN),
    'umt5': (hf.T5Tokenizer, hf.UMT5ForConditionalGeneration, hf.UMT5Config, OWN), 'byt5': (hf.ByT5Tokenizer, T5, hf.T5Config, OWN),
    'longt5': (hf.T5Tokenizer, LONG, hf.LongT5Config, OF_T5 | dict(encoder_attention_type='local', local_radius=5)),
    'longt5-global': (hf.T5Tokenizer, LONG, hf.LongT5Config, OF_T5 | dict(encoder_attention_type='transient-global', local_radius=5, global_block_size=4)),
    'bart': (hf.BartTokenizer, hf.BartForConditionalGeneration, hf.BartConfig, OF_BART | dict(forced_bos_token_id=0)),
    'pegasus': (hf.PegasusTokenizer, hf.PegasusForConditionalGeneration, hf.PegasusConfig, SCALED | LIKE_T5), 'marian': (hf.MarianTokenizer, hf.MarianMTModel, hf.MarianConfig, SCALED | dict(eos_token_id=0)),
    'm2m100': (hf.M2M100Tokenizer, M2M, hf.M2M100Config, SCALED | dict(decoder_start_token_id=2)), 'nllb': (hf.NllbTokenizer, M2M, hf.M2M100Config, SCALED | dict(decoder_start_token_id=2)),
    'mbart': (hf.MBartTokenizer, hf.MBartForConditionalGeneration, hf.MBartConfig, SCALED), 'mbart50': (hf.MBart50Tokenizer, hf.MBartForConditionalGeneration, hf.MBartConfig, SCALED | dict(decoder_start_token_id=2))}
SCALE = dict(pegasus=4., marian=4.) # what their encoders multiply beside the table, the root of 16

@cache
def sentencepiece_model(kind='unigram', **ids):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXT), model_writer=out, vocab_size=90, model_type=kind, hard_vocab_limit=False, minloglevel=2, **ids)
    return out.getvalue()

def pieces(model):
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [sp.IdToPiece(i) for i in range(len(sp))]

def numbered(words): return json.dumps({w: i for i, w in enumerate(words)})

OF_FAIRSEQ, FIRST = dict(unk_id=0, bos_id=1, eos_id=2), ['<s>', '<pad>', '</s>', '<unk>']

def write_vocabulary(name, d):
    "The files a vocabulary is kept in"
    if name == 'byt5': return
    if name == 'bart':
        bpe = ByteLevelBPETokenizer()
        bpe.train_from_iterator(TEXT, vocab_size=320, special_tokens=[*FIRST, '<mask>'], show_progress=False)
        bpe.save_model(str(d))
    elif name == 'marian':
        model = sentencepiece_model(unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1)
        for f in ('source.spm', 'target.spm'): (d/f).write_bytes(model)
        (d/'vocab.json').write_text(numbered(['</s>', '<unk>', *pieces(model)[1:], '<pad>']))
    elif name in ('m2m100', 'nllb', 'mbart', 'mbart50'):
        model = sentencepiece_model('unigram' if 'mbart' in name else 'bpe', **OF_FAIRSEQ)
        (d/'sentencepiece.bpe.model').write_bytes(model)
        if name == 'm2m100': (d/'vocab.json').write_text(numbered([*FIRST, *pieces(model)[3:]]))
    else: (d/'spiece.model').write_bytes(sentencepiece_model(pad_id=0, eos_id=1, unk_id=2, bos_id=-1))

def write_tokenizer(name, d):
    "The vocabulary and the file that names the class; gives the tokenizer, by its class"
    cls = FAMILIES[name][0]
    write_vocabulary(name, d)
    said = dict(tokenizer_class=cls.__name__) | (dict(extra_ids=0) if 'mt5' in name else {}) | (dict(source_lang='en', target_lang='de') if name == 'marian' else {})
    (d/'tokenizer_config.json').write_text(json.dumps(said))
    tok = cls.from_pretrained(d)
    if name == 'nllb': # of the file alone transformers makes one without languages
        tok = cls(vocab=tok._vocab, merges=tok._merges)
        (d/'sentencepiece.bpe.model').unlink()
        tok.save_pretrained(d)
    return tok

def make_model(name, tok, seed=0):
    "A model whose table is padded to a multiple of 8, Marian's apart; weights of a head and biases are its own"
    _, cls, config, kw = FAMILIES[name]
    n = max(tok.get_vocab().values()) + 1
    if name == 'm2m100': n += 108 # languages, which are no part of the vocabulary
    if name == 'marian': kw = kw | dict(pad_token_id=n-1, decoder_start_token_id=n-1)
    torch.manual_seed(seed)
    model = cls(config(vocab_size=n if name == 'marian' else -(-n//8)*8, **kw))
    if kw.get('tie_word_embeddings') is False: model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    if hasattr(model, 'final_logits_bias'): model.final_logits_bias = torch.randn_like(model.final_logits_bias)
    return model.eval()

def make_folder(name, d):
    d.mkdir(parents=True)
    model = make_model(name, write_tokenizer(name, d))
    model.save_pretrained(d)
    if kw_untied(name): set_config(d, tie_word_embeddings=False) # as on the Hub; transformers 5 writes another word
    return d

def kw_untied(name): return FAMILIES[name][3].get('tie_word_embeddings') is False

def set_json(path, **kw): path.write_text(json.dumps(json.loads(path.read_text()) | kw))

def set_config(d, **kw): set_json(d/'config.json', **kw)
