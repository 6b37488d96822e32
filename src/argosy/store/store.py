"""The store: `commit` is the only write, `snapshot` the view that everything decides on."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from argosy.model.budget import Budget, budget_id
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock, Ids
from argosy.model.kinds import kind_of, running_kinds
from argosy.model.kinds.cluster import CLUSTER
from argosy.model.phases import may_move
from argosy.model.rows import CLAIMS_TAKEN, Attempt, Claim, Event, Node, Row, Workload
from argosy.store import accounts, growth, schema
from argosy.store import backups as daily
from argosy.store.ballast import BALLAST_FILE, Ballast, ends_something
from argosy.store.database import Database
from argosy.store.errors import Conflict, IllegalMove, KeyUsed
from argosy.store.lane import Lane
from argosy.store.secrets import Keyring, Vault
from argosy.store.snapshot import Snapshot
from argosy.store.state_dir import KEY_FILE, lock_state_dir

__all__ = ["Conflict", "IllegalMove", "KeyUsed", "Snapshot", "Store", "lock_state_dir"]

R = TypeVar("R", bound=schema.Stored)
T = TypeVar("T")

ANSWER_S: Final = 2.0  # how long who only looks waits for a database elsewhere
PAGE_BYTES: Final = 4096  # of SQLite
_OWNERS: Final = ("kind", "host_id", "parent_id", "workload_id", "claim_id")


class _Commit:
    """One call of `commit`, on its way to the database."""

    __slots__ = ("columns", "events", "expect", "key", "puts", "rows", "secrets")

    def __init__(
        self,
        puts: tuple[schema.Stored, ...],
        expect: Mapping[str, int],
        events: Sequence[Event],
        secrets: Mapping[str, Mapping[str, str]],
        key: tuple[str, bytes] | None,
    ) -> None:
        self.puts = puts
        self.expect = expect
        self.events = events
        self.secrets = secrets
        self.key = key
        self.rows: tuple[schema.Stored, ...] = ()  # as they will be
        self.columns: Sequence[schema.Columns] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.puts or self.events or self.secrets or self.key)

    def prepare(self, now_ms: int) -> None:
        """Everything that can fail before the database is asked. Raises ValueError, TypeError,
        OverflowError."""
        if self.columns:
            return
        if len({row.id for row in self.puts}) < len(self.puts):
            raise ValueError("a row stands twice in one commit")
        self.rows = tuple(msgspec.structs.replace(row, rev=row.rev + 1) for row in self.puts)
        self.columns = [schema.columns_of(row, now_ms=now_ms) for row in self.rows]


class _NothingWritten(Exception):
    """Every commit of a batch was refused: roll back."""


class _ChangedOutside(Exception):
    """Rows are not as every commit left them: somebody edited the database by hand."""


class Store:
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
        self._ballast = Ballast(database.path.with_name(BALLAST_FILE) if database.path is not None else None)
        self._snapshot = Snapshot.of(())
        self._read_ms = 0  # when the database last said that this is all
        self._lane: Lane[_Commit, tuple[schema.Stored, ...]] = Lane(
            self._perform, inline=inline, name="argosy-store"
        )

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        ids: Ids,
        clock: Clock,
        inline: bool = False,
        backups: Path | None = None,
        keys: Path | None = None,
    ) -> Store:
        """`url`: `sqlite:///absolute/path.db`, `sqlite://` (in memory) or `postgresql://…`.

        `inline`: every call runs in the caller, as simulations under virtual time need it; else in one thread
        of the store's own. `backups`: folder of the daily backups, else `backups/` beside it. `keys`: the
        file of keys that seal secrets, else `secrets.key` beside the file.

        A SQLite file belongs to one server (see `lock_state_dir`): snapshots do not see what another process
        writes to it until the next commit.

        Raises ArgosyError `store-corrupt`, `store-newer`, `store-busy`, `disk-full`."""
        database = Database(url, backups=backups)
        if keys is None and database.path is not None:
            keys = database.path.with_name(KEY_FILE)
        ring = None if keys is None and database.is_shared else Keyring(keys)
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
    def seq(self) -> int:
        """The last commit seen. When it is the same, nothing changed: a key for caches."""
        return self._snapshot.seq

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
    ) -> tuple[R, ...]:
        """All of it or nothing; returns the rows as written, in the order of `puts`.

        `puts`: rows, or the tenancy, with the `rev` that was read (0: new). `expect`: ids with the `rev` that
        must hold (0: absent), and for `CLAIMS_TAKEN` the `taken` of the snapshot: no claim has begun to hold
        anything since.
        `secrets`: values by workload id, gone in the commit that finishes the workload. `key`: idempotency
        key and what to answer when it comes again.

        Raises `Conflict` when a row is not at its `rev`, an id or the name of a live cluster is taken, or a
        workload would have two live attempts; `IllegalMove`; `KeyUsed`. When the caller is cancelled, it may
        have happened."""
        request = _Commit(tuple(puts), expect or {}, tuple(events), secrets or {}, key)
        if request.is_empty and not request.expect:
            return ()
        return cast("tuple[R, ...]", await self._lane.join(request))

    def _perform(self, requests: Sequence[_Commit]) -> Sequence[tuple[schema.Stored, ...] | Exception]:
        """All that wait; on a full disk only those that end something, with the room kept for them."""
        if self._ballast.is_spent and not self._ballast.keep():
            return self._perform_ends(requests)
        try:
            return self._perform_together(requests)
        except ArgosyError as error:
            ends = any(ends_something(one.puts) for one in requests)
            if error.code != "disk-full" or not ends or not self._ballast.release():
                raise
        return self._perform_ends(requests)

    def _perform_ends(self, requests: Sequence[_Commit]) -> Sequence[tuple[schema.Stored, ...] | Exception]:
        ending = [one for one in requests if ends_something(one.puts)]
        done = iter(self._perform_together(ending) if ending else ())
        full = ArgosyError(
            "disk-full", f"the disk of {self.place} is full: only what ends something is written"
        )
        return [next(done) if ends_something(one.puts) else full for one in requests]

    def _perform_together(
        self, requests: Sequence[_Commit]
    ) -> Sequence[tuple[schema.Stored, ...] | Exception]:
        """One transaction for all; one that is refused does not touch the others."""
        answers: list[tuple[schema.Stored, ...] | Exception] = []
        made: list[Snapshot] = []

        def work(connection: sa.Connection) -> None:
            answers.clear()
            made[:] = [self._write_all(connection, requests, answers)]

        try:
            self._database.run(work, write=True)
        except _NothingWritten:
            return answers
        except _ChangedOutside:
            self._snapshot = Snapshot.of(())
            self._database.run(self._refresh)
            return [Conflict([row.id for row in one.puts]) for one in requests]
        except (IntegrityError, OverflowError, ArgosyError) as error:
            if isinstance(error, ArgosyError) and error.code != "internal":
                raise
            if len(requests) > 1:  # it is the fault of one of them
                return [self._perform_alone(one) for one in requests]
            if isinstance(error, IntegrityError):
                return [self._database.run(lambda c: self._explain(c, requests[0]))]
            raise
        self._snapshot = made[0]
        return answers

    def _perform_alone(self, request: _Commit) -> tuple[schema.Stored, ...] | Exception:
        try:
            return self._perform_together([request])[0]
        except (OverflowError, ArgosyError) as error:
            return error

    def _write_all(
        self,
        connection: sa.Connection,
        requests: Sequence[_Commit],
        answers: list[tuple[schema.Stored, ...] | Exception],
    ) -> Snapshot:
        now_ms = self.clock.now_ms()
        events = sum(len(one.events) for one in requests)
        # This takes the lock that all writers share: from here on, memory is what is true.
        last = connection.execute(_TAKE_SEQ, {"commits": len(requests), "events": events}).one()
        seq, event_seq = last.seq - len(requests), last.event_seq - events
        if seq != self._snapshot.seq:
            self._read_changes(connection, seq, locked=True)
        snapshot = self._snapshot
        wrote = False
        for request in requests:
            seq += 1
            try:
                request.prepare(now_ms)
                self._check(connection, snapshot, request)
            except (Conflict, IllegalMove, KeyUsed, ValueError, TypeError, OverflowError) as error:
                answers.append(error)
                continue
            if not request.is_empty:
                self._write(connection, request, seq, event_seq, now_ms)
                wrote = True
            event_seq += len(request.events)
            snapshot = snapshot.changed(request.rows, seq=seq)
            answers.append(request.rows)
        if not wrote:
            raise _NothingWritten
        return snapshot.changed((), seq=last.seq)

    def _check(self, connection: sa.Connection, snapshot: Snapshot, request: _Commit) -> None:
        """Raises Conflict, IllegalMove, KeyUsed."""
        if request.key is not None:
            reply = connection.execute(_REPLY, {"key_": request.key[0]}).scalar()
            if reply is not None:
                raise KeyUsed(bytes(reply))
        stale = [id for id, rev in request.expect.items() if self._rev_of(connection, snapshot, id) != rev]
        moves: list[tuple[schema.Stored, schema.Stored]] = []
        for row in request.puts:
            old = snapshot.stored(row.id)
            if old is None and row.rev:  # finished, or never there
                old = _read_row(connection, type(row), row.id)
            if (old.rev if old is not None else 0) != row.rev:
                stale.append(row.id)
            elif old is not None:
                moves.append((old, row))
        if stale:
            raise Conflict(stale)
        for old, row in moves:
            if not (isinstance(old, Row) and isinstance(row, Row)):
                continue  # the tenancy and budgets have neither phases nor owners
            if not may_move(old.phase, row.phase):
                raise IllegalMove(row.id, f"{row.id} may not go from {old.phase.value} to {row.phase.value}")
            for name in _OWNERS:
                if getattr(old, name, None) != getattr(row, name, None):
                    raise IllegalMove(row.id, f"{row.id} may not change its {name}")
        self._check_unique(snapshot, request.puts)

    def _check_unique(self, snapshot: Snapshot, puts: Sequence[schema.Stored]) -> None:
        """With all of `puts` written: names of live rows are unique where their kind says so, and a workload
        has one live attempt."""
        written = {row.id for row in puts}
        taken: dict[tuple[str, ...], str] = {}
        for row in puts:
            holder: Row | None
            if not row.is_live:
                continue
            if isinstance(row, Workload) and kind_of(row).named:
                place: tuple[str, ...] = (row.kind, row.project, row.name)
                holder = snapshot.find_named(row.kind, row.name, row.project)
                what = f"there is a {row.kind} `{row.name}` already"
            elif isinstance(row, Attempt):
                place = ("", row.workload_id)
                holder = snapshot.attempt_of(row.workload_id)
                what = f"{row.workload_id} has a live attempt already"
            else:
                continue
            other = taken.setdefault(place, row.id)
            if other != row.id:
                raise Conflict((other,), what)
            if holder is not None and holder.id not in written:
                raise Conflict((holder.id,), what)

    def _write(
        self, connection: sa.Connection, request: _Commit, seq: int, event_seq: int, now_ms: int
    ) -> None:
        inserts: dict[sa.Table, list[schema.Columns]] = {}
        updates: dict[sa.Table, list[schema.Columns]] = {}
        over: list[str] = []
        for old, row, columns in zip(request.puts, request.rows, request.columns, strict=True):
            table = schema.TABLES[type(row)]
            if old.rev:
                known = {"id_": row.id, "rev_": old.rev, "seq": seq}
                updates.setdefault(table, []).append(columns | known)
            else:
                inserts.setdefault(table, []).append({**columns, "seq": seq})
            if isinstance(row, Workload) and not row.is_live:
                over.append(row.id)
        # Updates first: the name of a cluster that ends here may be taken by one that begins here.
        for table, some in updates.items():
            some.sort(key=lambda columns: -int(columns["live"] == 0))
            done = connection.execute(_UPDATES[table], some).rowcount
            if done not in (-1, len(some)):
                raise _ChangedOutside
        for table, some in inserts.items():
            connection.execute(_INSERTS[table], some)
        kept = {id: values for id, values in request.secrets.items() if id not in over}
        if kept:
            self._vault.keep(connection, kept)
        if over:
            self._vault.forget(connection, over)
        if request.events:
            connection.execute(
                _ADD_EVENTS,
                [
                    schema.columns_of_event(one, seq=event_seq + place)
                    for place, one in enumerate(request.events, 1)
                ],
            )
        if request.key is not None:
            connection.execute(_ADD_KEY, {"key": request.key[0], "reply": request.key[1], "at_ms": now_ms})

    def _explain(self, connection: sa.Connection, request: _Commit) -> Exception:
        """Why the database found something twice that memory did not know: a finished row, or a key."""
        keys = [row.id for row in request.puts if not row.rev and _read_row(connection, type(row), row.id)]
        return Conflict(keys or [row.id for row in request.puts])

    def _rev_of(self, connection: sa.Connection, snapshot: Snapshot, id: str) -> int:
        """0 when there is no such row."""
        if id == CLAIMS_TAKEN:
            return snapshot.taken
        row = snapshot.stored(id)
        if row is not None:
            return row.rev
        for table in schema.TABLES.values():
            rev = connection.execute(sa.select(table.c.rev).where(table.c.id == id)).scalar()
            if rev is not None:
                return int(rev)
        return 0

    async def take_numbers(self, scope: str, count: int) -> int:
        """The first of `count` fresh numbers (1, 2, …) of this scope: never given twice."""
        return await self._lane.call(
            lambda: self._database.run(lambda c: self._take_numbers(c, scope, count), write=True)
        )

    def _take_numbers(self, connection: sa.Connection, scope: str, count: int) -> int:
        last = connection.execute(_COUNT, {"scope": scope, "count": count}).scalar_one()
        return int(last) - count + 1

    async def lease(self, name: str, holder: str, ttl_ms: int) -> bool:
        """Whether `holder` has the lease `name` for the next `ttl_ms`: it was free, over, or its own. A
        `ttl_ms` of 0 gives it back. Saves work only: correctness comes from revisions."""
        return await self._lane.call(
            lambda: self._database.run(lambda c: self._lease(c, name, holder, ttl_ms), write=True)
        )

    def _lease(self, connection: sa.Connection, name: str, holder: str, ttl_ms: int) -> bool:
        now_ms = self.clock.now_ms()
        if self._database.is_postgres:  # servers' clocks differ: ask the one that they share
            now_ms = int(connection.exec_driver_sql(_POSTGRES_NOW).scalar_one())
        values = {"name": name, "holder": holder, "until_ms": now_ms + ttl_ms, "now_ms": now_ms}
        return connection.execute(_LEASE, values).rowcount == 1

    # -- reading ------------------------------------------------------------------------------------

    async def snapshot(self) -> Snapshot:
        """All live rows at one moment. Costs nothing when nothing changed, else what changed."""
        if not self._database.is_shared:
            return self._snapshot
        return await self._lane.call(lambda: self._database.run(self._refresh))

    async def last_known(self) -> tuple[Snapshot, int]:
        """As `snapshot`; while a database elsewhere does not answer what was read last, and when (else 0)."""
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self.snapshot(), 0
        except TimeoutError:
            pass
        except ArgosyError as error:
            if error.code != "store-busy":
                raise
        return self._snapshot, self._read_ms

    async def load(self, id: str) -> Row | None:
        """The row of any kind with this id, also a finished one."""
        if not self._database.is_shared and (row := self._snapshot.row(id)) is not None:
            return row
        return await self._read(lambda c: _read_any(c, id))

    async def load_jobs(
        self, *, host_id: str | None, live: bool = False, limit: int = 1000, after: str | None = None
    ) -> list[Workload]:
        """Jobs on the nodes of a workload (None: managed jobs), newest first; `after`: the last id of the
        page before."""
        table = schema.workload
        query = sa.select(table.c.body).where(
            table.c.host_id == (host_id or ""), table.c.kind.in_(running_kinds())
        )
        if live:
            query = query.where(sa.text("live = 1"))  # word for word, for the index of those
        if after is not None:
            number = sa.select(table.c.number).where(table.c.id == after).scalar_subquery()
            # a row that is no longer there: ids sort by time, like numbers
            query = query.where(
                sa.case(
                    (number.is_(None), table.c.id < after),
                    else_=sa.tuple_(table.c.number, table.c.id) < sa.tuple_(number, sa.literal(after)),
                )
            )
        query = query.order_by(table.c.number.desc(), table.c.id.desc()).limit(limit)
        return await self._load(Workload, query)

    async def load_runs(self, name: str, *, within: int = 5000, limit: int = 50) -> list[Workload]:
        """Jobs of this name, bound to clusters or managed, among the `within` last that ended; newest
        first."""
        table = schema.workload
        ended = (
            sa.select(table.c.id).where(sa.text("live = 0")).order_by(table.c.ended_ms.desc()).limit(within)
        )
        query = sa.select(table.c.body).where(
            table.c.id.in_(ended), table.c.name == name, table.c.kind.in_(running_kinds())
        )
        return await self._load(
            Workload, query.order_by(table.c.ended_ms.desc(), table.c.id.desc()).limit(limit)
        )

    async def find_cluster(
        self, name: str, *, project: str = "default", finished: bool = False
    ) -> Workload | None:
        """The live cluster of this name; with `finished`, when there is none, the last that had it."""
        return await self.find_named(CLUSTER.name, name, project=project, finished=finished)

    async def find_named(
        self, kind: str, name: str, *, project: str = "default", finished: bool = False
    ) -> Workload | None:
        """As `find_cluster`, of any kind whose names are unique."""
        if not self._database.is_shared:
            found = self._snapshot.find_named(kind, name, project)
            if found is not None or not finished:
                return found
        table = schema.workload
        query = sa.select(table.c.body).where(
            sa.text("named = 1"), table.c.kind == kind, table.c.project == project, table.c.name == name
        )
        if not finished:
            query = query.where(table.c.live == 1)
        rows = await self._load(Workload, query.order_by(table.c.live.desc(), table.c.id.desc()).limit(1))
        return rows[0] if rows else None

    async def find_job(self, host_id: str | None, number: int) -> Workload | None:
        """The job with this number, also a finished one."""
        if not self._database.is_shared and (job := self._snapshot.job(host_id, number)) is not None:
            return job
        table = schema.workload
        query = sa.select(table.c.body).where(
            table.c.host_id == (host_id or ""), table.c.number == number, table.c.kind.in_(running_kinds())
        )
        rows = await self._load(Workload, query.limit(1))
        return rows[0] if rows else None

    async def load_attempts(self, workload_id: str) -> list[Attempt]:
        """All attempts, by number."""
        table = schema.attempt
        query = sa.select(table.c.body).where(table.c.workload_id == workload_id)
        return await self._load(Attempt, query.order_by(table.c.number, table.c.id))

    async def load_attempts_by_id(self, ids: Iterable[str]) -> dict[str, Attempt]:
        """These attempts, by id; without those that are not there any more."""
        table, wanted, found = schema.attempt, list(ids), list[Attempt]()
        for start in range(0, len(wanted), 500):
            some = wanted[start : start + 500]
            found += await self._load(Attempt, sa.select(table.c.body).where(table.c.id.in_(some)))
        return {attempt.id: attempt for attempt in found}

    async def load_past_attempts(
        self, host_id: str, *, since_ms: int = 0, limit: int = 1000
    ) -> list[Attempt]:
        """Attempts of jobs on the nodes of a workload, there at `since_ms` or later; newest first."""
        table, jobs = schema.attempt, schema.workload
        query = (
            sa.select(table.c.body)
            .join(jobs, jobs.c.id == table.c.workload_id)
            .where(jobs.c.host_id == host_id, _was_there(jobs, since_ms))
        )
        return await self._load(Attempt, query.order_by(table.c.id.desc()).limit(limit))

    async def load_claims(self, *, since_ms: int = 0, limit: int | None = None) -> list[Claim]:
        """Claims that were there at `since_ms` or later, oldest first. `limit`: no more than the newest."""
        table = schema.claim
        query = sa.select(table.c.body).where(_was_there(table, since_ms))
        if limit is None:
            return await self._load(Claim, query.order_by(table.c.id))
        return (await self._load(Claim, query.order_by(table.c.id.desc()).limit(limit)))[::-1]

    async def load_clusters(self, *, since_ms: int = 0) -> list[Workload]:
        """Clusters that were there at `since_ms` or later, oldest first."""
        kind = CLUSTER.name
        table = schema.workload
        query = sa.select(table.c.body).where(
            sa.text("named = 1"), table.c.kind == kind, _was_there(table, since_ms)
        )
        return await self._load(Workload, query.order_by(table.c.id))

    async def load_nodes(self, claim_id: str) -> list[Node]:
        """All nodes of the claim, by index."""
        table = schema.node
        rows = await self._load(Node, sa.select(table.c.body).where(table.c.claim_id == claim_id))
        return sorted(rows, key=lambda row: (row.index, row.id))

    async def load_events(
        self, *, subject: str | None = None, after: int | None = 0, limit: int = 1000
    ) -> list[Event]:
        """Events in the order of their commits; `after`: the `seq` that ended the last page, None: the newest
        ones."""
        table = schema.event
        query = sa.select(table).where(table.c.seq > (after or 0))
        if subject is not None:
            query = query.where(table.c.subject == subject)
        query = query.order_by(table.c.seq.desc() if after is None else table.c.seq).limit(limit)
        found = await self._read(
            lambda c: [
                Event(seq=row.seq, at_ms=row.at_ms, subject=row.subject, code=row.code, text=row.text)
                for row in c.execute(query)
            ]
        )
        return found[::-1] if after is None else found

    async def load_secrets(self, workload_id: str) -> dict[str, str]:
        """Values by name; none once the workload is finished. Raises `forbidden` without their key."""
        return await self._read(lambda c: self._vault.load(c, workload_id))

    async def load_key(self, key: str) -> bytes | None:
        """What the request with this idempotency key was answered."""
        reply = await self._read(lambda c: c.execute(_REPLY, {"key_": key}).scalar())
        return None if reply is None else bytes(reply)

    # -- accounts -----------------------------------------------------------------------------------

    async def put_token(self, token: accounts.Token, *, replace: bool = True) -> None:
        """One of the same name is replaced, or (without `replace`) stays."""
        await self._write_alone(lambda c: accounts.put_token(c, token, replace=replace))

    async def remove_token(self, name: str) -> bool:
        """Whether there was one of that name."""
        return await self._write_alone(lambda c: accounts.remove_token(c, name))

    async def load_tokens(self) -> list[accounts.Token]:
        """By name. Also what another process wrote."""
        return await self._read(accounts.load_tokens)

    async def load_budget(self, project: str) -> Budget | None:
        """The budget of a project, also one that was taken back: its `rev` is wanted for the next."""
        return await self._read(lambda c: _read_row(c, Budget, budget_id(project)))

    async def load_spending(self, *, since_ms: int) -> accounts.Spending:
        """What claims cost since then, by project."""
        return await self._read(lambda c: accounts.load_spending(c, since_ms))

    async def load_owners(self, *, since_ms: int) -> list[Workload]:
        """Workloads of which a claim was there at `since_ms` or later, oldest first."""
        table = schema.workload
        owners = sa.select(schema.claim.c.workload_id).where(_was_there(schema.claim, since_ms))
        query = sa.select(table.c.body).where(table.c.id.in_(owners)).order_by(table.c.id)
        return await self._load(Workload, query)

    async def rotate_key(self) -> tuple[str, int]:
        """Seal secrets with a new key from now on, and those that are there: its name, and how many."""
        return await self._write_alone(self._vault.rotate)

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
        self._database.run(self._refresh)

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

    async def _read(self, work: Callable[[sa.Connection], T]) -> T:
        return await self._lane.call(lambda: self._database.run(work))

    async def _load(self, kind: type[R], query: sa.Select[Any]) -> list[R]:  # Any: one column, the body
        return await self._read(
            lambda c: [schema.parse_row(kind, body) for body in c.execute(query).scalars()]
        )

    def _refresh(self, connection: sa.Connection) -> Snapshot:
        """Bring memory up to what is committed."""
        seq = connection.execute(_SEQ).scalar_one()
        if seq != self._snapshot.seq:
            self._read_changes(connection, seq)
        self._read_ms = self.clock.now_ms()
        return self._snapshot

    def _read_changes(self, connection: sa.Connection, seq: int, *, locked: bool = False) -> None:
        """Read what others committed: one statement, so that it sees one moment.

        `seq`: the last commit there was. `locked`: it still is, and `head` counts our own beginning
        already."""
        if seq < self._snapshot.seq or not self._database.is_shared:
            # The database was restored from a backup under our feet, or another process wrote to our file.
            self._snapshot = Snapshot.of(())
        after = self._snapshot.seq
        found = connection.execute(_CHANGES, {"after": after}) if after else connection.execute(_LIVE)
        rows: list[schema.Stored] = []
        for kind, body in found:
            if kind != schema.head.name:
                rows.append(schema.parse_row(_KINDS[kind], body))
            elif not locked:
                seq = int(body)
        self._snapshot = self._snapshot.changed(rows, seq=seq)


def _read_row(connection: sa.Connection, kind: type[R], id: str) -> R | None:
    table = schema.TABLES[kind]
    body = connection.execute(sa.select(table.c.body).where(table.c.id == id)).scalar()
    return None if body is None else schema.parse_row(kind, body)


def _read_any(connection: sa.Connection, id: str) -> Row | None:
    for kind in schema.TABLES:
        row = _read_row(connection, kind, id)
        if isinstance(row, Row):
            return row
    return None


def _was_there(table: sa.Table, since_ms: int) -> sa.ColumnElement[bool]:
    return sa.or_(table.c.live == 1, table.c.ended_ms >= since_ms)


# -- statements: built once, compiled once ----------------------------------------------------------

_KINDS: Final = {table.name: kind for kind, table in schema.TABLES.items()}

_SEQ: Final = sa.select(schema.head.c.seq)
_TAKE_SEQ: Final = (
    sa.update(schema.head)
    .values(
        seq=schema.head.c.seq + sa.bindparam("commits"),
        event_seq=schema.head.c.event_seq + sa.bindparam("events"),
    )
    .returning(schema.head.c.seq, schema.head.c.event_seq)
)


def _bodies(where: str) -> sa.CompoundSelect[Any]:  # Any: (name of the table, body)
    parts: list[sa.Select[*tuple[Any, ...]]] = [
        sa.select(sa.literal_column("'head'"), sa.cast(schema.head.c.seq, sa.Text))
    ]
    for table in schema.TABLES.values():
        parts.append(
            sa.select(sa.literal_column(f"'{table.name}'"), table.c.body).where(
                sa.text(f"{table.name}.{where}")
            )
        )
    return sa.union_all(*parts)


_LIVE: Final = _bodies("live = 1")
_CHANGES: Final = _bodies("seq > :after")
_INSERTS: Final = {table: table.insert() for table in schema.TABLES.values()}
_UPDATES: Final = {
    table: sa.update(table).where(table.c.id == sa.bindparam("id_"), table.c.rev == sa.bindparam("rev_"))
    for table in schema.TABLES.values()
}
_ADD_EVENTS: Final = schema.event.insert()
_ADD_KEY: Final = schema.request_key.insert()
_REPLY: Final = sa.select(schema.request_key.c.reply).where(schema.request_key.c.key == sa.bindparam("key_"))
_IN_CLEAR: Final = (
    sa.select(sa.func.count()).select_from(schema.secret).where(schema.secret.c.body.startswith("{"))
)
_IDENTITY: Final = sa.select(schema.identity.c.value).where(schema.identity.c.name == "store")
_NAME_IT: Final = sa.text(
    "INSERT INTO identity (name, value) VALUES ('store', :id) ON CONFLICT (name) DO NOTHING"
)
_COUNT: Final = sa.text(
    "INSERT INTO counter (scope, value) VALUES (:scope, :count)"
    " ON CONFLICT (scope) DO UPDATE SET value = counter.value + excluded.value RETURNING value"
)
_LEASE: Final = sa.text(
    "INSERT INTO lease (name, holder, until_ms) VALUES (:name, :holder, :until_ms)"
    " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms"
    " WHERE lease.holder = excluded.holder OR lease.until_ms <= :now_ms"
)
_POSTGRES_NOW: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
