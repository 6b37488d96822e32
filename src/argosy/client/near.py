"""A copy between two stores on a node beside the source, as a managed job: its data is a copy of the source,
and its outputs go to the target. Pure.

The job reads and writes by addresses that the server signs, so that the node has no credentials. It takes
what the target lacks when it begins, so that an attempt after a lost node, or a repeated command, sends the
rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from argosy.api.planning import PlanReply
from argosy.api.storage import TransferView
from argosy.model.resources import Infra, Resources
from argosy.model.task import Returned, StorageMount, SyncRules, Task
from argosy.model.units import GIB, Bound

PATH: Final = "transfer"
_CPUS_MILLI: Final = 4000
_SYSTEM_BYTES: Final = 20 * GIB  # of the node's disk, beside the data
_DISK_MAX_BYTES: Final = 16_000 * GIB
_WORTH_BYTES: Final = 20 * GIB  # from here on it is copied near the data also when it costs a little more
_SLACK_MICRO_USD: Final = 1_000_000  # of the node's price that much counts for little then


def near_task(view: TransferView, include: Sequence[str], exclude: Sequence[str]) -> Task | None:
    """The job, which is to be planned; None where the place of the source is not known, or there is nothing
    to copy, or more than a disk holds."""
    provider, _, region = view.source_place.partition("/")
    disk_bytes = view.bytes + view.bytes // 20 + _SYSTEM_BYTES
    if not view.near_seconds or not view.files or not provider or disk_bytes > _DISK_MAX_BYTES:
        return None
    extra = msgspec.json.encode({"unless_at": view.target}).decode()
    mount = StorageMount(target=PATH, sources=(view.source,), mode="COPY", extra=extra)
    wish = Resources(
        infra=Infra(provider=provider, region=region or None),
        cpus=Bound(_CPUS_MILLI),
        disk_size_bytes=disk_bytes,
    )
    return Task(
        name="transfer",
        run="true",
        resources=(wish,),
        storage_mounts=(mount,),
        sync=SyncRules(include=tuple(include), exclude=tuple(exclude)),
        returns=(Returned(path=PATH, url=view.target),),
        estimated_s=view.near_seconds,
    )


def node_micro_usd(view: TransferView, plan: PlanReply) -> int:
    """What the node costs for as long as it takes."""
    return plan.plan.choices[0].price_micro_usd * view.near_seconds // 3600


def is_better(view: TransferView, plan: PlanReply) -> bool:
    """Whether the node is to copy it: it costs no more than the way through the server, or about as much and
    there is a lot."""
    more = view.near_egress_micro_usd + node_micro_usd(view, plan) - view.egress_micro_usd
    return more <= 0 or (view.bytes >= _WORTH_BYTES and more <= _SLACK_MICRO_USD)
