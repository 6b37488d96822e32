"""Where every stage of a pipeline runs, with what moving data between them costs: the optimum of the whole.

Cost: the sum over stages of price x duration plus egress between stages. Egress depends on where data leaves
and on whether it stays in the region, in the provider, or goes outside; so the best neighbour of a candidate
is the best in its region, in its provider, or anywhere, and one pass over the candidates replaces a table of
pairs. On forests (chains, trees) that is dynamic programming, exact and linear. Otherwise a spanning forest
gives a lower bound for every candidate (its min-marginal) and a first solution; candidates whose bound is
above that solution go, and the rest is a mixed-integer programme for HiGHS. Without HiGHS, the stages that
close circles are enumerated while that is few.

Time: the makespan, and among the fastest the cheapest: `planning/makespan.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from argosy.model.errors import ArgosyError
from argosy.model.offer import Choice
from argosy.model.units import GIB, render_duration, render_price
from argosy.planning.objective import Objective, render_choice

DEFAULT_BANDWIDTH_BYTES_PER_S: Final = 1_250_000_000 // 4  # 2.5 Gbit/s between regions
_CUTSETS_MAX: Final = 20_000


class Tariff(msgspec.Struct, frozen=True, kw_only=True):
    """What a GB costs that leaves a place. Going outside and coming back in is possible, so `between` is at
    most `outside`."""

    between_micro_usd: int = 0  # to another region of the provider
    outside_micro_usd: int = 0  # to another provider


#: (provider, region) -> what leaving it costs. Asked once for each place.
Tariffs = Callable[[str, str], Tariff]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    choice: Choice
    cost_micro_usd: int  # of the whole stage
    duration_s: int


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """Data that a stage reads from, or writes to, a place outside of the pipeline."""

    provider: str
    region: str = (
        ""  # "": not known; then it is taken to be wherever the stage is, if the provider is the same
    )
    size_bytes: int
    reads: bool = True  # False: it writes


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    candidates: tuple[Candidate, ...]
    flows: tuple[Flow, ...] = ()


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """`dst` starts after `src` and reads `size_bytes` of its output."""

    src: str
    dst: str
    size_bytes: int = 0


class Picked(msgspec.Struct, frozen=True, kw_only=True):
    stage: str
    candidate: Candidate
    egress_micro_usd: int = 0  # of what it reads


class PipelinePlan(msgspec.Struct, frozen=True, kw_only=True):
    """The optimum. `method`: tree, bound (a tree that proved itself), highs, cutset."""

    picks: tuple[Picked, ...]  # in the order of the stages
    cost_micro_usd: int  # with egress
    egress_micro_usd: int
    makespan_s: int
    method: str
    considered: int  # candidates in all
    kept: int  # that were left after pruning

    def render(self) -> str:
        """The plan in lines of text, one for each stage."""
        lines = [
            f"{each.stage}: {render_choice(each.candidate.choice)} "
            f"{render_price(each.candidate.cost_micro_usd)}, "
            f"{render_duration(each.candidate.duration_s)}"
            + (f", egress {render_price(each.egress_micro_usd)}" if each.egress_micro_usd else "")
            for each in self.picks
        ]
        return "\n".join(
            [*lines, f"total {render_price(self.cost_micro_usd)}, {render_duration(self.makespan_s)}"]
        )


_SCHEMES: Final = {
    "s3": "aws",
    "gs": "gcp",
    "azblob": "azure",
    "abfs": "azure",
    "abfss": "azure",
    "az": "azure",
    "oci": "oci",
    "nebius": "nebius",
    "cos": "ibm",
    "r2": "cloudflare",
}


def provider_of_url(url: str) -> str:
    """Whose storage a URL names; "" when it is nobody's.

    >>> provider_of_url("s3://corpus"), provider_of_url("https://example.com/x")
    ('aws', '')
    """
    return _SCHEMES.get(url.partition("://")[0].lower(), "")


def candidates_of(choices: Iterable[Choice], duration_s: Callable[[Choice], int]) -> tuple[Candidate, ...]:
    """Choices with what the whole stage costs on them."""
    found = []
    for choice in choices:
        seconds = duration_s(choice)
        cost = -(-choice.price_micro_usd * seconds // 3600)
        found.append(Candidate(choice=choice, cost_micro_usd=cost, duration_s=seconds))
    return tuple(found)


def plan_pipeline(
    stages: Sequence[Stage],
    links: Sequence[Link],
    *,
    tariffs: Tariffs,
    objective: Objective = Objective.COST,
    bandwidth_bytes_per_s: int = DEFAULT_BANDWIDTH_BYTES_PER_S,
    solver: str = "auto",
) -> PipelinePlan:
    """The cheapest, or the fastest, placement of all stages.

    Args:
        solver: what solves a pipeline that is no forest: `highs`, `cutset` (cost only), or `auto` for the
        first that is there.

    Raises:
        ArgosyError: `no-offer` for a stage without candidates; `spec-invalid` for links in a circle or to
        nowhere;
            `unsupported` when a solver is needed that is not installed.
    """
    network = _network(stages, links, tariffs, bandwidth_bytes_per_s)
    considered = sum(len(each) for each in network.options)
    if objective is Objective.TIME:
        from argosy.planning.makespan import solve_makespan

        picks, method, kept = solve_makespan(network, solver)
    else:
        picks, method, kept = solve_cost(network, solver)
    return _finished(stages, network, picks, method, considered, kept)


# --- the network: the same in small integers -------------------------------------------------------


class Option(NamedTuple):
    """A candidate. `cost` includes what the flows of its stage cost there."""

    cost: int
    duration: int
    place: tuple[str, str]
    provider: str
    between: int  # micro-USD per GB
    outside: int
    number: int  # position in Stage.candidates


class Edge(NamedTuple):
    src: int
    dst: int
    size: int  # bytes
    seconds: int  # when the places differ

    def cost(self, src: Option, dst: Option) -> int:
        if src.place == dst.place:
            return 0
        per_gb = src.between if src.provider == dst.provider else src.outside
        return self.size * per_gb // GIB

    def delay(self, src: Option, dst: Option) -> int:
        return 0 if src.place == dst.place else self.seconds


class Network(NamedTuple):
    options: list[list[Option]]  # by stage
    edges: list[Edge]
    order: list[int]  # stages, sources first

    def cost(self, picks: Sequence[Option]) -> int:
        return sum(each.cost for each in picks) + sum(e.cost(picks[e.src], picks[e.dst]) for e in self.edges)

    def makespan(self, picks: Sequence[Option]) -> int:
        ends = [0] * len(picks)
        into: dict[int, list[Edge]] = {}
        for edge in self.edges:
            into.setdefault(edge.dst, []).append(edge)
        for v in self.order:
            ready = [ends[e.src] + e.delay(picks[e.src], picks[v]) for e in into.get(v, ())]
            ends[v] = max(ready, default=0) + picks[v].duration
        return max(ends, default=0)


Solution = tuple[list[Option], str, int]


def _network(
    stages: Sequence[Stage], links: Sequence[Link], tariffs: Tariffs, bandwidth_bytes_per_s: int
) -> Network:
    positions = {stage.name: index for index, stage in enumerate(stages)}
    if len(positions) < len(stages):
        raise ArgosyError("spec-invalid", "two stages of the pipeline have the same name")
    sizes: dict[tuple[int, int], int] = {}
    for link in links:
        for name in (link.src, link.dst):
            if name not in positions:
                raise ArgosyError("spec-invalid", f"the pipeline has no stage `{name}`")
        pair = positions[link.src], positions[link.dst]
        sizes[pair] = sizes.get(pair, 0) + link.size_bytes
    edges = [
        Edge(src, dst, size, -(-size // bandwidth_bytes_per_s)) for (src, dst), size in sorted(sizes.items())
    ]
    order = _sorted(len(stages), edges, [stage.name for stage in stages])
    known: dict[tuple[str, str], Tariff] = {}

    def tariff(provider: str, region: str) -> Tariff:
        found = known.get((provider, region))
        if found is None:
            raw = tariffs(provider, region)
            outside = max(0, raw.outside_micro_usd)
            between = min(max(0, raw.between_micro_usd), outside)
            found = known[provider, region] = Tariff(between_micro_usd=between, outside_micro_usd=outside)
        return found

    options = []
    for stage in stages:
        if not stage.candidates:
            raise ArgosyError("no-offer", f"no offer fits the stage `{stage.name}`")
        mine = []
        for index, candidate in enumerate(stage.candidates):
            offer = candidate.choice.offer
            away = tariff(offer.provider, offer.region)
            cost = candidate.cost_micro_usd + sum(
                flow_micro_usd(flow, offer.provider, offer.region, tariff) for flow in stage.flows
            )
            mine.append(
                Option(
                    cost,
                    candidate.duration_s,
                    (offer.provider, offer.region),
                    offer.provider,
                    away.between_micro_usd,
                    away.outside_micro_usd,
                    index,
                )
            )
        options.append(mine)
    return Network(options, edges, order)


def flow_micro_usd(flow: Flow, provider: str, region: str, tariff: Tariffs) -> int:
    """What the traffic of `flow` costs when its stage runs in this place."""
    if flow.provider == provider and flow.region in ("", region):
        return 0
    away = tariff(flow.provider, flow.region) if flow.reads else tariff(provider, region)
    per_gb = away.between_micro_usd if flow.provider == provider else away.outside_micro_usd
    return flow.size_bytes * per_gb // GIB


def _sorted(count: int, edges: Sequence[Edge], names: Sequence[str]) -> list[int]:
    waits = [0] * count
    after: dict[int, list[int]] = {}
    for edge in edges:
        waits[edge.dst] += 1
        after.setdefault(edge.src, []).append(edge.dst)
    ready = [v for v in range(count) if not waits[v]]
    order = []
    while ready:
        v = ready.pop(0)
        order.append(v)
        for w in after.get(v, ()):
            waits[w] -= 1
            if not waits[w]:
                ready.append(w)
    if len(order) < count:
        circle = sorted(names[v] for v in range(count) if v not in set(order))
        raise ArgosyError(
            "spec-invalid",
            f"the stages {', '.join(f'`{each}`' for each in circle)} wait for each other in a circle",
            hint="remove one of the links between them",
        )
    return order


def _finished(
    stages: Sequence[Stage],
    network: Network,
    picks: Sequence[Option],
    method: str,
    considered: int,
    kept: int,
) -> PipelinePlan:
    read = [
        picks[v].cost - stages[v].candidates[picks[v].number].cost_micro_usd for v in range(len(picks))
    ]  # what flows cost
    for edge in network.edges:
        read[edge.dst] += edge.cost(picks[edge.src], picks[edge.dst])
    return PipelinePlan(
        picks=tuple(
            Picked(stage=stage.name, candidate=stage.candidates[pick.number], egress_micro_usd=egress)
            for stage, pick, egress in zip(stages, picks, read, strict=True)
        ),
        cost_micro_usd=network.cost(picks),
        egress_micro_usd=sum(read),
        makespan_s=network.makespan(picks),
        method=method,
        considered=considered,
        kept=kept,
    )


# --- cost ------------------------------------------------------------------------------------------


def solve_cost(network: Network, solver: str) -> Solution:
    network = network._replace(options=[_cheapest_by_place(options) for options in network.options])
    forest, rest = _spanning_forest(len(network.options), network.edges)
    tree = _Messages(network.options, forest)
    picks = tree.best()
    if not rest:
        return picks, "tree", sum(map(len, network.options))
    bound, cost = tree.least(), network.cost(picks)
    for place in set.intersection(*({o.place for o in options} for options in network.options)):
        together = [next(o for o in options if o.place == place) for options in network.options]
        if network.cost(together) < cost:
            picks, cost = together, network.cost(together)
    picks, cost = _improved(network, picks, cost)
    kept = [
        [
            o
            for o, marginal in zip(options, tree.marginals(v), strict=True)
            if marginal < cost or o == picks[v]
        ]
        for v, options in enumerate(network.options)
    ]
    smaller = network._replace(options=kept)
    count = sum(map(len, kept))
    if cost == bound or count == len(kept):
        return picks, "bound", count
    if solver != "cutset":
        from argosy.planning.milp import Missing, minimise

        try:
            found = minimise(smaller, makespan=False)
        except Missing:
            if solver == "highs":
                raise needs_highs() from None
        else:
            return (found if network.cost(found) < cost else picks), "highs", count
    return _by_cutset(smaller), "cutset", count


def needs_highs() -> ArgosyError:
    return ArgosyError(
        "unsupported",
        "the optimum of this pipeline needs the solver HiGHS, which is not installed",
        hint="`pip install 'argosy[optimizer]'`, or make its stages a tree",
    )


def _cheapest_by_place(options: Sequence[Option]) -> list[Option]:
    """Only the cheapest of a place can be in an optimum: egress depends on nothing else."""
    best: dict[tuple[str, str], Option] = {}
    for option in options:
        old = best.get(option.place)
        if old is None or option[:2] < old[:2]:
            best[option.place] = option
    return list(best.values())


def _spanning_forest(count: int, edges: Sequence[Edge]) -> tuple[list[Edge], list[Edge]]:
    """Edges without circles, the heaviest first, and the others (Kruskal)."""
    group = list(range(count))

    def find(v: int) -> int:
        while group[v] != v:
            group[v] = group[group[v]]
            v = group[v]
        return v

    forest: list[Edge] = []
    rest: list[Edge] = []
    for edge in sorted(edges, key=lambda e: -e.size):
        a, b = find(edge.src), find(edge.dst)
        if a == b:
            (rest if edge.size else forest).append(edge)  # without data it costs nothing
        else:
            group[a] = b
            forest.append(edge)
    return [e for e in forest if e.size], rest


class _Messages:
    """Min-sum messages over a forest: optimum, and the least cost of all with each single candidate."""

    def __init__(self, options: Sequence[Sequence[Option]], forest: Sequence[Edge]) -> None:
        self._options = options
        self._near: list[list[Edge]] = [[] for _ in options]
        for edge in forest:
            self._near[edge.src].append(edge)
            self._near[edge.dst].append(edge)
        self._kept: dict[tuple[int, int], list[int]] = {}
        self._roots: list[int] = []
        self._preorder: list[tuple[int, Edge | None]] = []  # stage, edge to its parent
        seen: set[int] = set()
        for root in range(len(options)):
            if root in seen:
                continue
            seen.add(root)
            self._roots.append(root)
            stack: list[tuple[int, Edge | None]] = [(root, None)]
            while stack:
                v, parent = stack.pop()
                self._preorder.append((v, parent))
                for edge in self._near[v]:
                    w = edge.dst if edge.src == v else edge.src
                    if w not in seen:
                        seen.add(w)
                        stack.append((w, edge))
        for v, parent in reversed(self._preorder):  # leaves first: no deep recursion
            if parent is not None:
                self._send(v, parent)
        self._down = False

    def _total(self, v: int, without: Edge | None = None) -> list[int]:
        totals = [option.cost for option in self._options[v]]
        for edge in self._near[v]:
            if edge is not without:
                w = edge.dst if edge.src == v else edge.src
                totals = [a + b for a, b in zip(totals, self._kept[w, v], strict=True)]
        return totals

    def _send(self, v: int, edge: Edge) -> None:
        """What the best of `v` and all behind it costs, for each candidate at the other end of `edge`."""
        w = edge.dst if edge.src == v else edge.src
        self._kept[v, w] = message(
            self._total(v, edge), self._options[v], self._options[w], edge, from_src=edge.src == v
        )

    def least(self) -> int:
        return sum(min(self._total(root)) for root in self._roots)

    def best(self) -> list[Option]:
        picks: list[Option | None] = [None] * len(self._options)
        for v, parent in self._preorder:
            totals = self._total(v, parent)
            if parent is not None:
                other = picks[parent.dst if parent.src == v else parent.src]
                assert other is not None
                totals = [
                    total + (parent.cost(o, other) if parent.src == v else parent.cost(other, o))
                    for total, o in zip(totals, self._options[v], strict=True)
                ]
            picks[v] = self._options[v][totals.index(min(totals))]
        return [pick for pick in picks if pick is not None]

    def marginals(self, v: int) -> list[int]:
        """The least cost of the whole forest with each candidate of `v`: a lower bound, as edges that close
        circles are free."""
        if not self._down:
            for w, parent in self._preorder:
                if parent is not None:
                    self._send(parent.dst if parent.src == w else parent.src, parent)
            self._down = True
        own = self._total(v)
        apart = self.least() - min(own)
        return [each + apart for each in own]


def message(
    totals: Sequence[int], mine: Sequence[Option], theirs: Sequence[Option], edge: Edge, *, from_src: bool
) -> list[int]:
    """min over `mine` of total + egress, for each of `theirs`; linear. `between` at most `outside` makes it
    exact."""
    size = edge.size
    here: dict[tuple[str, str], int] = {}
    inside: dict[str, int] = {}
    anywhere: int | None = None
    for total, option in zip(totals, mine, strict=True):
        old = here.get(option.place)
        if old is None or total < old:
            here[option.place] = total
        near = total + size * option.between // GIB if from_src else total
        old = inside.get(option.provider)
        if old is None or near < old:
            inside[option.provider] = near
        far = total + size * option.outside // GIB if from_src else total
        if anywhere is None or far < anywhere:
            anywhere = far
    assert anywhere is not None
    found = []
    for option in theirs:
        best = anywhere if from_src else anywhere + size * option.outside // GIB
        near_best = inside.get(option.provider)
        if near_best is not None:
            best = min(best, near_best if from_src else near_best + size * option.between // GIB)
        best = min(best, here.get(option.place, best))
        found.append(best)
    return found


def _improved(network: Network, picks: Sequence[Option], cost: int) -> tuple[list[Option], int]:
    """Descent, one stage at a time: a better first solution leaves fewer candidates."""
    best = list(picks)
    near: dict[int, list[Edge]] = {}
    for edge in network.edges:
        near.setdefault(edge.src, []).append(edge)
        near.setdefault(edge.dst, []).append(edge)
    moved = True
    while moved:
        moved = False
        for v, options in enumerate(network.options):
            edges = near.get(v, [])

            def local(option: Option, v: int = v, edges: list[Edge] = edges) -> int:
                return option.cost + sum(
                    e.cost(option, best[e.dst]) if e.src == v else e.cost(best[e.src], option) for e in edges
                )

            chosen = min(options, key=local)
            gain = local(best[v]) - local(chosen)
            if gain > 0:
                best[v], cost, moved = chosen, cost - gain, True
    return best, cost


def _by_cutset(network: Network) -> list[Option]:
    """Fix stages until the rest is a forest, and try everything that they can be."""
    fixed: list[int] = []
    while True:
        open_edges = [e for e in network.edges if e.size and e.src not in fixed and e.dst not in fixed]
        forest, rest = _spanning_forest(len(network.options), open_edges)
        if not rest:
            break
        degree: dict[int, int] = {}
        for edge in rest:
            for v in (edge.src, edge.dst):
                degree[v] = degree.get(v, 0) + 1
        fixed.append(max(degree, key=lambda v: (degree[v], -len(network.options[v]))))
    tries = 1
    for v in fixed:
        tries *= len(network.options[v])
    if tries > _CUTSETS_MAX:
        raise needs_highs()
    crossing = [e for e in network.edges if e.size and (e.src in fixed or e.dst in fixed)]
    best: tuple[int, list[Option]] | None = None
    for combination in itertools.product(*(network.options[v] for v in fixed)):
        held = dict(zip(fixed, combination, strict=True))
        options = [[held[v]] if v in held else mine for v, mine in enumerate(network.options)]
        for edge in crossing:
            for v, w in ((edge.src, edge.dst), (edge.dst, edge.src)):
                if w in held and (v not in held or v == edge.src):
                    options[v] = [
                        o._replace(
                            cost=o.cost + (edge.cost(o, held[w]) if v == edge.src else edge.cost(held[w], o))
                        )
                        for o in options[v]
                    ]
        tree = _Messages(options, forest)
        if best is None or tree.least() < best[0]:
            best = tree.least(), tree.best()
    assert best is not None
    original = [{o.number: o for o in options} for options in network.options]
    return [original[v][pick.number] for v, pick in enumerate(best[1])]
