"""Azure Blob Storage: azblob://CONTAINER/KEY, and https://ACCOUNT.blob.core.windows.net/CONTAINER/KEY."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from argosy.infra.buckets import (
    BucketInUse,
    BucketMissing,
    Encryption,
    MountKeys,
    NotPossible,
    Opened,
    StoreSettings,
    Traits,
    UrlUnknown,
)
from argosy.model.ids import Clock
from argosy.storage.azure_sas import Container, bearer_of, delegated_sas, delegation_key, service_sas
from argosy.storage.one_call import Told, one_call
from argosy.storage.through_obstore import RETRY, Named, ObstoreBucket
from argosy.storage.tls import check_tls

if TYPE_CHECKING:
    from obstore.store import AzureStore

_VERSION: Final = "2023-11-03"
_MOUNT_S: Final = 7 * 24 * 3600 - 600  # the longest that Azure lends a key for
_TITLE: Final = "Azure Blob Storage"
_SIGN_IN: Final = "set AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN for the server, or `az login`"
#: obstore's name of a setting -> variables that hold it; each line is enough by itself.
_SECRETS: Final = (
    {"account_key": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCESS_KEY")},
    {"sas_key": ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY")},
    {
        "client_id": ("AZURE_CLIENT_ID",),
        "client_secret": ("AZURE_CLIENT_SECRET",),
        "tenant_id": ("AZURE_TENANT_ID",),
    },
    {
        "client_id": ("AZURE_CLIENT_ID",),
        "tenant_id": ("AZURE_TENANT_ID",),
        "federated_token_file": ("AZURE_FEDERATED_TOKEN_FILE",),
    },
)


class _Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`azblob` in `buckets.yaml`."""

    account: str = ""
    endpoint: str = ""
    anonymous: bool = False
    tls: bool = True


def open_url(url: str, settings: StoreSettings, encryption: Encryption) -> Opened:
    own = settings.section("azblob", _Settings)
    if url.startswith("https://"):
        split = urlsplit(url)
        account, rest = split.netloc.partition(".")[0], unquote(split.path.lstrip("/"))
        front = f"https://{split.netloc}/"
    else:
        account, rest, front = _account(own, settings), url.partition("://")[2], "azblob://"
    container, _, key = rest.partition("/")
    if not container:
        raise UrlUnknown(f"`{url}` names no container", "write azblob://CONTAINER/KEY")
    if encryption.type not in ("", "AES256"):  # what it does by itself
        raise NotPossible(
            f"Argosy cannot ask {_TITLE} for `{encryption.type}`",
            "it encrypts with AES256 by itself; set an encryption scope of the container for another key",
        )
    try:
        from obstore.store import AzureStore
    except ImportError:
        raise NotPossible("obstore is not installed", "`pip install argosy[storage]`") from None
    config: dict[str, Any] = {"account_name": account}
    secrets = {} if own.anonymous else _secrets(settings)
    if not secrets:
        config["skip_signature" if own.anonymous else "use_azure_cli"] = True
    config |= secrets
    if own.endpoint:
        config["endpoint"] = own.endpoint
    check_tls("azblob", own.endpoint, tls=own.tls)
    plain = own.endpoint.startswith("http://")
    store = AzureStore(container, config=config, client_options={"allow_http": plain}, retry_config=RETRY)  # type: ignore[arg-type]
    traits = Traits(
        signs="account_key" in secrets,
        makes_buckets=bool(secrets.keys() & {"account_key", "sas_key"}),
        encryption=("AES256",),
        put_headers={"x-ms-blob-type": "BlockBlob"},
        mounts=True,
    )
    named = Named(url=f"{front}{container}", title=_TITLE, sign_in=_SIGN_IN)
    base = own.endpoint or f"https://{account}.blob.core.windows.net"
    ring = _Ring(account, base, secrets, settings.clock)
    return Opened(_Bucket(store, named, traits, ring, container, is_open=own.anonymous), key)


def _account(own: _Settings, settings: StoreSettings) -> str:
    account = own.account or settings.environ.get("AZURE_STORAGE_ACCOUNT", "")
    account = account or settings.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    if not account:
        raise UrlUnknown(
            "the storage account of azblob:// is not known",
            "set AZURE_STORAGE_ACCOUNT, write `azblob: {account: ...}` in buckets.yaml, or name it: "
            "https://ACCOUNT.blob.core.windows.net/CONTAINER/KEY",
        )
    return account


def _secrets(settings: StoreSettings) -> dict[str, str]:
    for way in _SECRETS:
        found = {
            name: next((settings.environ[each] for each in variables if settings.environ.get(each)), "")
            for name, variables in way.items()
        }
        if all(found.values()):
            return found
    return {}


def _remote(container: Container, signed: str) -> dict[str, str]:
    """rclone takes an account from a URL of the container, with what signs it."""
    return {"type": "azureblob", "sas_url": f"{container.base}/{container.name}?{signed}".rstrip("?")}


class _Ring(NamedTuple):
    """Who asks, where, and when."""

    account: str
    base: str
    secrets: Mapping[str, str]
    clock: Clock

    def call(self, method: str, container: str) -> Told:
        """One call on a container, signed with the account's key or by its shared access signature."""
        address = f"{self.base}/{container}?restype=container"
        if "account_key" not in self.secrets:
            sas = self.secrets["sas_key"].lstrip("?")
            return one_call(method, f"{address}&{sas}", {"x-ms-version": _VERSION, "content-length": "0"})
        date = formatdate(self.clock.now_ms() / 1000, usegmt=True)
        path = urlsplit(self.base).path
        text = f"{method}{chr(10) * 12}x-ms-date:{date}\nx-ms-version:{_VERSION}\n"
        text += f"/{self.account}{path}/{container}\nrestype:container"
        digest = hmac.digest(base64.b64decode(self.secrets["account_key"]), text.encode(), "sha256")
        signature = base64.b64encode(digest).decode()
        headers = {
            "x-ms-date": date,
            "x-ms-version": _VERSION,
            "authorization": f"SharedKey {self.account}:{signature}",
            "content-length": "0",
        }
        return one_call(method, address, headers)


class _Bucket(ObstoreBucket):
    """A container that its account can make and remove, which obstore does not do, and that nodes mount."""

    def __init__(
        self,
        store: AzureStore,
        named: Named,
        traits: Traits,
        ring: _Ring,
        container: str,
        *,
        is_open: bool = False,
    ) -> None:
        super().__init__(store, named, traits, signs_plain=True)
        self._open = is_open
        self._ring, self._container = ring, container

    def mount_keys(self, key: str, *, writes: bool) -> MountKeys:
        """A signature for the container alone: Azure has none for a prefix of it."""
        ring, secrets = self._ring, self._ring.secrets
        container = Container(ring.account, self._container, ring.base)
        path = f"{self._container}/{key}".rstrip("/")
        now_s = ring.clock.now_ms() / 1000
        why, ends_s = "", now_s + _MOUNT_S
        if self._open:
            return MountKeys(settings=_remote(container, ""), path=path, scoped=True)
        if "account_key" in secrets:
            signed = service_sas(container, secrets["account_key"], ends_s, writes=writes)
        elif "sas_key" in secrets:
            signed, ends_s = secrets["sas_key"].lstrip("?"), 0.0
            why = "a shared access signature cannot be narrowed"
        else:
            lent = delegation_key(container, bearer_of(secrets), now_s, ends_s)
            signed = delegated_sas(container, lent, ends_s, writes=writes)
        return MountKeys(
            settings=_remote(container, signed), path=path, scoped=not why, why=why, expires_s=ends_s
        )

    def make(self) -> None:
        if not self.traits.makes_buckets:
            return super().make()
        try:
            self.page(most=1)
        except BucketMissing:
            self._call("PUT")

    def drop(self) -> None:
        """Azure would remove what it holds, too: it is looked at first."""
        if not self.traits.makes_buckets:
            return super().drop()
        try:
            if self.page(most=1).objects:
                raise BucketInUse(f"{self.url} is not empty", "empty it first")
            self._call("DELETE")
        except BucketMissing:
            pass

    def _call(self, method: str) -> None:
        told = self._ring.call(method, self._container)
        if told.status >= 300:
            raise self.refused(told.status, told.body.decode("utf-8", "replace"))
