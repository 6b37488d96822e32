"""The real `AgentPort`: HTTP/1.1 over Channels, as `argosy.agent.wire` says.

Calls share a small pool of kept-alive connections; every watch, shell and forward has one of its own. All
calls may be repeated, so one that finds its kept connection dead is sent again on a fresh one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from argosy.agent import wire
from argosy.infra import border
from argosy.infra.agent_http import receive_answer, send_request
from argosy.infra.agent_port import (
    Answer,
    Channel,
    Chunks,
    DataSink,
    DataSource,
    Duplex,
    Enter,
    Fetched,
    FetchOrder,
    HeldTree,
    Kept,
    MountOrder,
    Pack,
    PlacedChange,
    RankOrder,
    Report,
    SendOrder,
    silence_s,
)
from argosy.infra.agent_streams import CALL_S, LOST, Port, Seat, Terminal, reason_of
from argosy.infra.silence import Ear
from argosy.infra.tree_sending import TreeBody, send_packs
from argosy.model.facts import LogChunk, NodeFacts, RankFact
from argosy.model.tree import pack_of

T = TypeVar("T")
_POOL_MAX: Final = 8  # connections for calls; kept when idle, because a new one through SSH is dear
_TREE_S: Final = 900.0
_MOUNT_S: Final = 90.0
_LEND_S: Final = 60.0
_SETTLE_S: Final = 6 * 3600.0  # the agent gives up much earlier when nothing moves
_STREAM_LIMIT_BYTES: Final = 2 << 20  # a StreamReader stops reading ahead at twice this


class StreamChannel:
    """A Channel of asyncio streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer


async def unix_channel(path: str | os.PathLike[str]) -> StreamChannel:
    """A connection to the agent on this machine that listens on `path`. Raises Unreachable."""
    address = os.fspath(path)
    folder = None
    try:
        if (
            len(os.fsencode(address)) >= 100
        ):  # a unix address holds 107 bytes; go through a handle of the folder
            folder = os.open(Path(path).parent, os.O_PATH | os.O_CLOEXEC)
            address = f"/proc/self/fd/{folder}/{Path(path).name}"
        return StreamChannel(*await asyncio.open_unix_connection(address, limit=_STREAM_LIMIT_BYTES))
    except OSError as error:
        raise border.Unreachable(
            f"no agent listens on {os.fspath(path)}: {error.strerror or type(error).__name__}"
        ) from None
    finally:
        if folder is not None:
            os.close(folder)


class _Orders(msgspec.Struct, frozen=True):
    orders: Sequence[RankOrder]


class _Ids(msgspec.Struct, frozen=True):
    ids: Sequence[str]


class _Stop(msgspec.Struct, frozen=True):
    ids: Sequence[str]
    grace_s: float
    why: str


class _Shutdown(msgspec.Struct, frozen=True):
    grace_s: float


class _Cursors(msgspec.Struct, frozen=True):
    cursors: Mapping[str, int]


class _Digests(msgspec.Struct, frozen=True):
    digests: Sequence[str]


class _Missing(msgspec.Struct, frozen=True):
    missing: tuple[str, ...]


class _ShellOrder(msgspec.Struct, frozen=True):
    command: str
    rows: int
    columns: int
    env: Mapping[str, str]


class _Forward(msgspec.Struct, frozen=True):
    port: int


class _Ssh(msgspec.Struct, frozen=True):
    key: str


class _Enter(msgspec.Struct, frozen=True):
    rank: str
    enter: Enter


class _Copy(msgspec.Struct, frozen=True):
    path: str
    name: str
    read: bool


class _TreeOrder(msgspec.Struct, frozen=True):
    target: str
    tree: msgspec.Raw
    digest: str


class _TreeQuestion(msgspec.Struct, frozen=True):
    target: str
    digest: str


class _KeptQuestion(msgspec.Struct, frozen=True):
    target: str
    settled_s: float


class _TreeHeld(msgspec.Struct, frozen=True):
    held: bool
    lying: str = ""
    takes: bool = False
    bare: bool = False


class _TreeChanged(msgspec.Struct, frozen=True):
    changed: bool


class _Failure(msgspec.Struct, frozen=True):
    error: str = "transient"
    field: str = ""
    text: str = ""


class _Settle(msgspec.Struct, frozen=True):
    targets: Sequence[str]
    patience_s: float
    unmount: bool


class _Lend(msgspec.Struct, frozen=True):
    target: str


class _Mounted(msgspec.Struct, frozen=True):
    renewed: bool = False


class _Settled(msgspec.Struct, frozen=True):
    left: dict[str, tuple[str, ...]] = {}


class _Nothing(msgspec.Struct, frozen=True):
    pass


class _Target(msgspec.Struct, frozen=True):
    target: str


class _Head(msgspec.Struct, frozen=True):
    complete: bool = False
    ranks: tuple[RankFact, ...] = ()
    logs: tuple[tuple[str, int, int], ...] = ()
    node: NodeFacts | None = None
    sent: int = 0
    beat: float = wire.HEARTBEAT_S
    wall: int = 0


class AgentClient:
    """Speaks to one agent. `connect` makes a new stream to it and raises Unreachable when it cannot."""

    def __init__(self, connect: Callable[[], Awaitable[Channel]]) -> None:
        self._connect = connect
        self._idle: list[Channel] = []
        self._places = asyncio.Semaphore(_POOL_MAX)
        self._streams: set[Channel] = set()
        self._early: dict[str, asyncio.Future[Channel]] = {}  # by target: copies that were announced
        self._closed = False

    # ---- calls

    async def node(self) -> NodeFacts:
        return msgspec.json.decode(await self._call("GET", "/node"), type=NodeFacts)

    async def prepare(self, orders: Sequence[RankOrder]) -> None:
        if orders:
            await self._post("/prepare", _Orders(orders))

    async def run(self, rank_ids: Sequence[str]) -> None:
        if rank_ids:
            await self._post("/run", _Ids(rank_ids))

    async def stop(self, rank_ids: Sequence[str], grace_s: float, why: str = "") -> None:
        if rank_ids:
            await self._post("/stop", _Stop(rank_ids, grace_s, why))

    async def forget(self, rank_ids: Sequence[str]) -> None:
        if rank_ids:
            await self._post("/forget", _Ids(rank_ids))

    async def listening(self, rank_ids: Sequence[str]) -> Sequence[int]:
        answer = await self._post("/listening", _Ids(rank_ids))
        return msgspec.json.decode(answer, type=dict[str, list[int]])["ports"]

    async def missing_chunks(self, digests: Sequence[str]) -> Sequence[str]:
        if not digests:
            return ()
        answer = await self._post("/chunks/missing", _Digests(digests), _TREE_S)
        return msgspec.json.decode(answer, type=_Missing).missing

    async def put_chunks(self, chunks: Chunks) -> None:
        await send_packs(lambda pack: self._call("PUT", "/chunks", pack_of(pack), _TREE_S), chunks)

    async def held_tree(self, target: str, digest: str) -> HeldTree:
        try:
            answer = await self._post("/tree/held", _TreeQuestion(target, digest), _TREE_S)
        except border.RequestRefused:  # an older agent
            return HeldTree()
        said = msgspec.json.decode(answer, type=_TreeHeld)
        return HeldTree(digest if said.held else said.lying, is_bare=said.bare, takes=said.takes)

    async def look_ahead(self, target: str) -> None:
        await self._post("/tree/ahead", _Target(target))

    async def change_tree(self, change: PlacedChange, chunks: Sequence[tuple[str, bytes]]) -> bool:
        order = msgspec.json.encode(change)
        body = [b'{"order":%d}\n' % len(order), order, *pack_of(chunks)]
        answer = await self._call("PUT", "/tree/change", body, _TREE_S)
        return msgspec.json.decode(answer, type=_TreeChanged).changed

    async def place_tree(self, tree_json: bytes, target: str, digest: str = "") -> None:
        await self._post("/tree", _TreeOrder(target, msgspec.Raw(tree_json), digest), _TREE_S)

    async def send_tree(
        self, tree_json: bytes, target: str, digest: str, chunks: Mapping[str, int], packed: Pack
    ) -> None:
        order = msgspec.json.encode(_TreeOrder(target, msgspec.Raw(tree_json), digest))
        body = TreeBody(order, chunks, packed)
        async with self._places:
            try:
                async with asyncio.timeout(_TREE_S) as limit, contextlib.aclosing(body):
                    await body.widen(self._open)
                    await self._exchange(lambda channel: body.send(channel, limit, _TREE_S), again=False)
            except TimeoutError:
                raise border.Unreachable(f"the agent took nothing within {_TREE_S:.0f} s") from None

    async def kept(self, target: str, settled_s: float) -> Kept:
        answer = await self._post("/kept", _KeptQuestion(target, settled_s), _TREE_S)
        return msgspec.json.decode(answer, type=Kept)

    async def kept_chunks(self, digests: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
        channel = await self._upgrade("/kept/chunks", _Digests(digests))
        try:
            for digest in digests:
                try:
                    async with asyncio.timeout(_TREE_S):
                        line = await channel.reader.readuntil(b"\n")
                        size = int(line.rpartition(b" ")[2])
                        data = await channel.reader.readexactly(max(0, size))
                except (TimeoutError, ValueError, *LOST) as error:
                    raise border.Unreachable(f"the agent broke off: {reason_of(error)}") from None
                if size < 0:
                    raise border.Transient("a file changed while it was read")
                yield digest, data
        finally:
            self._streams.discard(channel)
            channel.writer.close()

    async def shutdown(self) -> None:
        grace_s = 5.0
        await self._post("/shutdown", _Shutdown(grace_s), CALL_S + grace_s)

    async def close(self) -> None:
        self._closed = True
        channels = [*self._idle, *self._streams]
        self._idle.clear()
        self._streams.clear()
        for channel in channels:
            channel.writer.close()

    async def _post(self, path: str, body: msgspec.Struct, timeout_s: float = CALL_S) -> bytes:
        return await self._call("POST", path, [msgspec.json.encode(body)], timeout_s)

    async def _call(
        self, method: str, path: str, body: Sequence[bytes] = (), timeout_s: float = CALL_S
    ) -> bytes:
        """The answer's body. Raises a border error."""
        async with self._places:
            try:
                async with asyncio.timeout(timeout_s):
                    return await self._exchange(lambda channel: send_request(channel, method, path, body))
            except TimeoutError:
                raise border.Unreachable(
                    f"the agent did not answer {path} within {timeout_s:.0f} s"
                ) from None

    async def _exchange(self, send: Callable[[Channel], Awaitable[None]], *, again: bool = True) -> bytes:
        """`again`: what was sent on a connection that had died meanwhile can be sent on another one."""
        while True:
            kept = bool(self._idle)
            channel = self._idle.pop() if kept else await self._open()
            good = False
            try:
                await send(channel)
                status, answer = await receive_answer(channel)
                good = True
                break
            except LOST as error:
                if not (kept and again):
                    raise border.Unreachable(f"the agent broke off: {reason_of(error)}") from None
            finally:
                if good and not self._closed and (status == 200 or (again and status != 400)):
                    self._idle.append(channel)
                else:  # it may leave the rest of a body unread
                    channel.writer.close()
        if status != 200:
            raise _as_error(status, answer)
        return answer

    async def _open(self) -> Channel:
        if self._closed:
            raise border.Unreachable("the connection to the agent was closed")
        try:
            return await self._connect()
        except OSError as error:
            raise border.Unreachable(f"the agent cannot be reached: {reason_of(error)}") from None

    # ---- streams

    async def _upgrade(self, path: str, body: msgspec.Struct, limit_s: float = CALL_S) -> Channel:
        """A connection of its own that has left HTTP behind. Raises a border error."""
        channel = await self._open()
        done = False
        try:
            async with asyncio.timeout(limit_s):
                await send_request(channel, "POST", path, [msgspec.json.encode(body)])
                status, answer = await receive_answer(channel)
            if status != 101:
                raise _as_error(status, answer)
            done = True
        except TimeoutError:
            raise border.Unreachable(f"the agent did not answer {path} within {limit_s:.0f} s") from None
        except LOST as error:
            raise border.Unreachable(f"the agent broke off: {reason_of(error)}") from None
        finally:
            if not done:
                channel.writer.close()
        self._streams.add(channel)
        return channel

    async def watch(
        self, cursors: Mapping[str, int], answer: Answer = lambda report: None
    ) -> AsyncIterator[Report]:
        channel = await self._upgrade("/watch", _Cursors(cursors))
        ear = Ear(channel.reader, wire.SILENCE_S)
        try:
            while True:
                try:
                    report = await _read_report(ear)
                except LOST as error:
                    if ear.is_silent:
                        text = f"the agent said nothing for {ear.limit_s:.0f} s"
                        raise border.Silent(text, ear.limit_s) from None
                    raise border.Unreachable(f"the agent broke off: {reason_of(error)}") from None
                except msgspec.DecodeError as error:
                    raise border.Unreachable(f"the agent does not speak our wire: {error}") from None
                ear.expect(silence_s(report.beat_s))
                ack = answer(report)
                if ack is not None:
                    channel.writer.write(msgspec.json.encode(ack) + b"\n")
                yield report
        finally:
            ear.close()
            self._streams.discard(channel)
            channel.writer.close()

    @contextlib.asynccontextmanager
    async def expecting(self, target: str) -> AsyncIterator[None]:
        asking = asyncio.ensure_future(self._upgrade("/fetch/early", _Target(target)))
        self._early[target] = asking
        try:
            yield
        finally:
            if self._early.get(target) is asking:
                del self._early[target]
            asking.cancel()
            await asyncio.wait({asking})
            if not asking.cancelled() and asking.exception() is None:
                self._hang_up(asking.result())

    async def fetch(self, order: FetchOrder, source: DataSource) -> Fetched:
        from argosy.infra.agent_data import Fetching

        early = self._early.pop(order.target, None)
        if early is not None:
            await asyncio.wait({early})
            if early.exception() is None:
                return await self._talk(
                    early.result(), lambda channel: Fetching(channel, order, source, early=True).run()
                )  # what went wrong, or an older agent: it is said, or not, when it is asked again
        return await self._exchanged(
            "/fetch", lambda channel: Fetching(channel, order, source, early=False).run()
        )

    async def send(self, order: SendOrder, sink: DataSink) -> int:
        from argosy.infra.agent_sending import Sending

        return await self._exchanged("/send", lambda channel: Sending(channel, order, sink).run())

    async def mount(self, order: MountOrder) -> bool:
        answer = await self._post("/mount", order, _MOUNT_S)
        return msgspec.json.decode(answer, type=_Mounted).renewed

    async def lend(self, target: str) -> Duplex:
        return Port(await self._upgrade("/lend", _Lend(target), _LEND_S), self._streams)

    async def settle(
        self, targets: Sequence[str], patience_s: float, *, unmount: bool
    ) -> Mapping[str, Sequence[str]]:
        answer = await self._post("/settle", _Settle(targets, patience_s, unmount), _SETTLE_S)
        return msgspec.json.decode(answer, type=_Settled).left

    async def _exchanged(self, path: str, talk: Callable[[Channel], Awaitable[T]]) -> T:
        return await self._talk(await self._upgrade(path, _Nothing()), talk)

    async def _talk(self, channel: Channel, talk: Callable[[Channel], Awaitable[T]]) -> T:
        try:
            return await talk(channel)
        except LOST as error:
            raise border.Unreachable(f"the agent broke off: {reason_of(error)}") from None
        finally:
            self._hang_up(channel)

    def _hang_up(self, channel: Channel) -> None:
        self._streams.discard(channel)
        channel.writer.close()

    async def shell(self, command: str, rows: int, columns: int, env: Mapping[str, str]) -> Duplex:
        channel = await self._upgrade("/shell", _ShellOrder(command, rows, columns, env))
        return Terminal(channel, self._streams)

    async def forward(self, port: int) -> Duplex:
        channel = await self._upgrade("/forward", _Forward(port))
        return Port(channel, self._streams)

    async def ssh(self, public_key: str) -> Duplex:
        return Port(await self._upgrade("/ssh", _Ssh(public_key)), self._streams)

    async def enter(self, rank_id: str, enter: Enter) -> Duplex:
        channel = await self._upgrade("/enter", _Enter(rank_id, enter))
        return Seat(channel, self._streams) if enter.what == "shell" else Port(channel, self._streams)

    async def copy(self, path: str, name: str, *, read: bool) -> Duplex:
        return Port(await self._upgrade("/copy", _Copy(path, name, read)), self._streams)


# ---- reports


async def _read_report(ear: Ear) -> Report:
    """Raises one of `LOST`, or DecodeError."""
    head_size, _ = wire.FRAME.unpack(await ear.read(wire.FRAME.size))
    head = msgspec.json.decode(await ear.read(head_size), type=_Head)
    logs = [
        LogChunk(rank_id=rank_id, offset=offset, data=await ear.read(size))
        for rank_id, offset, size in head.logs
    ]
    return Report(
        complete=head.complete,
        ranks=head.ranks,
        logs=tuple(logs),
        node=head.node,
        sent=head.sent,
        beat_s=head.beat,
        wall_ms=head.wall,
    )


def _as_error(status: int, answer: bytes) -> border.BorderError:
    try:
        failure = msgspec.json.decode(answer, type=_Failure)
    except msgspec.DecodeError:
        failure = _Failure(text=f"the agent answered {status}")
    if failure.error == "refused":
        return border.RequestRefused(failure.field, failure.text)
    return border.Transient(failure.text)
