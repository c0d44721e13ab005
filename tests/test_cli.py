"Commands: one sentence for what a user can mend, and Ctrl-C at any moment"
import json, os, signal, subprocess, sys, time
from pathlib import Path
import pytest
from bayes_prompt.cli import bp_fetch, bp_run, demo_experiment
from bayes_prompt.config import make_config
from bayes_prompt.options import methods

@pytest.mark.parametrize('words, said', [
    (['target=moovie'], "nearest is 'movie'"), (['sede=1'], "nearest is 'seed'"), (['k=1000000'], 'ask for at most'), (['length=5000'], 'shorter prompt'), (['m=0'], 'at least 1'), (['backbone=minni'], "nearest known name is 'mini'"),
    (['prior=meen'], "nearest is 'mean'"), (['kappa=9'], 'number of source tasks'), (['backbone=tiny-t5', 'length=100000'], 'shorter prompt'), (['kernel=rbff'], "nearest is 'rbf'"), (['seed=-1'], 'at least 0'), (['lr=inf'], 'finite'),
    (['sources=nyt,nyt'], 'different tasks'), (['device=cudda'], 'cudda'), (['device=cuda'], 'cuda'), (['max_src=3'], 'at least 8 tokens'), (['data_dir=/nowhere'], 'no folder'), (['none.json'], 'no configuration file'), (['--log', 'cvs'], "nearest is 'csv'")])
def test_bad_input_is_one_sentence(words, said, tmp_path):
    with pytest.raises(SystemExit) as e: bp_run(['source_steps=2', 'steps=2', '--out', str(tmp_path), *words] if '.json' not in words[0] else [*words, '--out', str(tmp_path)])
    assert said in e.value.code and len(e.value.code.splitlines()) == 1   # sys.exit prints it and exits with status 1
    assert not [p for p in tmp_path.rglob('*') if p.is_file() and p.name != '.lock']

def test_help_lists_every_key_and_method(capsys):
    with pytest.raises(SystemExit): bp_run(['--help'])
    text = capsys.readouterr().out
    from bayes_prompt.config import Config
    assert all(key in text for key, *_ in Config.described()) and all(m.label in text for m in methods().values())

def test_a_run_from_the_command_line(tmp_path, capsys):
    bp_run(['backbone=tiny-t5', 'target=spam', 'method=pt', '--out', str(tmp_path), 'steps=2', 'k=2', 'limit=20'])
    assert json.loads(capsys.readouterr().out)['scores']['n'] == 20 and len(list(tmp_path.glob('spam-pt-s0-*.json'))) == 1

def test_what_is_fetched_is_named(tmp_path, capsys):
    bp_fetch(['movie', '--data-dir', str(tmp_path)])
    assert 'movie: is in the package' in capsys.readouterr().out
    with pytest.raises(SystemExit) as e: bp_fetch(['glu', '--data-dir', str(tmp_path)])
    assert 'glu' in e.value.code

def test_seeds_of_the_demo_are_draws_of_what_is_trained():
    three, one = demo_experiment(), demo_experiment(seeds=1)
    trained = [c for c in one.configs if c.method not in ('zero', 'source', 'ensemble')]
    assert len(three.configs) == len(one.configs) + 2*len(trained) and {c.seed for c in three.configs} == {0, 1, 2}
    with pytest.raises(ValueError, match='at least 1'): demo_experiment(seeds=0)

def test_source_stages_of_the_demo_cost_the_same():
    spent = {}
    for c in demo_experiment().configs:
        particles = 1 if c.method in ('vanilla', 'spot', 'mean') else c.source.particles
        if c.method != 'pt': spent[c.method] = particles*c.source.batch*c.source.steps
    assert len({spent[m] for m in ('bmtpt', 'vanilla', 'spot', 'mean')}) == 1

def test_ctrl_c_says_what_is_kept_and_goes_on(tmp_path):
    args = [Path(sys.executable).with_name('bp_demo'), '--quick', '--backbone', 'tiny-t5', '--out', str(tmp_path)]
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background of a script inherits that it is ignored
    p = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    assert 'loading' in p.stdout.readline() # a pipe hears of it too, at once: else this waits for the end, which nothing stops any more
    while not list(tmp_path.glob('*.json')):
        assert p.poll() is None, p.stderr.read()
        time.sleep(.05)
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=60)
    assert p.returncode == 130 and 'kept' in err and 'the same command goes on' in err and 'Traceback' not in err
    kept = {f.name: f.stat().st_mtime_ns for f in tmp_path.glob('*.json')}
    r = subprocess.run(args, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    assert all((tmp_path/f).stat().st_mtime_ns == t for f, t in kept.items()) and len(list(tmp_path.glob('*.json'))) == len(demo_experiment(quick=True).configs)
    assert 'BMTPT' in (tmp_path/'report.txt').read_text() and (tmp_path/'figure.png').stat().st_size > 5000

def test_a_sweep_lists_what_is_left(capsys, tmp_path):
    from bayes_prompt.cli import bp_sweep
    experiment = str(Path(__file__).resolve().parents[1]/'experiments/four_sources.toml')
    bp_sweep([experiment, '--dry-run'])
    assert '18 runs, 0 left' in capsys.readouterr().out
    bp_sweep([experiment, '--dry-run', '--out', str(tmp_path)])
    assert '18 runs, 18 left' in capsys.readouterr().out
    with pytest.raises(SystemExit) as e: bp_sweep(['none'])
    assert 'none.toml' in e.value.code

SWEEP = '''answers = "Does it help?"
against = "pt"
[values]
backbone = "tiny-t5"
target = {task = "movie", k = 2, steps = 8, lr = 0.3}
source = {tasks = ["nyt"], steps = 2}
limit = 60
[grid]
method = ["pt", "vanilla"]
seed = [0, 1]
source.seed = [0, 1]
'''

@pytest.fixture(scope='module')
def swept(tmp_path_factory):
    from bayes_prompt.cli import bp_sweep
    folder = tmp_path_factory.mktemp('swept')
    (folder/'experiments').mkdir()
    (folder/'experiments/mine.toml').write_text(SWEEP)
    bp_sweep([str(folder/'experiments/mine.toml')])
    return folder

def test_a_sweep_to_its_results(swept, capsys, monkeypatch):
    "Crossed seeds: PT once a seed, vanilla once for each source seed too"
    from bayes_prompt.cli import bp_results
    monkeypatch.chdir(swept)
    assert len(list(swept.glob('results/mine/*.json'))) == 6
    bp_results(['mine', '--format', 'json', '--plot', 'f.svg'])
    found = json.loads(capsys.readouterr().out)
    row, = found['comparisons']
    assert (row['method'], row['other'], row['seeds'], row['source_seeds'], row['n']) == ('vanilla', 'pt', 2, 2, 60)
    assert row['mcnemar'].endswith('/4') and 'fixed in the file beforehand' in found['assumptions'] and 'test examples as drawn' in found['assumptions']
    assert (swept/'f.svg').stat().st_size > 2000
    bp_results(['mine', '--metric', 'nll', '--only', 'verdicts'])
    assert 'vanilla transfer' in capsys.readouterr().out
    bp_results([str(swept/'results/mine'), '--only', 'scores', '--format', 'csv', '--draws', '0'])
    assert capsys.readouterr().out.startswith('target,method,metric,n,constant,seeds,source_seeds,mean')
    (swept/'results/mine/tuned').mkdir()   # a prompt of bp_tune beside records hides none of them
    (swept/'results/mine/tuned/prompt.safetensors').touch()
    bp_results([str(swept/'results/mine'), '--only', 'scores', '--draws', '0'])
    (swept/'results/mine/tuned/prompt.safetensors').unlink()

def test_results_of_a_sweep_that_is_not_done(swept, capsys, monkeypatch, tmp_path):
    from bayes_prompt.cli import bp_results
    monkeypatch.chdir(swept)
    for f in sorted(swept.glob('results/mine/*.json'))[1:]: (tmp_path/f.name).write_text(f.read_text())
    bp_results(['mine', '--out', str(tmp_path), '--only', 'scores'])
    assert '5 of 6 runs are done' in capsys.readouterr().err

@pytest.mark.parametrize('words,said', [
    (['mine', '--format', 'xlm'], "no format 'xlm'"), (['mine', '--only', 'score'], "nearest is 'scores'"), (['mine', '--metric', 'acuracy'], "nearest is 'accuracy'"),
    (['mine', '--against', 'vanila'], "nearest is 'vanilla'"), (['mien'], 'no experiment'), (['mine', '--out', 'empty'], 'no records of mine in empty: bp_sweep mine makes them'),
    (['mine', '--plot', 'f.xyz'], 'xyz'), (['experiments'], 'no run records')])
def test_what_results_cannot_do_is_one_sentence(swept, monkeypatch, words, said):
    from bayes_prompt.cli import bp_results
    monkeypatch.chdir(swept)
    with pytest.raises(SystemExit) as e: bp_results(words)
    assert said in e.value.code and e.value.code.startswith('error: ') and len(e.value.code.splitlines()) == 1

def test_a_failed_run_of_a_sweep_is_an_error_at_the_end(swept, tmp_path, capsys):
    from bayes_prompt.cli import bp_sweep
    (tmp_path/'bad.toml').write_text(SWEEP.replace('seed = [0, 1]\nsource.seed = [0, 1]', 'k = [2, 5000]'))
    with pytest.raises(SystemExit) as e: bp_sweep([str(tmp_path/'bad.toml'), '--out', str(tmp_path/'out')])
    assert e.value.code.startswith('error: 2 of 4 runs failed: movie pt seed 0 k=5000 (movie: expected 5000 examples') and len(list((tmp_path/'out').glob('*.json'))) == 2
    for words, said in ((['--worker', '3/2'], 'worker: expected'), (['--workers', '0'], 'at least 1')):
        with pytest.raises(SystemExit) as e: bp_sweep([str(tmp_path/'bad.toml'), *words])
        assert said in e.value.code

def test_help_needs_no_torch():
    code = "import sys; from bayes_prompt.cli import bp_results as f\ntry: f(['--help'])\nexcept SystemExit: assert not {'torch', 'pandas', 'scipy'} & sys.modules.keys()"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True).returncode == 0

@pytest.mark.parametrize('name', ['SIGTERM', 'SIGHUP'])
def test_a_scheduler_is_heard_like_ctrl_c(name, tmp_path):
    args = [Path(sys.executable).with_name('bp_run'), 'backbone=tiny-t5', 'method=pt', 'steps=1000000', 'k=2', 'limit=20', '--out', str(tmp_path)]
    heard = lambda: [signal.signal(s, signal.SIG_DFL) for s in (signal.SIGHUP, signal.SIGTERM)]
    p = subprocess.Popen(args, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    while not list(tmp_path.glob('sources/running/*/*.jsonl')):
        assert p.poll() is None, p.stderr.read()
        time.sleep(.05)
    p.send_signal(getattr(signal, name))
    _, err = p.communicate(timeout=60)
    assert p.returncode == 128 + getattr(signal, name) and 'stopped. ' in err and 'goes on from there' in err and 'Traceback' not in err

def test_nothing_asked_is_the_help(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bp_run([])
    assert 'target.sigma' in capsys.readouterr().out and not list(tmp_path.iterdir())

def test_no_network_is_a_sentence_within_seconds(tmp_path):
    import os
    env = os.environ | dict(HF_HUB_OFFLINE='0', HF_ENDPOINT='http://127.0.0.1:9', HF_HOME=str(tmp_path/'hf'))
    args = [Path(sys.executable).with_name('bp_run'), 'backbone=t5-base', '--out', str(tmp_path/'out')]
    began = time.perf_counter()
    r = subprocess.run(args, capture_output=True, text=True, env=env)
    assert r.returncode == 1 and 'download it once where there is network' in r.stderr.splitlines()[-1] and time.perf_counter() - began < 30

def test_a_terminal_that_knows_ascii_alone_is_spoken_to():
    code = "from bayes_prompt.cli import one_sentence\nwith one_sentence(): print('…')"
    done = subprocess.run([sys.executable, '-c', code], env=dict(os.environ, PYTHONIOENCODING='ascii'), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, '?\n')

HOTELS = '[hotels]\nfields = ["review"]\nlabels = ["bad", "good"]\n'

@pytest.mark.parametrize('words, said', [
    (['out=results'], 'it is an option of the command, --out results'),
    (['movie'], 'a single setting is written key=value'), (['target=hotels'], 'is described in a file, data.tasks=FILE'), (['rate.toml'], "rate.toml: no key 'target.learning_rate'; the nearest is 'target.lr'"),
    (['kind.toml'], "kind.toml: target.k: expected a whole number, got 'many'"), (['kind.toml', 'k=3', 'seed=x'], "error: seed: expected a whole number, got 'x'"), (['hotels.csv'], 'hotels.csv ends in .csv: expected a TOML or JSON file'),
    (['data=hotels.csv'], 'the file of tasks hotels.csv ends in .csv'), (['data=folder'], 'the file of tasks folder is a folder: name a file in it'), (['data=hotels.toml', 'target=hotels', 'k=30'], "hotels: expected 30 examples of 'bad', the training part has 1"),
    (['data=other.toml', 'target=other'], "got ('review', 'verdict'); 'label' is missing; the task says label = "),
    (['data=hotels.toml', 'target=hotel'], "no task 'hotel'; the nearest is 'hotels'"), (['backbone=./t5'], "no folder './t5': expected a model"), (['data=sheet.toml', 'target=sheet'], 'sheet.csv cannot be read: it seems to be a zip archive, as Excel writes: save the sheet as CSV')])
def test_what_users_type(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('rate.toml').write_text('[target]\nlearning_rate = 1')
    Path('kind.toml').write_text('[target]\nk = "many"')
    Path('hotels.toml').write_text(HOTELS)
    Path('hotels.csv').write_text('review,label\n' + ''.join(f'room {i},{["bad", "good"][i % 2]}\n' for i in range(40)))
    Path('sheet.toml').write_text(HOTELS.replace('hotels', 'sheet'))
    Path('sheet.csv').write_bytes(b'PK\x03\x04' + bytes(range(200)))
    Path('folder').mkdir()
    Path('other.toml').write_text(HOTELS.replace('hotels', 'other'))
    Path('other.csv').write_text('review,verdict\nroom,good\n')
    with pytest.raises(SystemExit) as e: bp_run([*words, 'backbone=tiny-t5', 'method=pt'] if 'backbone=./t5' not in words else words)
    assert said in e.value.code and e.value.code.startswith('error: ') and len(e.value.code.splitlines()) == 1

def test_a_file_is_not_blamed_for_what_was_typed(tmp_path, monkeypatch):
    "Nor for a key of another group that ends alike"
    monkeypatch.chdir(tmp_path)
    Path('mine.toml').write_text('seed = 1\nmethod = "pt"')
    for words in (['source.seed=-1'], ['method=foo'], ['seed=-1']):
        with pytest.raises(SystemExit) as e: bp_run(['mine.toml', *words])
        assert 'mine.toml' not in e.value.code

def test_a_folder_or_suite_that_is_none_is_named(tmp_path, monkeypatch):
    from bayes_prompt.cli import bp_results, bp_sweep
    monkeypatch.chdir(tmp_path)
    Path('experiments').mkdir()
    Path('experiments/mine.toml').write_text(SWEEP)
    Path('none').mkdir()
    for f, word, said in ((bp_results, 'none', 'no run records in none: expected'), (bp_sweep, 'mien', "'experiments/mien.toml': expected a TOML file; in experiments there are: mine"), (bp_fetch, 'glu', "no task or suite 'glu'; the nearest is 'glue'"),
                          (bp_sweep, 'mine.toml', "'mine.toml': expected a TOML file; in experiments there are: mine"), (bp_run, 'experiments/mine.toml', 'mine.toml is an experiment of several runs: bp_sweep makes them')):
        with pytest.raises(SystemExit) as e: f([word])
        assert said in e.value.code
    with pytest.raises(SystemExit) as e: bp_fetch(['movie', '--data-dir', 'experiments/mine.toml'])
    assert '--data-dir: expected a folder, experiments/mine.toml is a file' in e.value.code

def test_a_setting_that_the_method_does_not_read_is_said(tmp_path, capsys):
    words = ['backbone=tiny-t5', 'target=movie', 'method=pt', 'steps=1', 'limit=20', 'length=2']
    bp_run([*words, '--out', str(tmp_path)])
    assert 'does not read' not in capsys.readouterr().err
    bp_run([*words, 'lr_low=.5', 'm=3', '--out', str(tmp_path)])
    assert 'pt does not read target.lr_low, source.particles' in capsys.readouterr().err
    assert len(list(tmp_path.glob('*.json'))) == 1 # it is the same run

def test_a_sweep_as_json(swept, capsys):
    from bayes_prompt.cli import bp_sweep
    capsys.readouterr()
    bp_sweep([str(swept/'experiments/mine.toml'), '--json', '--dry-run'])
    said = capsys.readouterr()
    known = json.loads(said.out)
    assert known['runs'] == len(known['records']) == 6 and known['left'] == {} and '6 runs, 0 left' in said.err

def test_the_demo_as_json(tmp_path, capsys, monkeypatch):
    "The runs are others' tests: here two small records stand for them"
    import bayes_prompt.cli as cli
    asked = []
    monkeypatch.setattr('bayes_prompt.sweep.make_all', lambda experiment, out, progress, workers: asked.append(workers) or print('a run'))
    monkeypatch.setattr(cli, '_demo_report', lambda experiment, records, out: print('a report') or (lambda format: f'["{format}"]'))
    cli.bp_demo(['--quick', '--workers', '3', '--out', str(tmp_path), '--json'])
    said = capsys.readouterr()
    assert json.loads(said.out) == ['json'] and 'a run' in said.err and 'a report' in said.err and asked == [3]
