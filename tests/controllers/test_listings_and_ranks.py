"""What a provider's listing and an agent's ranks lead to: tables, as of every decision."""

from __future__ import annotations

import pytest
from test_decide_tables import a_view

from argosy.controllers.claims.decide import MISSES_BEFORE_GONE, decide_listing
from argosy.controllers.nodes.decide import FORGET_BATCH, decide_ranks
from argosy.controllers.observed import Facts
from argosy.controllers.view import Action, ForgetRanks, Learn, Miss, ReleaseOrphan, StopRanks, View
from argosy.model.facts import ClaimFact, ClaimState, NodeFacts, RankFact, RankPhase
from argosy.model.phases import ClaimPhase
from argosy.model.rows import Row
from argosy.testing.builders import a_claim, a_cluster, a_node, an_attempt, changed

OURS, THEIRS = "sto-ours", "sto-theirs"
CLAIM = a_claim(id="clm-0", phase=ClaimPhase.HELD)
NODE = a_node(id="nod-0", claim_id="clm-0")


def listing(
    *facts: ClaimFact, known: Facts | None = None, rows: tuple[Row, ...] = (CLAIM, NODE)
) -> list[Action]:
    view = changed(a_view(a_cluster(id="clu-0"), *rows, facts=known), tag=OURS)
    assert isinstance(view, View)
    return decide_listing(view, "pool", facts)


def held(claim_id: str = "clm-0", tag: str = OURS) -> ClaimFact:
    return ClaimFact(claim_id=claim_id, state=ClaimState.HELD, tag=tag)


def test_what_is_listed_is_a_fact() -> None:
    assert listing(held()) == [Learn(held())]
    known = Facts()
    known.set_misses("clm-0", 2)
    assert listing(held(), known=known) == [Miss("clm-0", 0), Learn(held())]
    leaving = changed(CLAIM, phase=ClaimPhase.RELEASING)
    assert listing(held(), rows=(leaving,)) == []  # only our own release says that it is over


@pytest.mark.parametrize("times", range(MISSES_BEFORE_GONE))
def test_a_claim_is_gone_after_it_was_missed_often_enough(times: int) -> None:
    known = Facts()
    known.set_misses("clm-0", times)
    actions = listing(known=known)
    assert actions[0] == Miss("clm-0", times + 1)
    gone = [each.fact.state for each in actions if isinstance(each, Learn)]
    assert gone == ([ClaimState.GONE] if times + 1 == MISSES_BEFORE_GONE else [])


def test_a_claim_whose_node_answers_is_not_missed() -> None:
    known = Facts()
    known.set_misses("clm-0", 2)
    known.link_up("nod-0", NodeFacts(), 0)
    assert listing(known=known) == [Miss("clm-0", 0)]


@pytest.mark.parametrize("phase", [each for each in ClaimPhase if each is not ClaimPhase.HELD])
def test_only_held_claims_can_be_missed(phase: ClaimPhase) -> None:
    assert listing(rows=(changed(CLAIM, phase=phase),)) == []


def test_a_claim_under_way_and_those_of_other_providers_are_left_alone() -> None:
    known = Facts()
    known.begin("clm-0")
    assert listing(known=known) == listing(held(), known=known) == []
    view = changed(a_view(a_cluster(id="clu-0"), CLAIM, NODE), tag=OURS)
    assert decide_listing(view, "another", []) == []


def test_only_what_this_database_ordered_is_given_back() -> None:
    facts = (held(), held("clm-late"), held("clm-theirs", THEIRS), held("clm-nobodys", ""))
    assert listing(*facts)[1:] == [ReleaseOrphan("pool", "clm-late")]
    nameless = a_view(CLAIM)  # of a database without an id nothing is known
    assert not [each for each in decide_listing(nameless, "pool", facts) if isinstance(each, ReleaseOrphan)]


def test_ranks_that_no_attempt_wants() -> None:
    facts = Facts()
    ranks = [
        RankFact(id="att-live.0", phase=RankPhase.RUNNING),
        RankFact(id="att-old.0", phase=RankPhase.EXITED, exit_code=0),
        RankFact(id="att-lost.0", phase=RankPhase.RUNNING),
    ]
    facts.set_ranks("nod-0", ranks, complete=True)
    view = a_view(an_attempt(id="att-live"), NODE, facts=facts)
    stop = StopRanks("att-lost", "nod-0", ("att-lost.0",), 1.0)
    assert decide_ranks(view, NODE, everything=False) == [stop]
    assert decide_ranks(view, NODE, everything=True) == [stop, ForgetRanks("nod-0", ("att-old.0",))]
    many = [RankFact(id=f"att-{n}.0", phase=RankPhase.VANISHED) for n in range(FORGET_BATCH)]
    facts.set_ranks("nod-0", many, complete=True)
    [forget] = decide_ranks(view, NODE, everything=False)
    assert isinstance(forget, ForgetRanks) and len(forget.rank_ids) == FORGET_BATCH
