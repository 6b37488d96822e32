"""One machine's life at a real cloud: the cheapest type that the catalog prices, for minutes.

    pytest tests/live/test_lambda.py --max-cost 1

Ends, whatever happens, with the release of what it ordered, and says what is left if that fails.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from argosy.catalog.catalog import SHIPPED
from argosy.catalog.table import Table, rows_of
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import Channel
from argosy.infra.border import BorderError, Transient
from argosy.infra.provider import Provider, Want
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.facts import ClaimState
from argosy.model.offer import Capacity, Choice, Offer, Shape
from argosy.model.resources import Resources
from argosy.model.rows import Claim
from argosy.providers import load_providers, standings
from argosy.testing.builders import a_claim, a_node

MINUTES = 20  # so long a machine may take, and is paid for at most


def live_once(name: str, config: pytest.Config, folder: Path) -> None:
    """Order one machine, reach its agent, release it. Skips loudly without credentials or `--max-cost`."""
    most = float(config.getoption("--max-cost", default=0.0))
    if most <= 0:
        pytest.skip(f"{name.upper()} IS NOT TRIED FOR REAL: give --max-cost DOLLARS")
    (standing,) = [each for each in standings(os.environ) if each.name == name]
    if not standing.in_use:
        pytest.skip(f"{name.upper()} IS NOT TRIED FOR REAL: {standing.fact}; {standing.fix}")
    provider = load_providers([name], folder, SystemClock(), SystemIds(), os.environ).get(name)
    offers = _cheapest(name, most, str(config.getoption("--live-type", default="")))
    if not offers and provider.manifest.priced_by_catalog:
        pytest.skip(
            f"{name.upper()} IS NOT TRIED FOR REAL: nothing costs less than {most} $ in {MINUTES} min"
        )
    asyncio.run(_live(provider, offers, most * 1e6 * 60 / MINUTES))


def _cheapest(name: str, most: float, kind: str) -> list[Offer]:
    limit_micro = most * 1e6 * 60 / MINUTES
    table = Table.open(SHIPPED)
    rows = [
        row
        for row in (rows_of(table.block(name)) if name in table.providers else ())
        if row.capacity is Capacity.ON_DEMAND
        and 0 < row.price_micro_usd <= limit_micro
        and kind in ("", row.instance_type)
    ]
    return [
        Offer(
            provider=name,
            region=row.region,
            zone=row.zone,
            capacity=row.capacity,
            price_micro_usd=row.price_micro_usd,
            shape=Shape(
                instance_type=row.instance_type,
                cpus_milli=row.cpus_milli,
                memory_bytes=row.memory_bytes,
                accelerator=row.model or None,
                accelerators_milli=row.accelerators_milli,
                arch=row.arch,
            ),
        )
        for row in sorted(rows, key=lambda row: row.price_micro_usd)[:8]
    ]


async def _live(provider: Provider, offers: list[Offer], limit_micro: float) -> None:
    for finding in await provider.check():
        assert finding.ok, f"{finding.what}: {finding.hint}"
    quoted = await provider.quote(Want())
    if not provider.manifest.priced_by_catalog:  # what is offered is only what is offered now
        fit = [each for each in quoted if not each.closed and each.price_micro_usd <= limit_micro]
        if not provider.manifest.own:
            fit = [each for each in fit if each.price_micro_usd and each.capacity is Capacity.ON_DEMAND]
        offers = sorted(fit, key=lambda each: each.price_micro_usd)[:8]
    refused = []
    for offer in offers:
        claim = _claim(offer)
        try:
            await provider.ensure(claim)
            await _reached(provider, claim)
        except BorderError as error:
            refused.append(f"{offer.shape.instance_type} in {offer.region}: {error}")
        else:
            return
        finally:
            await _released(provider, claim)
    pytest.fail("nothing could be had:\n" + "\n".join(refused))


def _claim(offer: Offer) -> Claim:
    choice = Choice(offer=offer, resources=Resources(), cpus_milli=0, memory_bytes=0)
    return a_claim(choice=choice, count=1, id=SystemIds().new("clm"), tag="sto-live")


async def _reached(provider: Provider, claim: Claim) -> None:
    for _ in range(MINUTES * 12):
        facts = await provider.observe([claim.id])
        if facts and facts[0].state is ClaimState.HELD:
            break
        assert facts, f"{claim.id} is not listed"
        await asyncio.sleep(5)
    else:
        raise AssertionError(f"{claim.id} did not start in {MINUTES} minutes")
    node = a_node(claim_id=claim.id, provider=claim.choice.offer.provider, address=facts[0].nodes[0].address)

    async def way() -> Channel:
        for _ in range(60):
            try:
                return await provider.reach(node)
            except Transient:
                await asyncio.sleep(5)
        return await provider.reach(node)

    client = AgentClient(way)
    assert (await client.node()).cpus_milli > 0
    await client.close()


async def _released(provider: Provider, claim: Claim) -> None:
    for _ in range(60):
        try:
            await provider.release(claim.id)
            if not await provider.observe([claim.id]):
                return
        except Transient:
            pass
        await asyncio.sleep(5)
    pytest.fail(f"{claim.id} IS NOT GONE: look into the console, it costs money")
