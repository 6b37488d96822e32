"""AWS Signature Version 4, for who asks: headers of a request, and presigned URLs. Pure.

Source: Amazon's documentation of the S3 API, "Authenticating Requests (AWS Signature Version 4)".
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import quote

import msgspec

UNSIGNED: Final = "UNSIGNED-PAYLOAD"
_ALGORITHM: Final = "AWS4-HMAC-SHA256"
Query = Sequence[tuple[str, str]]


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """Who signs. `expires_s`: Unix time (0: never)."""

    id: str
    secret: str
    token: str = ""
    expires_s: float = 0.0

    def __repr__(self) -> str:
        return f"Keys(id={self.id!r})"


def path_of(text: str) -> str:
    """A key as it stands in a request line.

    >>> path_of("a b/ü+c")
    'a%20b/%C3%BC%2Bc'
    """
    return quote(text, safe="/-_.~")


def query_of(query: Query) -> str:
    """Sorted, as it is signed and sent."""
    return "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(query)
    )


class Asked(NamedTuple):
    """The first line of a request, as it is sent, and its host."""

    method: str
    host: str
    path: str
    query: str


def signed_headers(
    keys: Keys,
    region: str,
    now_s: float,
    asked: Asked,
    headers: Mapping[str, str],
    payload: str = UNSIGNED,
    service: str = "s3",
) -> dict[str, str]:
    """`headers` and those that prove who asks. `payload`: the SHA-256 of the body in hexadecimal digits."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
    all_headers = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    all_headers |= {"host": asked.host, "x-amz-date": stamp, "x-amz-content-sha256": payload}
    if keys.token:
        all_headers["x-amz-security-token"] = keys.token
    names = ";".join(sorted(all_headers))
    lines = "".join(f"{name}:{all_headers[name]}\n" for name in sorted(all_headers))
    request = f"{asked.method}\n{asked.path}\n{asked.query}\n{lines}\n{names}\n{payload}"
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    signature = _signature(keys, (region, service), stamp, scope, request)
    del all_headers["host"]
    all_headers["authorization"] = (
        f"{_ALGORITHM} Credential={keys.id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return all_headers


def presigned(
    keys: Keys,
    region: str,
    now_s: float,
    seconds: int,
    asked: Asked,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Path and query of a URL that is good for `seconds`, with these headers. `asked.query` is not used."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    told = {**headers, "host": asked.host}
    names = ";".join(sorted(told))
    own = [
        ("X-Amz-Algorithm", _ALGORITHM),
        ("X-Amz-Credential", f"{keys.id}/{scope}"),
        ("X-Amz-Date", stamp),
        ("X-Amz-Expires", str(seconds)),
        ("X-Amz-SignedHeaders", names),
    ]
    if keys.token:
        own.append(("X-Amz-Security-Token", keys.token))
    text = query_of(own)
    lines = "".join(f"{name}:{told[name]}\n" for name in sorted(told))
    request = f"{asked.method}\n{asked.path}\n{text}\n{lines}\n{names}\n{UNSIGNED}"
    return f"{asked.path}?{text}&X-Amz-Signature={_signature(keys, (region, 's3'), stamp, scope, request)}"


def _signature(keys: Keys, place: tuple[str, str], stamp: str, scope: str, request: str) -> str:
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{digest}"
    return hmac.new(_signing_key(keys.secret, stamp[:8], place), text.encode(), hashlib.sha256).hexdigest()


@lru_cache(64)
def _signing_key(secret: str, day: str, place: tuple[str, str]) -> bytes:
    """`place`: region and service."""
    key = f"AWS4{secret}".encode()
    for part in (day, *place, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
