"""Sharing the app of a session: with whom, for how long, and what it never allows."""

from __future__ import annotations

import msgspec
import pytest
from test_app_attacks import a_session

from argosy.identity.roles import BUILT_IN
from argosy.model.access import NOBODY, Caller, Grant
from argosy.model.errors import ArgosyError
from argosy.model.kinds.session import session_state
from argosy.model.rows import Workload
from argosy.server.session_shares import LONGEST_S, is_shared, with_share

NOW_MS = 1_000_000


def member(name: str, *projects: str) -> Caller:
    grants = tuple(BUILT_IN["member"].over(frozenset((each,))) for each in projects)
    return Caller(id=f"usr-{name}", name=name, via="session", credential="c", grants=grants)


def shared(who: str, seconds: int = 60) -> Workload:
    return with_share(a_session("one"), who, seconds, NOW_MS)


@pytest.mark.parametrize(
    ("who", "caller", "allowed"),
    [
        ("ben", member("ben", "vision"), True),
        ("ben", member("ann", "vision"), False),
        ("ben", msgspec.structs.replace(NOBODY, name="ben"), False),
        ("project:vision", member("ann", "vision"), True),
        ("project:vision", member("ann", "sound"), False),
        ("project:vision", member("ann"), False),
        ("project:vision", NOBODY, False),
    ],
)
def test_a_share_is_for_those_whom_it_names(who: str, caller: Caller, allowed: bool) -> None:
    assert is_shared(shared(who), caller, NOW_MS) is allowed
    assert not is_shared(a_session("one"), caller, NOW_MS)


def test_it_ends_by_itself_and_when_it_is_taken_back() -> None:
    ben, session = member("ben", "vision"), shared("ben")
    assert is_shared(session, ben, NOW_MS + 59_999) and not is_shared(session, ben, NOW_MS + 60_000)
    assert not is_shared(with_share(session, "ben", 0, NOW_MS), ben, NOW_MS)


def test_a_new_share_takes_the_place_of_the_old_and_of_those_that_are_over() -> None:
    session = with_share(shared("ben"), "eva", 600, NOW_MS)
    session = with_share(session, "eva", 60, NOW_MS + 60_000)
    assert [(each.who, each.until_ms) for each in session_state(session).shares] == [
        ("eva", NOW_MS + 120_000)
    ]


def test_a_token_that_is_not_for_sessions_opens_none() -> None:
    limit = Grant(permissions=frozenset(("jobs.read",)))
    token = msgspec.structs.replace(member("ben", "vision"), via="token", limit=limit)
    assert not is_shared(shared("ben"), token, NOW_MS)


@pytest.mark.parametrize(
    ("who", "seconds", "told"),
    [
        ("team:ben", 60, "`team:ben` is nobody to share with"),
        ("project:", 60, "`project:` is nobody to share with"),
        ("", 60, "`` is nobody to share with"),
        ("ben", LONGEST_S + 1, "a share lasts 30 days at most"),
        ("ben", -1, "a share lasts 30 days at most"),
    ],
)
def test_what_cannot_be_shared_so(who: str, seconds: int, told: str) -> None:
    with pytest.raises(ArgosyError, match=told):
        shared(who, seconds)
