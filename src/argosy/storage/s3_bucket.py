"""A bucket of any store that speaks S3 (`infra.buckets.Bucket`).

Small and awkward objects go over our own connections (`s3_wire`), large ones through obstore where it is
installed: several parts at once, in Rust.
"""

from __future__ import annotations

import base64
import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import chain
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from argosy.infra.buckets import (
    BY_ITSELF,
    CUSTOMER,
    PLAIN,
    AccessRefused,
    BucketError,
    BucketMissing,
    ChangedMeanwhile,
    ConditionFailed,
    Damaged,
    Encryption,
    Extra,
    MountKeys,
    ObjectMissing,
    RequestRefused,
    Traits,
)
from argosy.model.objects import ObjectInfo, ObjectPage
from argosy.storage.s3_encryption import asking, check, customer, not_encrypted
from argosy.storage.s3_mounts import Place, s3_mount
from argosy.storage.s3_signing import path_of
from argosy.storage.s3_tokens import Scope, TokenService
from argosy.storage.s3_wire import Wire

PART_BYTES: Final = 16 << 20
_PARTS_MAX: Final = 9_000
_PARALLEL: Final = 6
_COPY_MAX: Final = 5 << 30
S3_TRAITS: Final = Traits(
    signs=True,
    makes_buckets=True,
    mounts=True,
    encryption=("AES256", "aws:kms", "aws:kms:dsse", CUSTOMER),
    md5_etags=True,
)
#: Of a store that takes no wishes about encryption.
BARE_TRAITS: Final = msgspec.structs.replace(S3_TRAITS, encryption=())


class S3Bucket:
    """`encryption`: of what is written, and required of what is read; `tokens`: who gives temporary keys;
    `customer_key`: of `encryption`, when it is the customer's."""

    def __init__(
        self,
        wire: Wire,
        encryption: Encryption = BY_ITSELF,
        traits: Traits = S3_TRAITS,
        tokens: TokenService | None = None,
        customer_key: bytes = b"",
    ) -> None:
        self._wire, self._encryption, self._tokens, self._key = wire, encryption, tokens, customer_key
        changes: dict[str, Any] = {"md5_etags": False} if encryption.type not in ("", "AES256") else {}
        if customer_key:  # who has an address would need the key, too
            changes |= {"signs": False, "mounts": False}
        else:
            changes["put_headers"] = self._encrypting()
        self._traits = msgspec.structs.replace(traits, **changes)

    @property
    def url(self) -> str:
        return self._wire.url

    @property
    def region(self) -> str:
        return self._wire.region

    @property
    def traits(self) -> Traits:
        return self._traits

    # -- listing --------------------------------------------------------------------------------------------

    def page(self, *, prefix: str = "", delimiter: str = "", after: str = "", most: int = 1000) -> ObjectPage:
        query = [("list-type", "2"), ("max-keys", str(most)), ("encoding-type", "url")]
        query += [("prefix", prefix)] if prefix else []
        query += [("delimiter", delimiter)] if delimiter else []
        query += [("continuation-token", after)] if after else []
        root = _tree(self._wire.ask("GET", "", query).body)
        encoded = _of(root, "EncodingType") == "url"
        objects, prefixes, following = [], [], ""
        for each in root:
            match _name(each):
                case "Contents":
                    objects.append(_listed(each, encoded=encoded))
                case "CommonPrefixes":
                    prefixes.append(_text(_of(each, "Prefix"), encoded=encoded))
                case "NextContinuationToken":
                    following = each.text or ""
        return ObjectPage(objects=tuple(objects), prefixes=tuple(prefixes), after=following)

    def head(self, key: str) -> ObjectInfo:
        try:
            reply = self._wire.ask("HEAD", key, (), customer(self._key))
        except ObjectMissing:
            self._wire.ask("HEAD")  # says when it is the bucket that is missing
            raise
        except RequestRefused as error:
            raise self._refused(key, error) from None
        self._check(key, reply.headers)
        return _info(key, reply.headers)

    def _check(self, key: str, headers: Mapping[str, str]) -> None:
        check(f"{self.url}/{key}", self._encryption, self._key, headers)

    def _refused(self, key: str, error: RequestRefused) -> BucketError:
        """What is read with a key of the customer and has none, or the other way round, S3 calls a request
        that is wrong."""
        if self._key:
            return not_encrypted(
                f"{self.url}/{key}", self._encryption, "another key, or none of the customer"
            )
        if "ncryption" in error.what:
            return RequestRefused(
                f"{self.url}/{key} is encrypted with a key of the customer",
                "name it: `encryption: {type: customer, key_id: NAME}`",
            )
        return error

    # -- bytes ----------------------------------------------------------------------------------------------

    def _encrypting(self) -> dict[str, str]:
        return asking(self._encryption, self._key)

    def read(self, key: str, *, first: int = 0, count: int = -1, etag: str = "") -> Iterator[bytes]:
        if count == 0:
            return
        headers = customer(self._key) | ({"if-match": f'"{etag}"'} if etag else {})
        if first or count >= 0:
            headers["range"] = f"bytes={first}-{first + count - 1 if count >= 0 else ''}"
        try:
            with self._wire.stream("GET", key, (), headers) as (_, told, pieces):
                self._check(key, told)
                wanted, got = int(told.get("content-length", "-1")), 0
                for piece in pieces:
                    got += len(piece)
                    yield piece
        except ConditionFailed:
            raise ChangedMeanwhile(
                f"{self.url}/{key} was replaced while it was read", "read it again from its beginning"
            ) from None
        except RequestRefused as error:
            raise self._refused(key, error) from None
        if wanted >= 0 and got != wanted:
            raise Damaged(f"{self.url}/{key} ended after {got} of {wanted} bytes", "read it again")

    def write(self, key: str, data: Iterable[bytes], extra: Extra = PLAIN) -> ObjectInfo:
        part_bytes = max(PART_BYTES, -(-extra.size // _PARTS_MAX))
        blocks = _blocks(data, part_bytes)
        first = next(blocks, b"")
        second = next(blocks, None)
        headers = dict(extra.headers) | self._encrypting()
        if second is None:
            return self._put(key, first, headers | _conditions(extra))
        return self._put_parts(key, chain((first, second), blocks), headers, extra)

    def _put(self, key: str, body: bytes, headers: Mapping[str, str]) -> ObjectInfo:
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        sent = {**headers, "content-md5": base64.b64encode(digest).decode()}
        reply = self._wire.ask("PUT", key, (), sent, body)
        etag = reply.headers.get("etag", "").strip('"')
        return ObjectInfo(
            key=key, size=len(body), etag=etag, modified_ms=_date_ms(reply.headers.get("date", ""))
        )

    def _put_parts(
        self, key: str, blocks: Iterable[bytes], headers: Mapping[str, str], extra: Extra
    ) -> ObjectInfo:
        reply = self._wire.ask("POST", key, [("uploads", "")], headers)
        upload = ("uploadId", _of(_tree(reply.body), "UploadId"))
        sizes: list[int] = []

        def part(number: int, body: bytes) -> str:
            digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
            query = [("partNumber", str(number)), upload]
            sent = {"content-md5": digest, **customer(self._key)}
            return self._wire.ask("PUT", key, query, sent, body).headers.get("etag", "")

        try:
            with ThreadPoolExecutor(_PARALLEL) as pool:
                under_way: list[Future[str]] = []
                for number, body in enumerate(blocks, 1):
                    if number > _PARALLEL:
                        under_way[number - _PARALLEL - 1].result()  # at most so many parts are in memory
                    sizes.append(len(body))
                    under_way.append(pool.submit(part, number, body))
                etags = [each.result() for each in under_way]
            rows = "".join(
                f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
                for number, etag in enumerate(etags, 1)
            )
            body = f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()
            done = self._wire.ask("POST", key, [upload], _conditions(extra), body)
            root = _tree(done.body)
            if _name(root) == "Error":  # a completion may fail after its 200 was sent
                raise self._wire.refused(409, _of(root, "Code"), _of(root, "Message"), key)
        except BaseException:
            self._wire.ask("DELETE", key, [upload])
            raise
        etag = _of(root, "ETag").strip('"')
        date = done.headers.get("date", "")
        return ObjectInfo(key=key, size=sum(sizes), etag=etag, modified_ms=_date_ms(date))

    def remove(self, keys: Sequence[str]) -> None:
        if len(keys) == 1:
            try:
                self._wire.ask("DELETE", keys[0])
            except ObjectMissing:
                pass
            return
        for at in range(0, len(keys), 1000):
            root = ET.Element("Delete")
            ET.SubElement(root, "Quiet").text = "true"
            for key in keys[at : at + 1000]:
                ET.SubElement(ET.SubElement(root, "Object"), "Key").text = key
            body = ET.tostring(root)
            digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
            told = _tree(self._wire.ask("POST", "", [("delete", "")], {"content-md5": digest}, body).body)
            for each in told:
                if _name(each) == "Error":
                    raise self._wire.refused(403, _of(each, "Code"), _of(each, "Message"), _of(each, "Key"))

    def copy(self, source: str, target: str) -> None:
        info = self.head(source)
        name = f"/{self._wire.bucket}/{path_of(source)}"
        if info.size <= _COPY_MAX:
            wish = self._encrypting() | customer(self._key, of_source=True)
            told = _tree(self._wire.ask("PUT", target, (), {"x-amz-copy-source": name} | wish).body)
            if _name(told) == "Error":
                raise self._wire.refused(409, _of(told, "Code"), _of(told, "Message"), source)
            return
        self.write(target, self.read(source, etag=info.etag), Extra(size=info.size))

    def sign(self, key: str, method: str, seconds: int) -> str | None:
        if self._key:
            return None
        return self._wire.sign(key, method, seconds, self._encrypting() if method == "PUT" else {})

    # -- the bucket -----------------------------------------------------------------------------------------

    def mount_keys(self, key: str, *, writes: bool) -> MountKeys:
        """Keys for what lies below `key` alone where the store gives them; else the server's own."""
        wire, keys = self._wire, self._wire.keys_of()
        at = Place(wire.endpoint, wire.region, wire.bucket, key, wire.site.virtual_host)
        if keys is None:
            return s3_mount(at, None, self._encryption, scoped=True)
        why = f"{wire.site.title} gives no temporary keys"
        if self._tokens is not None:
            scope = Scope(wire.bucket, f"{key.rstrip('/')}/" if key else "", writes)
            try:
                return s3_mount(at, self._tokens.issue(keys, scope), self._encryption, scoped=True)
            except (AccessRefused, RequestRefused) as error:
                if self._tokens.is_wanted:
                    raise
                why = error.what
        return s3_mount(at, keys, self._encryption, why=why)

    def make(self) -> None:
        body = b""
        if self._wire.region not in ("us-east-1", "auto", ""):
            place = f"<LocationConstraint>{self._wire.region}</LocationConstraint>"
            body = f"<CreateBucketConfiguration>{place}</CreateBucketConfiguration>".encode()
        try:
            self._wire.ask("HEAD")
        except BucketMissing:
            self._wire.ask("PUT", "", (), None, body)

    def drop(self) -> None:
        try:
            self._wire.ask("DELETE")
        except BucketMissing:
            pass

    def close(self) -> None:
        self._wire.close()


def _blocks(data: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in blocks of `size`; the last may be smaller."""
    held: list[bytes] = []
    count = 0
    for piece in data:
        view = memoryview(piece)
        while len(view):
            take = view[: size - count]
            held.append(bytes(take))
            count += len(take)
            view = view[len(take) :]
            if count == size:
                yield b"".join(held)
                held, count = [], 0
    if held:
        yield b"".join(held)


def _conditions(extra: Extra) -> dict[str, str]:
    if extra.conditions.if_absent:
        return {"if-none-match": "*"}
    return {"if-match": f'"{extra.conditions.if_match}"'} if extra.conditions.if_match else {}


def _tree(text: bytes) -> ET.Element:
    """An answer of a store; definitions, which could grow without end, are not read."""
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text or not text.strip():
        return ET.Element("nothing")
    return ET.fromstring(text)  # noqa: S314  see above


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _of(element: ET.Element, name: str) -> str:
    return next((each.text or "" for each in element if _name(each) == name), "")


def _text(text: str, *, encoded: bool) -> str:
    return unquote(text.replace("+", "%20")) if encoded else text


def _listed(element: ET.Element, *, encoded: bool) -> ObjectInfo:
    told = {_name(each): each.text or "" for each in element}
    modified = datetime.fromisoformat(told.get("LastModified", "1970-01-01T00:00:00Z"))
    return ObjectInfo(
        key=_text(told.get("Key", ""), encoded=encoded),
        size=int(told.get("Size", "0")),
        etag=told.get("ETag", "").strip('"'),
        modified_ms=int(modified.replace(tzinfo=modified.tzinfo or UTC).timestamp() * 1000),
    )


def _info(key: str, headers: Mapping[str, str]) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        size=int(headers.get("content-length", "0")),
        etag=headers.get("etag", "").strip('"'),
        modified_ms=_date_ms(headers.get("last-modified", "")),
    )


def _date_ms(text: str) -> int:
    try:
        return int(parsedate_to_datetime(text).timestamp() * 1000) if text else 0
    except ValueError:
        return 0
