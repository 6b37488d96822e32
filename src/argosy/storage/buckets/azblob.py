"""Azure Blob Storage: azblob://CONTAINER/KEY, and https://ACCOUNT.blob.core.windows.net/CONTAINER/KEY."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec

from argosy.infra.buckets import Encryption, NotPossible, Opened, StoreSettings, Traits, UrlUnknown
from argosy.storage.through_obstore import RETRY, Named, ObstoreBucket

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
    plain = own.endpoint.startswith("http://")
    store = AzureStore(container, config=config, client_options={"allow_http": plain}, retry_config=RETRY)  # type: ignore[arg-type]
    traits = Traits(
        signs="account_key" in secrets, encryption=("AES256",), put_headers={"x-ms-blob-type": "BlockBlob"}
    )
    named = Named(url=f"{front}{container}", title=_TITLE, sign_in=_SIGN_IN)
    return Opened(ObstoreBucket(store, named, traits, signs_plain=True), key)


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
