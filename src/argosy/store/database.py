"""One connection to SQLite or PostgreSQL: opened, checked, kept, reopened; its errors become ours.

Everything here runs in the store's own thread. Transactions are opened by hand (both drivers are in
autocommit mode), so that a read costs one round trip and a write takes SQLite's lock at once.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

from argosy.model.errors import ArgosyError
from argosy.store import backups, schema, steps
from argosy.store.state_dir import ensure_private_folder

T = TypeVar("T")

_SMALL_BYTES: Final = 16 << 20  # a file up to this size is read from end to end at every start: milliseconds
_DAY_MS: Final = 86_400_000
_CREATE_LOCK: Final = 0x6172676F  # PostgreSQL's advisory lock while the schema is made

_PRAGMAS: Final = (
    "PRAGMA busy_timeout = 5000",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = FAST",  # secrets that were deleted are overwritten where that costs nothing
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -8192",
    "PRAGMA journal_size_limit = 67108864",
)

#: Pages that are free can be given back; said before the first table is made, or by a VACUUM.
_SHRINKS: Final = "PRAGMA auto_vacuum = INCREMENTAL"

# A server that freezes in a commit must not stop the others for long: they all wait for `head`.
_SETTINGS: Final = (
    "SET statement_timeout = '30s'",
    "SET lock_timeout = '10s'",
    "SET idle_in_transaction_session_timeout = '10s'",
    "SET default_transaction_isolation = 'read committed'",
)

_PG_CONNECT: Final[dict[str, int | str]] = {
    "connect_timeout": 10,
    "application_name": "argosy",
    "client_encoding": "utf8",  # of a database that has none (SQL_ASCII) text comes as bytes
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


class Database:
    """`url`: `sqlite:///absolute/path.db`, `sqlite://` (in memory), `postgresql://…`."""

    def __init__(self, url: str, *, backups: Path | None = None, further: Path | None = None) -> None:
        """`further`: a folder of migrations to come, to try an upgrade before it is released."""
        self.path: Path | None = None  # of a SQLite file
        self.is_postgres = url.startswith(("postgresql:", "postgres:", "postgresql+psycopg:"))
        if self.is_postgres:
            self._url = _parse_postgres_url(url)
        elif url.startswith("sqlite:"):
            place = url.removeprefix("sqlite:").lstrip("/")
            if place and place != ":memory:":
                self.path = Path("/") / place
            self._url = sa.URL.create("sqlite", database=str(self.path) if self.path else None)
        else:
            scheme = url.partition(":")[0]
            raise ArgosyError(
                "usage",
                f"`{scheme}:` is no database that Argosy knows",
                hint="use sqlite:///absolute/path.db or postgresql://user@host/name",
            )
        self.backups = backups or (self.path.parent / "backups" if self.path else None)
        self._further = further
        self._head = max(
            [schema.HEAD, *(path.name[:4] for path in further.glob("0*.py"))] if further else [schema.HEAD]
        )
        self._connection: sa.Connection | None = None
        self._is_new = False  # a file without tables
        self._begin = "BEGIN" if self.is_postgres else "BEGIN IMMEDIATE"
        self._engine = self._make_engine()

    @property
    def is_shared(self) -> bool:
        """Whether other servers may write too, so that what is in memory must be checked."""
        return self.is_postgres

    def describe(self) -> str:
        """Where the data is, without a password."""
        return str(self.path) if self.path else self._url.render_as_string(hide_password=True)

    def open(self, *, now_ms: int) -> None:
        """Connect; make, check or upgrade the schema. Raises ArgosyError `store-corrupt`, `store-newer`,
        `store-busy`, `disk-full`."""
        unclean = size_bytes = 0
        if self.path is not None:
            ensure_private_folder(self.path.parent)
            try:
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
                self.path.chmod(0o600)
                size_bytes = self.path.stat().st_size
                self._is_new = size_bytes == 0
            except OSError as error:
                raise self._unwritable(error.strerror or str(error)) from None
            with contextlib.suppress(OSError):  # SQLite removes its log when it is closed in peace
                unclean = self.path.with_name(self.path.name + "-wal").stat().st_size
        found = self.run(functools.partial(self._ensure_schema, now_ms), write=True)
        self._is_new = False
        if found < self._head:
            self._upgrade(found)
        if self.path is not None and size_bytes:
            checked_ms = self.run(lambda c: int(c.execute(sa.select(schema.head.c.checked_ms)).scalar_one()))
            if unclean or size_bytes <= _SMALL_BYTES or not 0 <= now_ms - checked_ms < _DAY_MS:
                self.run(self._check_pages)
                with contextlib.suppress(ArgosyError):  # on a full disk too, reading goes on
                    self.run(
                        lambda c: c.execute(sa.update(schema.head).values(checked_ms=now_ms)), write=True
                    )

    def close(self) -> None:
        self._drop()
        self._engine.dispose()

    def run(self, work: Callable[[sa.Connection], T], *, write: bool = False) -> T:
        """`work(connection)`; with `write` as one transaction, undone when anything is raised.

        A lost connection is made again and the work repeated, unless it was lost in the commit itself: then
        nobody knows, and `store-busy` says so. Raises ArgosyError; IntegrityError is left to the caller."""
        repeated = False
        while True:
            committing = False
            try:
                connection = self._connected()
                if not write:
                    return work(connection)
                connection.exec_driver_sql(self._begin)
                result = work(connection)
                committing = True
                connection.exec_driver_sql("COMMIT")
                return result
            except DBAPIError as error:
                lost = self._recover(error)
                if lost and not repeated and not committing:
                    repeated = True
                    continue
                if isinstance(error, IntegrityError) and not lost:
                    raise
                raise self._translated(error, unsure=lost and committing) from None
            except ArgosyError as error:
                self._roll_back()
                if error.code == "store-corrupt" and not error.details:  # a row: tell the way back
                    raise self._corrupt(error.what) from None
                raise
            except BaseException:
                self._roll_back()
                raise

    def backup(self, target: Path) -> None:
        """Copy to `target`. For a file this may run in any thread. Raises ArgosyError."""
        if self.is_postgres:
            raise ArgosyError(
                "unsupported",
                "Argosy does not back up PostgreSQL",
                hint="use pg_dump, or what your database service offers",
            )
        try:
            if self.path is not None:
                backups.write_backup(self.path, target)
            else:
                ensure_private_folder(target.parent)
                with contextlib.closing(sqlite3.connect(target)) as copy:
                    self._driver().backup(copy)
                target.chmod(0o600)
        except sqlite3.Error as error:
            raise self._translated_sqlite(error, folder=target.parent) from None
        except OSError as error:
            raise ArgosyError("disk-full", f"cannot write the backup {target}: {error.strerror}") from None

    def tidy(self) -> None:
        """Write a SQLite file anew, without what was deleted, and empty its log."""
        if self.path is not None:
            for statement in (_SHRINKS, "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                self.run(functools.partial(_execute, statement))

    # -- opening ------------------------------------------------------------------------------------

    def _make_engine(self) -> sa.Engine:
        options: dict[str, Any] = {  # Any: sqlalchemy's own options
            "poolclass": sa.pool.NullPool,
            "isolation_level": "AUTOCOMMIT",
            "hide_parameters": True,  # they hold secrets
        }
        if self.is_postgres:
            try:
                return sa.create_engine(self._url, connect_args=_PG_CONNECT, **options)
            except ImportError:
                raise ArgosyError(
                    "unsupported",
                    "PostgreSQL needs a driver that is not installed",
                    hint="pip install 'argosy[postgres]'",
                ) from None
        return sa.create_engine(self._url, connect_args={"check_same_thread": False}, **options)

    def _connected(self) -> sa.Connection:
        if self._connection is None:
            connection = self._engine.connect()
            try:
                if self._is_new:
                    connection.exec_driver_sql(_SHRINKS)
                for statement in _SETTINGS if self.is_postgres else _PRAGMAS:
                    connection.exec_driver_sql(statement)
            except BaseException:
                connection.invalidate()
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _driver(self) -> sqlite3.Connection:
        driver = self._connected().connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        return driver

    def _ensure_schema(self, now_ms: int, connection: sa.Connection) -> str:
        """Make the tables when there are none. The version of the schema."""
        self._lock_schema(connection)
        if not sa.inspect(connection).has_table(schema.version.name):
            schema.metadata.create_all(connection, checkfirst=False)
            connection.execute(schema.version.insert(), {"version_num": schema.HEAD})
            connection.execute(
                schema.head.insert(), {"id": 1, "seq": 0, "event_seq": 0, "checked_ms": now_ms}
            )
            steps.note_least(connection, schema.HEAD)
            return schema.HEAD
        found = connection.execute(sa.select(schema.version.c.version_num)).scalar()
        steps.check(connection, str(found or ""), self._head, self.describe())
        return str(found)

    def _lock_schema(self, connection: sa.Connection) -> None:
        """One server at a time makes or changes tables, and takes the time that it needs."""
        if self.is_postgres:
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_CREATE_LOCK})")

    def _upgrade(self, found: str) -> None:
        from argosy.store.migrate import upgrade  # Alembic takes 0.2 s to import

        if self.path is not None and self.backups is not None:
            self.backup(self.backups / f"argosy-schema-{found}.db")

        def work(connection: sa.Connection) -> None:
            self._lock_schema(connection)
            steps.check_running(connection, self._head, shared=self.is_postgres)
            upgrade(connection, more=self._further)
            steps.note_least(connection, self._head)

        self.run(work, write=True)
        with contextlib.suppress(ArgosyError):  # it needs the room of the database once more
            self.tidy()

    def _check_pages(self, connection: sa.Connection) -> None:
        lines = connection.exec_driver_sql("PRAGMA quick_check(3)").scalars().all()
        if list(lines) != ["ok"]:
            raise self._corrupt("; ".join(str(line).replace("\n", " ") for line in lines))

    # -- errors -------------------------------------------------------------------------------------

    def _roll_back(self) -> None:
        """End the transaction, if there is one; a connection that cannot is given up."""
        if self._connection is None:
            return
        try:
            self._connection.connection.rollback()
        except Exception:  # noqa: BLE001 - drivers raise their own; whatever it was, the connection is of no use
            self._drop()

    def _recover(self, error: DBAPIError) -> bool:
        """Make the next call possible. Whether the connection was lost."""
        lost = error.connection_invalidated or self._connection is None
        if self.is_postgres and self._connection is not None:
            lost = lost or bool(getattr(self._connection.connection.driver_connection, "closed", False))
        if lost or (self.path is not None and _sqlite_code(error.orig) == sqlite3.SQLITE_IOERR):
            self._drop()
        else:
            self._roll_back()
        return lost

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(DBAPIError, sqlite3.Error):
                connection.close()

    def _translated(self, error: DBAPIError, *, unsure: bool) -> ArgosyError:
        if isinstance(error.orig, sqlite3.Error):
            return self._translated_sqlite(error.orig)
        return _translate_postgres(error, self._url.host or "localhost", unsure=unsure)

    def _translated_sqlite(self, error: sqlite3.Error, *, folder: Path | None = None) -> ArgosyError:
        code, text = _sqlite_code(error), str(error)
        place = folder or (self.path.parent if self.path else Path("memory"))
        if code == sqlite3.SQLITE_FULL:
            return ArgosyError("disk-full", f"the disk of {place} is full")
        if code == sqlite3.SQLITE_IOERR:
            return ArgosyError("disk-full", f"the disk of {place} takes no more: {text}")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return ArgosyError("store-busy", f"{self.describe()} is in use by another process: {text}")
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "Could not decode" in text:
            return self._corrupt(text)
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            return self._unwritable(text)
        return ArgosyError("internal", f"the database refuses: {text}")

    def _unwritable(self, text: str) -> ArgosyError:
        return ArgosyError(
            "store-busy", f"cannot write {self.path}: {text}", hint="check its owner and rights"
        )

    def _corrupt(self, text: str) -> ArgosyError:
        lines: tuple[str, ...] = ()
        if self.path is not None and self.backups is not None:
            lines = backups.restore_lines(self.path, self.backups)
        return ArgosyError(
            "store-corrupt", f"the database {self.describe()} is damaged: {text}", details=lines
        )


def _translate_postgres(error: DBAPIError, host: str, *, unsure: bool) -> ArgosyError:
    """What PostgreSQL said, or that it says nothing."""
    state = str(getattr(error.orig, "sqlstate", None) or "")
    lines = str(error.orig).strip().splitlines()  # the first one only: the others quote values
    what = lines[0] if lines else type(error.orig).__name__
    if state == "53100":
        return ArgosyError("disk-full", f"the disk of the database server is full: {what}")
    if state in ("XX001", "XX002"):
        return ArgosyError(
            "store-corrupt", f"the database is damaged: {what}", hint="restore it as PostgreSQL's manual says"
        )
    if unsure:
        return ArgosyError(
            "store-busy",
            "the connection to the database was lost while it committed",
            hint="look whether it was done, then repeat",
        )
    away = not state and isinstance(error, (OperationalError, InterfaceError))
    if away or state.startswith(("08", "53", "55", "57", "40", "25")):
        return ArgosyError(
            "store-busy",
            f"the database at {host} does not answer: {what}",
            hint="it is tried again; check that PostgreSQL runs and takes connections",
        )
    if state.startswith(("28", "3D", "42501")):
        return ArgosyError(
            "store-busy",
            f"the database refuses: {what}",
            hint="check user, password and name in the database URL",
        )
    return ArgosyError("internal", f"the database refuses: {what} ({state or type(error.orig).__name__})")


def _execute(statement: str, connection: sa.Connection) -> None:
    connection.exec_driver_sql(statement).close()


def _sqlite_code(error: BaseException | None) -> int:
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def _parse_postgres_url(url: str) -> sa.URL:
    try:
        return sa.make_url(url).set(drivername="postgresql+psycopg")
    except (sa.exc.ArgumentError, ValueError):
        raise ArgosyError(
            "usage", "the database URL cannot be read", hint="postgresql://user:password@host:5432/name"
        ) from None
