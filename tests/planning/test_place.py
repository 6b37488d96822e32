"""Ranks on nodes: all or none, in order, never more than there is, and the reason when not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from argosy.model.facts import Device, NodeFacts
from argosy.model.offer import DeviceShare, Placement
from argosy.model.resources import Accelerator
from argosy.model.rows import Attempt, Node
from argosy.planning import Ask, Placed, Shortage, explain_shortage, never_fits, place, rooms
from argosy.planning.place import DeviceRoom, pick_devices
from argosy.testing.builders import a_node, an_attempt


def gpu(milli: int, model: str | None = "A100") -> Accelerator:
    return Accelerator(model=model, milli=milli)


def holding(
    node: Node, *, cpus: int = 0, devices: tuple[DeviceShare, ...] = (), job: str = "job-x"
) -> Attempt:
    place_ = Placement(rank=0, node_id=node.id, cpus_milli=cpus, devices=devices)
    return an_attempt(workload_id=job, placements=(place_,))


def test_in_order_until_one_does_not_fit_and_nobody_overtakes() -> None:
    node = a_node(gpus=2)
    asks = [Ask(id="a", accelerator=gpu(1000)), Ask(id="b", accelerator=gpu(2000)), Ask(id="c")]
    answers = list(place(rooms([node], []), asks))
    assert [type(each) for each in answers] == [Placed, Shortage]
    assert answers[1].ask.id == "b"


def test_a_gang_takes_one_node_per_rank_or_none() -> None:
    nodes = [a_node(index=i) for i in range(3)]
    full = holding(nodes[1], cpus=8000)
    [answer] = place(rooms(nodes, [full]), [Ask(id="g", num_nodes=2, cpus_milli=4000)])
    assert isinstance(answer, Placed)
    assert [(p.rank, p.node_id) for p in answer.placements] == [(0, nodes[0].id), (1, nodes[2].id)]
    [answer] = place(rooms(nodes, [full]), [Ask(id="g", num_nodes=3, cpus_milli=4000)])
    assert answer == Shortage(answer.ask, "cpus")


def test_fractions_share_the_fullest_device_so_that_whole_ones_stay_whole() -> None:
    node = a_node(gpus=2)
    quarter = holding(node, devices=(DeviceShare(index=1, milli=250),))
    asks = [Ask(id="half", accelerator=gpu(500)), Ask(id="whole", accelerator=gpu(1000))]
    half, whole = place(rooms([node], [quarter]), asks)
    assert half.placements[0].devices == (DeviceShare(index=1, milli=500),)
    assert whole.placements[0].devices == (DeviceShare(index=0, milli=1000),)


def test_whole_devices_come_from_one_numa_node_when_one_has_enough() -> None:
    devices = [DeviceRoom(i, "H100", 80, 1000, numa) for i, numa in enumerate([0, 1, 0, 1])]
    devices[0] = devices[0]._replace(free_milli=500)
    assert [share.index for share in pick_devices(devices, gpu(2000, None)) or ()] == [1, 3]
    assert [share.index for share in pick_devices(devices, gpu(3000, None)) or ()] == [1, 2, 3]
    assert pick_devices(devices, gpu(4000, None)) is None


def test_memory_filters_choose_among_models() -> None:
    small, big = Device(index=0, model="L4", memory_bytes=24), Device(index=1, model="A100", memory_bytes=80)
    node = a_node(facts=NodeFacts(devices=(small, big)), devices=(0, 1))
    wish = Accelerator(model=None, milli=1000, memory_min_bytes=40)
    [answer] = place(rooms([node], []), [Ask(id="x", accelerator=wish)])
    assert answer.placements[0].devices == (DeviceShare(index=1, milli=1000),)


def test_the_reason_names_amounts_and_holders() -> None:
    node = a_node(gpus=2)
    both = holding(
        node, devices=(DeviceShare(index=0, milli=1000), DeviceShare(index=1, milli=1000)), job="job-7"
    )
    [short] = place(rooms([node], [both]), [Ask(id="x", accelerator=gpu(1000))])
    assert explain_shortage(short, [node], [both]) == "waits for 1 A100: 2 of 2 in use by job-7"
    assert (
        explain_shortage(short, [node], [both], {"job-7": "train"})
        == "waits for 1 A100: 2 of 2 in use by train"
    )


def test_what_could_never_fit_is_told_apart_from_what_has_to_wait() -> None:
    node = a_node()
    short = never_fits([node], Ask(id="x", cpus_milli=9000))
    assert short is not None
    assert explain_shortage(short, [node]) == "needs 9 CPUs: the cluster has 8"
    short = never_fits([node], Ask(id="x", accelerator=gpu(1000, "H100")))
    assert short is not None
    assert explain_shortage(short, [node]) == "needs 1 H100: the cluster has none"
    short = never_fits([node], Ask(id="x", num_nodes=2))
    assert short is not None
    assert explain_shortage(short, [node]) == "needs 2 nodes: the cluster has 1"
    assert never_fits([node], Ask(id="x", cpus_milli=8000)) is None


_asks = st.lists(
    st.builds(
        Ask,
        id=st.uuids().map(str),
        num_nodes=st.integers(1, 3),
        cpus_milli=st.integers(0, 9000),
        accelerator=st.sampled_from([None, gpu(250), gpu(500), gpu(1000), gpu(2000), gpu(1000, "H100")]),
    ),
    max_size=12,
)


@given(_asks, st.integers(1, 4), st.integers(0, 4))
def test_nothing_is_ever_over_committed_and_gangs_are_whole(asks: list[Ask], count: int, gpus: int) -> None:
    nodes = [a_node(id=f"nod-{i}", index=i, gpus=gpus) for i in range(count)]
    placed: list[Attempt] = []
    for answer in place(rooms(nodes, []), asks):
        if isinstance(answer, Placed):
            assert (
                len({p.node_id for p in answer.placements}) == answer.ask.num_nodes == len(answer.placements)
            )
            placed.append(an_attempt(workload_id=answer.ask.id, placements=answer.placements))
    for room in rooms(nodes, placed):
        assert room.cpus_milli >= 0
        assert all(0 <= device.free_milli <= 1000 for device in room.devices)
    # Work conservation in order: what stopped the round does not fit into what is left.
    rest = asks[len(placed) :]
    if rest:
        [again] = list(place(rooms(nodes, placed), rest[:1]))
        assert isinstance(again, Shortage)
