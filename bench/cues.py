"""What should ask a decoder-only model? SmolLM2-135M-Instruct without a prompt, on validation parts of the mini suite.

    pip install -c constraints.txt -e '.[gguf]' && bp_fetch smollm2 && python bench/cues.py [--rows 100] [--tasks movie spam]

For each cue: the task's metric as it is, and with the labels' own bias taken out by 32 training texts (no labels). `chat` puts the task's cue into the
model's chat template. No test row is read. Writes `results/bench/cues.json`.
"""
import argparse, json, os
os.environ.setdefault('OMP_NUM_THREADS', '1')
from pathlib import Path
import torch
from bayes_prompt.backbone import load_backbone
from bayes_prompt.data import load_task
from bayes_prompt.evaluate import evaluate, label_probabilities
from bayes_prompt.machine import environment
from bayes_prompt.prompt import chat_cue, encode
from bayes_prompt.store import write_json
from bayes_prompt.tasks import suite

TRIED = dict( # beside the default, and what the table of tasks has
    movie=['Review: {text}\nSentiment:', 'chat'], amazon=['Review: {text}\nSentiment:', 'chat'], tweets=['Tweet: {text}\nSentiment:'], nyt=[],
    acceptability=['\nThe sentence is'], spam=['\nThis e-mail is'], movie_score=['\nScore:'],
    hypernym=['\nIs the first a kind of the second?'], context=['\nSame meaning:'], supersense=['\nCategory:'])

def measured(bb, data, cue, rows, texts):
    "The metric on validation rows, as it is and calibrated"
    task, none, part = data.task, torch.zeros(1, 0, bb.width), data.validation[:rows]
    def coded(pairs): return encode(bb, pairs, task.max_src, task=task.name, cue=cue)
    prior = label_probabilities(bb, none, coded(data.train[:texts]), data.choices).mean(0)
    scores = evaluate(bb, none, coded(part), part, data.choices, task.metric, prior=prior)
    return dict(score=round(scores[task.metric], 3), calibrated=round(scores['calibrated'], 3), constant=round(scores['constant'], 3), n=len(part))

def main(names, rows, texts, out):
    bb, file = load_backbone('smollm2'), Path(out)/'cues.json'
    kept = json.loads(file.read_text())['cues'] if names and file.exists() else []
    found = [r for r in kept if r['task'] not in names]
    for task in suite('mini'):
        if names and task.name not in names: continue
        data = load_task(task.name)
        cues = dict.fromkeys(['\nAnswer:', task.cue, *TRIED[task.name]])
        for cue in cues:
            asked = chat_cue(bb, task.cue) if cue == 'chat' else cue
            about = dict(task=task.name, metric=task.metric, cue=cue, chosen=cue == task.cue)
            found.append(about | measured(bb, data, asked, rows, texts))
            print(found[-1], flush=True)
    about = dict(backbone='smollm2', part='validation', rows=rows, texts=texts)
    write_json(file, dict(environment=environment(), **about, cues=found))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--tasks', nargs='*', help='only these; the record keeps its rows of others')
    p.add_argument('--rows', type=int, default=100, help='of a validation part')
    p.add_argument('--texts', type=int, default=32, help='of a training part, to calibrate')
    p.add_argument('--out', default=Path(__file__).resolve().parents[1]/'results/bench')
    a = p.parse_args()
    torch.set_num_threads(1)
    main(a.tasks, a.rows, a.texts, a.out)
