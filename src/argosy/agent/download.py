"""Getting and putting one URL after another over connections that stay open."""

from __future__ import annotations

import http.client
import os
import ssl
import time
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TIMEOUT_S = 60.0
_TRIES = 4
_WAIT_S = 0.3  # before the second one; each is twice as long
_REDIRECTS_MAX = 5
_PIECE_BYTES = 1 << 20
_ENCRYPTED = "x-amz-server-side-encryption"
_AGAIN = (408, 429, 500, 502, 503, 504)


class Failed(Exception):
    """`status` 0: nobody answered as an object store does."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class StoreClient:
    """Connections of one thread, one for each host. `required`: how what comes must be encrypted ("": as it
    is), and by which key ("": any); `encryption`: how the last that came was."""

    def __init__(self, required: tuple[str, str] = ("", "")) -> None:
        self._open: dict[str, http.client.HTTPConnection] = {}
        self._required = required
        self.encryption = ""

    @staticmethod
    def failed(why: str) -> Failed:
        """Nothing that the store has said."""
        return Failed(0, why)

    def close(self) -> None:
        for connection in self._open.values():
            connection.close()
        self._open.clear()

    def get(
        self, url: str, first: int, count: int, whole: bool, etag: str, sink: Callable[[bytes, int], None]
    ) -> None:
        """Give `count` bytes from `first` on to `sink(bytes, offset)`. `whole`: that is all of it. What came
        before a connection broke is not asked for again. Raises Failed, and what `sink` raises."""
        done = 0
        wait_s, left = _WAIT_S, _TRIES
        while True:
            before, left = done, left - 1
            try:
                for piece in self._pieces(url, first + done, count - done, whole and not done, etag):
                    sink(piece, first + done)
                    done += len(piece)
                if done == count:
                    return
                failure = Failed(0, "the answer ended after %d of %d bytes" % (done, count))
            except (OSError, http.client.HTTPException) as error:
                self.close()
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                failure = Failed(0, "%s: %s" % (urlsplit(url).hostname, reason))
                left = left if done else min(left, 1)  # a store that is not reached need not be waited for
            except Failed as error:
                failure = error
                if error.status not in _AGAIN:
                    raise
            if left <= 0 or done > count:
                raise failure
            if done == before:
                time.sleep(wait_s)
                wait_s *= 2

    def put(self, url: str, handle: int, size: int, more: dict[str, str]) -> None:
        """Send the file, whose handle is at its beginning. Raises Failed, OSError of the file."""
        wait_s = _WAIT_S
        for left in (1, 0):
            os.lseek(handle, 0, os.SEEK_SET)
            parts = urlsplit(url)
            target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
            headers = {"Content-Length": str(size), "User-Agent": "argosy-agent", **more}
            try:
                with os.fdopen(os.dup(handle), "rb", buffering=0) as body:
                    connection = self._connection(parts.scheme, parts.netloc)
                    connection.request("PUT", target, body=body, headers=headers)
                    answer = connection.getresponse()
                    if answer.status in (200, 201, 204):
                        answer.read()
                        return
                    failure = Failed(answer.status, _said(answer))
                if answer.status not in _AGAIN:
                    raise failure
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                failure = Failed(0, "%s: %s" % (parts.hostname, reason))
            self.close()
            if left:
                time.sleep(wait_s)
        raise failure

    def _pieces(self, url: str, first: int, count: int, whole: bool, etag: str) -> Iterator[bytes]:
        headers = {"Accept-Encoding": "identity", "User-Agent": "argosy-agent"}
        if not whole:
            headers["Range"] = "bytes=%d-%d" % (first, first + count - 1)
        if etag:
            headers["If-Match"] = '"%s"' % etag
        answer = self._answer(url, headers)
        try:
            if answer.status not in (200, 206) or (not whole and answer.status == 200 and first):
                raise Failed(answer.status, _said(answer))
            self._check(answer)
            left = count
            while left:
                piece = answer.read(min(_PIECE_BYTES, left))
                if not piece:
                    return
                left -= len(piece)
                yield piece
        finally:
            if answer.length:
                self.close()  # what is left of the answer would be taken for the next one
            else:
                answer.read()

    def _check(self, answer: http.client.HTTPResponse) -> None:
        self.encryption = answer.headers.get(_ENCRYPTED) or ""
        wanted, key = self._required
        has = answer.headers.get(_ENCRYPTED + "-aws-kms-key-id") or ""
        if wanted and (self.encryption != wanted or not has.endswith(key)):
            raise Failed(0, "it is not encrypted as is required")

    def _answer(self, url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        for _ in range(_REDIRECTS_MAX):
            parts = urlsplit(url)
            connection = self._connection(parts.scheme, parts.netloc)
            target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
            connection.request("GET", target, headers=headers)
            answer = connection.getresponse()
            place = answer.headers.get("Location")
            if answer.status not in (301, 302, 303, 307, 308) or not place:
                return answer
            answer.read()
            there = urljoin(url, place)
            if parts.scheme == "https" and not there.startswith("https:"):
                raise Failed(answer.status, "%s leads to an address without TLS" % parts.hostname)
            url = there
            headers = {name: value for name, value in headers.items() if name != "If-Match"}
        raise Failed(310, "more than %d redirects" % _REDIRECTS_MAX)

    def _connection(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        key = scheme + "://" + netloc
        connection = self._open.get(key)
        if connection is None:
            proxy = "" if proxy_bypass(urlsplit(key).hostname or "") else getproxies().get(scheme, "")
            through = urlsplit(proxy if "//" in proxy else "//" + proxy).netloc if proxy else ""
            if scheme == "https":
                connection = http.client.HTTPSConnection(
                    through or netloc, timeout=_TIMEOUT_S, context=_trusted()
                )
            else:
                connection = http.client.HTTPConnection(through or netloc, timeout=_TIMEOUT_S)
            if through:
                connection.set_tunnel(netloc)
            self._open[key] = connection
        return connection


_CONTEXT: list[ssl.SSLContext] = []


def _trusted() -> ssl.SSLContext:
    if not _CONTEXT:
        context = ssl.create_default_context()
        for variable in ("AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
            path = os.environ.get(variable, "")
            if path and os.path.exists(path):
                context.load_verify_locations(path)
        _CONTEXT.append(context)
    return _CONTEXT[0]


def _said(answer: http.client.HTTPResponse) -> str:
    """The status and the code that the store gives with it, without the address, which is signed."""
    text = answer.read(2000).decode("utf-8", "replace")
    code = text.partition("<Code>")[2].partition("</Code>")[0]
    return "HTTP %d %s" % (answer.status, code or answer.reason or "")
