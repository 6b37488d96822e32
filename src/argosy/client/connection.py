"""Blocking connections to a server: unix socket, TCP or TLS, with keep-alive. Standard library only."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, Final, NamedTuple

from argosy.api.location import Location
from argosy.client.wire import ReplyParser, WireError, render_head
from argosy.model.errors import ArgosyError

READ_BYTES: Final = 256 << 10
CONNECT_TIMEOUT_S: Final = 10.0
REPLY_TIMEOUT_S: Final = 180.0  # a plan may ask several clouds


class Broken(Exception):
    """The connection failed in the middle of a request."""

    def __init__(self, text: str, *, answered: bool = False) -> None:
        super().__init__(text)
        self.answered = answered  # parts of a reply were already read


@contextmanager
def while_sending(silence: str) -> Iterator[None]:
    """Sending that fails is Broken, with the text `silence` when nothing was taken for too long. A server
    that has closed ends it quietly: it may have answered before, as that the body is too large."""
    try:
        yield
    except TimeoutError as error:
        raise Broken(silence) from error
    except (BrokenPipeError, ConnectionResetError):
        return
    except OSError as error:
        raise Broken(error.strerror or str(error)) from error


def unreachable(location: Location, why: str) -> ArgosyError:
    return ArgosyError("server-unreachable", f"no Argosy server answers at {location.render()}: {why}")


def open_socket(location: Location, timeout_s: float = CONNECT_TIMEOUT_S) -> socket.socket:
    """A connected socket. Raises OSError; "server-unreachable" when a socket is another user's."""
    if location.socket is not None:
        check_owner(location)
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            raw.settimeout(timeout_s)
            raw.connect(os.fspath(location.socket))
        except BaseException:
            raw.close()
            raise
        return raw
    raw = socket.create_connection((location.host, location.port), timeout=timeout_s)
    try:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A followed log may be silent for hours: let the kernel notice a peer that is gone.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        if location.tls:
            import ssl

            return ssl.create_default_context().wrap_socket(raw, server_hostname=location.host)
    except BaseException:
        raw.close()
        raise
    return raw


def check_owner(location: Location) -> None:
    """Refuses a socket below /tmp that somebody else put there to read our requests."""
    if location.socket is None or not location.is_default:
        return
    try:
        info = location.socket.lstat()
    except OSError:
        return  # absent: connecting says so
    if not stat.S_ISSOCK(info.st_mode) or info.st_uid not in (os.getuid(), 0):
        raise unreachable(location, f"the socket belongs to another user (uid {info.st_uid})")


def host_of(location: Location) -> str:
    if location.socket is not None:
        return "argosy"
    host = f"[{location.host}]" if ":" in location.host else location.host
    return f"{host}:{location.port}"


class FileSpan(NamedTuple):
    """Bytes of an open file. `on_bytes` hears how many more went: after each `step` of them."""

    file: BinaryIO
    first: int
    end: int
    step: int
    on_bytes: Callable[[int], object]


def fed(parser: ReplyParser, data: bytes, *, answered: bool) -> list[bytes]:
    """What comes of more bytes of a reply; b"": it ended. Raises Broken."""
    try:
        if data:
            return parser.feed(data)
        parser.feed_end()
    except WireError as error:
        raise Broken(str(error), answered=answered) from error
    return []


class Connection:
    """One connection, one request at a time."""

    def __init__(self, location: Location, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self._socket = open_socket(location, timeout_s)
        self._host = host_of(location)
        self.requests = 0

    def close(self) -> None:
        self._socket.close()

    def is_usable(self) -> bool:
        """Whether an idle connection is still open (the server sends nothing unasked)."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(1)  # b"": closed; a byte: out of step
        except (BlockingIOError, InterruptedError):
            return True
        except OSError as error:
            return type(error).__name__ == "SSLWantReadError"
        return False

    def send(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: Sequence[bytes],
        timeout_s: float,
    ) -> None:
        """Raises Broken."""
        self.requests += 1
        self._socket.settimeout(timeout_s)
        head = render_head(method, target, self._host, headers, sum(map(len, body)))
        with while_sending(f"the server took nothing for {timeout_s:.0f} s"):
            if sum(map(len, body)) < 64 << 10:
                self._socket.sendall(b"".join((head, *body)))
                return
            self._socket.sendall(head)
            for part in body:
                self._socket.sendall(part)

    def send_stream(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        size: int,
        pieces: Iterable[bytes],
        timeout_s: float,
    ) -> None:
        """A body of `size` bytes, piece by piece. Raises Broken, and what `pieces` raises: then the
        connection is out of step, and what was sent is not whole."""
        self.requests += 1
        self._socket.settimeout(timeout_s)
        try:
            self._socket.sendall(render_head(method, target, self._host, headers, size))
        except OSError as error:
            raise Broken(error.strerror or str(error)) from error
        for piece in pieces:
            try:
                self._socket.sendall(piece)
            except TimeoutError as error:
                raise Broken(f"nothing was taken for {timeout_s:.0f} s") from error
            except (BrokenPipeError, ConnectionResetError):
                return  # it may have answered before it closed
            except OSError as error:
                raise Broken(error.strerror or str(error)) from error

    def send_file(
        self, method: str, target: str, headers: Sequence[tuple[str, str]], span: FileSpan, timeout_s: float
    ) -> None:
        """A part of a file as the body, sent by the kernel where nothing encrypts it. Raises Broken, and
        EOFError when the file has become shorter."""
        self.requests += 1
        self._socket.settimeout(timeout_s)
        at, end = span.first, span.end
        with while_sending(f"nothing was taken for {timeout_s:.0f} s"):
            self._socket.sendall(render_head(method, target, self._host, headers, end - at))
            while at < end:
                went = self._socket.sendfile(span.file, at, min(span.step, end - at))
                at += went
                span.on_bytes(went)
                if not went:
                    raise EOFError(f"the file ends at byte {at}")

    def read(self, parser: ReplyParser, timeout_s: float | None) -> Iterator[bytes]:
        """Pieces of the body; `parser` has the status before the first one comes. Raises Broken."""
        self._socket.settimeout(timeout_s)
        answered = False
        while not parser.done:
            try:
                data = self._socket.recv(READ_BYTES)
            except TimeoutError as error:
                raise Broken(f"no answer within {timeout_s or 0:.0f} s", answered=answered) from error
            except OSError as error:
                raise Broken(error.strerror or str(error), answered=answered) from error
            answered = answered or bool(data)
            pieces = fed(parser, data, answered=answered)
            if parser.status and not pieces and not parser.done:
                yield b""  # the head is there: let a stream's reader look at it
            yield from pieces

    def read_into(
        self, parser: ReplyParser, timeout_s: float, buffer: memoryview
    ) -> Iterator[bytes | memoryview]:
        """As `read`; most pieces are parts of `buffer`, and gone when the next one is asked for."""
        for piece in self.read(parser, timeout_s):
            yield piece
            while parser.left_plain:
                try:
                    count = self._socket.recv_into(buffer, min(parser.left_plain, len(buffer)))
                except TimeoutError as error:
                    raise Broken(f"no answer within {timeout_s:.0f} s", answered=True) from error
                except OSError as error:
                    raise Broken(error.strerror or str(error), answered=True) from error
                if not count:
                    raise Broken("the connection was closed in the middle of a reply", answered=True)
                parser.took(count)
                yield buffer[:count]
