"Every task of the papers: the format notes' worked examples, through the same files and types as on the Hub"
import sys
from pathlib import Path
import numpy as np, pytest
from datasets import Dataset, Features
from bayes_prompt.tasks import STYLES, SUITES, TASKS, Task, pad_punctuation, suite, wsc_agrees

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


def test_all_thirty_are_there():
    assert len(HUB) == 30 == len(CARDS) and {t.name for t in HUB} == set(CARDS) == set(build_fixtures.SCHEMAS)

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
    with pytest.raises(ValueError, match="not in the verbaliser \\('1', '2'\\)"): raw.target(0.5)

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
