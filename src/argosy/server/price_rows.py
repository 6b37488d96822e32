"""Rows of plans and listings: chosen, summed up, read from what users write. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from argosy.api.planning import OfferView
from argosy.api.prices import ModelView
from argosy.model.errors import ArgosyError
from argosy.model.market import DAY_MS
from argosy.model.offer import Capacity, Choice, Offer, Rejection
from argosy.model.priced import GpuView, PriceView, Refused
from argosy.model.resources import Infra, Resources, serves
from argosy.model.task import Task
from argosy.model.units import parse_milli, render_date, render_milli, render_price
from argosy.spec.notation import parse_infra

if TYPE_CHECKING:
    from argosy.catalog import Catalog
    from argosy.planning.ability import Ability
    from argosy.planning.availability import Refusal
    from argosy.planning.objective import Objective, Ranked

_REFUSED_MAX = 5  # of one machine that are told


def distinct(ranked: Sequence[Ranked], limit: int) -> list[tuple[Ranked, int]]:
    """The first of each machine and capacity of a provider, and how many there are of it."""
    first: dict[tuple[str, str, str], Ranked] = {}
    count: dict[tuple[str, str, str], int] = {}
    for each in ranked:
        offer = each.choice.offer
        key = (offer.provider, offer.shape.instance_type, offer.capacity.value)
        if key in first or len(first) < limit:
            first.setdefault(key, each)
            count[key] = count.get(key, 0) + 1
    return [(each, count[key]) for key, each in first.items()]


#: What is said of a provider although some of its machines fit. That its other machines are others goes
#: without saying.
_SAID_OF_FITTING: Final = frozenset(
    {"spot", "price-cap", "residency", "excluded", "location", "edge", "not-in-use"}
)


def told(
    rejections: Sequence[Rejection], task: Task, fitting: Collection[str], *, spot_weighed: bool
) -> tuple[Rejection, ...]:
    """Of each provider what matters: where something fits, what was left out on purpose; elsewhere the last
    hurdle, which some of its machines came to. Who did not speak of spot is told how to get it.

    Args:
        fitting: providers of which something fits.
        spot_weighed: spot was looked at although nobody spoke of it.
    """
    free = all(wish.use_spot is None for wish in task.resources)
    last = {each.provider: each for each in rejections if each.code != "not-in-use"}
    found = []
    for each in rejections:
        if each.provider in fitting:
            if each.code not in _SAID_OF_FITTING or (each.code == "spot" and (spot_weighed or not free)):
                continue
        elif each.code != "not-in-use" and each is not last[each.provider]:
            continue
        if each.code == "spot" and free:
            each = msgspec.structs.replace(each, text="spot offers skipped (add `use_spot: true`)")
        found.append(each)
    return tuple(found)


def choice_notes(choices: Sequence[Choice], abilities: Mapping[str, Ability]) -> tuple[str, ...]:
    """What is to be said beside the choices of a plan."""
    return (*share_notes(choices), *_quota_notes(choices, abilities))


def _quota_notes(choices: Sequence[Choice], abilities: Mapping[str, Ability]) -> tuple[str, ...]:
    """One note on the places where nobody knows how much an account may have. Owned machines have no quotas,
    and an offer that tells how many nodes there are has told of them."""
    names = sorted(
        {
            each.offer.provider
            for each in choices
            if each.offer.provider in abilities
            and not abilities[each.offer.provider].owned
            and not abilities[each.offer.provider].quotas
            and each.offer.nodes_max is None
        }
    )
    if not names:
        return ()
    return (
        f"quotas of {', '.join(names)} are not known: what your account may not have is refused at launch, "
        "and the next place is tried then",
    )


def share_notes(choices: Sequence[Choice]) -> tuple[str, ...]:
    """What a fraction costs where only whole machines are rented, for all of it and for each task on it."""
    if not choices:
        return ()
    best = choices[0]
    asked, offer = best.resources.accelerator, best.offer
    is_part = asked is not None and asked.is_fraction and asked.milli < best.accelerators_milli
    if asked is None or not is_part or offer.capacity is Capacity.OWNED:
        return ()
    room = offer.shape.accelerators_milli // 1000 * (1000 // asked.milli)
    devices = f"{render_milli(offer.shape.accelerators_milli)} {offer.shape.accelerator or 'accelerators'}"
    place = "/".join(part for part in (offer.provider, offer.region) if part)
    return (
        f"{place} rents whole machines: {offer.shape.instance_type} with {devices} costs "
        f"{render_price(offer.price_micro_usd)}/h and has room for {room} such tasks, "
        f"{render_price(offer.price_micro_usd // room)}/h each",
    )


def summed_by_model(rows: Sequence[GpuView]) -> tuple[ModelView, ...]:
    by_name: dict[str, list[GpuView]] = {}
    for row in rows:
        by_name.setdefault(row.accelerator, []).append(row)
    return tuple(
        ModelView(
            accelerator=name,
            device_memory_bytes=max(row.device_memory_bytes for row in mine),
            vendor=mine[0].vendor,
            architecture=mine[0].architecture,
            interconnect=mine[0].interconnect,
            counts_milli=tuple(sorted({row.accelerators_milli for row in mine})),
            providers=tuple(sorted({row.provider for row in mine})),
            on_demand=_least(mine, "on_demand"),
            spot=_least(mine, "spot"),
        )
        for name, mine in sorted(by_name.items())
    )


def _least(rows: Sequence[GpuView], lane: str) -> PriceView | None:
    """The lowest price per device."""
    best: PriceView | None = None
    for row in rows:
        price = row.spot if lane == "spot" else row.on_demand
        if price is None or not row.accelerators_milli:
            continue
        each = price.micro_usd * 1000 // row.accelerators_milli
        if best is None or each < best.micro_usd:
            best = PriceView(
                micro_usd=each,
                provider=row.provider,
                region=price.region,
                zone=price.zone,
                estimated=price.estimated,
                as_of=price.as_of,
            )
    return best


def parse_gpu(gpu: str) -> tuple[str, int | None]:
    """Model and thousandths of `A100:8`."""
    model, colon, count = gpu.partition(":")
    if not colon:
        return model, None
    try:
        return model, parse_milli(count)
    except ValueError as error:
        raise ArgosyError("usage", f"`{gpu}`: {error}", hint="write for example `A100:8`") from None


def parse_place(infra: str) -> Infra:
    """What people write: other names of a provider, too. Raises `usage`.

    >>> parse_place("k8s/lab"), parse_place("")
    (Infra(provider='kubernetes', region='lab', zone=None), Infra(provider=None, region=None, zone=None))
    """
    try:
        return parse_infra(infra)
    except ValueError:
        raise ArgosyError("usage", f"`{infra}` is not PROVIDER[/REGION[/ZONE]]") from None


def nobody_has(wish: Resources, own: Collection[str], catalog: Catalog) -> ArgosyError | None:
    """The error for an accelerator that neither a provider nor a machine in use has (`own`); else None."""
    from argosy.planning.impossible import explain_no_board

    model = wish.accelerator.model if wish.accelerator is not None else None
    if model is None or any(serves(each, model) for each in own):
        return None
    return explain_no_board(wish, own) or catalog.unknown_accelerator(model)


def is_there(offer: Offer, model: str, place: Infra) -> bool:
    return (not model or serves(offer.shape.accelerator or "", model)) and all(
        want in (None, have)
        for want, have in (
            (place.provider, offer.provider),
            (place.region, offer.region),
            (place.zone, place.zone if offer.machines_for(place.zone) else offer.zone),
        )
    )


def steady(wish: Resources) -> Resources:
    """Who does not ask for spot does not get machines that are taken back."""
    return wish if wish.use_spot is not None else msgspec.structs.replace(wish, use_spot=False)


def by_price(choice: Choice) -> tuple[int, str, str, str, str]:
    offer = choice.offer
    return choice.price_micro_usd, offer.provider, offer.region, offer.zone, offer.shape.instance_type


def merged(choices: Sequence[Choice], task: Task) -> list[Choice]:
    """By price, or in the order of the candidates first when they are in order of preference."""
    if not task.ordered:
        return sorted(choices, key=by_price)
    order = {wish: index for index, wish in reversed(list(enumerate(task.resources)))}

    def position(wish: Resources) -> int:
        """Of the candidate that it was; what does not speak of spot was asked for as either."""
        free = msgspec.structs.replace(wish, use_spot=None)
        return order.get(wish, order.get(free, 0))

    return sorted(choices, key=lambda each: (position(each.resources), *by_price(each)))


def refused(
    standing: Sequence[Refusal], provider: str, machine: str, *, offer: Offer | None = None
) -> tuple[Refused, ...]:
    """What of the refusals that count speaks of a machine; with `offer`, of exactly this place and
    capacity."""
    return tuple(
        Refused(at_ms=each.at_ms, region=each.region, zone=each.zone, spot=each.spot)
        for each in standing
        if each.provider == provider
        and each.instance_type in ("", machine)
        and (
            offer is None
            or (
                each.spot == (offer.capacity is Capacity.SPOT)
                and each.region in ("", offer.region)
                and (not each.zone or not offer.zone or each.zone == offer.zone)
            )
        )
    )[:_REFUSED_MAX]


def offer_view(
    catalog: Catalog, ranked: Ranked, places: int, standing: Sequence[Refusal], drivers: Collection[str]
) -> OfferView:
    """One row of a plan. `places`: for how many places it stands, `drivers`: providers in use."""
    choice, offer = ranked.choice, ranked.choice.offer
    is_spot, shape = offer.capacity is Capacity.SPOT, offer.shape
    priced = offer.provider in catalog.providers and (is_spot or offer.capacity is Capacity.ON_DEMAND)
    source, rule = catalog.source_of(offer) if priced else ("", "")
    hazard = catalog.hazard(offer.provider, offer.region, shape.instance_type) if is_spot else None
    return OfferView(
        provider=offer.provider,
        region=offer.region,
        zone=offer.zone,
        capacity=offer.capacity.value,
        instance_type=shape.instance_type,
        accelerator=shape.accelerator or "",
        accelerators_milli=shape.accelerators_milli,
        cpus_milli=shape.cpus_milli,
        memory_bytes=shape.memory_bytes,
        price=PriceView(
            micro_usd=offer.price_micro_usd,
            region=offer.region,
            zone=offer.zone,
            estimated=offer.estimated,
            as_of=render_date(offer.quoted_at_ms // DAY_MS),
        ),
        hourly_micro_usd=choice.price_micro_usd,
        runtime_s=ranked.runtime.seconds,
        basis=ranked.runtime.basis,
        total_micro_usd=ranked.cost_micro_usd,
        carbon_g=ranked.carbon_g,
        interrupted_pct_low=hazard.low_pct if hazard else None,
        interrupted_pct_high=hazard.high_pct if hazard else None,
        source=source,
        rule=rule,
        launchable=offer.provider in drivers,
        places=places,
        refused=refused(standing, offer.provider, shape.instance_type, offer=offer),
    )


def parse_objective(name: str) -> Objective:
    """Raises `usage` for what is none."""
    from argosy.planning.objective import Objective

    try:
        return Objective(name)
    except ValueError:
        names = ", ".join(Objective)
        raise ArgosyError("usage", f"`{name}` is no objective", hint=f"it is one of {names}") from None
