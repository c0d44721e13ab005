"A file of one's own: columns, answers and parts are found and said; what could mean two things is asked"
import gzip, json, subprocess, sys
from collections import Counter
import pandas as pd, pytest
from bayes_prompt.data import load_task, row_chunks
from bayes_prompt.files import read_any, read_file, task_about
from bayes_prompt.tasks import TASKS, Task

WORDS = 'soup bread inn mill river stone lamp road bell coat'.split()

def text(i, n=6): return ' '.join(WORDS[(i*7 + j*j + i//10) % 10] for j in range(n)) + f' {i}'

# the six files of a newcomer
def odd_separators(f): f.write_text('id|review|stars\n' + ''.join(f'{i:03}|"{text(i)}, or so; yes"|{i % 2}\n' for i in range(40)))
def imbalanced(f): f.write_text('text,label\n' + ''.join(f'{text(i)},{"spam" if i % 20 == 0 else "ham"}\n' for i in range(100)))
def long_texts(f): f.write_text('document\tlabel\n' + ''.join(f'{text(i, 900)}\t{"ab"[i % 2]}\n' for i in range(20)))
def ordinal(f): f.write_text('comment;stars\n' + ''.join(f'{text(i)};{i % 5 + 1}\n' for i in range(60)))
def free_text(f): f.write_text(''.join(json.dumps(dict(question=text(i), answer=f'it is {i} and {text(i, 3)}')) + '\n' for i in range(30)))
def intents(f): f.write_text('utterance,intent\n' + ''.join(f'{text(i)},card_{i % 100}\n' for i in range(500)))

SIX = {'a.csv': odd_separators, 'b.csv': imbalanced, 'c.tsv': long_texts, 'd.csv': ordinal, 'e.jsonl': free_text, 'f.csv': intents}

@pytest.fixture
def six(tmp_path):
    for name, make in SIX.items(): make(tmp_path/name)
    return tmp_path

@pytest.mark.parametrize('name,kind,answers,said', [
    ('a.csv', 'labels', 2, 'columns between bars'), ('b.csv', 'labels', 2, 'macro F1'), ('c.tsv', 'labels', 2, 'columns between tabs'),
    ('d.csv', 'labels', 5, 'labels (1 12, 2 12, 3 12, 4 12, 5 12)'), ('e.jsonl', 'text', 0, 'free text, 30 different ones'), ('f.csv', 'labels', 100, '100 labels')])
def test_six_files_are_understood(six, name, kind, answers, said):
    data = read_file(six/name)
    assert data.kind == kind and len(data.task.choices()) == answers and said in str(data)
    assert sum(data.sizes.values()) == len(data.rows) == len(read_any(six/name)) # no row is lost
    TASKS[data.name] = data.write(six/'written')
    loaded = load_task(data.name)
    assert len(loaded.train) == data.sizes['train'] and Task(data.name, **task_about(data.task)) == data.task
    if data.task.labels: assert {t for _, t in loaded.test} <= set(data.task.labels) and len({t for _, t in loaded.test}) > 1

def test_every_label_is_in_every_part(six):
    rows = read_file(six/'f.csv').rows
    assert all(Counter(r['split'] for r in rows if r['intent'] == f'card_{i}') == dict(train=3, validation=1, test=1) for i in range(100))
    assert read_file(six/'f.csv').rows == rows != read_file(six/'f.csv', seed=1).rows

def test_stars_keep_their_order_and_imbalance_its_metric(six):
    stars, spam = read_file(six/'d.csv').task, read_file(six/'b.csv').task
    assert stars.raw == ('1', '2', '3', '4', '5') and 'spearman' in stars.metrics and stars.metric == 'accuracy' and spam.metric == 'macro_f1'

def test_a_label_is_what_the_file_says_and_its_word_another(six):
    task = read_file(six/'b.csv', words=dict(spam='bad')).task
    assert dict(zip(task.raw, task.labels)) == dict(ham='ham', spam='bad') and task.to_text(dict(text='x', label='spam')) == ('x', 'bad')

def test_formats_say_the_same(tmp_path):
    from datasets import ClassLabel, Dataset, DatasetDict
    rows = [dict(text=text(i), label='no yes'.split()[i % 2]) for i in range(20)]
    pd.DataFrame(rows).to_csv(tmp_path/'a.csv', index=False)
    (tmp_path/'a.json').write_text(json.dumps(rows))
    with gzip.open(tmp_path/'a.jsonl.gz', 'wt') as f: f.write('\n'.join(map(json.dumps, rows)))
    with gzip.open(tmp_path/'a.tsv.gz', 'wt') as f: f.write('text\tlabel\n' + ''.join(f'{r["text"]}\t{r["label"]}\n' for r in rows))
    pd.DataFrame(rows).to_feather(tmp_path/'a.feather')
    table = Dataset.from_list(rows).cast_column('label', ClassLabel(names=['no', 'yes'])) # integers inside
    table.to_parquet(tmp_path/'a.parquet')
    table.save_to_disk(tmp_path/'saved')
    for name in ('a.csv', 'a.json', 'a.jsonl.gz', 'a.tsv.gz', 'a.feather', 'a.parquet', 'saved', 'saved/data-00000-of-00001.arrow'):
        assert read_any(tmp_path/name) == rows, name
    DatasetDict(train=table, test=table.select(range(4))).save_to_disk(tmp_path/'parts')
    found = read_file(tmp_path/'parts')
    assert found.sizes == dict(train=16, validation=4, test=4) and 'a fifth of its train part' in str(found)
    folder = tmp_path/'files'
    folder.mkdir()
    for part in ('train', 'dev'): pd.DataFrame(rows).to_csv(folder/f'{part}.csv', index=False)
    assert read_file(folder).sizes == dict(train=20, validation=10, test=10)

def test_rows_without_text_or_answer_are_counted(tmp_path):
    f = tmp_path/'a.csv'
    f.write_text('text,label\n' + ''.join(f'{"" if i == 3 else text(i)},{" " if i in (5, 6) else "ab"[i % 2]}\n' for i in range(20)))
    data = read_file(f)
    assert len(data.rows) == 17 and "1 row without 'text', left out: 4" in str(data) and "2 rows without 'label', left out: 6, 7" in str(data)

def test_no_word_is_taken_for_an_empty_cell(tmp_path):
    f = tmp_path/'a.csv'
    f.write_text('text,label\n' + ''.join(f'{text(i)},{("NA", "null")[i % 2]}\n' for i in range(20)))
    assert read_file(f).task.raw == ('NA', 'null')

def test_numbers_have_a_grid(tmp_path):
    f = tmp_path/'a.csv'
    f.write_text('text;score\n' + ''.join(f'{text(i)};{i % 30/4:.2f}\n'.replace('.', ',') for i in range(60)))
    data = read_file(f)
    assert data.kind == 'numbers' and data.task.grid == (0, 7.25, .25) and 'decimal commas' in str(data) and data.rows[1]['score'] == .25

good = 'text,label\n' + ''.join(f'{text(i)},{"ab"[i % 2]}\n' for i in range(20))

@pytest.mark.parametrize('body,kw,said', [
    (good, dict(text='txet'), "nearest is 'text'"), (good, dict(label='text', text='text'), 'cannot be both'), (good, dict(kind='lables'), "nearest is 'labels'"),
    (good, dict(words=dict(c='x')), "no label 'c'"), (good, dict(words=dict(a='x', b='x')), 'different words'), (good.replace(',b\n', ',A\n', 3), {}, 'case or blanks only'),
    ('text,label\nfine,a\n', {}, 'at least ten rows'), ('text,label\n', {}, 'got none'), ('', {}, 'got none'), (good.replace(',a', ',b'), {}, 'in every row'),
    ('a,b,c\n' + 'x,y,z\n'*20, {}, 'which column is the label'), ('a,b,c\n' + 'x,y,z\n'*20, {}, '--label NAME on the command line'), ('text\n' + 'fine\n'*20, {}, "got 'text' alone; between columns there may be"), ('fine food,1\n'*20, {}, 'first line'), (good + 'one,two,three\n', {}, 'more cells than the header'),
    ('text,label\n' + ''.join(f'{text(i)},{i}\n' for i in range(50)), {}, 'numbers the rows'), ('text,label\n' + ''.join(f'{text(i)},a{i % 14} b c d\n' for i in range(25)), {}, 'labels, or free text'),
    (good.replace('text,label', 'text,label,split').replace(',a\n', ',a,train\n').replace(',b\n', ',b,tset\n'), {}, "got 'tset'"), (good, dict(kind='numbers'), "expected numbers, got 'a'")])
def test_what_is_wrong_is_one_sentence(tmp_path, body, kw, said):
    (tmp_path/'a.csv').write_text(body)
    with pytest.raises(ValueError) as e: read_file(tmp_path/'a.csv', **kw)
    assert said in str(e.value) and len(str(e.value).splitlines()) == 1 and 'a.csv' in str(e.value)

@pytest.mark.parametrize('name,said', [('b.csv', "nearest there is 'a.csv'"), ('nobody/nothing', 'Hugging Face Hub gave no data set'), ('x', 'no file')])
def test_what_is_not_there(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'a.csv').write_text(good)
    with pytest.raises(ValueError, match=said): read_file(name)

def test_reading_needs_no_torch(tmp_path):
    (tmp_path/'a.csv').write_text(good)
    code = f"import sys; from bayes_prompt.files import read_file; read_file({str(tmp_path/'a.csv')!r}); assert not {{'torch', 'pandas', 'datasets'}} & sys.modules.keys()"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True).returncode == 0

@pytest.mark.parametrize('name', ['a.csv', 'c.tsv', 'e.jsonl'])
def test_pieces_are_the_whole(six, name):
    assert [r for some in row_chunks(six/name, 7) for r in some] == read_any(six/name)

def ids(f): f.write_text('no,remark,back\n' + ''.join(f'{i:03},"{text(i, 9)}",{"yn"[i % 2]}\n' for i in range(40)))
def two_separators(f): f.write_text('text, in full;label\n' + ''.join(f'{text(i)};{"ab"[i % 2]}\n' for i in range(20)))
def excel_says(f): f.write_text('sep=;\ntext;label\n' + ''.join(f'{text(i)}, or so;{"ab"[i % 2]}\n' for i in range(20)))
def mark_and_lines(f): f.write_text('\ufefftext|label\n' + ''.join(f'"{text(i)}\nand on";{"ab"[i % 2]}\n'.replace(';', '|') for i in range(20)))
def blanks(f): f.write_text(' text , label\n' + ''.join(f'{text(i)}, {"ab"[i % 2]}\n' for i in range(20)))
def percents(f): f.write_text('text,rating\n' + ''.join(f'{text(i)},{i % 3*50} %\n' for i in range(30)))

@pytest.mark.parametrize('make,texts,label,labels', [
    (ids, 'remark', 'back', ('n', 'y')), (two_separators, 'text, in full', 'label', ('a', 'b')), (excel_says, 'text', 'label', ('a', 'b')),
    (mark_and_lines, 'text', 'label', ('a', 'b')), (blanks, ' text ', ' label', ('a', 'b')), (percents, 'text', 'rating', ('0 %', '50 %', '100 %'))])
def test_odd_files_are_understood(tmp_path, make, texts, label, labels):
    "What numbers the rows is no answer; of two separators it is the one that fits the rows"
    make(tmp_path/'a.csv')
    data = read_file(tmp_path/'a.csv')
    assert [*data.task.reads] == [texts] and data.task.label == label and data.task.raw == labels
    assert [r for some in row_chunks(tmp_path/'a.csv', 7) for r in some] == read_any(tmp_path/'a.csv')
    assert read_file(tmp_path/'a.csv', text=texts.strip(), label=label.strip()).task == data.task

def test_columns_with_commas_between_or_within(tmp_path):
    (tmp_path/'a.csv').write_text('title;"body, full";label\n' + ''.join(f'{text(i)};{text(i)};{"ab"[i % 2]}\n' for i in range(20)))
    assert read_file(tmp_path/'a.csv', text='body, full').task.reads == ['body, full']
    (tmp_path/'b.csv').write_text(good.replace(',a\n', ',x,a\n').replace(',b\n', ',x,b\n').replace('text,', 'title,body,'))
    assert read_file(tmp_path/'b.csv', text='title, body').task.fields == ('title', 'body')

def test_a_text_is_in_one_part(tmp_path):
    (tmp_path/'a.csv').write_text('text,label\n' + ''.join(f'{text(i % 30)},{"ab"[i % 2]}\n' for i in range(90)))
    data = read_file(tmp_path/'a.csv')
    parts = {}
    for r in data.rows: parts.setdefault(r['text'], set()).add(r['split'])
    assert len(parts) == 30 and all(len(p) == 1 for p in parts.values()) and data.sizes == dict(train=54, validation=18, test=18)

@pytest.mark.parametrize('name,body,said', [
    ('a.xlsx', b'PK', 'save the sheet as CSV'), ('a.txt', b'x', 'as .csv for columns between'), ('a.csv', 'text,label\né,a\n'.encode('latin-1'), 'save it as UTF-8'),
    ('a.json', b'{"text": {"0": "a"}, "label": {"0": "x"}}', "orient='records'"), ('a.json', b'{"data": [{"text": "a"}]}', 'a list of objects'), ('a.gz', b'x', 'expected a file that ends in')])
def test_other_files_are_told_what_to_do(tmp_path, name, body, said):
    (tmp_path/name).write_bytes(body)
    with pytest.raises(ValueError, match=said.replace('(', r'\(')): read_file(tmp_path/name)

def test_texts_that_are_not_read_to_their_end_are_said(six):
    assert '20 rows with more than 256 words, up to 901, of which the first 256 tokens are read' in str(read_file(six/'c.tsv'))
    assert 'words, up to' not in str(read_file(six/'c.tsv', max_src=1000)) + str(read_file(six/'a.csv'))

def test_ten_rows_with_one_text_teach_nothing(tmp_path):
    (tmp_path/'a.csv').write_text('text,label\n' + ''.join(f'{"ab"[i % 2]},{text(i)}\n' for i in range(40)))
    with pytest.raises(ValueError, match='at least ten different texts, got 2 in 40 rows'): read_file(tmp_path/'a.csv')
