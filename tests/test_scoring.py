"""Scores of every task against tables worked by hand (scoring.toml), from the file of data to the number, and against independent code"""
import json, math, re, string, sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest, sacrebleu
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from bayes_prompt.data import load_task
from bayes_prompt.evaluate import evaluate
from bayes_prompt.metrics import METRICS, evaluate_predictions
from bayes_prompt.store import read_table
from bayes_prompt.tasks import STYLES, TASKS

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'scripts'))
import build_fixtures

TABLES = read_table(ROOT/'tests/scoring.toml', 'table of scores')

def about(title):
    "A table's task and its styles"
    task, *style = title.partition(',')[0].split(' ')
    return task, style or STYLES

EACH = [(title, style) for title in TABLES for style in about(title)[1]]

def worked_out(sum_):
    "A score as it is written: numbers and + - * / ( ) ** exp"
    assert re.fullmatch(r'(exp|[\d.+\-*/() ])+', sum_), sum_
    return eval(sum_, dict(exp=math.exp))

@pytest.fixture(autouse=True)
def no_intervals(monkeypatch):
    "They are not the subject, and most of the time"
    monkeypatch.setattr('bayes_prompt.metrics._bootstrap', lambda *a, **kw: (0., 1.))

@pytest.fixture
def loaded(tmp_path, monkeypatch):
    "Load a table's rows as a task: from a file, through the task's own preparation, not cut"
    def load(title, style):
        task, table = TASKS[about(title)[0]], TABLES[title]
        base = build_fixtures.ROWS.get(task.name) or {f: f'a {f}' for f in task.fields}
        rows = [base | row | {task.label: gold} for gold, row in zip(table['gold'], table.get('rows', [{}]*len(table['gold'])))]
        (tmp_path/task.name).mkdir(exist_ok=True)
        parts = ('train', 'validation', 'test')
        for part in parts: (tmp_path/task.name/f'{part}.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows))
        monkeypatch.setitem(TASKS, task.name, replace(task, split='own', parts=parts if task.hub else ()))
        return load_task(task.name, style, tmp_path)
    return load

def answers(said, data):
    "What is said to each row, in the words of a style"
    if said == 'gold': return [target for _, target in data.test]
    words = dict(zip(data.task.labels, data.choices))
    each = [said]*len(data.test) if isinstance(said, str) else said
    return [words.get(a, a) for a in each]

def scored(data, said, metrics):
    "As `evaluate` does with what a model said"
    if data.task.read and not data.choices: said = [data.task.read(a, target) for a, (_, target) in zip(said, data.test)]
    groups = dict(groups=data.groups['test'], sizes={g: n//2 for g, n in data.sizes.items()}) if data.groups else {}
    labels = data.choices or (data.task.labels if data.task.read else ())
    return evaluate_predictions(data.answers['test'], said, metrics, labels, **groups)

def test_every_task_has_a_table(): assert {about(t)[0] for t in TABLES} == {*TASKS} and all(t['by'] for t in TABLES.values())

@pytest.mark.parametrize('title,style', EACH)
def test_scores_are_those_worked_out_by_hand(title, style, loaded):
    data, cases = loaded(title, style), TABLES[title]['cases']
    for case in cases:
        want = {k: v for k, v in case.items() if k != 'said'}
        metrics = [data.task.metric, *(m for m in want if m in METRICS and m != data.task.metric)]
        got = scored(data, answers(case['said'], data), metrics)
        for key, value in want.items():
            value = value if isinstance(value, int) else worked_out(value)
            assert got[key] == pytest.approx(value, abs=1e-12), (case['said'], key)

@pytest.mark.parametrize('title', [t for t in TABLES if ',' not in t])
def test_a_table_has_every_metric_and_every_constant_answer(title):
    task, cases = TASKS[about(title)[0]], TABLES[title]['cases']
    assert {task.metric, *task.metrics} <= {*cases[0]} and cases[0]['said'] == 'gold'
    free = title == 'superglue-wsc.fixed t5'
    assert {'', *(() if free else task.labels)} <= {c['said'] for c in cases if isinstance(c['said'], str)}

# independent code, where no answer is invalid

def official(gold, said):
    "EM and F1 as SQuAD's and MRQA's scripts have them, written apart from ours"
    def norm(s): return ' '.join(w for w in ''.join(c for c in s.lower() if c not in string.punctuation).split() if w not in ('a', 'an', 'the'))
    def f1(g, p):
        g, p = norm(g).split(), norm(p).split()
        same = sum((Counter(g) & Counter(p)).values())
        return same and 2*(same/len(p))*(same/len(g))/(same/len(p) + same/len(g))
    return dict(squad_em=np.mean([any(norm(a) == norm(p) for a in g) for g, p in zip(gold, said)]), squad_f1=np.mean([max(f1(a, p) for a in g) for g, p in zip(gold, said)]))

def by_others(gold, said, data):
    first, labels = [g[0] for g in gold], list(data.choices)
    streams = [[g[i] if i < len(g) else None for g in gold] for i in range(max(map(len, gold)))]
    numbers = [np.array(x, float) for x in (first, said)] if data.task.grid else None
    def binary(f): return f(first, said, pos_label=labels[1])
    return dict(
        accuracy=lambda: accuracy_score(first, said), f1=lambda: binary(f1_score), f1a=lambda: binary(f1_score), matthews=lambda: matthews_corrcoef(first, said),
        macro_f1=lambda: f1_score(first, said, labels=labels, average='macro'), pearson=lambda: stats.pearsonr(*numbers)[0], spearman=lambda: stats.spearmanr(*numbers)[0],
        bleu=lambda: sacrebleu.corpus_bleu(said, streams, tokenize='intl').score/100, chrf=lambda: sacrebleu.corpus_chrf(said, streams).score/100,
        squad_em=lambda: official(gold, said)['squad_em'], squad_f1=lambda: official(gold, said)['squad_f1'])

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('title,style', EACH)
def test_scores_are_those_of_the_packages(title, style, loaded):
    data = loaded(title, style)
    gold, metrics = data.answers['test'], [data.task.metric, *data.task.metrics]
    for case in TABLES[title]['cases']:
        said = answers(case['said'], data)
        if data.choices and not {*said} <= {*data.choices} or data.task.read and not data.choices: continue
        got, others = scored(data, said, metrics), by_others(gold, said, data)
        for m in {*metrics} & {*others}: assert got[m] == pytest.approx(np.nan_to_num(others[m]()), abs=1e-9), (case['said'], m)

@pytest.mark.parametrize('title,style', [('mrpc', 't5'), ('superglue-multirc', 'attempt'), ('superglue-cb', 't5'), ('stsb', 't5'), ('superglue-wsc.fixed t5', 't5'), ('superglue-wsc.fixed attempt', 'attempt'), ('squad', 'attempt'), ('web_nlg', 't5')])
def test_a_run_scores_what_was_said_as_the_table_does(title, style, loaded, monkeypatch):
    "Through `evaluate`, with a model's ranking or text put in"
    import torch
    data = loaded(title, style)
    metrics = [data.task.metric, *data.task.metrics]
    for case in TABLES[title]['cases']:
        said = answers(case['said'], data)
        if data.choices and not {*said} <= {*data.choices}: continue
        sure = torch.eye(max(1, len(data.choices)))[[data.choices.index(a) if data.choices else 0 for a in said]]
        monkeypatch.setattr('bayes_prompt.evaluate.label_probabilities', lambda *a: sure.clamp(1e-6))
        monkeypatch.setattr('bayes_prompt.evaluate.predict', lambda *a, **kw: said)
        groups = dict(groups=data.groups['test'], sizes={g: n//2 for g, n in data.sizes.items()}) if data.groups else {}
        got = evaluate(None, None, None, data.test, data.choices, data.task.metric, data.task.metrics, data.answers['test'], data.task.read, data.task.labels if data.task.read else (), **groups)
        want = scored(data, said, metrics)
        assert {k: got[k] for k in want if k in METRICS or k in ('invalid', 'constant', 'n')} == {k: want[k] for k in want if k in METRICS or k in ('invalid', 'constant', 'n')}

# wrong types: a text is scored, a number is what the labels call it, all else is a mistake of the program and one sentence

NONE = [None, float('nan'), float('inf'), ['1'], ('1',), {'1': 1}, b'1', np.array(['1', '0']), np.float32('nan'), 1j, object()]

@pytest.mark.parametrize('metric', METRICS)
@pytest.mark.parametrize('wrong', NONE, ids=lambda x: type(x).__name__)
def test_no_text_is_no_answer(metric, wrong):
    with pytest.raises(ValueError, match='row 1: expected a text as answer') as e: METRICS[metric](['0', '1'], ['0', wrong], groups=['q', 'q'])
    assert '\n' not in str(e.value)

DIGITS, WORDS, TRUTHS, GRID = ('0', '1'), ('no', 'yes'), ('False', 'True'), ('0.0', '0.5', '1.0')

@pytest.mark.parametrize('kind', [int, float, np.int64, np.int8, np.float32, np.float64, np.uint8], ids=lambda k: k.__name__)
@pytest.mark.parametrize('choices', [DIGITS, GRID, ('0', '1', '2')])
def test_a_number_is_what_the_labels_call_it(kind, choices):
    zero, one = choices[0], choices[-1] if choices is GRID else choices[1]
    for given in (choices, ()):
        s = evaluate_predictions([zero, one, one], [kind(0), kind(1), kind(0)], choices=given)
        assert s['accuracy'] == 2/3 and s['invalid'] == 0
        assert evaluate_predictions([kind(0), kind(1)], [zero, one], choices=choices)['accuracy'] == 1
    assert evaluate_predictions([zero, one], [kind(0), kind(3)], choices=choices) | {} == evaluate_predictions([zero, one], ['0', '3'] if choices is not GRID else ['0.0', '3'], choices=choices)

@pytest.mark.parametrize('yes', [True, np.True_, np.bool_(1)])
def test_truth_is_a_word_and_no_number(yes):
    for choices in (TRUTHS, ()): assert evaluate_predictions(['False', 'True'], [False, yes], choices=choices)['accuracy'] == 1
    for choices in (DIGITS, WORDS):
        with pytest.raises(ValueError, match='row 1: .*got (np.)?True_?; give the words'): evaluate_predictions(choices, [choices[0], yes], choices=choices)

@pytest.mark.parametrize('metric', ['accuracy', 'f1', 'macro_f1', 'matthews'])
@pytest.mark.parametrize('choices', [WORDS, TRUTHS])
@pytest.mark.parametrize('one', [1, 1., np.int64(1), np.float32(1)])
def test_an_index_is_no_word(metric, choices, one):
    "Scored as wrong it would be a silent zero; on either side"
    with pytest.raises(ValueError, match=f"row 1: expected a text as answer, such as '.*', got .*give the words, not their indices"): METRICS[metric](choices, [choices[0], one], choices)
    with pytest.raises(ValueError, match='row 0: expected a text as gold answer'): METRICS[metric]([one], [choices[0]], choices)

@pytest.mark.parametrize('metric', ['accuracy', 'f1', 'macro_f1', 'matthews'])
def test_labels_of_another_style_are_refused(metric):
    with pytest.raises(ValueError, match="row 0: expected one gold label of \\('no', 'yes'\\), got \\['0'\\]"): METRICS[metric](['0', '1'], ['no', 'yes'], WORDS)

@pytest.mark.parametrize('args,kw,message', [
    (('10', '10'), {}, "a list of gold targets, got '10'"), ((['1'], '1'), {}, "a list of answers, got '1'"), ((None, ['1']), {}, 'a list of gold targets, got None'), ((5, 5), {}, 'got 5'),
    (({'1': 1}, ['1']), {}, 'a list of gold targets'), ((['1'], {'1'}), {}, 'a list of answers'), ((['1'], ['1'], []), {}, 'at least one metric of accuracy'), ((['1'], ['1'], None), {}, 'a list of metrics, got None'),
    ((['1'], ['1']), dict(choices='10'), "a list of choices, got '10'"), ((['1'], ['1']), dict(choices=['1', 1]), 'different choices'), ((['1'], ['1'], ['f1m']), dict(groups=[{'q': 1}]), 'row 0: expected a text, a number or a pair')])
def test_what_is_no_list(args, kw, message):
    with pytest.raises(ValueError, match=message) as e: evaluate_predictions(*args, **kw)
    assert '\n' not in str(e.value)

def test_any_sequence_is_a_list():
    import pandas as pd
    for kind in (list, tuple, iter, np.array, pd.Series): assert evaluate_predictions(kind(['a', 'b']), kind(['a', 'c']))['accuracy'] == .5
    assert METRICS['multirc_em'](['1', '0'], ['1', '0'], groups=[[0, 1], [0, 1]]) == 1

# scripts

SPACED = ['Mills stand by that old river', 'Мельница стоит у той старой реки', 'Ο μύλος στέκει κοντά στο ποτάμι', 'تقف الطاحونة القديمة على ضفة النهر', 'הטחנה הישנה עומדת ליד הנהר הזה',
          'पुरानी चक्की नदी के किनारे है', '낡은 방앗간이 그 강 옆에 있다', 'ძველი წისქვილი დგას მდინარის პირას', 'Հին ջրաղացը կանգնած է գետի մոտ']
UNSPACED = ['河边有座老磨坊', 'みずのそばのこや', 'ミズノソバノコヤ', 'โรงสีเก่าริมน้ำ', 'ໂຮງສີເກົ່າ', 'រោងម៉ាស៊ីន', 'စက်ရုံဟောင်း']

@pytest.mark.parametrize('text', SPACED + UNSPACED)
@pytest.mark.parametrize('metric', ['accuracy', 'squad_em', 'squad_f1', 'chrf', 'rouge_l', 'bleu'])
def test_a_text_is_itself_in_every_script(metric, text):
    if metric == 'bleu' and text in UNSPACED:
        with pytest.raises(ValueError, match='BLEU expects texts with spaces between words'): METRICS[metric]([text], [text])
    else: assert METRICS[metric]([text], [text]) == pytest.approx(1)

@pytest.mark.parametrize('text', SPACED + UNSPACED)
def test_a_text_without_its_end_is_less(text):
    words = text.split() if text in SPACED else list(text)
    short = text.rpartition(' ')[0] or text[:-1]
    n = len(words)
    assert METRICS['rouge_l']([text], [short]) == pytest.approx(2*(n-1)/(2*n - 1))
    assert METRICS['squad_f1']([text], [short]) == pytest.approx(2*(n-1)/(2*n - 1) if text in SPACED else 0) and 0 < METRICS['chrf']([text], [short]) < 1

def test_a_foreign_name_among_words_is_no_script_without_spaces(): assert METRICS['bleu'](['The mill is called 磨坊 in Chinese'], ['The mill is called 磨坊 in Chinese']) == 1

# MultiRC's halves

def test_broken_questions_are_not_scored():
    "The second question lacks a row: F1a counts its row, EM and F1m leave it out"
    s = evaluate_predictions(list('110'), list('100'), ['f1a', 'f1m', 'multirc_em'], groups=list('aab'), sizes=dict(a=2, b=3))
    assert s['f1a'] == pytest.approx(2*1/(2*1 + 0 + 1)) and s['multirc_em'] == 0 and s['f1m'] == pytest.approx(2*1*.5/1.5) and s['groups'] == 1
