"The papers' tasks through the loader: fixtures with the Hub's columns and types, published splits, a Hub that does not answer, fetched copies"
import csv, json, re, sys, time
from dataclasses import replace
from pathlib import Path
import pytest
from datasets import Dataset, concatenate_datasets
from bayes_prompt.data import few_shot, load_task, published_split
from bayes_prompt.hub import fetch_task, hub_rows
from bayes_prompt.experiment import run
from bayes_prompt.tasks import STYLES, SUITES, TASKS, add_tasks, read_tasks, suite

HUB = Path(__file__).parent/'fixtures/hub'
NAMES = [t.name for s in SUITES if s != 'mini' for t in suite(s)]


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('style', STYLES)
def test_every_task_loads(name, style):
    d = load_task(name, style, data_dir=HUB)
    assert len(d.validation) == len(d.answers['validation']) and len(d.test) == len(d.answers['test']) and d.source == str(HUB)
    for part in (d.train, d.validation, d.test): assert all(s.strip() and t.strip() for s, t in part)
    if not d.task.read or d.choices: assert all(target in golds for (_, target), golds in zip(d.test, d.answers['test']))
    if d.choices: assert {t for _, t in d.train + d.test} <= set(d.choices)
    assert bool(d.groups) == (name == 'superglue-multirc')
    bare = load_task(name, style, data_dir=HUB, add_prefix=False)
    assert all(s.endswith(b) for (s, _), (b, _) in zip(d.test, bare.test)) and bare.answers == d.answers

@pytest.mark.parametrize('row', list(csv.DictReader((HUB.parent/'hub.csv').open())), ids=lambda r: r['task'])
def test_the_table_agrees_with_the_hub_and_the_fixtures(row):
    "hub.csv is a list of the Hub's ids, configurations, columns and labels that was made apart from the table"
    task = TASKS[row['task']]
    assert (task.hub, task.config) == (row['hub'], row['config'])
    have = Dataset.from_parquet(str(HUB/f'{task.name}/{task.hub_parts[0].split("+")[0]}.parquet')).column_names
    assert set(have) <= set(row['columns'].split())
    if names := re.findall(r'\d=([\w/]+)(?:\||$)', row['labels']): assert list(task.labels) == names
    else: assert not task.labels or 'position' in row['labels'] or task.name == 'winogrande'

def test_the_list_of_the_hub_is_complete(): assert {r['task'] for r in csv.DictReader((HUB.parent/'hub.csv').open())} == set(NAMES) and len(NAMES) == 30

def test_the_published_permutation():
    def perm(n): return [r for r in published_split('small', [[], list(range(n))])[0][1]]
    assert perm(104)[:5] == [70, 20, 30, 58, 2] and perm(277)[:5] == [207, 84, 253, 243, 190] and len(perm(277)) == 138
    (train, val, test), at = published_split('large', [list(range(67_349)), ['t']])
    assert val[:5] == [6677, 49712, 38268, 32909, 23395] and len(val) == 1000 and len(train) == 66_349 and test == ['t'] and at == dict(validation=val)

def test_parts_of_their_own():
    mnli = load_task('mnli', data_dir=HUB)
    rows = {p: Dataset.from_parquet(str(HUB/f'mnli/{p}.parquet')) for p in ('validation_mismatched', 'validation_matched')}
    assert [len(mnli.validation), len(mnli.test)] == [len(rows['validation_mismatched']), len(rows['validation_matched'])]
    anli = load_task('anli', data_dir=HUB)
    assert [sum(s.startswith(f'anli_r{i} ') for s, _ in anli.train) for i in (1, 2, 3)] == [24, 24, 24]

def test_record_is_split_before_it_is_expanded():
    d = load_task('superglue-record', data_dir=HUB)
    assert len(d.train) == 2*12 and len(d.validation) == 12 and len(d.test) == 10 and len(d.answers['test'][0]) == 2
    assert not {s for s, _ in d.train} & {s for s, _ in d.validation}

def test_wsc_for_t5_trains_on_true_rows_only():
    assert len(load_task('superglue-wsc.fixed', 't5', data_dir=HUB).train) == 12 and len(load_task('superglue-wsc.fixed', 'attempt', data_dir=HUB).train) == 24

def test_few_examples_of_a_task_of_the_papers():
    d = load_task('superglue-cb', data_dir=HUB)
    assert len(few_shot(d.train, 4)) == 12
    with pytest.raises(ValueError, match='ask for at most 8'): few_shot(d.train, 16)

@pytest.mark.parametrize('name', ['commonsense_qa', 'squad', 'rte', 'superglue-multirc', 'winogrande', 'stsb'])
@pytest.mark.parametrize('kind', ['jsonl', 'csv'])
def test_text_files_give_the_same_pairs(name, kind, tmp_path):
    (tmp_path/name).mkdir()
    for part in TASKS[name].hub_parts:
        rows = list(Dataset.from_parquet(str(HUB/f'{name}/{part}.parquet')))
        f = tmp_path/name/f'{part}.{kind}'
        if kind == 'jsonl': f.write_text(''.join(json.dumps(r, ensure_ascii=False) + '\n' for r in rows), encoding='utf-8')
        else:
            with f.open('w', encoding='utf-8', newline='') as o:
                w = csv.DictWriter(o, rows[0])
                w.writeheader()
                w.writerows({k: json.dumps(v) if isinstance(v, (dict, list)) else v for k, v in r.items()} for r in rows)
    a, b = load_task(name, data_dir=tmp_path), load_task(name, data_dir=HUB)
    assert (a.train, a.validation, a.test, a.answers, a.groups) == (b.train, b.validation, b.test, b.answers, b.groups)

@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr('datasets.config.HF_CACHE_HOME', str(tmp_path/'cache'))

def fake_hub(monkeypatch, refuse=()):
    "A Hub that serves the fixtures; ids in `refuse` are loading scripts, of which only the Parquet export can be read"
    calls = []
    class Api:
        def dataset_info(self, hub, timeout, revision=None): return type('Info', (), dict(sha='beef' if revision else '0123abc'))
    def load_dataset(path, config=None, split=None, revision=None, data_files=None, streaming=False):
        calls.append(dict(path=path, config=config, split=split, revision=revision, data_files=data_files, streaming=streaming))
        if path in refuse: raise RuntimeError('Dataset scripts are no longer supported')
        hub = path if path != 'parquet' else data_files[split].split('@')[0].removeprefix('hf://datasets/')
        config = config or data_files[split].split('/')[-3]
        found = [t for s in SUITES for t in suite(s) if t.hub == hub and config in (t.config, *t.config.partition('[')[0].split('+'))]
        names = [t.name for t in found] if '[' in found[0].config else [found[0].name]  # tasks that are a subset each of one configuration
        ds = concatenate_datasets([Dataset.from_parquet(str(HUB/f'{n}/{split}.parquet')) for n in names])
        return ds.to_iterable_dataset() if streaming else ds
    monkeypatch.setattr('huggingface_hub.HfApi', Api)
    monkeypatch.setattr('datasets.load_dataset', load_dataset)
    return calls

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

def test_broken_files_get_a_sentence(tmp_path):
    f = tmp_path/'rte/train.parquet'
    f.parent.mkdir()
    for content, message in [(None, 'expected rte/train as .parquet, .jsonl or .csv'), ((HUB/'rte/train.parquet').read_bytes()[:-200], 'may be cut off')]:
        if content: f.write_bytes(content)
        with pytest.raises(ValueError, match=message) as e: load_task('rte', data_dir=tmp_path)
        assert '\n' not in str(e.value)
    f.unlink()
    f.with_suffix('.jsonl').write_text('{"sentence1": "a"\n')
    with pytest.raises(ValueError, match='one JSON object per line'): load_task('rte', data_dir=tmp_path)

def test_references_in_rows_of_their_own_are_one_input():
    d = load_task('e2e_nlg', data_dir=HUB)
    sources = [s for s, _ in d.test]
    assert len(set(sources)) == len(sources) == len(d.answers['test']) and max(map(len, d.answers['test'])) > 1 and len(d.train) > len({s for s, _ in d.train})

OWN = dict(fields=['review'], labels=['bad', 'good'])

def own(tmp_path, csv, **kw):
    (tmp_path/'t.json').write_text(json.dumps(dict(mine=OWN | kw)))
    (tmp_path/'mine.csv').write_text(csv, encoding='utf-8-sig')
    add_tasks(tmp_path/'t.json')
    try: return load_task('mine')
    finally: TASKS.pop('mine')

def test_a_file_without_a_split_is_permuted(tmp_path):
    d = own(tmp_path, 'review,label\n' + ''.join(f'[{i}] "fine", {i}?,{i % 2}\n'.replace('[', '"[').replace('"fine"', '""fine""').replace('?', '?"') for i in range(20)))
    assert [len(d.train), len(d.validation), len(d.test)] == [12, 4, 4] and sorted(sum(d.indices.values(), [])) == list(range(20))
    assert (f'mine review: [{d.indices["test"][0]}] "fine", {d.indices["test"][0]}?', ('bad', 'good')[d.indices['test'][0] % 2]) == d.test[0]

def test_a_table_of_labels_and_a_named_file(tmp_path):
    (tmp_path/'x.jsonl').write_text(''.join(json.dumps(dict(review=f'r{i}', stars=i % 2 + 1)) + '\n' for i in range(10)))
    d = own(tmp_path, 'unused', file='x.jsonl', label='stars', labels={'1': 'bad', '2': 'good'})
    assert {t for _, t in d.train} == {'bad', 'good'} and d.choices == ('bad', 'good')

def test_numbers_and_free_text_of_your_own(tmp_path):
    d = own(tmp_path, 'review,label\n' + ''.join(f'r{i},{i/2}\n' for i in range(10)), labels=[], grid=[0, 5, .5])
    assert d.task.metric == 'pearson' and d.test[0][1] in d.choices
    d = own(tmp_path, 'review,label\n' + ''.join(f'r{i},007 {i}\n' for i in range(10)), labels=[])
    assert d.task.metric == 'squad_f1' and d.choices == () and d.test[0][1].startswith('007 ')

@pytest.mark.parametrize('csv,kw,message', [
    ('review,label\na,b,c\n', {}, 'more cells than the header'), ('review,label\n', {}, 'expected rows'), ('text,label\na,bad\n', {}, "'review' is missing"), ('review,label\na,ugly\n'*1, {}, 'not in the verbaliser|has no rows'),
    ('review,label,split\na,bad,dev\n', {}, "got 'dev'"), ('review,label\n' + 'a,ugly\n'*9, {}, "label 'ugly' is not in the verbaliser"), ('review,label\n' + ' ,bad\n'*9, {}, 'expected a text'), ('', dict(file='no.csv'), 'expected no.csv in')])
def test_a_wrong_file_of_your_own_gets_a_sentence(csv, kw, message, tmp_path):
    with pytest.raises(ValueError, match=message) as e: own(tmp_path, csv, **kw)
    assert '\n' not in str(e.value)

def test_a_folder_of_hub_tasks_leaves_the_package_its_own(hotels):
    assert load_task('spam', data_dir=HUB).source == 'mini' and load_task('rte', data_dir=HUB).source == str(HUB)
    add_tasks(hotels)
    assert load_task('hotels', data_dir=HUB).source == str(hotels.parent)
    with pytest.raises(ValueError, match='no folder'): load_task('spam', data_dir='/nowhere')

def test_what_was_split_and_cut_is_in_the_record(tmp_path):
    r = run(SMALL, tmp_path, progress=False, method='pt', target='rte', k=2, data_dir=str(HUB))
    d = load_task('rte', data_dir=HUB)
    assert r['splits'] == {'rte': d.indices} and 0 <= r['cut']['rte'] <= 1 and len(r['train_indices']) == 4

SMALL = dict(backbone='tiny-t5', steps=2, batch=2, limit=6, length=4, max_src=32)

@pytest.mark.parametrize('target,style,k,metrics', [('superglue-cb', 'attempt', 2, {'accuracy', 'macro_f1'}), ('superglue-multirc', 't5', 2, {'f1a', 'f1m', 'multirc_em'}), ('squad', 't5', 2, {'squad_f1', 'squad_em'}),
                                                    ('superglue-wsc.fixed', 't5', 2, {'accuracy'}), ('stsb', 'attempt', 2, {'pearson', 'spearman'}), ('web_nlg', 't5', 2, {'bleu', 'rouge_l', 'chrf'})])
def test_a_task_of_the_papers_runs_end_to_end(target, style, k, metrics, tmp_path):
    r = run(SMALL, tmp_path, progress=False, method='pt', target=target, style=style, k=k, data_dir=str(HUB))
    assert r['metric'] == TASKS[target].metric and metrics <= set(r['scores']) and r['data_from'] == {target: str(HUB)} and r['scores']['n'] >= 3
    assert run(SMALL, tmp_path, progress=False, method='pt', target=target, style=style, k=k, data_dir=str(HUB)) == r

def test_transfer_between_tasks_of_the_papers(tmp_path):
    r = run(SMALL, tmp_path, progress=False, method='bmtpt', target='superglue-cb', sources=['rte', 'squad'], m=2, source_steps=2, source_batch=2, k=2, data_dir=str(HUB))
    assert set(r['data_from']) == {'superglue-cb', 'rte', 'squad'} and len(r['source_history']) == 2

@pytest.fixture
def hotels(tmp_path):
    rows = [dict(split=s, name='Pell Inn', review=f'soup {i} {s}', verdict=('bad', 'good')[i % 2]) for s in ('train', 'validation', 'test') for i in range(8)]
    (tmp_path/'hotels.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows))
    f = tmp_path/'hotels.json'
    f.write_text(json.dumps(dict(hotels=dict(template='{name}: {review}', labels=['bad', 'good'], label='verdict'))))
    yield f
    TASKS.pop('hotels', None)

@pytest.mark.parametrize('method', ['pt', 'vanilla', 'bmtpt', 'finetune'])
def test_a_task_of_your_own_runs_through_every_method(method, hotels, tmp_path):
    r = run(SMALL, tmp_path/'out', progress=False, method=method, tasks=str(hotels), target='hotels', sources=['movie'], m=2, source_steps=2, source_batch=2, k=2, lr=1e-4)
    assert r['scores']['n'] == 6 and r['data_from']['hotels'] == str(tmp_path)
    assert load_task('hotels').train[1] == ('hotels Pell Inn: soup 1 train', 'good')

@pytest.mark.parametrize('content,message', [
    ('{"hotels": {"fields": ["review"], "lables": ["a"]}}', "nearest is 'labels'"), ('{"hotels": {"labels": ["a"]}}', 'one of them'), ('{"hotels": 3}', 'expected a table'), ('{"a/b": {"fields": ["review"]}}', 'names files'), ('{', 'cannot be read'),
    ('{"movie": {"fields": ["review"], "labels": ["a", "b"]}}', 'choose another name')])
def test_a_wrong_file_of_tasks_gets_a_sentence(content, message, tmp_path):
    f = tmp_path/'t.json'
    f.write_text(content)
    with pytest.raises(ValueError, match=message) as e: add_tasks(f)
    assert '\n' not in str(e.value)

@pytest.mark.skipif('sys.version_info < (3, 11)', reason='tomllib')
def test_toml_says_the_same_as_json(hotels):
    f = hotels.with_suffix('.toml')
    f.write_text('[hotels]\ntemplate = "{name}: {review}"\nlabels = ["bad", "good"]\nlabel = "verdict"\n')
    assert read_tasks(f) == read_tasks(hotels)

def agrees_with_its_fixture(name):
    "The first row, and columns and class labels, of a part as it streams from the Hub"
    part = TASKS[name].hub_parts[-1].split('+')[0]
    rows, sha = hub_rows(replace(TASKS[name], split='large'), part)
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
