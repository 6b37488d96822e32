"""`connect`: standard input and output become a connection to the agent's socket on this machine."""

from __future__ import annotations

import os
import selectors
import socket
import sys

from argosy.agent.addresses import socket_address

_PIECE_BYTES = 256 << 10


def dial(path: str) -> socket.socket:
    """A connection to a unix socket. Raises OSError."""
    address, folder = socket_address(path)
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.connect(address)
    except OSError:
        line.close()
        raise
    finally:
        if folder is not None:
            os.close(folder)
    return line


def run(path: str) -> int:
    """Say `connected`, then carry bytes both ways until one side ends. Exit status 4: nobody listens."""
    try:
        line = dial(path)
    except OSError as error:
        os.write(1, ("%s\n" % (error.strerror or error)).encode())
        return 4
    sys.stdin.close()
    os.write(1, b"connected\n")
    try:
        _carry(line)
    except OSError:
        pass  # a side is gone: so are we
    return 0


def _carry(line: socket.socket) -> None:
    waiting = selectors.DefaultSelector()
    try:
        waiting.register(0, selectors.EVENT_READ)
    except OSError:  # a file or /dev/null: nothing comes
        line.shutdown(socket.SHUT_WR)
    waiting.register(line, selectors.EVENT_READ)
    while True:
        ready = [key.fileobj for key, _ in waiting.select()]
        if line in ready and not _pass_on(line.recv(_PIECE_BYTES)):
            return
        if 0 in ready:
            data = os.read(0, _PIECE_BYTES)
            line.sendall(data)
            if not data:
                waiting.unregister(0)
                line.shutdown(socket.SHUT_WR)


def _pass_on(data: bytes) -> bool:
    """To standard output; False at the end."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]
    return bool(data)
