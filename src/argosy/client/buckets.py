"""Objects of every store that the server can open, from here: S3's calls over the connection that every
command has.

Names are URLs; the bucket of another store stands in a path as its URL. Large files go in parts, several at
once; a file that was there before is replaced when all of it has arrived.
"""

from __future__ import annotations

import hashlib
import os
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote, urlencode

from argosy.api.location import Location
from argosy.client.connection import Broken, unreachable
from argosy.client.landing import Landing, check_unchanged, pieces_of, replaced
from argosy.client.links import Links, TakeView
from argosy.model.errors import CODES, ArgosyError
from argosy.model.object_urls import missing_hint, split_url
from argosy.model.syncing import is_digest

SCHEME: Final = "argosy://"
PARALLEL: Final = 8
_MOUNT: Final = "/s3"
_PART_BYTES: Final = 16 << 20
_TAG: Final = "{http://s3.amazonaws.com/doc/2006-03-01/}"

OnBytes = Callable[[int], None]


class Place(NamedTuple):
    """A URL. `bucket`: of this server by its name, of another store as `s3://data`; an empty one is all of
    this server's. A key that is empty or ends in `/` is what begins with it."""

    bucket: str
    key: str

    def render(self) -> str:
        return f"{self.url}/{self.key}" if self.bucket else SCHEME

    @property
    def url(self) -> str:
        """Of the bucket."""
        return self.bucket if "://" in self.bucket else f"{SCHEME}{self.bucket}"


class Stored(NamedTuple):
    key: str
    size: int
    etag: str
    modified: str  # 2026-11-29T20:00:00.000Z

    @property
    def modified_ms(self) -> int:
        if not self.modified:
            return 0
        return int(datetime.fromisoformat(self.modified).timestamp() * 1000)


class Listed(NamedTuple):
    objects: list[Stored]
    prefixes: list[str]


def parse_place(text: str) -> Place | None:
    """None: it is a path of this machine.

    >>> parse_place("argosy://data/train/a.bin"), parse_place("s3://data/a"), parse_place("./a")
    (Place(bucket='data', key='train/a.bin'), Place(bucket='s3://data', key='a'), None)
    """
    found = split_url(text)
    return Place(found[0].removeprefix(SCHEME), found[1]) if found is not None else None


class Buckets:
    """Calls on one server. Safe to use from several threads: each call takes a free connection."""

    def __init__(self, location: Location, encryption: str = "") -> None:
        self._location, self._encryption = location, _wish(encryption)
        self._links = Links(location)
        self._pool = ThreadPoolExecutor(PARALLEL)  # of ranges; threads begin with the first of them

    def close(self) -> None:
        self._pool.shutdown()
        self._links.close()

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
        target, own, wrong = _target(place, query), self._headers(headers), list[bytes]()
        try:
            parser = self._links.ask(method, target, own, (body,) if body else (), take, wrong.append)
        except Broken as error:
            raise unreachable(self._location, str(error)) from None
        if parser.status >= 300:
            raise _refusal(parser.status, b"".join(wrong), place)
        return parser.headers

    def _fill(self, place: Place, headers: Sequence[tuple[str, str]], take: TakeView) -> None:
        """As `_stream`, for much: what `take` gets is gone when it returns."""
        wrong: list[bytes] = []
        try:
            parser = self._links.fill(_target(place), self._headers(headers), take, wrong.append)
        except Broken as error:
            raise unreachable(self._location, str(error)) from None
        if parser.status >= 300:
            raise _refusal(parser.status, b"".join(wrong), place)

    def _headers(self, more: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        own = list(more)
        if self._location.token:
            own.append(("authorization", f"Bearer {self._location.token}"))
        return own

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
                self._ask("GET", place, headers=[("range", "bytes=0-0")])  # to HEAD nobody says why
                raise
            if "://" not in place.bucket or "no bucket" in error.what:
                query = [("list-type", "2"), ("max-keys", "1"), ("prefix", place.key)]
                self._ask("GET", Place(place.bucket, ""), query)  # raises when there is no such bucket
            return None
        return Stored(place.key, int(told.get("content-length", "0")), told.get("etag", "").strip('"'), "")

    def upload(self, path: Path, place: Place, on_bytes: OnBytes) -> None:
        """Raises OSError for what is here, ArgosyError for what the server says and for a file that changes
        meanwhile."""
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= _PART_BYTES:
                data = b"".join(pieces_of(path, file))
                self._ask("PUT", place, body=data, headers=self._encryption)
                on_bytes(len(data))
                return
        self._upload_parts(path, size, place, on_bytes)

    def _upload_parts(self, path: Path, size: int, place: Place, on_bytes: OnBytes) -> None:
        before = path.stat()
        _, text = self._ask("POST", place, [("uploads", "")], headers=self._encryption)
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
            check_unchanged(path, before, path.stat())
        except BaseException:
            self._ask("DELETE", place, upload)
            raise
        rows = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
            for number, etag in zip(numbers, etags, strict=True)
        )
        body = f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()
        self._ask("POST", place, upload, body)

    def download(self, place: Place, path: Path, stored: Stored, on_bytes: OnBytes) -> None:
        """The file appears whole, or stays as it was."""
        with Landing(path, stored.size, stored.etag, on_bytes) as landing:
            if "://" in place.bucket:  # the server does not tell whether the ETag is an MD5
                landing.digest_unknown()

            def fetch(span: str, take: TakeView) -> None:
                headers = [("if-match", f'"{stored.etag}"')] if stored.etag else []
                headers += [("range", span)] if span else []
                try:
                    self._fill(place, headers, take)
                except ArgosyError as error:
                    if error.code == "conflict":
                        raise replaced(place.render()) from None
                    raise

            landing.fill(fetch, self._pool)

    def read(self, place: Place, take: Callable[[bytes], object]) -> None:
        self._stream("GET", place, (), b"", (), take)

    def copy(self, source: Place, target: Place) -> None:
        """Within the server: the bytes do not come here."""
        name = f"/{quote(source.bucket, safe='')}/{quote(source.key)}"
        self._ask("PUT", target, headers=[("x-amz-copy-source", name), *self._encryption])

    def remove(self, bucket: str, keys: Sequence[str]) -> None:
        for at in range(0, len(keys), 1000):
            root = ET.Element("Delete")
            for key in keys[at : at + 1000]:
                ET.SubElement(ET.SubElement(root, "Object"), "Key").text = key
            self._ask("POST", Place(bucket, ""), [("delete", "")], ET.tostring(root))


def _target(place: Place, query: Sequence[tuple[str, str]] = ()) -> str:
    target = f"{_MOUNT}/{quote(place.bucket, safe='')}"
    target += f"/{quote(place.key, safe='/')}" if place.key else ""
    return target + (f"?{urlencode(query)}" if query else "")


def _wish(encryption: str) -> tuple[tuple[str, str], ...]:
    """Headers that ask for it: AES256, aws:kms or aws:kms:KEY."""
    if not encryption:
        return ()
    kind, key = encryption, ""
    if encryption.startswith("aws:kms:"):
        kind, key = "aws:kms", encryption.removeprefix("aws:kms:")
    name = "x-amz-server-side-encryption"
    return ((name, kind), *(((f"{name}-aws-kms-key-id", key),) if key else ()))


def is_same(path: Path, stored: Stored) -> bool:
    """Whether a file has the object's bytes: by its MD5, in the parts that it may have come in; where the
    store does not tell one, by size and by who is younger."""
    try:
        told = path.stat()
        if told.st_size != stored.size:
            return False
        digest, _, parts = stored.etag.partition("-")
        if not is_digest(digest):
            return stored.modified_ms >= told.st_mtime_ns // 1_000_000
        if not parts:
            with path.open("rb") as file:
                return hashlib.file_digest(file, _md5).hexdigest() == digest
        sizes = [each << 20 for each in _PART_SIZES if -(-stored.size // (each << 20)) == int(parts)]
        return any(_in_parts(path, size) == digest for size in sizes)
    except (OSError, ValueError):
        return False


#: Sizes of parts in MiB that programs use.
_PART_SIZES: Final = (16, 8, 5, 64, 50, 10, 32, 100, 128, 256)


def _md5() -> hashlib._Hash:
    return hashlib.md5(usedforsecurity=False)


def _in_parts(path: Path, part_bytes: int) -> str:
    digest = _md5()
    with path.open("rb") as file:
        while data := file.read(part_bytes):
            digest.update(hashlib.md5(data, usedforsecurity=False).digest())
    return digest.hexdigest()


def _of(element: ET.Element, name: str) -> str:
    return element.findtext(f"{_TAG}{name}") or ""


def _refusal(status: int, body: bytes, place: Place) -> ArgosyError:
    try:
        root = ET.fromstring(body)  # noqa: S314  our own server's
        code, text = root.findtext("Code") or "", root.findtext("Message") or ""
        if (own := root.findtext("ArgosyCode") or "") in CODES:
            return ArgosyError(own, text, hint=root.findtext("Hint") or "")
    except ET.ParseError:
        code, text = "", body.decode("utf-8", "replace")[:300]
    if status == 404 and code in ("", "NoSuchKey"):
        what, hint = (
            f"there is no `{place.render()}`",
            f"`argosy storage ls {SCHEME}{place.bucket}/` lists it",
        )
        return ArgosyError("not-found", what, hint=hint)
    if code == "NoSuchBucket":
        hint = missing_hint(place.bucket, f"`argosy storage create {place.bucket}` makes it")
        return ArgosyError("not-found", f"there is no bucket `{place.bucket}`", hint=hint)
    if code == "InsufficientStorage":
        return ArgosyError("disk-full", text)
    if status in (401, 403):
        return ArgosyError("forbidden", text or "the server does not let you in")
    return ArgosyError(
        "conflict" if status in (409, 412) else "usage", text or f"the server answers {status}"
    )
