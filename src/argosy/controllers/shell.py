"""The one shell: takes a view, asks the pure decisions, commits their rows, then performs their effects.

Level-triggered: a wake-up carries no data, only which rows to look at first; a full pass over everything runs
anyway. What a decision says depends on rows and facts alone, so a crash at any point, a lost reply or a
second server makes the next pass say the same thing again, and effects are keyed by rows that exist.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence

from argosy.controllers.claims.decide import decide_claim, decide_listing
from argosy.controllers.effects import Effects, keep_up
from argosy.controllers.kinds import decide_workload, in_order
from argosy.controllers.links import Links
from argosy.controllers.looks import Looks
from argosy.controllers.nodes.decide import decide_ranks
from argosy.controllers.observed import Facts
from argosy.controllers.past import Past
from argosy.controllers.pool.caches import PoolCaches
from argosy.controllers.pool.decide import POOL, decide_owned
from argosy.controllers.pool.pictures import Picture
from argosy.controllers.seat import Seat
from argosy.controllers.serving import Serving
from argosy.controllers.telling import Channels, events_of
from argosy.controllers.view import Action, Expect, Policy, Prices, Put, View, known_of
from argosy.infra.agent_port import AgentDirectory
from argosy.infra.buckets import OpensBuckets
from argosy.infra.gateway_port import GatewayPort
from argosy.infra.log_sink import LogSink
from argosy.infra.provider import Providers
from argosy.infra.quotes import Quotes
from argosy.infra.replica_port import ReplicaPort
from argosy.infra.tree_source import TaskFiles
from argosy.model.errors import ArgosyError
from argosy.model.facts import ClaimFact
from argosy.model.ids import Clock, Ids
from argosy.model.kinds import kind_of
from argosy.model.offer import Offer
from argosy.model.phases import ClaimPhase, Desired, WorkloadPhase
from argosy.model.rows import Attempt, Claim, Node, Row, Workload
from argosy.model.tenancy import TENANCY_ID
from argosy.planning.availability import Memory
from argosy.store import Conflict, IllegalMove, Snapshot, Store

_log = logging.getLogger(__name__)

SWEEP_S = 5.0  # a full pass at least so often
_TICK_S = 0.001  # less than this is due
QUOTE_S = 60.0
FIRST_QUOTES_S = 30.0  # so long after the start nothing fails, or goes elsewhere, for want of an answer
PICTURE_WAIT_S = 0.5  # a request waits at most so long for a picture that knows what it shows


class Shell:
    """Runs all controllers of one server: `await Shell(...).run()`."""

    def __init__(
        self,
        *,
        store: Store,
        providers: Providers,
        agents: AgentDirectory,
        logs: LogSink,
        files: TaskFiles | None = None,
        stores: Callable[[], OpensBuckets] | None = None,
        clock: Clock,
        ids: Ids,
        policy: Policy | None = None,
        prices: Prices | None = None,
        quotes: Quotes | None = None,
        is_ours: Callable[[], bool] = lambda: True,
        channels: Channels | None = None,
        replicas: ReplicaPort | None = None,
        gateway: GatewayPort | None = None,
    ) -> None:
        """`stores`: object stores by URL, as the settings say now. `prices`: what the catalog knows.
        `quotes`: the server's cache of what providers offer (None: one of its own); claims are charged at
        what decisions saw in it. `is_ours`: whether this server's state is still its own; else nothing is
        decided. `channels`: who is told of events. `replicas` and `gateway`: of services."""
        self._store, self._providers, self._clock, self._ids = store, providers, clock, ids
        self._policy = policy or Policy()
        self.observed = Facts()
        self._quotes = quotes or Quotes(providers, clock)
        self._quotes.changed = self.wake
        self._is_ours, self._channels = is_ours, channels
        self._began_s = clock.monotonic_s()
        self._swept_s = self._began_s - SWEEP_S  # when the last full pass began
        self._pools, self._past, self._prices = PoolCaches(), Past(), prices
        self._dirty: set[str] = set()
        self._all_dirty = True
        self._event = asyncio.Event()
        self._timers: list[tuple[int, str]] = []  # a heap; only an entry that `_due_ms` agrees with counts
        self._due_ms: dict[str, int] = {}  # when to look at a subject next: one time each
        self._rows: Snapshot | None = None
        self._picture: Picture | None = None
        self._foreseen_s = float("-inf")
        self._published = asyncio.Event()  # of the next picture
        self._group: asyncio.TaskGroup | None = None
        self._effects = Effects(
            store=store, providers=providers, agents=agents, logs=logs, files=files, stores=stores,
            facts=self.observed, clock=clock, policy=self._policy, spawn=self._spawn,
            wake=self.wake, wake_at=self._wake_at,
        )  # fmt: skip
        self.mounts = self._effects.mounts
        self._looks = Looks(self._listed, lambda: self.seat.decides())
        self.seat = Seat(self.observed, self.wake, self._looks.look)
        self.attended = self.seat.attended
        self._serving = Serving(
            store=store, replicas=replicas, gateway=gateway, facts=self.observed, clock=clock,
            spawn=self._spawn, wake=self.wake,
        )  # fmt: skip
        self._links = Links(
            store=store, agents=agents, logs=logs, facts=self.observed, clock=clock, spawn=self._spawn,
            wake=self.wake, lost=self._looks.lost,
        )  # fmt: skip

    # -- what others call ---------------------------------------------------------------------------

    def wake(self, *ids: str) -> None:
        """Decide about these rows soon; about everything when none is named."""
        if ids:
            self._dirty.update(ids)
        else:
            self._all_dirty = True
        self._event.set()

    def offers(self) -> Sequence[Offer]:
        """What the providers quoted last: the same object until an offer changes."""
        return self._quotes.offers()

    def view(self, rows: Snapshot) -> View:
        """What a decision would see now: also for previews and explanations."""
        known = known_of(self._providers)
        return View(
            now_ms=self._clock.now_ms(),
            rows=rows,
            observed=self.observed,
            offers=self.offers(),
            abilities=known.abilities,
            shared_dirs=known.shared_dirs,
            returning=known.returning,
            copies=self._effects.checkpoints.are_made,
            fence_ms=self._links.fences.left_ms,
            policy=self._policy,
            tag=self._store.id,
            silent=self._silent(),
            pools=self._pools,
            history=self._past.history(self._clock.now_ms()),
            memory=self._past.memory,
            atlas=self._prices.atlas if self._prices is not None else None,
            priced=self._prices.priced() if self._prices is not None else None,
        )

    def _silent(self) -> frozenset[str]:
        """Providers that are still asked for the first time: what has no place may have one in a moment."""
        is_early = self._clock.monotonic_s() - self._began_s <= FIRST_QUOTES_S
        return self._quotes.unknown() if is_early else frozenset()

    @property
    def picture(self) -> Picture:
        """What the last pass left of all pools: requests read nothing else."""
        if self._picture is None:
            self._picture = Picture(self.view(Snapshot.of(())))
        return self._picture

    async def pictured(self, seq: int) -> Picture:
        """The picture of a pass that began after commit `seq`; after `PICTURE_WAIT_S` whatever there is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PICTURE_WAIT_S):
                while self.picture.seq < seq:
                    await self._published.wait()
        return self.picture

    def _publish(self, view: View, seq: int) -> None:
        """To be called right after a decision about pools, before anything is awaited. `view`: what was
        decided on. `seq`: what the last whole pass has seen of the rows at its beginning."""
        self._picture = Picture(view, seq)
        self._published.set()
        self._published = asyncio.Event()

    def refusals(self) -> Memory:
        """Where capacity was not there when it was asked for, lately."""
        return self._past.memory

    async def refresh(self) -> None:
        """Ask every provider now: quotes, and what it has of ours."""
        for name, provider in self._providers.all().items():
            await self._quotes.ask(name)
            await self._looks.observe(provider)
        self.wake()

    async def run(self) -> None:
        """Until cancelled, or until the state is another server's. Ranks and nodes go on without us."""
        try:
            await self._run()
        except* Replaced:
            _log.critical("the state folder is gone or belongs to another server: this one decides no more")

    def _check_ours(self) -> None:
        if not self._is_ours():
            raise Replaced

    async def _run(self) -> None:
        while True:
            try:
                await self._recall()
                break
            except ArgosyError as error:
                if error.code != "store-busy":
                    raise
                _log.error("cannot read: %s", error)
                await asyncio.sleep(1.0)
        async with asyncio.TaskGroup() as group:
            self._group = group
            for name, provider in self._providers.all().items():
                group.create_task(self._quote_loop(name))
                group.create_task(self._looks.keep_looking(provider))
            group.create_task(self._decide_loop())
            group.create_task(keep_up(self._effects, lambda: self._rows if self.seat.decides() else None))
            _log.info("%s all that is there", "decides for" if self.seat.decides() else "follows")

    async def _recall(self) -> None:
        """What was decided before this server began."""
        await self._past.load(self._store, self._clock.now_ms())
        self._pools.recall(await self._past.uses(self._store, self._clock.now_ms()))
        rows = await self._store.snapshot()
        for owner_id in sorted({claim.workload_id for claim in rows.claims.values()} - rows.workloads.keys()):
            owner = await self._store.load(owner_id)
            if isinstance(owner, Workload):
                self._pools.remember(owner)
        self._pools.follow(rows)  # who ends before the first cycle is remembered, too

    # -- loops --------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        assert self._group is not None, "Shell.run is not running"
        return self._group.create_task(self._guard(work))

    async def _guard(self, work: Coroutine[object, object, None]) -> None:
        """A bug in one effect must not end the server. Broad by intent."""
        try:
            await work
        except Exception:
            _log.exception("an effect failed in an unforeseen way")

    async def _decide_loop(self) -> None:
        while True:
            await self._sleep_until_due()
            dirty, everything = self._dirty, self._all_dirty
            self._dirty, self._all_dirty = set(), False
            self._event.clear()
            try:
                await self._pass(dirty, everything=everything)
            except Replaced:
                raise
            except (ArgosyError, OSError) as error:  # the store is busy, or its disk is full: try again
                _log.error("cannot write: %s", error)
                await asyncio.sleep(1.0)
                self.wake()
            except Exception:  # broad by intent: a bug in a decision must not stop all others for ever
                _log.exception("a pass failed in an unforeseen way")
                await asyncio.sleep(1.0)

    def _foresee(self) -> None:
        """When nothing is to be decided: when do those start who are first in line?"""
        now_s = self._clock.monotonic_s()
        if not self._event.is_set() and (now_s - self._foreseen_s) * 1000 >= self._policy.foresee_every_ms:
            self._foreseen_s = now_s
            self._pools.foresee()

    async def _sleep_until_due(self) -> None:
        self._foresee()
        wait_s = max(0.0, self._swept_s + SWEEP_S - self._clock.monotonic_s())
        if self._timers:
            wait_s = min(wait_s, max(0.0, (self._timers[0][0] - self._clock.now_ms()) / 1000))
        if not self._event.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._event.wait()
        if self._clock.monotonic_s() - self._swept_s >= SWEEP_S - _TICK_S:
            self._all_dirty = True  # also while timers and wake-ups come more often than that
        now_ms = self._clock.now_ms()
        while self._timers and self._timers[0][0] <= now_ms:
            at_ms, subject = heapq.heappop(self._timers)
            if self._due_ms.get(subject) == at_ms:
                del self._due_ms[subject]
                self._dirty.add(subject)

    def _wake_at(self, subject: str, at_ms: int) -> None:
        """One time for each subject, the earliest: the pass that it wakes says when to come next. Were every
        wish kept, each of them would wake a pass that adds two."""
        known_ms = self._due_ms.get(subject)
        if known_ms is not None and known_ms <= at_ms:
            return
        self._due_ms[subject] = at_ms
        heapq.heappush(self._timers, (at_ms, subject))

    async def _quote_loop(self, name: str) -> None:
        while True:
            await self._quotes.ask(name)
            self.wake()
            await asyncio.sleep(QUOTE_S)

    async def _listed(self, provider: str, listed: Sequence[ClaimFact]) -> None:
        """A provider has told what it has of ours."""
        rows = await self._store.snapshot()  # of after the list
        self._check_ours()
        if not self.seat.decides():
            return
        self._effects.perform(decide_listing(self.view(rows), provider, listed))

    # -- one pass -----------------------------------------------------------------------------------

    async def _pass(self, dirty: set[str], *, everything: bool) -> None:
        self._check_ours()
        rows = await self._follow()
        everything = everything or TENANCY_ID in dirty  # who may use what counts for everybody
        if everything:
            self._swept_s = self._clock.monotonic_s()
        seq = rows.seq
        if not self.seat.decides():
            decide_owned(view := self.view(rows), self._ids.new)  # what requests read: why something waits
            self._publish(view, seq)
            return
        claims, wanted = self._expand(rows, dirty, everything=everything)
        if claims:
            view = self.view(rows)
            await self._carry_out([decide_claim(view, claim, self._ids.new) for claim in claims])
        await self._decide(wanted, runs=True)
        if everything or claims or wanted or POOL in dirty:
            rows = await self._follow()
            view = self.view(rows)
            decided = decide_owned(view, self._ids.new)
            self._publish(view, self.picture.seq)
            await self._carry_out([decided])
        wanted |= self._dirty  # e.g. the hosts and parents of jobs that have just ended
        await self._decide(wanted, runs=False)
        rows = await self._follow()
        view = self.view(rows)
        self._publish(view, seq)
        self._effects.perform(
            [a for node in rows.nodes.values() for a in decide_ranks(view, node, everything=everything)]
        )

    async def _decide(self, ids: set[str], *, runs: bool) -> None:
        """Decide about these workloads: first those that run, whose ends make room, then hosts and
        parents."""
        rows = await self._follow()
        found = [row for id in ids if (row := rows.workloads.get(id)) is not None]
        wanted = in_order(row for row in found if kind_of(row).runs is runs)
        if wanted:
            view = self.view(rows)
            decided = [decide_workload(view, row, self._ids.new) for row in wanted]
            if not runs:
                self._publish(view, self.picture.seq)
            await self._carry_out(decided)

    async def _follow(self) -> Snapshot:
        rows = await self._store.snapshot()
        self._links.looked_s = self._clock.monotonic_s()
        if rows is not self._rows:
            self._past.follow(rows, self._rows, self._clock.now_ms())
            self._rows = rows
            self._effects.nodes = dict(rows.nodes)
            self._links.follow(rows)
            self._serving.follow(rows)
        return rows

    def _expand(self, rows: Snapshot, dirty: set[str], *, everything: bool) -> tuple[list[Claim], set[str]]:
        """Which claims and workloads to decide about."""
        if everything:
            return list(rows.claims.values()), set(rows.workloads)
        claims: dict[str, Claim] = {}
        wanted: set[str] = set()
        for each in sorted(dirty):  # the same rows and facts give the same pass
            row = rows.row(each)
            match row:
                case Workload():
                    wanted.update(_family(rows, row))
                    claims.update((claim.id, claim) for claim in rows.claims_of(each))
                case Attempt():
                    wanted.update((row.workload_id, *_tending(rows, row)))
                case Claim():
                    claims[each] = row
                    wanted.update((row.workload_id, *row.guests))
                case Node():
                    wanted.add(row.workload_id)
                    if (claim := rows.claims.get(row.claim_id)) is not None:
                        claims[claim.id] = claim
                        wanted.update(claim.guests)
                    for job in rows.jobs_of(row.workload_id):
                        if job.phase is not WorkloadPhase.QUEUED:
                            wanted.add(job.id)
        return list(claims.values()), wanted

    async def _carry_out(self, decisions: Iterable[list[Action]]) -> None:
        """Commit all decisions at once; those that touch the same row wait for the next pass. Then their
        effects."""
        batch: list[list[Action]] = []
        touched: set[str] = set()
        for actions in filter(None, decisions):
            ids = [action.row.id for action in actions if isinstance(action, Put)]
            if len(set(ids)) < len(ids):
                twice = sorted({each for each in ids if ids.count(each) > 1})
                raise AssertionError(f"a decision puts one row twice: {twice}")
            if touched.intersection(ids):
                self._dirty.update(ids)
                self._event.set()
                continue
            touched.update(ids)
            batch.append(actions)
        if not batch:
            return
        try:
            await self._commit([action for actions in batch for action in actions])
        except (Conflict, IllegalMove):
            for actions in batch:  # somebody wrote meanwhile: what still holds is written one by one
                try:
                    await self._commit(actions)
                except Conflict as conflict:
                    _log.debug("another writer was first: %s", conflict)
                    self.wake()
                    continue
                except IllegalMove as error:
                    _log.error("a decision was refused: %s", error)
                    continue
                self._effects.perform(actions)
            return
        self._effects.perform([action for actions in batch for action in actions])

    async def _commit(self, actions: Sequence[Action]) -> None:
        puts = [action.row for action in actions if isinstance(action, Put)]
        events = events_of(actions, self._rows, self._channels)
        expect = {action.id: action.rev for action in actions if isinstance(action, Expect)}
        if puts or events:
            expect |= self.seat.fence()
            self._check_ours()
            self._wake_related(await self._store.commit(puts, events=events, expect=expect))
            if self._channels is not None and any(each.tell for each in events):
                self._channels.wake()

    def _wake_related(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._dirty.add(row.id)
            match row:
                case Workload():
                    self._dirty.update(_family(self._rows, row))
                    if not row.is_live:
                        self._past.ended([row])
                case Attempt():
                    self._dirty.add(row.workload_id)
                    if not row.is_live:
                        self.observed.clear_failure(row.id)
                case Claim():
                    self._dirty.add(row.workload_id)
                    if row.phase in (ClaimPhase.GONE, ClaimPhase.STOPPED):
                        self._all_dirty = True  # room for whoever waits
                        if row.phase is ClaimPhase.GONE:
                            self.observed.drop_claim(row.id)
                case Node():
                    self._dirty.update((row.claim_id, row.workload_id))
            self._event.set()


class Replaced(Exception):
    """Another server has taken over this server's state: it decides nothing any more."""


def _tending(rows: Snapshot, attempt: Attempt) -> list[str]:
    """The parent that sees each change of what its children run."""
    job = rows.workloads.get(attempt.workload_id)
    parent = rows.workloads.get(job.parent_id) if job is not None and job.parent_id else None
    return [parent.id] if parent is not None and kind_of(parent).tends else []


def _family(rows: Snapshot | None, row: Workload) -> set[str]:
    """Who is to look at a change of this workload: itself, its host, its parent; its children when it
    ends."""
    found = {each for each in (row.id, row.host_id, row.parent_id) if each}
    if rows is not None and (row.desired is Desired.END or not row.is_live):
        found.update(child.id for child in rows.children_of(row.id))
        found.update(waiter.id for waiter in rows.waiters_of(row.id))
    return found
