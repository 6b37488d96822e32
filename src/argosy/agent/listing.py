"""Two sides compare what they know of many files, and tell only where it differs.

One digest of everything tells that nothing is new. Else files are divided into groups by the CRC-32 of their
paths; one side tells a digest of each group, and the other sends those groups that differ. The order in which
files come does not matter, and whoever compares needs no memory of what it sent before.
"""

from __future__ import annotations

import hashlib
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Row = Sequence[object]  # a path, a size in bytes, an ETag, and what else the caller wants

EMPTY = "empty"  # the token of a place where no copy was, or none has left anything
DIGITS = 24  # hex digits that tell a group
_GROUP_FILES = 64
_GROUPS_MAX = 4096


def digest_of(rows: Iterable[Row]) -> str:
    """What these files are, in 64 hex digits.

    >>> digest_of([("a", 1, "x"), ("b", 2, "y")]) == digest_of([("b", 2, "y"), ("a", 1, "x")])
    True
    """
    return _digest([_line(row) for row in rows])


def groups_for(count: int) -> int:
    """Into how many groups so many files are divided.

    >>> groups_for(0), groups_for(20_000), groups_for(1_000_000)
    (1, 312, 4096)
    """
    return max(1, min(_GROUPS_MAX, count // _GROUP_FILES))


def group_of(path: str, count: int) -> int:
    """Which of `count` groups a path belongs to."""
    return zlib.crc32(path.encode("utf-8", "surrogatepass")) % count


def digests_of_groups(rows: Iterable[Row], count: int) -> str:
    """`DIGITS` hex digits for each group, one after another."""
    groups: list[list[str]] = [[] for _ in range(count)]
    for row in rows:
        groups[group_of(str(row[0]), count)].append(_line(row))
    return "".join(_digest(group)[:DIGITS] for group in groups)


def differing(one: str, other: str) -> list[int]:
    """The groups of which two sides told different digests. Raises ValueError when these are no such.

    >>> differing("0" * 48, "0" * 24 + "1" * 24)
    [1]
    """
    if len(one) != len(other):
        raise ValueError("digests of different numbers of groups")
    return [
        at // DIGITS for at in range(0, len(one), DIGITS) if one[at : at + DIGITS] != other[at : at + DIGITS]
    ]


def _line(row: Row) -> str:
    return "%s\0%s\0%s\n" % (row[0], row[2], row[1])


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("".join(sorted(lines)).encode("utf-8", "surrogatepass")).hexdigest()
