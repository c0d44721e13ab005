"Ranking, generation, scores"
import pytest, torch
from bayes_prompt.data import load_task
from bayes_prompt.evaluate import evaluate, label_probabilities, predict
from bayes_prompt.prompt import encode, init_prompts

def part(bb, n=8):
    task = load_task('supersense')
    return task, task.validation[:n], encode(bb, task.validation[:n], 40, 6)

def test_several_prompts_answer_by_their_mean_probability(bb):
    (task, pairs, exs), x = part(bb), init_prompts(bb, 3, 6)
    each = [label_probabilities(bb, x[i:i+1], exs, task.choices) for i in range(3)]
    p = label_probabilities(bb, x, exs, task.choices)
    assert torch.allclose(p, sum(each)/3, atol=1e-5) and torch.allclose(p.sum(1), torch.ones(8), atol=1e-5)
    assert predict(bb, x, exs, task.choices) == [task.choices[i] for i in p.argmax(1)]

def test_scores_of_known_answers(bb):
    task, pairs, exs = part(bb)
    x = init_prompts(bb, 1, 6)
    answers = predict(bb, x, exs, task.choices)
    s = evaluate(bb, x, exs, pairs, task.choices)
    assert s['accuracy'] == pytest.approx(sum(a == y for a, (_, y) in zip(answers, pairs))/8) and {'macro_f1', 'matthews', 'nll', 'constant'} <= set(s)
    right = evaluate(bb, x, exs, pairs, task.choices, golds=[[a] for a in answers])
    assert right['accuracy'] == 1

def test_free_text_has_one_prompt(bb):
    _, pairs, exs = part(bb)
    x = init_prompts(bb, 2, 6)
    with pytest.raises(ValueError, match='one prompt, got 2'): predict(bb, x, exs)
    said = predict(bb, x[:1], exs, max_new_tokens=4)
    assert len(said) == 8 and said == [predict(bb, x[:1], [e], max_new_tokens=4)[0] for e in exs]   # padding changes no answer
    s = evaluate(bb, x[:1], exs, pairs, metric='squad_f1', read=lambda a, t: t)
    assert s['squad_f1'] == 1 and 'nll' not in s
