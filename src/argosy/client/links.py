"""A pool of connections to one host. Safe to use from several threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from argosy.api.location import Location
from argosy.client.connection import Broken, Connection, FileSpan
from argosy.client.wire import ReplyParser

_TIMEOUT_S: Final = 180.0
_BUFFER_BYTES: Final = 1 << 20
Take = Callable[[bytes], object]
TakeView = Callable[[bytes | memoryview], object]


class Links:
    def __init__(self, location: Location) -> None:
        self._location = location
        self._free: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._own = threading.local()

    def close(self) -> None:
        while not self._free.empty():
            self._free.get_nowait().close()

    def ask(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: Sequence[bytes],
        take: Take,
        take_error: Take,
        begin: Callable[[int, dict[str, str]], object] = lambda status, headers: None,
    ) -> ReplyParser:
        """The reply's head; its body went to `take`, or to `take_error` when it is no success. `begin` gets
        the status and the headers of a success before its body. Raises Broken."""

        def send(connection: Connection) -> None:
            connection.send(method, target, headers, body, _TIMEOUT_S)

        return self._asked(method, send, take, take_error, begin)

    def fill(
        self, target: str, headers: Sequence[tuple[str, str]], take: TakeView, take_error: Take
    ) -> ReplyParser:
        """As `ask` with GET, for much: what `take` gets is gone when it returns."""
        connection = self._connection()
        parser = ReplyParser()
        try:
            connection.send("GET", target, headers, (), _TIMEOUT_S)
            for piece in connection.read_into(parser, _TIMEOUT_S, self._buffer()):
                if parser.status < 300:
                    take(piece)
                else:
                    take_error(bytes(piece))
        except BaseException:
            connection.close()
            raise
        self._keep(connection, parser)
        return parser

    def _buffer(self) -> memoryview:
        """One for each thread."""
        if not hasattr(self._own, "buffer"):
            self._own.buffer = memoryview(bytearray(_BUFFER_BYTES))
        found: memoryview = self._own.buffer
        return found

    def put(
        self,
        target: str,
        headers: Sequence[tuple[str, str]],
        size: int,
        pieces: Iterable[bytes],
        take_error: Take,
        method: str = "PUT",
    ) -> ReplyParser:
        """`size` bytes go up, piece by piece. Raises Broken, and what `pieces` raises."""

        def send(connection: Connection) -> None:
            connection.send_stream(method, target, headers, size, pieces, _TIMEOUT_S)

        return self._asked(method, send, take_error, take_error)

    def put_file(
        self, method: str, target: str, headers: Sequence[tuple[str, str]], span: FileSpan, take_error: Take
    ) -> ReplyParser:
        """As `put`, of bytes of a file. Raises EOFError when they are not there any more."""

        def send(connection: Connection) -> None:
            connection.send_file(method, target, headers, span, _TIMEOUT_S)

        return self._asked(method, send, take_error, take_error)

    def _asked(
        self,
        method: str,
        send: Callable[[Connection], None],
        take: Take,
        take_error: Take,
        begin: Callable[[int, dict[str, str]], object] = lambda status, headers: None,
    ) -> ReplyParser:
        connection = self._connection()
        parser = ReplyParser(without_body=method == "HEAD")
        try:
            send(connection)
            began = False
            for piece in connection.read(parser, _TIMEOUT_S):
                if not began and parser.status < 300:
                    began = True
                    begin(parser.status, parser.headers)
                (take if parser.status < 300 else take_error)(piece)
            if not began and parser.status < 300:
                begin(parser.status, parser.headers)
        except BaseException:
            connection.close()
            raise
        self._keep(connection, parser)
        return parser

    def _keep(self, connection: Connection, parser: ReplyParser) -> None:
        if parser.keep_alive:
            self._free.put(connection)
        else:
            connection.close()

    def _connection(self) -> Connection:
        while True:
            try:
                found = self._free.get_nowait()
            except queue.Empty:
                try:
                    return Connection(self._location)
                except OSError as error:
                    raise Broken(error.strerror or str(error)) from None
            if found.is_usable():
                return found
            found.close()
