"""Sign-in through an identity provider: it works with a good one, and an evil one gets nobody in."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import pytest

from argosy.identity.id_tokens import Refused
from argosy.identity.oidc import Answer, Person, RelyingParty, Settings, Started
from argosy.testing.identity_provider import ISSUER, FakeIdentityProvider, unsigned

NOW_MS = 1_800_000_000_000
SETTINGS = Settings(
    issuer=ISSUER,
    client_id="argosy",
    client_secret="s3cret",
    redirect_uri="https://argosy.example/login/sso/callback",
)
SECRET = "of the browser"


def sign_in(provider: FakeIdentityProvider, party: RelyingParty | None = None, **query: str) -> Person:
    provider.now_s = NOW_MS // 1000

    async def main() -> Person:
        mine = party or RelyingParty(SETTINGS, provider)
        address = await mine.address(SECRET, NOW_MS)
        return await mine.finish(SECRET, {**provider.sign_in(address), **query}, NOW_MS)

    return asyncio.run(main())


@pytest.mark.parametrize("kind", ["EC", "RSA", "OKP"])
def test_a_good_provider(kind: str) -> None:
    provider = FakeIdentityProvider()
    if kind != "EC":
        from joserfc.jwk import OKPKey, RSAKey

        values = {"kid": "k1"}
        key: Any = (
            RSAKey.generate_key(2048, values) if kind == "RSA" else OKPKey.generate_key("Ed25519", values)
        )
        provider.key, provider.keys = key, [key.as_dict(private=False)]
        provider.algorithm = "RS256" if kind == "RSA" else "EdDSA"
    person = sign_in(provider)
    assert person == Person(ISSUER, "u-1", "ann", "Ann Arbor", "ann@example.com", ("research",))
    assert provider.asked == ["metadata", "token", "keys", "userinfo"]


def test_keys_may_change() -> None:
    """A new key is fetched, at most once in five minutes."""
    from joserfc.jwk import ECKey

    provider = FakeIdentityProvider()
    party = RelyingParty(SETTINGS, provider)
    sign_in(provider, party)
    provider.key = ECKey.generate_key("P-256", {"kid": "k2"})
    provider.keys, provider.header = [provider.key.as_dict(private=False)], {"kid": "k2"}
    with pytest.raises(Refused, match="a key that nobody knows"):
        sign_in(provider, party)
    party._keys_ms = NOW_MS - 5 * 60_000
    assert sign_in(provider, party).subject == "u-1"
    assert provider.asked.count("keys") == 2


def test_an_address_that_is_not_verified_is_none() -> None:
    for value in (False, "true", None):
        provider = FakeIdentityProvider()
        provider.person["email_verified"] = value
        assert sign_in(provider).email == ""


def test_nothing_of_the_sign_in_is_told_to_the_other_side() -> None:
    provider = FakeIdentityProvider()
    started = Started.of(SECRET)
    assert len({started.state, started.nonce, started.verifier, SECRET}) == 4
    address = asyncio.run(RelyingParty(SETTINGS, provider).address(SECRET, NOW_MS))
    assert started.verifier not in address and SECRET not in address and "s3cret" not in address
    assert "redirect_uri=https%3A%2F%2Fargosy.example%2Flogin%2Fsso%2Fcallback" in address
    assert "s3cret" not in repr(SETTINGS)


def _set(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        found[name] = value

    return change


def _drop(name: str) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        found.pop(name, None)

    return change


def _with(**fields: Any) -> Callable[[FakeIdentityProvider], None]:
    def spoil(provider: FakeIdentityProvider) -> None:
        for name, value in fields.items():
            setattr(provider, name, value)

    return spoil


def _hmac_with_the_public_key(provider: FakeIdentityProvider) -> None:
    """Algorithm confusion: the public key taken for a shared secret."""
    import hashlib
    import hmac

    public = provider.key.as_pem(private=False)

    def make(claims: dict[str, Any]) -> str:
        head = unsigned(claims, {"alg": "HS256", "kid": "k1"}).rstrip(".")
        mac = hmac.digest(public, head.encode(), hashlib.sha256)
        return f"{head}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"

    provider.make_token = make


NOW_S = NOW_MS // 1000
EVIL: dict[str, Callable[[FakeIdentityProvider], None]] = {
    # what it says of itself
    "metadata-unreachable": _with(fails={"metadata": ConnectionRefusedError()}),
    "metadata-late": _with(fails={"metadata": TimeoutError()}),
    "metadata-too-large": _with(change_metadata=_set("x", "y" * 300_000)),
    "metadata-refused": _with(fails={"metadata": Answer(302, b"")}),  # a redirect is not followed
    "metadata-unreadable": _with(fails={"metadata": Answer(200, b"<html>")}),
    "issuer-differs": _with(change_metadata=_set("issuer", "https://id.example/")),
    "metadata-incomplete": _with(change_metadata=_drop("token_endpoint")),
    "address-unencrypted": _with(change_metadata=_set("token_endpoint", "http://id.example/token")),
    # what the browser brings back
    "state-differs": _with(change_answer=_set("state", "another")),
    "answer-issuer-differs": _with(change_answer=_set("iss", "https://evil.example")),  # mix-up
    "answer-issuer-missing": _with(change_answer=_drop("iss")),
    "provider-refused": _with(change_answer=_set("error", "access_denied")),
    "code-missing": _with(change_answer=_drop("code")),
    "code-refused": _with(change_answer=_set("code", "somebody else's")),
    # the token endpoint
    "token-unreachable": _with(fails={"token": ConnectionResetError()}),
    "token-late": _with(fails={"token": TimeoutError()}),
    "token-too-large": _with(change_tokens=_set("x", "y" * 300_000)),
    "tokens-unreadable": _with(fails={"token": Answer(200, b"[]")}),
    "token-type": _with(change_tokens=_set("token_type", "mac")),
    "id-token-missing": _with(change_tokens=_drop("id_token")),
    "id-token-malformed": _with(change_tokens=_set("id_token", "a.b")),
    # its signature
    "algorithm": _with(make_token=lambda claims: unsigned(claims, {"alg": "none", "kid": "k1"})),
    "critical-header": _with(
        make_token=lambda claims: unsigned(claims, {"alg": "ES256", "kid": "k1", "crit": ["x"]}, "AA")
    ),
    "key-unknown": _with(header={"kid": "k9"}),
    "key-ambiguous": lambda provider: provider.keys.append(dict(provider.keys[0])),
    "keys-too-large": lambda provider: provider.keys.append({"kty": "RSA", "n": "x" * 10_000_000}),
    "keys-unreachable": _with(fails={"keys": ConnectionRefusedError()}),
    "keys-refused": _with(fails={"keys": Answer(500, b"")}),
    "keys-unreadable": _with(fails={"keys": Answer(200, b'{"keys": 1}')}),
    "signature": lambda provider: setattr(provider, "signer", provider.other_key),
    # what it says
    "token-issuer-differs": _with(change_claims=_set("iss", "https://evil.example")),
    "audience-differs": _with(change_claims=_set("aud", "another-client")),
    "party-missing": _with(change_claims=_set("aud", ["argosy", "another-client"])),
    "party-differs": _with(change_claims=_set("azp", "another-client")),
    "expired": _with(change_claims=_set("exp", NOW_S - 61)),
    "issued-later": _with(change_claims=_set("iat", NOW_S + 61)),
    "begins-later": _with(change_claims=_set("nbf", NOW_S + 61)),
    "times-missing": _with(change_claims=_drop("exp")),
    "times-unreadable": _with(change_claims=_set("exp", "tomorrow")),
    "nonce-differs": _with(change_claims=_set("nonce", "of another sign-in")),
    "nonce-missing": _with(change_claims=_drop("nonce")),
    "subject-missing": _with(change_claims=_set("sub", "")),
    # who it tells of
    "userinfo-subject-differs": _with(change_userinfo=_set("sub", "u-2")),
    "userinfo-refused": _with(fails={"userinfo": Answer(401, b"")}),
    "userinfo-unreadable": _with(fails={"userinfo": Answer(200, b"signed.with.love")}),
}


@pytest.mark.parametrize("code", EVIL)
def test_an_evil_provider_gets_nobody_in(code: str) -> None:
    provider = FakeIdentityProvider()
    EVIL[code](provider)
    with pytest.raises(Refused) as caught:
        sign_in(provider)
    assert caught.value.code == code
    assert caught.value.what and "s3cret" not in caught.value.what


def test_clocks_may_differ_by_a_minute() -> None:
    for change in (_set("exp", NOW_S - 59), _set("iat", NOW_S + 59), _set("nbf", NOW_S + 59)):
        provider = FakeIdentityProvider()
        provider.change_claims = change
        assert sign_in(provider).subject == "u-1"


@pytest.mark.parametrize(
    "evil", ["HS256 with the public key", "HS256", "none in capitals", "a key of another kind"]
)
def test_algorithms_are_not_the_tokens_choice(evil: str) -> None:
    provider = FakeIdentityProvider()
    if evil == "HS256 with the public key":
        _hmac_with_the_public_key(provider)
    elif evil == "HS256":
        provider.make_token = lambda claims: unsigned(claims, {"alg": "HS256", "kid": "k1"}, "AA")
    elif evil == "none in capitals":
        provider.make_token = lambda claims: unsigned(claims, {"alg": "NONE", "kid": "k1"})
    else:
        provider.make_token = lambda claims: unsigned(claims, {"alg": "RS256", "kid": "k1"}, "AA")
    with pytest.raises(Refused) as caught:
        sign_in(provider)
    assert caught.value.code == ("key-unknown" if "another kind" in evil else "algorithm")


def test_a_code_is_good_once_and_only_with_its_verifier() -> None:
    provider = FakeIdentityProvider()
    provider.now_s = NOW_S

    async def main() -> None:
        party = RelyingParty(SETTINGS, provider)
        answer = provider.sign_in(await party.address(SECRET, NOW_MS))
        stolen = {**answer, "state": Started.of("of a thief").state}
        with pytest.raises(Refused) as caught:
            await party.finish("of a thief", stolen, NOW_MS)
        assert caught.value.code == "code-refused", "PKCE: the code alone is worth nothing"
        again = provider.sign_in(await party.address(SECRET, NOW_MS))
        await party.finish(SECRET, again, NOW_MS)
        with pytest.raises(Refused):
            await party.finish(SECRET, again, NOW_MS)

    asyncio.run(main())


def test_there_are_enough_evil_ways() -> None:
    assert len(EVIL) >= 25
