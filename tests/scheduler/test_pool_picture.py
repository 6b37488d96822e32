"""What a picture of a pool says about room."""

from __future__ import annotations

from argosy.model.facts import Device
from argosy.model.offer import DeviceShare, Placement
from argosy.scheduler.ask import Machine
from argosy.scheduler.picture import Gang, Held, PoolPicture, is_of_cluster, largest_gangs, taken_of


def machine(name: str, models: str, *, open: bool = True) -> Machine:
    devices = tuple(Device(index=index, model=model) for index, model in enumerate(models.split()))
    return Machine(id=name, devices=devices, open=open)


def held(name: str, node: str, *shares: tuple[int, int]) -> Held:
    devices = tuple(DeviceShare(index=index, milli=milli) for index, milli in shares)
    return Held(id=name, placements=(Placement(rank=0, node_id=node, devices=devices),))


def test_the_largest_gangs_of_each_size() -> None:
    picture = PoolPicture(
        id="p",
        name="p",
        machines=(
            machine("a", "A100 " * 8),
            machine("b", "A100 " * 8),
            machine("c", "A100 " * 4 + "L4"),
            machine("shut", "A100 " * 8, open=False),
        ),
        held=(held("j", "a", (0, 1000), (1, 250)), held("k", "a", (1, 500)), held("l", "b", (7, 125))),
    )
    assert taken_of(picture) == {("a", 0): 1000, ("a", 1): 750, ("b", 7): 125}
    # a has 6 whole ones free, b 7, c 4: nobody has 8, though 17 are free
    assert largest_gangs(picture) == (
        Gang(model="A100", gpus=1, num_nodes=3),
        Gang(model="A100", gpus=2, num_nodes=3),
        Gang(model="A100", gpus=4, num_nodes=3),
        Gang(model="L4", gpus=1, num_nodes=1),
    )


def test_a_pool_without_devices_has_no_gangs() -> None:
    picture = PoolPicture(id="clu-1", name="dev", machines=(Machine(id="a", cpus_milli=8000),))
    assert largest_gangs(picture) == () and is_of_cluster(picture)
    assert not is_of_cluster(PoolPicture(id="local", name="local"))
