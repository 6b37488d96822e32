"""A pipeline as a mixed-integer programme for HiGHS (Huangfu and Hall, "Parallelizing the dual revised
simplex method", 2018).

x[v,a] is 1 when stage v takes option a. For an edge, one variable for each place of its source is at least
"source here, target not here" and costs `between`; one for each tariff of its source's provider is at least
"source in it, target not in the provider" and costs what `outside` costs more. So an edge needs as many rows
as there are places, not pairs of places.

highspy is the extra `optimizer` and is imported when a programme is solved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from argosy.model.errors import ArgosyError
from argosy.model.units import GIB

if TYPE_CHECKING:
    from argosy.planning.dag import Network, Option

_LARGEST = 1e6  # coefficients stay below, so that HiGHS's tolerances mean less than a cent
_LIMIT_S = 60.0


class Missing(Exception):
    """highspy is not installed."""


class _Rows:
    """A programme that grows row by row."""

    def __init__(self) -> None:
        self.cost: list[float] = []
        self.lower: list[float] = []
        self.upper: list[float] = []
        self.whole: list[bool] = []
        self.row_lower: list[float] = []
        self.row_upper: list[float] = []
        self.start: list[int] = [0]
        self.index: list[int] = []
        self.value: list[float] = []

    def variable(self, cost: float = 0.0, upper: float = 1.0, *, whole: bool = False) -> int:
        self.cost.append(cost)
        self.lower.append(0.0)
        self.upper.append(upper)
        self.whole.append(whole)
        return len(self.cost) - 1

    def row(self, terms: dict[int, float], lower: float, upper: float) -> None:
        self.index += terms.keys()
        self.value += terms.values()
        self.start.append(len(self.index))
        self.row_lower.append(lower)
        self.row_upper.append(upper)

    # Any: highspy has no types that a strict checker could use.
    def solve(self, highspy: Any, cost: list[float], *, clock: bool = False) -> list[float]:
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = len(cost), len(self.row_lower)
        lp.col_cost_, lp.col_lower_, lp.col_upper_ = cost, self.lower, self.upper
        lp.row_lower_, lp.row_upper_ = self.row_lower, self.row_upper
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = self.start, self.index, self.value
        kind = highspy.HighsVarType
        lp.integrality_ = [kind.kInteger if whole else kind.kContinuous for whole in self.whole]
        settings = {
            "output_flag": False, "threads": 1, "random_seed": 0, "mip_rel_gap": 0.0, "mip_abs_gap": 1e-9,
            "mip_feasibility_tolerance": 1e-7, "time_limit": _LIMIT_S,
        }  # fmt: skip
        text = ""
        # Presolve of HiGHS 1.15.1 calls some feasible programmes with start times infeasible, or does not
        # end: clocks do without.
        for presolve in ("off", "on") if clock else ("on", "off"):
            highs = highspy.Highs()
            for name, setting in settings.items():
                highs.setOptionValue(name, setting)
            highs.setOptionValue("presolve", presolve)
            highs.passModel(lp)
            highs.run()
            status = highs.getModelStatus()
            if status == highspy.HighsModelStatus.kOptimal:
                return list(highs.getSolution().col_value)
            text = highs.modelStatusToString(status)
        raise ArgosyError(
            "unsupported",
            f"HiGHS did not solve this pipeline: {text}",
            hint="give it fewer candidates, for example a region for each stage",
        )


def minimise(network: Network, *, makespan: bool) -> list[Option]:
    """The cheapest picks; with `makespan` the fastest, and the cheapest among them. Raises `Missing`."""
    try:
        import highspy
    except ImportError:
        raise Missing from None

    rows = _Rows()
    inf = highspy.kHighsInf
    largest = max(
        [1, *(o.cost for options in network.options for o in options)]
        + [e.size * max((o.outside for o in network.options[e.src]), default=0) // GIB for e in network.edges]
    )
    unit = max(1.0, largest / _LARGEST)
    picks = [[rows.variable(o.cost / unit, whole=True) for o in options] for options in network.options]
    at: list[dict[tuple[str, str], list[int]]] = []
    within: list[dict[str, list[int]]] = []
    for mine, options in zip(picks, network.options, strict=True):
        rows.row(dict.fromkeys(mine, 1.0), 1.0, 1.0)
        places: dict[tuple[str, str], list[int]] = {}
        providers: dict[str, list[int]] = {}
        for variable, option in zip(mine, options, strict=True):
            places.setdefault(option.place, []).append(variable)
            providers.setdefault(option.provider, []).append(variable)
        at.append(places)
        within.append(providers)

    def leaves(source: list[int], target: list[int], variable: int) -> None:
        """variable >= sum of `source` - sum of `target`"""
        terms = {variable: 1.0} | dict.fromkeys(source, -1.0)
        for each in target:
            terms[each] = terms.get(each, 0.0) + 1.0
        rows.row(terms, 0.0, inf)

    for edge in network.edges:
        if not edge.size:
            continue
        tariffs: dict[tuple[str, int], list[int]] = {}
        seen: set[tuple[str, str]] = set()
        for variable, option in zip(picks[edge.src], network.options[edge.src], strict=True):
            between = edge.size * option.between // GIB
            more = edge.size * option.outside // GIB - between
            if between and option.place not in seen:
                seen.add(option.place)
                paid = rows.variable(between / unit)
                leaves(at[edge.src][option.place], at[edge.dst].get(option.place, []), paid)
            if more:
                tariffs.setdefault((option.provider, more), []).append(variable)
        for (provider, more), variables in tariffs.items():
            paid = rows.variable(more / unit)
            leaves(variables, within[edge.dst].get(provider, []), paid)

    if makespan:
        _add_clock(rows, network, picks, at, inf)
        clock = len(rows.cost) - 1
        first = [0.0] * len(rows.cost)
        first[clock] = 1.0
        fastest = round(rows.solve(highspy, first, clock=True)[clock])
        rows.upper[clock] = fastest + 0.5  # durations are whole seconds: what is below is as fast
    values = rows.solve(highspy, rows.cost, clock=makespan)
    return [
        options[max(range(len(options)), key=lambda i, mine=mine: values[mine[i]])]  # type: ignore[misc]
        for mine, options in zip(picks, network.options, strict=True)
    ]


def _add_clock(
    rows: _Rows,
    network: Network,
    picks: list[list[int]],
    at: list[dict[tuple[str, str], list[int]]],
    inf: float,
) -> None:
    """Start times, and as the last variable the makespan."""
    starts = [rows.variable(upper=inf) for _ in network.options]
    durations = [
        {variable: float(o.duration) for variable, o in zip(mine, options, strict=True)}
        for mine, options in zip(picks, network.options, strict=True)
    ]
    for edge in network.edges:
        moves: int | None = None
        if edge.seconds:
            moves = rows.variable()
            for place, source in at[edge.src].items():
                terms = {moves: 1.0} | dict.fromkeys(source, -1.0)
                for each in at[edge.dst].get(place, []):
                    terms[each] = 1.0
                rows.row(terms, 0.0, inf)
        terms = {starts[edge.dst]: 1.0, starts[edge.src]: -1.0}
        terms |= {variable: -seconds for variable, seconds in durations[edge.src].items()}
        if moves is not None:
            terms[moves] = -float(edge.seconds)
        rows.row(terms, 0.0, inf)
    clock = rows.variable(upper=inf)
    for v, mine in enumerate(durations):
        rows.row({clock: 1.0, starts[v]: -1.0} | {x: -seconds for x, seconds in mine.items()}, 0.0, inf)
