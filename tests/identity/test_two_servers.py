"""Two servers over one PostgreSQL: who is put out at one is out at the other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from argosy.model.access import OWNER
from argosy.server.doorkeeper import FRESH_MS, Doorkeeper
from argosy.server.identity import Identity
from argosy.store import Store
from argosy.testing.postgres_server import PostgresServer, find_postgres
from argosy.testing.virtual_time import FixedClock, SimIds

pytestmark = pytest.mark.postgres


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    binaries = find_postgres()
    if binaries is None:
        pytest.skip("NOT TESTED on PostgreSQL: no server binaries (apt-get install postgresql-15)")
    server = PostgresServer(binaries)
    yield server
    server.stop()


def test_both_know_at_once_and_both_forget(postgres: PostgresServer) -> None:
    async def main() -> None:
        url, clock, ids = postgres.url(postgres.make_database()), FixedClock(), SimIds()
        stores = [await Store.open(url, ids=ids, clock=clock) for _ in range(2)]
        here, there = (Doorkeeper(each, clock, Identity(each, clock, ids)) for each in stores)
        people, credentials = here.identity.people, here.identity.credentials
        await people.add_user(OWNER, name="ann")
        await people.give_role(OWNER, subject="ann", role="member", project="default")
        made = await credentials.add_token(OWNER, name="t", user="ann")
        caller = await there.caller_of(made.secret)
        assert caller is not None and caller.name == "ann", "a token of the other server works at once"
        await people.change_user(OWNER, "ann", is_disabled=True)
        clock.advance(FRESH_MS / 1000)
        assert not await there.is_good(caller), "half a second later nothing of it is open anywhere"
        assert await there.caller_of(made.secret) is None
        records = await stores[1].load_acts()
        assert records == await stores[0].load_acts()
        # the database guards the audit log, too
        from sqlalchemy import text
        from sqlalchemy.exc import DBAPIError

        from argosy.model.audit import Act

        await stores[0].commit(acts=[Act(at_ms=1, who="ann", via="token", action="down")])
        for statement in ("UPDATE audit SET who = 'x'", "DELETE FROM audit", "TRUNCATE audit"):

            def change(connection: object, statement: str = statement) -> None:
                connection.execute(text(statement))  # type: ignore[attr-defined]

            database = stores[1]._database
            with pytest.raises((DBAPIError, Exception), match="the audit log is only added to"):
                await stores[1]._lane.call(lambda: database.run(change, write=True))  # noqa: B023
        assert len(await stores[0].load_acts()) == 1
        for each in stores:
            await each.close()

    asyncio.run(main())
