"A configuration: differences, files, names, and what is refused"
import json
from pathlib import Path
import pytest
from bayes_prompt.config import SHORT, Config, as_record, flat, long_names, make_config, parse_changes, read_changes, record_name, told
from bayes_prompt.options import methods

ROOT = Path(__file__).resolve().parents[1]

def test_short_names_are_keys():
    keys = {key for key, *_ in Config.described()}
    assert set(SHORT.values()) <= keys and len(keys) == len(Config.described())

@pytest.mark.parametrize('changes', [dict(target='spam', k=4, sources=['movie']), dict(method='spot', top=2), {'source.svgd.kernel': 'imq', 'optimizer': 'sgd'}, dict(source=dict(svgd=dict(repulsion=0.)), noise=False),
                                     dict(targets=['context'], decompose=False), dict(method='mpt', distill=0.), {'attempt.temperature': 4., 'method': 'attempt'}])
def test_round_trips(changes):
    c = make_config(changes)
    assert make_config(c.differences()) == c == make_config(as_record(c)) == make_config(flat(as_record(c)))
    assert json.loads(json.dumps(as_record(c))) == as_record(c)

def test_a_record_of_another_method_ignores_that_method(): # `method=pt spot.top=2` is the run of `method=pt`
    assert record_name(make_config(method='pt', top=2)) == record_name(make_config(method='pt'))
    assert record_name(make_config(method='spot', top=2)) != record_name(make_config(method='spot'))

def test_names_follow_differences_data_and_weights():
    base = Config()
    assert record_name(base) == record_name(make_config(lr=base.target.lr)) == record_name(make_config(data_dir='/elsewhere'))
    others = [record_name(make_config(lr=.02)), record_name(base, data='a'), record_name(base, weights='a'), record_name(make_config(device='cuda')), record_name(make_config(seed=1))]
    assert len({record_name(base), *others}) == 6
    assert record_name(make_config(target='spam', sources=['movie'], method='pt', seed=3)).startswith('spam-pt-s3-')

def test_words_of_the_command_line():
    c = make_config(**parse_changes(['target=spam', 'sources=movie,nyt', 'lr=.02', 'target.full=no', 'source.svgd.bandwidth=liu', 'seed=3', 'm=2']))
    assert (c.target.task, c.source.tasks, c.target.lr, c.target.full, c.source.svgd.bandwidth, c.seed, c.source.particles) == ('spam', ('movie', 'nyt'), .02, False, 'liu', 3, 2)

@pytest.mark.parametrize('words, said', [
    (['learning_rate=.1'], 'lr'), (['num_particles=3'], 'source.particles'), (['model=mini'], "nearest is 'backbone'"), (['lr'], 'key=value'), (['lr=fast'], "target.lr: expected a number, got 'fast'"),
    (['lr=0'], 'above 0'), (['out=x'], "no key 'out'"), (['config=x'], "no key 'config'"), (['progress=1'], "no key 'progress'"), (['spot.tap=1'], 'spot.top'), (['method=LoRa'], "nearest is 'lora'")])
def test_wrong_words(words, said):
    with pytest.raises(ValueError) as e: make_config(**parse_changes(words))
    assert said in str(e.value) and '\n' not in str(e.value)

@pytest.mark.parametrize('changes, said', [
    (dict(targets=['movie']), 'further tasks'), (dict(targets=['amazon']), 'among its own sources'), (dict(target='nyt'), 'among its own sources'), (dict(full=False, decompose=False), 'something to train'),
    (dict(noise=True), 'optimizer="sgd"'), (dict(blocks='rows'), 'no source.svgd.blocks'), (dict(patience=-1), 'at least 0'), (dict(targets=['spma']), "nearest is 'spam'"), (dict(sources=[]), 'one or more tasks'),
    (dict(method='lora', dtype='bfloat16'), 'trains weights'), (dict(target=['spam']), 'a word'), (dict(data=dict(style='T5x')), 'no data.style'), (dict(tasks='none.toml'), 'none.toml')])
def test_what_does_not_fit_together(changes, said):
    with pytest.raises(ValueError) as e: make_config(changes)
    assert said in str(e.value) and '\n' not in str(e.value)

def test_a_method_without_sources_may_have_its_target_among_them():
    for name, m in methods().items():
        if m.sources and m.reads('target.steps'):
            with pytest.raises(ValueError, match='among its own sources'): make_config(target='nyt', method=name)
        else: assert make_config(target='nyt', method=name).target.task == 'nyt'

def files(folder, **texts):
    for name, text in texts.items(): (folder/name.replace('_', '.')).write_text(text)

def test_files_extend_one_another(tmp_path):
    files(tmp_path, a_toml='k = 4\n[source]\nsteps = 7\nlr = 1.0\n[spot]\ntop = 2', b_json='{"extends": "a.toml", "source": {"steps": 8}, "method": "spot"}', c_toml='extends = "b.json"\nseed = 3')
    c = make_config(tmp_path/'c.toml', lr=.5)
    assert (c.seed, c.target.k, c.source.steps, c.source.lr, c.target.lr, c.method, c.options('spot').top) == (3, 4, 8, 1., .5, 'spot', 2)

@pytest.mark.parametrize('text, said', [('k = ', 'not TOML'), ('extends = "x.toml"', 'extends itself'), ('extends = 3', 'expected the name of a file'), ('extends = "y.toml"', 'no file'), ('kk = 3', 'no key'), ('source = 3', 'expected'), ('k = "a"', 'target.k')])
def test_broken_files(tmp_path, text, said):
    (tmp_path/'x.toml').write_text(text)
    with pytest.raises(ValueError, match=said): make_config(tmp_path/'x.toml')

@pytest.mark.parametrize('text', ['[]', 'null', '{', '{"k": 1e999}', '{"k": [[1]]}', '{"source": []}', '{"source": {"lr": {"a": 1}}}', '{"seed": 1' + '0'*400 + '}', '{"method": {}}', '{"target": null}'])
def test_broken_json_files(tmp_path, text):
    (tmp_path/'x.json').write_text(text)
    with pytest.raises(ValueError) as e: make_config(tmp_path/'x.json')
    assert '\n' not in str(e.value)

def test_short_and_long_names_of_a_group():
    assert long_names(dict(target='a')) == {'target.task': 'a'} and long_names(dict(target=dict(k=1))) == {'target': dict(k=1)}
    assert long_names(dict(optimizer='sgd')) == {'source.optimizer': 'sgd', 'target.optimizer': 'sgd'}

def test_the_published_recipe_is_reachable_by_name(tmp_path):
    c = make_config('published', target='cola')
    assert (c.target.lr, c.target.lr_low, c.length, c.source.particles, c.source.batch, c.target.k) == (.3, .4, 100, 5, 1, 0)
    assert (c.target.prior, c.target.evidence, c.compute.backbone, c.target.task) == ('mean', 'one', 't5-base', 'cola')
    files(tmp_path, mine_toml='extends = "published"\ntarget = "rte"\nk = 16')
    assert make_config(tmp_path/'mine.toml').target.k == 16
    with pytest.raises(ValueError, match='no recipe of that name'): make_config('publised')

@pytest.mark.parametrize('d', [{'kernel': None, 'source.svgd': None}, {'source.svgd': 'rbf'}, {'data': 3}, {'target': None, 'target.k': 2}])
def test_a_group_is_keys_and_values(d):
    with pytest.raises(ValueError, match='expected'): make_config(d)

@pytest.mark.parametrize('words', [['k=4', 'k=8'], ['target.k=4', 'k=4'], ['seed=1', 'lr=.1', 'seed=1']])
def test_a_key_that_is_given_twice_is_refused(words):
    with pytest.raises(ValueError, match='given twice'): parse_changes(words)

def test_a_target_among_its_sources_can_be_asked_for():
    "Where it makes no difference, it makes no second record"
    c = make_config(target='nyt', **{'target.overlap': True})
    assert told(c)['target.overlap'] and 'nyt' in c.source.tasks
    pt = make_config(target='nyt', method='pt', **{'target.overlap': True})
    assert told(pt) == told(make_config(target='nyt', method='pt'))
