"""Object stores, one file each, by the URLs that name them. A new store is a module here and one line in
`STORES`; nothing else knows its name.

A module has `open_url(url, settings, encryption) -> Opened`; it is imported when such a URL is first opened.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from argosy.infra.buckets import BY_ITSELF, Encryption, Opened, StoreSettings, UrlUnknown
from argosy.model.object_urls import split_url

#: Module -> the URLs that are its; the first that fits is taken.
STORES: Final[Mapping[str, tuple[str, ...]]] = {
    "argosy": ("argosy://*",),
    "s3": ("s3://*",),
    "r2": ("r2://*",),
    "oci": ("oci://*",),
    "nebius": ("nebius://*",),
    "cos": ("cos://*",),
    "cw": ("cw://*",),
    "gs": ("gs://*",),
    "azblob": ("azblob://*", "https://*.blob.core.windows.net/*"),
    "hf": ("hf://*",),
    "files": ("file://*",),
    "web": ("https://*", "http://*"),
}
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*(?=://)", re.IGNORECASE)


class Stores:
    """`infra.buckets.OpensBuckets`."""

    def __init__(self, settings: StoreSettings, stores: Mapping[str, tuple[str, ...]] = STORES) -> None:
        self._settings, self._stores = settings, stores
        self._open: dict[tuple[str, Encryption], Opened] = {}

    def open(self, url: str, encryption: Encryption = BY_ITSELF) -> Opened:
        scheme, _, rest = url.partition("://")
        url = f"{scheme.lower()}://{rest}"
        split = split_url(url)
        if split is not None and (held := self._open.get((split[0], encryption))) is not None:
            return Opened(held.bucket, split[1])
        opened = open_bucket(url, self._settings, encryption, self._stores)
        known = self._open.setdefault((opened.bucket.url, encryption), opened)
        return Opened(known.bucket, opened.key)

    def close(self) -> None:
        """Connections go."""
        for opened in self._open.values():
            opened.bucket.close()
        self._open.clear()


def open_bucket(
    url: str,
    settings: StoreSettings,
    encryption: Encryption = BY_ITSELF,
    stores: Mapping[str, tuple[str, ...]] = STORES,
) -> Opened:
    """The bucket that a URL names, and what follows in it. Raises `UrlUnknown` and what its store raises."""
    name = store_of(url, settings, stores)
    if encryption.type == "" and encryption.key_id:
        raise UrlUnknown("`encryption` has a key_id and no type", "write `type: aws:kms` beside it")
    module = importlib.import_module(name if "." in name else f"{__name__}.{name}")
    opened: Opened = module.open_url(url, settings, encryption)
    return opened


def store_of(url: str, settings: StoreSettings, stores: Mapping[str, tuple[str, ...]] = STORES) -> str:
    """The module that serves a URL. Raises `UrlUnknown`."""
    for name, patterns in stores.items():
        if any(fnmatchcase(url, pattern) for pattern in patterns):
            return name
    match = _SCHEME.match(url)
    if match is None:
        raise UrlUnknown(f"`{url}` is no URL of an object store", "write for example s3://BUCKET/KEY")
    if match[0].lower() in settings.sections:
        return "own_endpoint"
    known = sorted({pattern.partition(":")[0] for patterns in stores.values() for pattern in patterns})
    raise UrlUnknown(
        f"no object store has URLs that begin with {match[0]}://",
        f"known are {', '.join(known)}; for one that speaks S3 write "
        f"`{match[0]}: {{endpoint: https://HOST}}` in buckets.yaml",
    )


def sections_of(text: str) -> dict[str, str]:
    """The sections of a `buckets.yaml`, as JSON texts. Raises `UrlUnknown` for what is none."""
    import yaml

    try:
        found = yaml.safe_load(text) or {}
        return {str(name): msgspec.json.encode(value or {}).decode() for name, value in found.items()}
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise UrlUnknown(f"buckets.yaml cannot be read: {error}", "see docs/storage.md") from None
