"""Who asks: tokens for Azure's API, of a service principal, a managed identity or the login of `az`."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.http_json import Form, How, HttpJson, Service
from argosy.infra.http_words import Said
from argosy.infra.machine_access import Bearer, Token
from argosy.infra.provider import Setting
from argosy.providers.azure import MANIFEST

LOGIN: Final = "https://login.microsoftonline.com"
METADATA: Final = "http://169.254.169.254"
_CLI_S: Final = 60.0
_ASSERTION_S: Final = 600
_JWT: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class _Token(msgspec.Struct, frozen=True):
    access_token: str
    expires_in: int | str = 3600  # the metadata service writes numbers as texts


class _CliToken(msgspec.Struct, frozen=True, rename="camel"):
    access_token: str
    subscription: str = ""
    expires_on: float = msgspec.field(name="expires_on", default=0.0)  # seconds; old versions do not tell


class Identity:
    """Tokens for the API at `resource`, kept until shortly before they end. Never shown."""

    def __init__(self, setting: Setting, resource: str) -> None:
        self._environ, self._clock, self._resource = setting.environ, setting.clock, resource
        self._ids = setting.ids
        self._bearer = Bearer(self._ask, setting.clock, early_s=300.0)
        self.sign, self.token = self._bearer.sign, self._bearer.token
        self.subscription = ""  # that the login of `az` has chosen
        service = Service(
            title=MANIFEST.title, sign_in=f"sign in with {MANIFEST.how_to_sign_in}", words=_words
        )
        login = self._environ.get("AZURE_AUTHORITY_HOST") or LOGIN
        self._login = HttpJson(login, service, clock=setting.clock)
        metadata = self._environ.get("ARGOSY_AZURE_METADATA_URL") or METADATA
        self._metadata = HttpJson(metadata, service, clock=setting.clock, repeats=0)

    def __repr__(self) -> str:
        return "Identity()"

    async def _ask(self) -> Token:
        """Raises `CredentialsRejected`."""
        env = self._environ
        tenant, client = env.get("AZURE_TENANT_ID", ""), env.get("AZURE_CLIENT_ID", "")
        if tenant and client and (proof := self._proof(tenant, client)):
            return await self._of_principal(tenant, client, proof)
        if identity := env.get("ARGOSY_AZURE_IDENTITY"):
            return await self._of_machine("" if identity == "managed" else identity)
        program = shutil.which("az", path=env.get("PATH"))
        if program:
            return await self._of_cli(program)
        raise border.CredentialsRejected(
            f"{MANIFEST.title} has no credentials to use: neither AZURE_TENANT_ID, AZURE_CLIENT_ID and "
            "AZURE_CLIENT_SECRET are set, nor is the program `az` there; sign in with `az login`"
        )

    def _proof(self, tenant: str, client: str) -> Mapping[str, str]:
        """What proves that we are the principal, as fields of the form; empty: nothing does."""
        env = self._environ
        if secret := env.get("AZURE_CLIENT_SECRET"):
            return {"client_secret": secret}
        if path := env.get("AZURE_CLIENT_CERTIFICATE_PATH"):
            password = (env.get("AZURE_CLIENT_CERTIFICATE_PASSWORD") or "").encode() or None
            audience = f"{self._login.base}/{tenant}/oauth2/v2.0/token"
            made = assertion(
                _read(path), client, audience, self._clock.now_ms() // 1000, self._ids.new("jwt"), password
            )
            return {"client_assertion_type": _JWT, "client_assertion": made}
        if path := env.get("AZURE_FEDERATED_TOKEN_FILE"):
            return {"client_assertion_type": _JWT, "client_assertion": _read(path).decode().strip()}
        return {}

    async def _of_principal(self, tenant: str, client: str, proof: Mapping[str, str]) -> Token:
        form = {"grant_type": "client_credentials", "client_id": client, **proof}
        form["scope"] = f"{self._resource}/.default"
        path = f"/{tenant}/oauth2/v2.0/token"
        got = await self._login.call("POST", path, json=Form(form), into=_Token, how=How(safe=True))
        return Token(got.access_token, float(got.expires_in))

    async def _of_machine(self, client: str) -> Token:
        query = [("api-version", "2018-02-01"), ("resource", f"{self._resource}/")]
        query += [("client_id", client)] if client else []
        how = How(headers={"metadata": "true"}, timeout_s=10)
        try:
            got = await self._metadata.call(
                "GET", "/metadata/identity/oauth2/token", into=_Token, query=query, how=how
            )
        except border.Unreachable:
            raise border.CredentialsRejected(
                "ARGOSY_AZURE_IDENTITY asks for the managed identity of this machine, and nothing answers "
                "for it: this is no machine of Azure, or it has none (`az vm identity assign`)"
            ) from None
        return Token(got.access_token, float(got.expires_in))

    async def _of_cli(self, program: str) -> Token:
        """The login of Azure's own program. Its output is a secret."""
        words = [program, "account", "get-access-token", "--output", "json", "--resource", self._resource]
        if chosen := self._environ.get("AZURE_SUBSCRIPTION_ID"):
            words += ["--subscription", chosen]
        pipe = asyncio.subprocess.PIPE
        none = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            *words, stdin=none, stdout=pipe, stderr=pipe, env={**os.environ, **self._environ}
        )
        try:
            async with asyncio.timeout(_CLI_S):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise border.Transient(
                f"`az account get-access-token` takes longer than {_CLI_S:.0f} s"
            ) from None
        if process.returncode != 0:
            said = err.decode("utf-8", "replace").strip().splitlines()
            why = next((line for line in said if "ERROR" in line), said[-1] if said else "it says nothing")
            raise border.CredentialsRejected(
                f"`az` has no login to use: {why.removeprefix('ERROR: ').rstrip('.')}; sign in with "
                "`az login`"
            )
        try:
            got = msgspec.json.decode(out, type=_CliToken)
        except msgspec.MsgspecError:
            raise border.Transient("`az account get-access-token` answers something unexpected") from None
        self.subscription = got.subscription
        lasts_s = got.expires_on - self._clock.now_ms() / 1000 if got.expires_on else 600.0
        return Token(got.access_token, lasts_s)

    async def close(self) -> None:
        await self._login.close()
        await self._metadata.close()


def _read(path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise border.CredentialsRejected(
            f"{MANIFEST.title}: {path} cannot be read: {error.strerror}; sign in with `az login`"
        ) from None


def assertion(pem: bytes, client: str, audience: str, now_s: int, id: str, password: bytes | None) -> str:
    """A principal's proof by certificate: a signed JWT. `pem`: its private key and its certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    try:
        key = serialization.load_pem_private_key(pem, password)
        shown = x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256())
    except (ValueError, TypeError) as error:
        raise border.CredentialsRejected(
            f"AZURE_CLIENT_CERTIFICATE_PATH is no PEM file with a private key and its certificate: {error}; "
            "sign in with `az login`"
        ) from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise border.CredentialsRejected(
            "AZURE_CLIENT_CERTIFICATE_PATH: Azure takes RSA keys only; sign in with `az login`"
        )
    head = {"alg": "PS256", "typ": "JWT", "x5t#S256": _text(shown)}
    body: dict[str, Any] = {"aud": audience, "iss": client, "sub": client, "jti": id, "nbf": now_s}
    body["exp"] = now_s + _ASSERTION_S
    signed = f"{_text(msgspec.json.encode(head))}.{_text(msgspec.json.encode(body))}"
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    return f"{signed}.{_text(key.sign(signed.encode(), pss, hashes.SHA256()))}"


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _words(said: Said) -> border.BorderError | None:
    """Refusals of the token service: all but a busy one are about who we are."""
    if said.status == 429 or said.status >= 500:
        return None
    told = said.text.partition(" Trace ID")[0].rstrip(".") or said.code
    return border.CredentialsRejected(
        f"{said.title} does not accept the credentials: {told}; {said.sign_in}, or make a new "
        "secret with `az ad sp credential reset --id $AZURE_CLIENT_ID`"
    )


def chosen_subscription(environ: Mapping[str, str]) -> str:
    """AZURE_SUBSCRIPTION_ID, or what the login of `az` has chosen; "": neither tells."""
    if chosen := environ.get("AZURE_SUBSCRIPTION_ID"):
        return chosen
    folder = environ.get("AZURE_CONFIG_DIR") or f"{environ.get('HOME', '/nonexistent')}/.azure"
    try:
        profile: Any = msgspec.json.decode(
            Path(folder, "azureProfile.json").read_bytes().removeprefix(b"\xef\xbb\xbf")
        )
        found = [each["id"] for each in profile["subscriptions"] if each.get("isDefault")]
    except (OSError, msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return ""
    return str(found[0]) if found else ""
