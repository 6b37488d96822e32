"""From the click to the cookie, through an identity provider that the test plays."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from typing import NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from site_of_people import OWN_PAGE, Site

from argosy.client.loopback import Waiting
from argosy.identity.oidc import Answer, RelyingParty, Settings
from argosy.model.access import OWNER
from argosy.model.errors import ArgosyError
from argosy.server.sign_in_pages import PATH, SignInPages, fetch, parse_provider
from argosy.testing.identity_provider import ISSUER, FakeIdentityProvider

SETTINGS = Settings(
    issuer=ISSUER,
    client_id="argosy",
    client_secret="s3cret",
    redirect_uri=f"https://a.example{PATH}/callback",
)


class Page(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    text: str

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    @property
    def cookies(self) -> dict[str, str]:
        made = [value.partition(";")[0] for key, value in self.headers if key.lower() == "set-cookie"]
        return {name: value for name, _, value in (each.partition("=") for each in made)}


def browse(site: Site, path: str, cookie: str = "") -> Page:
    host, _, port = site.address.rpartition("/")[2].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=90)
    try:
        connection.request("GET", path, headers={"cookie": cookie} if cookie else {})
        reply = connection.getresponse()
        return Page(reply.status, reply.getheaders(), reply.read().decode())
    finally:
        connection.close()


def open_pages(site: Site, provider: FakeIdentityProvider, settings: Settings = SETTINGS) -> None:
    provider.now_s = site.clock.now_ms() // 1000
    store = site.store
    pages = SignInPages(settings, store, store.clock, store.ids, site.application.identity)
    assert pages._sso is not None
    pages._sso.party = RelyingParty(settings, provider)
    site.application.front.pages = pages.answer


def go(site: Site, provider: FakeIdentityProvider, query: str = "") -> Page:
    begun = browse(site, PATH + query)
    assert begun.status == 302, begun.text
    secret = begun.cookies["__Host-argosy-sso"]
    back = urlencode(provider.sign_in(begun.header("location")))
    return browse(site, f"{PATH}/callback?{back}", f"__Host-argosy-sso={secret}")


def allow(site: Site, group: str = "research") -> None:
    site.do(site.people.add_project(OWNER, name="vision"))
    site.do(site.people.give_role(OWNER, subject=f"group:{group}", role="member", project="vision"))


def test_somebody_new_comes_in(site: Site) -> None:
    provider = FakeIdentityProvider()
    open_pages(site, provider)
    allow(site)
    page = go(site, provider)
    assert (page.status, page.header("location")) == (303, "/")
    cookie = {"cookie": f"__Host-argosy={page.cookies['__Host-argosy']}", **OWN_PAGE}
    who = site.ask("GET", "/whoami", **cookie).json
    assert (who["name"], who["full_name"], who["roles"][0]["role"]) == ("ann", "Ann Arbor", "member")
    assert page.cookies["__Host-argosy-sso"] == "", "its cookie is taken away"
    assert go(site, provider).status == 303
    users = site.ask("GET", "/users", **cookie).json["users"]
    assert [each["name"] for each in users] == ["ann"], "the same person has one account"
    site.clock.advance(11 * 3600)
    assert site.ask("GET", "/whoami", **cookie).status == 200
    site.do(site.application.identity.uses.write())  # it was used: idle time begins anew
    site.clock.advance(3600)
    assert site.ask("GET", "/whoami", **cookie).status == 401, "the provider is asked again"


def test_groups_are_those_of_the_last_sign_in(site: Site) -> None:
    provider = FakeIdentityProvider()
    open_pages(site, provider)
    allow(site)
    cookie = {"cookie": f"__Host-argosy={go(site, provider).cookies['__Host-argosy']}", **OWN_PAGE}
    assert site.ask("GET", "/jobs", **cookie).status == 200
    provider.person["groups"] = ["sales"]
    refused = go(site, provider)
    assert refused.status == 403 and "none of your groups has a role here" in refused.text


@pytest.mark.parametrize(
    ("how", "code", "text"),
    [
        ("no role", "no-access", "none of your groups has a role here"),
        ("another browser", "cookie-missing", "this browser did not begin the sign-in"),
        ("replayed", "sign-in-unknown", "was not begun here, or has expired"),
        ("late", "sign-in-over", "took too long"),
        ("another state", "state-differs", "belongs to another sign-in"),
        ("disabled", "account-disabled", "may not sign in"),
    ],
)
def test_who_does_not_come_in(site: Site, how: str, code: str, text: str) -> None:
    provider = FakeIdentityProvider()
    open_pages(site, provider)
    if how != "no role":
        allow(site)
    if how == "disabled":
        go(site, provider)
        site.do(site.people.change_user(OWNER, "ann", is_disabled=True))
    begun = browse(site, PATH)
    cookie = f"__Host-argosy-sso={begun.cookies['__Host-argosy-sso']}"
    back = f"{PATH}/callback?" + urlencode(provider.sign_in(begun.header("location")))
    if how == "another browser":
        cookie = ""
    elif how == "replayed":
        browse(site, back, cookie)
    elif how == "late":
        site.clock.advance(301)
    elif how == "another state":
        other = browse(site, PATH)
        cookie = f"__Host-argosy-sso={other.cookies['__Host-argosy-sso']}"
    page = browse(site, back, cookie)
    assert page.status == 403 and text in page.text
    assert "__Host-argosy" not in page.cookies
    acts = [record.act for record in site.do(site.store.load_acts()) if record.act.outcome == "denied"]
    assert [act.target for act in acts][-1] == code


def test_a_taken_name_and_an_address_give_nobody_elses_account(site: Site) -> None:
    """`ann` of the provider is not our `ann`, unless her verified address is allowed to say so."""
    site.add_user("ann", "owner", email="ann@example.com")
    provider = FakeIdentityProvider()
    open_pages(site, provider)
    allow(site)
    cookie = {"cookie": f"__Host-argosy={go(site, provider).cookies['__Host-argosy']}", **OWN_PAGE}
    assert site.ask("GET", "/whoami", **cookie).json["name"] == "ann-2"


def test_a_name_of_somebody_who_left_is_not_given_again(site: Site) -> None:
    site.add_user("ann", "viewer")
    site.do(site.people.remove_user(OWNER, "ann"))
    provider = FakeIdentityProvider()
    open_pages(site, provider)
    allow(site)
    cookie = {"cookie": f"__Host-argosy={go(site, provider).cookies['__Host-argosy']}", **OWN_PAGE}
    assert site.ask("GET", "/whoami", **cookie).json["name"] == "ann-2"


def test_an_account_that_the_provider_made_is_signed_in_to(site: Site) -> None:
    """By SCIM, with groups that only SCIM changes; by its verified address alone."""
    from argosy.facades.scim.ports import Account, Group, Member
    from argosy.server.provisioning import Provisioned

    people = Provisioned(site.store, site.clock, site.store.ids)
    made = site.do(people.put_account(Account(user_name="ann@example.com", email="ann@example.com")))
    site.do(people.put_group(Group(name="research", members=(Member(id=made.id, shown=""),))))
    allow(site)
    provider = FakeIdentityProvider()
    provider.person |= {"groups": ["admins"], "email_verified": False}
    open_pages(site, provider)
    assert go(site, provider).status == 403, "an address that is not verified proves nothing"
    provider.person["email_verified"] = True
    cookie = {"cookie": f"__Host-argosy={go(site, provider).cookies['__Host-argosy']}", **OWN_PAGE}
    who = site.ask("GET", "/whoami", **cookie).json
    assert (who["name"], who["user_id"], len(who["roles"])) == ("ann", made.id, 1)


@pytest.mark.parametrize("verified", [True, False])
def test_a_verified_address_links_where_that_is_allowed(site: Site, verified: bool) -> None:
    site.add_user("ann", "viewer", "vision", email="Ann@example.com")
    site.do(site.people.give_role(OWNER, subject="group:research", role="member", project="vision"))
    provider = FakeIdentityProvider()
    provider.person["email_verified"] = verified
    from msgspec.structs import replace

    open_pages(site, provider, replace(SETTINGS, link_email=True))
    cookie = {"cookie": f"__Host-argosy={go(site, provider).cookies['__Host-argosy']}", **OWN_PAGE}
    assert site.ask("GET", "/whoami", **cookie).json["name"] == ("ann" if verified else "ann-2")


def test_a_local_account_enters_while_the_provider_is_away(site: Site) -> None:
    provider = FakeIdentityProvider()
    open_pages(site, provider)
    allow(site)
    cookie = {"cookie": f"__Host-argosy={go(site, provider).cookies['__Host-argosy']}", **OWN_PAGE}
    away = FakeIdentityProvider()
    away.fails["metadata"] = ConnectionRefusedError()
    open_pages(site, away)
    page = browse(site, PATH)
    assert page.status == 403
    assert page.text == "Signing in did not work: the identity provider cannot be reached.\n"
    assert site.ask("GET", "/whoami", **cookie).status == 200, "who is in stays in"
    site.add_user("boss", "owner")
    assert site.login("boss").status == 200


def test_a_command_line_gets_a_code_that_only_it_can_use(site: Site) -> None:
    provider = FakeIdentityProvider()
    open_pages(site, provider)
    allow(site)
    with Waiting() as waiting:
        page = go(site, provider, f"?port={waiting.port}&proof={waiting.proof}")
        place = urlsplit(page.header("location"))
        assert (place.scheme, place.netloc) == ("http", f"127.0.0.1:{waiting.port}")
        assert "__Host-argosy" not in page.cookies
        code = parse_qs(place.query)["code"][0]

        def browser() -> None:
            for target in ("/favicon.ico", f"/?code={code}"):
                connection = http.client.HTTPConnection("127.0.0.1", waiting.port, timeout=90)
                connection.request("GET", target)
                connection.getresponse().read()
                connection.close()

        thread = threading.Thread(target=browser)
        thread.start()
        assert waiting.code(10.0) == code
        thread.join()
    for proof in ("", "another"):
        assert site.ask("POST", "/login/code", {"code": code, "client": "cli", "proof": proof}).status == 401
    body = {"code": code, "client": "cli", "proof": waiting.secret}
    token = site.ask("POST", "/login/code", body).json["token"]
    assert site.ask("GET", "/whoami", token=token).json["name"] == "ann"
    assert site.ask("POST", "/login/code", body).status == 401, "once"


@pytest.mark.parametrize(
    "query",
    [
        "?port=80&proof=" + "a" * 64,
        "?port=99999&proof=" + "a" * 64,
        "?port=8080@evil.example&proof=" + "a" * 64,
        "?port=8080&proof=short",
        "?port=evil.example&proof=" + "a" * 64,
    ],
)
def test_nobody_is_sent_anywhere_else(site: Site, query: str) -> None:
    open_pages(site, FakeIdentityProvider())
    page = browse(site, PATH + query)
    assert page.status == 403 and not page.header("location")


def test_without_a_provider_there_is_no_page(site: Site) -> None:
    site.application.open_pages(None)
    page = browse(site, PATH)
    assert (page.status, page.text) == (
        403,
        "Signing in did not work: this server has no identity provider.\n",
    )
    assert browse(site, PATH + "/other").status == 403


def test_settings_of_an_environment(tmp_path: object) -> None:
    assert parse_provider({}) is None
    with pytest.raises(ArgosyError, match="needs ARGOSY_OIDC_CLIENT_ID and ARGOSY_PUBLIC_URL"):
        parse_provider({"ARGOSY_OIDC_ISSUER": ISSUER})
    found = parse_provider(
        {
            "ARGOSY_OIDC_ISSUER": ISSUER,
            "ARGOSY_OIDC_CLIENT_ID": "argosy",
            "ARGOSY_PUBLIC_URL": "https://a.example/",
            "ARGOSY_OIDC_LINK_EMAIL": "1",
        }
    )
    assert found is not None and found.link_email
    assert found.redirect_uri == "https://a.example/login/sso/callback", "never of what a request says"


def test_the_network_is_asked_with_limits() -> None:
    """Against a socket: a redirect is an answer, a large body and a closed port are refused."""
    answers = [
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + b"x" * 100,
    ]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            for answer in answers:
                peer, _ = listener.accept()
                with peer:
                    peer.recv(4096)
                    peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{port}/"
        assert asyncio.run(fetch(url, limit=10)).status == 302
        assert asyncio.run(fetch(url, form={"a": "b"}, limit=10)) == Answer(200, b"{}")
        with pytest.raises(ValueError, match="too much"):
            asyncio.run(fetch(url, limit=10))
        thread.join()
    with pytest.raises(OSError):
        asyncio.run(fetch(f"http://127.0.0.1:{port}/", limit=10))
    with pytest.raises(OSError, match="no address"):
        asyncio.run(fetch("file:///etc/passwd", limit=10))
