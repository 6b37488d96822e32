"""Why a workload waits, in one line, as lists show it: what it needs, how much there is, who uses it. Pure.

`PoolSnapshot.explain` tells the whole story of one that is asked about; a queue is read line by line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from argosy.model.kinds import kind_of, title
from argosy.model.rows import Workload
from argosy.model.units import render_duration
from argosy.scheduler.ask import Ask, Waiting
from argosy.scheduler.explain import ordinal
from argosy.scheduler.free import GPUS, MEMORY
from argosy.scheduler.machines import WITHHELD
from argosy.scheduler.snapshot import STARTS_NOW as ROOM_NOW
from argosy.scheduler.snapshot import PoolSnapshot, Shortage
from argosy.scheduler.tenancy_check import render_named

STARTS_NOW: Final = "starts now"
COMING: Final = "about to be considered"  # it is in no picture yet
_SHORT: Final = ("capacity", "fragmented")  # codes for which amounts and names say more than a sentence
_FOR_CLUSTER: Final = "waits for the cluster"


def one_line(pool: PoolSnapshot, ask: Ask, waiting: Waiting, workloads: Mapping[str, Workload]) -> str:
    """`waits for 1 A100: 2 of 2 in use by job 3`, where room is what is missing; else what the pool says."""
    if waiting.text == ROOM_NOW:
        return STARTS_NOW
    if waiting.code not in _SHORT:
        return waiting.text
    text = pool.noted(ask, lambda: _shortage(pool.shortage(ask, WITHHELD), ask, workloads))
    if not text:
        return waiting.text
    return text if waiting.place <= 1 else f"{text}; it is {ordinal(waiting.place)} in queue {ask.queue}"


def name_of(workload: Workload | None, id: str) -> str:
    """As people call it."""
    if workload is None:
        return id
    return workload.name if kind_of(workload).named else title(workload)


def _shortage(short: Shortage | None, ask: Ask, workloads: Mapping[str, Workload]) -> str:
    if short is None:
        return ""
    unit = "/".join(short.models) or "accelerator"
    if short.scarce != GPUS:
        unit = "of memory" if short.scarce == MEMORY else "CPU" if short.wanted == 1000 else "CPUs"
    wanted, used, total = (
        render_named(short.scarce, each) for each in (short.wanted, short.used, short.total)
    )
    each = f" on each of {ask.num_nodes} nodes" if ask.num_nodes > 1 else ""
    names = [name_of(workloads.get(id), id) for id in short.holders]
    more = f" and {short.others} more" if short.others else ""
    return f"waits for {wanted} {unit}{each}: {used} of {total} in use by {', '.join(names)}{more}"


def later(retry_ms: int, detail: str, now_ms: int) -> str:
    """It was tried and is tried again. `detail`: what went wrong, when that is known."""
    text = f"next try in {render_duration(max(0, retry_ms - now_ms) // 1000)}"
    return f"{text}: {detail}" if detail else text


def for_cluster(text: str) -> str:
    """A job waits for its cluster, and the cluster for `text`.

    >>> for_cluster("waits for 4 L4: 4 of 4 in use by job 1"), for_cluster("It can never start: it has no GPU.")
    ('waits for the cluster, which waits for 4 L4: 4 of 4 in use by job 1', 'waits for the cluster; it can never start: it has no GPU')
    """  # noqa: E501
    if not text:
        return f"{_FOR_CLUSTER}, which has no nodes yet"
    if text.startswith("waits "):
        return f"{_FOR_CLUSTER}, which {text}"
    return f"{_FOR_CLUSTER}; {clause(text)}"


def clause(text: str) -> str:
    """A sentence as it stands behind a colon or a semicolon.

    >>> clause("It can never start: it has no GPU."), clause("A100 is full"), clause("A node is silent.")
    ('it can never start: it has no GPU', 'A100 is full', 'a node is silent')
    """
    first = text[:1].lower() if text[1:2].islower() or text[1:2] == " " else text[:1]
    return f"{first}{text[1:].removesuffix('.')}"
