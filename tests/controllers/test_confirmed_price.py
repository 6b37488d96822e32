"""What a launch was told to keep to: nothing dearer is ordered, what waits for a price says so, and what was
confirmed comes first."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from argosy.controllers.observed import Facts
from argosy.controllers.pool.caches import PoolCaches
from argosy.controllers.pool.decide import decide_owned
from argosy.controllers.pool.pictures import Picture
from argosy.controllers.view import Put, View
from argosy.model.offer import Capacity, Confirmed, Offer, Plan, offer_key
from argosy.model.phases import WorkloadPhase
from argosy.model.resources import Resources
from argosy.model.rows import Claim, Workload
from argosy.planning import Ability, plan
from argosy.planning.confirmed import keep_to, limit_of, what_changed
from argosy.store import Snapshot
from argosy.testing.builders import a_cluster, a_job, a_shape, a_task, changed
from argosy.testing.virtual_time import EPOCH_MS

ABLE = {"cloud": Ability(multi_node=True, spot=True), "own": Ability(multi_node=True, owned=True)}
_numbers = itertools.count(1)


def an_offer(zone: str, micro_usd: int, capacity: Capacity = Capacity.ON_DEMAND) -> Offer:
    provider = "own" if capacity is Capacity.OWNED else "cloud"
    shape = a_shape(instance_type="c8")
    return Offer(
        provider=provider, zone=zone, shape=shape, capacity=capacity, price_micro_usd=micro_usd, nodes_max=1
    )


def a_view(workload: Workload, *offers: Offer) -> View:
    return View(
        now_ms=EPOCH_MS + 60_000,
        rows=Snapshot.of([workload]),
        observed=Facts(),
        offers=offers,
        abilities=ABLE,
        pools=PoolCaches(),
    )


def decided(view: View) -> list[Claim | Workload]:
    actions = decide_owned(view, lambda prefix: f"{prefix}-{next(_numbers)}")
    return [action.row for action in actions if isinstance(action, Put)]  # type: ignore[misc]


def ordered_from(view: View) -> list[str]:
    return [row.choice.offer.zone for row in decided(view) if isinstance(row, Claim)]


def told(view: View, workload: Workload) -> str:
    pending = Picture(view).pending(view.rows, workload, view.now_ms)
    return pending.text if pending is not None else ""


def with_limit(kind: str, micro_usd: int | None, *order: Offer) -> Workload:
    confirmed = Confirmed(max_hourly_micro_usd=micro_usd, order=tuple(map(offer_key, order)))
    row = a_cluster(phase=WorkloadPhase.QUEUED) if kind == "cluster" else a_job(managed=True, host_id=None)
    return changed(row, spec=msgspec.structs.replace(row.spec, confirmed=confirmed))


@pytest.mark.parametrize("kind", ["cluster", "job"])
def test_what_is_too_dear_waits_and_says_for_which_price(kind: str) -> None:
    row = with_limit(kind, 1_000_000)
    view = a_view(row, an_offer("a", 1_500_000), an_offer("b", 2_000_000))
    assert decided(view) == []
    assert told(view, row) == (
        "waits for a price of at most $1.00/h, as it was launched: cloud/a c8 costs $1.50/h now"
    )
    assert ordered_from(a_view(row, an_offer("a", 1_500_000), an_offer("b", 900_000))) == ["b"]


def test_who_confirmed_nothing_takes_what_there_is() -> None:
    row = a_cluster(phase=WorkloadPhase.QUEUED)
    assert ordered_from(a_view(row, an_offer("a", 1_500_000))) == ["a"]


def test_alternatives_of_a_claim_keep_to_the_price_too() -> None:
    view = a_view(with_limit("cluster", 2), an_offer("a", 1), an_offer("b", 2), an_offer("c", 3))
    (claim,) = (row for row in decided(view) if isinstance(row, Claim))
    assert [each.price_micro_usd for each in claim.alternatives] == [2]


def test_what_was_confirmed_comes_first() -> None:
    a, b = an_offer("a", 1), an_offer("b", 2)
    assert ordered_from(a_view(with_limit("cluster", 2, b, a), a, b)) == ["b"]


def test_gangs_count_whole() -> None:
    row = with_limit("job", 3_000_000)
    task = a_task(num_nodes=4)
    row = changed(row, spec=msgspec.structs.replace(row.spec, task=task))
    offer = msgspec.structs.replace(an_offer("a", 1_000_000), nodes_max=None)
    assert decided(a_view(row, offer)) == []


def a_plan(*offers: Offer) -> Plan:
    return plan([Resources()], 1, offers, abilities=ABLE)


def test_the_limit_of_a_plan_is_the_dearest_that_is_tried_and_covers_every_capacity() -> None:
    cheap = [an_offer(f"z{n}", n) for n in range(1, 9)]
    assert limit_of(a_plan(*cheap), cheap) == 6
    spot = [an_offer(f"z{n}", n, Capacity.SPOT) for n in range(1, 9)]
    both = plan([Resources(use_spot=None)], 1, [*spot, an_offer("od", 20)], abilities=ABLE)
    assert {each.offer.capacity for each in both.choices} == {Capacity.SPOT, Capacity.ON_DEMAND}
    assert limit_of(both, spot) == 20
    waiting = Plan(num_nodes=2)
    assert limit_of(waiting, [an_offer("", 5, Capacity.OWNED), an_offer("a", 9)]) == 10
    assert limit_of(waiting, []) is None


def test_a_plan_changes_only_by_its_first_choice() -> None:
    a, b = an_offer("a", 1_000_000), an_offer("b", 2_000_000)
    before = a_plan(a, b)
    assert what_changed(before, a_plan(a), [a]) == ""
    assert what_changed(before, a_plan(a, an_offer("b", 9_000_000)), []) == ""
    assert what_changed(before, a_plan(b), [b]) == "cloud/a c8 at $1.00/h is not offered any more"
    dearer = an_offer("a", 1_200_000)
    assert what_changed(before, a_plan(dearer), [dearer]) == "cloud/a c8 costs $1.20/h now, it was $1.00/h"
    own = an_offer("", 0, Capacity.OWNED)
    assert what_changed(a_plan(own), Plan(num_nodes=1), [own]) == ""  # in use: it is waited for


def test_nothing_confirmed_changes_nothing() -> None:
    choices = a_plan(an_offer("b", 2), an_offer("a", 1)).choices
    assert keep_to(choices, None) == (choices, "")
    assert keep_to(choices, Confirmed()) == (choices, "")
    assert keep_to((), Confirmed(max_hourly_micro_usd=0)) == ((), "")
