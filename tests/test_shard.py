"Several processes give the numbers of one; one that goes ends all; a run goes on with any number of them"
import json, os, signal, socket, subprocess, sys, time
from dataclasses import replace
from pathlib import Path
import pytest, torch
import torch.multiprocessing as mp
from bayes_prompt import shard
from bayes_prompt.callbacks import Checkpoint
from bayes_prompt.data import load_task
from bayes_prompt.engine import PLAIN, loss_and_grad, pairs
from bayes_prompt.packed import Packed, pack
from bayes_prompt.prompt import encode, init_prompts
from bayes_prompt.shard import by_particles, cost, dealt, pieces, together
from bayes_prompt.source import SourcePosterior, learn_posterior, learn_prompts
from bayes_prompt.train import Callback, PromptTuning, fit

ROOT = Path(__file__).resolve().parents[1]

@pytest.fixture(autouse=True)
def one_thread():
    "torchrun gives each process one thread, and the last bits of a sum depend on the number of threads"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

def free_port():
    with socket.socket() as s:
        s.bind(('localhost', 0))
        return s.getsockname()[1]

def started(rank, world, port, f, args):
    torch.set_num_threads(1)
    os.environ |= dict(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), MASTER_ADDR='localhost', MASTER_PORT=str(port))
    try: f(rank, *args)
    finally:
        for group in shard._groups:
            if not rank: shard._leave(group)
        sys.stderr.flush()

def together_do(world, f, *args, wait=150):
    "Run a function in so many processes, forked from this one; their exit codes"
    port, context = free_port(), mp.get_context('fork')
    processes = [context.Process(target=started, args=(rank, world, port, f, args)) for rank in range(world)]
    for p in processes: p.start()
    for p in processes: p.join(wait)
    alive = [p for p in processes if p.is_alive()]
    for p in alive: p.kill()
    assert not alive, 'a process hangs'
    return [p.exitcode for p in processes]

# ---- dealing out

@pytest.mark.parametrize('engine', ['plain', 'packed'])
@pytest.mark.parametrize('m, world', [(1, 2), (1, 7), (2, 3), (5, 2), (5, 4), (5, 64)])
def test_every_pair_is_dealt_once(tiny, engine, m, world):
    sizes = [30, 31, 12, 90, 55]
    chunks = (PLAIN if engine == 'plain' else Packed(tiny.model)).chunks(sizes, m, 256)
    want = sorted((i, k) for c in chunks for i, k in pairs(c).T.tolist())
    for cut in (chunks, by_particles(chunks, m, world)):
        parts = dealt(pieces(cut, sizes, world), sizes, world)
        assert sorted((i, k) for part in parts for c in part for i, k in pairs(c).T.tolist()) == want and len(parts) == world
        assert all(parts) == (world <= len(want))

def test_enough_passes_stay_whole():
    chunks = PLAIN.chunks([30, 31, 12, 90, 55], 5, 256)
    assert pieces(chunks, [30, 31, 12, 90, 55], 2) == chunks

def test_what_would_change_digits_is_not_cut():
    chunks = PLAIN.chunks([30, 31, 12], 8, 2000)
    parts = pieces(chunks, [30, 31, 12], 64, exact=True)
    assert len(parts) == 4*len(chunks) and all(b - a == 2 for c in parts for _, a, b in c)
    assert pieces(PLAIN.chunks([30, 31, 12], 3, 2000), [30, 31, 12], 64, exact=True) == PLAIN.chunks([30, 31, 12], 3, 2000)

def test_costs_are_about_equal():
    sizes = [20 + i % 90 for i in range(200)]
    chunks = PLAIN.chunks(sizes, 8, 1024)
    for world in (2, 3, 8):
        spent = [sum(cost(c, sizes) for c in part) for part in dealt(pieces(chunks, sizes, world), sizes, world)]
        assert max(spent) < 1.1*sum(spent)/world

# ---- numbers

def sources(bb): return {t: encode(bb, load_task(t).train[:12], 48, 6) for t in ('movie', 'nyt', 'context')}

def learnt(bb, m, callbacks=(), steps=4): return learn_posterior(bb, sources(bb), init_prompts(bb, m, 6), callbacks=callbacks, steps=steps, lr=.05, batch=2)

def learn_in(rank, bb, m, out):
    post = learnt(together(bb), m)
    assert rank == 0
    post.save(out)

def causal(tiny):
    from transformers import LlamaConfig, LlamaForCausalLM
    from bayes_prompt.causal import engine_for
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tiny.tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    bb = replace(tiny, name='tiny-llama', model=LlamaForCausalLM(config).requires_grad_(False).eval())
    return replace(bb, engine=engine_for(bb))

@pytest.mark.parametrize('kind', ['plain', 'packed', 'causal'])
@pytest.mark.parametrize('m', [1, 3])
def test_the_particles_are_those_of_one_process(tiny, kind, m, tmp_path):
    bb = causal(tiny) if kind == 'causal' else pack(tiny, kind)
    want = learnt(bb, m)
    for world in (2, 3, 4):
        assert together_do(world, learn_in, bb, m, tmp_path/str(world)) == [0]*world
        got = SourcePosterior.load(tmp_path/str(world))
        if kind != 'causal': assert torch.equal(got.particles, want.particles) and got.history == want.history
        assert (got.particles - want.particles).abs().max() < 1e-6
        assert [h['loss'] for h in got.history] == pytest.approx([h['loss'] for h in want.history], abs=1e-6)

def exact_in(rank, bb, out):
    bb = together(bb)
    learnt(bb, 3).save(out/'posterior')
    learn_prompts(bb, sources(bb), init_prompts(bb, 1, 6)[0], steps=3, lr=.05, batch=6).save(out/'separate')
    pt = PromptTuning(bb, init_prompts(bb, 1, 6)[0])
    fit(pt, lambda t: [sources(bb)['movie']], 3)
    SourcePosterior(pt.prompt.detach()[None], [], 'x').save(out/'target')

def test_enough_passes_give_the_very_bits(tiny, tmp_path):
    "Source stage, separate prompts and target stage; the backbone is trained nowhere"
    exact_in(0, replace(tiny, budget=128), tmp_path/'one')
    assert together_do(3, exact_in, replace(tiny, budget=128), tmp_path/'three') == [0, 0, 0]
    for stage in ('posterior', 'separate', 'target'):
        one, three = (SourcePosterior.load(tmp_path/n/stage) for n in ('one', 'three'))
        assert torch.equal(one.particles, three.particles) and one.history == three.history

def tokens_in(rank, bb, out):
    bb = together(bb)
    learnt(bb, 3)
    out.write_text(json.dumps(dict(bb.meter)))

def test_tokens_of_all_are_counted(tiny, tmp_path):
    bb = replace(tiny, budget=128, meter=type(tiny.meter)())
    learnt(bb, 3)
    together_do(2, tokens_in, replace(bb, meter=type(bb.meter)()), tmp_path/'meter')
    assert json.loads((tmp_path/'meter').read_text())['tokens'] == bb.meter['tokens']

def sharded_in(rank, bb, out):
    from bayes_prompt.engine import PerExample, generate, label_scores
    bb = together(bb, weights='sharded')
    assert 'DTensor' in type(next(bb.model.encoder.block[0].parameters())).__name__
    post = learnt(bb, 2, steps=2)
    post.save(out)
    scores = label_scores(bb, post.particles, sources(bb)['movie'][:3], ['good', 'very bad'])
    texts = generate(bb, post.particles[0], sources(bb)['nyt'][:2], 3)
    torch.save((scores, texts), out/'more.pt')
    with pytest.raises(ValueError, match='plain prompts alone'): loss_and_grad(bb, PerExample(lambda i: i.emb[:, :2], 2), [sources(bb)['nyt']])

def test_weights_in_parts(tiny, tmp_path):
    "FSDP2 on the CPU gives the numbers of whole weights, in training, ranking and text"
    from bayes_prompt.engine import generate, label_scores
    assert together_do(2, sharded_in, tiny, tmp_path) == [0, 0]
    got, want = SourcePosterior.load(tmp_path), learnt(tiny, 2, steps=2)
    assert (got.particles - want.particles).abs().max() < 1e-6
    scores, texts = torch.load(tmp_path/'more.pt')
    assert torch.allclose(scores, label_scores(tiny, got.particles, sources(tiny)['movie'][:3], ['good', 'very bad']), atol=1e-5)
    assert texts == generate(tiny, got.particles[0], sources(tiny)['nyt'][:2], 3)

# ---- faults

def other_weights_in(rank, bb):
    if rank:
        with torch.no_grad(): bb.model.shared.weight.mul_(1.01)
    with pytest.raises(ValueError, match="process 1 of 2 has a backbone 'tiny-t5' with other weights"): together(bb)

def test_other_weights_are_noticed(tiny):
    assert together_do(2, other_weights_in, tiny) == [0, 0]

def broken_in(rank, bb):
    if rank: bb = replace(bb, engine=Broken())
    with pytest.raises(ValueError, match='process 1 of 2 could not do its part of a step: ZeroDivisionError: division by zero'): learnt(together(bb), 3)

class Broken(type(PLAIN)):
    def losses(self, *args): 1/0

def test_an_error_is_told_to_the_first(tiny, monkeypatch):
    monkeypatch.setattr(shard, '_loaded', lambda told, mine: mine)
    assert together_do(2, broken_in, tiny) == [0, 0]

def memory_in(rank, bb):
    if rank: bb = replace(bb, engine=Small())
    bb = together(bb)
    with pytest.warns(UserWarning, match='went on with'): learnt(bb, 3, steps=2)
    assert bb.budget < 1024

class Small(type(PLAIN)):
    def losses(self, backbone, prompts, examples, chunk):
        if sum(cost([c], [len(e.ids) + 6 for e in examples]) for c in chunk) > 120: raise torch.OutOfMemoryError('full')
        return super().losses(backbone, prompts, examples, chunk)

def test_memory_of_another_process(tiny, monkeypatch):
    "All go on with smaller passes"
    monkeypatch.setattr(shard, '_loaded', lambda told, mine: mine)
    assert together_do(2, memory_in, tiny) == [0, 0]

class KillAt(Callback):
    order = 99
    def __init__(self, at, pid): self.at, self.pid = at, pid
    def step(self, run):
        if run.step == self.at: os.kill(self.pid, signal.SIGKILL)

def killed_in(rank, bb, folder, victim, errors):
    sys.stderr = open(errors/str(rank), 'w', buffering=1)
    (folder/f'pid{rank}').write_text(str(os.getpid()))
    bb = together(bb, timeout=20)
    pid = int((folder/f'pid{victim}').read_text())
    try: learnt(bb, 3, [Checkpoint(folder/'state', 2), KillAt(5, pid)], steps=9).save(folder/'done')
    except ConnectionError as e: sys.exit(f'error: {e}')

def resumed_in(rank, bb, folder):
    learnt(together(bb), 3, [Checkpoint(folder/'state', 2)], steps=9).save(folder/'done')

@pytest.mark.parametrize('victim', [0, 2])
def test_a_killed_process_ends_all_and_another_number_goes_on(tiny, tmp_path, victim, capfd):
    bb, began = replace(tiny, budget=128), time.time()
    codes = together_do(3, killed_in, bb, tmp_path, victim, tmp_path)
    assert codes[victim] == -signal.SIGKILL and all(c == 1 for k, c in enumerate(codes) if k != victim) and time.time() - began < 30
    for rank in {0, 1, 2} - {victim}:
        said = (tmp_path/str(rank)).read_text()
        assert said.count('\n') == 1 and f'process {rank} of 3: another process is gone' in said, said
    assert together_do(2, resumed_in, bb, tmp_path) == [0, 0]
    want, got = learnt(bb, 3, steps=9), SourcePosterior.load(tmp_path/'done')
    assert torch.equal(got.particles, want.particles) and got.history == want.history

def stopped_in(rank, bb, folder):
    (folder/f'pid{rank}').write_text(str(os.getpid()))
    bb = together(bb, timeout=3)
    class Stop(Callback):
        def step(self, run): os.kill(int((folder/'pid1').read_text()), signal.SIGSTOP)
    with pytest.raises(ConnectionError, match='did not answer within 3 s'): learnt(bb, 3, [Stop()])
    os.kill(int((folder/'pid1').read_text()), signal.SIGKILL)

def test_a_process_that_hangs_is_not_waited_for(tiny, tmp_path):
    assert together_do(2, stopped_in, tiny, tmp_path) == [0, -signal.SIGKILL]

# ---- the launcher and the commands

SMALL = ['backbone=tiny-t5', 'target=spam', 'k=2', 'steps=2', 'sources=movie', 'source_steps=4', 'm=3', 'limit=12', 'length=4']

TORCHRUN = ['torch.distributed.run', '--standalone', '--nproc-per-node']
ACCELERATE = ['accelerate.commands.launch', '--multi_gpu', '--num_machines', '1', '--mixed_precision', 'no', '--dynamo_backend', 'no', '--num_processes']

def launch(n, *words, module='bayes_prompt.cli', command='bp_run', by=TORCHRUN):
    code = f'from {module} import {command}; {command}()'
    env = os.environ | dict(OMP_NUM_THREADS='1', PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]))
    script = Path(words[-1])/f'{command}.py'
    script.write_text(code)
    port = ['--main_process_port', str(free_port())] if by is ACCELERATE else []
    starter = [sys.executable, '-m', *by, str(n), *port, str(script)]
    return subprocess.run([*starter, *words[:-1]], env=env, capture_output=True, text=True, timeout=300)

@pytest.mark.parametrize('by', [TORCHRUN, ACCELERATE], ids=['torchrun', 'accelerate'])
def test_a_launcher_of_the_command(by, tmp_path):
    from bayes_prompt.cli import bp_run
    out = launch(2, *SMALL, '--out', str(tmp_path/'two'), str(tmp_path), by=by)
    assert out.returncode == 0, out.stderr
    assert out.stdout.count('"metric"') == 1
    bp_run([*SMALL, '--out', str(tmp_path/'one')])
    (one,), (two,) = (list(tmp_path.glob(f'{n}/*.json')) for n in ('one', 'two'))
    a, b = (json.loads(f.read_text()) for f in (one, two))
    assert one.name == two.name and a['scores'] == b['scores'] and a['config'] == b['config'] and a['engine'] == b['engine']
    assert a['cost']['source_tokens'] == pytest.approx(b['cost']['source_tokens'], rel=.2)

def test_torchrun_of_a_refused_configuration(tmp_path):
    out = launch(2, 'method=bmtp', str(tmp_path))
    assert out.returncode and out.stderr.count('error: ') == 1 and 'bmtpt' in out.stderr
