"""Two servers over one PostgreSQL: who is put out at one is out at the other."""

from __future__ import annotations

import asyncio

import pytest

from argosy.model.access import OWNER
from argosy.model.apps import App
from argosy.model.audit import Act, first_break
from argosy.model.kinds.session import SESSION, SessionSpec, SessionStatus
from argosy.model.people import User
from argosy.model.rows import Workload
from argosy.server.apps.live import LiveApps
from argosy.server.doorkeeper import FRESH_MS, Doorkeeper
from argosy.server.identity import Identity
from argosy.store import Store
from argosy.testing.builders import a_task
from argosy.testing.postgres_server import PostgresServer
from argosy.testing.virtual_time import FixedClock, SimIds

pytestmark = pytest.mark.postgres


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
        rows = await stores[0].snapshot()
        [user] = [each for each in rows.people.values() if isinstance(each, User)]
        assert await there.identify(a_request("of-nobody")) is None
        browser = (await credentials.sign_in(user, method="password")).secret
        seen = await there.identify(a_request(browser))
        assert seen is not None and seen.name == "ann", "so does the cookie of who has just signed in there"
        await people.change_user(OWNER, "ann", is_disabled=True)
        clock.advance(FRESH_MS / 1000)
        assert await there.identify(a_request(browser)) is None and not await there.is_good(seen)
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


def test_both_write_one_chain_of_the_audit_log(postgres: PostgresServer) -> None:
    """However they take turns: numbers without a gap, and every row names the one before it."""

    async def main() -> None:
        url, clock, ids = postgres.url(postgres.make_database()), FixedClock(), SimIds()
        stores = [await Store.open(url, ids=ids, clock=clock) for _ in range(2)]

        async def write(number: int) -> None:
            for n in range(20):
                act = Act(at_ms=n, who=f"person {number}", via="token", action="down")
                await stores[number].commit(acts=[act])

        await asyncio.gather(*(write(number) for number in (0, 1)))
        records = await stores[1].load_acts()
        assert [each.seq for each in records] == list(range(1, 41))
        (seq, prev), _ = await stores[0].audit_ends()
        assert first_break(records, seq=seq, prev=prev) == ""
        for number in (0, 1):
            mine = [each.act.at_ms for each in records if each.act.who == f"person {number}"]
            assert mine == list(range(20))
        for each in stores:
            await each.close()

    asyncio.run(main())


def test_an_app_is_opened_at_one_and_used_at_the_other(postgres: PostgresServer) -> None:
    """A code is good once among both; the ticket it becomes works at both; taking the role ends both."""

    async def main() -> None:
        url, clock, ids = postgres.url(postgres.make_database()), FixedClock(), SimIds()
        stores = [await Store.open(url, ids=ids, clock=clock) for _ in range(2)]
        keepers = [Doorkeeper(each, clock, Identity(each, clock, ids)) for each in stores]
        here, there = (LiveApps(each, Nobody(), Nobody(), clock) for each in stores)  # type: ignore[arg-type]
        here.current, there.current = keepers[0].current, keepers[1].current
        people = keepers[0].identity.people
        await people.add_user(OWNER, name="ann")
        await people.give_role(OWNER, subject="ann", role="member", project="default")
        made = await keepers[0].identity.credentials.add_token(OWNER, name="t", user="ann")
        caller = await keepers[1].caller_of(made.secret)
        assert caller is not None
        session = a_session("ann")

        async def enter(apps: LiveApps, code: str) -> str | None:
            await apps.recall(code.encode())
            ticket = apps.tickets.redeem(code.encode(), session.id, "lab")
            return ticket if ticket is not None and await apps.swap(code.encode(), ticket) else None

        code = await here.issue(caller, session.id, "lab")
        ticket = await enter(there, code)
        assert ticket is not None, "the other server takes it"
        assert await enter(here, code) is None and await enter(there, code) is None, "once among both"
        for apps in (here, there):
            await apps.recall(ticket.encode())
            right = apps.tickets.right_of(ticket.encode(), session.id, "lab")
            assert right is not None and await apps.stays(right.caller) and apps.may(right.caller, session)
        rows = await stores[0].snapshot()
        assert not any(secret in repr(rows.people) for secret in (code, ticket)), "only hashes are kept"
        await people.take_role(OWNER, subject="ann", role="member", project="default")
        clock.advance(FRESH_MS / 1000)
        await asyncio.sleep(0.55)  # how long an app trusts what it asked
        for apps in (here, there):
            assert await apps.stays(right.caller) and not apps.may(right.caller, session), "the role is gone"
        await people.change_user(OWNER, "ann", is_disabled=True)
        clock.advance(FRESH_MS / 1000)
        await asyncio.sleep(0.55)
        for apps in (here, there):
            assert not await apps.stays(right.caller), "the account is off"
        late = await here.issue(OWNER, session.id, "lab")
        clock.advance(31)
        assert await enter(there, late) is None
        for each in stores:
            await each.close()

    asyncio.run(main())


def a_request(cookie: str) -> dict[str, object]:
    """Of a page of ours."""
    fields = {"host": "localhost", "origin": "http://localhost", "x-argosy-api": "1"}
    fields["cookie"] = f"__Host-argosy={cookie}"
    headers = [(name.encode(), value.encode()) for name, value in fields.items()]
    return {"type": "http", "method": "GET", "path": "/v1/whoami", "headers": headers}


class Nobody:
    """Nodes and controllers, which nobody asks here."""


def a_session(owner: str) -> Workload:
    return Workload(
        id="ses-1",
        kind=SESSION.name,
        name="s",
        user=owner,
        project="default",
        spec=SessionSpec(app=App(name="lab", listens="socket"), task=a_task()),
        status=SessionStatus(),
        created_ms=1,
    )
