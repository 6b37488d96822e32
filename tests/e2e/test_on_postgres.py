"""The same house on PostgreSQL: jobs run, the server is killed, nothing is lost."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from e2e_house import House

from argosy.testing.postgres_server import PostgresServer, find_postgres


@pytest.fixture
def pg_house() -> Iterator[House]:
    binaries = find_postgres()
    if binaries is None:
        if os.environ.get("ARGOSY_REQUIRE_POSTGRES"):
            pytest.fail("ARGOSY_REQUIRE_POSTGRES is set and there is no PostgreSQL")
        pytest.skip("no PostgreSQL on this machine")
    postgres = PostgresServer(binaries)
    made = House()
    made.env["ARGOSY_STORE"] = postgres.url(postgres.make_database())
    yield made
    made.close()
    postgres.stop()


def test_jobs_survive_the_server_and_the_database_holds_them(pg_house: House) -> None:
    house = pg_house
    go = house.root / "go"
    lines = "for i in $(seq 1 15); do echo line $i; sleep 0.1; done"
    more = "for i in $(seq 16 30); do echo line $i; done"
    program = f"{lines}; until [ -e {go} ]; do sleep 0.05; done; {more}"
    house.run("launch", "-y", "-d", "-c", "box", "--", program)
    house.wait_job("box", 1, "running")
    house.kill_server()
    house.run("exec", "-d", "box", "--", "echo second")
    house.wait_job("box", 2, "succeeded")
    go.touch()
    house.wait_job("box", 1, "succeeded")
    told = re.findall(r"^line (\d+)$", house.log("box", "1"), re.MULTILINE)
    assert told == [str(n) for n in range(1, 31)]
    assert not (house.state / "argosy.db").exists()
    told = house.run("server", "status").stdout
    assert "postgresql" in told
    house.run("down", "-y", "box")
