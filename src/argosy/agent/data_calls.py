"""Calls about data: copies, which a process of its own carries out, and mounts."""

from __future__ import annotations

import asyncio
import os
import socket
import sys

from argosy.agent import joining, processes
from argosy.agent.lending import Lending
from argosy.agent.lending import serve as serve_lent
from argosy.agent.mount_door import MountDoor
from argosy.agent.mounting import Mounts
from argosy.agent.orders import Refused

_HANDLE = 3  # of its socket
_DOOR = MountDoor()  # of this agent
_LENDING = Lending()


async def serve(
    verb: str,
    root: str,
    name: str,
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    upgraded: bytes,
) -> None:
    """Start it, and carry bytes between it and the caller until it ends, which it does when the caller has
    gone. Raises OSError when it cannot be started."""
    ours, theirs = socket.socketpair()
    argv = [sys.executable, "-I", "-S", os.path.abspath(sys.argv[0]), verb, "--root", root, "--name", name]
    try:
        processes.spawn(
            argv, dict(os.environ), "/dev/null", root + "/data.log", True, [(theirs.fileno(), _HANDLE)]
        )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    ours.setblocking(False)
    streams[1].write(upgraded)
    await joining.join(streams, await asyncio.open_connection(sock=ours))


async def lend(
    root: str,
    home: str,
    name: str,
    target: str,
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    upgraded: bytes,
) -> None:
    """Carry one connection of the tool that mounts at `target`. Raises Refused, OSError."""
    all_mounts = Mounts(root, home, name, _DOOR, _LENDING)
    await serve_lent(lambda: all_mounts.lent(target), streams, upgraded)


def mounts(verb: str, root: str, home: str, name: str, arguments: dict[str, object]) -> dict[str, object]:
    """Mount a bucket, or settle mounts. Blocks. Raises Refused, OSError."""
    all_mounts = Mounts(root, home, name, _DOOR, _LENDING)
    if verb == "mount":
        return all_mounts.mount(arguments)
    targets, patience_s = arguments.get("targets"), arguments.get("patience_s", 0)
    if not isinstance(targets, list) or not isinstance(patience_s, (int, float)):
        raise Refused("targets", "`targets` must be a list and `patience_s` a number")
    return all_mounts.settle(
        [str(each) for each in targets], float(patience_s), bool(arguments.get("unmount"))
    )
