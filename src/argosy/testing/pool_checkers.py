"""Laws of shared machines: room, limits, evictions, and books that agree with rows.

What can be seen in one commit is checked at the commit (`committed`), the rest once a virtual minute against
pools that are made from the rows alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from argosy.controllers.pool.caches import PoolCaches, caches_of
from argosy.controllers.pool.decide import decide_jobs, decide_owned
from argosy.controllers.view import Action, Put, View
from argosy.model.kinds import gangs, kind_of
from argosy.model.kinds.job import job_state
from argosy.model.offer import Capacity, Placement, machine_id, place_of
from argosy.model.phases import AttemptPhase, Desired, NodePhase, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Attempt, Claim, Node, Row, Workload
from argosy.model.tenancy import Amounts, SharePolicy, Tenancy
from argosy.scheduler.ask import Ask, Decision, Machine, Running
from argosy.scheduler.cache import PoolCache
from argosy.scheduler.estimate import expected_end_ms
from argosy.scheduler.inventory import Inventory, OverCommitted, need_of
from argosy.scheduler.quota import amounts_of
from argosy.scheduler.reclaim import may_reclaim
from argosy.scheduler.requests import holds_room, queue_of, scheduling_of
from argosy.testing.world import World

if TYPE_CHECKING:
    from argosy.testing.sim_provider import SimProviders

WAIT_LIMIT_S: Final = (
    900.0  # how long something may be left undone that a fresh pool would do: servers restart, calls fail
)
EVERY_S: Final = 60.0  # how often pools are made from the rows alone, the dearest question
GUARANTEE_LIMIT_S: Final = 300.0  # how long somebody may wait for what is guaranteed and could be given back

Sums = dict[tuple[str, int | str], int]  # (machine, `cpus` | `memory` | index of a device) → amount


class Eviction(msgspec.Struct, frozen=True):
    """One job was told to make room."""

    at_s: float
    job_id: str
    for_id: str


class PoolLaws:
    """What they find goes to `world.violate`."""

    def __init__(self, world: World, providers: SimProviders) -> None:
        self.world = world
        self.tenancy = Tenancy()
        self._clocks_jump = world.faults.clock_jumps_per_h > 0
        self.evictions: list[Eviction] = []
        self._began_s: dict[str, float] = {}  # id of an attempt or claim → when it was written first
        self._starts: dict[str, float] = {}  # id of a workload → when it last began to hold something
        self._shrank_s: dict[str, float] = {}  # id of a cluster → when it last stopped, or lost a node
        self._machines = _machines_of(providers)
        self._found: dict[str, tuple[str, str, float]] = {}  # what was undone at the last look
        self._looked_s = float("-inf")

    # -- every commit ---------------------------------------------------------------------------------------

    def committed(self, changes: Sequence[tuple[Row | None, Row]]) -> None:
        """(row before, row now) of one commit, when `world.rows` has it already."""
        for old, row in changes:
            match row:
                case Claim():
                    if holds_room(row) and not (isinstance(old, Claim) and holds_room(old)):
                        self._began_s.setdefault(row.id, self.world.now_s)
                        self._starts[row.workload_id] = self.world.now_s
                        if row.placements:
                            self._check_machines(row)
                            self._check_limits(row.workload_id, None)
                case Attempt():
                    if old is None:
                        self._began_s[row.id] = self.world.now_s
                        self._starts[row.workload_id] = self.world.now_s
                        self._check_shares(row)
                        job = self.world.rows.get(row.workload_id)
                        if isinstance(job, Workload) and job.host_id:
                            self._check_limits(job.id, job.host_id)
                    elif (
                        row.phase is AttemptPhase.ENDING
                        and row.reason is Reason.EVICTED
                        and old.phase is not AttemptPhase.ENDING
                    ):
                        self._check_eviction(row.workload_id, row.id, row.detail)
                case Node():
                    if row.phase is not NodePhase.READY and old is not None and old.phase is not row.phase:
                        self._shrank_s[row.workload_id] = self.world.now_s
                case Workload():
                    if kind_of(row).hosts and row.phase is not WorkloadPhase.RUNNING:
                        self._shrank_s[row.id] = self.world.now_s
                    self._check_ended(row)
                    evictions = _evictions(old) if isinstance(old, Workload) else 0
                    if _evictions(row) > evictions and not job_state(row).attempt_id:
                        self._check_eviction(row.id, "", row.detail)

    def _held_on(self, machine_id: str) -> list[tuple[Claim, Placement]]:
        return [
            (claim, place)
            for claim in self.world.rows.values()
            if isinstance(claim, Claim) and holds_room(claim)
            for place in claim.placements
            if place.node_id == machine_id
        ]

    def _check_machines(self, claim: Claim) -> None:
        for where in sorted({place.node_id for place in claim.placements}):
            cpus, memory, devices, device_memory = self._machines.get(where, (0, 0, 0, 0))
            held = [place for _, place in self._held_on(where)]
            if sum(place.cpus_milli for place in held) > cpus:
                self.world.violate("room", f"{where} holds more than {cpus} milli-CPUs")
            if sum(place.memory_bytes for place in held) > memory:
                self.world.violate("room", f"{where} holds more than {memory} bytes")
            self._check_devices(where, held, dict.fromkeys(range(devices), device_memory))

    def _check_devices(self, where: str, held: Iterable[Placement], devices: Mapping[int, int]) -> None:
        """`devices`: memory in bytes, by index."""
        milli: dict[int, int] = {}
        memory: dict[int, int] = {}
        for place in held:
            for share in place.devices:
                milli[share.index] = milli.get(share.index, 0) + share.milli
                memory[share.index] = memory.get(share.index, 0) + share.memory_bytes
        for index, amount in sorted(milli.items()):
            if index not in devices or amount > 1000:
                self.world.violate("room", f"device {index} of {where} holds {amount} of 1000")
            elif memory[index] > devices[index]:
                self.world.violate("room", f"device {index} of {where} has {memory[index]} bytes promised")

    def _check_shares(self, attempt: Attempt) -> None:
        """Memory of shares on nodes; who does not say `any` shares a device within the project only."""
        rows = self.world.rows
        live = [one for one in rows.values() if isinstance(one, Attempt) and one.is_live]
        for node_id in sorted({place.node_id for place in attempt.placements}):
            node = rows.get(node_id)
            if not isinstance(node, Node):
                continue
            held = [place for one in live for place in one.placements if place.node_id == node_id]
            self._check_devices(node_id, held, {d.index: d.memory_bytes for d in node.facts.devices})
            users: dict[int, list[Workload]] = {}
            for one in live:
                job = rows.get(one.workload_id)
                for place in one.placements:
                    for share in place.devices if place.node_id == node_id else ():
                        if isinstance(job, Workload):
                            users.setdefault(share.index, []).append(job)
            for index, jobs in users.items():
                closed = any(scheduling_of(job).share != "any" for job in jobs)
                if len({job.project for job in jobs}) > 1 and closed:
                    names = [job.id for job in jobs]
                    self.world.violate("tenants", f"device {index} of {node_id} is shared by {names}")

    def _check_limits(self, workload_id: str, cluster_id: str | None) -> None:
        """Of all queues above who has just started: usage within their limits."""
        workload = self.world.rows.get(workload_id)
        if not isinstance(workload, Workload):
            return
        owner = ""
        cluster = self.world.rows.get(cluster_id or "")
        if isinstance(cluster, Workload):
            owner = queue_of(cluster, self.tenancy)
        leaf = queue_of(workload, self.tenancy)
        usage = self.usage(cluster_id)
        for queue in self.tenancy.queues:
            is_above = leaf == queue.path or leaf.startswith(f"{queue.path}/")
            counts_outside = owner == queue.path or owner.startswith(f"{queue.path}/")
            if not is_above or counts_outside:
                continue
            used: Amounts = {}
            for path, amounts in usage.items():
                if path == queue.path or path.startswith(f"{queue.path}/"):
                    for name, amount in amounts.items():
                        used[name] = used.get(name, 0) + amount
            for name, most in queue.limit.items():
                if used.get(name, 0) > most:
                    self.world.violate(
                        "limits", f"{queue.path} uses {used[name]} {name} of {most} once {workload_id} starts"
                    )

    def usage(self, cluster_id: str | None) -> dict[str, Amounts]:
        """What runs, by leaf: on owned machines, or on the nodes of a cluster."""
        rows = self.world.rows
        total: dict[str, Amounts] = {}
        for row in rows.values():
            amounts: Amounts = {}
            if cluster_id is None and isinstance(row, Claim) and holds_room(row) and row.placements:
                owner, places = rows.get(row.workload_id), row.placements
                model = row.choice.accelerator
            elif cluster_id is not None and isinstance(row, Attempt) and row.is_live:
                owner, places = rows.get(row.workload_id), row.placements
                model = self._model_of(places)
            else:
                continue
            if not isinstance(owner, Workload) or (cluster_id and owner.host_id != cluster_id):
                continue
            amounts = total.setdefault(queue_of(owner, self.tenancy), {})
            gpus = sum(share.milli for place in places for share in place.devices)
            for name, amount in (
                ("jobs", 1),
                ("cpus", sum(place.cpus_milli for place in places)),
                ("memory", sum(place.memory_bytes for place in places)),
                ("gpus", gpus),
                *(((f"gpus/{model}", gpus),) if model else ()),
            ):
                amounts[name] = amounts.get(name, 0) + amount
        return total

    def _model_of(self, places: Sequence[Placement]) -> str:
        for place in places:
            node = self.world.rows.get(place.node_id)
            for share in place.devices if isinstance(node, Node) else ():
                assert isinstance(node, Node)
                return next((d.model for d in node.facts.devices if d.index == share.index), "")
        return ""

    # -- evictions ------------------------------------------------------------------------------------------

    def _check_eviction(self, job_id: str, attempt_id: str, why: str) -> None:
        job = self.world.rows.get(job_id)
        if not isinstance(job, Workload):
            return
        attempt = self.world.rows.get(attempt_id)
        for_id = attempt.room_for if isinstance(attempt, Attempt) else ""
        self.evictions.append(Eviction(self.world.now_s, job_id, for_id))
        if not scheduling_of(job).preemptible:
            self.world.violate("protected", f"{job_id} is not preemptible and is ended: {why}")
        if not self.tenancy.policy.preemption and not self.tenancy.policy.consolidation:
            self.world.violate("protected", f"{job_id} is ended where nobody may be: {why}")
        claims = [
            row
            for row in self.world.rows.values()
            if isinstance(row, Claim) and row.workload_id == job_id and holds_room(row)
        ]
        began_s = self._began_s.get(claims[-1].id if claims else attempt_id)
        age_s = self.world.now_s - began_s if began_s is not None else 0.0
        if not self._clocks_jump and age_s < self.tenancy.policy.min_runtime_s - 1:
            self.world.violate("protected", f"{job_id} is ended after {age_s:.0f} s: {why}")

    def _check_ended(self, job: Workload) -> None:
        if job.phase is WorkloadPhase.FINISHED and job.reason is Reason.EVICTED:
            self.world.violate("evicted-goes-on", f"{job.id} is over because it made room")

    def check_settled(self) -> None:
        """Nobody was preempted for nothing: the request it was for has started since, or is gone, or its
        cluster was stopped or lost a node after that."""
        broken = {
            row.workload_id
            for row in self.world.rows.values()
            if isinstance(row, Node) and row.phase is NodePhase.UNREACHABLE
        }
        for each in self.evictions:
            row = self.world.rows.get(each.for_id)
            if not isinstance(row, Workload) or row.desired is not Desired.RUN or not row.is_live:
                continue
            if row.host_id in broken or self._shrank_s.get(row.host_id or "", -1.0) >= each.at_s:
                continue
            if self._starts.get(row.id, -1.0) < each.at_s:
                self.world.violate(
                    "for-somebody", f"{each.job_id} made room for {row.id}, which never started"
                )

    # -- every cycle ----------------------------------------------------------------------------------------

    def watch(self, book: PoolCaches) -> None:
        """Look at everything that the pools of this server decide from now on."""
        book.kind = _watched(book.kind, self)

    def check_cycle(self, books: PoolCache, decision: Decision, now_ms: int) -> None:
        """No start delays a reservation: where, at its time, its places could be had beside what is expected
        to run on, they still can beside what has just started, too."""
        held = books.pool.held
        started = {start.ask_id for start in decision.starts}
        for reservation in decision.reservations if started else ():
            before, new = dict[str, Sums](), Sums()
            for job_id, job in held.items():
                ends_ms = expected_end_ms(job.running, now_ms)
                if job.running.leaving or (ends_ms is not None and ends_ms <= reservation.starts_at_ms):
                    continue
                before[job_id] = _sums(job.running.placements)
            wanted = _sums(reservation.placements)
            for place, amount in wanted.items():
                there = _there(books.machines.get(place[0]), place[1])
                old = sum(sums.get(place, 0) for job_id, sums in before.items() if job_id not in started)
                new[place] = sum(before[job_id].get(place, 0) for job_id in started & before.keys())
                if new[place] and old + amount <= there < old + amount + new[place]:
                    late = sorted(job_id for job_id in started & before.keys() if place in before[job_id])
                    self.world.violate(
                        "reservation",
                        f"{late[0]} started where {reservation.ask_id} was to start at "
                        f"{reservation.starts_at_ms}",
                    )
                    break

    # -- every minute ---------------------------------------------------------------------------------------

    def check(self, views: Callable[[], Iterable[View]]) -> dict[str, tuple[str, str, float]]:
        """What servers leave undone, against one set of pools made from the rows alone, as of this minute."""
        if self.world.now_s - self._looked_s >= EVERY_S:
            self._found, self._looked_s = {}, self.world.now_s
            for view in views():
                fresh = msgspec.structs.replace(view, pools=PoolCaches())
                self.check_books(view, fresh)
                self._found |= self._starved(view, fresh)
                self._found |= _undone(fresh)  # last: its cycles change the fresh books
        return self._found

    def _starved(self, view: View, fresh: View) -> dict[str, tuple[str, str, float]]:
        """Who waits for what is guaranteed to its queue, while machines that no reservation of somebody
        before it waits for have enough that is free or held by those who may be ended for it and were
        protected long enough: it has to start."""
        tenancy, now_ms, kept = view.rows.tenancy, view.now_ms, view.pools
        if kept is None or not tenancy.policy.preemption or tenancy.policy.backfill == "none":
            return {}
        pool = kept.owned(view)[0].pool
        places = {each.ask_id: each.placements for each in pool.reservations}
        line = [ask.id for ask in pool.line(now_ms)]
        books, wanted = caches_of(fresh).owned(fresh)
        quotas = books.pool.quotas
        quotas.set_capacity(books.pool.inventory.capacity())
        found = {}
        for id, ask in books.known.items():
            if not isinstance(ask, Ask) or len(ask.needs) > 1 or ask.not_before_ms > now_ms:
                continue
            amounts = amounts_of(ask.needs[0], ask.num_nodes)
            owed = quotas.below_guarantee(ask.queue, amounts) and quotas.over(ask.queue, amounts) is None
            if not owed or wanted[id].elsewhere or wanted[id].unsure:
                continue
            before = line[: line.index(id)] if id in line else line
            spared = {place.node_id for other in before for place in places.get(other, ())}
            if self._could_be_given(books, ask, amounts, spared, tenancy.policy, now_ms):
                text = f"{id} has a right to room of {ask.queue} and does not get it"
                found[f"starved {id}"] = ("guaranteed", text, GUARANTEE_LIMIT_S)
        return found

    def _could_be_given(
        self,
        books: PoolCache,
        first: Ask,
        amounts: Amounts,
        spared: set[str],
        policy: SharePolicy,
        now_ms: int,
    ) -> bool:
        """Whether it would find room if those had gone who may be ended for it without doubt."""
        quotas = books.pool.quotas
        inventory = Inventory(
            msgspec.structs.replace(machine, open=machine.open and machine.id not in spared)
            for machine in books.machines.values()
        )
        victims: list[Running] = []
        for id, value in sorted(books.known.items()):
            if not isinstance(value, Running):
                continue
            try:
                inventory.take(id, need_of(value.ask, value.placements), value.placements)
            except OverCommitted:
                return False
            protected_ms = max(1, policy.min_runtime_s * 1000) << min(value.ask.evictions, 10)
            may_go = value.ask.preemptible and not value.leaving and value.started_ms + protected_ms <= now_ms
            if may_go:
                victims.append(value)
        mark = quotas.mark()
        for value in victims:
            need = need_of(value.ask, value.placements)
            models = books.pool.models_of(need, value.placements)
            given = amounts_of(need, value.ask.num_nodes, models)
            if may_reclaim(quotas, first.queue, amounts, value.ask.queue, given):
                quotas.refund(value.ask.id)
                inventory.give(value.ask.id)
        quotas.rollback(mark)
        return inventory.find(first) is not None

    def check_books(self, view: View, fresh: View) -> None:
        """The books that a server has kept against books made from the same rows."""
        kept, made = view.pools, caches_of(fresh)
        if kept is None:
            return
        pairs: list[tuple[str, PoolCache, PoolCache]] = [
            ("owned machines", kept.owned(view)[0], made.owned(fresh)[0])
        ]
        pairs += [
            (cluster.id, books, made.of_cluster(fresh, cluster)) for cluster, books in kept.clusters(view)
        ]
        for name, mine, new in pairs:
            if _compared(mine) != _compared(new):
                odd = sorted(
                    id
                    for id in mine.known.keys() | new.known.keys()
                    if mine.known.get(id) != new.known.get(id)
                )
                self.world.violate("books", f"of {name} differ from rows: {odd[:4]}")
            elif any(id.startswith("clm") for id in mine.known):
                continue  # of workloads that are over fresh books do not know whose they were
            elif mine.pool.inventory.free() != new.pool.inventory.free():
                self.world.violate("books", f"of {name}: another room is free than by the rows")
            elif _used(mine) != _used(new):
                self.world.violate("books", f"of {name}: queues use something else than what runs")


def _undone(fresh: View) -> dict[str, tuple[str, str, float]]:
    """What pools made from the rows alone would do now: a server has to do it, too, or what it became."""
    found = {}
    for subject, actions in _supposed(fresh):
        for action in actions:
            if isinstance(action, Put) and not isinstance(action.row, Claim) and action.row.rev:
                text = f"{subject} would change {action.row.id}, and nobody does"
                key = f"undone {action.row.id} {action.row.rev}"
                found[key] = ("work-conserving", text, WAIT_LIMIT_S)
    return found


def would_act(view: View) -> list[str]:
    return [
        f"{subject} is not done"
        for subject, actions in _supposed(msgspec.structs.replace(view, pools=PoolCaches()))
        if any(isinstance(action, Put) for action in actions)
    ]


def _supposed(fresh: View) -> Iterator[tuple[str, list[Action]]]:
    yield "the owned machines", decide_owned(fresh, lambda prefix: f"{prefix}-supposed")
    for row in fresh.rows.workloads.values():
        if kind_of(row).hosts and row.phase is WorkloadPhase.RUNNING and row.desired is Desired.RUN:
            yield row.id, decide_jobs(fresh, row, lambda prefix: f"{prefix}-supposed")


def _machines_of(providers: SimProviders) -> dict[str, tuple[int, int, int, int]]:
    """CPUs, memory, devices and the memory of each, of all owned machines, by id."""
    found = {}
    for sim in providers.sims():
        for offer in sim.offers:
            shape = offer.shape
            memory = shape.accelerator_memory_bytes
            for each in offer.machines:
                facts, id = each.facts, machine_id(place_of(offer), each.name)
                found[id] = facts.cpus_milli, facts.memory_bytes, len(facts.devices), memory
            if offer.machines or offer.capacity is not Capacity.OWNED:
                continue
            count = offer.nodes_max or 1
            for number in range(count):
                name = f"{offer.provider}#{number}" if count > 1 else offer.provider
                gpus = shape.accelerators_milli // 1000
                found[name] = shape.cpus_milli, shape.memory_bytes, gpus, memory
    return found


def _watched(kind: type[PoolCache], laws: PoolLaws) -> type[PoolCache]:
    class Watched(kind):  # type: ignore[misc, valid-type]  # whatever books the server has
        def cycle(self, now_ms: int) -> Decision:
            decision: Decision = super().cycle(now_ms)
            laws.check_cycle(self, decision, now_ms)
            return decision

    return Watched


def _sums(placements: Iterable[Placement]) -> Sums:
    found = Sums()
    for place in placements:
        amounts: dict[int | str, int] = {"cpus": place.cpus_milli, "memory": place.memory_bytes}
        for share in place.devices:
            amounts[share.index] = amounts.get(share.index, 0) + share.milli
        for name, amount in amounts.items():
            found[place.node_id, name] = found.get((place.node_id, name), 0) + amount
    return found


def _there(machine: Machine | None, name: int | str) -> int:
    if machine is None:
        return 0
    if name == "cpus":
        return machine.cpus_milli
    return machine.memory_bytes if name == "memory" else 1000


def _compared(books: PoolCache) -> dict[str, object]:
    """Whose owner is over stands in nobody's name in fresh books."""
    return {
        id: value.placements if isinstance(value, Running) and id.startswith("clm") else value
        for id, value in books.known.items()
    }


def _used(books: PoolCache) -> dict[str, Amounts]:
    return {row.path: row.used for row in books.pool.quotas.rows() if any(row.used.values())}


def _evictions(row: Workload) -> int:
    return sum(gang.evictions for gang in gangs(row))
