"""One change of a SQLite file: all of it or nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def writing(db: sqlite3.Connection) -> Iterator[sqlite3.Cursor]:
    """A transaction that writes, of a connection that begins none by itself (`isolation_level=None`). Who
    calls it keeps other threads away. Raises sqlite3.Error."""
    cursor = db.cursor()
    cursor.execute("BEGIN IMMEDIATE")
    try:
        yield cursor
    except BaseException:
        cursor.execute("ROLLBACK")
        raise
    cursor.execute("COMMIT")
