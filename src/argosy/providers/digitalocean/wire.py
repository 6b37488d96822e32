"""What the DigitalOcean API answers, as far as it is read; others than ours may be told of with less."""

from __future__ import annotations

import msgspec


class Address(msgspec.Struct, frozen=True):
    type: str = ""
    ip_address: str = ""


class Networks(msgspec.Struct, frozen=True):
    v4: list[Address] | None = None


class Region(msgspec.Struct, frozen=True):
    slug: str


class Droplet(msgspec.Struct, frozen=True):
    id: int
    name: str | None = None
    status: str | None = None
    created_at: str | None = None
    size_slug: str | None = None
    region: Region | None = None
    tags: list[str] | None = None
    networks: Networks | None = None

    def address(self, kind: str) -> str:
        known = self.networks.v4 if self.networks is not None else None
        return next((each.ip_address for each in known or () if each.type == kind), "")


class Pages(msgspec.Struct, frozen=True):
    next: str | None = None


class Links(msgspec.Struct, frozen=True):
    pages: Pages | None = None


class Droplets(msgspec.Struct, frozen=True):
    droplets: list[Droplet]
    links: Links | None = None


class Action(msgspec.Struct, frozen=True):
    type: str
    status: str


class Size(msgspec.Struct, frozen=True):
    slug: str
    available: bool
    regions: list[str]


class Sizes(msgspec.Struct, frozen=True):
    sizes: list[Size]
    links: Links | None = None


class Account(msgspec.Struct, frozen=True):
    droplet_limit: int
    status: str
    status_message: str | None = None
