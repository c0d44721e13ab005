"""How the cost of a source step grows with particles M, tasks K, prompt rows l and input tokens T.

    pip install -c constraints.txt -e . && python bench/scaling.py [--shape t5-small] [--rounds 2]

Timed and checked as in `step.py`, with the same PEFT loop beside ours. Each axis is varied by itself around M=4, K=4, l=100, T=64. A straight line is fitted to each axis (its relative residual says how straight), and to
all points one rate of the floating-point operations needed; from these and from sizes in bytes follows what larger T5s need. Writes `results/bench/scaling-<shape>.json` and `.md`.
"""
import argparse, json, statistics
from pathlib import Path
import step  # pins the process to one core
import numpy as np, torch
from tqdm import tqdm
from bayes_prompt.papers import T5_SHAPES

BASE = dict(M=4, K=4, l=100, T=64)
AXES = dict(M=(1, 2, 4, 8, 15), K=(1, 2, 4, 8), l=(10, 50, 100, 200), T=(16, 64, 128, 256))
CONTENDERS = {'PEFT loop': step.peft_step, 'plain': step.ours, 'packed': step.with_engine(step.ours, step.Packed)}

def workload(bb, M, K, l, T): return bb, step.init_prompts(bb, M, l, seed=0), [[e] for e in step.examples(bb, [T]*K)]

def larger(m, k, l=100, t=128):
    "What a step of M particles on K tasks needs with each T5: operations, and bytes of bfloat16 weights and of particles, their gradient and Adam's two moments in float32"
    out = []
    for name, c in T5_SHAPES.items():
        inner = c.num_heads*c.d_kv
        weights = c.vocab_size*c.d_model + c.num_layers*(12*c.d_model*inner + 4*c.d_model*c.d_ff)
        out.append(dict(model=name, M=m, K=k, l=l, T=t, flops=step.flops(c, m, l, [(t, 2)]*k), weights_gib=2*weights/2**30, particles_gib=16*m*l*c.d_model/2**30))
    return out

def main(shape, rounds, out):
    bb, points, rates = step.backbone(shape), [], []
    todo = {tuple((BASE | {a: v}).items()) for a, vs in AXES.items() for v in vs}
    for p in tqdm([dict(t) for t in sorted(todo)], desc='points'):
        args = workload(bb, **p)
        measured, rate = step.measure(CONTENDERS, args, rounds, need=step.needed(*args), label=str(p))
        rates.append(rate)
        for k, v in measured.items():
            if p | dict(M=4) == BASE: v['memory_mib'] = step.memory(['--shape', shape, '--memory', json.dumps(p), k], __file__)
            points.append(p | dict(contender=k, flops=step.needed(*args)) | v)
    fits = []
    for k in CONTENDERS:
        for axis in AXES:
            on = [p for p in points if p['contender'] == k and all(p[a] == v for a, v in BASE.items() if a != axis)]
            x, y = [np.array([p[key] for p in on]) for key in (axis, 'seconds')]
            slope, intercept = np.polyfit(x, y, 1)
            fits.append(dict(contender=k, axis=axis, slope=slope, intercept=intercept, residual=float(np.abs(slope*x + intercept - y).max()/y.max())))
    rate = {k: statistics.median(p['flops']/p['seconds'] for p in points if p['contender'] == k) for k in CONTENDERS}
    rows = [[*[p[a] for a in BASE], p['contender'], *step.cells(p)] for p in points]
    rows += [['', '', '', '', f'{f["contender"]}: {f["slope"]:.4f} s for each of {f["axis"]}, {f["intercept"]:.3f} s at 0, residual {f["residual"]:.0%}'] + ['']*len(step.HEAD) for f in fits]
    step.save(out, f'scaling-{shape}', [*BASE, 'contender', *step.HEAD], rows, shape=shape, rounds=rounds, base=BASE, peak=statistics.median(rates), rate=rate, fits=fits, points=points, larger=larger(5, 6) + larger(50, 100))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--shape', default='t5-small', choices=[s for s in step.SHAPES if s != 'mini'])
    p.add_argument('--rounds', type=int, default=2)
    p.add_argument('--out', default=Path(__file__).resolve().parents[1]/'results/bench')
    p.add_argument('--memory', nargs=2, help=argparse.SUPPRESS)
    a = p.parse_args()
    torch.set_num_threads(1)
    if a.memory: print(step.step_memory(CONTENDERS[a.memory[1]], workload(step.backbone(a.shape), **json.loads(a.memory[0]))))
    else: main(a.shape, a.rounds, a.out)
