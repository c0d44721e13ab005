"The papers' experiments: their files, their pages on other data, and tables that say what is not run"
import json
from pathlib import Path
import pandas as pd
import pytest
from bayes_prompt.config import told
from bayes_prompt.experiment import read_experiment
from bayes_prompt.papers import CARDS, T5_SHAPES, TABLE1, beside, beside_table1, card_hours, operations, records_of, rehearse, step_operations
from bayes_prompt.sweep import sweep
from conftest import HUB

ROOT = Path(__file__).resolve().parents[1]
NAMES = ('table1', 'particles', 'scaling', 'few_shot')
FILES = {n: ROOT/'experiments'/f'{n}.toml' for n in NAMES}
SIX = ('mnli', 'qnli', 'qqp', 'sst2', 'squad', 'superglue-record')
LARGE = ('mnli', 'qqp', 'qnli')
CONFIGS = {n: read_experiment(f).configs for n, f in FILES.items()}

# ---- the files

@pytest.mark.parametrize('name', NAMES)
def test_a_file_says_what_the_papers_say(name):
    for c in CONFIGS[name]:
        t = c.target
        assert c.length == 100 and c.source.tasks[:6] == SIX and c.source.batch == 1 and (t.lr, t.lr_low, t.weight_decay) == (.3, .4, 1e-5)
        assert c.data.style == 'attempt' and c.data.part == 'test' and not c.data.limit and t.judge_every
        if name != 'few_shot': assert t.k == 0 and t.judge_rows == 1000 and t.warmup == 500 and t.steps == (300_000 if t.task in LARGE else 30_000)
        assert t.batch*(1 + len(t.others)) in (32, 30) or name == 'few_shot'
        assert (c.compute.dtype == 'float32') == (c.method in ('finetune', 'adapters', 'bitfit', 'hyperformer', 'hyperdecoder'))

def test_table_1_has_every_row_and_column():
    found = {(c.method, bool(c.target.others), t) for c in CONFIGS['table1'] for t in (c.target.task, *c.target.others)}
    tasks = set(TABLE1.values())
    for m in ('finetune', 'adapters', 'bitfit', 'pt', 'vanilla', 'spot', 'attempt', 'mpt', 'bmtpt'):
        assert {t for method, several, t in found if method == m and not several} == tasks
    for m in ('attempt', 'mpt', 'bmtpt'): assert {t for method, several, t in found if method == m and several} == tasks
    assert {c.seed for c in CONFIGS['table1']} == {0, 1, 2} and {c.source.particles for c in CONFIGS['table1']} == {5}

def test_what_is_repeated_agrees_with_table_1():
    there = [told(c) for c in CONFIGS['table1']]
    five = {'m': 5, 'kappa': 0, 'sources': list(SIX), 'source_steps': 5000}
    assert all(told(c.changed(five)) in there for c in CONFIGS['particles'])
    assert all(told(c.changed(backbone='t5-base')) in there for c in CONFIGS['scaling'])
    few = next(c for c in CONFIGS['few_shot'] if c.method == 'bmtpt')
    assert few.source == next(c for c in CONFIGS['table1'] if c.method == 'bmtpt').source

def test_equal_compute_is_equal():
    ours = [c.source for c in CONFIGS['particles'] if c.source.steps != 5000]
    assert {s.particles for s in ours} == {1, 3, 7, 10, 15} and all(abs(s.particles*s.steps/25_000 - 1) < 1e-3 for s in ours)

def test_few_shots_are_the_published_numbers():
    labels = {'superglue-boolq': 2, 'scitail': 2, 'superglue-cb': 3}
    for c in CONFIGS['few_shot']: assert min(abs(c.target.k*labels[c.target.task] - n) for n in (4, 16, 32)) <= 1

# ---- the pages, in small, on other data

@pytest.fixture(scope='module')
def other_data(tmp_path_factory):
    "The fixtures in another order, so with other splits and other examples, and with long passages of other scripts"
    import pyarrow as pa, pyarrow.parquet as pq
    out = tmp_path_factory.mktemp('other')
    for f in HUB.glob('*/*.parquet'):
        (out/f.parent.name).mkdir(exist_ok=True)
        t = pq.read_table(f)
        for i, name in enumerate(t.column_names):
            if name not in ('passage', 'paragraph', 'context'): continue
            t = t.set_column(i, t.field(i), pa.array([x.as_py() + ' Zürich 東京 😀'*300 for x in t.column(i)]))
        pq.write_table(t.take(list(range(len(t)))[::-1]), out/f.parent.name/f.name)
    return out

PAGES = {'table1': '70_table1', 'particles': '71_particles', 'scaling': '72_scaling', 'few_shot': '73_few_shot'}

def cells(page): return [''.join(c['source']) for c in json.loads((ROOT/'nbs'/f'{page}.ipynb').read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']

@pytest.mark.parametrize('name', NAMES)
def test_a_page_runs_on_other_data(name, other_data, monkeypatch):
    "What its own cells assert holds; a GPU's cell launches this very file"
    monkeypatch.setenv('BP_FIXTURES', str(other_data))
    monkeypatch.chdir(ROOT/'nbs')
    launched, scope = [c for c in cells(PAGES[name]) if c.startswith('#| cuda')], {}
    assert launched == [f"#| cuda\nsweep('../experiments/{name}.toml', progress=True)"]
    for c in cells(PAGES[name]):
        if c not in launched: exec(c, scope)
    small, task = scope['small'], lambda r: r['config']['target']['task']
    assert all(r['data_from'][task(r)] == str(other_data) for r in small)
    assert name == 'scaling' or {r['config']['method'] for r in small} == {c.method for c in scope['experiment'].configs}

def test_a_sample_of_a_papers_task_may_have_one_label(tmp_path):
    "A few rows of the Hub's are enough for a rehearsal; with data of one's own it is a mistake"
    import pyarrow.compute as pc, pyarrow.parquet as pq
    (tmp_path/'rte').mkdir()
    for f in (HUB/'rte').glob('*.parquet'):
        t = pq.read_table(f)
        pq.write_table(t.filter(pc.equal(t['label'], 1)), tmp_path/'rte'/f.name)
    r, = rehearse(FILES['table1'], tmp_path/'out', tmp_path, lambda c: (c.target.task, c.method, c.seed) == ('rte', 'pt', 0))
    assert r['scores']['n'] > 1 and r['scores']['majority'] == 1

def test_tests_of_a_package_without_a_gpu_skip_what_launches():
    flags = next(l for l in (ROOT/'settings.ini').read_text().splitlines() if l.startswith('tst_flags')).split('=')[1].split()
    assert 'cuda' in flags

def test_the_sweep_makes_what_the_table_shows(tmp_path):
    "The same file by way of `bp_sweep`, killed or not: a second call makes nothing"
    small = dict(backbone='"tiny-t5"', device='"cpu"', length=4, steps=2, limit=6, batch=2, data_dir=json.dumps(str(HUB)))
    lines = [f'extends = "{FILES["few_shot"]}"', 'answers = "Small?"', '[values]', *[f'{k} = {v}' for k, v in small.items()], 'method = "pt"', 'target = "scitail"']
    (tmp_path/'experiments').mkdir()
    (tmp_path/'experiments/few.toml').write_text('\n'.join([*lines, 'k = 2', '[grid]', 'seed = [0, 1]']))
    file = tmp_path/'experiments/few.toml'
    made = sweep(file)
    assert len(made) == 2 == len(sweep(file)) and len(records_of(file)) == 2
    table = beside(records_of(file), {'PT': dict(method='pt')}, {'SciTail 4': dict(target='scitail', k=2), 'SciTail 16': dict(target='scitail', k=8)})
    scores = [100*r['scores']['accuracy'] for r in made]
    cell = table.loc[('PT', 'ours'), 'SciTail 4']
    assert cell.startswith(f'{sum(scores)/2:.1f}') and table.loc[('PT', 'ours'), 'SciTail 16'] == 'not run'

# ---- the table

def record(score, target='rte', metric='accuracy', **config): return dict(config=dict(target=target, seed=0, targets=[]) | config, metric=metric, scores=score if isinstance(score, dict) else {metric: score})

def test_a_cell():
    rows, columns = {'PT': dict(method='pt')}, dict(RTE=dict(target='rte'))
    def cell(*records): return beside(records, rows, columns).loc[('PT', 'ours'), 'RTE']
    assert cell() == 'not run' == cell(record(.5, method='mpt')) == cell(record(.5, target='cb', method='pt'))
    assert cell(record(.5, method='pt')) == '50.0'
    assert cell(record(.4, method='pt', source_seed=0), record(.6, method='pt', source_seed=1)) == '50.0'   # one target seed
    assert cell(*[record(s, method='pt', seed=i) for i, s in enumerate((.4, .6))]) == '50.0 ± 127.1'   # t of one degree of freedom

def test_what_is_neither_run_nor_printed_is_empty():
    printed = pd.DataFrame(dict(RTE=[71.], CB=[None], mean=[None]), index=['PT'])
    t = beside([], {'PT': dict(method='pt'), 'ours': dict(method='pt')}, dict(RTE=dict(target='rte'), CB=dict(target='cb')), printed, averages=dict(mean=['RTE', 'CB']))
    assert list(t.loc[('PT', 'ours')]) == ['not run', '', ''] and set(t.loc[('ours', 'ours')]) == {'not run'}

def test_several_targets_are_other_rows():
    r = record(.5, method='pt', targets=['cb']) | dict(all_scores=dict(rte=dict(accuracy=.5), cb=dict(accuracy=.7)), all_metrics=dict(rte='accuracy', cb='accuracy'))
    rows = {'PT': dict(method='pt', several=False), 'PT*': dict(method='pt', several=True)}
    t = beside([r], rows, dict(RTE=dict(target='rte'), CB=dict(target='cb')), averages=dict(mean=['RTE', 'CB']))
    assert set(t.loc[('PT', 'ours')]) == {'not run'} and list(t.loc[('PT*', 'ours')]) == ['50.0', '70.0', '60.0']

def test_cola_is_scored_as_the_printed_row_is():
    printed = pd.read_csv(ROOT/'results/published/table1.csv', index_col='method')
    records = [record(dict(matthews=.3, accuracy=.7), target='cola', metric='matthews', method=m) for m in ('pt', 'bmtpt')]
    t = beside_table1(records, {'PT': dict(method='pt', several=False), 'BPT': dict(method='bmtpt', several=False)}, printed)
    assert t.loc[('PT', 'ours'), 'CoLA'] == '30.0' and t.loc[('BPT', 'ours'), 'CoLA'] == '70.0'
    assert t.loc[('BPT', 'published'), 'CoLA'] == '86.6' and t.loc[('PT', 'published'), 'GLUE_avg'] == '72.2'

# ---- the price

def test_operations_grow_as_they_should():
    shape = T5_SHAPES['t5-base']
    one = step_operations(shape, 1, 100, [(128, 4)])
    assert step_operations(shape, 5, 100, [(128, 4)]*6) == 30*one
    larger = next(o for o in json.loads((ROOT/'results/bench/scaling-t5-small.json').read_text())['larger'] if (o['model'], o['M']) == ('t5-large', 5))
    assert step_operations(T5_SHAPES['t5-large'], 5, larger['l'], [(larger['T'], 2)]*6) == larger['flops']   # as the bench counted before

def test_a_stage_that_runs_share_is_counted_once():
    some = [c for c in CONFIGS['table1'] if c.target.task == 'rte']
    each = step_operations(T5_SHAPES['t5-base'], 1, 100, [(128, 4)])
    need = operations(some)
    assert need.loc['bmtpt', 'source'] == each*5*6*5000 and need.loc['vanilla', 'source'] == each*6*5000 and need.loc['pt', 'source'] == 0
    assert need.loc['pt', 'target'] == 3*each*(32*30_000 + 1000*30/2)
    apart = need.loc[['spot', 'attempt', 'mpt'], 'source']
    assert apart.sum() == each*6*(5000 + 32*7500 + 1.5*5000)   # prompts of each source once, SPoT's early ones, MPT's shared one

def test_hours_are_operations_over_a_rate():
    some = CONFIGS['few_shot'][:9]
    need, hours = operations(some), card_hours(some, 'A100', .5)
    assert abs(hours.loc['in all', 'target, h'] - need.target.sum()/(CARDS['A100']*.5)/3600) < .1
