"""Look at the built site as a reader does: headless Chromium, a desktop and a phone, light and dark.

    python scripts/look_at_docs.py _docs [page ...]     every page unless named; fails with one line a defect
    python scripts/look_at_docs.py _docs --widths       the same at every width, which takes longer

Checks that nothing is cut or scrolls sideways, nothing is asked of another host, the console is quiet, axe finds nothing serious,
the search finds, the keyboard gets to the text, and the explorables move. Each page is also measured at one further width, in turn.
Without Chromium it says so and passes.
"""
import shutil, sys, threading, time
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WCAG = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']
VIEWS = (('desktop', 1280, 'light', WCAG), ('phone', 390, 'light', WCAG), ('dark', 1280, 'dark', ['wcag2aa']))    # what differs in the dark is contrast
WIDTHS = (320, 360, 768, 1024, 1440)    # measured by turns
SOUGHT = ('Stein', 'which kernel', 'my CSV', 'how do I add my own method', 'what does sigma do', 'why does averaging particles lose')
BUDGET = 220    # seconds: a busy machine looks at fewer pages, and says so
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome')
# Everything that measures is one function in the page: it gives [kind, what] pairs
MEASURE = r'''() => {
  const found = [], say = (kind, el) => found.push([kind, (el.innerText || el.alt || el.id || el.tagName).trim().replace(/\s+/g, ' ').slice(0, 60).toWellFormed()])
  const shown = el => el.getClientRects().length > 0 && getComputedStyle(el).visibility !== 'hidden'
  const all = s => [...document.querySelectorAll(s)].filter(shown)
  const reachable = el => { for (; el && el !== document.body; el = el.parentElement) if (el.tabIndex >= 0) return true; return false }
  const over = el => el.scrollWidth > el.clientWidth + 1
  const cut = el => { // an ancestor that hides or scrolls what sticks out of it
    const r = el.getBoundingClientRect()
    for (let p = el.parentElement; p && p !== document.body; p = p.parentElement) {
      if (getComputedStyle(p).overflowX === 'visible') continue
      const q = p.getBoundingClientRect()
      if (r.right > q.right + 1.5 || r.left < q.left - 1.5) return p
    }
  }
  if (document.documentElement.scrollWidth > innerWidth) found.push(['page scrolls sideways', document.documentElement.scrollWidth + ' px'])
  for (const el of all('main pre')) if (over(el)) say('code or output cut', el)
  for (const el of all('main .katex-display > .katex > .katex-html, main math[display=block]:not(.katex-mathml *)')) if (cut(el) || over(el.parentElement)) say('formula cut', el)
  for (const el of all('main .katex-error')) say('formula not understood', el)
  for (const el of all('main table.dataframe')) say('printed data frame', el)
  for (const el of all('main table')) { const p = cut(el); if (p && !reachable(p)) say('table cut, and its scroll area out of reach of the keyboard', el) }
  for (const el of all('main img, main svg[role=img]')) {
    if (!(el.getAttribute('alt') || el.getAttribute('aria-label') || '').trim()) say('figure without alt text', el)
    const figure = el.closest('figure')
    if (!figure || !figure.querySelector('figcaption')) found.push(['figure without caption', (el.alt || '').slice(0, 60).toWellFormed()])
  }
  const ids = [...document.querySelectorAll('[id]')].map(e => e.id).filter(i => i)
  for (const id of new Set(ids.filter((x, i) => ids.indexOf(x) !== i))) found.push(['id twice', id])
  const words = document.createTreeWalker(document.querySelector('main') || document.body, NodeFilter.SHOW_TEXT)
  for (let n; n = words.nextNode();) if (/\]\([^)\s]*\.(html|ipynb)|\{target=/.test(n.data) && !n.parentElement.closest('script, annotation')) found.push(['raw Markdown', n.data.trim().slice(0, 60).toWellFormed()])
  const here = document.querySelector('.sidebar-link.active'), side = here && here.closest('.sidebar-navigation')
  if (here && shown(side)) { const r = here.getBoundingClientRect(); if (r.right > 0 && (r.top < 0 || r.bottom > innerHeight)) say('active page out of view in the sidebar', here) }
  return found
}'''


def serve(folder):
    "The site on a free port of this machine"
    quiet = type('Quiet', (SimpleHTTPRequestHandler,), dict(log_message=lambda *a: None))
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f'http://127.0.0.1:{server.server_port}'


def look(page, url, axe, rules):
    "Defects of one page in one view, as (kind, what)"
    found = []
    def console(m):
        if m.type in ('error', 'warning'): found.append(('console', m.text[:120]))
    def request(r):
        if not r.url.startswith((url[:url.rindex('/')], 'data:', 'blob:')): found.append(('request to another host', r.url[:80]))
    def crash(e): found.append(('script error', str(e)[:120]))
    listeners = dict(console=console, request=request, pageerror=crash)
    for event, f in listeners.items(): page.on(event, f)
    page.goto(url, wait_until='load')
    page.evaluate('() => document.fonts.ready.then(() => new Promise(r => requestAnimationFrame(() => setTimeout(r, 60))))')
    found += map(tuple, page.evaluate(MEASURE))
    for v in axe.run(page, options={'resultTypes': ['violations'], 'runOnly': rules}).response['violations']:
        if v['impact'] in ('serious', 'critical'):
            found += [(f'axe {v["id"]}', n['html'][:100].replace('\n', ' ')) for n in v['nodes']]
    for event, f in listeners.items(): page.remove_listener(event, f)
    return found


def measured(page, width):
    "Defects of the page that is open, at another width"
    before = page.viewport_size
    page.set_viewport_size(dict(width=width, height=900))
    page.wait_for_timeout(150)    # the page fits its formulas anew after 80 ms
    found = [tuple(f) for f in page.evaluate(MEASURE)]
    page.set_viewport_size(before)
    return found


def keyboard(page, root):
    "The first key leads past the navigation to the text"
    page.goto(f'{root}/index.html')
    page.keyboard.press('Tab')
    first = page.evaluate('() => document.activeElement.className')
    if 'skip-link' not in first: return [('keyboard', f'the first stop is no skip link: {first!r}')]
    page.keyboard.press('Enter')
    page.keyboard.press('Tab')
    inside = page.evaluate("() => !!document.activeElement.closest('main')")
    return [] if inside else [('keyboard', 'behind the skip link comes nothing of the text')]


def search(page, root, word):
    "The search box finds the words, and the found can be read"
    page.goto(f'{root}/index.html')
    page.keyboard.press('/')
    page.keyboard.type(word)
    try: page.wait_for_selector('.search-result', timeout=5000)
    except Exception: return [('search', f'finds nothing for {word!r}')]
    texts = page.eval_on_selector_all('.search-result', 'els => els.map(e => e.innerText)')
    return [] if all(w in texts[0].lower() for w in word.lower().split()) else [('search', f'the first result does not show {word!r}: {texts[0][:60]!r}')]


def explore(page, root, names):
    "Every explorable draws another picture when a key moves a slider, and plays to its end"
    found = []
    for name in names:
        page.goto(f'{root}/{name}')
        for box in page.query_selector_all('.explorable'):
            kind = box.get_attribute('data-explore')
            def picture(): return box.query_selector('.explore-picture').inner_html() + box.query_selector('.explore-said').inner_text()
            for slider in box.query_selector_all('input[type=range]'):
                before = picture()
                slider.press('ArrowLeft' if slider.input_value() == slider.get_attribute('max') else 'ArrowRight')
                if picture() == before: found.append((name, 'explorable', f'{kind}: {slider.get_attribute("name")} moves nothing'))
            for button in box.query_selector_all('button'):    # with reduced motion the end is shown at once
                before = picture()
                button.click()
                if picture() == before: found.append((name, 'explorable', f'{kind}: {button.inner_text()} moves nothing'))
    return found


def main(folder, *names):
    every, names = '--widths' in names, [n for n in names if n != '--widths']
    exe = next((p for b in BROWSERS if (p := shutil.which(b))), None)
    try: from playwright.sync_api import sync_playwright
    except ImportError: exe = None
    if not exe: return print('not looked at: needs playwright and a Chromium on the PATH')
    if not (Path(folder)/'site_libs/katex').is_dir(): return print('not looked at: no KaTeX beside the pages, build_docs.py says why')
    from axe_playwright_python.sync_playwright import Axe
    begin, (server, root) = time.perf_counter(), serve(Path(folder).resolve())
    pages = [f'{n.removesuffix(".html")}.html' for n in names] or sorted(p.name for p in Path(folder).glob('*.html'))
    moving = [n for n in pages if 'class="explorable"' in (Path(folder)/n).read_text(encoding='utf-8')]
    pages.sort(key=lambda n: (n != 'index.html', n not in moving))     # should time run out, the first have been seen
    found, axe, seen = [], Axe(), 0
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=exe, args=['--no-sandbox', '--disable-gpu'])
        views = [(*v, browser.new_page(viewport=dict(width=v[1], height=900), color_scheme=v[2], reduced_motion='reduce')) for v in VIEWS]
        for words in SOUGHT: found += [('desktop', 'index.html', *f) for f in search(views[0][-1], root, words)]
        found += [('desktop', 'index.html', *f) for f in keyboard(views[0][-1], root)]
        found += [('desktop', *f) for f in explore(views[0][-1], root, moving)]
        for i, name in enumerate(pages):
            if not names and not every and time.perf_counter() - begin > BUDGET: break
            for view, _, _, rules, page in views: found += [(view, name, *f) for f in look(page, f'{root}/{name}', axe, rules)]
            for width in WIDTHS if every or names else WIDTHS[i % len(WIDTHS):][:1]:
                page = views[width < 600][-1]
                found += [(f'{width} px', name, *f) for f in measured(page, width)]
            seen += 1
        browser.close()
    server.shutdown()
    for view, name, kind, what in found: print(f'{name} ({view}): {kind}: {what}')
    for (view, kind), n in sorted(Counter((view, kind) for view, _, kind, _ in found).items()): print(f'{n:6} {view}: {kind}')
    print(f'{len(found)} defects on {seen} of {len(pages)} pages in {time.perf_counter() - begin:.0f} s')
    return bool(found)


if __name__ == '__main__': sys.exit(main(*sys.argv[1:]))
