"""What the papers' source rows cost in memory and time: encoded and kept, read again, and not read at all.

    pip install -c constraints.txt -e . && python bench/tokens.py [--share 1]

Six tasks with as many training rows as the papers' sources and random words of their columns, about as many as they
have; `--share` takes a part of the rows. Three whole runs of a random T5 with two source steps, each in a process of its own:
the first encodes, the second has another source seed, the third only another target seed. Memory is the peak of
what is resident in the process, libraries included. Writes `results/bench/tokens.json` and `.md`.
"""
import argparse, importlib.metadata, json, os, platform, shutil, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT/'tests/fixtures/hub'
ROWS = {'mnli': 392_702, 'qnli': 104_743, 'qqp': 363_846, 'sst2': 67_349, 'squad': 87_599, 'superglue-record': 100_730} # as published
WORDS = { # column -> mean number of words
    'mnli': dict(premise=20, hypothesis=10), 'qnli': dict(question=10, sentence=28), 'qqp': dict(question1=11, question2=11),
    'sst2': dict(sentence=10), 'squad': dict(question=11, context=120), 'superglue-record': dict(passage=200, query=25)}
RUNS = dict(encoded=dict(), read=dict(source_seed=1), finished=dict(seed=1))

def write_task(name, n, folder, vocabulary, rng):
    "The fixtures of a task, with n training rows of random words"
    import numpy as np, pyarrow as pa, pyarrow.parquet as pq
    shutil.copytree(FIXTURES/name, folder/name)
    file, count = FIXTURES/name/'train.parquet', rng.integers
    few, schema = pq.read_table(file), pq.read_schema(file)
    few = few.take(np.arange(n) % len(few)) if n < 10_000 else pa.concat_tables([few]*(n//len(few) + 1)).slice(0, n)
    for column, mean in WORDS[name].items():
        sizes = np.maximum(3, rng.lognormal(np.log(mean) - .18, .6, n)).astype(int) # mean as said
        texts = (' '.join(vocabulary[count(len(vocabulary), size=size)]) for size in sizes)
        few = few.set_column(few.schema.get_field_index(column), schema.field(column), pa.array(texts, pa.string()))
    pq.write_table(few.cast(schema), folder/name/'train.parquet')

def write_data(folder, share):
    "All tasks, and how many rows they have"
    import numpy as np
    from bayes_prompt.backbone import load_backbone
    words = np.array([w for w in load_backbone('tiny-t5').tokenizer.get_vocab() if w.isalpha()], dtype=object)
    rng = np.random.default_rng(0)
    shutil.copytree(FIXTURES/'rte', folder/'rte')
    for name, n in ROWS.items(): write_task(name, max(200, round(n*share)), folder, words, rng)

def child(kind, data, out):
    began = time.perf_counter()
    from bayes_prompt.run import run
    config = dict(backbone='tiny-t5', target='rte', sources=list(ROWS), data_dir=data, k=2, m=2, length=4)
    r = run(config | dict(source_steps=2, steps=2, limit=4) | RUNS[kind], out)
    status = Path('/proc/self/status').read_text().splitlines()
    peak = next(int(l.split()[1]) for l in status if l.startswith('VmHWM'))/2**20
    print(json.dumps(dict(peak_gib=peak, seconds=time.perf_counter() - began, cut=r['cut'])))

def in_a_process(kind, data, out):
    command = [sys.executable, __file__, '--child', kind, str(data), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | dict(HF_HUB_OFFLINE='1'))
    if done.returncode: raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])

def counted(out):
    "Of the files of tokens: examples, tokens and size of each task"
    from bayes_prompt.tokens import load_tokens
    found = {}
    for f in sorted(out.glob('tokens/*/*.safetensors')):
        tokens, _ = load_tokens(f, f.stem)
        found[tokens.task] = dict(examples=len(tokens), tokens=len(tokens.tensors['ids']), mib=f.stat().st_size/2**20)
    return found

def main(share, out):
    with tempfile.TemporaryDirectory() as d:
        data, runs = Path(d)/'data', Path(d)/'runs'
        data.mkdir()
        write_data(data, share)
        print('data is written', flush=True)
        results = {}
        for kind in RUNS:
            results[kind] = in_a_process(kind, data, runs)
            print(kind, results[kind], flush=True)
        tasks = counted(runs)
    versions = {p: importlib.metadata.version(p) for p in ('torch', 'transformers', 'tokenizers', 'bayes_prompt')}
    about = dict(python=platform.python_version(), machine=platform.machine(), **versions)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    whole = dict(environment=about, share=share, tasks=tasks, results=results)
    (out/'tokens.json').write_text(json.dumps(whole, indent=1))
    lines = ['| run | peak memory, GiB | whole, s |', '|---|---|---|']
    lines += [f'| {k} | {r["peak_gib"]:.2f} | {r["seconds"]:.0f} |' for k, r in results.items()]
    lines += ['', '| task | examples | tokens | file, MiB |', '|---|---|---|---|']
    lines += [f'| {k} | {t["examples"]:,} | {t["tokens"]:,} | {t["mib"]:.0f} |' for k, t in tasks.items()]
    (out/'tokens.md').write_text('\n'.join(lines) + '\n')

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--share', type=float, default=1.)
    p.add_argument('--out', default=ROOT/'results/bench')
    p.add_argument('--child', nargs=3, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.child: child(*a.child)
    else: main(a.share, a.out)
