"Records to tables"
import json
import pandas as pd, pytest
from bayes_prompt.options import methods
from bayes_prompt.results import costs, differences, frame, label_of, load, plot, show, table
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
