"""Objects straight from and to their store, by addresses that the server signed: no credentials are here, and
the bytes do not pass through the server.

What cannot go straight (the store signs nothing, or cannot be reached from here) goes through the server.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from argosy.api.location import Location
from argosy.api.storage import SignReply
from argosy.client.buckets import PARALLEL, OnBytes, Place, Stored
from argosy.client.connection import Broken
from argosy.client.landing import Landing, pieces_of, replaced
from argosy.client.links import Links, TakeView
from argosy.model.errors import ArgosyError
from argosy.model.syncing import is_digest

_AT_ONCE: Final = 500  # addresses that are asked for together
_LARGEST: Final = 5 << 30  # of one PUT
_ENCRYPTED: Final = "x-amz-server-side-encryption"
_SMALL: Final = 1 << 20
Sign = Callable[[str, Sequence[str], str, str], SignReply]


class NotDirect(Exception):
    """It has to go through the server."""


class Direct:
    """`prepare` a batch, then `upload` and `download` from several threads."""

    def __init__(self, sign: Sign, encryption: str = "") -> None:
        self._sign, self._encryption = sign, encryption
        self._links: dict[tuple[str, int, bool], Links] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(PARALLEL)  # of ranges; threads begin with the first of them
        self._urls: dict[tuple[Place, str], str] = {}
        self._headers: dict[str, Sequence[tuple[str, str]]] = {}
        self._off: set[str] = set()  # buckets that have no addresses, or cannot be reached

    def close(self) -> None:
        self._pool.shutdown()
        for links in self._links.values():
            links.close()

    def prepare(self, places: Iterable[Place], method: str) -> None:
        """Addresses for these, in few questions. Raises ArgosyError for what the store refuses."""
        self._urls.clear()
        by_bucket: dict[str, list[str]] = {}
        for place in places:
            if "://" in place.bucket and place.bucket not in self._off:
                by_bucket.setdefault(place.bucket, []).append(place.key)
        for bucket, keys in by_bucket.items():
            for at in range(0, len(keys), _AT_ONCE):
                self._prepare(bucket, keys[at : at + _AT_ONCE], method)

    def _prepare(self, bucket: str, keys: Sequence[str], method: str) -> None:
        reply = self._sign(bucket, keys, method, self._encryption if method == "PUT" else "")
        self._headers[bucket] = tuple(reply.headers.items())
        if not any(reply.urls):
            self._off.add(bucket)
        for key, url in zip(keys, reply.urls, strict=True):
            if url:
                self._urls[Place(bucket, key), method] = url

    def _address(self, place: Place, method: str) -> tuple[Links, str]:
        url = self._urls.get((place, method), "")
        if not url or place.bucket in self._off:
            raise NotDirect
        split = urlsplit(url)
        tls = split.scheme == "https"
        where = (split.hostname or "", split.port or (443 if tls else 80), tls)
        with self._lock:
            if where not in self._links:
                self._links[where] = Links(Location(None, *where))
        return self._links[where], f"{split.path}?{split.query}"

    def upload(self, path: Path, place: Place, on_bytes: OnBytes) -> None:
        """Raises NotDirect, OSError, ArgosyError."""
        links, target = self._address(place, "PUT")
        headers = list(self._headers.get(place.bucket, ()))
        wrong: list[bytes] = []
        with path.open("rb") as file:
            size = path.stat().st_size
            if size > _LARGEST:
                raise NotDirect
            try:
                if size <= _SMALL:
                    data = b"".join(pieces_of(path, file))
                    digest = hashlib.md5(data, usedforsecurity=False).digest()
                    headers.append(("content-md5", base64.b64encode(digest).decode()))
                    parser = links.ask("PUT", target, headers, (data,), wrong.append, wrong.append)
                    on_bytes(len(data))
                else:
                    seen = _Seen(pieces_of(path, file), on_bytes)
                    parser = links.put(target, headers, size, seen, wrong.append)
                    digest = seen.digest.digest()
            except Broken:
                self._off.add(place.bucket)
                raise NotDirect from None
        if parser.status >= 300:
            raise NotDirect  # the server asks again and says what is wrong, with what mends it
        etag = parser.headers.get("etag", "").strip('"')
        keyed = parser.headers.get(_ENCRYPTED, "AES256") != "AES256"
        if is_digest(etag) and etag != digest.hex() and not keyed:
            raise ArgosyError(
                "conflict",
                f"{place.render()} did not arrive as it was sent: its MD5 differs",
                hint="repeat it",
            )

    def download(self, place: Place, path: Path, stored: Stored, on_bytes: OnBytes) -> None:
        """Raises NotDirect, OSError, ArgosyError."""
        links, target = self._address(place, "GET")
        with Landing(path, stored.size, stored.etag, on_bytes) as landing:

            def fetch(span: str, take: TakeView) -> None:
                headers = [("if-match", f'"{stored.etag}"')] if stored.etag else []
                headers += [("range", span)] if span else []
                wrong: list[bytes] = []
                try:
                    parser = links.fill(target, headers, take, wrong.append)
                except Broken:
                    self._off.add(place.bucket)
                    raise NotDirect from None
                if parser.headers.get(_ENCRYPTED, "AES256") != "AES256":
                    landing.digest_unknown()
                if parser.status == 412:
                    raise replaced(place.render())
                if parser.status >= 300 or (span and parser.status != 206):
                    raise NotDirect

            landing.fill(fetch, self._pool)


class _Seen:
    """Pieces that are counted and digested as they pass."""

    def __init__(self, pieces: Iterable[bytes], on_bytes: OnBytes) -> None:
        self._pieces, self._on_bytes = pieces, on_bytes
        self.digest = hashlib.md5(usedforsecurity=False)

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.digest.update(piece)
            yield piece
            self._on_bytes(len(piece))
