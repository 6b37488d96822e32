"""The outbox of notifications: rows that are written with the event itself and deleted when it has been
delivered."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from argosy.model.rows import Event
from argosy.store import schema


class Letter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event that somebody is to be told of."""

    seq: int  # of the event
    subject: str
    code: str
    text: str
    at_ms: int
    done: tuple[str, ...] = ()  # whom it has reached, by the names of their addresses
    tries: int = 0
    due_ms: int = 0  # not before this time again


def columns_of(letter: Letter) -> schema.Columns:
    return {"seq": letter.seq, "due_ms": letter.due_ms, "body": msgspec.json.encode(letter).decode()}


def letters_of(events: Sequence[tuple[int, Event]]) -> list[schema.Columns]:
    """Rows for those of some events, with their numbers, that are to be told."""
    return [
        columns_of(Letter(seq=seq, subject=one.subject, code=one.code, text=one.text, at_ms=one.at_ms))
        for seq, one in events
        if one.tell
    ]


def load_due(connection: sa.Connection, now_ms: int, limit: int) -> list[Letter]:
    table = schema.outbox
    query = sa.select(table.c.body).where(table.c.due_ms <= now_ms).order_by(table.c.seq).limit(limit)
    return [msgspec.json.decode(body, type=Letter) for body in connection.execute(query).scalars()]


def next_due_ms(connection: sa.Connection) -> int | None:
    found = connection.execute(sa.select(sa.func.min(schema.outbox.c.due_ms))).scalar()
    return None if found is None else int(found)


def keep(connection: sa.Connection, letter: Letter) -> None:
    """Write how far it is."""
    table = schema.outbox
    values = columns_of(letter)
    connection.execute(sa.update(table).where(table.c.seq == letter.seq).values(**values))


def drop(connection: sa.Connection, seq: int) -> None:
    connection.execute(sa.delete(schema.outbox).where(schema.outbox.c.seq == seq))
