"The site's reference, folds and links, without building it"
import importlib.util, inspect, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'scripts'))
import build_docs


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
    assert 'threshold: 0,' in js.read_text(encoding='utf-8')
