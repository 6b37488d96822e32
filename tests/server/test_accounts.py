"""Budgets, spending and tokens are rows: the same for every server of a database, taken over from files."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import msgspec
import pytest

from argosy.model.budget import Budget, budget_id, budget_news, refuse_spending
from argosy.model.errors import ArgosyError
from argosy.model.phases import ClaimPhase
from argosy.model.rows import Claim, Event, Workload
from argosy.server.accounts import Accounts
from argosy.server.old_files import import_old_files
from argosy.server.spending import add_spending, month_of, spans_of
from argosy.server.tokens import Tokens, hash_token
from argosy.store import Store
from argosy.testing.builders import a_choice, a_claim, a_cluster, changed
from argosy.testing.virtual_time import FixedClock, SimIds

HOUR_MS = 3_600_000


async def in_memory(clock: FixedClock | None = None) -> Store:
    return await Store.open("sqlite://", ids=SimIds(), clock=clock or FixedClock(), inline=True)


def a_budget(project: str, **fields: object) -> Budget:
    made = Budget(id=budget_id(project), project=project, monthly_micro_usd=10_000_000)
    return msgspec.structs.replace(made, **fields)


def test_budgets_are_told_once_a_month() -> None:
    budget = Budget(id="budget-vision", project="vision", monthly_micro_usd=10_000_000, alert_pct=50)

    def tell(budget: Budget, spent: int, month: str, **live: list[str]) -> tuple[Budget, list[Event]]:
        budgets, events = budget_news([budget], {"vision": spent}, live, month, 5)
        return (budgets or (budget,))[0], list(events)

    assert tell(budget, 4_999_999, "2026-01") == (budget, [])
    budget, (alert,) = tell(budget, 5_000_000, "2026-01")
    assert (alert.code, alert.text) == (
        "budget-alert", "project `vision` has spent $5.00 of its $10.00 for 2026-01",
    )  # fmt: skip
    assert tell(budget, 6_000_000, "2026-01") == (budget, [])
    budget, spent = tell(budget, 10_000_000, "2026-01", vision=["clu-1"])
    assert [(event.subject, event.code) for event in spent] == [
        ("vision", "budget-spent"),
        ("clu-1", "budget-spent"),
    ]
    assert tell(budget, 12_000_000, "2026-01") == (budget, [])
    assert [event.code for event in tell(budget, 12_000_000, "2026-02")[1]] == ["budget-spent"]
    assert refuse_spending(budget, 11_000_000, "2026-01", "2026-02") is None  # no hard stop


def test_a_damaged_file_of_budgets_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "budgets.json"
    path.write_text("{")

    async def main() -> None:
        store = await in_memory()
        with pytest.raises(ArgosyError) as caught:
            await import_old_files(store, tmp_path)
        assert caught.value.what.startswith(f"{path} of an older version cannot be read: ")
        assert path.exists()

    asyncio.run(main())


def test_old_files_are_taken_over_once(tmp_path: Path) -> None:
    old = {"vision": {"monthly_micro_usd": 5, "hard_stop": True, "told": ["2026-01 spent"]}}
    budgets, tokens = tmp_path / "budgets.json", tmp_path / "tokens.json"
    token = {"name": "ci", "sha256": hash_token("s3cret"), "scope": "admin", "created_ms": 1}

    async def main() -> None:
        store = await in_memory()
        for _ in range(2):  # the second time as if the renaming had been lost
            budgets.write_bytes(msgspec.json.encode(old))
            tokens.write_bytes(msgspec.json.encode([token]))
            await import_old_files(store, tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "budgets.json.imported",
            "tokens.json.imported",
        ]
        found = (await store.snapshot()).budget_of("vision")
        assert found == a_budget(
            "vision", monthly_micro_usd=5, hard_stop=True, told=("2026-01 spent",), rev=1
        )
        assert await Tokens(store).caller_of("s3cret") is not None
        # what was changed or taken back since stays so
        await store.commit([changed(found, monthly_micro_usd=0)])
        budgets.write_bytes(msgspec.json.encode(old))
        await import_old_files(store, tmp_path)
        assert (await store.snapshot()).budget_of("vision") is None

    asyncio.run(main())


async def _spend(store: Store, dice: random.Random, now_ms: int) -> tuple[list[Workload], list[Claim]]:
    """Claims of every life: held, at rest, gone; long before the month, across its begin, within it."""
    owners, claims = [], []
    for number in range(60):
        owner = a_cluster(name=f"c{number}", project=dice.choice(["vision", "speech", "audio"]))
        began_ms = now_ms - dice.randrange(1, 60 * 24) * HOUR_MS
        spent_ms, cost = dice.choice([(0, 0), (dice.randrange(1, 900) * HOUR_MS, dice.randrange(1, 1 << 40))])
        phase = dice.choice([ClaimPhase.HELD, ClaimPhase.STOPPED, ClaimPhase.GONE])
        claims.append(
            a_claim(
                workload_id=owner.id,
                phase=phase,
                choice=a_choice(price_micro_usd=dice.randrange(1 << 24)),
                requested_ms=began_ms,
                held_ms=began_ms if phase is ClaimPhase.HELD else 0,
                spent_ms=spent_ms,
                cost_micro_usd=cost,
                gone_ms=min(began_ms + spent_ms, now_ms) if phase is ClaimPhase.GONE else 0,
            )
        )
        owners.append(owner)
    await store.commit([*owners, *claims])
    return owners, claims


@pytest.mark.parametrize("seed", range(5))
def test_the_database_sums_what_every_claim_cost(seed: int) -> None:
    async def main() -> None:
        clock = FixedClock()
        store, now_ms = await in_memory(clock), clock.now_ms()
        owners, claims = await _spend(store, random.Random(seed), now_ms)
        project = {owner.id: owner.project for owner in owners}
        for start_ms in (month_of(now_ms)[1], 0, now_ms - 7 * HOUR_MS):
            wanted: dict[str, int] = {}
            for claim in claims:
                for span in spans_of(claim, now_ms):
                    key = project[claim.workload_id]
                    cost = span.within(start_ms, now_ms).cost_micro_usd
                    wanted[key] = wanted.get(key, 0) + cost
            found = add_spending(await store.load_spending(since_ms=start_ms), start_ms, now_ms)
            assert {key: cost for key, cost in found.items() if cost} == {
                key: cost for key, cost in wanted.items() if cost
            }

    asyncio.run(main())


def test_nothing_is_undercounted_beyond_ten_thousand_owners() -> None:
    async def main() -> None:
        clock = FixedClock()
        store, now_ms = await in_memory(clock), clock.now_ms()
        jobs, claims = [], []
        for number in range(10_500):
            jobs.append(a_cluster(id=f"clu-{number:06d}", name=f"c{number}", project="vision"))
            claims.append(
                a_claim(
                    id=f"clm-{number:06d}",
                    workload_id=jobs[-1].id,
                    phase=ClaimPhase.GONE,
                    gone_ms=now_ms - 1,
                    spent_ms=1000,
                    cost_micro_usd=1000,
                )
            )
        await store.commit(jobs)
        await store.commit(claims)
        await store.commit([a_budget("vision")])
        accounts = Accounts(store, clock)
        (shown,) = (await accounts.budgets()).budgets
        assert shown.spent_micro_usd == 10_500_000
        assert len(await accounts.owners(now_ms - HOUR_MS)) == 10_500
        await accounts.watch()
        (event,) = await store.load_events(subject="vision")
        assert event.code == "budget-spent"

    asyncio.run(main())
