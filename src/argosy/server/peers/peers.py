"""The other servers of this database, as the rest of the server sees them.

Each server takes every request and needs no other for it, but for what only another one has: the connection
of a node, the output that it has stored, a file that was uploaded there, work on its machine. `Peers` fetches
that, and tells the others what has changed. Callers are judged by the server that they have come to: what
passes between servers is never a request of a person.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from argosy.infra.agent_port import Channel
from argosy.infra.border import BorderError, Unreachable
from argosy.model.errors import ArgosyError
from argosy.model.facts import LogChunk
from argosy.model.ids import Clock
from argosy.model.rows import Node
from argosy.server.peers.calls import Calls
from argosy.server.peers.membership import Membership
from argosy.server.peers.words import Admit, AnyQuestion, GetChunks, GetTree, News, Reach, ReadLog, Used
from argosy.storage.blobs import BlobStore
from argosy.storage.logs import LogStore
from argosy.store.servers import Peer

if TYPE_CHECKING:
    from argosy.server.ports import Controllers, Seat
    from argosy.store import Store

_log: Final = logging.getLogger(__name__)
_PIECE_BYTES: Final = 256 << 10
_GATHER_S: Final = 0.005  # rows that change within this time are told together
_TELL_S: Final = 1.0  # so often it is told who uses what ...
_HOLDS_S: Final = 4.0  # ... which holds so long
_SHORT_S: Final = 5.0
_BY_PEER_S: Final = 60.0  # so long a node is reached through the server that reached it last


class Peers:
    """Fetches from other servers, and tells them."""

    def __init__(self, membership: Membership, calls: Calls, clock: Clock) -> None:
        self.membership, self._calls, self._clock = membership, calls, clock
        self._through: dict[str, tuple[str, float]] = {}  # by node: which server reached it, until when
        self._changed: set[str] = set()
        self._telling: set[asyncio.Task[None]] = set()
        self._gathering: asyncio.TimerHandle | None = None

    # -- nodes --------------------------------------------------------------------------------------

    async def reach(self, node: Node, own: Callable[[Node], Awaitable[Channel]]) -> Channel:
        """A stream to the node's agent: by `own` means, or those of another server. Raises Unreachable."""
        known = self._through.get(node.id)
        if known is not None and self._clock.monotonic_s() < known[1]:
            with contextlib.suppress(BorderError):
                return await self._reach_by(
                    node, [each for each in self._calls.others if each.id == known[0]]
                )
            self._through.pop(node.id, None)
        try:
            return await own(node)
        except BorderError as error:
            others = self._calls.others
            if not others:
                raise
            try:
                return await self._reach_by(node, others)
            except BorderError:
                raise error from None

    async def _reach_by(self, node: Node, others: Sequence[Peer]) -> Channel:
        problem: BorderError = Unreachable("no other server can be asked")
        for peer in others:
            try:
                _, channel = await self._calls.ask(peer, Reach(node=node))
            except BorderError as error:
                problem = error
                continue
            self._through[node.id] = (peer.id, self._clock.monotonic_s() + _BY_PEER_S)
            return channel
        raise problem

    async def admit(self, node: str, token: str) -> str | None:
        """The key for a node whose token another server gave out; None: none of them did."""
        for peer in self._calls.others:
            with contextlib.suppress(BorderError, ArgosyError):
                answer, channel = await self._calls.ask(peer, Admit(node=node, token=token), _SHORT_S)
                channel.writer.close()
                if answer.key:
                    return answer.key
        return None

    # -- output -------------------------------------------------------------------------------------

    async def fill_log(self, logs: LogStore, rank_id: str) -> str:
        """Bring what others have stored of a rank's output and this server has not. Why there may be more; ""
        when there is not."""
        for peer in self._calls.others:
            try:
                complete = await self._copy_log(logs, rank_id, peer)
            except (BorderError, OSError, ValueError) as error:
                _log.info("output of %s from `%s`: %s", rank_id, peer.name, error)
                continue
            if complete:
                return ""
        silent = self.membership.silent
        if not silent:
            return ""
        names = ", ".join(f"`{each.peer.name}`" for each in silent)
        since_s = max(each.silent_ms for each in silent) // 1000
        return (
            f"there may be more of this output at the server {names}, which has not answered for {since_s} s:"
            f" start it again, or `argosy server peers --forget {silent[0].peer.name}` if it never comes back"
        )

    async def _copy_log(self, logs: LogStore, rank_id: str, peer: Peer) -> bool:
        """Whether nothing comes after what that server has."""
        offset = logs.stored(rank_id)
        answer, channel = await self._calls.ask(peer, ReadLog(rank_id=rank_id, offset=offset))
        left = answer.size
        try:
            while left:
                data = await channel.reader.read(min(_PIECE_BYTES, left))
                if not data:
                    raise ConnectionResetError("the other server broke off")
                await logs.write(LogChunk(rank_id=rank_id, offset=offset, data=data))
                offset += len(data)
                left -= len(data)
        finally:
            channel.writer.close()
        if answer.complete:
            await logs.finish(rank_id)
        return answer.complete

    # -- uploaded files: `storage.blobs.Elsewhere` --------------------------------------------------

    async def tree(self, digest: str) -> bytes | None:
        for peer in self._calls.others:
            with contextlib.suppress(BorderError, ArgosyError, OSError):
                answer, channel = await self._calls.ask(peer, GetTree(digest=digest))
                try:
                    return await channel.reader.readexactly(answer.size)
                except asyncio.IncompleteReadError:
                    continue
                finally:
                    channel.writer.close()
        return None

    async def bring_chunks(self, digests: Sequence[str], blobs: BlobStore) -> None:
        for peer in self._calls.others:
            with contextlib.suppress(BorderError, ArgosyError, OSError):
                _, channel = await self._calls.ask(peer, GetChunks(digests=tuple(digests)))
                try:
                    await blobs.put_pack(_pieces(channel.reader), limit_bytes=1 << 50)
                finally:
                    channel.writer.close()

    # -- news ---------------------------------------------------------------------------------------

    def tell_rows(self, ids: Iterable[str]) -> None:
        """These rows were written here."""
        self._changed.update(ids)
        if self._changed and self._gathering is None and self.membership.others:
            self._gathering = asyncio.get_running_loop().call_later(_GATHER_S, self._tell_changed)

    def _tell_changed(self) -> None:
        self._gathering = None
        rows, self._changed = tuple(sorted(self._changed)), set()
        self.tell(News(rows=rows))

    def tell(self, news: News) -> None:
        """Nobody waits for it: what does not arrive is found in the database a little later."""
        for peer in self._calls.others:
            task = asyncio.ensure_future(self._tell(peer, news))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell(self, peer: Peer, news: AnyQuestion) -> None:
        with contextlib.suppress(BorderError, ArgosyError):
            _, channel = await self._calls.ask(peer, news, _SHORT_S)
            channel.writer.close()

    async def close(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
        for task in list(self._telling):
            task.cancel()
        await self._calls.close()


class Attendance:
    """Who is at work at other servers, for decisions here; and the other way round."""

    def __init__(
        self, store: Store, controllers: Controllers, seat: Seat, peers: Peers, clock: Clock
    ) -> None:
        self._store, self._controllers, self._seat = store, controllers, seat
        self._peers, self._clock = peers, clock
        self._held: dict[str, tuple[contextlib.ExitStack, float]] = {}  # clusters attended elsewhere
        self._heard: dict[str, int] = {}  # by subject: the use that another server told of
        self._told: dict[str, int] = {}
        self._looking: set[asyncio.Task[object]] = set()

    def hear(self, news: News) -> None:
        """What another server tells."""
        observed, now_ms = self._controllers.observed, self._clock.now_ms()
        for used in news.used:
            self._heard[used.subject] = now_ms
            observed.set_used(used.subject, now_ms, used.by)
            self._controllers.wake(used.subject)
        until_s = self._clock.monotonic_s() + _HOLDS_S
        for cluster_id in news.attended:
            stack = self._held[cluster_id][0] if cluster_id in self._held else contextlib.ExitStack()
            if cluster_id not in self._held:
                stack.enter_context(self._seat.attended(cluster_id))
            self._held[cluster_id] = (stack, until_s)
        if news.rows:
            task = asyncio.ensure_future(self._look(news.rows))
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)

    async def _look(self, rows: Sequence[str]) -> None:
        with contextlib.suppress(ArgosyError):
            await self._store.snapshot()
        self._controllers.wake(*rows)

    async def keep(self) -> None:
        """Tell and forget, until cancelled."""
        while True:
            await asyncio.sleep(_TELL_S)
            now_s = self._clock.monotonic_s()
            for cluster_id in [each for each, (_, until_s) in self._held.items() if until_s < now_s]:
                self._held.pop(cluster_id)[0].close()
            news = self._news()
            if news.used or news.attended:
                self._peers.tell(news)

    def _news(self) -> News:
        uses = self._seat.uses()
        used = [
            Used(subject, by)
            for subject, (at_ms, by) in uses.items()
            if at_ms > self._told.get(subject, 0) and at_ms != self._heard.get(subject)
        ]
        self._told = {subject: at_ms for subject, (at_ms, _) in uses.items()}
        self._heard = {subject: at_ms for subject, at_ms in self._heard.items() if subject in uses}
        here: Counter[str] = Counter(self._seat.attending())
        here.subtract(dict.fromkeys(self._held, 1))
        return News(used=tuple(used), attended=tuple(sorted(+here)))


async def _pieces(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while data := await reader.read(_PIECE_BYTES):
        yield data
