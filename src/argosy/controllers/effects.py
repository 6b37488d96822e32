"""Performing effects: idempotent calls to providers and agents, each keyed by a committed row.

Calls to one agent are batched: a pass that starts twenty ranks on a node makes one request. An effect that is
repeated within `REPEAT_S` is left out: decisions are level-triggered and say the same thing until its result
is seen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from argosy.controllers.checkpoints import CheckpointCopies
from argosy.controllers.mounts import Mounts
from argosy.controllers.observed import Facts
from argosy.controllers.tree_placing import TreePlacing
from argosy.controllers.view import (
    Action,
    EnsureClaim,
    Failure,
    ForgetRanks,
    Learn,
    Miss,
    Policy,
    PrepareRanks,
    ReleaseClaim,
    ReleaseOrphan,
    Rows,
    RunRanks,
    SaveCheckpoint,
    SettleData,
    StopRanks,
    WakeAt,
    backoff_ms,
    data_of,
    shared_dirs_of,
)
from argosy.infra.agent_port import AgentDirectory, AgentPort, RankOrder, SecretFile
from argosy.infra.border import BorderError, RequestRefused, Transient
from argosy.infra.buckets import OpensBuckets
from argosy.infra.log_sink import LogSink
from argosy.infra.provider import Provider, Providers
from argosy.infra.tree_source import TaskFiles
from argosy.model.facts import ClaimFact, ClaimState
from argosy.model.ids import Clock
from argosy.model.kinds import task_of
from argosy.model.mounts import in_workdir, storage_of
from argosy.model.rows import Claim, Node
from argosy.model.task import Task
from argosy.store import Store

_log = logging.getLogger(__name__)

REPEAT_S = 2.0
PROVIDER_LIMIT_S = 600.0
AGENT_LIMIT_S = 60.0


class Effects:
    """Performs actions after their rows are committed; results become facts, and wake the shell."""

    def __init__(
        self,
        *,
        store: Store,
        providers: Providers,
        agents: AgentDirectory,
        logs: LogSink,
        files: TaskFiles | None,
        stores: Callable[[], OpensBuckets] | None,
        facts: Facts,
        clock: Clock,
        policy: Policy,
        spawn: Callable[..., object],
        wake: Callable[..., None],
        wake_at: Callable[[str, int], None],
    ) -> None:
        self._store, self._providers, self._agents = store, providers, agents
        self._logs, self._files, self._facts = logs, files, facts
        self.checkpoints = CheckpointCopies(
            store=store,
            agents=agents,
            files=files,
            facts=facts,
            clock=clock,
            shared_dirs=lambda: shared_dirs_of(providers),
            every_s=policy.copy_every_ms / 1000,
            stores=stores,
        )
        self.mounts = Mounts(store, clock, stores, agents)
        self._trees = TreePlacing(files, agents)
        self._clock, self._policy = clock, policy
        self._spawn, self._wake, self._wake_at = spawn, wake, wake_at
        self._recent: dict[tuple[str, ...], float] = {}
        self.nodes: dict[str, Node] = {}  # rows of live nodes, kept by the shell

    def perform(self, actions: Sequence[Action]) -> None:
        """Start every effect among `actions` that is neither under way nor was just done. Does not wait."""
        if not actions:
            return
        prepare: dict[tuple[str, str], list[PrepareRanks]] = {}  # who waits for data holds up nobody else
        run: dict[str, list[str]] = {}
        stop: dict[tuple[str, float, str], list[str]] = {}
        forget: dict[str, list[str]] = {}
        for action in actions:
            match action:
                case WakeAt():
                    self._wake_at(action.subject, action.at_ms)
                case EnsureClaim() | ReleaseClaim():
                    self._start_claim(action)
                case PrepareRanks():
                    if self._fresh("prepare", action.attempt.id, action.node_id, subject=action.job.id):
                        task = task_of(action.job)
                        alone = action.attempt.id if task is not None and storage_of(task) else ""
                        prepare.setdefault((action.node_id, alone), []).append(action)
                        self._facts.begin(action.attempt.id)
                case RunRanks():
                    if self._fresh("run", action.attempt_id, action.node_id, subject=action.attempt_id):
                        run.setdefault(action.node_id, []).extend(action.rank_ids)
                case StopRanks():
                    self.mounts.abandon(action.attempt_id)
                    if self._fresh("stop", action.attempt_id, action.node_id, subject=action.attempt_id):
                        order = (action.node_id, action.grace_s, action.why)
                        stop.setdefault(order, []).extend(action.rank_ids)
                case SaveCheckpoint():
                    if not self._facts.busy(action.attempt_id):
                        self._facts.begin(action.attempt_id)
                        self._spawn(self._save(action))
                case SettleData():
                    if not self._facts.busy(action.attempt.id):
                        self._facts.begin(action.attempt.id)
                        self._spawn(self._settle(action))
                case ForgetRanks():
                    if self._fresh("forget", *action.rank_ids, action.node_id, subject=action.node_id):
                        forget.setdefault(action.node_id, []).extend(action.rank_ids)
                case ReleaseOrphan():
                    if not self._facts.busy(action.claim_id):
                        self._spawn(self._release_orphan(action))
                case Miss():
                    self._facts.set_misses(action.claim_id, action.times)
                case Learn():
                    if self._facts.set_claim(action.fact):
                        self._wake(action.fact.claim_id)
                case _:
                    pass
        for (node_id, _), orders in prepare.items():
            self._spawn(self._prepare(node_id, orders))
        for node_id, rank_ids in run.items():
            self._spawn(self._run_ranks(node_id, rank_ids))
        for (node_id, grace_s, why), rank_ids in stop.items():
            self._spawn(self._stop_ranks(node_id, rank_ids, grace_s, why))
        for node_id, rank_ids in forget.items():
            self._spawn(self._forget(node_id, rank_ids))

    def _fresh(self, *key: str, subject: str) -> bool:
        """Whether this was not done a moment ago; if it was, the subject is decided about again later."""
        now_s = self._clock.monotonic_s()
        if len(self._recent) > 4096:
            self._recent = {each: at for each, at in self._recent.items() if now_s - at < REPEAT_S}
        last = self._recent.get(key)
        if last is not None and now_s - last < REPEAT_S:
            self._wake_at(subject, self._clock.now_ms() + int(REPEAT_S * 1000))
            return False
        self._recent[key] = now_s
        return True

    # -- claims -------------------------------------------------------------------------------------

    async def _release_orphan(self, action: ReleaseOrphan) -> None:
        self._facts.begin(action.claim_id)
        _log.warning("%s has %s, which nothing wants: releasing it", action.provider, action.claim_id)
        try:
            async with asyncio.timeout(PROVIDER_LIMIT_S):
                await self._providers.get(action.provider).release(action.claim_id)
        except (BorderError, TimeoutError, OSError) as error:
            _log.warning("%s is not released yet: %s", action.claim_id, error)
        finally:
            self._facts.end(action.claim_id)

    def _start_claim(self, action: EnsureClaim | ReleaseClaim) -> None:
        claim = action.claim
        verb = "ensure" if isinstance(action, EnsureClaim) else "release"
        if self._facts.busy(claim.id) or not self._fresh(
            verb, claim.id, claim.desired.value, subject=claim.id
        ):
            return
        self._facts.begin(claim.id)
        self._spawn(self._ensure(claim) if isinstance(action, EnsureClaim) else self._release(claim))

    async def _ensure(self, claim: Claim) -> None:
        async def act(provider: Provider) -> Sequence[ClaimFact]:
            await provider.ensure(msgspec.structs.replace(claim, tag=self._store.id))
            return await provider.observe([claim.id])

        await self._at_provider(claim, act)

    async def _release(self, claim: Claim) -> None:
        async def act(provider: Provider) -> Sequence[ClaimFact]:
            await provider.release(claim.id)
            return [ClaimFact(claim_id=claim.id, state=ClaimState.RELEASED)]

        await self._at_provider(claim, act)

    async def _at_provider(
        self, claim: Claim, act: Callable[[Provider], Awaitable[Sequence[ClaimFact]]]
    ) -> None:
        """What `act` learns of the claim becomes a fact, what it raises a failure; then the claim is looked
        at."""
        try:
            provider = self._providers.get(claim.choice.offer.provider)
            async with asyncio.timeout(PROVIDER_LIMIT_S):
                seen = await act(provider)
            for fact in seen:
                if fact.claim_id == claim.id:
                    self._facts.set_claim(fact)
            self._facts.clear_failure(claim.id)
        except (BorderError, TimeoutError, OSError) as error:
            self._failed(claim.id, error)
        finally:
            self._facts.end(claim.id)
            self._wake(claim.id)

    def _failed(self, subject: str, error: Exception) -> None:
        old = self._facts.failure(subject)
        count = old.count + 1 if old is not None else 1
        now_ms = self._clock.now_ms()
        wait_ms = backoff_ms(self._policy, count)
        if isinstance(error, Transient):
            wait_ms = max(int(error.after_s * 1000), min(wait_ms, 10_000))
        text = str(error) or type(error).__name__
        _log.info("%s: %s (%d in a row)", subject, text, count)
        failure = Failure(
            code=border_code(error), text=text, at_ms=now_ms, count=count, after_ms=now_ms + wait_ms
        )
        self._facts.set_failure(subject, failure)
        self._wake_at(subject, failure.after_ms)

    # -- ranks --------------------------------------------------------------------------------------

    async def _prepare(self, node_id: str, actions: Sequence[PrepareRanks]) -> None:
        """Files first, then all orders of this node in one request. One bad task does not hold up the
        others."""
        orders: list[RankOrder] = []
        try:
            node = self.nodes[node_id]
            async with asyncio.timeout(PROVIDER_LIMIT_S) as limit:
                agent = await self._agents.get(node)
                for action in actions:
                    try:
                        await self._place_files(agent, node, action)
                        limit.reschedule(None)  # data takes as long as it takes
                        await self.mounts.place(agent, action.attempt, action.job, node)
                        limit.reschedule(asyncio.get_running_loop().time() + PROVIDER_LIMIT_S)
                        await self.checkpoints.put_back(agent, action.job, node)
                    except RequestRefused as error:
                        self._failed(action.attempt.id, error)
                        continue
                    orders += await self._with_secrets(action)
                leases = {each.attempt.id: each.attempt.lease_ms for each in actions}
                orders = [
                    self._leased(node_id, order, leases[order.id.rpartition(".")[0]]) for order in orders
                ]
                if orders:
                    await agent.prepare(orders)
                    self._facts.ordered(node_id, [order.id for order in orders])
            for action in actions:
                if any(order.id.startswith(action.attempt.id) for order in orders):
                    self._facts.clear_failure(action.attempt.id)
        except (BorderError, TimeoutError, OSError, KeyError) as error:
            for action in actions:
                self._failed(action.attempt.id, error)
        finally:
            for action in actions:
                self._facts.end(action.attempt.id)
            self._wake(*(action.job.id for action in actions))

    async def _save(self, action: SaveCheckpoint) -> None:
        try:
            await self.checkpoints.save(action.job, action.nodes, settled_s=0.0)
        finally:
            self._facts.set_saved(action.attempt_id)
            self._facts.end(action.attempt_id)
            self._wake(action.attempt_id)

    async def _settle(self, action: SettleData) -> None:
        attempt = action.attempt
        try:
            agents = [await self._agents.get(node) for node in action.nodes]
            await self.mounts.settle(agents, attempt, action.job)
            self._facts.clear_failure(data_of(attempt.id))
            self._facts.set_settled(attempt.id)
        except (BorderError, TimeoutError, OSError) as error:
            self._failed(data_of(attempt.id), error)
        finally:
            self._facts.end(attempt.id)
            self._wake(attempt.id, action.job.id)

    def _leased(self, node_id: str, order: RankOrder, lease_ms: int) -> RankOrder:
        """The order with its lease, which begins with the newest report of the node: an order that is on its
        way for longer than that never runs. Raises Transient."""
        if not lease_ms:
            return order
        lease = self._facts.lease(node_id, lease_ms)
        if lease is None:
            raise Transient("the node was not heard since its link is up")
        return msgspec.structs.replace(order, lease=lease)

    async def _with_secrets(self, action: PrepareRanks) -> list[RankOrder]:
        task = task_of(action.job)
        if task is None or not task.secrets:
            return list(action.orders)
        secrets = await self._store.load_secrets_of(action.job, task.secrets)
        for order in action.orders:
            self._logs.mask(order.id, list(secrets.values()))
        return [_given(order, task, secrets) for order in action.orders]

    async def _place_files(self, agent: AgentPort, node: Node, action: PrepareRanks) -> None:
        task = task_of(action.job)
        if task is None:
            return
        wanted = [("workdir", task.workdir_tree)] if task.workdir_tree else []
        wanted += [
            (place_of_mount(mount.target, action), mount.tree) for mount in task.file_mounts if mount.tree
        ]
        for target, digest in wanted if self._files is not None else ():
            if target and digest is not None:
                await self._trees.place(agent, node, target, digest)

    async def _run_ranks(self, node_id: str, rank_ids: list[str]) -> None:
        try:
            async with asyncio.timeout(AGENT_LIMIT_S):
                await (await self._agents.get(self.nodes[node_id])).run(rank_ids)
        except (BorderError, TimeoutError, OSError, KeyError) as error:
            _log.info("run on %s failed, is tried again: %s", node_id, error)

    async def _stop_ranks(self, node_id: str, rank_ids: list[str], grace_s: float, why: str) -> None:
        try:
            async with asyncio.timeout(AGENT_LIMIT_S):
                await (await self._agents.get(self.nodes[node_id])).stop(rank_ids, grace_s, why)
        except (BorderError, TimeoutError, OSError, KeyError) as error:
            _log.info("stop on %s failed, is tried again: %s", node_id, error)

    async def _forget(self, node_id: str, rank_ids: list[str]) -> None:
        try:
            async with asyncio.timeout(AGENT_LIMIT_S):
                await (await self._agents.get(self.nodes[node_id])).forget(rank_ids)
            self._facts.drop_ranks(node_id, rank_ids)
        except (BorderError, TimeoutError, OSError, KeyError) as error:
            _log.info("forget on %s failed, is tried again: %s", node_id, error)


async def keep_up(effects: Effects, rows: Callable[[], Rows | None]) -> None:
    """What goes on beside the passes, until cancelled: copies of what jobs keep, and keys of mounts."""
    await asyncio.gather(effects.checkpoints.keep_saving(rows), effects.mounts.renewals.keep_fresh(rows))


def border_code(error: Exception) -> str:
    """`OutOfCapacity` -> `out-of-capacity`. A node that refuses for its disk: `disk-full`."""
    if isinstance(error, RequestRefused) and error.field == "disk":
        return "disk-full"
    name = type(error).__name__
    return "".join("-" + char.lower() if char.isupper() else char for char in name).lstrip("-")


def place_of_mount(target: str, action: PrepareRanks) -> str:
    """Where a mount appears. `~` of a session is the session's own home, which keeps what is changed there:
    it is filled at its first start only; "" later."""
    app = action.orders[0].app if action.orders else None
    if app is None or not target.startswith("~/"):
        return in_workdir(target)
    return app.home + target[1:] if (action.job.number, action.attempt.number) == (1, 1) else ""


def _given(order: RankOrder, task: Task, secrets: Mapping[str, str]) -> RankOrder:
    """The order with its secrets, as variables or as files."""
    places = task.secret_files
    files = tuple(
        SecretFile(name=name, path=places[name], value=value)
        for name, value in secrets.items()
        if name in places
    )
    variables = {name: value for name, value in secrets.items() if name not in places}
    return msgspec.structs.replace(order, env=order.env | variables, secret_files=files)
