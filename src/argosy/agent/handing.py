"""An agent hands connections to a process of its own, which takes one after another.

Each comes with a line that the agent was told about it. The process ends when nothing has come for a while,
and when its agent has gone.
"""

from __future__ import annotations

import array
import os
import socket

_TEXT_MAX = 16 << 10


def give(control: socket.socket, stream: socket.socket, text: str) -> None:
    """`control` does not block. Raises OSError when nobody takes it."""
    handles = array.array("i", [stream.fileno()])
    control.sendmsg(
        [text.encode("utf-8", "surrogatepass") or b"\0"],
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handles.tobytes())],
        socket.MSG_NOSIGNAL,
    )


def is_ready(control: socket.socket) -> bool:
    """Whether what took the last one has said that it takes another. Raises OSError when it has gone."""
    try:
        word = control.recv(1)
    except BlockingIOError:
        return False
    if not word:
        raise BrokenPipeError("it has ended")
    return True


def say_ready(control: socket.socket) -> None:
    """Nobody may listen any more."""
    try:
        control.send(b"r", socket.MSG_NOSIGNAL)
    except OSError:
        pass


def take(control: socket.socket, patience_s: float) -> tuple[socket.socket, str] | None:
    """The next connection; None: there will be none."""
    control.settimeout(patience_s)
    try:
        return _receive(control)
    except socket.timeout:
        pass
    control.shutdown(socket.SHUT_RD)  # from here on the agent cannot give any; what it gave before counts
    return _receive(control)


def _receive(control: socket.socket) -> tuple[socket.socket, str] | None:
    size = socket.CMSG_SPACE(array.array("i").itemsize)
    try:
        data, extra, _, _ = control.recvmsg(_TEXT_MAX, size)
    except socket.timeout:
        raise
    except OSError:
        return None
    for level, kind, value in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            handle = array.array("i", value[:4])[0]
            os.set_inheritable(handle, False)
            return socket.socket(fileno=handle), data.decode("utf-8", "surrogatepass").rstrip("\0")
    return None
