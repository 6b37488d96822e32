"""Who did what: in the commit of the change, in a chain, and nobody can change it unseen."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from site_of_people import PASSWORD, Site

from argosy.model.access import OWNER
from argosy.model.audit import FIRST, Act, Record, chained, first_break
from argosy.store import Store
from argosy.testing.builders import a_cluster
from argosy.testing.virtual_time import FixedClock, SimIds


def an_act(number: int = 0, **fields: Any) -> Act:
    return Act(**{"at_ms": number, "who": "ann", "via": "token", "action": "down", **fields})


def a_chain(count: int) -> list[Record]:
    found: list[Record] = []
    prev = FIRST
    for seq in range(1, count + 1):
        found.append(chained(an_act(seq), seq, prev))
        prev = found[-1].hash
    return found


@given(st.integers(2, 12), st.data())
@settings(max_examples=60, deadline=None)
def test_every_change_of_a_chain_is_found(count: int, data: st.DataObject) -> None:
    chain = a_chain(count)
    assert first_break(chain, seq=0, prev=FIRST) == ""
    at = data.draw(st.integers(0, count - 1))
    how = data.draw(st.sampled_from(["edit", "drop", "swap", "forge"]))
    broken = list(chain)
    if how == "edit":
        broken[at] = Record(
            seq=chain[at].seq, act=an_act(99, who="bob"), prev=chain[at].prev, hash=chain[at].hash
        )
    elif how == "drop" and at < count - 1:
        del broken[at]
    elif how == "swap":
        other = (at + 1) % count
        broken[at], broken[other] = broken[other], broken[at]
    else:  # with a hash of its own that fits: what follows does not
        broken[at] = chained(an_act(99), chain[at].seq, chain[at].prev)
        if at == count - 1:
            assert broken[-1].hash != chain[-1].hash, "the head that was written down elsewhere tells"
            return
    assert first_break(broken, seq=0, prev=FIRST) != ""


def test_changes_are_recorded_with_who_and_what(site: Site) -> None:
    site.add_user("boss", "admin")
    token = site.token("boss")
    site.ask("PUT", "/budgets", {"project": "vision", "monthly_micro_usd": 5_000_000}, token=token)
    site.ask("PUT", "/budgets", {"project": "vision", "monthly_micro_usd": 7_000_000}, token=token)
    acts = [record.act for record in site.do(site.store.load_acts())]
    first, second = (act for act in acts if act.action == "set_budget")
    assert (first.who, first.via, first.address, first.outcome) == ("boss", "session", "127.0.0.1", "done")
    assert first.target == "budget-vision" and first.request.startswith("req-")
    assert '"monthly_micro_usd":[5000000,7000000]' in second.changes


def test_what_is_denied_is_recorded(site: Site) -> None:
    site.add_user("ann", "viewer", "vision")
    site.do(site.store.commit([a_cluster(name="dev", project="vision", user="bob")]))
    token = site.token("ann")
    site.ask("DELETE", "/clusters/dev", token=token)
    site.login("ann", "wrong password")
    denied = [record.act for record in site.do(site.store.load_acts()) if record.act.outcome == "denied"]
    assert [(act.who, act.action) for act in denied] == [("ann", "down"), ("ann", "login")]


def test_no_secret_is_recorded(site: Site) -> None:
    site.add_user("boss", "owner")
    token = site.token("boss")
    made = site.ask("POST", "/tokens", {"name": "t"}, token=token).json["secret"]
    site.ask("POST", "/users", {"name": "ann", "password": "a first password"}, token=token)
    task = {"run": "true", "secrets": {"KEY": "hunter-two"}, "envs": {"PLAIN": "hunter-three"}}
    assert site.ask("POST", "/jobs", {"tasks": [task], "user": ""}, token=token).status == 200
    text = str(site.do(site.store.load_acts()))
    for secret in (PASSWORD, token, made, "a first password", "hunter-two", "hunter-three", "argon2id"):
        assert secret not in text
    assert "jobs_launch" in text


def test_over_the_socket_it_is_the_owner(site: Site) -> None:
    from argosy.client.client import Client

    with Client(env={"HOME": str(site.home), "ARGOSY_SERVER": f"unix://{site.socket}"}) as client:
        client.add_project("maps")
    [act] = [record.act for record in site.do(site.store.load_acts()) if record.act.action == "add_project"]
    assert (act.who, act.via, act.address) == ("owner", "socket", "")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    url = f"sqlite:///{tmp_path / 'argosy.db'}"
    return asyncio.run(Store.open(url, ids=SimIds(), clock=FixedClock(), inline=True))


def test_the_database_refuses_to_change_it(store: Store, tmp_path: Path) -> None:
    asyncio.run(store.commit(acts=[an_act(1), an_act(2)]))
    connection = sqlite3.connect(tmp_path / "argosy.db")
    for statement in ("UPDATE audit SET who = 'x'", "DELETE FROM audit", "DELETE FROM audit WHERE seq = 2"):
        with pytest.raises(sqlite3.IntegrityError, match="the audit log is only added to"):
            connection.execute(statement)
    connection.close()


def test_the_beginning_is_forgotten_and_the_rest_proves_itself(store: Store) -> None:
    async def main() -> None:
        for at in range(1, 11):
            await store.commit(acts=[an_act(at)])
        assert await store.forget_acts(6) == 5
        (seq, prev), end = await store.audit_ends()
        assert seq == 5
        left = await store.load_acts()
        assert [record.seq for record in left] == [6, 7, 8, 9, 10]
        assert first_break(left, seq=seq, prev=prev) == ""
        await store.commit(acts=[an_act(11)])
        assert (await store.audit_ends())[1][0] == end[0] + 1
        assert await store.forget_acts(100) == 6
        await store.commit(acts=[an_act(12)])
        [last] = await store.load_acts()
        assert last.seq == 12, "numbers go on when nothing is left"
        (seq, prev), _ = await store.audit_ends()
        assert first_break([last], seq=seq, prev=prev) == ""

    asyncio.run(main())


def test_texts_of_any_kind_keep_their_hash(store: Store) -> None:
    """Whatever a name holds, the database gives back what was hashed."""

    async def main() -> None:
        for text in ("a\0b", "\ud800", "line\nline", "\\0", "ü", "'; DROP TABLE audit; --", "x" * 5000):
            await store.commit(acts=[an_act(1, who=text, target=text, changes=text)])
        (seq, prev), _ = await store.audit_ends()
        assert first_break(await store.load_acts(), seq=seq, prev=prev) == ""

    asyncio.run(main())


def test_no_change_without_its_record(site: Site) -> None:
    """When the record cannot be written, neither is the change."""
    site.add_user("boss", "admin")
    token = site.token("boss")
    raw = sqlite3.connect(site.home / "argosy.db")
    raw.execute("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END")
    raw.commit()
    assert site.ask("POST", "/projects", {"name": "maps"}, token=token).status >= 400
    raw.execute("DROP TRIGGER full")
    raw.commit()
    raw.close()
    assert site.do(site.store.snapshot()).entry_called("project:maps") is None
    assert site.ask("POST", "/projects", {"name": "maps"}, token=token).status == 200
    assert site.do(site.people.remove_project(OWNER, "maps")).name == "maps"


_WRITER = """
import asyncio, sys
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.audit import Act
from argosy.model.people import Project
from argosy.store import Store
from argosy.store.acting import ACTING, Acting

async def main():
    ids = SystemIds()
    store = await Store.open(sys.argv[1], ids=ids, clock=SystemClock())
    ACTING.set(Acting(Act(at_ms=1, who="ann", via="token", action="add_project")))
    while True:
        made = [Project(id=ids.new("prj"), created_ms=1, name=ids.new("p")) for _ in range(8)]
        await asyncio.gather(*(store.commit([each]) for each in made))
        print("written", flush=True)

asyncio.run(main())
"""


@pytest.mark.process
def test_killed_at_any_moment_no_change_is_without_its_record(tmp_path: Path) -> None:
    import subprocess
    import sys

    url = f"sqlite:///{tmp_path / 'argosy.db'}"
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, url], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        writer.kill()
        writer.wait()
        writer.stdout.close()

    async def main() -> None:
        store = await Store.open(url, ids=SimIds(), clock=FixedClock(), inline=True)
        made = {row.id for row in (await store.snapshot()).people.values()}
        acts = await store.load_acts(limit=100_000)
        assert {record.act.target.partition(" ")[0] for record in acts} == made
        assert first_break(acts, seq=0, prev=FIRST) == ""
        await store.close()

    asyncio.run(main())


def test_the_log_is_shown_and_proved(site: Site) -> None:
    site.add_user("audrey", "auditor")
    site.add_user("ann", "viewer")
    site.login("ann", "wrong password")
    token = site.token("audrey")
    assert site.ask("GET", "/audit", token=site.token("ann")).code == "forbidden"
    shown = site.ask("GET", "/audit?outcome=denied&limit=1", token=token).json
    assert shown["records"][0]["act"]["who"] in ("ann",)
    verdict = site.ask("GET", "/audit/verify", token=token).json
    assert verdict["rows"] == verdict["last"] > 3 and "broken" not in verdict
    raw = sqlite3.connect(site.home / "argosy.db")
    raw.execute("DROP TRIGGER audit_no_update")
    raw.execute("UPDATE audit SET who = 'somebody' WHERE seq = 2")
    raw.commit()
    raw.close()
    assert site.ask("GET", "/audit/verify", token=token).json["broken"] == "row 2 was changed"
    later = site.ask("GET", "/audit?after=2&limit=1", token=token).json
    assert later["records"][0]["seq"] == 3 and later["more"]


def test_a_commit_of_many_rows_names_some(store: Store) -> None:
    from argosy.model.people import Project
    from argosy.store.acting import ACTING, Acting

    async def main() -> None:
        token = ACTING.set(Acting(an_act(1)))
        rows = [Project(id=f"prj-{at:04d}", created_ms=1, name=f"p{at}") for at in range(1000)]
        await store.commit(rows)
        ACTING.reset(token)
        [record] = await store.load_acts()
        assert record.act.target.endswith("prj-0049 (p49) and 950 more")
        assert len(record.act.changes) < 16_385

    asyncio.run(main())
