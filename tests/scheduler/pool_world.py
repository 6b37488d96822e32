"""A pool with its surroundings, for tests: what runs, what leaves, and the same checks after every step."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from argosy.model.facts import Device
from argosy.model.offer import Placement
from argosy.model.tenancy import Amounts, Queue, SharePolicy, Tenancy
from argosy.scheduler.ask import Ask, Decision, Machine, Need, Running
from argosy.scheduler.order import is_served
from argosy.scheduler.pool import Pool
from argosy.scheduler.preempt import guarded_ms

GIB = 1 << 30


def node(index: int, gpus: int = 4, *, model: str = "A100", cpus: int = 32, open: bool = True) -> Machine:
    devices = tuple(Device(index=i, model=model, memory_bytes=40 * GIB) for i in range(gpus))
    return Machine(
        id=f"n{index}", index=index, cpus_milli=cpus * 1000, memory_bytes=64 * GIB, devices=devices, open=open
    )


def job(
    number: int,
    gpus: float = 1,
    nodes: int = 1,
    *,
    queue: str = "a",
    models: tuple[str, ...] = (),
    cpus: int = 1,
    **more: object,
) -> Ask:
    """`gpus` and `cpus` per node."""
    need = Need(cpus_milli=cpus * 1000, gpu_milli=int(gpus * 1000), models=models)
    fields: dict[str, object] = {"submitted_ms": number, **more}
    return Ask(id=f"j{number:03d}", number=number, needs=(need,), num_nodes=nodes, queue=queue, **fields)  # type: ignore[arg-type]


def running(ask: Ask, *places: tuple[str, tuple[int, ...]], started_ms: int = 0, **more: object) -> Running:
    """`places`: machine and whole devices, by rank."""
    from argosy.model.offer import DeviceShare

    need = ask.needs[0]
    placements = tuple(
        Placement(
            rank=rank, node_id=node_id, cpus_milli=need.cpus_milli, memory_bytes=need.memory_bytes,
            devices=tuple(DeviceShare(index=i, milli=1000) for i in devices),
        )
        for rank, (node_id, devices) in enumerate(places)
    )  # fmt: skip
    return Running(ask=ask, placements=placements, started_ms=started_ms, **more)  # type: ignore[arg-type]


def tenancy(*queues: Queue, **policy: object) -> Tenancy:
    return Tenancy(queues=queues, policy=SharePolicy(**policy))  # type: ignore[arg-type]


def gpus(count: int) -> Amounts:
    return {"gpus": count * 1000}


class World:
    """The rows that a controller would have, beside the pool that decides on them."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.waiting: dict[str, Ask] = {}
        self.running: dict[str, Running] = {}
        self.terminating: dict[str, str] = {}
        self.now_ms = 1_000_000

    def submit(self, ask: Ask) -> None:
        self.waiting[ask.id] = ask
        self.pool.submit(ask)

    def end(self, job_id: str) -> None:
        del self.running[job_id]
        self.terminating.pop(job_id, None)
        self.pool.ended(job_id)

    def leave(self, job_id: str) -> None:
        """What must go is gone, and waits again."""
        run = self.running[job_id]
        self.end(job_id)
        rate = sum(share.milli for place in run.placements for share in place.devices)
        done = rate * (self.now_ms - run.started_ms) if run.ask.checkpoint else 0
        ask = run.ask
        self.submit(msgspec.structs.replace(ask, attained=ask.attained + done, evictions=ask.evictions + 1))

    def cycle(self) -> Decision:
        decision = self.pool.cycle(self.now_ms)
        for start in decision.starts:
            ask = self.waiting.pop(start.ask_id)
            self.running[ask.id] = Running(ask=ask, placements=start.placements, started_ms=self.now_ms)
        for evict in decision.evictions:
            run = self.running[evict.job_id]
            assert run.ask.preemptible
            assert not run.leaving
            policy = self.pool.tenancy.policy
            doubled = evict.kind == "reclaim" or not is_served(run.ask, policy)
            assert self.now_ms - run.started_ms >= guarded_ms(run.ask, policy, doubled=doubled)
            self.running[evict.job_id] = msgspec.structs.replace(run, leaving=True)
            self.terminating[evict.job_id] = evict.for_id
        self.check()
        return decision

    def settle(self, most: int = 200) -> list[Decision]:
        """Cycles, everybody who must go being gone at once, until nothing changes: it has to come to an
        end."""
        decisions = []
        for _ in range(most):
            decision = self.cycle()
            decisions.append(decision)
            for evict in decision.evictions:
                self.leave(evict.job_id)
            if not decision.starts and not decision.evictions:
                return decisions
        raise AssertionError("it goes round in circles")

    def rebuilt(self) -> Pool:
        """Another pool from the rows, as after a restart."""
        pool = Pool(
            self.pool.tenancy, owner=self.pool.owner, machines=self.pool.inventory.machines().values()
        )
        for job_id, run in self.running.items():
            pool.running(run, leaving_for=self.terminating.get(job_id, ""))
        for ask in self.waiting.values():
            pool.submit(ask)
        return pool

    def check(self) -> None:
        machines = self.pool.inventory.machines()
        check_room(machines.values(), self.running.values())
        assert set(self.pool.held) == set(self.running)
        used: dict[str, dict[str, int]] = {}
        for held in self.pool.held.values():
            path = held.ask.queue
            while path:
                at = used.setdefault(path, {})
                for name, amount in held.allocation.amounts.items():
                    at[name] = at.get(name, 0) + amount
                path = path.rpartition("/")[0]
            ranks = [placement.rank for placement in held.running.placements]
            assert ranks == list(range(held.ask.num_nodes)), "all or none"
        for path, amounts in used.items():
            assert self.pool.quotas.used(path) == amounts, path


def check_room(machines: Iterable[Machine], runs: Iterable[Running]) -> None:
    """Nothing is over-committed on the machines that are there."""
    cpus = {machine.id: machine.cpus_milli for machine in machines}
    memory = {machine.id: machine.memory_bytes for machine in machines}
    devices = {(machine.id, device.index): 1000 for machine in machines for device in machine.devices}
    for run in runs:
        for placement in run.placements:
            if placement.node_id not in cpus:
                continue
            cpus[placement.node_id] -= placement.cpus_milli
            memory[placement.node_id] -= placement.memory_bytes
            for share in placement.devices:
                devices[placement.node_id, share.index] -= share.milli
    assert min(cpus.values(), default=0) >= 0
    assert min(memory.values(), default=0) >= 0
    assert min(devices.values(), default=0) >= 0
