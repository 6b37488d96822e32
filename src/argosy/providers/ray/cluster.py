"""One Ray cluster: how the job of a claim is submitted, seen and stopped, and how its nodes are reached.

Ray's list of jobs is the memory: a job has the claim's id, which Ray takes once, and its metadata carries
the tag of the database that ordered it. A stopped job stays in that list for a day, so that its id is used
up.
"""

from __future__ import annotations

import asyncio
import enum
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from argosy.infra import border
from argosy.infra.agent_client import unix_channel
from argosy.infra.agent_port import Channel, DialIn
from argosy.infra.machine_notes import Notes
from argosy.infra.tombstones import Tombstones
from argosy.model.facts import ClaimFact, ClaimState
from argosy.model.ids import Clock, Ids
from argosy.model.rows import Claim
from argosy.providers.ray.api import Actor, ClusterStatus, Job, RayApi, RayNode, Submission
from argosy.providers.ray.native import NativeClaim, NativeClaims
from argosy.providers.ray.nodes import GRAIN, NodeKind, fitting, growing_kinds, kinds_of
from argosy.providers.ray.package import ENTRYPOINT, Package, build_package
from argosy.providers.ray.post import Posts
from argosy.providers.ray.settings import ClusterSettings, TaskOptions
from argosy.providers.ray.states import CLASS, PLAN, TAG, Plan, fact_of, parse_address, plan_of, waiting_text

if TYPE_CHECKING:
    from argosy.infra.ssh import Ssh
    from argosy.infra.ssh_target import SshTarget

_FRESH_S: Final = 1.0
_NODES_S: Final = 5.0
_RELEASE_S: Final = 30.0
_TOLD_MS: Final = 3600 * 1000  # so long the end of a job is told
_KEPT_MS: Final = 24 * 3600 * 1000  # so long a stopped job stays in Ray's list
_DIAL_AGAIN_S: Final = 60.0


class Way(enum.Enum):
    """How agents on nodes of a cluster are reached."""

    FILES = "the file system: they are this machine"
    SSH = "ssh, from the `login` of ray.yaml"
    DIAL = "the connection that they keep to this server"
    DASHBOARD = (
        "the dashboard alone, by Ray's packages and logs: slower than a connection that they keep "
        "(ARGOSY_PUBLIC_URL) or ssh (`login` in ray.yaml)"
    )


class Means(NamedTuple):
    """What the clusters of one server share. `agent` builds the zipapp, and `ssh` makes a client, when
    they are first needed."""

    clock: Clock
    ids: Ids
    dialled: DialIn | None
    released: Tombstones
    notes: Notes[NativeClaim]
    ssh: Callable[[], Ssh]
    agent: Callable[[], Path]


class Cluster:
    """Claims of one cluster."""

    def __init__(self, name: str, api: RayApi, settings: ClusterSettings, means: Means) -> None:
        self.name, self.api, self.settings = name, api, settings
        self._clock, ids, self._dialled, self._released, notes, self._make_ssh, self._agent = means
        self._posts = Posts(api, ids)
        self._by_post: set[str] = set()  # claims whose nodes are reached through the dashboard
        self._native = NativeClaims(name, api, notes)
        self._ssh: Ssh | None = None
        self._ips: dict[str, str] = {}  # of nodes, by their names
        self._package: Package | None = None
        self._nodes: list[RayNode] = []
        self._status = (ClusterStatus(), "")
        self._nodes_s = float("-inf")
        self._submitting: dict[str, str] = {}  # claims that are just submitted, and their tags
        self._ordered: dict[str, float] = {}  # nodes that were told to dial, and when

    # -- what there is ---------------------------------------------------------------------------------------

    async def look(self, fresh_s: float = _NODES_S) -> tuple[list[RayNode], ClusterStatus]:
        """Nodes, also those that are dead, and what is in use of them. Raises a border error."""
        if self._clock.monotonic_s() - self._nodes_s > fresh_s:
            await self.api.version()
            self._nodes, self._status = await asyncio.gather(self.api.nodes(), self.api.status())
            self._nodes_s = self._clock.monotonic_s()
        return self._nodes, self._status[0]

    async def kinds(self, fresh_s: float = _NODES_S) -> list[NodeKind]:
        nodes, status = await self.look(fresh_s)
        kinds = kinds_of(nodes, status, self.settings.accelerators)
        return [*kinds, *growing_kinds(self.settings.grows, kinds)]

    @property
    def grows(self) -> bool:
        """Whether an autoscaler may add nodes."""
        return self._status[0].has_autoscaler or bool(self.settings.grows)

    def now_ms(self) -> int:
        return self._clock.now_ms()

    @property
    def trouble(self) -> str:
        """What the autoscaler says went wrong; ""."""
        return self._status[1]

    # -- claims ----------------------------------------------------------------------------------------------

    async def ensure(self, claim: Claim, options: TaskOptions) -> None:
        """Submits the claim's job unless it is there."""
        self._submitting[claim.id] = claim.tag  # it is listed from now on, whatever comes first
        try:
            await self._submit(claim, options)
        finally:
            self._submitting.pop(claim.id, None)

    async def _submit(self, claim: Claim, options: TaskOptions) -> None:
        job = await self.api.job(claim.id) if claim.id not in self._released else None
        if claim.id in self._released or (job is not None and job.is_over):
            raise _released(claim.id)
        if job is not None:
            return
        if options.native:
            self._native.note(claim, options)
            return
        nodes, status = await self.look(0)
        plan = self._plan(claim, options, await self.kinds(), nodes)
        self._refuse(plan, nodes, status)
        package = await self._upload()
        made = await self.api.submit(
            Submission(
                entrypoint=ENTRYPOINT,
                submission_id=claim.id,
                runtime_env={"working_dir": package.uri},
                metadata={TAG: claim.tag, PLAN: msgspec.json.encode(plan).decode()},
            )
        )
        if not made and (job := await self.api.job(claim.id)) is not None and job.is_over:
            raise _released(claim.id)

    def _plan(
        self, claim: Claim, options: TaskOptions, kinds: Sequence[NodeKind], nodes: Sequence[RayNode]
    ) -> Plan:
        choice = claim.choice
        devices = next(
            (each.devices for each in kinds if each.devices and each.devices.model == choice.accelerator),
            None,
        )
        bundle: dict[str, float] = {}
        if choice.cpus_milli:
            bundle["CPU"] = choice.cpus_milli / 1000
        if count := choice.accelerators_milli // 1000:
            if devices is None:
                raise border.OutOfCapacity(
                    self.name, f"{self.name} has no nodes with {choice.accelerator} any more"
                )
            bundle.update(devices.bundle(count))
        if choice.memory_bytes:
            bundle["memory"] = choice.memory_bytes
        bundle.update(options.resources)
        way = self._way(nodes)
        return Plan(
            claim=claim.id,
            count=claim.count,
            bundle=bundle or {"CPU": GRAIN},
            wait_s=options.wait_s,
            node_dir=self.settings.node_dir,
            agent=self._packed().agent,
            dials=way is Way.DIAL,
            posts=way is Way.DASHBOARD,
        )

    def _refuse(self, plan: Plan, nodes: Sequence[RayNode], status: ClusterStatus) -> None:
        """Raises OutOfCapacity for what would wait for ever."""
        fits, _ = fitting(nodes, plan.bundle, status)
        if fits < plan.count and not self.grows:
            raise border.OutOfCapacity(
                self.name,
                f"{self.name} has {fits} nodes with {plan.wanted}, asked for {plan.count}, and no "
                "autoscaler that adds some",
            )

    async def way(self) -> Way:
        """How agents on its nodes are reached."""
        nodes, _ = await self.look()
        return self._way(nodes)

    def _way(self, nodes: Sequence[RayNode]) -> Way:
        if self._is_here(nodes):
            return Way.FILES
        if self.settings.login:
            return Way.SSH
        return Way.DIAL if self._dialled is not None and self._dialled.is_offered else Way.DASHBOARD

    def _is_here(self, nodes: Sequence[RayNode]) -> bool:
        """Whether all nodes are this machine, so that their agents' sockets are in its file system."""
        addresses = {node.node_ip for node in nodes if node.is_alive}
        return bool(addresses) and all(_is_own(each) for each in addresses)

    def _packed(self) -> Package:
        if self._package is None:
            self._package = build_package(self._agent())
        return self._package

    async def _upload(self) -> Package:
        package = self._packed()
        if not await self.api.has_package(package.name):
            await self.api.put_package(package.name, package.data)
        return package

    async def facts(self, claim_ids: Sequence[str]) -> list[ClaimFact]:
        """What Ray knows of claims (of all when none is named)."""
        submitting = dict(self._submitting)
        jobs = [
            (job, plan)
            for job in await self.api.jobs()
            if (plan := plan_of(job)) is not None and (not claim_ids or plan.claim in claim_ids)
        ]
        jobs = [(job, plan) for job, plan in jobs if not self._is_past(job, plan.claim)]
        actors: dict[str, Actor] = {}
        if any(job.status != "PENDING" for job, _ in jobs):
            actors = {each.name: each for each in await self.api.actors(CLASS)}
        nodes, status = await self.look(_FRESH_S) if jobs else ([], ClusterStatus())
        by_id = {node.node_id: node for node in nodes}
        facts = self._native.facts(claim_ids)
        for job, plan in jobs:
            waiting = waiting_text(plan, *fitting(nodes, plan.bundle, status), status.coming)
            facts.append(fact_of(job, plan, self.name, actors, by_id, waiting))
            self._ips.update({parse_address(node.address)[0]: node.ip for node in facts[-1].nodes})
            if plan.posts:
                self._by_post.add(plan.claim)
            if facts[-1].state is ClaimState.HELD and plan.dials:
                await self._tell_to_dial(facts[-1])
        there = {fact.claim_id for fact in facts}
        facts += [
            ClaimFact(claim_id=each, state=ClaimState.PENDING, detail="is being submitted", tag=tag)
            for each, tag in submitting.items()
            if each not in there and (not claim_ids or each in claim_ids)
        ]
        return facts

    def _is_past(self, job: Job, claim_id: str) -> bool:
        """It was released, here or long ago by another server: its record only keeps its id from coming
        back."""
        ended_ms = job.end_time or self._clock.now_ms()
        return job.is_over and (claim_id in self._released or self._clock.now_ms() - ended_ms > _TOLD_MS)

    async def _tell_to_dial(self, fact: ClaimFact) -> None:
        """Nodes that are up and have no connection to this server get an order, which Ray's store of packages
        brings to the driver of their job."""
        dialled, now_s = self._dialled, self._clock.monotonic_s()
        if dialled is None or not dialled.is_offered:
            return
        orders = {}
        for node in fact.nodes:
            name = f"{fact.claim_id}-{node.index}"
            told_s = self._ordered.get(name, float("-inf"))
            if node.alive and not dialled.has(name) and now_s - told_s > _DIAL_AGAIN_S:
                orders[str(node.index)] = dialled.order(name)
                self._ordered[name] = now_s
        if orders:
            await self.api.put_package(f"argosy-{fact.claim_id}.json", msgspec.json.encode(orders))

    async def release(self, claim_id: str) -> None:
        """Stops what there is of a claim, and waits until Ray has its nodes back."""
        self._released.add(claim_id)
        self._by_post.discard(claim_id)
        await self._posts.forget(claim_id)
        if await self._native.release(claim_id):
            return
        job = await self.api.job(claim_id)
        if job is None or plan_of(job) is None:
            return
        until_s, pause_s = self._clock.monotonic_s() + _RELEASE_S, 0.05
        while not job.is_over or await self._holds(claim_id):
            if not job.is_over:
                await self.api.stop(claim_id)
            if self._clock.monotonic_s() > until_s:
                raise border.Transient(f"the job {claim_id} is told to stop, and Ray has not ended it yet", 5)
            await asyncio.sleep(pause_s)
            pause_s = min(1.0, pause_s * 1.5)
            job = await self.api.job(claim_id) or job
        self._nodes_s = float("-inf")
        for name in [each for each in self._ips if each.startswith(claim_id)]:
            self._ips.pop(name)
            self._ordered.pop(name, None)
        await self._tidy()

    async def _holds(self, claim_id: str) -> bool:
        return any(
            each.name.startswith(f"{claim_id}-") and each.state != "DEAD"
            for each in await self.api.actors(CLASS)
        )

    async def _tidy(self) -> None:
        """Records of claims that ended long ago go from Ray's list."""
        before_ms = self._clock.now_ms() - _KEPT_MS
        for job in await self.api.jobs():
            if job.is_over and plan_of(job) is not None and 0 < (job.end_time or 0) < before_ms:
                await self.api.delete(job.submission_id or "")

    # -- nodes -----------------------------------------------------------------------------------------------

    async def reach(self, node: str) -> Channel:
        """A stream to the agent of a node. Raises Unreachable."""
        if (native := await self._native.open(node.rpartition("-")[0])) is not None:
            return native
        if self._dialled is not None and self._dialled.has(node):
            return self._dialled.open(node)
        if node.rpartition("-")[0] in self._by_post:
            return await self._posts.open(node)
        socket_path = f"{self.settings.node_dir}/argosy-{node}/agent.sock"
        ip = self._ips.get(node)
        if self.settings.login and ip and not _is_own(ip):
            self._ssh = self._ssh or self._make_ssh()
            return await self._ssh.open(self._target(ip), socket_path)
        try:
            return await unix_channel(socket_path)
        except border.Unreachable:
            raise border.Unreachable(
                f"the agent of {node} has not come up, or has no connection to this server"
            ) from None

    def _target(self, ip: str) -> SshTarget:
        """A node, by way of the host from which nodes are reached."""
        from argosy.infra.ssh_target import SshTarget

        settings = self.settings
        user = settings.login.rpartition("@")[0]
        return SshTarget(
            host=ip,
            user=user,
            key_file=settings.key_file,
            config_file=settings.ssh_config,
            jumps=(settings.login,),
            host_keys="ask-config" if settings.ssh_config else "accept-new",
        )

    async def close(self) -> None:
        self._native.close()
        await self._posts.close()
        await self.api.close()
        if self._ssh is not None:
            await self._ssh.close()


def _released(claim_id: str) -> border.RequestRefused:
    return border.RequestRefused("claim", f"{claim_id} was released before, or its job has ended")


def _is_own(address: str) -> bool:
    """Whether this machine has the address: only then can it be bound."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as line:
            line.bind((address, 0))
    except OSError:
        return False
    return True
