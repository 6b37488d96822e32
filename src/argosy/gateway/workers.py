"""The process that steers several workers: it holds the listening sockets and the control socket, and takes
no request.

Workers inherit the listening sockets, so that one that dies or is replaced refuses nobody. A table is in
use when every worker has taken it over.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Final

import msgspec

from argosy.gateway.addresses import table_faults
from argosy.gateway.limits import key_row
from argosy.gateway.links import Link, Message, Take, Taken, Tell, Told, Want
from argosy.gateway.merging import merge, without_moment
from argosy.gateway.run import Settings, Sockets
from argosy.gateway.shared import Board, width_of
from argosy.model.routes import GatewayCounters, RouteTable, Wanted

#: Rows of the board that workers share: 8 + 2 x workers numbers of 8 bytes each.
ROWS: Final = 16_384
_RESTART_S: Final = 0.5
_TELL_S: Final = 2.0


class Fds(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker inherits."""

    number: int
    settings: Settings
    link: int
    board: int
    lock: int
    sockets: tuple[tuple[int, ...], ...]  # as `Sockets` has them


class _Worker:
    """One worker as the steering process sees it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.link: Link | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.generation = 0
        self.counters: GatewayCounters | None = None
        self.wanted: tuple[Wanted, ...] = ()


class Workers:
    """The workers of one gateway, as its control socket sees them."""

    def __init__(self, settings: Settings, sockets: Sockets, kept: RouteTable | None) -> None:
        self._settings = settings
        self._sockets = sockets
        self._loop = asyncio.get_running_loop()
        self._board_fd = os.memfd_create("argosy-gateway-board")
        self._lock_fd = os.memfd_create("argosy-gateway-lock")
        size = ROWS * width_of(settings.workers) * 8
        os.ftruncate(self._board_fd, size)
        self._memory = mmap.mmap(self._board_fd, size)
        self.board = Board(
            memoryview(self._memory).cast("d"), workers=settings.workers, lock_fd=self._lock_fd
        )
        self._workers = [_Worker(number) for number in range(settings.workers)]
        self._table = kept
        self._rows: dict[str, int] = {}
        self._past: GatewayCounters | None = None  # of workers that died
        self._taking: list[tuple[int, Callable[[str], None]]] = []
        self._asked = 0
        self._telling: dict[int, tuple[set[int], Callable[[GatewayCounters], None]]] = {}
        self._closing = False
        self.on_want: Callable[[], None] = lambda: None

    # --- processes ---------------------------------------------------------------------------------

    async def start(self) -> None:
        for worker in self._workers:
            await self._start(worker)

    def _spawn(self, worker: _Worker, theirs: socket.socket) -> None:
        fds = Fds(
            number=worker.number,
            settings=self._settings,
            link=theirs.fileno(),
            board=self._board_fd,
            lock=self._lock_fd,
            sockets=tuple(tuple(sock.fileno() for sock in each) for each in self._sockets),
        )
        worker.process = subprocess.Popen(
            [sys.executable, "-m", "argosy.gateway.worker", msgspec.json.encode(fds).decode()],
            pass_fds=(fds.link, fds.board, fds.lock, *(fd for each in fds.sockets for fd in each)),
            stdin=subprocess.DEVNULL,
        )

    async def _start(self, worker: _Worker) -> None:
        ours, theirs = socket.socketpair()
        self._spawn(worker, theirs)
        theirs.close()
        ours.setblocking(False)
        _, worker.link = await self._loop.create_connection(
            lambda: Link(lambda message: self._got(worker, message), lambda: self._lost(worker)), sock=ours
        )
        worker.generation = 0
        if self._table is not None:
            worker.link.send(Take(table=self._table, rows=self._rows))

    def _lost(self, worker: _Worker) -> None:
        """A worker has died: what it had in flight is over, what it had counted stays counted."""
        worker.link = None
        if self._closing:
            return
        self.board.forget_worker(worker.number)
        if worker.counters is not None:
            past = without_moment(worker.counters)
            self._past = past if self._past is None else merge([self._past, past])
            worker.counters = None
        worker.wanted = ()
        for number in list(self._telling):
            self._told_by(number, worker.number)
        self._loop.call_later(_RESTART_S, self._restart, worker)

    def _restart(self, worker: _Worker) -> None:
        if worker.process is not None:
            worker.process.kill()
            worker.process.wait()
        if not self._closing:
            self._restarting = self._loop.create_task(self._start(worker))

    async def close(self) -> None:
        """Let the workers finish what they have."""
        self._closing = True
        for worker in self._workers:
            if worker.process is not None:
                worker.process.terminate()
        for worker in self._workers:
            if worker.process is not None:
                await asyncio.to_thread(_wait, worker.process, self._settings.stop_s + 5)

    # --- messages ----------------------------------------------------------------------------------

    def _got(self, worker: _Worker, message: Message) -> None:
        if isinstance(message, Taken):
            worker.generation = message.generation
            self._check_taken(message.wrong)
        elif isinstance(message, Told):
            worker.counters = message.counters
            self._told_by(message.number, worker.number)
        elif isinstance(message, Want):
            worker.wanted = message.wanted
            self.on_want()

    def _check_taken(self, wrong: str) -> None:
        waiting, self._taking = self._taking, []
        for generation, done in waiting:
            if wrong:
                done(wrong)
            elif self.generation >= generation:
                done("")
            else:
                self._taking.append((generation, done))

    def _told_by(self, number: int, worker: int) -> None:
        missing, done = self._telling.get(number, (set(), None))
        missing.discard(worker)
        if not missing and done is not None:
            del self._telling[number]
            done(self._merged())

    def _merged(self) -> GatewayCounters:
        told = [worker.counters for worker in self._workers if worker.counters is not None]
        merged = merge(told if self._past is None else [*told, self._past])
        merged.generation = self.generation
        return merged

    # --- what the control socket asks --------------------------------------------------------------

    @property
    def generation(self) -> int:
        return min(worker.generation for worker in self._workers)

    def take(self, table: RouteTable, done: Callable[[str], None]) -> None:
        before = self._table.generation if self._table is not None else 0
        faults = table_faults(table, self._settings.own_paths)
        if table.generation < before:
            faults.append(f"generation {table.generation} is older than {before}, which is in use")
        if faults:
            done("; ".join(faults))
            return
        self._table = table
        self._give_rows(table)
        self._taking.append((table.generation, done))
        for worker in self._workers:
            if worker.link is not None:
                worker.link.send(Take(table=table, rows=self._rows))

    def _give_rows(self, table: RouteTable) -> None:
        names = [
            *(key_row(service.id, key) for service in table.services for key in service.keys),
            *("peer/" + peer.id for peer in table.peers),
            *(
                "replica/" + replica.id
                for service in table.services
                for revision in service.revisions
                for replica in revision.replicas
            ),
        ]
        free = iter(sorted(set(range(ROWS - 1)) - set(self._rows.values()))) if len(names) else iter(())
        if len(self._rows) + len(names) > ROWS - 1:  # names of long ago make room
            self._rows = {name: row for name, row in self._rows.items() if name in set(names)}
            free = iter(sorted(set(range(ROWS - 1)) - set(self._rows.values())))
        for name in names:
            if name not in self._rows:
                self._rows[name] = next(free, ROWS - 1)
        self.board.know(self._rows)

    def tell_all(self, done: Callable[[GatewayCounters], None]) -> None:
        self._asked += 1
        number = self._asked
        there = [worker for worker in self._workers if worker.link is not None]
        if not there:
            done(self._merged())
            return
        self._telling[number] = ({worker.number for worker in there}, done)
        for worker in there:
            if worker.link is not None:
                worker.link.send(Tell(number=number))
        self._loop.call_later(_TELL_S, self._give_up, number)

    def _give_up(self, number: int) -> None:
        """A worker does not answer: what it told before counts."""
        _, done = self._telling.pop(number, (set(), None))
        if done is not None:
            done(self._merged())

    def tell_wants(self, on_want: Callable[[], None]) -> None:
        """Call it when requests begin to wait."""
        self.on_want = on_want

    def wanted(self) -> tuple[Wanted, ...]:
        found: dict[str, Wanted] = {}
        for each in (wanted for worker in self._workers for wanted in worker.wanted):
            other = found.get(each.service)
            if other is not None:
                each = Wanted(
                    service=each.service,
                    held=each.held + other.held,
                    oldest_s=max(each.oldest_s, other.oldest_s),
                )
            found[each.service] = each
        return tuple(found.values())


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout_s)
        return
    process.kill()
    process.wait()
