"""Databases to test on: SQLite in memory and in a file, and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from argosy.store import Store
from argosy.testing.conformance.store import NotApplicable
from argosy.testing.postgres_server import PostgresServer, find_postgres
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
        return await Store.open(self.server.url(self.name), ids=SimIds(), clock=self.clock)

    async def pass_time(self, ms: int) -> None:
        await asyncio.sleep(ms / 1000)  # its leases go by its own clock

    async def cut(self, store: Store) -> None:
        self.server.execute(
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{self.name}'"
        )


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    binaries = find_postgres()
    if binaries is None:
        if os.environ.get("ARGOSY_REQUIRE_POSTGRES") == "1":
            pytest.fail("ARGOSY_REQUIRE_POSTGRES=1, and there are no PostgreSQL binaries")
        pytest.skip("NOT TESTED on PostgreSQL: no server binaries (apt-get install postgresql-15)")
    server = PostgresServer(binaries)
    yield server
    server.stop()


@pytest.fixture
def postgres(postgres_server: PostgresServer, tmp_path: Path) -> PostgresSubject:
    return PostgresSubject(tmp_path, postgres_server)


@pytest.fixture(params=["memory", "file", pytest.param("postgres", marks=pytest.mark.postgres)])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> MemorySubject:
    if request.param == "memory":
        return MemorySubject(tmp_path)
    if request.param == "file":
        return FileSubject(tmp_path)
    made: PostgresSubject = request.getfixturevalue("postgres")
    return made
