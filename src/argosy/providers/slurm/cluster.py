"""One cluster: how the job of a claim is ordered, cancelled and reached.

The queue of Slurm is the only memory: a job is called like its claim and carries the tag of the database that
ordered it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.agent_port import Channel
from argosy.infra.mux import Carrier
from argosy.infra.speaker import Speaker
from argosy.infra.ssh import Ran
from argosy.model.facts import ClaimState
from argosy.model.ids import Clock
from argosy.model.rows import Claim
from argosy.providers.slurm import native_script, script
from argosy.providers.slurm.arrays import Arrays
from argosy.providers.slurm.jobs import NATIVE, Jobs, addresses, telling
from argosy.providers.slurm.listing import Job, parse_squeue, render_time
from argosy.providers.slurm.looks import Looks
from argosy.providers.slurm.native import NativeNode
from argosy.providers.slurm.native_script import NativeClaim
from argosy.providers.slurm.nodes import Nodes
from argosy.providers.slurm.offers import NodeKind, gres_of_type, part_of
from argosy.providers.slurm.runner import Runner
from argosy.providers.slurm.settings import ClusterSettings, TaskOptions
from argosy.providers.slurm.words import OCCUPYING, claim_state, is_unknown_job, pending_error, refusal

_MIB: Final = 1 << 20
_SUBMIT_S: Final = 60.0
_RELEASE_S: Final = 90.0
_GRACE_S: Final = 120  # so long before its time limit a job is told
_LONGEST_S: Final = 7 * 86400  # where neither a task nor its partition limits the time
_LIST_FAILED: Final = 75
_SUBMIT_FAILED: Final = 76
_HOME_FAILED: Final = 73


class Cluster:
    """Jobs of one user on one cluster. `agent` builds the zipapp when the first claim needs it."""

    def __init__(
        self, name: str, runner: Runner, settings: ClusterSettings, *, clock: Clock, agent: Callable[[], Path]
    ) -> None:
        self.name = name
        self.settings = settings
        self._runner = runner
        self._agent = agent
        self._clock = clock
        self._carriers: dict[tuple[str, str], Carrier] = {}  # by job and node
        self._speakers: dict[str, Speaker] = {}  # by claim in native mode
        self._looks = Looks(name, runner, clock)
        self._arrays = Arrays(name, runner, clock)
        self._opening: set[asyncio.Task[None]] = set()
        self.nodes = Nodes(name, runner, settings, clock)
        self.jobs = Jobs(name, runner, clock)

    async def ensure(self, claim: Claim, options: TaskOptions) -> None:
        """Submits the claim's job unless it is there, and waits a moment for its start."""
        for job in await self.jobs.listed(fresh=False):
            if job.name == claim.id:
                if claim_state(job.state) is ClaimState.PENDING:
                    self._look_at_waiting(claim, options, job)
                return
        if claim.id in self.jobs.notes:
            return
        kind = await self._kind_for(claim, options)
        await self.nodes.version()
        order = self._order(claim, options, kind)
        if self.settings.native if options.native is None else options.native:
            with self.jobs.submitting(claim.id, claim.tag):
                await self._note(claim, order)
            return
        with self.jobs.submitting(claim.id, claim.tag):
            made = await self._submit(order, wait=kind.idle >= claim.count)
        if made is not None and claim_state(made.state) is ClaimState.PENDING:
            self._look_at_waiting(claim, options, made)
        elif made is not None and made.state == "RUNNING":
            for node in made.nodes:
                task = asyncio.create_task(self._open_up(made.id, node))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)

    def _look_at_waiting(self, claim: Claim, options: TaskOptions, job: Job) -> None:
        """Raises a border error when waiting does not help, or has lasted as long as the task allows."""
        error = pending_error(job.reason)
        if error is not None:
            raise error
        waited_s = (self._clock.now_ms() - claim.requested_ms) // 1000
        if options.wait_s and waited_s > options.wait_s:
            text = f"still waits after {waited_s} s, `config.slurm.provision_timeout` is {options.wait_s} s"
            scope = f"{self.name}/{job.partition}"
            raise border.OutOfCapacity(scope, f"{text} (Slurm: {job.reason or 'not yet scheduled'})")

    async def _kind_for(self, claim: Claim, options: TaskOptions) -> NodeKind:
        """The kind of node that the claim's offer names. Raises OutOfCapacity when so many nodes of it will
        never be free at once, RequestRefused for a longer time than jobs may have there: Slurm would keep
        such a job for ever."""
        offer, partition = claim.choice.offer, options.partition or claim.choice.offer.zone
        scope = "/".join(part for part in (self.name, partition) if part)
        every = await self.nodes.kinds()
        kinds = [kind for kind in every if kind.partition == partition]
        if not kinds:
            known = ", ".join(dict.fromkeys(kind.partition for kind in every))
            raise border.RequestRefused(
                "partition", f"the cluster {self.name} has no partition `{partition}`; it has {known}"
            )
        mine = [kind for kind in kinds if kind.type == offer.shape.instance_type]
        if not mine:
            raise border.OutOfCapacity(
                scope, f"partition {scope} has no nodes {offer.shape.instance_type} any more"
            )
        kind = mine[0]
        if kind.time_limit_s is not None and options.time_s > kind.time_limit_s:
            raise border.RequestRefused(
                "time",
                f"partition {scope} gives a job at most {render_time(kind.time_limit_s)}, "
                f"`config.slurm.time` asks for {render_time(options.time_s)}; ask for less, or take another",
            )
        if claim.count <= kind.most:
            return kind
        down = f"; {kind.total - kind.usable} more are down" if kind.total > kind.usable else ""
        if kind.nodes_max is not None and kind.nodes_max < claim.count:
            text = f"partition {scope} gives at most {kind.nodes_max} nodes to a job, asked for {claim.count}"
        else:
            text = f"partition {scope} has {kind.usable} nodes {kind.type}{down}, asked for {claim.count}"
        raise border.OutOfCapacity(scope, text)

    def _order(self, claim: Claim, options: TaskOptions, kind: NodeKind) -> script.Order:
        choice, ours = claim.choice, self.settings
        gres, feature = gres_of_type(choice.offer.shape.instance_type)
        devices, part = divmod(choice.accelerators_milli, 1000)
        asked = f"{gres}:{devices}" if gres and devices else ""
        if part:
            asked = part_of(kind, part)
            if devices or not asked:
                raise border.Unsupported(
                    f"nodes {kind.type} give whole accelerators to a job: they have no `gres/shard`"
                )
        limits = [each for each in (kind.time_limit_s, kind.default_time_s) if each]
        constraint = "&".join(each for each in (feature if asked else "", options.constraint) if each)
        time_s = options.time_s or (limits[0] if limits else _LONGEST_S)
        memory_mib = choice.memory_bytes // _MIB
        return script.Order(
            claim_id=claim.id,
            tag=claim.tag,
            nodes=claim.count,
            partition=kind.partition,
            gres=asked,
            cpus=-(-choice.cpus_milli // 1000),
            memory_mib=0 if memory_mib >= kind.memory_mib else memory_mib,
            time_s=time_s,
            grace_s=_GRACE_S if time_s > 10 * _GRACE_S else 0,
            account=options.account or ours.account,
            qos=options.qos or ours.qos,
            constraint=constraint,
            reservation=options.reservation or ours.reservation,
            options=options.sbatch,
            agent=self._agent().name,
            python=ours.python,
            node_dir=ours.node_dir,
        )

    async def _submit(self, order: script.Order, *, wait: bool) -> Job | None:
        ran = await self._runner.run(script.submit_script(order, wait=wait), timeout_s=_SUBMIT_S)
        if ran.out.strip() == script.NO_AGENT.encode():
            await self._install()
            ran = await self._runner.run(script.submit_script(order, wait=wait), timeout_s=_SUBMIT_S)
        text = ran.out.decode("utf-8", "replace")
        if text.strip() == script.RELEASED:
            raise border.RequestRefused("claim", f"{order.claim_id} was released before")
        if ran.status in (_LIST_FAILED, _SUBMIT_FAILED):
            raise refusal(ran.err, f"{self.name}/{order.partition}")
        self._check(ran)
        jobs = parse_squeue(text)
        if not jobs:
            return None
        job = telling(jobs)
        found = addresses(ran)
        if found:
            self.jobs.keep_addresses(job, found)
        return job

    async def _install(self) -> None:
        path = self._agent()
        data = await asyncio.to_thread(path.read_bytes)
        self._check(await self._runner.run(script.install_script(path.name), data=data, timeout_s=_SUBMIT_S))

    def _check(self, ran: Ran) -> None:
        if ran.status == _HOME_FAILED:
            words = ran.err.strip().splitlines()
            said = words[-1][:300] if words else "it cannot be written"
            raise border.RequestRefused(
                "infra",
                f"Argosy cannot write to ~/.argosy on {self.settings.where}: {said}; "
                "free some space or mend its rights",
            )
        if ran.status:
            raise refusal(ran.err, self.name)

    async def release(self, claim_id: str) -> None:
        """Cancels what there is of a claim, and waits until Slurm has taken its nodes back."""
        left = ""
        for hard in (False, True, True):
            ran = await self._runner.run(script.release_script(claim_id, hard=hard), timeout_s=_RELEASE_S)
            self.jobs.forget()
            if ran.status and not is_unknown_job(ran.err):
                self._check(ran)
            left = ran.out.decode("utf-8", "replace").strip()
            if not left:
                return
        raise border.Transient(
            f"job {left.splitlines()[0]} of {claim_id} is cancelled and still completing: Slurm waits for "
            "its processes or an epilog",
            5,
        )

    async def _note(self, claim: Claim, order: script.Order) -> None:
        """Native mode: the claim is a note, and holds nothing until a job runs on it."""
        choice = claim.choice
        note = NativeClaim(
            claim_id=claim.id,
            tag=claim.tag,
            count=claim.count,
            order=order,
            gres=order.gres.rpartition(":")[0],
            accelerator=choice.accelerator,
            shards=order.gres if choice.accelerators_milli % 1000 else "",
            devices=-(-choice.accelerators_milli // 1000),
            cpus_milli=choice.cpus_milli,
            memory_bytes=choice.memory_bytes,
        )
        ran = await self._runner.run(native_script.note_script(claim.id), data=msgspec.json.encode(note))
        if ran.out.strip() == script.RELEASED.encode():
            raise border.RequestRefused("claim", f"{claim.id} was released before")
        self._check(ran)

    async def reach(self, job_id: str, node: str) -> Channel:
        """A stream to the agent on a node of a job. Raises Unreachable."""
        jobs = await self.jobs.listed(fresh=False)
        if job_id.startswith(NATIVE):
            return await self._speaker(job_id.removeprefix(NATIVE)).open()
        job = next((each for each in jobs if each.id == job_id), None)
        if job is None or job.state not in OCCUPYING or node not in job.nodes:
            raise border.Unreachable(f"job {job_id} has no node {node} at present")
        live = {each.id for each in jobs}
        for key in [each for each in self._carriers if each[0] not in live]:
            del self._carriers[key]
        return await self._carrier(job_id, node).open()

    def _speaker(self, claim_id: str) -> Speaker:
        note = self.jobs.notes.get(claim_id)
        for old in [each for each in self._speakers if each not in self.jobs.notes]:
            del self._speakers[old]
        if note is None:
            raise border.Unreachable(f"there is no claim {claim_id} in native mode")
        if claim_id not in self._speakers:
            self._speakers[claim_id] = Speaker(NativeNode(note, self._runner, self._looks, self._arrays))
        return self._speakers[claim_id]

    def _carrier(self, job_id: str, node: str) -> Carrier:
        """All streams to one node go through one step: each step costs Slurm's controller and the node."""
        carrier = self._carriers.get((job_id, node))
        if carrier is None:
            ours = self.settings
            command = script.connect_command(job_id, node, ours.node_dir, self._agent().name, ours.python)
            carrier = self._carriers[job_id, node] = Carrier(lambda: self._runner.open(command))
        return carrier

    async def _open_up(self, job_id: str, node: str) -> None:
        """The step to a node starts while its agent does: whoever needs it finds it there."""
        try:
            channel = await self._carrier(job_id, node).open()
        except border.BorderError:
            return  # whoever needs it tries again, and tells
        channel.writer.close()
