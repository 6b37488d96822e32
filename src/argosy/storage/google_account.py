"""Who asks Google: a service account, which signs for itself, or a person, whose token is fetched."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from argosy.infra.buckets import CredentialsMissing
from argosy.model.ids import Clock
from argosy.storage.one_call import one_call

_SCOPE: Final = "https://www.googleapis.com/auth/devstorage.full_control"
_TOKENS: Final = "https://oauth2.googleapis.com/token"


class Account:
    """`told`: the file that Google's tools write."""

    def __init__(self, told: Mapping[str, Any], project: str, clock: Clock) -> None:
        self._told, self._clock = told, clock
        self.project = project or str(told.get("project_id", "") or told.get("quota_project_id", ""))

    def headers(self) -> dict[str, str]:
        """What proves it. Raises `CredentialsMissing`, `StoreUnreachable`."""
        token = self._signed() if "private_key" in self._told else self._fetched()
        return {"authorization": f"Bearer {token}"}

    def _signed(self) -> str:
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding, rsa

        told, now_s = self._told, self._clock.now_ms() // 1000
        head = {"alg": "RS256", "typ": "JWT", "kid": told.get("private_key_id", "")}
        email = told.get("client_email", "")
        claims = {"iss": email, "sub": email, "scope": _SCOPE, "iat": now_s, "exp": now_s + 3600}
        text = ".".join(_packed(msgspec.json.encode(part)) for part in (head, claims))
        key = serialization.load_pem_private_key(str(told["private_key"]).encode(), password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise CredentialsMissing("the service account's key is no RSA key", "make a new key for it")
        signature = key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{_packed(signature)}"

    def _fetched(self) -> str:
        names = ("client_id", "client_secret", "refresh_token")
        form = {"grant_type": "refresh_token", **{name: self._told.get(name, "") for name in names}}
        headers = {"content-type": "application/x-www-form-urlencoded"}
        reply = one_call("POST", _TOKENS, headers, urlencode(form).encode())
        if reply.status >= 300:
            raise CredentialsMissing(
                "Google does not accept the credentials of this user",
                "`gcloud auth application-default login`",
            )
        return str(json.loads(reply.body).get("access_token", ""))


def _packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
