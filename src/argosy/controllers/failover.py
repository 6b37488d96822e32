"""Failover: which places have refused a workload in this round, which are left to ask, and the texts about
it. Pure.

A round begins with the first order and ends when machines are held or no place is left. Within it no place is
asked twice; what was refused, why and when stays with the workload. A refusal holds for its own zone and kind
of machine, a quota for the kind in its region, rejected credentials for the provider.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from argosy.controllers.view import View
from argosy.model.offer import Capacity, Choice, Offer, Tried
from argosy.model.reasons import Reason
from argosy.model.rows import Claim, Workload
from argosy.planning.offered import Hidden

PLACES_MAX: Final = 60  # that are asked in one round
_TOLD: Final = 6  # places that one sentence names
_DAY_S: Final = 86_400

#: How far a refusal reaches, by the reason of the claim that was given up.
REACH: Final = {Reason.CREDENTIALS: "provider", Reason.QUOTA: "region"}


def note_refused(view: View, workload: Workload, claim: Claim) -> Workload:
    """The workload with one more place that has refused it. Machines of our own are waited for, not noted."""
    offer = claim.choice.offer
    if offer.capacity is Capacity.OWNED:
        return workload
    new = Tried(
        provider=offer.provider,
        region=offer.region,
        zone=offer.zone,
        instance_type=offer.shape.instance_type,
        spot=offer.capacity is Capacity.SPOT,
        reach=REACH.get(claim.reason, "zone") if claim.reason is not None else "zone",
        text=claim.detail or "no capacity",
        at_ms=view.now_ms,
    )
    if any(_place(each) == _place(new) for each in round_of(workload)):
        return workload  # noted already: its claim is not gone yet
    kept = [each for each in workload.status.tried if _place(each) != _place(new)]
    return workload.with_status(tried=(*kept, new)[-PLACES_MAX:])


def round_of(workload: Workload) -> tuple[Tried, ...]:
    """The places that refused in this round."""
    status = workload.status
    return tuple(each for each in status.tried if each.at_ms >= status.round_ms)


def end_round(view: View, workload: Workload) -> Workload:
    """All places may be asked again. Their answers are still shown."""
    if not round_of(workload) and not workload.status.hedge_id:
        return workload
    return workload.with_status(round_ms=view.now_ms + 1, hedge_id="")


def reason_of(workload: Workload, last: Reason) -> Reason:
    """Why a round came to nothing: what all places have in common, else that none had capacity."""
    reaches = {each.reach for each in round_of(workload)}
    return last if len(reaches) <= 1 else Reason.OUT_OF_CAPACITY


def refused_in_round(workload: Workload) -> Hidden | None:
    """Whether an offer is of a place that refused in this round; None: no place did."""
    tried = round_of(workload)
    if not tried:
        return None
    if len(tried) >= PLACES_MAX:
        return lambda offer: offer.capacity is not Capacity.OWNED
    zones = {_place(each) for each in tried if each.reach == "zone" and each.zone}
    regions = {
        _kind(each) for each in tried if each.reach == "region" or (each.reach == "zone" and not each.zone)
    }
    providers = {each.provider for each in tried if each.reach == "provider"}

    def is_refused(offer: Offer) -> bool:
        if offer.capacity is Capacity.OWNED:
            return False
        spot, kind = offer.capacity is Capacity.SPOT, offer.shape.instance_type
        return (
            offer.provider in providers
            or (offer.provider, offer.region, kind, spot) in regions
            or (offer.provider, offer.region, offer.zone, kind, spot) in zones
        )

    return is_refused


def _place(each: Tried) -> tuple[str, str, str, str, bool]:
    return each.provider, each.region, each.zone, each.instance_type, each.spot


def _kind(each: Tried) -> tuple[str, str, str, bool]:
    return each.provider, each.region, each.instance_type, each.spot


# --- sentences ---------------------------------------------------------------------------------------


def next_text(claim: Claim, then: Choice) -> str:
    """`aws us-east-1a: InsufficientInstanceCapacity, trying us-east-1b`: what differs is named."""
    old, new = claim.choice.offer, then.offer
    where = new.zone or new.region or new.provider
    if new.provider != old.provider:
        where = " ".join(part for part in (new.provider, new.zone or new.region) if part)
    if new.shape.instance_type != old.shape.instance_type and new.shape.instance_type:
        where = f"{new.shape.instance_type} in {where}"
    if new.capacity is not old.capacity:
        where += f" ({new.capacity.value})"
    return f"{place_words(old)}: {_clause(claim.detail)}, trying {where}"


def place_words(offer: Offer) -> str:
    """`aws us-east-1a`."""
    return " ".join(part for part in (offer.provider, offer.zone or offer.region) if part)


def _clause(text: str) -> str:
    return text.rstrip(". ") or "no capacity"


def told_refusals(tried: Sequence[Tried]) -> str:
    """All places with what they said and when, those that said the same together.

    >>> told_refusals([Tried(provider="aws", zone="us-east-1a", text="no capacity", at_ms=3_723_000)])
    'no capacity in aws us-east-1a (01:02:03 UTC)'
    """
    by_text: dict[str, list[Tried]] = {}
    for each in tried:
        by_text.setdefault(_clause(each.text), []).append(each)
    return "; ".join(f"{text} in {_places(mine)} ({_when(mine)} UTC)" for text, mine in by_text.items())


def told_round(workload: Workload, last: Claim | None, dear: str) -> str:
    """Why there is nothing left to ask: what every place said. `dear`: what is left costs more than was
    confirmed."""
    tried = round_of(workload)
    text = told_refusals(tried) if len(tried) > 1 else last.detail if last is not None else ""
    limit = f"after {PLACES_MAX} places no more are asked" if len(tried) >= PLACES_MAX else ""
    return "; ".join(part for part in (text, limit, dear) if part)


def _places(tried: Sequence[Tried]) -> str:
    """`aws us-east-1a, us-east-1b and 3 more`: the provider once, the type where they differ."""
    several = len({each.instance_type for each in tried}) > 1
    names, provider = [], ""
    for each in tried:
        name = each.zone or each.region
        if several and each.instance_type:
            name = f"{name} {each.instance_type}".strip()
        if each.provider != provider:
            name, provider = f"{each.provider} {name}".strip(), each.provider
        names.append(name)
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return ", ".join(names[:_TOLD]) + more


def _when(tried: Sequence[Tried]) -> str:
    first, last = _clock_time(tried[0].at_ms), _clock_time(tried[-1].at_ms)
    return first if first == last else f"{first} to {last}"


def _clock_time(at_ms: int) -> str:
    second = at_ms // 1000 % _DAY_S
    return f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
