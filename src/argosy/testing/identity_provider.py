"""An identity provider for tests: it does everything right, or one thing wrong that the test names.

It is asked as `identity.oidc.Fetch`, so no network is needed. The browser's part is `sign_in`: what it comes
back with in its query.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import msgspec

from argosy.identity.oidc import Answer, challenge_of

ISSUER: Final = "https://id.example"

Change = Callable[[dict[str, Any]], None]


def _same(value: dict[str, Any]) -> None:
    return None


class FakeIdentityProvider:
    """`person`: claims of who signs in. All that begins with `change_` edits what is answered, in place."""

    def __init__(self, *, client_id: str = "argosy", client_secret: str = "s3cret") -> None:
        from joserfc.jwk import ECKey

        self.client_id, self.client_secret = client_id, client_secret
        self.person: dict[str, Any] = {
            "sub": "u-1",
            "preferred_username": "ann",
            "name": "Ann Arbor",
            "email": "ann@example.com",
            "email_verified": True,
            "groups": ["research"],
        }
        self.now_s = 0
        self.key: Any = ECKey.generate_key("P-256", {"kid": "k1", "use": "sig"})
        self.other_key: Any = ECKey.generate_key("P-256", {"kid": "k1", "use": "sig"})
        self.algorithm = "ES256"
        self.keys: list[dict[str, Any]] = [self.key.as_dict(private=False)]
        self.header: dict[str, Any] = {}
        self.signer: Any = None
        self.change_metadata: Change = _same
        self.change_claims: Change = _same
        self.change_tokens: Change = _same
        self.change_userinfo: Change = _same
        self.change_answer: Change = _same
        self.make_token: Callable[[dict[str, Any]], str] | None = None
        self.fails: dict[str, Exception | Answer] = {}  # by what is asked: metadata, token, keys, userinfo
        self.asked: list[str] = []
        self._codes: dict[str, tuple[str, str]] = {}  # code: (challenge, nonce)

    # -- the browser's part -------------------------------------------------------------------------

    def sign_in(self, address: str) -> dict[str, str]:
        """What the browser brings back after its person has signed in at `address`."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        assert query["response_type"] == "code" and query["code_challenge_method"] == "S256"
        code = f"code-{len(self._codes)}"
        self._codes[code] = (query["code_challenge"], query["nonce"])
        answer = {"code": code, "state": query["state"], "iss": ISSUER}
        self.change_answer(answer)
        return answer

    # -- what the server asks -----------------------------------------------------------------------

    async def __call__(
        self, url: str, *, form: Mapping[str, str] | None = None, bearer: str = "", limit: int
    ) -> Answer:
        what = {"/.well-known/openid-configuration": "metadata"}.get(
            urlsplit(url).path, urlsplit(url).path.strip("/")
        )
        self.asked.append(what)
        failure = self.fails.get(what)
        if isinstance(failure, Exception):
            raise failure
        answer = failure or self._answer(what, form or {}, bearer)
        if len(answer.body) > limit:
            raise ValueError("too much")
        return answer

    def _answer(self, what: str, form: Mapping[str, str], bearer: str) -> Answer:
        if what == "metadata":
            found: dict[str, Any] = {
                "issuer": ISSUER,
                "authorization_endpoint": f"{ISSUER}/authorize",
                "token_endpoint": f"{ISSUER}/token",
                "jwks_uri": f"{ISSUER}/keys",
                "userinfo_endpoint": f"{ISSUER}/userinfo",
                "authorization_response_iss_parameter_supported": True,
            }
            self.change_metadata(found)
            return _json(found)
        if what == "keys":
            return _json({"keys": self.keys})
        if what == "token":
            return self._token(form)
        if what == "userinfo" and bearer == "access":
            found = dict(self.person)
            self.change_userinfo(found)
            return _json(found)
        return Answer(404, b"{}")

    def _token(self, form: Mapping[str, str]) -> Answer:
        challenge, nonce = self._codes.pop(form.get("code", ""), ("", ""))
        right = challenge and challenge_of(form["code_verifier"]) == challenge
        if not right or form.get("client_secret") != self.client_secret:
            return _json({"error": "invalid_grant"}, 400)
        claims = {
            "iss": ISSUER,
            "aud": self.client_id,
            "sub": self.person["sub"],
            "iat": self.now_s,
            "exp": self.now_s + 300,
            "nonce": nonce,
        }
        self.change_claims(claims)
        tokens = {"id_token": self._signed(claims), "access_token": "access", "token_type": "Bearer"}
        self.change_tokens(tokens)
        return _json(tokens)

    def _signed(self, claims: dict[str, Any]) -> str:
        if self.make_token is not None:
            return self.make_token(claims)
        from joserfc import jws

        header = {"alg": self.algorithm, "kid": "k1", **self.header}
        signer = self.signer or self.key
        return jws.serialize_compact(header, msgspec.json.encode(claims), signer, algorithms=[self.algorithm])


def unsigned(claims: dict[str, Any], header: dict[str, Any], signature: str = "") -> str:
    """A token whose signature is what the test says."""
    parts = (base64.urlsafe_b64encode(msgspec.json.encode(each)).decode() for each in (header, claims))
    parts = (each.rstrip("=") for each in parts)
    return ".".join((*parts, signature))


def _json(value: object, status: int = 200) -> Answer:
    return Answer(status, msgspec.json.encode(value))
