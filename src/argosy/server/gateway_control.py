"""The control socket of one gateway, as the server speaks to it: HTTP over a unix socket."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path
from typing import Final

import msgspec

from argosy.infra.border import Transient
from argosy.model.routes import GatewayCounters, RouteTable, Wants

_CALL_S: Final = 10.0
_WANTS_S: Final = 40.0  # the gateway answers within 25
_HEAD_BYTES: Final = 64 << 10
_UCRED: Final = struct.Struct("3i")  # process, user, group


class _Taken(msgspec.Struct, frozen=True):
    generation: int


class ControlSocket:
    """Every call raises Transient when the gateway does not answer."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def is_up(self) -> bool:
        """Somebody listens there."""
        try:
            _, writer = await asyncio.open_unix_connection(self.path)
        except OSError:
            return False
        writer.close()
        return True

    async def pid(self) -> int:
        """The process that listens there, as the kernel tells it; 0 when none does, or where kernels do not
        tell."""
        if not hasattr(socket, "SO_PEERCRED"):
            return 0
        try:
            _, writer = await asyncio.open_unix_connection(self.path)
        except OSError:
            return 0
        peer = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        writer.close()
        return int(_UCRED.unpack(peer)[0])

    async def take(self, table: RouteTable) -> int:
        body = msgspec.json.encode(table)
        return msgspec.json.decode(await self._call("PUT", "/table", body), type=_Taken).generation

    async def counters(self) -> GatewayCounters:
        return msgspec.json.decode(await self._call("GET", "/counters"), type=GatewayCounters)

    async def wants(self, after: int) -> Wants:
        body = await self._call("GET", f"/wants?after={after}", timeout_s=_WANTS_S)
        return msgspec.json.decode(body, type=Wants)

    async def _call(self, method: str, path: str, body: bytes = b"", *, timeout_s: float = _CALL_S) -> bytes:
        """The body of its answer. Raises Transient."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask(method, path, body)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise Transient(str(error) or type(error).__name__) from None
        except TimeoutError:
            raise Transient(f"no answer within {timeout_s:g} s") from None

    async def _ask(self, method: str, path: str, body: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(self.path, limit=_HEAD_BYTES)
        try:
            head = f"{method} {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
            answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            fields = {
                name.lower(): value.strip() for name, _, value in (each.partition(":") for each in answer)
            }
            length = fields.get("content-length")
            data = await reader.readexactly(int(length)) if length is not None else await reader.read()
        finally:
            writer.close()
        if answer[0].split()[1:2] != ["200"]:
            raise ValueError(f"it answers {answer[0]}: {data[:500].decode('utf-8', 'replace')}")
        return data
