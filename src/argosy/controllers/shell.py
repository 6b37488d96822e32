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
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence

from argosy.controllers.cluster.decide import decide_cluster
from argosy.controllers.effects import Effects
from argosy.controllers.job.decide import decide_job
from argosy.controllers.links import Links
from argosy.controllers.nodes.decide import decide_claim
from argosy.controllers.observed import Facts
from argosy.controllers.past import Past
from argosy.controllers.pool.caches import PoolCaches
from argosy.controllers.pool.decide import POOL, decide_owned
from argosy.controllers.pool.pictures import Picture
from argosy.controllers.view import (
    Action,
    Emit,
    Expect,
    ForgetRanks,
    Policy,
    Put,
    StopRanks,
    View,
    abilities_of,
    terminals_of,
)
from argosy.infra.agent_port import AgentDirectory
from argosy.infra.border import BorderError
from argosy.infra.log_sink import LogSink
from argosy.infra.provider import Provider, Providers
from argosy.infra.quotes import Quotes
from argosy.infra.tree_source import TreeSource
from argosy.model.areas import Atlas
from argosy.model.errors import ArgosyError
from argosy.model.facts import ClaimFact, ClaimState, RankPhase
from argosy.model.ids import Clock, Ids
from argosy.model.offer import Offer
from argosy.model.phases import ClaimPhase, WorkloadPhase
from argosy.model.rows import Attempt, Claim, Node, Row, Workload
from argosy.planning.availability import Memory
from argosy.store import Conflict, IllegalMove, Snapshot, Store

_log = logging.getLogger(__name__)

SWEEP_S = 5.0  # a full pass at least so often
OBSERVE_S = 10.0  # each provider is asked what it has of ours
QUOTE_S = 60.0
FIRST_QUOTES_S = 30.0  # so long after the start nothing fails, or goes elsewhere, for want of an answer
MISSES_BEFORE_GONE = 3  # listings lag: a claim must be absent so often in a row, with its links down
FORGET_BATCH = 64
FORESEE_S = 2.0  # when those start who are first in line is worked out at most so often
PICTURE_WAIT_S = 0.5  # a request waits at most so long for a picture that knows what it shows


class Shell:
    """Runs all controllers of one server.

    >>> # await Shell(store=store, providers=providers, agents=agents, logs=logs, files=blobs, clock=clock, ids=ids).run()
    """  # noqa: E501

    def __init__(
        self,
        *,
        store: Store,
        providers: Providers,
        agents: AgentDirectory,
        logs: LogSink,
        files: TreeSource | None = None,
        clock: Clock,
        ids: Ids,
        policy: Policy | None = None,
        atlas: Callable[[], Atlas] | None = None,
        quotes: Quotes | None = None,
    ) -> None:
        """`atlas`: where regions are, asked when a decision needs it. `quotes`: the server's cache of what
        providers offer (None: one of its own); claims are charged at what decisions saw in it."""
        self._store, self._providers, self._clock, self._ids = store, providers, clock, ids
        self._policy = policy or Policy()
        self.observed = Facts()
        self._quotes = quotes or Quotes(providers, clock)
        self._quotes.changed = self.wake
        self._began_s = clock.monotonic_s()
        self._pools = PoolCaches()
        self._past = Past()
        self._atlas = atlas
        self._dirty: set[str] = set()
        self._all_dirty = True
        self._event = asyncio.Event()
        self._timers: list[tuple[int, str]] = []  # a heap; only an entry that `_due_ms` agrees with counts
        self._due_ms: dict[str, int] = {}  # when to look at a subject next: one time each
        self._misses: dict[str, int] = {}
        self._rows: Snapshot | None = None
        self._picture: Picture | None = None
        self._foreseen_s = float("-inf")
        self._published = asyncio.Event()  # of the next picture
        self._group: asyncio.TaskGroup | None = None
        self._effects = Effects(
            store=store, providers=providers, agents=agents, logs=logs, files=files, facts=self.observed,
            clock=clock, policy=self._policy, spawn=self._spawn, wake=self.wake, wake_at=self._wake_at,
        )  # fmt: skip
        self._links = Links(
            store=store,
            agents=agents,
            logs=logs,
            facts=self.observed,
            clock=clock,
            spawn=self._spawn,
            wake=self.wake,
        )

    # -- what others call ---------------------------------------------------------------------------

    def wake(self, *ids: str) -> None:
        """Look at these rows soon; at everything when none is named."""
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
        return View(
            now_ms=self._clock.now_ms(),
            rows=rows,
            observed=self.observed,
            offers=self.offers(),
            abilities=abilities_of(self._providers),
            shared_dirs={
                name: provider.manifest.shared_dir for name, provider in self._providers.all().items()
            },
            policy=self._policy,
            silent=self._silent(),
            pools=self._pools,
            history=self._past.history(self._clock.now_ms()),
            memory=self._past.memory,
            atlas=self._atlas,
        )

    def _silent(self) -> frozenset[str]:
        """Providers that are still asked for the first time: what has no place may have one in a moment."""
        if self._clock.monotonic_s() - self._began_s > FIRST_QUOTES_S:
            return frozenset()
        return self._quotes.unknown()

    @contextlib.contextmanager
    def attended(self, cluster_id: str) -> Iterator[None]:
        """Somebody has a terminal there: meanwhile the cluster is not idle."""
        self.observed.begin(terminals_of(cluster_id))
        self.wake(cluster_id)
        try:
            yield
        finally:
            self.observed.end(terminals_of(cluster_id))
            self.wake(cluster_id)

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

    def _publish(self, rows: Snapshot, seq: int) -> None:
        """To be called right after a decision about pools, before anything is awaited. `seq`: what the last
        whole pass has seen of the rows at its beginning."""
        self._picture = Picture(self.view(rows), seq)
        self._published.set()
        self._published = asyncio.Event()

    def refusals(self) -> Memory:
        """Where capacity was not there when it was asked for, lately."""
        return self._past.memory

    async def refresh(self) -> None:
        """Ask every provider now: quotes, and what it has of ours."""
        for name, provider in self._providers.all().items():
            await self._quotes.ask(name)
            await self._observe(provider)
        self.wake()

    async def run(self) -> None:
        """Until cancelled. Ranks and nodes go on without us."""
        await self._past.load(self._store, self._clock.now_ms())
        self._pools.recall(await self._past.uses(self._store, self._clock.now_ms()))
        rows = await self._store.snapshot()
        for owner_id in sorted({claim.workload_id for claim in rows.claims.values()} - rows.workloads.keys()):
            owner = await self._store.load(owner_id)
            if isinstance(owner, Workload):
                self._pools.remember(owner)
        self._pools.follow(rows)  # who ends before the first cycle is remembered, too
        async with asyncio.TaskGroup() as group:
            self._group = group
            for name, provider in self._providers.all().items():
                group.create_task(self._quote_loop(name))
                group.create_task(self._observe_loop(provider))
            group.create_task(self._decide_loop())

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
        if not self._event.is_set() and now_s - self._foreseen_s >= FORESEE_S:
            self._foreseen_s = now_s
            self._pools.foresee()

    async def _sleep_until_due(self) -> None:
        self._foresee()
        wait_s = SWEEP_S
        if self._timers:
            wait_s = min(wait_s, max(0.0, (self._timers[0][0] - self._clock.now_ms()) / 1000))
        if not self._event.is_set():
            try:
                async with asyncio.timeout(wait_s):
                    await self._event.wait()
            except TimeoutError:
                if wait_s >= SWEEP_S:
                    self._all_dirty = True
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

    async def _observe_loop(self, provider: Provider) -> None:
        while True:
            await asyncio.sleep(OBSERVE_S)
            await self._observe(provider)

    async def _observe(self, provider: Provider) -> None:
        name = provider.manifest.name
        try:
            seen = {fact.claim_id: fact for fact in await provider.observe([])}
        except (BorderError, OSError) as error:
            _log.info("%s cannot be observed: %s", name, error)
            return
        except Exception:  # broad by intent: a driver's bug
            _log.exception("%s failed to observe", name)
            return
        rows = await self._store.snapshot()
        for claim in rows.claims.values():
            if claim.choice.offer.provider != name or self.observed.busy(claim.id):
                seen.pop(claim.id, None)
                continue
            fact = seen.pop(claim.id, None)
            if fact is None:
                self._missed(rows, claim)
            else:
                self._misses.pop(claim.id, None)
                if claim.phase is not ClaimPhase.RELEASING and self.observed.set_claim(fact):
                    self.wake(claim.id)
        for claim_id in seen:
            await self._release_orphan(provider, claim_id)

    def _missed(self, rows: Snapshot, claim: Claim) -> None:
        if claim.phase is not ClaimPhase.HELD:
            return
        links = [self.observed.link(node.id) for node in rows.nodes_of_claim(claim.id)]
        if any(link is not None and link.up for link in links):
            self._misses.pop(claim.id, None)
            return
        self._misses[claim.id] = self._misses.get(claim.id, 0) + 1
        if self._misses[claim.id] >= MISSES_BEFORE_GONE:
            self.observed.set_claim(
                ClaimFact(claim_id=claim.id, state=ClaimState.GONE, detail="the provider no longer lists it")
            )
            self.wake(claim.id)

    async def _release_orphan(self, provider: Provider, claim_id: str) -> None:
        """Something of ours that no live row wants: a release that came before a late order. Nothing
        leaks."""
        row = await self._store.load(claim_id)
        if isinstance(row, Claim) and row.is_live:
            return
        _log.warning("%s has %s, which nothing wants: releasing it", provider.manifest.name, claim_id)
        try:
            await provider.release(claim_id)
        except (BorderError, OSError) as error:
            _log.warning("%s is not released yet: %s", claim_id, error)

    # -- one pass -----------------------------------------------------------------------------------

    async def _pass(self, dirty: set[str], *, everything: bool) -> None:
        rows = await self._follow()
        seq = rows.seq
        claims, jobs, clusters = self._expand(rows, dirty, everything=everything)
        new_id = self._ids.new
        if claims:
            view = self.view(rows)
            await self._carry_out([decide_claim(view, claim, new_id) for claim in claims])
            rows = await self._follow()
        if jobs:
            view = self.view(rows)
            live = [rows.workloads[job_id] for job_id in sorted(jobs) if job_id in rows.workloads]
            await self._carry_out([decide_job(view, job, new_id) for job in live])
            rows = await self._follow()
        if everything or claims or jobs or clusters or POOL in dirty:
            decided = decide_owned(self.view(rows), new_id)
            self._publish(rows, self.picture.seq)
            await self._carry_out([decided])
            rows = await self._follow()
        extra = {each for each in self._dirty if each.startswith("clu")}  # e.g. of jobs that just ended
        wanted = [rows.workloads[each] for each in sorted(clusters | extra) if each in rows.workloads]
        if wanted:
            view = self.view(rows)
            all_decided = [decide_cluster(view, cluster, new_id) for cluster in wanted]
            self._publish(rows, self.picture.seq)
            await self._carry_out(all_decided)
            rows = await self._follow()
        self._publish(rows, seq)
        self._forget_ranks(rows, everything=everything)

    async def _follow(self) -> Snapshot:
        rows = await self._store.snapshot()
        if rows is not self._rows:
            self._past.follow(rows, self._rows, self._clock.now_ms())
            self._rows = rows
            self._effects.nodes = dict(rows.nodes)
            self._links.follow(rows)
        return rows

    def _expand(
        self, rows: Snapshot, dirty: set[str], *, everything: bool
    ) -> tuple[list[Claim], set[str], set[str]]:
        """Which claims, jobs and clusters to decide about."""
        if everything:
            jobs = {each.id for each in rows.workloads.values() if each.kind == "job"}
            clusters = {each.id for each in rows.workloads.values() if each.kind == "cluster"}
            return list(rows.claims.values()), jobs, clusters
        claims: dict[str, Claim] = {}
        jobs, clusters = set(), set()

        def owner(workload_id: str) -> None:
            (clusters if workload_id.startswith("clu") else jobs).add(workload_id)

        for each in sorted(dirty):  # the same rows and facts give the same pass
            row = rows.row(each)
            match row:
                case Workload():
                    owner(each)
                    if row.host_id:
                        clusters.add(row.host_id)
                    for claim in rows.claims_of(each):
                        claims[claim.id] = claim
                case Attempt():
                    jobs.add(row.workload_id)
                case Claim():
                    claims[each] = row
                    owner(row.workload_id)
                case Node():
                    owner(row.workload_id)
                    if row.claim_id in rows.claims:
                        claims[row.claim_id] = rows.claims[row.claim_id]
                    for job in rows.jobs_of(row.workload_id):
                        if job.phase is not WorkloadPhase.QUEUED:
                            jobs.add(job.id)
                case _:
                    pass
        return list(claims.values()), jobs, clusters

    async def _carry_out(self, decisions: Iterable[list[Action]]) -> None:
        """Commit all decisions at once; those that touch the same row wait for the next pass. Then their
        effects."""
        batch: list[list[Action]] = []
        touched: set[str] = set()
        for actions in decisions:
            ids = [action.row.id for action in actions if isinstance(action, Put)]
            if len(set(ids)) < len(ids):
                twice = sorted({each for each in ids if ids.count(each) > 1})
                raise AssertionError(f"a decision puts one row twice: {twice}")
            if touched.intersection(ids):
                self._dirty.update(ids)
                self._event.set()
                continue
            touched.update(ids)
            if actions:
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
        events = [action.event for action in actions if isinstance(action, Emit)]
        expect = {action.id: action.rev for action in actions if isinstance(action, Expect)}
        if puts or events:
            self._wake_related(await self._store.commit(puts, events=events, expect=expect))

    def _wake_related(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._dirty.add(row.id)
            match row:
                case Workload():
                    if row.host_id:
                        self._dirty.add(row.host_id)
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

    def _forget_ranks(self, rows: Snapshot, *, everything: bool) -> None:
        """Ranks that no live attempt wants: their logs and exits are stored, so the agent may drop them."""
        actions: list[Action] = []
        for node in rows.nodes.values():
            over: list[str] = []
            running: list[str] = []
            for fact in self.observed.ranks_on(node.id).values():
                if fact.attempt_id not in rows.attempts:
                    done = fact.phase in (RankPhase.EXITED, RankPhase.VANISHED)
                    (over if done else running).append(fact.id)
            if over and (everything or len(over) >= FORGET_BATCH):
                actions.append(ForgetRanks(node.id, tuple(over)))
            actions += [StopRanks(each.rpartition(".")[0], node.id, (each,), 1.0) for each in running]
        if actions:
            self._effects.perform(actions)
