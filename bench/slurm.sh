#!/usr/bin/env bash
# A sweep on a Slurm of one node, as Debian packages it; one of its jobs is told to make room and goes on from its state.
# As root, in a machine of its own: apt-get install -y --no-install-recommends slurm-wlm munge && pip install submitit && bench/slurm.sh
# Writes results/bench/slurm.json.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd) work=$(mktemp -d) name=$(hostname -s)
export SLURM_CONF=$work/slurm.conf PYTHONPATH=$root:${PYTHONPATH:-} HF_HUB_OFFLINE=1
mkdir -p "$work"/{state,spool,experiments} /run/munge && chown munge: /run/munge
cat > "$SLURM_CONF" <<END
ClusterName=one
SlurmctldHost=$name
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
JobRequeue=1
NodeName=$name CPUs=$(nproc) RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=$name Default=YES MaxTime=INFINITE State=UP
END
cat > "$work/experiments/mine.toml" <<END
answers = "Does a job that made room go on?"
[values]
target = {task = "spam", k = 2, steps = 2}
source = {tasks = ["movie"], steps = 400, batch = 2}
backbone = "tiny-t5"
limit = 12
m = 3
[grid]
seed = [0, 1]
method = ["pt", "bmtpt"]
END
pgrep -x munged > /dev/null || su -s /bin/sh munge -c /usr/sbin/munged
slurmctld && sleep 3 && slurmd
trap 'kill $(cat "$work"/slurmd.pid "$work"/slurmctld.pid)' EXIT
cd "$work"
bp() { python -c "from bayes_prompt.cli import bp_sweep; bp_sweep()" "$@"; }
bp experiments/mine.toml --slurm 2 --gpus 0 --time 30
until compgen -G 'results/mine/sources/*/state/*.safetensors' > /dev/null; do sleep .2; done
at=$(cat results/mine/sources/*/state/*.jsonl | wc -l)
scancel --signal=USR2 "$(squeue -h -r -t R -o %i | tail -1)"
while [ -n "$(squeue -h)" ]; do sleep 2; done # a job that is put back waits for two minutes
records=$(ls results/mine/*.json | wc -l)
requeued=$(grep -l 'Requeued job' results/mine/sources/jobs/*.out | wc -l)
python - "$root/results/bench/slurm.json" "$records" "$requeued" "$at" <<'END'
import importlib.metadata, json, subprocess, sys
out, records, requeued, at = sys.argv[1], *map(int, sys.argv[2:])
slurm = subprocess.run(['sinfo', '--version'], capture_output=True, text=True).stdout.strip()
about = dict(slurm=slurm, submitit=importlib.metadata.version('submitit'), jobs=2, runs=4, records=records, requeued=requeued, steps_before=at)
open(out, 'w').write(json.dumps(about, indent=1) + '\n')
print(about)
END
