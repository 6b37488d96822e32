"""What `may` and `visible` say, as tables and as properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.identity.deciding import Denied, may, visible
from argosy.identity.roles import BUILT_IN, exceeds, expand
from argosy.model.access import ALL, EVERYTHING, NOBODY, OWNER, PERMISSIONS, Caller, Grant, Place, Target
from argosy.model.errors import ArgosyError

ANN = Target("vision", "ann")
BOB = Target("vision", "bob")
FAR = Target("speech", "cid")


def caller(role: str, *projects: str, name: str = "ann", limit: Grant | None = None) -> Caller:
    where = frozenset(projects) if projects else None
    return Caller(id=f"usr-{name}", name=name, grants=(BUILT_IN[role].over(where),), limit=limit)


@pytest.mark.parametrize(
    ("role", "permission", "own", "same_project", "elsewhere"),
    [
        ("viewer", "jobs.read", True, True, False),
        ("viewer", "jobs.write", False, False, False),
        ("member", "jobs.read", True, True, False),
        ("member", "jobs.write", True, False, False),
        ("member", "clusters.enter", True, False, False),
        ("member", "budgets.write", False, False, False),
        ("operator", "jobs.write", True, True, False),
        ("operator", "budgets.write", False, False, False),
        ("operator", "audit.read", False, False, False),
        ("project-admin", "budgets.write", True, True, False),
        ("project-admin", "members.write", True, True, False),
        ("project-admin", "hosts.write", False, False, False),
        ("project-admin", "queues.write", False, False, False),
        ("auditor", "audit.read", False, False, False),
        ("auditor", "jobs.write", False, False, False),
        ("admin", "jobs.write", True, True, False),
        # a grant over one project is none over everything, whatever the role
        ("admin", "hosts.write", False, False, False),
        ("admin", "users.write", False, False, False),
        ("owner", "owners.write", False, False, False),
    ],
)
def test_a_role_over_one_project(
    role: str, permission: str, own: bool, same_project: bool, elsewhere: bool
) -> None:
    who = caller(role, "vision")
    assert [bool(may(who, permission, each)) for each in (ANN, BOB, FAR)] == [own, same_project, elsewhere]


def test_what_is_shared_asks_for_any_project() -> None:
    assert may(caller("viewer", "vision"), "offers.read", Target())
    assert not may(caller("viewer", "vision"), "offers.write", Target())
    assert may(caller("admin"), "offers.write", Target())
    assert not may(NOBODY, "offers.read", Target())


def test_only_owners_make_owners() -> None:
    assert not may(caller("admin"), "owners.write", Target())
    assert may(caller("owner"), "owners.write", Target())
    assert BUILT_IN["owner"].permissions == ALL
    assert BUILT_IN["admin"].permissions == ALL - {"owners.write"}


def test_over_the_socket_nobody_is_asked() -> None:
    assert all(may(OWNER, permission, target) for permission in PERMISSIONS for target in (Target(), FAR))
    assert all(visible(OWNER, permission).is_everything for permission in PERMISSIONS)


def test_a_credential_never_gives_more_than_its_owner_has() -> None:
    read = Grant(permissions=expand(["*.read"]), projects=frozenset({"vision", "speech"}))
    limited = caller("member", "vision", limit=read)
    assert may(limited, "jobs.read", BOB)
    assert not may(limited, "jobs.read", FAR), "the owner does not see it either"
    assert not may(limited, "jobs.write", ANN), "the credential only reads"
    denied = may(limited, "jobs.write", ANN)
    assert isinstance(denied, Denied)
    assert denied.reason == "the credential is not for `jobs.write` in project `vision`"
    refused = may(caller("member", "vision"), "jobs.write", BOB)
    assert isinstance(refused, Denied)
    assert refused.reason == "`ann` has no role with `jobs.write` in project `vision`"


def test_unknown_permissions_are_bugs() -> None:
    with pytest.raises(KeyError):
        may(OWNER, "jobs.fly", Target())


def test_patterns() -> None:
    assert expand(["jobs:*"]) == {"jobs.read", "jobs.write"}
    assert expand(["*"]) == ALL
    assert "audit.read" in expand(["*.read"])
    with pytest.raises(ArgosyError, match=r"there is no permission `jobs\.wirte`") as caught:
        expand(["jobs.wirte"])
    assert caught.value.hint == "did you mean `jobs.write`?"
    for bad in ("", "[a-z]*", "nothing.*"):
        with pytest.raises(ArgosyError):
            expand([bad])


def test_who_gives_a_role_has_all_of_it() -> None:
    admin = (BUILT_IN["project-admin"].over(frozenset({"vision"})),)
    vision, all_over = frozenset({"vision"}), None
    assert not exceeds(BUILT_IN["member"].over(vision), admin)
    assert not exceeds(BUILT_IN["project-admin"].over(vision), admin)
    assert exceeds(BUILT_IN["viewer"].over(frozenset({"speech"})), admin)
    assert exceeds(BUILT_IN["viewer"].over(all_over), admin)
    assert "queues.write" in exceeds(BUILT_IN["admin"].over(vision), admin)
    assert not exceeds(BUILT_IN["owner"].over(None), [EVERYTHING])
    member = (BUILT_IN["member"].over(vision),)
    assert exceeds(BUILT_IN["operator"].over(vision), member) >= {"jobs.write", "clusters.enter"}
    assert not exceeds(BUILT_IN["member"].over(vision), member)


grants = st.builds(
    Grant,
    permissions=st.frozensets(st.sampled_from(sorted(ALL)), max_size=6),
    own=st.frozensets(st.sampled_from(sorted(ALL)), max_size=6),
    projects=st.none() | st.frozensets(st.sampled_from(["vision", "speech", "maps"]), max_size=2),
)
callers = st.builds(
    Caller,
    name=st.sampled_from(["ann", "bob"]),
    grants=st.lists(grants, max_size=3).map(tuple),
    limit=st.none() | grants.map(lambda one: Grant(permissions=one.permissions, projects=one.projects)),
)


@given(callers, st.sampled_from(sorted(ALL)), st.sampled_from(["vision", "speech", "maps"]))
def test_lists_show_what_may_be_asked_for_one_by_one(who: Caller, permission: str, project: str) -> None:
    """`visible` is `may`, asked of everything at once."""
    seen = visible(who, permission)
    for owner in ("ann", "bob", ""):
        assert seen.holds(project, owner) == bool(may(who, permission, Target(project, owner))), owner
    if PERMISSIONS[permission].place is Place.EVERYWHERE and seen.whole is not None:
        assert not seen.whole


@given(callers, grants, st.sampled_from(sorted(ALL)))
def test_a_limit_only_takes_away(who: Caller, limit: Grant, permission: str) -> None:
    free = Caller(name=who.name, grants=who.grants)
    limited = Caller(name=who.name, grants=who.grants, limit=limit)
    for target in (ANN, BOB, FAR, Target()):
        assert bool(may(limited, permission, target)) <= bool(may(free, permission, target))
