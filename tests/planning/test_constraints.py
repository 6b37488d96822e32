"""The table of constraints: each row has a code, and refuses, ranks and relaxes the same thing."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from argosy.model.offer import Capacity, Offer, Shape
from argosy.model.resources import Accelerator, Edge, Exclusion, Infra, LocalDisk, Networking, Resources
from argosy.model.units import Bound
from argosy.planning.ability import Ability, Usage
from argosy.planning.constraints import MACHINES, Applied, relaxations
from argosy.planning.places import PLACES

GIB = 1 << 30
OFFER = Offer(
    provider="cloud",
    region="east",
    zone="east-a",
    shape=Shape(
        instance_type="g.one",
        cpus_milli=8000,
        memory_bytes=32 * GIB,
        accelerator="L4",
        accelerators_milli=1000,
        accelerator_memory_bytes=24 * GIB,
    ),
    capacity=Capacity.ON_DEMAND,
    price_micro_usd=1_000_000,
)
ABLE = Ability(spot=False, multi_node=True)

#: For each code a wish that the offer misses by that constraint alone.
MISSES = {
    "infra": Resources(infra=Infra(provider="other")),
    "region": Resources(infra=Infra(region="west")),
    "zone": Resources(infra=Infra(zone="east-b")),
    "residency": Resources(areas=("west",)),
    "excluded": Resources(excluded=(Exclusion(instance_type="g.*"),)),
    "location": Resources(location="here"),
    "edge": Resources(edge=Edge(latency_us=1)),
    "instance-type": Resources(instance_type="g.two"),
    "arch": Resources(arch="arm64"),
    "image": Resources(image_id="docker:ubuntu"),
    "network": Resources(networking=Networking(vpc_name="lab")),
    "spot": Resources(use_spot=True),
    "accelerator": Resources(accelerator=Accelerator(model="A100", milli=1000)),
    "accelerator-memory": Resources(
        accelerator=Accelerator(model="L4", milli=1000, memory_min_bytes=48 * GIB)
    ),
    "fraction": Resources(accelerator=Accelerator(model="L4", milli=1500)),
    "cpus": Resources(cpus=Bound(16000)),
    "memory": Resources(memory=Bound(64 * GIB)),
    "local-disk": Resources(node_disk=LocalDisk(bound=Bound(10**9))),
    "price-cap": Resources(max_hourly_micro_usd=1),
}


def refused(wish: Resources, offer: Offer = OFFER, num_nodes: int = 1, ability: Ability = ABLE) -> str:
    found = Applied(wish, num_nodes).refuse(offer, ability, Usage())
    return found[0] if found else ""


@pytest.mark.parametrize("code", MISSES)
def test_a_constraint_refuses_by_its_code_and_relaxing_it_helps(code: str) -> None:
    wish = MISSES[code]
    assert refused(wish) == code
    assert any(refused(each.wish) == "" for each in relaxations(wish))


def test_every_row_of_the_table_is_tested() -> None:
    others = {"slice", "multi-node", "nodes", "disk", "capacity", "busy"}
    assert {each.code for each in (*PLACES, *MACHINES)} == set(MISSES) | others


def test_nodes_are_whole_slices() -> None:
    shape = replace(OFFER.shape, accelerator="tpu-v5p-32", accelerators_milli=1000)
    offer, wish = replace(OFFER, shape=shape), Resources()
    text = "tpu-v5p-32 has 4 hosts, and each is a node: asked for 3 (`num_nodes: 4`)"
    assert Applied(wish, 3).refuse(offer, ABLE, Usage()) == ("slice", text)
    assert refused(wish, offer, num_nodes=8) == ""


def test_rows_about_gangs_and_owned_machines() -> None:
    assert refused(Resources(), num_nodes=2, ability=Ability()) == "multi-node"
    assert refused(Resources(), num_nodes=2, ability=replace(ABLE, nodes_max=1)) == "nodes"
    assert refused(Resources(), replace(OFFER, nodes_max=1), num_nodes=2) == "capacity"
    owned = replace(OFFER, capacity=Capacity.OWNED, shape=replace(OFFER.shape, disk_bytes=GIB))
    assert refused(Resources(disk_size_bytes=2 * GIB), owned) == "disk"
    held = Applied(Resources(cpus=Bound(8000)), 1).refuse(owned, ABLE, Usage(cpus_milli=1000, holders=("a",)))
    assert held == ("busy", "waits for 8 CPUs: 1 of 8 in use by a")


def test_owned_machines_are_what_they_are_unless_the_wish_names_processors() -> None:
    owned = replace(OFFER, capacity=Capacity.OWNED, shape=replace(OFFER.shape, arch="arm64"))
    assert refused(Resources(), owned) == ""
    assert refused(Resources(arch="x86_64"), owned) == "arch"
