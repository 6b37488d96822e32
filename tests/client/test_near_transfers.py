"""Whether a node near the data copies from store to store, and what it is told."""

from __future__ import annotations

from typing import Any

import pytest

from argosy.api.planning import PlanReply
from argosy.api.storage import TransferState, TransferView
from argosy.client.near import is_better, near_task, node_micro_usd
from argosy.model.mounts import extra_of
from argosy.model.offer import Plan
from argosy.model.resources import Infra
from argosy.model.units import GIB
from argosy.testing.builders import a_choice, changed

GB = 1_000_000_000


def a_view(**fields: Any) -> TransferView:
    told = {
        "source": "s3://a/",
        "target": "s3://b/",
        "state": TransferState.PLANNED,
        "source_place": "aws/us-east-1",
        "files": 2,
        "bytes": 100 * GB,
        "egress_micro_usd": 9_000_000,
        "near_egress_micro_usd": 2_000_000,
        "near_seconds": 1800,
    }
    return TransferView(**{**told, **fields})


def a_plan(hourly_micro_usd: int) -> PlanReply:
    choice = changed(a_choice(), price_micro_usd=hourly_micro_usd)
    return PlanReply(plan=Plan(num_nodes=1, choices=(choice,)), id="pln-1")


def test_the_job_is_where_the_source_is_and_has_room_for_all_of_it() -> None:
    task = near_task(a_view(), ("*.csv",), ())
    assert task is not None
    (wish,) = task.resources
    assert wish.infra == Infra(provider="aws", region="us-east-1")
    assert 100 * GB + 20 * GIB < wish.disk_size_bytes < 130 * GB
    (mount,), (output,) = task.storage_mounts, task.returns
    assert (mount.sources, output.url, extra_of(mount).unless_at) == (("s3://a/",), "s3://b/", "s3://b/")
    assert task.sync.include == ("*.csv",)


@pytest.mark.parametrize(
    "fields",
    [{"source_place": "", "near_seconds": 0}, {"files": 0}, {"bytes": 20_000 * GIB}],
    ids=["a place that is not known", "nothing to copy", "more than a disk holds"],
)
def test_there_is_no_job_where_a_node_cannot_do_it(fields: dict[str, Any]) -> None:
    assert near_task(a_view(**fields), (), ()) is None


@pytest.mark.parametrize(
    ("hourly", "fields", "better"),
    [
        (200_000, {}, True),  # egress falls from $9 to $2, and the node takes $0.10
        (200_000, {"near_egress_micro_usd": 9_000_000}, True),  # 10 cents more, and 100 GB faster
        (200_000, {"near_egress_micro_usd": 9_000_000, "bytes": 5 * GB}, False),
        (40_000_000, {}, False),  # only a machine for $40 an hour can be had
    ],
)
def test_it_copies_where_that_costs_no_more_or_little_more_for_much(
    hourly: int, fields: dict[str, Any], better: bool
) -> None:
    view, plan = a_view(**fields), a_plan(hourly)
    assert node_micro_usd(view, plan) == hourly // 2
    assert is_better(view, plan) is better
