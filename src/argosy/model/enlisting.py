"""Hosts that people add by name: how to reach one, the result of its examination, and its state."""

from __future__ import annotations

import msgspec

from argosy.model.facts import NodeFacts


class HostOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A host and the way to it, as people write it. What is empty is found by the way itself."""

    pool: str
    host: str  # `gpu1`, `me@gpu1`, `10.0.0.7:2222`
    name: str = ""  # as people call it; "": the host
    user: str = ""
    port: int = 0
    key_file: str = ""  # on the server's machine
    jumps: tuple[str, ...] = ()
    config_file: str = ""
    folder: str = ""  # where nodes live there
    accepts_new_keys: bool = False  # whatever key it shows the first time is its key
    host_key: str = ""  # the fingerprint that somebody has compared and accepted
    password: str = ""  # used once, to install a key; kept nowhere
    labels: tuple[tuple[str, str], ...] = ()
    domains: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"HostOrder(pool={self.pool!r}, host={self.host!r})"


class HostReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of examining a host. `asks` says what would bring it further: `host-key` (accept
    `fingerprint`), `password`; "": nothing that can be answered."""

    provider: str
    pool: str
    name: str
    address: str
    ok: bool
    text: str  # what it is, or what is wrong
    hint: str = ""  # what mends it
    asks: str = ""
    fingerprint: str = ""
    facts: NodeFacts | None = None
    python: str = ""


class HostState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A host of a pool."""

    provider: str
    pool: str
    name: str
    address: str
    state: str  # open | cordoned | drained | closed
    why: str = ""  # of one that is closed, as the end of a sentence
    source: str = ""  # where it is written; "": by `argosy pool add`
    facts: NodeFacts | None = None  # as it was seen last
    python: str = ""
    claims: int = 0  # of ours that hold something there
