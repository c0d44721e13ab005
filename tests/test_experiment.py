"Files of experiments: what they say, what is wrong with them, and which of their runs are done"
import json
import pytest
from bayes_prompt.config import as_record
from bayes_prompt.experiment import experiment_paths, planned, read_experiment

def read(folder, text, name='mine'):
    (folder/f'{name}.toml').write_text(text if 'answers' in text else f'answers = "?"\n{text}')
    return read_experiment(folder/f'{name}.toml')

def said(experiment): return [c.differences() for c in experiment.configs]

def test_the_product_is_in_the_order_of_the_file(tmp_path):
    e = read(tmp_path, 'answers = " One\\n question? "\n[grid]\nseed = [0, 1]\nmethod = ["pt", "vanilla"]')
    assert (e.name, e.answers) == ('mine', 'One question?')
    assert [(c.seed, c.method) for c in e.configs] == [(0, 'pt'), (0, 'vanilla'), (1, 'pt'), (1, 'vanilla')]

def test_no_table_is_one_run_of_the_defaults(tmp_path):
    assert said(read(tmp_path, '')) == [{}]

@pytest.mark.parametrize('values', [
    'lr = 0.1\nsource_steps = 3', 'target.lr = 0.1\nsource.steps = 3', 'target = {lr = 0.1}\nsource = {steps = 3}', '[values.target]\nlr = 0.1\n[values.source]\nsteps = 3'])
def test_keys_are_long_or_short(tmp_path, values):
    assert said(read(tmp_path, f'[values]\n{values}')) == [dict(target=dict(lr=.1), source=dict(steps=3))]

def test_two_keys_with_one_value_and_a_key_that_means_two(tmp_path):
    e = read(tmp_path, '[grid]\n"lr, lr_low" = [0.1, 0.2]\noptimizer = ["sgd"]')
    assert [(c.target.lr, c.target.lr_low, c.target.optimizer, c.source.optimizer) for c in e.configs] == [(.1, .1, 'sgd', 'sgd'), (.2, .2, 'sgd', 'sgd')]

def test_the_later_and_the_more_special_statement_wins(tmp_path):
    "Defaults, values, the method's, the grid; and a part over its file, a file over the one it extends"
    e = read(tmp_path, 'values = {lr = 0.1, k = 2}\nmethod = {pt = {lr = 0.2, steps = 2}}\ngrid = {method = ["pt", "bmtpt"], steps = [3]}')
    assert [(c.method, c.target.k, c.target.lr, c.target.steps) for c in e.configs] == [('pt', 2, .2, 3), ('bmtpt', 2, .1, 3)]
    e = read(tmp_path, 'extends = "mine.toml"\nvalues = {lr = 0.4}\nmethod = {bmtpt = {lr = 0.5}}\n[[part]]\n[[part]]\nvalues = {steps = 4, method = "pt"}', 'next')
    assert [(c.method, c.target.k, c.target.lr, c.target.steps) for c in e.configs] == [('pt', 2, .4, 3), ('bmtpt', 2, .5, 3), ('pt', 2, .4, 4)]

def test_a_setting_that_a_method_does_not_read_makes_no_second_run(tmp_path):
    e = read(tmp_path, 'grid = {method = ["pt", "bmtpt"], sigma = [1.0, 2.0], m = [2, 3]}')
    assert [c.method for c in e.configs].count('pt') == 1 and len(e.configs) == 5

def test_a_narrower_grid_replaces_a_wider_one(tmp_path):
    read(tmp_path, 'grid = {seed = [0, 1, 2], target = ["movie", "spam"]}\nvalues = {method = "pt"}', 'wide')
    e = read(tmp_path, 'extends = "wide.toml"\ngrid = {seed = [7]}\nvalues = {target = "nyt"}')
    assert [(c.seed, c.target.task) for c in e.configs] == [(7, 'nyt')]

def test_settings_can_be_extended(tmp_path):
    (tmp_path/'big.json').write_text('{"length": 100, "source_lr": 0.3}')
    (tmp_path/'bigger.toml').write_text('extends = "big.json"\nsource = {steps = 5000}')
    assert said(read(tmp_path, 'extends = "bigger.toml"\nvalues = {source_lr = 0.2}')) == [dict(length=100, source=dict(lr=.2, steps=5000))]

def test_runs_that_parts_share_are_done_once(tmp_path):
    e = read(tmp_path, '[[part]]\ngrid = {seed = [0, 1]}\n[[part]]\ngrid = {seed = [1, 2, 2]}\n')
    assert [c.seed for c in e.configs] == [0, 1, 2]

@pytest.mark.parametrize('text,told', [
    ('grid = {seeds = [1]}', "no key 'seeds'; the nearest is 'seed'"),
    ('gird = {seed = [1]}', "no key of an experiment 'gird'; the nearest is 'grid'"),
    ('seed = 1', "no key of an experiment 'seed'"),
    ('grid = {seed = 1}', "grid: 'seed': expected a list of values, got 1"),
    ('grid = {seed = []}', "grid: 'seed': expected a list of values, got []"),
    ('grid = [1]', 'grid: expected a table, got [1]'),
    ('part = {grid = {seed = [1]}}', 'part: expected tables [[part]], got'),
    ('part = [1]', 'part: expected a table, got 1'),
    ('[[part]]\nanswers = "!"', "no key of an experiment 'answers'"),
    ('method = {LoRa = {lr = 0.1}}', "no method 'LoRa'; the nearest is 'lora'"),
    ('method = "pt"', "method: expected a table, got 'pt'"),
    ('method = {pt = 0.1}', 'method.pt: expected a table, got 0.1'),
    ('values = {lr = "fast"}', "target.lr: expected a number, got 'fast'"),
    ('grid = {seed = [2020-01-01]}', 'seed: expected a whole number'),
    ('values = {target = "amazon"}', "the target 'amazon' is among its own sources"),
    ('answers = " "', 'expected answers = "the question"'),
    ('answers = 3', 'answers: expected a text, got 3'),
    ('extends = 3', 'extends: expected a text, got 3'),
    ('extends = "nowhere.toml"', 'no file'),
    ('extends = "mine.toml"', 'extends itself'),
    ('compares = "pt"', "compares: expected tables [[compares]], got 'pt'"),
    ('compares = ["pt"]', "compares: expected pairs of different methods"),
    ('compares = [["pt", "pt"]]', "compares: expected pairs of different methods"),
    ('compares = [["bmtpt", "ptt"]]', "no method 'ptt'; the nearest is 'pt'"),
    ('compares = [["bmtpt", "pt"]]', "compares: no run of 'pt'; there are bmtpt"),
    ('against = ["pt"]', "against: expected a text, got ['pt']"),
    ('against = "lora"', "compares: no run of 'lora'"),
    ('values = ', 'is not TOML')])
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, text, told):
    with pytest.raises(ValueError) as e: read(tmp_path, text)
    assert told in str(e.value) and '\n' not in str(e.value)
    assert 'mine.toml' in str(e.value) or 'nowhere.toml' in str(e.value)

def test_records_are_found_by_their_configuration(tmp_path):
    "Also flat ones from before there were groups; other files are passed over, and a broken one is named"
    e = read(tmp_path, 'values = {method = "pt", target = "spam"}\ngrid = {seed = [0, 1, 2]}')
    (tmp_path/'out').mkdir()
    def put(name, text): (tmp_path/'out'/f'{name}.json').write_text(text)
    put('new', json.dumps(dict(config=as_record(e.configs[0]), scores={})))
    put('old', json.dumps(dict(config=dict(target='spam', method='pt', seed=1, source_lr=.07), scores={})))
    put('other', json.dumps(dict(config=dict(target='nyt', method='pt', seed=2), scores={})))
    put('table', '{}')
    assert [r and r.stem for _, r in planned(e, tmp_path/'out')] == ['new', 'old', None]
    put('wrong', json.dumps(dict(config=dict(method='nothing'), scores={})))
    with pytest.raises(ValueError, match='wrong.json cannot be used: no method'): planned(e, tmp_path/'out')
    put('wrong', '{')
    with pytest.raises(ValueError, match='wrong.json is not JSON'): planned(e, tmp_path/'out')

def test_comparisons_are_fixed_in_the_file_or_taken_over(tmp_path):
    grid = 'grid = {method = ["pt", "vanilla", "bmtpt"], kernel = ["rbf", "none"]}'
    assert read(tmp_path, grid).compares == ()
    assert read(tmp_path, f'against = "pt"\n{grid}').compares == (('vanilla', 'pt'), ('bmtpt', 'pt'))
    assert read(tmp_path, 'extends = "mine.toml"', 'next').compares == (('vanilla', 'pt'), ('bmtpt', 'pt'))
    arms = 'compares = [["bmtpt", "vanilla"], ["bmtpt kernel=none", "bmtpt"]]'
    assert read(tmp_path, f'extends = "mine.toml"\n{arms}', 'next').compares == (('bmtpt', 'vanilla'), ('bmtpt kernel=none', 'bmtpt'))

def test_a_method_that_reads_no_sources_is_run_once(tmp_path):
    "Whatever is said of them; a method that reads them, once for each source seed"
    e = read(tmp_path, 'grid = {method = ["pt", "vanilla", "lora"], source.seed = [3, 4], seed = [0, 1]}')
    assert [(c.method, c.seed, c.source.seed) for c in e.configs] == [
        ('pt', 0, 3), ('pt', 1, 3), ('vanilla', 0, 3), ('vanilla', 1, 3), ('vanilla', 0, 4), ('vanilla', 1, 4), ('lora', 0, 3), ('lora', 1, 3)]

def test_a_changed_record_is_read_again(tmp_path):
    e = read(tmp_path, 'values = {method = "pt"}\ngrid = {seed = [0, 1]}')
    out = tmp_path/'out'
    out.mkdir()
    for seed in (0, 1):
        (out/'r.json').write_text(json.dumps(dict(config=as_record(e.configs[seed]), scores={}, pad='x'*seed)))
        assert [bool(r) for _, r in planned(e, out)] == [seed == 0, seed == 1]

def test_where_an_experiment_is(tmp_path):
    assert [str(p) for p in experiment_paths('demo')] == ['experiments/demo.toml', 'results/demo']
    path, out = experiment_paths(tmp_path/'experiments/mine.toml')
    assert (path, out) == (tmp_path/'experiments/mine.toml', tmp_path/'results/mine') and experiment_paths('demo', 'here')[1].name == 'here'

def test_of_two_records_that_only_their_data_tells_apart_todays_counts(tmp_path):
    from bayes_prompt.run import run
    from conftest import SMALL
    from bayes_prompt.config import make_config
    from bayes_prompt.experiment import Experiment
    c = make_config(SMALL, method='pt')
    run(c, tmp_path)
    file, = tmp_path.glob('*.json')
    experiment = Experiment('mine', '?', [c])
    for other in ('00000000', 'ffffffff'):
        old = file.with_name(f'{file.stem[:-8]}{other}.json')
        old.write_bytes(file.read_bytes())
        assert planned(experiment, tmp_path) == [(c, file)]
        old.unlink()

def test_a_record_of_tasks_that_are_unknown_here_is_passed_over(tmp_path):
    from bayes_prompt.config import make_config
    from bayes_prompt.experiment import Experiment
    from bayes_prompt.tasks import TASKS, add_tasks
    (tmp_path/'own.toml').write_text('[passing]\nfields = ["text"]\nlabels = ["no", "yes"]\n')
    c = make_config(method='pt', target='passing', data=str(tmp_path/'own.toml'))
    file = tmp_path/'out.json'
    file.write_text(json.dumps(dict(config=as_record(c), scores={}, metric='accuracy')))
    TASKS.pop('passing')
    movie = make_config(method='pt', target='movie')
    assert planned(Experiment('other', '?', [movie]), tmp_path) == [(movie, None)]
    add_tasks(str(tmp_path/'own.toml')) # it is looked at again
    assert planned(Experiment('own', '?', [c]), tmp_path) == [(c, file)]
