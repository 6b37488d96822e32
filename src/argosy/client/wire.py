"""HTTP/1.1 without I/O: bytes of requests out, bytes of replies in. Both transports share it.

Our own, because importing `http.client` costs a fifth of what `argosy status` may take in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

HEAD_LIMIT_BYTES: Final = 64 << 10


class WireError(Exception):
    """The peer does not speak HTTP/1.1."""


def render_head(
    method: str, target: str, host: str, headers: Sequence[tuple[str, str]], body_bytes: int
) -> bytes:
    """The head of a request whose body has `body_bytes` bytes.

    >>> render_head("GET", "/v1/health", "argosy", (), 0)
    b'GET /v1/health HTTP/1.1\\r\\nhost: argosy\\r\\n\\r\\n'
    """
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}"]
    if body_bytes or method in ("POST", "PUT"):
        lines.append(f"content-length: {body_bytes}")
    for name, value in headers:
        if "\n" in value or "\r" in value:
            raise WireError(f"header {name} has a line break")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class _State(Enum):
    HEAD = 0
    SIZED = 1  # content-length
    CHUNK_SIZE = 2
    CHUNK_DATA = 3
    CHUNK_END = 4
    TRAILER = 5
    UNTIL_CLOSE = 6
    DONE = 7


class ReplyParser:
    """One reply: feed it bytes, take out pieces of its body as they come.

    `status` is 0 until the head is complete. `done` when the body is complete.
    """

    def __init__(self, *, without_body: bool = False) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.keep_alive = True
        self._without_body = without_body
        self._state = _State.HEAD
        self._line = bytearray()  # an incomplete head or line
        self._left = 0  # bytes to come of the body or of the chunk

    @property
    def done(self) -> bool:
        return self._state is _State.DONE

    @property
    def left_plain(self) -> int:
        """Bytes of the body that come next, with nothing between them; 0: that is not known."""
        return self._left if self._state is _State.SIZED else 0

    def took(self, count: int) -> None:
        """So many of them were read elsewhere."""
        self._left -= count
        if self._left == 0:
            self._state = _State.DONE

    def feed(self, data: bytes) -> list[bytes]:
        """Pieces of the body in `data`. Raises WireError."""
        pieces: list[bytes] = []
        view = memoryview(data)
        at = 0
        size = len(data)
        while at < size:
            state = self._state
            if state is _State.CHUNK_DATA or state is _State.SIZED:
                taken = min(self._left, size - at)
                pieces.append(data if taken == size else bytes(view[at : at + taken]))
                at += taken
                self._left -= taken
                if self._left == 0:
                    self._state = _State.DONE if state is _State.SIZED else _State.CHUNK_END
            elif state is _State.UNTIL_CLOSE:
                pieces.append(bytes(view[at:]))
                at = size
            elif state is _State.HEAD:
                at = self._take_head(data, at)
            elif state is _State.DONE:
                self.keep_alive = False  # more than one reply for one request: do not trust this connection
                at = size
            else:
                at = self._take_line(data, at)
        return pieces

    def feed_end(self) -> None:
        """The peer closed. Raises WireError when the reply is incomplete."""
        self.keep_alive = False
        if self._state is _State.UNTIL_CLOSE:
            self._state = _State.DONE
        if self._state is not _State.DONE:
            raise WireError("the connection was closed in the middle of a reply")

    def _take_head(self, data: bytes, at: int) -> int:
        before = len(self._line)
        self._line += data[at : at + HEAD_LIMIT_BYTES]
        end = self._line.find(b"\r\n\r\n", max(0, before - 3))
        if end < 0:
            if len(self._line) > HEAD_LIMIT_BYTES:
                raise WireError("the head of the reply is too long")
            return min(len(data), at + HEAD_LIMIT_BYTES)
        self._parse_head(bytes(self._line[:end]))
        self._line.clear()
        return at + end + 4 - before

    def _parse_head(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        code = rest[:3]
        if not version.startswith("HTTP/1.") or not code.isdigit():
            raise WireError(f"not an HTTP reply: {first[:80]!r}")
        status = int(code)
        if 100 <= status < 200 and status != 101:
            return  # an interim reply: the real one follows
        for line in lines:
            name, colon, value = line.partition(":")
            if colon:
                self.headers[name.strip().lower()] = value.strip()
        self.status = status
        connection = self.headers.get("connection", "").lower()
        self.keep_alive = connection != "close" and (version != "HTTP/1.0" or connection == "keep-alive")
        if self._without_body or status in (101, 204, 304):
            self._state = _State.DONE
        elif "chunked" in self.headers.get("transfer-encoding", "").lower():
            self._state = _State.CHUNK_SIZE
        elif "content-length" in self.headers:
            length = self.headers["content-length"]
            if not length.isdigit():
                raise WireError(f"bad content-length {length[:40]!r}")
            self._left = int(length)
            self._state = _State.SIZED if self._left else _State.DONE
        else:
            self.keep_alive = False
            self._state = _State.UNTIL_CLOSE

    def _take_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        if end < 0:
            self._line += data[at:]
            if len(self._line) > HEAD_LIMIT_BYTES:
                raise WireError("a line of the reply is too long")
            return len(data)
        line = bytes(self._line + data[at:end]).strip()
        self._line.clear()
        if self._state is _State.CHUNK_SIZE:
            try:
                self._left = int(line.partition(b";")[0], 16)
            except ValueError:
                raise WireError(f"bad chunk size {line[:40]!r}") from None
            self._state = _State.CHUNK_DATA if self._left else _State.TRAILER
        elif self._state is _State.CHUNK_END:
            if line:
                raise WireError("a chunk is longer than it said")
            self._state = _State.CHUNK_SIZE
        elif not line:  # the trailer ends with an empty line
            self._state = _State.DONE
        return end + 1
