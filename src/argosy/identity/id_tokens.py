"""ID tokens: whose signature, for whom, of when. joserfc checks signatures; it is imported with the first."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

#: Signatures with a public key. `none` and those with a shared secret are not among them: whoever knows the
#: public key could make them.
ALGORITHMS: Final = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
_KEYS_MAX: Final = 50
_TOKEN_MAX: Final = 64 << 10


class Refused(Exception):
    """A sign-in that is refused. `code`: for the log; `what`: for people."""

    def __init__(self, code: str, what: str) -> None:
        super().__init__(what)
        self.code, self.what = code, what


class _Header(msgspec.Struct, frozen=True):
    alg: str = ""
    kid: str = ""
    crit: Any = None


class Keys:
    """Public keys of a provider."""

    def __init__(self, keys: Sequence[Mapping[str, Any]]) -> None:
        self._keys = keys

    @classmethod
    def none(cls) -> Keys:
        return cls(())

    @classmethod
    def parse(cls, body: bytes) -> Keys:
        """Raises `Refused`."""
        try:
            found = msgspec.json.decode(body, type=dict[str, list[dict[str, Any]]])["keys"]
        except (msgspec.MsgspecError, KeyError):
            raise Refused("keys-unreadable", "the keys of the identity provider cannot be read") from None
        return cls(found[:_KEYS_MAX])

    def key(self, header: _Header) -> Mapping[str, Any]:
        """The one that signed. Raises `Refused`."""
        kind = ALGORITHMS[header.alg]
        fitting = [
            each
            for each in self._keys
            if each.get("kty") == kind
            and each.get("use", "sig") == "sig"
            and each.get("alg", header.alg) == header.alg
            and (not header.kid or each.get("kid") == header.kid)
        ]
        if not fitting:
            raise Refused("key-unknown", "the id token is signed with a key that nobody knows")
        if len(fitting) > 1:
            raise Refused("key-ambiguous", "the id token does not say which key signed it")
        return fitting[0]


def checked_claims(
    token: str, keys: Keys, *, issuer: str, client_id: str, nonce: str, now_s: int, skew_s: int
) -> Mapping[str, Any]:
    """What an id token says, when all of it is right. Raises `Refused`."""
    header = _header(token)
    if header.alg not in ALGORITHMS:
        raise Refused("algorithm", f"the id token is signed with `{header.alg[:20]}`, which is not taken")
    if header.crit is not None:
        raise Refused("critical-header", "the id token wants something that is not known here")
    claims = _verified(token, header, keys.key(header))
    if claims.get("iss") != issuer:
        raise Refused("token-issuer-differs", "the id token is from another identity provider")
    _check_audience(claims, client_id)
    _check_times(claims, now_s, skew_s)
    if claims.get("nonce") is None:
        raise Refused("nonce-missing", "the id token does not say for which sign-in it is")
    if claims["nonce"] != nonce:
        raise Refused("nonce-differs", "the id token is of another sign-in")
    if not isinstance(claims.get("sub"), str) or not 0 < len(claims["sub"]) <= 255:
        raise Refused("subject-missing", "the id token does not say who it is")
    return claims


def _check_audience(claims: Mapping[str, Any], client_id: str) -> None:
    audience = claims.get("aud")
    several = audience if isinstance(audience, list) else [audience]
    if client_id not in several:
        raise Refused("audience-differs", "the id token is for somebody else")
    party = claims.get("azp")
    if party is not None and party != client_id:
        raise Refused("party-differs", "the id token was given to somebody else")
    if len(several) > 1 and party is None:
        raise Refused("party-missing", "the id token is for several, and does not say to whom it was given")


def _check_times(claims: Mapping[str, Any], now_s: int, skew_s: int) -> None:
    times = {name: claims.get(name) for name in ("exp", "iat", "nbf")}
    if any(value is not None and type(value) not in (int, float) for value in times.values()):
        raise Refused("times-unreadable", "the id token's times cannot be read")
    expires, issued, begins = times["exp"], times["iat"], times["nbf"]
    if expires is None or issued is None:
        raise Refused("times-missing", "the id token does not say of when it is")
    if now_s >= expires + skew_s:
        raise Refused("expired", "the id token has expired; perhaps a clock is wrong")
    if issued > now_s + skew_s:
        raise Refused("issued-later", "the id token is from the future; perhaps a clock is wrong")
    if begins is not None and begins > now_s + skew_s:
        raise Refused("begins-later", "the id token is not valid yet; perhaps a clock is wrong")


def _header(token: str) -> _Header:
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _TOKEN_MAX:
        raise Refused("id-token-malformed", "the id token cannot be read")
    try:
        raw = base64.urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4))
        return msgspec.json.decode(raw, type=_Header)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise Refused("id-token-malformed", "the id token cannot be read") from None


def _verified(token: str, header: _Header, key: Mapping[str, Any]) -> dict[str, Any]:
    try:
        import warnings

        from joserfc import jws
        from joserfc.errors import JoseError
        from joserfc.jwk import JWKRegistry
    except ImportError:
        raise Refused(
            "library-missing", "sign-in through a provider needs `pip install 'argosy[sso]'`"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the name `EdDSA`, which providers still use
            found = jws.deserialize_compact(token, JWKRegistry.import_key(dict(key)), algorithms=[header.alg])
        return msgspec.json.decode(found.payload, type=dict[str, Any])
    except msgspec.MsgspecError:
        raise Refused("claims-unreadable", "the id token cannot be read") from None
    except (JoseError, ValueError, TypeError, KeyError):
        raise Refused("signature", "the id token's signature is not that of the identity provider") from None
