"Records to tables"
import json
from pathlib import Path
import numpy as np, pandas as pd, pytest
from bayes_prompt.options import methods
from bayes_prompt.metrics import mean_interval
from bayes_prompt.results import arms, costs, differences, forest, frame, label_of, load, plot, show, table
from bayes_prompt.run import run
from conftest import SMALL

def record(score=.5, seed=0, method='pt', **config):
    "As an old one: flat, and without a word on the constant answer"
    s = dict(accuracy=score, n=10, majority=.6, collapsed=False, interval=[0, 1], invalid=0)
    return dict(config=dict(target='movie', method=method, seed=seed, source_seed=0, m=5, lr=.1) | config, metric='accuracy', scores=s, trainable=3, seconds=dict(source=0, target=1), peak_memory_mib=1, source_history=[], predicted_ratio=None)

def test_old_and_new_records_stand_in_one_table(tmp_path):
    new = run(SMALL, tmp_path, method='pt', seed=1)
    df = frame([record(), new])
    assert list(df.seed) == [0, 1] and list(df.target) == ['movie', 'movie'] and {'lr', 'source_lr', 'kernel', 'k', 'backbone'} <= set(df) and df.constant[0] == .6
    assert df.lr.iloc[1] == new['config']['target']['lr'] and df.score.iloc[1] == new['scores']['accuracy']

def test_means_intervals_and_pairs():
    df = frame([record(s, i, m) for m, ss in dict(pt=[.5, .6, .7], bmtpt=[.6, .7, .8]).items() for i, s in enumerate(ss)])
    t = table(df).loc[('movie', 'pt')]
    assert t['mean'] == pytest.approx(.6) and t.high - t['mean'] == pytest.approx(4.302653*.1/3**.5, rel=1e-5) and t.constant == .6
    d = differences(df).iloc[0]
    assert d['mean'] == pytest.approx(.1) and d.low == pytest.approx(.1) and d.excludes_zero
    assert differences(df[df.method == 'pt']).empty and list(differences(df[df.method == 'pt'])) == list(differences(df))

def test_two_runs_of_a_seed_are_not_averaged():
    df = frame([record(lr=lr) for lr in (.1, .2)])
    for f in (table, differences):
        with pytest.raises(ValueError, match='one run per'): f(df)

def test_several_targets_reach_the_table(tmp_path):
    df = frame([run(SMALL, tmp_path, method='pt', targets=['movie_score'])])
    assert list(df.target) == ['movie', 'movie_score'] and list(df.metric) == ['accuracy', 'pearson'] and costs(df).loc['pt', 'steps'] == 3

def test_every_method_has_a_place_and_a_label(tmp_path):
    df = frame([record(method=m) for m in [*methods()][::-1]])
    assert list(df.method) == [*methods()] and label_of('spot') == 'SPoT' and label_of('unheard') == 'unheard'
    plot(df, tmp_path/'f.png')
    assert (tmp_path/'f.png').stat().st_size > 5000 and 'pt' in show(table(df))

def test_a_broken_record_is_named(tmp_path):
    with pytest.raises(ValueError, match='no run records'): load(tmp_path)
    (tmp_path/'good.json').write_text(json.dumps(record()))
    (tmp_path/'other.json').write_text('{"config": 1}')   # no record, not ours
    assert len(load(tmp_path)) == 1
    for text in ('{"config": ', '[]'):
        (tmp_path/'bad.json').write_text(text)
        with pytest.raises(ValueError, match='bad.json'): load(tmp_path)
    (tmp_path/'bad.json').write_text(json.dumps({k: v for k, v in record().items() if k != 'trainable'}))
    with pytest.raises(ValueError, match="bad.json lacks 'trainable'"): load(tmp_path)

def test_costs_need_records_that_have_them():
    with pytest.raises(ValueError, match='older ones'): costs(frame([record()]))

def spread(method, f, sources=(0, 1, 2), seeds=range(4)):
    "Records of crossed seeds"
    return [record(f(s, t), s, method, source_seed=t) for s in seeds for t in sources]

def test_seeds_crossed_with_source_seeds():
    "Rows and columns each have a variance; with one source seed nothing has changed"
    rng = np.random.default_rng(0)
    x = rng.random((4, 3))/10 + .6
    t = table(frame(spread('bmtpt', lambda s, t: x[s, t]))).loc[('movie', 'bmtpt')]
    v = [x.mean(1).var(ddof=1)/4, x.mean(0).var(ddof=1)/3]
    assert (t.seeds, t.source_seeds) == (4, 3) and t['mean'] == pytest.approx(x.mean()) and t.high - t.low > 2*2*sum(v)**.5
    one = table(frame(spread('bmtpt', lambda s, t: x[s, t], [0]))).loc[('movie', 'bmtpt')]
    assert (one['mean'], one.low, one.high) == pytest.approx(mean_interval(x[:, 0])) and one.source_seeds == 1

def test_a_method_without_sources_stands_beside_each_source_seed():
    x = np.random.default_rng(0).random((4, 3))/10 + .6
    pt = [.5, .52, .51, .53]
    for runs in (spread('pt', lambda s, t: pt[s], [0]), spread('pt', lambda s, t: pt[s])):   # run once, or for each source seed
        df = frame(spread('bmtpt', lambda s, t: x[s, t]) + runs)
        d = differences(df).iloc[0]
        assert d['mean'] == pytest.approx(x.mean() - np.mean(pt)) and d.seeds == 4
        assert table(df).loc[('movie', 'pt'), ['seeds', 'source_seeds']].tolist() == [4, 0]

def test_pairs_share_seed_and_source_seed():
    "Effects of seeds and source seeds that both methods have go; an unfinished sweep's whole part is compared"
    rng = np.random.default_rng(0)
    a, b = rng.random(4), rng.random(3)
    records = spread('bmtpt', lambda s, t: .1 + a[s] + b[t]) + spread('vanilla', lambda s, t: a[s] + b[t])
    d = differences(frame(records)).iloc[0]
    assert [d['mean'], d.low, d.high] == pytest.approx([.1]*3) and d.seeds == 4
    assert differences(frame(records[:-1])).iloc[0].seeds == 3
    assert differences(frame(records[:3])).empty
    own = [record(.5 + s/10, s, m, source_seed=s + 5) for s in range(3) for m in ('bmtpt', 'vanilla')]   # each seed has its own
    assert differences(frame(own)).iloc[0].seeds == 3

def test_arms_and_conditions():
    "What differs within a method belongs to its name, or to the target's if all methods have it; a rate of a method's own to neither"
    runs = [record(k/100, s, m, k=k, lr=lr, kernel=kernel) for s in (0, 1) for k in (4, 16)
            for m, lr, kernel in (('pt', .1, 'rbf'), ('bmtpt', .2, 'rbf'), ('bmtpt', .2, 'none'))]
    df = arms(frame(runs))
    assert set(zip(df.target, df.method)) == {(f'movie k={k}', m) for k in (4, 16) for m in ('pt', 'bmtpt kernel=none', 'bmtpt kernel=rbf')}
    assert set(df.task) == {'movie'} and (table(df).seeds == 2).all()
    assert label_of('bmtpt kernel=none') == 'BMTPT kernel=none'
    assert set(arms(frame([record(seed=s, method=m) for s in (0, 1) for m in ('pt', 'bmtpt')])).method) == {'pt', 'bmtpt'}
    assert set(arms(frame([record(lr=lr) for lr in (.1, .2)])).method) == {'pt lr=0.1', 'pt lr=0.2'}

def test_another_metric_has_its_own_constant(tmp_path):
    r = run(SMALL, tmp_path, method='pt')
    own = frame([r], 'macro_f1').iloc[0]
    assert own.score == r['scores']['macro_f1'] and own.metric == 'macro_f1' and own.constant is None
    assert frame([r], 'matthews').constant[0] == 0 and frame([r]).constant[0] == r['scores']['constant']
    with pytest.raises(ValueError, match="no score of the records 'f_one'"): frame([r], 'f_one')

def test_a_forest_has_a_row_for_each_arm(tmp_path):
    df = arms(frame([record(.5 + s/10, s, m, kernel=k) for s in (0, 1) for m in ('pt', 'bmtpt') for k in (('rbf', 'none') if m == 'bmtpt' else ('rbf',))]))
    fig = forest(df, tmp_path/'f.pdf')
    assert [l.get_text() for l in fig.axes[0].get_yticklabels()] == ['BMTPT kernel=none', 'BMTPT kernel=rbf', 'PT from scratch'] and (tmp_path/'f.pdf').stat().st_size > 2000

def test_runs_of_changed_data_are_not_averaged(tmp_path):
    for seed in (0, 1): run(SMALL, tmp_path, method='pt', seed=seed)
    assert table(load(tmp_path)).seeds.item() == 2
    file = next(tmp_path.glob('*-s1-*.json'))
    file.write_text(json.dumps(json.loads(file.read_text()) | dict(data='another')))
    with pytest.raises(ValueError, match='expected runs of the same data'): table(load(tmp_path))

@pytest.mark.parametrize('key', ['data', 'weights'])
def test_a_fingerprint_that_is_none_is_named(key, tmp_path):
    record = json.loads(next((Path(__file__).resolve().parents[1]/'results/four_sources').glob('amazon-pt-s0*.json')).read_text(encoding='utf-8'))
    (tmp_path/'r.json').write_text(json.dumps(record | {key: ['x']}))
    with pytest.raises(ValueError, match=rf'r\.json.*{key}'): load(tmp_path)

def test_many_records_of_several_shapes(tmp_path):
    "Columns of some records alone are empty elsewhere, in whatever order they are read; the table is that of records read one by one"
    records = [record(i/1000, i, ('pt', 'bmtpt', 'spot')[i % 3], **({f'own{i % 7}': [str(i)]} if i % 5 else {})) for i in range(450)]
    for i, r in enumerate(records): (tmp_path/f'{i:04}.json').write_text(json.dumps(r))
    df = load(tmp_path)
    assert len(df) == 450 and sorted(df.seed) == list(range(450)) and [*dict.fromkeys(df.method)] == [m for m in methods() if m in ('pt', 'bmtpt', 'spot')]
    for _, row in df.iterrows():
        i = row.seed
        assert row.score == i/1000 and (row[f'own{i % 7}'] == [str(i)] if i % 5 else all(isinstance(row[f'own{k}'], float) for k in range(7)))
    pd.testing.assert_frame_equal(df, frame(records))
