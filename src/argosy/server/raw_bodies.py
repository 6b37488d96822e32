"""Large bodies straight between a connection and a file: past the parser of HTTP, which copies each byte
several times.

It is done where the length is known and nothing encrypts the connection; elsewhere nothing here applies, and
bodies come and go as any others. A connection whose body was taken is closed after its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple

from argosy.model.errors import ArgosyError
from argosy.server.exchange import Disconnected, Exchange, Message, Receive, Scope, Send

_LEAST: Final = 2 << 20  # smaller bodies gain nothing
_BLOCK: Final = 256 << 10  # what is received stays in the cache of the processor until it is written
_QUIET_S: Final = 60.0  # without a byte of a body that is awaited
_UNREAD_S: Final = 300.0  # while the peer reads nothing of an answer
_SEND_MOST: Final = 1 << 30
_PIECE: Final = 512 << 10  # of a file that the kernel cannot send
FILES: Final = "http.response.zerocopysend"
_AT_ONCE: Final = 32  # each has a thread
_SUMMED_LATER: Final = 8  # so many blocks may wait for their sum

#: Gives, for one thread, what writes a piece behind the last one. Sums a piece.
Opens = Callable[[], AbstractContextManager[Callable[[memoryview], None]]]
Sum = Callable[[int, memoryview], None]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
_taken = threading.BoundedSemaphore(_AT_ONCE)


class RawBody(NamedTuple):
    """The rest of a request. `first`: what the parser has of it already; `left`: what still comes."""

    transport: asyncio.Transport
    sock: socket.socket
    first: bytes
    left: int


def raw_body(exchange: Exchange) -> RawBody | None:
    """Take over the connection of a request; from now on its parser gets no more. None: it stays with the
    parser."""
    cycle = _cycle(exchange.receive)
    length = exchange.header("content-length")
    if cycle is None or not length.isdigit() or int(length) < _LEAST or not _taken.acquire(blocking=False):
        return None
    if cycle.waiting_for_100_continue:
        cycle.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        cycle.waiting_for_100_continue = False
    cycle.keep_alive = False
    cycle.flow.pause_reading()
    first = bytes(cycle.body)
    cycle.body = type(cycle.body)()
    sock = socket.socket(fileno=os.dup(cycle.transport.get_extra_info("socket").fileno()))
    return RawBody(cycle.transport, sock, first, int(length) - len(first))


async def take(body: RawBody, at: int, opens: Opens, add: Sum | None) -> int:
    """All of it is written, from the place `at` on, and goes to `add` in a thread of its own. Returns where
    it ends. Raises Disconnected with what came written, and what writing raises."""
    return await _in_thread(body.sock, lambda: _receive(body, at, opens, add))


async def _in_thread(sock: socket.socket, work: Callable[[], int]) -> int:
    """A thread for this alone: slow peers keep nobody else's threads. Closes the descriptor."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[int] = loop.create_future()

    def run() -> None:
        try:
            result, error = work(), None
        except BaseException as raised:  # noqa: BLE001  the task raises it
            result, error = 0, raised
        loop.call_soon_threadsafe(_tell, done, result, error)

    threading.Thread(target=run, name="large-body", daemon=True).start()
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        sock.shutdown(socket.SHUT_RDWR)  # wakes the thread
        raise
    finally:
        if not done.done():
            await asyncio.wait({done})
        sock.close()
        _taken.release()


def _tell(done: asyncio.Future[int], end: int, error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(end)
    else:
        done.set_exception(error)


class _Coming:
    """What still comes of a body, in blocks that are used in turns."""

    def __init__(self, body: RawBody) -> None:
        self._body, self.left = body, body.left

    def pieces(self) -> Iterator[memoryview]:
        """Raises Disconnected behind the last piece that came."""
        blocks = [memoryview(bytearray(_BLOCK)) for _ in range(_SUMMED_LATER)]
        yield memoryview(self._body.first)
        while self.left:
            size = _fill(self._body.sock, blocks[0][: min(self.left, _BLOCK)])
            self.left -= size
            yield blocks[0][:size]
            if self.left and size < _BLOCK:
                raise Disconnected
            blocks.append(blocks.pop(0))


class _Summing:
    """Sums pieces in a thread, in their order; at most as many wait as there are blocks but one."""

    def __init__(self, add: Sum | None, thread: ThreadPoolExecutor) -> None:
        self._add, self._thread = add, thread
        self._waiting = deque[Future[None]]()

    def put(self, at: int, piece: memoryview) -> None:
        if self._add is not None:
            self._waiting.append(self._thread.submit(self._add, at, piece))
            self.wait(_SUMMED_LATER - 1)

    def wait(self, most: int = 0) -> None:
        while len(self._waiting) > most:
            self._waiting.popleft().result()


def _receive(body: RawBody, at: int, opens: Opens, add: Sum | None) -> int:
    """Blocks. One piece is summed while the next ones come. When it cannot be written, the rest is thrown
    away as it comes, so that who sends it gets to read why."""
    coming = _Coming(body)
    with ThreadPoolExecutor(1) as thread:
        summing = _Summing(add, thread)
        try:
            with opens() as write:
                for piece in coming.pieces():
                    write(piece)
                    summing.put(at, piece)
                    at += len(piece)
        except (ArgosyError, OSError):
            _throw_away(body.sock, coming.left)
            raise
        summing.wait()
    return at


def _throw_away(sock: socket.socket, left: int) -> None:
    block = memoryview(bytearray(_BLOCK))
    while left and (size := _fill(sock, block[: min(left, _BLOCK)])):
        left -= size


def _fill(sock: socket.socket, into: memoryview) -> int:
    """Until it is full, or nothing more comes."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    size = 0
    while size < len(into):
        try:
            got = sock.recv_into(into[size:])
        except BlockingIOError:
            if poll.poll(_QUIET_S * 1000):
                continue
            return size
        except OSError:
            return size
        if not got:
            return size
        size += got
    return size


def with_files(app: App) -> App:
    """An ASGI application whose answers may have pieces that are parts of files: messages
    `http.response.zerocopysend`, as ASGI has them, with `file`, `offset` and `count`."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("extensions", {})[FILES] = {}

        async def sending(message: Message) -> None:
            if message["type"] != FILES:
                await send(message)
                return
            fd, at, more = message["file"], message["offset"], message.get("more_body", False)
            end = at + message["count"]
            at += await send_file(receive, fd, at, end)
            while at < end:
                piece = await asyncio.to_thread(os.pread, fd, min(_PIECE, end - at), at)
                if not piece:
                    raise OSError(errno.EIO, "the file became shorter while it was sent")
                at += len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            if not more:
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        with contextlib.suppress(Disconnected):
            await app(scope, receive, sending)

    return answer


async def send_file(receive: Receive, fd: int, first: int, last: int) -> int:
    """After the head of an answer with a length: these bytes of a file, by the kernel, where that can be.
    `receive`: of the request. Returns how many went; 0: none, they are to be sent otherwise. Raises
    Disconnected."""
    cycle = _cycle(receive)
    if cycle is None or last - first < _LEAST or cycle.disconnected or not _taken.acquire(blocking=False):
        return 0
    sock = socket.socket(fileno=os.dup(cycle.transport.get_extra_info("socket").fileno()))
    while cycle.transport.get_write_buffer_size():  # noqa: ASYNC110  the head goes first; there is no event
        await asyncio.sleep(0)
    sent = await _in_thread(sock, lambda: _send(sock, fd, first, last))
    if sent < last - first:
        raise Disconnected
    cycle.expected_content_length -= sent
    return sent


def _send(sock: socket.socket, fd: int, first: int, last: int) -> int:
    """Blocks. Less than all: the peer is gone or takes nothing, or the file became shorter."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    at = first
    while at < last:
        try:
            went = os.sendfile(sock.fileno(), fd, at, min(last - at, _SEND_MOST))
        except BlockingIOError:
            if poll.poll(_UNREAD_S * 1000):
                continue
            break
        except OSError:
            break
        if not went:
            break
        at += went
    return at - first


def _cycle(receive: Receive) -> Any:  # Any: of uvicorn's protocol, by what it has
    """The request in the server's parser, where it has a plain connection that can be taken; else None."""
    cycle = getattr(receive, "__self__", None)
    needed = ("transport", "flow", "body", "waiting_for_100_continue", "expected_content_length")
    if not all(hasattr(cycle, name) for name in needed):
        return None
    transport = cycle.transport  # type: ignore[union-attr]
    plain = transport.get_extra_info("socket") is not None and transport.get_extra_info("sslcontext") is None
    return cycle if plain and not transport.is_closing() else None
