"""Google Cloud Storage: gs://BUCKET/KEY."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from argosy.infra.buckets import (
    BucketMissing,
    CredentialsMissing,
    Encryption,
    MountKeys,
    NotPossible,
    Opened,
    StoreSettings,
    Traits,
    UrlUnknown,
)
from argosy.model.ids import Clock
from argosy.storage.google_account import STS, Account
from argosy.storage.one_call import one_call
from argosy.storage.through_obstore import RETRY, Named, ObstoreBucket
from argosy.storage.tls import check_tls

if TYPE_CHECKING:
    from obstore.store import GCSStore

_TITLE: Final = "Google Cloud Storage"
_SIGN_IN: Final = "sign in: `gcloud auth application-default login`, or GOOGLE_APPLICATION_CREDENTIALS"
_USUAL: Final = ".config/gcloud/application_default_credentials.json"
_VENDOR: Final = Path("/sys/class/dmi/id/product_name")  # of the machine we run on


class _Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`gs` in `buckets.yaml`."""

    endpoint: str = ""
    credentials_file: str = ""
    anonymous: bool = False
    tls: bool = True
    sts: str = STS


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
    signs, account = False, None
    if not own.anonymous and path.exists():
        told = _read(path)
        account = Account(told, settings.environ.get("GOOGLE_CLOUD_PROJECT", ""), settings.clock)
        service = "private_key" in told
        config["service_account" if service else "application_credentials"] = str(path)
        signs = service
    elif own.anonymous or not _is_theirs():
        config["skip_signature"] = True
    else:
        account = Account({}, settings.environ.get("GOOGLE_CLOUD_PROJECT", ""), settings.clock)
    check_tls("gs", own.endpoint, tls=own.tls)
    plain = own.endpoint.startswith("http://")
    store = GCSStore(bucket, config=config, client_options={"allow_http": plain}, retry_config=RETRY)  # type: ignore[arg-type]
    named = Named(url=f"gs://{bucket}", title=_TITLE, sign_in=_SIGN_IN)
    traits = Traits(signs=signs, makes_buckets=account is not None, encryption=("AES256",), mounts=True)
    return Opened(_Bucket(store, named, traits, account, own, settings.clock), key)


def _is_theirs() -> bool:
    """Whether this is a machine of Google, which gives credentials by itself."""
    try:
        return "Google" in _VENDOR.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _read(path: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return told
    except (OSError, ValueError):
        raise CredentialsMissing(f"`{path}` holds no credentials of Google", _SIGN_IN) from None


class _Bucket(ObstoreBucket):
    """A bucket that its account can make and remove, which obstore does not do."""

    def __init__(
        self,
        store: GCSStore,
        named: Named,
        traits: Traits,
        account: Account | None,
        own: _Settings,
        clock: Clock,
    ) -> None:
        super().__init__(store, named, traits, by_version=True)
        self._account, self._own, self._clock = account, own, clock
        self._base = own.endpoint or "https://storage.googleapis.com"

    def mount_keys(self, key: str, *, writes: bool) -> MountKeys:
        """A token for what lies below `key` alone."""
        bucket = self._named.url.removeprefix("gs://")
        settings = {"type": "google cloud storage", "bucket_policy_only": "true", "no_check_bucket": "true"}
        settings |= {"endpoint": self._own.endpoint} if self._own.endpoint else {}
        path = f"{bucket}/{key}".rstrip("/")
        if self._account is None:
            return MountKeys(settings=settings | {"anonymous": "true"}, path=path, scoped=True)
        prefix = f"{key.rstrip('/')}/" if key else ""
        token = self._account.narrowed(bucket, prefix, writes=writes, sts=self._own.sts)
        return MountKeys(
            settings=settings,
            path=path,
            scoped=True,
            expires_s=self._clock.now_ms() / 1000 + token.expires_in_s,
            door="oauth",
            fresh={"access_token": token.text, "token_type": "Bearer"},
        )

    def _call(self, method: str, headers: Mapping[str, str]) -> None:
        if self._account is None:
            return super().make()
        name = self._named.url.removeprefix("gs://")
        signed = {**headers, **self._account.headers(), "content-length": "0"}
        told = one_call(method, f"{self._base}/{name}", signed)
        if told.status >= 300:
            raise self.refused(told.status, told.body.decode("utf-8", "replace"))

    def make(self) -> None:
        project = self._account.project if self._account is not None else ""
        try:
            self.page(most=1)
        except BucketMissing:
            self._call("PUT", {"x-goog-project-id": project} if project else {})

    def drop(self) -> None:
        try:
            self._call("DELETE", {})
        except BucketMissing:
            pass
