"""Build the docs site into `_docs/`.

With Quarto on the PATH the processed notebooks are rendered by it. Without it, or with `--no-quarto`, the same notebooks and the
same `_quarto.yml` are rendered by `smalldocs`, which needs nothing but Python. Either way the site asks no other host for anything.
"""
import base64, html, inspect, json, os, re, shutil, subprocess, sys, tarfile, tempfile, textwrap
from pathlib import Path

from fastcore.docments import docments
from nbdev import processors, showdoc
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup, _nbpath2html
from nbdev.serve import proc_nbs

from build_readme import option
from frames import tidy

CDN = re.compile(r'https://cdn\.jsdelivr\.net/npm/katex@([\d.]+)/dist')
KATEX = re.compile(r'package/(LICENSE|dist/(katex\.min\.(css|js)|contrib/auto-render\.min\.js|fonts/[\w-]+\.woff2))')
FONT = re.compile(r'@import\s+url\(["\']?https?:[^)]*\)\s*;')
WIDTH = 84
EMPTY = inspect.Parameter.empty


def kind(anno):
    "An annotation as a reader writes it: `Generator | None`, not `torch._C.Generator | None`"
    if anno is EMPTY: return ''
    return re.sub(r'\b(?:\w+\.)+(?=\w)', '', anno if isinstance(anno, str) else inspect.formatannotation(anno)).strip("'")


def value(default):
    "A default as it is written"
    return '' if default is EMPTY else getattr(default, '__name__', None) or repr(default)


def signature(name, sig):
    "On one line, or as many parameters a line as fit"
    ps = [p for p in sig.parameters.values() if p.name != 'self']
    words = [str(p.replace(annotation=EMPTY, default=EMPTY)) + ('' if p.default is EMPTY else f'={value(p.default)}') for p in ps]
    kinds = [p.kind for p in ps]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        words.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), '*')
    return '\n'.join(textwrap.wrap(f'{name}({", ".join(words)})', WIDTH, subsequent_indent=' '*4, break_long_words=False, break_on_hyphens=False))


def code(text):
    "As code that is no link: nbdev links what stands in backticks, and a parameter may have the name of a function"
    return text and f'<code>{"".join(c if c.isalnum() or c in " ." else f"&#{ord(c)};" for c in text)}</code>'


def cells(*words): return '| ' + ' | '.join(str(w).replace('\n', ' ').replace('|', '\\|') for w in words) + ' |'


class Reference(showdoc.BasicMarkdownRenderer):
    "The entry of a symbol: its signature, what it does, and a table of its parameters"
    def rows(self):
        known = docments(self.sym, full=True, returns=False) if self.sig else {}
        for name, p in (self.sig.parameters if self.sig else {}).items():
            if name == 'self': continue
            said = (known.get(name) or {}).get('docment') or ''
            star = {p.VAR_POSITIONAL: '*', p.VAR_KEYWORD: '**'}.get(p.kind, '')
            yield code(star + name), kind(p.annotation), code(value(p.default)), said

    def _repr_markdown_(self):
        source = NbdevLookup().code(self.fn)
        out = [f'<a class="source-link" href="{source}" aria-label="Source of {self.nm}">source</a>'] if source else []
        out.append(f'{"#"*self.title_level} {self.nm}')
        if self.sig: out.append(f'```python\n{signature(self.nm.rpartition(".")[2], self.sig)}\n```')
        if self.docs: out.append(self.docs)
        rows = list(self.rows())
        returns = (docments(self.sym, full=True).get('return') or {}) if self.sig else {}
        if any(r[3] for r in rows) or returns.get('docment'):
            table = rows + ([('returns', kind(self.sig.return_annotation), '', returns['docment'])] if returns.get('docment') else [])
            heads = ['Parameter', 'Type', 'Default', 'Meaning']
            keep = [i for i, h in enumerate(heads) if any(r[i] for r in table)]
            out.append('\n'.join([cells(*(heads[i] for i in keep)), cells(*('---' for _ in keep))] + [cells(*(r[i] for i in keep)) for r in table]))
        return '\n\n'.join(out)


def process():
    "The notebooks as nbdev prepares them, with this reference, in the order of the source"
    showdoc.BasicMarkdownRenderer = Reference
    names = processors._def_names
    processors._def_names = lambda cell, shown: list(names(cell, shown))[::-1]    # nbdev inserts each behind the cell, so the last comes first
    cache = proc_nbs(force=True, n_workers=0)
    for f in cache.rglob('*.ipynb'):
        if '_docs' in f.parts: continue
        nb = json.loads(f.read_text(encoding='utf-8'))
        for c in nb['cells']: fold(c)
        nb['cells'] = layers(nb['cells'])
        f.write_text(json.dumps(nb), encoding='utf-8')
    return cache


def entry(cell):
    "Name and first sentence of a cell that is an entry of the reference"
    for o in cell.get('outputs', []):
        text = ''.join(o.get('data', {}).get('text/markdown', ''))
        if 'class="source-link"' not in text: continue
        name = re.search(r'^### (.+)$', text, re.M)[1]
        said = re.search(r'^```\n\n([^|\n].*)$', text, re.M)
        return name, said[1] if said else ''


def layers(cells):
    "First the essay, in which a line stands where a symbol is defined; then the reference, in the order of the source"
    essay, reference = [], []
    for c in cells:
        if not (found := entry(c)):
            essay.append(c)
            continue
        reference.append(c)
        line = f'- [`{found[0]}`](#{found[0].lower()})' + f': {found[1]}'*bool(found[1])
        if essay and essay[-1].get('entries'): essay[-1]['entries'].append(line)
        else: essay.append(dict(cell_type='markdown', metadata={}, entries=[line]))
    for c in essay:
        if lines := c.pop('entries', None): c['source'] = '::: {.entries}\n\n' + '\n'.join(lines) + '\n\n:::'
    heading = dict(cell_type='markdown', metadata={}, source='## Reference')
    return essay + [heading]*bool(reference) + reference


def drawing(cell, source):
    "An SVG among the outputs as an image, whose ids cannot meet those of another"
    for o in cell.get('outputs', []):
        if 'image/svg+xml' not in (data := o.get('data', {})): continue
        svg = data['image/svg+xml']
        src = base64.b64encode(''.join(svg).encode()).decode()
        cap, alt = (html.escape(option(source, k)) for k in ('fig-cap', 'fig-alt'))
        o['data'] = {'text/html': f'<div class="quarto-figure quarto-figure-center"><figure class="figure"><p><img class="img-fluid" '
                                  f'alt="{alt}" src="data:image/svg+xml;base64,{src}"></p><figcaption>{cap}</figcaption></figure></div>'}


def tabled(cell, source):
    "Data frames among the outputs as tables with a caption"
    for o in cell.get('outputs', []):
        found = ''.join(o.get('data', {}).get('text/html', ''))
        if 'class="dataframe"' in found: o['data'] = {'text/html': tidy(found, option(source, 'tbl-cap'), option(source, 'tbl-rows'))}
    cell['source'] = re.sub(r'(?m)^#\| tbl-\w+: .*\n', '', source)


def printed(cell, source):
    "A file that a cell prints is long: it opens on demand"
    if '.read_text(' not in source: return
    for i, o in enumerate(cell.get('outputs', [])):
        lines = ''.join(o.get('text', '')).rstrip().splitlines()
        if len(lines) < 18: continue
        text = html.escape('\n'.join(lines), quote=False)
        shown = f'<details class="printed"><summary>The file, {len(lines)} lines</summary><pre><code>{text}</code></pre></details>'
        cell['outputs'][i] = dict(output_type='display_data', metadata={}, data={'text/html': shown})


def fold(cell):
    "What draws a figure, and imports, are folded: the figure is what is looked at"
    source = cell['source'] if isinstance(cell['source'], str) else ''.join(cell['source'])
    if cell['cell_type'] == 'code':
        drawing(cell, source)
        tabled(cell, source)
        printed(cell, source)
        source = cell['source']
    if cell['cell_type'] != 'code' or 'code-fold:' in source or 'echo: false' in source: return
    lines = [l for l in source.splitlines() if l.strip() and not l.startswith('#')]
    drawn = 'fig-cap:' in source
    imports = lines and all(re.match(r'(from|import) |\s+\w', l) for l in lines)
    summary = 'How this figure is made' if drawn else 'Imports' if imports else ''
    if summary: cell['source'] = f'#| code-fold: true\n#| code-summary: "{summary}"\n{source}'


def rename(txt, names):
    "Links to notebooks, as links to the notebooks' pages"
    for old, new in names.items(): txt = re.sub(rf'(?<![\w/]){re.escape(old)}', new, txt)
    return txt


def katex(site):
    "Put KaTeX beside the pages so that maths shows offline; without npm they load it from a CDN"
    pages = {p: p.read_text(encoding='utf-8') for p in site.rglob('*.html')}
    versions = {v for t in pages.values() for v in CDN.findall(t)}
    if not versions: return
    if not shutil.which('npm'): return print('no npm: maths needs the network')
    version, = versions
    lib = site/'site_libs/katex'
    with tempfile.TemporaryDirectory() as tmp:
        got = subprocess.run(['npm', 'pack', '--silent', f'katex@{version}', '--pack-destination', tmp], capture_output=True, text=True)
        if got.returncode: return print(f'npm could not fetch KaTeX, maths needs the network: {got.stderr.strip()}')
        with tarfile.open(next(Path(tmp).glob('*.tgz'))) as tar:
            for m in tar.getmembers():
                if not (f := KATEX.fullmatch(m.name)): continue
                to = lib/f[1].removeprefix('dist/')
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(tar.extractfile(m).read())
    for p, txt in pages.items(): p.write_text(CDN.sub(Path(os.path.relpath(lib, p.parent)).as_posix(), txt), encoding='utf-8')


def unlinked(site):
    "nbdev links each name that is exported; where its page has no entry of it, the name stays code"
    pages = {p.name: p.read_text(encoding='utf-8') for p in site.glob('*.html')}
    ids = {name: set(re.findall(r'\bid="([^"]+)"', text)) for name, text in pages.items()}
    for name, text in pages.items():
        def keep(m): return m[0] if m[2] in ids.get(m[1] or name, {m[2]}) else m[3]
        (site/name).write_text(re.sub(r'<a href="([\w.]*)#([^"]+)">(<code>[^<]*</code>)</a>', keep, text), encoding='utf-8')


def alone(site):
    "No font of a theme from another host, no KaTeX from one"
    for css in site.rglob('*.css'):
        text = css.read_text(encoding='utf-8')
        if FONT.search(text): css.write_text(FONT.sub('', text), encoding='utf-8')
    katex(site)


def exact(site):
    "smalldocs searches for words like the one that is typed, so that \"Stein\" finds \"Listening\" first: here for the word itself, and for all of several"
    js = site/'site_libs/smalldocs.js'
    if js.exists(): js.write_text(js.read_text(encoding='utf-8').replace('threshold: 0.3', 'threshold: 0, useExtendedSearch: true'), encoding='utf-8')


def by_quarto(cache): subprocess.run(['quarto', 'render', '--no-cache'], cwd=cache, check=True)


def by_smalldocs(cache, cfg):
    nbs = sorted(p.relative_to(cache) for p in cache.rglob('*.ipynb') if '_docs' not in p.parts)
    if not nbs: sys.exit(f'no processed notebooks in {cache} (is a parent folder hidden?)')
    # smalldocs names pages after files and ignores `output-file:`, so name the files as nbdev names the pages
    names = {p.as_posix(): _nbpath2html(p).with_suffix('.ipynb').as_posix() for p in nbs}
    if len(set(names.values())) < len(names): sys.exit(f'two notebooks want one page: {sorted(names.values())}')
    for old, new in names.items():
        txt = re.sub(r'"output-file: [^"]*",?\s*', '', (cache/old).read_text(encoding='utf-8'))
        (cache/old).unlink()
        (cache/new).write_text(rename(txt, names), encoding='utf-8')
    yml = cache/'_quarto.yml'
    yml.write_text(rename(yml.read_text(encoding='utf-8'), names), encoding='utf-8')
    subprocess.run([sys.executable, '-m', 'smalldocs.cli', 'render', str(cache)], check=True)
    missing = [n for n in names.values() if not (cache/cfg.doc_path.name/n).with_suffix('.html').exists()]
    if missing: sys.exit(f'not rendered: {missing}')


def main():
    cfg = get_config()
    cache = process()
    site = f'{cfg.doc_host}{cfg.doc_baseurl}/'
    for f in cache.rglob('*.ipynb'): f.write_text(f.read_text(encoding='utf-8').replace(site, ''), encoding='utf-8')
    if shutil.which('quarto') and '--no-quarto' not in sys.argv: by_quarto(cache)
    else: by_smalldocs(cache, cfg)
    shutil.rmtree(cfg.doc_path, ignore_errors=True)
    shutil.move(cache/cfg.doc_path.name, cfg.config_path)
    unlinked(cfg.doc_path)
    alone(cfg.doc_path)
    exact(cfg.doc_path)


if __name__ == '__main__': main()
