"What the repository holds: every record answers its experiment's question, and what a search chose is what is used"
import json, subprocess, sys
from pathlib import Path
import pandas as pd
import pytest
from bayes_prompt.config import _dotted, make_config, record_name
from bayes_prompt.options import methods
from bayes_prompt.results import load
from bayes_prompt.store import write_json
from bayes_prompt.experiment import _same, read_experiment

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'scripts'))
import migrate_records

FILES = {f.stem: f for f in sorted((ROOT/'experiments').glob('*.toml'))}
FOLDERS = {d.name: d for d in sorted((ROOT/'results').iterdir()) if d.is_dir()}

def records(folder): return {f: json.loads(f.read_text(encoding='utf-8')) for f in sorted(folder.glob('*.json'))}

def rate(r):
    "The learning rate of what a method trains"
    return r['lr_weights'] if methods()[r['method']].trains == 'weights' else r['lr']

def test_every_folder_has_its_question():
    "Or a line in the README that says why not"
    readme = (ROOT/'results/README.md').read_text()
    assert all(name in FILES or f'`{name}`' in readme for name in FOLDERS)
    assert len({read_experiment(f).answers for f in FILES.values()}) == len(FILES)

@pytest.mark.parametrize('name', sorted(FILES.keys() & FOLDERS.keys()))
def test_every_record_is_of_its_experiment(name):
    "And every run of it is there, once"
    asked = {_same(c) for c in read_experiment(FILES[name]).configs}
    found = [_same(make_config(r['config'])) for r in records(FOLDERS[name]).values()]
    assert set(found) == asked and len(found) == len(asked)

@pytest.mark.parametrize('name', sorted(FILES.keys() & FOLDERS.keys()))
def test_records_are_found_under_their_names(name):
    "By what the files of the package are today: else `run` would make them again"
    from bayes_prompt.protocol import data_fingerprint, weights_fingerprint, weights_of
    for f, r in records(FOLDERS[name]).items():
        c = make_config(r['config'])
        if not weights_fingerprint(c.compute.backbone): pytest.skip(f'{c.compute.backbone} is not on this machine')
        assert (r['data'], r['weights']) == (data_fingerprint(c, c.tasks), weights_of(c))
        assert f.stem == record_name(c, r['data'], r['weights'])

def test_four_sources_uses_what_its_search_chose():
    s = load(FOLDERS['four_sources_rate_search'])
    rates = s[(s.method != 'bmtpt') | (s.prior == 'none')].groupby(['method', 'lr']).score.mean()
    width = s[(s.method == 'bmtpt') & (s.prior == 'mean')].groupby('sigma').score.mean()
    for c in read_experiment(FILES['four_sources']).configs:
        assert c.target.lr == rates[c.method].idxmax()
        if c.method == 'bmtpt': assert (c.target.sigma, c.target.lr_low) == (width.idxmax(), c.target.lr)

@pytest.mark.parametrize('backbone,name', [('mini', 'demo'), ('smollm2', 'demo_smollm2')])
def test_the_command_and_the_file_mean_the_same_demo(backbone, name):
    from bayes_prompt.cli import demo_experiment
    said, written = demo_experiment(backbone), read_experiment(FILES[name])
    assert {_same(c) for c in said.configs} == {_same(c) for c in written.configs}
    assert len(said.configs) == len(written.configs) and said.compares == written.compares

@pytest.mark.parametrize('name', ['demo', 'demo_smollm2'])
def test_the_demo_uses_what_its_search_chose(name):
    "The best rate lies inside the grid, on a task that is not reported"
    demo, s = read_experiment(FILES[name]), load(FOLDERS[f'{name}_rate_search'])
    assert set(s.split) == {'validation'} and not set(s.target) & {c.target.task for c in demo.configs if c.data.part == 'test'}
    assert not set(s.seed) & {c.seed for c in demo.configs} and not set(s.source_seed) & {c.source.seed for c in demo.configs}
    trained = {c.method: c for c in demo.configs if methods()[c.method].trains != 'nothing'}
    means = s.groupby(['method', 'lr', 'sigma']).score.mean()
    for method, c in trained.items():
        rates = means[method].index.get_level_values('lr')
        assert min(rates) < c.target.lr < max(rates)
        assert means[method].max() == max(means[method][c.target.lr]) and means[method, c.target.lr, c.target.sigma] == means[method].max()
        if method == 'bmtpt': assert c.target.lr_low == c.target.lr

def test_at_one_rate_only_the_rate_is_another():
    def bare(c): return _dotted(c.changed({'target.lr': .01, 'target.lr_low': .01}).differences())
    demo = {(c.method, c.target.task, c.seed): c for c in read_experiment(FILES['demo_smollm2']).configs if c.data.part == 'test'}
    for c in read_experiment(FILES['demo_smollm2_same_rate']).configs:
        same = demo[c.method, c.target.task, c.seed]
        assert bare(c) == bare(same) and c.target.lr != same.target.lr

def test_the_comparison_uses_what_its_search_chose():
    "Of eight rates for each method, all in one setting; the best lies inside, on a task that is not reported"
    asked, s = read_experiment(FILES['compare']).configs, pd.concat([load(FOLDERS[f'{e}_rate_search']) for e in ('demo', 'compare')])
    assert set(s.split) == {'validation'} and not set(s.target) & {c.target.task for c in asked}
    assert not set(s.seed) & {c.seed for c in asked} and not set(s.source_seed) & {c.source.seed for c in asked}
    scores = s.assign(rate=[rate(r) for _, r in s.iterrows()]).groupby(['method', 'rate']).score.agg(['mean', 'size'])
    assert set(scores['size']) == {2} and set(scores.groupby('method').size()) == {8}
    for c in asked:
        if methods()[c.method].trains == 'nothing': continue
        used = c.target.lr_weights if methods()[c.method].trains == 'weights' else c.target.lr
        means = scores['mean'][c.method]
        assert used == means.idxmax() and means.index.min() < used < means.index.max()   # the lowest of equals

def test_the_comparison_in_digits_used_what_its_search_chose():
    s = load(FOLDERS['compare_digits_rate_search'])
    scores = s.assign(rate=[rate(r) for _, r in s.iterrows()]).groupby(['method', 'rate']).score.mean()
    for c in read_experiment(FILES['compare_digits']).configs:
        used = c.target.lr_weights if methods()[c.method].trains == 'weights' else c.target.lr
        assert used == scores[c.method].idxmax()   # the lowest of equals

def test_in_the_comparison_source_stages_cost_the_same():
    "Three particles are three prompts; MPT has two stages"
    runs = [c for c in read_experiment(FILES['compare']).configs if methods()[c.method].sources]
    stages = {'bmtpt': 3, 'mpt': 2}
    assert {stages.get(c.method, 1)*c.source.batch*c.source.steps for c in runs} == {12*90}

def test_prompt_tuning_and_fine_tuning_use_what_was_chosen_on_movie():
    df = load(FOLDERS['mini_pt_vs_finetune'])
    df = df[df.steps == 200].assign(rate=[rate(r) for _, r in df[df.steps == 200].iterrows()])
    chosen = df[df.target == 'movie'].groupby(['method', 'rate']).validation.mean()
    for (target, method), g in df[df.target != 'movie'].groupby(['target', 'method']):
        assert set(g.rate) == {chosen[method].idxmax()}, target

# ---- records from before configurations had groups

OLD = dict(config=dict(target='movie', method='pt', seed=0, source_seed=0, sources=['amazon', 'nyt'], k=16, backbone='mini', style='attempt', add_prefix=False, data_dir='', max_src=40, length=10, m=5, kappa=0,
                       source_steps=70, source_batch=4, source_lr=.07, beta=1., kernel='rbf', bandwidth='median', repulsion=1., prior='mean', sigma=16., steps=20, batch=8, lr=.03, lr_low=.01, decompose=True,
                       optimizer='adam', split='test', validate=False, limit=300, device='cpu'),
           metric='accuracy', scores=dict(accuracy=.1 + .2, n=300), loss=[.3727])

def put(folder, **configs):
    for name, changes in configs.items(): write_json(folder/f'{name}.json', OLD | dict(config=OLD['config'] | changes))

def test_migration_keeps_every_value(tmp_path):
    put(tmp_path, a={}, b=dict(method='bmtpt', repulsion=0.), c=dict(method='finetune'), d=dict(method='finetune', lr_weights=.1))
    (tmp_path/'table.json').write_text('{"rows": []}')
    assert '4 records, 4 changed; 1 other' in migrate_records.migrate(tmp_path)
    new = {r['migrated']['from']: (f.stem, r) for f, r in records(tmp_path).items() if 'migrated' in r}
    assert sorted(new) == ['a', 'b', 'c', 'd'] and len({name for name, _ in new.values()}) == 4
    for name, r in new.values():
        config = make_config(r['config'])
        assert {k: r[k] for k in OLD if k != 'config'} == {k: OLD[k] for k in OLD if k != 'config'}
        assert r['config']['target']['lr'] == .03 and 'svgd' in r['config']['source'] and name == record_name(config, r['data'], r['weights'])
    dotted = {k: _dotted(r['config']) for k, (_, r) in new.items()}
    assert dotted['b']['source.svgd.repulsion'] == 0. and dotted['a']['target.lr_weights'] == 0.
    assert [dotted[k]['target.lr_weights'] for k in 'cd'] == [.03, .1]   # `lr` was the rate of whatever was trained
    before = records(tmp_path)
    assert ' 0 changed' in migrate_records.migrate(tmp_path) and records(tmp_path) == before

def test_migration_changes_nothing_where_something_is_wrong(tmp_path):
    put(tmp_path, a={}, b={})
    write_json(tmp_path/'b.json', json.loads((tmp_path/'b.json').read_text()) | dict(loss=[1.]))
    with pytest.raises(ValueError, match='two records would be called'): migrate_records.migrate(tmp_path)
    put(tmp_path, b=dict(backbone='/nowhere/t5'))
    with pytest.raises(ValueError, match='are not on this machine'): migrate_records.migrate(tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == ['a.json', 'b.json']

def test_a_killed_migration_goes_on(tmp_path):
    "The new file was written, the old one is still there"
    put(tmp_path, a={})
    migrate_records.migrate(tmp_path)
    there = records(tmp_path)
    put(tmp_path, a={})
    migrate_records.migrate(tmp_path)
    assert records(tmp_path) == there

def test_migration_is_a_command(tmp_path):
    put(tmp_path, a=dict(method='nothing'))
    out = subprocess.run([sys.executable, ROOT/'scripts/migrate_records.py', tmp_path], capture_output=True, text=True)
    assert out.returncode == 1 and out.stderr.startswith('error: ') and 'nothing' in out.stderr and len(out.stderr.splitlines()) == 1
