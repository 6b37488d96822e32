"""The audit log in the caller's transaction: rows that follow each other, never changed, forgotten by age.

The database itself refuses changes (triggers in `schema`). What retention forgets is the beginning of the log
up to a row whose hash is kept, so that the rest still proves itself.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from argosy.model.audit import FIRST, Act, Record, chained
from argosy.model.entry import Entry
from argosy.store import schema

_PAGE: Final = 2000
_TEXT_MAX: Final = 200  # of one value
_CHANGES_MAX: Final = 16_384
#: Never shown: secrets, what is long, and what changes with every write.
_HIDDEN: Final = frozenset(
    ("rev", "sha256", "password", "second_factor", "second_factor_step", "detail", "told", "seen_ms")
)


def append(connection: sa.Connection, acts: Sequence[Act]) -> None:
    """Write acts behind the last row. The caller holds the lock that all writers share."""
    last = connection.execute(_LAST).first()
    if last is None:
        last = connection.execute(_KEPT).first()
    seq, prev = (int(last.seq), str(last.hash)) if last is not None else (0, FIRST)
    rows = []
    for act in acts:
        record = chained(_plain(act), seq + 1, prev)
        seq, prev = record.seq, record.hash
        rows.append({"seq": seq, "prev": record.prev, "hash": prev, **msgspec.structs.asdict(record.act)})
    connection.execute(schema.audit.insert(), rows)


def changes_of(pairs: Sequence[tuple[Any, Any]]) -> tuple[str, str]:
    """(targets, changes as JSON) of rows before and after. A row's plain fields stand in it, of all others
    only that they changed."""
    targets: list[str] = []
    found: dict[str, dict[str, list[Any]]] = {}
    for old, new in pairs:
        name = _name(new)
        targets.append(name)
        before, after = _facts(old), _facts(new)
        fields = {
            key: [before.get(key), after.get(key)]
            for key in {**before, **after}
            if before.get(key) != after.get(key)
        }
        if fields:
            found[name] = fields
    text = msgspec.json.encode(found).decode() if found else ""
    if len(text) > _CHANGES_MAX:
        text = msgspec.json.encode({name: sorted(some) for name, some in found.items()}).decode()
    return ", ".join(targets)[:2000], text[:_CHANGES_MAX]


def load(
    connection: sa.Connection,
    *,
    after: int = 0,
    before: int | None = None,
    limit: int,
    equal: Mapping[str, str] = MappingProxyType({}),
) -> list[Record]:
    """Rows after `after` in order, or (with `before`) the newest ones before it; `equal`: columns with their
    values."""
    table = schema.audit
    query = sa.select(*_COLUMNS).where(
        table.c.seq > after, *(table.c[name] == v for name, v in equal.items())
    )
    if before is not None:
        query = query.where(table.c.seq < before)
    newest = before is not None
    query = query.order_by(table.c.seq.desc() if newest else table.c.seq).limit(limit)
    found = [_record(row) for row in connection.execute(query).fetchall()]
    return found[::-1] if newest else found


def beginning(connection: sa.Connection) -> tuple[int, str]:
    """The row that the oldest one follows, and its hash."""
    kept = connection.execute(_KEPT).first()
    return (int(kept.seq), str(kept.hash)) if kept is not None else (0, FIRST)


def end(connection: sa.Connection) -> tuple[int, str]:
    """The newest row, and its hash."""
    last = connection.execute(_LAST).first()
    return (int(last.seq), str(last.hash)) if last is not None else beginning(connection)


def every(connection: sa.Connection) -> Iterator[Record]:
    """All rows in order, read in pages."""
    after = 0
    while page := load(connection, after=after, limit=_PAGE):
        yield from page
        after = page[-1].seq


def forget(connection: sa.Connection, before_ms: int) -> int:
    """Remove the rows at the beginning that are older; how many. The rest proves itself from there on."""
    table = schema.audit
    young = connection.execute(sa.select(sa.func.min(table.c.seq)).where(table.c.at_ms >= before_ms)).scalar()
    query = sa.select(table.c.seq, table.c.hash).order_by(table.c.seq.desc()).limit(1)
    if young is not None:
        query = query.where(table.c.seq < young)
    last = connection.execute(query).first()
    if last is None:
        return 0
    connection.execute(sa.delete(schema.audit_kept))
    connection.execute(schema.audit_kept.insert(), {"id": 1, "seq": last.seq, "hash": last.hash})
    return connection.execute(sa.delete(table).where(table.c.seq <= last.seq)).rowcount


def _record(row: Sequence[Any]) -> Record:
    """Of `_COLUMNS`."""
    seq, prev, hash, *fields = row
    return Record(seq=seq, act=Act(**dict(zip(_FIELDS, fields, strict=True))), prev=prev, hash=hash)


def _plain(act: Act) -> Act:
    """What both databases give back as it was written."""
    texts = {
        name: value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
        for name, value in msgspec.structs.asdict(act).items()
        if isinstance(value, str)
    }
    return msgspec.structs.replace(act, **texts)


def _name(row: Any) -> str:
    """As people find it: its id, and its name where it has one."""
    name = getattr(row, "name", "")
    return f"{row.id} ({name})" if name else str(row.id)


def _facts(row: Any) -> dict[str, Any]:
    if row is None:
        return {}
    found: dict[str, Any] = {}
    for name in row.__struct_fields__:
        value = getattr(row, name)
        if name in _HIDDEN:
            continue
        if isinstance(value, Enum):
            value = value.value
        if value is None or isinstance(value, bool | int):
            found[name] = value
        elif isinstance(value, str):
            found[name] = value[:_TEXT_MAX]
        elif isinstance(row, Entry) and isinstance(value, tuple):
            found[name] = list(value)
        else:
            found[name] = f"#{zlib.crc32(msgspec.json.encode(value)):08x}"
    return found


_FIELDS: Final = Act.__struct_fields__
_COLUMNS: Final = tuple(schema.audit.c[name] for name in ("seq", "prev", "hash", *_FIELDS))
_LAST: Final = sa.select(schema.audit.c.seq, schema.audit.c.hash).order_by(schema.audit.c.seq.desc()).limit(1)
_KEPT: Final = sa.select(schema.audit_kept.c.seq, schema.audit_kept.c.hash)
