"""An address of this machine alone where nodes on it reach the server's buckets.

A server that was started without `--s3` has none until a node of this machine is to mount a bucket. From then
on it is there, also after a restart and at the same port, because what is mounted keeps the address that it
was mounted with. Every request there is signed, as at any other address for programs.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

from argosy.model.errors import ArgosyError
from argosy.server.door import Door, Limits
from argosy.server.listeners import bind_tcp, render_address
from argosy.server.objects import Objects


class StoreHere:
    """`note`: the file that keeps the port. `doors`: those that are closed with the server."""

    def __init__(self, note: Path, objects: Objects, doors: list[Door]) -> None:
        self._note, self._objects, self._doors = note, objects, doors
        self._opening = asyncio.Lock()
        self._socket: socket.socket | None = None

    async def open_again(self) -> None:
        """As it was before a restart; where its port is taken, another one when it is needed."""
        try:
            port = int(self._note.read_text("ascii"))
        except (OSError, ValueError):
            return
        with contextlib.suppress(ArgosyError):
            await self._listen(port)

    async def open(self) -> None:
        """Unless it is there. Raises `ArgosyError` when nothing can be listened on."""
        async with self._opening:
            if not self._objects.address:
                await self._listen(0)

    async def _listen(self, port: int) -> None:
        sock = bind_tcp(f"127.0.0.1:{port}")
        self._socket = sock
        door = Door(self._objects.for_programs, [sock], Limits(headers=200))
        await door.open()
        self._doors.append(door)
        self._objects.address = render_address(sock, False)
        self._note.write_text(f"{sock.getsockname()[1]}\n", "ascii")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
