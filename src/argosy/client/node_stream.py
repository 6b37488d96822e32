"""A byte stream to a node through the server, over a WebSocket."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

import msgspec

from argosy.api.location import Location
from argosy.client.connection import host_of, open_socket, unreachable
from argosy.client.web_socket import Refused, WebSocket
from argosy.client.wire import WireError
from argosy.model.errors import ArgosyError

FRAME_LIMIT_BYTES: Final = 16 << 20
_OPENING_S: Final = 60.0  # a node may make its host key first
_END: Final = '{"end":true}'


class _Said(msgspec.Struct, frozen=True):
    end: bool = False


def open_web_socket(location: Location, target: str) -> WebSocket:
    """A WebSocket to an endpoint. The server must run. Errors: those that the server tells, and
    "server-unreachable"."""
    headers = [("authorization", f"Bearer {location.token}")] if location.token else []
    if location.project:
        headers.append(("x-argosy-project", location.project))
    try:
        raw = open_socket(location)
        raw.settimeout(_OPENING_S)
        opened = WebSocket(raw, location.prefix + target, host_of(location), headers, FRAME_LIMIT_BYTES)
        raw.settimeout(None)
        return opened
    except Refused as error:
        from argosy.client.replies import error_of

        raise error_of(error.status, error.body) from None
    except WireError as error:
        raise ArgosyError("version-mismatch", f"the server does not open streams: {error}") from None
    except OSError as error:
        raise unreachable(location, error.strerror or str(error)) from None


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
        except (msgspec.MsgspecError, OSError):
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
        try:
            self._connection.send(data)
        except OSError:
            return False
        return True

    def end(self) -> None:
        """Nothing more will be written."""
        try:
            self._connection.send(_END)
        except OSError:
            pass

    def close(self) -> None:
        self._connection.close()
