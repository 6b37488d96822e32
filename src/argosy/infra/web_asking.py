"""Single requests over HTTP with the standard library, for what is asked seldom: no redirects, limits of time
and size, certificates checked."""

from __future__ import annotations

import asyncio
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final

import msgspec

LATE_S: Final = 10.0
_LIMIT_BYTES: Final = 1 << 20


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one request. Names of headers are in small letters."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""


async def ask(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] = {},
    body: bytes | None = None,
    limit: int = _LIMIT_BYTES,
    ca_file: str = "",
) -> Heard:
    """What is answered, whatever its status. `ca_file`: the only certificates that are trusted, in PEM.

    Raises OSError (also TimeoutError), and ValueError for a body of more than `limit` bytes."""
    return await asyncio.to_thread(_ask, method, url, headers, body, limit, ca_file)


def _ask(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None, limit: int, ca_file: str
) -> Heard:
    if not url.startswith(("https://", "http://")):
        raise OSError(f"no address: {url[:40]}")
    context = ssl.create_default_context(cafile=ca_file or None)
    opener = urllib.request.build_opener(_Stay(), urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(url, data=body, headers=dict(headers), method=method)  # noqa: S310
    try:
        with opener.open(request, timeout=LATE_S) as reply:
            return _heard(reply.status, reply, limit)
    except urllib.error.HTTPError as error:
        with error:
            return _heard(error.code, error, limit)
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise error.reason from None
        raise OSError(str(error.reason)) from None


def _heard(status: int, reply: Any, limit: int) -> Heard:  # Any: what urllib reads from
    body: bytes = reply.read(limit + 1)
    if len(body) > limit:
        raise ValueError("too much")
    return Heard(status=status, headers={k.lower(): v for k, v in reply.headers.items()}, body=body)


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer, not an order."""

    def redirect_request(self, *_: Any) -> None:
        return None
