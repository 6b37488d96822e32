"""Servers that share this database: which exist, which one decides, and on whose machine claims are.

A **term** is a lease with a number that grows with every new holder. Whoever holds it may name it in `expect`
of a commit (`fence_of`): the database then refuses the commit when the term is over, also of a server that
slept and does not know that. All times are the database's own: clocks of servers differ.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec
import sqlalchemy as sa

from argosy.model.ids import Clock
from argosy.store import schema
from argosy.store.database import Database
from argosy.store.secrets import Vault

T = TypeVar("T")
_FENCE: Final = "term:"
FILES: Final = "files"  # the term, without an end, of the server that keeps the servers' own files


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A server, as it tells of itself. `address`: HOST:PORT, or a path for servers with the same `boot`."""

    id: str
    name: str = ""  # as people call it: the host's
    address: str = ""
    boot: str = ""  # of its machine
    version: str = ""
    schema: str = ""  # the newest that it knows


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """`silent_ms`: since it said that it is there; below 0: it has ended in good order."""

    peer: Peer
    silent_ms: int


def fence_of(name: str) -> str:
    """The key of a term in `expect` of a commit."""
    return _FENCE + name


class Servers:
    """Made by the store. Every method may raise what the store's do."""

    def __init__(
        self, database: Database, vault: Vault, clock: Clock, run: Callable[..., Awaitable[Any]]
    ) -> None:
        """`run`: performs work on a connection in the store's thread, as one transaction (Any: what the work
        returns)."""
        self._database, self._vault, self._clock = database, vault, clock
        self._run = run

    @property
    def is_alone(self) -> bool:
        """No other server can share this database."""
        return not self._database.is_shared

    async def tell(self, peer: Peer) -> None:
        """It is there."""
        await self._do(lambda c: _tell(c, peer, now_of(c, self._database, self._clock)))

    async def leave(self, id: str) -> None:
        """It ends in good order: nobody waits for it."""
        await self._do(lambda c: c.execute(sa.update(_SERVER).where(_SERVER.c.id == id).values(seen_ms=0)))

    async def forget(self, id: str) -> None:
        """It does not come back, nor what runs on its machine."""

        def work(connection: sa.Connection) -> None:
            connection.execute(sa.delete(_SERVER).where(_SERVER.c.id == id))
            connection.execute(sa.delete(_PLACED).where(_PLACED.c.server == id))
            files = (schema.term.c.name == FILES) & (schema.term.c.holder == id)
            connection.execute(sa.delete(schema.term).where(files))

        await self._do(work)

    async def all(self) -> list[Seen]:
        """By name."""
        return await self._do(lambda c: _all(c, now_of(c, self._database, self._clock)))

    async def beat(self, peer: Peer, name: str, ttl_ms: int, silent_ms: int) -> tuple[int, list[Seen]]:
        """`tell`, `take` and `all` at once: what a server does all the time. The term is left to the server
        that keeps the files, unless that one has said nothing for `silent_ms`."""

        def work(connection: sa.Connection) -> tuple[int, list[Seen]]:
            now_ms = now_of(connection, self._database, self._clock)
            _tell(connection, peer, now_ms)
            known = _all(connection, now_ms)
            keeper = connection.execute(_KEEPER).scalar()
            if keeper != peer.id and any(
                each.peer.id == keeper and 0 <= each.silent_ms < silent_ms for each in known
            ):
                connection.execute(_GIVE_BACK, {"name_": name, "holder_": peer.id, "now_ms": now_ms})
                return 0, known
            return _take(connection, name, peer.id, now_ms, ttl_ms), known

        return await self._do(work)

    async def secret(self, name: str, value: str) -> str:
        """The secret of this name that all servers share: `value`, when there was none. It is sealed. Raises
        `forbidden` without the key that seals."""

        def work(connection: sa.Connection) -> str:
            connection.execute(sa.update(schema.head).values(seq=schema.head.c.seq))  # the writers' lock
            owner = f"servers/{name}"
            found = self._vault.load(connection, owner)
            if not found:
                found = {"value": value}
                self._vault.keep(connection, {owner: found})
            return found["value"]

        return await self._do(work)

    # -- who decides --------------------------------------------------------------------------------

    async def take(self, name: str, holder: str, ttl_ms: int) -> int:
        """The number of the term that `holder` has for the next `ttl_ms`; 0: another has it. A `ttl_ms` of 0
        gives it back."""

        def work(connection: sa.Connection) -> int:
            now_ms = now_of(connection, self._database, self._clock)
            return _take(connection, name, holder, now_ms, ttl_ms)

        return await self._do(work)

    async def holder(self, name: str) -> str:
        """Who has the term now; "": nobody."""

        def work(connection: sa.Connection) -> str:
            term = schema.term
            now_ms = now_of(connection, self._database, self._clock)
            found = sa.select(term.c.holder).where(term.c.name == name, term.c.until_ms > now_ms)
            return str(connection.execute(found).scalar() or "")

        return await self._do(work)

    # -- claims on servers' own machines ------------------------------------------------------------

    async def place(self, claim_id: str, server: str) -> str:
        """Which server's machine the claim is on: `server`, if it was on none."""

        def work(connection: sa.Connection) -> str:
            connection.execute(_PLACE, {"claim_id": claim_id, "server": server})
            found = sa.select(_PLACED.c.server).where(_PLACED.c.claim_id == claim_id)
            return str(connection.execute(found).scalar_one())

        return await self._do(work)

    async def placed(self) -> Mapping[str, str]:
        """Servers by claim."""
        return await self._do(lambda c: {row.claim_id: row.server for row in c.execute(sa.select(_PLACED))})

    async def unplace(self, claim_id: str) -> None:
        """It is gone."""
        await self._do(lambda c: c.execute(sa.delete(_PLACED).where(_PLACED.c.claim_id == claim_id)))

    async def _do(self, work: Callable[[sa.Connection], T]) -> T:
        done: T = await self._run(work)
        return done


def term_now(connection: sa.Connection, database: Database, clock: Clock, key: str) -> int | None:
    """The number of the term that a key of `expect` means, 0 when it is over; None: the key means none."""
    if not key.startswith(_FENCE):
        return None
    found = connection.execute(_TERM, {"name_": key.removeprefix(_FENCE)}).one_or_none()
    if found is None or found.until_ms <= now_of(connection, database, clock):
        return 0
    return int(found.number)


def now_of(connection: sa.Connection, database: Database, clock: Clock) -> int:
    """The time that all servers share, in ms."""
    if database.is_postgres:
        return int(connection.exec_driver_sql(_POSTGRES_NOW).scalar_one())
    return clock.now_ms()


def _tell(connection: sa.Connection, peer: Peer, now_ms: int) -> None:
    body = msgspec.json.encode(peer).decode()
    connection.execute(_TELL, {"id": peer.id, "seen_ms": now_ms, "body": body})


def _take(connection: sa.Connection, name: str, holder: str, now_ms: int, ttl_ms: int) -> int:
    values = {"name": name, "holder": holder, "until_ms": now_ms + ttl_ms, "now_ms": now_ms}
    return int(connection.execute(_TAKE, values).scalar() or 0)


def _all(connection: sa.Connection, now_ms: int) -> list[Seen]:
    found = [
        Seen(
            peer=msgspec.json.decode(row.body, type=Peer),
            silent_ms=max(0, now_ms - row.seen_ms) if row.seen_ms else -1,
        )
        for row in connection.execute(sa.select(_SERVER))
    ]
    return sorted(found, key=lambda each: (each.peer.name, each.peer.id))


_SERVER: Final = schema.server
_PLACED: Final = schema.placed
_TERM: Final = sa.select(schema.term.c.number, schema.term.c.until_ms).where(
    schema.term.c.name == sa.bindparam("name_")
)
_TELL: Final = sa.text(
    "INSERT INTO server (id, seen_ms, body) VALUES (:id, :seen_ms, :body)"
    " ON CONFLICT (id) DO UPDATE SET seen_ms = excluded.seen_ms, body = excluded.body"
)
_PLACE: Final = sa.text(
    "INSERT INTO placed (claim_id, server) VALUES (:claim_id, :server) ON CONFLICT (claim_id) DO NOTHING"
)
#: Who takes it anew, also after a pause of its own, gets another number: what it said before does not count.
_TAKE: Final = sa.text(
    "INSERT INTO term (name, holder, number, until_ms) VALUES (:name, :holder, 1, :until_ms)"
    " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms,"
    " number = term.number + CASE WHEN term.holder = excluded.holder AND term.until_ms > :now_ms"
    " THEN 0 ELSE 1 END"
    " WHERE term.holder = excluded.holder OR term.until_ms <= :now_ms RETURNING number"
)
_KEEPER: Final = sa.select(schema.term.c.holder).where(schema.term.c.name == FILES)
_GIVE_BACK: Final = sa.text(
    "UPDATE term SET until_ms = :now_ms WHERE name = :name_ AND holder = :holder_ AND until_ms > :now_ms"
)
_POSTGRES_NOW: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
