"""Hosts, origins, methods, proxies: what the door asks before it asks who comes."""

from __future__ import annotations

import asyncio

import pytest
from site_of_people import OWN_PAGE, Site

from argosy.identity.credentials import PERSONAL, make_token
from argosy.model.access import OWNER
from argosy.model.errors import ArgosyError
from argosy.server.door_rules import COOKIE, DoorRules, check_page, cookie_of, parse_rules
from argosy.server.doorkeeper import Doorkeeper
from argosy.server.identity import Identity
from argosy.server.tokens import Tokens
from argosy.store.accounts import Token
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store
from argosy.testing.virtual_time import FixedClock, SimIds

RULES = DoorRules(
    hosts=frozenset({"argosy.example", "gpu-box"}), origins=frozenset({"https://argosy.example"})
)
API = {"x-argosy-api": "1"}


@pytest.mark.parametrize(
    ("host", "local", "ours"),
    [
        ("localhost:7421", "", True),
        ("127.0.0.1:7421", "", True),
        ("[::1]:7421", "", True),
        ("ARGOSY.example", "", True),
        ("argosy.example.", "", True),
        ("10.0.0.5:7421", "10.0.0.5", True),
        ("[fe80::1]:80", "fe80::1%eth0", True),
        ("10.0.0.5:7421", "10.0.0.6", False),
        ("evil.example", "10.0.0.5", False),
        ("argosy.example.evil.example", "", False),
        ("localhost.evil.example", "", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("", "10.0.0.5", False),
        ("app--s1.localhost", "", False),
    ],
)
def test_which_hosts_are_ours(host: str, local: str, ours: bool) -> None:
    assert RULES.is_ours(host, local) is ours


SELF = {"host": "argosy.example"}
BOX = {"host": "gpu-box:7421"}


@pytest.mark.parametrize(
    ("headers", "websocket", "ours"),
    [
        # our page says its origin, or the browser says that it is ours
        ({**SELF, **API, "origin": "https://argosy.example"}, False, True),
        ({**SELF, **API, "sec-fetch-site": "same-origin"}, False, True),
        ({**SELF, "origin": "https://argosy.example"}, True, True),
        ({"host": "localhost:1", **API, "origin": "http://localhost:1"}, False, True),
        # another site
        ({**SELF, **API, "origin": "https://evil.example"}, False, False),
        ({**SELF, "origin": "https://evil.example"}, True, False),
        ({**SELF, **API, "origin": "null"}, False, False),
        ({**SELF, **API, "origin": ""}, False, False),
        # an app of ours on a name of its own is another site, too
        ({**SELF, **API, "origin": "https://app--s1.argosy.example"}, False, False),
        ({**SELF, **API, "origin": "https://argosy.example.evil.example"}, False, False),
        ({**SELF, **API, "origin": "https://argosy.example:8443"}, False, False),
        ({**SELF, **API, "origin": "http://argosy.example"}, False, False),
        ({**SELF, **API, "origin": "https://argosy.example/"}, False, False),
        ({**SELF, **API, "origin": "https://user@argosy.example"}, False, False),
        ({"host": "localhost:1", **API, "origin": "http://localhost:2"}, False, False),
        ({"host": "evil.example", **API, "origin": "https://evil.example"}, False, False),
        # without an origin, only what the browser calls ours
        ({**SELF, **API}, False, False),
        ({**SELF, **API, "sec-fetch-site": "same-site"}, False, False),
        ({**SELF, **API, "sec-fetch-site": "cross-site"}, False, False),
        ({**SELF, **API, "sec-fetch-site": "none"}, False, False),
        ({**SELF, **API, "sec-fetch-site": "same-origin, cross-site"}, False, False),
        # an origin of another site is believed more than what else is said
        ({**SELF, **API, "origin": "https://evil.example", "sec-fetch-site": "same-origin"}, False, False),
        # a WebSocket has no Sec-Fetch-Site
        ({**SELF, "sec-fetch-site": "same-origin"}, True, False),
        ({**SELF}, True, False),
        # without the header that makes other sites ask first
        ({**SELF, "origin": "https://argosy.example"}, False, False),
        ({**SELF, "sec-fetch-site": "same-origin"}, False, False),
        ({**BOX, **API, "origin": "http://gpu-box:7421"}, False, False),  # the public address is encrypted
    ],
)
def test_which_pages_are_ours(headers: dict[str, str], websocket: bool, ours: bool) -> None:
    if ours:
        check_page(RULES, headers, is_websocket=websocket)
        return
    with pytest.raises(ArgosyError) as caught:
        check_page(RULES, headers, is_websocket=websocket)
    assert caught.value.code == "foreign-page"


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("10.1.1.1", "203.0.113.9", "203.0.113.9"),
        ("10.1.1.1", "203.0.113.9, 10.2.2.2", "203.0.113.9"),
        ("10.1.1.1", "1.1.1.1, 203.0.113.9", "203.0.113.9"),  # what the stranger wrote in front is not read
        ("203.0.113.7", "1.1.1.1", "203.0.113.7"),  # no proxy of ours
        ("10.1.1.1", "", "10.1.1.1"),
        ("10.1.1.1", "unknown", "10.1.1.1"),
        ("10.1.1.1", "1.1.1.1, x", "10.1.1.1"),
        ("@", "1.1.1.1", "@"),
    ],
)
def test_who_comes_through_a_proxy(peer: str, forwarded: str, address: str) -> None:
    rules = parse_rules({"ARGOSY_TRUSTED_PROXIES": "10.0.0.0/8"}, names=())
    assert rules.address_of(peer, forwarded) == address
    assert DoorRules().address_of(peer, forwarded) == peer, "nobody is believed unless told"


def test_rules_of_an_environment() -> None:
    env = {"ARGOSY_PUBLIC_URL": "https://Argosy.example:8443", "ARGOSY_HOSTS": "a.example, b.example:80"}
    rules = parse_rules(env, names=("box.lan", "box", ""))
    assert rules.hosts == {"argosy.example", "a.example", "b.example", "box.lan", "box"}
    assert rules.origins == {"https://argosy.example:8443"}
    with pytest.raises(ArgosyError, match="ARGOSY_TRUSTED_PROXIES: `everywhere` is no network"):
        parse_rules({"ARGOSY_TRUSTED_PROXIES": "everywhere"})


def test_cookies() -> None:
    assert cookie_of(f"a=1; {COOKIE}=x; b=2") == "x"
    assert cookie_of(f"{COOKIE}=x; {COOKIE}=y") == ""
    assert cookie_of("argosy=x; __host-argosy=y") == ""


def test_a_name_that_is_not_ours_is_answered_by_nobody(site: Site) -> None:
    """DNS rebinding: a page whose name leads here now gets nothing, not even how the server is."""
    site.add_user("ann", "viewer")
    for path in ("/health", "/status", "/nothing"):
        answer = site.ask("GET", path, host="evil.example")
        assert (answer.status, answer.code) == (421, "wrong-host")
    assert site.ask("GET", "/health").status == 200
    assert site.ask("POST", "/login", {"user": "ann", "password": "x"}, host="evil.example").status == 421
    named = site.ask("GET", "/status", token=site.token("ann"), host="some-proxy.internal")
    assert named.status == 200, "a program with a token may come by any name"
    assert site.ask("GET", "/status", **{**site.cookie("ann"), "host": "evil.example"}).status == 421


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_a_foreign_page_does_nothing_with_our_cookie(site: Site, method: str) -> None:
    site.add_user("ann", "admin")
    page = site.cookie("ann")
    foreign = {**page, "origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    path = {"PUT": "/budgets", "DELETE": "/projects/vision"}.get(method, "/status")
    answer = site.ask(method, path, **foreign)
    expected = {"OPTIONS": "wrong-method", "TRACE": "wrong-method"}
    assert answer.code == expected.get(method, "foreign-page"), answer
    assert "access-control-allow-origin" not in answer.headers


def test_a_form_of_another_site_does_nothing(site: Site) -> None:
    site.add_user("ann", "admin")
    cookie = {"cookie": site.cookie("ann")["cookie"]}
    form = {"content-type": "text/plain", "origin": "null", "sec-fetch-mode": "navigate"}
    assert site.ask("POST", "/projects", {"name": "x"}, **cookie, **form).code == "foreign-page"
    same = {"origin": site.address, "content-type": "text/plain"}
    assert site.ask("POST", "/projects", {"name": "x"}, **cookie, **same).code == "foreign-page"


def test_headers_of_every_answer(site: Site) -> None:
    """Also of refusals: each is a page when a browser is led to it."""
    site.add_user("ann", "viewer")
    foreign = {**site.cookie("ann"), "origin": "https://evil.example"}
    answers = {
        200: site.ask("GET", "/health"), 401: site.ask("GET", "/status"),
        421: site.ask("GET", "/status", host="x.y"), 405: site.ask("TRACE", "/status"),
        422: site.ask("POST", "/login", b"{"),
        403: site.ask("GET", "/status", **foreign), 404: site.ask("GET", "/jobs/9", token=site.token("ann")),
    }  # fmt: skip
    for status, answer in answers.items():
        assert answer.status == status
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_a_token_in_the_address_is_no_token(site: Site) -> None:
    site.add_user("ann", "viewer")
    token = site.token("ann")
    for query in (f"?token={token}", f"?access_token={token}", f"?authorization=Bearer%20{token}"):
        assert site.ask("GET", f"/status{query}").status == 401


def test_an_own_page_is_served(site: Site) -> None:
    site.add_user("ann", "viewer")
    page = site.cookie("ann")
    assert site.ask("GET", "/status", **page).status == 200
    origin = {"cookie": page["cookie"], "x-argosy-api": "1", "origin": site.address}
    assert site.ask("GET", "/status", **origin).status == 200
    assert OWN_PAGE["sec-fetch-site"] == "same-origin"


class Away(Store):
    """A database elsewhere that does not answer: what was read last is there."""

    is_away = False

    async def last_known(self) -> tuple[Snapshot, int]:
        rows, _ = await super().last_known()
        return rows, int(self.is_away)

    async def load_tokens(self) -> list[Token]:
        if self.is_away:
            raise ArgosyError("store-busy", "no connection")
        return await super().load_tokens()


def test_while_the_database_is_away_a_good_credential_is_not_called_wrong() -> None:
    async def main() -> None:
        clock, ids = FixedClock(), SimIds()
        store = await Away.open("sqlite://", ids=ids, clock=clock, inline=True)
        assert isinstance(store, Away)
        keeper = Doorkeeper(store, clock, Identity(store, clock, ids))
        await keeper.identity.people.add_user(OWNER, name="ann")
        known = await keeper.identity.credentials.add_token(OWNER, name="t", user="ann")
        await Tokens(store).add("plain", name="p", scope="use", now_ms=1)
        assert await keeper.caller_of("plain") is not None
        store.is_away = True
        for secret in (known.secret, "plain"):
            assert await keeper.caller_of(secret) is not None, "who is known stays in"
        for secret in (make_token(PERSONAL), "another"):
            with pytest.raises(ArgosyError, match="nobody knows whose the credential is") as told:
                await keeper.caller_of(secret)
            assert told.value.code == "store-busy"
        store.is_away = False
        for secret in (make_token(PERSONAL), "another"):
            assert await keeper.caller_of(secret) is None
        await store.close()

    asyncio.run(main())
