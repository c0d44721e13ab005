"""Known vulnerabilities and licences of the pinned packages: `python scripts/check_dependencies.py [--licences]`.

Vulnerabilities are looked up by pip-audit in constraints.txt where it is installed and the index answers; else one line says that this
was skipped. Licences are read from the metadata of what is installed, so they need no network; those that nobody has looked at yet end it.
"""
import argparse, re, subprocess, sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PERMITS = re.compile( # names as packages write them
    r'apache|bsd|mit\b|isc|psf|python software foundation|mpl|mozilla public|unlicense|zlib|cc0|hpnd|zpl|0bsd|public domain|expat', re.I)
LOOKED_AT = {'axe-playwright-python': 'MIT, by its licence file; axe in it is MPL-2.0'} # name: licence, of packages whose metadata say it in no word that is known here

def pins(path):
    "Names and versions of a constraints file that hold for this Python"
    from packaging.requirements import Requirement
    found = [Requirement(l) for l in path.read_text().splitlines() if l.strip() and not l.startswith('#')]
    return {r.name: str(r.specifier).removeprefix('==') for r in found if not r.marker or r.marker.evaluate()}

def licence(name):
    "What a package says of itself; None where it is not installed"
    try: m = metadata(name)
    except PackageNotFoundError: return None
    said = [c.rpartition(' :: ')[2] for c in m.get_all('Classifier') or () if c.startswith('License')]
    own = m.get('License-Expression') or (m.get('License') or '').strip().partition('\n')[0][:60]
    return own if PERMITS.search(own) else ', '.join(said) or own or 'says nothing'

def unknown(found):
    "Packages whose licence is none that is known to permit"
    return {n: l for n, l in found.items() if l and n not in LOOKED_AT and not PERMITS.search(l)}

def audit(path):
    "What pip-audit finds, or why it was skipped; and whether that is bad"
    command = [sys.executable, '-m', 'pip_audit', '--no-deps', '--disable-pip', '--progress-spinner', 'off', '-r', str(path)]
    try: done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired: return 'vulnerabilities: skipped, the index did not answer', False
    if 'No module named pip_audit' in done.stderr: return 'vulnerabilities: skipped, pip-audit is not installed', False
    if done.returncode == 0: return 'vulnerabilities: none known', False
    if 'Found' in done.stderr: return f'vulnerabilities:\n{done.stdout}', True
    said = (done.stderr.strip().splitlines() or ['no reason'])[-1]
    return f'vulnerabilities: skipped, the index gave no answer ({said[:100]})', False

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--licences', action='store_true', help='list them')
    a = p.parse_args()
    path = ROOT/'constraints.txt'
    found = {name: licence(name) for name in pins(path)}
    if a.licences: print('\n'.join(f'{n:24} {l}' for n, l in sorted(found.items()) if l))
    said, bad = audit(path)
    print(said)
    strange = unknown(found)
    there = sum(l is not None for l in found.values())
    print(f'licences: {there} of {len(found)} pinned packages are installed, ' + (f'to be looked at: {strange}' if strange else 'all permit use'))
    sys.exit(bad or bool(strange))
