"""Databases to test on: SQLite in memory and in a file, and a real PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_subjects import FileSubject, MemorySubject, PostgresSubject

from argosy.testing.postgres_server import PostgresServer, find_postgres


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
