"""S3's calls from here, over connections that are kept: signed, repeated when the store is busy, and sent to
the region where the bucket is. What a store refuses becomes an error of `infra.buckets`.

Only the standard library: it serves every store that speaks S3.
"""

from __future__ import annotations

import contextlib
import http.client
import queue
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from argosy.infra.buckets import (
    AccessRefused,
    BucketError,
    BucketInUse,
    BucketMissing,
    ConditionFailed,
    CredentialsExpired,
    CredentialsMissing,
    Damaged,
    NoSpace,
    NotPossible,
    ObjectMissing,
    RequestRefused,
    StoreBusy,
    StoreUnreachable,
    WrongRegion,
)
from argosy.model.object_urls import NAME_RULE, missing_hint
from argosy.storage.s3_signing import (
    UNSIGNED,
    Asked,
    Keys,
    Query,
    path_of,
    presigned,
    query_of,
    signed_headers,
)

_TRIES: Final = 4
_WAIT_S: Final = 0.3
_TIMEOUT_S: Final = 60.0
_READ: Final = 1 << 20
_ERROR_MAX: Final = 64 << 10
_CODE: Final = re.compile(rb"<Code>([^<]*)</Code>")
_TOLD: Final = re.compile(rb"<Message>([^<]*)</Message>")
_REGION: Final = re.compile(rb"<Region>([^<]*)</Region>")
_BUSY: Final = frozenset(
    ("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "ThrottlingException",
     "TooManyRequests", "OperationAborted")
)  # fmt: skip
_UNKNOWN_KEYS: Final = frozenset(
    ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidSecurity", "NotSignedUp")
)
_FULL: Final = frozenset(
    ("InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity")
)
_DAMAGE: Final = frozenset(("BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"))


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where buckets are. `endpoint`: as `https://HOST[:PORT]`, in which `{region}` may stand; `sign_in`: what
    makes credentials; `bucket_url`: a bucket as users write it, in which `{bucket}` stands."""

    title: str
    endpoint: str
    region: str
    bucket_url: str
    sign_in: str
    virtual_host: bool = False
    ca_file: str = ""  # of who signed the endpoint's certificate ("": those that the system trusts)

    def at(self, region: str) -> str:
        return self.endpoint.replace("{region}", region)


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes


class Wire:
    """Calls on one bucket. Safe to use from several threads. `keys_of`: fresh keys, None for nobody in
    particular; it is asked for every call. `region` is where the bucket turned out to be."""

    def __init__(
        self,
        site: Site,
        bucket: str,
        keys_of: Callable[[], Keys | None],
        now_s: Callable[[], float],
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.site, self.bucket, self.region = site, bucket, site.region
        self.keys_of, self._now_s, self._wait = keys_of, now_s, wait
        self._free: queue.SimpleQueue[tuple[str, http.client.HTTPConnection]] = queue.SimpleQueue()

    @property
    def url(self) -> str:
        return self.site.bucket_url.replace("{bucket}", self.bucket)

    @property
    def endpoint(self) -> str:
        return self.site.at(self.region)

    def close(self) -> None:
        while not self._free.empty():
            self._free.get_nowait()[1].close()

    def ask(
        self,
        method: str,
        key: str = "",
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        payload: str = UNSIGNED,
    ) -> Reply:
        """One call with its whole reply. Raises a BucketError."""
        with self.stream(method, key, query, headers, body, payload=payload) as (status, told, pieces):
            return Reply(status, told, b"".join(pieces))

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        key: str = "",
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        payload: str = UNSIGNED,
    ) -> Iterator[tuple[int, Mapping[str, str], Iterable[bytes]]]:
        """Status, headers and the pieces of a reply, inside the block. Raises a BucketError."""
        connection, response = self._answered(method, key, query, headers or {}, body, payload)
        told = {name.lower(): value for name, value in response.getheaders()}
        try:
            yield response.status, told, self._pieces(response, key)
            whole = response.isclosed() and not response.will_close
        except BaseException:
            connection.close()
            raise
        if whole:
            self._free.put((self.endpoint, connection))
        else:
            connection.close()

    def _pieces(self, response: http.client.HTTPResponse, key: str) -> Iterator[bytes]:
        try:
            while piece := response.read(_READ):
                yield piece
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error, key) from None

    def _answered(
        self, method: str, key: str, query: Query, headers: Mapping[str, str], body: bytes, payload: str
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        moved = False
        for left in reversed(range(_TRIES)):
            try:
                return self._once(method, key, query, headers, body, payload)
            except WrongRegion as error:
                if moved or not error.region or error.region == self.region:
                    raise
                self.region, moved = error.region, True
            except StoreBusy as error:
                if not left:
                    raise
                self._wait(max(error.after_s, _WAIT_S * 2 ** (_TRIES - left)))
        return self._once(method, key, query, headers, body, payload)

    def _once(
        self, method: str, key: str, query: Query, headers: Mapping[str, str], body: bytes, payload: str
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        host, path = self._place(key)
        text = query_of(query)
        keys = self.keys_of()
        sent = dict(headers)
        if keys is not None:
            asked = Asked(method, host, path, text)
            sent = signed_headers(keys, self.region, self._now_s(), asked, headers, payload)
        sent["content-length"] = str(len(body))
        target = f"{path}?{text}" if text else path
        kept = True
        while True:
            connection = self._kept() if kept else None
            kept = connection is not None  # one that was closed meanwhile proves nothing
            connection = connection or self._connected()
            try:
                connection.request(method, target, body=body or None, headers={"host": host, **sent})
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if kept:
                    continue
                raise self._unreachable(error, key) from None
            if response.status < 300 or response.status == 304:
                return connection, response
            try:
                said = response.read(_ERROR_MAX)
            except (OSError, http.client.HTTPException):
                said = b""
            connection.close()
            raise self._refusal(response, said, key)

    def _place(self, key: str) -> tuple[str, str]:
        """Host and path of a request line."""
        netloc = urlsplit(self.endpoint).netloc
        path = "/" + path_of(key) if key else ""
        if self.site.virtual_host and self.bucket:
            return f"{self.bucket}.{netloc}", path or "/"
        return netloc, f"/{self.bucket}{path}" if self.bucket else "/"

    def _kept(self) -> http.client.HTTPConnection | None:
        while True:
            try:
                endpoint, connection = self._free.get_nowait()
            except queue.Empty:
                return None
            if endpoint == self.endpoint:
                return connection
            connection.close()

    def _connected(self) -> http.client.HTTPConnection:
        split = urlsplit(self.endpoint)
        host = split.hostname or ""
        if self.site.virtual_host and self.bucket:
            host = f"{self.bucket}.{host}"
        if split.scheme == "https":
            context = ssl.create_default_context(cafile=self.site.ca_file or None)
            return http.client.HTTPSConnection(host, split.port, timeout=_TIMEOUT_S, context=context)
        return http.client.HTTPConnection(host, split.port, timeout=_TIMEOUT_S)

    def sign(self, key: str, method: str, seconds: int, headers: Mapping[str, str]) -> str | None:
        """Headers are those that the request will have to say."""
        keys = self.keys_of()
        if keys is None:
            return None
        host, path = self._place(key)
        now_s = self._now_s()
        if keys.expires_s:
            seconds = max(1, min(seconds, int(keys.expires_s - now_s)))
        told = presigned(keys, self.region, now_s, seconds, Asked(method, host, path, ""), headers)
        return f"{urlsplit(self.endpoint).scheme}://{host}{told}"

    # -- what is refused ------------------------------------------------------------------------------------

    def _unreachable(self, error: Exception, key: str) -> BucketError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return RequestRefused(
                f"the certificate of {self.endpoint} is not trusted ({error.verify_message})",
                f"look who answers there; for {self.url}, `ca_file` in buckets.yaml names who signs it",
            )
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return StoreUnreachable(
            f"{self.site.title} does not answer at {self.endpoint} ({why or type(error).__name__})",
            f"check the endpoint of {self.url} and the network; it is tried again by itself",
        )

    def _refusal(self, response: http.client.HTTPResponse, said: bytes, key: str) -> BucketError:
        code = _found(_CODE, said)
        region = response.getheader("x-amz-bucket-region") or _found(_REGION, said)
        if (code == "AuthorizationHeaderMalformed" and region) or response.status in (301, 307):
            return WrongRegion(
                f"the bucket {self.url} is in {region or 'another region'}, not in {self.region}",
                region,
                f"say so: `region: {region or 'REGION'}` for {self.url.partition('://')[0]} in buckets.yaml",
            )
        if not code and said.lstrip()[:1] == b"<" and b"<html" in said[:500].lower():
            return StoreUnreachable(
                f"{self.endpoint} answers with a web page ({response.status}): it is no object store",
                f"check the endpoint of {self.url}: it is the one for S3 clients, not the console's",
            )
        return self.refused(response.status, code, _found(_TOLD, said), key)

    def refused(self, status: int, code: str, told: str, key: str) -> BucketError:
        """The error for a status and S3's code ("": the reply had none, as those to HEAD)."""
        url, title = self.url, self.site.title
        whole = f"{url}/{key}" if key else url
        if code == "InvalidBucketName":
            return RequestRefused(f"{url} cannot be a bucket", f"a bucket's name has {NAME_RULE}")
        if code == "NoSuchBucket" or (status == 404 and not key):
            hint = missing_hint(self.bucket, "check its name; `argosy storage create` makes one")
            return BucketMissing(f"there is no bucket {url}", hint)
        if status == 404:
            return ObjectMissing(f"there is no {whole}", f"`argosy storage ls {url}/` lists what there is")
        if code in ("ExpiredToken", "RequestExpired", "TokenRefreshRequired", "ExpiredTokenException"):
            return CredentialsExpired(
                f"the credentials for {url} have expired",
                f"{self.site.sign_in}, then repeat: what was copied is not copied again",
            )
        if code in _UNKNOWN_KEYS or status == 401:
            return CredentialsMissing(
                f"{title} does not accept the credentials for {url} ({code or status})", self.site.sign_in
            )
        if code == "RequestTimeTooSkewed":
            return AccessRefused(
                f"the clock of this machine is more than 15 minutes off, says {title}", "set the clock"
            )
        if code in _BUSY or status in (429, 500, 502, 503, 504):
            return StoreBusy(f"{title} is busy ({code or status})", "it is tried again by itself")
        if code in _FULL or status == 507:
            return NoSpace(f"there is no room left behind {url} ({told or code})", "free some, then repeat")
        if code in _DAMAGE:
            return Damaged(f"{whole} did not arrive as it was sent ({code})", "repeat it")
        if status == 412 or code in ("ConditionalRequestConflict", "PreconditionFailed"):
            return ConditionFailed(f"{whole} is not as it was expected", "look at it again, then repeat")
        if code in ("BucketNotEmpty", "BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
            return BucketInUse(f"{url}: {told or code}", "empty it first, or choose another name")
        if status == 403:
            return AccessRefused(
                f"{title} does not let us do that with {whole} ({told or 'forbidden'})",
                f"ask the owner of {url} for access, or use other credentials: {self.site.sign_in}",
            )
        if status in (405, 501):
            return NotPossible(f"{title} cannot do that ({told or code or status})")
        return RequestRefused(f"{title} refuses {whole}: {told or code or status}")


def _found(pattern: re.Pattern[bytes], text: bytes) -> str:
    match = pattern.search(text)
    return match[1].decode("utf-8", "replace").strip() if match is not None else ""
