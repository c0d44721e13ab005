"Token ids as arrays: the same examples, kept on disk"
import json
import pytest
from hypothesis import given, settings, strategies as st
from bayes_prompt import protocol
from bayes_prompt.config import make_config
from bayes_prompt.options import methods
from bayes_prompt.prompt import Example, encode, examples_of
from bayes_prompt.protocol import Context
from bayes_prompt.run import run
from bayes_prompt.store import fingerprint
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
