"""What a gateway has counted and what is left of limits, in a file beside its control socket: a process that
is killed loses one second at most, and counts nothing twice.

The file is written once a second where there is anything new. A gateway that starts reads it and goes on
counting from there: for whoever reads its counters it is the same gateway.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from argosy.gateway.control import Routed
from argosy.gateway.merging import merge, without_moment
from argosy.gateway.private_files import replace_file
from argosy.gateway.shared import Board, Buckets, Spent
from argosy.model.routes import GatewayCounters, RouteTable, Wanted


class Kept(msgspec.Struct, kw_only=True):
    """The file. `boot`: times of buckets mean something since this start of the machine only."""

    counters: GatewayCounters
    buckets: dict[str, Buckets] = {}
    spent: dict[str, Spent] = {}  # by the calendar: also after a start of the machine
    boot: str = ""


class Journal:
    """A gateway that remembers its earlier lives."""

    def __init__(self, routed: Routed, board: Board, path: Path, boot: str) -> None:
        self._routed, self._board, self._path, self._boot = routed, board, path, boot
        self._before: GatewayCounters | None = None
        self._written = -1
        self._services: set[str] | None = None  # of the table; None: none was taken yet

    def load(self) -> None:
        """Go on from the file; one that cannot be read is none."""
        try:
            kept = msgspec.msgpack.decode(self._path.read_bytes(), type=Kept)
        except (OSError, msgspec.DecodeError):
            return
        self._before = without_moment(kept.counters)
        self._board.adopt_spendings(kept.spent)
        if kept.boot == self._boot:
            self._board.adopt_buckets(kept.buckets)

    # --- Routed ------------------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        return self._routed.generation

    def take(self, table: RouteTable, done: Callable[[str], None]) -> None:
        def taken(wrong: str) -> None:
            if not wrong:
                self._forget(table)
            done(wrong)

        self._routed.take(table, taken)

    def tell_all(self, done: Callable[[GatewayCounters], None]) -> None:
        self._routed.tell_all(lambda told: done(self._together(told)))

    def wanted(self) -> tuple[Wanted, ...]:
        return self._routed.wanted()

    # --- the file ----------------------------------------------------------------------------------

    def keep(self) -> None:
        """Call it every second, and at the end: write what is new."""
        self.tell_all(self._write)

    def _write(self, told: GatewayCounters) -> None:
        counted = sum(service.requests + service.refused for service in told.services)
        if counted == self._written:
            return
        kept = Kept(
            counters=told, buckets=self._board.buckets(), spent=self._board.spendings(), boot=self._boot
        )
        with contextlib.suppress(OSError):  # a full disk costs only what it would have been good for
            replace_file(self._path, msgspec.msgpack.encode(kept))
            self._written = counted

    def _forget(self, table: RouteTable) -> None:
        """What earlier lives counted of services and replicas that are no more."""
        if self._before is None:
            return
        there = {service.id: service for service in table.services}
        self._before.services = [each for each in self._before.services if each.id in there]
        for each in self._before.services:
            replicas = {replica.id for revision in there[each.id].revisions for replica in revision.replicas}
            each.replicas = [replica for replica in each.replicas if replica.id in replicas]

    def _together(self, told: GatewayCounters) -> GatewayCounters:
        if self._before is None:
            return told
        both = merge([told, self._before])
        both.generation = told.generation
        return both
