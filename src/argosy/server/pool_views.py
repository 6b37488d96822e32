"""Pools as people see them, and why a workload waits or is where it is, in words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from argosy.api.pool import AttemptView, DeviceView, GangView, MachineView, PoolView, ShareView, WaitingView
from argosy.identity.deciding import Scopes
from argosy.model.kinds import KINDS, gang_of, gangs, kind_of, label, title
from argosy.model.offer import DeviceShare, Placement, Tried
from argosy.model.phases import Desired, WorkloadPhase
from argosy.model.pooled import HolderView
from argosy.model.reasons import explained, hint_for
from argosy.model.rows import Attempt, Node, Workload
from argosy.model.units import render_duration
from argosy.scheduler.ask import WHOLE_MILLI, Waiting
from argosy.scheduler.explain import ordinal
from argosy.scheduler.picture import PoolPicture, Queued, largest_gangs

_NODES_SHOWN: Final = 8

#: What would let it start, by the code of `Waiting`.
_WOULD_HELP: Final = {
    "quota": "it starts when jobs of its queue end, or when others lend more: `argosy quota explain {queue}`",
    "limit": "it starts when jobs of that queue end, or with a higher limit: `argosy quota explain {queue}`",
    "capacity": "asking for less, or for other models, may start it sooner",
    "order": "it starts in its turn; a higher `priority_class` or `priority` moves it forward",
    "fragmented": "it starts when a node has it together; fewer GPUs per node on more nodes may start it "
    "sooner",
    "group": "only some nodes are open to it: `argosy pool groups` shows which",
    "topology": "it starts when one domain has room for all ranks; `preferred` instead of `required` lets "
    "it start anywhere",
    "isolation": "it starts on a device that can keep it apart; a lower `isolation`, or `share: any`, "
    "gives it more to choose from",
    "never": "ask for less, or cancel it: it starts only when other machines are added",
}
#: Codes of reasons that end with something that runs.
_TIMED: Final = frozenset(("quota", "limit", "capacity", "fragmented", "topology", "isolation", "order"))


def view_pool(picture: PoolPicture) -> PoolView:
    shares: dict[tuple[str, int], list[ShareView]] = {}
    on: dict[str, list[int]] = {}
    cpus: dict[str, int] = {}
    memory: dict[str, int] = {}
    for index, held in enumerate(picture.held):
        for place in held.placements:
            on.setdefault(place.node_id, []).append(index)
            cpus[place.node_id] = cpus.get(place.node_id, 0) + place.cpus_milli
            memory[place.node_id] = memory.get(place.node_id, 0) + place.memory_bytes
            for share in place.devices:
                shares.setdefault((place.node_id, share.index), []).append(_share(index, share))
    machines = tuple(
        MachineView(
            id=machine.id,
            name=machine.name or machine.id,
            open=machine.open,
            closed=machine.closed,
            cpus_milli=machine.cpus_milli,
            cpus_used_milli=cpus.get(machine.id, 0),
            memory_bytes=machine.memory_bytes,
            memory_used_bytes=memory.get(machine.id, 0),
            devices=tuple(
                DeviceView(device=device, shares=tuple(shares.get((machine.id, device.index), ())))
                for device in machine.devices
            ),
            holders=tuple(dict.fromkeys(on.get(machine.id, ()))),
            groups=machine.groups,
            domains=machine.domains,
            taints=machine.taints,
        )
        for machine in picture.machines
    )
    return PoolView(
        id=picture.id,
        name=picture.name,
        queue=picture.queue,
        machines=machines,
        holders=tuple(msgspec.convert(each, HolderView, from_attributes=True) for each in picture.held),
        waiting=tuple(map(_waiting, picture.waiting)),
        gangs=tuple(
            GangView(model=gang.model, gpus=gang.gpus, num_nodes=gang.num_nodes)
            for gang in largest_gangs(picture)
        ),
        warnings=picture.warnings,
    )


def _share(holder: int, share: DeviceShare) -> ShareView:
    return ShareView(
        holder=holder, milli=share.milli, mechanism=share.mechanism, memory_bytes=share.memory_bytes
    )


def _waiting(queued: Queued) -> WaitingView:
    view, why = msgspec.convert(queued, WaitingView, from_attributes=True), queued.waiting
    if why is None:
        return view
    return msgspec.structs.replace(view, code=why.code, text=why.text, starts_at_ms=why.starts_at_ms)


# -- why --------------------------------------------------------------------------------------------


def title_of(workload: Workload, cluster: Workload | None) -> str:
    if kind_of(workload).named:
        return title(workload)
    called = f" ({workload.name})" if workload.name and workload.name != f"job-{workload.number}" else ""
    where = f" of `{cluster.name}`" if cluster is not None else ""
    return f"{'job' if where else 'managed job'} {label(workload)}{where}{called}"


def why_it_waits(
    workload: Workload,
    waiting: Waiting | None,
    *,
    otherwise: str,
    position: int,
    among: int,
    pool: str,
    now_ms: int,
) -> list[str]:
    """Why it does not start now, its place in the order, when it probably will, and what would help.

    `otherwise`: what is known of the reason when the pool says nothing. `among`: how many wait in `pool`.
    """
    text = waiting.text if waiting is not None and waiting.text else otherwise
    lines = [text or "it has just come: nothing has been decided yet"]
    if position:
        lines.append(_in_line(position, among, pool, waiting, workload.queue))
    if waiting is not None:
        lines += _when(waiting, now_ms)
    if waiting is not None and waiting.owed:
        lines.append(waiting.owed)
    elif waiting is not None and waiting.code in _WOULD_HELP:
        lines.append(_WOULD_HELP[waiting.code].format(queue=workload.queue or "QUEUE"))
    lines += _evicted(workload)
    return lines


def _in_line(position: int, among: int, pool: str, waiting: Waiting | None, queue: str) -> str:
    if among <= 1:
        return f"nothing else waits for {pool}"
    own = (
        f", {ordinal(waiting.place)} in its queue `{queue}`" if waiting is not None and waiting.place else ""
    )
    return f"it is {ordinal(position)} of the {among} that wait for {pool}{own}"


def _when(waiting: Waiting, now_ms: int) -> list[str]:
    if waiting.starts_at_ms is not None:
        left_s = max(0, waiting.starts_at_ms - now_ms) / 1000
        return [f"it probably starts in {render_duration(left_s)}" if left_s else "it probably starts soon"]
    if waiting.code in _TIMED:
        return [
            "when it starts is not known: what it waits for names no `max_duration`, and too few like it "
            "have run"
        ]
    return []


def _evicted(workload: Workload) -> list[str]:
    evictions = sum(gang.evictions for gang in gangs(workload))
    times = "once" if evictions == 1 else f"{evictions} times"
    return [f"it made room for others {times}"] if evictions else []


def why_it_is_there(
    workload: Workload, attempt: Attempt | None, where: Sequence[str], *, now_ms: int
) -> list[str]:
    lines = []
    if attempt is not None:
        lines.append(f"attempt {attempt.number} is on {_listed(where)}" if where else "")
        lines.append(attempt.why)
        since_ms = attempt.running_ms or attempt.placed_ms
        lines.append(f"it has had its place for {render_duration(max(0, now_ms - since_ms) / 1000)}")
    if workload.desired is Desired.END:
        lines.append("it is being ended, as somebody asked")
    scheduling = gang_of(workload).scheduling
    if scheduling.preemptible:
        goes_on = "goes on from its checkpoint" if scheduling.checkpoint else "begins again from the start"
        lines.append(f"it may be ended to make room for others; then it waits again and {goes_on}")
    lines += _evicted(workload)
    return [line for line in lines if line]


def what_refused(workload: Workload, now_ms: int) -> list[str]:
    """Every place that gave it no machines lately, the latest last."""
    return [
        f"{_place_of(each)} refused {render_duration(max(0, now_ms - each.at_ms) / 1000)} ago: {each.text}"
        for each in workload.status.tried
    ]


def _place_of(tried: Tried) -> str:
    place = "/".join(part for part in (tried.provider, tried.region, tried.zone) if part)
    return " ".join(part for part in (place, tried.instance_type, "spot" if tried.spot else "") if part)


def why_it_ended(workload: Workload, cluster: str) -> list[str]:
    """`cluster`: the name of the one that a job ran on."""
    outcome = workload.outcome.value if workload.outcome is not None else "over"
    lines = [f"it ended: {outcome}"]
    if workload.reason is not None:
        is_job = kind_of(workload).numbered
        hint = hint_for(
            workload.reason,
            cluster=cluster if is_job else workload.name,
            number=label(workload) if is_job else 0,
            gone=not is_job,
        )
        lines.append(explained(workload.detail or workload.reason.value.replace("-", " "), hint))
    elif workload.detail:
        lines.append(workload.detail)
    if workload.started_ms:
        waited_s = (workload.started_ms - workload.created_ms) / 1000
        lines.append(f"it waited {render_duration(max(0, waited_s))} before it first ran")
    lines += _evicted(workload)
    return lines


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NODES_SHOWN])
    return shown + (f" and {len(names) - _NODES_SHOWN} more nodes" if len(names) > _NODES_SHOWN else "")


def places_of(placements: Iterable[Placement], nodes: Mapping[str, Node | None]) -> tuple[str, ...]:
    """Each rank's node and devices: `node 0 (gpu-7), GPUs 0 and 1`."""
    found = []
    for place in placements:
        node = nodes.get(place.node_id)
        if node is None:
            name = place.node_id
        else:
            host = node.facts.hostname
            host = (
                f" ({host})" if host and "/" not in host else ""
            )  # a slice of a machine has the name of its claim
            name = f"node {node.index}{host}"
        found.append(name + _devices(place.devices))
    return tuple(found)


def _devices(shares: Sequence[DeviceShare]) -> str:
    if not shares:
        return ""
    parts = [
        str(share.index)
        if share.milli == WHOLE_MILLI
        else f"{share.milli / WHOLE_MILLI:.3g} of {share.index}"
        + (f" by {share.mechanism}" if share.mechanism else "")
        for share in shares
    ]
    word = "GPU" if len(shares) == 1 else "GPUs"
    return f", {word} {' and '.join([', '.join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)}"


def view_attempt(attempt: Attempt, where: tuple[str, ...]) -> AttemptView:
    detail = attempt.detail
    if attempt.reason is not None and not detail:
        detail = attempt.reason.value.replace("-", " ")
    return AttemptView(
        number=attempt.number,
        status=attempt.outcome.value if attempt.outcome is not None else attempt.phase.value,
        why=attempt.why,
        where=where,
        detail=detail,
        placed_ms=attempt.placed_ms,
        running_ms=attempt.running_ms,
        ended_ms=attempt.ended_ms,
    )


def is_waiting(workload: Workload) -> bool:
    waits = workload.phase in (WorkloadPhase.QUEUED, WorkloadPhase.RECOVERING)
    return workload.is_live and waits and not kind_of(workload).gathers


def may_wait(workload: Workload) -> bool:
    """`is_waiting`, or a stopped cluster: it may be about to run again."""
    return is_waiting(workload) or (workload.is_live and workload.phase is WorkloadPhase.STOPPED)


def veiled(view: PoolView, seen_of: Callable[[str], Scopes]) -> PoolView:
    """The pool for who may not see all that is on it: what others have there stays as amounts. `seen_of`:
    what is seen of a resource, such as `jobs`."""

    def seen(one: HolderView | WaitingView) -> bool:
        return seen_of(KINDS[one.kind].resource).holds(one.project, one.user)

    return msgspec.structs.replace(
        view,
        holders=tuple(
            one if seen(one) else HolderView(id="", kind=one.kind, started_ms=one.started_ms)
            for one in view.holders
        ),
        waiting=tuple(
            one if seen(one) else msgspec.structs.replace(one, **dict.fromkeys(_WHOSE, ""), number=0)
            for one in view.waiting
        ),
    )


_WHOSE = ("id", "label", "name", "user", "project", "queue", "text")
