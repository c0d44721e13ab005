"Every task of the papers: the format notes' worked examples, through the same files and types as on the Hub"
import hashlib, json, random, sys
from pathlib import Path
import numpy as np, pytest
from datasets import Dataset, Features
from bayes_prompt.data import load_task
from bayes_prompt.tasks import PREPARE, STYLES, SUITES, TASKS, Prepared, Task, add_tasks, pad_punctuation, read_tasks, suite, wsc_agrees
from test_imports import loaded

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'scripts'))
import build_fixtures

HUB = [t for s in SUITES if s != 'mini' for t in suite(s)]

CARDS = { # task -> attempt source and target, T5 source and target, spaces squeezed
    'mnli': ('mnli premise: Nobody came. hypothesis: The hall was empty.', '0', 'mnli hypothesis: The hall was empty. premise: Nobody came.', 'entailment'),
    'qnli': ('qnli question: Who runs the mill? sentence: Ana runs the mill.', '0', 'qnli question: Who runs the mill? sentence: Ana runs the mill.', 'entailment'),
    'qqp': ('qqp question1: Why do geese hiss? question2: Why do cats hiss?', '0', 'qqp question1: Why do geese hiss? question2: Why do cats hiss?', 'not_duplicate'),
    'sst2': ('sst2 sentence: a generous caper', '1', 'sst2 sentence: a generous caper', 'positive'),
    'stsb': ('stsb sentence1: A cook peels a pear. sentence2: A chef peels fruit.', '3.3', 'stsb sentence1: A cook peels a pear. sentence2: A chef peels fruit.', '3.4'),
    'mrpc': ('mrpc sentence1: Fees rose . sentence2: Fees went up .', '1', 'mrpc sentence1: Fees rose . sentence2: Fees went up .', 'equivalent'),
    'rte': ('rte sentence1: Ana bakes bread daily. sentence2: Ana is a baker.', '0', 'rte sentence1: Ana bakes bread daily. sentence2: Ana is a baker.', 'entailment'),
    'cola': ('cola sentence: Potter the moved that away.', '0', 'cola sentence: Potter the moved that away.', 'unacceptable'),
    'superglue-multirc': ('superglue-multirc question: Where was it? answer: Under the stove paragraph: Sent 1: Odo hid it.', '1',
                          'multirc question: Where was it? answer: Under the stove paragraph: Sent 1: Odo hid it.', 'True'),
    'superglue-boolq': ('superglue-boolq question: can otters doze passage: Otter -- Otters doze afloat.', '1', 'boolq passage: Otter -- Otters doze afloat. question: can otters doze', 'True'),
    'superglue-wic': ('superglue-wic sentence1: A cold spring rose. sentence2: The spring snapped. word: spring', '0',
                      'wic sentence1: A cold spring rose. sentence2: The spring snapped. word: spring', 'False'),
    'superglue-wsc.fixed': ('superglue-wsc.fixed text: The miller gave * Peter * the lamp because # he # feared the dark .', '1',
                            'wsc: The miller gave Peter the lamp because *he* feared the dark .', 'Peter'),
    'superglue-cb': ('superglue-cb premise: I doubt Rufus painted it. hypothesis: Rufus painted it', '1', 'cb hypothesis: Rufus painted it premise: I doubt Rufus painted it.', 'contradiction'),
    'superglue-record': ('superglue-record record query: Rescuers praised @placeholder entities: Aurora, Ines Vold, Vold passage: Aurora sank. Ines Vold stayed', 'Ines Vold',
                         'record query: Rescuers praised @placeholder entities: Aurora, Ines Vold, Vold passage: Aurora sank. Ines Vold stayed', 'Ines Vold'),
    'squad': ('squad question: When was it built ? context: The Zürich - built clock ( 1888 ) .', '1888', 'question: When was it built ? context: The Zürich - built clock ( 1888 ) .', '1888'),
    **{a: (f'{a} question: who carved it context: It was carved by J . Dunn .', 'J . Dunn', f'{b} question: who carved it context: It was carved by J . Dunn .', 'J . Dunn')
       for a, b in dict(nq='natural_questions', hotpotqa='hotpot_qa', newsqa='news_qa', searchqa='search_qa').items()},
    'winogrande': ('winogrande sentence: Gus thanked Hal since _ had been generous. option0: Gus option1: Hal', '1',
                   'winogrande option1: Gus option2: Hal sentence: Gus thanked Hal since _ had been generous.', 'option2'),
    'yelp_polarity': ('yelp_polarity sentence: Cold soup.', '0', 'yelp_polarity text: Cold soup.', 'negative'),
    'scitail': ('scitail premise: Lichens join fungus and alga. hypothesis: A lichen has a fungus.', '0',
                'scitail hypothesis: A lichen has a fungus. premise: Lichens join fungus and alga.', 'entailment'),
    'paws': ('paws sentence1: It runs to Moll . sentence2: It runs from Moll .', '0', 'paws sentence1: It runs to Moll . sentence2: It runs from Moll .', 'not_paraphrase'),
    'ag_news': ('ag_news sentence: Rowers take gold Pell won on Sunday.', '1', 'ag_news text: Rowers take gold Pell won on Sunday.', 'Sports'),
    'commonsense_qa': ('commonsense_qa question: Where hangs a coat? choice1: oven choice2: hook choice3: drawer choice4: pond choice5: cup', '1',
                       'commonsense_qa choice1: oven choice2: hook choice3: drawer choice4: pond choice5: cup question: Where hangs a coat?', 'choice2'),
    'openbookqa': ('openbookqa question: Frost is choice1: sand choice2: salt choice3: frozen water choice4: paint', '2',
                   'openbookqa choice1: sand choice2: salt choice3: frozen water choice4: paint question: Frost is', 'choice3'),
    'ai2_arc': ('ai2_arc question: Which is a gas? choice1: iron choice2: oxygen choice3: salt', '1', 'ai2_arc choice1: iron choice2: oxygen choice3: salt question: Which is a gas?', 'choice2'),
    'anli': ('anli premise: Moll has 900 people. hypothesis: Over 500 live in Moll.', '0', 'anli_r1 hypothesis: Over 500 live in Moll. context: Moll has 900 people.', 'entailment'),
    'e2e_nlg': ('e2e_nlg name : Pell Inn | food : Thai | customer rating : 5 out of 5', 'Pell Inn serves Thai food.', 'e2e_nlg name : Pell Inn | food : Thai | customer rating : 5 out of 5', 'Pell Inn serves Thai food.'),
    'web_nlg': ('web_nlg | Moll_Bridge : location : Moll | Moll : country : Ostland', 'Moll Bridge is in Moll, Ostland.',
                'web_nlg | Moll_Bridge : location : Moll | Moll : country : Ostland', 'Moll Bridge is in Moll, Ostland.'),
}

def row(name): return Dataset.from_list([{k: build_fixtures.ROWS[name].get(k) for k in build_fixtures.SCHEMAS[name]}], features=Features(build_fixtures.SCHEMAS[name]))[0]


def test_all_are_there():
    assert {t.name for t in HUB} == set(CARDS) == set(build_fixtures.SCHEMAS)

TEXTS = json.loads((ROOT/'tests/fixtures/texts.json').read_text())

@pytest.mark.parametrize('name', TEXTS)
def test_texts_are_those_of_the_first_release(name):
    "Pairs, golds, groups, choices and indices of every style, with and without prefix, as hashes; a change of a task's texts is a new task"
    for way, digest in TEXTS[name].items():
        style, _, bare = way.partition(' ')
        d = load_task(name, style, ROOT/'tests/fixtures/hub' if TASKS[name].hub else None, add_prefix=not bare)
        about = [d.train, d.validation, d.test, d.answers, d.groups, sorted(map(repr, d.sizes.items())), d.indices, d.choices]
        assert hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16] == digest, way

@pytest.mark.parametrize('name', CARDS)
def test_worked_example(name):
    task, want = TASKS[name], CARDS[name]
    for style, source, target in (('attempt', *want[:2]), ('t5', *want[2:])):
        got = task.to_text(row(name), style)
        assert (' '.join(got[0].split()), got[1]) == (source, target)
        bare = task.to_text(row(name), style, add_prefix=False)[0]
        prefix = name if style == 'attempt' else source.split(' ')[0] if task.prefix != '' else ''
        assert ' '.join(bare.split()) == source.removeprefix(prefix).strip()
        if task.choices(style): assert target in task.choices(style)

@pytest.mark.parametrize('task', HUB, ids=lambda t: t.name)
def test_fixtures_are_what_the_builder_makes(task, tmp_path):
    for part in [p for ps in task.hub_parts for p in ps.split('+')]:
        got = Dataset.from_parquet(str(ROOT/f'tests/fixtures/hub/{task.name}/{part}.parquet'), cache_dir=str(tmp_path))
        assert got.features == Features(build_fixtures.SCHEMAS[task.name])
        for style in STYLES:
            for r in got: assert all(s and t for s, t in task.to_pairs(r, style))

@pytest.mark.parametrize('label,attempt,t5', [(2.5, '2.5', '2.4'), (5., '5.0', '5.0'), (0., '0.0', '0.0'), (3.333, '3.3', '3.4'), (4.75, '4.8', '4.8'), (1.3, '1.3', '1.2')])
def test_stsb(label, attempt, t5):
    r = dict(sentence1='a', sentence2='b', label=label)
    assert [TASKS['stsb'].to_text(r, s)[1] for s in ('attempt', 't5')] == [attempt, t5]

def test_labels_go_by_name():
    assert [TASKS['superglue-cb'].target(w, 'attempt') for w in ('entailment', 'contradiction', 'neutral')] == ['0', '1', '2']
    assert [TASKS['mnli'].target(w, 'attempt') for w in ('entailment', 'contradiction', 'neutral')] == ['0', '2', '1']

def test_record_trains_on_every_answer_and_is_scored_once():
    r = row('superglue-record')
    assert [t for _, t in TASKS['superglue-record'].to_pairs(r)] == ['Ines Vold', 'Vold'] == TASKS['superglue-record'].answers(r)
    assert TASKS['superglue-record'].to_pairs(r | dict(answers=[]))[0][1] == '<unk>'

def test_wsc():
    task, r = TASKS['superglue-wsc.fixed'], row('superglue-wsc.fixed')
    assert task.to_pairs(r) and not task.to_pairs(r | dict(label=0)) and len(task.to_pairs(r | dict(label=0), 'attempt')) == 1
    assert task.choices('t5') == () and task.choices('attempt') == ('0', '1')
    special = dict(text='I (Ed) saw C++ there .', span1_index=1, span1_text='(Ed)', span2_index=3, span2_text='C++', label=1)
    assert task.to_text(special, 'attempt')[0].endswith('I * (Ed) * saw # C++ # there .')
    before = dict(text='He saw Ed there .', span1_index=2, span1_text='Ed', span2_index=0, span2_text='He', label=1)
    assert task.to_text(before, 'attempt')[0].endswith('text: # He # saw * Ed * there .')
    off_by_one = dict(text='It was " good for him, " he said', span1_index=0, span1_text='It', span2_index=5, span2_text='him', label=1)
    assert '*him*,' in task.to_text(off_by_one)[0]
    with pytest.raises(ValueError, match='expected the pronoun'): task.to_text(special | dict(span2_text='zzz'))
    assert wsc_agrees('miller', 'the miller') and not wsc_agrees("the miller's", 'the miller') and not wsc_agrees('', 'x')

def test_padding():
    assert pad_punctuation('a-b_c’d', 't5') == 'a - b _ c’d' and pad_punctuation('a-b_c’d', 'attempt') == 'a - b_c ’ d'
    assert pad_punctuation('  €5\n\tnow ', 'attempt') == '€ 5 now' and pad_punctuation('  €5\n\tnow ') == '€5 now'

def test_multiple_choice_keys():
    arc = TASKS['ai2_arc']
    r = dict(question='q', choices=dict(label=['A ', 'B', 'C'], text=['x', 'y', 'z']), answerKey=' C')
    assert arc.to_text(r, 'attempt')[1] == '2'
    with pytest.raises(ValueError, match='not among the labels'): arc.to_text(r | dict(answerKey='E'))
    with pytest.raises(ValueError, match='no label'): arc.to_pairs(r | dict(answerKey=''))

@pytest.mark.parametrize('name,row', [('mnli', dict(premise='a', hypothesis='b')), ('stsb', dict(sentence1='a', sentence2='b')), ('winogrande', dict(sentence='a', option1='b', option2='c')),
    ('commonsense_qa', dict(question='q', choices=dict(label=['A'], text=['x']))),
    ('squad', dict(question='a', context='b')), ('superglue-record', dict(query='q', passage='p', entities=['e'])), ('e2e_nlg', dict(meaning_representation='name[Pell]')), ('web_nlg', dict(input=['a | b | c']))])
def test_unlabelled_rows_can_be_predicted(name, row):
    for style in STYLES:
        source, target = TASKS[name].to_text(row, style)
        assert source and target is None

def test_unlabelled_rows_of_the_hub():
    "T5 writes <unk> where the Hub keeps a label back"
    row = dict(premise='a', hypothesis='b', label=-1)
    assert TASKS['mnli'].to_text(row)[1] == '<unk>' and TASKS['mnli'].to_text(row, 'attempt')[1] is None and TASKS['mnli'].answers(row) == []
    wsc = dict(text='Ann said she ran .', span1_text='Ann', span1_index=0, span2_text='she', span2_index=2, label=-1)
    assert TASKS['superglue-wsc.fixed'].to_text(wsc)[1] == 'Ann' and TASKS['superglue-wsc.fixed'].golds(wsc) == []
    assert TASKS['superglue-record'].to_pairs(dict(query='q', passage='p', entities=['e'], answers=[]))[0][1] == '<unk>'

def test_numbers_answered_in_steps():
    stsb = TASKS['stsb']
    assert len(stsb.choices('t5')) == 26 and len(stsb.choices('attempt')) == 51
    for x in (0., .1, 2.499, 3.333, 5.):
        for style in STYLES: assert stsb.to_text(dict(sentence1='a', sentence2='b', label=x), style)[1] in stsb.choices(style)

def test_columns_of_a_row_are_no_answers():
    "Only `prepare` says what is right"
    row = dict(sentence='x', label=1, train=['zz'], answers=['zz'], golds=['zz'], group=3)
    assert TASKS['sst2'].to_pairs(row)[0][1] == 'positive' and TASKS['sst2'].golds(row) == ['positive']

@pytest.mark.parametrize('label', [np.int64(1), np.int32(1), True, np.str_('True'), 'True'])
def test_labels_of_any_type(label):
    row = dict(text='Ann said she ran .', span1_text='Ann', span1_index=0, span2_text='she', span2_index=2, label=label)
    assert len(TASKS['superglue-wsc.fixed'].to_pairs(row)) == 1 and TASKS['superglue-wsc.fixed'].to_text(row, 'attempt')[1] == '1'
    assert TASKS['superglue-wic'].target(label) == 'True'

def test_label_words_that_are_digits_are_no_indices():
    stars = Task('stars', ('text',), ('1', '2', '3'))
    assert [stars.target(x) for x in (1, '2', 3)] == ['1', '2', '3'] and stars.target(1, 'attempt') == '0'
    raw = Task('raw', ('text',), ('bad', 'good'), raw=('1', '2'))
    assert [raw.target(x) for x in (1, '2')] == ['bad', 'good']
    for x in (0.5, 0): # with a table only the table
        with pytest.raises(ValueError, match="not in the verbaliser \\('1', '2'\\)"): raw.target(x)

def test_the_pronoun_is_a_word():
    row = dict(text='The use with Tom , and later it fell .', span1_text='Tom', span1_index=3, span2_text='it', span2_index=1, label=1)
    assert '*it* fell' in TASKS['superglue-wsc.fixed'].to_text(row)[0]

def test_anli_names_its_round():
    r = row('anli') | dict(round=3)
    assert TASKS['anli'].to_text(r)[0].startswith('anli_r3 ') and TASKS['anli'].to_text(r, 'attempt')[0].startswith('anli premise')

@pytest.mark.parametrize('bad,message', [
    (lambda: TASKS['mlni'], "nearest is 'mnli'"),
    (lambda: suite('glu'), "no suite 'glu'"),
    (lambda: TASKS['squad'].to_text(dict(question='a', answers=[])), "expected the column 'context'"),
    (lambda: TASKS['mnli'].to_text(dict(premise='a', label=0)), "'hypothesis' is missing"),
    (lambda: TASKS['mnli'].to_text(dict(premise='a', hypothesis='b', label=7)), 'not in the verbaliser'),
    (lambda: TASKS['mnli'].to_pairs(dict(premise='a', hypothesis='b', label=-1)), 'keeps test labels back'),
    (lambda: TASKS['winogrande'].to_pairs(dict(sentence='a', option1='b', option2='c', answer='')), 'keeps test labels back'),
    (lambda: TASKS['sst2'].to_text(dict(sentence='a', label=0), style='T5'), "no style 'T5'"),
    (lambda: Task('x', ('a',), ('no', 'yes')).to_text(dict(a=' ', label=0)), 'got an empty one'),
    (lambda: TASKS['mnli'].to_pairs(dict(premise='a', hypothesis='b')), "expected the column 'label'"),
    (lambda: TASKS['squad'].to_text(dict(question=None, context='b')), 'types of the Hub'),
    (lambda: TASKS['stsb'].to_text(dict(sentence1='a', sentence2='b', label=7.)), 'number from 0 to 5')])
def test_bad_input_gets_a_sentence(bad, message):
    with pytest.raises(ValueError, match=message) as e: bad()
    assert '\n' not in str(e.value)

def test_text_with_braces_is_left_alone():
    assert TASKS['sst2'].to_text(dict(sentence='{x} {0} {{', label=0))[0] == 'sst2 sentence: {x} {0} {{'

# labels

@pytest.mark.parametrize('labels,column,words', [
    (dict(true='yes', false='no'), ['true', 'false', True, False], ['yes', 'no', 'yes', 'no']),
    (['1', '2', '3', '4', '5'], ['0', '1', '4'], ['1', '2', '5']),
    (['1', '2', '3', '4', '5'], [5, '1'], ['5', '1']),
    (['null', 'other'], ['null', 'other'], ['null', 'other']),
    (['-1', '1'], ['-1', 1], ['-1', '1']),
    (['1.1', '1.10'], ['1.1', '1.10'], ['1.1', '1.10']),
    (['-0', '0'], ['-0', '0'], ['-0', '0']),
    (['1e3', '1000'], ['1e3', '1000'], ['1e3', '1000']),
    (['bad', 'good'], ['0.0', 1.0, '1'], ['bad', 'good', 'good']),
    (['False', 'True'], ['true', 'FALSE'], ['True', 'False']),
    (['1', '2', '3'], [1.0, 2.0], ['1', '2']), (['1', '2', '3'], ['1.0', '2.0'], ['1', '2']), (['1.0', '2.0', '3.0'], [1, '2'], ['1.0', '2.0']), (['1', '2', '3'], [0.0, 2.0], ['1', '3']),
    (dict([('1', 'bad'), ('2', 'good')]), [1.0, '2.0', 1], ['bad', 'good', 'bad']), (dict([('-1', 'bad'), ('1', 'good')]), [-1.0, 1, '-1.0'], ['bad', 'good', 'bad']),
    (['01', '1'], ['01', '1'], ['01', '1']), (['true', 'TRUE'], ['TRUE', 'true'], ['TRUE', 'true']), (['1,000', '2,000'], ['2,000', '1,000'], ['2,000', '1,000']),
    (['NA', 'None', 'nan', 'null'], ['null', 'nan', 'None', 'NA'], ['null', 'nan', 'None', 'NA']), (['-2', '-1'], ['-1', -2], ['-1', '-2']), (['2020-01-01', '2021-01-01'], ['2021-01-01'], ['2021-01-01'])])
def test_a_column_of_labels_is_read_as_one(labels, column, words):
    task = Task('t', ('text',), labels)
    indexed = task.indexed(column)
    assert [task.to_text(task.prepared(dict(text='x', label=c), indexed=indexed))[1] for c in column] == words

@pytest.mark.parametrize('labels,column', [
    (['bad', 'good'], ['good', '0']), (['bad', 'good'], [True, False]), (dict(a='bad', b='good'), ['a', 'bad']),
    (['1', '2', '3'], ['0', '3']), (['bad', 'good'], ['0', '2']), (['bad', 'good'], [0.5]), (['bad', 'good'], ['00', '01']), (['1', '2'], ['01']), (['1,000', '2,000'], ['1000']), (['bad', 'good'], ['-0']),
    (['true', 'TRUE'], [True]), (['1.1', '1.10'], [1.100, '1.100']), (['0', '1'], [True]), (dict([('1', 'a'), ('1.0', 'b')]), ['1.00']), (['bad', 'good'], ['1e0']), (['bad', 'good'], [['bad']])])
def test_a_mixture_of_labels_is_refused(labels, column):
    task = Task('t', ('text',), labels)
    indexed = task.indexed(column)
    with pytest.raises(ValueError, match='not in the verbaliser'):
        for c in column: task.to_pairs(task.prepared(dict(text='x', label=c), indexed=indexed))

@pytest.mark.parametrize('grid,some,n', [((0, 1, .05), ['0.00', '0.05', '1.00'], 21), ((1, 5, .5), ['1.0', '1.5', '5.0'], 9), ((0, 5, 1), ['0.0', '5.0'], 6), ((-4, 4, .5), ['-4.0', '4.0'], 17)])
def test_a_number_has_the_decimals_of_its_step(grid, some, n):
    choices = Task('t', ('text',), grid=grid).choices()
    assert len(choices) == n == len(set(choices)) and set(some) <= set(choices)

def test_numbers_may_be_texts():
    task = Task('t', ('text',), grid=(0, 5, .5))
    assert [task.target(x) for x in ('.5', '2.4', 3, np.float32(4.5))] == ['0.5', '2.5', '3.0', '4.5']
    for bad in (True, 'x', None, 'nan', 6):
        with pytest.raises(ValueError, match='number from 0 to 5'): task.target(bad)

@pytest.mark.parametrize('label', [' bad', 'Bad', 'BAD '])
def test_a_word_that_differs_in_case_or_blanks_is_shown(label):
    with pytest.raises(ValueError, match="is not in the verbaliser \\('bad', 'good'\\), but 'bad' is; mend the row"): Task('t', ('text',), ('bad', 'good')).target(label)

def test_a_long_verbaliser_is_not_printed_whole():
    with pytest.raises(ValueError) as e: Task('t', ('text',), tuple(f'label {i}' for i in range(500))).target('x')
    assert len(str(e.value)) < 300

@pytest.mark.parametrize('grid,some', [((-.3, .3, .1), ['-0.3', '0.0', '0.3']), ((-1, 1, .25), ['-1.00', '-0.25', '0.00']), ((1e22, 2e22, 1e21), ['10000000000000000000000.0']), ((0, 100, 12.5), ['12.5', '100.0']), ((-.7, .7, .1), ['0.0'])])
def test_numbers_of_any_grid(grid, some):
    choices = Task('t', ('text',), grid=grid).choices()
    assert {*some} <= {*choices} and not any(float(c) == 0 and c.startswith('-') for c in choices) and len({*choices}) == len(choices)

@pytest.mark.parametrize('metric,kw,message', [
    ('f1', dict(labels=('a', 'b', 'c')), 'two labels'), ('f1a', dict(grid=(0, 1, .5)), 'two labels'), ('f1m', dict(labels=('a', 'b')), 'questions of several rows'), ('multirc_em', dict(labels=('a', 'b')), 'prepare = "multirc"'),
    ('pearson', dict(labels=('bad', 'good')), 'expected numbers, grid'), ('spearman', dict(labels=('bad', 'good')), 'expected numbers')])
def test_a_metric_that_cannot_score_the_answers_is_refused_at_once(metric, kw, message):
    for how in (dict(metric=metric), dict(metrics=(metric,))):
        with pytest.raises(ValueError, match=f"metric '{metric}': .*{message}"): Task('t', ('text',), **kw, **how)

def test_metrics_that_can_are_taken():
    for m, kw in dict(f1=dict(labels=('a', 'b')), pearson=dict(labels=('1', '2', '3')), spearman=dict(grid=(0, 1, .5)), macro_f1=dict(labels=('a', 'b', 'c')), f1m=dict(labels=('a', 'b'), prepare='multirc'), matthews={}).items(): Task('t', ('text',), metric=m, **kw)

# internals and columns

@pytest.mark.parametrize('name', ['_answers', '_golds', '_train', '_group', '_same', 'answers', 'golds', 'train', 'group', 'same', 'label', 'hidden', 'indexed'])
def test_a_column_is_only_text(name):
    task = Task('t', template=f'{{text}} {{{name}}}', labels=('bad', 'good'), label='verdict')
    row = {'text': 'fine', name: 'zz', 'verdict': 'good'}
    p = task.prepared(row)
    assert task.to_text(row) == ('t fine zz', 'good') and task.to_pairs(row) == [('t fine zz', 'good')] and task.golds(row) == ['good']
    assert (p.answers, p.golds, p.train, p.group, p.same) == (None,)*5

@pytest.mark.parametrize('kw', [
    dict(template='{text} {verdict}'), dict(template='{verdict:>5} {text}'), dict(fields=('text', 'verdict')), dict(attempt='{text}', t5='{text} {verdict}'), dict(template='{text}', prefix='{verdict}')])
def test_a_template_that_shows_the_answer_is_refused(kw):
    with pytest.raises(ValueError, match="shows 'verdict', the column of the label"): Task('t', labels=('bad', 'good'), label='verdict', **kw)

@pytest.mark.parametrize('prepare,label,template,row', [
    ('webnlg', 'target', '{line} {references}', dict(input=['a | b | c'], target='x', references='x')),
    ('wsc', 'label', '{text} {span1_text}', dict(text='Ann said she ran .', span1_text='Ann', span1_index=0, span2_text='she', span2_index=2, label=1))])
def test_nor_what_a_function_knows_to_be_the_answer(prepare, label, template, row):
    with pytest.raises(ValueError, match='expected a text without the answer'): Task('t', template=template, prepare=prepare, label=label).to_text(row)

def test_a_function_of_your_own(monkeypatch):
    monkeypatch.setitem(PREPARE, 'shout', lambda row, label, style: Prepared(dict(text=row['text'].upper())))
    assert Task('t', ('text',), ('bad', 'good'), prepare='shout').to_text(dict(text='fine', label=1)) == ('t text: FINE', 'good')

@pytest.mark.parametrize('answers', ['Paris', ['Paris'], dict(text=['Paris'], answer_start=[0]), '["Paris"]', '{"text": ["Paris"], "answer_start": [0]}'])
def test_one_text_is_one_answer(answers):
    assert TASKS['squad'].to_pairs(dict(question='q', context='c', answers=answers)) == [('question: q context: c', 'Paris')]
    assert Task('t', ('text',)).answers(dict(text='x', label='Paris')) == ['Paris']

@pytest.mark.parametrize('label,message', [({'text': ['a'], 'answer_start': [0]}, None), ([['a']], 'a list of texts'), (dict(x=1), 'a list of texts'), ([None], 'a list of texts'), (b'a', 'a list of texts')])
def test_structured_answers_are_read_or_refused(label, message):
    task = Task('t', ('text',))
    if not message: assert task.answers(dict(text='x', label=label)) == ['a']
    else:
        with pytest.raises(ValueError, match=message): task.answers(dict(text='x', label=label))

@pytest.mark.parametrize('cell', [['a'], dict(a=1), ('a',), b'a', np.array(['a'])])
def test_structured_cells_are_not_printed(cell):
    with pytest.raises(ValueError, match="a text in the column 'text'"): Task('t', ('text',)).to_text(dict(text=cell))

@pytest.mark.parametrize('cell', [None, float('nan'), '', ' '])
def test_empty_cells_are_refused(cell):
    for kw in (dict(fields=('text',)), dict(template='{text}')):
        with pytest.raises(ValueError, match='got an empty one'): Task('t', **kw).to_text(dict(text=cell))

# templates

@pytest.mark.parametrize('kw,row,text', [
    (dict(template='{review.text}!'), {'review.text': 'a'}, 't a!'), (dict(template='{q:text}'), {'q:text': 'a'}, 't a'), (dict(fields=('0', 'a{b')), {'0': 'x', 'a{b': 'y'}, 't 0: x a{b: y'),
    (dict(template='{x:.1f} {{}}'), dict(x=2.25), 't 2.2 {}'), (dict(template='{x[0]}'), {'x[0]': 'a'}, 't a'), (dict(template='{name}'), dict(name='Pell'), 't Pell'),
    (dict(template='{a}', prefix='{name} {b}:'), dict(a='x', b='y', name='Pell'), 't y: x'), (dict(template='{a}', prefix=''), dict(a='x'), 'x')])
def test_a_name_in_braces_is_a_whole_column(kw, row, text): assert Task('t', **kw).to_text(row)[0] == text

@pytest.mark.parametrize('template,row,message', [
    ('{x.y}', dict(x='a'), "'x.y' is missing"), ('{x[0]}', dict(x='a'), 'is missing'), ('{x!r}', dict(x='a'), 'is missing'), ('{x:.1f}', dict(x='a'), 'does not fit'),
    ('{x:99999999}', None, 'at most 999'), ('{', None, 'brace that is text'), ('{x} }', None, 'brace that is text'), ('{}', None, 'expected columns in braces'), ('text', None, 'expected columns in braces')])
def test_other_templates_get_a_sentence(template, row, message):
    with pytest.raises(ValueError, match=message): Task('t', template=template).to_text(row)

@pytest.mark.parametrize('value,spec,text', [('1.234', '.1f', '1.2'), ('.5', '.2f', '0.50'), ('7', '03d', '007'), (' -7', '+.1f', '-7.0'), ('12', ',.2f', '12.00'), ('0012', '>6', '  0012'), (2.25, '.1f', '2.2')])
def test_a_number_of_a_csv_file_takes_a_format_too(value, spec, text): assert Task('t', template=f'{{x:{spec}}}').to_text(dict(x=value))[0] == f't {text}'

@pytest.mark.parametrize('value,spec', [('x', '.1f'), ('1e5', '.1f'), ('1.5', 'd'), ('', '.1f')])
def test_other_text_does_not(value, spec):
    with pytest.raises(ValueError, match='does not fit|an empty one'): Task('t', template=f'{{x:{spec}}}').to_text(dict(x=value))

@pytest.mark.parametrize('row', [None, [], 'x', 5, [('sentence', 'a')]])
def test_a_row_has_columns(row):
    with pytest.raises(ValueError, match='sst2: expected a row of columns and values, got'): TASKS['sst2'].to_text(row)

@pytest.mark.parametrize('answer,referent,yes', [('the miller', 'miller', True), ('Miller', 'the old miller', True), ('', 'x', False), ('the', 'x', False), ('x', 'her', False), ('her', 'the', True), ("Ann's", 'Ann', False), ("Ann's hat", "Ann's", True)])
def test_the_rule_of_wsc_is_that_of_t5(answer, referent, yes):
    "As t5.data.postprocessors.wsc_simple, where the words of a text without words are one empty word"
    assert wsc_agrees(answer, referent) == yes

# files

def write(tmp_path, text, name='t.toml'):
    f = tmp_path/name
    f.write_text(text, encoding='utf-8')
    return f

def test_the_table_of_the_package_is_a_file_like_yours():
    f = ROOT/'bayes_prompt/assets/tasks.toml'
    assert read_tasks(f, folder='') == list(TASKS.values()) and {t.folder for t in read_tasks(f)} == {str(f.parent)}

def test_a_file_of_your_own_may_say_all_that_the_package_says(tmp_path):
    f = write(tmp_path, '''
[quiz]
suite = "mine"
hub = "me/quiz"
config = "easy+hard"
split = "small"
template = "question: {question} context: {context}"
prepare = "squad"
label = "answers"
metrics = ["squad_em"]
prefix = "ask"
max_src = 300
''')
    task, = read_tasks(f)
    assert (task.metric, task.hub_parts, task.folder) == ('squad_f1', ('train', 'validation'), str(tmp_path))
    assert task.to_text(dict(question='Who?', context='Ana.', answers=['Ana'])) == ('ask question: Who ? context: Ana .', 'Ana')
    add_tasks(f)
    try: assert suite('mine') == [task]
    finally: TASKS.pop('quiz')

def test_a_byte_order_mark_is_no_text(tmp_path):
    for name, text in (('t.toml', '[a]\nfields = ["x"]\n'), ('t.json', '{"a": {"fields": ["x"]}}')):
        (tmp_path/name).write_text(text, encoding='utf-8-sig')
        assert [t.name for t in read_tasks(tmp_path/name)] == ['a']

@pytest.mark.parametrize('text,message', [
    ('[]', 'expected an object'), ('null', 'expected an object'), ('{}', 'a table for each task'), ('"x"', 'expected an object'), ('['*5000, 'is not JSON'), ('{"a": null}', 'expected a table'),
    ('{"a": {"fields": "x"}}', 'fields: expected a list of words'), ('{"a": {"fields": [1]}}', 'fields: expected a list of words'), ('{"a": {"fields": ["x"], "labels": "ab"}}', 'labels: expected a list'),
    ('{"a": {"fields": ["x"], "labels": ["a", "a"]}}', 'different words'), ('{"a": {"fields": ["x"], "labels": ["a", " a "]}}', 'different words'), ('{"a": {"fields": ["x"], "labels": [true, false]}}', 'labels: expected a list'),
    ('{"a": {"fields": ["x"], "labels": [["a"], "b"]}}', 'labels: expected a list'), ('{"a": {"fields": ["x"], "labels": ["a", "%s"]}}' % ('b'*1000), 'at most 200 signs'),
    *[('{"a": {"fields": ["x"], "grid": %s}}' % g, 'grid: expected') for g in ('[0, 5, 0]', '[[1]]', '[0, 5]', '5', '[5, 0, 1]', '[0, 5, 1e-6]', '[0, 5, 2]', '["0", "5", "1"]', '[0, 1e999, 1]', '[true, 5, 1]', '[0, 5, 1, 0]', '{"a": 1}')],
    ('{"a": {"fields": ["x"], "max_src": 0}}', 'max_src: expected at least 1'), ('{"a": {"fields": ["x"], "max_src": %s}}' % ('9'*400), 'max_src'), ('{"a": {"fields": ["x"], "max_src": true}}', 'max_src: expected a whole number'),
    ('{"a": {"fields": ["x"], "metric": "acuracy"}}', "no metric 'acuracy'; the nearest is 'accuracy'"), ('{"a": {"fields": ["x"], "metrics": ["blue"]}}', "the nearest is 'bleu'"),
    ('{"a": {"fields": ["x"], "prepare": "squat"}}', "no prepare 'squat'; the nearest is 'squad'"), ('{"a": {"fields": ["x"], "reader": "x"}}', "no reader 'x'"), ('{"a": {"fields": ["x"], "split": "big", "hub": "a/b"}}', "no split 'big'"),
    ('{"a": {"fields": ["x"], "split": "small"}}', 'expected hub'), ('{"a": {"fields": ["x"], "hub": "a/b", "parts": ["train", "test"]}}', 'parts: expected 3 names'), ('{"a": {"fields": ["x"], "hub": "a/b", "parts": ["../a", "b", "c"]}}', 'parts: expected 3 names'),
    ('{"a": {"fields": ["x"], "free": ["T5"]}}', "no style 'T5'"), ('{"a": {"fields": ["x"], "folder": "/"}}', "no key 'folder'"), ('{"a": {"fields": ["x"], "name": "b"}}', "no key 'name'"), ('{"..": {"fields": ["x"]}}', 'names files'),
    ('{"a": {"fields": ["x"], "template": "{x}"}}', 'one of them'), ('{"a": {"attempt": "{x}"}}', 'one of them'), ('{"a": {"fields": ["x"], "labels": {"a": "b"}}}', 'two or more'), ('{"a": {"fields": ["x"], "raw": ["a"]}}', 'raw: expected')])
def test_a_wrong_file_of_tasks_gets_a_sentence(text, message, tmp_path):
    f = write(tmp_path, text, 't.json')
    with pytest.raises(ValueError, match=message) as e: read_tasks(f)
    assert '\n' not in str(e.value) and str(f) in str(e.value) and len(str(e.value)) < 2000

def test_any_file_of_tasks_is_read_or_refused(tmp_path):
    "A thousand tables of random values: a `Task` or one sentence, never another error"
    rng = random.Random(0)
    good = dict(fields=['x'], labels=['a', 'b'], label='y', grid=[0, 5, 1], template='{x}', max_src=40, metric='accuracy', parts=['train'], hub='a/b', split='small', prepare='squad', free=['t5'], prefix='p', raw=['0', '1'])
    odd = [None, True, -1, 0, 1e308, 10**30, '', '{', 'x'*300, [], [None], [[]], {}, {'a': None}, {'': []}, ['a'], 'label', '{label}', '\0', [0, 5, 1e-9]]
    made = 0
    for i in range(1000):
        table = {k: rng.choice(odd) if rng.random() < .3 else v for k, v in rng.sample(list(good.items()), rng.randint(0, 6))}
        f = write(tmp_path, json.dumps({rng.choice(['a', 'a.b', '', 'ä', '/', 'a b']): table if rng.random() < .95 else rng.choice(odd)}), 't.json')
        try: made += len(read_tasks(f))
        except ValueError as e: assert '\n' not in str(e)
    assert 20 < made < 900

def test_tasks_need_no_torch(): assert loaded('import bayes_prompt.tasks', ['torch', 'datasets', 'pandas', 'sklearn']) == set()

@pytest.mark.parametrize('at', [2**32 - 3, float('inf')])
def test_a_span_beyond_every_text(at):
    row = dict(text='It is a', span1_text='a', span2_text='It', span1_index=2, span2_index=at, label=1)
    with pytest.raises(ValueError, match='superglue-wsc.fixed: expected columns with the types of the Hub'): TASKS['superglue-wsc.fixed'].to_text(row, 'attempt')
