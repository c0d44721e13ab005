"The loop, its optimiser, and what is refused"
import warnings
import pytest, torch
from bayes_prompt.train import Callback, NotFinite, PromptMethod, PromptTuning, Training, WeightMethod, batches, check_finite, fit, linear_schedule, make_optimizer

class Bowl(PromptMethod):
    "|x - 3|² in one number, without a language model"
    def __init__(self, backbone, start=0., lr=.1):
        super().__init__(backbone)
        self.x, self.lr = torch.tensor([start], requires_grad=True), lr
    def groups(self): return {'x': ([self.x], self.lr)}
    def prompts(self): return self.x[None, None]
    def backward(self, batch, step):
        loss = (self.x - 3).square().sum()
        loss.backward()
        return dict(loss=loss.item())

def nothing(t): return []

def test_plain_steps_are_gradient_descent_with_the_schedule(tiny):
    m, rates = Bowl(tiny), []
    fit(m, nothing, 10, 'sgd', callbacks=[type('Rates', (Callback,), dict(step=lambda self, run: rates.append(run.optimizer.param_groups[0]['lr'])))()])
    x = 0.
    for t in range(10): x -= .1*linear_schedule(10)(t)*2*(x - 3)
    assert m.x.item() == pytest.approx(x, rel=1e-5) and rates == pytest.approx([.1*linear_schedule(10)(t) for t in range(10)])

def test_schedule():
    f = linear_schedule(10, .2)
    assert [round(f(t), 3) for t in range(10)] == [.5, 1, 1, .875, .75, .625, .5, .375, .25, .125] and linear_schedule(1)(0) == 1

def test_batches_are_a_function_of_step_and_seed():
    xs, ys = list('abcdefgh'), list('ABC')
    f, g = batches([xs, ys], 3, [0, 1]), batches([xs, ys], 3, [0, 1])
    assert [f(t) for t in range(9)] == [g(t) for t in range(9)] and sorted(sum((f(t)[1] for t in range(3)), [])) == sorted(ys*3)
    assert batches([xs, ys], 3, [0, 1], lambda t: [1])(4) == [f(4)[1]] and f(0) != batches([xs, ys], 3, [2, 1])(0)

def test_groups_that_train_nothing_or_twice(tiny):
    class Bad(Bowl):
        def groups(self): return self.bad(super().groups())
    m = Bad(tiny)
    for bad, said in [(lambda g: g | {'y': ([], .1)}, 'is empty'), (lambda g: g | {'y': g['x']}, 'in two groups'), (lambda g: {'x': ([m.x.detach()], .1)}, 'frozen')]:
        m.bad = bad
        with pytest.raises(ValueError, match=said): make_optimizer(m)
    with pytest.raises(ValueError, match="nearest is 'adamw'"): make_optimizer(Bowl(tiny), 'AdamW2')

class Broken(Bowl):
    "Loses its loss, or its gradient, at some steps"
    def __init__(self, tiny, what, at): (super().__init__(tiny), setattr(self, 'what', what), setattr(self, 'at', at))
    def backward(self, batch, step):
        log = super().backward(batch, step)
        if step in self.at and self.what == 'loss': log['loss'] = float('nan')
        if step in self.at and self.what == 'gradient': self.x.grad.flatten()[0] = float('inf')
        return log

@pytest.mark.parametrize('what', ['loss', 'gradient'])
def test_a_step_that_is_not_finite_is_skipped_and_counted(tiny, what):
    plain, broken = Bowl(tiny), Broken(tiny, what, {2, 3})
    with pytest.warns(UserWarning, match='step 2 is skipped'): history = fit(broken, nothing, 40, 'sgd')
    assert [h.get('skipped', 0) for h in history] == [0, 0, 1, 1] + [0]*36 and history[3]['loss'] == history[1]['loss']
    fit(plain, nothing, 40, 'sgd')
    assert broken.x.isfinite().all() and not torch.equal(plain.x, broken.x)

@pytest.mark.parametrize('what, at, said', [('loss', range(9), 'step 0: .*not finite'), ('gradient', range(1, 40), "step 4: the gradient of 'x' is not finite at .*, as at 3 steps before")])
def test_numbers_that_stay_not_finite_end_the_training(tiny, what, at, said, recwarn):
    with pytest.raises(ValueError, match=said): fit(Broken(tiny, what, set(at)), nothing, 40, 'sgd')

def test_parameters_that_are_not_finite_end_the_training(tiny):
    class Far(Bowl):
        def groups(self): return {'x': ([self.x], 1e38)}
    m = Far(tiny)
    with pytest.raises(ValueError, match='not finite'): fit(m, nothing, 5, 'sgd')

def test_a_loss_that_is_not_finite_names_particle_and_task():
    from bayes_prompt.prompt import Example
    batch = [[Example((1,), (2,), 'movie')], [Example((1,), (2,), 'spam')]]
    losses = torch.tensor([[1., 2.], [3., float('inf')], [float('nan'), 0.]])
    with pytest.raises(NotFinite, match='particle 1 on task spam is inf, and 1 others'): check_finite(losses, batch)
    check_finite(losses[:1], batch)

def test_callbacks_hear_in_their_order(tiny):
    heard = []
    class Ear(Callback):
        def __init__(self, name, order): self.name, self.order = name, order
        def begin(self, run): heard.append(f'{self.name} begin {run.step}')
        def step(self, run): heard.append(f'{self.name} {run.step}')
        def end(self, run): heard.append(f'{self.name} end')
    fit(Bowl(tiny), nothing, 2, callbacks=[Ear('b', 9), Ear('a', 1)])
    assert heard == ['a begin 0', 'b begin 0', 'a 1', 'b 1', 'a 2', 'b 2', 'a end', 'b end']

def test_a_callback_can_stop(tiny):
    class Stop(Callback):
        def step(self, run): run.stop = run.step == 3
    assert len(fit(Bowl(tiny), nothing, 9, callbacks=[Stop()])) == 3

def test_unfinished_methods_say_what_they_lack(tiny):
    for f in ('groups', 'prompts'):
        with pytest.raises(NotImplementedError, match=f'lacks {f}'): getattr(PromptMethod(tiny), f)()

def test_weight_methods_copy_and_freeze(tiny):
    m = WeightMethod(tiny)
    assert m.backbone.model is not tiny.model and m.prompts().shape == (1, 0, tiny.width) and not any(p.requires_grad for p in m.backbone.model.parameters())

def test_a_prompt_of_its_own(tiny):
    p = torch.zeros(3, tiny.width)
    m = PromptTuning(tiny, p)
    m.prompt.data += 1
    assert p.sum() == 0 and m.trainable() == 3*tiny.width and len(Training(m, 1).params) == 1

def test_warmup_counts_steps_from_one_on():
    by_share, by_steps = linear_schedule(100, .1), linear_schedule(100, 10)
    assert [by_share(t) for t in range(100)] == [by_steps(t) for t in range(100)] and by_steps(4) == .5

def test_weight_decay_is_the_optimisers():
    import torch
    from bayes_prompt.train import PromptMethod, make_optimizer
    class Two(PromptMethod):
        p = torch.ones(3, requires_grad=True)
        def groups(self): return {'p': ([self.p], .1)}
    assert [make_optimizer(Two(None), name).param_groups[0]['weight_decay'] for name in ('adam', 'adamw')] == [0, .01]
    o = make_optimizer(Two(None), 'adamw', .5)
    Two.p.grad = torch.zeros(3)
    o.step()
    assert torch.allclose(Two.p, torch.full((3,), 1 - .1*.5)) # decoupled: rate times decay

def test_a_training_that_skips_its_last_steps_is_no_result(tiny):
    class Lost(PromptTuning):
        def backward(self, batch, step):
            if step >= self.at: raise NotFinite('a loss is nan')
            self.prompt.grad = torch.zeros_like(self.prompt)
            return dict(loss=1.)
    for at, steps in ((1, 3), (9, 10), (32, 40)):
        method = Lost(tiny, torch.zeros(2, tiny.width))
        method.at = at
        with warnings.catch_warnings(), pytest.raises(ValueError, match='a loss is nan.*use a lower learning rate'):
            warnings.simplefilter('ignore')
            fit(method, lambda t: [], steps)
    method = Lost(tiny, torch.zeros(2, tiny.width))
    method.at = 39
    with pytest.warns(UserWarning): assert fit(method, lambda t: [], 40)[-1]['skipped'] == 1
