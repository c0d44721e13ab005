"Rows to examples: the papers' tasks from fixtures with the Hub's columns and types, files of many kinds, splits, draws and batches"
import csv, gzip, json, re, sys, time
from pathlib import Path
import numpy as np, pandas as pd, pytest
from datasets import Dataset
from bayes_prompt.data import _say, batch_indices, few_shot, load_task, published_split, read_rows, row_chunks, task_files
from bayes_prompt.run import run
from bayes_prompt.tasks import STYLES, SUITES, TASKS, add_tasks, read_tasks, suite
from conftest import HUB

NAMES = [t.name for s in SUITES if s != 'mini' for t in suite(s)]


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('style', STYLES)
def test_every_task_loads(name, style):
    d = load_task(name, style, data_dir=HUB)
    assert len(d.validation) == len(d.answers['validation']) and len(d.test) == len(d.answers['test']) and d.source == str(HUB)
    for part in (d.train, d.validation, d.test): assert all(s.strip() and t.strip() for s, t in part)
    if not d.task.read or d.choices: assert all(target in golds for (_, target), golds in zip(d.test, d.answers['test']))
    if d.choices: assert {t for _, t in d.train + d.test} <= set(d.choices)
    assert bool(d.groups) == (name == 'superglue-multirc')
    bare = load_task(name, style, data_dir=HUB, add_prefix=False)
    assert all(s.endswith(b) for (s, _), (b, _) in zip(d.test, bare.test)) and bare.answers == d.answers

@pytest.mark.parametrize('row', list(csv.DictReader((HUB.parent/'hub.csv').open())), ids=lambda r: r['task'])
def test_the_table_agrees_with_the_hub_and_the_fixtures(row):
    "hub.csv is a list of the Hub's ids, configurations, columns and labels that was made apart from the table"
    task = TASKS[row['task']]
    assert (task.hub, task.config) == (row['hub'], row['config'])
    have = Dataset.from_parquet(str(HUB/f'{task.name}/{task.hub_parts[0].split("+")[0]}.parquet')).column_names
    assert set(have) <= set(row['columns'].split())
    if names := re.findall(r'\d=([\w/]+)(?:\||$)', row['labels']): assert list(task.labels) == names
    else: assert not task.labels or 'position' in row['labels'] or task.name == 'winogrande'

def test_the_list_of_the_hub_is_complete(): assert {r['task'] for r in csv.DictReader((HUB.parent/'hub.csv').open())} == set(NAMES)

def test_the_published_permutation():
    def perm(n): return [r for r in published_split('small', [[], list(range(n))])[0][1]]
    assert perm(104)[:5] == [70, 20, 30, 58, 2] and perm(277)[:5] == [207, 84, 253, 243, 190] and len(perm(277)) == 138
    (train, val, test), at = published_split('large', [list(range(67_349)), ['t']])
    assert val[:5] == [6677, 49712, 38268, 32909, 23395] and len(val) == 1000 and len(train) == 66_349 and test == ['t'] and at == dict(validation=val)

def test_parts_of_their_own():
    mnli = load_task('mnli', data_dir=HUB)
    rows = {p: Dataset.from_parquet(str(HUB/f'mnli/{p}.parquet')) for p in ('validation_mismatched', 'validation_matched')}
    assert [len(mnli.validation), len(mnli.test)] == [len(rows['validation_mismatched']), len(rows['validation_matched'])]
    anli = load_task('anli', data_dir=HUB)
    assert [sum(s.startswith(f'anli_r{i} ') for s, _ in anli.train) for i in (1, 2, 3)] == [24, 24, 24]

def test_record_is_split_before_it_is_expanded():
    d = load_task('superglue-record', data_dir=HUB)
    assert len(d.train) == 2*12 and len(d.validation) == 12 and len(d.test) == 10 and len(d.answers['test'][0]) == 2
    assert not {s for s, _ in d.train} & {s for s, _ in d.validation}

def test_wsc_for_t5_trains_on_true_rows_only():
    assert len(load_task('superglue-wsc.fixed', 't5', data_dir=HUB).train) == 12 and len(load_task('superglue-wsc.fixed', 'attempt', data_dir=HUB).train) == 24

def test_few_examples_of_a_task_of_the_papers():
    d = load_task('superglue-cb', data_dir=HUB)
    assert len(few_shot(d.train, 4)) == 12 == len(few_shot(d.train, 4, classes=d.classes))
    with pytest.raises(ValueError, match='ask for at most 16'): few_shot(d.train, 17)

def test_k_is_of_each_class_where_there_are_classes():
    many = [(f's{i}', f'c{i % 20:02}') for i in range(400)]
    drawn = few_shot(many, 16, classes=[f'c{i:02}' for i in range(20)])
    assert len(drawn) == 320 and {many[i][1] for i in drawn} == {y for _, y in many}
    assert len(few_shot(many, 16, classes=())) == 16
    score, movie, span = load_task('movie_score'), load_task('movie'), load_task('squad', data_dir=HUB)
    assert [len(few_shot(d.train, 2, classes=d.classes)) for d in (score, movie, span)] == [2, 4, 2] and movie.classes == ('negative', 'positive')

MOVIE = [276, 696, 707, 958, 2263, 3108, 3194, 3736]
SCORE = [49, 82, 144, 363, 485, 574, 732, 819, 852, 1090, 1186, 1299, 1319, 1494, 1780, 1781]

def test_draws_are_those_of_the_first_release():
    "The records name their training examples by number"
    movie, score = load_task('movie'), load_task('movie_score')
    assert few_shot(movie.train, 4, 0, movie.classes) == MOVIE and few_shot(score.train, 16, 1, score.classes) == SCORE

def test_batches_are_those_of_the_first_release():
    def first(n, b, step, seed):
        seed, out, pos = np.atleast_1d(seed).tolist(), [], step*b
        while len(out) < b:
            epoch, at = divmod(pos, n)
            take = np.random.default_rng([*seed, epoch]).permutation(n)[at:at+b-len(out)].tolist()
            out, pos = out + take, pos + len(take)
        return out
    for n, b, step, seed in [(10, 3, 0, 0), (10, 3, 3, [1, 7]), (3, 8, 5, 2), (1, 4, 9, [0, 3]), (1000, 32, 77, [5, 1])]:
        got = batch_indices(n, b, step, seed)
        assert got == first(n, b, step, seed) and all(type(i) is int for i in got)

def test_a_step_does_not_permute_a_million_rows_again():
    batch_indices(10**6, 32, 0, 9)
    t = time.perf_counter()
    for step in range(1, 200): batch_indices(10**6, 32, step, 9)
    assert time.perf_counter() - t < .5

@pytest.mark.parametrize('name', ['commonsense_qa', 'squad', 'rte', 'superglue-multirc', 'winogrande', 'stsb'])
@pytest.mark.parametrize('kind', ['jsonl', 'csv'])
def test_text_files_give_the_same_pairs(name, kind, tmp_path):
    (tmp_path/name).mkdir()
    for part in TASKS[name].hub_parts:
        rows = list(Dataset.from_parquet(str(HUB/f'{name}/{part}.parquet')))
        f = tmp_path/name/f'{part}.{kind}'
        if kind == 'jsonl': f.write_text(''.join(json.dumps(r, ensure_ascii=False) + '\n' for r in rows), encoding='utf-8')
        else:
            with f.open('w', encoding='utf-8', newline='') as o:
                w = csv.DictWriter(o, rows[0])
                w.writeheader()
                w.writerows({k: json.dumps(v) if isinstance(v, (dict, list)) else v for k, v in r.items()} for r in rows)
    a, b = load_task(name, data_dir=tmp_path), load_task(name, data_dir=HUB)
    assert (a.train, a.validation, a.test, a.answers, a.groups) == (b.train, b.validation, b.test, b.answers, b.groups)

def test_broken_files_get_a_sentence(tmp_path):
    def says(message):
        with pytest.raises(ValueError, match=message) as e: load_task('rte', data_dir=tmp_path)
        assert '\n' not in str(e.value)
    f = tmp_path/'rte/train.parquet'
    f.parent.mkdir()
    says('expected rte/train.parquet \\(or .jsonl')
    f.write_bytes((HUB/'rte/train.parquet').read_bytes()[:-200])
    says('expected rte/validation.parquet \\(or .jsonl')
    f.with_name('validation.parquet').write_bytes((HUB/'rte/validation.parquet').read_bytes())
    says('train.parquet cannot be read: it may be cut off')
    f.unlink()
    f.with_suffix('.jsonl').write_text('{"sentence1": "a"\n')
    says('train.jsonl cannot be read: expected an object of columns a line')

def test_references_in_rows_of_their_own_are_one_input():
    d = load_task('e2e_nlg', data_dir=HUB)
    sources = [s for s, _ in d.test]
    assert len(set(sources)) == len(sources) == len(d.answers['test']) and max(map(len, d.answers['test'])) > 1 and len(d.train) > len({s for s, _ in d.train})

# data of your own

OWN = dict(fields=['review'], labels=['bad', 'good'])

def own(tmp_path, data, name='mine.csv', data_dir=None, **kw):
    "A task of your own with its data in a file"
    (tmp_path/'t.json').write_text(json.dumps(dict(mine=OWN | kw)))
    f = tmp_path/name
    f.parent.mkdir(exist_ok=True)
    f.write_bytes(data.encode('utf-8-sig') if isinstance(data, str) else data)
    add_tasks(tmp_path/'t.json')
    try: return load_task('mine', data_dir=data_dir)
    finally: TASKS.pop('mine')

ROWS = [dict(review=f'soup; {i}, warm\t{i}', label=('bad', 'good')[i % 2]) for i in range(10)]

def lines(separator, encoding='utf-8'):
    quoted = '"' + '"\n"'.join(f'"{separator}"'.join(r.values()) for r in ROWS) + '"\n'
    return (f'review{separator}label\n' + quoted).encode(encoding)

def parquet():
    import io
    f = io.BytesIO()
    pd.DataFrame(ROWS).to_parquet(f)
    return f.getvalue()

JSONL = ''.join(json.dumps(r) + '\n' for r in ROWS).encode()

@pytest.mark.parametrize('name,data', {
    'mine.csv': lines(','), 'mine.tsv': lines('\t'), 'mine.csv.gz': gzip.compress(lines(';'), mtime=0), 'mine.jsonl': JSONL, 'mine.jsonl.gz': gzip.compress(JSONL, mtime=0), 'mine.parquet': parquet()}.items())
def test_files_of_many_kinds_hold_the_same(name, data, tmp_path):
    d = own(tmp_path, data, name)
    want = {(f'mine review: {r["review"]}', r['label']) for r in ROWS}
    assert {*d.train, *d.validation, *d.test} == want and d.files == [tmp_path/name]

@pytest.mark.parametrize('data', [lines(';'), lines('\t'), lines(',', 'utf-16'), lines(';', 'utf-16'), lines(',', 'utf-8-sig'), lines(',').replace(b'\n', b'\r\n')])
def test_text_is_told_by_its_first_line_and_bytes(data, tmp_path):
    (tmp_path/'x.csv').write_bytes(data)
    assert read_rows(tmp_path/'x.csv') == ROWS

@pytest.mark.parametrize('name', ['x.json', 'x.jsonl'])
def test_a_list_of_objects_is_read_too(name, tmp_path):
    (tmp_path/name).write_text(json.dumps(ROWS, indent=1), encoding='utf-8-sig')
    assert read_rows(tmp_path/name) == ROWS

def test_long_cells_are_read(tmp_path):
    (tmp_path/'x.csv').write_text('review,label\n' + 'a'*200_000 + ',bad\n')
    assert len(read_rows(tmp_path/'x.csv')[0]['review']) == 200_000

@pytest.mark.parametrize('name,data,message', [
    ('x.csv', b'a,b,a\n1,2,3\n', "2 columns are called 'a'"), ('x.csv', b'a,b\n1,2,3\n', "row 1 has more cells than the header; quote texts that hold a ','"), ('x.csv', b'a;b\n1;2\n1\n', 'row 2 has fewer cells'),
    ('x.csv', b'a,b\n"1,2\n', 'rows under a header'), ('x.csv', 'é'.encode('latin-1'), 'expected UTF-8 or UTF-16'), ('x.jsonl', b'null\n', 'row 1 is null, expected an object'), ('x.jsonl', b'{"a": 1}\n[1]\n', 'row 2 is'),
    ('x.jsonl', b'{"a": 1\n', 'an object of columns a line'), ('x.json', b'[1]', 'row 1 is 1'), ('x.jsonl', b'['*10**5, 'cannot be read'), ('x.parquet', b'PAR1', 'cut off'), ('x.csv.gz', b'a,b\n', 'Not a gzipped file'),
    ('x.jsonl.gz', gzip.compress(JSONL, mtime=0)[:-20], 'cannot be read'), ('x.xlsx', b'', 'expected a file that ends in .parquet, .jsonl')])
def test_a_wrong_file_gets_a_sentence(name, data, message, tmp_path):
    (tmp_path/name).write_bytes(data)
    with pytest.raises(ValueError, match=message) as e: read_rows(tmp_path/name)
    assert '\n' not in str(e.value) and name in str(e.value)

def test_an_error_says_the_file_and_the_row(tmp_path):
    rows = [('fine', 'bad')]*6
    for i, bad, message in [(3, ('fine', 'ugly'), "row 3: mine: label 'ugly'"), (5, ('', 'bad'), "row 5: mine: expected a text in the column 'review'"), (1, ('fine', ''), 'row 1: mine: expected a label'), (6, ('fine', '1'), "row 6: mine: label '1'")]:
        some = [*rows[:i-1], bad, *rows[i:]]
        with pytest.raises(ValueError, match='mine.csv, ' + message) as e: own(tmp_path, 'review,label\n' + ''.join(f'{a},{b}\n' for a, b in some))
        assert 'Hub' not in str(e.value)

def test_a_blank_label_of_a_hub_task_says_why():
    with pytest.raises(ValueError, match='keeps test labels back'): TASKS['rte'].to_pairs(dict(sentence1='a', sentence2='b', label=-1))

def test_labels_are_decided_for_all_rows_at_once(tmp_path):
    "Zero occurs in one row only, and makes indices of all"
    words = ['1', '2', '3', '4', '5']
    d = own(tmp_path, 'review,label,split\n' + 'a,1,train\nb,4,validation\nc,0,test\n', labels=words)
    assert [x[0][1] for x in (d.train, d.validation, d.test)] == ['2', '5', '1']
    d = own(tmp_path, 'review,label,split\n' + 'a,1,train\nb,4,validation\nc,5,test\n', labels=words)
    assert [x[0][1] for x in (d.train, d.validation, d.test)] == ['1', '4', '5']

def test_a_table_of_true_and_false_is_not_inverted(tmp_path):
    d = own(tmp_path, 'review,label\n' + ''.join(f'{("true", "false")[i % 2]} {i},{("true", "false")[i % 2]}\n' for i in range(10)), labels=dict(true='yes', false='no'))
    assert all(('true' in s) == (y == 'yes') for s, y in d.train + d.validation + d.test)

@pytest.mark.parametrize('column', ['_train', '_answers', '_group', '_golds', '_same', 'train', 'answers', 'label'])
def test_columns_with_names_of_internals_are_text(column, tmp_path):
    d = own(tmp_path, f'review,{column},verdict\n' + ''.join(f'r{i},zz,{("bad", "good")[i % 2]}\n' for i in range(10)), fields=['review', column], label='verdict')
    every = d.train + d.validation + d.test
    assert len(every) == 10 and all(y in ('bad', 'good') and s.endswith(f'{column}: zz') for s, y in every) and d.groups == {} and all(len(a) == 1 for a in d.answers['test'])

@pytest.mark.parametrize('names', [('train', 'val', 'test'), ('train', 'dev', 'test'), ('training', 'valid', 'testing'), ('Train', 'Validation', 'Test')])
def test_other_names_of_the_splits(names, tmp_path):
    d = own(tmp_path, 'review,label,split\n' + ''.join(f'r{i},bad,{names[i % 3]}\n' for i in range(9)))
    assert [len(d.train), len(d.validation), len(d.test)] == [3, 3, 3] and d.indices == {}

def test_without_validation_some_of_train_is_held_out(tmp_path):
    d = own(tmp_path, 'review,label,split\n' + ''.join(f'r{i},bad,{"train" if i < 20 else "test"}\n' for i in range(25)))
    assert [len(d.train), len(d.validation), len(d.test)] == [16, 4, 5] and len(d.indices['validation']) == 4
    assert {s for s, _ in d.validation} == {f'mine review: r{i}' for i in d.indices['validation']}
    (tmp_path/'mine.csv').unlink()
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine/train.csv').write_text('review,label\n' + 'a,bad\n'*10)
    d = own(tmp_path, 'review,label\nb,good\n', 'mine/test.csv')
    assert [len(d.train), len(d.validation), len(d.test)] == [8, 2, 1] and [f.name for f in d.files] == ['train.csv', 'test.csv']

def test_a_newer_file_in_the_folder_of_data_counts(tmp_path):
    "Also where the description names the file"
    new = tmp_path/'new'
    new.mkdir()
    (new/'x.csv').write_text('review,label\n' + 'newer,good\n'*10)
    d = own(tmp_path, 'review,label\n' + 'older,bad\n'*10, 'x.csv', data_dir=new, file='x.csv')
    assert d.train[0] == ('mine review: newer', 'good') and d.source == str(new) and d.files == [new/'x.csv']

def test_a_device_is_no_data(tmp_path):
    with pytest.raises(ValueError, match='file: expected a file in the folder of the data'): own(tmp_path, '', file='/dev/zero')

def test_what_was_read_is_known():
    assert [f.name for f in load_task('anli', data_dir=HUB).files] == [f'{p}_r{i}.parquet' for p in ('train', 'dev', 'test') for i in (1, 2, 3)]
    assert [f.name for f in load_task('movie').files] == ['movie.parquet']
    for name, folder in dict(anli=HUB, movie=None).items(): assert load_task(name, data_dir=folder).files == task_files(name, folder)

def test_changed_data_is_another_run(hotels, tmp_path):
    "Also in one process, and under the same names"
    told = {'data.tasks': str(hotels), 'target.task': 'hotels'}
    first = small(tmp_path, method='pt', **told)
    data = hotels.with_suffix('.jsonl')
    data.write_text(data.read_text().replace('bad', 'BAD').replace('good', 'bad').replace('BAD', 'good'))
    second = small(tmp_path, method='pt', **told)
    assert first['scores']['nll'] != second['scores']['nll'] and small(tmp_path, method='pt', **told) == second and len(list((tmp_path/'out').glob('*.json'))) == 2

def test_a_file_without_a_split_is_permuted(tmp_path):
    d = own(tmp_path, 'review,label\n' + ''.join(f'[{i}] "fine", {i}?,{i % 2}\n'.replace('[', '"[').replace('"fine"', '""fine""').replace('?', '?"') for i in range(20)))
    assert [len(d.train), len(d.validation), len(d.test)] == [12, 4, 4] and sorted(sum(d.indices.values(), [])) == list(range(20))
    assert (f'mine review: [{d.indices["test"][0]}] "fine", {d.indices["test"][0]}?', ('bad', 'good')[d.indices['test'][0] % 2]) == d.test[0]

def test_a_table_of_labels_and_a_named_file(tmp_path):
    (tmp_path/'x.jsonl').write_text(''.join(json.dumps(dict(review=f'r{i}', stars=i % 2 + 1)) + '\n' for i in range(10)))
    d = own(tmp_path, 'unused', file='x.jsonl', label='stars', labels={'1': 'bad', '2': 'good'})
    assert {t for _, t in d.train} == {'bad', 'good'} and d.choices == ('bad', 'good')

def test_numbers_and_free_text_of_your_own(tmp_path):
    d = own(tmp_path, 'review,label\n' + ''.join(f'r{i},{i/2}\n' for i in range(10)), labels=[], grid=[0, 5, .5])
    assert d.task.metric == 'pearson' and d.test[0][1] in d.choices
    d = own(tmp_path, 'review,label\n' + ''.join(f'r{i},007 {i}\n' for i in range(10)), labels=[])
    assert d.task.metric == 'squad_f1' and d.choices == () and d.test[0][1].startswith('007 ')

@pytest.mark.parametrize('csv,kw,message', [
    ('review,label\na,b,c\n', {}, 'more cells than the header'), ('review,label\n', {}, 'expected rows'), ('text,label\na,bad\n', {}, "'review' is missing"), ('review,label\na,ugly\n'*1, {}, 'not in the verbaliser|has no rows'),
    ('review,label,split\na,bad,elsewhere\n', {}, "row 1: expected a split .* got 'elsewhere'"), ('review,label\n' + 'a,ugly\n'*9, {}, "label 'ugly' is not in the verbaliser"), ('review,label\n' + ' ,bad\n'*9, {}, 'expected a text'), ('', dict(file='no.csv'), 'expected no.csv in')])
def test_a_wrong_file_of_your_own_gets_a_sentence(csv, kw, message, tmp_path):
    with pytest.raises(ValueError, match=message) as e: own(tmp_path, csv, **kw)
    assert '\n' not in str(e.value)

# siblings of what was once silently wrong

def rows_of(d): return dict(d.train + d.validation + d.test)

@pytest.mark.parametrize('column', ['Label', 'LABEL', 'target', 'gold', 'y', 'answer'])
@pytest.mark.parametrize('values', [('bad', 'good'), ('Bad', ' GOOD'), ('0', '1')])
def test_the_label_under_another_name_is_no_text(column, values, tmp_path):
    text = f'review,{column},label\n' + ''.join(f'r{i},{values[i % 2]},{("bad", "good")[i % 2]}\n' for i in range(10))
    for kw in (dict(fields=['review', column]), dict(fields=[], template=f'{{review}} {{{column}}}'), dict(prefix=f'{{name}} {{{column}}}:')):
        with pytest.raises(ValueError, match=f"mine.csv: expected a text without the answer, but in every row the column '{column}' says what 'label' says"): own(tmp_path, text, **kw)
    assert len(rows_of(own(tmp_path, text))) == 10 # there, but not shown
    once = text.replace(f'r3,{values[1]}', f'r3,{values[0]}')
    assert len(rows_of(own(tmp_path, once, fields=['review', column]))) == 10 # a column that is right but for one row is a feature

def test_nor_is_a_number_under_another_name(tmp_path):
    with pytest.raises(ValueError, match="the column 'stars' says what 'label' says"): own(tmp_path, 'review,stars,label\n' + ''.join(f'r{i},{i % 3},{i % 3}\n' for i in range(9)), fields=['review', 'stars'], labels=[], grid=[0, 5, 1])

@pytest.mark.parametrize('names,words,first', [(['good', 'bad'], ['bad', 'good'], 'good'), (['bad', 'good'], ['bad', 'good'], 'bad'), (['1', '2'], ['bad', 'good'], 'bad'), (['0', '1'], ['1', '0'], '0'), (['x', 'y'], dict(y='bad', x='good'), 'good')])
def test_words_behind_integers_count(names, words, first, tmp_path):
    "A file of `datasets` says what its integers mean; only if it says nothing of our words are they ours in order"
    from datasets import ClassLabel, Features, Value
    Dataset.from_dict(dict(review=[f'r{i}' for i in range(10)], label=[i % 2 for i in range(10)]), features=Features(dict(review=Value('string'), label=ClassLabel(names=names)))).to_parquet(tmp_path/'x.parquet')
    assert rows_of(own(tmp_path, (tmp_path/'x.parquet').read_bytes(), 'mine.parquet', labels=words))['mine review: r0'] == first

def test_words_behind_integers_that_are_not_ours(tmp_path):
    from datasets import ClassLabel, Features, Value
    Dataset.from_dict(dict(review=['a', 'b'], label=[0, 1]), features=Features(dict(review=Value('string'), label=ClassLabel(names=['good', 'ugly'])))).to_parquet(tmp_path/'x.parquet')
    with pytest.raises(ValueError, match="mine.parquet, row 2: mine: label 'ugly' is not in the verbaliser"): own(tmp_path, (tmp_path/'x.parquet').read_bytes(), 'mine.parquet')

@pytest.mark.parametrize('kind', [bool, float, 'category', 'Int64', 'string'])
def test_types_of_pandas(kind, tmp_path):
    import io
    f = io.BytesIO()
    words = ['False', 'True'] if kind is bool else ['0', '1']
    pd.DataFrame(dict(review=[f'r{i}' for i in range(10)], label=pd.Series([i % 2 for i in range(10)]).astype(kind))).to_parquet(f)
    got = rows_of(own(tmp_path, f.getvalue(), 'mine.parquet', labels=words))
    assert all(got[f'mine review: r{i}'] == words[i % 2] for i in range(10))

WORDS = ['NA', 'N/A', 'null', 'None', 'nan', 'NaN', 'true', '-', '#N/A', '1,5']

@pytest.mark.parametrize('kind', ['csv', 'tsv', 'jsonl', 'parquet'])
def test_no_word_is_missing(kind, tmp_path):
    "pandas would read six of these as empty cells"
    rows = [dict(review=f'{w} {i}', label=w) for i in range(2) for w in WORDS]
    f = tmp_path/f'made.{kind}'
    if kind == 'parquet': pd.DataFrame(rows).to_parquet(f)
    elif kind == 'jsonl': f.write_text(''.join(json.dumps(r) + '\n' for r in rows))
    else:
        with f.open('w', newline='') as o: csv.writer(o, delimiter=',' if kind == 'csv' else '\t').writerows([rows[0], *(r.values() for r in rows)])
    assert read_rows(f) == rows
    got = rows_of(own(tmp_path, f.read_bytes(), f'mine.{kind}', labels=WORDS))
    assert got == {f'mine review: {r["review"]}': r['label'] for r in rows}

@pytest.mark.parametrize('rows,message', [
    ([None, 'bad'], "row 1: mine: expected a label in the column 'label', got None"), ([True, False], 'row 1: mine: label True is not in the verbaliser'), ([0, 'good'], 'row 1: mine: label 0 is not in'),
    (['01', '1'], "row 1: mine: label '01' is not in"), ([['bad'], ['good']], 'label .*bad.* is not in'), ([{'a': 1}], 'is not in the verbaliser'), (['bad', 'good', ''], r"row \d: mine: expected a label in the column 'label', got ''"), ([1.5], 'label 1.5 is not in')])
def test_other_labels_get_a_sentence(rows, message, tmp_path):
    with pytest.raises(ValueError, match=f'mine.jsonl, {message}' if message.startswith('row') else message) as e:
        own(tmp_path, ''.join(json.dumps(dict(review='a', label=x)) + '\n' for x in rows*3).encode(), 'mine.jsonl')
    assert '\n' not in str(e.value)

@pytest.mark.parametrize('name,data,message', [
    ('x.jsonl', b'{"a": 1, "a": 2}\n', "x.jsonl cannot be read: 2 columns are called 'a'; rename them"), ('x.json', b'[{"a": {"b": 1, "b": 2}}]', "2 columns are called 'b'"), ('x.parquet.gz', b'', 'expected a file that ends in'), ('x.arrow', b'', 'expected a file that ends in'),
    ('x.csv', b'\n\na,b\n\n1\n', 'row 1 has fewer cells')])
def test_more_wrong_files(name, data, message, tmp_path):
    (tmp_path/name).write_bytes(data)
    with pytest.raises(ValueError, match=message): read_rows(tmp_path/name)

def test_a_column_twice_in_parquet(tmp_path):
    import pyarrow as pa, pyarrow.parquet as pq
    pq.write_table(pa.table([pa.array(['x']), pa.array(['y'])], names=['a', 'a']), tmp_path/'x.parquet')
    with pytest.raises(ValueError, match="x.parquet cannot be read: 2 columns are called 'a'; rename them"): read_rows(tmp_path/'x.parquet')

@pytest.mark.parametrize('name,data', [('x.CSV', b'a,b\n1,2\n'), ('x.csv', gzip.compress(b'a,b\n1,2\n', mtime=0)), ('x.v1.csv.gz', gzip.compress(b'a,b\n1,2\n', mtime=0)), ('x.csv', b'a,b\r1,2\r'), ('x.csv', b'\na,b\n \n1,2\n\n'), ('x.csv', b'"a","b"\n"1","2"'), ('x.tsv', b'a\tb\n1\t2')])
def test_more_files_are_read(name, data, tmp_path):
    (tmp_path/name).write_bytes(data)
    assert read_rows(tmp_path/name) == [dict(a='1', b='2')]

def test_two_files_of_one_task_are_refused(tmp_path):
    "One of them is old"
    rows = 'review,label\n' + 'a,bad\nb,good\n'*5
    (tmp_path/'mine.jsonl').write_bytes(JSONL)
    with pytest.raises(ValueError, match='expected one file of data, got mine.jsonl and mine.csv in .*remove or rename what is old'): own(tmp_path, rows)
    (tmp_path/'mine.jsonl').unlink()
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine/train.csv').write_text(rows)
    with pytest.raises(ValueError, match='got mine.csv and the folder mine'): own(tmp_path, rows)
    (tmp_path/'mine.csv').unlink()
    for name in ('val', 'dev'): (tmp_path/f'mine/{name}.csv').write_text(rows)
    with pytest.raises(ValueError, match='got val.csv and dev.csv'): own(tmp_path, rows, 'mine/test.csv')

@pytest.mark.parametrize('column', ['split', 'Split', 'SPLIT'])
def test_the_split_is_found_in_any_row_and_case(column, tmp_path):
    rows = [{'review': f'r{i}', 'label': ('bad', 'good')[i % 2], column: ('train', 'dev', 'test')[i % 3]} for i in range(12)]
    d = own(tmp_path, ''.join(json.dumps(r) + '\n' for r in rows).encode(), 'mine.jsonl')
    assert [len(d.train), len(d.validation), len(d.test)] == [4, 4, 4] and d.indices == {}
    del rows[0][column]
    with pytest.raises(ValueError, match='mine.jsonl, row 1: expected a split of .* got None'): own(tmp_path, ''.join(json.dumps(r) + '\n' for r in rows).encode(), 'mine.jsonl')

def test_a_label_called_split_is_a_label(tmp_path):
    d = own(tmp_path, 'review,split\n' + ''.join(f'r{i},{("train", "test")[i % 2]}\n' for i in range(10)), label='split', labels=['train', 'test'])
    assert len(d.train) == 6 and {t for _, t in d.train} == {'train', 'test'}

@pytest.mark.parametrize('splits,parts', [(['train', 'validation'], [5, 5, 0]), (['train'], [10, 0, 0]), (['test'], [0, 0, 10])])
def test_a_split_without_rows_gets_a_sentence(splits, parts, tmp_path):
    with pytest.raises(ValueError, match=re.escape(f'has no rows, there are {parts} in mine.csv')): own(tmp_path, 'review,label,split\n' + ''.join(f'r{i},bad,{splits[i % len(splits)]}\n' for i in range(10)))

def test_what_is_learnt_and_then_asked_is_said(tmp_path, capsys):
    _say.cache_clear()
    own(tmp_path, 'review,label,split\n' + ''.join(f'r{i % 7 if s == "train" else i},{("bad", "good")[i % 2]},{s}\n' for s in ('train', 'dev', 'test') for i in range(9)))
    assert 'mine: 7 of the 9 texts of the test part are in the train part too' in capsys.readouterr().err

@pytest.mark.parametrize('kind,cell', [('csv', '["Paris", "City of Paris"]'), ('csv', '{"text": ["Paris", "City of Paris"]}'), ('jsonl', ['Paris', 'City of Paris']), ('jsonl', dict(text=['Paris', 'City of Paris'])), ('tsv', '["Paris", "City of Paris"]')])
def test_a_list_of_answers_in_any_file(kind, cell, tmp_path):
    rows = [dict(review=f'r{i}', label=cell) for i in range(10)]
    f = tmp_path/f'made.{kind}'
    if kind == 'jsonl': f.write_text(''.join(json.dumps(r) + '\n' for r in rows))
    else:
        with f.open('w', newline='') as o: csv.writer(o, delimiter=',' if kind == 'csv' else '\t').writerows([rows[0], *(r.values() for r in rows)])
    d = own(tmp_path, f.read_bytes(), f'mine.{kind}', labels=[])
    assert d.test[0][1] == 'Paris' and d.answers['test'][0] == ['Paris', 'City of Paris']

@pytest.mark.parametrize('text', ['Paris', '[x', '["a", "b"]', '{x}'])
def test_a_text_of_a_file_with_types_is_one_answer(text, tmp_path):
    d = own(tmp_path, ''.join(json.dumps(dict(review=f'r{i}', label=text)) + '\n' for i in range(10)).encode(), 'mine.jsonl', labels=[])
    assert d.answers['test'][0] == [text]

@pytest.mark.parametrize('k', [0, -1, 1.5, 1.0, True, '1', None, [1]])
def test_k_is_a_whole_number(k):
    with pytest.raises(ValueError, match='expected a whole number of at least 1 as k, got'): few_shot([('a', 'x')], k)

def test_draws_of_many_and_of_small_classes():
    many = [(f's{i}', f'c{i % 150:03}') for i in range(450)]
    assert len(few_shot(many, 3, classes=[f'c{i:03}' for i in range(150)])) == 450 and len(few_shot(many, np.int64(1))) == 150
    with pytest.raises(ValueError, match="expected 2 examples of 'rare', the training part has 1; ask for at most 1"): few_shot([('a', 'x'), ('b', 'x'), ('c', 'rare')], 2)
    with pytest.raises(ValueError, match='expected examples to draw from, got none'): few_shot([], 1)
    for n, b in ((0, 1), (3, 0), (3, -1)):
        with pytest.raises(ValueError, match='at least one example and a batch of at least one'): batch_indices(n, b, 0, 0)

def test_an_unknown_style_is_no_fault_of_a_row():
    with pytest.raises(ValueError, match="^no style 'T5'"): load_task('movie', 'T5')

def test_a_folder_of_hub_tasks_leaves_the_package_its_own(hotels):
    assert load_task('spam', data_dir=HUB).source == 'mini' and load_task('rte', data_dir=HUB).source == str(HUB)
    add_tasks(hotels)
    assert load_task('hotels', data_dir=HUB).source == str(hotels.parent)
    with pytest.raises(ValueError, match='no folder'): load_task('spam', data_dir='/nowhere')

SMALL = dict(length=4, compute=dict(backbone='tiny-t5'), target=dict(steps=2, batch=2, k=2), data=dict(limit=6, max_src=32))

def small(tmp_path, **changes): return run(SMALL, tmp_path/'out', **changes)

def test_what_was_split_and_cut_is_in_the_record(tmp_path):
    r, d = small(tmp_path, method='pt', **{'target.task': 'rte', 'data.folder': str(HUB)}), load_task('rte', data_dir=HUB)
    assert r['splits'] == {'rte': d.indices} and 0 <= r['cut']['rte'] <= 1 and len(r['train_indices']) == 4

@pytest.mark.parametrize('target,style,metrics', [
    ('superglue-cb', 'attempt', {'accuracy', 'macro_f1'}), ('superglue-multirc', 't5', {'f1a', 'f1m', 'multirc_em'}), ('squad', 't5', {'squad_f1', 'squad_em'}),
    ('superglue-wsc.fixed', 't5', {'accuracy'}), ('stsb', 'attempt', {'pearson', 'spearman'}), ('web_nlg', 't5', {'bleu', 'rouge_l', 'chrf'})])
def test_a_task_of_the_papers_runs_end_to_end(target, style, metrics, tmp_path):
    told = {'target.task': target, 'data.style': style, 'data.folder': str(HUB)}
    r = small(tmp_path, method='pt', **told)
    assert r['metric'] == TASKS[target].metric and metrics <= set(r['scores']) and r['data_from'] == {target: str(HUB)} and r['scores']['n'] >= 3
    assert small(tmp_path, method='pt', **told) == r

def test_transfer_between_tasks_of_the_papers(tmp_path):
    r = small(tmp_path, method='bmtpt', source=dict(tasks=['rte', 'squad'], particles=2, steps=2, batch=2), **{'target.task': 'superglue-cb', 'data.folder': str(HUB)})
    assert set(r['data_from']) == {'superglue-cb', 'rte', 'squad'} and len(r['source_history']) == 2

@pytest.fixture
def hotels(tmp_path):
    rows = [dict(split=s, name='Pell Inn', review=f'soup {i} {s}', verdict=('bad', 'good')[i % 2]) for s in ('train', 'validation', 'test') for i in range(8)]
    (tmp_path/'hotels.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows))
    f = tmp_path/'hotels.json'
    f.write_text(json.dumps(dict(hotels=dict(template='{name}: {review}', labels=['bad', 'good'], label='verdict'))))
    yield f
    TASKS.pop('hotels', None)

@pytest.mark.parametrize('method', ['pt', 'vanilla', 'bmtpt', 'finetune'])
def test_a_task_of_your_own_runs_through_every_method(method, hotels, tmp_path):
    r = small(tmp_path, method=method, source=dict(tasks=['movie'], particles=2, steps=2, batch=2), **{'data.tasks': str(hotels), 'target.task': 'hotels', 'target.lr': 1e-4})
    assert r['scores']['n'] == 6 and r['data_from']['hotels'] == str(tmp_path)
    assert load_task('hotels').train[1] == ('hotels Pell Inn: soup 1 train', 'good')

def test_a_task_of_the_package_keeps_its_name(tmp_path):
    (tmp_path/'t.toml').write_text('[movie]\nfields = ["review"]\nlabels = ["a", "b"]\n')
    with pytest.raises(ValueError, match='choose another name'): add_tasks(tmp_path/'t.toml')

@pytest.mark.skipif('sys.version_info < (3, 11)', reason='tomllib')
def test_toml_says_the_same_as_json(hotels):
    f = hotels.with_suffix('.toml')
    f.write_text('[hotels]\ntemplate = "{name}: {review}"\nlabels = ["bad", "good"]\nlabel = "verdict"\n')
    assert read_tasks(f) == read_tasks(hotels)


@pytest.mark.parametrize('name', ['movie.json', 'movie.CSV', 'Movie.csv', 'movie/train.json'])
def test_data_under_a_name_that_is_not_read_is_not_passed_over(tmp_path, name):
    (tmp_path/name).parent.mkdir(exist_ok=True)
    (tmp_path/name).write_text('[]')
    (tmp_path/'movies.csv').write_text('of another task')
    with pytest.raises(ValueError, match="expected the data of task 'movie' as movie.parquet"): load_task('movie', data_dir=tmp_path)
    assert load_task('spam', data_dir=tmp_path).source == 'mini'

def test_a_label_without_training_rows_gives_no_k_examples():
    with pytest.raises(ValueError, match="expected 1 examples of 'z', the training part has none"): few_shot([('a', 'x'), ('b', 'y')], 1, classes=('x', 'y', 'z'))

@pytest.mark.parametrize('name, content', [
    ('x.jsonl', b'[{"a": 1},\n{"a": 2}]'), ('x.jsonl', b'{"a": 1}\n\n{"a": 2}'), ('x.jsonl', b'{"a": 1}\n\n3'), ('x.jsonl', b'{"a": 1\n'), ('x.csv', b'a,b\n1,2\n3\n'), ('x.csv', b'PK\3\4abc'),
    ('x.csv', b'a,a\n1,2\n'), ('x.csv', b'\xff\xfe\0'), ('x.tsv', b'a\tb\n1\t2\n'), ('x.jsonl.gz', b'{"a": 1}'), ('x.jsonl', b'[[1]]'), ('x.json', b'[{"a": 1}]'), ('x.csv', b'')])
def test_pieces_of_a_file_are_its_rows(name, content, tmp_path):
    "And what is wrong in it is said in the same words"
    (tmp_path/name).write_bytes(content)
    def heard(f):
        try: return f()
        except ValueError as e: return str(e)
    whole = heard(lambda: read_rows(tmp_path/name))
    assert heard(lambda: [row for some in row_chunks(tmp_path/name, 1) for row in some]) == whole
