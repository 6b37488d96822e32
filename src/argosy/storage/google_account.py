"""Who asks Google: a service account, which signs for itself, a person, whose token is fetched, or the
machine of Google that we run on. And tokens that are good for a part of one bucket only.

Source: Google's documentation of OAuth 2.0 for service accounts and of Credential Access Boundaries.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import msgspec

from argosy.infra.buckets import CredentialsMissing, StoreUnreachable
from argosy.model.ids import Clock
from argosy.storage.one_call import Told, one_call

_SCOPE: Final = "https://www.googleapis.com/auth/devstorage.full_control"
_TOKENS: Final = "https://oauth2.googleapis.com/token"
_OF_MACHINE: Final = (
    "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
)
STS: Final = "https://sts.googleapis.com/v1/token"
_FORM: Final = {"content-type": "application/x-www-form-urlencoded"}
_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"


class Token(NamedTuple):
    text: str
    expires_in_s: int


class Account:
    """`told`: the file that Google's tools write; {}: the machine has an account."""

    def __init__(self, told: Mapping[str, Any], project: str, clock: Clock) -> None:
        self._told, self._clock = told, clock
        self.project = project or str(told.get("project_id", "") or told.get("quota_project_id", ""))

    def headers(self) -> dict[str, str]:
        """What proves it. Raises `CredentialsMissing`, `StoreUnreachable`."""
        token = self._signed("scope") if "private_key" in self._told else self.token().text
        return {"authorization": f"Bearer {token}"}

    def narrowed(self, bucket: str, prefix: str, *, writes: bool, sts: str = STS) -> Token:
        """A token for what lies below a prefix of a bucket. Raises a `BucketError`."""
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token_type": _TYPE,
            "requested_token_type": _TYPE,
            "subject_token": self.token().text,
            "options": boundary(bucket, prefix, writes=writes),
        }
        return _token_in(one_call("POST", sts, _FORM, urlencode(form).encode()), "narrow its token")

    def token(self) -> Token:
        """One of everything that the account may do with storage. Raises as `headers`."""
        told = self._told
        if "private_key" in told:
            form = {
                "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                "assertion": self._signed("aud"),
            }
            address = str(told.get("token_uri") or _TOKENS)
            return _token_in(one_call("POST", address, _FORM, urlencode(form).encode()), "sign in")
        if not told:
            return _token_in(one_call("GET", _OF_MACHINE, {"metadata-flavor": "Google"}), "sign in")
        names = ("client_id", "client_secret", "refresh_token")
        form = {"grant_type": "refresh_token", **{name: str(told.get(name, "")) for name in names}}
        return _token_in(one_call("POST", _TOKENS, _FORM, urlencode(form).encode()), "sign in")

    def _signed(self, for_whom: str) -> str:
        """A bearer of its own, or (`aud`) what is exchanged for a token."""
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding, rsa

        told, now_s = self._told, self._clock.now_ms() // 1000
        head = {"alg": "RS256", "typ": "JWT", "kid": told.get("private_key_id", "")}
        email = told.get("client_email", "")
        claims = {"iss": email, "sub": email, "scope": _SCOPE, "iat": now_s, "exp": now_s + 3600}
        if for_whom == "aud":
            claims["aud"] = str(told.get("token_uri") or _TOKENS)
        text = ".".join(_packed(msgspec.json.encode(part)) for part in (head, claims))
        key = serialization.load_pem_private_key(str(told["private_key"]).encode(), password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise CredentialsMissing("the service account's key is no RSA key", "make a new key for it")
        signature = key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{_packed(signature)}"


def boundary(bucket: str, prefix: str, *, writes: bool) -> str:
    """A Credential Access Boundary, as JSON.

    >>> "objects/run/" in boundary("b", "run/", writes=False)
    True
    """
    rule: dict[str, Any] = {
        "availableResource": f"//storage.googleapis.com/projects/_/buckets/{bucket}",
        "availablePermissions": [f"inRole:roles/storage.object{'Admin' if writes else 'Viewer'}"],
    }
    if prefix:
        said = prefix.replace("\\", "\\\\").replace("'", "\\'")
        name = f"resource.name.startsWith('projects/_/buckets/{bucket}/objects/{said}')"
        listed = f"api.getAttribute('storage.googleapis.com/objectListPrefix', '').startsWith('{said}')"
        rule["availabilityCondition"] = {"expression": f"{name} || {listed}"}
    return json.dumps({"accessBoundary": {"accessBoundaryRules": [rule]}}, separators=(",", ":"))


def _token_in(told: Told, what: str) -> Token:
    if told.status >= 500:
        raise StoreUnreachable(f"Google does not let us {what} now ({told.status})", "it is tried again")
    try:
        found = json.loads(told.body)
        if told.status < 300 and found.get("access_token"):
            return Token(str(found["access_token"]), int(found.get("expires_in", 3600)))
    except (ValueError, AttributeError):
        pass
    raise CredentialsMissing(
        f"Google does not let this account {what} ({told.status})",
        "`gcloud auth application-default login`, or a new key of the service account",
    )


def _packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
