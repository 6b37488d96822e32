"""Files on the web, to be read: https://HOST/PATH. A page that lists a folder is not understood as one."""

from __future__ import annotations

import msgspec

from argosy.infra.buckets import Encryption, NotPossible, Opened, StoreSettings, UrlUnknown
from argosy.storage.tls import check_tls
from argosy.storage.web_bucket import WebBucket, WebSite


class _Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`http` in `buckets.yaml`."""

    tls: bool = True


def open_url(url: str, settings: StoreSettings, encryption: Encryption) -> Opened:
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    if not host or not path:
        raise UrlUnknown(f"`{url}` names no file", "write https://HOST/PATH")
    check_tls(scheme, url, tls=settings.section("http", _Settings).tls)
    if encryption.type:
        raise NotPossible("files on the web have no encryption that can be asked for")
    site = WebSite(url=f"{scheme}://{host}", title=host, sign_in="use an address that needs no log-in")
    return Opened(WebBucket(site), path)
