"The Hub: asked once, at one commit, streamed where a set is large; and what is said when it does not answer"
import json, time
from dataclasses import replace
from pathlib import Path
import pytest
from datasets import Dataset
from bayes_prompt.data import load_task
from bayes_prompt.hub import cache_dir, fetch_task, fetched, hub_rows
from bayes_prompt.tasks import SUITES, TASKS, suite
from conftest import HUB, fake_hub

NAMES = [t.name for s in SUITES if s != 'mini' for t in suite(s)]
pytestmark = pytest.mark.usefixtures('hub_cache')

def test_the_hub_is_asked_at_one_commit(monkeypatch):
    calls = fake_hub(monkeypatch)
    d = load_task('superglue-cb')
    assert d.test == load_task('superglue-cb', data_dir=HUB).test and d.source == '0123abc'
    assert calls[0] == dict(path='aps/super_glue', config='cb', split='train', revision='0123abc', data_files=None, streaming=False)

def test_a_loading_script_falls_back_to_the_parquet_export(monkeypatch):
    calls = fake_hub(monkeypatch, refuse=['tuetschek/e2e_nlg'])
    assert load_task('e2e_nlg').test == load_task('e2e_nlg', data_dir=HUB).test
    assert calls[1]['data_files'] == {'train': 'hf://datasets/tuetschek/e2e_nlg@beef/default/train/*.parquet'}

def test_mrqa_rows_are_taken_by_subset(monkeypatch):
    fake_hub(monkeypatch)
    for name, subset in dict(nq='NaturalQuestionsShort', newsqa='NewsQA').items():
        rows = list(hub_rows(TASKS[name], 'train')[0])
        assert len(rows) == 24 and {r['subset'] for r in rows} == {subset}
    assert not list(hub_rows(replace(TASKS['nq'], config='plain_text[Nobody]'), 'train')[0])

@pytest.mark.parametrize('name', ['nq', 'superglue-record', 'ag_news', 'squad'])
def test_large_sets_are_streamed_into_their_file(name, monkeypatch):
    calls = fake_hub(monkeypatch)
    a, b = load_task(name), load_task(name, data_dir=HUB)
    assert all(c['streaming'] for c in calls) and (a.train, a.validation, a.test, a.answers) == (b.train, b.validation, b.test, b.answers)

def test_the_hub_is_asked_once(monkeypatch):
    calls = fake_hub(monkeypatch)
    d, n = load_task('rte'), len(calls)
    assert load_task('rte').test == d.test and len(calls) == n

def test_arc_joins_two_configurations(monkeypatch):
    calls = fake_hub(monkeypatch)
    assert len(load_task('ai2_arc').test) == 12 and {c['config'] for c in calls} == {'ARC-Easy', 'ARC-Challenge'}

def test_a_hub_that_does_not_answer():
    t = time.perf_counter()
    with pytest.raises(ValueError, match='bp_fetch rte --data-dir DIR') as e: load_task('rte')
    assert '\n' not in str(e.value) and time.perf_counter() - t < 20

def test_fetch_keeps_what_is_there(monkeypatch, tmp_path):
    calls = fake_hub(monkeypatch)
    task = TASKS['superglue-cb']
    assert [f.name for f in fetch_task(task, tmp_path)] == ['train.parquet', 'validation.parquet'] and fetch_task(task, tmp_path) == [] and len(calls) == 2
    (tmp_path/'superglue-cb/validation.parquet').unlink()
    assert [f.name for f in fetch_task(task, tmp_path)] == ['validation.parquet']
    d = load_task('superglue-cb', data_dir=tmp_path)
    assert d.source == '0123abc' and d.test == load_task('superglue-cb', data_dir=HUB).test and not list(tmp_path.rglob('*.part*'))

def test_the_commit_is_noted_before_a_file_appears(monkeypatch, tmp_path):
    "A run killed between the two fetches that part again, at the same commit"
    fake_hub(monkeypatch)
    monkeypatch.setattr('os.replace', lambda a, b: (_ for _ in ()).throw(KeyboardInterrupt()) if str(b).endswith('validation.parquet') else Path(a).rename(b))
    with pytest.raises(KeyboardInterrupt): fetch_task(TASKS['rte'], tmp_path)
    assert set(json.loads((tmp_path/'rte/source.json').read_text())) == {'train', 'validation'} and [f.name for f in (tmp_path/'rte').glob('*.p*')] == ['train.parquet']

def test_another_data_set_under_the_same_name_is_refused(monkeypatch, tmp_path):
    fake_hub(monkeypatch)
    fetch_task(TASKS['rte'], tmp_path)
    with pytest.raises(ValueError, match='holds nyu-mll/glue \\(rte\\), not me/rte'): fetch_task(replace(TASKS['rte'], hub='me/rte'), tmp_path)

def test_a_full_disk_is_no_silent_hub(monkeypatch, tmp_path):
    fake_hub(monkeypatch)
    def full(self, path): raise OSError(28, 'No space left on device')
    monkeypatch.setattr('datasets.Dataset.to_parquet', full)
    with pytest.raises(OSError, match='could not write .*No space left'): fetch_task(TASKS['rte'], tmp_path)

def test_the_cache_is_in_the_hubs_own(monkeypatch, tmp_path):
    fake_hub(monkeypatch)
    assert fetched(TASKS['rte']) == cache_dir() and (cache_dir()/'rte/train.parquet').is_file()

def agrees_with_its_fixture(name):
    "The first row, and columns and class labels, of a part as it streams from the Hub"
    part = TASKS[name].hub_parts[-1].split('+')[0]
    rows, sha = hub_rows(replace(TASKS[name], split='large', parts=()), part)
    want = Dataset.from_parquet(str(HUB/f'{name}/{part}.parquet')).features
    assert sha and set(want) <= set(rows.features) and set(want) <= set(next(iter(rows)))
    assert {k: getattr(rows.features[k], 'names', None) for k in want} == {k: getattr(v, 'names', None) for k, v in want.items()}

@pytest.mark.parametrize('name', NAMES)
def test_the_comparison_with_the_hub_can_be_made(name, monkeypatch):
    fake_hub(monkeypatch)
    agrees_with_its_fixture(name)

@pytest.fixture(scope='session')
def hub():
    "The Hub, if it answers"
    from huggingface_hub import HfApi
    try: HfApi().dataset_info('nyu-mll/glue', timeout=5)
    except Exception as e: pytest.skip(f'the Hub does not answer ({type(e).__name__})')

@pytest.mark.parametrize('name', NAMES)
def test_the_hub_agrees_with_the_fixtures(name, hub): agrees_with_its_fixture(name)
