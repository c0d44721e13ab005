"""Look at the sliders of a page in JupyterLab, in headless Chromium: run all cells, move each, and see whether its figure changes.

    pip install 'bayes_prompt[lab]'
    python scripts/look_at_lab.py nbs/03_gaussian.ipynb [page ...]

Not part of CI: JupyterLab is large, and its pages change with every release. The page is copied, so that nothing is saved into it.
"""
import os, secrets, shutil, socket, subprocess, sys, tempfile, time, urllib.request
from pathlib import Path

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome')
ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 1_800_000    # milliseconds: a busy machine is slow
FIGURE = '.jp-OutputArea img, .jp-OutputArea .jp-RenderedSVG'


def lab(folder):
    "JupyterLab on a free port of this machine: the process, and its address for a browser"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    token = secrets.token_hex(16)
    args = [f'--ServerApp.root_dir={folder}', f'--port={port}', f'--IdentityProvider.token={token}', '--no-browser', '--ServerApp.allow_root=True',
            '--LabApp.news_url=None', '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate']
    tracker = folder/'settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings'
    tracker.parent.mkdir(parents=True)
    tracker.write_text('{"windowingMode": "none"}')    # else cells come and go while their sliders move
    env = os.environ | dict(JUPYTERLAB_SETTINGS_DIR=str(folder/'settings'), JUPYTERLAB_WORKSPACES_DIR=str(folder/'workspaces'))
    server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', *args], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(240):
        try:
            urllib.request.urlopen(f'http://127.0.0.1:{port}/api?token={token}', timeout=2)
            return server, f'http://127.0.0.1:{port}/lab/workspaces/{token}/tree/{{}}?token={token}'
        except OSError: time.sleep(.5)
    server.terminate()
    sys.exit('JupyterLab did not answer within two minutes')


def look(page, url, timeout):
    "What is wrong with the sliders of one page"
    page.goto(url)
    page.wait_for_selector('.jp-Notebook .jp-Cell', timeout=120_000)
    asked = page.locator('.jp-Dialog')    # which kernel, mostly
    page.add_locator_handler(asked, lambda: asked.locator('.jp-mod-accept').last.click())
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status=idle]', timeout=120_000)
    def begun(): return page.evaluate("() => [...document.querySelectorAll('.jp-InputPrompt')].some(e => /[*\\d]/.test(e.innerText))")
    for _ in range(20):    # a notebook that is not ready yet takes the click and does nothing
        page.get_by_role('menuitem', name='Run', exact=True).click()
        page.get_by_role('menuitem', name='Run All Cells').last.click()
        page.wait_for_timeout(3000)
        if begun(): break
    else: return ['the cells do not run']
    cell = page.locator('.jp-Cell:has(.widget-slider)').first
    for _ in range(int(timeout/400)):
        if cell.count(): break
        page.wait_for_timeout(400)
    else: return ['no slider appears']
    def picture():
        "What the cell shows below its sliders"
        return cell.evaluate(f"el => el.querySelector('{FIGURE}')?.outerHTML || ''") if cell.count() else ''
    wrong, sliders = [], cell.locator('.widget-slider')
    for i in range(sliders.count()):
        slider = sliders.nth(i)
        name = slider.inner_text().split('\n')[0]
        slider.scroll_into_view_if_needed()
        page.wait_for_timeout(3000)
        before = picture()
        for _ in range(3): slider.locator('.noUi-handle').press('ArrowLeft')
        for _ in range(1500):
            page.wait_for_timeout(200)
            if picture() not in ('', before): break
        else:
            wrong.append(f'the slider {name!r} was moved, and the figure {"stayed" if before else "is not there"}')
            continue
        print(f'{name}: moved, and the figure changed', flush=True)
    return wrong


def main(*names):
    from playwright.sync_api import sync_playwright
    exe = next(p for b in BROWSERS if (p := shutil.which(b)))
    folder = Path(tempfile.mkdtemp())
    for part in ('bayes_prompt', 'results', 'experiments'): (folder/part).symlink_to(ROOT/part)
    (folder/'nbs').mkdir()
    for name in names: shutil.copy(name, folder/'nbs')
    server, address = lab(folder)
    bad = 0
    try:
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path=exe, args=['--no-sandbox', '--disable-gpu'])
            for name in names:
                page = browser.new_page(viewport=dict(width=1280, height=900))
                begin = time.monotonic()
                wrong = look(page, address.format(f'nbs/{Path(name).name}'), timeout=TIMEOUT)
                for w in wrong: print(f'{name}: {w}')
                print(f'{name}: {"looked at" if not wrong else "FAILED"} in {time.monotonic() - begin:.0f} s')
                if wrong: page.screenshot(path=folder/'failed.png')
                bad += len(wrong)
                page.close()
            browser.close()
    finally:
        server.terminate()
        try: server.wait(60)
        except subprocess.TimeoutExpired: server.kill()
    if bad: print(f'what was seen: {folder}/failed.png')
    return bool(bad)


if __name__ == '__main__': sys.exit(main(*sys.argv[1:]))
