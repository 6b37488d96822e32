"""On which addresses processes of this machine wait for connections, as the kernel says it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

_LISTENS = "0A"  # a state in the kernel's tables


def listening(pids: Iterable[int]) -> set[str]:
    """`ADDRESS:PORT` of every TCP socket that one of these processes listens on, in hexadecimal digits as
    `/proc/net/tcp` has them turned around; those in a network of their own do not count."""
    ours, found = Path("/proc/self/ns/net").readlink(), set[str]()
    for pid in pids:
        with contextlib.suppress(OSError):
            root = Path("/proc") / str(pid)
            if (root / "ns" / "net").readlink() == ours:
                held = set(_held(root / "fd"))
                found.update(address for inode, address in _table(root) if f"socket:[{inode}]" in held)
    return found


def beyond_loopback(pids: Iterable[int]) -> set[str]:
    """Those that another machine could reach."""
    return {each for each in listening(pids) if not is_loopback(each.rpartition(":")[0])}


def is_loopback(address: str) -> bool:
    """Of an address in the kernel's digits.

    >>> is_loopback("0100007F"), is_loopback("00000000"), is_loopback("00000000000000000000000001000000")
    (True, False, True)
    """
    if len(address) == 8:
        return address.endswith("7F")
    return address in ("00000000000000000000000001000000",) or (
        address.startswith("0000000000000000FFFF0000") and address.endswith("7F")
    )


def _held(folder: Path) -> Iterator[str]:
    """What the descriptors are of; one may be closed meanwhile."""
    for each in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield str(each.readlink())


def _table(root: Path) -> Iterator[tuple[str, str]]:
    """(inode, address) of listening sockets."""
    for name in ("tcp", "tcp6"):
        for line in (root / "net" / name).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENS:
                yield fields[9], fields[1]
