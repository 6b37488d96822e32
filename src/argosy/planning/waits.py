"""Why a job waits, in words: what it needs, how much there is, and who uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from argosy.model.rows import Attempt, Node
from argosy.model.units import render_bytes, render_milli
from argosy.planning.place import WHOLE_MILLI, Ask, Shortage


def explain_shortage(
    shortage: Shortage,
    nodes: Sequence[Node],
    attempts: Sequence[Attempt] = (),
    names: Mapping[str, str] | None = None,
) -> str:
    """`waits for 1 A100: 2 of 2 in use by job-...`; without users of the resource: `needs 4 CPUs: the cluster has 2`.

    Args:
        names: how to call the workload of an attempt (default: its id).
    """
    ask, what = shortage.ask, shortage.what
    if what == "nodes":
        return f"needs {ask.num_nodes} nodes: the cluster has {len(nodes)}"
    render: Callable[[int], str] = render_bytes if what == "memory" else render_milli
    wanted, total, unit = _amounts(ask, what, nodes)
    used, users = _used(ask, what, attempts, {node.id: node for node in nodes})
    each = f" on each of {ask.num_nodes} nodes" if ask.num_nodes > 1 else ""
    if not users:
        return f"needs {render(wanted)} {unit}{each}: the cluster has {render(total) if total else 'none'}"
    called = [names.get(user, user) if names else user for user in users]
    more = f" and {len(called) - 3} more" if len(called) > 3 else ""
    return f"waits for {render(wanted)} {unit}{each}: {render(used)} of {render(total)} in use by {', '.join(called[:3])}{more}"


def _amounts(ask: Ask, what: str, nodes: Sequence[Node]) -> tuple[int, int, str]:
    if what == "memory":
        return ask.memory_bytes, sum(node.memory_bytes for node in nodes), "of memory"
    if what == "cpus" or ask.accelerator is None:
        unit = "CPU" if ask.cpus_milli == 1000 else "CPUs"
        return ask.cpus_milli, sum(node.cpus_milli for node in nodes), unit
    models = _models(ask, nodes)
    total = sum(
        WHOLE_MILLI
        for node in nodes
        for d in node.facts.devices
        if d.index in node.devices and d.model in models
    )
    return ask.accelerator.milli, total, ask.accelerator.model or "/".join(sorted(models)) or "accelerator"


def _models(ask: Ask, nodes: Sequence[Node]) -> set[str]:
    wish = ask.accelerator
    return {
        device.model
        for node in nodes
        for device in node.facts.devices
        if wish is None or wish.model is None or wish.model.lower() == device.model.lower()
    }


def _used(
    ask: Ask, what: str, attempts: Sequence[Attempt], nodes: Mapping[str, Node]
) -> tuple[int, list[str]]:
    used, users = 0, []
    for attempt in attempts:
        mine = 0
        for placement in attempt.placements:
            if placement.node_id not in nodes:
                continue
            if what == "memory":
                mine += placement.memory_bytes
            elif what == "cpus":
                mine += placement.cpus_milli
            else:
                mine += sum(share.milli for share in placement.devices)
        if mine:
            used += mine
            users.append(attempt.workload_id)
    return used, users
