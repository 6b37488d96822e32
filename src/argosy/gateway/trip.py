"""What the router remembers of one request."""

from __future__ import annotations

from argosy.gateway.limits import Key, Reserved
from argosy.gateway.replicas import Replica
from argosy.gateway.service import Service
from argosy.gateway.usage import Usage


class Trip:
    """One request on its way to a replica of its service."""

    __slots__ = (
        "asks_model", "copies", "fields", "is_held", "is_split", "key", "prefix", "replica", "reserved",
        "service", "tried", "usage",
    )  # fmt: skip

    def __init__(self, service: Service, prefix: int) -> None:
        self.service = service
        self.prefix = prefix  # so many bytes of the path do not go to the replica
        self.replica: Replica | None = None
        self.tried: list[Replica] = []  # replicas that failed
        self.key: Key | None = None
        self.reserved: Reserved | None = None  # from the limits of its key; None: not admitted yet
        self.usage: Usage | None = None
        self.asks_model = False
        self.copies = False  # a copy goes to the shadow revision
        self.is_held = False
        self.is_split = False  # its prompt was read, or is being read, by another service
        self.fields: bytes | None = None  # of the request, where its body was changed
