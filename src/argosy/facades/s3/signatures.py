"""AWS Signature Version 4: in the `Authorization` header, in the query of a presigned URL, and over chunks.

Source: Amazon's documentation of the S3 API, "Authenticating Requests (AWS Signature Version 4)".
"""

from __future__ import annotations

import calendar
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote_to_bytes

import msgspec

from argosy.model.objects import ObjectProblem

ALGORITHM: Final = "AWS4-HMAC-SHA256"
SKEW_S: Final = 900
_EXPIRES_MAX_S: Final = 7 * 24 * 3600
_EMPTY: Final = hashlib.sha256(b"").hexdigest()
_HEADER: Final = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=([^/,]+)/(\d{8})/([^/,]+)/([^/,]+)/aws4_request,\s*"
    r"SignedHeaders=([^,]+),\s*Signature=([0-9a-f]{64})"
)
_CREDENTIAL: Final = re.compile(r"([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed of an HTTP request. `path` and `query` as they stand in its first line."""

    method: str
    path: str
    query: Sequence[tuple[str, str]]  # decoded
    headers: Mapping[str, str]  # names in lower case


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose signature is right. `payload`: the hash of its body, or what stands for one."""

    key_id: str
    payload: str
    seed: str  # its signature, with which the first chunk's begins
    signing_key: bytes
    scope: str
    stamp: str


def verify(request: Request, secret_of: Callable[[str], str | None], now_s: float) -> Signed:
    """Raises ObjectProblem: AccessDenied (not signed), InvalidAccessKeyId, SignatureDoesNotMatch,
    RequestTimeTooSkewed, ExpiredToken."""
    query = dict(request.query)
    if "X-Amz-Signature" in query:
        return _presigned(request, query, secret_of, now_s)
    given = request.headers.get("authorization", "")
    if not given:
        raise ObjectProblem("AccessDenied", "the request is not signed: make a key with `argosy storage key`")
    found = _HEADER.fullmatch(given.strip())
    if found is None:
        raise ObjectProblem("AuthorizationHeaderMalformed", "only AWS4-HMAC-SHA256 signatures are understood")
    key_id, day, region, service, names, signature = found.groups()
    stamp = request.headers.get("x-amz-date", "")
    if not stamp.startswith(day):
        raise ObjectProblem("AuthorizationHeaderMalformed", "x-amz-date is not of the credential's day")
    if abs(_seconds(stamp) - now_s) > SKEW_S:
        raise ObjectProblem(
            "RequestTimeTooSkewed", "the clocks of client and server differ by more than 15 minutes"
        )
    payload = request.headers.get("x-amz-content-sha256", _EMPTY)
    return _check(request, (key_id, day, region, service), names, signature, stamp, payload, secret_of)


def _presigned(
    request: Request, query: Mapping[str, str], secret_of: Callable[[str], str | None], now_s: float
) -> Signed:
    found = _CREDENTIAL.fullmatch(query.get("X-Amz-Credential", ""))
    stamp, age = query.get("X-Amz-Date", ""), query.get("X-Amz-Expires", "")
    if found is None or query.get("X-Amz-Algorithm") != ALGORITHM or not age.isdigit():
        raise ObjectProblem("AuthorizationQueryParametersError", "the presigned URL is not whole")
    begun_s = _seconds(stamp)
    if int(age) > _EXPIRES_MAX_S or begun_s - now_s > SKEW_S or now_s > begun_s + int(age):
        raise ObjectProblem("AccessDenied", "the presigned URL has expired")
    names, signature = query.get("X-Amz-SignedHeaders", ""), query["X-Amz-Signature"]
    unsigned = [(name, value) for name, value in request.query if name != "X-Amz-Signature"]
    request = msgspec.structs.replace(request, query=unsigned)
    key_id, day, region, service = found.groups()
    payload = request.headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    if "x-amz-content-sha256" not in names:
        payload = "UNSIGNED-PAYLOAD"
    return _check(request, (key_id, day, region, service), names, signature, stamp, payload, secret_of)


def _check(
    request: Request,
    credential: tuple[str, str, str, str],
    names: str,
    signature: str,
    stamp: str,
    payload: str,
    secret_of: Callable[[str], str | None],
) -> Signed:
    key_id, day, region, service = credential
    secret = secret_of(key_id)
    if secret is None:
        raise ObjectProblem("InvalidAccessKeyId", "this server does not know the access key")
    scope = f"{day}/{region}/{service}/aws4_request"
    signing_key = _signing_key(secret, day, region, service)
    wanted = _sign(signing_key, _text(stamp, scope, canonical(request, names, payload)))
    if not hmac.compare_digest(wanted, signature):
        raise ObjectProblem(
            "SignatureDoesNotMatch",
            "the signature is not right: look at the secret key, and at proxies in between",
        )
    return Signed(
        key_id=key_id, payload=payload, seed=signature, signing_key=signing_key, scope=scope, stamp=stamp
    )


def canonical(request: Request, names: str, payload: str) -> str:
    """The canonical request, from which the text that is signed follows."""
    query = "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(request.query)
    )
    path = quote(unquote_to_bytes(request.path), safe="/-_.~")
    headers = "".join(
        f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in names.split(";")
    )
    return f"{request.method}\n{path}\n{query}\n{headers}\n{names}\n{payload}"


def _text(stamp: str, scope: str, canonical_request: str) -> str:
    return f"{ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(canonical_request.encode()).hexdigest()}"


@lru_cache(256)
def _pads(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """HMAC's two digests of a key, to be copied: to begin them costs more than a request's text."""
    block = key.ljust(64, b"\0") if len(key) <= 64 else hashlib.sha256(key).digest().ljust(64, b"\0")
    return hashlib.sha256(block.translate(_INNER)), hashlib.sha256(block.translate(_OUTER))


_INNER: Final = bytes(each ^ 0x36 for each in range(256))
_OUTER: Final = bytes(each ^ 0x5C for each in range(256))


def _sign(key: bytes, text: str) -> str:
    """HMAC-SHA256 in hexadecimal digits."""
    inner, outer = (each.copy() for each in _pads(key))
    inner.update(text.encode())
    outer.update(inner.digest())
    return outer.hexdigest()


@lru_cache(256)
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


@lru_cache(64)
def _seconds(stamp: str) -> float:
    try:
        return calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise ObjectProblem("AccessDenied", "the request's date is not one") from None


class ChunkSigner:
    """Signatures of the chunks of one body, each of which begins with the one before."""

    def __init__(self, signed: Signed) -> None:
        self._signed, self._last = signed, signed.seed

    def check(self, digest: str, signature: str) -> None:
        """`digest`: SHA-256 of the chunk's bytes. Raises ObjectProblem."""
        head = f"{ALGORITHM}-PAYLOAD\n{self._signed.stamp}\n{self._signed.scope}\n{self._last}"
        self._next(f"{head}\n{_EMPTY}\n{digest}", signature)

    def check_trailer(self, text: bytes, signature: str) -> None:
        head = f"{ALGORITHM}-TRAILER\n{self._signed.stamp}\n{self._signed.scope}\n{self._last}"
        self._next(f"{head}\n{hashlib.sha256(text).hexdigest()}", signature)

    def _next(self, text: str, signature: str) -> None:
        wanted = _sign(self._signed.signing_key, text)
        if not hmac.compare_digest(wanted, signature):
            raise ObjectProblem("SignatureDoesNotMatch", "the signature of a chunk is not right")
        self._last = wanted
