"""A terminal on a node, over the WebSocket endpoint `shell`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, NamedTuple, Self

import msgspec

from argosy.api.location import Location
from argosy.api.shell import ShellCalls
from argosy.client.node_stream import open_web_socket
from argosy.client.web_socket import WebSocket

_TELL_BYTES: Final = 256 << 10  # of output, between two words about what has arrived
_TYPED_BYTES: Final = 64 << 10  # kept of what is typed while there is no line
#: Errors that pass: the server restarts, or its line to the node is cut.
_PASSING: Final = ("server-unreachable", "server-starting", "node-unreachable", "transient")


class Size(NamedTuple):
    """Of a terminal, in characters."""

    rows: int = 24
    columns: int = 80


class _Said(msgspec.Struct, frozen=True, kw_only=True):
    """A text frame of the server."""

    exit_code: int | None = None


class _Lasting(msgspec.Struct, frozen=True, kw_only=True, rename={"start": "from"}):
    """A text frame of the server about a terminal of a session."""

    id: str = ""
    start: int = 0  # which byte of its output comes next
    exit_code: int | msgspec.UnsetType | None = msgspec.UNSET


class Shell:
    """An open terminal. `read` and `write` may be used from two threads."""

    def __init__(self, connection: WebSocket) -> None:
        self._connection = connection
        self.exit_code: int | None = None  # known after `read` has come to its end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self) -> Iterator[bytes]:
        """What the terminal prints, until the program ends or the connection is lost."""
        try:
            while True:
                message = self._connection.recv()
                if isinstance(message, bytes):
                    yield message
                    continue
                try:
                    self.exit_code = msgspec.json.decode(message, type=_Said).exit_code
                except msgspec.DecodeError:
                    continue  # said by a newer server
        except OSError:
            return

    def write(self, data: bytes) -> None:
        """What the user types. After the end it goes nowhere."""
        try:
            self._connection.send(data)
        except OSError:
            pass

    def resize(self, size: Size) -> None:
        try:
            self._connection.send(msgspec.json.encode({"rows": size.rows, "columns": size.columns}).decode())
        except OSError:
            pass

    def close(self) -> None:
        self._connection.close()


class LastingShell(Shell):
    """A terminal of a session: a line that is cut is opened again, with the same shell and no byte lost or
    twice. What is typed meanwhile follows."""

    def __init__(
        self,
        open_line: Callable[[str, int], WebSocket],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        patience_s: float = 90.0,
    ) -> None:
        """`open_line(id, seen)` opens a line to a terminal of which so many bytes are known (-1: none, "": a
        new one). Raises what it raises, at first."""
        super().__init__(open_line("", -1))
        self._open_line, self._patience_s, self._clock, self._sleep = open_line, patience_s, clock, sleep
        self._seen, self._told = -1, 0
        self.id = ""
        self.lost_bytes = 0  # of its output, which nobody kept
        self._typed = bytearray()  # while there is no line
        self._size: Size | None = None
        self._lock = threading.Lock()
        self._is_cut = self._is_closed = False

    def read(self) -> Iterator[bytes]:
        while True:
            try:
                message = self._connection.recv()
            except OSError:
                if self.exit_code is not None or not self._resume():
                    return
                continue
            if isinstance(message, str):
                if self._hear(message):
                    continue
                self._connection.close()  # the server's line to the node is cut
                if not self._resume():
                    return
                continue
            self._seen += len(message)
            if self._seen - self._told >= _TELL_BYTES:
                self._told = self._seen
                self._say({"seen": self._seen})
            yield message

    def _hear(self, message: str) -> bool:
        """False: it says that the shell is out of reach."""
        try:
            said = msgspec.json.decode(message, type=_Lasting)
        except msgspec.DecodeError:
            return True  # said by a newer server
        if said.id:
            if self._seen >= 0:
                self.lost_bytes += max(0, said.start - self._seen)
            self.id, self._seen = said.id, said.start
            self._told = said.start
        if said.exit_code is None:
            return False
        if said.exit_code is not msgspec.UNSET:
            self.exit_code = said.exit_code
        return True

    def _resume(self) -> bool:
        """A new line to the same shell. False: there is none to be had, or the shell has ended."""
        from argosy.model.errors import ArgosyError

        with self._lock:
            self._is_cut = True
        until_s, pause_s = self._clock() + self._patience_s, 0.05
        while self.id and not self._is_closed:
            try:
                self._connection = self._open_line(self.id, self._seen)
            except ArgosyError as error:
                if error.code not in _PASSING or self._clock() >= until_s:
                    return False
                self._sleep(pause_s)
                pause_s = min(2.0, pause_s * 2)
                continue
            with self._lock:
                self._is_cut, typed = False, bytes(self._typed)
                self._typed.clear()
            if self._size is not None:
                super().resize(self._size)
            if typed:
                super().write(typed)
            return True
        return False

    def write(self, data: bytes) -> None:
        with self._lock:
            if self._is_cut:
                self._typed += data[: _TYPED_BYTES - len(self._typed)]
                return
        try:
            self._connection.send(data)
        except OSError:
            with self._lock:
                self._typed += data[: _TYPED_BYTES - len(self._typed)]

    def resize(self, size: Size) -> None:
        self._size = size
        super().resize(size)

    def _say(self, what: dict[str, int]) -> None:
        try:
            self._connection.send(msgspec.json.encode(what).decode())
        except OSError:
            pass  # the reader sees it, too

    def close(self) -> None:
        self._is_closed = True
        super().close()


def open_shell(
    location: Location,
    cluster: str,
    *,
    node: int = 0,
    command: str = "",
    size: Size = Size(),  # noqa: B008  a constant
) -> Shell:
    """A terminal on node `node` of a cluster: a login shell, or `command`. The server must run.

    Errors: those that the server tells ("not-found", "wrong-state", "node-unreachable", "unauthorized"), and
    "server-unreachable".
    """
    target = ShellCalls.shell(
        cluster, node=node, command=command or None, rows=size.rows, columns=size.columns
    ).target
    return Shell(open_web_socket(location, target))
