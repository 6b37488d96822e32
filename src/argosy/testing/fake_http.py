"""HTTP and WebSocket of the fake server: threads on a socket, standard library only."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Protocol

import msgspec

from argosy.model.errors import ArgosyError


class Served(Protocol):
    """What answers the requests. `socket` None: a TCP port of the loopback, which is written to `port`."""

    socket: Path | None
    port: int
    opened: set[Peer]
    body_limit_bytes: int

    def handle(self, peer: Peer, method: str, target: str, headers: dict[str, str], body: bytes) -> bool:
        """Answer one request. Whether the connection may go on."""


class Listener(threading.Thread):
    def __init__(self, server: Served) -> None:
        super().__init__(daemon=True)
        self._server = server
        if server.socket is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.bind(str(server.socket))
        else:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(("127.0.0.1", server.port))
            server.port = self._socket.getsockname()[1]
        self._socket.listen(64)

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            Peer(connection, self._server).start()

    def close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        except OSError:
            pass
        self._socket.close()
        if self is not threading.current_thread():
            self.join(5)


class Peer(threading.Thread):
    """One connection."""

    def __init__(self, connection: socket.socket, server: Served) -> None:
        super().__init__(daemon=True)
        self._socket = connection
        self._server = server
        self.input = connection.makefile("rb", buffering=256 << 10)

    def run(self) -> None:
        self._server.opened.add(self)
        try:
            while self._one():
                pass
        except (OSError, ValueError, struct.error):
            pass  # the other side went
        finally:
            self._server.opened.discard(self)
            self.close()

    def close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()

    def _one(self) -> bool:
        first = self.input.readline()
        if not first:
            return False
        method, target, _ = first.decode("latin-1").split(" ")
        headers: dict[str, str] = {}
        while line := self.input.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        size = int(headers.get("content-length", "0"))
        if size > self._server.body_limit_bytes:
            self.problem(ArgosyError("too-large", "the request is larger than the server takes"))
            time.sleep(0.05)
            return False
        return self._server.handle(self, method, target, headers, self.input.read(size))

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def reply(self, status: int, body: bytes, more: str = "") -> bool:
        """`more`: lines of headers, each with its end."""
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{more}"
        self.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        return True

    def problem(self, error: ArgosyError) -> bool:
        return self.reply(error.http_status, msgspec.json.encode(error.problem()))

    def start_chunks(self) -> None:
        self.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-argosy-log\r\ntransfer-encoding: chunked\r\n\r\n"
        )

    def chunk(self, data: bytes) -> None:
        self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")


class Terminal:
    """A WebSocket that echoes; `exit N` followed by Enter ends it with N. Only what our client sends."""

    def __init__(self, peer: Peer, server: Served) -> None:
        self._peer = peer
        self._server = server

    def serve(self, headers: dict[str, str], query: dict[str, str]) -> None:
        magic = headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(magic.encode()).digest()).decode()
        self._peer.send(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            f"sec-websocket-accept: {accept}\r\n\r\n".encode()
        )
        command = query.get("command", "")
        if command:
            self._frame(2, f"ran: {command} {query['rows']}x{query['columns']}\r\n".encode())
            self._end(int(command.rpartition("exit ")[2]) if "exit " in command else 0)
            return
        typed = b""
        while True:
            kind, data = self._read()
            if kind == 8:
                return
            if kind == 9:
                self._frame(10, data)
                continue
            if kind == 1:
                self._frame(2, b"resized to " + data + b"\r\n")
                continue
            typed += data
            self._frame(2, data)
            if b"exit " in typed and typed.rstrip(b"\r\n") != typed:
                self._end(int(typed.rpartition(b"exit ")[2].strip()))
                return

    def _end(self, status: int) -> None:
        self._frame(1, msgspec.json.encode({"exit_code": status}))
        self._frame(8, struct.pack(">H", 1000))
        try:
            while (
                self._read()[0] != 8
            ):  # what is left unread at the close would take our own last words with it
                pass
        except (OSError, struct.error):
            pass

    def _frame(self, kind: int, data: bytes) -> None:
        size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))
        self._peer.send(bytes([0x80 | kind]) + size + data)

    def _read(self) -> tuple[int, bytes]:
        kind, size = struct.unpack(">BB", self._peer.input.read(2))
        size &= 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", self._peer.input.read(2))
        mask = self._peer.input.read(4)
        data = self._peer.input.read(size)
        return kind & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
