"""The audit log's rows: who did what to what, chained by hashes so that a change is found. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

FIRST: Final = "0" * 64  # what the first row follows


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that somebody did, or was refused; before it has its place in the log."""

    at_ms: int
    who: str  # name of the account; `owner` for the unix socket, `token NAME`
    via: str  # socket | token | session
    credential: str = ""
    address: str = ""
    action: str  # name of the endpoint
    target: str = ""  # ids or names
    outcome: str = "done"  # done | denied | failed
    request: str = ""  # id of the request
    changes: str = ""  # JSON: by target, fields with what they were and are; never a secret


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """An act in its place."""

    seq: int
    act: Act
    prev: str  # hash of the row before
    hash: str


def chained(act: Act, seq: int, prev: str) -> Record:
    """The act as the row that follows `prev`."""
    return Record(seq=seq, act=act, prev=prev, hash=hash_of(act, seq, prev))


def hash_of(act: Act, seq: int, prev: str) -> str:
    """SHA-256 over the row before, the number and every field, in the order of `Act`."""
    parts = [prev, str(seq), *map(str, msgspec.structs.astuple(act))]
    text = "\0".join(parts)
    if "\\" in text or text.count("\0") >= len(parts):  # so that no two acts read the same
        text = "\0".join(part.replace("\\", "\\\\").replace("\0", "\\0") for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def first_break(records: Iterable[Record], *, seq: int, prev: str) -> str:
    """What is wrong with rows that are to follow row `seq` with hash `prev`; "": nothing."""
    for record in records:
        if record.seq != seq + 1:
            return f"row {seq + 1} is missing: row {record.seq} follows row {seq}"
        if record.prev != prev:
            return f"row {record.seq} does not follow row {seq} as it is now"
        if record.hash != hash_of(record.act, record.seq, prev):
            return f"row {record.seq} was changed"
        seq, prev = record.seq, record.hash
    return ""
