#!/usr/bin/env bash
# nbdev 2.4.14 cannot index a patched method whose arguments are all positional-only.
#
# Versions: nbdev 2.4.14, fastcore 1.14.5, execnb 0.1.18, fastgit 0.0.6, ghapi 1.1.1 (companions as nbdev 2 needs them); Python 3.11
# Expected: fastcore's @patch takes `def shout(self:Greeter, word, /)` as Python does, and nbdev_export exports and indexes it.
# Behaviour: fastcore patches the class as it should. nbdev writes the module too, and then ends with an IndexError while it builds
#   _modidx.py: it looks for the class in the annotation of the first of `args.args`, where positional-only arguments do not stand.
#   Nothing of the index is written. With one ordinary argument in front of nothing (`def shout(self:Greeter, word)`) all is well.
# Seen: "IndexError: list index out of range" from nbdev/doclinks.py, patch_name
# Exit status 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'nbdev==2.4.14' 'execnb>=0.1.18,<0.2' 'fastcore==1.14.5' 'fastgit<0.1' 'ghapi<2' setuptools
cd "$work"
cat > settings.ini <<'INI'
[DEFAULT]
repo = greet
lib_name = greet
version = 0.0.1
min_python = 3.10
license = apache2
doc_path = _docs
lib_path = greet
nbs_path = nbs
recursive = True
tst_flags = notest
put_version_in_init = True
branch = main
user = nobody
author = Nobody
author_email = nobody@example.org
copyright = nobody
description = a greeting
audience = Developers
language = English
keywords = greet
status = 1
title = greet
doc_host = https://example.org
doc_baseurl = /greet
git_url = https://example.org/greet
INI
mkdir nbs
"$work/venv/bin/python" - <<'PY'
import json
def notebook(signature):
    code = ['#| default_exp core',
            '#| export\nfrom fastcore.basics import patch',
            '#| export\nclass Greeter: pass',
            f'#| export\n@patch\ndef shout({signature}): return word.upper()']
    cells = [dict(cell_type='code', id=f'c{i}', metadata={}, outputs=[], execution_count=None, source=s) for i, s in enumerate(code)]
    meta = dict(kernelspec=dict(name='python3', display_name='python3', language='python'))
    return json.dumps(dict(cells=cells, metadata=meta, nbformat=4, nbformat_minor=5))
open('ordinary.json', 'w').write(notebook('self:Greeter, word'))
open('positional.json', 'w').write(notebook('self:Greeter, word, /'))
PY
cp ordinary.json nbs/00_core.ipynb
"$work/venv/bin/nbdev_export"
grep -q Greeter.shout greet/_modidx.py || { echo 'changed: the ordinary method is not in the index'; exit 1; }
cp positional.json nbs/00_core.ipynb
said=$("$work/venv/bin/nbdev_export" 2>&1 | tail -1) || true
echo "nbdev_export ends with: $said"
PYTHONPATH="$work" "$work/venv/bin/python" -c 'from greet.core import Greeter; print("Python itself:", Greeter().shout("hello"))'
[ "$said" = 'IndexError: list index out of range' ] || { echo 'changed: another ending than the one above'; exit 1; }
