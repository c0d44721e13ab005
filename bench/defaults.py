"""Which start, learning rate and number of steps should `bp_tune` have? An equal search on tasks of the package.

    python bench/defaults.py [--tasks tweets spam nyt supersense] [--steps 64]

Each task gives 96 rows of its training part to tune on and 150 of its validation part to score; no test row is read, and no other page reports scores on these.
Every rate is tried on every task with the same rows, batches and steps; then the starts are scored as they are. Rates are multiples of the
root mean square of the embeddings, which is what `bp_tune` takes them from. What is in `results/bench/defaults.json` is not computed again.
"""
import argparse, json, os, sys
os.environ.setdefault('OMP_NUM_THREADS', '1')
from pathlib import Path
from time import process_time
import numpy as np, torch
from bayes_prompt.backbone import load_backbone
from bayes_prompt.data import load_task
from bayes_prompt.evaluate import evaluate
from bayes_prompt.machine import environment
from bayes_prompt.packed import pack
from bayes_prompt.prompt import encode, init_prompts
from bayes_prompt.store import write_json
from bayes_prompt.train import PromptTuning, batches, fit

LENGTH, BATCH, RATES = 10, 8, (.1, .3, 1, 3) # prompt rows, examples a step, multiples of the embeddings' RMS

def starts(bb, labels):
    "Name -> prompt before any training"
    words = init_prompts(bb, 3, LENGTH, 0)
    mean = init_prompts(bb, 1, 300, 5)[0].mean(0, keepdim=True).repeat(LENGTH, 1)
    pad = bb.embed(torch.tensor([bb.tokenizer.pad_token_id]*LENGTH)).detach()
    texts = {name: init_prompts(bb, 1, LENGTH, text=text)[0] for name, text in (('labels', ', '.join(labels)), ('commas', ','))}
    drawn = {f'vocabulary, draw {i}': p for i, p in enumerate(words)}
    return {'no prompt': torch.zeros(0, bb.width), **drawn, 'mean of the vocabulary': mean,
            'a tenth of draw 0 around the mean': mean + .1*(words[0] - mean), 'padding': pad, **texts}

class Search:
    "One task's rows, and what is known of it"
    def __init__(self, bb, name, rows):
        self.bb, self.data = bb, load_task(name)
        drawn = np.random.default_rng(0).permutation(len(self.data.train))[:rows]
        self.part = self.data.validation[:150]
        self.train, self.judged = (self.coded(pairs) for pairs in ([self.data.train[i] for i in drawn], self.part))

    def coded(self, pairs): return encode(self.bb, pairs, self.data.task.max_src, LENGTH, self.data.task.name)

    def scored(self, prompt):
        d = self.data
        scores = evaluate(self.bb, prompt[None], self.judged, self.part, d.choices, d.task.metric)
        return dict(score=round(scores[d.task.metric], 3), nll=round(scores['nll'], 4), n=len(self.part))

    def tuned(self, rate, steps):
        began = process_time()
        method = PromptTuning(self.bb, init_prompts(self.bb, 1, LENGTH, 0)[0], rate)
        fit(method, batches([self.train], BATCH, [0]), steps)
        return self.scored(method.prompt.detach()) | dict(cpu_seconds=round(process_time() - began))

def main(names, rows, steps, rates, out):
    bb, file = pack(load_backbone('mini'), 'auto'), Path(out)/'defaults.json'
    kept = json.loads(file.read_text()) if file.exists() else dict(environment=environment(), rows=rows, starts=[], rates=[])
    if kept['rows'] != rows: sys.exit(f'{file} holds {kept["rows"]} rows a task, got --rows {rows}: give another --out')
    def add(kind, about, f):
        if any(about.items() <= r.items() for r in kept[kind]): return
        kept[kind].append(about | f())
        print(kept[kind][-1], flush=True)
        write_json(file, kept)
    for name in names:
        s = Search(bb, name, rows)
        for multiple in rates:
            rate = float(f'{multiple*bb.embedding_size:.1g}')
            add('rates', dict(task=name, multiple=multiple, lr=rate, steps=steps), lambda: s.tuned(rate, steps))
    for name in names:
        s = Search(bb, name, rows)
        for start, prompt in starts(bb, s.data.choices).items():
            add('starts', dict(task=name, start=start), lambda: s.scored(prompt))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--tasks', nargs='*', default=['tweets', 'spam', 'nyt', 'supersense'])
    p.add_argument('--rows', type=int, default=96, help='of a training part')
    p.add_argument('--steps', type=int, default=64)
    p.add_argument('--rates', type=float, nargs='*', default=RATES, help="multiples of the embeddings' root mean square")
    p.add_argument('--out', default=Path(__file__).resolve().parents[1]/'results/bench')
    a = p.parse_args()
    torch.set_num_threads(1)
    main(a.tasks, a.rows, a.steps, a.rates, a.out)
