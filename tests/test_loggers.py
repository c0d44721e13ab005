"Loggers write what was logged; the optional ones are tested where their package is installed"
import csv, importlib.util, json, os, sqlite3, subprocess, sys
import pytest
from bayes_prompt.callbacks import Checkpoint
from bayes_prompt.cli import check_words
from bayes_prompt.loggers import loggers_of
from bayes_prompt.train import fit
from test_callbacks import Kill, Noisy
from test_train import nothing

def rows(f): return list(csv.DictReader(f.open()))

def test_csv_has_every_step_once_after_a_kill(tiny, tmp_path):
    log = loggers_of(['csv'], tmp_path)
    with pytest.raises(KeyboardInterrupt): fit(Noisy(tiny), nothing, 9, callbacks=[*log('a b'), Checkpoint(tmp_path/'s', 5), Kill(7)])
    history = fit(Noisy(tiny), nothing, 9, callbacks=[*log('a b'), Checkpoint(tmp_path/'s', 5)])
    got = rows(tmp_path/'a_b.csv')
    assert [int(r['step']) for r in got] == list(range(1, 10)) and [float(r['loss']) for r in got] == [h['loss'] for h in history]

@pytest.mark.parametrize('name', ['tensorboard', 'trackio', 'wandb'])
def test_a_missing_package_is_one_sentence(tiny, tmp_path, name):
    if importlib.util.find_spec(name): pytest.skip('installed')
    with pytest.raises(ValueError, match=f'pip install {name}'): check_words('mini', name) # before torch is loaded
    with pytest.raises(ValueError, match=f'pip install {name}'): fit(Noisy(tiny), nothing, 2, callbacks=loggers_of([name], tmp_path)('x'))

def test_tensorboard_reads_it_back(tiny, tmp_path):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    history = fit(Noisy(tiny), nothing, 4, callbacks=loggers_of(['tensorboard'], tmp_path)('x'))
    events = EventAccumulator(str(tmp_path/'x'))
    events.Reload()
    assert [s.value for s in events.Scalars('loss')] == pytest.approx([h['loss'] for h in history])

def test_a_number_that_comes_now_and_then_has_a_column(tiny, tmp_path):
    from bayes_prompt.train import Callback
    class Sometimes(Callback):
        order = 10
        def step(self, run):
            if run.step == 2: run.history[-1]['norm'] = 3.
    fit(Noisy(tiny), nothing, 4, callbacks=[Sometimes(), *loggers_of(['csv'], tmp_path)('x')])
    assert [r['norm'] for r in rows(tmp_path/'x.csv')] == ['', '3.0', '', '']

def test_two_fits_and_two_rates_have_files_of_their_own(tmp_path):
    from bayes_prompt.run import run
    from conftest import SMALL
    for lr in (.1, .2): run(SMALL, tmp_path, method='spot', steps=8, lr=lr, loggers=loggers_of(['csv'], tmp_path/'logs'))
    assert sum(f.name.startswith('movie-spot') for f in (tmp_path/'logs').iterdir()) == 4

@pytest.fixture
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.setenv('WANDB_SILENT', 'true')
    monkeypatch.setenv('TRACKIO_DIR', str(tmp_path/'trackio'))

def killed_and_again(tiny, tmp_path, name):
    "The history of a training that was killed at its seventh step and went on from the fifth; its logger"
    log = loggers_of([name], tmp_path)
    with pytest.raises(KeyboardInterrupt): fit(Noisy(tiny), nothing, 9, callbacks=[*log('x'), Checkpoint(tmp_path/'s', 5), Kill(7)])
    logger, = log('x')
    return fit(Noisy(tiny), nothing, 9, callbacks=[logger, Checkpoint(tmp_path/'s', 5)]), logger

def wandb_losses(file):
    "The losses in a run's file: after seven bytes, records of checksum, length, kind and protobuf"
    from wandb.proto.wandb_internal_pb2 import Record
    data, at, losses = file.read_bytes(), 7, []
    while at + 7 < len(data):
        n = int.from_bytes(data[at+4:at+6], 'little')
        record = Record.FromString(data[at+7:at+7+n])
        losses += [float(i.value_json) for i in record.history.item if 'loss' in (i.key, *i.nested_key)]
        at += 7 + n
    return losses

def test_wandb_offline(tiny, tmp_path, offline):
    "The real package without a network: each run's folder is there and closed, and the second has all steps"
    pytest.importorskip('wandb')
    history, logger = killed_and_again(tiny, tmp_path, 'wandb')
    files = {f.stem.removeprefix('run-'): wandb_losses(f) for f in tmp_path.glob('wandb/offline-run-*/*.wandb')}
    losses = [h['loss'] for h in history]
    assert len(files) == 2 and files.pop(logger.run.id) == pytest.approx(losses)
    assert [*files.values()][0] == pytest.approx(losses[:len([*files.values()][0])])

def test_trackio_in_its_own_folder(tiny, tmp_path, offline, capsys):
    pytest.importorskip('trackio')
    history, logger = killed_and_again(tiny, tmp_path, 'trackio')
    assert capsys.readouterr().out == '' # it talks, but not where a command's answer stands
    database, = (tmp_path/'trackio').rglob('*.db')
    with sqlite3.connect(database) as db: got = db.execute('select step, metrics from metrics where run_id = ? order by step', [logger.run.id]).fetchall()
    assert [step for step, _ in got] == list(range(1, 10)) and [json.loads(m)['loss'] for _, m in got] == pytest.approx([h['loss'] for h in history])

def test_no_login_is_one_sentence(tiny, tmp_path, monkeypatch):
    pytest.importorskip('wandb')
    monkeypatch.setattr('wandb.init', lambda **_: (_ for _ in ()).throw(importlib.import_module('wandb').Error('No API key configured.')))
    with pytest.raises(ValueError, match='No API key configured.*WANDB_MODE=offline'): fit(Noisy(tiny), nothing, 2, callbacks=loggers_of(['wandb'], tmp_path)('x'))

@pytest.mark.parametrize('name', ['wandb', 'trackio'])
def test_a_command_logs_and_prints_json_alone(tmp_path, name):
    "As a user would: bp_run --log, in a process of its own"
    pytest.importorskip(name)
    words = f'backbone=tiny-t5 target=spam method=pt steps=3 k=2 limit=10 length=4 --out {tmp_path} --log {name}'.split()
    env = os.environ | dict(WANDB_MODE='offline', TRACKIO_DIR=str(tmp_path/'trackio'))
    done = subprocess.run([sys.executable, '-m', 'bayes_prompt', 'run', *words], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)['scores']['n'] == 10 and list(tmp_path.rglob(dict(wandb='*.wandb', trackio='*.db')[name]))
