"""Ports for programs that tests start, each taken by one process at a time.

A port that the kernel gives away (`bind` to 0), let go before the program binds it, may go to somebody's
connection in between. These lie below the kernel's range and below those of replicas (20,000 and more), and a
lock keeps each one ours until this process ends: processes of one test run never get the same one.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import Final

_PORTS: Final = range(10_000, 20_000)
_LOCKS: Final = Path(tempfile.gettempdir()) / "argosy-test-ports"

_held: Final[list[int]] = []  # the handles whose locks keep our ports
_next = os.getpid() * 97  # processes of neighbouring numbers begin far from each other


def free_port() -> int:
    """A port on which nobody listens, ours until this process ends. Raises OSError when none is left."""
    return free_ports(1)[0]


def free_ports(count: int) -> range:
    """Ports one after another: `count` of them. Raises OSError when there are no such."""
    global _next
    _LOCKS.mkdir(exist_ok=True)
    for _ in range(len(_PORTS)):
        first = _PORTS[_next % len(_PORTS)]
        wanted = range(first, min(first + count, _PORTS.stop))
        _next += count
        if len(wanted) == count and all(_take(port) for port in wanted):
            return wanted
    raise OSError(f"no {count} free ports between {_PORTS.start} and {_PORTS.stop}: see {_LOCKS}")


def _take(port: int) -> bool:
    handle = os.open(_LOCKS / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with socket.socket() as probe:
            probe.bind(("", port))
    except OSError:
        os.close(handle)
        return False
    _held.append(handle)
    return True
