"""Hugging Face's hub, to be read: hf://OWNER/MODEL[@REVISION]/PATH, hf://datasets/OWNER/NAME/PATH.

The hub's own web API; files come from where it redirects to. `hf` in `buckets.yaml`, or HF_ENDPOINT, names
another hub."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from argosy.infra.buckets import Encryption, NotPossible, Opened, StoreSettings, UrlUnknown
from argosy.model.objects import ObjectInfo, ObjectPage
from argosy.storage.web_bucket import WebBucket, WebSite

_KINDS: Final = {"datasets": "datasets", "spaces": "spaces"}
_NEXT: Final = re.compile(r'<([^>]+)>;\s*rel="next"')
_SIGN_IN: Final = "`hf auth login`, or HF_TOKEN in the server's environment"


class _Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`hf` in `buckets.yaml`."""

    endpoint: str = ""


class _Entry(msgspec.Struct, frozen=True):
    """One line of the hub's list of files."""

    type: str
    path: str
    size: int = 0
    oid: str = ""


def open_url(url: str, settings: StoreSettings, encryption: Encryption) -> Opened:
    parts = url.partition("://")[2].split("/")
    kind = parts.pop(0) if parts[0] in _KINDS else "models"
    if len(parts) < 2 or not parts[0] or not parts[1]:
        raise UrlUnknown(f"`{url}` names no repository", "write hf://OWNER/MODEL/PATH, or hf://datasets/...")
    if encryption.type:
        raise NotPossible("the hub has no encryption that can be asked for")
    name, _, revision = parts[1].partition("@")
    repository = f"{parts[0]}/{name}"
    endpoint = settings.section("hf", _Settings).endpoint or settings.environ.get("HF_ENDPOINT", "")
    front = f"{kind}/" if kind in _KINDS else ""
    site = WebSite(
        url=f"hf://{front}{parts[0]}/{parts[1]}",
        title="Hugging Face",
        sign_in=_SIGN_IN,
        base=f"{(endpoint or 'https://huggingface.co').rstrip('/')}/{front}{repository}/resolve/"
        f"{quote(revision or 'main', safe='')}",
        headers=_who(settings),
    )
    listing = f"/api/{kind}/{repository}/tree/{quote(revision or 'main', safe='')}"
    return Opened(HubBucket(site, listing), "/".join(parts[2:]))


def _who(settings: StoreSettings) -> Mapping[str, str]:
    token = settings.environ.get("HF_TOKEN", "")
    if not token:
        try:
            token = (settings.home / ".cache/huggingface/token").read_text(encoding="utf-8").strip()
        except OSError:
            token = ""
    return {"authorization": f"Bearer {token}"} if token else {}


class HubBucket(WebBucket):
    """A repository at one revision."""

    def __init__(self, site: WebSite, listing: str) -> None:
        super().__init__(site)
        self._listing = listing

    def page(self, *, prefix: str = "", delimiter: str = "", after: str = "", most: int = 1000) -> ObjectPage:
        """`after` is the hub's own address of the page that follows."""
        folder = prefix.rpartition("/")[0]
        split = self.site.base.split("/", 3)
        path = f"{self._listing}/{quote(folder)}" if folder else self._listing
        query = f"?limit={min(most, 1000)}" + ("" if delimiter else "&recursive=true")
        reply = self.ask("GET", after or f"{split[0]}//{split[2]}{path}{query}", key="")
        entries = _entries(reply.body)
        objects = tuple(
            ObjectInfo(key=each.path, size=each.size, etag=each.oid, modified_ms=0)
            for each in entries
            if each.type == "file" and each.path.startswith(prefix)
        )
        below = (f"{each.path}/" for each in entries if each.type == "directory")
        prefixes = tuple(each for each in below if delimiter and each.startswith(prefix))
        following = _NEXT.search(reply.headers.get("link", ""))
        return ObjectPage(objects=objects, prefixes=prefixes, after=following[1] if following else "")


def _entries(body: bytes) -> list[_Entry]:
    told: Any = json.loads(body)
    return msgspec.convert(told, list[_Entry])
