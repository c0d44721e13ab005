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

def test_decoders_agree():
    "To the digits that are asked of them"
    out = bench('''
for job, (contenders, args) in jobs('tiny-llama').items():
    if not timed(job): continue
    first = {k: f(*args)() for k, f in contenders.items()}
    check(first, decoder=True)
    k = 'packed'
    first[k] = tuple(1.0001*o for o in first[k]) if isinstance(first[k], tuple) else 1.0001*first[k]
    try: check(first, decoder=True)
    except SystemExit as e: print(e)
''').splitlines()
    assert len([l for l in out if 'losses' in l]) == 4 and out[-1] == 'plain and packed scores differ'

def test_operations_are_those_of_a_decoder():
    "But for blocks, in which attention looks further than needed, and a last layer whose queries are all made"
    out = json.loads(bench('''
from torch.utils.flop_counter import FlopCounterMode
bb = backbone('tiny-llama')
exs, x = examples(bb, (60, 30)), init_prompts(bb, 2, 20)
attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
def forward(q, k, *args, **kw): return 4*q[:3].numel()*q[3]*k[2]
def backward(g, q, k, *args, **kw): return 2*forward(q, k)
with FlopCounterMode(display=False, custom_mapping=dict(zip(attention, (forward, backward)))) as c: ours(bb, x, [exs])()
print(json.dumps([needed(bb, x, [exs]), 2*needed(bb, x[:1], [exs]), c.get_total_flops()]))
'''))
    assert out[0] == out[1] and .8 < out[0]/out[2] < 1

def test_a_job_is_timed_inside_the_model():
    "Two steps of the source stage"
    command = [sys.executable, ROOT/'bench/jobs.py', '--child', 'source', '2', str(time.time())]
    out = subprocess.run(command, capture_output=True, text=True, env=os.environ | dict(HF_HUB_OFFLINE='1'))
    assert out.returncode == 0, out.stderr
    r = json.loads(out.stdout)
    assert 0 < r['inside'] < r['total'] - r['start']
