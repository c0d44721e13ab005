"""Where the time of whole jobs goes: `bp_demo`, and a source stage of 2,000 steps on the mini backbone.

    pip install -c constraints.txt -e . && python bench/jobs.py [--jobs demo source] [--steps 2000]

Each job is a process of its own with the threads that torch chooses. Seconds are the wall's. "Inside the model" is the
time in its forward passes and in the backward passes, timed around both; start-up is the time from the start of the
process to the first forward pass. Jobs that are not asked for keep their rows in `results/bench/jobs.json` and `.md`,
which are written.
"""
import argparse, importlib.metadata, json, os, platform, subprocess, sys, tempfile, time
from pathlib import Path

JOBS = dict(demo='bp_demo', source='source stage of {} steps')

def inside(clock):
    "Count the time in the model and in the backward pass into `clock`"
    import torch
    import bayes_prompt.backbone as module
    depth = [0]
    def enter(*_):
        if not depth[0]:
            clock['t'] = time.perf_counter()
            clock.setdefault('first', time.time())
        depth[0] += 1
    def leave(*_):
        depth[0] -= 1
        if not depth[0]: clock['inside'] += time.perf_counter() - clock['t']
    def timed(f):
        def g(*args, **kw):
            enter()
            try: return f(*args, **kw)
            finally: leave()
        return g
    load = module.load_backbone
    def hooked(*args, **kw):
        bb = load(*args, **kw)
        for m in (bb.model, bb.model.get_encoder()):
            m.register_forward_pre_hook(enter)
            m.register_forward_hook(leave)
        return bb
    module.load_backbone = hooked
    torch.Tensor.backward = timed(torch.Tensor.backward)

def child(job, steps, started):
    import contextlib, torch
    clock = dict(inside=0.)
    inside(clock)
    with tempfile.TemporaryDirectory() as d, contextlib.redirect_stdout(sys.stderr):
        if job == 'demo':
            from bayes_prompt.cli import bp_demo
            bp_demo(['--out', d])
        else:
            from bayes_prompt.backbone import load_backbone
            from bayes_prompt.callbacks import Checkpoint
            from bayes_prompt.data import load_task
            from bayes_prompt.prompt import encode, init_prompts
            from bayes_prompt.source import learn_posterior
            bb = load_backbone('mini')
            sources = {t: encode(bb, load_task(t).train, 40, 10) for t in ('movie', 'tweets')}
            saved = [Checkpoint(f'{d}/state.safetensors')]
            learn_posterior(bb, sources, init_prompts(bb, 5, 10), callbacks=saved, steps=steps, lr=.02)
    total = time.time() - started
    print(json.dumps(dict(start=clock['first'] - started, inside=clock['inside'], total=total, threads=torch.get_num_threads())))

def main(which, steps, out):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    new = []
    for job in which:
        name = JOBS[job].format(steps)
        command = [sys.executable, __file__, '--child', job, str(steps), str(time.time())]
        env = os.environ | dict(HF_HUB_OFFLINE='1', OMP_WAIT_POLICY='passive')
        run = subprocess.run(command, capture_output=True, text=True, env=env)
        if run.returncode: raise SystemExit(run.stderr)
        r = json.loads(run.stdout.splitlines()[-1])
        new.append(dict(job=name, **r, share=r['inside']/(r['total'] - r['start'])))
        print(new[-1], flush=True)
    old = json.loads((out/'jobs.json').read_text())['results'] if (out/'jobs.json').exists() else []
    names = [n['job'] for n in new]
    rows = sorted([o for o in old if o['job'] not in names] + new, key=lambda o: o['job'])
    versions = {p: importlib.metadata.version(p) for p in ('torch', 'transformers', 'bayes_prompt')}
    about = dict(python=platform.python_version(), machine=platform.machine(), **versions)
    (out/'jobs.json').write_text(json.dumps(dict(environment=about, results=rows), indent=1))
    lines = ['| job | threads | start-up, s | whole, s | inside the model after start-up |', '|---|---|---|---|---|']
    for r in rows:
        seconds = f'{r["start"]:.1f} | {r["total"]:.1f}'
        lines.append(f'| {r["job"]} | {r["threads"]} | {seconds} | {r["share"]:.1%} |')
    (out/'jobs.md').write_text('\n'.join(lines) + '\n')

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--steps', type=int, default=2000)
    p.add_argument('--jobs', nargs='+', choices=JOBS, default=list(JOBS))
    p.add_argument('--out', default=Path(__file__).resolve().parents[1]/'results/bench')
    p.add_argument('--child', nargs=3, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.child: child(a.child[0], int(a.child[1]), float(a.child[2]))
    else: main(a.jobs, a.steps, a.out)
