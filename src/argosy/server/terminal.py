"""`argosy ssh`: a WebSocket on this side, an agent's terminal on the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from argosy.infra.agent_port import AgentDirectory, Duplex
from argosy.infra.border import BorderError
from argosy.model.errors import ArgosyError
from argosy.model.phases import NodePhase
from argosy.model.rows import Node, Workload
from argosy.server.exchange import Exchange
from argosy.server.guarding import require_over
from argosy.server.naming import cluster_called
from argosy.server.ports import Controllers
from argosy.server.refusals import no_cluster
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store

_ROWS_MAX: Final = 10_000


class Size(msgspec.Struct, frozen=True):
    """What a client says when its window has changed."""

    rows: int
    columns: int


class Arrived(msgspec.Struct, frozen=True):
    """What a client of a lasting terminal says: so many bytes of its output have arrived."""

    seen: int


class Exit(msgspec.Struct, frozen=True):
    exit_code: int | None


async def serve_terminal(
    exchange: Exchange, store: Store, agents: AgentDirectory, controllers: Controllers
) -> None:
    """Until the shell ends or the client goes. Raises `not-found`, `wrong-state`, `node-unreachable` before
    it begins."""
    node = await node_asked(exchange, store)
    with controllers.attended(node.workload_id):
        await _serve(exchange, node, agents)


async def _serve(exchange: Exchange, node: Node, agents: AgentDirectory) -> None:
    rows = min(max(exchange.number("rows") or 24, 1), _ROWS_MAX)
    columns = min(max(exchange.number("columns") or 80, 1), _ROWS_MAX)
    try:
        agent = await agents.get(node)
        duplex = await agent.shell(exchange.text("command"), rows, columns, {})
    except BorderError as error:  # others may have a terminal there: their connections stay
        raise ArgosyError("node-unreachable", str(error)) from None
    exchange.answered = True
    await exchange.receive()  # websocket.connect
    await exchange.send({"type": "websocket.accept"})
    code: int | None = None
    reading = asyncio.ensure_future(to_client(exchange, duplex))
    writing = asyncio.ensure_future(from_client(exchange, duplex))
    try:
        await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        reading.cancel()
        writing.cancel()
        await asyncio.wait({reading, writing})
        code = await _close(duplex)
    if not _client_left(writing):
        await send_exit(exchange, code)


async def send_exit(exchange: Exchange, code: int | None) -> None:
    """The last that a client hears of a terminal."""
    await exchange.send(
        {"type": "websocket.send", "text": msgspec.json.encode(Exit(exit_code=code)).decode()}
    )
    await exchange.send({"type": "websocket.close", "code": 1000})


def _client_left(writing: asyncio.Future[None]) -> bool:
    return not writing.cancelled()


async def _close(duplex: Duplex) -> int | None:
    try:
        return await duplex.close()
    except (BorderError, OSError):
        return None


async def to_client(exchange: Exchange, duplex: Duplex) -> None:
    """What the terminal prints, until it ends."""
    try:
        while data := await duplex.read():
            await exchange.send({"type": "websocket.send", "bytes": data})
    except (BorderError, OSError):
        return


async def from_client(
    exchange: Exchange, duplex: Duplex, acknowledge: Callable[[int], Awaitable[None]] | None = None
) -> None:
    """What is typed, new sizes and (to `acknowledge`) what has arrived, until the client is gone."""
    try:
        while True:
            message = await exchange.receive()
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("bytes")
            if data:
                await duplex.write(data)
            elif message.get("text"):
                await _obey(duplex, acknowledge, message["text"])
    except (BorderError, OSError):
        # The node's side broke: the reader of its output sees that too, and says so.
        await asyncio.sleep(3600)


async def _obey(duplex: Duplex, acknowledge: Callable[[int], Awaitable[None]] | None, text: str) -> None:
    try:
        size = msgspec.json.decode(text, type=Size)
    except msgspec.MsgspecError:
        await _note_arrived(acknowledge, text)
        return
    if 0 < size.rows <= _ROWS_MAX and 0 < size.columns <= _ROWS_MAX:
        await duplex.resize(size.rows, size.columns)


async def _note_arrived(acknowledge: Callable[[int], Awaitable[None]] | None, text: str) -> None:
    try:
        seen = msgspec.json.decode(text, type=Arrived).seen
    except msgspec.MsgspecError:
        return  # said by a newer client
    if acknowledge is not None and 0 <= seen < 1 << 63:
        await acknowledge(seen)


async def node_asked(exchange: Exchange, store: Store) -> Node:
    """The node that a request names. Raises `not-found`, `wrong-state`."""
    name = exchange.path["cluster"]
    snapshot = await store.snapshot()
    cluster = cluster_called(snapshot, name, exchange.caller)
    if cluster is None:
        raise no_cluster(name, snapshot, exchange.caller)
    require_over(exchange.caller, cluster)
    return ready_node(snapshot, cluster, exchange.number("node") or 0)


def ready_node(snapshot: Snapshot, cluster: Workload, index: int) -> Node:
    """Raises `not-found`, `wrong-state`."""
    name, nodes = cluster.name, snapshot.nodes_of(cluster.id)
    node = next((each for each in nodes if each.index == index and each.phase is not NodePhase.STOPPED), None)
    if node is None:
        if not nodes or not any(each.phase is NodePhase.READY for each in nodes):
            raise ArgosyError(
                "wrong-state", f"cluster `{name}` has no node that is ready: it is {cluster.phase.value}"
            )
        raise ArgosyError("not-found", f"cluster `{name}` has nodes 0 to {len(nodes) - 1}")
    if node.phase is not NodePhase.READY:
        raise ArgosyError("wrong-state", f"node {index} of `{name}` is {node.phase.value}")
    return node
