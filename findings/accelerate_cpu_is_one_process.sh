#!/usr/bin/env bash
# accelerate 1.15.0: `accelerate launch --cpu --num_processes 2` starts one process, and says nothing.
#
# Versions: accelerate 1.15.0, torch 2.13.0; Python 3.11
# Expected: two processes on the CPU, joined by gloo, as `torchrun --nproc-per-node 2` starts them.
# Behaviour: with --cpu and one machine the plain launcher is taken: the script runs once, WORLD_SIZE is not set, and the exit status is 0.
#   A job that was meant to be dealt out does all of it alone. torchrun starts two.
# Seen: accelerate: 1 process, WORLD_SIZE unset; torchrun: 2 processes, WORLD_SIZE 2
# Exit status 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'accelerate==1.15.0' 'torch==2.13.0'
cat > "$work/who.py" <<'PY'
import os
print('here, WORLD_SIZE', os.environ.get('WORLD_SIZE', 'unset'), flush=True)
PY
cd "$work"
export HF_HOME="$work/home" # no configuration of accelerate's own
one=$(venv/bin/accelerate launch --cpu --num_processes 2 who.py 2>/dev/null | grep -c '^here, WORLD_SIZE unset')
two=$(venv/bin/torchrun --nproc-per-node 2 who.py 2>/dev/null | grep -c '^here, WORLD_SIZE 2')
echo "accelerate: $one without WORLD_SIZE; torchrun: $two with WORLD_SIZE 2"
[ "$one" = 1 ] && [ "$two" = 2 ] || { echo 'changed: not what stands above'; exit 1; }
