"""Sign-in through `oidc-provider`, an identity provider of others that runs offline (by night).

`npm install oidc-provider`; ARGOSY_OIDC_PROVIDER names the folder `node_modules`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from msgspec.structs import replace
from site_of_people import OWN_PAGE, Site
from test_sign_in_pages import Page, allow, browse

from argosy.client.loopback import Waiting
from argosy.identity.id_tokens import Refused
from argosy.identity.oidc import RelyingParty, Settings, Started
from argosy.model.access import OWNER
from argosy.server.sign_in_pages import PATH, SignInPages, fetch
from argosy.testing.real_identity_provider import CLIENT_ID, CLIENT_SECRET, Person, RealIdentityProvider

MODULES = os.environ.get("ARGOSY_OIDC_PROVIDER", "")
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not MODULES, reason="ARGOSY_OIDC_PROVIDER names no folder with oidc-provider"),
]


@pytest.fixture
def provider(site: Site) -> Iterator[RealIdentityProvider]:
    site.clock.advance(time.time() - site.clock.now_ms() / 1000)  # the provider's tokens are of today
    with RealIdentityProvider(Path(MODULES), f"{site.address}{PATH}/callback") as running:
        yield running


def settings_of(provider: RealIdentityProvider) -> Settings:
    return Settings(
        issuer=provider.issuer,
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        redirect_uri=provider.redirect_uri,
        scopes="openid profile email groups",
    )


def open_pages(site: Site, settings: Settings) -> None:
    pages = SignInPages(settings, site.store, site.clock, site.store.ids, site.application.identity)
    site.application.front.pages = pages.answer


def sign_in(site: Site, provider: RealIdentityProvider, name: str, query: str = "") -> Page:
    begun = browse(site, PATH + query)
    assert begun.status == 302, begun.text
    answer = Person(provider, name).go(begun.header("location"))
    cookie = f"__Host-argosy-sso={begun.cookies['__Host-argosy-sso']}"
    return browse(site, f"{PATH}/callback?{urlencode(answer)}", cookie)


def cookie_of(page: Page) -> dict[str, str]:
    return {"cookie": f"__Host-argosy={page.cookies['__Host-argosy']}", **OWN_PAGE}


def test_from_the_click_to_the_rights_of_a_group(site: Site, provider: RealIdentityProvider) -> None:
    open_pages(site, settings_of(provider))
    refused = sign_in(site, provider, "ann")
    assert refused.status == 403 and "none of your groups has a role here" in refused.text
    allow(site)
    page = sign_in(site, provider, "ann")
    assert (page.status, page.header("location")) == (303, "/"), page.text
    who = site.ask("GET", "/whoami", **cookie_of(page)).json
    assert (who["name"], who["roles"][0]["role"], who["projects"]) == ("ann", "member", ["vision"])
    assert sign_in(site, provider, "bob").status == 303
    users = {
        each.name: each for each in site.do(site.store.snapshot()).people.values() if hasattr(each, "email")
    }
    assert users["ann"].email == "ann@example.com" and users["ann"].groups == ("research",)
    assert sign_in(site, provider, "ann").status == 303, "the second time, with the keys of the first"


def test_a_command_line_comes_in_by_loopback_and_by_device(
    site: Site, provider: RealIdentityProvider
) -> None:
    open_pages(site, settings_of(provider))
    allow(site)
    with Waiting() as waiting:
        page = sign_in(site, provider, "ann", f"?port={waiting.port}&proof={waiting.proof}")
        code = parse_qs(urlsplit(page.header("location")).query)["code"][0]
        body = {"code": code, "client": "cli", "proof": waiting.secret}
    token = site.ask("POST", "/login/code", body).json["token"]
    assert site.ask("GET", "/whoami", token=token).json["name"] == "ann"
    cookie = cookie_of(sign_in(site, provider, "bob"))
    device = site.ask("POST", "/login/device", {"host": "gpu-box"}).json
    wait = {"secret": device["secret"]}
    assert site.ask("POST", "/login/device/wait", wait).json == {}
    site.ask("POST", "/login/device/confirm", {"code": device["code"]}, **cookie)
    login = site.ask("POST", "/login/device/wait", wait).json["login"]
    assert site.ask("GET", "/whoami", token=login["token"]).json["name"] == "bob"
    site.do(site.people.change_user(OWNER, "bob", is_disabled=True))
    assert site.ask("GET", "/whoami", token=login["token"]).status == 401
    again = sign_in(site, provider, "bob")
    assert again.status == 403 and "may not sign in" in again.text


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("another verifier", "code-refused"),
        ("the code twice", "code-refused"),
        ("a made-up code", "code-refused"),
        ("another secret of the client", "code-refused"),
        ("another address to come back to", "code-refused"),
        ("another state", "state-differs"),
        ("another issuer in the answer", "answer-issuer-differs"),
        ("no issuer in the answer", "answer-issuer-missing"),
        ("another issuer in the settings", "issuer-differs"),
        ("a nonce of another sign-in", "nonce-differs"),
        ("another client", "audience-differs"),
        ("an hour later", "expired"),
        ("a clock that is late", "issued-later"),
        ("the person says no", "provider-refused"),
    ],
)  # fmt: skip
def test_what_a_good_provider_does_with_a_bad_request(
    site: Site, provider: RealIdentityProvider, how: str, code: str
) -> None:
    settings, secret, now_ms = settings_of(provider), "of the browser", time.time_ns() // 1_000_000

    async def main() -> None:
        party = RelyingParty(settings, fetch)
        address = await party.address(secret, now_ms)
        if how == "the person says no":
            answer = {"error": "access_denied", "state": Started.of(secret).state, "iss": provider.issuer}
        else:
            if how == "a nonce of another sign-in":
                nonce = Started.of(secret).nonce
                address = address.replace(nonce, Started.of("of another").nonce)
            answer = await asyncio.to_thread(Person(provider, "ann").go, address)
        with_secret, at_ms, changed = secret, now_ms, settings
        match how:
            case "another verifier":
                with_secret = "of a thief"
                answer["state"] = Started.of(with_secret).state
            case "the code twice":
                await party.finish(secret, answer, now_ms)
            case "a made-up code":
                answer["code"] = "made-up"
            case "another secret of the client":
                changed = replace(settings, client_secret="guessed")
            case "another address to come back to":
                changed = replace(settings, redirect_uri="https://evil.example/callback")
            case "another state":
                answer["state"] = "another"
            case "another issuer in the answer":
                answer["iss"] = "https://evil.example"
            case "no issuer in the answer":
                del answer["iss"]
            case "another issuer in the settings":
                changed = replace(settings, issuer=provider.issuer.replace("127.0.0.1", "localhost"))
            case "another client":
                party.settings = replace(settings, client_id="argosy")
            case "an hour later":
                at_ms = now_ms + 2 * 3_600_000
            case "a clock that is late":
                at_ms = now_ms - 3_600_000
        if changed is not settings:
            party = RelyingParty(changed, fetch)
        if how == "another client":  # the provider's word for us, read by somebody else
            exchange = party._exchange

            async def as_other(*given: object) -> object:
                tokens = await exchange(*given)  # type: ignore[arg-type]
                party.settings = replace(settings, client_id="another")
                return tokens

            party._exchange = as_other  # type: ignore[assignment, method-assign]
        with pytest.raises(Refused) as caught:
            await party.finish(with_secret, answer, at_ms)
        assert caught.value.code == code and "s3cret" not in caught.value.what

    asyncio.run(main())
