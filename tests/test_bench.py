"What the benchmarks compare is the same computation"
import json, os, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

def bench(code):
    out = subprocess.run([sys.executable, '-c', 'from step import *\n' + code], cwd=ROOT/'bench', capture_output=True, text=True, env=os.environ | dict(HF_HUB_OFFLINE='1'))
    assert out.returncode == 0, out.stderr
    return out.stdout

def test_contenders_agree():
    "Also the check itself is checked: a contender that is off by a thousandth is refused"
    out = bench('''
for job, (contenders, args) in jobs('tiny-t5').items():
    if 'M=15' in job: continue
    first = {k: f(*args)() for k, f in contenders.items()}
    check(first)
    print(job)
    first['plain'] = tuple(1.001*o for o in first['plain']) if isinstance(first['plain'], tuple) else 1.001*first['plain']
    try: check(first)
    except SystemExit as e: print(e)
''').splitlines()
    assert len([l for l in out if 'losses' in l]) == 4 and 'plain and packed scores differ' in out

def test_operations_are_those_of_the_model():
    "What torch counts in the packed step, forward and backward, and in particles a straight line"
    out = json.loads(bench('''
from torch.utils.flop_counter import FlopCounterMode
bb = backbone('tiny-t5')
step, exs, x = with_engine(ours, Packed), examples(bb, (60, 60)), init_prompts(bb, 2, 20)
with FlopCounterMode(display=False) as c: step(bb, x, [exs])()
print(json.dumps([needed(bb, x, [exs]), 2*needed(bb, x[:1], [exs]), c.get_total_flops()]))
'''))
    assert out[0] == out[1] and abs(out[0]/out[2] - 1) < .02

def test_a_job_is_timed_inside_the_model():
    "Two steps of the source stage"
    command = [sys.executable, ROOT/'bench/jobs.py', '--child', 'source', '2', str(time.time())]
    out = subprocess.run(command, capture_output=True, text=True, env=os.environ | dict(HF_HUB_OFFLINE='1'))
    assert out.returncode == 0, out.stderr
    r = json.loads(out.stdout)
    assert 0 < r['inside'] < r['total'] - r['start']
