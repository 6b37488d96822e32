"""The fastest placement of a pipeline, and the cheapest among the fastest.

On trees that all point away from one stage, or all towards one (chains are both): dynamic programming over
Pareto frontiers of (time, cost), with the same regions - provider - anywhere grouping as for cost. Otherwise
HiGHS solves it twice: for the makespan, then for the cost within it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from argosy.model.units import GIB
from argosy.planning.dag import Edge, Network, Option, Solution, needs_highs


class _Point(NamedTuple):
    """What a stage and all behind it take; `picks` is (stage, option) and the points of its neighbours."""

    seconds: int
    cost: int
    stage: int
    option: Option
    behind: tuple[_Point, ...]


_Frontier = list[_Point]  # seconds rise, costs fall


def solve_makespan(network: Network, solver: str) -> Solution:
    network = _pruned(network)
    kept = sum(map(len, network.options))
    trees = _rooted(network)
    if trees is None:
        from argosy.planning.milp import Missing, minimise

        if solver == "cutset":
            raise needs_highs()
        try:
            return minimise(network, makespan=True), "highs", kept
        except Missing:
            raise needs_highs() from None
    fronts = [_front(network, root, away) for root, away in trees]
    fastest = max(front[0].seconds for front in fronts)
    picks: dict[int, Option] = {}
    for front in fronts:
        stack = [[point for point in front if point.seconds <= fastest][-1]]  # the cheapest that is in time
        while stack:
            point = stack.pop()
            picks[point.stage] = point.option
            stack += point.behind
    return [picks[v] for v in range(len(network.options))], "tree", kept


def _pruned(network: Network) -> Network:
    """Without options that are worse in the same place, or that make the pipeline longer than a known
    solution."""
    options = []
    for mine in network.options:
        by_place: dict[tuple[str, str], list[Option]] = {}
        for option in sorted(mine, key=lambda o: (o.duration, o.cost)):
            best = by_place.setdefault(option.place, [])
            if not best or option.cost < best[-1].cost:
                best.append(option)
        options.append([option for best in by_place.values() for option in best])
    network = network._replace(options=options)

    known = [min(mine, key=lambda o: (o.duration, o.cost)) for mine in options]
    limit = network.makespan(known)
    for place in set.intersection(*({o.place for o in mine} for mine in options)):
        together = [min((o for o in mine if o.place == place), key=lambda o: o.duration) for mine in options]
        limit = min(limit, network.makespan(together))

    least = [min(o.duration for o in mine) for mine in options]
    before, after = [0] * len(options), [0] * len(options)
    into: dict[int, list[int]] = {}
    out: dict[int, list[int]] = {}
    for edge in network.edges:
        into.setdefault(edge.dst, []).append(edge.src)
        out.setdefault(edge.src, []).append(edge.dst)
    for v in network.order:
        before[v] = max((before[w] + least[w] for w in into.get(v, ())), default=0)
    for v in reversed(network.order):
        after[v] = max((after[w] + least[w] for w in out.get(v, ())), default=0)
    return network._replace(
        options=[
            [o for o in mine if before[v] + o.duration + after[v] <= limit] for v, mine in enumerate(options)
        ]
    )


def _rooted(network: Network) -> list[tuple[int, bool]] | None:
    """(root, edges point away from it) for each connected part; None: one of them is no such tree."""
    near: dict[int, list[Edge]] = {}
    for edge in network.edges:
        near.setdefault(edge.src, []).append(edge)
        near.setdefault(edge.dst, []).append(edge)
    seen: set[int] = set()
    trees = []
    for first in range(len(network.options)):
        if first in seen:
            continue
        part, stack, edges = {first}, [first], set()
        while stack:
            v = stack.pop()
            for edge in near.get(v, ()):
                edges.add(edge)
                for w in (edge.src, edge.dst):
                    if w not in part:
                        part.add(w)
                        stack.append(w)
        seen |= part
        if len(edges) != len(part) - 1:
            return None
        targets, sources = {e.dst for e in edges}, {e.src for e in edges}
        if len(targets) == len(edges):  # at most one edge into each
            trees.append((next(iter(part - targets)), True))
        elif len(sources) == len(edges):
            trees.append((next(iter(part - sources)), False))
        else:
            return None
    return trees


def _front(network: Network, root: int, away: bool) -> _Frontier:
    """The frontier of a whole tree."""
    behind: dict[int, list[Edge]] = {}
    for edge in network.edges:
        behind.setdefault(edge.src if away else edge.dst, []).append(edge)
    order, stack = [], [root]
    while stack:
        v = stack.pop()
        order.append(v)
        stack += [e.dst if away else e.src for e in behind.get(v, ())]
    fronts: dict[int, list[_Frontier]] = {}  # for each option
    for v in reversed(order):
        fronts[v] = _fronts_of(v, network, behind.get(v, []), fronts, away)
    return _pareto(point for front in fronts[root] for point in front)


def _fronts_of(
    v: int, network: Network, edges: Sequence[Edge], fronts: dict[int, list[_Frontier]], away: bool
) -> list[_Frontier]:
    arriving = [
        _arriving(network, edge, fronts[edge.dst if away else edge.src], network.options[v], away)
        for edge in edges
    ]
    found = []
    for position, option in enumerate(network.options[v]):
        front = [_Point(0, 0, -1, option, ())]
        for each in arriving:
            front = _both(front, each[position])
        found.append(
            [
                _Point(point.seconds + option.duration, point.cost + option.cost, v, option, point.behind)
                for point in front
            ]
        )
    return found


def _arriving(
    network: Network, edge: Edge, behind: Sequence[_Frontier], mine: Sequence[Option], away: bool
) -> list[_Frontier]:
    """For each of `mine`, the frontier of what is behind `edge`, with the time and price of the data's
    way."""
    theirs = network.options[edge.dst if away else edge.src]
    here: dict[tuple[str, str], list[_Point]] = {}
    inside: dict[str, list[_Point]] = {}
    anywhere: list[_Point] = []
    for option, front in zip(theirs, behind, strict=True):
        here.setdefault(option.place, []).extend(front)
        near = 0 if away else edge.size * option.between // GIB
        inside.setdefault(option.provider, []).extend(_shifted(front, edge.seconds, near))
        far = 0 if away else edge.size * option.outside // GIB
        anywhere += _shifted(front, edge.seconds, far)
    here = {place: _pareto(points) for place, points in here.items()}
    inside = {provider: _pareto(points) for provider, points in inside.items()}
    anywhere = _pareto(anywhere)
    found = []
    for option in mine:
        near = edge.size * option.between // GIB if away else 0
        far = edge.size * option.outside // GIB if away else 0
        found.append(
            _pareto(
                [
                    *here.get(option.place, ()),
                    *_shifted(inside.get(option.provider, []), 0, near),
                    *_shifted(anywhere, 0, far),
                ]
            )
        )
    return found


def _shifted(front: Iterable[_Point], seconds: int, cost: int) -> list[_Point]:
    return [p._replace(seconds=p.seconds + seconds, cost=p.cost + cost) for p in front]


_time_and_cost: Callable[[_Point], tuple[int, int]] = lambda point: point[:2]  # noqa: E731


def _pareto(points: Iterable[_Point]) -> _Frontier:
    front: _Frontier = []
    for point in sorted(points, key=_time_and_cost):
        if not front or point.cost < front[-1].cost:
            front.append(point)
    return front


def _both(left: _Frontier, right: _Frontier) -> _Frontier:
    """Side by side: the longer time, the sum of costs, at each time at which one of them gets cheaper."""
    found = []
    i = j = 0
    while True:
        a, b = left[i], right[j]
        found.append(_Point(max(a.seconds, b.seconds), a.cost + b.cost, -1, a.option, (*a.behind, b)))
        later_a = left[i + 1].seconds if i + 1 < len(left) else None
        later_b = right[j + 1].seconds if j + 1 < len(right) else None
        if later_a is None and later_b is None:
            return _pareto(found)
        if later_b is None or (later_a is not None and later_a <= later_b):
            i += 1
        else:
            j += 1
