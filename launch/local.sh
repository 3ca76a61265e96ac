#!/usr/bin/env bash
# All GPUs of this machine, or N processes: launch/local.sh [-n N] recipe=xnli key=value ...
#
#   MAX_RESTARTS   how often ranks that crash are started again, from the last checkpoint; 0
#   PYTHON         the interpreter; python
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

options=(--rdzv-backend c10d --rdzv-endpoint localhost:0 --rdzv-id local --max-restarts "${MAX_RESTARTS:-0}")
if [[ ${1:-} == -n ]]; then
  options+=(--nproc-per-node "${2:?"-n takes the number of processes"}")
  shift 2
fi
exec "${PYTHON:-python}" "$here/torchrun.py" "${options[@]}" -- "$@"
