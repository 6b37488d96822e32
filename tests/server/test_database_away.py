"""A PostgreSQL that is gone for a while: the server stays, tells what it knew, and goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from raw_requests import Raw
from test_server_process import Process

from argosy.model.errors import ArgosyError
from argosy.server.tokens import Tokens
from argosy.store import Store
from argosy.testing.builders import a_cluster
from argosy.testing.postgres_server import PostgresServer
from argosy.testing.virtual_time import FixedClock, SimIds

pytestmark = pytest.mark.postgres


def test_the_server_outlives_its_database(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.url(postgres.make_database())
    server = Process(tmp_path / "home", env={"ARGOSY_STORE": url})
    try:
        raw: Raw = server.raw
        log = tmp_path / "home" / "server.log"
        server.wait_for(lambda: "decides for all that is there" in log.read_text())
        server.wait_for(lambda: "as_of_ms" not in raw.get("/status").json)
        postgres.crash()
        told = raw.get("/status")
        assert told.status == 200 and told.json["as_of_ms"] > 0
        queue = raw.get("/jobs")
        assert (queue.status, queue.json["code"]) == (503, "store-busy")
        assert "check that PostgreSQL runs" in queue.json["hint"] and "log" not in queue.json["hint"]
        # Who cannot say to the database that it is there soon decides no more.
        server.wait_for(lambda: "the database does not say which servers there are: " in log.read_text())
        assert raw.get("/status").status == 200
        postgres.come_back()
        server.wait_for(lambda: raw.get("/jobs").status == 200)
        server.wait_for(lambda: "as_of_ms" not in raw.get("/status").json)
        assert server.popen.poll() is None and "the controllers ended" not in log.read_text()
    finally:
        server.kill()


def test_tokens_are_known_while_the_database_is_away(postgres: PostgresServer) -> None:
    async def main() -> None:
        url = postgres.url(postgres.make_database())
        store = await Store.open(url, ids=SimIds(), clock=FixedClock())
        tokens = Tokens(store)
        await tokens.add("s3cret", name="a", scope="admin", now_ms=1)
        (row,) = await store.commit([a_cluster()])
        assert await tokens.caller_of("s3cret") is not None
        assert (await store.last_known())[1] == 0
        postgres.crash()
        snapshot, as_of_ms = await store.last_known()
        assert snapshot.workloads == {row.id: row} and as_of_ms > 0
        assert await tokens.caller_of("s3cret") is not None
        with pytest.raises(ArgosyError) as unknown:  # it may be one that was made meanwhile
            await tokens.caller_of("other")
        assert unknown.value.code == "store-busy"
        with pytest.raises(ArgosyError) as caught:
            await store.commit([a_cluster(name="other")])
        assert caught.value.code == "store-busy"
        postgres.come_back()
        assert (await store.last_known())[1] == 0
        await store.commit([a_cluster(name="other")])
        await store.close()

    asyncio.run(main())
