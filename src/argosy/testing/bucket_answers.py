"""Buckets of the fake server: objects in memory, and as much of S3 as our own commands speak."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from argosy.api.endpoint import Done
from argosy.api.storage import (
    BucketList,
    BucketView,
    StoreKeyList,
    StoreKeyReply,
    StoreKeyView,
    TransferList,
    TransferState,
    TransferView,
)
from argosy.model.errors import ArgosyError

_SPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
MOUNT = "/s3/"


class FakeBuckets:
    def __init__(self) -> None:
        self.held: dict[str, dict[str, bytes]] = {}

    def views(self) -> BucketList:
        rows = [
            BucketView(name=name, objects=len(held), bytes=sum(map(len, held.values())), made_ms=1)
            for name, held in sorted(self.held.items())
        ]
        return BucketList(buckets=tuple(rows), address="http://127.0.0.1:9000")

    def told(self, name: str, path: dict[str, str]) -> object:
        """The reply of an endpoint that asks for nothing but what stands in its path."""
        match name:
            case "buckets":
                return self.views()
            case "remove_bucket":
                self.held.pop(path["bucket"], None)
                return Done()
            case "transfers":
                return TransferList(transfers=(self.transfer("s3://a", "gs://b"),))
            case "transfer":
                return self.transfer("s3://a", "gs://b")
        return self.keys()

    def transfer(self, source: str, target: str) -> TransferView:
        """One that is done."""
        return TransferView(
            id="trf-1",
            source=source,
            target=target,
            state=TransferState.DONE,
            source_place="aws/us-east-1",
            files=2,
            bytes=30_000_000_000,
            egress_micro_usd=2_700_000,
            egress_micro_usd_per_gb=90_000,
            egress_as_of="2026-11-01",
            seconds=100,
            near_egress_micro_usd=600_000,
            near_seconds=240,
            files_done=2,
            bytes_done=30_000_000_000,
        )

    def keys(self) -> StoreKeyList:
        return StoreKeyList(keys=(StoreKeyView(name="ann", id="AR0", made_ms=1),))

    def key(self, name: str) -> StoreKeyReply:
        return StoreKeyReply(id="AR0", secret="shown once", address="http://127.0.0.1:9000")

    def make(self, name: str) -> None:
        if name in self.held:
            raise ArgosyError("conflict", f"the bucket `{name}` exists")
        self.held[name] = {}

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> bytes:
        """A whole reply to a request below `MOUNT`."""
        parts = urlsplit(target)
        bucket, _, key = unquote(parts.path.removeprefix(MOUNT)).partition("/")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        held = self.held.get(bucket)
        if held is None:
            return _reply(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        if "delete" in query:
            for each in re.findall(rb"<Key>(.*?)</Key>", body):
                held.pop(each.decode(), None)
            return _reply(200, b"")
        if not key:
            return _reply(200, self._listing(held, query).encode())
        if method == "PUT":
            source = unquote(headers.get("x-amz-copy-source", "")).strip("/").partition("/")
            held[key] = self.held[source[0]][source[2]] if source[0] else body
            return _reply(200, b"")
        if key not in held:
            return _reply(404, b"<Error><Code>NoSuchKey</Code></Error>", head=method == "HEAD")
        return _reply(200, held[key], head=method == "HEAD")

    def _listing(self, held: dict[str, bytes], query: dict[str, str]) -> str:
        prefix, below = query.get("prefix", ""), query.get("delimiter", "")
        rows, prefixes = "", set()
        for key, data in sorted(held.items()):
            rest = key.removeprefix(prefix)
            if not key.startswith(prefix):
                continue
            if below and below in rest:
                prefixes.add(prefix + rest.partition(below)[0] + below)
                continue
            etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
            rows += (
                f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><ETag>{etag}</ETag>"
                "<LastModified>2026-11-29T20:00:00.000Z</LastModified></Contents>"
            )
        rows += "".join(
            f"<CommonPrefixes><Prefix>{each}</Prefix></CommonPrefixes>" for each in sorted(prefixes)
        )
        return f'<ListBucketResult xmlns="{_SPACE}">{rows}</ListBucketResult>'


def _reply(status: int, body: bytes, *, head: bool = False) -> bytes:
    etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
    lines = f'HTTP/1.1 {status} X\r\netag: "{etag}"\r\ncontent-length: {len(body)}\r\n\r\n'
    return lines.encode() + (b"" if head else body)
