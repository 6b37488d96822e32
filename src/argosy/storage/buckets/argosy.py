"""The buckets of this server: argosy://BUCKET/KEY, without a network in between."""

from __future__ import annotations

from argosy.infra.buckets import Encryption, NotPossible, Opened, StoreSettings, UrlUnknown


def open_url(url: str, settings: StoreSettings, encryption: Encryption) -> Opened:
    bucket, _, key = url.partition("://")[2].partition("/")
    if not bucket:
        raise UrlUnknown(f"`{url}` names no bucket", "write argosy://BUCKET/KEY")
    if settings.local is None:
        raise NotPossible(f"{url} is a bucket of the server, and this is not the server")
    if encryption.type:
        raise NotPossible(
            f"buckets of this server are not encrypted with `{encryption.type}`",
            "encrypt the disk below them, or name a bucket of a cloud",
        )
    return Opened(settings.local(bucket), key)
