"Text to ids as the model knows them, and prompts in front"
import pytest, torch
from dataclasses import replace
from transformers import BartConfig, BartForConditionalGeneration
from bayes_prompt.backbone import Backbone
from bayes_prompt.data import load_task
from bayes_prompt.prompt import encode, init_prompts, label_ids, prepend_prompt

class Tok:
    "A tokenizer of words, with what stands before and after a target's"
    bos_token_id = cls_token_id = 0
    pad_token_id, eos_token_id, sep_token_id = 1, 2, 2
    def __init__(self, before=(), after=()): self.before, self.after = list(before), list(after)
    def __call__(self, text_target): return dict(input_ids=self.before + [10 + len(w) for w in text_target.split()] + self.after)

def backbone(tok, **config):
    size = dict(vocab_size=50, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8)
    return Backbone('bart', BartForConditionalGeneration(BartConfig(**size | config)), tok)

def test_targets_are_the_tokens_before_the_end(bb):
    "Of mini and of a T5"
    tok, task = bb.tokenizer, load_task('supersense')
    texts = [*task.choices, 'a long answer, in Words.', '3.5']
    assert label_ids(bb, texts) == [(*tok(t, add_special_tokens=False)['input_ids'], tok.sep_token_id) for t in texts]

def test_targets_of_bart_have_their_first_token():
    assert label_ids(backbone(Tok([0], [2])), ['ab c']) == [(0, 12, 11, 2)]
    assert label_ids(backbone(Tok([0], [2]), decoder_start_token_id=0), ['ab c']) == [(12, 11, 2)]   # the decoder is started with it
    assert label_ids(backbone(Tok([], [2])), ['ab c']) == label_ids(backbone(Tok()), ['ab c']) == [(12, 11, 2)]

def test_targets_of_translation_have_a_language():
    assert label_ids(backbone(Tok([40], [2])), ['ab']) == [(40, 12, 2)]   # before, as mBART-50 and NLLB
    assert label_ids(backbone(Tok([], [2, 40])), ['ab']) == [(12, 2, 40)]   # after, as mBART

@pytest.mark.parametrize('choices', [['{', '}'], ['Yes', 'no', 'yes'], ['US', 'us'], ['да', 'не']])
def test_choices_of_the_same_tokens_are_refused(tiny, choices):
    ids = label_ids(tiny, choices)
    if len(set(ids)) == len(ids): choices = [choices[0], f' {choices[0]}  ']   # the vocabulary does know them: add one that differs by spaces only
    with pytest.raises(ValueError, match='are the same tokens for backbone') as e: label_ids(tiny, choices, distinct=True)
    assert '\n' not in str(e.value)

def test_the_same_choice_twice_is_one(tiny): assert len(label_ids(tiny, ['yes', 'no', 'yes'], distinct=True)) == 3

def test_a_text_is_not_a_list_of_letters(tiny):
    with pytest.raises(ValueError, match="expected a list of texts, got the text 'positive'"): label_ids(tiny, 'positive')

def test_encode_reads_any_iterable(bb):
    pairs = [('a film', 'good'), ('a play', 'bad')]
    want = encode(bb, pairs, task='t')
    assert encode(bb, iter(pairs), task='t') == encode(bb, (p for p in pairs), task='t') == encode(bb, tuple(pairs), task='t') == want
    assert [e.task for e in want] == ['t', 't'] and encode(bb, []) == encode(bb, iter([])) == []

@pytest.mark.parametrize('pairs, says', [
    (None, 'expected a list of'), (3, 'expected a list of'), ('ab', "got 'a' in pair 0"), (['ab'], "got 'ab' in pair 0"), ([('a', 'b'), None], 'got None in pair 1'),
    ([('a', None)], r"got \('a', None\) in pair 0"), ([(1, 'b')], r"got \(1, 'b'\)"), ([('a', 'b', 'c')], 'expected a text and a target'),
    ([('a', 'b'), (' ', 'b')], 'an empty one in pair 1'), ([('a', '')], 'an empty one in pair 0'), ([('x'*10**6, 3)], 'in pair 0')])
def test_what_is_no_pair_of_texts_is_one_sentence(tiny, pairs, says):
    with pytest.raises(ValueError, match=says) as e: encode(tiny, pairs)
    assert '\n' not in str(e.value) and len(str(e.value)) < 300

def test_inputs_are_cut_and_say_so(bb):
    short, long = encode(bb, [('a film', 'good'), ('a film '*40, 'good')], max_src=16)
    assert len(long.ids) == 16 and long.cut and not short.cut
    n = len(encode(bb, [('a film '*4, 'good')])[0].ids)
    assert [encode(bb, [('a film '*4, 'good')], max_src=m)[0].cut for m in (n-1, n, n+1)] == [True, False, False]   # one that just fits is not cut
    assert replace(short, cut=True) == short   # what it is does not depend on where it comes from

def test_room_beside_the_prompt(mini, tiny):
    long = [('word '*1000, 'good')]
    assert len(encode(mini, long, max_src=1000, length=20)[0].ids) == 300 and len(encode(tiny, long, max_src=900, length=500)[0].ids) == 900
    with pytest.raises(ValueError, match='a prompt of 315 rows leaves 5 of 320 positions'): encode(mini, long, length=315)
    with pytest.raises(ValueError, match='at least 8 tokens, got 7'): encode(tiny, long, max_src=7)

def test_prompts_start_at_rows_of_the_table(bb):
    x = init_prompts(bb, 4, 6, seed=3)
    nearest = torch.cdist(x.flatten(0, 1), bb.embed.weight, compute_mode='donot_use_mm_for_euclid_dist').min(1)
    special = set(bb.tokenizer.all_special_ids)
    assert (nearest.values == 0).all() and not special & set(nearest.indices.tolist()) and torch.pdist(x.flatten(1)).min() > 0
    assert torch.equal(x, init_prompts(bb, 4, 6, seed=3)) and not torch.equal(x, init_prompts(bb, 4, 6, seed=4))

def test_a_text_as_start(bb):
    ids = bb.tokenizer('good film', add_special_tokens=False)['input_ids']
    want = bb.embed.weight[torch.tensor(ids*9)[:7]]
    assert torch.equal(init_prompts(bb, 1, 7, text='good film')[0], want)

@pytest.mark.parametrize('kw, says', [(dict(m=0), 'at least one prompt'), (dict(length=0), 'at least one row'), (dict(length=10**5), 'use a shorter prompt'), (dict(m=2, text='a'), 'a text gives one prompt'), (dict(text=' '), 'an empty one')])
def test_no_start(tiny, kw, says):
    with pytest.raises(ValueError, match=says): init_prompts(tiny, **kw)

def test_all_pairs_of_prompt_and_input():
    prompts, emb, mask = torch.randn(3, 2, 4), torch.randn(2, 5, 4), torch.tensor([[1]*5, [1, 1, 1, 0, 0]])
    x, got = prepend_prompt(prompts, emb, mask)
    assert x.shape == (6, 7, 4) and torch.equal(x[3], torch.cat([prompts[1], emb[1]])) and got[3].tolist() == [1]*5 + [0, 0]
    assert torch.equal(prepend_prompt(prompts[0], emb)[0], x[:2]) and prepend_prompt(prompts, emb)[1] is None
    with pytest.raises(ValueError, match='a prompt of width 4'): prepend_prompt(prompts[..., :3], emb)

def test_half_a_character_is_no_text(tiny):
    with pytest.raises(ValueError, match='half a character in pair 1'): encode(tiny, [('é', 'yes'), ('\ud800 a', 'no')])
