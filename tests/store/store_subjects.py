"""The databases that the conformance suite runs on."""

from __future__ import annotations

import asyncio
from pathlib import Path

from argosy.store import Store
from argosy.testing.conformance.store import NotApplicable
from argosy.testing.postgres_server import PostgresServer
from argosy.testing.virtual_time import FixedClock, SimIds


class MemorySubject:
    """SQLite in memory, every call in the caller: as simulations use it."""

    is_shared = False
    is_lasting = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FixedClock()

    async def open(self) -> Store:
        return await Store.open("sqlite://", ids=SimIds(), clock=self.clock, inline=True)

    async def pass_time(self, ms: int) -> None:
        self.clock.advance(ms / 1000)

    async def cut(self, store: Store) -> None:
        raise NotApplicable("there is no connection")


class FileSubject(MemorySubject):
    """A SQLite file and the store's own thread: as a server of its own uses it."""

    is_lasting = True

    async def open(self) -> Store:
        return await Store.open(f"sqlite://{self.folder}/state/argosy.db", ids=SimIds(), clock=self.clock)


class PostgresSubject(MemorySubject):
    """A database of the test server: as several servers use it."""

    is_shared = True
    is_lasting = True

    def __init__(self, folder: Path, server: PostgresServer) -> None:
        super().__init__(folder)
        self.server = server
        self.name = server.make_database()

    async def open(self) -> Store:
        return await Store.open(
            self.server.url(self.name), ids=SimIds(), clock=self.clock, keys=self.folder / "secrets.key"
        )

    async def pass_time(self, ms: int) -> None:
        await asyncio.sleep(ms / 1000)  # its leases go by its own clock

    async def cut(self, store: Store) -> None:
        self.server.execute(
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{self.name}'"
        )
