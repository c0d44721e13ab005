"Scores against values worked by hand, the packages' own corpus scores, and official answers"
import numpy as np, pytest
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, precision_score, recall_score
from bayes_prompt.metrics import METRICS, bootstrap_interval, evaluate_predictions, exact_interval, normalize_answer
from test_imports import loaded

def score(m, gold, pred, **kw): return evaluate_predictions(gold, pred, [m], **kw)[m]

# labels

def test_mrpc_cell():
    "Prompt tuning's 68.1 in the thesis is a constant answer"
    s = evaluate_predictions(['equivalent']*139 + ['not_equivalent']*65, ['equivalent']*204, ['accuracy', 'f1', 'matthews'], ('not_equivalent', 'equivalent'))
    assert round(100*s['accuracy'], 1) == 68.1 and s['accuracy'] == s['majority'] == 139/204 and s['majority_label'] == 'equivalent'
    assert s['collapsed'] and s['n'] == 204 and s['invalid'] == 0 and s['matthews'] == 0
    assert s['f1'] == pytest.approx(2*139/(2*139 + 65))
    assert s['interval'] == exact_interval(139, 204)

@pytest.mark.parametrize('m', ['accuracy', 'f1', 'matthews'])
@pytest.mark.parametrize('bad', ['maybe', '', 'True.', '0'])
def test_invalid_is_the_opposite(m, bad):
    gold, pred, c = ['True', 'True', 'True', 'False', 'False', 'False'], ['True', 'True', bad, 'False', bad, 'True'], ('False', 'True')
    opposite = ['True', 'True', 'False', 'False', 'True', 'True']
    s = evaluate_predictions(gold, pred, [m], c)
    assert s[m] == pytest.approx(score(m, gold, opposite, choices=c)) and s['invalid'] == 2

def test_invalid_by_hand():
    "tp 2, fn 1, fp 2, tn 1: an invalid answer to a negative row costs F1's precision too"
    gold, pred = ['1', '1', '1', '0', '0', '0'], ['1', '1', 'x', '0', 'x', '1']
    assert score('f1', gold, pred) == pytest.approx(4/7) and score('matthews', gold, pred) == pytest.approx((2*1 - 2*1)/36)
    assert matthews_corrcoef(gold, pred) > .1 # what a third class would give
    assert score('f1', gold, ['x']*6) == 0 and score('matthews', gold, ['x']*6) == pytest.approx(-1) and score('accuracy', gold, ['x']*6) == 0

def test_positive_label_is_the_second_choice():
    gold, pred = ['b', 'b', 'a'], ['b', 'a', 'a']
    assert score('f1', gold, pred, choices=('a', 'b')) == pytest.approx(2/3) == score('f1', gold, pred, choices=('b', 'a'))
    gold, pred = ['b', 'b', 'a', 'b'], ['b', 'a', 'a', 'b']
    assert score('f1', gold, pred, choices=('a', 'b')) == pytest.approx(4/5) and score('f1', gold, pred, choices=('b', 'a')) == pytest.approx(2/3)

def test_macro_f1_counts_a_missing_class():
    gold, pred, c = ['e', 'e', 'c', 'c'], ['e', 'e', 'c', 'x'], ('e', 'c', 'n')
    assert score('macro_f1', gold, pred, choices=c) == pytest.approx((1 + 2/3 + 0)/3) == f1_score(gold, pred, labels=c, average='macro', zero_division=0)
    assert score('macro_f1', gold, pred) == pytest.approx((1 + 2/3)/2)

def test_invalid_of_several_labels():
    "With more than two labels an invalid answer is wrong and adds no class"
    gold, c = ['a', 'b', 'c']*5, ('a', 'b', 'c')
    pred = ['?'] + gold[1:]
    assert score('matthews', gold, pred, choices=c) == pytest.approx(matthews_corrcoef(gold, ['b'] + gold[1:]))
    assert score('accuracy', gold, pred, choices=c) == 14/15

@pytest.mark.parametrize('m,f', [('accuracy', accuracy_score), ('matthews', matthews_corrcoef), ('macro_f1', lambda g, p: f1_score(g, p, average='macro')), ('f1', lambda g, p: f1_score(g, p, pos_label='1'))])
def test_without_invalid_as_scikit_learn(m, f):
    rng = np.random.default_rng(1)
    gold = rng.integers(2, size=200).astype(str)
    pred = np.where(rng.random(200) < .7, gold, '0')
    assert METRICS[m](gold, pred) == pytest.approx(f(gold, pred))

@pytest.mark.parametrize('k', [2, 3, 5])
def test_scores_of_labels_have_the_bits_of_scikit_learn(k):
    "Also of a resample, in which labels may be missing, and with answers that are no labels"
    rng, c = np.random.default_rng(k), [str(i) for i in range(k)]
    for n in (2, 5, 40):
        gold, w = rng.choice(c, n), rng.multinomial(n, np.full(n, 1/n))
        pred = np.where(rng.random(n) < .5, gold, rng.choice([*c, '?'], n))
        fair = np.where(pred == '?', [c[(c.index(g) + 1) % k] for g in gold], pred)
        def ours(m, pred):
            rows, f = METRICS[m].split([[g] for g in gold], list(pred), c, None)
            return f(rows, w)
        assert ours('macro_f1', pred) == f1_score(gold, pred, labels=c, average='macro', sample_weight=w, zero_division=0)
        if len({*gold[w > 0], *fair[w > 0]}) > 1: assert ours('matthews', pred) == matthews_corrcoef(gold, fair, sample_weight=w)
        if k == 2: assert ours('f1', pred) == f1_score(gold, fair, pos_label='1', sample_weight=w, zero_division=0)

# numbers

def test_correlations():
    gold, pred = ['1.0', '2.5', '4.0', '0.5'], ['1.5', '2.0', '4.0', '0.0']
    assert score('pearson', gold, pred) == pytest.approx(np.corrcoef([1, 2.5, 4, .5], [1.5, 2, 4, 0])[0, 1]) and score('spearman', gold, pred) == pytest.approx(1)
    assert score('pearson', gold, ['3.0']*4) == score('spearman', gold, ['3.0']*4) == 0

@pytest.mark.parametrize('bad', ['four', '', 'nan', 'inf'])
@pytest.mark.parametrize('choices,value', [((), '-1'), (('0.0', '2.5', '5.0'), '-1'), (('-4.0', '0.0', '4.0'), '-5')])
def test_no_number_is_below_the_grid(bad, choices, value):
    gold = ['0.0', '2.5', '4.0', '4.0'] if '2.5' in choices or not choices else ['0.0', '-4.0', '4.0', '4.0']
    r = score('pearson', gold, ['0.0', '0.0', '4.0', bad], choices=choices)
    assert r == pytest.approx(score('pearson', gold, ['0.0', '0.0', '4.0', value]))

# MultiRC

def test_always_true_multirc():
    "The test half has 1,020 true options among 2,424: always true beats the majority rate in F1a"
    s = evaluate_predictions(['1']*1020 + ['0']*1404, ['1']*2424, ['f1a'])
    assert round(100*s['f1a'], 2) == 59.23 and round(100*s['majority'], 2) == 57.92 and s['majority_label'] == '0' and s['collapsed']

def test_multirc_by_hand():
    "a: P 1, R 1/2; b: P 1/2, R 1; c: nothing predicted and nothing true, both 1 and exact"
    gold, pred, q = list('1101000'), list('1001100'), list('aaabbcc')
    s = evaluate_predictions(gold, pred, ['f1m', 'f1a', 'multirc_em'], groups=q, every=True)
    P = R = (1 + .5 + 1)/3
    assert s['f1m'] == pytest.approx(2*P*R/(P+R)) and s['f1a'] == pytest.approx(2*2/(2*2 + 1 + 1)) and s['multirc_em'] == pytest.approx(1/3)
    assert s['groups'] == 3 and s['n'] == 7 and s['intervals']['multirc_em'] == exact_interval(1, 3)

def test_multirc_as_scikit_learn():
    "The options of a question are a sample of several labels"
    rng = np.random.default_rng(0)
    g, p = rng.integers(2, size=(2, 80, 4))
    q = np.repeat([f'q{i}' for i in range(80)], 4)
    order = rng.permutation(320) # rows of a group need not stand together
    flat = lambda x: x.ravel()[order].astype(str)
    P, R = (f(g, p, average='samples', zero_division=1) for f in (precision_score, recall_score))
    s = evaluate_predictions(flat(g), flat(p), ['f1m', 'multirc_em'], ('0', '1'), groups=q[order])
    assert s['f1m'] == pytest.approx(2*P*R/(P+R)) and s['multirc_em'] == pytest.approx(accuracy_score(g, p))

def test_broken_groups_are_left_out():
    gold, pred, q = list('11010'), list('10011'), list('aaabb')
    s = evaluate_predictions(gold, pred, ['multirc_em', 'f1m', 'f1a'], groups=q, sizes=dict(a=3, b=4, elsewhere=2))
    assert s['groups'] == 1 and s['multirc_em'] == 0 and s['f1m'] == pytest.approx(2/3) and s['f1a'] == score('f1a', gold, pred)
    assert score('f1m', gold, pred, groups=q) == pytest.approx(.75)

def test_invalid_breaks_a_question():
    assert score('multirc_em', list('1010'), ['1', 'x', '1', '0'], groups=list('aabb')) == .5

def test_one_label_correlates_with_nothing_and_says_nothing(recwarn):
    assert score('matthews', ['1', '1'], ['1', '1'], choices=('0', '1')) == 0 and not recwarn.list

def test_group_ids_may_be_pairs():
    assert score('multirc_em', list('1010'), list('1011'), groups=[(0, 0), (0, 0), (0, 1), (0, 1)]) == .5

# spans

@pytest.mark.parametrize('raw,norm', [('The  Cat', 'cat'), ('an apple, a day', 'apple day'), ('"Beyoncé!"', 'beyoncé'), ('U.S.', 'us'), ('U . S .', 'u s'), ('well-known', 'wellknown'), ('theatre', 'theatre'),
                                      ('anthem of the\ta  n', 'anthem of n'), ('$5,000.00', '500000'), ('the', ''), ("the_a", 'thea'), ('“the”', '“ ”'), ('\n A.D. 70 ', 'ad 70')])
def test_squad_normalisation(raw, norm): assert normalize_answer(raw) == norm

def test_squad_by_hand():
    gold = [['Denver Broncos', 'The Denver Broncos', 'Broncos'], ['1888'], ['in the mill', 'old mill']]
    s = evaluate_predictions(gold, ['the Broncos', 'in 1887', 'an old stone mill'], ['squad_f1', 'squad_em'], every=True)
    assert s['squad_em'] == pytest.approx(1/3) and s['squad_f1'] == pytest.approx((1 + 0 + .8)/3)
    assert s['intervals']['squad_em'] == exact_interval(1, 3) and s['interval'] == s['intervals']['squad_f1']

@pytest.mark.parametrize('gold,pred,f1', [('cat cat dog', 'cat dog dog', 2/3), ('the', 'a', 0), ('', '', 0), ('x', '', 0), ('a b c d', 'b', 1/2)])
def test_token_f1(gold, pred, f1): assert score('squad_f1', [gold], [pred]) == pytest.approx(f1)

def test_padding_trap():
    assert score('squad_em', [['U.S.']], ['U . S .']) == 0 and score('squad_f1', [['U.S.']], ['U . S .']) == 0
    assert score('squad_em', [['U . S .']], ['U . S .']) == 1

def test_constant_span():
    "yes is one answer however it is written; the most common acceptable answer is the majority"
    s = evaluate_predictions([['yes'], ['Yes!', 'yes'], ['no']], ['yes', 'Yes', 'the yes'], ['squad_f1'])
    assert s['collapsed'] and s['majority'] == pytest.approx(2/3) == s['squad_f1'] and s['majority_label'] == 'yes'
    assert not evaluate_predictions(['yes', 'no'], ['yes', 'no'], ['squad_f1'])['collapsed']

# generation

REFS = [['Pell Inn serves Thai food.', 'Thai food is served at the Pell Inn.'], ['The Mill is a cheap pub.'], ['Ana bakes bread daily.', 'Ana is a baker.', 'Bread is baked by Ana.']]
HYPS = ['The Pell Inn serves Thai food.', 'The Mill is a pub.', 'Ana bakes bread.']
STREAMS = [[r[i] if i < len(r) else None for r in REFS] for i in range(3)]

def test_generation_as_the_packages():
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer
    s = evaluate_predictions(REFS, HYPS, ['bleu', 'chrf', 'rouge_l'], every=True)
    assert 100*s['bleu'] == pytest.approx(sacrebleu.corpus_bleu(HYPS, STREAMS, tokenize='intl').score)
    assert 100*s['chrf'] == pytest.approx(sacrebleu.corpus_chrf(HYPS, STREAMS).score)
    one = RougeScorer(['rougeL'])
    assert s['rouge_l'] == pytest.approx(np.mean([max(one.score(r, h)['rougeL'].fmeasure for r in rs) for rs, h in zip(REFS, HYPS)]))
    assert s['majority'] is None and not s['collapsed']
    for m, (lo, hi) in s['intervals'].items(): assert 0 <= lo <= s[m] <= hi <= 1 and lo < hi

def test_rouge_by_hand():
    "Longest common subsequence 3 of 4 predicted and 5 gold words"
    assert score('rouge_l', ['a cat sat down here'], ['cat then sat down']) == pytest.approx(2*3/(4+5))

@pytest.mark.parametrize('m', ['bleu', 'chrf', 'rouge_l'])
def test_same_text_is_one(m): assert score(m, REFS, [r[-1] for r in REFS]) == 1

@pytest.mark.parametrize('m', ['bleu', 'chrf', 'rouge_l'])
def test_constant_generation(m):
    s = evaluate_predictions(REFS, ['The Mill is a cheap pub.']*3, [m])
    assert s['collapsed'] and s['majority'] is None and s['majority_label'] is None and 0 < s[m] < 1

def test_bleu_bootstrap_as_resampled_corpora():
    "Scores from summed counts are those of sacrebleu on the drawn sentences"
    import sacrebleu
    rows, f = METRICS['bleu'].split(REFS, HYPS, (), None)
    i = [0, 2, 2]
    assert 100*f(rows, np.bincount(i, minlength=3)) == pytest.approx(sacrebleu.corpus_bleu([HYPS[j] for j in i], [[s[j] for j in i] for s in STREAMS], tokenize='intl').score)

def test_rouge_reads_every_script():
    for text in ('Мельница у реки', '河边的磨坊', 'μύλος', 'مطحنة', '水車小屋'): assert score('rouge_l', [text], [text]) == 1
    assert score('rouge_l', ['河边的磨坊'], ['河边的小屋']) == pytest.approx(3/5) and score('rouge_l', ['Мельница у реки'], ['Мельница у дороги']) == pytest.approx(2/3)

def test_rouge_of_ascii_is_that_of_the_package():
    from rouge_score.rouge_scorer import RougeScorer
    texts = ["Pell-Inn's U.S. food_no. 42!", 'the mill; A MILL', '  ', 'x2 2x (x)']
    one = RougeScorer(['rougeL'])
    for g in texts:
        for p in texts: assert score('rouge_l', [g], [p]) == one.score(g, p)['rougeL'].fmeasure

# a constant answer

def best(m, gold, answers, **kw): return max(METRICS[m](gold, [a]*len(gold), **kw) for a in answers)

@pytest.mark.parametrize('m', ['accuracy', 'f1', 'f1a', 'macro_f1', 'matthews', 'f1m', 'multirc_em'])
def test_the_constant_is_the_best_of_all_labels(m):
    rng = np.random.default_rng(3)
    for p in (.2, .5, .8):
        gold, q = (rng.random(60) < p).astype(int).astype(str).tolist(), np.repeat(np.arange(15), 4).tolist()
        kw = dict(choices=('0', '1'), groups=q)
        s, a = METRICS[m].constant(gold, **kw)
        assert s == best(m, gold, '01', **kw) == METRICS[m](gold, [a]*60, **kw)

def test_the_constant_by_hand():
    true = ['1']*1020 + ['0']*1404
    s = evaluate_predictions(true, true, ['f1a'], ('0', '1'))
    assert (s['constant'], s['constant_label']) == (pytest.approx(2*1020/(1020 + 2424)), '1') and s['majority_label'] == '0'
    s = evaluate_predictions(true, true, ['accuracy'], ('0', '1'))
    assert (s['constant'], s['constant_label']) == (s['majority'], s['majority_label']) == (1404/2424, '0')
    for m in ('matthews', 'pearson', 'spearman'): assert METRICS[m].constant(true)[0] == 0
    for m in ('bleu', 'chrf', 'rouge_l'): assert METRICS[m].constant(REFS) == (None, None)
    assert METRICS['squad_em'].constant([['Yes!'], ['yes', 'the yes'], ['no']]) == (pytest.approx(2/3), 'yes')

def test_the_best_span_need_not_be_the_commonest():
    gold = [['the old mill'], ['a new mill'], ['mill'], ['Pell Inn'], ['Pell Inn']]
    assert METRICS['squad_f1'].constant(gold) == (pytest.approx((2/3 + 2/3 + 1)/5), 'mill')
    rng = np.random.default_rng(0)
    for _ in range(20):
        gold = [[' '.join(rng.choice(['mill', 'old', 'the', 'inn', 'by'], rng.integers(1, 4))) for _ in range(rng.integers(1, 3))] for _ in range(9)]
        assert METRICS['squad_f1'].constant(gold)[0] == pytest.approx(best('squad_f1', gold, [a for g in gold for a in g]))

# what goes in

def test_numbers_stand_for_their_texts():
    assert score('accuracy', [0, 1], ['0', '1']) == score('accuracy', ['0', '1'], np.array([0, 1])) == 1 == score('f1', [False, True], ['False', 'True'], choices=(False, True))
    assert score('pearson', [1., 2.5], ['1.0', '2.5']) == pytest.approx(1)

# intervals

LABELS = dict(gold=list('1101001011'*8), pred=list('1001011011'*8))

@pytest.mark.parametrize('m', ['f1', 'macro_f1', 'matthews', 'pearson', 'squad_f1'])
def test_bootstrap_by_seed(m):
    a, b, c = (bootstrap_interval(METRICS[m], **LABELS, draws=100, seed=s) for s in (0, 0, 1))
    assert a == b != c and a[0] < METRICS[m](**LABELS) < a[1]

def test_bootstrap_is_that_of_the_examples():
    "Counts of merged rows have the distribution of drawn examples: the width is that of the naive resampling, and of the normal approximation"
    gold, pred = map(np.array, LABELS.values())
    rng = np.random.default_rng(0)
    naive = np.quantile([f1_score(gold[i], pred[i], pos_label='1') for i in rng.integers(80, size=(1000, 80))], [.025, .975])
    assert bootstrap_interval(METRICS['f1'], gold, pred, draws=1000) == pytest.approx(naive, abs=.02)
    lo, hi = bootstrap_interval(METRICS['accuracy'], gold, pred, draws=2000)
    assert hi - lo == pytest.approx(2*1.96*np.sqrt(.8*.2/80), rel=.1)

def test_bootstrap_draws_whole_groups():
    "Ten copies of every row, drawn together, tell no more than one copy"
    gold, pred = (list(np.repeat(x, 10)) for x in LABELS.values())
    width = lambda *a, **kw: np.diff(bootstrap_interval(*a, draws=1000, **kw))[0]
    for m in ('f1', 'accuracy'):
        one, rows, groups = width(METRICS[m], **LABELS), width(METRICS[m], gold, pred), width(METRICS[m], gold, pred, groups=np.repeat(np.arange(80), 10))
        assert groups == pytest.approx(one, rel=.12) and rows == pytest.approx(one/10**.5, rel=.15)
    s = evaluate_predictions(gold, pred, groups=np.repeat(np.arange(80), 10))
    assert np.diff(s['interval'])[0] > 2*np.diff(exact_interval(640, 800))[0]

def test_exact_interval():
    "Clopper-Pearson's closed forms at the ends"
    assert exact_interval(0, 20) == pytest.approx((0, 1 - .025**(1/20))) and exact_interval(20, 20) == pytest.approx((.025**(1/20), 1))
    assert exact_interval(8, 10) == pytest.approx((stats.beta.ppf(.025, 8, 3), stats.beta.ppf(.975, 9, 2)))

# what goes wrong

@pytest.mark.parametrize('args,kw,message', [
    ((['1'], ['1'], ['mathews']), {}, "no metric 'mathews'; the nearest is 'matthews'"),
    ((['1', '0'], ['1']), {}, 'as many answers as gold targets, at least one, got 1 and 2'),
    (([], []), {}, 'at least one, got 0 and 0'),
    ((['1'], ['1'], ['f1m']), {}, 'expected groups, one id per row'),
    ((['1'], ['1'], ['multirc_em']), {}, 'expected groups, one id per row'),
    ((['1', '0'], ['1', '0'], ['f1a']), dict(groups=['q']), 'one group per answer, got 1 groups and 2 answers'),
    ((['1', '0'], ['1', '0'], ['f1m']), dict(groups=['q', None]), 'row 1: expected the id of its group, got the empty None'),
    ((['1', '0'], ['1', '0'], ['f1m']), dict(groups=['', 'q']), "row 0: expected the id of its group, got the empty ''"),
    ((['1', '0'], ['1', '0'], ['f1m']), dict(groups=[float('nan'), 1]), 'row 0: expected the id of its group'),
    ((['1', '0'], ['1', '0'], ['f1m']), dict(groups=['q', 'r'], sizes=dict(q=2, r=3)), '2 groups that all lack rows'),
    ((['1', '0'], ['1', '0'], ['f1m']), dict(groups=['q', 'r'], sizes=dict(q=1, r=0)), "group 'r': expected at most 0 rows"),
    (([['x'], []], ['x', 'y'], ['squad_f1']), {}, 'row 1: expected at least one gold answer, got none'),
    (([['1', '0']], ['1'], ['f1']), {}, 'row 0: expected one gold label'),
    ((['a', 'b'], ['a', 'b'], ['macro_f1'], ('a', 'c')), {}, "row 1: expected one gold label of \\('a', 'c'\\), got \\['b'\\]"),
    ((['no', 'yes'], ['no', 'yes'], ['f1']), {}, 'negative, positive'),
    ((['a', 'b'], ['a', 'b'], ['f1'], ('a', 'b', 'c')), {}, 'or use macro_f1'),
    ((['1.0', 'x'], ['1.0', '2.0'], ['pearson']), {}, 'row 1: expected one number'),
    *[((['a', 'b'], ['a', None], [m]), dict(choices=('a', 'b')), 'row 1: expected a text as answer, got None') for m in ('accuracy', 'f1', 'macro_f1', 'squad_f1', 'bleu', 'rouge_l', 'pearson')],
    *[((['a', None], ['a', 'b'], [m]), {}, 'row 1: expected a text as gold answer, got None') for m in ('accuracy', 'squad_em', 'chrf')],
    ((['a', ['b', None]], ['a', 'b']), {}, 'row 1: expected a text as gold answer'), ((['a', dict(a=1)], ['a', 'b']), {}, 'row 1: expected a text as gold answer')])
def test_errors(args, kw, message):
    with pytest.raises(ValueError, match=message) as e: evaluate_predictions(*args, **kw)
    assert '\n' not in str(e.value)

def test_import_is_light():
    heavy = ['sacrebleu', 'rouge_score', 'nltk', 'torch']
    assert loaded('import bayes_prompt.metrics', heavy) == set()
    assert {'sacrebleu'} == loaded('from bayes_prompt.metrics import METRICS; METRICS["bleu"](["x"], ["x"])', ['sacrebleu', 'rouge_score'])
