"""Terminals that outlive their lines: a shell goes on when nobody looks, and is found again by its id.

The last output of each is kept. Whoever comes back says how much of it it has, and gets the rest: after a
line that was cut nothing is lost, because the program waits when what is kept is full. A reader says from
time to time what has arrived; of one that never does, `_ON_THE_WAY_BYTES` may have been under way. Several
may look at once: a program waits for those who type, never for those who only watch.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time

from argosy.agent import processes, wire
from argosy.agent.terminal import Pty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Tuple

    Streams = Tuple[asyncio.StreamReader, asyncio.StreamWriter]

_KEPT_BYTES = 2 << 20  # of the output of one terminal
_AHEAD_BYTES = 128 << 10  # so much is read from a program before its reader takes it
_UNSEEN_BYTES = 1792 << 10  # so much is sent to a reader before it says that something has arrived
_ON_THE_WAY_BYTES = 1536 << 10  # of one that never says so: so much may not have arrived when its line is cut
_READ_BYTES = 64 << 10
_LAST_BYTES = 256 << 10  # more than the kernel holds of what a shell printed before its end
_WAITS_S = 600.0  # a program waits so long for a reader whose line was cut; then it goes on unread
_TERMINALS_MAX = 64
_QUIET_S = 0.3  # output that follows a shell's end within this time is still its own


class Terminals:
    """All terminals of one session."""

    def __init__(self, loop: asyncio.AbstractEventLoop, shell: str, home: str, env: dict[str, str]) -> None:
        self._loop, self._shell, self._home, self._env = loop, shell, home, env
        self._open: Dict[str, Terminal] = {}
        self.reaper: processes.Reaper | None = None
        self.typed_ms = 0  # when somebody last typed

    def hang_up(self) -> None:
        for terminal in self._open.values():
            terminal.hang_up()

    async def serve(self, asked: dict[str, object], streams: Streams) -> None:
        """One line of a reader: answers with `{"id", "from"}`, then carries terminal frames both ways
        until the shell ends, the reader hangs up or its line is cut. Raises OSError, ValueError."""
        watches = bool(asked.get("watch"))
        name = str(asked.get("id") or "")
        if watches:  # who may only look opens nothing
            name = name or next(reversed(self._open), "")
            if name not in self._open:
                raise ValueError("there is no terminal %sto watch" % ("`%s` " % name if name else ""))
        name = name or "%x" % time.monotonic_ns()
        terminal = self._open.get(name)
        seen = int(str(asked.get("seen", -1)))
        if terminal is None and seen >= 0:
            raise ValueError("terminal `%s` has ended" % name)
        if terminal is None or (terminal.exit_code is not None and seen < 0 and not watches):
            if len(self._open) >= _TERMINALS_MAX:
                raise ValueError("%d terminals are open: close some" % len(self._open))
            terminal = self._start(name, asked)
        start = terminal.begin if seen < 0 else min(max(seen, terminal.begin), terminal.end)
        streams[1].write(json.dumps({"id": name, "from": start}).encode() + b"\n")
        view = View(terminal, start, streams, watches=watches)
        view.seen = start if asked.get("acks") else -1
        terminal.come(view)
        try:
            if not watches:
                terminal.resize(int(str(asked.get("rows", 24))), int(str(asked.get("columns", 80))))
            await view.carry(None if watches else self._note_typing)
        finally:
            terminal.views.remove(view)
            terminal.wait_for_reader(view)
            if terminal.exit_code is not None:
                self._forget(name, terminal)

    def _forget(self, name: str, terminal: Terminal) -> None:
        """One whose shell has ended, when nobody reads it any more or may come back to."""
        if self._open.get(name) is not terminal or terminal.views:
            return
        if terminal.is_waited_for:
            self._loop.call_later(_WAITS_S, self._forget, name, terminal)
        else:
            del self._open[name]

    def _note_typing(self) -> None:
        self.typed_ms = time.time_ns() // 1_000_000

    def _start(self, name: str, asked: dict[str, object]) -> Terminal:
        command = str(asked.get("command") or "")
        argv = [self._shell, "-c", command] if command else [self._shell, "-l"]
        argv = ["/bin/sh", "-c", 'cd "$0"; exec "$@"', self._home, *argv]
        terminal = Terminal(argv, self._env)
        self._open[name] = terminal
        self._note_typing()

        def ended(status: int) -> None:
            terminal.shell_ended(status if status >= 0 else 128 - status)
            self._loop.call_later(_QUIET_S + 0.2, self._forget, name, terminal)

        assert self.reaper is not None
        self.reaper.watch_child(terminal.pid, ended)
        return terminal


class Terminal(Pty):
    """One program on a terminal of its own, and the end of what it printed: bytes `begin` to `end`."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        super().__init__(argv, env)
        self._kept = bytearray()
        self.begin = self.end = 0
        self.views: List[View] = []
        self.exit_code: int | None = None
        self._reads = False
        self._waits_until_s = 0.0
        self._left_at = 0  # a reader that may come back has surely had what was before
        self.news = asyncio.Event()
        self._look()

    # ---- output

    def _look(self) -> None:
        """Read while there is room for what a reader has not had yet."""
        wanted = not self.over and not self._is_full()
        if wanted and not self._reads:
            self._loop.add_reader(self._master, self._read)
        elif self._reads and not wanted:
            self._loop.remove_reader(self._master)
        self._reads = wanted

    def _is_full(self) -> bool:
        """The one who types and is furthest has a full store before it. A store that nobody reads is full
        while a reader may come back."""
        typists = self._typists
        if typists:
            return not any(view.has_room for view in typists)
        return self.is_waited_for and self._unread + _READ_BYTES > _KEPT_BYTES

    @property
    def _typists(self) -> List[View]:
        return [view for view in self.views if not view.watches]

    @property
    def _unread(self) -> int:
        return self.end - self._left_at if self._waits_until_s else 0

    @property
    def is_waited_for(self) -> bool:
        """A reader whose line was cut may come back for what it has not had."""
        return time.monotonic() < self._waits_until_s

    @property
    def over(self) -> bool:
        """Nothing more is printed."""
        return self._master < 0

    def _read(self) -> None:
        try:
            data = os.read(self._master, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # nobody has it open any more
            data = b""
        if not data:
            self.close()
            return
        self._kept += data
        self.end += len(data)
        if len(self._kept) > _KEPT_BYTES:
            del self._kept[: len(self._kept) - _KEPT_BYTES]
        self.begin = self.end - len(self._kept)
        self._tell()
        self._look()

    def _tell(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    def since(self, at: int) -> Tuple[int, bytes]:
        """(where it begins, the bytes) of what was printed after `at`; the rest of it may be gone."""
        at = max(at, self.begin)
        first = at - self.begin
        return at, bytes(self._kept[first : first + _READ_BYTES])

    def moved_on(self) -> None:
        """A reader has taken something."""
        if not self.over:
            self._look()

    def come(self, view: View) -> None:
        """One more reader. Whoever types is the one that was waited for."""
        self.views.append(view)
        if not view.watches:
            self._waits_until_s = 0.0
        self.moved_on()

    def wait_for_reader(self, view: View) -> None:
        """A reader has gone; one whose line was cut may come back for what it has not had."""
        if view.watches or self._typists:
            return
        self._left_at = view.seen if view.seen >= 0 else max(view.at - _ON_THE_WAY_BYTES, 0)
        self._waits_until_s = time.monotonic() + _WAITS_S if view.was_cut else 0.0
        self._look()
        if view.was_cut:
            self._loop.call_later(_WAITS_S + 1, self.moved_on)

    def shell_ended(self, code: int) -> None:
        self.exit_code = code
        self._tell()
        self._loop.call_later(_QUIET_S, self._finish, self.end, self.end)

    def _finish(self, ended_at: int, before: int) -> None:
        """Close it when nothing more comes. Its reader may be slow, and the kernel too; what is left in the
        background may print for ever."""
        if self.over:
            return
        if self.end - ended_at < _LAST_BYTES and (self.end != before or not self._reads):
            self._loop.call_later(_QUIET_S, self._finish, ended_at, self.end)
        else:
            self.close()

    def close(self) -> None:
        if self._master >= 0:
            if self._reads:
                self._loop.remove_reader(self._master)
            self._reads = False
            os.close(self._master)
            self._master = -1
        self._tell()

    # ---- input

    def resize(self, rows: int, columns: int) -> None:
        if not self.over and 0 < rows < 65536 and 0 < columns < 65536:
            super().resize(rows, columns)

    def hang_up(self) -> None:
        if self.exit_code is None:
            processes.send_group_signal(self.pid, signal.SIGHUP)
            self._loop.call_later(2.0, self._kill)

    def _kill(self) -> None:
        if self.exit_code is None:
            processes.send_group_signal(self.pid, signal.SIGKILL)


class View:
    """One reader of a terminal: it has had everything before `at`."""

    def __init__(self, terminal: Terminal, at: int, streams: Streams, *, watches: bool) -> None:
        self._terminal, self.at, self.watches = terminal, at, watches
        self.seen = -1  # it says that it has everything before this; -1: it never says so
        self._reader, self._writer = streams
        self.was_cut = True  # unless it says farewell

    @property
    def has_room(self) -> bool:
        """It may be sent more: little waits to be sent, and little that was sent has not arrived."""
        end = self._terminal.end
        return end - self.at < _AHEAD_BYTES and (self.seen < 0 or end - self.seen < _UNSEEN_BYTES)

    async def carry(self, typed: object) -> None:
        """`typed`: called for each piece of input; None for a reader that may only look."""
        output = asyncio.ensure_future(self._show())
        input_ = asyncio.ensure_future(self._take(typed))
        try:
            await asyncio.wait({output, input_}, return_when=asyncio.FIRST_COMPLETED)
            if not self.was_cut:  # what is closed with unread bytes in it is reset: hear it to its end
                await asyncio.wait({input_}, timeout=_WAITS_S)
        finally:
            for task in (output, input_):
                task.cancel()
            await asyncio.gather(output, input_, return_exceptions=True)

    async def _show(self) -> None:
        terminal = self._terminal
        while True:
            news = terminal.news
            at, data = terminal.since(self.at)
            if data:
                self._writer.write(wire.TERMINAL.pack(wire.TERMINAL_DATA, len(data)) + data)
                await self._writer.drain()
                self.at = at + len(data)
                terminal.moved_on()
            elif terminal.over and terminal.exit_code is not None:
                code = terminal.exit_code
                end = wire.TERMINAL.pack(wire.TERMINAL_END, wire.EXIT_CODE.size)
                self._writer.write(end + wire.EXIT_CODE.pack(code))
                await self._writer.drain()
                self.was_cut = False
                return
            else:
                await news.wait()

    async def _take(self, typed: object) -> None:
        terminal = self._terminal
        while True:
            try:
                kind, size = wire.TERMINAL.unpack(await self._reader.readexactly(wire.TERMINAL.size))
                payload = await self._reader.readexactly(min(size, wire.CHUNK_LIMIT_BYTES)) if size else b""
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            if kind == wire.TERMINAL_SEEN and len(payload) == wire.SEEN.size:
                self.seen = max(self.seen, min(wire.SEEN.unpack(payload)[0], self.at))
                terminal.moved_on()
                continue
            if kind == wire.TERMINAL_END:
                self.was_cut = False
                if callable(typed):
                    terminal.hang_up()
                return
            if not callable(typed):
                continue
            if kind == wire.TERMINAL_DATA:
                typed()
                await terminal.write(payload)
            elif kind == wire.TERMINAL_RESIZE and len(payload) == wire.SIZE.size:
                terminal.resize(*wire.SIZE.unpack(payload))
