"""Files behind plain HTTP, to be read (`infra.buckets.Bucket`): ranges, redirects, and what is refused."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from argosy.infra.buckets import (
    PIECE_BYTES,
    AccessRefused,
    BucketError,
    ChangedMeanwhile,
    CredentialsMissing,
    Damaged,
    NotPossible,
    ObjectMissing,
    ReadsOnly,
    RequestRefused,
    StoreBusy,
    StoreUnreachable,
    Traits,
)
from argosy.model.objects import ObjectInfo, ObjectPage

_REDIRECTS: Final = 6
_TIMEOUT_S: Final = 60.0


class WebSite(msgspec.Struct, frozen=True, kw_only=True):
    """`url`: as users write it; `base`: the address before a key ("": the same); `headers`: who asks, told to
    this host alone."""

    url: str
    title: str
    sign_in: str
    base: str = ""
    headers: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return f"WebSite(url={self.url!r})"


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class WebBucket(ReadsOnly):
    def __init__(self, site: WebSite) -> None:
        self.site = msgspec.structs.replace(site, base=site.base or site.url)

    @property
    def url(self) -> str:
        return self.site.url

    @property
    def region(self) -> str:
        return ""

    @property
    def traits(self) -> Traits:
        return Traits(writes=False, conditions=False)

    def close(self) -> None:
        """Nothing stays open."""

    def page(self, *, prefix: str = "", delimiter: str = "", after: str = "", most: int = 1000) -> ObjectPage:
        """A web server does not list: the one file that is named."""
        try:
            return ObjectPage(objects=(self.head(prefix),)) if prefix else ObjectPage()
        except ObjectMissing:
            return ObjectPage()

    def head(self, key: str) -> ObjectInfo:
        told = self.ask("HEAD", self._address(key), key).headers
        if "content-length" not in told:  # some tell it only to who reads
            told = self.ask("GET", self._address(key), key, {"range": "bytes=0-0"}).headers
        return _info(key, told)

    def _address(self, key: str) -> str:
        return f"{self.site.base}/{quote(key, safe='/-_.~%?&=+:,;@!$')}"

    def ask(self, method: str, address: str, key: str, headers: Mapping[str, str] | None = None) -> Reply:
        connection, response = self._open(method, address, key, headers or {})
        try:
            told = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, told, response.read())
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None
        finally:
            connection.close()

    def read(self, key: str, *, first: int = 0, count: int = -1, etag: str = "") -> Iterator[bytes]:
        if count == 0:
            return
        headers = {"range": f"bytes={first}-{first + count - 1 if count > 0 else ''}"}
        if not first and count < 0:
            headers = {}
        connection, response = self._open("GET", self._address(key), key, headers)
        try:
            told = {name.lower(): value for name, value in response.getheaders()}
            if etag and _info(key, told).etag not in ("", etag):
                raise ChangedMeanwhile(
                    f"{self.url}/{key} was replaced while it was read", "read it again from its beginning"
                )
            skip = first if response.status == 200 else 0  # it does not know ranges
            left = int(told.get("content-length", "-1"))
            while piece := response.read(PIECE_BYTES):
                left -= len(piece)
                piece = piece[skip:] if skip else piece
                skip = max(0, skip - PIECE_BYTES)
                if response.status == 200 and count > 0:
                    piece, count = piece[:count], count - len(piece[:count])
                    if piece:
                        yield piece
                    if not count:
                        return
                elif piece:
                    yield piece
            if left > 0:
                raise Damaged(f"{self.url}/{key} ended {left} bytes too early", "read it again")
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None
        finally:
            connection.close()

    def _open(
        self, method: str, address: str, key: str, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        host = urlsplit(address).netloc
        for _ in range(_REDIRECTS):
            split = urlsplit(address)
            own = self.site.headers if split.netloc == host else {}
            kind = http.client.HTTPSConnection if split.scheme == "https" else http.client.HTTPConnection
            connection = kind(split.netloc, timeout=_TIMEOUT_S)
            target = f"{split.path or '/'}{'?' + split.query if split.query else ''}"
            try:
                sent = {"user-agent": "argosy", "accept-encoding": "identity", **own, **headers}
                connection.request(method, target, headers=sent)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                raise self._unreachable(error) from None
            if response.status < 300:
                return connection, response
            connection.close()
            if response.status not in (301, 302, 303, 307, 308):
                raise self._refusal(response, key)
            following = urljoin(address, response.getheader("location") or "")
            if split.scheme == "https" and not following.startswith("https://"):
                raise RequestRefused(
                    f"{self.site.title} redirects {self.url}/{key} to an address without TLS",
                    "name that address yourself, when you trust the way to it",
                )
            address = following
        raise RequestRefused(f"{self.url}/{key} is redirected in a circle", "name its final address")

    def _refusal(self, response: http.client.HTTPResponse, key: str) -> BucketError:
        status, whole, title = response.status, f"{self.url}/{key}", self.site.title
        if status in (404, 410):
            return ObjectMissing(f"there is no {whole}", "check its name")
        if status == 401:
            return CredentialsMissing(f"{title} asks who we are for {whole}", self.site.sign_in)
        if status == 403:
            return AccessRefused(f"{title} does not let us read {whole}", self.site.sign_in)
        if status == 429 or status >= 500:
            after = response.getheader("retry-after") or ""
            wait_s = float(after) if after.isdigit() else 2.0
            return StoreBusy(f"{title} is busy ({status})", "it is tried again by itself", wait_s)
        return RequestRefused(f"{title} refuses {whole} ({status})", "look at the address with a browser")

    def _unreachable(self, error: Exception) -> BucketError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return RequestRefused(
                f"the certificate of {self.site.title} is not trusted ({error.verify_message})",
                "name who signs it in SSL_CERT_FILE, or look who answers there",
            )
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return StoreUnreachable(
            f"{self.site.title} does not answer ({why or type(error).__name__})", "check the address"
        )

    # -- what the web does not have -------------------------------------------------------------------------

    def refusal(self) -> NotPossible:
        return NotPossible(f"{self.url} can only be read", "copy to a bucket of yours")

    def sign(self, key: str, method: str, seconds: int) -> str | None:
        """Public files need no signature."""
        return self._address(key) if method == "GET" and not self.site.headers else None


def _info(key: str, told: Mapping[str, str]) -> ObjectInfo:
    size = int(told.get("content-range", "").rpartition("/")[2] or told.get("content-length", "0") or 0)
    etag = told.get("x-linked-etag", "") or told.get("etag", "")
    modified = told.get("last-modified", "")
    return ObjectInfo(
        key=key,
        size=int(told.get("x-linked-size", "") or size),
        etag=etag.removeprefix("W/").strip('"'),
        modified_ms=int(parsedate_to_datetime(modified).timestamp() * 1000) if modified else 0,
    )
