"""One command in an ssh master: a process of ours whose pipes are the command's."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from argosy.infra.agent_client import StreamChannel

_STREAM_LIMIT_BYTES: Final = 2 << 20
_TAIL_BYTES: Final = 16 << 10


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """What a command on a host returned and printed."""

    status: int
    out: bytes
    err: str


class Session:
    """A command that was sent to the host. Both its outputs begin behind a marker, so that what the account's
    start files print (banners, greetings) is not taken for its own words."""

    def __init__(
        self, process: asyncio.subprocess.Process, marker: bytes, on_end: Callable[[], None]
    ) -> None:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        self._process = process
        self._marker = marker
        self._on_end: Callable[[], None] | None = on_end
        self._errors = process.stderr
        self.channel = StreamChannel(process.stdout, process.stdin)

    @classmethod
    async def start(
        cls, control: Path, command: str, marker: str, environ: Mapping[str, str], on_end: Callable[[], None]
    ) -> Session:
        """Only through the master at `control`: where it is gone, nobody logs in anew behind our back."""
        script = f"echo {marker}; echo {marker} >&2; {command}"
        process = await asyncio.create_subprocess_exec(
            "ssh", "-F", "/dev/null", "-S", str(control), "-o", "ProxyCommand=false", "-o", "BatchMode=yes",
            "-o", "LogLevel=ERROR", "-T", "--", "x", f"exec sh -c {shlex.quote(script)}",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=environ, limit=_STREAM_LIMIT_BYTES, start_new_session=True,
        )  # fmt: skip
        return cls(process, marker.encode() + b"\n", on_end)

    async def begin(self) -> bool:
        """Wait for the marker; False when the output ends before it."""
        try:
            await self.channel.reader.readuntil(self._marker)
        except (EOFError, asyncio.LimitOverrunError, OSError):
            return False
        return True

    async def complaint(self) -> tuple[int, str]:
        """Status and stderr of a command that did not begin."""
        self.channel.writer.close()
        said = await self._errors.read()
        return await self._process.wait(), said[-_TAIL_BYTES:].decode("utf-8", "replace")

    async def finish(self, data: bytes) -> Ran:
        """Send `data` as its input, and wait for its end."""
        _, out, err = await asyncio.gather(
            self._feed(data), self.channel.reader.read(-1), self._errors.read(-1)
        )
        await self._process.wait()
        own = err.partition(self._marker)[2] if self._marker in err else err
        return Ran(status=self._process.returncode or 0, out=out, err=own.decode("utf-8", "replace"))

    async def _feed(self, data: bytes) -> None:
        """All of the command's input. One that ended before it had read it wants no more."""
        writer = self.channel.writer
        try:
            if data:
                writer.write(data)
                await writer.drain()
            writer.close()
        except (OSError, RuntimeError):  # uvloop's word for a pipe that is closed
            return

    async def stay(self) -> None:
        """Look after the process while others use its channel: until it ends."""
        self._released()
        try:
            while await self._errors.read(_TAIL_BYTES):
                pass
            await self._process.wait()
        finally:
            self.end()

    @property
    def is_alive(self) -> bool:
        """False when its process has been waited for."""
        return self._process.returncode is None

    def end(self) -> None:
        """The process is gone after this, whatever it was doing."""
        self._released()
        if self._process.returncode is None:
            self._process.kill()

    def _released(self) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()
