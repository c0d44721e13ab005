"The runs of an experiment that are missing are made, by one worker or several, whatever kills them"
import json, os, subprocess, sys, time
from pathlib import Path
import pytest
from filelock import FileLock
from safetensors.torch import load_file
from bayes_prompt.config import make_config
from bayes_prompt.experiment import planned, read_experiment
from bayes_prompt.store import alone, fingerprint
from bayes_prompt.sweep import _claim, _duration, _rounds, _same, seconds_left, submit, sweep

def test_no_file(tmp_path):
    with pytest.raises(ValueError, match='no experiment .*nothing.toml'): sweep(tmp_path/'nothing.toml')

TEXT = '''answers = "?"
[values]
target = {task = "spam", k = 2, steps = 2}
source = {tasks = ["movie"], steps = 2}
backbone = "tiny-t5"
limit = 12
[grid]
seed = [0, 1]
method = ["pt", "vanilla"]
'''

def test_a_sweep_makes_what_is_missing(tmp_path, monkeypatch, capsys):
    from bayes_prompt import run as module
    made, whole = [], module.run
    def counted(config, out, *a):
        made.append(config)
        if len(made) == 3: raise KeyboardInterrupt
        return whole(config, out, *a)
    monkeypatch.setattr(module, 'run', counted)
    (tmp_path/'experiments').mkdir()
    (tmp_path/'experiments/mine.toml').write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt): sweep('mine')
    kept = {f: f.stat().st_mtime_ns for f in (tmp_path/'results/mine').glob('*.json')}
    assert len(kept) == 2
    plan = sweep('mine', dry_run=True)
    assert [r is None for _, r in plan] == [False, False, True, True] and '4 runs, 2 left' in capsys.readouterr().out
    records = sweep('mine')
    assert [make_config(r['config']) for r in records] == read_experiment('experiments/mine.toml').configs
    assert all(f.stat().st_mtime_ns == t for f, t in kept.items()) and len(list((tmp_path/'results/mine').glob('*.json'))) == 4

def test_what_was_made_with_other_data_is_left(tmp_path, capsys):
    "The listing, the sweep and its bar say the same, and afterwards nothing is left"
    def data(n):
        rows = [f'{"free money" if i % 2 else "see you"} {i},{i % 2}' for i in range(n)]
        (tmp_path/'spam.csv').write_text('\n'.join(['text,label', *rows]))
    data(40)
    text = TEXT.replace('limit = 12', f'limit = 4\ndata_dir = {json.dumps(str(tmp_path))}').replace('"pt", "vanilla"', '"pt"')
    path = mine(tmp_path, text)
    def left():
        sweep(path, dry_run=True)
        return capsys.readouterr().out.splitlines()[1].partition(', records')[0]
    assert left() == '2 runs, 2 left'
    first = sweep(path)
    assert '[2/2] spam pt seed 1' in capsys.readouterr().out and left() == '2 runs, 0 left'
    data(60)
    assert left() == '2 runs, 2 left (2 for other data or weights than their records)'
    again = sweep(path)
    assert '[1/2] spam pt seed 0' in capsys.readouterr().out and left() == '2 runs, 0 left'
    assert [r['data'] for r in again] != [r['data'] for r in first] and len(records(tmp_path/'results/mine')) == 4

def test_a_listing_needs_no_torch(tmp_path):
    "Where no run is done whose data and weights may have changed"
    (tmp_path/'mine.toml').write_text(TEXT)
    code = f'''import sys
from bayes_prompt.sweep import sweep
sweep({str(tmp_path/"mine.toml")!r}, {str(tmp_path)!r}, dry_run=True)
assert 'torch' not in sys.modules'''
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.splitlines()[1:] == [
        f'4 runs, 4 left, records in {tmp_path}', '  spam pt seed 0', '  spam vanilla seed 0', '  spam pt seed 1', '  spam vanilla seed 1',
        'time of one worker: pt 2 runs, unknown, as none is done; vanilla 2 runs, unknown, as none is done']

def mine(folder, text=TEXT):
    "An experiment's file, and what it says"
    (folder/'experiments').mkdir(exist_ok=True)
    (folder/'experiments/mine.toml').write_text(text)
    return folder/'experiments/mine.toml'

def records(out): return {f.name: json.loads(f.read_text()) for f in sorted(Path(out).glob('*.json'))}

def test_a_share_is_every_nth_run(tmp_path, capsys):
    path = mine(tmp_path)
    assert [(c.seed, c.method) for c, _ in sweep(path, dry_run=True, worker='2/3')] == [(0, 'vanilla')]
    assert len(sweep(path, worker='1/3')) == 2 and '[2/2] spam vanilla seed 1: accuracy' in capsys.readouterr().out
    assert [r is not None for _, r in planned(read_experiment(path), tmp_path/'results/mine')] == [True, False, False, True]
    for wrong in ('0/3', '4/3', '1', 'a/b', '-1/3'):
        with pytest.raises(ValueError, match='worker: expected its number'): sweep(path, dry_run=True, worker=wrong)
    with pytest.raises(ValueError, match='workers: expected at least 1'): sweep(path, workers=0)
    with pytest.raises(ValueError, match='expected one of them'): sweep(path, workers=2, worker='1/2')

def test_what_others_do_is_passed_over_and_come_back_to(tmp_path, monkeypatch):
    "A claimed run is done last, once its claim is free, and by nobody twice"
    configs = read_experiment(mine(tmp_path)).configs
    lock, done = FileLock(tmp_path/f'{fingerprint(_same(configs[0]))}.lock'), []
    lock.acquire()
    monkeypatch.setattr('bayes_prompt.sweep.sleep', lambda s: lock.release())
    _rounds(configs, tmp_path, done.append)
    assert done == [*configs[1:], configs[0]]

def test_a_run_whose_source_stage_another_learns_is_done_last(tmp_path, monkeypatch):
    configs = read_experiment(mine(tmp_path)).configs
    stage, done = tmp_path/'stage', []
    stage.mkdir()
    lock = FileLock(stage/'.lock')
    lock.acquire()
    def do(config):
        if config in configs[:2]:
            with alone(stage, 'the stage'): pass
        done.append(config)
    monkeypatch.setattr('bayes_prompt.sweep.sleep', lambda s: lock.release())
    _rounds(configs, tmp_path, do)
    assert done == [*configs[2:], *configs[:2]]

def test_the_claim_of_a_dead_process_is_free(tmp_path):
    code = f"from filelock import FileLock; import time; lock = FileLock({str(tmp_path/'a.lock')!r}); lock.acquire(); print('mine', flush=True); time.sleep(60)"
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == 'mine\n'
    with _claim(tmp_path/'a.lock') as mine: assert not mine
    p.kill()
    p.wait()
    with _claim(tmp_path/'a.lock') as mine: assert mine

def test_a_failed_run_is_said_at_the_end_and_tried_once_a_sweep(tmp_path, monkeypatch, capsys):
    from bayes_prompt import run as module
    path, tried, whole = mine(tmp_path), [], module.run
    def fails(config, out, *a):
        tried.append((config.seed, config.method))
        if config.method == 'pt': raise ValueError('it is\nbroken')
        return whole(config, out, *a)
    monkeypatch.setattr(module, 'run', fails)
    for _ in range(2):
        tried.clear()
        with pytest.raises(ValueError) as e: sweep(path)
        assert str(e.value) == '2 of 4 runs failed: spam pt seed 0 (it is broken); spam pt seed 1 (it is broken); the same command tries them again'
        assert tried == [(0, 'pt'), (0, 'vanilla'), (1, 'pt'), (1, 'vanilla')]
    assert 'spam pt seed 0: failed: it is broken' in capsys.readouterr().out
    monkeypatch.setattr(module, 'run', whole)
    assert len(sweep(path)) == 4 and not list((tmp_path/'results').rglob('claims/*.json'))

def test_the_time_left_is_that_of_the_method(tmp_path):
    path = mine(tmp_path)
    sweep(path, tmp_path/'out')
    for name, record in records(tmp_path/'out').items():
        if record['config']['seed']: (tmp_path/'out'/name).unlink()
        else: (tmp_path/'out'/name).write_text(json.dumps(record | dict(seconds=dict(total=7. if record['config']['method'] == 'pt' else 90.))))
    assert seconds_left(planned(read_experiment(path), tmp_path/'out')) == dict(pt=(1, 7.), vanilla=(1, 90.))
    assert [_duration(s) for s in (7, 90, 6000)] == ['7 s', '2 min', '1.7 h']

# ---- kills

MORE = TEXT.replace('steps = 2}\nbackbone', 'steps = 60, batch = 2}\nbackbone').replace('"pt", "vanilla"', '"pt", "bmtpt"').replace('limit = 12', 'limit = 12\nm = 3')
SAME = ('config', 'scores', 'predictions', 'loss', 'train_indices', 'source_history', 'trainable', 'cost')

def start(path, out, **more):
    words = dict(name=str(path), out=str(out)) | more
    code = 'import json, sys; from bayes_prompt.sweep import sweep; sweep(**json.loads(sys.argv[1]))'
    return subprocess.Popen([sys.executable, '-c', code, json.dumps(words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

def kill_when(process, there):
    "SIGKILL as soon as something is there"
    while not there():
        assert process.poll() is None, process.stdout.read()
        time.sleep(.005)
    process.kill()
    process.wait()

def assert_same(out, other):
    "Scores, answers and particles of two sweeps"
    a, b = records(out), records(other)
    assert list(a) == list(b) and a
    for name in a: assert all(a[name][k] == b[name][k] for k in SAME), name
    for pattern in ('sources/*/posterior.safetensors', 'prompts/*.safetensors'):
        files = sorted(f.relative_to(out) for f in Path(out).glob(pattern))
        assert files and files == sorted(f.relative_to(other) for f in Path(other).glob(pattern))
        for f in files:
            x, y = load_file(Path(out)/f), load_file(Path(other)/f)
            assert x.keys() == y.keys() and all(x[k].equal(y[k]) for k in x), f

@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp('unbroken')
    path = mine(folder, MORE)
    p = start(path, folder/'out')
    assert p.wait() == 0, p.stdout.read()
    return path, folder/'out'

def test_a_sweep_killed_at_several_moments_ends_like_one_never_killed(unbroken, tmp_path):
    path, whole = unbroken
    def found(pattern): return lambda: any(tmp_path.glob(pattern))
    for moment in ('sources/claims/*.lock', 'sources/*/state/*.safetensors', '*-bmtpt-s0-*.json'):
        kill_when(start(path, tmp_path), found(moment))
    assert len(records(tmp_path)) < 4
    p = start(path, tmp_path)
    assert p.wait() == 0, p.stdout.read()
    assert_same(tmp_path, whole)

def test_a_dead_worker_is_replaced_and_nothing_is_made_twice(unbroken, tmp_path):
    "Two sweeps on one folder, of which one is killed in the middle of the source stage"
    path, whole = unbroken
    first, second = start(path, tmp_path), start(path, tmp_path)
    kill_when(first, lambda: any(tmp_path.glob('sources/*/state/*.safetensors')))
    assert second.wait() == 0, second.stdout.read()
    assert_same(tmp_path, whole)

def test_local_workers(unbroken, tmp_path):
    path, whole = unbroken
    p = start(path, tmp_path, workers=2)
    said, _ = p.communicate()
    assert p.returncode == 0 and said.count('spam bmtpt seed 1: accuracy') == 1 and '[4/4]' in said, said
    assert_same(tmp_path, whole)

def test_a_cluster(tmp_path, monkeypatch):
    submitit = pytest.importorskip('submitit')
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(Path(__file__).resolve().parents[1]), os.environ.get('PYTHONPATH', '')]))
    path = mine(tmp_path)
    jobs = submit(path, jobs=2, gpus=0, cluster='local', minutes=5)
    assert [j.result() for j in jobs] == [2, 2] and len(records(tmp_path/'results/mine')) == 4
    assert submit(path, jobs=2, cluster='local') == []
    again = jobs[0].submission().function.checkpoint()
    assert isinstance(again, submitit.helpers.DelayedSubmission) and again.function.worker == '1/2'

def test_no_cluster_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'submitit', None)
    with pytest.raises(ValueError, match='pip install submitit'): submit(mine(tmp_path))
