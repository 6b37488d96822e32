"""Where a job that lost its machines is tried first."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, EntryPoints

import msgspec
import pytest

from argosy.controllers import strategies
from argosy.controllers.observed import Facts
from argosy.controllers.pool.decide import decide_owned
from argosy.controllers.strategies import Lost, order_after_loss, strategy_of
from argosy.controllers.view import Put, View
from argosy.model.offer import Capacity, Choice
from argosy.model.phases import WorkloadPhase
from argosy.model.resources import Recovery, Resources
from argosy.model.rows import Claim
from argosy.planning import Ability
from argosy.store import Snapshot
from argosy.testing.builders import a_choice, a_job, a_task, an_offer

LOST = Lost(provider="cloud", region="east", zone="east-a")


def _choice(region: str, provider: str = "cloud") -> Choice:
    offer = an_offer(provider=provider, region=region, capacity=Capacity.SPOT)
    return msgspec.structs.replace(a_choice(), offer=offer)


CHOICES = [_choice("west"), _choice("east"), _choice("north"), _choice("east", "other")]


def _regions(choices: Sequence[Choice]) -> list[str]:
    return [f"{each.offer.provider}/{each.offer.region}" for each in choices]


@pytest.mark.parametrize(
    ("name", "regions"),
    [
        (None, ["cloud/west", "cloud/east", "cloud/north", "other/east"]),
        ("FAILOVER", ["cloud/east", "cloud/west", "cloud/north", "other/east"]),
        ("EAGER_NEXT_REGION", ["cloud/west", "cloud/north", "other/east", "cloud/east"]),
        ("own:not-there", ["cloud/west", "cloud/east", "cloud/north", "other/east"]),
    ],
)
def test_what_is_tried_first(name: str | None, regions: list[str]) -> None:
    assert _regions(order_after_loss(name, CHOICES, LOST)) == regions
    assert _regions(order_after_loss(name, CHOICES, None)) == _regions(CHOICES)


def backwards(choices: Sequence[Choice], lost: Lost) -> list[Choice]:
    return list(choices)[::-1]


def broken(choices: Sequence[Choice], lost: Lost) -> list[Choice]:
    raise RuntimeError("a bug of its author")


def test_an_own_strategy_is_found_by_its_entry_point_and_its_bugs_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = EntryPoints(
        EntryPoint(name=name, value=f"{__name__}:{name}", group=strategies.GROUP)
        for name in ("backwards", "broken")
    )
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: found.select(group=group))
    strategy_of.cache_clear()
    try:
        assert _regions(order_after_loss("own:backwards", CHOICES, LOST)) == _regions(CHOICES[::-1])
        assert order_after_loss("own:broken", CHOICES, LOST) == CHOICES
    finally:
        strategy_of.cache_clear()


@pytest.mark.parametrize(("strategy", "region"), [("FAILOVER", "east"), ("EAGER_NEXT_REGION", "west")])
def test_the_next_claim_of_a_job_that_lost_its_machines_follows_its_strategy(
    strategy: str, region: str
) -> None:
    wish = Resources(use_spot=True, recovery=Recovery(strategy=strategy))
    job = a_job(
        id="job-1", managed=True, task=a_task(resources=(wish,)), phase=WorkloadPhase.RECOVERING
    ).with_status(ran_in=("cloud", "east", "east-a"))
    offers = [
        an_offer(provider="cloud", region=where, capacity=Capacity.SPOT, price_micro_usd=1000)
        for where in ("east", "west")
    ]
    view = View(
        now_ms=job.created_ms,
        rows=Snapshot.of([job]),
        observed=Facts(),
        offers=offers,
        abilities={"cloud": Ability(spot=True, multi_node=True)},
    )
    decided = decide_owned(view, lambda prefix: f"{prefix}-1")
    [claim] = [each.row for each in decided if isinstance(each, Put) and isinstance(each.row, Claim)]
    assert claim.choice.offer.region == region
