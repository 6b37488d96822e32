"""Small pools and asks of every sort, for the tests of where things go."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from argosy.model.facts import Device
from argosy.model.offer import Placement
from argosy.model.scheduling import Isolation
from argosy.scheduler.ask import WHOLE_MILLI, Ask, Machine, Need
from argosy.scheduler.devices import mig_bits, mig_card
from argosy.scheduler.inventory import Inventory

GB = 1 << 30


def card(index: int, model: str = "H100", gb: int = 80, **more: object) -> Device:
    return Device(index=index, model=model, memory_bytes=gb * GB, **more)  # type: ignore[arg-type]


def box(number: int, gpus: int = 8, model: str = "H100", **more: object) -> Machine:
    fields: dict[str, object] = {
        "cpus_milli": 64_000,
        "memory_bytes": 256 * GB,
        "devices": tuple(card(index, model, numa=index * 2 // max(gpus, 1)) for index in range(gpus)),
    }
    return Machine(id=f"m{number}", index=number, **(fields | more))  # type: ignore[arg-type]


def ask(need: Need, num_nodes: int = 1, **more: object) -> Ask:
    return Ask(id="a", needs=(need,), num_nodes=num_nodes, **more)  # type: ignore[arg-type]


def put(
    inventory: Inventory, holder: str, need: Need, num_nodes: int = 1, **more: object
) -> tuple[Placement, ...]:
    """Finds and takes; fails when nothing fits."""
    found = inventory.find(ask(need, num_nodes, **more))
    assert found is not None
    inventory.take(holder, need, found)
    return found


def nodes_of(placements: Sequence[Placement]) -> list[str]:
    return [placement.node_id for placement in placements]


_LINKS = tuple(tuple(4 if i // 2 == j // 2 and i != j else 0 for j in range(4)) for i in range(4))


def devices_of(sort: str) -> tuple[Device, ...]:
    """The devices of a machine of this sort; a sort that is not named here has none."""
    if sort == "h100":
        return tuple(card(index, numa=index // 2) for index in range(4))
    if sort == "l4":
        return (card(0, "L4", 24),)
    if sort == "mixed":
        return (card(0, "L4", 24), card(1), card(2))
    if sort == "parted":
        part = {"mig_parent": 9, "mig_profile": "3g.40gb"}
        return (card(0), card(1, gb=40, mig_slots=(0, 4), **part), card(2, gb=40, mig_slots=(4, 4), **part))
    return ()


@st.composite
def pools(draw: st.DrawFn, most: int = 8, domains: bool = True) -> list[Machine]:
    """Machines of mixed sorts; domains without contradictions, or none."""
    depth = draw(st.sampled_from([0, 3] if domains else [0]))
    machines = []
    for number in range(draw(st.integers(1, most))):
        sort = draw(st.sampled_from(["cpu", "h100", "linked", "l4", "mixed", "parted"]))
        devices = devices_of(sort)
        if sort == "linked":
            devices = tuple(card(index, "A100", 40, nvlinks=_LINKS[index], numa=0) for index in range(4))
        rack = draw(st.integers(0, 3))
        leaf = draw(st.integers(0, 1))
        machines.append(
            Machine(
                id=f"m{number}",
                index=draw(st.integers(0, 2)),
                cpus_milli=draw(st.sampled_from([4000, 16_000, 64_000])),
                memory_bytes=draw(st.sampled_from([16, 64, 256])) * GB,
                devices=devices,
                sharing=draw(st.sampled_from([(), ("mps",), ("mps", "mig")])),
                groups=draw(st.sampled_from([(), (), ("training",)])),
                taints=draw(st.sampled_from([(), (), ("spot",)])),
                open=draw(st.sampled_from([True, True, True, False])),
                domains=(f"b{rack // 2}", f"r{rack}", f"l{rack}{leaf}") if depth else (),
            )
        )
    return machines


@st.composite
def needs(draw: st.DrawFn) -> Need:
    gpu_milli = draw(st.sampled_from([0, 0, 100, 250, 330, 500, 810, 1000, 1000, 2000, 4000]))
    return Need(
        cpus_milli=draw(st.sampled_from([0, 500, 1000, 4000, 9000])),
        memory_bytes=draw(st.sampled_from([0, 1, 4, 30])) * GB,
        gpu_milli=gpu_milli,
        models=draw(st.sampled_from([(), (), ("H100",), ("A100", "L4")])) if gpu_milli else (),
        gpu_memory_bytes=draw(st.sampled_from([0, 0, 40 * GB])),
        tolerations=draw(st.sampled_from([(), ("spot",)])),
        groups=draw(st.sampled_from([(), ("training",)])),
        isolation=draw(st.sampled_from(list(Isolation))),
        tenant=draw(st.sampled_from(["", "ann", "bob"])),
        open=draw(st.booleans()),
    )


@st.composite
def asks(draw: st.DrawFn, levels: bool = True) -> Ask:
    level = st.sampled_from(["", "", "", "node", "leaf", "rack", "block"] if levels else [""])
    return Ask(
        id="a",
        needs=tuple(draw(st.lists(needs(), min_size=1, max_size=2))),
        num_nodes=draw(st.sampled_from([1, 1, 1, 2, 3, 5])),
        required=draw(level),
        preferred=draw(level),
        spread=draw(level),
    )


def check_books(inventory: Inventory, held: dict[str, tuple[Need, tuple[Placement, ...]]]) -> None:
    """Against the list of what was taken: nothing over-committed, what is free is what is left, tenants are
    kept apart."""
    machines = inventory.machines()
    on: dict[str, list[tuple[Need, Placement]]] = {each: [] for each in machines}
    for need, placements in held.values():
        for placement in placements:
            on[placement.node_id].append((need, placement))
    cpus = memory = gpus = 0
    for machine_id, machine in machines.items():
        there = on[machine_id]
        free_cpus = machine.cpus_milli - sum(placement.cpus_milli for _, placement in there)
        free_memory = machine.memory_bytes - sum(placement.memory_bytes for _, placement in there)
        assert free_cpus >= 0 and free_memory >= 0
        cpus, memory = cpus + free_cpus, memory + free_memory
        for device in machine.devices:
            shares = [(n, s) for n, p in there for s in p.devices if s.index == device.index]
            milli = sum(share.milli for _, share in shares)
            assert 0 <= milli <= WHOLE_MILLI
            parts = [(need, share) for need, share in shares if share.milli < WHOLE_MILLI]
            if parts:
                assert len(parts) == len(shares)
                assert sum(share.memory_bytes for _, share in parts) <= device.memory_bytes
                assert len({share.mechanism for _, share in parts}) == 1
            if parts and parts[0][1].mechanism == "mig":
                known = mig_card(device.model, device.memory_bytes)
                assert known is not None and "mig" in machine.sharing
                bits = 0
                for need, share in parts:
                    profile = next(each for each in known[1] if each.name == share.profile)
                    assert share.slot in profile.starts and not bits & mig_bits(profile, share.slot)
                    assert share.milli >= need.gpu_milli
                    bits |= mig_bits(profile, share.slot)
            else:
                assert len({need.tenant for need, _ in parts}) <= 1 or all(need.open for need, _ in parts)
                for need, share in parts:
                    assert need.isolation != Isolation.HARDWARE
                    assert share.mechanism == "mps" or need.isolation == Isolation.NONE
                    assert share.mechanism != "mps" or "mps" in machine.sharing
            if not device.mig_profile:
                gpus += WHOLE_MILLI - milli
            else:
                gpus += (WHOLE_MILLI - milli) // 2  # only halves in these pools
    free = inventory.free()
    assert (free["cpus"], free["memory"], free["gpus"]) == (cpus, memory, gpus)
