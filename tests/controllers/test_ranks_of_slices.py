"""What ranks on the hosts of a slice find in their environment."""

from __future__ import annotations

from argosy.controllers.job.environment import rank_orders
from argosy.model.offer import Placement
from argosy.testing.builders import a_choice, a_claim, a_job, a_node, a_task, an_attempt


def environments(model: str, count: int, on: tuple[int, ...] = ()) -> list[dict[str, str]]:
    """Of each rank of a gang; `on`: the nodes of its claim that it runs on, in order of its ranks."""
    on = on or tuple(range(count))
    nodes = [a_node(id=f"nod-{index}", claim_id="clm-0", index=index, ip=f"10.0.0.{index}") for index in on]
    attempt = an_attempt(
        placements=tuple(Placement(rank=rank, node_id=node.id) for rank, node in enumerate(nodes))
    )
    claim = a_claim(id="clm-0", count=count, choice=a_choice(accelerator=model, accelerators_milli=1000))
    job = a_job(task=a_task(run="x", num_nodes=len(on)))
    orders = rank_orders(job, attempt, nodes, cluster=None, claim=claim, shared_dir="")
    return [
        {name: value for name, value in order.env.items() if name.startswith(("TPU_", "MEGASCALE_"))}
        for _, order in orders
    ]


def test_hosts_of_a_slice_know_each_other() -> None:
    everybody = "10.0.0.0,10.0.0.1,10.0.0.2,10.0.0.3"
    assert environments("tpu-v6e-16", 4) == [
        {"TPU_WORKER_ID": str(worker), "TPU_WORKER_HOSTNAMES": everybody} for worker in range(4)
    ]
    turned = environments("tpu-v6e-16", 4, on=(3, 2, 1, 0))
    assert [each["TPU_WORKER_ID"] for each in turned] == ["3", "2", "1", "0"]
    assert {each["TPU_WORKER_HOSTNAMES"] for each in turned} == {everybody}


def test_of_several_slices_each_rank_knows_its_own() -> None:
    found = environments("tpu-v5p-16", 4)
    assert [each["TPU_WORKER_ID"] for each in found] == ["0", "1", "0", "1"]
    assert [each["TPU_WORKER_HOSTNAMES"] for each in found] == [
        "10.0.0.0,10.0.0.1",
        "10.0.0.0,10.0.0.1",
        "10.0.0.2,10.0.0.3",
        "10.0.0.2,10.0.0.3",
    ]
    assert [each["MEGASCALE_SLICE_ID"] for each in found] == ["0", "0", "1", "1"]
    assert {(each["MEGASCALE_COORDINATOR_ADDRESS"], each["MEGASCALE_NUM_SLICES"]) for each in found} == {
        ("10.0.0.0", "2")
    }


def test_what_is_no_whole_slice_is_told_nothing() -> None:
    assert environments("tpu-v6e-16", 4, on=(0, 1)) == [{}, {}]
    assert environments("tpu-v6e-8", 2) == [{}, {}]
    assert environments("A100", 2) == [{}, {}]
