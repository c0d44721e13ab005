"""Write `tests/fixtures/hub/<task>/<part>.parquet`: invented rows with the Hub's columns and types, for tests without a network.

    python scripts/build_fixtures.py

Column names, types and the order of class labels are those of the Hub (shared research notes of this project); every text is invented.
"""
from pathlib import Path
from datasets import ClassLabel, Dataset, Features, Sequence, Value
from bayes_prompt.tasks import TASKS

S, I, F = Value('string'), Value('int32'), Value('float32')
NLI = ClassLabel(names=['entailment', 'neutral', 'contradiction'])
BOOL = ClassLabel(names=['False', 'True'])
SPAN = Sequence(dict(text=S, start=I, end=I))
CHOICES = Sequence(dict(label=S, text=S))
MRQA = dict(subset=S, context=S, qid=S, question=S, answers=[S])
PAIR = dict(sentence1=S, sentence2=S)
def labelled(names, **cols): return cols | dict(label=ClassLabel(names=names), idx=I)

SCHEMAS = {
    'mnli': dict(premise=S, hypothesis=S, label=NLI, idx=I),
    'qnli': labelled(['entailment', 'not_entailment'], question=S, sentence=S),
    'qqp': labelled(['not_duplicate', 'duplicate'], question1=S, question2=S),
    'sst2': labelled(['negative', 'positive'], sentence=S),
    'stsb': PAIR | dict(label=F, idx=I),
    'mrpc': labelled(['not_equivalent', 'equivalent'], **PAIR),
    'rte': labelled(['entailment', 'not_entailment'], **PAIR),
    'cola': labelled(['unacceptable', 'acceptable'], sentence=S),
    'superglue-multirc': dict(paragraph=S, question=S, answer=S, idx=dict(paragraph=I, question=I, answer=I), label=BOOL),
    'superglue-boolq': dict(question=S, passage=S, idx=I, label=BOOL),
    'superglue-wic': dict(word=S, sentence1=S, sentence2=S, start1=I, start2=I, end1=I, end2=I, idx=I, label=BOOL),
    'superglue-wsc.fixed': dict(text=S, span1_index=I, span2_index=I, span1_text=S, span2_text=S, idx=I, label=BOOL),
    'superglue-cb': dict(premise=S, hypothesis=S, idx=I, label=ClassLabel(names=['entailment', 'contradiction', 'neutral'])),
    'superglue-record': dict(passage=S, query=S, entities=[S], entity_spans=SPAN, answers=[S], idx=dict(passage=I, query=I)),
    'squad': dict(id=S, title=S, context=S, question=S, answers=Sequence(dict(text=S, answer_start=I))),
    **{t: MRQA for t in ('nq', 'hotpotqa', 'newsqa', 'searchqa')},
    'winogrande': dict(sentence=S, option1=S, option2=S, answer=S),
    'yelp_polarity': dict(text=S, label=ClassLabel(names=['1', '2'])),
    'scitail': dict(sentence1=S, sentence2=S, gold_label=S),
    'paws': dict(id=I, **PAIR, label=ClassLabel(names=['0', '1'])),
    'ag_news': dict(text=S, label=ClassLabel(names=['World', 'Sports', 'Business', 'Sci/Tech'])),
    'commonsense_qa': dict(id=S, question=S, question_concept=S, choices=CHOICES, answerKey=S),
    'openbookqa': dict(id=S, question_stem=S, choices=CHOICES, answerKey=S),
    'ai2_arc': dict(id=S, question=S, choices=CHOICES, answerKey=S),
    'anli': dict(uid=S, premise=S, hypothesis=S, label=NLI, reason=S),
    'e2e_nlg': dict(meaning_representation=S, human_reference=S),
    'web_nlg': dict(gem_id=S, input=[S], target=S, references=[S], category=S),
}

# The first row of each task is the worked example of the format notes
ROWS = {
    'mnli': dict(premise='Nobody came.', hypothesis='The hall was empty.', label=0),
    'qnli': dict(question='Who runs the mill?', sentence='Ana runs the mill.', label=0),
    'qqp': dict(question1='Why do geese hiss?', question2='Why do cats hiss?', label=0),
    'sst2': dict(sentence='a generous caper', label=1),
    'stsb': dict(sentence1='A cook peels a pear.', sentence2='A chef peels fruit.', label=3.333),
    'mrpc': dict(sentence1='Fees rose .', sentence2='Fees went up .', label=1),
    'rte': dict(sentence1='Ana bakes bread daily.', sentence2='Ana is a baker.', label=0),
    'cola': dict(sentence='Potter the moved that away.', label=0),
    'superglue-multirc': dict(paragraph='Sent 1: Odo hid it.', question='Where was it?', answer='Under<br>the <b>stove</b>', idx=dict(paragraph=0, question=0, answer=0), label=1),
    'superglue-boolq': dict(question='can otters doze', passage='Otter -- Otters doze afloat.', label=1),
    'superglue-wic': dict(word='spring', sentence1='A cold spring rose.', sentence2='The spring snapped.', start1=7, start2=4, end1=13, end2=10, label=0),
    'superglue-wsc.fixed': dict(text='The miller gave Peter the lamp because he feared the dark .', span1_index=3, span2_index=7, span1_text='Peter', span2_text='he', label=1),
    'superglue-cb': dict(premise='I doubt Rufus painted it.', hypothesis='Rufus painted it', label=1),
    'superglue-record': dict(passage='Aurora sank.\n@highlight\nInes Vold stayed', query='Rescuers praised @placeholder', entities=['Aurora', 'Ines Vold', 'Vold'],
                             entity_spans=dict(text=['Aurora'], start=[0], end=[6]), answers=['Ines Vold', 'Vold'], idx=dict(passage=0, query=0)),
    'squad': dict(id='a', title='Clock', context='The Zürich-built clock (1888).', question='When was it built?', answers=dict(text=['1888', 'in 1888'], answer_start=[24, 24])),
    **{t: dict(subset=s, context='It was carved by J. Dunn.', qid='q', question='who carved it', answers=['J. Dunn', 'Dunn'])
       for t,s in dict(nq='NaturalQuestionsShort', hotpotqa='HotpotQA', newsqa='NewsQA', searchqa='SearchQA').items()},
    'winogrande': dict(sentence='Gus thanked Hal since _ had been generous.', option1='Gus', option2='Hal', answer='2'),
    'yelp_polarity': dict(text='Cold soup.', label=0),
    'scitail': dict(sentence1='Lichens join fungus and alga.', sentence2='A lichen has a fungus.', gold_label='entailment'),
    'paws': dict(id=1, sentence1='It runs to Moll .', sentence2='It runs from Moll .', label=0),
    'ag_news': dict(text='Rowers take gold Pell won on Sunday.', label=1),
    'commonsense_qa': dict(id='c', question='Where hangs a coat?', question_concept='coat', choices=dict(label=list('ABCDE'), text=['oven', 'hook', 'drawer', 'pond', 'cup']), answerKey='B'),
    'openbookqa': dict(id='o', question_stem='Frost is', choices=dict(label=list('ABCD'), text=['sand', 'salt', 'frozen water', 'paint']), answerKey='C '),
    'ai2_arc': dict(id='r', question='Which is a gas?', choices=dict(label=list('123'), text=['iron', 'oxygen', 'salt']), answerKey='2'),
    'anli': dict(uid='u', premise='Moll has 900 people.', hypothesis='Over 500 live in Moll.', label=0, reason=''),
    'e2e_nlg': dict(meaning_representation='name[Pell Inn], food[Thai], customer rating[5 out of 5]', human_reference='Pell Inn serves Thai food.'),
    'web_nlg': dict(gem_id='w', input=['Moll_Bridge | location | Moll', 'Moll | country | Ostland'], target='Moll Bridge is in Moll, Ostland.', references=['Moll Bridge is in Moll, Ostland.', 'Ostland has Moll Bridge in Moll.'], category='Place'),
}
FEW_SHOT = ('superglue-boolq', 'superglue-cb', 'scitail') # are asked for as many as 32 examples
TEXTS = ('sentence', 'sentence1', 'question1', 'premise', 'passage', 'context', 'text', 'question', 'question_stem', 'human_reference', 'target', 'paragraph')


def variants(name, n):
    "The worked example, then rows that differ from it in text and go through the labels"
    out = []
    for i in range(n):
        row = dict(ROWS[name])
        for k in TEXTS:
            if i and isinstance(row.get(k), str): row[k] = f'{row[k]} No {i} .'
        label = SCHEMAS[name].get('label')
        if isinstance(label, ClassLabel) and i: row['label'] = (row['label'] + i) % label.num_classes
        if name == 'stsb' and i: row['label'] = (3.333 + .7*i) % 5
        if name == 'winogrande': row['answer'] = '2' if i % 2 == 0 else '1'
        if name == 'scitail': row['gold_label'] = ('entailment', 'neutral')[i % 2]
        if name == 'web_nlg': row['references'] = [row['target'], *row['references'][1:]]
        if name == 'e2e_nlg' and i > 1: row['meaning_representation'] = row['meaning_representation'].replace('Inn', f'Inn {i//2}') # two references each
        if 'answerKey' in row and i: row['answerKey'] = row['choices']['label'][i % len(row['choices']['label'])]
        if name == 'superglue-multirc': row['idx'] = dict(paragraph=i%5, question=i%5, answer=i)
        elif name == 'superglue-record': row['idx'] = dict(passage=i, query=i)
        elif 'idx' in SCHEMAS[name]: row['idx'] = i
        out.append(row)
    return out


def main(out=Path(__file__).resolve().parents[1]/'tests/fixtures/hub'):
    for name, schema in SCHEMAS.items():
        for i, parts in enumerate(TASKS[name].hub_parts):
            for part in parts.split('+'):
                rows = variants(name, (48 if name in FEW_SHOT else 24, 10, 6)[i])
                rows = [{k: r.get(k) for k in schema} for r in rows]
                f = out/name/f'{part}.parquet'
                f.parent.mkdir(parents=True, exist_ok=True)
                Dataset.from_list(rows, features=Features(schema)).to_parquet(f)


if __name__ == '__main__': main()
