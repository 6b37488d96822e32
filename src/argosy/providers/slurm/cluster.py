"""One cluster: what a claim is there, and how its job is submitted, seen and cancelled.

The queue of Slurm is the only memory: a job is called like its claim and carries the tag of the database
that ordered
it. Listings are shared: whoever asks while one is under way gets the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from argosy.infra import border
from argosy.infra.agent_port import Channel
from argosy.infra.ssh import Ran
from argosy.infra.tombstones import is_claim_id
from argosy.model.facts import ClaimFact, ClaimState, NodeSighting
from argosy.model.ids import Clock
from argosy.model.offer import Offer
from argosy.model.rows import Claim
from argosy.providers.slurm import script
from argosy.providers.slurm.listing import SINFO, Job, NodeGroup, parse_sinfo, parse_squeue, parse_version
from argosy.providers.slurm.offers import (
    Estimate,
    NodeKind,
    estimate_of,
    gres_of_type,
    node_kinds,
    offers_of,
    test_options,
)
from argosy.providers.slurm.runner import Runner
from argosy.providers.slurm.settings import ClusterSettings, TaskOptions
from argosy.providers.slurm.words import (
    ENDED_BY_ITSELF,
    FROZEN,
    OCCUPYING,
    claim_state,
    end_text,
    is_unknown_job,
    pending_error,
    pending_text,
    refusal,
)

_MIB: Final = 1 << 20
_ESTIMATE_S: Final = 60.0  # an older estimate of a start is asked for again
_TAKEN_S: Final = 600.0  # so is whether a partition takes our jobs
_SUBMIT_S: Final = 60.0
_RELEASE_S: Final = 90.0
_REACH_S: Final = 30.0  # a step may wait for the controller
_FRESH_S: Final = 1.0  # a younger list of jobs does for claims that are named
_CALM_S: Final = 60.0  # when for so long nothing has changed
_CALM_FRESH_S: Final = 5.0  # one that is so old does, too
_GROUPS_FRESH_S: Final = 5.0
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
        self.runner = runner
        self._clock = clock
        self._agent = agent
        self._version: tuple[int, int] | None = None
        self._jobs: list[Job] = []
        self._jobs_s = float("-inf")
        self._changed_s = clock.monotonic_s()
        self._listing = asyncio.Lock()
        self._submits: dict[str, str] = {}  # claims that are just submitted, and their tags
        self._submitted = 0  # how many were
        self._groups: list[NodeGroup] = []
        self._groups_s = float("-inf")
        self._looking = asyncio.Lock()
        self._addresses: dict[str, dict[str, str]] = {}  # by job: node -> address
        self._estimates: dict[tuple[str, str], tuple[float, Estimate]] = {}
        self._last_words: dict[str, str] = {}  # of jobs that ended by themselves

    # -- what there is ---------------------------------------------------------------------------------------

    async def version(self) -> tuple[int, int]:
        """Of Slurm here. Raises a border error."""
        if self._version is None:
            ran = await self.runner.run("command -v sbatch >/dev/null || exit 127; sinfo --version")
            if ran.status == 127:
                raise border.RequestRefused(
                    "infra", f"Slurm is not installed on {self.where}: there is no `sbatch` on the PATH"
                )
            self._version = parse_version(ran.out.decode("utf-8", "replace"))
        return self._version

    @property
    def where(self) -> str:
        return self.settings.login or "this machine"

    async def kinds(self, *, fresh_s: float = _GROUPS_FRESH_S) -> list[NodeKind]:
        """Kinds of nodes by partition, not older than `fresh_s` seconds. Raises a border error."""
        async with self._looking:
            if self._clock.monotonic_s() - self._groups_s > fresh_s:
                ran = await self.runner.run(f"sinfo -h -e -o '{SINFO}'")
                if ran.status:
                    raise refusal(ran.err, self.name)
                self._groups = parse_sinfo(ran.out.decode("utf-8", "replace"))
                self._groups_s = self._clock.monotonic_s()
            return node_kinds(self._groups)

    async def offers(self, provider: str) -> list[Offer]:
        kinds = await self.kinds(fresh_s=0.5)
        await self._estimate(kinds)
        return offers_of(
            kinds,
            provider=provider,
            cluster=self.name,
            named=self.settings.gres,
            now_ms=self._clock.now_ms(),
            estimates={key: told for key, (_, told) in self._estimates.items()},
        )

    async def _estimate(self, kinds: Sequence[NodeKind]) -> None:
        """Asks Slurm when a job on one node of each kind would start, and whether it is taken at all: now and
        then only, since each answer costs the controller a pass of its scheduler."""
        now_s, ours = self._clock.monotonic_s(), self.settings
        asked = []
        for kind in kinds:
            known = self._estimates.get((kind.partition, kind.type))
            lasts_s = _ESTIMATE_S if known and not kind.idle else _TAKEN_S
            if kind.is_up and kind.most and (known is None or now_s - known[0] > lasts_s):
                asked.append(kind)
        if not asked:
            return
        wishes = [test_options(kind, ours) for kind in asked]
        ran = await self.runner.run(script.probe_script(wishes))
        now, *lines = ran.out.decode("utf-8", "replace").splitlines() or ["now"]
        answers = {number: text for number, _, text in (line.partition(" ") for line in lines)}
        for number, kind in enumerate(asked):
            scope = f"{self.name}/{kind.partition}"
            told = estimate_of(answers.get(str(number), ""), now.removeprefix("now ").strip(), scope)
            self._estimates[kind.partition, kind.type] = (now_s, told)

    async def jobs(self, *, fresh: bool) -> list[Job]:
        """Every job of a claim, newest news. `fresh`: what happened before this call is in it."""
        asked_s = self._clock.monotonic_s()
        fresh_s = _CALM_FRESH_S if asked_s - self._changed_s > _CALM_S else _FRESH_S
        if not fresh and not self._submits and asked_s - self._jobs_s < fresh_s:
            return self._jobs
        async with self._listing:
            if self._jobs_s < asked_s or self._submits:
                began_s = self._clock.monotonic_s()
                ran = await self.runner.run(script.list_script())
                if ran.status:
                    raise refusal(ran.err, self.name)
                found = parse_squeue(ran.out.decode("utf-8", "replace"))
                ours = [job for job in found if is_claim_id(job.name)]
                if [(job.id, job.state) for job in ours] != [(job.id, job.state) for job in self._jobs]:
                    self._changed_s = began_s
                self._jobs, self._jobs_s = ours, began_s
            return self._jobs

    # -- claims ----------------------------------------------------------------------------------------------

    async def facts(self, claim_ids: Sequence[str]) -> list[ClaimFact]:
        """What Slurm knows of claims (of all when none is named)."""
        ended = self._submitted
        jobs = await self.jobs(fresh=not claim_ids)
        while self._submitted != ended:  # a job came while the list was made
            ended = self._submitted
            jobs = await self.jobs(fresh=True)
        submitting = dict(self._submits)
        by_claim: dict[str, list[Job]] = {}
        for job in jobs:
            if not claim_ids or job.name in claim_ids:
                by_claim.setdefault(job.name, []).append(job)
        unknown = [job for each in by_claim.values() for job in each if self._wants_addresses(job)]
        if unknown:
            await self._learn_addresses(unknown)
        told = [_telling(each) for each in by_claim.values()]
        await asyncio.gather(*(self._hear(job) for job in told if job.state in ENDED_BY_ITSELF))
        facts = [self._fact(job) for job in told]
        for claim_id, tag in submitting.items():  # their jobs may be there before the next list is
            if claim_id not in by_claim and (not claim_ids or claim_id in claim_ids):
                text = "is being submitted"
                facts.append(ClaimFact(claim_id=claim_id, state=ClaimState.PENDING, detail=text, tag=tag))
        return facts

    def _fact(self, job: Job) -> ClaimFact:
        state, tag = claim_state(job.state), script.tag_of(job.comment) or ""
        if state is ClaimState.PENDING:
            text = pending_text(job.reason, job.start)
            return ClaimFact(claim_id=job.name, state=state, detail=text, tag=tag)
        if state is not ClaimState.HELD:
            said = self._last_words.get(job.id, "")
            text = end_text(job.state, job.reason) + (f": {said}" if said else "")
            return ClaimFact(claim_id=job.name, state=state, detail=text, tag=tag)
        known = self._addresses.get(job.id, {})
        nodes = tuple(
            NodeSighting(
                index=index,
                address=f"{self.name}/{job.id}/{node}",
                ip=known.get(node, "127.0.0.1"),
                alive=job.state not in FROZEN,
            )
            for index, node in enumerate(job.nodes)
        )
        detail = "Slurm has suspended the job for another one" if job.state in FROZEN else ""
        return ClaimFact(claim_id=job.name, state=state, nodes=nodes, tag=tag, detail=detail)

    async def _hear(self, job: Job) -> None:
        """What a job that ended by itself said last."""
        if job.id not in self._last_words:
            ran = await self.runner.run(script.log_script(job.name))
            lines = [line.strip() for line in ran.out.decode("utf-8", "replace").splitlines() if line.strip()]
            if len(self._last_words) > 1000:
                self._last_words.clear()
            self._last_words[job.id] = lines[-1][:300] if lines else ""

    def _wants_addresses(self, job: Job) -> bool:
        return job.state == "RUNNING" and job.id not in self._addresses

    async def _learn_addresses(self, jobs: Sequence[Job]) -> None:
        nodes = sorted({node for job in jobs for node in job.nodes})
        ran = await self.runner.run(script.address_script(",".join(nodes)))
        found = _addresses(ran)
        for job in jobs:
            self._keep_addresses(job, found)

    def _keep_addresses(self, job: Job, found: dict[str, str]) -> None:
        if len(self._addresses) > 1000:  # of jobs that are long over
            self._addresses.clear()
        self._addresses[job.id] = {node: found[node] for node in job.nodes if node in found}

    async def ensure(self, claim: Claim, options: TaskOptions) -> None:
        """Submits the claim's job unless it is there, and waits a moment for its start."""
        for job in await self.jobs(fresh=False):
            if job.name == claim.id and claim_state(job.state) is ClaimState.PENDING:
                error = pending_error(job.reason)
                if error is not None:
                    raise error
                return
        kind = await self._kind_for(claim)
        await self.version()
        order = self._order(claim, options, kind)
        soon = kind is not None and kind.idle >= claim.count
        self._submits[claim.id] = claim.tag
        try:
            made = await self._submit(order, wait=soon)
        finally:
            self._submits.pop(claim.id, None)
            self._submitted += 1
            self._jobs_s = float("-inf")
        if made is not None and claim_state(made.state) is ClaimState.PENDING:
            error = pending_error(made.reason)
            if error is not None:
                await self.release(claim.id)
                raise error

    async def _kind_for(self, claim: Claim) -> NodeKind | None:
        """The kind of node that the claim's offer names. Raises OutOfCapacity when so many nodes of it will
        never be
        free at once: Slurm would keep such a job for ever."""
        offer = claim.choice.offer
        scope = "/".join(part for part in (self.name, offer.zone) if part)
        kinds = [kind for kind in await self.kinds() if kind.partition == offer.zone]
        if not kinds:
            raise border.RequestRefused(
                "infra", f"the cluster {self.name} has no partition `{offer.zone}`; `sinfo -s` lists them"
            )
        mine = [kind for kind in kinds if kind.type == offer.shape.instance_type]
        if not mine:
            raise border.OutOfCapacity(
                scope, f"partition {scope} has no nodes {offer.shape.instance_type} any more"
            )
        kind = mine[0]
        if claim.count <= kind.most:
            return kind
        down = f"; {kind.total - kind.usable} more are down" if kind.total > kind.usable else ""
        if kind.nodes_max is not None and kind.nodes_max < claim.count:
            text = f"partition {scope} gives at most {kind.nodes_max} nodes to a job, asked for {claim.count}"
        else:
            text = f"partition {scope} has {kind.usable} nodes {kind.type}{down}, asked for {claim.count}"
        raise border.OutOfCapacity(scope, text)

    def _order(self, claim: Claim, options: TaskOptions, kind: NodeKind | None) -> script.Order:
        choice, ours = claim.choice, self.settings
        gres, feature = gres_of_type(choice.offer.shape.instance_type)
        devices = choice.accelerators_milli // 1000
        limits = [each for each in (kind.time_limit_s, kind.default_time_s) if each] if kind else []
        constraint = "&".join(each for each in (feature if devices else "", options.constraint) if each)
        memory_mib = choice.memory_bytes // _MIB
        return script.Order(
            claim_id=claim.id,
            tag=claim.tag,
            nodes=claim.count,
            partition=choice.offer.zone,
            gres=f"{gres}:{devices}" if gres and devices else "",
            cpus=-(-choice.cpus_milli // 1000),
            memory_mib=0 if kind is not None and memory_mib >= kind.memory_mib else memory_mib,
            time_s=options.time_s or (limits[0] if limits else _LONGEST_S),
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
        ran = await self.runner.run(script.submit_script(order, wait=wait), timeout_s=_SUBMIT_S)
        if ran.out.strip() == script.NO_AGENT.encode():
            await self._install()
            ran = await self.runner.run(script.submit_script(order, wait=wait), timeout_s=_SUBMIT_S)
        text = ran.out.decode("utf-8", "replace")
        if text.strip() == script.RELEASED:
            raise border.RequestRefused("claim", f"{order.claim_id} was released before")
        if ran.status in (_LIST_FAILED, _SUBMIT_FAILED):
            raise refusal(ran.err, f"{self.name}/{order.partition}")
        self._check(ran)
        jobs = parse_squeue(text)
        if not jobs:
            return None
        job = _telling(jobs)
        found = _addresses(ran)
        if found:
            self._keep_addresses(job, found)
        return job

    async def _install(self) -> None:
        path = self._agent()
        data = await asyncio.to_thread(path.read_bytes)
        self._check(await self.runner.run(script.install_script(path.name), data=data, timeout_s=_SUBMIT_S))

    def _check(self, ran: Ran) -> None:
        if ran.status == _HOME_FAILED:
            words = ran.err.strip().splitlines()
            said = words[-1][:300] if words else "it cannot be written"
            raise border.RequestRefused(
                "infra",
                f"Argosy cannot write to ~/.argosy on {self.where}: {said}; free some space or mend its "
                "rights",
            )
        if ran.status:
            raise refusal(ran.err, self.name)

    async def release(self, claim_id: str) -> None:
        """Cancels what there is of a claim, and waits until Slurm has taken its nodes back."""
        left = ""
        for hard in (False, True, True):
            ran = await self.runner.run(script.release_script(claim_id, hard=hard), timeout_s=_RELEASE_S)
            self._jobs_s = float("-inf")
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

    async def has(self, claim_id: str) -> bool:
        """Whether a job of the claim is known here, running or over."""
        return any(job.name == claim_id for job in await self.jobs(fresh=False))

    async def reach(self, job_id: str, node: str) -> Channel:
        """A stream to the agent on a node of a job. Raises Unreachable."""
        job = next((each for each in await self.jobs(fresh=False) if each.id == job_id), None)
        if job is None or job.state not in OCCUPYING or node not in job.nodes:
            raise border.Unreachable(f"job {job_id} has no node {node} at present")
        command = script.connect_command(
            job_id, node, self.settings.node_dir, self._agent().name, self.settings.python
        )
        channel = await self.runner.open(command)
        try:
            async with asyncio.timeout(_REACH_S):
                word = await channel.reader.readline()
        except (TimeoutError, OSError, ValueError):
            word = b""
        if word.strip() != b"connected":
            channel.writer.close()
            said = word.decode("utf-8", "replace").strip() or f"no step starts beside job {job_id}"
            raise border.Unreachable(f"the agent on {node} does not answer: {said}")
        return channel


def _telling(jobs: Sequence[Job]) -> Job:
    """The job that stands for a claim: the oldest that lives, else the newest. A second one can only be
    there when two
    servers ordered at once; it waits for the first to end and goes with the release."""
    live = [job for job in jobs if claim_state(job.state) in (ClaimState.PENDING, ClaimState.HELD)]
    return min(live, key=_age) if live else max(jobs, key=_age)


def _age(job: Job) -> tuple[int, str]:
    digits = job.id.partition("_")[0]
    return (int(digits) if digits.isdigit() else 0, job.id)


def _addresses(ran: Ran) -> dict[str, str]:
    """Of the lines `address NODE IP`."""
    found = {}
    for line in ran.out.decode("utf-8", "replace").splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "address":
            found[words[1]] = words[2]
    return found
