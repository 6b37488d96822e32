"""What the fake server answers about queues and pools: one pool of three nodes, two tenants, one job that
waits."""

from __future__ import annotations

from typing import Final

import msgspec

from argosy.api.pool import (
    AttemptView,
    DeviceView,
    ExplainReply,
    GangView,
    MachineView,
    PoolView,
    ShareView,
    WaitingView,
)
from argosy.api.quota import QueueExplanation, QueueRequest, QueueView, TenancyReply
from argosy.model.errors import ArgosyError
from argosy.model.facts import Device
from argosy.model.pooled import HolderView
from argosy.model.tenancy import Queue, Tenancy
from argosy.model.units import GIB

STARTED_MS: Final = 1_700_000_000_000
_HOUR_MS: Final = 3_600_000


def _machine(number: int, *devices: tuple[ShareView, ...], **fields: object) -> MachineView:
    views = tuple(
        DeviceView(device=Device(index=index, model="A100", memory_bytes=80 * GIB), shares=shares)
        for index, shares in enumerate(devices)
    )
    holders = tuple(dict.fromkeys(share.holder for view in views for share in view.shares))
    return msgspec.structs.replace(
        MachineView(
            id=f"dgx#{number}",
            name=f"dgx-{number}",
            cpus_milli=64_000,
            cpus_used_milli=8000 * len(holders),
            memory_bytes=512 * GIB,
            memory_used_bytes=64 * GIB * len(holders),
            devices=views,
            holders=holders,
            groups=("training",),
            domains=("block-1", f"rack-{number // 2}"),
        ),
        **fields,
    )


def _held(holder: int, milli: int = 1000, mechanism: str = "") -> ShareView:
    return ShareView(holder=holder, milli=milli, mechanism=mechanism)


POOL: Final = PoolView(
    id="dgx",
    name="dgx",
    machines=(
        _machine(0, *(((_held(0),),) * 4)),
        _machine(1, (_held(0),), (_held(1, 500), _held(2, 250, "mps")), (), ()),
        _machine(2, (), (), (), (), open=False),
    ),
    holders=(
        HolderView(
            id="job-00000000000000000011",
            number=11,
            name="train",
            user="ann",
            project="vision",
            queue="acme/vision/ann",
            started_ms=STARTED_MS,
            ends_at_ms=STARTED_MS + 2 * _HOUR_MS,
            preemptible=True,
        ),
        HolderView(
            id="job-00000000000000000012",
            number=12,
            name="eval",
            user="bob",
            project="speech",
            queue="acme/speech/bob",
            started_ms=STARTED_MS + _HOUR_MS // 2,
        ),
        HolderView(
            id="clu-00000000000000000013", kind="cluster", name="dev", user="cho", queue="default/cho"
        ),
    ),
    waiting=(
        WaitingView(
            id="job-00000000000000000014",
            number=14,
            name="big",
            user="ann",
            project="vision",
            queue="acme/vision/ann",
            position=1,
            gpu_milli=4000,
            models=("A100",),
            code="fragmented",
            text="4 A100 on one node: at most 2 are free together",
            starts_at_ms=STARTED_MS + _HOUR_MS + 1_500_000,
        ),
    ),
    gangs=(GangView(model="A100", gpus=1, num_nodes=1), GangView(model="A100", gpus=2, num_nodes=1)),
)

QUEUES: Final = (
    QueueView(path="acme", used={"gpus": 5750, "jobs": 2}, limit={"gpus": 12_000}, running=2, waiting=1),
    QueueView(
        path="acme/speech",
        used={"gpus": 500, "jobs": 1},
        deserved={"gpus": 4000},
        lends={"gpus": 1000},
        running=1,
    ),
    QueueView(path="acme/speech/bob", named=False, used={"gpus": 500, "jobs": 1}, running=1),
    QueueView(
        path="acme/vision",
        used={"gpus": 5000, "jobs": 1},
        guaranteed={"gpus": 2000},
        deserved={"gpus": 4000},
        limit={"gpus": 8000},
        borrows={"gpus": 1000},
        weight_milli=2000,
        running=1,
        waiting=1,
    ),
    QueueView(path="acme/vision/ann", named=False, used={"gpus": 5000, "jobs": 1}, running=1, waiting=1),
)

WHY: Final = (
    "4 A100 on one node: at most 2 are free together",
    "it is number 1 for `dgx`",
    "it probably starts in 25m",
)


def tenancy(kept: Tenancy) -> TenancyReply:
    """The queues of the pool once anything is kept."""
    from argosy.spec.tenancy import render_tenancy

    shown = QUEUES if kept.rev else ()
    named = {view.path for view in shown}
    more = tuple(
        QueueView(path=queue.path, deserved=queue.deserved, limit=queue.limit, guaranteed=queue.guaranteed)
        for queue in kept.queues
        if queue.path not in named
    )
    queues = tuple(sorted((*shown, *more), key=lambda view: view.path.split("/")))
    return TenancyReply(tenancy=kept, queues=queues, text=render_tenancy(kept))


def with_queue(kept: Tenancy, request: QueueRequest) -> Tenancy:
    queues = {queue.path: queue for queue in kept.queues}
    if request.remove:
        if request.path not in queues:
            raise ArgosyError("not-found", f"there is no queue `{request.path}`")
        del queues[request.path]
    else:
        queues[request.path] = Queue(
            path=request.path,
            guaranteed=_without_none(request.guaranteed),
            deserved=_without_none(request.deserved),
            limit=_without_none(request.limit),
        )
    made = tuple(queues[path] for path in sorted(queues))
    return msgspec.structs.replace(kept, queues=made, rev=kept.rev + 1)


def _without_none(amounts: dict[str, int | None]) -> dict[str, int]:
    return {name: amount for name, amount in amounts.items() if amount is not None}


def explain_queue(query: dict[str, str]) -> QueueExplanation:
    for view in QUEUES:
        if view.path == query.get("queue", ""):
            lines: tuple[str, ...] = (f"`{view.path}` uses 5 GPUs (2 guaranteed, 4 deserved, 8 at most)",)
            if "request" in query:
                lines += (f"a request for {query['request']} would wait",)
            return QueueExplanation(queue=view, lines=lines)
    raise ArgosyError("not-found", f"there is no queue `{query.get('queue', '')}`")


def explain(id: str, title: str, status: str) -> ExplainReply:
    return ExplainReply(
        id=id,
        title=title,
        status=status,
        lines=WHY,
        code="fragmented",
        position=1,
        starts_at_ms=STARTED_MS + _HOUR_MS + 1_500_000,
        user="ann",
        queue=QUEUES[-1],
        attempts=(
            AttemptView(
                number=1,
                status="preempted",
                why="it was first in the order",
                where=("node 0 (gpu-7), GPUs 0 and 1", "node 1 (gpu-8), GPUs 0 and 1"),
                detail="made room for acme/speech/bob's job 12",
                placed_ms=STARTED_MS,
                running_ms=STARTED_MS + 1000,
                ended_ms=STARTED_MS + 61_000,
            ),
        ),
    )
