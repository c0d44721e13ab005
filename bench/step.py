"""Time one source step, one target step and evaluation against the loop that a PEFT user writes.

    pip install -c constraints.txt -e . && python bench/step.py [--shape t5-small] [--rounds 5]

Random weights (speed does not depend on them), float32, one pinned thread, CPU seconds (`time.process_time`), contenders interleaved in one run, medians
over rounds. Before anything is timed all contenders' losses and gradients are compared. Memory is each contender's own growth of the peak of resident
memory over one step, in a process of its own. Writes `results/bench/step-<shape>.json` and `.md`.
"""
import os, sys
core = max(os.sched_getaffinity(0))
os.sched_setaffinity(0, {core})  # before any library starts its threads
os.environ.update(OMP_NUM_THREADS='1', MKL_NUM_THREADS='1', HF_HUB_OFFLINE='1')

import argparse, copy, importlib.metadata, json, platform, resource, statistics, subprocess, time, warnings
from pathlib import Path
import torch
from tqdm import tqdm

from bayes_prompt.prompt import Backbone, Example, init_prompts, label_ids, label_scores, load_backbone, loss_and_grad

warnings.filterwarnings('ignore')
torch.set_num_threads(1)
SHAPES = {'t5-small': dict(d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8), 't5-base': dict(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12)}
MIXED = (24, 32, 41, 50, 166, 256)  # input lengths of six tasks' examples
CHOICES = ['negative', 'positive']


def backbone(shape):
    from transformers import T5Config, T5ForConditionalGeneration
    tok = load_backbone('tiny-t5').tokenizer
    if shape == 'mini': return load_backbone('mini')
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(vocab_size=32128, pad_token_id=tok.pad_token_id, eos_token_id=tok.sep_token_id, decoder_start_token_id=tok.pad_token_id, **SHAPES[shape]))
    return Backbone(shape, model.requires_grad_(False).eval(), tok)

def examples(bb, lengths, seed=0):
    "Random inputs of given lengths, each with a label"
    g = torch.Generator().manual_seed(seed)
    labels = label_ids(bb, CHOICES)
    return [Example(tuple(torch.randint(1000, 20000, (n,), generator=g).tolist()), labels[i % 2]) for i, n in enumerate(lengths)]

def peft_model(bb, length, train=False):
    "PEFT's prompt tuning on the same model; one prompt, as one fits an encoder–decoder"
    from peft import PromptTuningConfig, get_peft_model
    m = get_peft_model(copy.deepcopy(bb.model) if train else bb.model, PromptTuningConfig(task_type='SEQ_2_SEQ_LM', num_virtual_tokens=length, num_transformer_submodules=1))
    return m.train(train)

def padded(bb, exs):
    n = max(len(e.ids) for e in exs)
    pad = bb.tokenizer.pad_token_id or 0
    ids = torch.tensor([list(e.ids) + [pad]*(n-len(e.ids)) for e in exs])
    mask = torch.tensor([[1]*len(e.ids) + [0]*(n-len(e.ids)) for e in exs])
    return ids, mask

def peft_step(bb, x, batches, train=False):
    "M particles one after the other, each with one padded batch of all tasks: what `for p in particles: loss.backward()` does"
    model, exs = peft_model(bb, x.shape[1], train), [e for b in batches for e in b]
    ids, mask = padded(bb, exs)
    labels = torch.nn.utils.rnn.pad_sequence([torch.tensor(e.labels) for e in exs], True, -100)
    weight, = [p for p in model.parameters() if p.requires_grad]
    def step():
        losses, grads = [], []
        for p in x:
            with torch.no_grad(): weight.copy_(p)
            weight.grad = None
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss  # labels have one length: the mean over tokens is that over examples
            (loss*len(exs)).backward()
            losses.append(loss.item()); grads.append(weight.grad.clone())
        return torch.tensor(losses), torch.stack(grads)
    return step

def ours_step(bb, x, batches, budget=1024):
    def step():
        l, g = loss_and_grad(bb, x, batches, weights=[len(b) for b in batches], budget=budget)
        return (l*torch.tensor([len(b) for b in batches])).sum(1)/sum(map(len, batches)), g
    return step

def peft_eval(bb, x, exs):
    model = peft_model(bb, x.shape[1])
    with torch.no_grad(): [p for p in model.parameters() if p.requires_grad][0].copy_(x[0])
    def step():
        with torch.no_grad():
            for i in range(0, len(exs), 32):
                ids, mask = padded(bb, exs[i:i+32])
                model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    return step

def ours_eval(bb, x, exs): return lambda: label_scores(bb, x[:1], exs, CHOICES)

def uniform(n, lo, hi, seed=1): return torch.randint(lo, hi+1, (n,), generator=torch.Generator().manual_seed(seed)).tolist()

def jobs(shape):
    "name -> (contenders: name -> function that gives a step, the shared arguments)"
    bb = backbone(shape)
    length = 100 if shape != 'mini' else 20
    x = init_prompts(bb, 5, length, seed=0)
    one = lambda lens: [[e] for e in examples(bb, lens)]
    step = {'PEFT loop': peft_step, 'PEFT loop, train mode': lambda *a: peft_step(*a, train=True), 'one padded forward': padded_step, 'ours': ours_step}
    target = {k: v for k, v in step.items() if k in ('PEFT loop', 'ours')}
    return {
        'source step, mixed lengths': (step, (bb, x, one(MIXED))),
        'source step, uniform lengths': (step, (bb, x, one(uniform(6, 64, 128)))),
        'target step, batch 32': (target, (bb, x[:1], [examples(bb, uniform(32, 16, 128))])),
        'evaluation, 64 examples': ({'PEFT generate': peft_eval, 'ours': ours_eval}, (bb, x, examples(bb, uniform(64, 16, 128)))),
    }

def padded_step(bb, x, batches):
    "All M·K sequences in one padded forward pass, in plain transformers"
    from bayes_prompt.prompt import prompt_losses
    exs = [e for b in batches for e in b]
    def step():
        p = x.clone().requires_grad_()
        l = prompt_losses(bb, p, exs)
        l.sum().backward()
        return l.detach().mean(1), p.grad
    return step

def clock(f):
    t = time.process_time()
    f()
    return time.process_time() - t

def flops(bb, x, batches):
    "Necessary floating-point operations of a step: forward and the backward pass through activations, on unpadded tokens"
    if not hasattr(bb.model, 'encoder') or not hasattr(bb.model.config, 'd_ff'): return None
    c = bb.model.config
    proj, attend = 4*c.d_model*c.num_heads*c.d_kv + 2*c.d_model*c.d_ff, c.num_heads*c.d_kv
    total = 0
    for e in [e for b in batches for e in b]:
        t, l = len(e.ids) + x.shape[1], len(e.labels)
        total += 4*c.num_layers*(t*proj + 2*t*t*attend)  # encoder: 2 a multiply-add, twice for the backward pass
        total += 4*c.num_layers*(l*(proj + 2*c.d_model*attend) + 2*t*c.d_model*attend + 2*l*(l + t)*attend) + 4*l*c.d_model*c.vocab_size
    return total*len(x)

def peak():
    a, b = torch.randn(1000, 512), torch.randn(512, 2048)
    for _ in range(5): a @ b
    t = time.process_time()
    for _ in range(50): a @ b
    return 50*2*1000*512*2048/(time.process_time() - t)

def memory(shape, job, name):
    "MiB that one step adds to the peak, in a process of its own"
    out = subprocess.run([sys.executable, __file__, '--shape', shape, '--memory', job, name], capture_output=True, text=True)
    if out.returncode: raise RuntimeError(out.stderr)
    return float(out.stdout.split()[-1])

def main(shape, rounds, out):
    todo, results = jobs(shape), {}
    for job, (contenders, args) in todo.items():
        steps = {k: f(*args) for k, f in contenders.items()}
        first = {k: s() for k, s in steps.items()}  # warm-up, and the check
        if job != 'evaluation, 64 examples':
            l0, g0 = first['PEFT loop']
            for k in ('ours', 'one padded forward'):
                if k in first:
                    l, g = first[k]
                    assert torch.allclose(l, l0, rtol=1e-4) and (g - g0).norm() < 2e-3*g0.norm(), (job, k, l, l0, ((g - g0).norm()/g0.norm()).item())
        times = {k: [] for k in steps}
        for _ in tqdm(range(rounds), desc=job):
            for k, s in steps.items(): times[k].append(clock(s))
        rate, need = peak(), flops(*args) if job.startswith(('source', 'target')) else None
        base = next(iter(steps))
        results[job] = {k: dict(seconds=statistics.median(t), low=min(t), high=max(t), ratio=statistics.median(times[base])/statistics.median(t), share=need and need/statistics.median(t)/rate,
                                memory_mib=memory(shape, job, k)) for k, t in times.items()}
        results[job] |= {'matrix multiply, GFLOP/s': rate/1e9}
    env = dict(python=platform.python_version(), threads=1, shape=shape, rounds=rounds, **{p: importlib.metadata.version(p) for p in ('torch', 'transformers', 'peft', 'bayes_prompt')})
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out/f'step-{shape}.json').write_text(json.dumps(dict(environment=env, results=results), indent=1))
    lines = ['| job | contender | CPU s | from–to | against the first | share of matmul peak | step memory, MiB |', '|---|---|---|---|---|---|---|']
    for job, r in results.items():
        lines += [f'| {job} | {k} | {v["seconds"]:.3f} | {v["low"]:.3f}–{v["high"]:.3f} | {v["ratio"]:.2f}× | {"" if not v["share"] else format(v["share"], ".0%")} | {v["memory_mib"]:.0f} |' for k, v in r.items() if isinstance(v, dict)]
    (out/f'step-{shape}.md').write_text('\n'.join(lines) + '\n')
    print('\n'.join(lines))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--shape', default='t5-small', choices=[*SHAPES, 'mini'])
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--out', default=Path(__file__).resolve().parents[1]/'results/bench')
    p.add_argument('--memory', nargs=2, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.memory:
        contenders, args = jobs(a.shape)[a.memory[0]]
        step = contenders[a.memory[1]](*args)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        step()
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)/2**10)
    else: main(a.shape, a.rounds, a.out)
