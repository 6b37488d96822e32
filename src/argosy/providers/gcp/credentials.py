"""Where Google's credentials are, and tokens made of them: application default credentials, without Google's
library.

A key of a service account signs its own request; `gcloud auth application-default login` leaves a refresh
token; a token of another identity provider is exchanged (`federation`); a machine of Google's asks its
metadata service. Tokens stay in memory.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.http_json import Ask, Form, How, HttpJson, Service
from argosy.infra.http_words import Said, error_of
from argosy.infra.machine_access import Bearer, Token
from argosy.infra.provider import Setting
from argosy.providers.gcp import MANIFEST
from argosy.providers.gcp.federation import STS, Source, exchange, refuse_source, token_in, token_in_file

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_TOKENS: Final = "https://oauth2.googleapis.com/token"
_METADATA: Final = "metadata.google.internal"
_FLAVOR: Final = {"metadata-flavor": "Google"}
_LASTS_S: Final = 3600
_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_PROJECTS: Final = ("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT")


class Stored(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file of credentials, as Google's tools write it."""

    type: str
    project_id: str = ""
    quota_project_id: str = ""
    client_email: str = ""
    private_key: str = ""
    private_key_id: str = ""
    token_uri: str = ""
    client_id: str = ""
    client_secret: str = ""
    refresh_token: str = ""
    service_account_impersonation_url: str = ""
    source_credentials: Stored | None = None
    audience: str = ""
    subject_token_type: str = ""
    token_url: str = ""
    credential_source: Source | None = None

    def __repr__(self) -> str:  # it holds secrets
        return f"Stored({self.type})"


class _Token(msgspec.Struct, frozen=True):
    access_token: str
    expires_in: int = _LASTS_S

    def __repr__(self) -> str:
        return "_Token()"


class _Lent(msgspec.Struct, frozen=True, rename="camel"):
    access_token: str

    def __repr__(self) -> str:
        return "_Lent()"


class Credentials:
    """Of one server. Raises `CredentialsRejected`, with what to do."""

    def __init__(self, setting: Setting) -> None:
        self._environ, self._clock = setting.environ, setting.clock
        self._http = HttpJson(
            setting.environ.get("ARGOSY_GCP_API_URL") or "https://oauth2.googleapis.com",
            Service(title=MANIFEST.title, sign_in=MANIFEST.how_to_sign_in, words=_words),
            clock=setting.clock,
        )
        self._bearer = Bearer(self._new_token, setting.clock, early_s=120.0)
        self._project = ""

    async def sign(self, ask: Ask) -> Mapping[str, str]:
        headers, stored = await self._bearer.sign(ask), self._stored()
        if stored is not None and stored.type == "authorized_user" and stored.quota_project_id:
            return {**headers, "x-goog-user-project": stored.quota_project_id}
        return headers

    async def _new_token(self) -> Token:
        stored = self._stored()
        made = await (self._of(stored) if stored is not None else self._of_metadata())
        return Token(made.access_token, made.expires_in)

    async def project(self) -> str:
        """The id of the project in which everything happens."""
        if not self._project:
            self._project = self._named_project() or await self._metadata_project()
        if not self._project:
            raise border.CredentialsRejected(
                "no project of Google Cloud is set; `gcloud config set project ID`, or set "
                "GOOGLE_CLOUD_PROJECT (`gcloud projects list` shows yours)"
            )
        return self._project

    def who(self) -> str:
        """In words, without asking anybody."""
        stored = self._stored()
        if stored is None:
            return "the service account of this machine"
        if stored.type == "service_account":
            return f"the service account {stored.client_email}"
        if stored.service_account_impersonation_url:
            return f"the service account {_lender(stored)}"
        if stored.type == "external_account":
            return f"a token of {stored.audience.rpartition('/')[2] or 'another identity provider'}"
        return "application default credentials of a person"

    def _file(self) -> Path | None:
        named = self._environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        if named:
            return Path(named)
        path = self._gcloud() / "application_default_credentials.json"
        return path if path.exists() else None

    def _gcloud(self) -> Path:
        named = self._environ.get("CLOUDSDK_CONFIG")
        return Path(named) if named else Path(self._environ.get("HOME") or "/nonexistent") / ".config/gcloud"

    def _stored(self) -> Stored | None:
        """None: there is no file."""
        path = self._file()
        if path is None:
            return None
        try:
            return msgspec.json.decode(path.read_bytes(), type=Stored)
        except OSError as error:
            raise border.CredentialsRejected(
                f"{path} cannot be read ({error.strerror or error}); GOOGLE_APPLICATION_CREDENTIALS names a "
                f"file of credentials, or {MANIFEST.how_to_sign_in} makes one"
            ) from None
        except msgspec.MsgspecError:
            raise border.CredentialsRejected(
                f"{path} holds no credentials of Google; {MANIFEST.how_to_sign_in} makes some"
            ) from None

    async def _of(self, stored: Stored) -> _Token:
        if stored.type == "service_account":
            return await self._ask(stored, {"grant_type": _GRANT, "assertion": self._assertion(stored)})
        if stored.type == "authorized_user":
            form = {
                "grant_type": "refresh_token",
                "client_id": stored.client_id,
                "client_secret": stored.client_secret,
                "refresh_token": stored.refresh_token,
            }
            return await self._ask(stored, form)
        if stored.type == "impersonated_service_account" and stored.source_credentials is not None:
            return await self._lent(stored, await self._of(stored.source_credentials))
        if stored.type == "external_account":
            exchanged = await self._ask(stored, await self._foreign(stored))
            lends = stored.service_account_impersonation_url
            return await self._lent(stored, exchanged) if lends else exchanged
        raise border.CredentialsRejected(
            f"credentials of the type `{stored.type}` cannot be used here; give a key of a service account "
            f"in GOOGLE_APPLICATION_CREDENTIALS, or sign in with {MANIFEST.how_to_sign_in}"
        )

    async def _lent(self, stored: Stored, token: _Token) -> _Token:
        """A token of the service account as which `token` may act."""
        reply = await self._http.send(
            "POST",
            self._url(stored.service_account_impersonation_url),
            json={"scope": [SCOPE]},
            how=How(safe=True, headers={"authorization": f"Bearer {token.access_token}"}),
        )
        return _Token(self._http.read(reply, _Lent).access_token, _LASTS_S)

    async def _foreign(self, stored: Stored) -> Mapping[str, str]:
        """The form that exchanges the token of another identity provider."""
        source = stored.credential_source
        refuse_source(source)
        assert source is not None
        if source.file:
            token = token_in_file(source)
        else:
            how = How(safe=True, headers=source.headers, timeout_s=10.0)
            token = token_in(source, (await self._http.send("GET", source.url, how=how)).body, source.url)
        kind = stored.subject_token_type
        return exchange(token, audience=stored.audience, kind=kind, scope=SCOPE)

    async def _ask(self, stored: Stored, form: Mapping[str, str]) -> _Token:
        url = self._url(stored.token_uri or (stored.token_url or STS if stored.audience else _TOKENS))
        return self._http.read(
            await self._http.send("POST", url, json=Form(form), how=How(safe=True)), _Token
        )

    def _url(self, url: str) -> str:
        """With another address for all of Google, in tests, only the path counts."""
        own = self._environ.get("ARGOSY_GCP_API_URL")
        return own.rstrip("/") + "/" + url.split("/", 3)[3] if own else url

    def _assertion(self, stored: Stored) -> str:
        """What the service account says of itself, signed with its key (RFC 7523)."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        now_s = self._clock.now_ms() // 1000
        head = {"alg": "RS256", "typ": "JWT", "kid": stored.private_key_id}
        claims = {
            "iss": stored.client_email,
            "scope": SCOPE,
            "aud": stored.token_uri or _TOKENS,
            "iat": now_s,
            "exp": now_s + _LASTS_S,
        }
        try:
            key = load_pem_private_key(stored.private_key.encode(), password=None)
        except ValueError:
            key = None
        if not isinstance(key, RSAPrivateKey):
            raise border.CredentialsRejected(
                f"the key of {stored.client_email} is damaged; make another one with `gcloud iam "
                f"service-accounts keys create FILE --iam-account {stored.client_email}`"
            )
        said = b".".join(_base64(msgspec.json.encode(part)) for part in (head, claims))
        return (said + b"." + _base64(key.sign(said, padding.PKCS1v15(), hashes.SHA256()))).decode()

    async def _of_metadata(self) -> _Token:
        reply = await self._metadata("instance/service-accounts/default/token")
        if not reply:
            raise border.CredentialsRejected(
                "Google Cloud has no credentials to use: GOOGLE_APPLICATION_CREDENTIALS is not set, there is "
                f"no {self._gcloud() / 'application_default_credentials.json'}, and this is no machine of "
                f"Google's; sign in with {MANIFEST.how_to_sign_in}"
            )
        return msgspec.json.decode(reply, type=_Token)

    async def _metadata_project(self) -> str:
        if self._file() is not None:
            return ""
        return (await self._metadata("project/project-id")).decode().strip()

    async def _metadata(self, path: str) -> bytes:
        """b"": this is no machine of Google's, or it has no such thing."""
        host = self._environ.get("GCE_METADATA_HOST") or _METADATA
        how = How(safe=False, headers=_FLAVOR, timeout_s=2.0, fine=(404,))
        try:
            reply = await self._http.send("GET", f"http://{host}/computeMetadata/v1/{path}", how=how)
        except border.BorderError:
            return b""
        return reply.body if reply.status == 200 and "metadata-flavor" in reply.headers else b""

    def _named_project(self) -> str:
        named = next((self._environ[name] for name in _PROJECTS if self._environ.get(name)), "")
        if named:
            return named
        stored = self._stored()
        if stored is not None and (stored.project_id or stored.quota_project_id):
            return stored.project_id or stored.quota_project_id
        return _gcloud_project(self._gcloud(), self._environ.get("CLOUDSDK_ACTIVE_CONFIG_NAME", ""))

    async def close(self) -> None:
        await self._http.close()


def _gcloud_project(folder: Path, active: str) -> str:
    """What `gcloud config set project` left."""
    try:
        name = active or (folder / "active_config").read_text().strip()
        text = (folder / "configurations" / f"config_{name}").read_text()
    except OSError:
        return ""
    core = re.search(r"^\[core\](.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
    found = re.search(r"^\s*project\s*=\s*(\S+)", core[1], re.MULTILINE) if core else None
    return found[1] if found else ""


def _lender(stored: Stored) -> str:
    return stored.service_account_impersonation_url.rpartition("/")[2].partition(":")[0]


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _words(said: Said) -> border.BorderError | None:
    """The token service refuses credentials with status 400."""
    if said.status == 400 and said.code.startswith(("invalid_", "unauthorized_")):
        return error_of(msgspec.structs.replace(said, status=401))
    return None
