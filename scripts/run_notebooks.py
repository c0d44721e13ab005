"""Run notebooks in place and keep their outputs, with nbdev's own runner (no Jupyter kernel).

    python scripts/run_notebooks.py [nbs/04_svgd.ipynb ...]     all of them unless named

Cells marked `#| eval: false` or with a flag from `tst_flags` are left as they are. A notebook that fails stays untouched.
"""
import sys
from pathlib import Path

from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell
from fastcore.xtras import working_directory
from nbdev.config import get_config
from nbdev.doclinks import nbglob


def directives(src):
    "The `#|` lines at the top of a cell, as a dict"
    d = {}
    for l in src.splitlines():
        if not l.startswith('#|'): break
        k, _, v = l[2:].strip().partition(' ')
        d[k] = v.strip()
    return d


def run(fn, skip):
    nb, sh = read_nb(fn), CaptureShell(fn)
    def skip_cell(c):
        if c.cell_type != 'code' or 'nbdev_export(' in c.source: return True
        d = directives(c.source)
        if d.get('eval:') == 'false' or skip & d.keys(): return True
        c.outputs = []   # the runner keeps the old ones where a cell now prints nothing
    with working_directory(fn.parent): sh.run_all(nb, exc_stop=True, preproc=skip_cell)
    write_nb(nb, fn)
    print('ran', fn.name)


if __name__ == '__main__':
    skip = set(get_config().tst_flags.split())
    for f in [Path(o) for o in sys.argv[1:]] or nbglob(as_path=True): run(f.absolute(), skip)
