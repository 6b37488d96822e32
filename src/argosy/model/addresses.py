"""Which addresses are reachable from the same machine only."""

from __future__ import annotations

import ipaddress
from typing import Final

_NAMES: Final = ("localhost", "localhost.localdomain")


def is_loopback(host: str) -> bool:
    """Whether a host, written with or without brackets, is the loopback of the machine that asks.

    A name other than the usual ones may lead anywhere, however it begins.

    >>> [is_loopback(host) for host in ("127.0.0.1", "[::1]", "localhost", "0.0.0.0", "127.example.org", "")]
    [True, True, True, False, False, False]
    """
    plain = host.removeprefix("[").removesuffix("]").partition("%")[0]
    try:
        return plain in _NAMES or ipaddress.ip_address(plain).is_loopback
    except ValueError:
        return False
