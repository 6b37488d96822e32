"""What each call of S3 does: from a request that was let in to a response."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import unquote

import msgspec

from argosy.facades.s3 import answers
from argosy.facades.s3.bodies import Body
from argosy.facades.s3.ports import Holder, Objects
from argosy.facades.s3.signatures import Signed
from argosy.model.objects import PARTS_MAX, Conditions, Files, ObjectHead, ObjectProblem, Written

_XML_MAX: Final = 4 << 20
_PAGE_MAX: Final = 1000
_LARGE: Final = 2 << 20  # of what is read: from here on the kernel sends it where it can
_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")
_KEPT: Final = (
    "content-type",
    "content-encoding",
    "content-disposition",
    "content-language",
    "cache-control",
    "expires",
)
_OWN: Final = ("x-amz-meta-", "x-amz-server-side-encryption")
_SHOWN: Final = {f"response-{name}": name for name in _KEPT}
#: Parts of S3 that nobody has set here, and what they answer then: an error, or a document.
_UNSET: Final[Mapping[str, str]] = {
    "policy": "NoSuchBucketPolicy",
    "lifecycle": "NoSuchLifecycleConfiguration",
    "cors": "NoSuchCORSConfiguration",
    "encryption": "ServerSideEncryptionConfigurationNotFoundError",
    "website": "NoSuchWebsiteConfiguration",
    "object-lock": "ObjectLockConfigurationNotFoundError",
    "replication": "ReplicationConfigurationNotFoundError",
    "publicAccessBlock": "NoSuchPublicAccessBlockConfiguration",
    "ownershipControls": "OwnershipControlsNotFoundError",
}
_EMPTY: Final[Mapping[str, tuple[str, str]]] = {
    "versioning": ("VersioningConfiguration", ""), "logging": ("BucketLoggingStatus", ""),
    "notification": ("NotificationConfiguration", ""), "tagging": ("Tagging", "<TagSet/>"),
    "requestPayment": ("RequestPaymentConfiguration", "<Payer>BucketOwner</Payer>"),
    "accelerate": ("AccelerateConfiguration", ""),
}  # fmt: skip


@dataclass
class Response:
    status: int
    body: bytes | AsyncIterator[bytes] | Files = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One request that was let in."""

    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    signed: Signed | None
    holder: Holder
    received: AsyncIterator[bytes]
    takes_files: bool = False  # whether the answer may be parts of files

    @property
    def may_have_body(self) -> bool:
        return self.headers.get("content-length", "0") != "0" or "transfer-encoding" in self.headers


class Calls:
    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def answer(self, call: Call) -> Response:
        """Raises ObjectProblem."""
        if not call.bucket:
            return await self._of_account(call)
        if not call.key:
            return await self._of_bucket(call)
        if "uploadId" in call.query or "uploads" in call.query:
            return await self._of_upload(call)
        return await self._of_object(call)

    async def _of_account(self, call: Call) -> Response:
        if call.method not in ("GET", "HEAD"):
            raise ObjectProblem("MethodNotAllowed", f"{call.method} is not for all buckets")
        found = await self._objects.buckets()
        mine = [each for each in found if call.holder.bucket in ("", each[0])]
        return Response(200, answers.buckets(mine))

    # -- buckets --------------------------------------------------------------------------------------------

    async def _of_bucket(self, call: Call) -> Response:
        for name in call.query.keys() & (_UNSET.keys() | _EMPTY.keys() | {"acl"}):
            return await self._setting(call, name)
        match call.method:
            case "PUT":
                await _text(call)
                await self._objects.make_bucket(call.bucket)
                return Response(200, headers={"location": f"/{call.bucket}"})
            case "DELETE":
                await self._objects.remove_bucket(call.bucket)
                return Response(204)
            case "HEAD":
                await self._need(call.bucket)
                return Response(200, headers={"x-amz-bucket-region": "us-east-1"})
            case "POST" if "delete" in call.query:
                return await self._remove_many(call)
            case "GET":
                return await self._list(call)
        raise ObjectProblem("MethodNotAllowed", f"{call.method} is not for a bucket")

    async def _need(self, bucket: str) -> None:
        if not await self._objects.has_bucket(bucket):
            raise ObjectProblem("NoSuchBucket", f"there is no bucket `{bucket}`")

    async def _setting(self, call: Call, name: str) -> Response:
        """A part of S3 that this server does not have."""
        await self._need(call.bucket)
        if call.method not in ("GET", "HEAD"):
            raise ObjectProblem("NotImplemented", f"buckets of this server have no {name}")
        if name == "acl":
            return Response(200, answers.access())
        if name in _UNSET:
            raise ObjectProblem(_UNSET[name], f"the bucket has no {name}")
        return Response(200, answers.empty(*_EMPTY[name]))

    async def _list(self, call: Call) -> Response:
        query = call.query
        if "location" in query:
            await self._need(call.bucket)
            return Response(200, answers.location())
        if "uploads" in query:
            return Response(200, answers.uploads(call.bucket, await self._objects.uploads(call.bucket)))
        if "versions" in query:
            raise ObjectProblem("NotImplemented", "buckets of this server have no versions")
        told = query.get("max-keys", "")
        if told and not told.isdigit():
            raise ObjectProblem("InvalidArgument", f"max-keys is a number, not `{told}`")
        most = min(int(told or _PAGE_MAX), _PAGE_MAX)
        if query.get("list-type") == "2":
            token = query.get("continuation-token", "")
            after = answers.after_of(token) if token else query.get("start-after", "")
        else:
            after = query.get("marker", "")
        found = await self._objects.page(
            call.bucket,
            prefix=query.get("prefix", ""),
            delimiter=query.get("delimiter", ""),
            after=after,
            most=most,
        )
        return Response(200, answers.page(call.bucket, query, found, most))

    async def _remove_many(self, call: Call) -> Response:
        root = await _document(call)
        keys = [each.text or "" for each in root.iter() if each.tag.rpartition("}")[2] == "Key"]
        if len(keys) > _PAGE_MAX:
            raise ObjectProblem("MalformedXML", "at most 1000 objects are deleted at once")
        _check_below(call, *keys)
        quiet = any(each.tag.rpartition("}")[2] == "Quiet" and each.text == "true" for each in root.iter())
        await self._objects.remove(call.bucket, keys)
        return Response(200, answers.deleted(keys, quiet=quiet))

    # -- objects --------------------------------------------------------------------------------------------

    async def _of_object(self, call: Call) -> Response:
        if call.query.keys() & {"acl", "tagging", "retention", "legal-hold", "attributes", "torrent"}:
            return await self._object_setting(call)
        match call.method:
            case "GET" | "HEAD":
                return await self._read(call)
            case "PUT" if "x-amz-copy-source" in call.headers:
                return await self._copy(call)
            case "PUT":
                written, body = await self._write(call)
                headers = _kept(call.headers) | body.checksums
                info = await self._objects.put(call.bucket, call.key, written, headers, _conditions(call))
                return Response(200, headers={"etag": f'"{info.etag}"', **body.checksums})
            case "DELETE":
                await self._objects.remove(call.bucket, [call.key])
                return Response(204)
        raise ObjectProblem("MethodNotAllowed", f"{call.method} is not for an object")

    async def _object_setting(self, call: Call) -> Response:
        await self._objects.head(call.bucket, call.key)
        if call.method == "GET" and "acl" in call.query:
            return Response(200, answers.access())
        if call.method == "GET" and "tagging" in call.query:
            return Response(200, answers.empty("Tagging", "<TagSet/>"))
        raise ObjectProblem("NotImplemented", "objects of this server have no such settings")

    async def _write(self, call: Call) -> tuple[Written, Body]:
        if not call.may_have_body and "content-length" not in call.headers:
            raise ObjectProblem("MissingContentLength", "the request says no Content-Length")
        body = Body(call.headers, call.signed)
        written = await self._objects.write(body.pieces(call.received))
        if body.is_small:
            if written.extents:  # the store keeps nothing in memory
                raise ObjectProblem("InternalError", "a small body was not held")
            written = msgspec.structs.replace(written, check=body.check_held)
        return written, body

    async def _read(self, call: Call) -> Response:
        head = await self._objects.head(call.bucket, call.key)
        if (unchanged := _unchanged(call.headers, head)) is not None:
            return unchanged
        headers = {
            **head.headers,
            "etag": f'"{head.info.etag}"',
            "last-modified": answers.http_date(head.info.modified_ms),
            "accept-ranges": "bytes",
        }
        headers.setdefault("content-type", "binary/octet-stream")
        if call.headers.get("x-amz-checksum-mode", "").upper() != "ENABLED":
            headers = {name: value for name, value in headers.items() if "x-amz-checksum" not in name}
        headers |= {_SHOWN[name]: value for name, value in call.query.items() if name in _SHOWN}
        first, count, status = 0, head.info.size, 200
        asked = _RANGE.fullmatch(call.headers.get("range", ""))
        if asked is not None and asked[0] != "bytes=-":
            first, count = _range(asked[1], asked[2], head.info.size)
            headers["content-range"] = f"bytes {first}-{first + count - 1}/{head.info.size}"
            headers = {name: value for name, value in headers.items() if "x-amz-checksum" not in name}
            status = 206
        headers["content-length"] = str(count)
        if call.method == "HEAD" or not count:
            return Response(status, b"", headers)
        files = self._objects.files(head, first, count) if call.takes_files and count >= _LARGE else None
        return Response(status, files or self._objects.read(head, first, count), headers)

    async def _source(self, call: Call) -> tuple[ObjectHead, int, int]:
        """The object that is copied, and which of its bytes."""
        source = call.headers["x-amz-copy-source"].removeprefix("/").partition("?versionId=")[0]
        bucket, _, key = (unquote(part) for part in source.replace("%2f", "%2F").partition("/"))
        if not key and "/" in bucket and "://" not in bucket:
            bucket, _, key = bucket.partition("/")  # all of it was encoded
        if call.holder.bucket not in ("", bucket):
            raise ObjectProblem("AccessDenied", f"the key is for the bucket `{call.holder.bucket}` alone")
        _check_below(call, key)
        head = await self._objects.head(bucket, key)
        prefix = "x-amz-copy-source-if-"
        asked = {
            f"if-{name[len(prefix) :]}": each
            for name, each in call.headers.items()
            if name.startswith(prefix)
        }
        if asked and _unchanged(asked, head) is not None:
            raise ObjectProblem("PreconditionFailed", "the source has changed")
        found = _RANGE.fullmatch(call.headers.get("x-amz-copy-source-range", ""))
        first, count = (
            _range(found[1], found[2], head.info.size) if found is not None else (0, head.info.size)
        )
        return head, first, count

    async def _copy(self, call: Call) -> Response:
        head, _, _ = await self._source(call)
        replaces = call.headers.get("x-amz-metadata-directive", "COPY").upper() == "REPLACE"
        headers = _kept(call.headers) if replaces else head.headers
        info = await self._objects.copy(head, call.bucket, call.key, headers, _conditions(call))
        return Response(200, answers.copied(info, "CopyObjectResult"))

    # -- uploads in parts -----------------------------------------------------------------------------------

    async def _of_upload(self, call: Call) -> Response:
        bucket, key, upload_id = call.bucket, call.key, call.query.get("uploadId", "")
        match call.method:
            case "POST" if "uploads" in call.query:
                upload_id = await self._objects.begin_upload(bucket, key, _kept(call.headers))
                return Response(200, answers.begun(bucket, key, upload_id))
            case "PUT":
                return await self._put_part(call, upload_id)
            case "GET":
                found = await self._objects.parts(bucket, key, upload_id)
                return Response(200, answers.parts(bucket, key, upload_id, found))
            case "DELETE":
                await self._objects.abort(bucket, key, upload_id)
                return Response(204)
            case "POST":
                wanted = _wanted(await _document(call))
                info = await self._objects.complete(bucket, key, upload_id, wanted, _conditions(call))
                return Response(200, answers.completed(bucket, key, info))
        raise ObjectProblem("MethodNotAllowed", f"{call.method} is not for an upload")

    async def _put_part(self, call: Call, upload_id: str) -> Response:
        number = call.query.get("partNumber", "")
        if not number.isdigit() or not 1 <= int(number) <= PARTS_MAX:
            raise ObjectProblem("InvalidArgument", f"parts are numbered from 1 to {PARTS_MAX}")
        where = (call.bucket, call.key, upload_id, int(number))
        if "x-amz-copy-source" in call.headers:
            head, first, count = await self._source(call)
            copied = await self._objects.write(self._objects.read(head, first, count))
            return Response(
                200, answers.copied(await self._objects.put_part(*where, copied), "CopyPartResult")
            )
        written, body = await self._write(call)
        part = await self._objects.put_part(*where, written)
        return Response(200, headers={"etag": f'"{part.etag}"', **body.checksums})


def _check_below(call: Call, *keys: str) -> None:
    if not all(key.startswith(call.holder.prefix) for key in keys):
        raise ObjectProblem("AccessDenied", f"the key is for what lies below `{call.holder.prefix}` alone")


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers of a request that come back with the object."""
    kept = {name: headers[name] for name in _KEPT if name in headers}
    coding = [each.strip() for each in kept.pop("content-encoding", "").split(",")]
    coding = [each for each in coding if each and each != "aws-chunked"]
    if coding:
        kept["content-encoding"] = ",".join(coding)
    return kept | {name: value for name, value in headers.items() if name.startswith(_OWN)}


def _conditions(call: Call) -> Conditions:
    absent = call.headers.get("if-none-match", "")
    if absent not in ("", "*"):
        raise ObjectProblem("NotImplemented", "a write knows `If-None-Match: *` alone")
    return Conditions(if_match=call.headers.get("if-match", "").strip('"'), if_absent=absent == "*")


def _unchanged(asked: Mapping[str, str], head: ObjectHead) -> Response | None:
    """304, when the client has it already. Raises `PreconditionFailed`."""
    etag = f'"{head.info.etag}"'
    shown = {"etag": etag, "last-modified": answers.http_date(head.info.modified_ms)}
    same = asked.get("if-match")
    if same is not None and same not in (etag, head.info.etag, "*"):
        raise ObjectProblem("PreconditionFailed", "the object has another ETag")
    modified_ms = head.info.modified_ms // 1000 * 1000
    since = _ms(asked.get("if-unmodified-since", ""))
    if same is None and since is not None and modified_ms > since:
        raise ObjectProblem("PreconditionFailed", "the object was changed since")
    other = asked.get("if-none-match")
    if other is not None:
        known = {each.strip().strip('"') for each in other.split(",")}
        return Response(304, b"", shown) if head.info.etag in known or "*" in known else None
    since = _ms(asked.get("if-modified-since", ""))
    if since is not None and modified_ms <= since:
        return Response(304, b"", shown)
    return None


def _ms(date: str) -> int | None:
    try:
        return int(parsedate_to_datetime(date).timestamp() * 1000) if date else None
    except (TypeError, ValueError):
        return None


def _range(first: str, last: str, size: int) -> tuple[int, int]:
    """First byte and count.

    >>> _range("2", "", 10), _range("", "3", 10), _range("0", "99", 10)
    ((2, 8), (7, 3), (0, 10))
    """
    if not first:
        count = min(int(last), size)
        if not count:
            raise ObjectProblem("InvalidRange", "the range holds nothing")
        return size - count, count
    if int(first) >= size or (last and int(last) < int(first)):
        raise ObjectProblem("InvalidRange", f"the object has {size} bytes")
    end = min(int(last), size - 1) if last else size - 1
    return int(first), end - int(first) + 1


async def _text(call: Call) -> bytes:
    found, body = b"", Body(call.headers, call.signed)
    async for piece in body.pieces(call.received):
        found += piece
        if len(found) > _XML_MAX:
            raise ObjectProblem("MalformedXML", "the request's document is too large")
    if body.is_small:
        body.check_held([found])
    return found


async def _document(call: Call) -> ET.Element:
    text = await _text(call)
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise ObjectProblem("MalformedXML", "documents with definitions are not read")
    try:
        return ET.fromstring(text)  # noqa: S314  no definitions, so nothing that grows
    except ET.ParseError:
        raise ObjectProblem("MalformedXML", "the request's document is not XML") from None


def _wanted(root: ET.Element) -> list[tuple[int, str]]:
    wanted = []
    for part in root:
        told = {each.tag.rpartition("}")[2]: (each.text or "").strip() for each in part}
        if not told.get("PartNumber", "").isdigit():
            raise ObjectProblem("MalformedXML", "every part has a number")
        wanted.append((int(told["PartNumber"]), told.get("ETag", "").strip('"')))
    return wanted
