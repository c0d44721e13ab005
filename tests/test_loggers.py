"Loggers write what was logged; the optional ones are tested where their package is installed"
import csv, importlib.util
import pytest
from bayes_prompt.callbacks import Checkpoint
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

def test_wandb_offline(tiny, tmp_path, monkeypatch):
    "The real package without a network: a run's folder is there and closed"
    pytest.importorskip('wandb')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.setenv('WANDB_SILENT', 'true')
    fit(Noisy(tiny), nothing, 3, callbacks=loggers_of(['wandb'], tmp_path)('x'))
    assert list(tmp_path.glob('wandb/offline-run-*/*.wandb'))

def test_trackio_in_its_own_folder(tiny, tmp_path, monkeypatch):
    pytest.importorskip('trackio')
    monkeypatch.setenv('TRACKIO_DIR', str(tmp_path/'trackio'))
    history = fit(Noisy(tiny), nothing, 3, callbacks=loggers_of(['trackio'], tmp_path)('x'))
    import sqlite3
    database, = (tmp_path/'trackio').rglob('*.db')
    with sqlite3.connect(database) as db: assert db.execute('select count(*) from metrics').fetchone()[0] == len(history)
