"""What is noted of an order: where it is, and with which words, until it is released. It also tells which
regions have to be looked at."""

from __future__ import annotations

import msgspec


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One claim at AWS. `ids` are known when the answer to the order arrived."""

    claim_id: str
    region: str
    count: int
    tag: str = ""
    spot: bool = False
    rests: bool = False  # ordered to rest before it ever ran
    zone: str = ""  # of the last order
    image_id: str = ""
    ids: tuple[str, ...] = ()
    asked_ms: int = 0  # when it was last ordered
    group: str = ""  # placement group of its own
    ended_ms: int = 0  # released: what is left goes when AWS lets it
