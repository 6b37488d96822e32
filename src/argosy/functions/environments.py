"""Environments: one process each, that serves one event at a time, and what is seen of it.

Nothing of an environment outlives it: whoever waits for it is told of its end, and an event that was given
to it is in no other's hands.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from argosy.functions import worker
from argosy.functions.settings import INIT_S, STOP_S, SYNC_BYTES, TAIL_BYTES, Settings

Json = dict[str, Any]


class Outcome:
    """How one event ended: a result, pieces of one, or an error."""

    __slots__ = ("body", "content_type", "error", "pieces")

    def __init__(
        self,
        body: bytes = b"",
        *,
        error: str = "",
        pieces: asyncio.Queue[bytes | None] | None = None,
        content_type: str = "application/json",
    ) -> None:
        self.body, self.error, self.pieces, self.content_type = body, error, pieces, content_type

    @classmethod
    def failed(cls, kind: str, text: str) -> Outcome:
        return cls(json.dumps({"errorType": kind, "errorMessage": text}).encode(), error="Unhandled")


class Event:
    """One event that an environment has."""

    __slots__ = ("about", "pieces", "timer", "waiter")

    def __init__(self, about: Json, waiter: asyncio.Future[Outcome]) -> None:
        self.about, self.waiter = about, waiter
        self.timer: asyncio.TimerHandle | None = None  # from the moment when its process is ready
        self.pieces: asyncio.Queue[bytes | None] | None = None  # its answer streams


class Environment:
    """One process. Its events are in `events` until their answers are complete."""

    def __init__(self, settings: Settings, number: int, tenant: str = "") -> None:
        self.settings, self.number, self.tenant = settings, number, tenant
        self.pid = 0
        self.killed = False
        self.used_s = 0.0
        self.events: dict[str, Event] = {}
        self.tail = b""
        self.failed: Outcome | None = None  # it could not begin, and this is why
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gone = asyncio.Event()
        self.status = 0
        self.on_gone: Callable[[Environment], None] = _nobody
        self._log = -1

    # --- events --------------------------------------------------------------------------------------

    async def invoke(self, about: Json, body: bytes) -> Outcome:
        """The outcome of one event. It has until its deadline, then the process is killed. A process that is
        not ready yet finds its event when it is."""
        event = self.events[about["id"]] = Event(about, asyncio.get_running_loop().create_future())
        if self.ready.done():
            self._time(event)
        self.give(about, body)
        return await event.waiter

    def _time(self, event: Event) -> None:
        loop = asyncio.get_running_loop()
        event.timer = loop.call_later(self.settings.timeout_s, self._too_late, event.about["id"])

    def begins(self) -> None:
        """It is ready."""
        if not self.ready.done():
            self.ready.set_result(None)
            for event in self.events.values():
                self._time(event)

    def give(self, about: Json, body: bytes) -> None:
        raise NotImplementedError

    @property
    def is_free(self) -> bool:
        """It takes an event now."""
        raise NotImplementedError

    def _too_late(self, event: str) -> None:
        text = f"Task timed out after {self.settings.timeout_s:.2f} seconds"
        self.settle(event, Outcome.failed("Sandbox.Timedout", f"RequestId: {event} Error: {text}"))
        self.kill()

    def settle(self, event: str, outcome: Outcome) -> None:
        """The event has ended."""
        found = self.events.pop(event, None)
        if found is None:
            return
        if found.timer is not None:
            found.timer.cancel()
        self.drain_log()
        if found.pieces is not None:
            found.pieces.put_nowait(None)
        elif not found.waiter.done():
            if len(outcome.body) > SYNC_BYTES:
                text = "Response payload size (%d bytes) exceeded maximum allowed payload size (%d bytes)."
                text = text % (len(outcome.body), SYNC_BYTES)
                outcome = Outcome.failed("Function.ResponseSizeTooLarge", text)
            found.waiter.set_result(outcome)

    def piece(self, event: str, data: bytes, content_type: str = "application/octet-stream") -> None:
        """One piece of a streamed answer."""
        found = self.events.get(event)
        if found is None:
            return
        if found.pieces is None:
            found.pieces = asyncio.Queue()
            found.waiter.set_result(Outcome(pieces=found.pieces, content_type=content_type))
        found.pieces.put_nowait(data)

    def ended_early(self, event: str = "") -> Outcome:
        """What an event is told whose process has ended."""
        if self.failed is not None:
            return self.failed
        how = "exit status %d" % (self.status >> 8)
        if self.status & 0x7F:
            how = f"signal: {signal.Signals(self.status & 0x7F).name}"
        text = f"RequestId: {event} Error: Runtime exited with error: {how}"
        return Outcome.failed("Runtime.ExitError", text)

    def has_ended(self, status: int) -> None:
        """The process is gone."""
        if self.gone.is_set():
            return
        self.status = status
        self.drain_log()
        self.gone.set()
        if self._log >= 0:
            asyncio.get_running_loop().remove_reader(self._log)
            os.close(self._log)
            self._log = -1
        if not self.ready.done():
            self.failed = self.failed or self.ended_early()
            self.ready.set_result(None)
        for event in list(self.events):
            self.settle(event, self.ended_early(event))
        self.on_gone(self)

    def _start_timer(self) -> None:
        asyncio.get_running_loop().call_later(INIT_S, self._not_ready)

    def _not_ready(self) -> None:
        if not self.ready.done():
            self.failed = Outcome.failed("Sandbox.Timedout", f"Init timed out after {INIT_S:.0f} seconds")
            self.kill()

    # --- the process -----------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """To it and all that it has started."""
        if self.pid and not self.gone.is_set():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def kill(self) -> None:
        """Nothing is given to it any more."""
        self.killed = True
        self.signal(signal.SIGKILL)
        self.on_gone(self)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL when it is not gone soon."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.gone.wait(), STOP_S)
        self.kill()

    # --- what it prints --------------------------------------------------------------------------------

    def watch_log(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._log = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self.drain_log)

    def drain_log(self) -> None:
        """What it printed goes on to the replica's own log; the last bytes are kept."""
        while self._log >= 0:
            try:
                data = os.read(self._log, 65536)
            except (BlockingIOError, OSError):
                return
            if not data:
                asyncio.get_running_loop().remove_reader(self._log)
                return
            self.tail = (self.tail + data)[-TAIL_BYTES:]
            with contextlib.suppress(OSError):
                os.write(1, data)


class Forked(Environment, asyncio.Protocol):
    """A worker of the fork server; events go over a socket pair."""

    def __init__(self, settings: Settings, number: int, tenant: str = "") -> None:
        super().__init__(settings, number, tenant)
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()

    async def begin(self, zygote: Zygote) -> None:
        ours, theirs = socket.socketpair()
        reading, writing = os.pipe()
        self.watch_log(reading)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: self, ours)
        zygote.fork(self, theirs.fileno(), writing)
        theirs.close()
        os.close(writing)
        self._start_timer()

    @property
    def is_free(self) -> bool:
        return self.ready.done() and not (self.killed or self.gone.is_set() or self.events)

    def give(self, about: Json, body: bytes) -> None:
        assert self._transport is not None
        self._transport.write(worker.pack_event(about, body))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        buffer = self._buffer
        while len(buffer) >= 5:
            length = struct.unpack_from("!I", buffer)[0]
            if len(buffer) < 5 + length:
                return
            kind, content = bytes(buffer[4:5]), bytes(buffer[5 : 5 + length])
            del buffer[: 5 + length]
            self._take(kind, content)

    def _take(self, kind: bytes, content: bytes) -> None:
        if kind == worker.READY:
            self.begins()
        elif kind == worker.FAILED:
            self.failed = Outcome(content, error="Unhandled")
            for event in list(self.events):
                self.settle(event, self.failed)
            self.kill()
        for event in list(self.events):  # one at most
            if kind == worker.PIECE:
                self.piece(event, content)
            elif kind in (worker.RESULT, worker.END, worker.ERROR):
                self.settle(event, Outcome(content, error="Unhandled" if kind == worker.ERROR else ""))

    def connection_lost(self, exc: Exception | None) -> None:
        """Its end; how it ended is told by the fork server, a moment later at most."""
        asyncio.get_running_loop().call_later(0.2, self.has_ended, 0)


class Zygote:
    """The fork server as seen from here. It ends when its control socket does."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._forking: list[Forked] = []
        self._live: dict[int, Forked] = {}
        self._buffer = b""
        self.ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        ours, theirs = socket.socketpair()
        settings = self._settings
        command = [*program(), "--zygote", str(theirs.fileno()), settings.handler, settings.root]
        self._process = subprocess.Popen(
            [*command, "1" if settings.preload else "0"],
            pass_fds=[theirs.fileno()],
            env=settings.environment(0),
            cwd=settings.root,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        ours.setblocking(False)
        self._control = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._hear)

    def fork(self, environment: Forked, events: int, log: int) -> None:
        assert self._control is not None
        self._forking.append(environment)
        socket.send_fds(self._control, [b"f"], [events, log])

    def _hear(self) -> None:
        assert self._control is not None
        try:
            data = self._control.recv(65536)
        except (BlockingIOError, ConnectionError):
            return
        if not data:
            self.end()
            return
        self._buffer += data
        while len(self._buffer) >= 9:
            kind, pid, status = struct.unpack("!cIi", self._buffer[:9])
            self._buffer = self._buffer[9:]
            if kind == b"Y" and not self.ready.done():
                self.ready.set_result(True)
            elif kind == b"F":
                environment = self._forking.pop(0)
                environment.pid = pid
                self._live[pid] = environment
            elif kind == b"D":
                found = self._live.pop(pid, None)
                if found is not None:
                    found.has_ended(status)

    def end(self) -> None:
        """It is stopped, or was killed: its workers end with their sockets."""
        if self._control is None:
            return
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        self._control.close()
        self._control = None
        if not self.ready.done():
            self.ready.set_result(False)
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
        for environment in (*self._live.values(), *self._forking):
            environment.kill()
            environment.has_ended(signal.SIGKILL)

    @property
    def is_up(self) -> bool:
        return self._control is not None


def _nobody(environment: Environment) -> None:
    """Nobody wants to know."""


def program() -> list[str]:
    """How this program is started again."""
    if sys.argv[0].endswith(".pyz"):
        return [sys.executable, sys.argv[0]]
    return [sys.executable, "-m", "argosy.functions"]


def new_pipe() -> tuple[int, int]:
    """A pipe whose reading end no child gets."""
    reading, writing = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    return reading, writing
