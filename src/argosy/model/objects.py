"""Objects in buckets: what a store of objects knows of them, and what it refuses. The words are S3's."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Final

import msgspec

PART_MIN_BYTES: Final = 5 << 20  # of every part of an upload but the last
PARTS_MAX: Final = 10_000
KEY_MAX_BYTES: Final = 1024
#: Parts of open files, in order: a descriptor, the first byte, how many.
Files = Generator[tuple[int, int, int], None, None]


class ObjectInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One object as a listing shows it."""

    key: str
    size: int  # bytes
    etag: str  # MD5 in hexadecimal digits; of an upload in parts `<MD5 of their MD5s>-<count>`
    modified_ms: int


class ObjectHead(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of an object beside its bytes. `headers`: those that come back with it, such as
    `content-type` and `x-amz-meta-...`, names in lower case."""

    info: ObjectInfo
    headers: Mapping[str, str] = {}
    extents: tuple[tuple[str, int], ...] = ()  # files that hold its bytes, in order, and their sizes


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that arrived, and that nobody can see yet: where they are, and what they come to. A few are in
    memory (`held`, without extents and MD5) until something is made of them."""

    extents: tuple[tuple[str, int], ...]
    size: int
    md5: str  # hexadecimal
    held: tuple[bytes, ...] = ()
    #: Of what is held: its MD5 in hexadecimal, where that was made, else "". Raises ObjectProblem.
    check: Callable[[Sequence[bytes]], str] | None = None

    def checked(self) -> tuple[tuple[bytes, ...], str]:
        """What is held, once it is known to be right, and its MD5 where that was made on the way ("": it was
        not). This takes time, and is for a thread."""
        return self.held, self.check(self.held) if self.check is not None else ""


class ObjectPage(msgspec.Struct, frozen=True, kw_only=True):
    """Part of a listing, in order of the keys' bytes."""

    objects: tuple[ObjectInfo, ...] = ()
    prefixes: tuple[str, ...] = ()  # what is below a delimiter, each once
    after: str = ""  # where the next page begins, as its `after`; "": this was the last


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """When a write is done. `if_match`: only over an object with this ETag; `if_absent`: only where none
    is."""

    if_match: str = ""
    if_absent: bool = False


class ObjectPart(msgspec.Struct, frozen=True, kw_only=True):
    """One part of an upload that is not complete."""

    number: int
    size: int
    etag: str
    modified_ms: int


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """An upload in parts that is under way."""

    id: str
    key: str
    begun_ms: int


class ObjectProblem(Exception):
    """A refusal. `code` is S3's own."""

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(text or code)
        self.code = code
