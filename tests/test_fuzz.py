"""Whatever comes in, one sentence comes out: `ValueError` or `OSError` on one line, with the file where there is one.
`python tests/test_fuzz.py 10000` tries so many inputs, fresh ones; the tests try a few that are always the same"""
import copy, csv, io, json, os, shutil, sys, tempfile, warnings
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
import pytest, torch
from hypothesis import HealthCheck, given, settings, strategies as st
from bayes_prompt.callbacks import Checkpoint, EarlyStopping
from bayes_prompt.config import SHORT, Config, make_config, parse_changes
from bayes_prompt.data import load_task, read_rows
from bayes_prompt.interchange import from_peft, load_prompt
from bayes_prompt.results import differences, load, show, table
from bayes_prompt.run import _read
from bayes_prompt.source import SourcePosterior
from bayes_prompt.store import Damaged, load_tensors, save_tensors
from bayes_prompt.experiment import planned, read_experiment
from bayes_prompt.tasks import TASKS, Task, read_tasks
from bayes_prompt.train import fit
from test_train import Bowl, nothing

FAMILIES = 14
N = int(os.environ.get('FUZZ', 0))
settings.register_profile('ci', max_examples=15, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile('long', settings.get_profile('ci'), max_examples=-(-N//FAMILIES) or 1, derandomize=False)
settings.load_profile('long' if N else 'ci')
ROOT = Path(__file__).resolve().parents[1]
tried = dict(inputs=0, refused=0)

@contextmanager
def one_sentence(*names):
    "What may come out: nothing, or a sentence that says where"
    tried['inputs'] += 1
    try: yield
    except (ValueError, OSError) as e:
        tried['refused'] += 1
        said = str(e)
        assert type(e).__module__ in ('builtins', 'bayes_prompt.store'), f'{type(e)}: {said}'   # not a library's own
        assert said and len(said.splitlines()) == 1 and len(said) < 2000, said
        assert not names or any(n in said for n in names), said

@contextmanager
def folder():
    with tempfile.TemporaryDirectory(prefix='fuzz') as f: yield Path(f)

# ---- what is wrong with it

ODD = ['', ' ', '\0', '\ud800', '１', 'null', 'true', '-1', '1e999', '../..', '/', '{', '}', '{0}', '{a.b}', '{a[0]}', 'a,b', '\n', 'é'*300, '🙂', '"', "'", '%s', 'nan', 'mean', 'movie']
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(ODD)
huge = st.sampled_from([10**400, -10**400, 2**63, 2**64, 1e308, -1e308, 1e-320, 5e-324])
junk = st.recursive(plain | huge, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.sampled_from(ODD), inner, max_size=3), max_leaves=6)

def places(obj, at=()):
    "The way to everything in a nested object"
    inside = obj.items() if isinstance(obj, dict) else enumerate(obj) if isinstance(obj, list) else ()
    return [at, *(p for k, v in inside for p in places(v, (*at, k)))]

@st.composite
def spoilt(draw, obj):
    "A nested object with one or two places changed, left out or moved"
    obj = copy.deepcopy(obj)
    for _ in range(draw(st.integers(1, 2))):
        *way, last = draw(st.sampled_from(places(obj)[1:] or [(None,)]))
        inside = obj
        for k in way: inside = inside[k]
        if last is None or not isinstance(inside, (dict, list)): return draw(junk)
        what = draw(st.sampled_from(['junk', 'junk', 'junk', 'gone', 'key']))
        if what == 'junk' or isinstance(inside, list): inside[last] = draw(junk)
        elif what == 'gone': del inside[last]
        else: inside[draw(st.text(max_size=5) | st.sampled_from(ODD))] = inside.pop(last)
    return obj

@st.composite
def damaged(draw, data):
    "Bytes with a few of them changed"
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, 2**16)) * len(data) >> 16   # the same draw whatever the length: a file may hold the time
        what, bit = draw(st.sampled_from(['flip', 'cut', 'insert', 'drop', 'repeat'])), draw(st.integers(0, 7))
        if what == 'flip' and at < len(data): data[at] ^= 1 << bit
        if what == 'cut': del data[at:]
        if what == 'insert': data[at:at] = draw(st.binary(max_size=6) | st.sampled_from([w.encode(errors='surrogatepass') for w in ODD]))
        if what == 'drop': del data[at:at+draw(st.integers(1, 20))]
        if what == 'repeat': data[at:at] = data[max(0, at-40):at]
    return bytes(data)

def toml(table, path=''):
    "A table as TOML, whatever is in it"
    def value(v):
        if isinstance(v, dict): return '{' + ', '.join(f'{json.dumps(k)} = {value(x)}' for k, x in v.items()) + '}'
        if isinstance(v, list): return '[' + ', '.join(map(value, v)) + ']'
        return json.dumps(v) if v is not None else '""'
    return ''.join(f'{json.dumps(k)} = {value(v)}\n' for k, v in table.items()) if isinstance(table, dict) else value(table)

def written(path, obj):
    text = toml(obj) if path.suffix == '.toml' else json.dumps(obj)
    path.write_bytes(text.encode(errors='surrogatepass'))
    return path

DEEP = [*('['*n + ']'*n for n in (60, 900, 970)), *('{"a":'*n + '1' + '}'*n for n in (15, 60, 900, 970)), '['*100_000, '{"a":'*100_000, '[]', 'null', '1', '""', 'x = ' + '['*100_000, '[' + '.'.join('a'*5000) + ']']

# ---- configurations

KNOWN = {key: default for key, default, _ in Config.described()}
keys = st.sampled_from([*KNOWN, *SHORT, 'optimizer', 'source', 'target', 'data', 'compute', 'spot', 'out', 'config', 'progress', 'path', 'own', 'source.svgd', 'seed.x', 'method.x', '', 'a.b', 'self', 'changes']) | st.text(max_size=6)
USUAL = dict(method='spot', seed=1, source=dict(tasks=['amazon', 'nyt'], steps=3, lr=.1, svgd=dict(kernel='rbf', bandwidth='median')),
             target=dict(task='movie', others=['spam'], evidence='one', k=4), data=dict(style='t5', limit=5), compute=dict(backbone='tiny-t5'), spot=dict(top=1))

@given(st.dictionaries(keys, junk, max_size=4) | spoilt(USUAL) | junk)
def test_configurations(d):
    with one_sentence(): make_config(d)

@given(st.lists(st.builds('{}={}'.format, keys, plain | st.sampled_from(['[a', 'a,,b', '1,', '.01', '1_0', '0x1', '1e5', 'cuda', '[["a"]]'])) | st.text(max_size=9), max_size=4))
def test_command_lines(words):
    with one_sentence(): make_config(**parse_changes(words))

@given(st.sampled_from(['c.toml', 'c.json']), st.data())
def test_configuration_files(name, data):
    with folder() as d:
        text = written(d/name, data.draw(spoilt(USUAL | dict(extends='base.toml')))).read_bytes()
        (d/'base.toml').write_text('length = 5')
        if data.draw(st.booleans()): text = data.draw(damaged(text) | st.sampled_from([x.encode() for x in DEEP]))
        (d/name).write_bytes(text)
        with one_sentence(): make_config(d/name)

EXPERIMENT = dict(answers='What?', extends='base.toml', values=dict(length=5, target=dict(k=4)), method=dict(pt=dict(lr=.1)), grid={'seed': [0, 1], 'lr,lr_low': [.1, .2], 'method': ['pt', 'bmtpt']},
                  part=[dict(values=dict(limit=3), grid=dict(target=['movie', 'spam']))])

@given(st.data())
def test_experiments(data):
    with folder() as d:
        text = written(d/'e.toml', data.draw(spoilt(EXPERIMENT))).read_bytes()
        (d/'base.toml').write_text('length = 5')
        if data.draw(st.booleans()): text = data.draw(damaged(text) | st.sampled_from([x.encode() for x in DEEP]))
        (d/'e.toml').write_bytes(text)
        with one_sentence('e.toml', 'base.toml'): read_experiment(d/'e.toml')

# ---- tasks and their data

OWN = dict(
    labels=dict(template='review: {text}', labels=['bad', 'good'], label='label', about='x', metric='accuracy', metrics=['macro_f1'], max_src=40),
    table=dict(fields=['text'], labels=dict(a='bad', b='good')), grid=dict(fields=['text'], grid=[0, 5, .5]),
    free=dict(template='{text}', attempt='{text:>9}', t5='{text}', label='answers', prefix='{name}:', free=['t5'], metric='rouge_l'),
    hub=dict(fields=['text'], hub='a/b', config='x+y', parts=['train', 'validation'], split='small', prepare='stsb'))

@given(st.sampled_from(['t.toml', 't.json']), st.data())
def test_task_files(name, data):
    with folder() as d:
        text = written(d/name, data.draw(spoilt(OWN) | spoilt(OWN['labels']).map(lambda t: dict(x=t)))).read_bytes()
        if data.draw(st.integers(0, 3)) == 0: text = data.draw(damaged(text) | st.sampled_from([x.encode() for x in DEEP]))
        (d/name).write_bytes(text)
        with one_sentence(name):
            for t in read_tasks(d/name):
                t.choices('t5'), t.choices('attempt')

ROWS = [dict(text=f'text {i}', label=i % 2, split=('train', 'validation', 'test')[i % 3]) for i in range(12)]

def table_file(path, rows):
    if path.suffix in ('.json', '.jsonl'): text = json.dumps(rows) if path.suffix == '.json' else '\n'.join(map(json.dumps, rows))
    else:
        f = io.StringIO()
        w = csv.writer(f, delimiter='\t' if path.suffix == '.tsv' else ',')
        columns = [*dict.fromkeys(k for r in rows if isinstance(r, dict) for k in r)]
        w.writerows([columns, *([str(r.get(c, '')) for c in columns] for r in rows if isinstance(r, dict))])
        text = f.getvalue()
    path.write_bytes(text.encode(errors='surrogatepass'))

def data_file(kind, data, d):
    file = d/f'fuzzed.{kind}'
    rows = data.draw(spoilt(ROWS))
    table_file(file, rows if isinstance(rows, list) else [rows])
    if data.draw(st.booleans()): file.write_bytes(data.draw(damaged(file.read_bytes()) | st.sampled_from([x.encode() for x in DEEP]) | st.binary(max_size=40)))
    return file

@given(st.sampled_from(['csv', 'tsv', 'json', 'jsonl']), st.data())
def test_data_files(kind, data):
    task = data.draw(st.sampled_from([dict(labels=('bad', 'good')), dict(labels={'0': 'bad', '1': 'good'}), dict(grid=(0, 1, .5)), {}, dict(label='split', labels=('train', 'validation', 'test'))]))
    with folder() as d:
        file = data_file(kind, data, d)
        try:
            TASKS['fuzzed'] = Task('fuzzed', template='{text}', folder=str(d), file=file.name, **task)
            with one_sentence('fuzzed'): load_task('fuzzed', style=data.draw(st.sampled_from(['t5', 'attempt'])))
        finally: TASKS.pop('fuzzed', None)

@given(st.sampled_from(['csv', 'tsv', 'jsonl', 'json', 'parquet', 'csv.gz', 'jsonl.gz', 'txt']), st.binary(max_size=60))
def test_any_bytes_as_data(ending, some):
    with folder() as d:
        (d/f'f.{ending}').write_bytes(some)
        with one_sentence(f'f.{ending}'): read_rows(d/f'f.{ending}')

@pytest.mark.parametrize('kind', ['squad', 'record', 'multirc', 'wsc', 'choices', 'anli', 'stsb', 'e2e', 'webnlg'])
def test_rows_of_the_hub(kind):
    row = dict(question='who?', context='a b', passage='a\n@highlight\nb', entities=['a'], paragraph='p', answer='a', idx=dict(question=1, paragraph=0, answer=2), text='It is a', span1_text='a', span2_text='It', span1_index=2, span2_index=0,
               choices=dict(label=['A', 'B'], text=['x', 'y']), premise='p', hypothesis='h', meaning_representation='name[x], food[y]', input=['a | b | c'], references=['r'], label='A')
    @settings(max_examples=max(5, settings.default.max_examples//9))
    @given(spoilt(row))
    def tried_out(r):
        t = Task('x', fields=('question', 'choices', 'text'), labels=() if kind in ('squad', 'record', 'e2e', 'webnlg', 'stsb') else ('A', 'B'), prepare=kind)
        for style in ('t5', 'attempt'):
            with one_sentence('x: '): t.to_text(r if isinstance(r, dict) else dict(text=r), style)
    tried_out()

# ---- records

RECORD = json.loads(next((ROOT/'results/four_sources').glob('amazon-bmtpt-s0*.json')).read_text())
RECORD |= dict(loss=RECORD['loss'][:2], source_history=RECORD['source_history'][:2], train_indices=[1, 2])

@given(st.data())
def test_records(data):
    with folder() as d:
        written(d/'good.json', RECORD)
        text = written(d/'r.json', data.draw(spoilt(RECORD))).read_bytes()
        if data.draw(st.integers(0, 3)) == 0: text = data.draw(damaged(text) | st.sampled_from([x.encode() for x in DEEP]))
        (d/'r.json').write_bytes(text)
        with one_sentence('r.json'): df = load(d)
        with one_sentence('r.json', 'one run per', 'expected runs of the same'): df = load(d); show(table(df)); show(differences(df))
        with one_sentence('r.json'): planned(read_experiment(ROOT/'experiments/four_sources.toml'), d)
        with one_sentence('r.json'): _read(d/'r.json', make_config(RECORD['config']))

# ---- tensors: posteriors, checkpoints, prompts, adapters

tensors = st.builds(lambda shape, dtype: torch.ones(shape, dtype=dtype), st.lists(st.integers(0, 4), max_size=4), st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool]))

@st.composite
def spoilt_file(draw, path, key=''):
    "A file of `save_tensors` with another content, or other bytes"
    content, about = load_tensors(path)
    if draw(st.booleans()): path.write_bytes(draw(damaged(path.read_bytes()) | st.binary(max_size=30)))
    else:
        for k in draw(st.lists(st.sampled_from(sorted(content)), max_size=2)):
            if draw(st.booleans()) and not k.startswith(('state.optimizer', 'state.callbacks')): content[k] = draw(tensors)
            else: content.pop(k, None)
        if draw(st.booleans()): about = about | {draw(st.sampled_from(sorted(about))): draw(junk)}
        try: save_tensors(path, content, about, key)
        except ValueError: pass   # what JSON cannot hold

@given(st.data())
def test_posteriors(data):
    with folder() as d:
        SourcePosterior(torch.randn(3, 4, 8), ['a', 'b'], 'tiny-t5', dict(seconds=1., tokens=3, steps=2), [dict(loss=1.), dict(loss=.5)]).save(d)
        if data.draw(st.integers(0, 2)): data.draw(spoilt_file(d/'posterior.safetensors'))
        else: next(d.glob('history-*.jsonl')).write_bytes(data.draw(damaged(next(d.glob('history-*.jsonl')).read_bytes()) | st.sampled_from([b'1\n', b'[]\n', b'{}\n'])))
        with one_sentence(str(d)):
            p = SourcePosterior.load(d)
            repr(p), p.mean, [h['loss'] for h in p.history]

@given(st.sampled_from(['adam', 'sgd', 'adafactor']), st.data())
def test_checkpoints(tiny, optimizer, data):
    with folder() as d:
        def go(method, steps=4, optimizer=optimizer): return fit(method, nothing, steps, optimizer, callbacks=[EarlyStopping(lambda: 1., 2), Checkpoint(d/'s', every=2)])
        want = go(Bowl(tiny))
        if data.draw(st.integers(0, 2)): data.draw(spoilt_file(d/'s'))
        else: (d/'s.jsonl').write_bytes(data.draw(damaged((d/'s.jsonl').read_bytes())))
        m = Bowl(tiny)
        with one_sentence(str(d)), redirect_stderr(io.StringIO()):
            assert len(go(m, optimizer=data.draw(st.sampled_from([optimizer, 'adamw'])))) == len(want) and m.x.shape == (1,)

@given(st.data())
def test_prompts(tiny, data):
    with folder() as d:
        save_tensors(d/'prompt.safetensors', dict(prompt=torch.ones(3, 32)), dict(backbone='tiny-t5', shape=[3, 32], about=dict(a=1)))
        data.draw(spoilt_file(d/'prompt.safetensors'))
        if data.draw(st.booleans()): written(d/'prompt.json', data.draw(junk))
        with one_sentence(str(d)): load_prompt(d, tiny)

ADAPTER = dict(peft_type='MULTITASK_PROMPT_TUNING', task_type='SEQ_2_SEQ_LM', num_virtual_tokens=3, base_model_name_or_path='tiny-t5', token_dim=32)

@given(st.data())
@pytest.mark.filterwarnings('ignore')
def test_adapters(tiny, data):
    from safetensors.torch import save_file
    weights = dict(prompt_embeddings=torch.ones(3, 32), prefix_task_cols=torch.ones(2, 3, 1), prefix_task_rows=torch.ones(2, 1, 32))
    with folder() as d:
        config = data.draw(spoilt(ADAPTER | dict(peft_type=data.draw(st.sampled_from(['PROMPT_TUNING', 'MULTITASK_PROMPT_TUNING'])))) | st.just(ADAPTER))
        for k in data.draw(st.lists(st.sampled_from([*weights]), max_size=2)): weights[k] = data.draw(tensors)
        save_file(weights, d/'adapter_model.safetensors')
        written(d/'adapter_config.json', config)
        if (f := data.draw(st.sampled_from([None, 'adapter_model.safetensors', 'adapter_config.json']))): (d/f).write_bytes(data.draw(damaged((d/f).read_bytes())))
        with one_sentence(str(d)): from_peft(d, tiny, data.draw(st.sampled_from([0, 1, 2, -1])))

if __name__ == '__main__':
    os.environ['FUZZ'] = sys.argv[1] if len(sys.argv) > 1 else '10000'
    sys.exit(pytest.main([__file__, '-q', '-p', 'no:cacheprovider', *sys.argv[2:]]))

def test_zz_count():
    print(f'\n{tried["inputs"]:,} inputs, {tried["refused"]:,} refused in one sentence')
    assert tried['inputs'] >= N
