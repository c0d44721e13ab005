"""Do the sliders of a page move its figure in JupyterLab? Headless Chromium runs the page, presses keys, and looks.

    pip install 'bayes_prompt[dev,lab]'
    python scripts/look_at_lab.py nbs/03_gaussian.ipynb [page ...]

Not part of CI: JupyterLab is large. A copy of the page is run, so nothing is saved into it. LAB_PYTHON names the interpreter that has
JupyterLab, if it is another than the kernel's.
"""
import json, os, secrets, shutil, socket, subprocess, sys, tempfile, time, urllib.request
from pathlib import Path

from look_at_docs import BROWSERS

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 900    # seconds, of a busy machine


def lab(folder):
    "JupyterLab on a free port of this machine: the process, its log and its address"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    kernel = folder/'jupyter/kernels/python3/kernel.json'
    kernel.parent.mkdir(parents=True)
    argv = [sys.executable, '-m', 'ipykernel_launcher', '-f', '{connection_file}']
    kernel.write_text(json.dumps(dict(argv=argv, display_name='python3', language='python')))
    env = os.environ | dict(JUPYTER_PATH=str(folder/'jupyter'), JUPYTERLAB_SETTINGS_DIR=str(folder/'settings'),
                            JUPYTERLAB_WORKSPACES_DIR=str(folder/'workspaces'))
    token, log = secrets.token_hex(16), folder/'lab.log'
    args = ['--no-browser', '--allow-root', f'--port={port}', f'--ServerApp.root_dir={folder}', f'--IdentityProvider.token={token}',
            '--LabApp.news_url=None', '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate']
    server = subprocess.Popen([os.environ.get('LAB_PYTHON', sys.executable), '-m', 'jupyterlab', *args], env=env, stdout=log.open('w'), stderr=subprocess.STDOUT)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(f'http://127.0.0.1:{port}/api?token={token}', timeout=20)
            return server, log, f'http://127.0.0.1:{port}/lab/tree/nbs/{{}}?token={token}&reset'
        except OSError: time.sleep(1)
    server.terminate()
    sys.exit(f'JupyterLab does not answer:\n{log.read_text()[-2000:]}')


def wait(asked, what):
    "Until it is so"
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := asked(): return found
        time.sleep(1)
    raise TimeoutError(what)


def look(page, url):
    "Run all cells; press a key on every slider; the figure under it has to change"
    page.goto(url, timeout=PATIENCE*1000)
    page.wait_for_selector('.jp-Notebook .jp-Cell', timeout=PATIENCE*1000)
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status=idle]', timeout=PATIENCE*1000)
    say('open, the kernel is idle')
    def begun(): return page.evaluate("() => [...document.querySelectorAll('.jp-InputPrompt')].some(e => /[*\\d]/.test(e.innerText))")
    def run():
        page.get_by_role('menuitem', name='Run', exact=True).click()
        page.get_by_role('menuitem', name='Run All Cells', exact=True).click()    # not the one that restarts
        page.wait_for_timeout(5000)
        return begun()
    wait(run, 'the cells do not run')    # a notebook that is not ready takes the click and does nothing
    cell = page.locator('.jp-Cell:has(.widget-slider)').first
    wait(cell.count, 'no slider appears')
    say('all cells run, there are sliders')

    def picture(): return cell.evaluate("el => [...el.querySelectorAll('.jp-OutputArea img, .jp-OutputArea svg')].map(e => e.src || e.outerHTML).join()")
    for slider in cell.locator('.widget-slider').all():
        before = wait(picture, 'no figure appears')
        handle = slider.locator('.noUi-handle')
        handle.scroll_into_view_if_needed()
        handle.focus()
        page.keyboard.press('PageUp')    # an arrow key is also the notebook's; and one particle has no kernel
        wait(lambda: picture() not in ('', before), f'{slider.inner_text()!r} was moved, and the figure stayed')
        say(f'{" ".join(slider.inner_text().split())}: moved by a key, the figure changed')


begin = time.monotonic()
def say(text): print(f'{time.monotonic() - begin:5.0f} s  {text}', flush=True)


def main(*names):
    from playwright.sync_api import sync_playwright
    exe = next((p for b in BROWSERS if (p := shutil.which(b))), None)
    if not exe: sys.exit(f'expected a browser, one of {BROWSERS}, in PATH')
    folder = Path(tempfile.mkdtemp())
    for part in ('bayes_prompt', 'results', 'experiments'): (folder/part).symlink_to(ROOT/part)
    (folder/'nbs').mkdir()
    for name in names: shutil.copy(name, folder/'nbs')
    server, log, address = lab(folder)
    say('JupyterLab answers')
    try:
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path=exe, args=['--no-sandbox', '--disable-gpu'])
            for name in names:
                page = browser.new_page(viewport=dict(width=1280, height=900))
                try: look(page, address.format(Path(name).name))
                except Exception as e:
                    page.screenshot(path=folder/'failed.png')
                    sys.exit(f'{name}: {e}\nlooked like {folder/"failed.png"}; {log} ends with\n{log.read_text()[-1000:]}')
                page.close()
            browser.close()
    finally:
        server.terminate()
        server.wait()


if __name__ == '__main__': main(*sys.argv[1:])
