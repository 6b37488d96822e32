"""Sign-in through an identity provider: OpenID Connect's code flow with PKCE. Pure but for `Fetch`.

The checks are those of OpenID Connect Core 3.1.3.7, RFC 7636 (PKCE), RFC 9207 (the issuer in the answer) and
RFC 9700 (security best practice). Each refusal has a code of its own, `Refused.code`: people are told a
sentence, the server's log the code.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlencode, urlsplit

import msgspec

from argosy.identity.id_tokens import Keys, Refused, checked_claims

_SKEW_S: Final = 60
_METADATA_MAX: Final = 256 << 10
_KEYS_MAX: Final = 512 << 10
_ANSWER_MAX: Final = 256 << 10
_REFRESH_MS: Final = 5 * 60_000  # keys are asked for anew at most so often
_METADATA_MS: Final = 60 * 60_000


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Of one identity provider."""

    issuer: str
    client_id: str
    client_secret: str = ""  # "": a public client; PKCE alone proves who asked
    redirect_uri: str = ""  # of the public address, never of what a request says
    scopes: str = "openid profile email"
    groups_claim: str = "groups"
    link_email: bool = False  # a verified address finds an account that is there already

    def __repr__(self) -> str:
        return f"Settings(issuer={self.issuer!r}, client_id={self.client_id!r})"


class Answer(NamedTuple):
    """Of one request. Redirects are not followed."""

    status: int
    body: bytes


class Fetch(Protocol):
    """HTTP for what the browser does not carry. Raises OSError (also of time), ValueError for a body beyond
    `limit`."""

    async def __call__(
        self, url: str, *, form: Mapping[str, str] | None = None, bearer: str = "", limit: int
    ) -> Answer: ...


class Person(NamedTuple):
    """Who the provider says it is."""

    issuer: str
    subject: str
    name: str
    full_name: str
    email: str  # "": none, or not verified
    groups: tuple[str, ...]


class _Metadata(msgspec.Struct, frozen=True, kw_only=True):
    issuer: str
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    jwks_uri: str = ""
    userinfo_endpoint: str = ""
    authorization_response_iss_parameter_supported: bool = False


class _Tokens(msgspec.Struct, frozen=True, kw_only=True):
    id_token: str = ""
    access_token: str = ""
    token_type: str = ""


class Started(NamedTuple):
    """All that a sign-in in progress knows follows from its one secret, which only the browser has."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def of(cls, secret: str) -> Started:
        return cls(*(_derived(secret, use) for use in ("state", "nonce", "verifier")))


class RelyingParty:
    """One identity provider, with its metadata and keys as they were read last."""

    def __init__(self, settings: Settings, fetch: Fetch) -> None:
        self.settings, self._fetch = settings, fetch
        self._metadata: _Metadata | None = None
        self._metadata_ms = self._keys_ms = 0
        self._keys = Keys.none()

    async def address(self, secret: str, now_ms: int) -> str:
        """Where the browser goes. Raises `Refused`."""
        metadata, started = await self._known(now_ms), Started.of(secret)
        query = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": self.settings.redirect_uri,
            "scope": self.settings.scopes,
            "state": started.state,
            "nonce": started.nonce,
            "code_challenge": challenge_of(started.verifier),
            "code_challenge_method": "S256",
        }
        sign = "&" if "?" in metadata.authorization_endpoint else "?"
        return f"{metadata.authorization_endpoint}{sign}{urlencode(query)}"

    async def finish(self, secret: str, answer: Mapping[str, str], now_ms: int) -> Person:
        """Who came back with this answer in the query. Raises `Refused`."""
        metadata, started = await self._known(now_ms), Started.of(secret)
        self._check_answer(answer, metadata, started)
        tokens = await self._exchange(answer["code"], metadata, started)
        claims = await self._claims(tokens.id_token, metadata, started, now_ms)
        more = await self._userinfo(tokens.access_token, metadata, str(claims["sub"]))
        return self._person({**claims, **more})

    def _check_answer(self, answer: Mapping[str, str], metadata: _Metadata, started: Started) -> None:
        if not hmac.compare_digest(answer.get("state", "").encode(), started.state.encode()):
            raise Refused("state-differs", "the answer belongs to another sign-in")
        issuer = answer.get("iss")
        if issuer is not None and issuer != metadata.issuer:
            raise Refused("answer-issuer-differs", "the answer is from another identity provider")
        if issuer is None and metadata.authorization_response_iss_parameter_supported:
            raise Refused("answer-issuer-missing", "the answer does not say which provider it is from")
        if answer.get("error"):
            raise Refused("provider-refused", f"the identity provider refused: {answer['error'][:80]}")
        if not answer.get("code"):
            raise Refused("code-missing", "the answer has no code")

    async def _exchange(self, code: str, metadata: _Metadata, started: Started) -> _Tokens:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.settings.redirect_uri,
            "client_id": self.settings.client_id,
            "code_verifier": started.verifier,
        }
        if self.settings.client_secret:
            form["client_secret"] = self.settings.client_secret
        answer = await self._ask(metadata.token_endpoint, "token", _ANSWER_MAX, form=form)
        if answer.status != 200:
            raise Refused("code-refused", f"the identity provider does not take the code ({answer.status})")
        try:
            tokens = msgspec.json.decode(answer.body, type=_Tokens)
        except msgspec.MsgspecError:
            raise Refused("tokens-unreadable", "what the identity provider answered cannot be read") from None
        if tokens.token_type.lower() != "bearer":
            raise Refused("token-type", "the identity provider gave a token of another type")
        if not tokens.id_token:
            raise Refused("id-token-missing", "the identity provider gave no id token")
        return tokens

    async def _claims(
        self, id_token: str, metadata: _Metadata, started: Started, now_ms: int
    ) -> Mapping[str, Any]:
        wanted = {"issuer": metadata.issuer, "client_id": self.settings.client_id, "nonce": started.nonce}
        try:
            return checked_claims(id_token, self._keys, now_s=now_ms // 1000, skew_s=_SKEW_S, **wanted)
        except Refused as refused:
            if refused.code != "key-unknown" or now_ms - self._keys_ms < _REFRESH_MS:
                raise
        answer = await self._ask(metadata.jwks_uri, "keys", _KEYS_MAX)
        self._keys_ms = now_ms
        if answer.status != 200:
            raise Refused(
                "keys-refused", f"the keys of the identity provider are not there ({answer.status})"
            )
        self._keys = Keys.parse(answer.body)
        return checked_claims(id_token, self._keys, now_s=now_ms // 1000, skew_s=_SKEW_S, **wanted)

    async def _userinfo(self, access_token: str, metadata: _Metadata, subject: str) -> Mapping[str, Any]:
        """Some providers tell address and groups only there."""
        if not metadata.userinfo_endpoint or not access_token:
            return {}
        answer = await self._ask(metadata.userinfo_endpoint, "userinfo", _ANSWER_MAX, bearer=access_token)
        if answer.status != 200:
            raise Refused(
                "userinfo-refused", f"the identity provider returned nothing about the user ({answer.status})"
            )
        try:
            found = msgspec.json.decode(answer.body, type=dict[str, Any])
        except msgspec.MsgspecError:
            raise Refused("userinfo-unreadable", "what it tells cannot be read") from None
        if found.get("sub") != subject:
            raise Refused("userinfo-subject-differs", "the identity provider tells of somebody else")
        return {name: found[name] for name in found if name not in ("iss", "aud", "exp", "iat", "nonce")}

    def _person(self, claims: Mapping[str, Any]) -> Person:
        groups = claims.get(self.settings.groups_claim, [])
        if isinstance(groups, str):
            groups = [groups]
        email = claims.get("email") if claims.get("email_verified") is True else ""
        name = claims.get("preferred_username") or str(email or "").partition("@")[0]
        return Person(
            issuer=str(claims["iss"]),
            subject=str(claims["sub"]),
            name=str(name or ""),
            full_name=str(claims.get("name") or ""),
            email=str(email or ""),
            groups=tuple(each for each in groups if isinstance(each, str))
            if isinstance(groups, list)
            else (),
        )

    async def _known(self, now_ms: int) -> _Metadata:
        if self._metadata is None or now_ms - self._metadata_ms > _METADATA_MS:
            place = self.settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
            answer = await self._ask(place, "metadata", _METADATA_MAX)
            if answer.status != 200:
                raise Refused("metadata-refused", f"the identity provider does not answer ({answer.status})")
            self._metadata = self._checked(answer.body)
            self._metadata_ms = now_ms
        return self._metadata

    def _checked(self, body: bytes) -> _Metadata:
        try:
            found = msgspec.json.decode(body, type=_Metadata)
        except msgspec.MsgspecError:
            raise Refused("metadata-unreadable", "the identity provider's metadata cannot be read") from None
        if found.issuer != self.settings.issuer:
            raise Refused("issuer-differs", "the identity provider calls itself by another name")
        places = (found.authorization_endpoint, found.token_endpoint, found.jwks_uri)
        if not all(places):
            raise Refused("metadata-incomplete", "the identity provider's metadata lacks an address")
        scheme = urlsplit(found.issuer).scheme
        for place in (*places, found.userinfo_endpoint):
            if place and scheme == "https" and urlsplit(place).scheme != "https":
                raise Refused("address-unencrypted", "an address of the identity provider is not encrypted")
        return found

    async def _ask(self, url: str, what: str, limit: int, **more: Any) -> Answer:
        try:
            return await self._fetch(url, limit=limit, **more)
        except ValueError:
            raise Refused(f"{what}-too-large", "the identity provider answers too much") from None
        except TimeoutError:
            raise Refused(f"{what}-late", "the identity provider takes too long") from None
        except OSError:
            raise Refused(f"{what}-unreachable", "the identity provider cannot be reached") from None


def challenge_of(verifier: str) -> str:
    """PKCE's S256."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def _derived(secret: str, use: str) -> str:
    made = hmac.digest(secret.encode(), f"argosy oidc {use}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(made).decode().rstrip("=")
