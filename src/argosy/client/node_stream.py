"""A byte stream to a node through the server, over a WebSocket. Imports `websockets`, and only when one is
opened."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import msgspec

from argosy.api.location import Location
from argosy.client.connection import host_of, open_socket, unreachable
from argosy.client.replies import error_of
from argosy.model.errors import ArgosyError

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

FRAME_LIMIT_BYTES: Final = 16 << 20
_END: Final = '{"end":true}'


class _Said(msgspec.Struct, frozen=True):
    end: bool = False


def open_web_socket(location: Location, target: str) -> ClientConnection:
    """A WebSocket to an endpoint. The server must run. Errors: those that the server tells, and
    "server-unreachable"."""
    from websockets.exceptions import InvalidHandshake, InvalidStatus
    from websockets.sync.client import connect

    headers = {"Authorization": f"Bearer {location.token}"} if location.token else {}
    if location.project:
        headers["X-Argosy-Project"] = location.project
    try:
        raw = open_socket(location)
        raw.settimeout(None)
        return connect(
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
        raise ArgosyError("version-mismatch", f"the server does not open streams: {error}") from None
    except (OSError, EOFError, TimeoutError) as error:
        raise unreachable(location, str(error)) from None


class NodeStream:
    """An open stream. `read` and `write` may be used from two threads."""

    def __init__(self, location: Location, target: str) -> None:
        """Errors: as `open_web_socket`."""
        self._connection = open_web_socket(location, target)
        self._line = b""  # what came behind the first line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self) -> bytes:
        """Some bytes; b"" when the node has sent all. Raises "node-unreachable" when the stream broke."""
        from websockets.exceptions import ConnectionClosed

        if self._line:
            left, self._line = self._line, b""
            return left
        try:
            while True:
                message = self._connection.recv()
                if isinstance(message, bytes):
                    if message:
                        return message
                elif msgspec.json.decode(message, type=_Said).end:
                    return b""
        except (ConnectionClosed, msgspec.MsgspecError, OSError):
            raise ArgosyError("node-unreachable", "the connection to the node was lost") from None

    def read_line(self) -> bytes:
        """The first line, without its end. Raises "node-unreachable"."""
        data = b""
        while b"\n" not in data:
            piece = self.read()
            if not piece:
                raise ArgosyError("node-unreachable", "the node ended the connection")
            data += piece
        line, _, self._line = data.partition(b"\n")
        return line

    def write(self, data: bytes) -> bool:
        """False when it goes nowhere any more."""
        from websockets.exceptions import ConnectionClosed

        try:
            self._connection.send(data)
        except (ConnectionClosed, OSError):
            return False
        return True

    def end(self) -> None:
        """Nothing more will be written."""
        from websockets.exceptions import ConnectionClosed

        try:
            self._connection.send(_END)
        except (ConnectionClosed, OSError):
            pass

    def close(self) -> None:
        self._connection.close()
