"""Commits: checks, one transaction for all that are waiting, and the update of the rows in memory.

Everything here runs in the store's thread (`lane.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from argosy.model.entry import Entry
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.model.kinds import kind_of
from argosy.model.phases import may_move
from argosy.model.rows import CLAIMS_TAKEN, WORKLOADS_BEGUN, Attempt, Event, Row, Workload
from argosy.store import outbox, schema
from argosy.store.acting import ACTING
from argosy.store.ballast import Ballast, ends_something
from argosy.store.database import Database
from argosy.store.errors import Conflict, IllegalMove, KeyUsed
from argosy.store.schema import read_row
from argosy.store.secrets import Vault
from argosy.store.servers import term_now
from argosy.store.snapshot import Snapshot

if TYPE_CHECKING:
    from argosy.model.audit import Act

_ROWS_NAMED: Final = 50  # of one commit in the audit log
_OWNERS: Final = ("kind", "host_id", "parent_id", "workload_id", "claim_id")


class Numbered(NamedTuple):
    """Fresh numbers of a scope for rows of the same commit: a number is taken only when it is written."""

    scope: str
    size: int
    make: Callable[[int], tuple[Sequence[schema.Stored], bytes]]
    """From the first number to rows and what the key answers. Called in the store's thread, perhaps several
    times; pure."""


class Request:
    """One call of `commit`, on its way to the database."""

    __slots__ = (
        "acting",
        "acts",
        "columns",
        "events",
        "expect",
        "key",
        "numbered",
        "puts",
        "rows",
        "secrets",
    )

    def __init__(
        self,
        puts: tuple[schema.Stored, ...],
        expect: Mapping[str, int],
        events: Sequence[Event],
        secrets: Mapping[str, Mapping[str, str]],
        key: tuple[str, bytes] | None,
        numbered: Numbered | None = None,
        acts: Sequence[Act] = (),
    ) -> None:
        self.numbered = numbered
        self.acts = tuple(acts)
        self.acting = ACTING.get()  # who asked for it
        self.puts = puts
        self.expect = expect
        self.events = events
        self.secrets = secrets
        self.key = key
        self.rows: tuple[schema.Stored, ...] = ()  # as they will be
        self.columns: Sequence[schema.Columns] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.puts or self.events or self.secrets or self.key or self.numbered or self.acts)

    def number(self, connection: sa.Connection) -> None:
        """Make the rows that stand under fresh numbers, which are not taken yet."""
        if self.numbered is None:
            return
        last = connection.execute(_LAST_NUMBER, {"scope_": self.numbered.scope}).scalar() or 0
        puts, reply = self.numbered.make(int(last) + 1)
        self.puts, self.columns = tuple(puts), ()
        if self.key is not None:
            self.key = (self.key[0], reply)

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


class Writer:
    """Writes commits, and keeps `snapshot` at what is committed."""

    def __init__(self, database: Database, vault: Vault, ballast: Ballast, clock: Clock) -> None:
        self.snapshot = Snapshot.of(())
        self.read_ms = 0  # when the database last said that this is all
        self._database, self._vault, self._ballast, self._clock = database, vault, ballast, clock

    def perform(self, requests: Sequence[Request]) -> Sequence[tuple[schema.Stored, ...] | Exception]:
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

    def _perform_ends(self, requests: Sequence[Request]) -> Sequence[tuple[schema.Stored, ...] | Exception]:
        ending = [one for one in requests if ends_something(one.puts)]
        done = iter(self._perform_together(ending) if ending else ())
        full = ArgosyError(
            "disk-full",
            f"the disk of {self._database.describe()} is full: only what ends something is written",
        )
        return [next(done) if ends_something(one.puts) else full for one in requests]

    def _perform_together(
        self, requests: Sequence[Request]
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
            self.snapshot = Snapshot.of(())
            self._database.run(self.refresh)
            return [Conflict([row.id for row in one.puts]) for one in requests]
        except (IntegrityError, OverflowError, ArgosyError) as error:
            if isinstance(error, ArgosyError) and error.code != "internal":
                raise
            if len(requests) > 1:  # it is the fault of one of them
                return [self._perform_alone(one) for one in requests]
            if isinstance(error, IntegrityError):
                return [self._database.run(lambda c: self._explain(c, requests[0]))]
            raise
        self.snapshot = made[0]
        return answers

    def _perform_alone(self, request: Request) -> tuple[schema.Stored, ...] | Exception:
        try:
            return self._perform_together([request])[0]
        except (OverflowError, ArgosyError) as error:
            return error

    def _write_all(
        self,
        connection: sa.Connection,
        requests: Sequence[Request],
        answers: list[tuple[schema.Stored, ...] | Exception],
    ) -> Snapshot:
        now_ms = self._clock.now_ms()
        events = sum(len(one.events) for one in requests)
        # This takes the lock that all writers share: from here on, memory is what is true.
        last = connection.execute(_TAKE_SEQ, {"commits": len(requests), "events": events}).one()
        seq, event_seq = last.seq - len(requests), last.event_seq - events
        if seq != self.snapshot.seq:
            self._read_changes(connection, seq, locked=True)
        snapshot = self.snapshot
        wrote = False
        for request in requests:
            seq += 1
            try:
                request.number(connection)
                request.prepare(now_ms)
                self._check(connection, snapshot, request)
            except (Conflict, IllegalMove, KeyUsed, ValueError, TypeError, OverflowError) as error:
                answers.append(error)
                continue
            if not request.is_empty:
                self._write(connection, request, seq, event_seq, now_ms)
                self._write_acts(connection, snapshot, request)
                if request.numbered is not None and request.numbered.size:
                    taken = {"scope": request.numbered.scope, "count": request.numbered.size}
                    connection.execute(TAKE_NUMBERS, taken)
                wrote = True
            event_seq += len(request.events)
            snapshot = snapshot.changed(request.rows, seq=seq)
            answers.append(request.rows)
        if not wrote:
            raise _NothingWritten
        return snapshot.changed((), seq=last.seq)

    def _check(self, connection: sa.Connection, snapshot: Snapshot, request: Request) -> None:
        """Raises Conflict, IllegalMove, KeyUsed."""
        if request.key is not None:
            reply = connection.execute(schema.REPLY, {"key_": request.key[0]}).scalar()
            if reply is not None:
                raise KeyUsed(bytes(reply))
        stale = [id for id, rev in request.expect.items() if self._rev_of(connection, snapshot, id) != rev]
        moves: list[tuple[schema.Stored, schema.Stored]] = []
        for row in request.puts:
            old = snapshot.stored(row.id)
            if old is None and row.rev:  # finished, or never there
                old = read_row(connection, type(row), row.id)
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
        self, connection: sa.Connection, request: Request, seq: int, event_seq: int, now_ms: int
    ) -> None:
        inserts: dict[sa.Table, list[schema.Columns]] = {}
        updates: dict[sa.Table, list[schema.Columns]] = {}
        over: list[str] = []
        for old, row, columns in zip(request.puts, request.rows, request.columns, strict=True):
            table = schema.table_of(type(row))
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
            letters = outbox.letters_of(list(enumerate(request.events, event_seq + 1)))
            if letters:
                connection.execute(schema.outbox.insert(), letters)
        if request.key is not None:
            connection.execute(_ADD_KEY, {"key": request.key[0], "reply": request.key[1], "at_ms": now_ms})

    def _write_acts(self, connection: sa.Connection, snapshot: Snapshot, request: Request) -> None:
        """What the request said, and that whoever asks has changed these rows."""
        acts, acting = list(request.acts), request.acting
        if not acts and acting is None:
            return
        from argosy.store import audit  # not before somebody changes something

        rows = [row for row in request.rows if not (isinstance(row, Entry) and row.is_quiet)]
        if acting is not None and (rows or request.secrets):
            some = rows[:_ROWS_NAMED]
            target, changes = audit.changes_of([(snapshot.stored(row.id), row) for row in some])
            if len(rows) > len(some):
                target += f" and {len(rows) - len(some)} more"
            target = target or ", ".join(request.secrets)
            if acting.used:
                target += f"; with the secrets {', '.join(sorted(set(acting.used)))}"
            acts.append(msgspec.structs.replace(acting.act, target=target, changes=changes))
        if acts:
            audit.append(connection, acts)
            if acting is not None:
                acting.written += 1

    def _explain(self, connection: sa.Connection, request: Request) -> Exception:
        """Why the database found something twice that memory did not know: a finished row, or a key."""
        keys = [row.id for row in request.puts if not row.rev and read_row(connection, type(row), row.id)]
        return Conflict(keys or [row.id for row in request.puts])

    def _rev_of(self, connection: sa.Connection, snapshot: Snapshot, id: str) -> int:
        """0 when there is no such row."""
        if id == CLAIMS_TAKEN:
            return snapshot.taken
        if id == WORKLOADS_BEGUN:
            return snapshot.begun
        term = term_now(connection, self._database, self._clock, id)
        if term is not None:
            return term
        row = snapshot.stored(id)
        if row is not None:
            return row.rev
        for table in schema.TABLES.values():
            rev = connection.execute(sa.select(table.c.rev).where(table.c.id == id)).scalar()
            if rev is not None:
                return int(rev)
        return 0

    def refresh(self, connection: sa.Connection) -> Snapshot:
        """Bring memory up to what is committed."""
        seq = connection.execute(_SEQ).scalar_one()
        if seq != self.snapshot.seq:
            self._read_changes(connection, seq)
        self.read_ms = self._clock.now_ms()
        return self.snapshot

    def _read_changes(self, connection: sa.Connection, seq: int, *, locked: bool = False) -> None:
        """Read what others committed: one statement, so that it sees one moment.

        `seq`: the last commit there was. `locked`: it still is, and `head` counts our own beginning
        already."""
        if seq < self.snapshot.seq or not self._database.is_shared:
            # The database was restored from a backup under our feet, or another process wrote to our file.
            self.snapshot = Snapshot.of(())
        after = self.snapshot.seq
        found = connection.execute(_CHANGES, {"after": after}) if after else connection.execute(_LIVE)
        rows: list[schema.Stored] = []
        for kind, body in found:
            if kind != schema.head.name:
                rows.append(schema.parse_row(_KINDS[kind], body))
            elif not locked:
                seq = int(body)
        if not after:
            rows += _ends_to_know(connection, rows)
        self.snapshot = self.snapshot.changed(rows, seq=seq)


# -- statements: built once, compiled once ----------------------------------------------------------

#: The last of `count` fresh numbers of a scope.
TAKE_NUMBERS: Final = sa.text(
    "INSERT INTO counter (scope, value) VALUES (:scope, :count)"
    " ON CONFLICT (scope) DO UPDATE SET value = counter.value + excluded.value RETURNING value"
)
_LAST_NUMBER: Final = sa.select(schema.counter.c.value).where(
    schema.counter.c.scope == sa.bindparam("scope_")
)
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


def _ends_to_know(connection: sa.Connection, live: Sequence[schema.Stored]) -> list[schema.Stored]:
    """Finished workloads that live ones have to know of: children of live parents, and who is waited for."""
    found: list[schema.Stored] = [
        schema.parse_row(Workload, body) for body in connection.execute(_ENDED_CHILDREN).scalars()
    ]
    there = {row.id for row in live}
    awaited = {id for row in live if isinstance(row, Workload) for id in kind_of(row).awaits(row)}
    for id in sorted(awaited - there):
        row = read_row(connection, Workload, id)
        if row is not None:
            found.append(row)
    return found


_PARENT: Final = schema.workload.alias("parent")
_ENDED_CHILDREN: Final = (
    sa.select(schema.workload.c.body)
    .join(_PARENT, _PARENT.c.id == schema.workload.c.parent_id)
    .where(sa.text("workload.parent_id <> ''"), schema.workload.c.live == 0, _PARENT.c.live == 1)
)
_LIVE: Final = _bodies("live = 1")
_CHANGES: Final = _bodies("seq > :after")
_INSERTS: Final = {table: table.insert() for table in schema.TABLES.values()}
_UPDATES: Final = {
    table: sa.update(table).where(table.c.id == sa.bindparam("id_"), table.c.rev == sa.bindparam("rev_"))
    for table in schema.TABLES.values()
}
_ADD_EVENTS: Final = schema.event.insert()
_ADD_KEY: Final = schema.request_key.insert()
