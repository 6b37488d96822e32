"""The quote cache: what every provider offered last, and how old that is, for planner and controllers alike.

A provider is asked in the background, by the controllers' loop and by requests that find its quote old. No
request waits for the slowest provider: one that is usually quick is given a moment, one that has never
answered a little longer, once; of all others the last quote is used. A quote that is older than it should be
is marked with its age.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from argosy.infra.border import BorderError, CredentialsRejected
from argosy.infra.provider import Providers, Want
from argosy.model.ids import Clock
from argosy.model.offer import Offer, Rejection
from argosy.model.units import render_duration

_log: Final = logging.getLogger(__name__)
FRESH_S: Final = 1.0  # a younger quote is used without asking again
LIMIT_S: Final = 30.0  # a provider that takes longer has not answered
PATIENCE_S: Final = 0.025  # a request waits so long, and only for a provider that is usually quicker
FIRST_S: Final = 2.0  # it waits so long for the first quote of a provider
ALONE_S: Final = 10.0  # and so long while no provider has offered anything
OLD_S: Final = 150.0  # an older quote is marked with its age


class Quoted(msgspec.Struct, frozen=True, kw_only=True):
    """What a request reads. `failed`: providers without a quote, or with an old one, and why."""

    offers: tuple[Offer, ...]
    failed: tuple[Rejection, ...]
    revision: int  # of the offers: the same while they are the same


class _Quote:
    """The last quote of one provider, and how the asking goes."""

    def __init__(self) -> None:
        self.offers: Sequence[Offer] = ()
        self.answered_s: float | None = None  # when it quoted; None: never
        self.asked_s: float | None = None  # since when it is being asked; None: it is not
        self.ended_s: float | None = None  # when the last asking ended, well or not
        self.took_s = 0.0  # the last asking
        self.failure: Rejection | None = None  # of the last asking


class Quotes:
    """One cache for one server. `fresh_s`: how young a quote must be for a request not to ask again. `price`
    puts the prices that the user configured on what providers quote."""

    def __init__(
        self,
        providers: Providers,
        clock: Clock,
        *,
        price: Callable[[Sequence[Offer]], Sequence[Offer]] = lambda offers: offers,
        fresh_s: float = FRESH_S,
    ) -> None:
        self._providers, self._clock, self._price, self._fresh_s = providers, clock, price, fresh_s
        self._quotes: dict[str, _Quote] = {}
        self._heard = asyncio.Event()  # a new one for every answer
        self._asking: set[asyncio.Task[None]] = set()
        self._lasting: Sequence[Offer] = ()
        self._newest: list[Offer] = []
        self._usable: frozenset[str] = frozenset()
        self.revision = 0
        self.changed: Callable[[], None] = lambda: None  # is called when an offer has changed

    def offers(self) -> Sequence[Offer]:
        """All last quotes: the same object until an offer changes (its time alone is no change)."""
        return self._lasting

    def unknown(self) -> frozenset[str]:
        """Providers that have never quoted."""
        known = {name for name, quote in self._quotes.items() if quote.answered_s is not None}
        return frozenset(self._providers.all().keys() - known)

    def usable(self) -> frozenset[str]:
        """Providers that have quoted, if only that they have nothing to add to the catalog, and that still
        accept our credentials."""
        return self._usable

    async def read(self) -> Quoted:
        """The quotes of all providers, without waiting for those that are slow."""
        now_s = self._clock.monotonic_s()
        for name in self._providers.all():
            quote = self._quotes.setdefault(name, _Quote())
            if quote.asked_s is None and (quote.ended_s is None or now_s - quote.ended_s >= self._fresh_s):
                quote.asked_s = now_s
                task = asyncio.get_running_loop().create_task(self._ask(name, quote))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
        while (wait_s := self._patience_s(self._clock.monotonic_s())) > 0:
            try:
                async with asyncio.timeout(wait_s):
                    await self._heard.wait()
            except TimeoutError:
                break
        now_s = self._clock.monotonic_s()
        said = (_said(name, quote, now_s) for name, quote in sorted(self._quotes.items()))
        offers = tuple(self._settle())
        return Quoted(offers=offers, failed=tuple(filter(None, said)), revision=self.revision)

    async def ask(self, name: str) -> None:
        """Ask one provider now; one that is being asked already is waited for instead."""
        quote = self._quotes.setdefault(name, _Quote())
        if quote.asked_s is None:
            quote.asked_s = self._clock.monotonic_s()
            await self._ask(name, quote)
            return
        while quote.asked_s is not None:
            await self._heard.wait()

    async def close(self) -> None:
        """Nobody is asked any more."""
        for task in self._asking:
            task.cancel()
        if self._asking:
            await asyncio.wait(self._asking)

    def _patience_s(self, now_s: float) -> float:
        """How long a request still waits for answers that are under way; 0 or less: no longer."""
        first_s = FIRST_S if any(each.offers for each in self._quotes.values()) else ALONE_S
        left_s = 0.0
        for each in self._quotes.values():
            if each.asked_s is None:
                continue
            if each.ended_s is None:
                left_s = max(left_s, each.asked_s + first_s - now_s)
            elif each.took_s < PATIENCE_S:
                left_s = max(left_s, each.asked_s + PATIENCE_S - now_s)
        return left_s

    async def _ask(self, name: str, quote: _Quote) -> None:
        try:
            async with asyncio.timeout(LIMIT_S):
                offers = await self._providers.get(name).quote(Want())
            quote.offers, quote.answered_s = offers, self._clock.monotonic_s()
            quote.failure = None
            self._settle()
        except CredentialsRejected as error:
            quote.failure = Rejection(provider=name, code="credentials", text=str(error))
        except TimeoutError:
            quote.failure = _unreachable(name, f"did not answer within {LIMIT_S:.0f} s")
        except (BorderError, OSError) as error:
            quote.failure = _unreachable(name, str(error))
        except Exception as error:  # noqa: BLE001 — a driver's bug is its own: the other providers go on
            _log.exception("%s failed to quote", name)
            quote.failure = _unreachable(name, f"its driver failed: {type(error).__name__}")
        finally:
            self._note_usable()
            now_s = self._clock.monotonic_s()
            quote.took_s = now_s - (quote.asked_s if quote.asked_s is not None else now_s)
            quote.asked_s, quote.ended_s = None, now_s
            self._heard.set()
            self._heard = asyncio.Event()
        if quote.failure is not None:
            _log.info("%s gives no quote: %s", name, quote.failure.text)

    def _note_usable(self) -> None:
        usable = frozenset(
            name
            for name, quote in self._quotes.items()
            if quote.answered_s is not None and (quote.failure is None or quote.failure.code != "credentials")
        )
        if usable != self._usable:
            self._usable = usable
            self.revision += 1
            self.changed()

    def _settle(self) -> list[Offer]:
        """The newest quotes at the user's prices; what controllers see changes only where they do."""
        quoted = [offer for _, quote in sorted(self._quotes.items()) for offer in quote.offers]
        newest = list(self._price(quoted))
        if newest != self._newest:  # mostly the very same objects
            self._newest, before = newest, self._lasting
            if len(before) != len(newest) or not all(map(_same, before, newest)):
                self._lasting = newest
                self.revision += 1
                self.changed()
        return newest


def _same(before: Offer, after: Offer) -> bool:
    """Whether nothing but the time of the quote and the load of the machine differs."""
    return before == after or _without_time(before) == _without_time(after)


def _without_time(offer: Offer) -> Offer:
    facts = offer.facts
    if facts is not None:
        cards = [replace(each, memory_used_bytes=0, utilisation_percent=-1) for each in facts.devices]
        facts = replace(facts, devices=tuple(cards), load_milli=0, memory_used_bytes=0, disk_free_bytes=0)
    return replace(offer, quoted_at_ms=0, wait_s=None, facts=facts)


def _said(name: str, quote: _Quote, now_s: float) -> Rejection | None:
    """Why a provider has no quote, or how old the one is that is used; None when there is nothing to say."""
    if quote.answered_s is None:
        if quote.failure is not None:
            return quote.failure
        waited_s = now_s - quote.asked_s if quote.asked_s is not None else 0.0
        return _unreachable(name, f"has not answered yet ({waited_s:.0f} s); plan again in a moment")
    if quote.failure is not None:
        if not quote.offers:
            return quote.failure
        age = render_duration(now_s - quote.answered_s)
        text = f"{quote.failure.text}; its offers of {age} ago are used"
        return replace(quote.failure, text=text)
    age_s = now_s - quote.answered_s
    if age_s < OLD_S:
        return None
    age = render_duration(age_s)
    return _unreachable(name, f"has not answered for {age}; its offers of then are used")


def _unreachable(name: str, text: str) -> Rejection:
    return Rejection(provider=name, code="unreachable", text=text)
