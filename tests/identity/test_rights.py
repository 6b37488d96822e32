"""Nobody gives, takes over or resets what goes beyond their own rights; and the last owner stays."""

from __future__ import annotations

import pytest
from site_of_people import PASSWORD, Site

from argosy.model.access import OWNER


def test_the_last_owner_stays(site: Site) -> None:
    site.add_user("ann", "owner")
    token = site.token("ann")
    text = "`ann` is the last owner"
    hint = "make somebody else an owner first: `argosy role give NAME owner`"
    for method, path, body in (
        ("DELETE", "/users/ann", None),
        ("POST", "/users/ann", {"is_disabled": True}),
        ("POST", "/members", {"user": "ann", "role": "owner", "remove": True}),
    ):
        answer = site.ask(method, path, body, token=token)
        assert (answer.status, answer.json["what"], answer.json["hint"]) == (409, text, hint)
    site.add_user("bob", "owner")
    site.do(site.people.change_user(OWNER, "bob", is_disabled=True))
    assert site.ask("DELETE", "/users/ann", token=token).status == 409, "a disabled owner is none"
    site.do(site.people.change_user(OWNER, "bob", is_disabled=False))
    assert site.ask("DELETE", "/users/ann", token=token).status == 200


def test_nobody_gives_more_than_they_have(site: Site) -> None:
    site.add_user("ann", "project-admin", "vision")
    site.add_user("boss", "admin")
    site.add_user("bob")
    site.add_user("cid", "viewer", "speech")
    ann, boss = site.token("ann"), site.token("boss")

    def give(token: str, role: str, **where: str) -> object:
        answer = site.ask("POST", "/members", {"user": "bob", "role": role, **where}, token=token)
        return answer.status if answer.status == 200 else answer.json["what"]

    assert give(ann, "member", project="vision") == 200
    assert give(ann, "project-admin", project="vision") == 200
    assert give(ann, "member", project="speech") == (
        "`ann` has no role with `members.write` in project `speech`"
    )
    assert give(ann, "member") == "`ann` has no role with `users.write` over everything"
    assert give(ann, "admin", project="vision") == (
        "role `admin` has `audit.read`, which you do not have there: nobody gives more than they have"
    )
    assert give(boss, "owner") == "`boss` has no role with `owners.write` over everything"
    assert give(boss, "admin") == 200
    assert give(boss, "nothing") == "there is no role `nothing`"
    assert give(boss, "viewer", project="nowhere") == "there is no project `nowhere`"


def test_nobody_makes_a_role_beyond_their_own(site: Site) -> None:
    site.add_user("boss", "admin")
    boss = site.token("boss")
    made = {"name": "on-call", "permissions": ["*.read", "jobs.write"]}
    assert site.ask("POST", "/roles", made, token=boss).status == 200
    assert site.ask("POST", "/roles", made, token=boss).code == "conflict"
    beyond = site.ask("POST", "/roles", {"name": "all", "permissions": ["*"]}, token=boss)
    assert beyond.json["what"] == (
        "the role has `owners.write`, which you do not have: nobody gives more than they have"
    )
    assert site.ask("POST", "/roles", {"name": "viewer", "permissions": ["*"]}, token=boss).code == "conflict"
    assert site.ask("POST", "/roles", {"name": "none"}, token=boss).json["what"] == (
        "a role has at least one permission"
    )
    site.add_user("bob", "on-call", "vision")
    bob = site.token("bob")
    assert site.ask("GET", "/jobs", token=bob).status == 200
    assert site.ask("DELETE", "/roles/on-call", token=boss).status == 200
    assert site.ask("GET", "/jobs", token=bob).code == "forbidden", "it is taken from who had it"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/password", {"user": "owen", "password": "another long password"}),
        ("POST", "/tokens", {"user": "owen", "name": "x"}),
        ("POST", "/users/owen", {"is_disabled": True}),
        ("POST", "/users/owen", {"drop_second_factor": True}),
        ("DELETE", "/users/owen", None),
        ("DELETE", "/tokens/all?user=owen", None),
        ("POST", "/login/codes", {"user": "owen"}),
        ("GET", "/tokens?user=owen", None),
    ],
)
def test_an_administrator_does_not_become_an_owner(site: Site, method: str, path: str, body: object) -> None:
    """Whoever may set a password may be that person: so not that of somebody with more rights."""
    site.add_user("owen", "owner")
    site.add_user("boss", "admin")
    if "drop_second_factor" in str(body):
        rows = site.do(site.store.snapshot())
        from argosy.identity.directory import user_called
        from argosy.testing.builders import changed

        user = user_called(rows, "owen")
        assert user is not None
        site.do(site.store.commit([changed(user, second_factor="totp")]))
    answer = site.ask(method, path, body, token=site.token("boss"))
    assert answer.json["what"] == (
        "`owen` has `owners.write`, which you do not have: you cannot act for them"
    )


def test_names_are_never_given_twice(site: Site) -> None:
    """What somebody made stays theirs."""
    site.add_user("ann", "member", "vision")
    site.do(site.people.remove_user(OWNER, "ann"))
    site.add_user("boss", "admin")
    answer = site.ask("POST", "/users", {"name": "ann"}, token=site.token("boss"))
    assert (answer.status, answer.json["what"]) == (409, "there is a user `ann` already")
    assert site.login("ann").status == 401


def test_organisations_reach_their_projects(site: Site) -> None:
    site.do(site.people.add_organisation(OWNER, name="acme"))
    site.do(site.people.add_project(OWNER, name="maps", organisation="acme"))
    site.add_user("ann")
    site.do(site.people.give_role(OWNER, subject="ann", role="viewer", organisation="acme"))
    token = site.token("ann")
    assert [each["name"] for each in site.ask("GET", "/projects", token=token).json["projects"]] == ["maps"]
    site.do(site.people.add_project(OWNER, name="sound", organisation="acme"))
    site.do(site.people.add_project(OWNER, name="other"))
    names = [each["name"] for each in site.ask("GET", "/projects", token=token).json["projects"]]
    assert names == ["maps", "sound"]


def test_a_project_in_which_something_runs_stays(site: Site) -> None:
    from argosy.testing.builders import a_cluster

    site.add_user("boss", "admin")
    boss = site.token("boss")
    site.do(site.people.add_project(OWNER, name="vision"))
    site.do(site.store.commit([a_cluster(name="dev", project="vision")]))
    answer = site.ask("DELETE", "/projects/vision", token=boss)
    assert answer.json["what"] == "project `vision` has 1 live clusters and jobs, such as `dev`"


def test_who_has_which_role_is_shown_where_one_may_see_it(site: Site) -> None:
    site.add_user("ann", "viewer", "vision")
    site.add_user("bob", "viewer", "speech")
    site.add_user("boss", "admin")
    seen = site.ask("GET", "/members", token=site.token("ann")).json["members"]
    assert [each["user"] for each in seen] == ["ann"]
    everything = site.ask("GET", "/members", token=site.token("boss")).json["members"]
    assert {each["user"] for each in everything} == {"ann", "bob", "boss"}
    users = site.ask("GET", "/users", token=site.token("ann")).json["users"]
    assert all("email" not in each and "roles" not in each for each in users if each["name"] != "ann")


def test_over_the_socket_the_first_owner_is_made(site: Site) -> None:
    """Nobody is asked there: that is how the first account comes about."""
    site.add_user("ann", "owner", password=PASSWORD)
    assert site.ask("GET", "/server", token=site.token("ann")).status == 200
