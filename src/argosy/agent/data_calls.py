"""Calls that a process of its own answers: copies of data, which take threads, TLS and time."""

from __future__ import annotations

import asyncio
import os
import socket
import sys

from argosy.agent import processes, terminal

_HANDLE = 3  # of its socket


async def serve(
    verb: str,
    root: str,
    name: str,
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    upgraded: bytes,
) -> None:
    """Start it, and carry bytes between it and the caller until it ends, which it does when the caller has
    gone. Raises OSError when it cannot be started."""
    ours, theirs = socket.socketpair()
    argv = [sys.executable, "-I", "-S", os.path.abspath(sys.argv[0]), verb, "--root", root, "--name", name]
    try:
        processes.spawn(
            argv, dict(os.environ), "/dev/null", root + "/data.log", True, [(theirs.fileno(), _HANDLE)]
        )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    ours.setblocking(False)
    streams[1].write(upgraded)
    await terminal.join(streams, await asyncio.open_connection(sock=ours))
