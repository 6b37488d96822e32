"""One watcher's view of the node: which news it has not had yet, and how far it has read each log."""

from __future__ import annotations

import asyncio
import json
import time

from argosy.agent import wire
from argosy.agent.rank import RUNNING, Observer, Rank, clock_ms, now_ms, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from argosy.agent.ranks import Ranks

_PIECE_BYTES = 256 << 10  # of one log at a time, so that a loud rank does not silence the others
_NODE_EVERY_S = 10.0
_NODE_PATIENCE_S = 0.3


class Watch(Observer):
    """Composes reports. Laws: the first lists every rank; a rank's end is told with or after the last byte of
    its log, never before; what was not yet taken is kept as marks, so a slow reader costs no memory."""

    def __init__(self, supervisor: Ranks, cursors: dict[str, int]) -> None:
        self._supervisor = supervisor
        self._cursors = cursors
        self._news = dict.fromkeys(supervisor.by_id)  # ids of ranks whose fact is to be told, in order
        self._unread = dict.fromkeys(supervisor.by_id)  # ids of ranks whose log may have more
        self._first = True
        self._node_at_s = 0.0  # when the node's facts were last asked for
        self._beat_s = wire.HEARTBEAT_S
        self._heard = b""  # of a line from the reader that is not complete yet
        self._beat: asyncio.TimerHandle | None = None  # wakes us up when a sign of life is due
        self._wake = asyncio.Event()
        self._wake.set()
        self._gone = False

    def rank_changed(self, rank: Rank) -> None:
        self._news[rank.id] = None
        self._unread[rank.id] = None
        self._wake.set()

    def log_grew(self, rank: Rank) -> None:
        self._unread[rank.id] = None
        self._wake.set()

    def rank_forgotten(self, rank_id: str) -> None:
        self._news.pop(rank_id, None)
        self._unread.pop(rank_id, None)
        self._cursors.pop(rank_id, None)

    def node_changed(self) -> None:
        """Tell the node's facts now, not when it is their turn."""
        self._node_at_s = -_NODE_EVERY_S
        self._wake.set()

    def hear(self, data: bytes) -> None:
        """Take what the reader answers, in lines of JSON. What we do not understand is for a later agent."""
        *lines, self._heard = (self._heard + data).split(b"\n")
        if len(self._heard) > wire.ACK_LIMIT_BYTES:
            self._heard = b""
        for line in lines:
            try:
                ack = json.loads(line)
                beat_s = float(ack.get("beat", wire.HEARTBEAT_S))
                if ack.get("leases"):
                    self._supervisor.leases.renew(set(ack["leases"]), int(ack["sent"]))
            except (ValueError, TypeError, AttributeError, KeyError):
                continue
            beat_s = min(max(beat_s, wire.BEAT_MIN_S), wire.BEAT_MAX_S)
            if beat_s != self._beat_s:
                self._beat_s = beat_s
                self._arm()  # the next report says so

    def hang_up(self) -> None:
        self._gone = True
        self._wake.set()

    async def run(
        self, send: Callable[[list[bytes]], Awaitable[None]], node: Callable[[], Awaitable[dict[str, object]]]
    ) -> None:
        """Send reports until the reader is gone. `send` returns when there is room for more."""
        self._supervisor.observe(self)
        first = asyncio.ensure_future(node())
        asking: asyncio.Future[dict[str, object]] | None = first
        self._node_at_s = time.monotonic()
        try:
            # Drivers can take long to wake up; the ranks are told meanwhile.
            await asyncio.wait({first}, timeout=_NODE_PATIENCE_S)
            if not first.done():
                first.add_done_callback(self._node_answered)
            while not self._gone:
                await self._pause()
                if self._gone:
                    return
                self._wake.clear()
                if asking is None and time.monotonic() - self._node_at_s >= _NODE_EVERY_S:
                    asking = asyncio.ensure_future(node())
                    asking.add_done_callback(self._node_answered)
                    self._node_at_s = time.monotonic()
                facts = None
                if asking is not None and asking.done():
                    facts, asking = asking.result(), None
                await send(self._compose(facts))
        finally:
            self._disarm()
            self._supervisor.observers.discard(self)
            if asking is not None:
                asking.cancel()

    async def _pause(self) -> None:
        """Until there is something to tell, or a sign of life is due."""
        if not self._wake.is_set():
            self._arm()
            await self._wake.wait()
        self._disarm()

    def _arm(self) -> None:
        self._disarm()
        self._beat = asyncio.get_running_loop().call_later(self._beat_s, self._wake.set)

    def _disarm(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    def _node_answered(self, _: object) -> None:
        self._wake.set()

    def _compose(self, node: dict[str, object] | None) -> list[bytes]:
        """The next report, framed. More to tell afterwards leaves `_wake` set."""
        by_id = self._supervisor.by_id
        logs: list[tuple[str, int, int]] = []
        pieces: list[bytes] = []
        room = wire.LOG_BATCH_BYTES
        while room > 0 and self._unread:
            rank_id = next(iter(self._unread))
            del self._unread[rank_id]
            rank = by_id.get(rank_id)
            if rank is None:
                continue
            rank.measure_log()
            cursor = self._cursors.get(rank_id, 0)
            rank.verify_offset(cursor)
            if cursor >= rank.log_bytes:
                continue
            try:
                offset, data = rank.read_log(cursor, min(room, _PIECE_BYTES))
            except OSError as error:
                warn("cannot read the log of %s: %s" % (rank_id, error.strerror))
                self._cursors[rank_id] = rank.log_bytes
                continue
            if data:
                logs.append((rank_id, offset, len(data)))
                pieces.append(data)
                room -= len(data)
            elif rank.ended:  # shorter than it was: there is no more
                offset = rank.log_bytes
            self._cursors[rank_id] = offset + len(data)
            if offset + len(data) < rank.log_bytes:
                self._unread[rank_id] = None  # again, after the others
        facts: list[dict[str, object]] = []
        for rank_id in list(self._news):
            rank = by_id.get(rank_id)
            if rank is None:
                del self._news[rank_id]
                continue
            fact = rank.fact()
            if rank.ended and self._cursors.get(rank_id, 0) < rank.log_bytes:
                if not self._first:
                    continue
                fact = {"id": rank_id, "phase": RUNNING, "log_bytes": rank.log_bytes}
            else:
                del self._news[rank_id]
            facts.append(fact)
        head: dict[str, object] = {"complete": self._first, "ranks": facts, "logs": logs}
        head["sent"], head["wall"], head["beat"] = clock_ms(), now_ms(), self._beat_s
        if node is not None:
            head["node"] = node
        self._first = False
        if self._unread:
            self._wake.set()
        text = json.dumps(head, separators=(",", ":")).encode()
        return [wire.FRAME.pack(len(text), wire.LOG_BATCH_BYTES - room) + text, *pieces]
