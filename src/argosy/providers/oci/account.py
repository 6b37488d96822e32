"""An account of OCI: its configuration file, and signed calls to the services of a region.

Source of the signature: Oracle's documentation, "Request Signatures" (draft-cavage-http-signatures, 1).
"""

from __future__ import annotations

import asyncio
import base64
import configparser
import email.utils
import hashlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from argosy.infra import border
from argosy.infra.http_json import Ask, How, HttpJson, Query, Service
from argosy.infra.http_words import Said
from argosy.infra.provider import Setting
from argosy.providers.oci import MANIFEST

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

T = TypeVar("T")
_NEEDED: Final = ("user", "fingerprint", "tenancy", "region", "key_file")
#: Hosts of services, by their short names.
_HOSTS: Final = {
    "iaas": "https://iaas.{region}.oraclecloud.com",
    "identity": "https://identity.{region}.oraclecloud.com",
}


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One section of `~/.oci/config`."""

    user: str
    fingerprint: str
    tenancy: str
    region: str
    key_file: str
    pass_phrase: str = ""

    def __repr__(self) -> str:
        return f"Profile(region={self.region!r})"


class Account:
    """Calls of one account. Safe to use from several tasks."""

    def __init__(self, setting: Setting) -> None:
        self._setting, self._clock = setting, setting.clock
        self._clients: dict[tuple[str, str], HttpJson] = {}
        self._profile: Profile | None = None
        self._key: RSAPrivateKey | None = None

    @property
    def profile(self) -> Profile:
        """Raises `CredentialsRejected` that says where it looked."""
        if self._profile is None:
            self._profile = profile_in(self._setting.environ)
        return self._profile

    @property
    def compartment(self) -> str:
        return self._setting.environ.get("OCI_COMPARTMENT") or self.profile.tenancy

    def service(self, name: str, region: str) -> HttpJson:
        """`name`: iaas | identity."""
        found = self._clients.get((name, region))
        if found is None:
            elsewhere = self._setting.environ.get("OCI_API_URL")
            base = f"{elsewhere}/{name}/{region}" if elsewhere else _HOSTS[name].format(region=region)
            found = self._clients[name, region] = HttpJson(
                base + "/20160918",
                Service(title=MANIFEST.title, sign_in=MANIFEST.how_to_sign_in, words=words),
                clock=self._clock,
                sign=self._sign,
            )
        return found

    async def pages(self, region: str, path: str, into: type[T], query: Query = ()) -> AsyncIterator[T]:
        """Items of a listing. A page may be empty and still be followed by others."""
        http, page = self.service("iaas", region), ""
        while True:
            more = [("page", page)] if page else []
            reply = await http.send("GET", path, query=[*query, ("limit", 100), *more])
            for each in http.read(reply, list[into]):  # type: ignore[valid-type]
                yield each
            page = reply.headers.get("opc-next-page", "")
            if not page:
                return

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()

    async def _sign(self, ask: Ask) -> Mapping[str, str]:
        profile = self.profile
        if self._key is None:
            self._key = await asyncio.to_thread(_private_key, profile)
        place = urlsplit(ask.url)
        target = f"{ask.method.lower()} {place.path}" + (f"?{place.query}" if place.query else "")
        headers = {
            "date": email.utils.formatdate(self._clock.now_ms() / 1000, usegmt=True),
            "(request-target)": target,
            "host": place.netloc,
        }
        if ask.method in ("POST", "PUT"):
            digest = base64.b64encode(hashlib.sha256(ask.body).digest()).decode()
            headers |= {
                "content-length": str(len(ask.body)),
                "content-type": "application/json",
                "x-content-sha256": digest,
            }
        text = "\n".join(f"{name}: {value}" for name, value in headers.items())
        signature = base64.b64encode(_signed(self._key, text.encode())).decode()
        key_id = f"{profile.tenancy}/{profile.user}/{profile.fingerprint}"
        own = {name: value for name, value in headers.items() if name not in ("(request-target)", "host")}
        own["authorization"] = (
            f'Signature algorithm="rsa-sha256",headers="{" ".join(headers)}",keyId="{key_id}",'
            f'signature="{signature}",version="1"'
        )
        return own


def _signed(key: RSAPrivateKey, data: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    return key.sign(data, PKCS1v15(), SHA256())


def profile_in(environ: Mapping[str, str]) -> Profile:
    """The profile that OCI's own tools use. Raises `CredentialsRejected`."""
    home = Path(environ.get("HOME", "/nonexistent"))
    path = Path(environ.get("OCI_CONFIG_FILE") or home / ".oci/config")
    name = environ.get("OCI_PROFILE") or "DEFAULT"
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text())
        section = parser[name]
    except OSError:
        raise border.CredentialsRejected(
            f"OCI has no credentials in {path}; {MANIFEST.how_to_sign_in}"
        ) from None
    except (configparser.Error, KeyError):
        what = f"{path} has no profile {name} that can be read"
        raise border.CredentialsRejected(f"{what}; {MANIFEST.how_to_sign_in}") from None
    missing = [each for each in _NEEDED if not section.get(each)]
    if missing:
        what = f"the profile {name} in {path} lacks {', '.join(missing)}"
        raise border.CredentialsRejected(f"{what}; {MANIFEST.how_to_sign_in}")
    key_file = section["key_file"]
    return Profile(
        user=section["user"],
        fingerprint=section["fingerprint"],
        tenancy=section["tenancy"],
        region=section["region"],
        key_file=str(home / key_file[2:]) if key_file.startswith("~/") else key_file,
        pass_phrase=section.get("pass_phrase", ""),
    )


def _private_key(profile: Profile) -> RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        data = Path(profile.key_file).read_bytes()
        key = load_pem_private_key(data, profile.pass_phrase.encode() or None)
    except OSError as error:
        what = f"the key {profile.key_file} of OCI cannot be read: {error.strerror}"
    except (ValueError, TypeError):
        what = f"the key {profile.key_file} of OCI is not a private key, or its pass phrase is wrong"
    else:
        if isinstance(key, RSAPrivateKey):
            return key
        what = f"the key {profile.key_file} of OCI is not an RSA key"
    raise border.CredentialsRejected(f"{what}; {MANIFEST.how_to_sign_in}")


def words(said: Said) -> border.BorderError | None:
    """Codes of OCI that say more than their status."""
    what = f"OCI says: {said.words}"
    if "out of host capacity" in said.text.lower():
        return border.OutOfCapacity(said.scope, f"OCI has no {said.scope} now: {said.text}")
    match said.code:
        case "LimitExceeded" | "QuotaExceeded":
            fix = "ask for more under Governance, Limits in the console"
            return border.QuotaExceeded(said.scope or "machines", "reached", f"{what}; {fix}")
        case "NotAuthorizedOrNotFound":
            fix = "the compartment, or what is named in it, does not exist or a policy does not allow it"
            return border.CredentialsRejected(f"{what}; {fix}")
        case "IncorrectState" | "InvalidatedRetryToken" | "Conflict":
            return border.Transient(what, 5)
        case "NotAuthenticated":
            return border.CredentialsRejected(f"{what}; {MANIFEST.how_to_sign_in}")
    return None


ONCE: Final = "opc-retry-token"


def once(token: str) -> How:
    """A call that has its effect once, however often it is made within a day."""
    return How(safe=True, headers={ONCE: token})
