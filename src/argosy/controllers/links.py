"""One watch per node: it takes in facts, passes log bytes to the log sink, and wakes whoever depends on them.

Law: a rank's exit becomes a fact only after every byte of its output was given to the log sink. So a job that
is seen as ended has its whole log on the server's disk. A full disk is the exception: then
the log is cut off, and the end is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence

from argosy.controllers.fences import ROWS_AGE_S, Fences
from argosy.controllers.node_clocks import NodeClocks
from argosy.controllers.observed import Facts
from argosy.controllers.view import Rows
from argosy.infra.agent_port import Ack, AgentDirectory, Report
from argosy.infra.border import BorderError, Silent
from argosy.infra.log_sink import LogSink
from argosy.model.errors import ArgosyError
from argosy.model.facts import LogChunk, RankPhase
from argosy.model.ids import Clock
from argosy.model.kinds import task_of
from argosy.model.phases import ClaimPhase, NodePhase
from argosy.model.rows import Attempt, Node, Row
from argosy.store import Store

_log = logging.getLogger(__name__)

FULL_DISK_S = 30.0  # so long what ranks print is left with their agents after the disk was full
BEAT_S = 1.5  # where something runs that would be lost, agents say something so often ...
IDLE_BEAT_S = 5.0  # ... and elsewhere so often
_FIRST_RETRY_S, _MAX_RETRY_S = 0.02, 2.0


class Links:
    """Keeps a watch on every node that should answer."""

    def __init__(
        self,
        *,
        store: Store,
        agents: AgentDirectory,
        logs: LogSink,
        facts: Facts,
        clock: Clock,
        spawn: Callable[..., asyncio.Task[None]],
        wake: Callable[..., None],
        lost: Callable[[Node], None],
    ) -> None:
        """`lost` is told whose link went down."""
        self.fences = Fences(clock)
        self._lost = lost
        self._attempts: dict[str, dict[str, Attempt]] = {}  # by node: live attempts with ranks there
        self.looked_s = float("-inf")  # when it was last known that the rows are as they are
        self._store, self._agents, self._logs = store, agents, logs
        self._facts, self._clock = facts, clock
        self._spawn, self._wake = spawn, wake
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._nodes: dict[str, Node] = {}
        self._full_s: dict[str, float] = {}  # by node: since when the disk has no room for its logs
        self._rows: Rows | None = None
        self._clocks = NodeClocks()

    def follow(self, rows: Rows) -> None:
        """Start and end watches so that they match the rows."""
        self.fences.follow(rows)
        if self._rows is None:
            for attempt in rows.attempts.values():
                self._count(None, attempt)
        else:
            for before, now in rows.news(self._rows):
                self._count(before, now)
        self._rows = rows
        wanted: dict[str, Node] = {}
        for node in rows.nodes.values():
            claim = rows.claims.get(node.claim_id)
            held = claim is not None and claim.phase in (ClaimPhase.HELD, ClaimPhase.RELEASING)
            if held and node.phase not in (NodePhase.STOPPED, NodePhase.GONE):
                wanted[node.id] = node
        for node_id in [each for each in self._tasks if each not in wanted]:
            self._tasks.pop(node_id).cancel()
            self._nodes.pop(node_id, None)
            self._agents.drop(node_id)
            self._facts.drop_node(node_id)
        for node_id, node in wanted.items():
            old = self._nodes.get(node_id)
            self._nodes[node_id] = node
            if node_id not in self._tasks:
                self._tasks[node_id] = self._spawn(self._watch(node_id))
            elif old is not None and (old.address, old.ip) != (node.address, node.ip):
                self._agents.drop(node_id)

    def _count(self, old: Row | None, new: Row | None) -> None:
        """Keep what runs on each node in step with the rows."""
        if isinstance(old, Attempt):
            for place in old.placements:
                mine = self._attempts.get(place.node_id, {})
                mine.pop(old.id, None)
                if not mine:
                    self._attempts.pop(place.node_id, None)
        if isinstance(new, Attempt) and new.is_live:
            for place in new.placements:
                self._attempts.setdefault(place.node_id, {})[new.id] = new

    def _answer(self, node_id: str, report: Report) -> Ack | None:
        """Ask for news more often where something runs, and renew the leases there."""
        if not report.sent:
            return None
        mine = self._attempts.get(node_id, {})
        leases = tuple(attempt.id for attempt in mine.values() if attempt.lease_ms and not attempt.ending_ms)
        beat_s = BEAT_S if mine else IDLE_BEAT_S
        self._facts.note_sent(node_id, report.sent)
        if leases and self._clock.monotonic_s() - self.looked_s > ROWS_AGE_S:
            leases = ()  # who knows what others have decided meanwhile
        if report.beat_s == beat_s and not leases:
            return None
        return Ack(sent=report.sent, beat=beat_s, leases=leases)

    async def _watch(self, node_id: str) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            self._full_s.pop(node_id, None)
            self._clocks.forget(node_id)
            began_s = self._clock.monotonic_s()
            silent_s = 0.0
            try:
                agent = await self._agents.get(self._nodes[node_id])
                facts = await agent.node()
                await self._mask_known(node_id)
                reports = agent.watch(self._cursors(node_id), lambda report: self._answer(node_id, report))
                try:
                    first = True
                    async for report in reports:
                        await self._take(node_id, report)
                        if first:
                            first = False
                            facts = self._clocks.facts(node_id, facts)
                            self._facts.link_up(node_id, facts, self._clock.now_ms())
                            self._wake(node_id)
                finally:
                    await _close(reports)
            except (BorderError, OSError, TimeoutError, ValueError, ArgosyError) as error:
                _log.info("link to %s: %s", node_id, error or type(error).__name__)
                silent_s = error.for_s if isinstance(error, Silent) else 0.0
            if self._facts.link_down(node_id, self._clock.now_ms() - int(silent_s * 1000)):
                self._lost(self._nodes[node_id])
            self._agents.drop(node_id)
            self._wake(node_id)
            if self._clock.monotonic_s() - began_s > 2 * _MAX_RETRY_S:
                retry_s = _FIRST_RETRY_S
            await asyncio.sleep(retry_s)
            retry_s = min(_MAX_RETRY_S, retry_s * 2)

    def _cursors(self, node_id: str) -> dict[str, int]:
        """Where the log of each rank goes on: what is stored is not sent again."""
        ranks = set(self._facts.ranks_on(node_id))
        if self._rows is not None:
            for attempt in self._rows.attempts.values():
                ranks.update(
                    f"{attempt.id}.{place.rank}" for place in attempt.placements if place.node_id == node_id
                )
        return {rank_id: stored for rank_id in ranks if (stored := self._logs.stored(rank_id))}

    async def _mask_known(self, node_id: str) -> None:
        """After a restart: secrets of jobs that run on the node are masked before their log goes on."""
        if self._rows is None:
            return
        for attempt in list(self._rows.attempts.values()):
            mine = [place for place in attempt.placements if place.node_id == node_id]
            job = self._rows.workloads.get(attempt.workload_id)
            task = task_of(job) if mine and job is not None else None
            if job is not None and task is not None and task.secrets:
                secrets = await self._store.load_secrets_of(job, task.secrets)
                for place in mine:
                    self._logs.mask(f"{attempt.id}.{place.rank}", list(secrets.values()))

    async def _take(self, node_id: str, report: Report) -> None:
        report = self._clocks.report(node_id, report, self._clock.now_ms())
        over = [rank for rank in report.ranks if rank.phase in (RankPhase.EXITED, RankPhase.VANISHED)]
        await self._keep_logs(node_id, report.logs, [rank.id for rank in over])
        if report.ranks or report.complete:
            self._facts.set_ranks(node_id, report.ranks, complete=report.complete)
        if report.node is not None and self._facts.set_node(node_id, report.node, self._clock.now_ms()):
            self._wake(node_id)
        if report.ranks:
            self._wake(*{rank.attempt_id for rank in report.ranks})

    async def _keep_logs(self, node_id: str, chunks: Sequence[LogChunk], over: Sequence[str]) -> None:
        """Store what ranks printed.

        On a full disk it is left with the agent, and what happens to the ranks is learnt all the same; after
        a while the link is opened anew, to ask for what is missing.
        """
        full_s = self._full_s.get(node_id)
        now_s = self._clock.monotonic_s()
        if full_s is not None and now_s - full_s > FULL_DISK_S:
            del self._full_s[node_id]
            raise ArgosyError("disk-full", "the disk was full; logs are asked for again")
        if full_s is None:
            try:
                for chunk in chunks:
                    await self._logs.write(chunk)
                for rank_id in over:
                    await self._logs.finish(rank_id)
            except ArgosyError as error:
                if error.code != "disk-full":
                    raise
                _log.error("logs of %s are not kept: %s", node_id, error)
                self._full_s[node_id] = now_s


async def _close(reports: AsyncIterator[Report]) -> None:
    close = getattr(reports, "aclose", None)  # an async generator has it, a plain iterator need not
    if close is not None:
        await close()
