"""The client's half of a WebSocket (RFC 6455) over a connected socket. Standard library only: every `ssh` to
a session starts a program that speaks it, and importing a library for it took a third of its time."""

from __future__ import annotations

import binascii
import os
import select
import socket
import threading
from collections.abc import Sequence
from typing import Final

from argosy.client.wire import ReplyParser, WireError, render_head

_READ_BYTES: Final = 256 << 10
_CONTINUED, _TEXT, _BYTES, _CLOSE, _PING = 0, 1, 2, 8, 9
_PONG: Final = 10
_CLOSE_S: Final = 2.0  # the other side's farewell is awaited so long
_NORMAL: Final = b"\x03\xe8"  # 1000: the end as it should be
_LARGE_BYTES: Final = 16 << 10  # from here on masks are laid on by a library, where it is installed
_OPEN_MASK: Final = bytes(4)


class Refused(Exception):
    """The server answered with another status than 101."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"HTTP status {status}")
        self.status, self.body = status, body


class WebSocket:
    """An open WebSocket. `recv` is for one thread; `send` for any."""

    def __init__(
        self, raw: socket.socket, target: str, host: str, headers: Sequence[tuple[str, str]], limit_bytes: int
    ) -> None:
        """Shakes hands over `raw`, which it owns from now on. `limit_bytes`: of one message that comes.
        Raises Refused, WireError, OSError."""
        self._raw, self._limit = raw, limit_bytes
        self._sending = threading.Lock()
        self._owed: bytes | None = None  # the answer to a ping that came while a message was on its way
        # Masks keep scripts of a browser from speaking in tongues to proxies on the way. On a unix socket
        # there is nothing on the way.
        self._masks = raw.family != socket.AF_UNIX
        self._closed = False
        try:
            self._buffer = self._shake_hands(target, host, headers)
        except BaseException:
            raw.close()
            raise

    def _shake_hands(self, target: str, host: str, headers: Sequence[tuple[str, str]]) -> bytearray:
        key = binascii.b2a_base64(os.urandom(16), newline=False).decode()
        asked = (
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-key", key),
            ("sec-websocket-version", "13"),
        )
        self._raw.sendall(render_head("GET", target, host, (*asked, *headers), 0))
        parser, come = ReplyParser(), bytearray()
        body: list[bytes] = []
        while not parser.done and len(come) <= self._limit:
            data = self._raw.recv(_READ_BYTES)
            if not data:
                parser.feed_end()
                break
            come += data
            body += parser.feed(data)
        if parser.status != 101:
            raise Refused(parser.status, b"".join(body))
        import hashlib

        digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False)
        if parser.headers.get("sec-websocket-accept") != binascii.b2a_base64(digest.digest())[:-1].decode():
            raise WireError("the answer to the WebSocket handshake does not fit its key")
        return come[come.index(b"\r\n\r\n") + 4 :]

    def recv(self) -> bytes | str:
        """The next message. Raises ConnectionError at the end of the connection, however it comes."""
        parts = bytearray()
        kind = _CONTINUED
        while True:
            opcode, is_last, payload = self._frame()
            if opcode == _CLOSE:
                self._send_close()
                raise ConnectionResetError("the server has closed the WebSocket")
            if opcode == _PING:
                self._owed = payload
                self._answer_ping(waits=False)
            if opcode > _BYTES:
                continue
            kind = opcode or kind
            if is_last and not parts:
                return payload if kind == _BYTES else payload.decode("utf-8", "replace")
            parts += payload
            if len(parts) > self._limit:
                raise self._broken("a message is too long")
            if is_last:
                return bytes(parts) if kind == _BYTES else parts.decode("utf-8", "replace")

    def _frame(self) -> tuple[int, bool, bytes]:
        first, second = self._take(2)
        size = second & 127
        if size > 125:
            size = int.from_bytes(self._take(2 if size == 126 else 8), "big")
        if second & 128 or first & 112 or size > self._limit:
            raise self._broken("a frame is not understood")
        return first & 15, bool(first & 128), self._take(size)

    def _take(self, size: int) -> bytes:
        buffer = self._buffer
        while len(buffer) < size:
            data = self._raw.recv(max(_READ_BYTES, min(size - len(buffer), 4 << 20)))
            if not data:
                raise ConnectionResetError("the connection was closed")
            buffer += data
        taken = bytes(memoryview(buffer)[:size])
        del buffer[:size]
        return taken

    def _broken(self, why: str) -> ConnectionError:
        self._closed = True
        self._raw.close()
        return ConnectionAbortedError(f"the server's WebSocket: {why}")

    def send(self, message: bytes | str) -> None:
        """Raises OSError when it goes nowhere any more."""
        if isinstance(message, str):
            self._send_frame(_TEXT, message.encode())
        else:
            self._send_frame(_BYTES, message)

    def _send_frame(self, opcode: int, payload: bytes) -> None:
        mask = os.urandom(4) if self._masks else _OPEN_MASK
        frame = _head_of(opcode, len(payload)) + mask + (_masked(payload, mask) if self._masks else payload)
        with self._sending:
            if self._closed:
                raise ConnectionResetError("the WebSocket is closed")
            self._raw.sendall(frame)
        self._answer_ping(waits=True)

    def _answer_ping(self, *, waits: bool) -> None:
        """The one who reads never waits for the one who writes: an other side that reads only what it could
        write before would wait for us, and we for it. Who holds the line sends what is owed."""
        while self._owed is not None and self._sending.acquire(blocking=False):
            try:
                owed = self._owed
                if owed is None or self._closed or not (waits or self._has_room()):
                    return  # the next message takes it along
                self._owed = None
                mask = os.urandom(4)
                self._raw.sendall(_head_of(_PONG, len(owed)) + mask + _masked(owed, mask))
            finally:
                self._sending.release()

    def _has_room(self) -> bool:
        looks = select.poll()
        looks.register(self._raw, select.POLLOUT)
        return bool(looks.poll(0))

    def _send_close(self) -> None:
        try:
            self._send_frame(_CLOSE, _NORMAL)
        except OSError:
            pass
        self._closed = True

    def close(self) -> None:
        """Say farewell, and wait a moment for the other side's."""
        if not self._closed:
            self._send_close()
            try:
                self._raw.settimeout(_CLOSE_S)
                while self._raw.recv(_READ_BYTES):
                    pass
            except OSError:
                pass
        self._raw.close()


def _head_of(opcode: int, size: int) -> bytes:
    """Of a frame that is a whole message and has a mask."""
    head = bytes((128 | opcode, 128 | min(size, 126) if size < 65536 else 255))
    return head + size.to_bytes(2 if size < 65536 else 8, "big") if size > 125 else head


def _masked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    if size >= _LARGE_BYTES:
        try:
            from websockets.speedups import apply_mask
        except ImportError:
            pass
        else:
            return apply_mask(payload, mask)
    pattern = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return (int.from_bytes(payload, "big") ^ pattern).to_bytes(size, "big")
