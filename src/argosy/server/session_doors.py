"""WebSockets into sessions: the app, ports, ssh, and terminals that outlive their connection."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Final

from argosy.infra.agent_port import Duplex, Enter
from argosy.infra.border import BorderError, RequestRefused
from argosy.model.errors import ArgosyError
from argosy.model.rows import Workload
from argosy.server.exchange import Exchange
from argosy.server.node_streams import carry
from argosy.server.services import Services
from argosy.server.session_shares import is_watched
from argosy.server.sessions import place_of
from argosy.server.terminal import from_client, send_exit, to_client

_TELL_EVERY_S: Final = 10.0
_GUEST_EVERY_S: Final = 1.0  # so often it is looked whether a guest may still look
_PUT_OUT: Final = 4401  # how a WebSocket closes whose caller may not stay
_PIECE_BYTES: Final = 256 << 10


async def open_door(services: Services, session: Workload, enter: Enter) -> Duplex:
    """A stream into a session that is up. Raises `wrong-state`, `node-unreachable`, `unsupported`."""
    node, rank_id = place_of(await services.store.snapshot(), session)
    try:
        agent = await services.agents.get(node)
        return await agent.enter(rank_id, enter)
    except RequestRefused as error:
        raise ArgosyError("unsupported", str(error)) from None
    except BorderError as error:
        hint = f"`argosy session logs {session.name}` shows what its app says"
        raise ArgosyError("node-unreachable", str(error), hint=hint) from None


def note_use(services: Services, session_id: str, by: str) -> None:
    """Somebody uses the session: it is not idle now."""
    if services.controllers.observed.set_used(session_id, services.clock.now_ms(), by):
        services.controllers.wake(session_id)


class Noting:
    """A stream whose input counts as use of its session."""

    def __init__(self, inner: Duplex, services: Services, session: Workload, by: str) -> None:
        self._inner, self._services, self._session_id, self._by = inner, services, session.id, by
        self._told_s = -_TELL_EVERY_S

    async def read(self) -> bytes:
        return await self._inner.read()

    async def write(self, data: bytes) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._told_s >= _TELL_EVERY_S:
            self._told_s = now_s
            note_use(self._services, self._session_id, self._by)
        await self._inner.write(data)

    async def end(self) -> None:
        await self._inner.end()

    async def resize(self, rows: int, columns: int) -> None:
        await self._inner.resize(rows, columns)

    async def close(self) -> int | None:
        return await self._inner.close()


async def serve_door(exchange: Exchange, services: Services, session: Workload, enter: Enter) -> None:
    """The app, a port or ssh, until both sides have ended."""
    duplex = Noting(await open_door(services, session, enter), services, session, enter.what)
    exchange.answered = True
    await exchange.receive()  # websocket.connect
    await exchange.send({"type": "websocket.accept"})
    await carry(exchange, duplex)


async def serve_proxy(exchange: Exchange, services: Services) -> None:
    """A connection to the proxy of apps, which asks for cookies and codes as over any other."""
    reader, writer = await services.apps.open_pair()
    exchange.answered = True
    await exchange.receive()  # websocket.connect
    await exchange.send({"type": "websocket.accept"})
    await carry(exchange, Pair(reader, writer))


class Pair:
    """A connection within this process, as a stream of a node."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        return await self._reader.read(_PIECE_BYTES)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def end(self) -> None:
        self._writer.write_eof()

    async def resize(self, rows: int, columns: int) -> None:
        """It has no size."""

    async def close(self) -> int | None:
        self._writer.close()
        return None


async def serve_seat(exchange: Exchange, services: Services, session: Workload, enter: Enter) -> None:
    """A terminal, until its shell ends or the client goes: the shell stays then."""
    seat = await open_door(services, session, enter)
    duplex = Noting(seat, services, session, "terminal")
    writing = from_client(exchange, duplex, getattr(seat, "acknowledge", None))
    await _show(exchange, duplex, writing)


async def serve_gallery(
    exchange: Exchange, services: Services, session: Workload, enter: Enter, *, is_guest: bool
) -> None:
    """A terminal for somebody who may only look. What comes from there goes nowhere, whatever it says; a
    guest is put out when the share ends."""
    seat = await open_door(services, session, enter)
    await _show(exchange, seat, _until_gone(exchange, seat, services, session.id, is_guest=is_guest))


async def _until_gone(
    exchange: Exchange, seat: Duplex, services: Services, session_id: str, *, is_guest: bool
) -> None:
    listening = asyncio.ensure_future(from_client(exchange, _Deaf(), getattr(seat, "acknowledge", None)))
    try:
        while not (await asyncio.wait({listening}, timeout=_GUEST_EVERY_S))[0]:
            rows, now_ms = await services.store.snapshot(), services.clock.now_ms()
            row = rows.workloads.get(session_id)
            if is_guest and (row is None or not is_watched(row, exchange.caller, now_ms)):
                await exchange.send(
                    {"type": "websocket.close", "code": _PUT_OUT, "reason": "no longer shared"}
                )
                return
    finally:
        listening.cancel()
        await asyncio.wait({listening})


class _Deaf:
    """Takes what is typed, and does nothing with it."""

    async def read(self) -> bytes:
        return b""

    async def write(self, data: bytes) -> None:
        """It goes nowhere."""

    async def end(self) -> None:
        """It goes nowhere."""

    async def resize(self, rows: int, columns: int) -> None:
        """The size is that of those who type."""

    async def close(self) -> int | None:
        return None


async def _show(exchange: Exchange, duplex: Duplex, writes: Coroutine[None, None, None]) -> None:
    said = await duplex.read()
    exchange.answered = True
    await exchange.receive()  # websocket.connect
    await exchange.send({"type": "websocket.accept"})
    await exchange.send({"type": "websocket.send", "text": said.decode("utf-8", "replace").strip()})
    reading = asyncio.ensure_future(to_client(exchange, duplex))
    writing = asyncio.ensure_future(writes)
    try:
        await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
        client_left = writing.done()
    finally:
        reading.cancel()
        writing.cancel()
        await asyncio.wait({reading, writing})
        code = await duplex.close()
    if not client_left:
        await send_exit(exchange, code)
