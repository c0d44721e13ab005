"The explorables of the pages compute what the package computes"
import json, math, shutil, subprocess
from pathlib import Path

import pytest, torch
from bayes_prompt.gaussian import Gaussian, best_convex_combination, product
from bayes_prompt.settings import SVGD
from bayes_prompt.svgd import median_bandwidth, svgd

NBS = Path(__file__).resolve().parents[1]/'nbs'
BROWSERS = 'chromium', 'chromium-browser', 'google-chrome'


def javascript(expression):
    "The value of an expression of `explore.js`, in node or else in Chromium"
    if shutil.which('node'):
        code = f'const Explore = require({json.dumps(str(NBS/"explore.js"))}); process.stdout.write(JSON.stringify({expression}))'
        return json.loads(subprocess.run(['node', '-e', code], capture_output=True, text=True, check=True).stdout)
    sync_api = pytest.importorskip('playwright.sync_api')
    exe = next((p for b in BROWSERS if (p := shutil.which(b))), None) or pytest.skip('neither node nor Chromium')
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=exe, args=['--no-sandbox'])
        page = browser.new_page()
        page.add_script_tag(content=(NBS/'explore.js').read_text(encoding='utf-8').replace('const Explore', 'window.Explore'))
        value = json.loads(page.evaluate(f'JSON.stringify({expression})'))
        browser.close()
    return value

def ridge(degrees, distance, long, short):
    u = torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))], dtype=torch.float64)
    return Gaussian(distance*u, cov=long**2*u.outer(u) + short**2*(torch.eye(2) - u.outer(u)))

def near(a, b, tol=1e-8): return torch.allclose(torch.tensor(a, dtype=torch.float64), b, rtol=0, atol=tol)

def test_the_gaussian_explorable():
    states = [dict(angle=a, condition=c, tasks=k) for a in (5, 60, 90, 120) for c in (0, 1, 2.5, 4) for k in (2, 3, 5)]
    for state, got in zip(states, javascript(f'{json.dumps(states)}.map(Explore.gaussian)'), strict=True):
        gs = [ridge(k*state['angle'], 4, 4, 4/10**(state['condition']/2)) for k in range(state['tasks'])]
        p, optima = product(gs), torch.stack([g.mean for g in gs])
        _, best = best_convex_combination(gs)
        assert near(got['p']['mean'], p.mean, 1e-6) and near(got['average'], optima.mean(0))
        assert math.isclose(got['atAverage'], p.excess_energy(optima.mean(0)), rel_tol=1e-6, abs_tol=1e-9), state
        assert math.isclose(got['atBest'], p.excess_energy(best), rel_tol=1e-4, abs_tol=1e-6), state

@pytest.mark.parametrize('particles, width, repulsion', [(1, 1, 1), (2, 1, 1), (5, 1, 1), (5, .01, 1), (8, 10, 1), (20, 1, 0), (20, .3, 2)])
def test_the_svgd_explorable(particles, width, repulsion):
    state = dict(particles=particles, width=width, repulsion=repulsion)
    path = torch.tensor(javascript(f'Explore.svgd({json.dumps(state)})'), dtype=torch.float64)
    p = product([ridge(0, 3, 3, .3), ridge(40, 3, 3, .3)])
    def bandwidth(x, d2): return width*median_bandwidth(x, d2) if particles > 1 else torch.ones(())
    _, ours = svgd(p.score, path[0], steps=len(path) - 1, lr=.05, options=SVGD(bandwidth=bandwidth, repulsion=repulsion), trace=True)
    assert torch.allclose(path, ours, atol=1e-6)

@pytest.mark.parametrize('kind', ['gaussian', 'svgd'])
def test_without_a_script_there_is_the_first_picture(kind):
    assert (NBS/f'images/explore_{kind}.svg').read_text(encoding='utf-8') == javascript(f'Explore.still("{kind}")') + '\n', (
        f"""write it anew: node -e "console.log(require('./nbs/explore.js').still('{kind}'))" > nbs/images/explore_{kind}.svg""")
