"""A job's output as one stream: across ranks, across attempts, from a cursor on, until the job ends.

Bytes pass through in pieces of up to 256 KiB; nothing here looks at lines, except for plain text with
prefixes. The stream is pulled by the reader: a slow one costs a file offset, not memory.

A cursor is `<attempt>:<offset of rank 0>,<offset of rank 1>,...`, with `~` for a rank that is not streamed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final, NamedTuple, Protocol

from argosy.api.jobs import LogFrame
from argosy.controllers.pool.words import COMING, STARTS_NOW
from argosy.model.access import OWNER, Caller
from argosy.model.errors import ArgosyError
from argosy.model.facts import RankPhase
from argosy.model.kinds import kind_of, label
from argosy.model.kinds.job import job_state, job_task
from argosy.model.phases import AttemptPhase, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Attempt, Workload
from argosy.model.units import many
from argosy.server.exchange import encode
from argosy.server.guarding import sees
from argosy.server.ports import Controllers
from argosy.server.views import exit_code, job_status, why_of_job
from argosy.storage.logs import LogStore
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store

PIECE_BYTES: Final = 256 << 10
HEARTBEAT_S: Final = 15.0  # an empty frame, so that a reader can tell silence from a dead connection
_LOOK_S: Final = 0.02  # how often followers look whether something was committed: one for all of them
_PATIENCE_S: Final = 0.5  # what takes longer than this is told
_EXPLAIN_S: Final = 1.0  # at most so often, why a job waits is looked at again
_LATE_LOG_S: Final = 5.0  # how long an ended attempt's last output is waited for


class Wish(NamedTuple):
    """What a reader wants. `attempt` 0: all of them; with `tail` the last one."""

    follow: bool = False
    tail: int | None = None
    rank: int | None = None
    cursor: str = ""
    attempt: int = 0


class Frame(NamedTuple):
    header: LogFrame
    data: bytes = b""

    def render(self) -> bytes:
        return encode(self.header) + b"\n" + self.data


class Commits:
    """Tells followers that something was committed: one look every 20 ms for all of them, none when nobody
    waits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: set[asyncio.Event] = set()
        self._looker: asyncio.Task[None] | None = None

    def join(self, news: asyncio.Event) -> None:
        """`news` is set after every commit, until `leave`."""
        self._waiting.add(news)
        if self._looker is None or self._looker.done():
            self._looker = asyncio.create_task(self._look())

    def leave(self, news: asyncio.Event) -> None:
        self._waiting.discard(news)

    def wake_all(self) -> None:
        for news in self._waiting:
            news.set()

    async def _look(self) -> None:
        seen = self._store.seq
        while self._waiting:
            await asyncio.sleep(_LOOK_S)
            if self._store.seq != seen:
                seen = self._store.seq
                self.wake_all()


class OtherLogs(Protocol):
    """Servers of the same database, which may have stored what this one has not."""

    async def fill_log(self, logs: LogStore, rank_id: str) -> str:
        """Store here what others have of a rank's output. Why there may be more; "" when there is not."""


class LogStreams:
    """Makes streams. `stopping` is set when the server goes down: streams then end without an `end` frame,
    and their readers come back with their cursor."""

    def __init__(
        self, store: Store, logs: LogStore, controllers: Controllers, stopping: asyncio.Event
    ) -> None:
        self._store, self._logs = store, logs
        self._controllers, self.stopping = controllers, stopping
        self.elsewhere: OtherLogs | None = None
        self.commits = Commits(store)

    async def job(self, name: str, caller: Caller) -> Workload:
        """By id, or by number among managed jobs. Raises `not-found`."""
        if name.isascii() and name.isdigit():
            row: object = await self._store.find_job(None, int(name))
        else:
            row = await self._store.load(name)
        if not isinstance(row, Workload) or not kind_of(row).runs or not sees(caller, row):
            raise ArgosyError("not-found", f"there is no job `{name}`", hint="`argosy queue` lists jobs")
        return row

    async def last_lines(self, attempt_id: str, count: int) -> tuple[str, ...]:
        """What the first rank of an attempt printed last."""
        rank_id = f"{attempt_id}.0"
        offset = await self._logs.tail_offset(rank_id, count)
        data = await self._logs.read(rank_id, offset, PIECE_BYTES)
        return tuple(data.decode("utf-8", "replace").splitlines()[-count:])

    async def open(self, job: Workload, wish: Wish) -> AsyncGenerator[Frame, None]:
        """Frames until the job ends (`follow`), or of what is there now. Raises `not-found`, `usage` before
        any."""
        made = job_state(job).attempts
        number, offsets = _parse_cursor(wish.cursor) if wish.cursor else (wish.attempt, {})
        if not number:
            number = (made or 1) if wish.tail is not None else 1
        if wish.attempt > made:
            raise ArgosyError(
                "not-found",
                f"job {label(job)} has made {many(made, 'attempt')}",
                hint="ask for an earlier one",
            )
        nodes = job_task(job).num_nodes
        if wish.rank is not None and not 0 <= wish.rank < nodes:
            raise ArgosyError("usage", f"job {label(job)} has ranks 0 to {nodes - 1}")
        return self._frames(job, number, offsets, wish)

    async def _frames(
        self, job: Workload, number: int, offsets: dict[int, int], wish: Wish
    ) -> AsyncGenerator[Frame, None]:
        news = asyncio.Event()
        self.commits.join(news)
        try:
            async for frame in self._attempts(job, number, offsets, wish, news):
                yield frame
        finally:
            self.commits.leave(news)

    async def _attempts(
        self, job: Workload, number: int, offsets: dict[int, int], wish: Wish, news: asyncio.Event
    ) -> AsyncIterator[Frame]:
        said, explained_s = "", -1e9
        time_s = asyncio.get_running_loop().time
        first = number
        while not self.stopping.is_set():
            news.clear()
            job = await self.job(job.id, OWNER)
            attempt = await self._attempt(job, number)
            if attempt is not None:
                if number > first and not wish.attempt:
                    why = _why_again(await self._attempt(job, number - 1))
                    yield Frame(
                        LogFrame(attempt=number, note=f"attempt {number} begins{why}", cursor=f"{number}:")
                    )
                async for frame in self._ranks(job, attempt, offsets, wish, news):
                    yield frame
                job = await self.job(job.id, OWNER)
                another = job_state(job).attempts > number or (wish.follow and job.is_live)
                if self.stopping.is_set() or wish.attempt or not another:
                    break
                number, offsets = number + 1, {}
                continue
            if not job.is_live or not wish.follow:
                break
            # Explaining looks at the whole queue: now and then, not for each of a thousand commits.
            patience_s = explained_s + _EXPLAIN_S - time_s()
            if patience_s <= 0:
                explained_s, patience_s = time_s(), HEARTBEAT_S
                text = await self._waits(job)
                if text and text != said:
                    said = text
                    yield Frame(LogFrame(attempt=number, note=text, cursor=_render_cursor(number, offsets)))
            if not await _wait(news, patience_s) and patience_s == HEARTBEAT_S:
                yield Frame(LogFrame(attempt=number, cursor=_render_cursor(number, offsets)))
        if not self.stopping.is_set():
            yield await self._end(job, number, offsets)

    async def _ranks(
        self, job: Workload, attempt: Attempt, offsets: dict[int, int], wish: Wish, news: asyncio.Event
    ) -> AsyncIterator[Frame]:
        """One attempt: what is stored, then (`follow`) what comes, until it has ended and all of it was
        given."""
        ranks = [wish.rank] if wish.rank is not None else list(range(len(attempt.placements)))
        ids = {rank: f"{attempt.id}.{rank}" for rank in ranks}
        why = "" if attempt.is_live else await self._fill(ids)
        if not offsets and wish.tail is not None:
            for rank in ranks:
                offsets[rank] = await self._logs.tail_offset(ids[rank], wish.tail)
        over, ended_s, said = False, 0.0, ""
        time_s = asyncio.get_running_loop().time
        began_s = time_s()
        with self._logs.watch(list(ids.values()), news):
            while not self.stopping.is_set():
                news.clear()
                if not over:
                    # Before the reading: what an ended attempt printed is there, or known to be on its way.
                    now = await self._attempt(job, attempt.number)
                    over = now is None or now.phase is AttemptPhase.ENDED
                    starts = now is not None and now.phase in (AttemptPhase.PLACED, AttemptPhase.PREPARING)
                    ended_s = time_s()
                    if over and attempt.is_live:
                        why = await self._fill(ids)
                progress = False
                for rank in ranks:
                    offset = offsets.get(rank, 0)
                    data = await self._logs.read(ids[rank], offset, PIECE_BYTES)
                    if data:
                        progress = True
                        offsets[rank] = offset + len(data)
                        cursor = _render_cursor(attempt.number, offsets)
                        header = LogFrame(rank=rank, size=len(data), attempt=attempt.number, cursor=cursor)
                        yield Frame(header, data)
                if progress:
                    continue
                if not wish.follow and not over:
                    return
                if over and (self._is_complete(ids, offsets) or time_s() - ended_s > _LATE_LOG_S):
                    if why:
                        cursor = _render_cursor(attempt.number, offsets)
                        yield Frame(LogFrame(attempt=attempt.number, note=why, cursor=cursor))
                    return
                patience_s = 0.1 if over else (_PATIENCE_S if starts else HEARTBEAT_S)
                if await _wait(news, patience_s) or over:
                    continue
                text = self._preparing(job, ids) if starts and time_s() - began_s >= _PATIENCE_S else ""
                if patience_s == HEARTBEAT_S or text not in ("", said):
                    said = text
                    cursor = _render_cursor(attempt.number, offsets)
                    yield Frame(LogFrame(attempt=attempt.number, note=text, cursor=cursor))

    async def _fill(self, ids: dict[int, str]) -> str:
        """Bring what other servers have of an attempt that has ended. Why there may be more; "" when there is
        not."""
        whys = []
        for rank_id in ids.values():
            if self.elsewhere is not None and not self._logs.is_finished(rank_id):
                whys.append(await self.elsewhere.fill_log(self._logs, rank_id))
        return next(filter(None, whys), "")

    def _preparing(self, job: Workload, ids: dict[int, str]) -> str:
        """What happens between being placed and running; "" when it is not known."""
        facts = [self._controllers.observed.rank(rank_id) for rank_id in ids.values()]
        if any(
            one is not None and one.phase is RankPhase.PREPARING and one.stage == "setup" for one in facts
        ):
            return "setup runs"
        task = job_task(job)
        has_files = task is not None and (task.workdir_tree or any(mount.tree for mount in task.file_mounts))
        if task is not None and task.storage_mounts and None in facts:
            return "data comes to the nodes: `argosy events` says how far it is"
        return "files are sent to the nodes" if has_files and None in facts else ""

    def _is_complete(self, ids: dict[int, str], offsets: dict[int, int]) -> bool:
        """Whether nothing more is known to come. Nothing is known of ranks whose node is gone."""
        observed = self._controllers.observed
        for rank, rank_id in ids.items():
            if self._logs.is_finished(rank_id):
                continue
            fact = observed.rank(rank_id)
            if fact is not None and fact.log_bytes > offsets.get(rank, 0):
                return False
        return True

    async def _attempt(self, job: Workload, number: int) -> Attempt | None:
        live = (await self._store.snapshot()).attempt_of(job.id)
        if live is not None and live.number == number:
            return live
        if number > job_state(job).attempts:
            return None
        return next((one for one in await self._store.load_attempts(job.id) if one.number == number), None)

    async def _waits(self, job: Workload) -> str:
        rows = await self._store.snapshot()
        if job.phase is WorkloadPhase.RECOVERING:
            why = why_of_job(job, await self._cluster_name(job))
            waits = self._pending(rows, job) if job.reason is Reason.EVICTED else ""
            return f"recovers: {why}" + (f"; {waits}" if waits else "") if why else "recovers"
        if job.phase is WorkloadPhase.QUEUED:
            text = self._pending(rows, job) or job.detail
            if text in (STARTS_NOW, COMING):
                return ""
            return text or ("waits for nodes" if job.host_id is None else "")
        return ""

    async def _cluster_name(self, job: Workload) -> str:
        cluster = await self._store.load(job.host_id) if job.host_id else None
        return cluster.name if isinstance(cluster, Workload) else ""

    def _pending(self, rows: Snapshot, job: Workload) -> str:
        found = self._controllers.picture.pending(rows, job, self._store.clock.now_ms())
        return found.text if found is not None else ""

    async def _end(self, job: Workload, number: int, offsets: dict[int, int]) -> Frame:
        attempts = await self._store.load_attempts(job.id)
        last = attempts[-1] if attempts else None
        good = job.outcome is Outcome.SUCCEEDED
        why = "" if good else why_of_job(job, await self._cluster_name(job))
        return Frame(
            LogFrame(
                end=True,
                attempt=number,
                cursor=_render_cursor(number, offsets),
                status=job_status(job),
                exit_code=exit_code(job, last),
                detail=why,
            )
        )


def _why_again(before: Attempt | None) -> str:
    if before is None or before.reason is None:
        return ""
    text = before.detail or Reason(before.reason).value.replace("-", " ")
    return f"; attempt {before.number} ended: {text}"


def _parse_cursor(text: str) -> tuple[int, dict[int, int]]:
    attempt, _, offsets = text.partition(":")
    try:
        found = {rank: int(one) for rank, one in enumerate(offsets.split(",")) if one not in ("", "~")}
        number = int(attempt)
    except ValueError:
        number, found = 0, {}
    if number < 1 or any(offset < 0 for offset in found.values()) or len(text) > 1 << 16:
        raise ArgosyError("usage", "the cursor is not one that this server gave", hint="leave it out")
    return number, found


def _render_cursor(attempt: int, offsets: dict[int, int]) -> str:
    """
    >>> _render_cursor(2, {0: 10, 2: 7})
    '2:10,~,7'
    """
    highest = max(offsets, default=-1)
    return f"{attempt}:" + ",".join(str(offsets.get(rank, "~")) for rank in range(highest + 1))


async def _wait(news: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await news.wait()
        return True
    except TimeoutError:
        return False


async def render_text(frames: AsyncIterator[Frame], *, with_ranks: bool) -> AsyncGenerator[bytes, None]:
    """Frames as plain text; with more ranks than one, `(rank N) ` before each line, and only whole lines."""
    unfinished: dict[int, bytes] = {}
    async for frame in frames:
        if not frame.data:
            continue
        if not with_ranks:
            yield frame.data
            continue
        rank = frame.header.rank
        lines, newline, rest = (unfinished.pop(rank, b"") + frame.data).rpartition(b"\n")
        if len(rest) > PIECE_BYTES:  # a line without end is not kept
            lines, newline, rest = lines + newline + rest, b"\n", b""
        if rest:
            unfinished[rank] = rest
        if newline:
            prefix = f"(rank {rank}) ".encode()
            yield prefix + lines.replace(b"\n", b"\n" + prefix) + b"\n"
    for rank, rest in sorted(unfinished.items()):
        yield f"(rank {rank}) ".encode() + rest + b"\n"
