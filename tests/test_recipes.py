"The recipes of CONTRIBUTING.md, executed as they stand there"
import json, os, re, shutil, subprocess, sys
from pathlib import Path
import pytest, torch
from bayes_prompt import loggers, metrics, svgd, target
from bayes_prompt.options import METHODS
from bayes_prompt.run import run
from bayes_prompt.tasks import TASKS
from conftest import SMALL

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT/'CONTRIBUTING.md').read_text(encoding='utf-8')

def recipe(name): return re.search(rf'<!-- recipe: {name} -->\n```\w+\n(.*?)```', TEXT, re.S)[1]

def test_all_are_here():
    assert re.findall(r'<!-- recipe: (\w+) -->', TEXT) == ['method', 'kernel', 'prior', 'metric', 'task', 'logger']

def test_the_site_shows_them():
    "As they stand now: run nbs/83_extend.ipynb again after a change"
    cells = json.loads((ROOT/'nbs/83_extend.ipynb').read_text(encoding='utf-8'))['cells']
    shown = ''.join(''.join(o['data']['text/markdown']) for c in cells for o in c.get('outputs', []))
    for name in re.findall(r'<!-- recipe: (\w+) -->', TEXT): assert recipe(name) in shown, name

@pytest.fixture
def tables():
    "Registers as they were before"
    kept = [(t, dict(t)) for t in (METHODS, svgd.kernels, target.PRIORS, metrics.METRICS, loggers.LOGGERS, TASKS)]
    yield
    for t, before in kept:
        new = [name for name in t if name not in before]
        for name in new:
            if t is not METHODS or t[name].module == 'mine': del t[name] # pages that were imported meanwhile stay
        t.update(before)

def test_a_method(tables, tmp_path):
    exec(recipe('method'), dict(__name__='mine'))
    r = run(SMALL, tmp_path, method='scaled', steps=8, lr=.1)
    assert r['trainable'] == 1 and len(set(r['loss'])) > 1 and r['cost']['source_steps'] == 3
    assert run(SMALL, tmp_path, method='scaled', steps=8, lr=.1, **{'scaled.factor': 2.})['loss'] != r['loss']
    with pytest.raises(ValueError, match="the nearest is 'scaled.factor'"): run(SMALL, tmp_path, method='scaled', **{'scaled.fator': 2.})
    with pytest.raises(ValueError, match='among its own sources'): run(SMALL, tmp_path, method='scaled', target='nyt')

def test_a_kernel(tables, tmp_path):
    exec(recipe('kernel'), {})
    k, dk = svgd.kernels['cauchy'](d2 := torch.tensor(.7, dtype=torch.float64, requires_grad=True), 2.)
    assert torch.allclose(torch.autograd.grad(k, d2)[0], dk.detach())
    assert run(SMALL, tmp_path, kernel='cauchy')['scores'] != run(SMALL, tmp_path)['scores']

def test_a_prior(tables, tmp_path):
    exec(recipe('prior'), {})
    assert run(SMALL, tmp_path, prior='student')['scores'] != run(SMALL, tmp_path)['scores']

def test_a_metric_and_a_task(tables, tmp_path):
    exec(recipe('metric'), {})
    (tmp_path/'verdicts.toml').write_text(recipe('task') + 'metric = "mentions"\n')
    (tmp_path/'verdicts.csv').write_text('review,verdict\n' + ''.join(f'film {i},{["rotten", "fresh"][i % 2]}\n' for i in range(40)))
    r = run(SMALL, tmp_path/'out', target='verdicts', tasks=str(tmp_path/'verdicts.toml'))
    assert r['metric'] == 'mentions' and r['scores']['mentions'] == r['scores']['accuracy']

def test_a_logger(tables, tmp_path):
    exec(recipe('logger'), {})
    run(SMALL, tmp_path, method='pt', loggers=loggers.loggers_of(['loss'], tmp_path/'logs'))
    assert len(next((tmp_path/'logs').iterdir()).read_text().splitlines()) == 3

def test_a_method_as_a_page(tmp_path):
    "A new page is exported, found without being imported, and runs from the command line; nothing else was edited"
    for part in ('nbs', 'bayes_prompt', 'settings.ini', 'README.md'):
        source = ROOT/part
        if source.is_file(): shutil.copy(source, tmp_path/part)
        else: shutil.copytree(source, tmp_path/part, ignore=shutil.ignore_patterns('__pycache__', 'mini_backbone'))
    os.symlink(ROOT/'bayes_prompt/assets/mini_backbone', tmp_path/'bayes_prompt/assets/mini_backbone')
    imports, code = recipe('method').split('\n\n', 1)
    cells = [('markdown', '# Scaled\n\n> One factor'), ('code', '#| default_exp baselines.scaled'), ('code', '#| export\n' + imports), ('code', '#| export\n' + code)]
    page = dict(cells=[dict(cell_type=kind, id=f'c{i}', metadata={}, source=src, **({} if kind == 'markdown' else dict(outputs=[], execution_count=None))) for i, (kind, src) in enumerate(cells)],
                metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python')), nbformat=4, nbformat_minor=5)
    (tmp_path/'nbs/48_scaled.ipynb').write_text(json.dumps(page))
    env = os.environ | dict(PYTHONPATH=str(tmp_path))
    def sh(*args): return subprocess.run([sys.executable, *args], cwd=tmp_path, env=env, capture_output=True, text=True)
    done = sh('-c', 'from nbdev.export import nb_export; nb_export("nbs/48_scaled.ipynb", lib_path="bayes_prompt")')
    assert done.returncode == 0, done.stderr
    words = ['backbone=tiny-t5', 'sources=nyt', 'source_steps=2', 'steps=2', 'k=2', 'limit=8', 'method=scaled', 'scaled.factor=1.5', '--out', 'out']
    done = sh('-c', f'from bayes_prompt.cli import bp_run; bp_run({words})')
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)['trainable'] == 1 and len(list((tmp_path/'out').glob('movie-scaled-s0-*.json'))) == 1
