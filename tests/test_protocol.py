"What every method is given: data, stages that belong to their data and weights, one ledger"
import json, shutil
from pathlib import Path
import pytest, torch
import bayes_prompt
from bayes_prompt import protocol
from bayes_prompt.config import make_config
from bayes_prompt.options import METHODS, method
from bayes_prompt.protocol import Context, data_fingerprint, weights_fingerprint
from bayes_prompt.run import method_of, run
from bayes_prompt.baselines.finetuning import FineTuning
from bayes_prompt.source import SourcePosterior, SourceSVGD
from conftest import SMALL

ASSETS = Path(bayes_prompt.__path__[0])/'assets'

def context(tmp_path, **changes): return Context(make_config(SMALL, **changes), tmp_path, progress=False)

def copied(tmp_path, *tasks):
    "The package's data of some tasks, as a folder of the user's"
    data = tmp_path/'data'
    data.mkdir(exist_ok=True)
    for t in tasks: shutil.copy(ASSETS/'mini'/f'{t}.parquet', data)
    return data

def halved(file):
    import pyarrow.parquet as pq
    t = pq.read_table(file)
    pq.write_table(t.slice(len(t)//2), file)

def test_other_source_data_under_the_same_names_is_another_posterior(tmp_path):
    data = copied(tmp_path, 'amazon', 'nyt', 'movie')
    a = context(tmp_path, data_dir=str(data)).posterior(2)
    halved(data/'amazon.parquet')
    b = context(tmp_path, data_dir=str(data)).posterior(2)
    assert a.history != b.history and len(list((tmp_path/'sources').iterdir())) == 2

def test_equal_files_elsewhere_are_the_same_data(tmp_path):
    c = make_config(SMALL)
    here = make_config(SMALL, data_dir=str(copied(tmp_path, 'amazon', 'nyt', 'movie')))
    assert data_fingerprint(c, ['movie']) == data_fingerprint(here, ['movie']) != data_fingerprint(c, ['amazon'])

def test_weights_have_a_fingerprint_by_content(tmp_path):
    for name in ('a', 'b'): shutil.copytree(ASSETS/'mini_backbone', tmp_path/name)
    a = weights_fingerprint(str(tmp_path/'a'))
    assert a == weights_fingerprint(str(tmp_path/'b')) == weights_fingerprint('mini') and weights_fingerprint('no/such-model') == ''
    file = tmp_path/'b'/'model.safetensors'
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert weights_fingerprint(str(tmp_path/'b')) != a

@pytest.mark.parametrize('change', [{'source.lr': .1}, {'source.svgd.kernel': 'imq'}, {'source.seed': 1}, dict(length=5), dict(beta=2.), dict(style='attempt'), dict(add_prefix=False), dict(max_src=30), dict(sources=['amazon'])], ids=str)
def test_a_stage_is_named_by_all_its_settings(change, tmp_path):
    context(tmp_path).posterior(2)
    context(tmp_path, **change).posterior(2)
    assert len(list((tmp_path/'sources').iterdir())) == 2

def test_what_the_target_does_leaves_the_stage(tmp_path):
    context(tmp_path).posterior(2)
    for change in (dict(seed=1), dict(lr=.5), dict(steps=9), dict(prior='none'), dict(method='average'), dict(target='spam')): context(tmp_path, **change).posterior(2)
    assert len(list((tmp_path/'sources').iterdir())) == 1

def test_a_methods_own_option_names_its_own_stage_only(tmp_path):
    for d in (0., .5, 1.): method_of(make_config(SMALL, method='mpt', distill=d))(context(tmp_path, method='mpt', distill=d))
    assert len(list((tmp_path/'sources').glob('*/posterior.safetensors'))) == 3 + 1   # three of MPT, one of the teachers

def test_sources_are_refused_to_who_did_not_declare_them(tmp_path):
    @method('greedy', label='Greedy', sources=False, trains='prompt', order=99)
    def greedy(ctx): return ctx.adapt(ctx.posterior(1).mean)
    try:
        with pytest.raises(ValueError, match="'greedy' reads the sources, but was registered with sources=False"): run(SMALL, tmp_path, method='greedy')
    finally: del METHODS['greedy']

@pytest.mark.parametrize('name', ['posterior.safetensors', 'history-*.jsonl'])
def test_a_damaged_posterior_is_set_aside(name, tmp_path, capsys):
    "And learnt again, to the same bits"
    want = context(tmp_path).posterior(2)
    file = next(tmp_path.glob(f'sources/*/{name}'))
    file.write_bytes(file.read_bytes()[:50])
    got, said = context(tmp_path).posterior(2), capsys.readouterr().err
    assert torch.equal(got.particles, want.particles) and got.history == want.history
    assert said.count('\n') == 1 and 'is damaged' in said and 'learnt again' in said and file.parent.joinpath('posterior.safetensors.damaged').exists()
    assert torch.equal(context(tmp_path).posterior(2).particles, want.particles) and not capsys.readouterr().err

def test_the_ledger(tmp_path):
    ctx = context(tmp_path)
    ctx.posterior(2)
    l = ctx.ledger
    assert l.steps == 3 and l.parameters == 2*4*ctx.backbone.width and l.tokens == l.made > 0
    again = context(tmp_path)
    again.posterior(2)
    assert again.ledger.tokens == l.tokens and again.ledger.made == 0   # read, not made
    again.separate()
    assert again.ledger.steps == 3 + 2*3

def test_a_killed_stage_counts_all_its_tokens_and_leaves_no_state(tmp_path, monkeypatch):
    whole = context(tmp_path/'a', source_steps=30)
    want, plain = whole.posterior(2), SourceSVGD.backward
    def dies(self, batch, step):
        if step == 27: raise KeyboardInterrupt
        return plain(self, batch, step)
    with monkeypatch.context() as m:
        m.setattr(SourceSVGD, 'backward', dies)
        with pytest.raises(KeyboardInterrupt): context(tmp_path/'b', source_steps=30).posterior(2)
    assert list(tmp_path.glob('b/sources/*/state/*'))
    resumed = context(tmp_path/'b', source_steps=30)
    got = resumed.posterior(2)
    assert torch.equal(want.particles, got.particles) and resumed.ledger.tokens == whole.ledger.tokens and not list(tmp_path.glob('b/sources/*/state'))

@pytest.mark.parametrize('name', ['pt', 'attempt', 'lora', 'adapters', 'hyperformer', 'hyperdecoder'])
def test_seeds_draw_the_start_of_what_is_trained(name, tmp_path):
    "Also with all examples and one fixed batch, two seeds are two runs"
    starts = []
    for seed in (0, 1):
        ctx = context(tmp_path, method=name, seed=seed, steps=1)
        ctx.fit = lambda m, *a, **k: starts.append([p.detach().clone() for p in m.parameters()]) or m
        method_of(ctx.config)(ctx)
    assert any(not torch.equal(a, b) for a, b in zip(*starts))

def test_cut_texts_are_counted(tmp_path):
    ctx = context(tmp_path, max_src=8)
    assert ctx.cut['movie'] > .5 and context(tmp_path, max_src=200).cut['movie'] == 0

@pytest.fixture
def registered():
    "Registers a method for one test"
    names = []
    def register(f, **kw):
        names.append(f.__name__)
        method(f.__name__, **(dict(label='X', sources=True, trains='prompt', order=99) | kw))(f)
    yield register
    for n in names: del METHODS[n]

def learnt(ctx, steps=1, value=0.):
    return lambda track: SourcePosterior(torch.full((1, 4, ctx.backbone.width), value), ['nyt'], ctx.backbone.name, dict(steps=steps))

def test_a_posterior_that_lies_ready_is_refused_too(tmp_path, registered):
    run(SMALL, tmp_path)
    def greedy(ctx): return ctx.adapt(ctx.posterior(3))
    registered(greedy, sources=False)
    with pytest.raises(ValueError, match='registered with sources=False'): run(SMALL, tmp_path, method='greedy')

def test_two_stages_of_a_method_are_told_apart(tmp_path, registered):
    def twice(ctx, apart):
        part = dict(part='b') if apart else {}
        a, b = ctx.stage(learnt(ctx, value=1.)), ctx.stage(learnt(ctx, value=2.), **part)
        assert not torch.equal(a.mean, b.mean)
        return ctx.adapt(b.mean)
    from bayes_prompt.options import option
    registered(twice, apart=option(True, 'Give the second a name'))
    run(SMALL, tmp_path, method='twice')
    with pytest.raises(ValueError, match='two stages of one name'): run(SMALL, tmp_path, method='twice', **{'twice.apart': False})

def test_a_stage_without_its_steps_is_refused_before_it_is_saved(tmp_path, registered):
    def forgetful(ctx): return ctx.adapt(ctx.stage(lambda track: SourcePosterior(torch.zeros(1, 4, ctx.backbone.width), ['nyt'], 'tiny-t5')).mean)
    registered(forgetful)
    with pytest.raises(ValueError, match='whose config says its steps'): run(SMALL, tmp_path, method='forgetful')
    assert not list(tmp_path.glob('sources/*/posterior.safetensors'))

@pytest.mark.parametrize('gives, said', [(lambda ctx: None, 'gave None'), (lambda ctx: ctx.fit(FineTuning(ctx.backbone)), "declared with trains='prompt'")])
def test_what_a_method_gives_back_is_checked(tmp_path, registered, gives, said):
    def odd(ctx): return gives(ctx)
    registered(odd)
    with pytest.raises(ValueError, match=said): run(SMALL, tmp_path, method='odd')

def test_a_stage_that_is_read_says_the_same_of_its_sources(tmp_path):
    first, second = run(SMALL, tmp_path), run(SMALL, tmp_path, seed=1)
    assert all(first[k] == second[k] for k in ('data_from', 'splits')) and {'movie', 'amazon', 'nyt'} == set(second['data_from'])

def _own(tmp_path, text, **rows):
    "Tasks of one's own and their rows"
    for name, lines in rows.items(): (tmp_path/f'{name}.csv').write_text('text,label\n' + '\n'.join(lines))
    (tmp_path/'tasks.toml').write_text(text)
    return SMALL | dict(data=str(tmp_path/'tasks.toml'))

def test_a_source_that_is_the_target_under_another_name_is_refused(tmp_path):
    rows = [f'text {i},{"no" if i % 2 else "yes"}' for i in range(40)]
    same = '\nfields = ["text"]\nlabels = ["no", "yes"]\n'
    c = _own(tmp_path, f'[one]{same}[two]{same}[other]{same}', one=rows, two=rows, other=rows[2:])
    with pytest.raises(ValueError, match="'two' has the very data of the target 'one'"): run(c, tmp_path/'out', target='one', sources=['two'])
    assert run(c, tmp_path/'out', target='one', sources=['other']) and run(c, tmp_path/'out', target='one', sources=['two'], method='pt')

def test_choices_that_are_the_same_tokens_are_refused_before_the_training(tmp_path):
    rows = [f'text {i},{"Yes" if i % 2 else "yes"}' for i in range(40)]
    c = make_config(_own(tmp_path, '[same]\nfields = ["text"]\nlabels = ["yes", "Yes"]\n', same=rows), target='same', method='pt')
    with pytest.raises(ValueError, match='are the same tokens'): Context(c, tmp_path/'out')

def test_questions_of_several_rows_may_be_the_headline(tmp_path):
    def row(q, a): return dict(paragraph=f'p {q}', question=f'q {q}', answer=f'a {a}', idx=dict(question=q), label=(a+q) % 2, split=['train', 'train', 'validation', 'test'][q % 4])
    (tmp_path/'many.jsonl').write_text('\n'.join(json.dumps(row(q, a)) for q in range(12) for a in range(4)))
    c = _own(tmp_path, '[many]\ntemplate = "{paragraph} {question} {answer}"\nlabels = ["False", "True"]\nprepare = "multirc"\nmetric = "f1m"\n')
    assert run(c, tmp_path/'out', target='many', method='pt')['scores']['groups'] == 3
    with pytest.raises(ValueError, match='expected whole groups'): Context(make_config(c, target='many', method='pt', limit=3), tmp_path)
    judged = {'target.judge_every': 1, 'target.judge_rows': 3}
    with pytest.raises(ValueError, match='expected whole groups'): Context(make_config(c | judged, target='many', method='pt'), tmp_path)

def test_who_reads_a_finished_stage_loads_no_source(tmp_path, monkeypatch):
    "Its files are told apart by their bytes; at the papers' 1.15 million rows all else takes minutes"
    first = run(SMALL, tmp_path)
    protocol._loaded.cache_clear()
    plain, loaded = protocol.load_task, []
    monkeypatch.setattr(protocol, 'load_task', lambda name, *rest: loaded.append(name) or plain(name, *rest))
    again = run(SMALL, tmp_path, seed=1)
    assert loaded == ['movie'] and again['source_history'] == first['source_history'] and again['cut'].keys() == first['cut'].keys()
