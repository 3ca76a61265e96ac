#!/usr/bin/env bash
# Two hosts on this machine: network namespaces on a bridge (root; installs Debian's iproute2).
#   two_hosts.sh up | down
#   two_hosts.sh on 1|2 COMMAND ...      run a command on one of them; they are 10.77.0.1 and 10.77.0.2
#   two_hosts.sh cut 1|2 | heal 1|2      pull its network cable, and plug it in again
set -euo pipefail
command=${1:?up, down, on, cut or heal}
shift

up() {
  if ! command -v ip >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends iproute2
  fi
  ip link add xlmrxl0 type bridge
  ip link set xlmrxl0 up
  for host in 1 2; do
    ip netns add "xlmrxl$host"
    ip link add "xlmrxl-eth$host" type veth peer name eth0 netns "xlmrxl$host"
    ip link set "xlmrxl-eth$host" master xlmrxl0 up
    ip -n "xlmrxl$host" addr add "10.77.0.$host/24" dev eth0
    ip -n "xlmrxl$host" link set eth0 up
    ip -n "xlmrxl$host" link set lo up
  done
}

down() {
  for host in 1 2; do
    ip netns pids "xlmrxl$host" 2>/dev/null | xargs -r kill -KILL || true
    ip netns del "xlmrxl$host" 2>/dev/null || true
  done
  ip link del xlmrxl0 2>/dev/null || true
}

on() { exec ip netns exec "xlmrxl$1" "${@:2}"; }
cut() { ip link set "xlmrxl-eth$1" nomaster; }
heal() { ip link set "xlmrxl-eth$1" master xlmrxl0; }

"$command" "$@"
