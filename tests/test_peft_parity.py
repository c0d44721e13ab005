"""PEFT's own training against ours: the same initial prompt, batches, optimiser and schedule give the same losses.

PEFT's side is a plain loop of its own, with nothing of `fit` but the schedule. What had to be set right, or chosen, for the comparison:
1. Prompt tuning of an encoder-decoder allocates two prompts and reads the first: the second gets a zero gradient. It changes no loss (both numbers of submodules are tested), only the count.
2. Multitask prompt tuning does read both, the second in front of the decoder's inputs, in training but not in `generate`. There is no such prompt in the method: num_transformer_submodules=1.
3. Its u and v are drawn from N(0, 0.02^2), so the prompt starts at some 4e-4 of its size; the method starts at u = v = 1, which is set by hand.
4. transformers' loss is a mean over the batch's target tokens, ours a mean over examples of the mean over an example's tokens. They agree for targets of one length; for others PEFT gets the batch one example at a time.
5. Nothing calls train(): dropout is off, as for every method here.
PEFT pads a batch and masks; ours runs it in chunks of like length."""
import pytest, torch
from bayes_prompt.backbone import load_backbone
from bayes_prompt.data import batch_indices, load_task
from bayes_prompt.engine import padded
from bayes_prompt.prompt import Example, encode, init_prompts
from bayes_prompt.target import SharedPrompt
from bayes_prompt.train import PromptTuning, fit, linear_schedule
peft = pytest.importorskip('peft')
pytestmark = pytest.mark.filterwarnings('ignore::FutureWarning')

P, STEPS, LR = 6, 12, .3

@pytest.fixture(scope='module')
def bb(): return load_backbone('tiny-t5')

@pytest.fixture(scope='module')
def start(bb): return init_prompts(bb, 1, P, seed=1)[0]

def batches(bb, task):
    exs = encode(bb, load_task(task).train[:64], 40, P)
    if task == 'spam': assert len({len(e.labels) for e in exs}) == 2 # targets of several lengths
    else: assert len({len(e.labels) for e in exs}) == 1
    assert len({len(e.ids) for e in exs}) > 3 # padded there, chunked here
    return lambda t: [exs[i] for i in batch_indices(len(exs), 8, t, seed=5)]

def wrapped(bb, config, start=None, ones=False, **kw):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        m = peft.get_peft_model(bb.model, config(task_type='SEQ_2_SEQ_LM', num_virtual_tokens=P, **kw))
    e = m.prompt_encoder['default']
    with torch.no_grad():
        if start is not None: e.embedding.weight[:P] = start
        if ones: e.prefix_task_cols.fill_(1); e.prefix_task_rows.fill_(1)
    return m, e

def peft_loss(bb, m, examples, each=False, **kw):
    if each: return sum(peft_loss(bb, m, [e], **kw) for e in examples)/len(examples)
    n = torch.tensor([len(e.ids) for e in examples])
    ids = padded([e.ids for e in examples], bb.tokenizer.pad_token_id)
    if kw: kw = dict(task_ids=torch.zeros(len(n), dtype=torch.long))
    return m(input_ids=ids, attention_mask=(torch.arange(ids.shape[1]) < n[:, None]).long(), labels=padded([e.labels for e in examples], -100), **kw).loss

def peft_curve(bb, m, batch, each=False, optimizer=torch.optim.Adam, lr=LR, **kw):
    opt = optimizer([p for p in m.parameters() if p.requires_grad], lr=lr)
    sched = torch.optim.lr_scheduler.LambdaLR(opt, linear_schedule(STEPS, .1))
    out = []
    for t in range(STEPS):
        opt.zero_grad()
        loss = peft_loss(bb, m, batch(t), each, **kw)
        loss.backward()
        opt.step(); sched.step()
        out.append(loss.item())
    return torch.tensor(out)

def our_curve(method, batch, optimizer='adam'): return torch.tensor([h['loss'] for h in fit(method, lambda t: [batch(t)], STEPS, optimizer)])

def gap(a, b): return (a - b).abs().max().item()

@pytest.mark.parametrize('submodules', [1, 2])
@pytest.mark.parametrize('task', ['movie', 'spam'])
def test_prompt_tuning(bb, start, task, submodules):
    batch, (m, e) = batches(bb, task), wrapped(bb, peft.PromptTuningConfig, start, num_transformer_submodules=submodules)
    ours = PromptTuning(bb, start, LR)
    a, b = our_curve(ours, batch), peft_curve(bb, m, batch, each=task == 'spam')
    assert gap(a, b) < 1e-4 and b[-1] < b[0] - .3 # and it did train
    assert torch.allclose(e.embedding.weight[:P], ours.prompt, atol=1e-3)

def test_prompt_tuning_by_another_optimiser(bb, start):
    batch, (m, _) = batches(bb, 'movie'), wrapped(bb, peft.PromptTuningConfig, start, num_transformer_submodules=1)
    assert gap(our_curve(PromptTuning(bb, start, LR), batch, 'adamw'), peft_curve(bb, m, batch, optimizer=torch.optim.AdamW)) < 1e-4

def test_multitask_prompt_tuning(bb, start):
    batch, (m, e) = batches(bb, 'movie'), wrapped(bb, peft.MultitaskPromptTuningConfig, start, ones=True, num_tasks=1, num_transformer_submodules=1)
    ours = SharedPrompt(bb, start, lr=LR, lr_low=LR)
    assert ours.trainable() == m.get_nb_trainable_parameters()[0] == P*bb.width + P + bb.width
    a, b = our_curve(ours, batch), peft_curve(bb, m, batch, task_ids=True)
    assert gap(a, b) < 1e-4 and b[-1] < b[0] - .3
    assert (e.prefix_task_cols.flatten() - ours.u).abs().max() < 1e-3 and (ours.u - 1).abs().max() > .1 # u and v did train, alike

def test_both_have_the_power_to_fail(bb, start):
    "Each of what is set right changes the curve by far more than the tolerance"
    batch = batches(bb, 'movie')
    a = our_curve(SharedPrompt(bb, start, lr=LR, lr_low=LR), batch)
    near0, _ = wrapped(bb, peft.MultitaskPromptTuningConfig, start, num_tasks=1, num_transformer_submodules=1)
    assert gap(a, peft_curve(bb, near0, batch, task_ids=True)) > 1e-2
    two, _ = wrapped(bb, peft.MultitaskPromptTuningConfig, start, ones=True, num_tasks=1)
    assert gap(a, peft_curve(bb, two, batch, task_ids=True)) > 1e-2
    m, _ = wrapped(bb, peft.MultitaskPromptTuningConfig, start, ones=True, num_tasks=1, num_transformer_submodules=1)
    assert gap(a, peft_curve(bb, m, batch, lr=1.5*LR, task_ids=True)) > 1e-2
    spam = batches(bb, 'spam')
    tokens, _ = wrapped(bb, peft.PromptTuningConfig, start, num_transformer_submodules=1)
    assert gap(our_curve(PromptTuning(bb, start, LR), spam), peft_curve(bb, tokens, spam)) > 1e-3 # the mean over all tokens is another loss

def test_faults(bb, start):
    "What PEFT does by default, so that a repair there is noticed here"
    m, e = wrapped(bb, peft.PromptTuningConfig, start)
    peft_loss(bb, m, batches(bb, 'movie')(0)).backward()
    g = e.embedding.weight.grad
    assert g.shape == (2*P, bb.width) and g[:P].abs().sum() > 0 and (g[P:] == 0).all()
    m, e = wrapped(bb, peft.MultitaskPromptTuningConfig, start, num_tasks=1)
    share = ((e.prefix_task_cols @ e.prefix_task_rows)[0, :P] * start).norm() / start.norm()
    assert 1e-4 < share < 1e-3
    peft_loss(bb, m, batches(bb, 'movie')(0), task_ids=True).backward()
    assert e.embedding.weight.grad[P:].abs().sum() > 0 # the decoder's prompt is trained
