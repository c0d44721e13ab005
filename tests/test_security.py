"""Names that stand in files lead nowhere else, and sizes have bounds. All input here is harmless: at worst a name would
reach the folder `beside`, which has to stay as it was"""
import json
import pytest, torch
from bayes_prompt.backbone import ASSETS, load_backbone
from bayes_prompt.interchange import save_prompt
from bayes_prompt.own import load_tuned, source_posterior
from bayes_prompt.run import run
from bayes_prompt.source import SourcePosterior
from bayes_prompt.store import inside, load_tensors, save_tensors
from bayes_prompt.sweep import sweep
from bayes_prompt.tasks import TASKS, read_tasks
from conftest import SMALL

OUT = ['../beside/x', '/tmp/x', 'a/../../beside/x', '..', '..\\beside\\x', 'C:\\x', '~/x', 'x\0y']

@pytest.fixture
def here(tmp_path):
    "A folder to work in; the one beside it is looked at afterwards"
    (tmp_path/'here').mkdir()
    (tmp_path/'beside').mkdir()
    (tmp_path/'beside/x.csv').write_text('text,label\n' + 'a,no\nb,yes\n'*10)
    (tmp_path/'beside/x.safetensors').write_bytes(b'')
    before = {f: f.read_bytes() for f in (tmp_path/'beside').iterdir()}
    yield tmp_path/'here'
    assert {f: f.read_bytes() for f in (tmp_path/'beside').iterdir()} == before
    assert {f.name for f in tmp_path.iterdir()} <= {'here', 'beside'}

def refused(f, *said):
    with pytest.raises(ValueError) as e: f()
    sentence = str(e.value)
    assert '\n' not in sentence and any(s in sentence for s in said), sentence

def own(folder, name='own', **keys):
    keys = dict(fields=['text'], labels=['no', 'yes']) | keys
    (folder/'t.json').write_text(json.dumps({name: keys}))
    return folder/'t.json'

@pytest.mark.parametrize('name', OUT)
def test_a_task_keeps_within_its_folder(name, here):
    "Its name, which names files; its file; its parts; its name on the Hub"
    refused(lambda: read_tasks(own(here, name)), 'name: expected letters')
    refused(lambda: read_tasks(own(here, file=name)), 'file: expected a file in the folder of the data')
    refused(lambda: run(SMALL, here/'out', tasks=str(own(here, file=name + '.csv')), target='own'), 'file: expected', 'no data of task')
    refused(lambda: read_tasks(own(here, hub='a/b', parts=['train', name])), 'parts: expected')
    refused(lambda: read_tasks(own(here, hub=name)), 'hub: expected a name of the Hub')

def test_names_that_stay_are_taken(here):
    (here/'sub').mkdir()
    for name in ('x.csv', 'sub/x.csv', 'a..b.csv', '.hidden.csv'): assert read_tasks(own(here, file=name))[0].file == name
    assert all(t.name and inside(t.file) for t in TASKS.values()) and not any(map(inside, OUT))

@pytest.mark.parametrize('key', ['name', 'file', 'hub'])
@pytest.mark.parametrize('name', OUT)
def test_a_prompt_says_no_other_place(name, key, here):
    about = dict(backbone='tiny-t5', task=dict(name='own', fields=['text'], labels=['no', 'yes']) | {key: name}, scores={}, zero_shot={}, confusion=[], about={})
    prompt = torch.zeros(2, load_backbone('tiny-t5').width)
    save_prompt(prompt, here/'prompt', 'tiny-t5', about)
    refused(lambda: load_tuned(here/'prompt'), f'{key}: expected')

@pytest.mark.parametrize('name', OUT)
def test_a_record_and_a_sweep_say_no_other_place(name, here):
    record = run(SMALL, here/'out', method='pt')
    file = next((here/'out').glob('*.json'))
    file.write_text(json.dumps(record | dict(config=record['config'] | dict(target=record['config']['target'] | dict(task=name)))))
    refused(lambda: load_tuned(file), 'no task', 'data.tasks')
    for key in ('target', 'method', 'backbone'):
        values = dict(backbone='tiny-t5', target='movie', method='pt', steps=1) | {key: name}
        (here/'e.toml').write_text('answers = "May it?"\n[values]\n' + '\n'.join(f'{k} = {json.dumps(v)}' for k, v in values.items()))
        refused(lambda: sweep(here/'e.toml', here/'swept'), name.split('/')[0], repr(name)[1:-1], 'e.toml')

@pytest.mark.parametrize('name', OUT)
def test_a_posterior_says_no_other_place(name, here, monkeypatch):
    "The file of its history is called by a checksum, which a text is not; its own name is one"
    SourcePosterior(torch.ones(2, 3, 4), ['a'], 'tiny-t5', {}, [dict(loss=1.)]).save(here/'p')
    file = here/'p/posterior.safetensors'
    tensors, about = load_tensors(file)
    save_tensors(file, tensors, about | dict(lines=[12, name]))
    refused(lambda: SourcePosterior.load(here/'p'), 'is damaged')
    monkeypatch.setenv('BAYES_PROMPT_CACHE', str(here/'cache'))
    refused(lambda: source_posterior(['movie'], name, backbone='tiny-t5', m=2, length=2, source_steps=1), 'name: expected letters')

@pytest.mark.parametrize('name', OUT)
def test_the_index_of_weights_names_files_beside_it(name, here):
    for f in (ASSETS/'mini_backbone').iterdir():
        if not f.name.endswith('.safetensors'): (here/f.name).write_bytes(f.read_bytes())
    (here/'model.safetensors.index.json').write_text(json.dumps(dict(metadata={}, weight_map={'shared.weight': name})))
    refused(lambda: load_backbone(str(here)), 'expected names of files beside it')

@pytest.mark.parametrize('keys, said', [
    (dict(labels=['no', 'y'*201]), 'at most 200 signs'), (dict(labels=[str(i) for i in range(1001)]), 'labels: expected at most 1000, got 1001'),
    (dict(fields=[], template='{text:>1000}'), 'at most 999 signs'), (dict(fields=[], template='{text:.99999999}'), 'at most 999 signs'), (dict(prefix='{text:2000}'), 'at most 999 signs'),
    (dict(labels=[], grid=[0, 1001, 1], metric='pearson'), 'into at most 1000'), (dict(labels=[], grid=[0, 1e308, 1e-308], metric='pearson'), 'into at most 1000')])
def test_labels_choices_and_formats_have_bounds(keys, said, here):
    refused(lambda: read_tasks(own(here, **keys)), said)
