"""`check`: each infrastructure speaks for itself, those that hang hold up nobody, and what is not in use is
named."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from argosy.api.location import Location
from argosy.client.client import Client
from argosy.infra import border
from argosy.infra.provider import Capabilities, Diagnostic, Manifest
from argosy.server import checking
from argosy.testing.idle_server import IdleServer, StaticProvider, a_pool


class Slow(StaticProvider):
    def __init__(self) -> None:
        super().__init__(Manifest(name="slow", title="slow", capabilities=Capabilities()), [])

    async def check(self) -> Sequence[Diagnostic]:
        await asyncio.sleep(3600)
        return []


class Broken(StaticProvider):
    def __init__(self) -> None:
        super().__init__(Manifest(name="broken", title="broken", capabilities=Capabilities()), [])
        self.failure: Exception = border.CredentialsRejected("the token has expired")

    async def check(self) -> Sequence[Diagnostic]:
        raise self.failure


@pytest.fixture
def broken() -> Broken:
    return Broken()


@pytest.fixture
def client(broken: Broken) -> Iterator[Client]:
    with IdleServer(a_pool(), Slow(), broken) as running:
        yield Client(Location(socket=running.socket))


def test_nobody_is_asked_where_only_names_are_wanted(client: Client) -> None:
    reply = client.check(quick=True)
    assert reply.asking == ("broken", "pool", "slow") and not [one for one in reply.findings if one.in_use]


def test_one_is_asked_alone(client: Client) -> None:
    (finding,) = client.check("pool").findings
    assert (finding.provider, finding.ok, finding.what) == ("pool", True, "is ready")


def test_one_that_hangs_is_a_finding_beside_the_others(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "LIMIT_S", 0.01)
    found = {one.provider: one for one in client.check().findings if one.in_use}
    assert found["slow"].what == "did not answer within 0 s" and not found["slow"].ok
    assert found["pool"].ok and found["broken"].what == "the token has expired"


def test_a_bug_of_a_driver_is_its_own(client: Client, broken: Broken) -> None:
    broken.failure = ImportError("no module named sdk")
    (finding,) = client.check("broken").findings
    assert finding.what == "its driver failed: ImportError" and "log" in finding.hint


def test_what_is_not_in_use_is_told_on_request(client: Client) -> None:
    resting = {one.provider: one for one in client.check(all=True, quick=True).findings}
    assert resting["hyperbolic"].what == "Argosy cannot run on hyperbolic yet: it has no driver"
    assert not resting["hyperbolic"].in_use and "pool" not in resting
    (named,) = client.check("hyperbolic").findings
    assert named == resting["hyperbolic"]
    assert client.check("mars").findings == ()
