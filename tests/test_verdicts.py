"Records to sentences: what is called better, and what is not"
import csv, io, json
import numpy as np, pandas as pd, pytest
from bayes_prompt.results import _short, _small, arms, frame, table, written
from bayes_prompt.run import run
from bayes_prompt.statistics import crossed, mcnemar, sign_flip
from bayes_prompt.verdicts import compare, learnt, pairs_of, ranks, report, tally, verdict, with_examples
from conftest import SMALL

def rows(method, scores, target='amazon', constant=.5, n=800, metric='accuracy'):
    "Runs from scores `[seeds, source seeds]`"
    return [dict(target=target, method=method, seed=s, source_seed=t, metric=metric, n=n, constant=constant, collapsed=False, score=x)
            for s, xs in enumerate(np.atleast_2d(np.asarray(scores).T).T) for t, x in enumerate(xs)]

def noise(*shape, seed=0): return np.random.default_rng(seed).normal(0, .01, shape)

def one(*runs, **kw):
    d = compare(pd.DataFrame(sum(runs, [])), **kw)
    assert len(d) == 1
    return d.iloc[0]

def test_a_clear_difference_is_better_and_the_same_from_the_other_side_worse():
    a, b = .7 + noise(5, 3), .65 + noise(5, 1, seed=1)
    row = one(rows('bmtpt', a), rows('pt', b), pairs=[('bmtpt', 'pt')])
    c = crossed(a - b)
    assert verdict(row) == (f'BMTPT is better than PT from scratch on amazon by {_short(c["mean"])} [{_short(c["low"])}, {_short(c["high"])}], '
                            f'Holm-adjusted p {_small(c["p"])}, 5 seeds × 3 source seeds')
    back = one(rows('bmtpt', a), rows('pt', b), pairs=[('pt', 'bmtpt')])
    assert verdict(back) == verdict(row).replace('BMTPT is better than PT from scratch', 'PT from scratch is worse than BMTPT')
    assert (row.flip, row.flip_least) == sign_flip((a - b).mean(1)) == (2/32, 2/32)

def test_seeds_with_a_source_stage_each_are_told_as_such():
    "And nothing is said of a single source stage"
    own = [r | dict(source_seed=r['seed']) for r in rows('bmtpt', .7 + noise(5))]
    row = one(own, rows('pt', .6 + noise(5, seed=1)), pairs=[('bmtpt', 'pt')])
    assert (row.seeds, row.source_seeds, row.own_sources) == (5, 5, True)
    assert verdict(row).endswith(', 5 seeds, each with a source seed of its own')
    beside = one(own, rows('vanilla', .6 + noise(5, seed=1)), pairs=[('bmtpt', 'vanilla')])   # whose seeds share one
    assert (beside.source_seeds, beside.own_sources) == (5, True)
    text = report(pd.DataFrame(own + rows('pt', .6 + noise(5, seed=1))))['assumptions']
    assert 'of that source stage only' not in text

def test_what_includes_zero_or_is_one_seed_is_not_resolved():
    a = .7 + noise(5, 3)
    assert verdict(one(rows('bmtpt', a), rows('pt', .695 + 2*noise(5, 1, seed=2)))).startswith('BMTPT and PT from scratch on amazon: not resolved, ')
    single = one(rows('bmtpt', [[.9]]), rows('pt', [[.6]]))
    assert verdict(single) == 'BMTPT and PT from scratch on amazon: not resolved, +.300 [?, ?], Holm-adjusted p ?, 1 seed × 1 source seed'

def test_what_trains_nothing_stands_beside_every_seed():
    a, b = .7 + noise(5, 3), .6 + noise(1, 3, seed=1)
    row = one(rows('bmtpt', a), rows('source', b), pairs=[('bmtpt', 'source')])
    c = crossed(a - b)
    assert (row['mean'], row.low, row.seeds, row.source_seeds) == pytest.approx((c['mean'], c['low'], 5, 3))
    back = one(rows('bmtpt', a), rows('source', b), pairs=[('source', 'bmtpt')])
    assert (back['mean'], back.low) == pytest.approx((-c['mean'], -c['high']))
    zero = one(rows('bmtpt', a), rows('zero', [[.6]]), pairs=[('bmtpt', 'zero')])   # and beside every source seed
    assert (zero['mean'], zero.seeds, zero.source_seeds) == pytest.approx(((a - .6).mean(), 5, 3))
    both = one(rows('ensemble', .7 + noise(1, 3)), rows('source', b), pairs=[('ensemble', 'source')])   # source seeds are what was drawn
    assert verdict(both).endswith('3 source seeds') and both.low > 0 and both['mean'] == pytest.approx((.7 + noise(1, 3) - b).mean())
    drawn = one(rows('bmtpt', a), rows('pt', [[.6]]), pairs=[('bmtpt', 'pt')])      # a trained one was drawn
    assert drawn.seeds == 1

def test_a_source_is_learnt_where_its_interval_lies_above_a_constant_answer():
    def row(score, low, high, **kw): return rows('source', [[score]], target='movie', constant=.5)[0] | dict(interval=[low, high], sources=('movie', 'nyt')) | kw
    said = learnt(pd.DataFrame([row(.7, .64, .76), row(.54, .48, .6), row(.9, .8, .95, target='spam'), row(.9, .8, .95, constant=None)]))
    assert said == ['movie is learnt: source mean, accuracy .700 [.640, .760] on rows not seen, a constant answer .500',
                    'movie is not shown to be learnt: source mean, accuracy .540 [.480, .600] on rows not seen, a constant answer .500']

def test_many_comparisons_cost():
    "The same difference alone, and among nine that say nothing"
    a, b = .70 + noise(5, 1), .688 + noise(5, 1, seed=7)
    alone = one(rows('bmtpt', a), rows('pt', b))
    assert alone.verdict == 'better' and .005 < alone.p < .05
    names = ['vanilla', 'spot', 'attempt', 'mpt', 'merge', 'lora', 'adapters', 'bitfit', 'finetune']
    d = compare(pd.DataFrame(rows('bmtpt', a) + rows('pt', b) + sum([rows(m, .7 + noise(5, 1, seed=9 + i)) for i, m in enumerate(names)], [])))
    row = d[d.other == 'pt'].iloc[0]
    assert row.p == alone.p and row.holm == pytest.approx(10*alone.p) and row.verdict == 'open'

def test_at_the_constants_level_nothing_is_better():
    a, b = .50 + noise(5, 1)/10, .46 + noise(5, 1, seed=1)/10
    row = one(rows('bmtpt', a, constant=.56), rows('pt', b, constant=.56))
    assert row.holm < .001 and verdict(row) == "BMTPT and PT from scratch on amazon: both at the constant's level (.560), as neither is shown to be above it"
    assert one(rows('bmtpt', a + .2, constant=.56), rows('pt', b, constant=.56)).verdict == 'better'   # one of them is above
    assert one(rows('bmtpt', a, constant=None), rows('pt', b, constant=None)).verdict == 'better'      # none is known

def test_a_lower_likelihood_is_better():
    runs = [rows(m, x + noise(5, 1, seed=i), constant=None, metric='nll') for i, (m, x) in enumerate([('bmtpt', .4), ('pt', .6)])]
    assert one(*runs).verdict == 'better' and one(*runs)['mean'] < 0
    more = pd.DataFrame(sum(runs, []) + [r | dict(target='nyt') for r in sum(runs, [])])
    assert ranks(more)['rank'].to_dict() == dict(bmtpt=1., pt=2.)

def test_pairs():
    df = pd.DataFrame(rows('pt', [[.5]]) + rows('vanilla', [[.5]]) + rows('bmtpt kernel=none', [[.5]]) + rows('bmtpt kernel=rbf', [[.5]]))
    assert pairs_of(df, [('bmtpt', 'pt')]) == [('bmtpt kernel=none', 'pt'), ('bmtpt kernel=rbf', 'pt')]
    assert pairs_of(df, [('bmtpt kernel=rbf', 'bmtpt kernel=none')]) == [('bmtpt kernel=rbf', 'bmtpt kernel=none')]
    assert pairs_of(df, against='vanilla') == [('pt', 'vanilla'), ('bmtpt kernel=none', 'vanilla'), ('bmtpt kernel=rbf', 'vanilla')]
    both = pd.concat([df, df[df.method == 'bmtpt kernel=rbf'].assign(method='bmtpt kernel=rbf prior=none')])
    assert pairs_of(both, [('bmtpt prior=none', 'pt')]) == [('bmtpt kernel=rbf prior=none', 'pt')] # words that tell an arm are enough
    assert pairs_of(df)[0] == ('bmtpt kernel=none', 'pt') and len(pairs_of(df)) == 3
    assert pairs_of(df[df.method.isin(['pt', 'vanilla'])]) == [('pt', 'vanilla')]
    with pytest.raises(ValueError, match="no method in the records 'lora'"): pairs_of(df, against='lora')

def test_other_examples_are_refused_and_other_targets_passed_over():
    runs = rows('bmtpt', .7 + noise(3, 1)) + rows('pt', .6 + noise(3, 1), n=300)
    with pytest.raises(ValueError, match='the same test examples, got 800 and 300'): compare(pd.DataFrame(runs))
    runs = rows('bmtpt', .7 + noise(3, 1)) + rows('pt', .6 + noise(3, 1), target='nyt')
    assert compare(pd.DataFrame(runs)).empty and report(pd.DataFrame(runs))['verdicts'] == []

def test_examples_are_in_the_interval(tmp_path):
    "With answers, as the variance of paired resamples; McNemar's test is of each pair of runs"
    small = SMALL | dict(limit=200, steps=15, lr=.3, k=4, source_steps=2)
    records = [run(small, tmp_path, method=m, seed=s, source_seed=t) for s in (0, 1) for m, ts in (('pt', [0]), ('vanilla', [0, 1])) for t in ts]
    plain, df = arms(frame(records)), with_examples(arms(frame(records)), 300)
    row, before = (compare(x, [('vanilla', 'pt')]).iloc[0] for x in (df, plain))
    of = {(r.method, r.seed, r.source_seed): r for r in df.itertuples()}
    cells = [(of['vanilla', s, t], of['pt', s, 0]) for s in (0, 1) for t in (0, 1)]
    drawn = np.mean([a.resampled - b.resampled for a, b in cells], axis=0)
    d = np.array([a.score - b.score for a, b in cells]).reshape(2, 2)
    assert [row.low, row.high, row.p] == pytest.approx([crossed(d, drawn)[k] for k in ('low', 'high', 'p')])
    assert row.mcnemar == f'{sum(mcnemar(a.right, b.right)[2] <= .05 for a, b in cells)}/4' and before.mcnemar is None
    assert compare(df, [('pt', 'vanilla')]).iloc[0].mcnemar == row.mcnemar
    assert 'and test examples as drawn' in report(df)['assumptions'] and '0 of 6 runs have answers' in report(plain)['assumptions']

def test_intervals_over_examples_need_answers_and_their_data(tmp_path):
    "The spread is that of resampled examples; a record whose score its answers do not give is left out"
    records = [run(SMALL | dict(limit=200, steps=20, lr=.3, k=4), tmp_path, method='pt', seed=s) for s in (0, 1)]
    df = with_examples(frame(records), 400)
    for row in df.itertuples():
        assert row.right.mean() == pytest.approx(row.score) and row.resampled.mean() == pytest.approx(row.score, abs=.01)
        assert row.resampled.std() == pytest.approx((row.score*(1 - row.score)/200)**.5, rel=.2)
    both = np.mean(list(df.resampled), axis=0).var(ddof=1) + np.var(df.score, ddof=1)/2
    t, before = table(df).iloc[0], table(frame(records)).iloc[0]
    assert t['mean'] == before['mean'] and t.high - t['mean'] > 1.9*both**.5
    old, other, changed = ({**r} for r in (records[0],)*3)
    del old['predictions']
    other['config'] = records[0]['config'] | dict(data=records[0]['config']['data'] | dict(folder='/nowhere'))
    changed['scores'] = records[0]['scores'] | dict(accuracy=.123)
    assert all(with_examples(frame([r])).resampled[0] is None for r in (old, other, changed))
    assert with_examples(frame(records, 'nll')).resampled.isna().all()   # answers have no probabilities

def test_several_targets_and_text_have_examples_too(tmp_path):
    df = with_examples(frame([run(SMALL, tmp_path, method='pt', targets=['movie_score'])]))
    assert [len(x) for x in df.resampled] == [500, 500] and df.right[0] is not None

def test_ranks_need_two_targets_and_methods_that_all_have():
    runs = [r for i, t in enumerate(('amazon', 'nyt')) for m, x in dict(pt=.5, vanilla=.6, bmtpt=.6 + i/10).items() for r in rows(m, [[x]], t)]
    assert ranks(pd.DataFrame(runs))['rank'].to_dict() == dict(bmtpt=1.25, vanilla=1.75, pt=3.)
    assert list(ranks(pd.DataFrame(runs[:-1])).index) == ['vanilla', 'pt'] and ranks(pd.DataFrame(runs[:3])).empty

def test_a_source_that_is_its_posteriors_own_target_is_no_target_of_ranks():
    "But one that was adapted to, as in the papers' Table 1, is"
    def runs(method, target, x): return [r | dict(sources=['movie']) for r in rows(method, [[x]], target)]
    both = [r for t in ('amazon', 'nyt') for r in runs('source', t, .6) + runs('ensemble', t, .7) + runs('pt', t, .8)]
    own = runs('source', 'movie', .9) + runs('ensemble', 'movie', .8)
    assert ranks(pd.DataFrame(both + own))['rank'].to_dict() == dict(pt=1., ensemble=2., source=3.) and ranks(pd.DataFrame(own)).empty
    adapted = pd.DataFrame(both + runs('pt', 'movie', .8) + runs('bmtpt', 'movie', .9) + runs('bmtpt', 'amazon', .9) + runs('bmtpt', 'nyt', .9))
    assert set(ranks(adapted).targets) == {3}

def test_records_without_answers_beside_those_with_some():
    "In one table, pandas says NaN for what is missing"
    df = pd.DataFrame([r | dict(predictions=p) for r, p in zip(rows('pt', noise(2, 1)), ('0 1', float('nan')))])
    assert with_examples(df.assign(task='amazon', sources=[[]]*2)).resampled.isna().all()

REPORT = report(pd.DataFrame(rows('bmtpt', .7 + noise(3, 2)) + rows('pt', .6 + noise(3, 1)) + rows('pt', [[.5]]*3, 'nyt') + rows('bmtpt', [[.5]]*3, 'nyt')), [('bmtpt', 'pt')])

def test_every_format_has_the_same_numbers():
    whole = json.loads(written(REPORT, 'json'))
    assert list(whole) == ['scores', 'ranks', 'comparisons', 'verdicts', 'assumptions'] and len(whole['comparisons']) == 2
    said = list(csv.DictReader(io.StringIO(written(REPORT, 'csv', 'comparisons'))))
    assert [float(r['mean']) for r in said] == pytest.approx([r['mean'] for r in whole['comparisons']]) and '2 comparisons, fixed in the file beforehand' in whole['assumptions']
    short = _short(whole['comparisons'][0]['mean'])
    for format in ('text', 'markdown', 'latex'): assert short in written(REPORT, format, 'comparisons') and 'BMTPT' in written(REPORT, format)
    markdown = written(REPORT, 'markdown', 'scores').splitlines()
    assert len({line.count('|') for line in markdown}) == 1 and set(markdown[1]) == set('|- ')
    latex = written(REPORT, 'latex', 'scores')
    assert latex.startswith(r'\begin{tabular}{') and r'source\_seeds' in latex and '−' not in latex
    for wrong in (dict(format='xml'), dict(only='score')):
        with pytest.raises(ValueError, match='no '): written(REPORT, **wrong)

@pytest.mark.parametrize('x,said', [(.0314, '.031'), (-.02, '−.020'), (1.5, '1.500'), (-.0001, '.000'), (float('nan'), '?')])
def test_numbers_are_short(x, said): assert _short(x) == said

def test_small_ps(): assert [_small(p) for p in (.0004, .0213, .213, 1.)] == ['< .001', '.021', '.21', '1.00']

def test_a_tally_counts_verdicts():
    found = pd.DataFrame(dict(method=['bmtpt', 'bmtpt', 'bmtpt kernel=none', 'vanilla'], verdict=['better', 'open', 'open', 'worse']))
    assert tally(found) == 'Of 3 comparisons with its peers BMTPT is better in 1, not told apart in 2.'
