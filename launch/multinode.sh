#!/usr/bin/env bash
# Several machines, each of which runs this same command: NNODES=4 ENDPOINT=host1:29400 launch/multinode.sh recipe=xnli
#
#   NNODES         number of machines; MIN:MAX goes on with fewer where some are lost
#   ENDPOINT       host:port of the machine where all meet; it must be one of them
#   MAX_RESTARTS   how often ranks that crash are started again, from the last checkpoint; 0, or 3 for MIN:MAX
#   RUN_ID         a name that all machines of one job share; xlmrxl
#   IS_HOST        true on the machine of ENDPOINT, false elsewhere; where torchrun cannot see it, nor SLURM or Kubernetes say
#   LOCAL_ADDR     the address under which others reach this machine, where its host name is not one
#   PYTHON         the interpreter; python
# One rank per GPU, one without GPUs; PET_NPROC_PER_NODE=N, or any other PET_<option of torchrun>, says otherwise.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
nnodes=${NNODES:?"NNODES must be the number of machines, or MIN:MAX"}
endpoint=${ENDPOINT:?"ENDPOINT must be host:port of the machine where all meet"}
if [[ $nnodes == *:* ]]; then restarts=3; else restarts=0; fi
is_host=${IS_HOST:-}
number=${SLURM_NODEID:-${JOB_COMPLETION_INDEX:-}}
if [[ -z $is_host && -n $number ]]; then
  if [[ $number == 0 ]]; then is_host=true; else is_host=false; fi
fi

options=(
  --nnodes "$nnodes"
  --rdzv-backend c10d
  --rdzv-endpoint "$endpoint"
  --rdzv-id "${RUN_ID:-xlmrxl}"
  --max-restarts "${MAX_RESTARTS:-$restarts}"
)
if [[ -n $is_host ]]; then options+=(--rdzv-conf "is_host=$is_host"); fi
if [[ -n ${LOCAL_ADDR:-} ]]; then options+=(--local-addr "$LOCAL_ADDR"); fi
exec "${PYTHON:-python}" "$here/torchrun.py" "${options[@]}" -- "$@"
