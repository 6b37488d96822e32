"""Clouds that give containers: what one runs so that it is reached like a machine. Pure.

A container has no cloud-init. Its environment carries who may log in, the key with which it shows who it is,
and a script that starts sshd with both. What the image says in its own environment holds for programs, too.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final

from argosy.infra import border
from argosy.infra.machine_vendor import MachineOrder
from argosy.infra.machines import CLAIM, NODE, NODES, TAG
from argosy.model.resources import Resources

OPENS: Final = "ARGOSY_OPENS"  # a line of `authorized_keys`
HOST_KEY: Final = "ARGOSY_HOST_KEY"  # the private key of sshd, in base64
START: Final = "ARGOSY_START"  # the script, in base64
PORT: Final = 22  # where sshd listens in the container

#: The arguments that a container is started with.
ARGS: Final = ("sh", "-c", f"echo ${START} | base64 -d > /tmp/argosy-start; exec sh /tmp/argosy-start")

_MARKS: Final = {key: key.upper().replace("-", "_") for key in (CLAIM, NODE, NODES, TAG)}

#: ARGOSY_SSH_DIR and ARGOSY_SSH_PORT are for tests.
SCRIPT: Final = """\
set -u
umask 077
dir=${ARGOSY_SSH_DIR:-/etc/argosy-ssh}
need=
command -v sshd >/dev/null 2>&1 || [ -x /usr/sbin/sshd ] || need=openssh-server
command -v python3 >/dev/null 2>&1 || need="$need python3"
if [ -n "$need" ]; then
  if command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends $need
  elif command -v apk >/dev/null 2>&1; then apk add --no-cache openssh python3
  elif command -v dnf >/dev/null 2>&1; then dnf install -y -q $need
  elif command -v yum >/dev/null 2>&1; then yum install -y -q $need
  else echo "argosy: the image has no $need and no package manager" >&2
  fi
fi
mkdir -p "$dir" /run/sshd
printf '%s\\n' "$ARGOSY_OPENS" > "$dir/authorized_keys"
echo "$ARGOSY_HOST_KEY" | base64 -d > "$dir/host_key"
unset ARGOSY_HOST_KEY ARGOSY_START
{
  echo "Port ${ARGOSY_SSH_PORT:-22}"
  echo "HostKey $dir/host_key"
  echo "AuthorizedKeysFile $dir/authorized_keys"
  echo "PermitRootLogin prohibit-password"
  echo "PasswordAuthentication no"
  echo "ChallengeResponseAuthentication no"
  echo "StrictModes no"
  echo "UsePAM no"
  echo "PrintMotd no"
  echo "PidFile none"
  echo "MaxSessions 100"
  echo "MaxStartups 100"
  printf 'SetEnv'
  env | while IFS= read -r line; do
    case "$line" in
      ARGOSY_*|HOME=*|PWD=*|OLDPWD=*|SHLVL=*|TERM=*|_=*|USER=*|LOGNAME=*|SHELL=*|*\\"*|*\\\\*) ;;
      [A-Za-z_]*=*) printf ' "%s"' "$line" ;;
    esac
  done
  echo
} > "$dir/sshd_config"
sshd=$(command -v sshd || echo /usr/sbin/sshd)
umask 022
exec "$sshd" -D -e -f "$dir/sshd_config"
"""


def container_env(order: MachineOrder, index: int) -> dict[str, str]:
    """The environment of a container: its marks, and what the script needs."""
    marks = {_MARKS[key]: value for key, value in order.labels(index).items() if key in _MARKS}
    return marks | {
        OPENS: order.opens,
        HOST_KEY: base64.b64encode(order.host_secret.encode()).decode(),
        START: base64.b64encode(SCRIPT.encode()).decode(),
    }


def open_ports(wish: Resources) -> list[int]:
    """The ports that a task opens, besides ssh's own, one by one. Raises `RequestRefused`.

    >>> open_ports(Resources(ports=("8080", "9000-9002", "22")))
    [8080, 9000, 9001, 9002]
    """
    found: set[int] = set()
    for text in wish.ports:
        first, _, last = text.partition("-")
        if not (first.strip().isdigit() and (last.strip() or first.strip()).isdigit()):
            raise border.RequestRefused("ports", f"`{text}` is neither a port nor a range of ports")
        found.update(range(int(first), int(last or first) + 1))
    return sorted(found - {PORT})


def labels_in(env: Mapping[str, str]) -> dict[str, str]:
    """The marks of a container, as labels.

    >>> labels_in({"ARGOSY_CLAIM": "clm-1", "PATH": "/bin"})
    {'argosy-claim': 'clm-1'}
    """
    return {key: env[name] for key, name in _MARKS.items() if name in env}


def image_of(image_id: str | None, default: str) -> str:
    """The container image of a task.

    >>> image_of("docker:ubuntu:24.04", "x"), image_of(None, "x")
    ('ubuntu:24.04', 'x')
    """
    return (image_id or default).removeprefix("docker:")
