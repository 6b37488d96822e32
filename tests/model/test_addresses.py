"""Which hosts are the loopback."""

from __future__ import annotations

import pytest

from argosy.model.addresses import is_loopback


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "localhost.localdomain"]
)
def test_what_only_this_machine_reaches(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "[::]", "10.0.0.1", "127.example.org", "localhost.a.org", "fe80::1%eth0"]
)
def test_what_others_may_reach(host: str) -> None:
    assert not is_loopback(host)
