"""Where the objects of a shelf are: names, sizes and files in one SQLite file beside them.

The index decides: an object exists when its row does. A file without a row is what a killed server left, and
goes with the next sweep. Calls block; `Shelf` makes them from threads, one at a time.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from argosy.model.objects import (
    Conditions,
    ObjectHead,
    ObjectInfo,
    ObjectPage,
    ObjectPart,
    ObjectProblem,
    Upload,
)
from argosy.storage.sqlite_writing import writing

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS buckets (name TEXT PRIMARY KEY, made_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
  bucket TEXT NOT NULL, key TEXT NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
  modified_ms INTEGER NOT NULL, headers BLOB NOT NULL, extents BLOB NOT NULL,
  PRIMARY KEY (bucket, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (
  id TEXT PRIMARY KEY, bucket TEXT NOT NULL, key TEXT NOT NULL, begun_ms INTEGER NOT NULL,
  headers BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (
  upload TEXT NOT NULL, number INTEGER NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
  modified_ms INTEGER NOT NULL, extents BLOB NOT NULL, PRIMARY KEY (upload, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, bucket TEXT NOT NULL, reads_only INTEGER NOT NULL,
  made_ms INTEGER NOT NULL) WITHOUT ROWID;
"""
_HEADERS: Final = msgspec.json.Decoder(dict[str, str])
_EXTENTS: Final = msgspec.json.Decoder(tuple[tuple[str, int], ...])
_SHOWN: Final = "SELECT key, size, etag, modified_ms FROM objects"
_LAST: Final = "\U0010ffff"
Extents = tuple[tuple[str, int], ...]


class AccessKey(msgspec.Struct, frozen=True, kw_only=True):
    """Who may sign requests. `bucket` "": all of them. Its secret is not kept, see `Shelf.secret_of`."""

    id: str
    name: str
    bucket: str = ""
    reads_only: bool = False
    made_ms: int = 0


class ShelfIndex:
    """Raises ObjectProblem, and sqlite3.Error when the file cannot be used. Who reads has a connection of its
    own, and does not wait for who writes to the disk; what was written before is seen."""

    def __init__(self, path: Path) -> None:
        self._db, self._reader = _connected(path), _connected(path)
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + _SCHEMA)

    def close(self) -> None:
        with self._lock, self._reading:
            self._reader.close()
            self._db.close()

    @contextmanager
    def _writes(self) -> Iterator[sqlite3.Cursor]:
        with self._lock, writing(self._db) as cursor:
            yield cursor

    def _rows(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        with self._reading:
            return self._reader.execute(sql, values).fetchall()

    # -- buckets and keys -----------------------------------------------------------------------------------

    def make_bucket(self, name: str, now_ms: int) -> None:
        with self._writes() as db:
            if db.execute("SELECT 1 FROM buckets WHERE name=?", (name,)).fetchone():
                raise ObjectProblem("BucketAlreadyOwnedByYou", f"the bucket `{name}` exists")
            db.execute("INSERT INTO buckets VALUES (?,?)", (name, now_ms))

    def keep_bucket(self, name: str) -> None:
        """A bucket that is there from now on, also when it was."""
        with self._writes() as db:
            db.execute("INSERT OR IGNORE INTO buckets VALUES (?,0)", (name,))

    def remove_bucket(self, name: str) -> Extents:
        """The files of uploads that were never completed: they go, too."""
        with self._writes() as db:
            self._need(db, name)
            if db.execute("SELECT 1 FROM objects WHERE bucket=? LIMIT 1", (name,)).fetchone():
                raise ObjectProblem("BucketNotEmpty", f"the bucket `{name}` holds objects: remove them first")
            rows = db.execute(
                "SELECT extents FROM parts WHERE upload IN (SELECT id FROM uploads WHERE bucket=?)", (name,)
            ).fetchall()
            db.execute("DELETE FROM parts WHERE upload IN (SELECT id FROM uploads WHERE bucket=?)", (name,))
            db.execute("DELETE FROM uploads WHERE bucket=?", (name,))
            db.execute("DELETE FROM buckets WHERE name=?", (name,))
        return tuple(each for (blob,) in rows for each in _EXTENTS.decode(blob))

    def buckets(self) -> list[tuple[str, int]]:
        """Names and when they were made; those that begin with a dot are hidden."""
        rows = self._rows("SELECT * FROM buckets WHERE name NOT LIKE '.%' ORDER BY name")
        return [(str(name), _int(at)) for name, at in rows]

    def has_bucket(self, name: str) -> bool:
        return bool(self._rows("SELECT 1 FROM buckets WHERE name=?", name))

    def usage(self, bucket: str) -> tuple[int, int]:
        """Objects and bytes of a bucket."""
        ((count, size),) = self._rows(
            "SELECT count(*), coalesce(sum(size), 0) FROM objects WHERE bucket=?", bucket
        )
        return _int(count), _int(size)

    def put_key(self, key: AccessKey) -> None:
        with self._writes() as db:
            values = (key.id, key.name, key.bucket, int(key.reads_only), key.made_ms)
            db.execute("DELETE FROM keys WHERE name=?", (key.name,))
            db.execute("INSERT INTO keys VALUES (?,?,?,?,?)", values)

    def remove_key(self, name: str) -> bool:
        with self._writes() as db:
            return db.execute("DELETE FROM keys WHERE name=?", (name,)).rowcount > 0

    def access_keys(self) -> list[AccessKey]:
        return [_key(row) for row in self._rows("SELECT * FROM keys ORDER BY name")]

    def access_key(self, key_id: str) -> AccessKey | None:
        rows = self._rows("SELECT * FROM keys WHERE id=?", key_id)
        return _key(rows[0]) if rows else None

    # -- objects --------------------------------------------------------------------------------------------

    def head(self, bucket: str, key: str) -> ObjectHead:
        rows = self._rows(
            "SELECT size, etag, modified_ms, headers, extents FROM objects WHERE bucket=? AND key=?",
            bucket,
            key,
        )
        if not rows:
            self._check_bucket(bucket)
            raise ObjectProblem("NoSuchKey", f"`{bucket}` holds no object `{key}`")
        size, etag, modified_ms, headers, extents = rows[0]
        return ObjectHead(
            info=ObjectInfo(key=key, size=_int(size), etag=str(etag), modified_ms=_int(modified_ms)),
            headers=_HEADERS.decode(_bytes(headers)),
            extents=_EXTENTS.decode(_bytes(extents)),
        )

    def put_many(self, heads: Sequence[tuple[str, ObjectHead, Conditions]]) -> list[Extents | ObjectProblem]:
        """For each the files of the object that was there before, or why it is refused."""
        told: list[Extents | ObjectProblem] = []
        with self._writes() as db:
            for bucket, head, conditions in heads:
                try:
                    self._need(db, bucket)
                    told.append(self._put(db, bucket, head, conditions))
                except ObjectProblem as problem:  # raised before anything is changed
                    told.append(problem)
        return told

    def _put(self, db: sqlite3.Cursor, bucket: str, head: ObjectHead, conditions: Conditions) -> Extents:
        info = head.info
        old = db.execute(
            "SELECT etag, extents FROM objects WHERE bucket=? AND key=?", (bucket, info.key)
        ).fetchone()
        if conditions.if_absent and old is not None:
            raise ObjectProblem("PreconditionFailed", f"`{info.key}` exists")
        if conditions.if_match and old is None:
            raise ObjectProblem("NoSuchKey", f"`{bucket}` holds no object `{info.key}`")
        if conditions.if_match and old[0] != conditions.if_match:
            raise ObjectProblem("PreconditionFailed", f"`{info.key}` has another ETag")
        values = (
            bucket, info.key, info.size, info.etag, info.modified_ms,
            msgspec.json.encode(head.headers), msgspec.json.encode(head.extents),
        )  # fmt: skip
        db.execute("INSERT OR REPLACE INTO objects VALUES (?,?,?,?,?,?,?)", values)
        return _EXTENTS.decode(old[1]) if old is not None else ()

    def remove(self, bucket: str, keys: Sequence[str]) -> Extents:
        """Files that nobody needs any longer. What is not there is removed."""
        gone: list[tuple[str, int]] = []
        with self._writes() as db:
            self._need(db, bucket)
            for key in keys:
                row = db.execute(
                    "DELETE FROM objects WHERE bucket=? AND key=? RETURNING extents", (bucket, key)
                ).fetchone()
                gone += _EXTENTS.decode(row[0]) if row is not None else ()
        return tuple(gone)

    def page(self, bucket: str, prefix: str, delimiter: str, after: str, most: int) -> ObjectPage:
        """Objects whose keys begin with `prefix` and come after `after`. With a delimiter, what lies below
        one is told as a prefix, once, without being walked."""
        self._check_bucket(bucket)
        if not delimiter:
            return self._flat(bucket, prefix, after, most)
        objects: list[ObjectInfo] = []
        prefixes: list[str] = []
        at, last = max(after, prefix), after
        inclusive = at != after
        while (row := self._next(bucket, at, prefix, inclusive=inclusive)) is not None:
            cut = row.key.find(delimiter, len(prefix))
            common = row.key[: cut + len(delimiter)] if cut >= 0 else ""
            told = bool(common) and after.startswith(common)
            if not told and len(objects) + len(prefixes) == most:
                return ObjectPage(objects=tuple(objects), prefixes=tuple(prefixes), after=last)
            if not common:
                objects.append(row)
                at, inclusive, last = row.key, False, row.key
                continue
            if not told:
                prefixes.append(common)
                last = common + _LAST
            following = _beyond(common)
            if following is None:
                break
            at, inclusive = following, True
        return ObjectPage(objects=tuple(objects), prefixes=tuple(prefixes))

    def _flat(self, bucket: str, prefix: str, after: str, most: int) -> ObjectPage:
        end = _beyond(prefix) if prefix else None
        sql = f"{_SHOWN} WHERE bucket=? AND key>? AND key>=?"
        values: tuple[object, ...] = (bucket, after, prefix)
        if end is not None:
            sql, values = sql + " AND key<?", (*values, end)
        rows = [_info(row) for row in self._rows(f"{sql} ORDER BY key LIMIT ?", *values, most + 1)]
        more = len(rows) > most
        return ObjectPage(objects=tuple(rows[:most]), after=rows[most - 1].key if more and most else "")

    def _next(self, bucket: str, at: str, prefix: str, *, inclusive: bool) -> ObjectInfo | None:
        sql = f"{_SHOWN} WHERE bucket=? AND key{'>=' if inclusive else '>'}?"
        rows = self._rows(f"{sql} ORDER BY key LIMIT 1", bucket, at)
        return _info(rows[0]) if rows and str(rows[0][0]).startswith(prefix) else None

    # -- uploads in parts -----------------------------------------------------------------------------------

    def begin_upload(self, bucket: str, upload: Upload, headers: dict[str, str]) -> None:
        with self._writes() as db:
            self._need(db, bucket)
            values = (upload.id, bucket, upload.key, upload.begun_ms, msgspec.json.encode(headers))
            db.execute("INSERT INTO uploads VALUES (?,?,?,?,?)", values)

    def uploads(self, bucket: str) -> list[Upload]:
        self._check_bucket(bucket)
        rows = self._rows("SELECT id, key, begun_ms FROM uploads WHERE bucket=? ORDER BY key, id", bucket)
        return [Upload(id=str(id), key=str(key), begun_ms=_int(at)) for id, key, at in rows]

    def put_part(self, bucket: str, key: str, upload_id: str, part: ObjectPart, extents: Extents) -> Extents:
        """The files of the part that was there before."""
        with self._writes() as db:
            self._need_upload(db, bucket, key, upload_id)
            old = db.execute(
                "SELECT extents FROM parts WHERE upload=? AND number=?", (upload_id, part.number)
            ).fetchone()
            values = (upload_id, part.number, part.size, part.etag, part.modified_ms)
            db.execute(
                "INSERT OR REPLACE INTO parts VALUES (?,?,?,?,?,?)", (*values, msgspec.json.encode(extents))
            )
            return _EXTENTS.decode(old[0]) if old is not None else ()

    def parts(self, bucket: str, key: str, upload_id: str) -> list[tuple[ObjectPart, Extents]]:
        with self._reading:
            self._need_upload(self._reader.cursor(), bucket, key, upload_id)
        rows = self._rows(
            "SELECT number, size, etag, modified_ms, extents FROM parts WHERE upload=? ORDER BY number",
            upload_id,
        )
        return [
            (
                ObjectPart(number=_int(number), size=_int(size), etag=str(etag), modified_ms=_int(at)),
                _EXTENTS.decode(_bytes(extents)),
            )
            for number, size, etag, at, extents in rows
        ]

    def complete(
        self,
        bucket: str,
        upload_id: str,
        made: Callable[[dict[str, str]], ObjectHead],
        conditions: Conditions,
        unused: Extents,
    ) -> Extents:
        """The upload becomes its object. `made`: of its headers; `unused`: files of parts that were left out.
        Files that nobody needs any longer."""
        with self._writes() as db:
            row = db.execute(
                "SELECT key, headers FROM uploads WHERE id=? AND bucket=?", (upload_id, bucket)
            ).fetchone()
            if row is None:
                raise ObjectProblem("NoSuchUpload", "the upload was completed or given up before")
            old = self._put(db, bucket, made(_HEADERS.decode(row[1])), conditions)
            db.execute("DELETE FROM uploads WHERE id=?", (upload_id,))
            db.execute("DELETE FROM parts WHERE upload=?", (upload_id,))
        return (*old, *unused)

    def abort(self, bucket: str, key: str, upload_id: str) -> Extents:
        with self._writes() as db:
            self._need_upload(db, bucket, key, upload_id)
            rows = db.execute("DELETE FROM parts WHERE upload=? RETURNING extents", (upload_id,)).fetchall()
            db.execute("DELETE FROM uploads WHERE id=?", (upload_id,))
        return tuple(each for (blob,) in rows for each in _EXTENTS.decode(blob))

    # -- files ----------------------------------------------------------------------------------------------

    def files(self) -> set[str]:
        """All files that rows speak of."""
        found: set[str] = set()
        for table in ("objects", "parts"):
            for (blob,) in self._rows(f"SELECT extents FROM {table}"):  # noqa: S608
                found.update(file for file, _ in _EXTENTS.decode(_bytes(blob)))
        return found

    def _check_bucket(self, name: str) -> None:
        if not self.has_bucket(name):
            raise ObjectProblem("NoSuchBucket", f"there is no bucket `{name}`")

    def _need(self, db: sqlite3.Cursor, name: str) -> None:
        if db.execute("SELECT 1 FROM buckets WHERE name=?", (name,)).fetchone() is None:
            raise ObjectProblem("NoSuchBucket", f"there is no bucket `{name}`")

    def _need_upload(self, db: sqlite3.Cursor, bucket: str, key: str, upload_id: str) -> None:
        found = db.execute(
            "SELECT 1 FROM uploads WHERE id=? AND bucket=? AND key=?", (upload_id, bucket, key)
        ).fetchone()
        if found is None:
            raise ObjectProblem("NoSuchUpload", "the upload was completed or given up before")


def _connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)


def _beyond(prefix: str) -> str | None:
    """The first text after everything that begins with `prefix`; None: there is none.

    >>> _beyond("a/")
    'a0'
    """
    head, last = prefix[:-1], ord(prefix[-1])
    if last == 0x10FFFF:
        return _beyond(head) if head else None
    following = last + 1
    return head + chr(0xE000 if 0xD800 <= following <= 0xDFFF else following)


def _key(row: Sequence[object]) -> AccessKey:
    id, name, bucket, only, at = row
    return AccessKey(id=str(id), name=str(name), bucket=str(bucket), reads_only=bool(only), made_ms=_int(at))


def _info(row: Sequence[object]) -> ObjectInfo:
    key, size, etag, modified_ms = row
    return ObjectInfo(key=str(key), size=_int(size), etag=str(etag), modified_ms=_int(modified_ms))


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value
