"Versions, memory, disk"
import json, subprocess, sys
from bayes_prompt.machine import environment, peak_memory, reset_peak

def test_environment_is_plain_json():
    e = environment()
    assert json.loads(json.dumps(e)) == e and e['versions']['torch'] and e['threads'] >= 1

def test_peak_memory_begins_anew():
    code = ('from bayes_prompt.machine import *\nx = bytearray(200*2**20); del x\na = peak_memory("cpu"); reset_peak("cpu"); b = peak_memory("cpu")\n'
            'x = bytearray(100*2**20)\nprint(a, b, peak_memory("cpu"))')
    a, b, c = map(float, subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split())
    if sys.platform == 'linux': assert b < a - 150 and c > b + 80
    else: assert a <= b <= c

def test_no_gpu_is_no_traceback():
    reset_peak('cuda')
