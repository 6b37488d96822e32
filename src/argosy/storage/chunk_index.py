"""Which small chunks lie in which pack, and where: one SQLite file beside the packs.

The index decides: a chunk of a pack exists when its row does. Losing it costs uploads only. Calls block,
and may come from several threads.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from argosy.storage.sqlite_writing import writing

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS chunks (
  digest BLOB PRIMARY KEY, pack INTEGER NOT NULL, at INTEGER NOT NULL, size INTEGER NOT NULL) WITHOUT ROWID;
"""
#: Nothing waits for the disk: who uploads would wait for all that lies in the system's memory. What a power
#: loss takes from the end of the log is missing then, and comes again.
_PRAGMAS: Final = "PRAGMA synchronous=OFF; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;"
_SPANS: Final = "SELECT pack, count(*), max(at + size) FROM chunks WHERE digest IN"
_LAST_MAX: Final = 40_000  # chunks, about 300 bytes each
_AT_ONCE: Final = 500  # digests in one question


class Place(NamedTuple):
    pack: int
    at: int
    size: int


class ChunkIndex:
    """The file is made with the first chunk. Raises sqlite3.Error when it cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._last: dict[str, Place] = {}  # chunks that came last: what follows an upload asks for them
        if path.exists():
            try:
                self._open()
            except sqlite3.DatabaseError:
                self._begin_anew()

    def _begin_anew(self) -> None:
        """It is damaged: who needs its chunks sends them again."""
        if self._db is not None:
            self._db.close()
        self._db, self._last = None, {}
        for end in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + end).unlink(missing_ok=True)

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, timeout=30)
            db.executescript(_PRAGMAS + _SCHEMA + "PRAGMA synchronous=NORMAL;")
            self._db = db
        return self._db

    @contextlib.contextmanager
    def _writes(self) -> Iterator[sqlite3.Cursor]:
        with self._lock, writing(self._open()) as cursor:
            yield cursor

    def find(self, digests: Sequence[str]) -> dict[str, Place]:
        """Where these chunks are, as far as they are in packs."""
        last = self._last
        found = {digest: known for digest in digests if (known := last.get(digest)) is not None}
        for some in self._some([digest for digest in digests if digest not in found]):
            for digest, *place in self._rows("SELECT * FROM chunks WHERE digest IN", some):
                found[digest.hex()] = Place(*place)
        return found

    def spans(self, digests: Sequence[str]) -> dict[int, tuple[int, int]]:
        """As `find`, of each pack only how many chunks are in it and where the last one ends: many chunks are
        counted in a fraction of the time."""
        spans: dict[int, tuple[int, int]] = {}
        rest = []
        for digest in digests:
            place = self._last.get(digest)
            if place is None:
                rest.append(digest)
                continue
            number, end = spans.get(place.pack, (0, 0))
            spans[place.pack] = number + 1, max(end, place.at + place.size)
        for some in self._some(rest):
            for pack, count, end in self._rows(_SPANS, some, "GROUP BY pack"):
                before = spans.get(pack, (0, 0))
                spans[pack] = before[0] + count, max(before[1], end)
        return spans

    def _some(self, digests: Sequence[str]) -> Iterator[list[bytes]]:
        for start in range(0, len(digests), _AT_ONCE) if self._db is not None else ():
            yield [bytes.fromhex(digest) for digest in digests[start : start + _AT_ONCE]]

    def _rows(self, select: str, digests: Sequence[bytes], ends: str = "") -> list[tuple[Any, ...]]:
        marks = ",".join("?" * len(digests))
        with self._lock:
            try:
                return self._open().execute(" ".join((select, "(" + marks + ")", ends)), digests).fetchall()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                self._begin_anew()
                return []

    def add(self, pack: int, chunks: Sequence[tuple[str, int, int]]) -> None:
        """Chunks of a pack: digest, place, size. They are there from now on."""
        with self._writes() as db:
            db.executemany(
                "INSERT OR REPLACE INTO chunks VALUES (?,?,?,?)",
                ((bytes.fromhex(digest), pack, at, size) for digest, at, size in chunks),
            )
        with self._lock:
            if len(self._last) + len(chunks) > _LAST_MAX:
                self._last = {}
            self._last.update((digest, Place(pack, at, size)) for digest, at, size in chunks)

    def drop(self, chunks: Sequence[tuple[bytes, Place]]) -> None:
        """They are not there, unless they came again meanwhile, or were moved."""
        with self._writes() as db:
            for digest, place in chunks:
                if self._last.get(digest.hex()) == place:
                    del self._last[digest.hex()]
            keys = ((digest, place.pack, place.at) for digest, place in chunks)
            db.executemany("DELETE FROM chunks WHERE digest=? AND pack=? AND at=?", keys)

    def settle(self) -> None:
        """Take what was written into the file itself: now and then, since it waits for the disk."""
        if self._db is not None:
            with self._lock:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def all(self) -> Iterator[tuple[bytes, Place]]:
        """Every chunk, in the order of digests; what comes and goes meanwhile may be among them or not."""
        last = b""
        while self._db is not None:
            with self._lock:
                rows = self._open().execute(
                    "SELECT * FROM chunks WHERE digest>? ORDER BY digest LIMIT 10000", (last,)
                ).fetchall()  # fmt: skip
            if not rows:
                return
            last = rows[-1][0]
            for digest, *place in rows:
                yield digest, Place(*place)
