"The dependency rule: pages are read in order, so a module imports only modules of earlier pages. Nothing is imported to check it"
import ast, json, re, subprocess, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[1]
PKG = 'bayes_prompt'
ONLY = {'gaussian': set(), 'svgd': {'options', 'settings'}, 'collapse': {'settings', 'svgd'}} # theory never sees a language model
NO_TORCH = {'options', 'settings', 'tasks', 'metrics', 'statistics', 'config', 'experiment', 'results', 'style'}  # nor does anything of ours that they import

def module_order(nbs):
    "Modules in the order of their pages"
    order = []
    for f in sorted(Path(nbs).glob('*.ipynb')):
        src = ''.join(''.join(c['source']) + '\n' for c in json.loads(f.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code')
        order += re.findall(r'^#\|\s*default_exp\s+([\w.]+)', src, re.M)
    return order

def imported(lib, mod):
    "Dotted names of all that a module imports, at the top or inside a function; ours without the package's name but with a leading dot"
    here, out = [PKG, *mod.split('.')][:-1], set()
    for n in ast.walk(ast.parse((Path(lib)/(mod.replace('.', '/') + '.py')).read_text(encoding='utf-8'))):
        if isinstance(n, ast.Import): out |= {a.name for a in n.names}
        elif isinstance(n, ast.ImportFrom):
            base = '.'.join(here[:len(here)-n.level+1] + ([n.module] if n.module else [])) if n.level else n.module
            out |= {base} | {f'{base}.{a.name}' for a in n.names}
    return {o.removeprefix(PKG) if o.startswith(PKG + '.') else o for o in out}

def violations(nbs, lib):
    "One message for each broken rule"
    order = module_order(nbs)
    have = {'.'.join(f.relative_to(lib).with_suffix('').parts) for f in Path(lib).rglob('*.py') if not f.name.startswith('_')}
    bad = [f'{m}: no page exports it' for m in sorted(have - set(order))] + [f'{m}: two pages export it' for m in sorted({m for m in order if order.count(m) > 1})]
    deps = {m: imported(lib, m) for m in order if m in have}
    ours = {m: {d[1:] for d in ds if d[1:] in have and d[0] == '.'} for m, ds in deps.items()}
    for m in deps:
        for d in sorted(ours[m]):
            if d not in order[:order.index(m)]: bad.append(f'{m} imports {d}, whose page is not earlier')
            if d not in ONLY.get(m, {d}): bad.append(f'{m} imports {d}, but is to import only {sorted(ONLY[m])} of ours')
            if m.startswith('baselines.') and d.startswith('baselines.'): bad.append(f'{m} imports {d}: baselines never import each other')
        if m in NO_TORCH:
            seen, todo = set(), [m]
            while todo:
                if (d := todo.pop()) in seen: continue
                seen.add(d); todo += ours.get(d, ())
            bad += [f'{m} brings torch through {d}' for d in sorted(seen) if any(o.split('.')[0] == 'torch' for o in deps.get(d, ()))]
    return bad

def loaded(code, names, cwd=ROOT):
    "Which of `names` are loaded after `code` has run in a new process"
    out = subprocess.run([sys.executable, '-c', f'{code}\nimport sys; print(*({set(names)!r} & sys.modules.keys()))'], cwd=cwd, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return set(out.stdout.split())

def test_rule(): assert module_order(ROOT/'nbs') and violations(ROOT/'nbs', ROOT/PKG) == []

def test_package_is_light(): assert loaded(f'import {PKG}', ['torch', 'transformers', 'datasets', 'pandas', 'matplotlib']) == set()

@pytest.mark.parametrize('module', ['results', 'verdicts', 'config', 'cli', 'sweep'])
def test_no_torch_before_work_begins(module): assert loaded(f'import {PKG}.{module}', ['torch', 'transformers']) == set()

def test_loaded_sees(): assert loaded('import json', ['json', 'torch']) == {'json'}

# a package in which all is well, and one change for each rule
GOOD = {'gaussian': 'import torch', 'svgd': 'import torch', 'tasks': 'import csv', 'data': 'from .tasks import x', 'train': f'from {PKG}.data import x\nimport {PKG}',
        'baselines.a': 'from ..train import x', 'baselines.b': f'def f():\n    from {PKG}.train import x', 'results': 'from . import tasks'}

def make(root, mods, skip=()):
    for i, (m, src) in enumerate(mods.items()):
        f = root/PKG/(m.replace('.', '/') + '.py')
        f.parent.mkdir(parents=True, exist_ok=True)
        f.write_text(src)
        cell = dict(cell_type='code', source=[f'#| default_exp {m}\n', 'x = 1'])
        (root/'nbs').mkdir(exist_ok=True)
        if m not in skip: (root/'nbs'/f'{i:02d}_{m}.ipynb').write_text(json.dumps(dict(cells=[cell])))
    return violations(root/'nbs', root/PKG)

def test_good(tmp_path): assert make(tmp_path, GOOD) == []

@pytest.mark.parametrize('mod,src,message', [
    ('tasks', 'from .data import x', 'tasks imports data, whose page is not earlier'),
    ('tasks', f'import {PKG}.data', 'tasks imports data, whose page is not earlier'),
    ('data', f'def f():\n    from {PKG} import train', 'data imports train, whose page is not earlier'),
    ('train', 'from .baselines.a import x', 'train imports baselines.a, whose page is not earlier'),
    ('train', 'from . import train', 'train imports train, whose page is not earlier'),
    ('svgd', 'from .gaussian import x', "svgd imports gaussian, but is to import only ['options', 'settings'] of ours"),
    ('baselines.b', 'from .a import x', 'baselines.b imports baselines.a: baselines never import each other'),
    ('results', 'def f(): import torch.nn', 'results brings torch through results'),
    ('results', 'from .gaussian import x', 'results brings torch through gaussian')])
def test_broken(tmp_path, mod, src, message): assert message in make(tmp_path, GOOD | {mod: src})

def test_through_another(tmp_path):
    assert make(tmp_path, GOOD | {'data': 'import torch\nfrom .tasks import x', 'results': 'from .train import x'}) == ['results brings torch through data']

def test_no_page(tmp_path): assert make(tmp_path, GOOD, skip=['data'])[0] == 'data: no page exports it'

# ---- what a page may hold

def exports(page):
    "Its cells that export publicly"
    nb = json.loads(page.read_text(encoding='utf-8'))
    sources = [''.join(c['source']) for c in nb['cells'] if c['cell_type'] == 'code']
    return [s for s in sources if re.match(r'#\|\s*export\s*$', s.splitlines()[0] if s else '')]

def public(source):
    "Names that a cell defines at its top and that do not begin with an underscore"
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): found.append(node.name)
        elif isinstance(node, ast.Assign): found += [t.id for t in node.targets if isinstance(t, ast.Name)]
    return [n for n in found if not n.startswith('_')]

def test_public_names_are_unique():
    "Backticks in the docs resolve by name"
    owners = {}
    for page in sorted((ROOT/'nbs').glob('*.ipynb')):
        for name in {n for cell in exports(page) for n in public(cell) if not is_patch(cell)}: owners.setdefault(name, []).append(page.name)
    assert {n: o for n, o in owners.items() if len(o) > 1} == {}

def is_patch(cell): return '@patch' in cell

def test_one_public_symbol_a_cell():
    "The API lists the symbols of a cell backwards"
    many = {f'{page.name}: {public(cell)}' for page in sorted((ROOT/'nbs').glob('*.ipynb')) for cell in exports(page) if len(public(cell)) > 1 and not is_patch(cell)}
    assert many == set()

def test_no_page_exports_itself_or_star_imports():
    for page in sorted((ROOT/'nbs').glob('*.ipynb')):
        text = page.read_text(encoding='utf-8')
        assert 'nbdev_export()' not in text and 'import *' not in text, page.name
