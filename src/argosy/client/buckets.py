"""Objects of the server's buckets, from here: S3's calls over the connection that every command has.

Names are `argosy://BUCKET/KEY`. Large files go in parts, several at once; a file that was there before is
replaced when all of it has arrived.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote, urlencode

from argosy.api.location import Location
from argosy.client.connection import Broken, Connection, unreachable
from argosy.client.wire import ReplyParser
from argosy.model.errors import ArgosyError

SCHEME: Final = "argosy://"
PARALLEL: Final = 8
_MOUNT: Final = "/s3"
_PART_BYTES: Final = 16 << 20
_TIMEOUT_S: Final = 180.0
_TAG: Final = "{http://s3.amazonaws.com/doc/2006-03-01/}"

OnBytes = Callable[[int], None]


class Place(NamedTuple):
    """`argosy://BUCKET/KEY`; an empty bucket is all of them, and a key that is empty or ends in `/` is what
    begins with it."""

    bucket: str
    key: str

    def render(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}" if self.bucket else SCHEME


class Stored(NamedTuple):
    key: str
    size: int
    etag: str
    modified: str  # 2026-11-29T20:00:00.000Z


class Listed(NamedTuple):
    objects: list[Stored]
    prefixes: list[str]


def parse_place(text: str) -> Place | None:
    """None: it is a path of this machine.

    >>> parse_place("argosy://data/train/a.bin"), parse_place("./a")
    (Place(bucket='data', key='train/a.bin'), None)
    """
    if not text.startswith(SCHEME):
        return None
    bucket, _, key = text.removeprefix(SCHEME).partition("/")
    return Place(bucket, key)


class Buckets:
    """Calls on one server. Safe to use from several threads: each call takes a free connection."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._free: queue.SimpleQueue[Connection] = queue.SimpleQueue()

    def close(self) -> None:
        while not self._free.empty():
            self._free.get_nowait().close()

    # -- one call -------------------------------------------------------------------------------------------

    def _ask(
        self,
        method: str,
        place: Place,
        query: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        headers: Sequence[tuple[str, str]] = (),
    ) -> tuple[dict[str, str], bytes]:
        pieces: list[bytes] = []
        told = self._stream(method, place, query, body, headers, pieces.append)
        return told, b"".join(pieces)

    def _stream(
        self,
        method: str,
        place: Place,
        query: Sequence[tuple[str, str]],
        body: bytes,
        headers: Sequence[tuple[str, str]],
        take: Callable[[bytes], object],
    ) -> dict[str, str]:
        """The headers of a reply whose body goes to `take`. Raises ArgosyError."""
        target = f"{_MOUNT}/{place.bucket}"
        target += f"/{quote(place.key, safe='/')}" if place.key else ""
        target += f"?{urlencode(query)}" if query else ""
        connection = self._connection()
        parser = ReplyParser(without_body=method == "HEAD")
        wrong: list[bytes] = []
        own = list(headers)
        if self._location.token:
            own.append(("authorization", f"Bearer {self._location.token}"))
        try:
            connection.send(method, target, own, (body,) if body else (), _TIMEOUT_S)
            for piece in connection.read(parser, _TIMEOUT_S):
                (take if parser.status < 300 else wrong.append)(piece)
        except Broken as error:
            connection.close()
            raise unreachable(self._location, str(error)) from None
        if parser.keep_alive:
            self._free.put(connection)
        else:
            connection.close()
        if parser.status >= 300:
            raise _refusal(parser.status, b"".join(wrong), place)
        return parser.headers

    def _connection(self) -> Connection:
        while True:
            try:
                found = self._free.get_nowait()
            except queue.Empty:
                try:
                    return Connection(self._location)
                except OSError as error:
                    raise unreachable(self._location, error.strerror or str(error)) from None
            if found.is_usable():
                return found
            found.close()

    # -- objects --------------------------------------------------------------------------------------------

    def listed(self, place: Place, *, below: bool) -> Iterator[Listed]:
        """Pages of what begins with the place's key; with `below`, also of what lies deeper."""
        token = ""
        while True:
            query = [("list-type", "2"), ("prefix", place.key)]
            query += [] if below else [("delimiter", "/")]
            query += [("continuation-token", token)] if token else []
            _, text = self._ask("GET", Place(place.bucket, ""), query)
            root = ET.fromstring(text)  # noqa: S314  our own server's
            objects = [
                Stored(
                    _of(each, "Key"),
                    int(_of(each, "Size")),
                    _of(each, "ETag").strip('"'),
                    _of(each, "LastModified"),
                )
                for each in root.iter(f"{_TAG}Contents")
            ]
            yield Listed(objects, [_of(each, "Prefix") for each in root.iter(f"{_TAG}CommonPrefixes")])
            token = _of(root, "NextContinuationToken")
            if not token:
                return

    def every(self, place: Place) -> Iterator[Stored]:
        for page in self.listed(place, below=True):
            yield from page.objects

    def find(self, place: Place) -> Stored | None:
        """The object of exactly this name."""
        try:
            told, _ = self._ask("HEAD", place)
        except ArgosyError as error:
            if error.code != "not-found":
                raise
            query = [("list-type", "2"), ("max-keys", "1"), ("prefix", place.key)]
            self._ask("GET", Place(place.bucket, ""), query)  # raises when there is no such bucket
            return None
        return Stored(place.key, int(told.get("content-length", "0")), told.get("etag", "").strip('"'), "")

    def upload(self, path: Path, place: Place, on_bytes: OnBytes) -> None:
        """Raises OSError for what is here, ArgosyError for what the server says."""
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= _PART_BYTES:
                data = file.read()
                self._ask("PUT", place, body=data)
                on_bytes(len(data))
                return
        self._upload_parts(path, size, place, on_bytes)

    def _upload_parts(self, path: Path, size: int, place: Place, on_bytes: OnBytes) -> None:
        _, text = self._ask("POST", place, [("uploads", "")])
        upload = [("uploadId", _of(ET.fromstring(text), "UploadId"))]  # noqa: S314  our own server's

        def part(number: int) -> str:
            with path.open("rb") as file:
                file.seek((number - 1) * _PART_BYTES)
                data = file.read(_PART_BYTES)
            told, _ = self._ask("PUT", place, [("partNumber", str(number)), *upload], data)
            on_bytes(len(data))
            return told.get("etag", "")

        numbers = range(1, -(-size // _PART_BYTES) + 1)
        try:
            with ThreadPoolExecutor(PARALLEL) as pool:
                etags = list(pool.map(part, numbers))
        except BaseException:
            self._ask("DELETE", place, upload)
            raise
        rows = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
            for number, etag in zip(numbers, etags, strict=True)
        )
        body = f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()
        self._ask("POST", place, upload, body)

    def download(self, place: Place, path: Path, on_bytes: OnBytes) -> None:
        """The file appears whole, or stays as it was."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
        try:
            with temporary.open("wb") as file:

                def take(piece: bytes) -> None:
                    file.write(piece)
                    on_bytes(len(piece))

                self._stream("GET", place, (), b"", (), take)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def read(self, place: Place, take: Callable[[bytes], object]) -> None:
        self._stream("GET", place, (), b"", (), take)

    def copy(self, source: Place, target: Place) -> None:
        """Within the server: the bytes do not come here."""
        name = quote(f"/{source.bucket}/{source.key}")
        self._ask("PUT", target, headers=[("x-amz-copy-source", name)])

    def remove(self, bucket: str, keys: Sequence[str]) -> None:
        for at in range(0, len(keys), 1000):
            root = ET.Element("Delete")
            for key in keys[at : at + 1000]:
                ET.SubElement(ET.SubElement(root, "Object"), "Key").text = key
            self._ask("POST", Place(bucket, ""), [("delete", "")], ET.tostring(root))


def is_same(path: Path, stored: Stored) -> bool:
    """Whether a file has the object's bytes. One that came in parts of another size is taken for another."""
    try:
        if path.stat().st_size != stored.size:
            return False
        digest, parts = hashlib.md5(usedforsecurity=False), stored.etag.partition("-")[2]
        with path.open("rb") as file:
            if not parts:
                return hashlib.file_digest(file, lambda: digest).hexdigest() == stored.etag
            while data := file.read(_PART_BYTES):
                digest.update(hashlib.md5(data, usedforsecurity=False).digest())
        return f"{digest.hexdigest()}-{-(-stored.size // _PART_BYTES)}" == stored.etag
    except OSError:
        return False


def _of(element: ET.Element, name: str) -> str:
    return element.findtext(f"{_TAG}{name}") or ""


def _refusal(status: int, body: bytes, place: Place) -> ArgosyError:
    try:
        root = ET.fromstring(body)  # noqa: S314  our own server's
        code, text = root.findtext("Code") or "", root.findtext("Message") or ""
    except ET.ParseError:
        code, text = "", body.decode("utf-8", "replace")[:300]
    if status == 404 and code in ("", "NoSuchKey"):
        what, hint = (
            f"there is no `{place.render()}`",
            f"`argosy storage ls {SCHEME}{place.bucket}/` lists it",
        )
        return ArgosyError("not-found", what, hint=hint)
    if code == "NoSuchBucket":
        hint = f"`argosy storage create {place.bucket}` makes it"
        return ArgosyError("not-found", f"there is no bucket `{place.bucket}`", hint=hint)
    if code == "InsufficientStorage":
        return ArgosyError("disk-full", text)
    if status in (401, 403):
        return ArgosyError("forbidden", text or "the server does not let you in")
    return ArgosyError(
        "conflict" if status in (409, 412) else "usage", text or f"the server answers {status}"
    )
