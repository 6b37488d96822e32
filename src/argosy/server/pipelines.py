"""Pipelines as stages and links, and what is said of where they run. Pure: offers, runtimes and tariffs are
arguments.

What a stage hands to a later one is taken to lie where it was made, whatever its URL says. What no stage
makes is read from the provider that its URL names; what no stage reads is written there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from argosy.api.planning import MoveView, OfferView, PipelineReply, StageView
from argosy.model.errors import ArgosyError
from argosy.model.offer import Choice
from argosy.model.task import Task
from argosy.model.units import render_bytes, render_duration, render_price
from argosy.planning.dag import (
    Candidate,
    Flow,
    Link,
    PipelinePlan,
    Stage,
    Tariff,
    Tariffs,
    candidates_of,
    flow_micro_usd,
    plan_pipeline,
    provider_of_url,
)
from argosy.planning.objective import Known, Objective, median, render_choice, runtime_of

if TYPE_CHECKING:
    from argosy.catalog import Catalog

STAGES_MAX: Final = 100
_ASSUMED_S: Final = 3600


class Shape(NamedTuple):
    """A pipeline without its candidates."""

    names: tuple[str, ...]
    links: tuple[Link, ...]
    flows: tuple[tuple[Flow, ...], ...]  # by stage
    urls: tuple[tuple[str, ...], ...]  # of the flows
    unknown: tuple[str, ...]  # URLs of which nobody knows whose they are


def shape_of(tasks: Sequence[Task], edges: Sequence[tuple[int, int]] | None) -> Shape:
    """Which stage reads what of which. `edges` None: every task after the one before it.

    A stage that names none of what stages make reads all that the stages right before it make.

    Raises ArgosyError `spec-invalid` for edges to nowhere.
    """
    if not tasks:
        raise ArgosyError("usage", "no task is given")
    if edges is None:
        edges = [(n, n + 1) for n in range(len(tasks) - 1)]
    before: list[set[int]] = [set() for _ in tasks]
    for src, dst in edges:
        if not (0 <= src < len(tasks) and 0 <= dst < len(tasks)) or src == dst:
            raise ArgosyError("spec-invalid", f"the pipeline has no edge from task {src} to task {dst}")
        before[dst].add(src)
    names = _names(tasks)
    makes = [{each.url: each.size_bytes for each in task.outputs} for task in tasks]
    read: list[set[str]] = [set() for _ in tasks]  # outputs that another stage reads
    links: list[Link] = []
    flows: list[tuple[Flow, ...]] = []
    urls: list[tuple[str, ...]] = []
    unknown: list[str] = []
    outside: list[list[tuple[str, int]]] = []
    for number, task in enumerate(tasks):
        earlier = _all_before(number, before)
        sizes = dict.fromkeys(before[number], 0)
        rest = []
        named = False
        for each in task.inputs:
            makers = [one for one in sorted(earlier) if each.url in makes[one]]
            near = [one for one in makers if one in before[number]] or makers
            if near:
                named = True
                sizes[near[-1]] = sizes.get(near[-1], 0) + each.size_bytes
                read[near[-1]].add(each.url)
            else:
                rest.append((each.url, each.size_bytes))
        if not named:
            for one in before[number]:
                sizes[one] = sum(makes[one].values())
                read[one] |= makes[one].keys()
        links += [
            Link(src=names[one], dst=names[number], size_bytes=size) for one, size in sorted(sizes.items())
        ]
        outside.append(rest)
    for number in range(len(tasks)):
        moved = [(url, size, True) for url, size in outside[number]]
        moved += [(url, size, False) for url, size in makes[number].items() if url not in read[number]]
        known = [each for each in moved if provider_of_url(each[0])]
        unknown += [url for url, _, _ in moved if not provider_of_url(url)]
        flows.append(
            tuple(
                Flow(provider=provider_of_url(url), size_bytes=size, reads=reads)
                for url, size, reads in known
            )
        )
        urls.append(tuple(url for url, _, _ in known))
    return Shape(names, tuple(links), tuple(flows), tuple(urls), tuple(dict.fromkeys(unknown)))


def _names(tasks: Sequence[Task]) -> tuple[str, ...]:
    names: list[str] = []
    for number, task in enumerate(tasks, 1):
        name = task.name or f"task {number}"
        names.append(name if name not in names else f"{name} ({number})")
    return tuple(names)


def _all_before(number: int, before: Sequence[set[int]]) -> set[int]:
    found: set[int] = set()
    ahead = list(before[number])
    while ahead:
        one = ahead.pop()
        if one not in found and one != number:
            found.add(one)
            ahead += before[one]
    return found


def tariffs_of(catalog: Catalog) -> Tariffs:
    """What leaving a place costs, from the catalog; each place is looked up once."""
    known: dict[tuple[str, str], Tariff] = {}

    def tariff(provider: str, region: str) -> Tariff:
        found = known.get((provider, region))
        if found is None:
            here = f"{provider}/{region}"
            outside = catalog.egress_micro_usd_per_gb(here, "internet")
            # Any other region of the provider: a figure depends on the one that is left.
            between = catalog.egress_micro_usd_per_gb(here, f"{provider}/elsewhere")
            found = known[provider, region] = Tariff(
                between_micro_usd=min(between, outside), outside_micro_usd=outside
            )
        return found

    return tariff


def with_assumed(known: Known) -> Known:
    """Where neither runs nor the user tell how long a stage runs: as on other machines, else one hour.

    A plan of all needs a figure for each. It is marked as assumed.
    """
    if known.estimated_s is not None:
        return known
    seconds = round(median(run.duration_s for run in known.runs)) if known.runs else _ASSUMED_S
    return msgspec.structs.replace(known, estimated_s=seconds)


def candidates(choices: Sequence[Choice], num_nodes: int, known: Known) -> tuple[Candidate, ...]:
    """`known` has an estimate, as after `with_assumed`."""

    def seconds(choice: Choice) -> int:
        found = runtime_of(choice, num_nodes, known).seconds
        assert found is not None
        return found

    return candidates_of(choices, seconds)


def notes_of(shape: Shape, reply: PipelineReply) -> tuple[str, ...]:
    """What was assumed, and what was not counted."""
    found = []
    guessed = [f"`{stage.name}`" for stage in reply.stages if stage.offer.basis == "assumed"]
    if guessed:
        found.append(
            f"how long {', '.join(guessed)} runs is not known and taken to be one hour (as on other "
            "machines, "
            "where it ran before): `estimated_hours` says it"
        )
    if shape.unknown:
        found.append(
            f"traffic of {', '.join(f'`{url}`' for url in shape.unknown)} is not counted: nobody's storage "
            "that is known"
        )
    return tuple(found)


class Planned(NamedTuple):
    """The optimum, the moves of data, and why it is so. `alone_micro_usd`: every stage at its own cheapest
    place."""

    plan: PipelinePlan
    moves: tuple[MoveView, ...]
    alone_micro_usd: int
    reasons: tuple[str, ...]


def planned(
    shape: Shape, candidates: Sequence[tuple[Candidate, ...]], tariffs: Tariffs, objective: Objective
) -> Planned:
    """The best places of all stages together. Errors as of `plan_pipeline`; `usage` for carbon."""
    if objective is Objective.CARBON:
        raise ArgosyError(
            "usage", "pipelines are not planned by carbon", hint="it is one of cost, time; or plan one task"
        )
    stages = [
        Stage(name=name, candidates=mine, flows=flows)
        for name, mine, flows in zip(shape.names, candidates, shape.flows, strict=True)
    ]
    plan = plan_pipeline(stages, shape.links, tariffs=tariffs, objective=objective)
    picks = {each.stage: each.candidate for each in plan.picks}
    cheapest = {
        stage.name: min(stage.candidates, key=lambda each: (each.cost_micro_usd, each.duration_s))
        for stage in stages
    }

    def total(chosen: Mapping[str, Candidate]) -> int:
        return sum(each.cost_micro_usd for each in chosen.values()) + sum(
            move.cost_micro_usd for move in _moves(shape, chosen, tariffs)
        )

    alone = total(cheapest)
    moves = _moves(shape, picks, tariffs)
    if objective is Objective.TIME:
        reasons = _why_fastest(plan, plan_pipeline(stages, shape.links, tariffs=tariffs))
    else:
        reasons = _why(shape, stages, picks, cheapest, moves, total)
        if alone > plan.cost_micro_usd:
            reasons.append(
                f"every stage at its own cheapest place would cost {render_price(alone)} with traffic, "
                f"{render_price(alone - plan.cost_micro_usd)} more"
            )
    return Planned(plan, tuple(move for move in moves if move.size_bytes), alone, tuple(reasons))


def _place(candidate: Candidate) -> tuple[str, str]:
    return candidate.choice.offer.provider, candidate.choice.offer.region


def _shown(place: tuple[str, str]) -> str:
    return "/".join(part for part in place if part)


def _moves(shape: Shape, picks: Mapping[str, Candidate], tariffs: Tariffs) -> list[MoveView]:
    found = []
    for number, name in enumerate(shape.names):
        here = _place(picks[name])
        for flow, url in zip(shape.flows[number], shape.urls[number], strict=True):
            cost = flow_micro_usd(flow, *here, tariffs)
            ends = (url, name) if flow.reads else (name, url)
            places = (flow.provider, _shown(here)) if flow.reads else (_shown(here), flow.provider)
            found.append(_move(ends, places, flow.size_bytes, cost))
    for link in shape.links:
        src, dst = _place(picks[link.src]), _place(picks[link.dst])
        flow = Flow(provider=src[0], region=src[1], size_bytes=link.size_bytes)
        cost = 0 if src == dst else flow_micro_usd(flow, *dst, tariffs)
        found.append(_move((link.src, link.dst), (_shown(src), _shown(dst)), link.size_bytes, cost))
    return found


def _move(ends: tuple[str, str], places: tuple[str, str], size_bytes: int, cost: int) -> MoveView:
    return MoveView(
        src=ends[0],
        dst=ends[1],
        src_place=places[0],
        dst_place=places[1],
        size_bytes=size_bytes,
        cost_micro_usd=cost,
    )


def _why_fastest(plan: PipelinePlan, cheapest: PipelinePlan) -> list[str]:
    if cheapest.makespan_s <= plan.makespan_s:
        return ["nothing is known to be faster than the cheapest, so the cheapest is taken"]
    return [
        f"the cheapest would be done in {render_duration(cheapest.makespan_s)} for "
        f"{render_price(cheapest.cost_micro_usd)}: "
        f"{render_duration(cheapest.makespan_s - plan.makespan_s)} later"
    ]


def _why(
    shape: Shape,
    stages: Sequence[Stage],
    picks: Mapping[str, Candidate],
    cheapest: Mapping[str, Candidate],
    moves: Sequence[MoveView],
    total: Callable[[Mapping[str, Candidate]], int],
) -> list[str]:
    """Why a stage is not where it is cheapest alone, and why data travels where it does."""
    best = total(picks)
    said = []
    for name in shape.names:
        mine, other = picks[name], cheapest[name]
        saved = mine.cost_micro_usd - other.cost_micro_usd
        if saved > 0:
            more = total({**picks, name: other}) - best + saved
            said.append(
                f"`{name}` stays in {_shown(_place(mine))}: {render_choice(other.choice)} would save "
                f"{render_price(saved)} "
                f"and cost {render_price(more)} more in traffic"
            )
    options = {stage.name: stage.candidates for stage in stages}
    for move in moves:
        if not move.cost_micro_usd or move.src not in picks or move.dst not in picks:
            continue
        place = _place(picks[move.src])
        there = [each for each in options[move.dst] if _place(each) == place]
        paid = (
            f"`{move.dst}` leaves {move.src_place} for {move.dst_place}, which costs "
            f"{render_price(move.cost_micro_usd)} "
            f"for {render_bytes(move.size_bytes)}"
        )
        if there:
            stay = min(there, key=lambda each: each.cost_micro_usd)
            lost = total({**picks, move.dst: stay}) - best
            said.append(f"{paid}: staying would cost {render_price(lost)} more in all")
        else:
            said.append(f"{paid}: nothing there fits it")
    if not said:
        said.append(
            "every stage is at its own cheapest place"
            if any(move.size_bytes for move in moves)
            else "every stage is at its own cheapest place; `outputs` and `inputs` say how much data travels"
        )
    return said


def view_of(
    shape: Shape, found: Planned, offers: Sequence[OfferView], tasks: Sequence[Task]
) -> PipelineReply:
    """The answer. `offers`: how the choice of every stage is shown."""
    stages = []
    for pick, offer, task in zip(found.plan.picks, offers, tasks, strict=True):
        mine = [move for move in found.moves if move.dst == pick.stage and move.src not in shape.names]
        stages.append(
            StageView(
                name=pick.stage,
                offer=msgspec.structs.replace(
                    offer, runtime_s=pick.candidate.duration_s, total_micro_usd=pick.candidate.cost_micro_usd
                ),
                num_nodes=task.num_nodes,
                cost_micro_usd=pick.candidate.cost_micro_usd,
                input_micro_usd=sum(move.cost_micro_usd for move in mine),
                egress_micro_usd=sum(move.cost_micro_usd for move in found.moves if move.src == pick.stage),
            )
        )
    return PipelineReply(
        stages=tuple(stages),
        moves=found.moves,
        cost_micro_usd=found.plan.cost_micro_usd,
        egress_micro_usd=found.plan.egress_micro_usd,
        makespan_s=found.plan.makespan_s,
        alone_micro_usd=found.alone_micro_usd,
        method=found.plan.method,
        reasons=found.reasons,
    )
