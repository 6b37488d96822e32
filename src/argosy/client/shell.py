"""A terminal on a node, over the WebSocket endpoint `shell`."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple, Self

import msgspec

from argosy.api.location import Location
from argosy.api.shell import ShellCalls
from argosy.client.node_stream import open_web_socket
from argosy.client.web_socket import WebSocket


class Size(NamedTuple):
    """Of a terminal, in characters."""

    rows: int = 24
    columns: int = 80


class _Said(msgspec.Struct, frozen=True, kw_only=True):
    """A text frame of the server."""

    exit_code: int | None = None


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
