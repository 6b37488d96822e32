"""Byte streams between a client and a node: forwarded ports, ssh, copies. A WebSocket on this side, a stream
of the node's agent on the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from argosy.infra.agent_port import AgentPort, Duplex
from argosy.infra.border import BorderError, RequestRefused
from argosy.model.errors import ArgosyError
from argosy.server.exchange import Exchange
from argosy.server.services import Services
from argosy.server.terminal import node_asked

_END: Final = '{"end":true}'


class _Said(msgspec.Struct, frozen=True):
    end: bool = False


async def serve_stream(
    exchange: Exchange,
    services: Services,
    opened: Callable[[AgentPort], Awaitable[Duplex]],
    refusal: tuple[str, str] = ("unsupported", ""),
) -> None:
    """Until both sides have ended, or the client is gone. Meanwhile the cluster is in use.

    Raises `not-found`, `wrong-state`, `node-unreachable`, and `refusal` (code, hint) for what the node
    refuses, before it begins.
    """
    node = await node_asked(exchange, services.store)
    with services.controllers.attended(node.workload_id):
        try:
            duplex = await opened(await services.agents.get(node))
        except RequestRefused as error:
            code, hint = refusal
            raise ArgosyError(code, str(error), hint=hint) from None
        except BorderError as error:
            raise ArgosyError("node-unreachable", str(error)) from None
        exchange.answered = True
        await exchange.receive()  # websocket.connect
        await exchange.send({"type": "websocket.accept"})
        await carry(exchange, duplex)


async def carry(exchange: Exchange, duplex: Duplex) -> None:
    """Between the WebSocket and the node, until both sides have ended or the client is gone."""
    sent_all = asyncio.Event()
    reading = asyncio.ensure_future(_to_client(exchange, duplex))
    writing = asyncio.ensure_future(_from_client(exchange, duplex, sent_all))  # ends when the client is gone
    ending = asyncio.ensure_future(sent_all.wait())
    try:
        await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
        if not writing.done():
            await asyncio.wait({ending, writing}, return_when=asyncio.FIRST_COMPLETED)
        if not writing.done():
            await exchange.send({"type": "websocket.close", "code": 1000})
    finally:
        for task in (reading, writing, ending):
            task.cancel()
        await asyncio.wait({reading, writing, ending})
        await duplex.close()


async def _to_client(exchange: Exchange, duplex: Duplex) -> None:
    try:
        while data := await duplex.read():
            await exchange.send({"type": "websocket.send", "bytes": data})
    except (BorderError, OSError):
        pass
    await exchange.send({"type": "websocket.send", "text": _END})


async def _from_client(exchange: Exchange, duplex: Duplex, sent_all: asyncio.Event) -> None:
    takes = True
    while True:
        message = await exchange.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            if data := message.get("bytes"):
                if takes:
                    await duplex.write(data)
            elif _is_end(message.get("text") or ""):
                sent_all.set()
                await duplex.end()
        except (BorderError, OSError):
            takes = False  # the node's side has closed: the reader says so


def _is_end(text: str) -> bool:
    try:
        return msgspec.json.decode(text, type=_Said).end
    except msgspec.MsgspecError:
        return False
