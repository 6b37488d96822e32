"""Observations of a service: the answers of its replicas to probes, and the counters of its gateways."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from argosy.model.service_keys import KeyUse


class ReplicaFact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one replica has answered lately."""

    attempt_id: str  # of this attempt of its job
    address: str = ""  # HOST:PORT, or the path of a socket, where it is reached
    good: int = 0  # good answers in a row
    bad: int = 0  # bad ones in a row, or none in time
    since_ms: int = 0  # the first of that row
    at_ms: int = 0  # the last one
    why: str = ""  # what was wrong with the last bad one
    refused: bool = False  # nobody listens there


class Count(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one revision has answered in a span of time."""

    requests: int = 0
    errors: int = 0
    slow: int = 0  # later than nineteen of twenty answers of the older revision


class Rate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a service did in the last minute."""

    requests_milli: int = 0  # requests per second x 1000
    errors: int = 0
    p50_ms: int = 0  # half of the answers were complete by then
    p99_ms: int = 0
    tokens_milli: int = 0  # of prompts and answers per second x 1000


class ServedFact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the gateways say of one service."""

    generation: int = 0  # of its routes: the gateway has taken these over
    at_ms: int = 0  # when it was heard last
    in_flight: Mapping[str, int] = {}  # requests, by id of the replica's job
    held: int = 0  # requests that wait for a replica
    used_ms: int = 0  # when the last request was under way
    counts: Mapping[int, Count] = {}  # by revision, since the shares of the revisions changed last
    rate: Rate = Rate()
    replicas: Mapping[str, Rate] = {}  # by id of the replica's job: those that answered anything
    revisions: Mapping[int, Rate] = {}
    keys: Mapping[str, KeyUse] = {}  # by their name, as routes have it
    wanted: int = -1  # replicas that the load asks for; -1: nobody has said
    why: str = ""  # and why so many
    troubles: tuple[str, ...] = ()  # of what is looked at for that: a sentence each
