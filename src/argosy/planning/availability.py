"""What was refused lately, and the order in which to try what is left: a refusal lowers a place for a while.

The memory is a value: whoever is refused adds to it, the server stores it, and so all its users learn from
each other. A refusal weighs 1 and halves every `half_life_s`; it counts in full for the same shape, place and
capacity, and in part for the same shape near by. After a few half-lives nothing of it is left and the order
is what it was.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

from argosy.model.offer import Capacity, Choice
from argosy.planning.spot_policy import (
    BRIEF_S,
    LEAVE_AGAIN_MAX_S,
    LEAVE_AGAIN_MIN_S,
    PAID_S,
    Sightings,
    ask_again_s,
)

_NEAR: Final = 0.5  # of a refusal in one zone, for other zones of the region
_FORGET: Final = 1 / 8  # weight below which a refusal has no effect
_REFUSALS_MAX: Final = 10_000
_SPELLS_MAX: Final = 2_000
_STARTS_MAX: Final = 50  # of one provider that are remembered
_STARTS_MIN: Final = 3  # fewer say nothing
_OLD_S: Final = 3 * 86_400.0  # what was seen for longer than this counts half


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """No capacity for this shape here. An empty `zone` is the whole region, an empty `region` the whole
    provider."""

    provider: str
    region: str = ""
    zone: str = ""
    instance_type: str = ""  # "": whatever the shape
    spot: bool = False
    at_ms: int  # of the last one
    weight: float = 1.0  # at that time, of all before together


class Spell(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of spot machines of one kind in one zone: whether they are there, and what was seen."""

    there: bool | None  # None: the last one was given back, nobody has asked since
    since_ms: int  # so long
    asked_ms: int = 0  # when they were refused, or taken back, last
    seen: Sightings = Sightings()
    lost_ms: int = 0  # when they were taken back last
    unpaid: int = 0  # how often in a row that was before the change to them had paid


class Memory(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Refusals, one for each place, shape and capacity; and how spot comes and goes, by place and shape."""

    refusals: tuple[Refusal, ...] = ()
    half_life_s: int = 600
    spells: Mapping[tuple[str, str, str, str], Spell] = {}
    starts_ms: Mapping[str, tuple[int, ...]] = {}  # how long the last orders took to come up, by provider


def refusal_of(choice: Choice, now_ms: int, *, scope: str = "zone") -> Refusal:
    """The refusal of `choice` in its `zone`, its `region` or all of its `provider`."""
    offer = choice.offer
    return Refusal(
        provider=offer.provider,
        region="" if scope == "provider" else offer.region,
        zone=offer.zone if scope == "zone" else "",
        instance_type=offer.shape.instance_type,
        spot=offer.capacity is Capacity.SPOT,
        at_ms=now_ms,
    )


def remember(memory: Memory, refusal: Refusal) -> Memory:
    """The memory with one more refusal; repeated ones add up, faded ones are dropped."""
    now_ms = refusal.at_ms
    kept = []
    weight = refusal.weight
    for each in memory.refusals:
        left = weight_at(each, now_ms, memory.half_life_s)
        if _key(each) == _key(refusal):
            weight += left
            now_ms = max(now_ms, each.at_ms)  # reports of several servers may come out of order
        elif left >= _FORGET:
            kept.append(each)
    added = msgspec.structs.replace(refusal, weight=weight, at_ms=now_ms)
    kept.append(added)
    return msgspec.structs.replace(memory, refusals=tuple(kept[-_REFUSALS_MAX:]))


def forgive(memory: Memory, choice: Choice) -> Memory:
    """The memory after `choice` was granted: what spoke against exactly this place and shape is gone."""
    granted = _key(refusal_of(choice, 0))
    left = tuple(each for each in memory.refusals if _key(each) != granted)
    return msgspec.structs.replace(memory, refusals=left)


def note_start(memory: Memory, provider: str, took_ms: int) -> Memory:
    """The memory with one more order that came up."""
    kept = (*memory.starts_ms.get(provider, ()), took_ms)[-_STARTS_MAX:]
    return msgspec.structs.replace(memory, starts_ms={**memory.starts_ms, provider: kept})


def typical_start_ms(memory: Memory, provider: str) -> int | None:
    """How long nearly all orders there take to come up: nine of ten of the last ones. None: not known."""
    known = sorted(memory.starts_ms.get(provider, ()))
    return known[(9 * len(known) - 1) // 10] if len(known) >= _STARTS_MIN else None


class Seen(StrEnum):
    """What happened to an order of spot machines."""

    GRANTED = "granted"
    REFUSED = "refused"
    LOST = "taken back"
    LEFT = "given back"


def note_spot(memory: Memory, choice: Choice, what: Seen, now_ms: int) -> Memory:
    """The memory with one more thing seen of spot; other capacities leave it as it is."""
    if choice.offer.capacity is not Capacity.SPOT:
        return memory
    spells = dict(memory.spells)
    old = spells.pop(_spot_key(choice), None) or Spell(there=None, since_ms=now_ms)
    if len(spells) >= _SPELLS_MAX:
        spells.pop(next(iter(spells)))
    spells[_spot_key(choice)] = _next_spell(old, what, now_ms)
    return msgspec.structs.replace(memory, spells=spells)


def _next_spell(old: Spell, what: Seen, now_ms: int) -> Spell:
    lasted_s = max(0, now_ms - old.since_ms) / 1000
    if what is Seen.GRANTED:
        came_back = old.there is False
        fresh = Sightings(grants=1, missing_s=lasted_s * came_back, returns=int(came_back))
        return replace(old, there=True, since_ms=now_ms, seen=_faded(old.seen) + fresh)
    if what is Seen.REFUSED:
        # Somebody may still hold machines there: there are no more of them.
        since_ms = old.since_ms if old.there is False else now_ms
        return replace(old, there=False, since_ms=since_ms, asked_ms=now_ms)
    if what is Seen.LEFT:
        fresh = Sightings(there_s=lasted_s if old.there else 0)
        return replace(old, there=None, since_ms=now_ms, seen=old.seen + fresh)
    if not old.there:  # it was known by another's loss
        return replace(
            old, there=False, since_ms=now_ms if old.there is None else old.since_ms, asked_ms=now_ms
        )
    brief = lasted_s <= BRIEF_S
    fresh = Sightings(there_s=lasted_s, brief=int(brief), losses=int(not brief))
    return Spell(
        there=False,
        since_ms=now_ms,
        asked_ms=now_ms,
        seen=old.seen + fresh,
        lost_ms=now_ms,
        unpaid=old.unpaid + 1 if lasted_s < PAID_S else 0,
    )


def _faded(seen: Sightings) -> Sightings:
    """Half of it, when it goes back further than matters."""
    if seen.there_s + seen.missing_s < _OLD_S:
        return seen
    return Sightings(
        there_s=seen.there_s / 2,
        grants=seen.grants / 2,
        losses=seen.losses / 2,
        brief=seen.brief / 2,
        missing_s=seen.missing_s / 2,
        returns=seen.returns / 2,
    )


def sightings(memory: Memory, choice: Choice, now_ms: int) -> Sightings:
    """What was seen of spot in this place until now."""
    spell = memory.spells.get(_spot_key(choice))
    if spell is None:
        return Sightings()
    if spell.there:
        return spell.seen + Sightings(there_s=max(0, now_ms - spell.since_ms) / 1000)
    if spell.there is False:
        return spell.seen + Sightings(missing_s=max(0, spell.asked_ms - spell.since_ms) / 1000)
    return spell.seen


def opens_ms(memory: Memory, choice: Choice, now_ms: int, *, leaves: bool = False) -> int:
    """When it makes sense to ask for spot there: now or before, unless it was refused lately. A refusal holds
    for its own zone and kind of machine, the longer the longer they are missing. Who `leaves` on-demand for
    it also waits after spot was taken back too soon, twice as long each time."""
    spell = memory.spells.get(_spot_key(choice))
    if spell is None or spell.there is not False:
        return now_ms
    asks_ms = spell.asked_ms + round(1000 * ask_again_s((spell.asked_ms - spell.since_ms) / 1000, spell.seen))
    if not leaves or not spell.unpaid:
        return asks_ms
    alone_s = min(LEAVE_AGAIN_MIN_S << min(spell.unpaid - 1, 20), LEAVE_AGAIN_MAX_S)
    return max(asks_ms, spell.lost_ms + 1000 * alone_s)


def weight_at(refusal: Refusal, now_ms: int, half_life_s: int) -> float:
    """What is left of a refusal. One from the future, by another clock, counts as of now."""
    age_s = max(0, now_ms - refusal.at_ms) / 1000
    return refusal.weight * math.exp2(-age_s / max(1, half_life_s))


def standing(memory: Memory, now_ms: int) -> list[Refusal]:
    """Refusals that still count, the latest first."""
    left = [each for each in memory.refusals if weight_at(each, now_ms, memory.half_life_s) >= _FORGET]
    return sorted(left, key=lambda each: (-each.at_ms, _key(each)))


def penalty(memory: Memory, choice: Choice, now_ms: int) -> float:
    """How much speaks against `choice` now; 0 when nothing does."""
    here, near = _against(memory, choice, now_ms)
    return here + near if here + near >= _FORGET else 0.0


def _against(memory: Memory, choice: Choice, now_ms: int) -> tuple[float, float]:
    """(refusals of this very place, those of other zones of its region)."""
    offer = choice.offer
    spot = offer.capacity is Capacity.SPOT
    here = near = 0.0
    for each in memory.refusals:
        if each.provider != offer.provider or each.spot != spot:
            continue
        if each.instance_type and each.instance_type != offer.shape.instance_type:
            continue
        if each.region and each.region != offer.region:
            continue
        weight = weight_at(each, now_ms, memory.half_life_s)
        if each.zone and offer.zone and each.zone != offer.zone:
            near += weight * _NEAR
        else:
            here += weight
    return here, near


def order_for_failover(
    choices: Sequence[Choice],
    memory: Memory,
    now_ms: int,
    *,
    hedge: int = 6,
    dearer: float = 0.1,
    ordered: bool = False,
) -> list[Choice]:
    """The same choices in the order in which to try them.

    Those that were refused come after the others, by powers of two of how much speaks against them. Those of
    which only a neighbouring zone was refused come after what costs about the same: a dearer machine is no
    reason to pass by a zone that nobody asked. Among equals the given order stays, but for the first `hedge`:
    each of them is taken from those that are at most `dearer` above the next in line, and differs most from
    those before it in provider, then region, then zone, then type. So a shortage of one zone or type does not
    meet a row of attempts at the same thing, and no attempt costs much more than it must.

    Args:
        hedge: 1 keeps the order of what nothing speaks against.
        dearer: 0.1 allows 10 % above the next in line.
        ordered: the choices are in order of preference of their candidates: hedging stays within one
        candidate.
    """
    if not memory.refusals and hedge <= 1:
        return list(choices)
    tiers: dict[int, list[Choice]] = {}
    doubted: set[int] = set()
    for choice in choices:
        here, near = _against(memory, choice, now_ms)
        tier = 0 if here < _FORGET else 1 + math.floor(math.log2(here / _FORGET))
        tiers.setdefault(tier, []).append(choice)
        if tier == 0 and near >= _FORGET:
            doubted.add(id(choice))
    found: list[Choice] = []
    for tier in sorted(tiers):
        waiting = tiers[tier] if tier or not doubted else _doubted_later(tiers[0], doubted, dearer, ordered)
        while waiting and len(found) < hedge:
            index = 0 if id(waiting[0]) in doubted else _next(waiting, found, dearer, ordered, doubted)
            found.append(waiting.pop(index))
        found += waiting
    return found


def _doubted_later(
    choices: Sequence[Choice], doubted: Collection[int], dearer: float, ordered: bool
) -> list[Choice]:
    """Each doubted choice after those that follow it and cost at most `dearer` more."""
    found: list[Choice] = []
    held: list[Choice] = []
    for choice in choices:
        if id(choice) in doubted:
            held.append(choice)
            continue
        stay: list[Choice] = []
        for each in held:
            other = ordered and choice.resources != each.resources
            passes = other or choice.price_micro_usd > each.price_micro_usd * (1 + dearer)
            (found if passes else stay).append(each)
        held = stay
        found.append(choice)
    return found + held


def _next(
    waiting: Sequence[Choice],
    before: Sequence[Choice],
    dearer: float,
    ordered: bool,
    doubted: Collection[int],
) -> int:
    """Index of what differs most from `before` among those that cost about what the next in line costs."""
    first = waiting[0]
    limit = first.price_micro_usd * (1 + dearer)
    best, best_key = 0, None
    for index, choice in enumerate(waiting):
        if choice.price_micro_usd > limit or (ordered and choice.resources != first.resources):
            continue
        if id(choice) in doubted:
            continue
        key = (*_alike(choice, before), index)
        if best_key is None or key < best_key:
            best, best_key = index, key
    return best


def _alike(choice: Choice, before: Sequence[Choice]) -> tuple[int, int, int, int]:
    """How many before it share its provider, region, zone, type (of a provider)."""
    mine = choice.offer
    same = [each.offer for each in before if each.offer.provider == mine.provider]
    return (
        len(same),
        sum(each.region == mine.region for each in same),
        sum((each.region, each.zone) == (mine.region, mine.zone) for each in same),
        sum(each.shape.instance_type == mine.shape.instance_type for each in same),
    )


def _spot_key(choice: Choice) -> tuple[str, str, str, str]:
    offer = choice.offer
    return offer.provider, offer.region, offer.zone, offer.shape.instance_type


def _key(refusal: Refusal) -> tuple[str, str, str, str, bool]:
    return (refusal.provider, refusal.region, refusal.zone, refusal.instance_type, refusal.spot)
