"""Interactive byte streams: a shell on a pseudo-terminal, and a port of the node's loopback."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import termios

from argosy.agent import processes, wire
from argosy.agent.orders import Busy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from argosy.agent.ranks import Ranks

_READ_BYTES = 64 << 10
_HANG_UP_GRACE_S = 2.0
# a terminal that is silent for so long after its program ended is held open by something in the background
_QUIET_S = 0.5
_LEFT_BYTES = 256 << 10  # more than a terminal holds back: what comes after that is printed in the background
_FAREWELL_S = 30.0  # how long the other side may take to hear of the end


class Pty:
    """A program on a pseudo-terminal of its own. Lives on the running loop. Raises OSError when it cannot be
    started."""

    def __init__(self, argv: list[str], env: dict[str, str], size: tuple[int, int] | None = None) -> None:
        """`size`: rows and columns."""
        self._loop = asyncio.get_running_loop()
        self._master, slave = os.openpty()
        try:
            os.set_blocking(self._master, False)
            if size is not None:
                self.resize(*size)
            path = os.ttyname(slave)
            self.pid = processes.spawn(argv, env, path, path, append=False)
        except BaseException:
            os.close(self._master)
            raise
        finally:
            os.close(slave)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def write(self, data: bytes) -> None:
        """Type it; for nothing when nobody reads any more."""
        while data:
            try:
                data = data[os.write(self._master, data) :]
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)
            except OSError:
                return

    async def _ready(self, add: Callable[..., object], remove: Callable[[int], object]) -> None:
        ready = self._loop.create_future()
        handle = self._master

        def fire() -> None:
            if not ready.done():
                ready.set_result(None)

        add(handle, fire)
        try:
            await ready
        finally:
            remove(handle)


class Shell(Pty):
    """A program of a rank on a terminal of its own. Raises OSError when it cannot be started."""

    def __init__(self, ranks: Ranks, command: str, rows: int, columns: int, env: dict[str, str]) -> None:
        shell = _login_shell(ranks, env)
        program = [shell, "-c", command] if command else [shell, "-l"]
        argv = ["/bin/sh", "-c", 'cd "$1"; shift; exec "$@"', "argosy-shell", ranks.home, *program]
        super().__init__(argv, env, (rows, columns))
        self.ended: asyncio.Future[int] = self._loop.create_future()
        ranks.reaper.watch_child(self.pid, self._child_ended)

    def _child_ended(self, status: int) -> None:
        if not self.ended.done():
            self.ended.set_result(status if status >= 0 else 128 - status)

    async def read(self) -> bytes:
        """Some output; b"" when the last program that had the terminal open is gone."""
        while True:
            try:
                return os.read(self._master, _READ_BYTES)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
            except OSError:  # EIO: nobody has it open any more
                return b""

    async def hang_up(self) -> None:
        """End it, as a terminal that is closed does; SIGKILL when that is not enough."""
        if not self.ended.done():
            processes.send_group_signal(self.pid, signal.SIGHUP)
            try:
                await asyncio.wait_for(asyncio.shield(self.ended), _HANG_UP_GRACE_S)
            except asyncio.TimeoutError:
                processes.send_group_signal(self.pid, signal.SIGKILL)

    def close(self) -> None:
        os.close(self._master)


def _login_shell(ranks: Ranks, env: dict[str, str]) -> str:
    """The user's login shell when it is there, else the one that runs ranks."""
    wanted = env.get("SHELL", "")
    return wanted if wanted.startswith("/") and os.access(wanted, os.X_OK) else ranks.shell


async def serve_shell(shell: Shell, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry terminal frames both ways until the shell ends or the other side hangs up."""

    carried = 0
    sending = False  # and the other side takes its time

    async def to_client() -> None:
        nonlocal carried, sending
        while True:
            data = await shell.read()
            if not data:
                break
            writer.write(wire.TERMINAL.pack(wire.TERMINAL_DATA, len(data)) + data)
            sending = True
            await writer.drain()
            sending = False
            carried += len(data)

    async def rest() -> None:
        """All that it printed until it ended."""
        begin, before = carried, -1
        while not output.done() and (sending or before < carried < begin + _LEFT_BYTES):
            before = carried
            await asyncio.wait({output}, timeout=_QUIET_S)

    async def farewell() -> None:
        """Until the other side has gone, too: a connection that is closed with unread bytes in it is reset,
        and with it what was sent last may be lost."""
        try:
            while await reader.read(_READ_BYTES):
                pass
        except ConnectionError:
            pass

    async def from_client() -> None:
        while True:
            try:
                kind, size = wire.TERMINAL.unpack(await reader.readexactly(wire.TERMINAL.size))
                payload = await reader.readexactly(min(size, wire.CHUNK_LIMIT_BYTES)) if size else b""
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            if kind == wire.TERMINAL_DATA:
                await shell.write(payload)
            elif kind == wire.TERMINAL_RESIZE and len(payload) == wire.SIZE.size:
                shell.resize(*wire.SIZE.unpack(payload))
            elif kind == wire.TERMINAL_END:
                return

    output = asyncio.ensure_future(to_client())
    input_ = asyncio.ensure_future(from_client())
    ended = asyncio.ensure_future(asyncio.wait([shell.ended]))
    try:
        await asyncio.wait({input_, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not shell.ended.done():
            await shell.hang_up()
            await asyncio.wait([shell.ended], timeout=_HANG_UP_GRACE_S)
        await rest()
        code = shell.ended.result() if shell.ended.done() else 137
        writer.write(wire.TERMINAL.pack(wire.TERMINAL_END, wire.EXIT_CODE.size) + wire.EXIT_CODE.pack(code))
        await writer.drain()
        if not input_.done():
            input_.cancel()
            await asyncio.wait({input_})
        await asyncio.wait_for(farewell(), _FAREWELL_S)
    except (ConnectionError, asyncio.TimeoutError):
        pass
    finally:
        for task in (output, input_, ended):
            task.cancel()
        await asyncio.gather(output, input_, ended, return_exceptions=True)
        await shell.hang_up()
        shell.close()


async def open_port(port: int, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a port of this machine's loopback. Raises Busy; `name` is the node's."""
    try:
        return await loopback(port)
    except OSError as error:
        raise Busy("nothing answers on port %d of %s: %s" % (port, name, error.strerror)) from None


async def loopback(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a port of the loopback, of either family. Raises the OSError of the first."""
    try:
        return await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        try:
            return await asyncio.open_connection("::1", port)
        except OSError:
            raise error from None
