"""Google Cloud Storage: gs://BUCKET/KEY."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from argosy.infra.buckets import Encryption, NotPossible, Opened, StoreSettings, Traits, UrlUnknown
from argosy.storage.through_obstore import RETRY, Named, ObstoreBucket

_TITLE: Final = "Google Cloud Storage"
_SIGN_IN: Final = "sign in: `gcloud auth application-default login`, or GOOGLE_APPLICATION_CREDENTIALS"
_USUAL: Final = ".config/gcloud/application_default_credentials.json"
_VENDOR: Final = Path("/sys/class/dmi/id/product_name")  # of the machine we run on


class _Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`gs` in `buckets.yaml`."""

    endpoint: str = ""
    credentials_file: str = ""
    anonymous: bool = False


def open_url(url: str, settings: StoreSettings, encryption: Encryption) -> Opened:
    bucket, _, key = url.partition("://")[2].partition("/")
    if not bucket:
        raise UrlUnknown(f"`{url}` names no bucket", "write gs://BUCKET/KEY")
    if encryption.type not in ("", "AES256"):  # what it does by itself
        raise NotPossible(
            f"Argosy cannot ask {_TITLE} for `{encryption.type}`",
            "it encrypts with AES256 by itself; set the bucket's own key for another",
        )
    try:
        from obstore.store import GCSStore
    except ImportError:
        raise NotPossible("obstore is not installed", "`pip install argosy[storage]`") from None
    own = settings.section("gs", _Settings)
    config: dict[str, Any] = {"base_url": own.endpoint} if own.endpoint else {}
    file = own.credentials_file or settings.environ.get("GOOGLE_APPLICATION_CREDENTIALS", "")
    path = Path(file).expanduser() if file else settings.home / _USUAL
    signs = False
    if not own.anonymous and path.exists():
        service = '"private_key"' in path.read_text(encoding="utf-8")
        config["service_account" if service else "application_credentials"] = str(path)
        signs = service
    elif own.anonymous or not _is_theirs():
        config["skip_signature"] = True
    plain = own.endpoint.startswith("http://")
    store = GCSStore(bucket, config=config, client_options={"allow_http": plain}, retry_config=RETRY)  # type: ignore[arg-type]
    named = Named(url=f"gs://{bucket}", title=_TITLE, sign_in=_SIGN_IN)
    return Opened(
        ObstoreBucket(store, named, Traits(signs=signs, encryption=("AES256",)), by_version=True), key
    )


def _is_theirs() -> bool:
    """Whether this is a machine of Google, which gives credentials by itself."""
    try:
        return "Google" in _VENDOR.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
