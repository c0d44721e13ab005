"From a file to predictions; the same in PEFT, on an encoder-decoder and on a decoder alone"
import json
import pandas as pd, pytest, torch
from bayes_prompt.own import load_posterior, load_tuned, source_posterior, tune_prompt
from bayes_prompt.files import read_file
from test_files import SIX, six

FAST = dict(backbone='tiny-t5', steps=3, length=4, **{'data.limit': 12, 'target.judge_rows': 4, 'target.batch': 2})

@pytest.fixture(scope='module')
def tuned(tmp_path_factory):
    f = tmp_path_factory.mktemp('d')/'d.csv'
    SIX['d.csv'](f)
    return tune_prompt(f, **FAST)

@pytest.mark.parametrize('name', SIX)
def test_six_files_to_predictions(six, name):
    tuned = tune_prompt(six/name, **FAST, max_src=32)
    rows = [{k: v for k, v in r.items() if k in tuned.task.reads} for r in read_file(six/name).rows[:3]]
    said = tuned.predict(rows)
    assert len(said) == 3 and tuned.scores['n'] == min(12, tuned.about['parts']['test'])
    assert (set(said) <= set(tuned.labels)) if tuned.labels else all(isinstance(s, str) for s in said)
    assert 'without a prompt' in tuned.verdict and tuned.predict([next(iter(r.values())) for r in rows]) == said

def test_a_score_is_made_of_its_predictions(tuned):
    "The confusion matrix counts the test rows, and its diagonal is the accuracy"
    n = sum(v for row in tuned.confusion.values() for v in row.values())
    right = sum(row.get(g, 0) for g, row in tuned.confusion.items())
    assert n == tuned.scores['n'] and right/n == pytest.approx(tuned.scores['accuracy'])
    assert tuned.confusion_table().splitlines()[0].split() == ['label', '1', '2', '3', '4', '5', '<-', 'answer']

def test_it_is_kept_and_read_again(tuned, tmp_path):
    tuned.save(tmp_path/'x')
    again = load_tuned(tmp_path/'x')
    texts = ['soup and bread', 'a lamp at the mill']
    assert again.probabilities(texts) == tuned.probabilities(texts) and again.scores == tuned.scores and again.task == tuned.task.changed(folder='', file='')
    with pytest.raises(ValueError, match='holds a prompt already'): tuned.save(tmp_path/'x')
    assert again.predict(pd.DataFrame(dict(comment=texts))) == again.predict(texts) and again.predict([]) == []

def ranked(model, tok, source, labels):
    "Plain PEFT: the log-probability of each label after the prompt and the text"
    x = tok([source], return_tensors='pt')
    out = []
    for ids in labels:
        y = torch.tensor([ids])
        with torch.no_grad(): logits = model(input_ids=x.input_ids, attention_mask=x.attention_mask, labels=y).logits
        out.append(logits.log_softmax(-1)[0, torch.arange(len(ids)), y[0]].sum().item())
    return torch.tensor(out)

def test_peft_answers_the_same(tuned, tmp_path):
    from peft import PeftModel
    from bayes_prompt.backbone import load_backbone
    from bayes_prompt.prompt import label_ids
    tuned.export(tmp_path/'peft')
    bb = load_backbone('tiny-t5') # a model of its own: PEFT changes it
    model = PeftModel.from_pretrained(bb.model, str(tmp_path/'peft')).eval()
    for text in ('soup and bread', 'a lamp at the mill'):
        theirs = ranked(model, bb.tokenizer, text, label_ids(bb, tuned.task.choices())).softmax(-1)
        ours = torch.tensor(list(tuned.probabilities([text])[0].values()))
        torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=0)
    assert load_tuned(tmp_path/'peft').predict(['soup']) == tuned.predict(['soup'])

@pytest.fixture
def decoder(tmp_path, mini):
    "A tiny Llama in a folder, as a user would have one"
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(0)
    t = mini.tokenizer
    config = LlamaConfig(vocab_size=len(t), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                         eos_token_id=t.sep_token_id, pad_token_id=t.pad_token_id, bos_token_id=t.cls_token_id)
    LlamaForCausalLM(config).save_pretrained(tmp_path/'llama')
    t.save_pretrained(tmp_path/'llama')
    return str(tmp_path/'llama')

def test_peft_answers_the_same_with_a_decoder(six, decoder, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    from bayes_prompt.prompt import encode, label_ids
    tuned = tune_prompt(six/'d.csv', **FAST | dict(backbone=decoder))
    tuned.export(tmp_path/'peft')
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(decoder), str(tmp_path/'peft')).eval()
    e, = encode(tuned.backbone, [('soup and bread', '1')], cue=tuned.task.cue)
    scores = []
    for ids in label_ids(tuned.backbone, tuned.task.choices(), cue=tuned.task.cue):
        with torch.no_grad(): logits = model(input_ids=torch.tensor([[*e.ids, *ids]])).logits[0, -len(ids)-1:-1]
        scores.append(logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].sum())
    ours = torch.tensor(list(tuned.probabilities(['soup and bread'])[0].values()))
    torch.testing.assert_close(torch.stack(scores).softmax(-1), ours, atol=1e-4, rtol=0)

def test_a_posterior_is_learnt_once(six, tmp_path, monkeypatch):
    monkeypatch.setenv('BAYES_PROMPT_CACHE', str(tmp_path/'cache'))
    few = dict(backbone='tiny-t5', m=2, source_steps=2, source_batch=1, length=4)
    first = source_posterior(['nyt', 'movie'], 'mine', **few)
    monkeypatch.setattr('bayes_prompt.own.learn_posterior', None) # not again
    assert torch.equal(source_posterior(['nyt', 'movie'], 'mine', **few).particles, first.particles)
    with pytest.raises(ValueError, match='other sources or with other settings'): source_posterior(['nyt'], 'mine', **few)
    assert tune_prompt(six/'d.csv', posterior='mine', **FAST).about['sources'] == ['nyt', 'movie']
    with pytest.raises(ValueError, match="nearest is 'mine'"): load_posterior('mien')

def test_weights_that_are_others_are_refused(tuned, tmp_path):
    tuned.about['weights'], before = 'other', tuned.about['weights']
    tuned.save(tmp_path/'x')
    tuned.about['weights'] = before
    with pytest.raises(ValueError, match='other weights'): load_tuned(tmp_path/'x')

@pytest.mark.parametrize('call,said', [
    (lambda t: t.predict('soup'), r'write \[text\]'), (lambda t: t.predict(['x', ' ']), 'text 1: .*expected a text'), (lambda t: t.predict([3]), 'expected a row'),
    (lambda t: t.predict([dict(txet='x')]), 'is missing'), (lambda t: tune_prompt('d.csv', method='lora'), 'no file')])
def test_what_cannot_be_asked_is_one_sentence(tuned, call, said):
    with pytest.raises(ValueError, match=said): call(tuned)

def test_settings_that_are_others(six):
    for bad, said in ((dict(learning_rate=1), "nearest is 'lr'"), (dict(method='lora'), 'bp_run'), (dict(lr=-1.), 'above 0'), (dict(target='spam'), 'bp_run')):
        with pytest.raises(ValueError, match=said): tune_prompt(six/'d.csv', **bad)

def test_the_start_is_judged_too_and_no_prompt(tuned):
    v = tuned.about['validation']
    assert v['prompt'] >= v['start'] and 0 <= v['without'] <= 1

def test_a_prompt_that_is_in_vain_says_so(tuned):
    from dataclasses import replace
    low = dict(tuned.scores, interval=[.1, .4], constant=.2)
    bad = replace(tuned, scores=low, about=tuned.about | dict(validation=dict(without=.5, start=.4, prompt=.5)))
    vain, constant = bad.cautions
    assert 'accuracy 0.500 against 0.500' in vain and 'constant answer' in constant and vain in bad.show()
    good = dict(tuned.scores, interval=[.6, .8], constant=.2)
    assert not replace(tuned, scores=good, about=tuned.about | dict(validation=dict(without=.5, start=.4, prompt=.6))).cautions

def test_a_start_that_is_best_is_kept(six):
    "At a rate that ruins it the prompt is the start itself"
    from bayes_prompt.prompt import init_prompts
    tuned = tune_prompt(six/'d.csv', **FAST | dict(lr=1e-30))
    assert torch.allclose(tuned.prompt, init_prompts(tuned.backbone, 1, 4, tuned.about['settings']['seed'])[0], atol=1e-6)

def test_one_job_counts_steps_and_rows(six):
    from bayes_prompt.callbacks import Job
    job = Job(3, terminal=False)
    tuned = tune_prompt(six/'d.csv', listen=job, **FAST)
    assert job.done == 3 and job.scored == job.rows == 2*tuned.scores['n'] + 5*4 and job.left == 0

def test_many_labels_and_long_answers_are_scored_on_fewer_rows(tuned):
    "A hundred labels cost a hundred answers a row; the verdict says how many rows of how many"
    from dataclasses import replace
    from bayes_prompt.own import _rows_scored
    from bayes_prompt.tasks import Task
    few, many = Task('x', template='{t}', labels=('a', 'b')), Task('x', template='{t}', labels=tuple(map(str, range(100))))
    assert _rows_scored(few) == {'target.judge_rows': 200, 'data.limit': 2000} and _rows_scored(many) == {'target.judge_rows': 60, 'data.limit': 200}
    assert _rows_scored(Task('x', template='{t}', label='l', max_tgt=200)) == {'target.judge_rows': 60, 'data.limit': 200}
    assert '12 of 40 test rows' in replace(tuned, scores=dict(tuned.scores, n=12), about=tuned.about | dict(parts=dict(test=40))).verdict
    assert 'of' not in replace(tuned, about=tuned.about | dict(parts=dict(test=tuned.scores['n']))).verdict.split(',')[1]
