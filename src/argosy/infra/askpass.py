"""Passwords for ssh from memory: a small program that ssh starts asks us for them over a unix socket."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

from argosy.infra.ssh_target import SshTarget
from argosy.model.ids import Ids

#: ssh starts it with the question as its argument; it knows where to ask and as whom by its environment.
_PROGRAM: Final = """\
#!/bin/sh
exec python3 -I -S -c '
import os, socket, sys
line = socket.socket(socket.AF_UNIX)
line.connect(os.environ["ASKPASS_SOCKET"])
line.sendall(os.environ["ASKPASS_TICKET"].encode() + b"\\n")
answer = b"".join(iter(lambda: line.recv(4096), b""))
sys.stdout.write(answer.decode() + "\\n")
sys.exit(not answer)
'
"""


class Askpass:
    """Passwords of hosts, in memory. They reach ssh through a pipe only: no file, argument or environment
    holds one."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._passwords: dict[str, str] = {}  # by the target's label
        self._tickets: dict[str, str] = {}  # ticket → label
        self._server: asyncio.AbstractServer | None = None

    def __repr__(self) -> str:
        return f"Askpass({len(self._passwords)} passwords)"

    def remember(self, to: SshTarget, password: str) -> None:
        self._passwords[to.label] = password

    def forget(self, to: SshTarget) -> None:
        self._passwords.pop(to.label, None)

    async def environ(self, to: SshTarget, folder: Path) -> dict[str, str]:
        """What makes ssh ask us about this host; {} when we know no password for it. Raises OSError."""
        if to.label not in self._passwords:
            return {}
        socket, program = folder / "ask", folder / "askpass"
        if self._server is None:
            program.write_text(_PROGRAM)
            program.chmod(0o700)
            socket.unlink(missing_ok=True)
            old = os.umask(0o177)
            try:
                self._server = await asyncio.start_unix_server(self._answer, path=str(socket))
            finally:
                os.umask(old)
        ticket = self._ids.new("ask")
        self._tickets[ticket] = to.label
        return {
            "SSH_ASKPASS": str(program),
            "SSH_ASKPASS_REQUIRE": "force",
            "ASKPASS_SOCKET": str(socket),
            "ASKPASS_TICKET": ticket,
        }

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            ticket = (await reader.readline()).decode("utf-8", "replace").strip()
            password = self._passwords.get(self._tickets.pop(ticket, ""), "")
            writer.write(password.encode())
            await writer.drain()
        except (OSError, ValueError):
            pass
        finally:
            writer.close()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
