"""Every endpoint x every role x whose thing it is about, as one golden table.

After a new endpoint or role: ARGOSY_UPDATE_GOLDEN=1 pytest tests/identity/test_matrix.py, and read what
changed. An endpoint whose path names a new kind of thing wants it in `asking.py`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import ENTRIES, PEOPLE, Door, ask_about

from argosy.api.endpoints import ENDPOINTS
from argosy.identity.roles import BUILT_IN
from argosy.model.access import NOBODY, OPEN, PERMISSIONS, SIGNED_IN, Caller
from argosy.server.front import bind
from argosy.testing.idle_server import IdleServer

GOLDEN = Path(__file__).with_name("golden") / "access.txt"
#: Ends this server.
_NOT_ASKED = ("server_stop", "apps_door")  # the second carries bytes to who asks for tickets
#: About what is not there in this table. It belongs to the whole installation, so whose it is does not
#: matter, or is below a thing that another row asks for: a job, a folder.
_NOT_THERE = {
    *(
        "catalog_refreshing",
        "explain_queue",
        "remove_bucket",
        "remove_store_key",
        "transfer",
        "cancel_transfer",
    ),
    *("checkpoint_files", "checkpoint_chunk", "upload_offset", "give_up_upload"),
}


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with IdleServer() as server:
        yield Door(server)


#: Lists of what belongs to the whole installation, such as the tree of queues with how many wait in each.
_OF_ALL = ("/users", "/roles", "/volumes", "/tenancy")


@pytest.fixture
def fresh() -> Iterator[Door]:
    with IdleServer() as server:
        yield Door(server)


def _caller(role: str) -> Caller:
    grants = (BUILT_IN[role].over(None if role in ("admin", "owner") else frozenset({"vision"})),)
    return Caller(id="usr-ann", name="ann", via="token", grants=grants)


def _mark(status: int, answer: Any) -> str:
    code = answer.get("code") if isinstance(answer, dict) else ""
    if status == 403 and code == "forbidden":
        return "-"
    if status == 404 and code == "not-found":
        return "0"
    return "!" if status == 401 else "+"


def test_every_endpoint_has_a_permission() -> None:
    for endpoint in ENDPOINTS:
        assert endpoint.permission in (*PERMISSIONS, OPEN, SIGNED_IN), endpoint.name
    assert [each.name for each in ENDPOINTS if each.permission == OPEN] == [
        *("health", "login", "login_device", "login_device_wait", "login_code")
    ]


def test_a_row_without_a_permission_does_not_start() -> None:
    from argosy.api.endpoint import Reply, endpoint, endpoints_of

    class Forgetful:
        @endpoint("GET", "/forgotten")
        def forgotten(self) -> Reply:
            """Nothing."""

    feature = type("Feature", (), {"forgotten": lambda self, exchange: None})
    with pytest.raises(ValueError, match="`forgotten` names no permission"):
        bind([feature()], endpoints_of(Forgetful))


def test_the_table(door: Door) -> None:
    """`+` it is done (or refused for another reason), `-` forbidden, `0` not there: own, same project, other
    project."""
    [same] = door.things(entries=True)
    marked: dict[str, str] = {}
    # What only reads comes first: each row that is made for the others makes lists longer.
    for endpoint in sorted(ENDPOINTS, key=lambda each: each.method != "GET"):
        if endpoint.name in _NOT_ASKED:
            continue
        found = []
        fresh = [same] * len(BUILT_IN)
        if endpoint.method != "GET":
            fresh = door.things(len(BUILT_IN), entries=ENTRIES.intersection(endpoint.path_names) != set())
        for role, things in zip(BUILT_IN, fresh, strict=True):
            door.caller = _caller(role)
            marks = [_mark(*ask_about(door, endpoint, things[whose])) for whose in PEOPLE]
            found.append("".join(marks))
        marked[endpoint.name] = " ".join(f"{each:<14}" for each in found).rstrip()
    lines = ["+ done  - forbidden  0 not there; about one's own, a colleague's, another project's", ""]
    lines.append(f"{'':24}" + " ".join(f"{role:<14}" for role in BUILT_IN).rstrip())
    lines += [f"{each.name:<24}{marked[each.name]}" for each in ENDPOINTS if each.name in marked]
    text = "\n".join(lines) + "\n"
    if os.environ.get("ARGOSY_UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "who may do what has changed: is that meant?"


def test_the_table_asks_about_what_is_there() -> None:
    """An owner finds each thing: where they do not, the table would hold nothing."""
    rows = [line.split() for line in GOLDEN.read_text().splitlines()[3:]]
    assert {name for name, *marks in rows if "0" in marks[-1]} == _NOT_THERE
    asked = {endpoint.name for endpoint in ENDPOINTS} - set(_NOT_ASKED)
    assert {name for name, *_ in rows} == asked and list(BUILT_IN)[-1] == "owner"


def test_who_has_no_role_gets_nowhere(door: Door) -> None:
    door.caller = NOBODY
    things = door.things()[0]["own"]
    for endpoint in ENDPOINTS:
        if endpoint.permission in PERMISSIONS and endpoint.name not in _NOT_ASKED:
            status, answer = ask_about(door, endpoint, things)
            assert (status, answer["code"]) == (403, "forbidden"), endpoint.name


def test_lists_show_what_one_may_see(fresh: Door) -> None:
    door = fresh  # in which nobody was let in to anything
    [things] = door.things(entries=True)
    far = things["other"]
    lists = [each.path for each in ENDPOINTS if each.method == "GET" and not each.path_names]
    lists += ["/status?all=true", "/sessions?all=true", "/folders?trashed=true", "/jobs?limit=10000"]
    assert len(lists) > 30

    def told(path: str) -> str:
        return str(door.ask("GET", path)[1])

    for role in ("viewer", "member", "operator", "project-admin", "auditor"):
        door.caller = _caller(role)
        for path in lists:
            path, _, query = path.partition("?")
            answer = door.ask("GET", path, query=query)[1]
            if path == "/folders":  # ann was invited to one of theirs, and may know by whom
                answer["folders"] = [each for each in answer["folders"] if not each.get("invited_by")]
            text = str(answer)
            assert path in _OF_ALL or "speech" not in text, (role, path)
            assert not any(row.id in text for row in far.values()), (role, path)
            if path not in _OF_ALL:
                names = re.findall(r"'name': '([^']*)'", text)
                theirs = {far["cluster"].name, far["session"].name, f"{far['cluster'].name}-v"}
                assert not theirs.intersection(names), path
        assert things["own"]["cluster"].id in told("/status")
    door.caller = _caller("admin")
    assert far["cluster"].id in told("/status")
    assert far["job"].id in str(door.ask("GET", "/jobs", query="limit=10000")[1])


def test_who_made_it_is_who_asked(door: Door) -> None:
    """A request cannot say that somebody else made it."""
    door.caller = _caller("member")
    status, answer = door.ask(
        "POST", "/jobs", {"tasks": [{"run": "true"}], "user": "bob", "project": "vision"}
    )
    assert status == 200
    row = door.server.do(door.server.store.load(answer["jobs"][0]["id"]))
    assert (row.user, row.project) == ("ann", "vision")


def test_the_answer_to_a_key_is_not_for_others(door: Door) -> None:
    body = {"tasks": [{"run": "true"}], "user": "", "project": "vision", "key": "k" * 24}
    door.caller = _caller("member")
    first = door.ask("POST", "/jobs", body)[1]["jobs"][0]["id"]
    assert door.ask("POST", "/jobs", body)[1]["jobs"][0]["id"] == first
    door.caller = Caller(id="usr-bob", name="bob", grants=(BUILT_IN["member"].over(frozenset({"vision"})),))
    assert door.ask("POST", "/jobs", body)[1]["jobs"][0]["id"] != first


def test_who_has_one_project_need_not_name_it(door: Door) -> None:
    door.caller = _caller("member")
    answer = door.ask("POST", "/jobs", {"tasks": [{"run": "true"}]})[1]
    row = door.server.do(door.server.store.load(answer["jobs"][0]["id"]))
    assert row.project == "vision"
