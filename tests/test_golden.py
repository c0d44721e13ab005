"Committed records, run again: today's code gives the scores that the findings were computed from"
import json
from pathlib import Path
import pytest, torch
from bayes_prompt.config import make_config, told_by
from bayes_prompt.run import run
from bayes_prompt.experiment import planned, read_experiment

ROOT = Path(__file__).resolve().parents[1]

def record(experiment, target, method, seed):
    "A record of an experiment"
    e = read_experiment(ROOT/'experiments'/f'{experiment}.toml')
    path, = [path for c, path in planned(e, ROOT/'results'/experiment) if (c.target.task, c.method, c.seed) == (target, method, seed)]
    return json.loads(path.read_text(encoding='utf-8'))

@pytest.fixture(scope='module')
def out(tmp_path_factory): return tmp_path_factory.mktemp('golden')

@pytest.fixture
def threads():
    "Sums of another number of threads differ in their last digit, which training can make the third"
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)

EXACT = ('accuracy', 'macro_f1', 'matthews', 'n', 'majority', 'majority_label', 'collapsed', 'invalid')

@pytest.mark.parametrize('experiment,target,method,seed', [
    ('four_sources', 'amazon', 'pt', 0), ('four_sources', 'amazon', 'bmtpt', 0), ('compare', 'supersense', 'lora', 1)])
def test_a_record_can_be_made_again(experiment, target, method, seed, out, threads):
    old = record(experiment, target, method, seed)
    threads(old['threads'])
    new = run(make_config(old['config']), out)
    assert set(old) - {'migrated'} <= set(new)
    assert told_by(new['config']) == told_by(old['config'])   # there are more settings today
    for key in ('data', 'weights', 'metric', 'train_indices', 'trainable', 'data_from', 'splits', 'cut', 'cost'):
        if key in old: assert new[key] == old[key], key
    for key, value in old['scores'].items():
        assert new['scores'][key] == (value if key in EXACT else pytest.approx(value, abs=1e-5)), key
    assert new['loss'] == pytest.approx(old['loss'], abs=1e-4)
    assert len(new['source_history']) == len(old['source_history'])
    for a, b in zip(new['source_history'], old['source_history']):
        assert a == pytest.approx(b, rel=2e-3)   # four digits were kept
