"Checkpoints resume to the same bits, whatever the optimiser and whenever the kill"
import copy, io, shutil
from contextlib import redirect_stderr
from dataclasses import replace
import pytest, torch
from bayes_prompt.callbacks import Checkpoint, Divergence, EarlyStopping, Progress
from bayes_prompt.train import Callback, fit
from test_train import Bowl, nothing

class Noisy(Bowl):
    "Its gradient depends on the step, as that of a batch does"
    def backward(self, batch, step):
        log = super().backward(batch, step)
        self.x.grad += torch.sin(torch.tensor(float(step)))
        return log

class Kill(Callback):
    order = 99
    def __init__(self, at): self.at = at
    def step(self, run):
        if run.step == self.at: raise KeyboardInterrupt

@pytest.mark.parametrize('optimizer', ['adam', 'adamw', 'sgd', 'adagrad', 'adafactor'])
@pytest.mark.parametrize('kill', [1, 5, 7, 10, 12])
def test_a_kill_changes_nothing(tiny, tmp_path, optimizer, kill):
    def stop(method): return EarlyStopping(lambda: -abs(method.x.item() - 2.5), every=2)
    whole, killed, resumed = Noisy(tiny), Noisy(tiny), Noisy(tiny)
    want = fit(whole, nothing, 12, optimizer, callbacks=[stop(whole)])
    with pytest.raises(KeyboardInterrupt): fit(killed, nothing, 12, optimizer, callbacks=[stop(killed), Checkpoint(tmp_path/'s', every=5), Kill(kill)])
    got = fit(resumed, nothing, 12, optimizer, callbacks=[stop(resumed), Checkpoint(tmp_path/'s', every=5)])
    assert torch.equal(whole.x, resumed.x) and want == got

def test_a_finished_training_is_read(tiny, tmp_path):
    a, b = Noisy(tiny), Noisy(tiny)
    want = fit(a, nothing, 8, callbacks=[Checkpoint(tmp_path/'s')])
    def never(t): raise AssertionError('a step was taken')
    b.backward = lambda *a: never(0)
    assert fit(b, nothing, 8, callbacks=[Checkpoint(tmp_path/'s')]) == want and torch.equal(a.x, b.x)

def test_patience_survives_a_kill(tiny, tmp_path):
    def judge(): return -judge.calls.append(1) if False else -len(judge.calls.append(1) or judge.calls)
    judge.calls = []
    m = Noisy(tiny)
    with pytest.raises(KeyboardInterrupt): fit(m, nothing, 20, callbacks=[EarlyStopping(judge, 1, patience=3), Checkpoint(tmp_path/'s', every=1), Kill(3)])
    assert len(fit(Noisy(tiny), nothing, 20, callbacks=[EarlyStopping(judge, 1, patience=3), Checkpoint(tmp_path/'s', every=1)])) == 4

def test_a_checkpoint_of_another_training(tiny, tmp_path):
    fit(Noisy(tiny), nothing, 3, callbacks=[Checkpoint(tmp_path/'s')], key='a')
    with pytest.raises(ValueError, match='belongs to another run'): fit(Noisy(tiny), nothing, 3, callbacks=[Checkpoint(tmp_path/'s')], key='b')

@pytest.mark.parametrize('file', ['s', 's.jsonl'])
def test_a_damaged_checkpoint_is_set_aside(tiny, tmp_path, file):
    "And the state before it is taken up"
    m, again, steps = Noisy(tiny), Noisy(tiny), []
    want = fit(m, nothing, 6, callbacks=[Checkpoint(tmp_path/'s', every=4)])
    (tmp_path/file).write_bytes((tmp_path/file).read_bytes()[:-4])
    class Count(Callback):
        def step(self, run): steps.append(run.step)
    with redirect_stderr(io.StringIO()) as err: got = fit(again, nothing, 6, callbacks=[Checkpoint(tmp_path/'s', every=4), Count()])
    assert got == want and torch.equal(m.x, again.x) and len(err.getvalue().splitlines()) == 1
    assert 'set aside' in err.getvalue() and 'goes on from step 4' in err.getvalue() and steps == [5, 6]
    assert (tmp_path/'s.damaged').exists()

def test_two_damaged_states_begin_anew(tiny, tmp_path):
    m, again = Noisy(tiny), Noisy(tiny)
    want = fit(m, nothing, 6, callbacks=[Checkpoint(tmp_path/'s', every=2)])
    for name in ('s', 's.before'): (tmp_path/name).write_bytes(b'nothing')
    with redirect_stderr(io.StringIO()) as err: got = fit(again, nothing, 6, callbacks=[Checkpoint(tmp_path/'s', every=2)])
    assert got == want and torch.equal(m.x, again.x) and err.getvalue().count('begins anew') == 2

def test_a_kill_between_the_two_states(tiny, tmp_path):
    "The last one has its old name, the next is not written"
    m, again = Noisy(tiny), Noisy(tiny)
    want = fit(m, nothing, 6, callbacks=[Checkpoint(tmp_path/'s', every=2)])
    (tmp_path/'s').unlink()
    assert fit(again, nothing, 6, callbacks=[Checkpoint(tmp_path/'s', every=2)]) == want and torch.equal(m.x, again.x)

def test_other_weights_are_another_training(tiny, tmp_path):
    fit(Noisy(tiny), nothing, 3, callbacks=[Checkpoint(tmp_path/'s')])
    other = replace(tiny, model=copy.deepcopy(tiny.model))
    with torch.no_grad(): other.model.shared.weight[3, 4] += 1e-3
    with pytest.raises(ValueError, match='belongs to another run'): fit(Noisy(other), nothing, 3, callbacks=[Checkpoint(tmp_path/'s')])
    assert fit(Noisy(tiny), nothing, 3, callbacks=[Checkpoint(tmp_path/'s')])

def test_a_checkpoint_has_one_owner(tiny, tmp_path):
    class Another(Callback):
        def step(self, run):
            with pytest.raises(ValueError, match='in use by another process'): fit(Noisy(tiny), nothing, 3, callbacks=[Checkpoint(tmp_path/'s')])
    fit(Noisy(tiny), nothing, 3, callbacks=[Checkpoint(tmp_path/'s', every=1), Another()])
    with pytest.raises(KeyboardInterrupt): fit(Noisy(tiny), nothing, 3, callbacks=[Checkpoint(tmp_path/'t', every=1), Kill(2)])
    assert len(fit(Noisy(tiny), nothing, 3, callbacks=[Checkpoint(tmp_path/'t', every=1)])) == 3

def test_a_folder_that_nothing_can_be_written_to(tiny):
    with pytest.raises(OSError, match='^cannot write to /proc/nowhere: .*; choose another folder$'): fit(Noisy(tiny), nothing, 3, callbacks=[Checkpoint('/proc/nowhere/s')])

def test_the_checkpoint_does_not_grow(tiny, tmp_path):
    sizes = {}
    class Size(Callback):
        order = 81
        def step(self, run): sizes[run.step] = (tmp_path/'s').stat().st_size if (tmp_path/'s').exists() else 0
    fit(Noisy(tiny), nothing, 400, callbacks=[Checkpoint(tmp_path/'s', every=10), Size()])
    assert abs(sizes[399] - sizes[20]) < 100

def test_a_bar_ends(tiny, capsys):
    fit(Noisy(tiny), nothing, 3, callbacks=[Progress('a bar')])
    assert 'a bar' in capsys.readouterr().err

def test_every_flipped_bit_is_noticed(tiny, tmp_path):
    "In the checkpoint and in the history; what cannot be noticed changes nothing"
    def go(method): return fit(method, nothing, 4, callbacks=[Checkpoint(tmp_path/'s', every=2)])
    want = go(m := Noisy(tiny))
    for name in ('s', 's.jsonl'):
        whole = {f: (tmp_path/f).read_bytes() for f in ('s', 's.jsonl')}
        for bit in range(0, 8*len(whole[name]), 151):
            for f, data in whole.items(): (tmp_path/f).write_bytes(data)
            flipped = bytearray(whole[name])
            flipped[bit//8] ^= 1 << bit % 8
            (tmp_path/name).write_bytes(flipped)
            again = Noisy(tiny)
            with redirect_stderr(io.StringIO()): assert go(again) == want and torch.equal(again.x, m.x), (name, bit)

def test_a_checkpoint_of_another_optimiser(tiny, tmp_path):
    fit(Noisy(tiny), nothing, 3, 'adamw', callbacks=[Checkpoint(tmp_path/'s')])
    with pytest.raises(ValueError, match="belongs to another training.*'Adam'.*'AdamW'"): fit(Noisy(tiny), nothing, 3, 'adam', callbacks=[Checkpoint(tmp_path/'s')])

def test_a_folder_that_is_gone_stays_gone(tiny, tmp_path):
    class Remove(Callback):
        def step(self, run): shutil.rmtree(tmp_path/'in', ignore_errors=True)
    with pytest.raises(OSError, match='in is gone'): fit(Noisy(tiny), nothing, 4, callbacks=[Remove(), Checkpoint(tmp_path/'in'/'s', every=2)])
    assert not (tmp_path/'in').exists()

def test_a_checkpoint_knows_where_its_training_began(tiny, tmp_path):
    "Also without a key"
    fit(Noisy(tiny), nothing, 3, callbacks=[Checkpoint(tmp_path/'s')])
    for other in (lambda: fit(Noisy(tiny, start=1.), nothing, 3, callbacks=[Checkpoint(tmp_path/'s')]), lambda: fit(Noisy(tiny, lr=.2), nothing, 3, callbacks=[Checkpoint(tmp_path/'s')]),
                  lambda: fit(Noisy(tiny), nothing, 4, callbacks=[Checkpoint(tmp_path/'s')])):
        with pytest.raises(ValueError, match='another'): other()

def test_what_is_open_is_closed_when_a_training_breaks(tiny):
    heard = []
    class Open(Callback):
        def begin(self, run): heard.append('open')
        def broken(self, run): heard.append('closed')
    with pytest.raises(KeyboardInterrupt): fit(Noisy(tiny), nothing, 5, callbacks=[Open(), Kill(2)])
    assert heard == ['open', 'closed']

@pytest.mark.parametrize('lr, start, steps, said', [(.1, 0., 40, ''), (1e-9, 3., 40, 'has not fallen'), (1e5, 1., 8, 'lower learning rate'), (1e-9, 3., 8, '')])
def test_what_a_loss_hides_is_said(tiny, lr, start, steps, said, capsys):
    fit(Bowl(tiny, start, lr), nothing, steps, callbacks=[Divergence('bowl')])
    err = capsys.readouterr().err
    assert said in err and bool(said) == bool(err) and err.startswith('bowl: '*bool(said))

def test_time_left_counts_scored_rows(capsys):
    "A scoring in the middle of a training is none of its steps' time"
    from bayes_prompt.callbacks import Job
    job = Job(steps=10, terminal=False)
    job.expect(rows=100)
    assert job.left is None
    job.clock -= 5 # they have passed
    job.score('scoring', 50, seconds=5.)
    assert job.left is None # nothing is known of the steps yet
    for _ in range(5): job.tick('tuning', 1.)
    assert 5 <= job.left < 6 # fifty rows of a tenth of a second; the steps took no time
    job.said -= 1000
    job.tick('tuning', 1.)
    assert capsys.readouterr().err.startswith('tuning: step 6 of 10, loss 1.000, 5 s left')

def test_the_first_parameters_are_judged_where_that_is_asked_for(tiny):
    scores = iter([3., 1., 2.])
    method = Noisy(tiny)
    before = method.x.detach().clone()
    stop = EarlyStopping(lambda: next(scores), every=1, first=True)
    fit(method, nothing, 2, callbacks=[stop])
    assert stop.best == 3. and torch.equal(method.x.detach(), before)
