"Whatever kills a run at whatever moment, the same command ends in the same bits; a full disk or a folder that is gone is one sentence"
import errno, json, os, random, resource, shutil, signal, subprocess, sys, time
import torch.multiprocessing as mp
from pathlib import Path
import pytest, torch
from safetensors.torch import load_file
from bayes_prompt.config import make_config
from bayes_prompt.run import run

FORK = mp.get_context('fork')

@pytest.fixture(scope='module', autouse=True)
def saved_often():
    "A state every three steps, of short target stages too"
    from bayes_prompt import protocol
    from bayes_prompt.callbacks import Checkpoint
    with pytest.MonkeyPatch.context() as m:
        m.setattr(protocol, '_SHORT_STAGE', 1)
        m.setattr(protocol, 'Checkpoint', type('Checkpoint', (Checkpoint,), dict(__init__=lambda self, file, every: Checkpoint.__init__(self, file, 3))))
        yield
LONG = dict(backbone='tiny-t5', sources=['amazon', 'nyt'], target='spam', m=2, source_steps=12, source_batch=1, steps=10, batch=2, limit=8, k=2, length=4,
            source_lr=.3, sigma=.1)
SAME = ('config', 'scores', 'predictions', 'loss', 'source_history', 'train_indices', 'trainable', 'cost')

def child(config, out):
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, 'w')
    run(config, out)

def go(config, out, kill=None):
    "A run in a process of its own, killed after some seconds or when something is there; did it end by itself?"
    p = FORK.Process(target=child, args=(config, out))
    p.start()
    began = time.time()
    while p.is_alive():
        if kill is not None and (kill() if callable(kill) else time.time() - began > kill):
            os.kill(p.pid, signal.SIGKILL)
            break
        time.sleep(.002)
    p.join(60)
    assert p.exitcode in (0, -signal.SIGKILL), p.exitcode
    return p.exitcode == 0

def left(out):
    "What a run leaves: the record without its clock, and all tensors"
    record, = [json.loads(f.read_text()) for f in out.glob('*.json')]
    files = sorted(f.relative_to(out) for p in ('sources/*/posterior.safetensors', 'prompts/*') for f in out.glob(p))
    return {k: record.get(k) for k in SAME}, {str(f): load_file(out/f) for f in files}

def assert_same(out, whole):
    (a, x), (b, y) = left(out), left(whole)
    assert a == b and x.keys() == y.keys() and y
    for f in x: assert x[f].keys() == y[f].keys() and all(torch.equal(x[f][k], y[f][k]) for k in x[f]), f

@pytest.fixture(scope='module')
def whole(tmp_path_factory, tiny):
    "Of each method, a run that nothing killed, and its seconds"
    made = {}
    def of(method):
        if method not in made:
            out, began = tmp_path_factory.mktemp(method), time.time()
            assert go(make_config(LONG, method=method), out)
            made[method] = out, time.time() - began
        return made[method]
    return of

@pytest.mark.parametrize('method', ['bmtpt', 'spot', 'mpt'])
def test_killed_at_random_moments(method, whole, tmp_path):
    "Source stage, separate prompts, teachers and target stage"
    out, seconds = whole(method)
    draw = random.Random(method)
    assert not go(make_config(LONG, method=method), tmp_path, .3*seconds)
    for _ in range(2): go(make_config(LONG, method=method), tmp_path, draw.uniform(.2, .6)*seconds)
    assert go(make_config(LONG, method=method), tmp_path)
    assert_same(tmp_path, out)

@pytest.mark.parametrize('moment', ['sources/*/state/*.jsonl', 'sources/*/state/*.before', 'sources/*/history*.jsonl', 'sources/running/*/*.safetensors'])
def test_killed_as_soon_as_something_is_there(moment, whole, tmp_path):
    out, _ = whole('bmtpt')
    go(make_config(LONG, method='bmtpt'), tmp_path, lambda: any(tmp_path.glob(moment)))
    assert go(make_config(LONG, method='bmtpt'), tmp_path)
    assert_same(tmp_path, out)

# ---- disks and folders

def limited(config, out, most, said):
    "A run whose files may not be larger than so many bytes"
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    try: run(config, out)
    except OSError as e: said.put(str(e))
    else: said.put('')

@pytest.mark.parametrize('most', [0, 3000])
def test_a_full_disk_is_one_sentence_and_loses_nothing(most, whole, tmp_path):
    out, _ = whole('bmtpt')
    said = FORK.SimpleQueue()
    p = FORK.Process(target=limited, args=(make_config(LONG), tmp_path, most, said))
    p.start()
    words = said.get()
    p.join()
    assert ('could not write' in words or 'cannot write' in words) and 'File too large' in words and '\n' not in words
    assert go(make_config(LONG), tmp_path)
    assert_same(tmp_path, out)

def tmpfs(folder, size):
    done = subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(folder)], capture_output=True)
    if done.returncode: pytest.skip('no permission to mount a file system')

@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path/'disk'
    folder.mkdir()
    yield folder
    subprocess.run(['umount', str(folder)], capture_output=True)

def test_a_small_disk_is_refused_before_the_work(small_disk):
    tmpfs(small_disk, '20m')
    with pytest.raises(OSError, match='expected 100 MiB of free disk'): run(LONG, small_disk)

def test_a_disk_that_fills_up(small_disk, tiny, whole, monkeypatch):
    "Another program takes what is left; what was there is whole, and the run goes on when there is room"
    from bayes_prompt import run as module
    tmpfs(small_disk, '2m')
    monkeypatch.setattr(module, 'check_out', lambda out: Path(out))
    (small_disk/'out/sources').mkdir(parents=True)
    said = FORK.SimpleQueue()
    p = FORK.Process(target=limited, args=(make_config(LONG), small_disk/'out', resource.RLIM_INFINITY, said))
    p.start()
    while not any(small_disk.glob('out/sources/*/state/*.safetensors')): time.sleep(.002)
    try:
        with (small_disk/'other').open('wb') as f:
            while True: f.write(b'0'*4096); f.flush()
    except OSError as e: assert e.errno == errno.ENOSPC
    words = said.get()
    p.join()
    if words: assert 'No space left on device' in words and '\n' not in words
    (small_disk/'other').unlink()
    assert go(make_config(LONG), small_disk/'out')
    assert_same(small_disk/'out', whole('bmtpt')[0])

def removed(config, out, said):
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, 'w')
    try: run(config, out)
    except OSError as e: said.put(str(e))
    else: said.put('')

def test_a_folder_that_is_removed(whole, tmp_path):
    said, out = FORK.SimpleQueue(), tmp_path/'out'
    p = FORK.Process(target=removed, args=(make_config(LONG), out, said))
    p.start()
    while not any(out.glob('sources/*/state/*.safetensors')): time.sleep(.002)
    gone = out.rename(tmp_path/'away')
    words = said.get()
    p.join()
    assert ('is gone' in words or 'was removed' in words) and '\n' not in words
    shutil.rmtree(out, ignore_errors=True)
    gone.rename(out)
    assert go(make_config(LONG), out)
    assert_same(out, whole('bmtpt')[0])

def test_a_folder_that_only_can_be_read():
    with pytest.raises(OSError, match='cannot write to /proc/1: .*; choose another folder with --out'): run(LONG, '/proc/1')

def test_three_processes_on_one_folder(whole, tmp_path):
    "One learns the posterior, the others wait for it and read it; one of them is killed"
    config = make_config(LONG)
    ps = [FORK.Process(target=child, args=(config, tmp_path)) for _ in range(3)]
    for p in ps: p.start()
    while not any(tmp_path.glob('sources/*/state/*.safetensors')): time.sleep(.002)
    os.kill(ps[0].pid, signal.SIGKILL)
    for p in ps: p.join(90)
    assert [p.exitcode for p in ps] == [-signal.SIGKILL, 0, 0]
    assert_same(tmp_path, whole('bmtpt')[0])
