"""A port of this machine's loopback where a browser brings a one-time code, once."""

from __future__ import annotations

import hashlib
import secrets
import socket
import time
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qs, urlsplit

from argosy.model.errors import ArgosyError

_HEAD_MAX: Final = 16 << 10
_PAGE: Final = b"You are signed in. This page can be closed."


class Waiting:
    """Listens from the beginning to the end of a `with`. `proof`: the hash of `secret`, which whoever uses
    the code must show: the code alone, seen in a browser's history, is worth nothing."""

    def __init__(self) -> None:
        self.secret = secrets.token_urlsafe(32)
        self.proof = hashlib.sha256(self.secret.encode()).hexdigest()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def code(self, within_s: float) -> str:
        """The code that comes. Raises ArgosyError `unauthorized` when none does."""
        deadline = time.monotonic() + within_s
        while (left_s := deadline - time.monotonic()) > 0:
            self._listener.settimeout(left_s)
            try:
                peer, _ = self._listener.accept()
            except TimeoutError:
                break
            with peer:
                found = _read(peer)
                if found:
                    return found
        raise ArgosyError("unauthorized", "nobody signed in", hint="`argosy login --browser` begins again")


def _read(peer: socket.socket) -> str:
    """The code of one request; "" for anything else, such as a picture for the tab."""
    peer.settimeout(5.0)
    head = b""
    try:
        while b"\r\n\r\n" not in head and len(head) < _HEAD_MAX:
            piece = peer.recv(4096)
            if not piece:
                return ""
            head += piece
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        codes = parse_qs(urlsplit(rest.partition(" ")[0]).query).get("code", [])
        body = _PAGE if method == "GET" and codes else b"Not found."
        status = "200 OK" if method == "GET" and codes else "404 Not Found"
        reply = f"HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\n"
        peer.sendall(reply.encode() + b"connection: close\r\n\r\n" + body)
    except OSError:
        return ""
    return codes[0] if method == "GET" and len(codes) == 1 else ""
