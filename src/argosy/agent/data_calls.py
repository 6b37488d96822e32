"""Calls about data: copies, which a process of its own carries out, and mounts."""

from __future__ import annotations

import asyncio
import os
import socket
import sys

from argosy.agent import handing, joining, processes
from argosy.agent.lending import Lending
from argosy.agent.lending import serve as serve_lent
from argosy.agent.mount_door import MountDoor
from argosy.agent.mounting import Mounts
from argosy.agent.orders import Refused

_HANDLE = 3  # of its socket
_DOOR = MountDoor()  # of this agent
_LENDING = Lending()
_CALLS_TO_MAKE_IT = 2


class Copier:
    """The process that copies objects of stores to this node. It is started for the first copy, and ends by
    itself when there was none for a while; a copy beside another one gets a process of its own."""

    def __init__(self) -> None:
        self._control: socket.socket | None = None
        self._has_one = False  # connection, and has not said that it takes another

    def is_free(self) -> bool:
        if self._control is not None and self._has_one:
            try:
                self._has_one = not handing.is_ready(self._control)
            except OSError:
                self._forget()
        return not self._has_one

    def _forget(self) -> None:
        if self._control is not None:
            self._control.close()
        self._control, self._has_one = None, False

    def take(self, stream: socket.socket, root: str, name: str, early: str) -> None:
        """It gets this connection. Raises OSError when it cannot be started."""
        for _ in range(_CALLS_TO_MAKE_IT):
            if self._control is None:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                ours.setblocking(False)
                try:
                    _start("fetch", root, name, theirs)
                finally:
                    theirs.close()
                self._control = ours
            try:
                handing.give(self._control, stream, early)
                self._has_one = True
                return
            except OSError:  # it has just ended
                self._forget()
        raise BrokenPipeError("the process that copies ends at once; %s/data.log may say why" % root)


_COPIER = Copier()  # of this agent


async def serve(
    verb: str,
    root: str,
    name: str,
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    upgraded: bytes,
    early: str = "",
) -> None:
    """Give the caller to the process that copies, and carry bytes between them until it is done, or the
    caller has gone. `early`: where the copy will go. Raises OSError when it cannot be started."""
    ours, theirs = socket.socketpair()
    copier = _COPIER if _COPIER.is_free() else Copier()
    try:
        if verb == "fetch":
            copier.take(theirs, root, name, early)
        else:
            _start(verb, root, name, theirs)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    ours.setblocking(False)
    streams[1].write(upgraded)
    await joining.join(streams, await asyncio.open_connection(sock=ours))


def _start(verb: str, root: str, name: str, stream: socket.socket) -> None:
    argv = [sys.executable, "-I", "-S", os.path.abspath(sys.argv[0]), verb, "--root", root, "--name", name]
    processes.spawn(
        argv, dict(os.environ), "/dev/null", root + "/data.log", True, [(stream.fileno(), _HANDLE)]
    )


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
