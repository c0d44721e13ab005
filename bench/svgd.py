"""Time one full SVGD step (score -x, exact median bandwidth, update) against numpyro, blackjax, pyro and msvgd.

    pip install -c constraints.txt -e '.[bench]' && python bench/svgd.py

Float32, one pinned thread, CPU time of the process, all contenders interleaved in one run, medians over rounds. Before anything is timed, each contender's step with a fixed
bandwidth is checked against equation (1) in float64. Writes `results/bench/svgd.json` and `.md`.
"""
import os, sys
core = max(os.sched_getaffinity(0))
os.sched_setaffinity(0, {core})  # before any library starts its threads
os.environ.update(OMP_NUM_THREADS='1', MKL_NUM_THREADS='1', JAX_PLATFORMS='cpu', XLA_FLAGS='--xla_cpu_multi_thread_eigen=false')
if '--memory' in sys.argv: os.environ.update(MALLOC_MMAP_THRESHOLD_='65536')  # so that what is freed is seen to be freed

import argparse, importlib.metadata, json, math, platform, statistics, subprocess, time, warnings
from pathlib import Path
import numpy as np
import torch
from tqdm import tqdm

from bayes_prompt.settings import SVGD
from bayes_prompt.svgd import svgd

torch.set_num_threads(1)
SHAPES = [(5, 76_800), (10, 76_800), (100, 10_000), (200, 2), (1000, 2)]
LR = .1


def ours(x, h):
    x, options = torch.from_numpy(x), SVGD(bandwidth=h or 'median')
    def steps(n, x=x): return svgd(lambda x: -x, x, steps=n, lr=LR, options=options).numpy()
    return steps

def naive(x, h):
    "Equation (1) as it stands, with its [M, M, D] tensor of differences"
    x0 = torch.from_numpy(x)
    i,j = torch.triu_indices(len(x), len(x), 1)
    def steps(n):
        x = x0.clone()
        for _ in range(n):
            diff = x[:,None] - x[None]
            d2 = diff.square().sum(-1)
            w = h or d2[i,j].quantile(.5)/math.log(len(x))
            k = torch.exp(-d2/w)
            x = x + LR*(k@-x + 2/w*(k[...,None]*diff).sum(1))/len(x)
        return x.numpy()
    return steps

def blackjax(x, h):
    import blackjax, jax, optax
    from blackjax.vi import svgd as bj
    kernel = bj.build_kernel(optax.sgd(LR))
    grad = jax.grad(lambda x: -(x**2).sum()/2)
    def one(state): return (lambda s: s if h else bj.update_median_heuristic(s))(kernel(state, grad, bj.rbf_kernel))
    one, state = jax.jit(one), bj.init(jax.numpy.asarray(x), {'length_scale': jax.numpy.float32(h or 1)}, optax.sgd(LR))
    if not h: state = bj.update_median_heuristic(state)
    def steps(n):
        s = state
        for _ in range(n): s = one(s)
        return np.asarray(s.particles.block_until_ready())
    return steps

def numpyro(x, h):
    import jax, numpyro, numpyro.distributions as dist
    from jax import numpy as jnp
    from numpyro.contrib.einstein import SVGD, RBFKernel
    if h:
        class Kernel(RBFKernel):
            def compute(self, rng_key, particles, particle_info, loss_fn): return lambda x, y: jnp.exp(-((x - y)**2).sum()/h)
    else: Kernel = RBFKernel
    def model(): numpyro.sample('x', dist.Normal(jnp.zeros(x.shape[1]), 1.).to_event(1))
    vi = SVGD(model, numpyro.optim.SGD(LR), Kernel(), num_stein_particles=len(x))
    state = vi.init(jax.random.PRNGKey(0))
    put = lambda s, v: s._replace(optim_state=vi.optim.init({k: v for k in vi.get_params(s)}))
    state, one = put(state, jnp.asarray(x)), jax.jit(vi.update)
    name, = vi.get_params(state)
    def steps(n):
        s = state
        for _ in range(n): s,_ = one(s)
        return np.asarray(vi.get_params(s)[name].block_until_ready())
    return steps

def pyro(mode):
    def make(x, h):
        import pyro, pyro.distributions as dist
        from pyro.infer import SVGD, RBFSteinKernel
        class Kernel(RBFSteinKernel):
            def _bandwidth(self, norm_sq): return norm_sq.new_full(norm_sq.shape[-1:], h) if h else super()._bandwidth(norm_sq)
        def model(): pyro.sample('x', dist.Normal(torch.zeros(x.shape[1]), 1.).to_event(1))
        vi = SVGD(model, Kernel(), pyro.optim.SGD({'lr': LR}), len(x), 0, mode=mode)
        def steps(n):
            pyro.clear_param_store()
            vi.optim.optim_objs.clear()
            pyro.param('svgd_particles', torch.from_numpy(x).reshape(-1).clone())
            for _ in range(n): vi.step()
            return pyro.param('svgd_particles').detach().reshape(x.shape).numpy()
        return steps
    return make

def msvgd(x, h):
    import jax, msvgd, optax
    vi, x0 = msvgd.MSVGD(lambda x: -(x**2).sum()/2), jax.numpy.asarray(x)
    def steps(n):
        return np.asarray(vi.solve(x0, optimizer=optax.sgd, optimizer_kwargs={'learning_rate': LR}, max_iter=n, atol=0., rtol=0., bandwidth=h or -1, monitor_convergence=-1))
    return steps


CONTENDERS = {'bayes_prompt': ours, 'msvgd': msvgd, 'numpyro': numpyro, 'blackjax': blackjax, 'pyro (multivariate)': pyro('multivariate'),
              'pyro (univariate)': pyro('univariate'), 'naive torch': naive}
PACKAGES = dict(msvgd='msvgd', numpyro='numpyro', blackjax='blackjax', pyro='pyro-ppl')


def particles(M, D, seed=0): return np.random.default_rng(seed).standard_normal((M, D), dtype=np.float32)

def exact(x, h, univariate=False):
    "One step in float64, by loops over pairs"
    x = x.astype(np.float64)
    phi = np.zeros_like(x)
    for i in range(len(x)):
        diff = x[i] - x         # ∇_{x_j} k(x_j, x_i) = 2/h (x_i - x_j) k
        k = np.exp(-diff**2/h) if univariate else np.exp(-(diff**2).sum(1, keepdims=True)/h)
        phi[i] = (k*(-x + 2/h*diff)).mean(0)
    return x + LR*phi


def check(shape):
    "Relative error of every contender's update under one fixed bandwidth"
    x = particles(*shape)
    d2 = np.sort(((x[:50,None] - x[None,:50])**2).sum(-1)[np.triu_indices(min(50, len(x)), 1)])
    h = float(d2[len(d2)//2]/math.log(len(x)))
    errors = {}
    for name,make in CONTENDERS.items():
        want = exact(x, h, 'univariate' in name)
        errors[name] = float(np.linalg.norm(make(x, h)(1) - want)/np.linalg.norm(want - x))
    return errors


def bench(shape, rounds, budget):
    "CPU seconds per step: medians over interleaved rounds, and the spread between the quartiles"
    x = particles(*shape)
    np.ones(2**25 - 2**16, np.uint8).sum()  # glibc hands freed memory back to the system until one block this large was freed, as in any program that has loaded a model
    runs, times = {n: make(x, None) for n,make in CONTENDERS.items()}, {n: [] for n in CONTENDERS}
    reps = {}
    for n,f in runs.items():
        f(2)  # compile
        t = time.process_time(); f(2); t = (time.process_time() - t)/2
        reps[n] = max(2, min(200, int(budget/t)))
        f(reps[n])
    for _ in tqdm(range(rounds), desc=str(shape)):
        for n,f in runs.items():
            t = time.process_time()
            f(reps[n])
            times[n].append((time.process_time() - t)/reps[n])
    q = {n: statistics.quantiles(t, n=4) for n,t in times.items()}
    return {n: dict(ms=1e3*q[n][1], low=1e3*q[n][0], high=1e3*q[n][2]) for n in runs}


def status(field): return int(next(l for l in Path('/proc/self/status').read_text().splitlines() if l.startswith(field)).split()[1])

def transient(name, shape):
    "MiB that a warm step takes beyond what was there before it (peak resident set; Linux)"
    f = CONTENDERS[name](particles(*shape), None)
    f(2)
    before = status('VmRSS')
    Path('/proc/self/clear_refs').write_text('5')  # forget the peak so far
    f(2)
    return (status('VmHWM') - before)/1024


def bandwidth():
    "GB/s of one thread that copies 64 MiB (read and write)"
    a = torch.zeros(2**24); b = torch.ones(2**24); t = []
    for _ in range(20):
        s = time.process_time(); a.copy_(b); t.append(time.process_time() - s)
    return 2*a.nbytes/statistics.median(t)/1e9


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rounds', type=int, default=15)
    p.add_argument('--budget', type=float, default=.2, help='seconds per contender and round')
    p.add_argument('--out', type=Path, default=Path(__file__).resolve().parents[1]/'results/bench')
    p.add_argument('--memory', nargs=3, metavar=('NAME', 'M', 'D'), help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.memory: return print(transient(a.memory[0], tuple(map(int, a.memory[1:]))))
    out = dict(unit='ms per step', machine=platform.machine(), python=platform.python_version(), core=core,
               versions={k: importlib.metadata.version(v) for k,v in dict(PACKAGES, torch='torch', jax='jax').items()}, shapes=[])
    gbs = bandwidth()
    for shape in SHAPES:
        errors = check(shape)
        bad = {k: e for k,e in errors.items() if e > 1e-3}
        if bad: raise SystemExit(f'at {shape} these do not agree with equation (1): {bad}')
        res = bench(shape, a.rounds, a.budget)
        for n,r in res.items():
            r.update(ratio=r['ms']/res['bayes_prompt']['ms'], error=errors[n],
                     transient_mib=float(subprocess.run([sys.executable, __file__, '--memory', n, *map(str, shape)], capture_output=True, text=True, check=True).stdout))
        bound = 4*4*shape[0]*shape[1]/gbs/1e6
        out['shapes'].append(dict(M=shape[0], D=shape[1], data_mib=4*shape[0]*shape[1]/2**20, bound_ms=bound, contenders=res))
    out['copy_gb_per_s'] = gbs
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out/'svgd.json').write_text(json.dumps(out, indent=1) + '\n')
    (a.out/'svgd.md').write_text(table(out))
    print(table(out))


def table(out):
    "Milliseconds, the ratio to ours, and transient MiB"
    names = list(out['shapes'][0]['contenders'])
    rows = ['| (M, D) | four passes over the data | ' + ' | '.join(names) + ' |', '|---'*(len(names) + 2) + '|']
    for s in out['shapes']:
        cells = [f"{r['ms']:.3g} ms, {r['ratio']:.1f}×, {r['transient_mib']:.0f} MiB" for r in s['contenders'].values()]
        rows.append(f"| {s['M']}, {s['D']} | {s['bound_ms']:.2g} ms | " + ' | '.join(cells) + ' |')
    return '\n'.join(rows) + '\n'


if __name__ == '__main__':
    warnings.filterwarnings('ignore')
    main()
