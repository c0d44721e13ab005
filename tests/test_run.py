"From configuration to record: every method, every control, kills and full disks"
import errno, json, os
from pathlib import Path
import pytest, torch
import bayes_prompt
from bayes_prompt import protocol, target
from bayes_prompt.config import flat, make_config
from bayes_prompt.interchange import load_prompt
from bayes_prompt.machine import check_out
from bayes_prompt.options import METHODS, methods
from bayes_prompt.results import predictions
from bayes_prompt.run import run
from bayes_prompt.source import SourceSVGD
from bayes_prompt.store import load_tensors
from bayes_prompt.train import PromptTuning
from conftest import SMALL

@pytest.mark.parametrize('name', methods())
def test_every_method_gives_a_record(name, tmp_path, tiny):
    before = [p.clone() for p in protocol._backbone('tiny-t5', 'cpu').model.parameters()]
    r, m = run(SMALL, tmp_path/'a', method=name), methods()[name]
    assert r == run(SMALL, tmp_path/'a', method=name) and r['scores']['n'] == 12
    cost = r['cost']
    assert cost['per_target'] == r['trainable'] and (cost['total'] > r['trainable']) == m.sources == (cost['source_tokens'] > 0)
    trained = m.trains != 'nothing'
    assert (cost['target_tokens'] > 0) == trained and cost['evaluate_tokens'] > 0 and cost['target_steps'] == 3*trained
    assert all(torch.equal(a, b) for a, b in zip(before, protocol._backbone('tiny-t5', 'cpu').model.parameters()))
    assert {'nll', 'brier', 'ece', 'constant'} <= set(r['scores'])
    again = run(SMALL, tmp_path/'b', method=name)   # a seed reproduces a run
    assert all(r[k] == again[k] for k in ('scores', 'loss', 'source_history', 'train_indices'))
    assert not [f for f in tmp_path.rglob('*') if f.name.endswith('.part') or f.name == 'running' and any(f.iterdir())]

@pytest.mark.parametrize('name', methods())
def test_several_targets(name, tmp_path):
    r = run(SMALL, tmp_path, method=name, targets=['spam', 'context'])
    assert list(r['all_scores']) == ['movie', 'spam', 'context'] and r['all_scores']['movie'] == r['scores']
    assert r['cost']['per_target'] == pytest.approx(r['trainable']/3) and sorted(r['all_train_indices']) == ['context', 'movie', 'spam']

def test_one_particle_without_prior_is_vanilla_transfer(tmp_path):
    a = run(SMALL, tmp_path, method='bmtpt', m=1, prior='none', decompose=False)
    b = run(SMALL, tmp_path, method='vanilla')
    assert a['loss'] == b['loss'] and a['scores'] == b['scores']

def test_it_is_the_road_that_the_front_page_teaches(tmp_path):
    "The same posterior and the same target prompt, from `learn_posterior` and `adapt`"
    from bayes_prompt.data import few_shot, load_task
    from bayes_prompt.prompt import encode, init_prompts
    from bayes_prompt.source import learn_posterior
    c = make_config(SMALL)
    r, bb = run(c, tmp_path), protocol._backbone('tiny-t5', 'cpu')
    sources = {t: encode(bb, load_task(t).train, 40, 4) for t in c.source.tasks}
    post = learn_posterior(bb, sources, init_prompts(bb, 3, 4), c.source)
    movie = load_task('movie').train
    got = target.adapt(bb, encode(bb, [movie[i] for i in few_shot(movie, 2)], 40, 4), post, c.target)
    assert [round(h['loss'], 4) for h in got.history] == pytest.approx(r['loss'], abs=2e-4)

@pytest.mark.parametrize('change', [dict(m=m) for m in (1, 5, 7, 10, 15)] + [dict(kernel=k) for k in ('imq', 'laplacian', 'linear', 'none')] + [dict(prior=p) for p in ('mixture', 'gaussian', 'none')]
                         + [dict(bandwidth=b) for b in ('liu', 'numpyro')] + [dict(blocks=b) for b in ('token', 'coordinate')]
                         + [dict(kappa=1), dict(full=False), dict(noise=True, optimizer='sgd'), dict(repulsion=0.), {'source.svgd.damping': .5}, dict(beta=.5)], ids=str)
def test_every_option_of_bmtpt_changes_the_run(change, tmp_path_factory):
    a, b = [run(SMALL, tmp_path_factory.getbasetemp()/'options', **kw) for kw in ({}, change)]
    assert a['scores']['nll'] != b['scores']['nll'] and b['scores']['nll'] == b['scores']['nll']

def test_seeds_share_a_source_posterior_and_source_seeds_do_not(tmp_path):
    a, b, c = [run(SMALL, tmp_path, **kw) for kw in (dict(seed=1), dict(seed=2), dict(seed=1, source_seed=1))]
    assert len(list((tmp_path/'sources').glob('*/posterior.safetensors'))) == 2
    assert a['source_history'] == b['source_history'] != c['source_history'] and a['train_indices'] == c['train_indices'] != b['train_indices']

def test_early_stopping_is_in_the_record(tmp_path):
    r = run(SMALL, tmp_path, method='pt', steps=8, judge_every=2, patience=2)
    assert list(r['judged']) == ['2', '4', '6', '8'][:len(r['judged'])] and len(r['loss']) == 2*len(r['judged'])

def test_a_long_target_stage_resumes_exactly(tmp_path, monkeypatch):
    long = SMALL | dict(method='pt', steps=103, judge_every=50)
    whole, plain = run(long, tmp_path/'a'), PromptTuning.backward
    def dies(self, batch, step):
        if step == 101: raise KeyboardInterrupt
        return plain(self, batch, step)
    with monkeypatch.context() as m:
        m.setattr(PromptTuning, 'backward', dies)
        with pytest.raises(KeyboardInterrupt): run(long, tmp_path/'b')
    assert len(list((tmp_path/'b/sources/running').rglob('*.safetensors'))) == 1
    again = run(long, tmp_path/'b')
    assert all(again[k] == whole[k] for k in ('loss', 'scores', 'judged', 'cost')) and not list((tmp_path/'b/sources/running').rglob('*.safetensors'))

def test_a_record_does_not_answer_for_other_labels_or_weights(tmp_path):
    import shutil, pandas as pd
    assets = Path(bayes_prompt.__path__[0])/'assets'
    data = tmp_path/'data'
    data.mkdir()
    for t in ('amazon', 'nyt', 'movie'): shutil.copy(assets/'mini'/f'{t}.parquet', data)
    a = run(SMALL, tmp_path/'out', method='pt', data_dir=str(data))
    df = pd.read_parquet(data/'movie.parquet')
    df.label = 1 - df.label if df.label.dtype.kind in 'iu' else df.label.map({'negative': 'positive', 'positive': 'negative'})
    df.to_parquet(data/'movie.parquet')
    b = run(SMALL, tmp_path/'out', method='pt', data_dir=str(data))
    assert a['scores'] != b['scores'] and a['data'] != b['data'] and len(list((tmp_path/'out').glob('*.json'))) == 2

def test_a_changed_task_of_your_own_is_another_run(tmp_path):
    from bayes_prompt.tasks import TASKS
    def go(labels, n=30):
        (tmp_path/'t.json').write_text(json.dumps(dict(mine=dict(fields=['text'], labels=labels))))
        (tmp_path/'mine.csv').write_text('text,label\n' + ''.join(f'text {i},{i % 2}\n' for i in range(n)))
        try: return run(SMALL, tmp_path/'out', method='pt', tasks=str(tmp_path/'t.json'), target='mine', sources=['spam'])
        finally: TASKS.pop('mine')
    a, b, c = go(['no', 'yes']), go(['bad', 'good']), go(['no', 'yes'], 40)
    assert len({x['scores']['nll'] for x in (a, b, c)}) == 3 and go(['no', 'yes'], 40) == c and len(list((tmp_path/'out').glob('*.json'))) == 3

def test_a_record_with_another_configuration_than_its_name(tmp_path):
    r = run(SMALL, tmp_path, method='pt')
    file = next(tmp_path.glob('*.json'))
    file.write_text(json.dumps(r | dict(config=r['config'] | dict(seed=9))))
    with pytest.raises(ValueError, match='made with another configuration'): run(SMALL, tmp_path, method='pt')
    file.write_text('{')
    with pytest.raises(ValueError, match='record .* is not JSON'): run(SMALL, tmp_path, method='pt')

def test_the_ledger_of_merge_and_mpt(tmp_path):
    width = protocol._backbone('tiny-t5', 'cpu').width
    merge, mpt = run(SMALL, tmp_path, method='merge')['cost'], run(SMALL, tmp_path, method='mpt')['cost']
    assert merge['source_steps'] == 2*3 and merge['total'] == 3*4*width
    assert mpt['source_steps'] == 2*3 + 3 and mpt['total'] == 2*4*width + 4*width + 2*(4 + width) + 4*width + 4 + width

def test_spot_spends_no_more_steps_than_others(tmp_path): assert run(SMALL, tmp_path, method='spot', steps=1)['cost']['target_steps'] == 1

def test_a_full_disk_costs_nothing(tmp_path, monkeypatch):
    run(SMALL, tmp_path)
    def files(): return {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file() and p.name != '.lock'}
    before = files()
    def full(*a, **k): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as m:
        m.setattr(os, 'replace', full)
        with pytest.raises(OSError, match='No space left'): run(SMALL, tmp_path, target='spam', method='pt')
    assert before == files()

def test_a_run_that_ends_in_nonsense_is_no_result(tmp_path):
    with pytest.raises(ValueError, match='finite'): run(SMALL, tmp_path, method='finetune', optimizer='sgd', lr_weights=1e6, steps=3)
    assert not list(tmp_path.glob('*.json'))

def test_loggers_hear_every_stage(tmp_path):
    from bayes_prompt.loggers import loggers_of
    run(SMALL, tmp_path, loggers=loggers_of(['csv'], tmp_path/'logs'))
    logs = {f.stem: len(f.read_text().splitlines()) for f in (tmp_path/'logs').iterdir()}
    assert sorted(logs.values()) == [4, 4] and sum(name.startswith('movie-bmtpt-s0-') for name in logs) == 1

@pytest.mark.parametrize('family', ['t5', 'v1.1', 'mt5'])
def test_every_family_of_t5(family, tmp_path, tiny):
    "ReLU and tied head, gated GELU and a head of its own (v1.1, flan), mT5"
    from transformers import MT5Config, MT5ForConditionalGeneration, T5Config, T5ForConditionalGeneration
    tok = tiny.tokenizer
    small = dict(vocab_size=len(tok), d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=2, pad_token_id=tok.pad_token_id, eos_token_id=tok.sep_token_id, decoder_start_token_id=tok.pad_token_id)
    if family == 'v1.1': small |= dict(feed_forward_proj='gated-gelu', tie_word_embeddings=False)
    torch.manual_seed(0)
    model = MT5ForConditionalGeneration(MT5Config(**small)) if family == 'mt5' else T5ForConditionalGeneration(T5Config(**small))
    model.save_pretrained(tmp_path/'bb')
    tok.save_pretrained(tmp_path/'bb')
    for name in ('bmtpt', 'mpt', 'attempt', 'lora', 'adapters', 'bitfit', 'hyperformer', 'hyperdecoder'):
        r = run(SMALL, tmp_path/'out', method=name, backbone=str(tmp_path/'bb'), lr=.3, lr_low=.3)
        assert r['loss'][-1] < r['loss'][0], name

def test_a_small_disk_is_seen_before_any_work(tmp_path):
    with pytest.raises(OSError, match='make room'): check_out(tmp_path, need=10**9)

def test_a_folder_that_cannot_be_written():
    with pytest.raises(OSError, match='cannot write to'): check_out('/proc/1/results')

def test_the_same_data_in_another_folder_finds_the_record(tmp_path):
    import shutil
    assets = Path(bayes_prompt.__path__[0])/'assets'/'mini'
    for d in 'ab':
        (tmp_path/d).mkdir()
        for t in ('amazon', 'nyt', 'movie'): shutil.copy(assets/f'{t}.parquet', tmp_path/d)
    a, b = [run(SMALL, tmp_path/'out', method='pt', data_dir=str(tmp_path/d)) for d in 'ab']
    assert a == b and len(list((tmp_path/'out').glob('*.json'))) == 1

@pytest.mark.parametrize('name', [n for n, m in methods().items() if m.trains == 'prompt'])
@pytest.mark.parametrize('targets', [[], ['spam']])
def test_the_tuned_prompt_is_kept(name, targets, tmp_path):
    r = run(SMALL, tmp_path, method=name, targets=targets)
    file, = (tmp_path/'prompts').iterdir()
    tensors, about = load_tensors(file)
    assert about['about']['record'] == file.stem and (tmp_path/f'{file.stem}.json').exists() and file.stat().st_size < 4*(r['cost']['total'] + 3*4*32) + 4000
    if name in ('pt', 'vanilla', 'spot'): assert torch.equal(load_prompt(file, 'tiny-t5')[0], tensors['prompt']) and tensors['prompt'].shape == (4, 32)
    if name in ('bmtpt', 'mpt') and targets: assert set(tensors) == {'movie', 'spam'}

def test_the_kept_prompt_gives_the_kept_predictions(tmp_path, tiny):
    from bayes_prompt.data import load_task
    from bayes_prompt.evaluate import predict
    from bayes_prompt.prompt import encode
    r = run(SMALL, tmp_path, targets=['spam'])
    file, movie = next((tmp_path/'prompts').iterdir()), load_task('movie')
    prompt = load_tensors(file)[0]['movie']
    answers = predict(tiny, prompt[None], encode(tiny, movie.test[:12], 40, 4, 'movie'), movie.choices)
    assert predictions(r) == answers and len(predictions(r, 'spam')) == 12
    assert r['scores']['accuracy'] == pytest.approx(sum(a == t for a, (_, t) in zip(answers, movie.test))/12)
    with pytest.raises(ValueError, match='predictions of'): predictions({k: v for k, v in r.items() if k != 'predictions'})

def test_generated_texts_are_kept(tmp_path):
    from bayes_prompt.tasks import TASKS
    (tmp_path/'t.toml').write_text('[mine]\nfields = ["text"]')
    (tmp_path/'mine.csv').write_text('text,label\n' + ''.join(f'text {i},word {i}\n' for i in range(60)))
    try: said = predictions(run(SMALL, tmp_path/'out', method='pt', tasks=str(tmp_path/'t.toml'), target='mine'))
    finally: TASKS.pop('mine', None)
    assert len(said) == 12 and all(isinstance(s, str) for s in said)

def test_a_removed_folder_is_a_sentence(tmp_path, monkeypatch):
    import shutil
    out, plain = tmp_path/'out', PromptTuning.backward
    def removes(self, batch, step):
        shutil.rmtree(out, ignore_errors=True)
        return plain(self, batch, step)
    monkeypatch.setattr(PromptTuning, 'backward', removes)
    with pytest.raises(OSError, match='is gone'): run(SMALL, out, method='pt')
    with pytest.raises(OSError, match='was removed|is gone'): run(SMALL, out, method='spot')
    assert not out.exists()

def test_cut_texts_are_said_once(tmp_path, capsys):
    from bayes_prompt.protocol import _say_cut
    _say_cut.cache_clear() # other tests of this process may have been told already
    r = run(SMALL, tmp_path, method='pt', max_src=8)
    err = capsys.readouterr().err
    assert r['cut']['movie'] > .5 and err.count('movie: ') == 1 and 'max_src' in err
    run(SMALL, tmp_path, method='pt')
    assert 'max_src' not in capsys.readouterr().err

@pytest.mark.parametrize('column, said', [('[0]*30', "two or more labels in the train part, got only 'no'"), ('[0, 1]*15', '')])
def test_one_class_is_refused(column, said, tmp_path):
    from bayes_prompt.tasks import TASKS
    (tmp_path/'t.toml').write_text('[mine]\nfields = ["text"]\nlabels = ["no", "yes"]')
    (tmp_path/'mine.csv').write_text('text,label\n' + ''.join(f'text {i},{y}\n' for i, y in enumerate(eval(column))))
    try:
        if said:
            with pytest.raises(ValueError, match=said): run(SMALL, tmp_path/'out', method='pt', tasks=str(tmp_path/'t.toml'), target='mine')
        else: run(SMALL, tmp_path/'out', method='pt', tasks=str(tmp_path/'t.toml'), target='mine')
    finally: TASKS.pop('mine', None)

def test_a_target_of_100_kb_is_refused(tmp_path):
    from bayes_prompt.tasks import TASKS
    (tmp_path/'t.toml').write_text('[mine]\nfields = ["text"]')
    (tmp_path/'mine.csv').write_text('text,label\n' + ''.join(f'text {i},{"word "*20_000}\n' for i in range(6)))
    try:
        with pytest.raises(ValueError, match='mine: expected targets of at most 4,096 tokens'): run(SMALL, tmp_path/'out', method='pt', tasks=str(tmp_path/'t.toml'), target='mine')
    finally: TASKS.pop('mine', None)

def test_a_posterior_of_another_shape_is_refused(tmp_path):
    from bayes_prompt.source import SourcePosterior
    run(SMALL, tmp_path)
    folder = next((tmp_path/'sources').glob('*/posterior.safetensors')).parent
    p = SourcePosterior.load(folder)
    p.particles = p.particles[:, :2]
    p.save(folder)
    with pytest.raises(ValueError, match=r'has particles \[2, 32\], expected \[4, 32\]'): run(SMALL, tmp_path, seed=1)

def test_changed_files_of_a_backbone_are_another_run(tmp_path, tiny):
    "Tokenizer and weights, also within one process"
    from bayes_prompt.protocol import weights_fingerprint
    bb = tmp_path/'bb'
    tiny.model.save_pretrained(bb)
    tiny.tokenizer.save_pretrained(bb)
    a = run(SMALL, tmp_path/'out', method='pt', backbone=str(bb))
    tok = json.loads((bb/'tokenizer_config.json').read_text())
    (bb/'tokenizer_config.json').write_text(json.dumps(tok | dict(a_word=1)))
    assert weights_fingerprint(str(bb)) != a['weights']
    with torch.no_grad(): tiny_copy = __import__('copy').deepcopy(tiny.model); tiny_copy.shared.weight.mul_(.5)
    tiny_copy.save_pretrained(bb)
    b = run(SMALL, tmp_path/'out', method='pt', backbone=str(bb))
    assert a['weights'] != b['weights'] and a['loss'] != b['loss']

def test_changed_data_of_the_hub_in_a_folder_is_another_run(tmp_path):
    import shutil, pandas as pd
    hub = Path(__file__).parent/'fixtures/hub'
    shutil.copytree(hub/'rte', tmp_path/'data/rte')
    c = make_config(SMALL, target='rte', **{'data.folder': str(tmp_path/'data')})
    before = protocol.data_fingerprint(c, ['rte'])
    file = tmp_path/'data/rte/train.parquet'
    df = pd.read_parquet(file)
    df.label = 1 - df.label
    df.to_parquet(file)
    assert protocol.data_fingerprint(c, ['rte']) != before

@pytest.mark.parametrize('change, said', [
    (dict(seed=10**30), 'below 2'), (dict(lr=1e38), 'at most'), (dict(sigma=1e-30), 'sigma: expected at least'), (dict(m=10**12), 'at most'), (dict(batch=10**14), 'at most'),
    (dict(device='meta'), 'no compute.device'), (dict(spot=None), 'spot: expected keys'), (dict(bandwidth=10**400), 'bandwidth')])
def test_numbers_and_devices_out_of_reach(change, said, tmp_path):
    with pytest.raises(ValueError, match=said): run(SMALL, tmp_path, **change)

def test_a_huge_seed_of_the_noise(tmp_path):
    assert run(SMALL, tmp_path, noise=True, optimizer='sgd', source_seed=2**63 - 1)['scores']['n'] == 12

def test_answers_are_read_by_the_choices_of_their_time(tmp_path):
    from bayes_prompt.tasks import add_tasks
    file, text = tmp_path/'own.toml', '[own]\nfields = ["text"]\nlabels = [{}]\n'
    (tmp_path/'own.csv').write_text('text,label\n' + '\n'.join(f'text {i},{"no" if i % 2 else "yes"}' for i in range(40)))
    file.write_text(text.format('"no", "yes"'))
    r = run(SMALL, tmp_path/'out', data=str(file), target='own', method='pt')
    said = predictions(r)
    file.write_text(text.format('"yes", "no"'))
    add_tasks(str(file))
    assert predictions(r) == said

def test_a_record_does_not_grow_with_its_histories(tmp_path):
    "At most a thousand points at equal distances; the whole history of the source stage is beside its posterior"
    from bayes_prompt.source import SourcePosterior
    r = run(SMALL, tmp_path, method='vanilla', sources=['nyt'], m=1, source_batch=1, source_steps=1001, steps=2001, batch=1, source_lr=.01)
    whole = SourcePosterior.load(next(tmp_path.glob('sources/*/posterior.safetensors')).parent).history
    assert len(whole) == 1001 and [h['loss'] for h in r['source_history']] == pytest.approx([h['loss'] for h in whole[::2]], rel=1e-3)
    assert len(r['source_history']) == 501 and len(r['loss']) == 667 and r['cost']['target_steps'] == 2001
    assert max(f.stat().st_size for f in tmp_path.glob('*.json')) < 60_000
