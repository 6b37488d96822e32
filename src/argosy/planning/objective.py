"""What "best" means: the lowest cost, the shortest time, or the least carbon. Ranks what fits and says why.

How long a task runs on a choice is, in this order: the median of earlier runs of the same task on the same
machine; such a run on another accelerator, scaled by the speeds of both; the user's estimate, which is the
same everywhere. What is not known stays unknown: nothing is invented to fill a rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from argosy.model.offer import Choice
from argosy.model.units import render_duration, render_price

#: Of servers: per vCPU under load, and what cooling and power supply add. Rough, and the same for every
#: place: they cancel in ranks.
WATTS_PER_CPU: Final = 4.0
OVERHEAD: Final = 1.2
_UNKNOWN_TIME: Final = 1 << 60
_NAMED: Final = 3


class Objective(StrEnum):
    COST = "cost"
    TIME = "time"
    CARBON = "carbon"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """An earlier run of the same task that went to its end."""

    instance_type: str = ""
    accelerator: str = ""
    accelerators_milli: int = 0  # per node
    num_nodes: int = 1
    duration_s: int


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the task and the world, as data."""

    estimated_s: int | None = None  # of the whole task, by the user
    progress: float = 0.0  # part of it that is done already, 0 to 1
    runs: tuple[Run, ...] = ()
    speeds: Mapping[str, float] = {}  # accelerator -> TFLOPS or any other measure of speed
    watts: Mapping[str, float] = {}  # accelerator -> of one device under load
    carbon_g_per_kwh: Mapping[
        tuple[str, str], float
    ] = {}  # (provider, region) -> of its grid; region "": of all others


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    seconds: int | None  # None: nothing is known
    basis: str = ""  # measured | scaled | estimate


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """A choice with what the whole task takes on it. None: not known."""

    choice: Choice
    runtime: Runtime
    cost_micro_usd: int | None  # of the whole task
    carbon_g: float | None  # of the whole task; per hour when no runtime is known


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    objective: Objective
    ranked: tuple[Ranked, ...]
    text: str


def runtime_of(choice: Choice, num_nodes: int, known: Known) -> Runtime:
    """How long what is left of the task runs on `choice`.

    Scaling by speed counts all devices of all nodes, so it is only used between runs on accelerators.
    """
    whole = _whole_runtime(choice, num_nodes, known)
    if whole.seconds is None or not known.progress:
        return whole
    left = max(1, round(whole.seconds * (1 - min(1.0, known.progress))))
    return msgspec.structs.replace(whole, seconds=left)


def _whole_runtime(choice: Choice, num_nodes: int, known: Known) -> Runtime:
    shape = choice.offer.shape
    model, milli = choice.accelerator or "", choice.accelerators_milli
    same = [
        run.duration_s
        for run in known.runs
        if run.num_nodes == num_nodes
        and run.accelerator.lower() == model.lower()
        and run.accelerators_milli == milli
        and (model or run.instance_type == shape.instance_type)
    ]
    if same:
        return Runtime(seconds=round(median(same)), basis="measured")
    speeds = {name.lower(): speed for name, speed in known.speeds.items() if speed > 0}
    mine = speeds.get(model.lower(), 0.0) * milli * num_nodes
    scaled = [
        run.duration_s * speeds[run.accelerator.lower()] * run.accelerators_milli * run.num_nodes / mine
        for run in known.runs
        if mine > 0 and run.accelerator.lower() in speeds and run.accelerators_milli
    ]
    if scaled:
        return Runtime(seconds=max(1, round(median(scaled))), basis="scaled")
    if known.estimated_s is not None:
        return Runtime(seconds=known.estimated_s, basis="estimate")
    return Runtime(seconds=None)


def median(values: Iterable[float]) -> float:
    """Of at least one value. (`statistics` takes 10 ms to import.)"""
    ranked = sorted(values)
    middle = len(ranked) // 2
    return ranked[middle] if len(ranked) % 2 else (ranked[middle - 1] + ranked[middle]) / 2


def watts_of(choice: Choice, num_nodes: int, known: Known) -> float | None:
    """Of all nodes under load; None when the accelerator's power is not known."""
    shape = choice.offer.shape
    cpus_milli = choice.cpus_milli or shape.cpus_milli
    power = cpus_milli / 1000 * WATTS_PER_CPU
    if choice.accelerator and choice.accelerators_milli:
        watts = {name.lower(): value for name, value in known.watts.items()}.get(choice.accelerator.lower())
        if not watts:
            return None
        power += watts * choice.accelerators_milli / 1000
    return power * num_nodes * OVERHEAD


def evaluate(choice: Choice, num_nodes: int, known: Known) -> Ranked:
    runtime = runtime_of(choice, num_nodes, known)
    cost = None if runtime.seconds is None else round(choice.price_micro_usd * runtime.seconds / 3600)
    grid = _grid_of(choice, known)
    power = watts_of(choice, num_nodes, known)
    carbon = None
    if grid is not None and power is not None:
        carbon = grid * power / 1000 * ((runtime.seconds or 3600) / 3600)
    return Ranked(choice=choice, runtime=runtime, cost_micro_usd=cost, carbon_g=carbon)


def _grid_of(choice: Choice, known: Known) -> float | None:
    offer, grids = choice.offer, known.carbon_g_per_kwh
    return grids.get((offer.provider, offer.region), grids.get((offer.provider, "")))


def rank_by(objective: Objective, choices: Sequence[Choice], num_nodes: int, known: Known) -> Ranking:
    """Choices from best to worst. Equals keep the order in which they came, which is by price.

    Cost is of the whole task where its runtime is known for every choice, per hour otherwise. What is not
    known for a choice puts it behind those for which it is.
    """
    found = [evaluate(choice, num_nodes, known) for choice in choices]
    whole = all(each.cost_micro_usd is not None for each in found)

    def cost(each: Ranked) -> int:
        return (
            each.cost_micro_usd if whole and each.cost_micro_usd is not None else each.choice.price_micro_usd
        )

    def seconds(each: Ranked) -> int:
        return _UNKNOWN_TIME if each.runtime.seconds is None else each.runtime.seconds

    def key(each: Ranked) -> tuple[float, ...]:
        if objective is Objective.TIME:
            return seconds(each), cost(each)
        if objective is Objective.CARBON:
            # The choices without a runtime have carbon per hour: it compares with nothing but itself.
            return (each.carbon_g is None or (each.runtime.seconds is None and whole), each.carbon_g or 0.0,
                    cost(each))  # fmt: skip
        return (cost(each), seconds(each))

    ranked = tuple(sorted(found, key=key))
    return Ranking(objective=objective, ranked=ranked, text=_explain(objective, ranked, whole, known))


# --- words -----------------------------------------------------------------------------------------

_BASIS: Final = {
    "measured": "measured in earlier runs",
    "scaled": "scaled from earlier runs on other accelerators",
    "estimate": "by your estimate",
}


def _explain(objective: Objective, ranked: Sequence[Ranked], whole: bool, known: Known) -> str:
    if not ranked:
        return "nothing fits"
    best = ranked[0]
    place = render_choice(best.choice)
    runner_up = next((each for each in ranked[1:] if each.choice.offer != best.choice.offer), None)
    if objective is Objective.TIME:
        if best.runtime.seconds is None:
            return f"{place}: nothing is known of how long the task runs, so the cheapest is first"
        took = f"{place}: {render_duration(best.runtime.seconds)}, {_BASIS[best.runtime.basis]}"
        if len({each.runtime.seconds for each in ranked}) == 1 and len(ranked) > 1:
            return f"{took}; no choice is known to be faster than another, so the cheapest is first"
        return took + (_next_time(best, runner_up) if runner_up else "")
    if objective is Objective.CARBON:
        unknown = [each.choice for each in ranked if each.carbon_g is None]
        why = f" ({_why_unknown(unknown, known)})" if unknown else ""
        if best.carbon_g is None:
            return f"{place}: the carbon of no choice is known{why}, so the cheapest is first"
        unit = "" if best.runtime.seconds is not None else "/h"
        return f"{place}: ~{best.carbon_g:,.0f} g CO2{unit}" + (
            f"; not known for {len(unknown)} of {len(ranked)} choices{why}" if unknown else ""
        )
    if whole and best.cost_micro_usd is not None and best.runtime.seconds is not None:
        text = (
            f"{place}: {render_price(best.cost_micro_usd)} for {render_duration(best.runtime.seconds)}, "
            f"{_BASIS[best.runtime.basis]}"
        )
        if runner_up is not None and runner_up.cost_micro_usd is not None:
            more = _more(best.cost_micro_usd, runner_up.cost_micro_usd)
            text += f"; next is {render_choice(runner_up.choice)} at {render_price(runner_up.cost_micro_usd)}{more}"  # noqa: E501
        return text
    text = f"{place}: {render_price(best.choice.price_micro_usd)}/h"
    if runner_up is not None:
        price = runner_up.choice.price_micro_usd
        more = _more(best.choice.price_micro_usd, price)
        text += f"; next is {render_choice(runner_up.choice)} at {render_price(price)}/h{more}"
    return text


def _why_unknown(choices: Sequence[Choice], known: Known) -> str:
    """`no figure for the grid of vast/se; no power of L4`."""
    places = [
        "/".join(part for part in (each.offer.provider, each.offer.region) if part)
        for each in choices
        if _grid_of(each, known) is None
    ]
    models = [each.accelerator or "" for each in choices if _grid_of(each, known) is not None]
    told = [f"no figure for the grid of {_named(places)}"] if places else []
    return "; ".join([*told, f"no power of {_named(models)}"] if models else told)


def _named(names: Sequence[str]) -> str:
    """`a, b, c and 3 more`: each once, in order."""
    every = list(dict.fromkeys(names))
    more = len(every) - _NAMED
    return ", ".join(every[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _next_time(best: Ranked, other: Ranked) -> str:
    if other.runtime.seconds is None:
        return ""
    return f"; next is {render_choice(other.choice)} with {render_duration(other.runtime.seconds)}"


def _more(best: int, other: int) -> str:
    return f" (+{(other - best) / best:.0%})" if best else ""


def render_choice(choice: Choice) -> str:
    """Place, machine and capacity: `aws/us-east-1 p4d.24xlarge (spot)`."""
    offer = choice.offer
    place = "/".join(part for part in (offer.provider, offer.region, offer.zone) if part)
    return f"{place} {offer.shape.instance_type}".rstrip() + f" ({offer.capacity.value})"
