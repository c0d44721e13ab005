"""Long trainings, many records, large files, quick starts: what the page on reliability shows.

    pip install -c constraints.txt -e . && python bench/load.py [--parts steps records rows start] [--steps 20000] [--records 100000] [--rows 100000 1000000]

Each part is a process of its own, and memory is what the operating system says is resident in it. Parts that are not
asked for keep their numbers in `results/bench/load.json`, which is written after each.

steps    a source stage on the mini backbone, two particles, one short example a step, with checkpoints: memory over
         the steps, size of the state
records  100,000 copies of a committed record under other seeds, read into one table
rows     an own CSV file of 100,000 and of 1,000,000 rows: as a source in the first run, which makes the token ids, and
         in a second one, which reads them; as the target, of which few rows are learnt; and the time of drawing a batch
start    `bp_run --help` and a refused configuration
"""
import argparse, importlib.metadata, json, os, platform, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT/'results/bench/load.json'

def resident(kind='VmRSS'): # MiB
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(l.split()[1]) for l in lines if l.startswith(kind))/1024

# ---- steps

def child_steps(steps):
    from bayes_prompt.backbone import load_backbone
    from bayes_prompt.callbacks import Checkpoint
    from bayes_prompt.data import load_task
    from bayes_prompt.prompt import encode, init_prompts
    from bayes_prompt.source import learn_posterior
    from bayes_prompt.train import Callback
    seen, sizes = {}, {}
    with tempfile.TemporaryDirectory() as d:
        state = Path(d)/'state.safetensors'
        class Memory(Callback):
            order = 85
            def step(self, run):
                if run.step % max(1, steps//40): return
                seen[run.step] = round(resident(), 2)
                sizes[run.step] = state.stat().st_size if state.exists() else 0
        bb = load_backbone('mini')
        examples = sorted(encode(bb, load_task('spam').train, 24, 2), key=lambda e: len(e.ids))[:256]
        began = time.process_time()
        learn_posterior(bb, dict(spam=examples), init_prompts(bb, 2, 2), callbacks=[Checkpoint(state, 100), Memory()], steps=steps, batch=1, lr=.01)
        history = state.with_suffix('.jsonl').stat().st_size
    return dict(steps=steps, cpu_seconds=time.process_time() - began, mib=seen, state_bytes=sizes, history_bytes=history)

# ---- records

def child_records(n):
    from bayes_prompt.results import load
    record = json.loads(sorted((ROOT/'results').glob('*/*bmtpt*.json'))[0].read_text())
    with tempfile.TemporaryDirectory() as d:
        for i in range(n):
            record['config']['seed'] = i
            (Path(d)/f'amazon-bmtpt-s{i}-{i:08x}.json').write_text(json.dumps(record))
        size = (Path(d)/f'amazon-bmtpt-s0-{0:08x}.json').stat().st_size
        before, began, cpu = resident(), time.perf_counter(), time.process_time()
        df = load(d)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert len(df) == n
    return dict(records=n, bytes_each=size, seconds=seconds, cpu_seconds=cpu, mib_before=before, mib_peak=resident('VmHWM'))

# ---- rows

TASKS = '''[own]
about = "invented rows"
template = "{text}"
label = "label"
labels = ["no", "yes"]
'''

def write_rows(folder, n):
    import random
    rng, words = random.Random(0), [f'{a}{b}' for a in ('re', 'un', 'in', 'out', 'over') for b in ('do', 'side', 'come', 'line', 'look', 'turn', 'play')]
    with (folder/'own.csv').open('w') as f:
        f.write('text,label\n')
        for i in range(n): f.write(f'{" ".join(rng.choices(words, k=12))} {i},{i % 2}\n')
    (folder/'tasks.toml').write_text(TASKS)
    return (folder/'own.csv').stat().st_size

RUNS = dict(first=dict(target='spam', sources=['own']), second=dict(target='spam', sources=['own'], source_seed=1),
            target=dict(target='own', sources=['spam']))

def child_run(folder, kind):
    from bayes_prompt.run import run
    folder, before = Path(folder), resident()
    config = dict(backbone='tiny-t5', tasks=str(folder/'tasks.toml'), k=2, m=2, length=4, source_steps=5, steps=2, limit=4)
    began = time.perf_counter()
    run(config | RUNS[kind], folder/'out')
    return dict(seconds=time.perf_counter() - began, mib=resident(), mib_peak=resident('VmHWM'), mib_before=before)

def child_batch(folder):
    "Seconds of drawing a batch of 32, over two epochs' first steps"
    from bayes_prompt.data import batch_indices
    from bayes_prompt.store import load_tensors
    from bayes_prompt.tokens import Tokens
    tensors, about = load_tensors(next(Path(folder).glob('out/tokens/own/*.safetensors')), mapped=True)
    tokens = Tokens(tensors, about['task'], about['cue'])
    def draw(t): return [tokens[i] for i in batch_indices(len(tokens), 32, t, [0, 0])]
    draw(0)
    times = []
    for t in range(1, 1001):
        began = time.process_time()
        draw(t)
        times.append(time.process_time() - began)
    size = sum(x.nbytes for x in tensors.values())
    return dict(rows=len(tokens), token_mib=size/2**20, batch_ms=sorted(times)[500]*1000, batch_ms_p99=sorted(times)[990]*1000)

def rows(n):
    with tempfile.TemporaryDirectory() as d:
        size = write_rows(Path(d), n)
        runs = {kind: in_a_process('run', d, kind) for kind in RUNS}
        return dict(file_mib=size/2**20, **runs, **in_a_process('batch', d))

# ---- start

def start():
    def seconds(*words):
        code = 'from bayes_prompt.cli import bp_run; bp_run()'
        times = []
        for _ in range(5):
            began = time.perf_counter()
            done = subprocess.run([sys.executable, '-X', 'importtime', '-c', code, *words], capture_output=True, text=True)
            times.append(time.perf_counter() - began)
            assert ' torch' not in done.stderr.replace('|', ' '), 'torch was loaded'
        usage = os.times()
        subprocess.run([sys.executable, '-c', code, *words], capture_output=True)
        now = os.times()
        return dict(seconds=min(times), cpu_seconds=now.children_user + now.children_system - usage.children_user - usage.children_system)
    return dict(help=seconds('--help'), refused=seconds('method=bmtp'))

# ---- all

def in_a_process(kind, *args):
    command = [sys.executable, __file__, '--child', kind, *map(str, args)]
    env = os.environ | dict(HF_HUB_OFFLINE='1', OMP_WAIT_POLICY='passive', OMP_NUM_THREADS='1')
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode: raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])

def main(parts, steps, sizes, records):
    todo = dict(
        start=start, records=lambda: in_a_process('records', records), steps=lambda: in_a_process('steps', steps),
        rows=lambda: {str(n): rows(n) for n in sizes})
    versions = {p: importlib.metadata.version(p) for p in ('torch', 'transformers', 'datasets', 'pandas')}
    about = dict(python=platform.python_version(), machine=platform.machine(), cores=os.cpu_count(), **versions)
    for part in parts:
        found = todo[part]() | dict(load_average=os.getloadavg()[0])
        old = json.loads(OUT.read_text()) if OUT.exists() else {}
        OUT.write_text(json.dumps(old | dict(environment=about) | {part: found}, indent=1) + '\n')
        print(part, json.dumps(found)[:400], flush=True)

if __name__ == '__main__':
    if sys.argv[1:2] == ['--child']:
        kind, *args = sys.argv[2:]
        do = dict(steps=lambda n: child_steps(int(n)), records=lambda n: child_records(int(n)), run=child_run, batch=child_batch)
        print(json.dumps(do[kind](*args)))
    else:
        p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        p.add_argument('--parts', nargs='+', default=['start', 'records', 'rows', 'steps'], choices=['start', 'records', 'rows', 'steps'])
        p.add_argument('--steps', type=int, default=20_000)
        p.add_argument('--records', type=int, default=100_000)
        p.add_argument('--rows', type=int, nargs='+', default=[100_000, 1_000_000])
        a = p.parse_args()
        main(a.parts, a.steps, a.rows, a.records)
