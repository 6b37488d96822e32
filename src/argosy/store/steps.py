"""Which versions of the schema may work on one database at the same time: this one and the one before.

A migration only adds (tables, columns with a default, indexes), so that servers of the version before go on
beside it, and may start again, until the last of them is replaced. The database says which version is the
oldest that may; whoever is older, or would leave running servers two steps behind, is refused.
"""

from __future__ import annotations

from typing import Final

import msgspec
import sqlalchemy as sa

from argosy.model.errors import ArgosyError
from argosy.store import schema

_LEAST_NAME: Final = "least-schema"
_SILENT_MS: Final = 30_000  # who says nothing for so long does not run


class _Server(msgspec.Struct, frozen=True):
    """What is needed of a server's row."""

    name: str = ""
    version: str = ""
    schema: str = ""


def note_least(connection: sa.Connection, head: str) -> None:
    """Write down who may work beside this schema. Of one that is to come nothing is known."""
    least = schema.LEAST if head == schema.HEAD else head
    connection.execute(_NOTE, {"name": _LEAST_NAME, "value": least})


def check(connection: sa.Connection, found: str, known: str, place: str) -> None:
    """Whether a server that knows the schema up to `known` may open a database of schema `found`. Raises
    `store-newer`."""
    if found.isdigit() and found <= known:
        return
    least = known + "+"
    if found.isdigit() and sa.inspect(connection).has_table(schema.identity.name):
        query = sa.select(schema.identity.c.value).where(schema.identity.c.name == _LEAST_NAME)
        least = str(connection.execute(query).scalar() or least)
    if least > known:
        raise ArgosyError(
            "store-newer", f"{place} was written by a newer Argosy (schema {found}, this one knows {known})"
        )


def check_running(connection: sa.Connection, head: str, *, shared: bool) -> None:
    """Whether the schema may go to `head` while servers run. Raises `wrong-state` when one would be left two
    steps behind."""
    if not shared or not sa.inspect(connection).has_table(schema.server.name):
        return
    now_ms = int(connection.exec_driver_sql(_NOW).scalar_one())
    for row in connection.execute(sa.select(schema.server)):
        told = msgspec.json.decode(row.body, type=_Server)
        if row.seen_ms and now_ms - row.seen_ms < _SILENT_MS and told.schema < schema.LEAST:
            raise ArgosyError(
                "wrong-state",
                f"the server `{told.name}` (Argosy {told.version}) still runs with schema {told.schema}, "
                f"more than one step before {head}: it could not go on beside this version",
                hint="go through the version in between, or stop all servers before this one starts",
            )


_NOTE: Final = sa.text(
    "INSERT INTO identity (name, value) VALUES (:name, :value)"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
_NOW: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
