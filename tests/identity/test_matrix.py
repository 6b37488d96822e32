"""Every endpoint x every role x whose thing it is about, as one golden table.

After a new endpoint or role: ARGOSY_UPDATE_GOLDEN=1 pytest tests/identity/test_matrix.py, and read what
changed. An endpoint whose path names a new kind of thing wants it in `asking.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import PEOPLE, Door, ask_about

from argosy.api.endpoints import ENDPOINTS
from argosy.identity.roles import BUILT_IN
from argosy.model.access import NOBODY, OPEN, PERMISSIONS, SIGNED_IN, Caller
from argosy.server.front import bind
from argosy.testing.idle_server import IdleServer

GOLDEN = Path(__file__).with_name("golden") / "access.txt"
#: Ends this server.
_NOT_ASKED = ("server_stop", "apps_door")  # the second carries bytes to who asks for tickets


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
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
    lines = ["+ done  - forbidden  0 not there; about one's own, a colleague's, another project's", ""]
    [same] = door.things()
    lines.append(f"{'':24}" + " ".join(f"{role:<14}" for role in BUILT_IN).rstrip())
    for endpoint in ENDPOINTS:
        if endpoint.name in _NOT_ASKED:
            continue
        found = []
        fresh = [same] * len(BUILT_IN) if endpoint.method == "GET" else door.things(len(BUILT_IN))
        for role, things in zip(BUILT_IN, fresh, strict=True):
            door.caller = _caller(role)
            marks = [_mark(*ask_about(door, endpoint, things[whose])) for whose in PEOPLE]
            found.append("".join(marks))
        lines.append(f"{endpoint.name:<24}" + " ".join(f"{each:<14}" for each in found).rstrip())
    text = "\n".join(lines) + "\n"
    if os.environ.get("ARGOSY_UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "who may do what has changed: is that meant?"


def test_who_has_no_role_gets_nowhere(door: Door) -> None:
    door.caller = NOBODY
    things = door.things()[0]["own"]
    for endpoint in ENDPOINTS:
        if endpoint.permission in PERMISSIONS and endpoint.name not in _NOT_ASKED:
            status, answer = ask_about(door, endpoint, things)
            assert (status, answer["code"]) == (403, "forbidden"), endpoint.name


def test_lists_show_what_one_may_see(door: Door) -> None:
    [things] = door.things()
    far = things["other"]

    def told(path: str) -> str:
        return str(door.ask("GET", path)[1])

    for role in ("viewer", "member", "operator", "project-admin", "auditor"):
        door.caller = _caller(role)
        for path in ("/status", "/status?all=true", "/jobs", "/job-pools", "/costs", "/events", "/budgets"):
            path, _, query = path.partition("?")
            text = str(door.ask("GET", path, query=query)[1])
            assert "speech" not in text, (role, path)
            assert not any(row.id in text for row in far.values()), (role, path)
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
