"What a difference is worth: each number by hand, by brute force, or by SciPy"
from itertools import product
import numpy as np, pytest
from scipy import stats
from bayes_prompt.metrics import METRICS, bootstrap_interval
from bayes_prompt.statistics import crossed, holm, mcnemar, mean_ranks, resampled, sign_flip, standardised

def normal(*shape, seed=0): return np.random.default_rng(seed).normal(size=shape)

@pytest.mark.parametrize('seed', range(4))
def test_sign_flip_is_the_permutation_test_of_scipy(seed):
    d = normal(7, seed=seed) + .5
    them = stats.permutation_test((d,), np.mean, permutation_type='samples', n_resamples=np.inf)
    assert sign_flip(d) == (pytest.approx(them.pvalue), 2/2**7)

def test_sign_flip_by_enumeration_and_at_its_floor():
    d = [.03, -.01, .02, .05]
    sums = [abs(sum(e*x for e, x in zip(signs, d))) for signs in product([1, -1], repeat=4)]
    assert sign_flip(d)[0] == sum(s >= abs(sum(d)) - 1e-12 for s in sums)/16
    for n in (1, 3, 5, 10): assert sign_flip([.02]*n) == (2/2**n, 2/2**n)
    assert sign_flip([.02, .02, 0.]) == (.5, .5)   # a difference of zero tells nothing
    assert sign_flip([0., 0.]) == (1., 1.)

def test_many_seeds_are_drawn_and_near_the_exact_p():
    d = normal(15, seed=3)*.02 + .008
    exact = np.array([abs(np.dot(s, d)) >= abs(d.sum()) - 1e-12 for s in product([1, -1], repeat=15)]).mean()
    p, least = sign_flip(d)
    assert p == pytest.approx(exact, abs=.01) and p == sign_flip(d)[0] and least == pytest.approx(2/2**15)
    assert sign_flip(np.ones(30))[0] == pytest.approx(1/20_000) == sign_flip(np.ones(30))[1]

def test_sign_flip_keeps_its_level():
    "Of equal methods at most 5 % come below .05, and at seven seeds some do"
    share = np.mean([sign_flip(normal(7, seed=s))[0] <= .05 for s in range(600)])
    assert .02 < share < .07

def by_definition(ps, level):
    "Holm's steps, without adjusted p-values: which are rejected"
    rejected, order = set(), sorted(range(len(ps)), key=lambda i: ps[i])
    for k, i in enumerate(order):
        if ps[i] > level/(len(ps) - k): break
        rejected.add(i)
    return rejected

@pytest.mark.parametrize('seed', range(5))
def test_holm_rejects_what_its_steps_reject(seed):
    ps = np.random.default_rng(seed).beta(.5, 4, 8).tolist() + [.01, .01]
    for level in (.01, .05, .1, .3): assert {i for i, p in enumerate(holm(ps)) if p <= level} == by_definition(ps, level)

def test_holm_by_hand():
    assert holm([.01, .04, .03, .005]) == pytest.approx([.03, .06, .06, .02])   # the example of statsmodels' documentation and of R's p.adjust
    assert list(holm([.9, .8])) == [1, 1] and len(holm([])) == 0
    assert np.isnan(holm([np.nan])).all() and holm([.03, np.nan]) == pytest.approx([.03, np.nan], nan_ok=True)

def test_effect_size():
    d = [.1, .2, .4, .1]
    assert standardised(d) == pytest.approx(np.mean(d)/np.std(d, ddof=1)*(1 - 3/11))
    assert np.isnan([standardised(x) for x in ([.1], [.1, .1, .1], [])]).all()
    estimates = [standardised(normal(6, seed=s) + .5) for s in range(4000)]
    assert np.mean(estimates) == pytest.approx(.5, abs=.03)   # Hedges' correction: the plain ratio would give .59

def test_mcnemar_by_scipy_and_by_symmetry():
    a, b = np.random.default_rng(0).random((2, 200)) < [[.7], [.6]]
    only_a, only_b, p = mcnemar(a, b)
    assert (only_a, only_b) == (sum(a & ~b), sum(b & ~a)) and p == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)
    assert mcnemar(b, a) == (only_b, only_a, p) and mcnemar(a, a) == (0, 0, 1.)
    with pytest.raises(ValueError, match='the same examples, got 2 and 3'): mcnemar([1, 0], [1, 0, 1])

def test_ranks_with_ties():
    assert list(mean_ranks([[.3, .2, .1], [.1, .2, .3]])) == [2, 2, 2]
    assert list(mean_ranks([[.5, .5, .5]])) == [2, 2, 2] and list(mean_ranks([[3, 1, 2]], highest=False)) == [3, 1, 2]

# ---- resampling

def answers(n=200, seed=0):
    rng = np.random.default_rng(seed)
    gold = rng.choice(['0', '1'], n, p=[.6, .4])
    return list(gold), list(np.where(rng.random(n) < .7, gold, '0'))

@pytest.mark.parametrize('metric', ['accuracy', 'f1', 'matthews', 'macro_f1'])
def test_resamples_have_the_spread_of_the_bootstrap(metric):
    gold, pred = answers()
    kw = dict(choices=('0', '1'))
    xs = resampled(METRICS[metric], gold, pred, 400, **kw)
    low, high = bootstrap_interval(METRICS[metric], gold, pred, draws=400, **kw)
    assert np.quantile(xs, [.025, .975]) == pytest.approx([low, high], abs=.04) and xs.mean() == pytest.approx(METRICS[metric](gold, pred, **kw), abs=.015)

def test_draws_are_the_same_for_all_answers_to_the_same_questions():
    gold, pred = answers()
    f = METRICS['accuracy']
    assert (resampled(f, gold, pred, 50) + resampled(f, gold, [{'0': '1', '1': '0'}[p] for p in pred], 50)) == pytest.approx(1)
    assert resampled(f, gold, pred, 50) == pytest.approx(resampled(f, gold, pred, 50)) and (resampled(f, gold, pred, 50, seed=1) != resampled(f, gold, pred, 50)).any()

def test_groups_are_drawn_whole():
    q = np.repeat(np.arange(40), 5)
    gold, pred = ['1', '0', '1', '0', '0']*40, ['1', '0', '1', '0', '0']*25 + ['0', '1', '1', '1', '1']*15
    spread = [resampled(METRICS[m], gold, pred, 300, groups=g).std() for m, g in (('accuracy', None), ('accuracy', q), ('multirc_em', q))]
    assert spread[1] > 1.4*spread[0] and spread[2] == pytest.approx((25/40*15/40/40)**.5, rel=.1)

# ---- the crossed interval

def test_one_column_is_the_paired_t_test():
    d = normal(6, 1)*.02 + .01
    c, them = crossed(d), stats.ttest_1samp(d[:, 0], 0)
    ci = them.confidence_interval()
    assert [c['p'], c['low'], c['high']] == pytest.approx([them.pvalue, ci.low, ci.high])

def test_variances_by_their_definition():
    d, examples = normal(5, 3), normal(400)*.1
    c = crossed(d, examples)
    rows, columns = d.mean(1), d.mean(0)
    assert c['seed'] == pytest.approx(sum((rows - d.mean())**2)/4/5) and c['source'] == pytest.approx(sum((columns - d.mean())**2)/2/3)
    half = (stats.t.ppf(.975, 4)**2*c['seed'] + stats.t.ppf(.975, 2)**2*c['source'] + stats.norm.ppf(.975)**2*examples.var(ddof=1))**.5
    assert c['high'] - c['mean'] == pytest.approx(half) and c['mean'] - c['low'] == pytest.approx(half)
    assert (crossed(d, examples, .5)['high'] - c['mean']) < (c['high'] - c['mean'])/2

def test_a_bootstrap_of_rows_has_the_variance_of_seeds_but_for_its_factor():
    d, rng = normal(5, 3), np.random.default_rng(1)
    xs = [d[rng.integers(0, 5, 5)].mean() for _ in range(20_000)]
    assert np.var(xs)*5/4 == pytest.approx(crossed(d)['seed'], rel=.05)

def test_other_examples_never_narrow_an_interval():
    for seed in range(100):
        d, examples = normal(3, 1, seed=seed), normal(400, seed=seed)
        for size in (0, .1, .5, 1, 5):
            with_them, given = crossed(d, size*examples), crossed(d)
            assert with_them['high'] >= given['high'] - 1e-12 and with_them['p'] >= given['p'] - 1e-12
    assert crossed(d, 50*examples)['high'] == pytest.approx(d.mean() + 1.96*50*examples.std(), rel=.01)

def test_p_and_interval_say_the_same():
    for seed in range(200):
        c = crossed(normal(5, 3, seed=seed) + .6, .5*normal(100, seed=seed))
        assert (c['p'] < .05) == (c['low'] > 0 or c['high'] < 0)

def test_what_has_no_interval():
    for d in ([[.1]], [[.1, .3]]): assert np.isnan([crossed(d)[k] for k in ('low', 'high', 'p')]).all() and crossed(d)['mean'] == np.mean(d)

def test_what_is_the_same_in_all_runs_has_no_p():
    "Also if rounding makes it differ in the last bit"
    for d in ([[.1], [.1]], [[.3 - .2], [.1], [.1]]):
        same = crossed(d)
        assert (same['low'], same['high']) == pytest.approx((.1, .1)) and np.isnan([same['p'], standardised([*np.ravel(d), .1])]).all()
        assert 0 < crossed(d, .05*normal(300))['p'] < .1                 # what is left is the chance of the examples
    assert crossed([[0.], [0.]])['p'] == 1

@pytest.mark.parametrize('shape', [(5, 3), (10, 2), (3, 5)])
@pytest.mark.parametrize('spread', [(1, 0, 0), (.3, 1, .3), (1, 1, 0), (0, 0, 1)])
def test_the_interval_keeps_its_level(shape, spread):
    "Whatever varies most; 2,000 worlds, so that .938 is two and a half standard errors below"
    (S, T), (seed, source, run), rng = shape, spread, np.random.default_rng(2)
    def world(): return seed*rng.standard_normal((S, 1)) + source*rng.standard_normal((1, T)) + run*rng.standard_normal((S, T))
    found = [crossed(world()) for _ in range(2000)]
    assert np.mean([c['low'] <= 0 <= c['high'] for c in found]) > .938
    assert np.mean([c['p'] <= .05 for c in found]) < .062

def test_false_claims_are_rare_in_a_family():
    "Five comparisons of equal methods with one reference: Holm-adjusted, at most 5 % of families have a claim"
    def family(seed):
        runs = normal(6, 5, 3, seed=seed) + normal(1, 5, 1, seed=seed + 10_000) + normal(6, 1, 3, seed=seed + 20_000)
        return min(holm([crossed(x - runs[0])['p'] for x in runs[1:]])) <= .05
    assert np.mean([family(s) for s in range(400)]) < .07

def test_a_score_that_is_not_finite_has_no_p():
    for values in ([[np.inf], [1.]], [[np.nan], [1.]]): assert np.isnan(crossed(values)['p'])
