"""The store: `commit` is the only write, `snapshot` the view that all decisions read."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

import sqlalchemy as sa

from argosy.model.ids import Clock, Ids
from argosy.model.rows import Event
from argosy.store import accounts, growth, outbox, schema
from argosy.store import backups as daily
from argosy.store.ballast import BALLAST_FILE, Ballast
from argosy.store.commits import TAKE_NUMBERS, Numbered, Request, Writer
from argosy.store.database import Database
from argosy.store.errors import Conflict, IllegalMove, KeyUsed
from argosy.store.lane import Lane
from argosy.store.outbox import Letter
from argosy.store.reads import Reads
from argosy.store.secrets import Keyring, Vault
from argosy.store.servers import Servers, now_of
from argosy.store.snapshot import Snapshot
from argosy.store.state_dir import KEY_FILE, lock_state_dir

if TYPE_CHECKING:
    from argosy.model.audit import Act

__all__ = ["Conflict", "IllegalMove", "KeyUsed", "Numbered", "Snapshot", "Store", "lock_state_dir"]

R = TypeVar("R", bound=schema.Stored)
T = TypeVar("T")

PAGE_BYTES: Final = 4096  # of SQLite


class Store(Reads):
    """All rows. Make one with `Store.open`; every method may raise ArgosyError `store-busy`, `disk-full` or
    `store-corrupt`, and leaves the store usable."""

    def __init__(
        self, database: Database, *, ids: Ids, clock: Clock, inline: bool = False, keys: Keyring | None = None
    ) -> None:
        self.ids = ids
        self.clock = clock
        self._inline = inline
        self._database = database
        self.id = ""  # of the database: random, the same as long as it is there
        self._vault = Vault(keys)
        self.wrote: Callable[[Sequence[schema.Stored]], None] | None = None  # told of what was committed here
        self._ballast = Ballast(database.path.with_name(BALLAST_FILE) if database.path is not None else None)
        self._writer = Writer(database, self._vault, self._ballast, clock)
        self._lane = Lane(self._writer.perform, inline=inline, name="argosy-store")
        self.servers = Servers(database, self._vault, clock, self._write_alone)

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        ids: Ids,
        clock: Clock,
        inline: bool = False,
        backups: Path | None = None,
        keys: Path | Keyring | None = None,
    ) -> Store:
        """`url`: `sqlite:///absolute/path.db`, `sqlite://` (in memory) or `postgresql://…`.

        `inline`: every call runs in the caller, as simulations under virtual time need it; else in one thread
        of the store's own. `backups`: folder of the daily backups, else `backups/` beside it. `keys`: the
        keys that seal secrets or their file, else `secrets.key` beside the database.

        A SQLite file belongs to one server (see `lock_state_dir`): snapshots do not see what another process
        writes to it until the next commit.

        Raises ArgosyError `store-corrupt`, `store-newer`, `store-busy`, `disk-full`."""
        database = Database(url, backups=backups)
        if keys is None and database.path is not None:
            keys = database.path.with_name(KEY_FILE)
        ring = (
            keys if isinstance(keys, Keyring) else Keyring(keys) if keys or not database.is_shared else None
        )
        store = cls(database, ids=ids, clock=clock, inline=inline, keys=ring)
        try:
            await store._lane.call(store._open)
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Finish what was begun; SQLite tidies its files."""
        if not self._lane.is_closed:
            await self._lane.call(self._database.close)
            await self._lane.close()

    @property
    def place(self) -> str:
        """Where the data is, without a password."""
        return self._database.describe()

    # -- writing ------------------------------------------------------------------------------------

    async def commit(
        self,
        puts: Sequence[R] = (),
        *,
        expect: Mapping[str, int] | None = None,
        events: Sequence[Event] = (),
        secrets: Mapping[str, Mapping[str, str]] | None = None,
        key: tuple[str, bytes] | None = None,
        numbered: Numbered | None = None,
        acts: Sequence[Act] = (),
    ) -> tuple[R, ...]:
        """All of it or nothing; returns the rows as written, in the order of `puts`.

        `puts`: rows, or the tenancy, with the `rev` that was read (0: new). `expect`: ids with the `rev` that
        must hold (0: absent), for `CLAIMS_TAKEN` the `taken` of the snapshot: no claim has begun to hold
        anything since; for `WORKLOADS_BEGUN` its `begun`: no workload has begun to live; and for
        `servers.fence_of(name)` the number of a term that still lasts.
        `secrets`: values by workload id, gone in the commit that finishes the workload. `key`: idempotency
        key and what to answer when it comes again. `numbered`: rows that are made when their numbers are
        known; they take the place of `puts`, and what they answer that of the key's answer. `acts`: for
        the audit log, beside what is written there of rows that change in a request.

        Raises `Conflict` when a row is not at its `rev`, an id or the name of a live cluster is taken, or a
        workload would have two live attempts; `IllegalMove`; `KeyUsed`. When the caller is cancelled, it may
        have happened."""
        request = Request(tuple(puts), expect or {}, tuple(events), secrets or {}, key, numbered, acts)
        if request.is_empty and not request.expect:
            return ()
        rows = await self._lane.join(request)
        if self.wrote is not None and rows:
            self.wrote(rows)
        return cast("tuple[R, ...]", rows)

    async def take_numbers(self, scope: str, count: int) -> int:
        """The first of `count` fresh numbers (1, 2, …) of this scope: never given twice."""
        return await self._lane.call(
            lambda: self._database.run(lambda c: self._take_numbers(c, scope, count), write=True)
        )

    def _take_numbers(self, connection: sa.Connection, scope: str, count: int) -> int:
        last = connection.execute(TAKE_NUMBERS, {"scope": scope, "count": count}).scalar_one()
        return int(last) - count + 1

    async def lease(self, name: str, holder: str, ttl_ms: int) -> bool:
        """Whether `holder` has the lease `name` for the next `ttl_ms`: it was free, over, or its own. A
        `ttl_ms` of 0 gives it back. Saves work only: correctness comes from revisions."""
        return await self._lane.call(
            lambda: self._database.run(lambda c: self._lease(c, name, holder, ttl_ms), write=True)
        )

    def _lease(self, connection: sa.Connection, name: str, holder: str, ttl_ms: int) -> bool:
        now_ms = now_of(connection, self._database, self.clock)
        values = {"name": name, "holder": holder, "until_ms": now_ms + ttl_ms, "now_ms": now_ms}
        return connection.execute(_LEASE, values).rowcount == 1

    # -- what people are told -----------------------------------------------------------------------

    async def load_letters(self, now_ms: int, limit: int = 100) -> list[Letter]:
        """What somebody is to be told now, oldest first."""
        return await self._read(lambda c: outbox.load_due(c, now_ms, limit))

    async def next_letter_ms(self) -> int | None:
        """When the next one is due; None: nobody is to be told anything."""
        return await self._read(outbox.next_due_ms)

    async def keep_letter(self, letter: Letter) -> None:
        """Write how far it is."""
        await self._write_alone(lambda c: outbox.keep(c, letter))

    async def drop_letter(self, seq: int, *, forget: str = "") -> None:
        """It has reached everybody, or is given up. `forget`: with it, what is sealed under this id."""

        def work(connection: sa.Connection) -> None:
            outbox.drop(connection, seq)
            if forget:
                self._vault.forget(connection, [forget])

        await self._write_alone(work)

    # -- accounts -----------------------------------------------------------------------------------

    async def put_token(self, token: accounts.Token, *, replace: bool = True) -> None:
        """One of the same name is replaced, or (without `replace`) stays."""
        await self._write_alone(lambda c: accounts.put_token(c, token, replace=replace))

    async def remove_token(self, name: str) -> bool:
        """Whether there was one of that name."""
        return await self._write_alone(lambda c: accounts.remove_token(c, name))

    async def rotate_key(self) -> tuple[str, int]:
        """Seal secrets with a new key from now on, and those that are there: its name, and how many."""
        return await self._write_alone(self._vault.rotate)

    async def note_use(self, at_ms: int, ids: Sequence[str]) -> None:
        """Write down when credentials were used last."""
        rows = [{"id": id, "at_ms": at_ms} for id in ids]
        await self._write_alone(lambda c: c.execute(_USED, rows))

    async def forget_acts(self, before_ms: int) -> int:
        """Remove the beginning of the audit log that is older; how many rows."""

        from argosy.store import audit

        def work(connection: sa.Connection) -> int:
            connection.execute(sa.update(schema.head).values(seq=schema.head.c.seq))  # the writers' lock
            return audit.forget(connection, before_ms)

        return await self._write_alone(work)

    # -- care ---------------------------------------------------------------------------------------

    async def backup(self, target: Path) -> None:
        """Copy the database to `target` while it is used. PostgreSQL: `unsupported`."""
        if self._inline or self._database.path is None:
            await self._lane.call(lambda: self._database.backup(target))
        else:  # neither the event loop nor the store's thread waits for it
            await asyncio.to_thread(self._database.backup, target)

    async def backup_if_due(self) -> Path | None:
        """Make this day's backup if it is not there; the last seven are kept. Call it now and then."""
        folder = self._database.backups
        if folder is None:
            return None
        target = daily.daily_backup(folder, self.clock.now_ms())
        if target.exists():
            return None
        await self.backup(target)
        daily.forget_old_backups(folder)
        return target

    async def find_cut(self, *, before_ms: int, spare_ms: int, jobs: int, events: int) -> growth.Cut:
        """What may be forgotten, by age and by number: see `growth.find_cut`."""
        keep = {"before_ms": before_ms, "spare_ms": spare_ms, "jobs": jobs, "events": events}
        now_ms = self.clock.now_ms()
        return await self._read(lambda c: growth.find_cut(c, now_ms=now_ms, **keep))

    async def count_old(self, cut: growth.Cut) -> growth.Old:
        """How much `prune_to` would take."""
        return await self._read(lambda c: growth.count_old(c, cut))

    async def prune(self, *, before_ms: int) -> int:
        """Forget what ended before `before_ms`: workloads with all that belonged to them, events, keys.
        Returns how many rows went."""
        return await self.prune_to(growth.Cut(before_ms))

    async def prune_to(self, cut: growth.Cut) -> int:
        """Forget what is before the cut, in parts between which others commit. Returns how many rows went."""
        gone = 0
        while some := await self._write_alone(lambda c: growth.prune(c, cut)):
            gone += some
        return gone

    async def shrink(self) -> int:
        """Give what is free in the file back to the disk: bytes. Nothing for PostgreSQL, which does that."""
        if self._database.path is None:
            return 0
        pages = 0
        while some := await self._read(growth.shrink):
            pages += some
        return pages * PAGE_BYTES

    # -- inside the lane ----------------------------------------------------------------------------

    def _open(self) -> None:
        self._database.open(now_ms=self.clock.now_ms())
        found = self._database.run(lambda c: c.execute(_IDENTITY).scalar())
        if found is None:  # this database is new; another server may be about to name it, too
            made = {"id": self.ids.new("sto")}
            self._database.run(lambda c: c.execute(_NAME_IT, made), write=True)
            found = self._database.run(lambda c: c.execute(_IDENTITY).scalar_one())
        self.id = str(found)
        self._ballast.keep()
        self._seal_clear()
        self._database.run(self._writer.refresh)

    def _seal_clear(self) -> None:
        """Seal secrets that an older version kept in clear, in its copies too; nothing of them stays in free
        pages. Done again when it was broken off."""
        database = self._database
        found = database.run(lambda c: c.execute(_IN_CLEAR).scalar_one())
        if not found:
            return
        if database.path is not None and database.backups is not None:
            for path in sorted(database.backups.glob("argosy-*.db")):
                with contextlib.suppress(sqlite3.DatabaseError):  # no copy of a database of ours
                    database.run(lambda c, path=path: self._vault.seal_copy(c, path), write=True)  # type: ignore[misc]
        database.run(self._vault.seal_clear, write=True)
        database.tidy()

    async def _write_alone(self, work: Callable[[sa.Connection], T]) -> T:
        return await self._lane.call(lambda: self._database.run(work, write=True))


# -- statements: built once, compiled once ----------------------------------------------------------

_IN_CLEAR: Final = (
    sa.select(sa.func.count()).select_from(schema.secret).where(schema.secret.c.body.startswith("{"))
)
_IDENTITY: Final = sa.select(schema.identity.c.value).where(schema.identity.c.name == "store")
_NAME_IT: Final = sa.text(
    "INSERT INTO identity (name, value) VALUES ('store', :id) ON CONFLICT (name) DO NOTHING"
)
_LEASE: Final = sa.text(
    "INSERT INTO lease (name, holder, until_ms) VALUES (:name, :holder, :until_ms)"
    " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms"
    " WHERE lease.holder = excluded.holder OR lease.until_ms <= :now_ms"
)
_USED: Final = sa.text(
    "INSERT INTO last_use (id, at_ms) VALUES (:id, :at_ms)"
    " ON CONFLICT (id) DO UPDATE SET at_ms = excluded.at_ms"
)
