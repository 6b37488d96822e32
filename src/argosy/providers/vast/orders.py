"""What is asked of Vast.ai, from a claim. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.machine_container import ARGS, PORT, container_env, image_of, open_ports
from argosy.infra.machine_settings import settings_in
from argosy.infra.machine_vendor import MachineOrder
from argosy.model.offer import Capacity
from argosy.model.resources import Resources
from argosy.providers.vast.asks import Ask

IMAGE: Final = "vastai/base-image:cuda-12.8.1-auto"
DISK_GB: Final = 32
RELIABLE: Final = 0.95  # hosts below it are not asked
DEARER: Final = 1.05  # a price that rose by so much since the quote is still taken
_MOST: Final = 2000
_KWARGS: Final = frozenset(
    ("image_login", "python_utf8", "lang_utf8", "extra", "user", "template_hash_id", "volume_info")
)


class Settings(msgspec.Struct, frozen=True):
    """`config.vast` of a task."""

    datacenter_only: bool = False
    min_reliability: float = RELIABLE
    create_instance_kwargs: dict[str, Any] = {}


def kind_of(instance_type: str) -> tuple[int, str]:
    """How many of which GPU, as Vast.ai calls it. Raises `RequestRefused`.

    >>> kind_of("2x-RTX_4090-16-65536")
    (2, 'RTX 4090')
    """
    found = re.fullmatch(r"(\d+)x-(.+)-\d+-\d+", instance_type)
    if found is None:
        raise border.RequestRefused(
            "instance_type",
            f"`{instance_type}` is no type of Vast.ai: they are called like `1x-RTX_4090-16-65536`",
        )
    return int(found[1]), found[2].replace("_", " ")


def settings_of(wish: Resources) -> Settings:
    """Raises `RequestRefused`."""
    settings = settings_in(wish.config, "vast", Settings)
    if unknown := settings.create_instance_kwargs.keys() - _KWARGS:
        raise border.RequestRefused(
            "config.vast.create_instance_kwargs",
            f"`create_instance_kwargs` of `config.vast` knows no {', '.join(sorted(unknown))}: it knows "
            f"{', '.join(sorted(_KWARGS))}",
        )
    return settings


def search_of(settings: Settings, *, spot: bool, disk_gb: int = DISK_GB, **more: Any) -> dict[str, Any]:
    """The body of a search. Only verified hosts that can be reached directly are asked."""
    query: dict[str, Any] = {
        "verified": {"eq": True},
        "external": {"eq": False},
        "rentable": {"eq": True},
        "rented": {"eq": False},
        "reliability2": {"gte": settings.min_reliability},
        "direct_port_count": {"gte": 1},
        "type": "bid" if spot else "on-demand",
        "order": [["dph_total", "asc"]],
        "limit": _MOST,
        "allocated_storage": float(disk_gb),
    }
    if settings.datacenter_only:
        query["datacenter"] = {"eq": True}
    return query | {key: {"eq": value} for key, value in more.items()}


def best_first(asks: Sequence[Ask], highest_usd: float, *, spot: bool) -> list[Ask]:
    """The offers to try: hosts that were away most seldom first, of equal ones the cheapest. Reliability
    counts in steps of 1 %."""

    def usd(ask: Ask) -> float:
        return (ask.min_bid or 0.0) if spot else ask.dph_total

    fit = [ask for ask in asks if usd(ask) <= highest_usd]
    return sorted(fit, key=lambda ask: (-round(ask.reliability2 or 0.0, 2), usd(ask), ask.id))


def highest_usd(order: MachineOrder) -> float:
    """The most that an hour may cost: the price of the offer and a little, or what the task allows."""
    usd = order.claim.choice.offer.price_micro_usd / 1e6 * DEARER
    cap = order.claim.choice.resources.max_hourly_micro_usd
    return usd if cap is None else min(usd, cap / 1e6)


def disk_gb(wish: Resources) -> int:
    return -(-wish.disk_size_bytes // 10**9) or DISK_GB


def rent_of(order: MachineOrder, index: int, ask: Ask) -> dict[str, Any]:
    """The body of `PUT /asks/{id}/`: one container on one host, or nothing."""
    wish, settings = order.claim.choice.resources, settings_of(order.claim.choice.resources)
    env = container_env(order, index) | {"ARGOSY_REGION": order.region}
    # The host chooses a port of its own for each; the program finds it in VAST_TCP_PORT_8080.
    env |= {f"-p {port}:{port}": "1" for port in (PORT, *open_ports(wish))}
    body: dict[str, Any] = settings.create_instance_kwargs | {
        "client_id": "me",
        "image": image_of(wish.image_id, IMAGE),
        "env": env,
        "disk": disk_gb(wish),
        "label": order.name(index),
        "runtype": "args",
        "args": list(ARGS),
        "cancel_unavail": True,
    }
    if order.claim.choice.offer.capacity is Capacity.SPOT:
        body["price"] = round(max(ask.min_bid or 0.0, order.claim.choice.offer.price_micro_usd / 1e6), 4)
    return body
