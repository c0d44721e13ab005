"The commands for one's own data give what Python gives, lose no row, and refuse at once"
import csv, json, os, subprocess, sys
import pytest
from bayes_prompt.cli import bp_fetch, bp_results, bp_run
from bayes_prompt.commands import bp, bp_export, bp_predict, bp_show, bp_source, bp_tune
from test_files import SIX, six, text

FAST = ['--backbone', 'tiny-t5', 'steps=3', 'length=4', 'limit=12', 'target.judge_rows=4', 'target.batch=2']

@pytest.fixture(scope='module')
def ready(tmp_path_factory):
    "A folder with a tuned prompt, and new rows: one has no text"
    folder = tmp_path_factory.mktemp('ready')
    SIX['a.csv'](folder/'a.csv')
    bp_tune([str(folder/'a.csv'), *FAST, '--out', str(folder/'run'), '--log', 'csv'])
    (folder/'new.csv').write_text('prediction,review,odd\n1,"soup, and bread",NA\n2,,x\n3,a lamp,007\n')
    return folder

def rows(f): return list(csv.DictReader(f.open(newline='')))

def refused(f, *words):
    with pytest.raises(SystemExit) as e: f(list(map(str, words)))
    assert isinstance(e.value.code, str) and len(e.value.code.splitlines()) == 1, e.value.code
    return e.value.code

def test_tune_ends_with_score_matrix_and_folder(six, capsys, monkeypatch):
    monkeypatch.chdir(six)
    bp_tune(['a.csv', *FAST])
    said = capsys.readouterr().out
    assert 'a constant answer' in said and 'without a prompt' in said and 'label \\ answer' in said and 'prompt: tuned/a\n' in said and (six/'tuned/a/prompt.safetensors').exists()
    bp_tune(['a.csv', *FAST, '--json']) # a second one does not overwrite the first
    assert json.loads(capsys.readouterr().out)['folder'] == 'tuned/a-2' and not (six/'tuned/a-2/state').exists()

def test_predictions_are_those_of_python(ready):
    from bayes_prompt.own import load_tuned
    bp_predict([str(ready/'run'), str(ready/'new.csv'), '-o', str(ready/'out.csv')])
    out, tuned = rows(ready/'out.csv'), load_tuned(ready/'run')
    full = [r for r in out if r['review']]
    assert list(out[0]) == ['prediction', 'review', 'odd', 'prediction_1', 'p_0', 'p_1'] and [r['odd'] for r in out] == ['NA', 'x', '007']
    assert [r['prediction_1'] for r in full] == tuned.predict([r['review'] for r in full]) and out[1]['prediction_1'] == out[1]['p_0'] == ''
    assert [float(r['p_1']) for r in full] == pytest.approx([p['1'] for p in tuned.probabilities([r['review'] for r in full])], rel=1e-4)

def test_an_export_predicts_the_same_and_a_foreign_adapter_too(ready, tmp_path, capsys):
    bp_export([str(ready/'run'), '--peft', str(tmp_path/'peft'), '--json'])
    assert json.loads(capsys.readouterr().out)['folder'] == str(tmp_path/'peft')
    foreign = tmp_path/'foreign'
    foreign.mkdir()
    for f in ('adapter_config.json', 'adapter_model.safetensors'): (foreign/f).write_bytes((tmp_path/'peft'/f).read_bytes())
    bp_predict([str(ready/'run'), str(ready/'new.csv'), '-o', str(tmp_path/'a.csv')])
    bp_predict([str(tmp_path/'peft'), str(ready/'new.csv'), '-o', str(tmp_path/'b.csv')])
    bp_predict([str(foreign), str(ready/'new.csv'), '-o', str(tmp_path/'c.csv'), '--text', 'review', '--labels', '0,1', '--backbone', 'tiny-t5'])
    assert (tmp_path/'a.csv').read_text() == (tmp_path/'b.csv').read_text() == (tmp_path/'c.csv').read_text()
    assert 'does not say what it answers' in refused(bp_predict, foreign, ready/'new.csv', '-o', tmp_path/'d.csv')

def test_chunks_are_no_seams(ready, tmp_path):
    "More rows than a piece; jsonl in, jsonl out"
    with (tmp_path/'n.jsonl').open('w') as f:
        for i in range(230): f.write(json.dumps(dict(i=i, review=text(i), tags=[i])) + '\n')
    bp_predict([str(ready/'run'), str(tmp_path/'n.jsonl'), '-o', str(tmp_path/'o.jsonl'), '--no-probabilities'])
    out = [json.loads(l) for l in (tmp_path/'o.jsonl').read_text().splitlines()]
    assert [r['i'] for r in out] == list(range(230)) and list(out[0]) == ['i', 'review', 'tags', 'prediction'] and out[7]['tags'] == [7]

def test_a_file_that_breaks_in_the_middle_leaves_nothing(ready, tmp_path):
    (tmp_path/'n.csv').write_text('review\nfine\n"cold')
    assert 'cannot be read' in refused(bp_predict, ready/'run', tmp_path/'n.csv', '-o', tmp_path/'o.csv')
    assert [f.name for f in tmp_path.iterdir()] == ['n.csv']

def test_the_prompt_of_a_run(tmp_path, ready):
    from bayes_prompt.run import run
    run(dict(backbone='tiny-t5', target='spam', method='pt', steps=2, k=2, limit=10), tmp_path)
    (tmp_path/'new.csv').write_text('text,sms,sentence\na,b,c\n')
    record, = tmp_path.glob('*.json')
    bp_predict([str(record), str(tmp_path/'new.csv'), '-o', str(tmp_path/'o.csv')])
    from bayes_prompt.tasks import TASKS
    assert rows(tmp_path/'o.csv')[0]['prediction'] in TASKS['spam'].labels

def test_sources_are_learnt_once_and_used_by_name(six, monkeypatch, capsys):
    monkeypatch.setenv('BAYES_PROMPT_CACHE', str(six/'cache'))
    bp_source(['mine', '--sources', 'nyt,movie', '--backbone', 'tiny-t5', 'm=2', 'source_steps=2', 'length=4'])
    bp_tune([str(six/'d.csv'), *FAST, '--posterior', 'mine', '--out', str(six/'x')])
    capsys.readouterr()
    bp_show(['mine', '--json'])
    assert json.loads(capsys.readouterr().out)['tasks'] == ['nyt', 'movie']

def test_show(ready, capsys):
    for what in (ready/'run', 'movie', 'tasks', 'methods', 'backbones', ready/'a.csv'):
        bp_show([str(what)])
        assert len(capsys.readouterr().out.splitlines()) > 3
    bp_show([str(ready/'run'), '--json'])
    assert json.loads(capsys.readouterr().out)['task'] == 'a'
    assert "nearest is 'tasks'" in refused(bp_show, 'tsaks')

@pytest.mark.parametrize('words,said', [
    (['a.csv', '--text', 'reveiw'], "nearest is 'review'"), (['a.csv', 'learning_rate=1'], "nearest is 'lr'"), (['a.csv', 'label=stars'], 'an option of the command, --label stars'), (['a.csv', 'num_particles=1'], "nearest is 'source.particles'"),
    (['a.csv', '--backbone', 't5-bsae'], "'t5-base'"), (['a.csv', '--log', 'cvs'], "nearest is 'csv'"), (['a.csv', '--sources', 'moovie'], "nearest is 'movie'"), (['a.csv', 'method=lora'], 'bp_run'),
    (['a.csv', '--words', 'a'], 'expected label=word'), (['b.cvs'], 'no file'), (['a.csv', 'lr=-1'], 'above 0'), (['a.csv', '--posterior', 'nobody'], "no posterior 'nobody'"),
    (['a.csv', 'device=gpu'], "nearest is 'cuda'"), (['a.csv', '--backbone', '.'], 'expected config.json'), (['a.csv', '--out', 'b.csv'], 'b.csv is a file'), (['a.csv', '--out', 'b.csv/x'], 'b.csv is a file'),
    (['a.csv', '--text', 'stars'], "is 'stars' the column of the text?"), (['movie'], 'bp_run target=movie'), (['https://example.org/a.csv'], 'https://example.org/a.csv: expected a file'), (['a.csv', 'lora'], 'expected key=value')])
def test_what_tune_cannot_do_is_one_sentence(six, monkeypatch, words, said):
    monkeypatch.chdir(six)
    assert said in refused(bp_tune, *words)
    assert not (six/'tuned').exists()

def test_a_refusal_loads_no_torch(six):
    code = f"import sys; from bayes_prompt.commands import bp_tune\ntry: bp_tune([{str(six/'a.csv')!r}, 'lr=fast'])\nexcept SystemExit: assert not {{'torch', 'pandas', 'datasets'}} & sys.modules.keys()"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True).returncode == 0

def test_the_door(capsys):
    bp([])
    assert 'bp tune ' in capsys.readouterr().out
    bp(['--version'])
    assert capsys.readouterr().out.startswith('bayes_prompt ')
    bp(['show', 'backbones'])
    assert 't5-base' in capsys.readouterr().out
    assert "nearest is 'tune'" in refused(bp, 'tnue')
    r = subprocess.run([sys.executable, '-m', 'bayes_prompt', 'tune', '--help'], capture_output=True, text=True)
    assert r.returncode == 0 and 'examples:' in r.stdout and 'exit status: 0' in r.stdout

def test_every_command_is_installed():
    from configparser import ConfigParser
    from pathlib import Path
    from bayes_prompt.commands import _COMMANDS
    c = ConfigParser(delimiters=['='])
    c.read(Path(__file__).resolve().parents[1]/'settings.ini')
    scripts = dict(s.split('=') for s in c['DEFAULT']['console_scripts'].split())
    assert scripts == {'bp': 'bayes_prompt.commands:bp'} | {f'bp_{w}': f'bayes_prompt.{m}:bp_{w}' for w, (m, _) in _COMMANDS.items()}

def test_completion(monkeypatch, six):
    "By argcomplete, as a shell calls it"
    pytest.importorskip('argcomplete')
    env = os.environ | dict(_ARGCOMPLETE='1', COMP_LINE='bp_tune --backbone mi', COMP_POINT='21', _ARGCOMPLETE_COMP_WORDBREAKS=' ', _ARGCOMPLETE_STDOUT_FILENAME=str(six/'said'))
    subprocess.run([sys.executable, '-c', 'from bayes_prompt.commands import bp_tune; bp_tune(["--back"])'], env=env, capture_output=True)
    assert (six/'said').read_text().strip() == 'mini'

def new_rows(n=230): return [dict(i=i, review=text(i) if i != 3 else '', odd=None if i < 210 else 'x') for i in range(n)]

@pytest.mark.parametrize('name', ['n.feather', 'n.arrow', 'n.parquet', 'n.json', 'n'])
def test_it_predicts_what_it_tunes_on(ready, tmp_path, name):
    "Every format in, Parquet out: more rows than a piece, an empty text, a column that begins empty"
    import datasets, pandas as pd
    table = datasets.Dataset.from_list(new_rows())
    if name == 'n.feather': pd.DataFrame(new_rows()).to_feather(tmp_path/name)
    elif name == 'n.arrow':
        table.save_to_disk(tmp_path/'s')
        next((tmp_path/'s').glob('*.arrow')).rename(tmp_path/name)
    elif name == 'n.parquet': table.to_parquet(tmp_path/name)
    elif name == 'n.json': (tmp_path/name).write_text(json.dumps(new_rows()))
    else: table.save_to_disk(tmp_path/name)
    bp_predict([str(ready/'run'), str(tmp_path/name), '-o', str(tmp_path/'o.parquet')])
    out = pd.read_parquet(tmp_path/'o.parquet').to_dict('records')
    assert list(out[0]) == ['i', 'review', 'odd', 'prediction', 'p_0', 'p_1'] and [r['i'] for r in out] == list(range(230))
    assert out[0]['p_0'] + out[0]['p_1'] == pytest.approx(1, abs=1e-4) and out[229]['odd'] == 'x' and not isinstance(out[3]['prediction'], str)

def test_what_parquet_cannot_hold_is_one_sentence(ready, tmp_path):
    (tmp_path/'n.jsonl').write_text('{"review": "soup", "x": 1}\n{"review": "lamp", "x": "one"}\n')
    assert 'let the name of -o end in .jsonl' in refused(bp_predict, ready/'run', tmp_path/'n.jsonl', '-o', tmp_path/'o.parquet')
    assert [f.name for f in tmp_path.iterdir()] == ['n.jsonl']
    bp_predict([str(ready/'run'), str(tmp_path/'n.jsonl'), '-o', str(tmp_path/'o.jsonl')])
    assert isinstance(json.loads((tmp_path/'o.jsonl').read_text().splitlines()[0])['p_0'], float)

@pytest.mark.parametrize('words,said', [(['n.csv', '-o', 'o.xlsx'], '.parquet'), (['n.cvs'], "nearest there is 'n.csv'"), (['nobody.parquet'], 'no file')])
def test_what_predict_cannot_do_is_one_sentence(ready, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'n.csv').write_text('review\nsoup\n')
    assert said in refused(bp_predict, ready/'run', *words)

@pytest.mark.parametrize('words,status', [('--version', 0), ('tune --help', 0), ('tnue', 1), ('tune none.csv', 1), ('predict a', 2), ('source x', 2), ('demo --nothing', 2), ('sweep none', 1), ('show tsaks', 1)])
def test_exit_statuses_are_those_of_the_table(tmp_path, words, status):
    r = subprocess.run([sys.executable, '-m', 'bayes_prompt', *words.split()], capture_output=True, text=True, cwd=tmp_path)
    assert r.returncode == status, r.stderr
    assert status != 1 or r.stderr.splitlines()[-1].startswith('error: ')
    assert status != 2 or r.stderr.startswith('usage: ')

@pytest.mark.parametrize('f,words,said', [
    (bp_tune, ['a.csv', '--lr', '3'], 'without dashes, lr='), (bp_tune, ['a.csv', '--lable', 'stars'], 'the nearest is --label'), (bp_tune, ['a.csv', '--model', 'mini'], 'the nearest is --backbone'),
    (bp_source, ['x', '--sources', 'nyt', '--m', '3'], 'without dashes, m='), (bp_run, ['--oot', 'x'], 'the nearest is --out'), (bp_run, ['--target', 'spam'], 'without dashes, target=')])
def test_an_option_that_there_is_not_ends_with_2(capsys, f, words, said):
    with pytest.raises(SystemExit) as e: f(words)
    assert e.value.code == 2 and said in capsys.readouterr().err

@pytest.mark.parametrize('run,words,said', [
    ('new.csv', [], "no prompt 'new.csv', it is a file"), ('empty', [], 'the folder has none'), ('nobody', [], 'there is no such file'), ('run', ['-o', 'new.csv'], 'is the file that is read'), ('run', ['-o', 'none/o.csv'], 'make it first'),
    ('run', ['-o', 'new.csv/o.csv'], 'make it first'), ('run', ['-o', 'd.csv'], 'this is a folder'), ('run', ['--text', 'odd'], 'says itself what it reads'), ('run', ['--device', 'gpu'], "nearest is 'cuda'")])
def test_predict_refuses_before_it_loads(ready, monkeypatch, run, words, said):
    monkeypatch.chdir(ready)
    for folder in ('empty', 'd.csv'): (ready/folder).mkdir(exist_ok=True)
    before = (ready/'new.csv').read_text()
    monkeypatch.setattr('bayes_prompt.own.load_tuned', None)
    assert said in refused(bp_predict, run, 'new.csv', *words) and (ready/'new.csv').read_text() == before

def test_a_missing_column_is_seen_before_the_model_is_loaded(ready, tmp_path, monkeypatch):
    (tmp_path/'n.csv').write_text('reveiw\nsoup\n')
    bp_export([str(ready/'run'), '--peft', str(tmp_path/'peft')])
    monkeypatch.setattr('bayes_prompt.own.load_tuned', None)
    for run in (ready/'run', tmp_path/'peft'): assert "'review' is missing" in refused(bp_predict, run, tmp_path/'n.csv')

def test_show_lists_what_was_tuned_and_says_a_line_of_every_name(ready, capsys):
    bp_show([str(ready), '--json'])
    row, = json.loads(capsys.readouterr().out)
    assert row['prompt'] == str(ready/'run') and row['metric'] == 'accuracy' and 0 <= row['score'] <= 1 and 0 <= row['constant'] <= 1
    for name, says in (('mini', 'offline'), ('pt', 'Prompt tuning'), ('lr', 'Learning rate'), ('target.steps', 'steps')):
        bp_show([name])
        assert says in capsys.readouterr().out
    bp_show(['keys', '--json'])
    assert 'target.lr' in json.loads(capsys.readouterr().out)
    assert f'bp_show {ready} says its scores' in refused(bp_results, ready)
    assert 'no run records' in refused(bp_results, ready/'run'/'logs')

def test_fetch_says_in_json_what_is_there(capsys):
    bp_fetch(['movie', 'nyt', '--json'])
    assert json.loads(capsys.readouterr().out) == dict(movie='is in the package', nyt='is in the package')
