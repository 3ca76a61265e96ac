#!/usr/bin/env bash
# A real SLURM with two virtual nodes on this machine, in a folder of its own (root; installs Debian packages).
#   two_slurm_nodes.sh up FOLDER      then: export SLURM_CONF=FOLDER/slurm.conf
#   two_slurm_nodes.sh down FOLDER
# Jobs in the partition `urgent` take the nodes away from those in `usual`: a node has one CPU, whatever the machine has.
set -euo pipefail
command=${1:?up or down}
folder=$(realpath -m "${2:?a folder}")
export SLURM_CONF=$folder/slurm.conf

up() {
  if ! command -v slurmctld munged >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge
  fi
  mkdir -p "$folder"/{state,n1,n2} /run/munge
  chown munge: /run/munge
  cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$(hostname)
SlurmctldPort=16817
AuthType=auth/munge
SlurmUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/%n
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdLogFile=$folder/slurmd.%n.log
SlurmctldLogFile=$folder/slurmctld.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
MpiDefault=none
NodeName=n1 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=17001 CPUs=1
NodeName=n2 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=17002 CPUs=1
PartitionName=usual Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=9
CONF
  if ! munge -n >/dev/null 2>&1; then
    runuser -u munge -- munged --pid-file /run/munge/test.pid
  fi
  slurmctld
  slurmd -N n1
  slurmd -N n2
  for _ in {1..60}; do
    if [[ $(sinfo -h -N -t idle 2>/dev/null | wc -l) -ge 2 ]]; then return; fi
    sleep 0.5
  done
  sinfo
  exit 1
}

down() {
  scancel --user root || true
  for _ in {1..60}; do # else their ranks would go on without SLURM
    if [[ -z $(squeue -h 2>/dev/null) ]]; then break; fi
    sleep 0.5
  done
  for file in "$folder"/slurmctld.pid "$folder"/slurmd.n{1,2}.pid /run/munge/test.pid; do
    if [[ -f $file ]]; then kill "$(<"$file")" || true; fi
  done
}

"$command"
