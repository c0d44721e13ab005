"The site's reference, folds and links, without building it"
import importlib.util, inspect, json, re, sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'scripts'))
import build_docs, frames as tables


def example(
    x:int, # Points `[..., d]`, or a | b
    *rest,
    width:float|None=None, # How wide
)->bool: # Is it so?
    "What it does"

def test_a_signature_fits():
    sig = inspect.signature(example)
    assert build_docs.signature('example', sig) == 'example(x, *rest, width=None)'
    def many(first_of_many=1, second_of_many=2, *, third_of_many='three', fourth_of_many='four', fifth=None): pass
    lines = build_docs.signature('many', inspect.signature(many)).splitlines()
    assert max(map(len, lines)) <= build_docs.WIDTH and ' *, third_of_many' in ' '.join(lines)

def test_a_type_is_short():
    assert build_docs.kind('torch._C.Generator | None') == 'Generator | None' and build_docs.kind(float|None) == 'float | None'

def test_an_entry_has_a_table():
    text = build_docs.Reference(example)._repr_markdown_()
    assert '### example' in text and 'What it does' in text
    assert '| <code>width</code> | float \\| None | <code>None</code> | How wide |' in text
    assert '| returns | bool |  | Is it so? |' in text
    assert '`width`' not in text     # nbdev would link a parameter that has the name of a function

def test_what_draws_is_folded():
    cell = dict(cell_type='code', source='#| fig-cap: "A figure"\n#| fig-alt: "What it shows"\nplt.plot()', outputs=[])
    build_docs.fold(cell)
    assert cell['source'].startswith('#| code-fold: true\n#| code-summary: "How this figure is made"')
    plain = dict(cell_type='code', source='x = 1\nx', outputs=[])
    build_docs.fold(plain)
    assert plain['source'] == 'x = 1\nx'

def test_a_long_file_opens_on_demand():
    def shown(source, n):
        cell = dict(cell_type='code', source=source, outputs=[dict(output_type='stream', name='stdout', text=['a < b\n']*n)])
        build_docs.fold(cell)
        return cell['outputs'][0]
    html = shown("print(Path('x.toml').read_text())", 30)['data']['text/html']
    assert html.startswith('<details class="printed"><summary>The file, 30 lines</summary>') and html.count('a &lt; b') == 30
    assert 'data' not in shown("print(Path('x.toml').read_text())", 3) and 'data' not in shown('print(x)', 30)

def test_the_essay_comes_before_the_reference():
    def shown(name, said): return dict(cell_type='code', source='', outputs=[dict(data={'text/markdown': [
        '<a class="source-link" href="x">source</a>\n', '\n', f'### {name}\n', '\n', '```python\n', f'{name}(x)\n', '```\n', '\n', f'{said}\n']})])
    text = dict(cell_type='markdown', source='Why')
    cells = build_docs.layers([text, shown('f', 'Does this'), shown('G.g', 'And that'), dict(cell_type='markdown', source='So')])
    assert [c['source'] for c in cells[:4]] == ['Why', '::: {.entries}\n\n- [`f`](#f): Does this\n- [`G.g`](#g.g): And that\n\n:::', 'So', '## Reference']
    assert [build_docs.entry(c)[0] for c in cells[4:]] == ['f', 'G.g']
    assert build_docs.layers([text]) == [text]

def test_an_svg_becomes_an_image():
    source = '#| fig-cap: "A & B"\n#| fig-alt: "Both"\nSVG(x)'
    cell = dict(cell_type='code', source=source, outputs=[dict(data={'image/svg+xml': ['<svg/>']})])
    build_docs.fold(cell)
    html = cell['outputs'][0]['data']['text/html']
    assert '<figcaption>A &amp; B</figcaption>' in html and 'alt="Both"' in html and '<svg' not in html

def test_a_link_to_no_entry_is_undone(tmp_path):
    (tmp_path/'a.html').write_text('<p id="here"><a href="b.html#f"><code>f</code></a> <a href="b.html#g"><code>g</code></a> <a href="b.html#g">words</a>')
    (tmp_path/'b.html').write_text('<h3 id="f">f</h3>')
    build_docs.unlinked(tmp_path)
    assert (tmp_path/'a.html').read_text() == '<p id="here"><a href="b.html#f"><code>f</code></a> <code>g</code> <a href="b.html#g">words</a>'

def test_no_theme_fetches_a_font(tmp_path):
    (tmp_path/'t.css').write_text('@import url(https://example.org/f?a=1;b);\nbody{}')
    build_docs.alone(tmp_path)
    assert (tmp_path/'t.css').read_text().strip() == 'body{}'

def test_the_search_is_for_the_word_itself(tmp_path):
    "smalldocs' own number is what is replaced"
    smalldocs = importlib.util.find_spec('smalldocs')
    if not smalldocs: return
    (tmp_path/'site_libs').mkdir()
    js = tmp_path/'site_libs/smalldocs.js'
    js.write_text((Path(smalldocs.origin).parent/'assets/smalldocs.js').read_text(encoding='utf-8'), encoding='utf-8')
    build_docs.exact(tmp_path)
    assert 'threshold: 0, useExtendedSearch: true,' in js.read_text(encoding='utf-8')

# Shown code

def test_shown_code_is_narrow():
    "A column of text has 88 letters of code; what is exported is not shown"
    for page, cells in pages().items():
        for c in cells:
            source = ''.join(c['source'])
            if c['cell_type'] != 'code' or re.search('#\\| (hide|export|echo: false)', source): continue
            long = [l for l in source.splitlines() if len(l) > 88 and not l.startswith('#|')]
            assert not long, f'{page} {c["id"]}: break this line: {long[0]}'

def prose(cell):
    "The words of a cell that are no code, table, formula or address"
    text = re.sub(r'```.*?```|(?m:^\|.*\|$)|\$\$.*?\$\$|\$[^$]*\$|<[^>]*>|\]\([^)]*\)', ' ', ''.join(cell['source']), flags=re.S)
    return [w for w in text.split() if re.search(r'\w', w)]

def test_a_page_can_be_read_in_a_few_minutes():
    for page, cells in pages().items():
        n = sum(len(prose(c)) for c in cells if c['cell_type'] == 'markdown')
        assert n <= 1000, f'{page} has {n} words: one claim a page, and each thing once'

# Tables and values

ROOT = Path(__file__).resolve().parents[1]

def pages(): return {f.stem: json.loads(f.read_text(encoding='utf-8'))['cells'] for f in sorted((ROOT/'nbs').glob('*.ipynb'))}

def outputs():
    "(page and cell, source, an output) of every cell whose output a reader sees"
    for page, cells in pages().items():
        for c in cells:
            source = ''.join(c['source'])
            if c['cell_type'] != 'code' or source.startswith('#| hide'): continue
            for o in c['outputs']: yield f'{page} {c["id"]}', source, o

def frames():
    for at, source, o in outputs():
        html = ''.join(o.get('data', {}).get('text/html', ''))
        if 'class="dataframe"' in html: yield at, source, html

def test_a_data_frame_becomes_a_table():
    "One row of headers, the name of the rows in its corner, words for snake_case"
    df = pd.DataFrame({'first_loss': [1.5, None], 'ok': [True, False]}, index=pd.Index(['a', 'b<'], name='method'))
    html = tables.tidy(df._repr_html_(), 'What & why')
    assert html.count('<tr>') == 3 and '<caption><span>What &amp; why</span></caption>' in html
    assert '<th scope="col" class="side">method</th><th scope="col">first loss</th>' in html
    assert '<th scope="row">b&lt;</th><td></td><td>no</td>' in html and '<td class="number">1.5</td><td>yes</td>' in html

def test_a_table_keeps_its_groups():
    columns = pd.MultiIndex.from_product([['PT', 'BPT'], ['published', 'ours']])
    rows = pd.MultiIndex.from_tuples([('x', 1), ('x', 2), ('y', 1)])
    html = tables.tidy(pd.DataFrame(0, rows, columns)._repr_html_(), rows='task, seed')
    assert '<th scope="colgroup" colspan="2">PT</th>' in html and '<th scope="rowgroup" rowspan="2">x</th>' in html
    assert '<th scope="col" class="side">task</th><th scope="col" class="side">seed</th>' in html

def test_the_names_of_rows_and_of_numbers_above_them_meet_in_the_corner():
    df = pd.DataFrame([[1, 2]], pd.Index(['plain'], name='way'), pd.Index([4, 8], name='M'))
    assert '<th scope="col" class="side">way \\ M</th><th scope="col">4</th>' in tables.tidy(df._repr_html_())

def test_a_wide_table_is_cut_into_pieces():
    df = pd.DataFrame([['a text of some length']*12], ['row'], [f'column {i}' for i in range(12)])
    html = tables.tidy(df._repr_html_(), 'Once')
    n = html.count('<table')
    assert n > 1 and html.count('Once') == 1 and html.count('scope="row">row</th>') == n
    assert [f'>column {i}</th>' in html for i in range(12)] == [True]*12

def test_every_table_says_what_it_shows():
    "In a caption, and its rows and columns have names that are no numbers"
    for at, source, html in frames():
        assert build_docs.option(source, 'tbl-cap'), f'{at}: a table without a `#| tbl-cap: "what it shows"`'
        table, rows = tables.read(html), build_docs.option(source, 'tbl-rows')
        named = rows or table.names[-1]
        labels = [labels[-1] for labels, _ in table.rows]
        assert named or not all(re.fullmatch(r'[\d.]+', x) for x in labels), f'{at}: rows that are numbers without a name; name the index'
        heads = table.heads[-1]
        numbers = all(re.fullmatch(r'[\d.]+', h) for h in heads)
        assert '\\' in table.names[-1] or not numbers, f'{at}: columns that are numbers without a name; name the columns'

def test_values_have_names():
    "A value at the end of a cell is rounded, and says in words what it is, unless the line above does"
    for at, source, o in outputs():
        text = ''.join(o.get('data', {}).get('text/plain', '')) if 'text/html' not in o.get('data', {}) else ''
        if not text or 'image/svg+xml' in o['data'] or 'image/png' in o['data'] or 'text/markdown' in o['data']: continue
        assert 'dtype: ' not in text, f'{at}: a printed Series; show it as a table or in a sentence'
        assert not re.search(r'\d\.\d{6,}', text), f'{at}: {text[:60]!r} has more digits than anybody reads'
        assert len(text) < 120 or 'tensor(' not in text, f'{at}: a printed tensor; show it as a table'
        assert re.search('[^\\W\\d_e]', text) or len(text) < 60, f'{at}: {text[:60]!r} are numbers without names'
