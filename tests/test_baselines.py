"Baselines through `run`: what they computed before they had pages of their own, every family of T5, options, ledgers"
import pytest, torch
from bayes_prompt.config import make_config, record_name
from bayes_prompt.options import methods
from bayes_prompt.protocol import Context
from bayes_prompt.run import method_of, run

SMALL = {'compute.backbone': 'tiny-t5', 'length': 4, 'data.limit': 12,
         'source.tasks': ['amazon', 'nyt'], 'source.particles': 3, 'source.steps': 3, 'source.batch': 2, 'source.lr': .3,
         'target.steps': 3, 'target.k': 2, 'target.sigma': .1}
NAMES = [m.name for m in methods().values() if '.baselines.' in m.module]

def small(method, **changes):
    "Settings; a change is written with __ for the dot"
    return SMALL | {'method': method} | {k.replace('__', '.'): v for k, v in changes.items()}

# The losses of six steps that the methods had as functions of one page, at commit f9bde7b; of MPT, since the encoder's states count
BEFORE = dict(
    pt = [10.6198, 10.6153, 10.6106, 10.6069, 10.6041, 10.6022],
    vanilla = [10.3441, 10.3397, 10.3353, 10.3319, 10.3293, 10.3275],
    spot = [10.6198, 10.3669, 10.3625, 10.358, 10.3547, 10.3525],
    attempt = [10.5198, 10.511, 10.5067, 10.5038, 10.5016, 10.5002],
    mpt = [10.3064, 10.3004, 10.2944, 10.2895, 10.2859, 10.2835],
    merge = [10.3808, 10.3764, 10.372, 10.3685, 10.3659, 10.3642],
    lora = [10.5961, 10.5419, 10.4856, 10.438, 10.4005, 10.3747],
    adapters = [10.5961, 10.541, 10.4848, 10.438, 10.4016, 10.3766],
    bitfit = [10.5961, 10.5557, 10.5155, 10.4835, 10.4596, 10.4436],
    hyperformer = [10.5961, 9.9144, 9.0544, 8.5426, 8.2126, 7.9926],
    hyperdecoder = [10.5961, 10.1452, 8.8826, 7.7149, 6.996, 6.6282],
    finetune = [10.5961, 10.5376, 10.4797, 10.4334, 10.3988, 10.3757])

# What the defaults were then
THEN = {m.name: {'target.lr_weights': 1e-3} for m in methods().values() if m.trains == 'weights'}
THEN['finetune'] = {'target.lr_weights': 1e-4}
THEN['hyperdecoder'] |= {'hyperdecoder.placement': 'sequential'}
THEN['spot'] = {'spot.keys': 'finished'}
THEN['attempt'] = {'attempt.unit': 'published', 'attempt.temperature': 1., 'attempt.lr_attention': 0., 'attempt.start': 'random'}

@pytest.mark.parametrize('method', BEFORE) # a newer method had no before
def test_methods_compute_what_they_did(method, tmp_path):
    config = small(method, target__steps=6) | THEN.get(method, {})
    assert run(config, tmp_path)['loss'] == pytest.approx(BEFORE[method], abs=2e-3)

OPTIONS = [('attempt', {}, dict(attempt__temperature=2.)), ('attempt', dict(attempt__temperature=2.), dict(attempt__lr_attention=.1)),
           ('attempt', {}, dict(attempt__unit='published')), ('attempt', {}, dict(attempt__start='random')),
           ('spot', {}, dict(spot__top=2)), ('spot', dict(spot__top=2), dict(spot__keys='finished')),
           ('spot', dict(seed=1, spot__top=2), dict(spot__begin='target')), ('mpt', {}, dict(mpt__distill=0.)),
           ('mpt', {}, dict(mpt__hidden=0.)), ('mpt', {}, dict(mpt__temperature=4.)), ('mpt', {}, dict(mpt__lr=.1)), ('mpt', {}, dict(mpt__lr_low=.1)),
           ('merge', {}, dict(merge__examples=8)),
           ('hyperdecoder', {}, dict(hyperdecoder__placement='sequential')), ('hyperdecoder', {}, dict(hyperdecoder__mlp=True))]

@pytest.mark.parametrize('method,base,change', OPTIONS, ids=lambda o: str(o))
def test_every_option_changes_the_run(method, base, change, tmp_path):
    a, b = [run(small(method, **base, **more), tmp_path)['scores']['nll'] for more in ({}, change)]
    assert a != b == b

def test_wrong_options_get_a_sentence(tmp_path):
    for change, message in [(dict(spot__top=3), 'at most all source tasks, 2, got 3'), (dict(spot__top=0), 'at least 1'),
                            (dict(spot__keys='erly'), "nearest is 'early'"), (dict(attempt__start='random words'), 'no attempt.start'),
                            (dict(attempt__unit='embedding'), "nearest is 'embeddings'"), (dict(attempt__temperature=0.), 'at least 0.001'),
                            (dict(attempt__temperature=1e9), 'at most 1000000.0'), (dict(attempt__lr_attention=-1.), 'at least 0')]:
        with pytest.raises(ValueError, match=message): run(small(next(iter(change)).split('__')[0], **change), tmp_path)

def test_spot_spends_no_more_steps_than_others(tmp_path):
    for steps in (1, 2, 8): assert run(small('spot', target__steps=steps), tmp_path)['cost']['target_steps'] == steps

def test_the_ledger_of_merge_and_mpt(tmp_path):
    width = Context(make_config(small('pt')), tmp_path, progress=False).backbone.width
    merge, mpt = [run(small(m), tmp_path)['cost'] for m in ('merge', 'mpt')]
    prompt, factors = 4*width, 4 + width
    assert merge['source_steps'] == 2*3 and merge['total'] == 2*prompt + prompt
    assert mpt['source_steps'] == 2*3 + 3 and mpt['total'] == 2*prompt + (prompt + 2*factors) + (prompt + factors)

@pytest.mark.parametrize('method', ['pt', 'attempt', 'lora', 'adapters', 'hyperformer', 'hyperdecoder'])
def test_seeds_draw_the_start_of_what_is_trained(method, tmp_path):
    "Also with all examples and one fixed batch, two seeds are two runs"
    starts = []
    for seed in (0, 1):
        config = make_config(small(method, seed=seed))
        ctx = Context(config, tmp_path, progress=False)
        ctx.fit = lambda m: starts.append([p.detach().clone() for p in m.parameters()]) or m
        method_of(config)(ctx)
    assert any(not torch.equal(a, b) for a, b in zip(*starts))

@pytest.mark.parametrize('family', ['t5', 'v1.1', 'mt5'])
def test_every_family_of_t5(family, tmp_path, tiny):
    "ReLU and tied head, gated GELU and a head of its own (v1.1, flan), mT5"
    from transformers import MT5Config, MT5ForConditionalGeneration, T5Config, T5ForConditionalGeneration
    tok = tiny.tokenizer
    size = dict(vocab_size=len(tok), d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=2,
                pad_token_id=tok.pad_token_id, eos_token_id=tok.sep_token_id, decoder_start_token_id=tok.pad_token_id)
    gated = dict(feed_forward_proj='gated-gelu', tie_word_embeddings=False) if family == 'v1.1' else {}
    torch.manual_seed(0)
    if family == 'mt5': model = MT5ForConditionalGeneration(MT5Config(**size))
    else: model = T5ForConditionalGeneration(T5Config(**size, **gated))
    model.save_pretrained(tmp_path/'bb')
    tok.save_pretrained(tmp_path/'bb')
    for method in ('bmtpt', 'mpt', 'attempt', 'lora', 'adapters', 'bitfit', 'hyperformer', 'hyperdecoder'):
        changes = dict(compute__backbone=str(tmp_path/'bb'), target__lr=.3, target__lr_low=.3)
        loss = run(small(method, **changes), tmp_path/'out')['loss']
        assert loss[-1] < loss[0], method

CHANGES = {'target.lr_low': .2, 'target.full': False, 'target.prior': 'mixture', 'target.sigma': .01, 'target.unit': 'embeddings',
           'target.evidence': 50., 'target.lr': .011, 'target.lr_weights': .003, 'source.particles': 4, 'source.kappa': 1, 'source.beta': 3.,
           'source.svgd.kernel': 'imq', 'source.svgd.repulsion': 5., 'source.lr': .02, 'target.steps': 7, 'target.warmup': .5, 'target.batch': 3}

@pytest.mark.parametrize('method', methods())
def test_what_a_method_ignores_makes_no_difference(method, tmp_path):
    "Not even in the name of its record; all that it does not read is changed at once"
    plain = make_config(small(method))
    unread = {k: v for k, v in CHANGES.items() if not methods()[method].reads(k)}
    assert unread, 'every method ignores something'
    other = plain.changed(unread)
    assert record_name(plain) == record_name(other) and plain != other
    a, b = run(plain, tmp_path/'a'), run(other, tmp_path/'b')
    assert a['loss'] == b['loss'] and a['scores'] == b['scores'] and a['predictions'] == b['predictions']

@pytest.mark.parametrize('method, key', [('bmtpt', 'target.lr_low'), ('bmtpt', 'target.sigma'), ('bmtpt', 'source.beta'), ('mpt', 'target.lr_low'), ('pt', 'target.lr'),
                                         ('lora', 'target.lr_weights'), ('vanilla', 'source.lr'), ('spot', 'source.lr'), ('average', 'source.particles')])
def test_what_a_method_reads_is_in_the_name(method, key):
    plain = make_config(small(method))
    assert record_name(plain) != record_name(plain.changed({key: CHANGES[key]}))
