"""Pipelines: every solver against brute force, and the words of what cannot be."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.model.errors import ArgosyError
from argosy.model.offer import Capacity, Choice, Offer, Shape
from argosy.model.resources import Resources
from argosy.model.units import GIB
from argosy.planning.dag import (
    Candidate,
    Flow,
    Link,
    PipelinePlan,
    Stage,
    Tariff,
    candidates_of,
    plan_pipeline,
)
from argosy.planning.objective import Objective

PLACES = [("aws", "east"), ("aws", "west"), ("gcp", "east"), ("gcp", "north"), ("local", "")]
TARIFFS = {
    ("aws", "east"): Tariff(between_micro_usd=2, outside_micro_usd=9),
    ("aws", "west"): Tariff(between_micro_usd=3, outside_micro_usd=9),
    ("gcp", "east"): Tariff(between_micro_usd=1, outside_micro_usd=12),
    ("gcp", "north"): Tariff(between_micro_usd=1, outside_micro_usd=8),
    ("local", ""): Tariff(),
}
RATE = GIB // 2  # bytes a second: a GB takes two seconds


def tariffs(provider: str, region: str) -> Tariff:
    return TARIFFS[provider, region]


def at(place: tuple[str, str], cost: int, seconds: int, kind: str = "m") -> Candidate:
    offer = Offer(
        provider=place[0],
        region=place[1],
        shape=Shape(instance_type=kind),
        capacity=Capacity.ON_DEMAND,
        price_micro_usd=cost,
    )
    choice = Choice(offer=offer, resources=Resources(), cpus_milli=0, memory_bytes=0, price_micro_usd=cost)
    return Candidate(choice=choice, cost_micro_usd=cost, duration_s=seconds)


def judged(stages: list[Stage], links: list[Link], picks: tuple[Candidate, ...]) -> tuple[int, int]:
    """(cost, makespan) of one placement, written from the words."""
    by_name = {stage.name: pick for stage, pick in zip(stages, picks, strict=True)}
    cost = sum(pick.cost_micro_usd for pick in picks)
    ends: dict[str, int] = {}
    place = {name: (pick.choice.offer.provider, pick.choice.offer.region) for name, pick in by_name.items()}
    for stage in stages:  # names are in topological order
        ready = 0
        for link in links:
            if link.dst == stage.name:
                a, b = place[link.src], place[link.dst]
                if a != b:
                    gb = TARIFFS[a].between_micro_usd if a[0] == b[0] else TARIFFS[a].outside_micro_usd
                    cost += link.size_bytes // GIB * gb
                ready = max(ready, ends[link.src] + (0 if a == b else -(-link.size_bytes // RATE)))
        ends[stage.name] = ready + by_name[stage.name].duration_s
        for flow in stage.flows:
            a, b = (flow.provider, flow.region), place[stage.name]
            if not flow.reads:
                a, b = b, a
            if a != b:
                gb = TARIFFS[a].between_micro_usd if a[0] == b[0] else TARIFFS[a].outside_micro_usd
                cost += flow.size_bytes // GIB * gb
    return cost, max(ends.values())


def brute(stages: list[Stage], links: list[Link], *, time: bool) -> tuple[int, int]:
    found = [judged(stages, links, picks) for picks in itertools.product(*(s.candidates for s in stages))]
    return min((span, cost) for cost, span in found)[::-1] if time else min(found)


def answer(plan: PipelinePlan) -> tuple[int, int]:
    return plan.cost_micro_usd, plan.makespan_s


candidates = st.builds(at, st.sampled_from(PLACES), st.integers(0, 60), st.integers(1, 20))
flows = st.builds(
    lambda place, gb, reads: Flow(provider=place[0], region=place[1], size_bytes=gb * GIB, reads=reads),
    st.sampled_from(PLACES),
    st.integers(1, 5),
    st.booleans(),
)


@st.composite
def pipelines(draw: st.DrawFn, shape: str) -> tuple[list[Stage], list[Link]]:
    count = draw(st.integers(1, 5))
    stages = [
        Stage(
            name=f"s{i}",
            candidates=tuple(draw(st.lists(candidates, min_size=1, max_size=4))),
            flows=tuple(draw(st.lists(flows, max_size=1))),
        )
        for i in range(count)
    ]
    gb = st.integers(0, 6)
    pairs: list[tuple[int, int]] = []
    if shape == "chain":
        pairs = [(i, i + 1) for i in range(count - 1)]
    elif shape == "out-tree":
        pairs = [(draw(st.integers(0, i - 1)), i) for i in range(1, count) if draw(st.integers(0, 4))]
    elif shape == "in-tree":
        pairs = [
            (i, draw(st.integers(i + 1, count - 1))) for i in range(count - 1) if draw(st.integers(0, 4))
        ]
    else:
        pairs = [(i, j) for i in range(count) for j in range(i + 1, count) if draw(st.integers(0, 2))]
    return stages, [Link(src=f"s{i}", dst=f"s{j}", size_bytes=draw(gb) * GIB) for i, j in pairs]


@pytest.mark.parametrize("shape", ["chain", "out-tree", "in-tree"])
@given(data=st.data())
def test_trees_are_solved_exactly(shape: str, data: st.DataObject) -> None:
    stages, links = data.draw(pipelines(shape))
    cheap = plan_pipeline(stages, links, tariffs=tariffs, bandwidth_bytes_per_s=RATE)
    assert cheap.cost_micro_usd == brute(stages, links, time=False)[0] and cheap.method == "tree"
    fast = plan_pipeline(stages, links, tariffs=tariffs, objective=Objective.TIME, bandwidth_bytes_per_s=RATE)
    assert answer(fast) == brute(stages, links, time=True) and fast.method == "tree"


@given(pipeline=pipelines("any"))
def test_any_graph_is_solved_exactly_by_both_solvers(pipeline: tuple[list[Stage], list[Link]]) -> None:
    stages, links = pipeline
    least = brute(stages, links, time=False)[0]
    for solver in ("highs", "cutset"):
        plan = plan_pipeline(stages, links, tariffs=tariffs, solver=solver, bandwidth_bytes_per_s=RATE)
        assert plan.cost_micro_usd == least, solver
        picks = tuple(each.candidate for each in plan.picks)
        assert judged(stages, links, picks) == answer(plan)


@given(pipeline=pipelines("any"))
def test_the_fastest_of_any_graph_is_found_and_is_the_cheapest_of_the_fastest(
    pipeline: tuple[list[Stage], list[Link]],
) -> None:
    stages, links = pipeline
    plan = plan_pipeline(stages, links, tariffs=tariffs, objective=Objective.TIME, bandwidth_bytes_per_s=RATE)
    assert answer(plan) == brute(stages, links, time=True)


def test_highs_and_enumeration_agree_on_larger_graphs() -> None:
    """Beyond brute force: dense data between ten stages, prices near each other, so that little can be
    pruned."""
    dice = random.Random(3)
    solved = 0
    for _ in range(8):
        stages = [
            Stage(name=f"s{i}", candidates=tuple(at(place, dice.randint(20, 60), 1) for place in PLACES))
            for i in range(10)
        ]
        links = [
            Link(src=f"s{i}", dst=f"s{j}", size_bytes=dice.randint(1, 4) * GIB)
            for i in range(10) for j in range(i + 1, 10) if dice.random() < 0.3
        ]  # fmt: skip
        both = [
            plan_pipeline(stages, links, tariffs=tariffs, solver=solver) for solver in ("highs", "cutset")
        ]
        assert both[0].cost_micro_usd == both[1].cost_micro_usd
        solved += both[0].method == "highs"
    assert solved >= 4


def test_data_keeps_stages_together_and_no_data_lets_them_part() -> None:
    def pipeline(gb: int) -> PipelinePlan:
        stages = [
            Stage(name="prepare", candidates=(at(("aws", "east"), 10, 60), at(("gcp", "east"), 30, 60))),
            Stage(name="train", candidates=(at(("aws", "east"), 100, 3600), at(("gcp", "east"), 50, 3600))),
        ]
        return plan_pipeline(stages, [Link(src="prepare", dst="train", size_bytes=gb * GIB)], tariffs=tariffs)

    apart, together = pipeline(1), pipeline(100)
    assert [each.candidate.choice.offer.provider for each in apart.picks] == ["aws", "gcp"]
    assert (apart.cost_micro_usd, apart.egress_micro_usd) == (69, 9)
    assert [each.candidate.choice.offer.provider for each in together.picks] == ["gcp", "gcp"]
    assert together.egress_micro_usd == 0
    assert apart.render() == (
        "prepare: aws/east m (on-demand) $0.0000, 1m\n"
        "train: gcp/east m (on-demand) $0.0001, 1h, egress $0.0000\n"
        "total $0.0001, 1h 1m"
    )


def test_a_stage_costs_price_times_duration_rounded_up() -> None:
    (only,) = candidates_of([at(("aws", "east"), 7, 0).choice], lambda choice: 1800)
    assert (only.cost_micro_usd, only.duration_s) == (4, 1800)


@pytest.mark.parametrize(
    ("links", "text"),
    [
        ([("a", "b"), ("b", "a")], "the stages `a`, `b` wait for each other in a circle"),
        ([("a", "x")], "the pipeline has no stage `x`"),
    ],
)
def test_links_that_cannot_be(links: list[tuple[str, str]], text: str) -> None:
    stages = [Stage(name=name, candidates=(at(("aws", "east"), 1, 1),)) for name in ("a", "b")]
    with pytest.raises(ArgosyError) as caught:
        plan_pipeline(stages, [Link(src=a, dst=b) for a, b in links], tariffs=tariffs)
    assert caught.value.what == text


def test_a_stage_without_an_offer_is_named() -> None:
    with pytest.raises(ArgosyError) as caught:
        plan_pipeline([Stage(name="train", candidates=())], [], tariffs=tariffs)
    assert (caught.value.code, caught.value.what) == ("no-offer", "no offer fits the stage `train`")


def test_long_chains_need_no_stack() -> None:
    stages = [
        Stage(name=str(i), candidates=(at(("aws", "east"), 1, 1), at(("gcp", "east"), 2, 1)))
        for i in range(3000)
    ]
    links = [Link(src=str(i), dst=str(i + 1), size_bytes=GIB) for i in range(2999)]
    assert plan_pipeline(stages, links, tariffs=tariffs).cost_micro_usd == 3000


def test_the_fastest_of_a_web_needs_highs_and_says_so() -> None:
    stages = [Stage(name=n, candidates=(at(("aws", "east"), 1, 2), at(("gcp", "east"), 2, 1))) for n in "abc"]
    links = [Link(src="a", dst="b"), Link(src="b", dst="c"), Link(src="a", dst="c")]
    with pytest.raises(ArgosyError) as caught:
        plan_pipeline(stages, links, tariffs=tariffs, objective=Objective.TIME, solver="cutset")
    assert caught.value.what == "the optimum of this pipeline needs the solver HiGHS, which is not installed"
    assert caught.value.hint == "`pip install 'argosy[optimizer]'`, or make its stages a tree"


WITHOUT_HIGHS = """
import random, sys
sys.modules["highspy"] = None  # as if it were not installed
sys.path.insert(0, sys.argv[1])
from test_dag import PLACES, Link, GIB, Stage, at, plan_pipeline, tariffs
dice = random.Random(4)
stages = [Stage(name=n, candidates=tuple(at(p, dice.randint(20, 26), 1) for p in PLACES)) for n in "abcdef"]
links = [Link(src=a, dst=b, size_bytes=GIB) for a, b in ("ab", "ac", "bd", "cd", "de", "ce", "bf", "ef")]
print(plan_pipeline(stages, links, tariffs=tariffs).method)
"""


def test_without_highs_small_webs_are_enumerated() -> None:
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_HIGHS, here], capture_output=True, text=True, check=False
    )
    assert done.stdout == "cutset\n", done.stderr
