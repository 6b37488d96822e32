"""A terminal on a node, over the WebSocket endpoint `shell`. Imports `websockets`, and only when it is
opened."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import msgspec

from argosy.api.location import Location
from argosy.api.shell import ShellCalls
from argosy.client.connection import host_of, open_socket, unreachable
from argosy.client.replies import error_of
from argosy.model.errors import ArgosyError

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

FRAME_LIMIT_BYTES: Final = 16 << 20


class Size(NamedTuple):
    """Of a terminal, in characters."""

    rows: int = 24
    columns: int = 80


class _Said(msgspec.Struct, frozen=True, kw_only=True):
    """A text frame of the server."""

    exit_code: int | None = None


class Shell:
    """An open terminal. `read` and `write` may be used from two threads."""

    def __init__(self, connection: ClientConnection) -> None:
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
        from websockets.exceptions import ConnectionClosed

        try:
            for message in self._connection:
                if isinstance(message, bytes):
                    yield message
                    continue
                try:
                    self.exit_code = msgspec.json.decode(message, type=_Said).exit_code
                except msgspec.DecodeError:
                    continue  # said by a newer server
        except ConnectionClosed:
            return

    def write(self, data: bytes) -> None:
        """What the user types. After the end it goes nowhere."""
        from websockets.exceptions import ConnectionClosed

        try:
            self._connection.send(data)
        except ConnectionClosed:
            pass

    def resize(self, size: Size) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            self._connection.send(msgspec.json.encode({"rows": size.rows, "columns": size.columns}).decode())
        except ConnectionClosed:
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
    from websockets.exceptions import InvalidHandshake, InvalidStatus
    from websockets.sync.client import connect

    target = ShellCalls.shell(
        cluster, node=node, command=command or None, rows=size.rows, columns=size.columns
    ).target
    headers = {"Authorization": f"Bearer {location.token}"} if location.token else {}
    if location.project:
        headers["X-Argosy-Project"] = location.project
    try:
        raw = open_socket(location)
        raw.settimeout(None)
        connection = connect(
            f"ws://{host_of(location)}{location.prefix}{target}",  # `raw` is already TLS where it must be
            sock=raw,
            additional_headers=headers,
            compression=None,
            proxy=None,
            max_size=FRAME_LIMIT_BYTES,
        )
    except InvalidStatus as error:
        raise error_of(error.response.status_code, bytes(error.response.body or b"")) from None
    except InvalidHandshake as error:
        raise ArgosyError("version-mismatch", f"the server does not open terminals: {error}") from None
    except (OSError, EOFError, TimeoutError) as error:
        raise unreachable(location, str(error)) from None
    return Shell(connection)
