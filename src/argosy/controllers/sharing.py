"""Several managed jobs on parts of one rented machine: which may share, which machines have room, and when a
job leaves. Pure.

A place that rents whole devices gives a job that asked for a part of one a machine of its own (`takes_part`).
Jobs of the same owner that want the same kind of machine there become its **guests**: `Claim.guests` names
them, in the commit that starts them. What they ask for is counted, so four quarters share one device. The
machine goes when the job that ordered it and all guests have left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from argosy.controllers.view import Action, Put, Rows, View, event
from argosy.model.kinds import kind_of
from argosy.model.kinds.job import job_label, job_spec, job_task
from argosy.model.mounts import storage_of
from argosy.model.offer import Choice, Placement, offer_key
from argosy.model.phases import AttemptPhase, ClaimPhase, Desired, NodePhase, WorkloadPhase
from argosy.model.resources import Infra, Recovery, Resources
from argosy.model.rows import Attempt, Claim, Workload
from argosy.model.scheduling import Isolation
from argosy.model.tenancy import Tenancy
from argosy.scheduler.ask import Ask
from argosy.scheduler.estimate import History
from argosy.scheduler.inventory import Inventory, need_of
from argosy.scheduler.machines import machines_of_offers
from argosy.scheduler.requests import ask_of_job


def takes_part(choice: Choice) -> bool:
    """Whether more is rented than was asked for: a device, or many, for a part of one."""
    asked = choice.resources.accelerator
    return asked is not None and asked.is_fraction and asked.milli < choice.accelerators_milli


def orders_of(rows: Rows, job: Workload) -> list[Claim]:
    """What a job may start on: its own claims that it has not left, and one that it is a guest of."""
    own = [claim for claim in rows.claims_of(job.id) if not claim.left]
    return [*own, *rows.claims_shared_by(job.id)]


def tenants_of(rows: Rows, claim: Claim) -> list[Workload]:
    """The live workloads that use a claim: who ordered it, unless it has left, and its guests."""
    ids = claim.guests if claim.left else (claim.workload_id, *claim.guests)
    return [rows.workloads[id] for id in ids if id in rows.workloads]


def leave(rows: Rows, job: Workload) -> list[Action]:
    """The job wants its claims no more: those that guests use stay for these, all others end."""
    changed: list[Claim] = []
    for claim in rows.claims_of(job.id):
        if claim.guests and claim.desired is Desired.RUN:
            changed += [] if claim.left else [msgspec.structs.replace(claim, left=True)]
        elif claim.desired is not Desired.END:
            changed.append(msgspec.structs.replace(claim, desired=Desired.END))
    for claim in rows.claims_shared_by(job.id):
        guests = tuple(id for id in claim.guests if id != job.id)
        over = claim.left and not guests
        desired = Desired.END if over else claim.desired
        changed.append(msgspec.structs.replace(claim, guests=guests, desired=desired))
    return [Put(claim) for claim in changed]


def beside(rows: Rows, claim: Claim, job: Workload) -> list[tuple[Workload, Attempt]]:
    """What others run on the machine of a claim."""
    others = [other for other in tenants_of(rows, claim) if other.id != job.id]
    return [(other, attempt) for other in others if (attempt := rows.attempt_of(other.id)) is not None]


def waits_for_setup(rows: Rows, claim: Claim, job: Workload) -> bool:
    """Whether somebody else is just setting the machine up: two setups at once would disturb each other."""
    preparing = (AttemptPhase.PLACED, AttemptPhase.PREPARING)
    return bool(job_task(job).setup) and any(
        attempt.phase in preparing and job_task(other).setup for other, attempt in beside(rows, claim, job)
    )


class Shares:
    """The rented machines that have room for others while one decision is made."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._open: dict[str, Claim] | None = None
        self._asks: dict[str, list[Workload]] = {}  # who is on each of them
        self._changed: set[str] = set()

    def join(self, job: Workload, choices: Sequence[Choice]) -> list[Action] | None:
        """Start a job as a guest on a machine that is there or ordered; None: there is none with room."""
        if not _may_share(job) or not any(map(takes_part, choices)):
            return None
        keys = {offer_key(each.offer): each.resources for each in choices if takes_part(each)}
        for claim in self._claims().values():
            wish = keys.get(offer_key(claim.choice.offer))
            if wish is None or _machine_of(wish) != _machine_of(claim.choice.resources):
                continue
            tenants = self._asks[claim.id]
            if not _alike(job, tenants[0]) or not _has_room(claim, [*tenants, job]):
                continue
            tenants.append(job)
            assert self._open is not None
            self._open[claim.id] = msgspec.structs.replace(claim, guests=(*claim.guests, job.id))
            self._changed.add(claim.id)
            offer = claim.choice.offer
            place = " ".join(part for part in (offer.provider, offer.zone or offer.region) if part)
            text = f"shares the machine of job {job_label(tenants[0])} in {place}"
            starting = msgspec.structs.replace(job, phase=WorkloadPhase.STARTING)
            return [Put(starting), event(self._view, job.id, "placed", text)]
        return None

    def opened(self, job: Workload, actions: Iterable[Action]) -> None:
        """What has just been ordered for a job may have room for others."""
        if not _may_share(job):
            return
        for action in actions:
            if isinstance(action, Put) and isinstance(action.row, Claim) and takes_part(action.row.choice):
                self._claims()[action.row.id] = action.row
                self._asks[action.row.id] = [job]

    def settled(self, actions: Iterable[Action]) -> list[Action]:
        """The same actions, with the guests in the rows of the claims."""
        if not self._changed or self._open is None:
            return list(actions)
        rest = [each for each in actions if not (isinstance(each, Put) and each.row.id in self._changed)]
        return [*rest, *(Put(self._open[id]) for id in sorted(self._changed))]

    def _claims(self) -> dict[str, Claim]:
        if self._open is None:
            rows, self._open = self._view.rows, {}
            for claim in rows.claims.values():
                tenants = tenants_of(rows, claim) if _takes_guests(rows, claim) else []
                if tenants and all(map(_may_share, tenants)):
                    self._open[claim.id], self._asks[claim.id] = claim, tenants
        return self._open


def _takes_guests(rows: Rows, claim: Claim) -> bool:
    """Whether it is a rented machine of which a part is used, and that nobody is about to lose."""
    wanted = claim.desired is Desired.RUN and claim.phase in (ClaimPhase.REQUESTED, ClaimPhase.HELD)
    if not wanted or claim.count != 1 or claim.placements or not takes_part(claim.choice):
        return False
    nodes = rows.nodes_of_claim(claim.id)
    return all(node.phase in (NodePhase.BOOTING, NodePhase.READY) for node in nodes)


def _may_share(job: Workload) -> bool:
    """A job on one node that wants nothing of its machine that a neighbour could disturb: no ports, no
    deadline, no device of its own, no fixed place in a group, and no bucket that is mounted."""
    if not kind_of(job).runs:
        return False
    spec = job_spec(job)
    task = spec.task
    together = spec.member is not None and spec.member.together
    is_other = not spec.managed or spec.sitting is not None or spec.replica is not None or together
    is_wide = task.num_nodes != 1 or task.min_nodes > 0
    writes = storage_of(task) or task.returns or any(wish.ports for wish in task.resources)
    timed = task.deadline_s is not None or task.deadline_at_ms is not None
    alone = timed or task.scheduling.isolation is Isolation.HARDWARE
    return not (is_other or is_wide or writes or alone)


def _alike(one: Workload, other: Workload) -> bool:
    """Same owner, and the same files: the working directory of a node is one folder."""

    def key(job: Workload) -> tuple[object, ...]:
        task = job_task(job)
        return (
            (job.user, job.project, job.queue, task.config),
            (task.workdir_tree, task.workdir_git, task.file_mounts, task.volumes),
        )

    return key(one) == key(other)


def _machine_of(wish: Resources) -> Resources:
    """What a wish says of the machine as a whole, beyond its place and its part of it."""
    return msgspec.structs.replace(
        wish, infra=Infra(), accelerator=None, cpus=None, memory=None, memory_per_cpu_bytes=0,
        recovery=Recovery(), priority=0, priority_class=None, autostop=None, hedge=False, preset="",
        max_hourly_micro_usd=None, areas=(), excluded=(), location="", instance_type=None,
    )  # fmt: skip


def _has_room(claim: Claim, jobs: Sequence[Workload]) -> bool:
    """Whether all of them fit on one machine of that kind."""
    inventory = Inventory(machines_of_offers([claim.choice.offer], Tenancy()))
    return all(take_seat(inventory, job, part_asked(job, claim)) is not None for job in jobs)


def part_asked(job: Workload, claim: Claim) -> int:
    """Milli-GPU that the job wants of the model of a claim; 0: it names none."""
    for wish in job_task(job).resources:
        asked = wish.accelerator
        models = (None, claim.choice.accelerator)
        if asked is not None and asked.is_fraction and asked.model in models:
            return asked.milli
    return 0


def take_seat(inventory: Inventory, job: Workload, milli: int) -> Placement | None:
    """The part of a machine that the job gets, as the pool scheduler gives it; it is taken. None: nothing
    fits."""
    ask = one_node(ask_of_job(job, Tenancy(), History()), milli)
    found = inventory.find(ask) if ask.needs else None
    if found is None:
        return None
    inventory.take(job.id, need_of(ask, found), found)
    return found[0]


def one_node(ask: Ask, milli: int) -> Ask:
    """What one rank asks for of a device: the candidates with this part of it."""
    wanted = tuple(need for need in ask.needs if need.gpu_milli == milli)
    return msgspec.structs.replace(ask, needs=wanted, num_nodes=1, spread="")
