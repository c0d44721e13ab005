"""Time one source step, one target step and evaluation against the loop that a PEFT user writes.

    pip install -c constraints.txt -e . && python bench/step.py [--shape t5-small] [--rounds 5] [--only-jobs uniform]

Random weights (speed does not depend on them), float32, one pinned thread, CPU seconds (`time.process_time`), contenders interleaved in one run, medians
over rounds; a ratio is the median of the rounds' ratios. Before anything is timed, losses and gradients of all contenders are compared. Memory is each
contender's own growth of the peak of resident memory over one step, in a process of its own. Decoders alone (`--shape smollm2`, `gpt2`, `qwen2`) take minutes a step, so
there the pass that is compared may be the one that is timed (`--rounds 0`). On a GPU (`--device cuda`) weights are bfloat16, time is
the wall's around a synchronised step, and memory is the device's. Writes `results/bench/step-<name>.json` and `.md`.
"""
import os, sys
if 'cuda' not in sys.argv:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before any library starts its threads
    os.environ.update(OMP_NUM_THREADS='1', MKL_NUM_THREADS='1')
os.environ['HF_HUB_OFFLINE'] = '1'

import argparse, copy, importlib.metadata, json, platform, statistics, subprocess, time, warnings
from pathlib import Path
import torch, torch.nn.functional as F
from tqdm import tqdm

from bayes_prompt.backbone import Backbone, load_backbone, token_budget
from bayes_prompt.causal import PackedPrefix, SharedPrefix
from bayes_prompt.engine import label_scores, loss_and_grad, prompt_losses
from bayes_prompt.packed import Attend, Norm, Packed
from bayes_prompt.papers import step_operations as flops
from bayes_prompt.prompt import Example, init_prompts, label_ids

warnings.filterwarnings('ignore')
SHAPES = {'t5-small': dict(d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8), 't5-base': dict(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12),
          'tiny-t5': {}, 'mini': {}}
LLAMA = dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, vocab_size=49152)
DECODERS = {'smollm2': ('Llama', LLAMA), 'gpt2': ('GPT2', dict(vocab_size=50257, resid_pdrop=0., embd_pdrop=0., attn_pdrop=0.)),
            'qwen2': ('Qwen2', dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2, vocab_size=151936)),
            'tiny-llama': ('Llama', dict(hidden_size=48, intermediate_size=128, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=2, vocab_size=31000))}
MIXED = (24, 32, 41, 50, 166, 256)  # input lengths of six tasks' examples
CHOICES = ['negative', 'positive']
FOUR = ['very negative', 'somewhat negative', 'somewhat positive', 'very positive']


def backbone(shape, device='cpu'):
    from transformers import T5Config, T5ForConditionalGeneration
    dtype = torch.bfloat16 if device == 'cuda' else torch.float32
    if shape in DECODERS: return decoder(*DECODERS[shape])
    if not SHAPES[shape]: return load_backbone(shape, device, dtype)
    tok = load_backbone('tiny-t5').tokenizer
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(vocab_size=32128, pad_token_id=tok.pad_token_id, eos_token_id=tok.sep_token_id, decoder_start_token_id=tok.pad_token_id, **SHAPES[shape]))
    model = model.requires_grad_(False).eval().to(device, dtype)
    return Backbone(shape, model, tok, budget=token_budget(model.config, torch.cuda.mem_get_info()[0], 2) if device == 'cuda' else 1024)

def decoder(family, config):
    import transformers
    torch.manual_seed(0)
    model = getattr(transformers, f'{family}LMHeadModel' if family == 'GPT2' else f'{family}ForCausalLM')(getattr(transformers, f'{family}Config')(tie_word_embeddings=True, **config))
    return Backbone(family, model.requires_grad_(False).eval(), load_backbone('mini').tokenizer, engine=PackedPrefix())

def examples(bb, lengths, seed=0):
    "Random inputs of given lengths, each with a label"
    g = torch.Generator().manual_seed(seed)
    labels = label_ids(bb, CHOICES)
    return [Example(tuple(torch.randint(1000, min(20000, bb.embed.num_embeddings), (n,), generator=g).tolist()), labels[i % 2]) for i, n in enumerate(lengths)]

def uniform(n, lo, hi, seed=1): return torch.randint(lo, hi+1, (n,), generator=torch.Generator().manual_seed(seed)).tolist()

def peft_model(bb, x, train=False):
    "PEFT's prompt tuning on the same model; one prompt, as one fits an encoder–decoder. Its prompt"
    from peft import PromptTuningConfig, get_peft_model
    kind = dict(task_type='SEQ_2_SEQ_LM', num_transformer_submodules=1) if bb.family == 'seq2seq' else dict(task_type='CAUSAL_LM')
    m = get_peft_model(copy.deepcopy(bb.model) if train else bb.model, PromptTuningConfig(num_virtual_tokens=x.shape[1], **kind)).to(bb.device).train(train)
    weight, = [p for p in m.parameters() if p.requires_grad]
    with torch.no_grad(): weight.copy_(x[0])
    return m, weight

def padded(bb, exs):
    n = max(len(e.ids) for e in exs)
    ids = torch.tensor([list(e.ids) + [bb.tokenizer.pad_token_id or 0]*(n-len(e.ids)) for e in exs])
    return dict(input_ids=ids.to(bb.device), attention_mask=torch.tensor([[1]*len(e.ids) + [0]*(n-len(e.ids)) for e in exs]).to(bb.device))

def whole(bb, exs):
    "Texts with their labels as a decoder is trained on them, padded at the end"
    batch = padded(bb, [Example(e.ids + e.labels, e.labels) for e in exs])
    labels = torch.full_like(batch['input_ids'], -100)
    for row, e in zip(labels, exs): row[len(e.ids):len(e.ids) + len(e.labels)] = torch.tensor(e.labels)
    return batch | dict(labels=labels)

def peft_step(bb, x, batches, train=False):
    "M particles one after the other, each with one padded batch of all tasks: what `for p in particles: loss.backward()` does"
    (model, weight), exs = peft_model(bb, x, train), [e for b in batches for e in b]
    if bb.family == 'causal': batch = whole(bb, exs)
    else: batch = padded(bb, exs) | dict(labels=torch.tensor([e.labels for e in exs]).to(bb.device)) # labels have one length: the mean over tokens is that over examples
    def step():
        losses, grads = [], []
        for p in x:
            with torch.no_grad(): weight.copy_(p)
            weight.grad = None
            loss = model(**batch).loss
            (loss*len(exs)).backward()
            losses.append(loss.detach()); grads.append(weight.grad.clone())
        return torch.stack(losses).float().cpu(), torch.stack(grads)
    return step

def padded_step(bb, x, batches):
    "All M·K sequences in one padded forward pass, in plain transformers"
    def step():
        p = x.clone().requires_grad_()
        l = prompt_losses(bb, p, [e for b in batches for e in b])
        l.sum().backward()
        return l.detach().mean(1).cpu(), p.grad
    return step

def ours(bb, x, batches):
    size = torch.tensor([len(b) for b in batches])
    def step():
        l, g = loss_and_grad(bb, x, batches, weights=size)
        return (l*size).sum(1)/size.sum(), g
    return step

class Folded(Packed):
    "Weights of the encoder's norms multiplied into the next matrices, and one matrix for queries, keys and values: advised often, measured here"
    def __init__(self, model):
        super().__init__(model)
        self.qkv, self.ff, self.one = {}, {}, torch.ones((), dtype=model.dtype, device=model.device)
        for b in model.encoder.block:
            a, f = b.layer
            self.qkv[a] = torch.cat([getattr(a.SelfAttention, n).weight for n in 'qkv'])*a.layer_norm.weight
            self.ff[f] = f.DenseReluDense.wi.weight*f.layer_norm.weight
    def self_attention(self, x, layer, bias, ranges):
        if layer not in self.qkv: return super().self_attention(x, layer, bias, ranges)
        return x + layer.SelfAttention.o(Attend.apply(*F.linear(Norm.apply(x, self.one, layer.layer_norm.variance_epsilon), self.qkv[layer]).chunk(3, 1), bias, ranges))
    def feed_forward(self, x, layer):
        if layer not in self.ff: return super().feed_forward(x, layer)
        return x + layer.DenseReluDense.wo(F.linear(Norm.apply(x, self.one, layer.layer_norm.variance_epsilon), self.ff[layer]).relu_())

def with_engine(step, engine):
    from dataclasses import replace
    return lambda bb, *a: step(replace(bb, engine=engine(bb.model)), *a)

def peft_eval(bb, x, exs):
    "Greedy generation of as many tokens as a label has, in batches of 32"
    model, n = peft_model(bb, x)[0], len(exs[0].labels)
    @torch.no_grad()
    def step():
        for i in range(0, len(exs), 32): model.generate(**padded(bb, exs[i:i+32]), max_new_tokens=n, min_new_tokens=n, do_sample=False)
    return step

def ours_eval(bb, x, exs): return lambda: label_scores(bb, x[:1], exs, CHOICES)

def peft_ranking(bb, x, exs):
    "Each label as the end of a whole text, in batches of 16 texts"
    (model, _), p = peft_model(bb, x), x.shape[1]
    @torch.no_grad()
    def step():
        out = []
        for label in label_ids(bb, FOUR):
            texts = [Example(e.ids, label) for e in exs]
            for i in range(0, len(exs), 16):
                batch = whole(bb, texts[i:i+16])
                gold = batch.pop('labels')
                logits = model(**batch).logits[:, p-1:-1]
                kept = gold != -100
                each = F.cross_entropy(logits[kept], gold[kept], reduction='none')
                out.append(-each.view(-1, len(label)).sum(1))
        return torch.cat(out).view(len(FOUR), len(exs)).T[None]
    return step

def ours_ranking(bb, x, exs): return lambda: label_scores(bb, x[:1], exs, FOUR)

def decoder_jobs(shape):
    bb = backbone(shape)
    x = init_prompts(bb, 5, 100, seed=0)
    engines = {'plain': lambda m: None, 'prompt once': lambda m: SharedPrefix(), 'packed': lambda m: PackedPrefix()}
    steps = {'PEFT loop': peft_step} | {k: with_engine(ours, e) for k, e in engines.items()}
    few, ranked = {k: steps[k] for k in ('PEFT loop', 'packed')}, {'PEFT, whole texts': peft_ranking, 'packed': ours_ranking}
    def one(lengths): return [[e] for e in examples(bb, lengths)]
    return {'source step, mixed lengths': (steps, (bb, x, one(MIXED))),
            'source step, uniform lengths': (few, (bb, x, one(uniform(6, 64, 128)))),
            'source step, 24 short inputs': (few, (bb, x, one(uniform(24, 18, 50)))),
            'source step, mixed lengths, 60 examples, memory': ({'packed': steps['packed']}, (bb, x, one(MIXED*10))),
            'target step, batch 32': (few, (bb, x[:1], [examples(bb, uniform(32, 16, 128))])),
            'evaluation, 4 labels, 64 examples': (ranked, (bb, x, examples(bb, uniform(64, 16, 128))))}

def jobs(shape, device='cpu'):
    "name -> (contenders: name -> function that gives a step, the shared arguments)"
    if shape in DECODERS: return decoder_jobs(shape)
    bb, length = backbone(shape, device), 100 if 't5-' in shape else 20
    x = init_prompts(bb, 5, length, seed=0)
    one = lambda lens: [[e] for e in examples(bb, lens)]
    two = [[a, b] for a, b in zip(examples(bb, MIXED), examples(bb, [round(n*f) for n, f in zip(MIXED, (1.4, .7, 1.3, .8, .75, .9))], seed=1))]
    engines = {'packed, keys and values made': lambda m: Packed(m, absorb=False), 'packed': Packed, 'packed and folded': Folded} if bb.model.config.model_type == 't5' else {}
    steps = {'PEFT loop': peft_step, 'PEFT loop, train mode': lambda *a: peft_step(*a, train=True), 'one padded forward': padded_step, 'plain': ours}
    steps |= {k: with_engine(ours, e) for k, e in engines.items()}
    few = {k: v for k, v in steps.items() if k in FEW}
    ranked = {'PEFT generate': peft_eval, 'PEFT generate, sorted by length': lambda b, x, exs: peft_eval(b, x, sorted(exs, key=lambda e: len(e.ids))), 'plain': ours_eval}
    if engines: ranked['packed'] = with_engine(ours_eval, Packed)
    out = {
        'source step, mixed lengths': (steps, (bb, x, one(MIXED))),
        'source step, mixed lengths, two examples a task': (few, (bb, x, two)),
        'source step, uniform lengths': (steps, (bb, x, one(uniform(6, 64, 128)))),
        'source step, mixed lengths, M=15': (few, (bb, init_prompts(bb, 15, length, seed=0), one(MIXED))),
        'target step, batch 32': (few, (bb, x[:1], [examples(bb, uniform(32, 16, 128))])),
        'evaluation, 64 examples': (ranked, (bb, x, examples(bb, uniform(64, 16, 128)))),
    }
    return out if shape != 't5-base' or device != 'cpu' else {k: (few, out[k][1]) for k in list(out)[:1]}  # a step takes minutes here
MEMORY_ONLY = 'M=15', 'memory'  # ends of jobs that are not timed
FEW = ('PEFT loop', 'plain', 'packed')
def timed(job): return not job.endswith(MEMORY_ONLY)

def clock(f, device='cpu'):
    if device == 'cpu':
        t = time.process_time()
        f()
        return time.process_time() - t
    torch.cuda.synchronize()
    t = time.perf_counter()
    f()
    torch.cuda.synchronize()
    return time.perf_counter() - t

def decoder_flops(c, m, length, sizes):
    "The same for a decoder alone: the prompt once; of the last layer, queries and what comes after attention at label rows only; back through the first layer's queries, keys and values for the prompt only"
    w, n = c.hidden_size, c.num_hidden_layers
    inner = getattr(c, 'head_dim', None) or w//c.num_attention_heads
    kv, inner = 2*w*inner*getattr(c, 'num_key_value_heads', c.num_attention_heads), inner*c.num_attention_heads
    ff = (3 if hasattr(c, 'num_key_value_heads') else 2)*w*(getattr(c, 'intermediate_size', None) or 4*w)
    q, rest = w*inner, w*inner + ff
    total = 4*length*((n - 1)*(q + kv + rest) + kv) + 6*(n - 1)*length*(length + 1)*inner
    for t, l in sizes:
        t += l - 1
        total += 4*(t*((n - 1)*(q + kv + rest) + kv) + l*(q + rest + w*c.vocab_size)) - 2*t*(q + kv)
        total += 12*inner*((n - 1)*(t*length + t*(t + 1)/2) + l*(length + t))
    return total*m

def needed(bb, x, batches):
    "Of a step; None where it was not counted"
    sizes = [(len(e.ids), len(e.labels)) for b in batches for e in b]
    count = decoder_flops if bb.family == 'causal' else flops if bb.model.config.model_type == 't5' else None
    return count and count(bb.model.config, *x.shape[:2], sizes)

def peak(device='cpu'):
    "The rate of matrix multiplication, FLOP/s"
    n = (1000, 512, 2048) if device == 'cpu' else (8192, 8192, 8192)
    a, b = [torch.randn(s, device=device, dtype=torch.float32 if device == 'cpu' else torch.bfloat16) for s in (n[:2], n[1:])]
    def many():
        for _ in range(50): a @ b
    many()
    return 50*2*n[0]*n[1]*n[2]/clock(many, device)

def resident(key): return next(int(l.split()[1]) for l in Path('/proc/self/status').read_text().splitlines() if l.startswith(key))*2**10

def step_memory(contender, args, device='cpu'):
    "MiB that one step adds to the peak of this process, after a step of one prompt of two rows on one example has loaded what is loaded once"
    bb, x, data = args
    contender(bb, x[:1, :2], [data[0][:1]] if isinstance(data[0], list) else data[:1])()
    step = contender(*args)
    if device == 'cuda': torch.cuda.reset_peak_memory_stats()
    else: Path('/proc/self/clear_refs').write_text('5')  # forget the peak of loading
    now, most = (torch.cuda.memory_allocated, torch.cuda.max_memory_allocated) if device == 'cuda' else [lambda k=k: resident(k) for k in ('VmRSS', 'VmHWM')]
    before = now()
    step()
    return (most() - before)/2**20

def memory(argv, file=__file__):
    "The same in a process of its own"
    out = subprocess.run([sys.executable, file, *argv], capture_output=True, text=True)
    if out.returncode: raise RuntimeError(out.stderr)
    return float(out.stdout.split()[-1])

def check(first, device='cpu', decoder=False):
    "Losses and gradients are those of the PEFT loop, scores of labels the same on both engines; dropout and generated text have no counterpart"
    tol, gtol = (2e-6, 1e-5) if decoder else (1e-4, 2e-3) if device == 'cpu' else (2e-2, 5e-2) # a T5 has ReLUs, which flip
    base = first.get('PEFT, whole texts', first.get('plain'))
    if 'PEFT loop' in first:
        l0, g0 = first['PEFT loop']
        for k, (l, g) in first.items():
            if 'train' not in k and not (torch.allclose(l, l0, rtol=tol) and (g - g0).norm() < gtol*g0.norm()): raise SystemExit(f'{k}: losses {l} where PEFT has {l0}, gradients differ by {((g - g0).norm()/g0.norm()):.1e}')
    elif 'packed' in first and not torch.allclose(base, first['packed'], rtol=2*tol): raise SystemExit('plain and packed scores differ')

def measure(contenders, args, rounds, device='cpu', need=None, label=''):
    "Warm-up, check, then interleaved rounds: contender -> median and range of seconds, of ratios to the first contender, and the share of this moment's matrix-multiply rate; and that rate"
    steps, first, times = {k: f(*args) for k, f in contenders.items()}, {}, {k: [] for k in contenders}
    for k, s in steps.items():
        took = clock(lambda: first.update({k: s()}), device)
        if not rounds: times[k].append(took) # the warm-up is the round
    check(first, device, args[0].family == 'causal')
    for _ in tqdm(range(rounds), desc=label, leave=False):
        for k, s in steps.items(): times[k].append(clock(s, device))
    rate, base, out = peak(device), times[next(iter(steps))], {}
    for k, t in times.items():
        ratios = [a/b for a, b in zip(base, t)]
        out[k] = dict(seconds=statistics.median(t), low=min(t), high=max(t), ratio=statistics.median(ratios), ratio_low=min(ratios), ratio_high=max(ratios), share=need and need/statistics.median(t)/rate)
    return out, rate

HEAD = ['seconds', 'from–to', 'times as fast as the first', 'from–to', 'share of matmul peak', 'step memory, MiB']
def cells(v):
    time_ = [f'{v["seconds"]:.3f}', f'{v["low"]:.3f}–{v["high"]:.3f}', f'{v["ratio"]:.2f}', f'{v["ratio_low"]:.2f}–{v["ratio_high"]:.2f}', format(v['share'], '.0%') if v['share'] else ''] if 'seconds' in v else ['']*5
    return [*time_, f'{v["memory_mib"]:.0f}' if 'memory_mib' in v else '']

def save(out, name, head, rows, **data):
    "JSON with versions and machine, and a Markdown table, which is also printed"
    env = dict(python=platform.python_version(), machine=torch.cuda.get_device_name() if 'cuda' in name else platform.machine(), threads=torch.get_num_threads(), **{p: importlib.metadata.version(p) for p in ('torch', 'transformers', 'peft', 'bayes_prompt')})
    text = '\n'.join('| ' + ' | '.join(map(str, r)) + ' |' for r in [head, ['---']*len(head), *rows])
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out/f'{name}.json').write_text(json.dumps(dict(environment=env, **data), indent=1))
    (out/f'{name}.md').write_text(text + '\n')
    print(text)

def main(shape, rounds, out, device, name, only, some='', mib=True):
    file = Path(out)/f'step-{name}.json'
    results = json.loads(file.read_text())['results'] if some and file.exists() else {}  # some jobs again, the others stay
    for job, (contenders, args) in jobs(shape, device).items():
        if some not in job: continue
        if only: contenders = {k: v for k, v in contenders.items() if k in (*FEW, 'PEFT generate')}
        old, results[job] = results.get(job, {}), {k: {} for k in contenders}
        if timed(job): results[job], rate = measure(contenders, args, rounds, device, None if job.startswith('evaluation') else needed(*args), job)
        for k in contenders:
            if 'memory_mib' in old.get(k, {}): results[job][k]['memory_mib'] = old[k]['memory_mib']
            if not mib or shape in DECODERS and ('mixed' not in job or k not in FEW): continue
            if k in (*FEW, 'PEFT generate') or 'mixed lengths' == job.split(', ')[-1]: results[job][k]['memory_mib'] = memory(['--shape', shape, '--memory', job, k, '--device', device])
        if timed(job): results[job]['matrix multiply, GFLOP/s'] = rate/1e9
        print(job, {k: round(v['ratio'], 2) for k, v in results[job].items() if isinstance(v, dict) and 'ratio' in v}, flush=True)
    rows = [[job, k, *cells(v)] for job, r in results.items() for k, v in r.items() if isinstance(v, dict)]
    save(out, f'step-{name}', ['job', 'contender', *HEAD], rows, shape=shape, device=device, rounds=rounds, results=results)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--shape', default='t5-small', choices=[*SHAPES, *DECODERS])
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    p.add_argument('--out', default=Path(__file__).resolve().parents[1]/'results/bench')
    p.add_argument('--name', help='of the files, the shape unless given')
    p.add_argument('--only', action='store_true', help='the PEFT loop, plain and packed only')
    p.add_argument('--only-jobs', default='', help='jobs with this in their name')
    p.add_argument('--no-memory', action='store_true', help='do not measure it; what a record says of it stays')
    p.add_argument('--memory', nargs=2, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.device == 'cpu': torch.set_num_threads(1)
    if a.memory:
        contenders, args = jobs(a.shape, a.device)[a.memory[0]]
        print(step_memory(contenders[a.memory[1]], args, a.device))
    else: main(a.shape, a.rounds, a.out, a.device, a.name or 'causal-'*(a.shape in DECODERS) + a.shape + (f'-{a.device}' if a.device != 'cpu' else ''), a.only, a.only_jobs, not a.no_memory)
