"""Passwords, one-time codes, devices, cookies: who gets in, who does not, and what either is told."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3

import pytest
from msgspec.structs import replace
from site_of_people import OWN_PAGE, PASSWORD, Site

from argosy.identity.credentials import PERSONAL, is_well_formed, make_short_code, make_token, plain_code
from argosy.identity.limits import KEYS_OF_A_ROW, ROWS, Attempts
from argosy.identity.one_time_codes import STEP_MS, code_at, step_of
from argosy.identity.passwords import Passwords, check_password
from argosy.identity.tokens import sign_ins_of
from argosy.model.access import OWNER
from argosy.model.errors import ArgosyError
from argosy.model.people import OneTime, User, WrongAttempts


def test_a_password_lets_in(site: Site) -> None:
    site.add_user("ann", "member", "vision")
    answer = site.login("ann")
    assert answer.status == 200
    assert answer.json["token"].startswith("argosy_cli_")
    assert answer.json["must_change_password"], "somebody else chose it"
    who = site.ask("GET", "/whoami", token=answer.json["token"]).json
    assert (who["name"], who["via"]) == ("ann", "session")
    assert who["roles"] == [{"role": "member", "project": "vision", "user": "ann"}]
    assert "jobs.write" in who["permissions"] and "hosts.write" not in who["permissions"]


def test_wrong_is_wrong(site: Site) -> None:
    """No hint which half it was: a wrong password, nobody, a service and a disabled account read the same."""
    site.add_user("ann")
    site.add_user("robot", is_service=True)
    site.add_user("gone")
    site.do(site.people.change_user(OWNER, "gone", is_disabled=True))
    answers = [
        site.login("ann", "wrong password"),
        site.login("nobody", PASSWORD),
        site.login("robot", ""),
        site.login("gone", PASSWORD),
    ]
    assert {each.status for each in answers} == {401}
    assert {each.json["what"] for each in answers} == {"the name, the password or the one-time code is wrong"}
    assert len({str(sorted(each.json.items())) for each in answers}) == 1


def test_who_does_not_exist_takes_as_long(site: Site) -> None:
    """By what is done, not by the clock: each attempt hashes once."""
    site.add_user("ann")
    site.add_user("robot", is_service=True)
    site.add_user("gone")
    site.do(site.people.change_user(OWNER, "gone", is_disabled=True))
    passwords = site.application.identity.passwords
    hashed: list[str] = []
    plain = passwords.matches

    async def counted(kept: str, password: str) -> bool:
        hashed.append(kept)
        return await plain(kept, password)

    passwords.matches = counted  # type: ignore[method-assign]
    for count, name in enumerate(("ann", "nobody", "robot", "gone"), 1):
        site.login(name, "wrong password")
        assert len(hashed) == count, name


def test_too_many_wrong_ones_wait(site: Site) -> None:
    site.add_user("ann")
    for name in ("ann", "nobody"):  # a name that nobody has waits like any other
        for _ in range(5):
            assert site.login(name, "wrong password").status == 401
        locked = site.login(name, PASSWORD)
        assert (locked.status, locked.code) == (429, "too-often")
        assert locked.json["what"] == "too many wrong attempts to sign in: the next may come in 2 s"
    site.clock.advance(3)
    assert site.login("ann").status == 200
    assert site.login("ann", "wrong password").status == 401, "the count begins anew"


def test_an_attack_from_one_address_is_slowed_down(site: Site) -> None:
    for number in range(30):
        assert site.login(f"user-{number}", "wrong password").status == 401
    assert site.login("user-99", "wrong password").code == "too-often"


def test_wrong_ones_are_counted_in_the_database(site: Site) -> None:
    """So another server, or this one started anew, knows them; the rows stay few, and tell no names."""
    site.add_user("ann")
    for _ in range(5):
        site.login("ann", "wrong password")
    site.application.identity.signing_in.attempts = Attempts(site.store)  # of another server
    assert site.login("ann", PASSWORD).code == "too-often"
    for number in range(3 * KEYS_OF_A_ROW):
        site.do(site.application.identity.signing_in.attempts.note_wrong(f"n{number}", "", number))
    site.clock.advance(3601)
    site.login("ann", "wrong password")
    rows = [
        each for each in site.do(site.store.snapshot()).people.values() if isinstance(each, WrongAttempts)
    ]
    assert len(rows) <= ROWS and max(len(each.seen) for each in rows) <= KEYS_OF_A_ROW
    assert "ann" not in repr(rows)
    last = {last_ms for each in rows for _, last_ms in each.seen.values() if last_ms > 1000}
    assert last == {site.clock.now_ms()}, "the five of an hour ago are gone"
    acts = [each.act for each in site.do(site.store.load_acts(limit=50))]
    assert {(act.action, act.outcome) for act in acts if act.who == "ann"} == {("login", "denied")}
    assert not [act for act in acts if "wrg-" in act.target], "the record of the refusal says it"
    assert site.login("ann").status == 200


def test_codes_that_are_over_go_in_the_end(site: Site) -> None:
    """Anybody may ask for one: the database does not keep them for ever."""
    for _ in range(3):
        site.ask("POST", "/login/device", {"host": "h"})
        site.clock.advance(601)
    live = [each for each in site.do(site.store.snapshot()).people.values() if isinstance(each, OneTime)]
    assert len(live) == 1, "those before it are over"
    assert site.do(site.store.prune(before_ms=1 << 49)) >= 2
    with contextlib.closing(sqlite3.connect(site.home / "argosy.db")) as database:
        assert database.execute("SELECT count(*) FROM directory WHERE kind = 'code'").fetchone() == (1,)


def test_many_at_once_are_no_way_around(site: Site) -> None:
    """Those that wait for their hash count as wrong until they are right."""
    site.add_user("ann")
    signing_in = site.application.identity.signing_in

    async def burst() -> list[str]:
        import asyncio

        one = [
            signing_in.by_password("ann", "wrong password", client="cli", address="", agent="")
            for _ in range(20)
        ]
        found = await asyncio.gather(*one, return_exceptions=True)
        return sorted(each.code for each in found if isinstance(each, ArgosyError))

    assert site.do(burst()) == ["too-often"] * 15 + ["unauthorized"] * 5


def test_at_most_two_hashes_at_once() -> None:
    import asyncio

    async def main() -> int:
        passwords = Passwords()
        await asyncio.gather(*(passwords.matches("", "x" * 12) for _ in range(6)))
        return passwords.most

    assert asyncio.run(main()) == 2


def test_who_comes_when_many_wait_is_told_to_come_back() -> None:
    import asyncio

    async def main() -> list[object]:
        passwords = Passwords(memory_kib=32)
        kept = await passwords.hashed("correct horse battery")
        asked = (passwords.matches(kept, "x" * 12) for _ in range(100))
        return list(await asyncio.gather(*asked, return_exceptions=True))

    found = asyncio.run(main())
    refused = [each for each in found if isinstance(each, ArgosyError)]
    assert (len(refused), {each.code for each in refused}) == (36, {"too-often"})
    assert {each.what for each in refused} == {"too many people are signing in at this moment"}
    assert found.count(False) == 64


@pytest.mark.parametrize(
    ("password", "text"),
    [
        ("short", "a password has at least 10 characters, this has 5"),
        ("aaaaaaaaaaaa", "this password is too easy to guess"),
        ("annabel-2026", "this password is too easy to guess"),
        ("x" * 1025, "a password has at most 1024 bytes"),
    ],
)
def test_passwords_that_are_refused(password: str, text: str) -> None:
    with pytest.raises(ArgosyError, match=text):
        check_password(password, "annabel")


def test_nothing_secret_is_kept(site: Site) -> None:
    site.add_user("ann")
    token = site.token("ann")
    cookie = site.cookie("ann")["cookie"].partition("=")[2]
    made = site.ask("POST", "/tokens", {"name": "ci"}, token=token).json["secret"]
    device = site.ask("POST", "/login/device", {"host": "h"}).json
    secrets = [PASSWORD, token, cookie, made, device["secret"], device["code"]]
    for path in site.home.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not [each for each in secrets if each.encode() in data], path


# -- cookies ----------------------------------------------------------------------------------------


def test_the_cookie_of_a_browser(site: Site) -> None:
    site.add_user("ann", "viewer")
    answer = site.login("ann", client="browser")
    assert "token" not in answer.json
    made = answer.headers["set-cookie"]
    name, _, rest = made.partition("=")
    secret, _, attributes = rest.partition("; ")
    assert name == "__Host-argosy" and len(secret) == 43
    assert attributes == "Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=1209600"
    page = {"cookie": f"__Host-argosy={secret}", **OWN_PAGE}
    assert site.ask("GET", "/whoami", **page).json["name"] == "ann"
    # fixation: each sign-in has a fresh one, also for who comes with one
    again = site.ask("POST", "/login", {"user": "ann", "password": PASSWORD}, **page)
    assert secret not in again.headers["set-cookie"]
    out = site.ask("POST", "/logout", **page)
    assert out.headers["set-cookie"].startswith("__Host-argosy=; Path=/; Secure; HttpOnly")
    assert site.ask("GET", "/whoami", **page).status == 401


def test_a_cookie_is_no_bearer_and_the_other_way_round(site: Site) -> None:
    site.add_user("ann", "viewer")
    cookie = site.cookie("ann")["cookie"].partition("=")[2]
    token = site.token("ann")
    assert site.ask("GET", "/whoami", token=cookie).status == 401
    assert site.ask("GET", "/whoami", cookie=f"__Host-argosy={token}", **OWN_PAGE).status == 401


def test_two_cookies_are_none(site: Site) -> None:
    """A sub-domain cannot plant `__Host-`, but whatever can is not believed."""
    site.add_user("ann", "viewer")
    page = site.cookie("ann")
    planted = page["cookie"] + "; __Host-argosy=planted"
    assert site.ask("GET", "/whoami", cookie=planted, **OWN_PAGE).status == 401


def test_a_sign_in_ends_by_itself(site: Site) -> None:
    site.add_user("ann", "viewer")
    page, used = site.cookie("ann"), site.cookie("ann")
    for _ in range(3):
        site.clock.advance(6 * 3600)
        assert site.ask("GET", "/whoami", **used).status == 200
        site.do(site.application.identity.uses.write())
    assert site.ask("GET", "/whoami", **page).status == 401, "12 hours without a request"
    site.clock.advance(14 * 86400)
    assert site.ask("GET", "/whoami", **used).status == 401, "14 days at most"


@pytest.mark.parametrize(
    ("user", "entry", "good"),
    [
        ({}, {}, True),
        ({"is_disabled": True}, {}, False),  # even if its generation had not changed
        ({"generation": 7}, {}, False),
        ({}, {"expires_ms": 0}, False),  # even if it was used a moment ago
        ({}, {"idle_ms": 0}, False),
        ({}, {"user_id": "usr-gone"}, False),
    ],
)
def test_each_reason_ends_a_sign_in_alone(
    site: Site, user: dict[str, object], entry: dict[str, object], good: bool
) -> None:
    site.add_user("ann", "viewer")
    site.token("ann")
    rows, directory = site.do(site.store.snapshot()), site.application.identity.directory
    ann = rows.entry_called("user:ann")
    assert isinstance(ann, User)
    [signed_in] = sign_ins_of(rows, ann)
    if user:
        site.do(site.store.commit([replace(ann, **user)]))
    rows, now_ms = site.do(site.store.snapshot()), site.clock.now_ms()
    assert (directory.user_of(rows, replace(signed_in, **entry), now_ms) is not None) is good


def test_two_fresh_servers_know_nothing_of_each_other(site: Site) -> None:
    """No key is shipped or guessed: what one gave out is nothing to the other, whose people are the same."""
    with Site() as other:
        for each in (site, other):
            each.add_user("ann", "viewer")
        there, here = other.cookie("ann"), site.cookie("ann")
        assert there["cookie"] != here["cookie"]
        assert other.ask("GET", "/whoami", **here).status == 401
        token = site.token("ann")
        personal = site.ask("POST", "/tokens", {"name": "t"}, token=token).json["secret"]
        for secret in (token, personal):
            assert other.ask("GET", "/whoami", token=secret).status == 401
        assert other.ask("GET", "/whoami", **there).status == 200


# -- what ends everything ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["password", "disable", "remove", "second factor", "all"])
def test_what_ends_every_credential(site: Site, how: str) -> None:
    site.add_user("ann", "viewer")
    token, page = site.token("ann"), site.cookie("ann")
    personal = site.ask("POST", "/tokens", {"name": "ci"}, token=token).json["secret"]
    good = {"token": token}, page, {"token": personal}
    assert [site.ask("GET", "/whoami", **each).status for each in good] == [200, 200, 200]
    if how == "password":
        body = {"password": "another long password", "old": PASSWORD}
        assert site.ask("POST", "/password", body, token=token).status == 200
    elif how == "disable":
        site.do(site.people.change_user(OWNER, "ann", is_disabled=True))
    elif how == "remove":
        site.do(site.people.remove_user(OWNER, "ann"))
    elif how == "second factor":
        key = site.ask("POST", "/second-factor", {}, token=token).json["key"]
        code = code_at(key, site.clock.now_ms() // STEP_MS)
        assert site.ask("POST", "/second-factor", {"code": code}, token=token).json == {"is_on": True}
    else:
        assert site.ask("DELETE", "/tokens/all", token=token).status == 200
    left = [site.ask("GET", "/whoami", **each).status for each in good]
    assert left == ([401, 401, 200] if how == "all" else [401, 401, 401])


def test_ones_own_password_wants_the_old_one(site: Site) -> None:
    site.add_user("ann")
    token = site.token("ann")
    body = {"password": "another long password", "old": "wrong password"}
    for _ in range(5):
        assert site.ask("POST", "/password", body, token=token).code == "unauthorized"
    assert site.ask("POST", "/password", body, token=token).code == "too-often"


# -- authenticator apps -----------------------------------------------------------------------------


def test_a_second_factor(site: Site) -> None:
    site.add_user("ann")
    token = site.token("ann")
    begun = site.ask("POST", "/second-factor", {}, token=token).json
    key = begun["key"]
    assert begun["address"] == f"otpauth://totp/Argosy%3Aann?secret={key}&issuer=Argosy"
    assert site.ask("POST", "/second-factor", {"code": "000000"}, token=token).code == "unauthorized"
    assert site.login("ann").status == 200, "it counts when its first code was shown"

    def now() -> str:
        return code_at(key, site.clock.now_ms() // STEP_MS)

    assert site.ask("POST", "/second-factor", {"code": now()}, token=token).status == 200
    missing = site.login("ann")
    assert (missing.status, missing.code) == (401, "second-factor")
    assert site.login("ann", code=now()).status == 401, "the code that switched it on was used"
    site.clock.advance(60)
    assert site.login("ann", code="123456").status == 401
    assert site.login("ann", code=now()).status == 200
    assert site.login("ann", code=now()).status == 401, "a code is good once"
    site.clock.advance(30)
    late = code_at(key, site.clock.now_ms() // STEP_MS + 1)
    assert site.login("ann", code=late).status == 200, "a clock that is half a minute ahead"
    site.clock.advance(300)
    assert site.login("ann", code=late).status == 401


def test_codes_of_the_standard() -> None:
    key = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    for seconds, code in ((59, "287082"), (1111111109, "081804"), (2000000000, "279037")):
        assert code_at(key, seconds // 30) == code
    assert step_of(key, "287 082", 59_000, 0) == 1
    assert step_of(key, "287082", 59_000, 1) is None
    assert step_of(key, "\udcff", 59_000, 0) is None


# -- a device without a browser ---------------------------------------------------------------------


def test_a_device_is_let_in_by_its_person(site: Site) -> None:
    site.add_user("ann", "viewer")
    token = site.token("ann")
    device = site.ask("POST", "/login/device", {"host": "gpu-box"}).json
    wait = {"secret": device["secret"]}
    assert site.ask("POST", "/login/device/wait", wait).json == {}
    looked = site.ask("POST", "/login/device/confirm", {"code": device["code"], "look": True}, token=token)
    assert looked.json["host"] == "gpu-box"
    assert site.ask("POST", "/login/device/wait", wait).json == {}, "looking is not letting in"
    typed = device["code"].lower().replace("-", "")
    assert site.ask("POST", "/login/device/confirm", {"code": typed}, token=token).json["confirmed"]
    login = site.ask("POST", "/login/device/wait", wait).json["login"]
    assert site.ask("GET", "/whoami", token=login["token"]).json["name"] == "ann"
    assert site.ask("POST", "/login/device/wait", wait).status == 401, "once"
    again = site.ask("POST", "/login/device/confirm", {"code": typed}, token=token)
    assert again.code == "not-found"


def test_codes_of_devices_cannot_be_guessed(site: Site) -> None:
    site.add_user("ann", "viewer")
    token = site.token("ann")
    device = site.ask("POST", "/login/device", {"host": "h"}).json
    for _ in range(5):
        body = {"code": make_short_code()}
        assert site.ask("POST", "/login/device/confirm", body, token=token).code == "not-found"
    right = {"code": device["code"]}
    assert site.ask("POST", "/login/device/confirm", right, token=token).code == "too-often"
    assert site.ask("POST", "/login/device/confirm", right).status == 401, "a stranger lets nobody in"


def test_a_code_of_a_device_ends(site: Site) -> None:
    site.add_user("ann", "viewer")
    device = site.ask("POST", "/login/device", {"host": "h"}).json
    site.clock.advance(601)
    assert site.ask("POST", "/login/device/wait", {"secret": device["secret"]}).status == 401
    body = {"code": device["code"]}
    assert site.ask("POST", "/login/device/confirm", body, token=site.token("ann")).code == "not-found"


def test_one_time_codes_of_this_machine(site: Site) -> None:
    site.add_user("ann", "viewer")
    code = site.ask("POST", "/login/codes", {}, token=site.token("ann")).json["code"]
    first = site.ask("POST", "/login/code", {"code": code})
    assert first.headers["set-cookie"].startswith("__Host-argosy=")
    assert site.ask("POST", "/login/code", {"code": code}).status == 401, "once"
    code = site.ask("POST", "/login/codes", {}, token=site.token("ann")).json["code"]
    site.clock.advance(61)
    assert site.ask("POST", "/login/code", {"code": code}).status == 401, "a minute"
    device = site.ask("POST", "/login/device", {"host": "h"}).json
    assert site.ask("POST", "/login/code", {"code": device["secret"]}).status == 401, "another purpose"


# -- tokens -----------------------------------------------------------------------------------------


def test_tokens_are_recognised() -> None:
    token = make_token(PERSONAL)
    assert is_well_formed(token)
    assert token.startswith("argosy_pat_") and len(token) == 11 + 40 + 1 + 7
    assert not is_well_formed(token[:-1] + "x")
    assert not is_well_formed("argosy_pat_")
    assert not is_well_formed("\udcff_" + token)
    assert plain_code("bcdfghjk") == plain_code(" BCDF-GHJK ") == "BCDF-GHJK"


def test_a_token_does_what_it_is_for(site: Site) -> None:
    site.add_user("ann", "member", "vision")
    signed_in = site.token("ann")
    body = {"name": "ci", "permissions": ["jobs.read", "logs.*"], "projects": ["vision"], "days": 10}
    made = site.ask("POST", "/tokens", body, token=signed_in).json
    assert hashlib.sha256(made["secret"].encode()).hexdigest() not in str(made)
    assert site.ask("GET", "/jobs", token=made["secret"]).status == 200
    refused = site.ask("GET", "/status", token=made["secret"])
    assert refused.json["what"] == "the credential is not for `clusters.read`"
    # it makes no larger one
    larger = site.ask("POST", "/tokens", {"name": "more"}, token=made["secret"])
    assert larger.code == "forbidden"
    assert "which the credential you use does not have" in larger.json["what"]
    same = site.ask("POST", "/tokens", {**body, "name": "same"}, token=made["secret"])
    assert same.status == 200
    listed = site.ask("GET", "/tokens", token=signed_in).json
    assert {each["name"] for each in listed["tokens"]} == {"ci", "same"}
    assert listed["tokens"][0]["used_ms"] == site.clock.now_ms() // 60_000 * 60_000
    assert site.ask("DELETE", "/tokens/ci", token=signed_in).status == 200
    assert site.ask("GET", "/jobs", token=made["secret"]).status == 401
    site.clock.advance(11 * 86400)
    assert site.ask("GET", "/jobs", token=same.json["secret"]).status == 401, "it has expired"


def test_a_token_loses_what_its_owner_loses(site: Site) -> None:
    site.add_user("ann", "member", "vision")
    token = site.ask("POST", "/tokens", {"name": "ci"}, token=site.token("ann")).json["secret"]
    assert site.ask("GET", "/jobs", token=token).status == 200
    site.do(site.people.take_role(OWNER, subject="ann", role="member", project="vision"))
    assert site.ask("GET", "/jobs", token=token).code == "forbidden"


def test_service_accounts(site: Site) -> None:
    site.add_user("boss", "admin")
    site.add_user("ann", "member", "vision")
    site.add_user("robot", "member", "vision", is_service=True)
    boss, ann = site.token("boss"), site.token("ann")
    made = site.ask("POST", "/tokens", {"name": "t", "user": "robot"}, token=boss).json["secret"]
    assert made.startswith("argosy_sa_")
    assert site.ask("GET", "/whoami", token=made).json["name"] == "robot"
    assert site.ask("POST", "/tokens", {"name": "t2", "user": "robot"}, token=ann).code == "forbidden"
    assert site.ask("GET", "/tokens", token=ann, **{}).status == 200
    assert site.ask("GET", "/tokens?user=robot", token=ann).code == "forbidden"
    no_password = site.ask("POST", "/password", {"password": PASSWORD, "user": "robot"}, token=boss)
    assert no_password.json["what"] == "`robot` is a service account: it has tokens, no password"


@pytest.mark.parametrize("days", [0, 367])
def test_tokens_end(site: Site, days: int) -> None:
    site.add_user("ann")
    told = site.ask("POST", "/tokens", {"name": "t", "days": days}, token=site.token("ann"))
    assert told.json["what"] == f"a token is valid for 1 to 366 days, not {days}"
