"""Bytes carried between this machine and a node: a socket or two file handles on this side."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import Final

from argosy.client.node_stream import NodeStream
from argosy.model.errors import ArgosyError

_PIECE_BYTES: Final = 256 << 10


def carry(take: Callable[[], bytes], give: Callable[[bytes], object], stream: NodeStream) -> threading.Thread:
    """Both ways until the node has sent all; the thread may still be sending then. `take` gives b"" at this
    side's end, `give` raises OSError when nobody takes any more. Raises "node-unreachable"."""

    def send() -> None:
        try:
            while data := take():
                if not stream.write(data):
                    return
        except OSError:
            pass
        stream.end()

    sending = threading.Thread(target=send, daemon=True)
    sending.start()
    try:
        while data := stream.read():
            give(data)
    except OSError:
        pass
    return sending


def carry_handles(source: int, sink: int, stream: NodeStream) -> None:
    """Between a node and two file handles of this process."""

    def give(data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(sink, left) :]

    carry(lambda: os.read(source, _PIECE_BYTES), give, stream)


def listen(address: str, port: int) -> socket.socket:
    """A listener; port 0: any that is free. Raises "port-taken" and "usage"."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(64)
    except socket.gaierror as error:
        listener.close()
        raise ArgosyError("usage", f"`{address}` is no address of this machine: {error.strerror}") from None
    except OSError as error:
        listener.close()
        raise ArgosyError(
            "port-taken",
            f"cannot listen on {address}:{port}: {error.strerror}",
            hint="choose another, such as `0:PORT` for any that is free",
        ) from None
    return listener


def serve_port(
    listener: socket.socket, opened: Callable[[], NodeStream], say: Callable[[ArgosyError], None]
) -> None:
    """Every connection to `listener` becomes one to the node, until the listener is closed. `say` hears why
    one could not be made."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve_one, args=(connection, opened, say), daemon=True).start()


def _serve_one(
    connection: socket.socket, opened: Callable[[], NodeStream], say: Callable[[ArgosyError], None]
) -> None:
    with connection:
        try:
            with opened() as stream:
                sending = carry(lambda: connection.recv(_PIECE_BYTES), connection.sendall, stream)
                _shut(connection, socket.SHUT_WR)
                sending.join()
        except ArgosyError as error:
            say(error)


def _shut(connection: socket.socket, how: int) -> None:
    try:
        connection.shutdown(how)
    except OSError:
        pass  # it is gone
