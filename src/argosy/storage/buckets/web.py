"""Files on the web, to be read: https://HOST/PATH. A page that lists a folder is not understood as one."""

from __future__ import annotations

from argosy.infra.buckets import Encryption, NotPossible, Opened, StoreSettings, UrlUnknown
from argosy.storage.web_bucket import WebBucket, WebSite


def open_url(url: str, settings: StoreSettings, encryption: Encryption) -> Opened:
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    if not host or not path:
        raise UrlUnknown(f"`{url}` names no file", "write https://HOST/PATH")
    if encryption.type:
        raise NotPossible("files on the web have no encryption that can be asked for")
    site = WebSite(url=f"{scheme}://{host}", title=host, sign_in="use an address that needs no log-in")
    return Opened(WebBucket(site), path)
