"""The quote cache in virtual time: providers that are quick, slow, refuse, or never answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
import pytest

from argosy.infra import border
from argosy.infra.provider import Capabilities, Manifest, Want
from argosy.infra.quotes import ALONE_S, FIRST_S, FRESH_S, LIMIT_S, OLD_S, PATIENCE_S, Quoted, Quotes
from argosy.model.facts import NodeFacts
from argosy.model.offer import Offer
from argosy.testing.builders import an_offer
from argosy.testing.idle_server import StaticProvider, StaticProviders
from argosy.testing.virtual_time import SimClock, run_virtual

MOST_S = 0.050  # a provider that hangs costs a request no more


class Timed(StaticProvider):
    """Quotes after `takes_s`; `hangs`: never. `asked` counts."""

    def __init__(self, name: str, takes_s: float = 0.0) -> None:
        manifest = Manifest(name=name, title=name, capabilities=Capabilities())
        super().__init__(manifest, [an_offer(provider=name)])
        self.takes_s, self.hangs, self.asked = takes_s, False, 0

    async def quote(self, want: Want) -> Sequence[Offer]:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.takes_s:
            await asyncio.sleep(self.takes_s)
        return await super().quote(want)


def cache(*providers: Timed, **options: Any) -> Quotes:
    return Quotes(StaticProviders(*providers), SimClock(), **options)


def names(quoted: Quoted) -> list[str]:
    return [offer.provider for offer in quoted.offers]


def texts(quoted: Quoted) -> dict[str, str]:
    return {each.provider: each.text for each in quoted.failed}


async def timed(quotes: Quotes) -> tuple[Quoted, float]:
    began_s = asyncio.get_running_loop().time()
    quoted = await quotes.read()
    return quoted, asyncio.get_running_loop().time() - began_s


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        run_virtual(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@virtual
async def test_a_provider_that_starts_to_hang_costs_next_to_nothing() -> None:
    quick, cloud = Timed("quick"), Timed("cloud", 0.010)
    quotes = cache(quick, cloud)
    assert names(await quotes.read()) == ["cloud", "quick"]
    cloud.hangs = True
    for _ in range(40):
        await asyncio.sleep(7)
        quoted, took_s = await timed(quotes)
        assert names(quoted) == ["cloud", "quick"]
        assert took_s <= MOST_S
    assert "its offers of 4m 40s ago are used" in texts(quoted)["cloud"]
    assert f"did not answer within {LIMIT_S:.0f} s" in texts(quoted)["cloud"]
    assert "quick" not in texts(quoted)
    await quotes.close()


@virtual
async def test_a_provider_that_never_answers_is_waited_for_once() -> None:
    quick, dead = Timed("quick"), Timed("dead")
    dead.hangs = True
    quotes = cache(quick, dead)
    quoted, took_s = await timed(quotes)
    assert (names(quoted), took_s) == (["quick"], pytest.approx(FIRST_S))
    assert texts(quoted) == {"dead": "has not answered yet (2 s); plan again in a moment"}
    for _ in range(60):
        await asyncio.sleep(1)
        quoted, took_s = await timed(quotes)
        assert took_s <= MOST_S
    assert texts(quoted) == {"dead": f"did not answer within {LIMIT_S:.0f} s"}
    await quotes.close()


@virtual
async def test_while_nobody_has_quoted_it_waits_a_little_longer() -> None:
    slow = Timed("slow", 5.0)
    quoted, took_s = await timed(cache(slow))
    assert (names(quoted), took_s) == (["slow"], pytest.approx(5.0))
    dead = Timed("dead")
    dead.hangs = True
    quotes = cache(dead)
    assert (await timed(quotes))[1] == pytest.approx(ALONE_S)
    await quotes.close()


@virtual
async def test_an_answer_without_offers_does_not_end_the_wait_for_one_that_has_some() -> None:
    """Just after the start of a server on a busy machine: a cluster without nodes answers first."""
    empty, slow = Timed("empty"), Timed("slow", 5.0)
    empty.offers = []
    quoted, took_s = await timed(cache(empty, slow))
    assert (names(quoted), took_s) == (["slow"], pytest.approx(5.0))


@virtual
async def test_who_is_slow_by_nature_is_not_waited_for_but_asked_behind_our_back() -> None:
    slow = Timed("slow", 1.5)
    quotes = cache(slow)
    await quotes.read()
    await asyncio.sleep(10)
    slow.offers = [an_offer(provider="slow", price_micro_usd=7)]
    quoted, took_s = await timed(quotes)
    assert (took_s, quoted.offers[0].price_micro_usd) == (0, 0)
    await asyncio.sleep(1.6)
    assert (await quotes.read()).offers[0].price_micro_usd == 7


@virtual
async def test_a_young_quote_is_used_as_it_is_and_one_question_serves_all() -> None:
    quick = Timed("quick", PATIENCE_S / 2)
    quotes = cache(quick)
    await asyncio.gather(*(quotes.read() for _ in range(20)), quotes.ask("quick"))
    assert quick.asked == 1
    await quotes.read()
    assert quick.asked == 1
    await asyncio.sleep(FRESH_S)
    await quotes.read()
    assert quick.asked == 2


@virtual
async def test_the_controllers_loop_asks_whoever_hangs_again() -> None:
    dead = Timed("dead")
    dead.hangs = True
    quotes = cache(dead)
    await quotes.ask("dead")
    assert asyncio.get_running_loop().time() == pytest.approx(LIMIT_S)
    assert quotes.unknown() == {"dead"}
    dead.hangs = False
    await quotes.ask("dead")
    assert (quotes.unknown(), len(quotes.offers())) == (frozenset(), 1)


@virtual
async def test_the_revision_tells_when_an_offer_changes_and_nothing_else() -> None:
    one = Timed("one")
    told: list[int] = []
    quotes = cache(one)
    quotes.changed = lambda: told.append(quotes.revision)
    await quotes.ask("one")
    seen, first = quotes.offers(), quotes.revision
    told.clear()  # that the provider can be used, and its offers
    one.offers = [an_offer(provider="one", quoted_at_ms=5)]
    await quotes.ask("one")
    assert quotes.offers() is seen
    assert (await quotes.read()).offers[0].quoted_at_ms == 5  # lists show how old it is
    one.offers = [an_offer(provider="one", facts=NodeFacts(hostname="a", load_milli=5))]
    await quotes.ask("one")
    assert quotes.offers() is not seen
    seen = quotes.offers()
    one.offers = [an_offer(provider="one", facts=NodeFacts(hostname="a", load_milli=9))]
    await quotes.ask("one")
    assert quotes.offers() is seen
    one.offers = [an_offer(provider="one", price_micro_usd=9)]
    await quotes.ask("one")
    assert (quotes.revision, told) == (first + 2, [first + 1, first + 2])


@virtual
async def test_prices_of_the_user_hold_from_the_next_question_on() -> None:
    one, factor = Timed("one"), [1]

    def price(offers: Sequence[Offer]) -> Sequence[Offer]:
        return [msgspec.structs.replace(each, price_micro_usd=100 * factor[0]) for each in offers]

    quotes = cache(one, price=price)
    assert (await quotes.read()).offers[0].price_micro_usd == 100
    first = quotes.revision
    factor[0] = 2
    assert (await quotes.read()).offers[0].price_micro_usd == 200
    assert (quotes.offers()[0].price_micro_usd, quotes.revision) == (200, first + 1)


@virtual
async def test_what_is_refused_is_said_and_the_last_offers_stay() -> None:
    one = Timed("one")
    quotes = cache(one, fresh_s=0)
    one.error = border.CredentialsRejected("the key is no longer valid")
    quoted = await quotes.read()
    (said,) = quoted.failed
    assert (said.code, said.text, quoted.offers) == ("credentials", "the key is no longer valid", ())
    one.error = None
    assert (await quotes.read()).failed == ()
    one.error = border.Transient("the network is down")
    await asyncio.sleep(90)
    quoted = await quotes.read()
    assert (names(quoted), texts(quoted)) == (
        ["one"],
        {"one": "the network is down; its offers of 1m 30s ago are used"},
    )


class Broken(Timed):
    async def quote(self, want: Want) -> Sequence[Offer]:
        raise KeyError("price")


@virtual
async def test_a_bug_in_a_driver_is_its_own() -> None:
    quoted = await cache(Timed("fine"), Broken("broken")).read()
    assert (names(quoted), texts(quoted)) == (["fine"], {"broken": "its driver failed: KeyError"})


@virtual
async def test_an_old_quote_is_marked_while_the_next_is_under_way() -> None:
    slow = Timed("slow", 20)
    quotes = cache(slow)
    await quotes.ask("slow")
    await asyncio.sleep(OLD_S + 30)
    assert texts(await quotes.read()) == {"slow": "has not answered for 3m; its offers of then are used"}
    await quotes.close()
