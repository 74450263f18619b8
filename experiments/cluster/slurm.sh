#!/bin/bash
# A search on all nodes of a Slurm job, which continues itself until it is finished.
#
#   sbatch --nodes=4 --gpus-per-node=8 experiments/cluster/slurm.sh --space SPACE.yaml --out RUN
#
# Arguments go to `evomerge search`. SPACE, RUN and the parents lie on a file system that all nodes
# share. Five minutes before the time limit, and before a preemption that gives notice, the driver is
# asked to stop; it records what is under way, exits with 75, and the job goes back into the queue.
# To end it for good: scontrol update jobid=ID requeue=0; scancel ID
#
#SBATCH --job-name=evomerge
#SBATCH --ntasks-per-node=1
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
set -uo pipefail

readonly RESUMABLE=75
readonly port=$((6379 + SLURM_JOB_ID % 3000)) # below the ports that Ray gives to its workers

export RAY_USAGE_STATS_ENABLED=0
# Only those who have the token may use the cluster; srun hands the environment on to the nodes.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN
# A dead node is noticed after 5 seconds instead of 14.
export RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=2000
export RAY_health_check_failure_threshold=3 RAY_health_check_initial_delay_ms=2000

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
readonly head=${nodes[0]} # this script runs there
steps=()
driver=
stopping=

# One step per node: what happens to a node is nothing to the others.
on_node() {
  local node=$1
  shift
  srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" --kill-on-bad-exit=0 \
    ray start --block --disable-usage-stats --object-store-memory=200000000 "$@" &
  steps+=("$!")
}

stop() {
  stopping=yes
  [[ -z $driver ]] || kill -TERM "$driver" 2>/dev/null
}

end_steps() {
  ((${#steps[@]} == 0)) || kill "${steps[@]}" 2>/dev/null
}

trap stop TERM
trap end_steps EXIT

on_node "$head" --head --port="$port" --include-dashboard=false
for ((second = 0; second < 120; second++)); do
  (exec 3<>"/dev/tcp/$head/$port") 2>/dev/null && break
  sleep 1
done
for node in "${nodes[@]:1}"; do
  on_node "$node" --address="$head:$port"
done

# Said here, since not all nodes have joined when the search begins; one worker per GPU or core.
per_node=${SLURM_GPUS_ON_NODE:-${SLURM_CPUS_ON_NODE:-1}}
evomerge search --engine ray --address "$head:$port" \
  --workers "${EVOMERGE_WORKERS:-$((${#nodes[@]} * per_node))}" "$@" &
driver=$!
[[ -z $stopping ]] || stop # the signal came before there was a driver
# A signal interrupts `wait`, which then has to go on waiting.
while true; do
  wait "$driver"
  code=$?
  kill -0 "$driver" 2>/dev/null || break
done

if ((code == RESUMABLE)); then
  echo "to be continued: job $SLURM_JOB_ID goes back into the queue" >&2
  # Fails where Slurm itself requeues preempted jobs, which is just as well.
  scontrol requeue "$SLURM_JOB_ID" || echo "Slurm does not requeue this job" >&2
fi
exit "$code"
