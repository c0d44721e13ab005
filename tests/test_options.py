"Options check themselves; methods and tables are known without torch"
import subprocess, sys
from dataclasses import asdict, dataclass
import pytest
from bayes_prompt import options
from bayes_prompt.options import METHODS, Options, choose, method, methods, names, nearest, option, parsed, unknown
from bayes_prompt.settings import SVGD, Source, Target

@pytest.mark.parametrize('word, meant', [
    ('LoRA', 'lora'), ('BMTPT', 'bmtpt'), ('BPT', 'bmtpt'), ('Prompt-Tuning', 'pt'), ('fine tuning', 'finetune'), ('atempt', 'attempt'), ('dropout', '')])
def test_nearest_method(word, meant): assert nearest(word, methods()) == meant

@pytest.mark.parametrize('word, meant', [
    ('learning_rate', 'source.lr'), ('num_particles', 'source.particles'), ('batch-size', 'source.batch'), ('Kernel', 'source.svgd.kernel'), ('svgd.kernel', 'source.svgd.kernel')])
def test_nearest_key(word, meant): assert nearest(word, [key for key, *_ in Source.described()]) == meant

def test_unknown_names_are_listed_where_nothing_is_near():
    with pytest.raises(ValueError, match=r"^no fruit 'x'\. There are: apple, pear$"): choose('x', dict(apple=1, pear=2), 'fruit')
    with pytest.raises(ValueError, match="the nearest is 'apple'"): choose('Aple', dict(apple=1, pear=2), 'fruit')
    with pytest.raises(ValueError): choose([1], dict(apple=1), 'fruit')

@pytest.mark.parametrize('changes, said', [
    (dict(steps=0), 'source.steps: expected at least 1, got 0'), (dict(steps=1.5), 'expected a whole number'), (dict(steps=True), 'expected a whole number'),
    (dict(lr=0.), 'above 0'), (dict(lr=float('inf')), 'finite'), (dict(lr=float('nan')), 'finite'), (dict(lr='.1'), "expected a number, got '.1'"), (dict(lr=10**400), 'expected a number'),
    (dict(seed=10**30), 'below 2**63'), (dict(tasks='movie'), 'a list of words'), (dict(tasks=[1]), 'a list of words'), (dict(tasks=['a', 'a']), 'different tasks'),
    (dict(kappa=9), 'number of source tasks 4'), (dict(optimizer='Adem'), "nearest is 'adam'"), (dict(svgd=3), 'expected'), (dict(svgd='rbf'), 'expected'),
    ({'svgd.kernel': 'rfb'}, "no source.svgd.kernel 'rfb'; the nearest is 'rbf'"), ({'svgd.noise': True}, 'optimizer="sgd"'), ({'steps.more': 1}, "no key 'source.steps.more'"), ({'': 1}, 'no key'), (3, 'keys and values')])
def test_bad_values_are_one_sentence(changes, said):
    with pytest.raises(ValueError) as e: Source().changed(changes)
    assert said in str(e.value) and '\n' not in str(e.value)

def test_changes_of_one_group_count_together():
    s = Source().changed({'svgd.noise': True, 'optimizer': 'sgd', 'svgd': {'blocks': 'token'}})
    assert s.svgd == SVGD(noise=True, blocks='token') and Source().changed({'lr': 1}).lr == 1.
    assert s.differences() == dict(optimizer='sgd', svgd=dict(noise=True, blocks='token'))
    assert Source().changed(s.differences()) == s

def test_functions_are_kernels_too():
    def mine(d2, h): return d2, d2
    assert SVGD(kernel=mine, bandwidth=2.).kernel is mine
    with pytest.raises(ValueError, match='kernel'): SVGD(kernel='mine')

def test_every_option_says_something():
    for group in (Source, Target):
        for key, _, says in group.described(): assert len(says) > 3, key

@pytest.mark.parametrize('text, default, value', [('.01', 1., .01), ('1e-3', 1., 1e-3), ('7', 0, 7), ('no', True, False), ('True', False, True), ('a, b', (), ('a', 'b')), ('["a","b"]', (), ('a', 'b')), ('x', '', 'x')])
def test_parsed(text, default, value): assert parsed(text, default, 'k') == value

@pytest.mark.parametrize('text, default', [('fast', 1.), ('1.5', 0), ('maybe', True), ('', 0)])
def test_not_parsed(text, default):
    with pytest.raises(ValueError, match='^k: expected '): parsed(text, default, 'k')

TABLES = ['svgd:kernels', 'svgd:bandwidths', 'train:OPTIMIZERS', 'target:PRIORS', 'packed:ENGINES', 'tasks:STYLES', 'metrics:METRICS']

@pytest.mark.parametrize('table', TABLES)
def test_names_read_from_the_source_are_those_of_the_module(table):
    import importlib
    module, name = table.split(':')
    live = list(getattr(importlib.import_module(f'bayes_prompt.{module}'), name))
    assert options._literal_names(module, name) == live == names(table)

def test_a_name_that_was_added_counts(monkeypatch):
    from bayes_prompt import svgd
    monkeypatch.setitem(svgd.kernels, 'mine', svgd.rbf_kernel)
    assert SVGD(kernel='mine').kernel == 'mine'

def test_declared_methods_are_those_that_register():
    "What is read without running the pages is what they say when they run"
    import importlib
    declared = {m.name: m for m in options._declared()}
    for m in declared.values(): importlib.import_module(m.module)
    for name, m in declared.items():
        live = METHODS[name]
        assert (live.label, live.sources, live.trains, live.order, live.module) == (m.label, m.sources, m.trains, m.order, m.module)
        assert live.options.described() == m.options.described() and callable(live.call)
    assert len(declared) == len(options._declared()), 'two methods of one name'

def test_a_declaration_that_forgets_something_is_an_error():
    with pytest.raises(TypeError): method('x', label='X', trains='prompt')            # no word on sources
    with pytest.raises(ValueError, match='no x: trains'): method('x', label='X', sources=False, trains='prompts')
    with pytest.raises(ValueError, match='the declaration has the options'): method('x', label='X', sources=False, trains='prompt', a=option(1, 'A'))(lambda ctx: ctx)
    with pytest.raises(ValueError, match='the function takes'): method('x', label='X', sources=False, trains='prompt')(lambda ctx, a: ctx)
    assert 'x' not in METHODS

def test_configuration_needs_no_torch():
    code = "from bayes_prompt.config import make_config, Config; make_config(method='spot', kernel='imq', prior='mixture', optimizer='sgd', engine='packed'); Config.described()"
    out = subprocess.run([sys.executable, '-c', code + "; import sys; print('torch' in sys.modules)"], capture_output=True, text=True)
    assert out.stdout.strip() == 'False', out.stderr

@pytest.mark.parametrize('odd', ['[1., 2.]', 'true', 'word'])
def test_only_one_number_is_a_number(odd):
    import numpy as np, torch
    values = {'[1., 2.]': [torch.tensor([1., 2.]), np.array([1., 2.])], 'true': [np.True_, torch.tensor(True)], 'word': [np.str_('.1')]}
    for value in values[odd]:
        with pytest.raises(ValueError, match='target.lr: expected a number'): Target(lr=value)
    assert Target(lr=torch.tensor([.5])).lr == Target(lr=np.float32(.5)).lr == .5

def test_a_sentence_stays_one_line_whatever_the_names_are():
    assert len(str(unknown('score', 'a\nb', ['accuracy', 'x\ry\nz', '\r'])).splitlines()) == 1
