"""Install a wheel into an empty environment and import it there.

    python scripts/check_wheel.py dist/bayes_prompt-*.whl pinned|newest

The wheel and its fastcore (the one in constraints.txt, or the newest) are new; what else it requires is seen through from the
environment that runs this script, so that a check takes seconds.
"""
import os, subprocess, sys, sysconfig, tempfile, venv, zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST = 40   # MiB
LIGHT = '''
import sys, time
t = time.perf_counter()
import bayes_prompt
t = time.perf_counter() - t
heavy = {'torch', 'transformers', 'datasets', 'pandas', 'matplotlib'} & sys.modules.keys()
assert not heavy, f'import bayes_prompt brings {sorted(heavy)}'
assert t < 2, f'import bayes_prompt takes {t:.1f} s'
print(f'import bayes_prompt {bayes_prompt.__version__}: {t:.3f} s')
'''
ALL = '''
import importlib, pkgutil, fastcore, bayes_prompt
from importlib.metadata import entry_points
root = bayes_prompt.__path__[0]
assert root.startswith({env!r}) and fastcore.__path__[0].startswith({env!r}), (root, fastcore.__path__)
mods = [m.name for m in pkgutil.walk_packages(bayes_prompt.__path__, 'bayes_prompt.')]
for m in mods: importlib.import_module(m)
scripts = [e for e in entry_points(group='console_scripts') if e.value.startswith('bayes_prompt')]
for e in scripts: e.load()
print(f'{{len(mods)}} modules and {{len(scripts)}} commands import with fastcore {{fastcore.__version__}}')
'''


def contents(wheel):
    "The package, its assets, and nothing else; small enough for an index"
    names = set(zipfile.ZipFile(wheel).namelist())
    other = [n for n in names if not n.startswith(('bayes_prompt/', 'bayes_prompt-'))]
    assert not other, f'the wheel has what is no part of the package: {sorted(other)[:5]}'
    modules = {f.relative_to(ROOT).as_posix() for f in (ROOT/'bayes_prompt').rglob('*.py')}
    assert modules == {n for n in names if n.endswith('.py')}, f'modules: {sorted(modules ^ {n for n in names if n.endswith(".py")})}'
    size = os.path.getsize(wheel)/2**20
    assert size <= MOST, f'the wheel has {size:.1f} MiB, expected at most {MOST}'
    return names


def main(wheel, which):
    names = contents(wheel)
    assets = {f.relative_to(ROOT).as_posix() for f in (ROOT/'bayes_prompt/assets').rglob('*') if f.is_file()}
    assert assets and assets <= names, f'not in the wheel: {sorted(assets - names) or "any assets"}'
    with tempfile.TemporaryDirectory() as tmp:
        env = os.path.realpath(tmp)
        venv.create(env, with_pip=False)
        exe = f'{env}/bin/python'
        site = sysconfig.get_path('purelib', 'venv', dict(base=env, platbase=env))
        pip = [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--target', site]
        pin = ['-c', str(ROOT/'constraints.txt')] if which == 'pinned' else ['--upgrade']
        subprocess.run(pip + pin + ['fastcore', wheel], check=True)
        run = lambda code: subprocess.run([exe, '-c', code], check=True, cwd=env)
        run(LIGHT)     # here nothing else is even installed
        Path(site, 'zz_requirements.pth').write_text(sysconfig.get_path('purelib'))  # after the environment's own packages
        run(LIGHT)
        run(ALL.format(env=env))


if __name__ == '__main__': main(*sys.argv[1:])
