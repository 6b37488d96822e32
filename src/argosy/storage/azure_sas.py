"""Shared access signatures of Azure Blob Storage: what anybody may do with one container for a while, signed
with the account's key, or with a key that Azure lends to who has signed in (user delegation). Pure but for
`delegation_key`.

Source: Microsoft's documentation, "Create a service SAS" and "Create a user delegation SAS".
"""

from __future__ import annotations

import base64
import hmac
import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlencode

import msgspec

from argosy.infra.buckets import AccessRefused, CredentialsMissing
from argosy.storage.one_call import one_call

VERSION: Final = "2021-12-02"
_READS: Final = "rl"
_WRITES: Final = "racwdl"


class Container(NamedTuple):
    account: str
    name: str
    base: str  # of its account's blobs: https://ACCOUNT.blob.core.windows.net


class Delegation(msgspec.Struct, frozen=True, kw_only=True):
    """A key that Azure lends, for seven days at most."""

    owner: str
    tenant: str
    start: str
    expiry: str
    service: str
    version: str
    value: str

    def __repr__(self) -> str:
        return f"Delegation(owner={self.owner!r})"


def service_sas(container: Container, account_key: str, ends_s: float, *, writes: bool) -> str:
    """Query of a URL, signed with the account's key."""
    fields = _fields(container, ends_s, writes=writes)
    text = [fields["sp"], "", fields["se"], _resource(container), "", "", fields["spr"], VERSION, "c"]
    return urlencode({**fields, "sig": _signature(account_key, [*text, *[""] * 7])})


def delegated_sas(container: Container, key: Delegation, ends_s: float, *, writes: bool) -> str:
    """Query of a URL, signed with a key that was lent."""
    fields = _fields(container, ends_s, writes=writes)
    lent = [key.owner, key.tenant, key.start, key.expiry, key.service, key.version]
    named = dict(zip(("skoid", "sktid", "skt", "ske", "sks", "skv"), lent, strict=True))
    text = [fields["sp"], "", fields["se"], _resource(container), *lent, "", "", "", "", fields["spr"]]
    text += [VERSION, "c", *[""] * 7]
    return urlencode({**fields, **named, "sig": _signature(key.value, text)})


def delegation_key(container: Container, bearer: str, begins_s: float, ends_s: float) -> Delegation:
    """Raises `AccessRefused`, `StoreUnreachable`."""
    asked = f"<KeyInfo><Start>{_stamp(begins_s)}</Start><Expiry>{_stamp(ends_s)}</Expiry></KeyInfo>"
    headers = {
        "authorization": f"Bearer {bearer}",
        "x-ms-version": VERSION,
        "content-type": "application/xml",
    }
    address = f"{container.base}/?restype=service&comp=userdelegationkey"
    told = one_call("POST", address, headers, asked.encode())
    names = ("SignedOid", "SignedTid", "SignedStart", "SignedExpiry", "SignedService", "SignedVersion")
    found = [told.field(name) for name in (*names, "Value")]
    if told.status >= 300 or not all(found):
        raise AccessRefused(
            f"Azure lends no key for {container.base} ({told.field('Code') or told.status})",
            "give who has signed in the role Storage Blob Delegator, or set AZURE_STORAGE_ACCOUNT_KEY",
        )
    owner, tenant, start, expiry, service, version, value = found
    return Delegation(
        owner=owner, tenant=tenant, start=start, expiry=expiry, service=service, version=version, value=value
    )


def bearer_of(secrets: Mapping[str, str], login: str = "https://login.microsoftonline.com") -> str:
    """A token for storage of who has signed in: a service principal, a workload, or a person with `az login`.
    Blocks. Raises `CredentialsMissing`, `StoreUnreachable`."""
    if not secrets:
        return _of_cli()
    form = {
        "grant_type": "client_credentials",
        "client_id": secrets["client_id"],
        "scope": "https://storage.azure.com/.default",
    }
    if "client_secret" in secrets:
        form["client_secret"] = secrets["client_secret"]
    else:
        form["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        form["client_assertion"] = Path(secrets["federated_token_file"]).read_text(encoding="utf-8").strip()
    address = f"{login}/{secrets['tenant_id']}/oauth2/v2.0/token"
    kind = {"content-type": "application/x-www-form-urlencoded"}
    told = one_call("POST", address, kind, urlencode(form).encode())
    try:
        return str(json.loads(told.body)["access_token"])
    except (ValueError, KeyError, TypeError):
        raise CredentialsMissing(
            f"Azure does not accept the service principal ({told.status})", "look at AZURE_CLIENT_SECRET"
        ) from None


def _of_cli() -> str:
    command = ["az", "account", "get-access-token", "--resource", "https://storage.azure.com/", "-o", "json"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return str(json.loads(told.stdout)["accessToken"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        raise CredentialsMissing("nobody has signed in to Azure", "`az login`") from None


def _fields(container: Container, ends_s: float, *, writes: bool) -> dict[str, str]:
    return {
        "sp": _WRITES if writes else _READS,
        "se": _stamp(ends_s),
        "spr": "https,http" if container.base.startswith("http://") else "https",
        "sv": VERSION,
        "sr": "c",
    }


def _resource(container: Container) -> str:
    return f"/blob/{container.account}/{container.name}"


def _signature(key: str, fields: list[str]) -> str:
    digest = hmac.digest(base64.b64decode(key), "\n".join(fields).encode(), "sha256")
    return base64.b64encode(digest).decode()


def _stamp(at_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))
