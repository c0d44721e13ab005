"""Time one source step of a decoder-only model: PEFT's loop, the plain way, and the prompt computed once.

    pip install -c constraints.txt -e . && python bench/causal.py [--layers 30] [--rounds 3] [--no-peft]

SmolLM2-135M's shape with random weights (fewer layers on request), M=5 prompts of 100 rows, six tasks with one example each; everything else as in `step.py`.
Writes `results/bench/causal-<layers>.json` and `.md`.
"""
import argparse
from pathlib import Path
import step                                # pins one thread before torch is loaded
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from bayes_prompt.backbone import Backbone, load_backbone
from bayes_prompt.causal import engine_for
from bayes_prompt.engine import label_scores, loss_and_grad
from bayes_prompt.prompt import init_prompts


def backbone(layers):
    config = LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=layers, num_attention_heads=9,
                         num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True)
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).requires_grad_(False).eval()
    return Backbone('smollm2 shape', model, load_backbone('mini').tokenizer)

def peft_step(bb, x, batches):
    "M particles one after the other, each with one padded batch of all tasks and logits everywhere"
    from peft import PromptTuningConfig, get_peft_model
    model = get_peft_model(bb.model, PromptTuningConfig(task_type='CAUSAL_LM', num_virtual_tokens=x.shape[1])).eval()
    weight, = [p for p in model.parameters() if p.requires_grad]
    exs = [e for b in batches for e in b]
    rows = [(e.ids + e.labels, [-100]*len(e.ids) + list(e.labels)) for e in exs]
    n = max(len(r) for r, _ in rows)
    ids, labels = [torch.tensor([list(r[k]) + [fill]*(n - len(r[k])) for r in rows]) for k, fill in ((0, 0), (1, -100))]
    mask = torch.tensor([[1]*len(r) + [0]*(n - len(r)) for r, _ in rows])
    def run():
        losses, grads = [], []
        for p in x:
            with torch.no_grad(): weight.copy_(p)
            weight.grad = None
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss # labels have one length: the mean over tokens is that over examples
            (loss*len(exs)).backward()
            losses.append(loss.detach())
            grads.append(weight.grad.clone())
        return torch.stack(losses), torch.stack(grads)
    return run

def with_engine(engine):
    def contender(bb, x, batches):
        b = Backbone(bb.name, bb.model, bb.tokenizer, engine=engine(bb))
        def run():
            losses, grads = loss_and_grad(b, x, batches)
            return losses.mean(1), grads
        return run
    return contender

def ranking(engine):
    def contender(bb, x, exs):
        b = Backbone(bb.name, bb.model, bb.tokenizer, engine=engine(bb))
        return lambda: label_scores(b, x, exs, step.CHOICES)
    return contender

def main(layers, rounds, out, only, peft):
    bb = backbone(layers)
    x = init_prompts(bb, 5, 100, seed=0)
    ways = {'plain': lambda bb: None, 'shared prompt': engine_for}
    steps = {'PEFT loop': peft_step} | {k: with_engine(e) for k, e in ways.items()}
    alone = {k: ranking(e) for k, e in ways.items()}
    jobs = {'source step, mixed lengths': (steps, (bb, x, [[e] for e in step.examples(bb, step.MIXED)])),
            'source step, uniform lengths': (steps, (bb, x, [[e] for e in step.examples(bb, step.uniform(6, 64, 128))])),
            'evaluation, 16 examples': (alone, (bb, x[:1], step.examples(bb, step.uniform(16, 16, 128))))}
    results = {}
    for job, (contenders, args) in jobs.items():
        if only not in job: continue
        if not peft: contenders = {k: c for k, c in contenders.items() if k in ways}
        results[job], _ = step.measure(contenders, args, rounds, label=job)
        print(job, {k: round(v['ratio'], 2) for k, v in results[job].items()}, flush=True)
    rows = [[job, k, *step.cells(v)[:4]] for job, r in results.items() for k, v in r.items()]
    step.save(out, f'causal-{layers}', ['job', 'contender', *step.HEAD[:4]], rows, layers=layers, rounds=rounds, results=results)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--layers', type=int, default=30)
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--out', default=Path(__file__).resolve().parents[1]/'results/bench')
    p.add_argument('--only', default='', help='jobs with this in their name')
    p.add_argument('--no-peft', action='store_true', help='without the PEFT loop, which takes most of the time')
    a = p.parse_args()
    torch.set_num_threads(1)
    main(a.layers, a.rounds, a.out, a.only, not a.no_peft)
