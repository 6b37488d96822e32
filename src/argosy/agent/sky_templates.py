"""Scripts that SkyPilot's task files call by path: `~/sky_templates/ray/start_cluster` and `stop_cluster`.

A task that names that folder finds them in its home. They read the variables that SkyPilot documents:
https://docs.skypilot.co/en/latest/examples/training/ray.html
"""

from __future__ import annotations

import os

_FOLDER = "sky_templates/ray"

_COMMON = r"""#!/usr/bin/env bash
# Variables: RAY_HEAD_PORT (6379), RAY_DASHBOARD_PORT (8265), RAY_DASHBOARD_HOST (127.0.0.1),
# RAY_DASHBOARD_AGENT_LISTEN_PORT, RAY_HEAD_IP_ADDRESS, RAY_CMD (ray; for example "uv run ray").
set -euo pipefail
read -ra ray <<<"${RAY_CMD:-ray}"
port=${RAY_HEAD_PORT:-6379} rank=${SKYPILOT_NODE_RANK:-0} count=${SKYPILOT_NUM_NODES:-1}
ips=${SKYPILOT_NODE_IPS:-127.0.0.1}
head=${RAY_HEAD_IP_ADDRESS:-${ips%%$'\n'*}}
say() { echo "${0##*/}: $*"; }
"""

_START = (
    _COMMON
    + r"""
wait_s=300
own=$(sed -n "$((rank + 1))p" <<<"$ips")
[ "$rank" != 0 ] || own=$head

# `ray list nodes` needs the dashboard, which a bare `ray` does not bring. A version that is there stays.
version=$("${ray[@]}" --version 2>/dev/null | awk '{print $3}' || true)
if [ -z "$version" ] || ! "${ray[@]}" list --help >/dev/null 2>&1; then
  package="ray[default]${version:+==$version}"
  say "installing $package"
  if command -v uv >/dev/null 2>&1; then
    uv pip install --quiet "$package" || uv pip install --quiet --system --break-system-packages "$package"
  else
    python3 -m pip install --quiet --disable-pip-version-check "$package"
  fi
  hash -r
fi

healthy() { "${ray[@]}" health-check --address="$head:$port" >/dev/null 2>&1; }
alive() {  # the nodes that are, as JSON
  "${ray[@]}" list nodes --address="$head:$port" --limit=10000 --filter state=ALIVE --format=json "$@" \
    2>/dev/null
}
joined() {  # how many there are
  alive | python3 -c 'import json, sys; print(len(json.load(sys.stdin)))' 2>/dev/null || echo 0
}
until_true() {  # what is waited for, then the command that says whether it is so
  local what=$1 began=$SECONDS
  shift
  until "$@"; do
    if [ $((SECONDS - began)) -ge "$wait_s" ]; then
      say "$what: not within $wait_s s" >&2
      exit 1
    fi
    sleep 1
  done
}
all_there() { [ "$(joined)" -ge "$count" ]; }
here() {  # whether a node of this cluster runs here; of the head Ray may know another address than we do
  healthy || return 1
  [ "$rank" = 0 ] || alive --filter "node_ip=$own" | grep -q '"node_id"'
}

options=(--disable-usage-stats --node-ip-address="$own")
[ "${SKYPILOT_NUM_GPUS_PER_NODE:-0}" -le 0 ] || options+=(--num-gpus="$SKYPILOT_NUM_GPUS_PER_NODE")
if here; then
  say "Ray already runs at $head:$port"
elif [ "$rank" = 0 ]; then
  [ -z "${RAY_DASHBOARD_AGENT_LISTEN_PORT:-}" ] ||
    options+=(--dashboard-agent-listen-port="$RAY_DASHBOARD_AGENT_LISTEN_PORT")
  "${ray[@]}" start --head --port="$port" --include-dashboard=True \
    --dashboard-host="${RAY_DASHBOARD_HOST:-127.0.0.1}" --dashboard-port="${RAY_DASHBOARD_PORT:-8265}" \
    "${options[@]}"
  until_true "the head node answers" healthy
else
  until_true "the head node at $head:$port answers" healthy
  "${ray[@]}" start --address="$head:$port" "${options[@]}"
fi
if [ "$rank" = 0 ]; then
  until_true "$count nodes have joined" all_there
  say "$count of $count nodes have joined $head:$port"
fi
"""
)

_STOP = (
    _COMMON
    + r"""
# `ray stop` would end every Ray of this user, also those of other jobs on the machine: only processes that
# name the port of this cluster's head are ended.
ended=0
for folder in /proc/[0-9]*; do
  [ -O "$folder" ] || continue
  words=$(tr '\0' ' ' <"$folder/cmdline" 2>/dev/null) || continue
  case "$words" in
    *--gcs-address=*":$port "* | *--gcs_server_port="$port "*) ;;
    *) continue ;;
  esac
  kill "${folder#/proc/}" 2>/dev/null && ended=$((ended + 1))
done
say "$ended processes of the Ray at $head:$port were told to end"
"""
)


def lay_out(home: str) -> None:
    """Write the scripts into `home`. What is there already stays. Raises OSError."""
    folder = f"{home}/{_FOLDER}"
    os.makedirs(folder, exist_ok=True)
    for name, text in (("start_cluster", _START), ("stop_cluster", _STOP)):
        try:
            handle = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
        except FileExistsError:
            continue
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
