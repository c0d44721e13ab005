"Files that state the same thing twice agree"
import json, re, subprocess, sys
from configparser import ConfigParser
from pathlib import Path
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'scripts'))
import build_readme, check_dependencies, check_links

def read(f): return (ROOT/f).read_text(encoding='utf-8')
def lines(f): return [l for l in read(f).splitlines() if l and not l.startswith('#')]
def settings():
    c = ConfigParser(delimiters=['='])
    c.read(ROOT/'settings.ini', encoding='utf-8')
    return c['DEFAULT']
def requirements(): return [Requirement(r) for k in ('requirements', 'dev_requirements', 'bench_requirements', 'log_requirements') for r in settings()[k].split()]
def readme_block(mark):
    "The code block after a line `<!-- mark -->`"
    return re.search(rf'^<!-- {mark} -->\n```\w*\n(.*?)\n```$', read('README.md'), re.M | re.S)[1]
def pages(): return {f.name: json.loads(f.read_text(encoding='utf-8')) for f in sorted((ROOT/'nbs').glob('*.ipynb'))}

def test_requirements_are_pinned():
    pins = {}
    for p in map(Requirement, lines('constraints.txt')):
        assert re.fullmatch(r'==[\w.]+', str(p.specifier)) and not p.url and not p.extras, f'{p}: expected one exact version'
        pins.setdefault(canonicalize_name(p.name), []).append(p)
    for r in requirements():
        ps = pins.get(canonicalize_name(r.name))
        assert ps, f'{r.name} is not in constraints.txt'
        for p in ps: assert r.specifier.contains(str(p.specifier)[2:]), f'{p} does not meet {r}'
        if not r.marker:
            for py in ('3.10', '3.11', '3.12', '3.13'):
                assert sum(not p.marker or p.marker.evaluate({'python_version': py}) for p in ps) == 1, f'{r.name}: expected one pin for Python {py}'

def test_contributing():
    text = read('CONTRIBUTING.md')
    assert len(text.splitlines()) < 200
    why = text.split('## Why each dependency')[1]
    for r in requirements(): assert re.search(rf'(?<![\w-]){re.escape(r.name)}(?![\w-])', why), f'CONTRIBUTING.md does not say why {r.name} is there'
    for f, nb in pages().items():
        assert f'`{f[:-6]}`' in text, f'{f} is not in the map'
        for m in re.findall(r'^#\|\s*default_exp\s+([\w.]+)', '\n'.join(''.join(c['source']) for c in nb['cells'] if c['cell_type'] == 'code'), re.M):
            assert f'`{m}`' in text, f'{m} is not in the map'

def test_the_sidebar_has_every_page():
    side = re.findall(r'^\s+(?:- |href: )(\S+\.ipynb)$', read('_quarto.yml').split('  sidebar:')[1], re.M)
    assert len(side) == len(set(side)) and set(side) == set(pages())

def test_first_cells():
    "nbdev keeps only title and description of the first cell"
    for f, nb in pages().items():
        src = ''.join(nb['cells'][0]['source']).strip()
        assert re.fullmatch(r'# [^\n]+\n\n> [^\n]+', src), f'{f}: expected "# Title", an empty line and "> one line" in the first cell, and nothing else'

def test_readme_commands_are_those_of_ci():
    test = readme_block('test')
    assert subprocess.run(['bash', ROOT/'.ci/run', '--commands'], capture_output=True, text=True, check=True).stdout == test + '\n'
    assert test.splitlines()[0] == 'python3 -m venv .venv && . .venv/bin/activate'
    assert [c.removeprefix('OMP_NUM_THREADS=1 ').split()[0] for c in test.replace(' && ', '\n').splitlines()] == ['python3', '.', 'pip', 'nbdev_test', 'pytest']
    assert re.search(r'^ +- run: \.ci/run\b', read('.github/workflows/test.yaml'), re.M)
    for block in (test, readme_block('demo')): assert 'pip install -c constraints.txt -e ' in block
    commands = dict(c.split('=') for c in settings()['console_scripts'].split())
    assert readme_block('demo').split()[-1] in commands

def test_one_version_and_licence():
    v = settings()['version']
    assert f'\nversion: {v}\n' in read('CITATION.cff') and f'__version__ = "{v}"' in read('bayes_prompt/__init__.py')
    assert 'license: Apache-2.0' in read('CITATION.cff') and 'Apache License' in read('LICENSE')

@pytest.mark.parametrize('ref,bad', [('b.html', 0), ('b.html#x', 0), ('#here', 0), ('https://example.org/nowhere', 0), ('c.html', 1), ('b.html#y', 1), ('b.ipynb', 1)])
def test_check_links(tmp_path, ref, bad):
    (tmp_path/'a.html').write_text(f'<p id="here"><a href="{ref}">')
    (tmp_path/'b.html').write_text('<p id="x">')
    assert len(check_links.broken(tmp_path)) == bad

def test_readme_figures():
    "An image among the outputs becomes a file beside the notebooks, and a link to it"
    drawn, png = [], dict(data={'image/png': 'AAEC\n', 'text/plain': ['<Figure>']})
    said = build_readme.output_md(png, drawn, '#| fig-cap: "A caption"\n#| fig-alt: "A description"')
    assert [said, build_readme.output_md(dict(text=['a\n', 'b\n']), drawn)] == ['![A description](images/index_1.png)\n\n*A caption*', '    a\n    b']
    assert drawn == [('index_1.png', b'\0\1\2')]

def figures():
    "Page, cell and options of every figure that a page shows"
    for page, nb in pages().items():
        for c in nb['cells']:
            if not any(m.startswith('image/') for o in c.get('outputs', []) for m in o.get('data', {})): continue
            options = dict(re.findall(r'^#\| ([\w-]+): (.*)$', ''.join(c['source']), re.M))
            yield f'{page} {c["id"]}', {k: json.loads(v) if v.startswith('"') else v for k, v in options.items()}

def test_every_figure_says_what_it_shows():
    "A caption for who sees it, other words for who does not; no maths, which is not rendered there"
    found = list(figures())
    assert found
    for where, o in found:
        cap, alt = o.get('fig-cap', ''), o.get('fig-alt', '')
        assert len(cap) > 20 and len(alt) > 20 and cap != alt, f'{where}: expected #| fig-cap: "..." and #| fig-alt: "..." at the top of the cell'
        assert not set('$`') & set(cap + alt), f'{where}: no maths and no code in a caption'

def test_a_name_links_itself():
    "A name in backticks becomes a link of the reference; within a link of the page's own, both are broken"
    cells = [(f.name, ''.join(c['source'])) for f in (ROOT/'nbs').glob('*.ipynb') for c in json.loads(f.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'markdown']
    assert [(name, m.group()) for name, text in cells for m in re.finditer(r'\[`[\w.]+`\]\(\d\d\w?_\w+\.ipynb', text)] == []

@pytest.mark.parametrize('said, known', [('MIT', True), ('Apache-2.0 AND MIT', True), ('GNU General Public License v3 (GPLv3)', False), ('says nothing', False), (None, True)])
def test_licences(said, known): assert (check_dependencies.unknown(dict(p=said)) == {}) == known

def test_an_audit_that_is_not_possible_is_said(monkeypatch):
    done = lambda *a, **k: type('Done', (), dict(returncode=1, stdout='', stderr='No module named pip_audit'))
    monkeypatch.setattr(check_dependencies.subprocess, 'run', done)
    assert check_dependencies.audit(Path('constraints.txt')) == ('vulnerabilities: skipped, pip-audit is not installed', False)
