"Token ids as arrays: the same examples, kept on disk"
import json, re
import pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from bayes_prompt import data, protocol
from bayes_prompt.config import make_config
from bayes_prompt.data import few_shot, load_task
from bayes_prompt.options import methods
from bayes_prompt.prompt import Example, encode, examples_of
from bayes_prompt.protocol import Context
from bayes_prompt.run import run
from bayes_prompt.store import fingerprint
from bayes_prompt.tasks import add_tasks
from bayes_prompt.tokens import load_tokens, save_tokens, tokens_of
from conftest import SMALL

IDS = st.lists(st.integers(0, 2**31 - 1), max_size=6).map(tuple)

@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(IDS, IDS, st.booleans()), max_size=6))
def test_the_same_examples(rows):
    examples = [Example(i, l, 'a', c, 'cue') for i, l, c in rows]
    tokens = tokens_of(iter(examples))
    assert list(tokens) == examples and [e.cut for e in tokens] == [e.cut for e in examples] and len(tokens) == len(rows)
    assert all(type(i) is int for e in tokens for i in e.ids + e.labels)
    assert tokens[1:] == examples[1:] and tokens[::-1] == examples[::-1]
    assert not examples or tokens[-1] == examples[-1] and tokens[-1].cue == 'cue'
    with pytest.raises(IndexError): tokens[len(rows)]

def test_a_file_is_for_its_key(tmp_path):
    tokens = tokens_of([Example((1, 2), (3,), 'a', True, '\nAnswer:'), Example((), (4, 5), 'a', False, '\nAnswer:')])
    save_tokens(tmp_path/'a', tokens, 'k', cut=.5)
    again, more = load_tokens(tmp_path/'a', 'k')
    assert list(again) == list(tokens) and again[0].cue == '\nAnswer:' and more == dict(cut=.5)
    with pytest.raises(ValueError, match='belongs to another run'): load_tokens(tmp_path/'a', 'l')

def test_a_fingerprint_is_of_the_content():
    def of(*lists, **kw): return fingerprint(dict(a=tokens_of([Example(l, (1,), **kw) for l in lists])))
    assert of((1, 2), (3,)) == of((1, 2), (3,)) != of((1,), (2, 3)) and of((1,)) != of((1,), task='b')

def test_texts_are_read_in_pieces(tiny, monkeypatch):
    "The room is that beside the longest target of all of them"
    pairs = [(f'a text number {i} ' * (i % 7 + 1), ['yes', 'no'][i % 2]) for i in range(20)]
    whole = encode(tiny, pairs, 12)
    monkeypatch.setattr('bayes_prompt.prompt._PIECE', 3)
    assert encode(tiny, pairs, 12) == whole == list(tokens_of(examples_of(tiny, pairs, 12))) and [e.cut for e in encode(tiny, pairs, 12)] == [e.cut for e in whole]

# ---- in a run

@pytest.fixture
def touched(monkeypatch):
    "What is loaded or tokenised of sources"
    seen = []
    for name in ('load_task', 'examples_of'):
        def f(*a, plain=getattr(protocol, name), name=name, **kw):
            seen.append(name)
            return plain(*a, **kw)
        monkeypatch.setattr(protocol, name, f)
    protocol._loaded.cache_clear()
    return seen

SOURCED = sorted(m for m, spec in methods().items() if spec.sources)

@pytest.mark.parametrize('method', SOURCED)
def test_who_opens_a_finished_stage_neither_encodes_nor_reads_its_sources(method, tmp_path, monkeypatch):
    first = run(SMALL, tmp_path, method=method)
    def never(*a, **kw): raise AssertionError('a source was read')
    plain = protocol.encode
    def targets_only(backbone, pairs, most, length, task, cue):
        assert task == 'movie'
        return plain(backbone, pairs, most, length, task, cue)
    monkeypatch.setattr(protocol, 'encode', targets_only)
    for name in ('examples_of', 'tokens_of', 'load_tokens', 'save_tokens'): monkeypatch.setattr(protocol, name, never)
    again = run(SMALL, tmp_path, method=method, seed=1)
    assert all(again[k] == first[k] for k in ('data_from', 'splits', 'cut', 'source_history'))

def test_another_stage_reads_the_ids_that_are_there(tmp_path, touched):
    a = run(SMALL, tmp_path)
    n = len(touched)
    files = sorted(tmp_path.glob('tokens/*/*.safetensors'))
    assert [f.parent.name for f in files] == ['amazon', 'nyt'] and touched.count('examples_of') == 2
    b = run(SMALL, tmp_path, source_seed=1)
    assert len(touched) == n and a['source_history'] != b['source_history']
    assert all(a[k] == b[k] for k in ('data_from', 'splits', 'cut'))
    here, there = run(SMALL, tmp_path, source_seed=2), run(SMALL, tmp_path/'b', source_seed=2)
    assert all(here[k] == there[k] for k in ('scores', 'loss', 'source_history', 'cut', 'data_from'))   # read or made, the same bits

@pytest.mark.parametrize('change', [dict(style='attempt'), dict(add_prefix=False), dict(max_src=30), dict(backbone='mini')], ids=str)
def test_ids_are_kept_by_all_that_they_depend_on(change, tmp_path):
    for c in ({}, change): Context(make_config(SMALL, **c), tmp_path, progress=False).sources
    assert len(list(tmp_path.glob('tokens/amazon/*.safetensors'))) == 2

@pytest.mark.parametrize('change', [dict(length=7), dict(source_lr=.1), dict(m=2), dict(method='spot'), dict(target='spam')], ids=str)
def test_and_by_nothing_else(change, tmp_path, touched):
    for c in ({}, change): Context(make_config(SMALL, **c), tmp_path, progress=False).sources
    assert touched.count('examples_of') == 2 and len(list(tmp_path.glob('tokens/amazon/*.safetensors'))) == 1

def test_other_data_are_other_ids(tmp_path):
    (tmp_path/'data').mkdir()
    for n in (40, 39):
        rows = [dict(sentence=f'text {i}', label=i % 2) for i in range(n)]
        (tmp_path/'data'/'amazon.jsonl').write_text('\n'.join(map(json.dumps, rows)))
        Context(make_config(SMALL, data_dir=str(tmp_path/'data'), sources=['amazon']), tmp_path, progress=False).sources
    assert len(list(tmp_path.glob('tokens/amazon/*.safetensors'))) == 2

def test_a_damaged_file_is_made_again(tmp_path, touched):
    c = make_config(SMALL)
    whole = {k: list(v) for k, v in Context(c, tmp_path, progress=False).sources.items()}
    f = next(tmp_path.glob('tokens/nyt/*.safetensors'))
    f.write_bytes(f.read_bytes()[:-9])
    again = Context(c, tmp_path, progress=False).sources
    assert {k: list(v) for k, v in again.items()} == whole and touched.count('examples_of') == 3
    load_tokens(f, f.stem)

# ---- of a file that is larger than what is kept

def write_own(folder, kind, how):
    "60 rows of a task `own`, and its description; the odd ones say so in a column, or in a file of their own"
    if kind == 'parts': (folder/'own').mkdir(parents=True)
    labels = dict(words=['no', 'yes'], digits=['0', '1'], free=['a few words', 'others'])[how]
    rows = [dict(text=f'{"very " * (i % 30 % 9)}good text number {i % 30}', label=labels[i % 2] + (f' {i}' if how == 'free' else ''), **({'Split': ('train', 'dev', 'test')[i % 7 % 3]} if kind == 'split' else {})) for i in range(60)]
    about = '' if how == 'free' else 'labels = ["no", "yes"]\n'
    (folder/'tasks.toml').write_text(f'[own]\ntemplate = "{{text}}"\nlabel = "label"\nmetric = "{"rouge_l" if how == "free" else "accuracy"}"\n{about}')
    def csv_of(path, rows): pd.DataFrame(rows).to_csv(path, index=False)
    if kind == 'parts':
        csv_of(folder/'own/train.csv', rows[:40])
        csv_of(folder/'own/test.csv', rows[40:])
    elif kind == 'jsonl': (folder/'own.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    elif kind == 'parquet': pd.DataFrame(rows).to_parquet(folder/'own.parquet')
    else: csv_of(folder/'own.csv', rows)

def own_tokens(folder, out, **changes):
    config = make_config(SMALL, **dict(tasks=str(folder/'tasks.toml'), sources=['own'], max_src=12) | changes)
    ctx = Context(config, out, progress=False)
    return ctx.sources['own'], {k: getattr(ctx, k)['own'] for k in ('data_from', 'splits', 'cut') if 'own' in getattr(ctx, k)}

@pytest.mark.parametrize('how', ['words', 'digits', 'free'])
@pytest.mark.parametrize('kind', ['csv', 'split', 'parts', 'jsonl', 'parquet'])
def test_a_file_that_is_streamed_gives_the_same(kind, how, tmp_path, monkeypatch, capsys):
    "Ids in the same order, split, share of cut texts and texts in two parts; whatever the size of pieces"
    write_own(tmp_path, kind, how)
    data._say.cache_clear()
    whole, said, heard = *own_tokens(tmp_path, tmp_path/'a'), capsys.readouterr().err
    def never(*a): raise AssertionError('all rows were read at once')
    monkeypatch.setattr(data, '_LARGE', 0)
    monkeypatch.setattr(data, 'read_rows', never)
    monkeypatch.setattr('bayes_prompt.prompt._PIECE', 7)
    monkeypatch.setattr(data, '_by_pieces', lambda task, file, plain=data._by_pieces: ((first + i, rows[i:i+9]) for first, rows in plain(task, file) for i in range(0, len(rows), 9)))
    data._say.cache_clear()
    streamed, told = own_tokens(tmp_path, tmp_path/'b')
    assert list(streamed) == list(whole) and told == said
    assert all(a.equal(b) for a, b in zip(streamed.lengths(), whole.lengths()))
    twice = [[l for l in text.splitlines() if 'are in the train part too' in l] for text in (heard, capsys.readouterr().err)]
    assert twice[0] == twice[1] and len(twice[0]) == 1

@pytest.mark.parametrize('spoil, said', [
    (lambda rows: rows[33].update(label=''), 'row 34'), (lambda rows: rows[12].update(label='maybe'), 'row 13'), (lambda rows: rows[12].update(text=' '), 'row 13'),
    (lambda rows: [r.update(text=r['label']) for r in rows], "in every row the column 'text'"), (lambda rows: [r.update(label='yes') for r in rows], "got only 'yes'"),
    (lambda rows: rows.clear(), 'expected rows, got none'), (lambda rows: rows.__delitem__(slice(2, None)), 'has no rows'), (lambda rows: [r.pop('label') for r in rows], "'label' is missing"),
    (lambda rows: rows[20].update(label='yes '*5000), 'row 21')])
def test_what_is_wrong_in_a_streamed_file_is_said_as_of_others(spoil, said, tmp_path, monkeypatch):
    write_own(tmp_path, 'jsonl', 'words')
    rows = [json.loads(l) for l in (tmp_path/'own.jsonl').read_text().splitlines()]
    spoil(rows)
    (tmp_path/'own.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    sentences = []
    for size in (2**24, 0):
        monkeypatch.setattr(data, '_LARGE', size)
        with pytest.raises(ValueError, match=re.escape(said)) as e: own_tokens(tmp_path, tmp_path/'a')
        sentences.append(str(e.value))
    assert sentences[0] == sentences[1]

def test_a_record_does_not_grow_with_a_file(tmp_path, monkeypatch):
    "Of very many rows it says what they are told by"
    write_own(tmp_path, 'csv', 'words')
    splits = [own_tokens(tmp_path, tmp_path/str(most))[1]['splits'] for most in (100, 20) if not monkeypatch.setattr(protocol, '_MANY', most)]
    assert {p: len(rows) for p, rows in splits[0].items()} == dict(train=36, validation=12, test=12) and splits[1]['test'] == splits[0]['test']
    assert splits[1]['train'] == dict(rows=36, fingerprint=fingerprint(torch.tensor(splits[0]['train'])))

@pytest.mark.parametrize('how', ['words', 'digits', 'free'])
@pytest.mark.parametrize('kind', ['csv', 'split', 'parts', 'jsonl', 'parquet'])
def test_a_large_target_stays_on_the_disk(kind, how, tmp_path, monkeypatch):
    "The same pairs, answers, draws and parts, and no row is kept"
    write_own(tmp_path, kind, how)
    add_tasks(tmp_path/'tasks.toml')
    whole = load_task('own')
    monkeypatch.setattr(data, '_LARGE', 0)
    there = load_task('own')
    assert isinstance(whole.train, list) and isinstance(there.train, data.OnDisk)
    for split in data.SPLITS:
        pairs = getattr(whole, split)
        assert list(getattr(there, split)) == pairs and getattr(there, split)[1:3] == pairs[1:3] and getattr(there, split)[-1] == pairs[-1]
        assert split == 'train' or list(there.answers[split]) == whole.answers[split]
        assert there.targets(split) == whole.targets(split)
    assert few_shot(there.train, 4, 1, there.classes) == few_shot(whole.train, 4, 1, whole.classes)
    assert there.choices == whole.choices and {s: list(rows) for s, rows in there.indices.items()} == whole.indices
    with pytest.raises(IndexError): there.test[len(whole.test)]

def test_rows_that_are_scored_together_stay_in_memory(tmp_path, monkeypatch):
    "Three references of one input, also in a large file"
    rows = [dict(meaning_representation=f'name[Inn {i//3}]', human_reference=f'Inn {i//3}, text {i}.') for i in range(90)]
    pd.DataFrame(rows).to_csv(tmp_path/'own.csv', index=False)
    (tmp_path/'tasks.toml').write_text('[own]\ntemplate = "{line}"\nprepare = "e2e"\nlabel = "human_reference"\nmetric = "bleu"\n')
    add_tasks(tmp_path/'tasks.toml')
    whole = load_task('own')
    monkeypatch.setattr(data, '_LARGE', 0)
    there = load_task('own')
    assert there.test == whole.test and there.answers == whole.answers
    assert any(len(golds) > 1 for golds in there.answers['test'])

@pytest.mark.parametrize('k', [0, 3])
def test_a_run_on_a_large_target_gives_the_same(k, tmp_path, monkeypatch):
    write_own(tmp_path, 'csv', 'words')
    config = make_config(SMALL, tasks=str(tmp_path/'tasks.toml'), target='own', method='pt', k=k, judge_every=2)
    whole = run(config, tmp_path/'a')
    monkeypatch.setattr(data, '_LARGE', 0)
    protocol._loaded.cache_clear()
    there = run(config, tmp_path/'b')
    same = ('scores', 'loss', 'predictions', 'train_indices', 'splits', 'cut', 'judged', 'cost')
    assert {k: whole.get(k) for k in same} == {k: there.get(k) for k in same}

def test_no_room_for_the_texts_of_a_large_target(tmp_path, monkeypatch):
    write_own(tmp_path, 'csv', 'words')
    add_tasks(tmp_path/'tasks.toml')
    monkeypatch.setattr(data, '_LARGE', 0)
    def full(folder, batches, names): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(data, '_written', full)
    with pytest.raises(OSError, match='own: could not write its texts to .*: No space left on device; TMPDIR=.*with room'): load_task('own')
