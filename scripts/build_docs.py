"""Build the docs site into `_docs/`.

With Quarto on the PATH this is `nbdev_docs`. Without it, or with `--no-quarto`, the same processed notebooks and the
same `_quarto.yml` are rendered by `smalldocs`, which needs nothing but Python.
"""
import os, re, shutil, subprocess, sys, tarfile, tempfile
from pathlib import Path

from nbdev.config import get_config
from nbdev.doclinks import _nbpath2html
from nbdev.serve import proc_nbs

CDN = re.compile(r'https://cdn\.jsdelivr\.net/npm/katex@([\d.]+)/dist')
KATEX = re.compile(r'package/(LICENSE|dist/(katex\.min\.(css|js)|contrib/auto-render\.min\.js|fonts/[\w-]+\.woff2))')


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


def main():
    cfg = get_config()
    if shutil.which('quarto') and '--no-quarto' not in sys.argv: return subprocess.run(['nbdev_docs'], check=True)
    cache = proc_nbs(force=True, n_workers=0)
    nbs = sorted(p.relative_to(cache) for p in cache.rglob('*.ipynb') if '_docs' not in p.parts)
    if not nbs: sys.exit(f'no processed notebooks in {cache} (is a parent folder hidden?)')
    # smalldocs names pages after files and ignores `output-file:`, so name the files as nbdev names the pages
    names = {p.as_posix(): _nbpath2html(p).with_suffix('.ipynb').as_posix() for p in nbs}
    if len(set(names.values())) < len(names): sys.exit(f'two notebooks want one page: {sorted(names.values())}')
    site = f'{cfg.doc_host}{cfg.doc_baseurl}/'
    for old, new in names.items():
        txt = (cache/old).read_text(encoding='utf-8').replace(site, '')
        txt = re.sub(r'"output-file: [^"]*",?\s*', '', txt)
        (cache/old).unlink()
        (cache/new).write_text(rename(txt, names), encoding='utf-8')
    yml = cache/'_quarto.yml'
    yml.write_text(rename(yml.read_text(encoding='utf-8'), names), encoding='utf-8')
    subprocess.run([sys.executable, '-m', 'smalldocs.cli', 'render', str(cache)], check=True)
    shutil.rmtree(cfg.doc_path, ignore_errors=True)
    shutil.move(cache/cfg.doc_path.name, cfg.config_path)
    missing = [n for n in names.values() if not (cfg.doc_path/n).with_suffix('.html').exists()]
    if missing: sys.exit(f'not rendered: {missing}')
    katex(cfg.doc_path)


if __name__ == '__main__': main()
