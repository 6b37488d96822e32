"""Tokens and spending: questions and changes in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa

from argosy.model.rows import Claim
from argosy.store import schema


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token that exists; never the token itself."""

    name: str
    sha256: str
    scope: str
    created_ms: int


class Spending(NamedTuple):
    """What claims cost since a time. `settled`: micro-USD by project, of claims that began and ended since.
    `open`: every other claim that was there since, with its project: their price is still to be divided."""

    settled: dict[str, int]
    open: Sequence[tuple[str, Claim]]


def put_token(connection: sa.Connection, token: Token, *, replace: bool = True) -> None:
    """One of the same name is replaced, or (without `replace`) stays."""
    connection.execute(_REPLACE if replace else _ADD, msgspec.structs.asdict(token))


def remove_token(connection: sa.Connection, name: str) -> bool:
    """Whether there was one of that name."""
    return connection.execute(sa.delete(schema.token).where(schema.token.c.name == name)).rowcount > 0


def load_tokens(connection: sa.Connection) -> list[Token]:
    """By name."""
    query = sa.select(schema.token).order_by(schema.token.c.name)
    return [Token(**row) for row in connection.execute(query).mappings()]


def load_spending(connection: sa.Connection, since_ms: int) -> Spending:
    """One pass over the claims of the time, summed by the database: it does not matter how many there are."""
    began_ms = schema.claim.c.ended_ms - schema.claim.c.spent_ms
    owned = schema.claim.join(schema.workload, schema.workload.c.id == schema.claim.c.workload_id)
    over = sa.and_(sa.text("claim.live = 0"), schema.claim.c.ended_ms >= since_ms)
    total = sa.cast(sa.func.sum(schema.claim.c.cost_micro_usd), sa.BigInteger)
    query = (
        sa.select(schema.workload.c.project, total)
        .select_from(owned)
        .where(over, began_ms >= since_ms, schema.claim.c.cost_micro_usd > 0)
        .group_by(schema.workload.c.project)
    )
    settled = {project: int(cost) for project, cost in connection.execute(query)}
    rest: list[tuple[str, Claim]] = []
    wanted: tuple[sa.ColumnElement[bool], ...] = (
        sa.text("claim.live = 1"),  # type: ignore[assignment]
        sa.and_(over, began_ms < since_ms, schema.claim.c.cost_micro_usd > 0),
    )
    for where in wanted:
        found = sa.select(schema.workload.c.project, schema.claim.c.body).select_from(owned).where(where)
        rest += [(project, schema.parse_row(Claim, body)) for project, body in connection.execute(found)]
    return Spending(settled, rest)


_PUT: Final = (
    "INSERT INTO token (name, sha256, scope, created_ms) VALUES (:name, :sha256, :scope, :created_ms)"
)
_ADD: Final[Any] = sa.text(_PUT + " ON CONFLICT (name) DO NOTHING")
_REPLACE: Final[Any] = sa.text(
    _PUT + " ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256, scope = excluded.scope,"
    " created_ms = excluded.created_ms"
)
