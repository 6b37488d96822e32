"""What a plan means to people: the same words in every face. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from argosy.model.errors import ArgosyError
from argosy.model.offer import Plan, Rejection
from argosy.model.task import Task
from argosy.model.units import render_price


def rejection_lines(plan: Plan) -> tuple[str, ...]:
    """One line per class of offers that does not fit: place, code, reason, in columns."""
    rows = [(each.provider, each.region or "–", each.code, each.text) for each in _asked_for(plan.rejected)]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    return tuple("  ".join([*(row[i].ljust(widths[i]) for i in range(3)), row[3]]) for row in rows)


def _asked_for(rejected: Sequence[Rejection]) -> Sequence[Rejection]:
    """Without places that were not asked for, where the others say enough."""
    meant = [each for each in rejected if each.code != "infra"]
    return meant or rejected


def grouped_lines(plan: Plan) -> tuple[str, ...]:
    """One line per reason, with the places that it holds for: for plans in which something else fits."""
    places: dict[tuple[str, str], list[str]] = {}
    for each in plan.rejected:
        place = f"{each.provider}/{each.region}" if each.region else each.provider
        mine = places.setdefault((each.code, each.text), [])
        if place not in mine:
            mine.append(place)
    width = max((len(code) for code, _ in places), default=0)
    codes = list(dict.fromkeys(code for code, _ in places))
    return tuple(
        f"{code.ljust(width)}  {', '.join(mine)}: {text}"
        for (code, text), mine in sorted(places.items(), key=lambda item: codes.index(item[0][0]))
    )


def no_offer(task: Task, plan: Plan) -> ArgosyError:
    """Nothing fits: what was asked for, why each place was refused, and what to change."""
    wishes = " or ".join(dict.fromkeys(wish.render() for wish in task.resources))
    nodes = f" ×{task.num_nodes}" if task.num_nodes > 1 else ""
    called = f"task `{task.name}`" if task.name else "the task"
    what = f"no offer fits {called} ({wishes}{nodes})"
    return ArgosyError("no-offer", what, details=rejection_lines(plan), hint=_hint(task, plan))


def _hint(task: Task, plan: Plan) -> str:
    asked = dict.fromkeys(wish.infra.provider for wish in task.resources)
    seen = {each.provider for each in plan.rejected}
    missing = [name for name in asked if name and name not in seen]
    if missing and len(missing) == len(asked):
        return ", ".join(f"`argosy check {name}` says what {name} needs to be used" for name in missing)
    codes = {each.code for each in plan.rejected}
    hints = []
    if "price-cap" in codes:
        caps = [wish.max_hourly_micro_usd for wish in task.resources if wish.max_hourly_micro_usd]
        hints.append(
            f"raise `max_hourly_cost` above {render_price(max(caps))}" if caps else "raise `max_hourly_cost`"
        )
    if "spot" in codes and any(wish.use_spot for wish in task.resources):
        hints.append("drop `use_spot`")
    if codes & {"credentials", "unreachable"}:
        hints.append("`argosy check` says what is wrong with an infrastructure")
    if closed := [each.provider for each in plan.rejected if each.code == "not-in-use"]:
        one = closed[0] if len(closed) == 1 and " " not in closed[0] else ""  # several are told as "5 clouds"
        hints.append(f"set up {one or 'a cloud'}: `argosy check {one or '--all'}` says how")
    if codes & {"cpus", "memory", "accelerator", "accelerator-memory", "multi-node", "nodes", "disk"}:
        hints.append("ask for less; `argosy launch --dryrun` and `argosy gpus` show what exists")
    return ", or ".join(hints)
