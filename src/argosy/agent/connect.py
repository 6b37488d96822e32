"""`connect`: standard input and output become a connection to the agent's socket on this machine, or with
`--mux` as many as the other end opens (`mux`)."""

from __future__ import annotations

import os
import selectors
import socket
import sys

from argosy.agent.addresses import socket_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

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


def run_mux(path: str) -> int:
    """As `run`, for many connections; ends when the other end does."""
    try:
        dial(path).close()
    except OSError as error:
        os.write(1, ("%s\n" % (error.strerror or error)).encode())
        return 4
    sys.modules["ssl"] = None  # type: ignore[assignment]  # asyncio would load it
    import asyncio

    from argosy.agent.mux import GREETING, WINDOW_BYTES, Mux

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            near = await asyncio.open_unix_connection(sock=dial(path))
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, near[1]), pump(near[0], writer))
        near[1].close()
        writer.close()

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=WINDOW_BYTES)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
        flow = asyncio.StreamReaderProtocol(asyncio.StreamReader())
        transport, _ = await loop.connect_write_pipe(lambda: flow, sys.stdout.buffer)
        writer = asyncio.StreamWriter(transport, flow, reader, loop)
        writer.write(GREETING)
        await Mux(reader, writer, accept).run()

    asyncio.run(serve())
    return 0


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes to the end, and the end itself."""
    try:
        while True:
            data = await reader.read(_PIECE_BYTES)
            if not data:
                break
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


def run(path: str) -> int:
    """Say `connected`, then carry bytes both ways until one side ends. Exit status 4: nobody listens."""
    try:
        line = dial(path)
    except OSError as error:
        os.write(1, ("%s\n" % (error.strerror or error)).encode())
        return 4
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
