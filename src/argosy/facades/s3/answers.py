"""Answers of S3 as XML, and its errors."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import quote
from xml.sax.saxutils import escape

from argosy.model.errors import ArgosyError
from argosy.model.objects import ObjectInfo, ObjectPage, ObjectPart, ObjectProblem, Upload

_SPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
_OWNER: Final = "<ID>argosy</ID><DisplayName>argosy</DisplayName>"
#: Statuses of errors; 400 where nothing stands.
STATUS: Final[Mapping[str, int]] = {
    "AccessDenied": 403, "InvalidAccessKeyId": 403, "SignatureDoesNotMatch": 403, "RequestTimeTooSkewed": 403,
    "NoSuchBucket": 404, "NoSuchKey": 404, "NoSuchUpload": 404, "NoSuchBucketPolicy": 404,
    "NoSuchLifecycleConfiguration": 404, "NoSuchCORSConfiguration": 404, "NoSuchTagSet": 404,
    "ObjectLockConfigurationNotFoundError": 404, "ReplicationConfigurationNotFoundError": 404,
    "ServerSideEncryptionConfigurationNotFoundError": 404, "NoSuchWebsiteConfiguration": 404,
    "NoSuchPublicAccessBlockConfiguration": 404, "OwnershipControlsNotFoundError": 404,
    "MethodNotAllowed": 405, "BucketAlreadyOwnedByYou": 409, "BucketNotEmpty": 409, "PreconditionFailed": 412,
    "MissingContentLength": 411, "InvalidRange": 416, "NotImplemented": 501, "InternalError": 500,
    "SlowDown": 503, "InsufficientStorage": 507,
}  # fmt: skip


def error(problem: ObjectProblem, resource: str) -> tuple[int, bytes]:
    """Status and body."""
    told = _tag("Code", problem.code) + _tag("Message", str(problem)) + _tag("Resource", resource)
    return STATUS.get(problem.code, 400), _document(f"<Error>{told}</Error>")


#: Our codes in S3's words.
_CODES: Final[Mapping[str, str]] = {
    "disk-full": "InsufficientStorage", "not-found": "NoSuchKey", "forbidden": "AccessDenied",
    "conflict": "PreconditionFailed", "unsupported": "NotImplemented", "usage": "InvalidRequest",
    "transient": "SlowDown",
}  # fmt: skip


def refusal(error: ArgosyError, resource: str) -> tuple[int, bytes]:
    """Status and body of an error of ours: S3's code, and beside it ours with what mends it."""
    code = _CODES.get(error.code, "InternalError")
    told = _tag("Code", code) + _tag("Message", error.what) + _tag("Resource", resource)
    told += _tag("ArgosyCode", error.code) + _tag("Hint", error.hint)
    return STATUS.get(code, 400), _document(f"<Error>{told}</Error>")


def buckets(found: Iterable[tuple[str, int]]) -> bytes:
    rows = "".join(
        f"<Bucket>{_tag('Name', name)}{_tag('CreationDate', stamp(at))}</Bucket>" for name, at in found
    )
    return _result("ListAllMyBucketsResult", f"<Owner>{_OWNER}</Owner><Buckets>{rows}</Buckets>")


def page(bucket: str, query: Mapping[str, str], found: ObjectPage, most: int) -> bytes:
    """ListObjectsV2, or the older form when `list-type` is not 2."""
    second = query.get("list-type") == "2"
    encodes = query.get("encoding-type") == "url"

    def name(text: str) -> str:
        return quote(text, safe="/-_.~*") if encodes else text

    delimiter = query.get("delimiter", "")
    rows = [
        _tag("Name", bucket),
        _tag("Prefix", name(query.get("prefix", ""))),
        _tag("MaxKeys", str(most)),
        _tag("Delimiter", name(delimiter)) if delimiter else "",
        _tag("EncodingType", "url") if encodes else "",
        _tag("IsTruncated", "true" if found.after else "false"),
    ]
    if second:
        rows.append(_tag("KeyCount", str(len(found.objects) + len(found.prefixes))))
        rows += [_tag(each, name(query[key])) for key, each in _ECHOED if key in query]
        rows.append(_tag("NextContinuationToken", token_of(found.after)) if found.after else "")
    else:
        rows.append(_tag("Marker", name(query.get("marker", ""))))
        rows.append(_tag("NextMarker", name(found.after)) if found.after and delimiter else "")
    owner = f"<Owner>{_OWNER}</Owner>" if not second or query.get("fetch-owner") == "true" else ""
    rows += [
        f"<Contents>{_tag('Key', name(each.key))}{_facts(each)}{owner}</Contents>" for each in found.objects
    ]
    rows += [f"<CommonPrefixes>{_tag('Prefix', name(each))}</CommonPrefixes>" for each in found.prefixes]
    return _result("ListBucketResult", "".join(rows))


_ECHOED: Final = (("start-after", "StartAfter"), ("continuation-token", "ContinuationToken"))


def token_of(after: str) -> str:
    """A continuation token: where the next page begins, in letters that every client keeps.

    >>> after_of(token_of("a/é"))
    'a/é'
    """
    return after.encode().hex()


def after_of(token: str) -> str:
    """Raises ObjectProblem for what is no token of ours."""
    try:
        return bytes.fromhex(token).decode()
    except ValueError:
        raise ObjectProblem("InvalidArgument", "the continuation token is not one of this server") from None


def _facts(info: ObjectInfo) -> str:
    return (
        _tag("LastModified", stamp(info.modified_ms))
        + _tag("ETag", f'"{info.etag}"')
        + _tag("Size", str(info.size))
        + _tag("StorageClass", "STANDARD")
    )


def copied(info: ObjectInfo | ObjectPart, root: str) -> bytes:
    """CopyObjectResult or CopyPartResult."""
    return _result(root, _tag("LastModified", stamp(info.modified_ms)) + _tag("ETag", f'"{info.etag}"'))


def begun(bucket: str, key: str, upload_id: str) -> bytes:
    rows = _tag("Bucket", bucket) + _tag("Key", key) + _tag("UploadId", upload_id)
    return _result("InitiateMultipartUploadResult", rows)


def completed(bucket: str, key: str, info: ObjectInfo) -> bytes:
    rows = _tag("Location", f"/{bucket}/{quote(key)}") + _tag("Bucket", bucket) + _tag("Key", key)
    return _result("CompleteMultipartUploadResult", rows + _tag("ETag", f'"{info.etag}"'))


def parts(bucket: str, key: str, upload_id: str, found: Sequence[ObjectPart]) -> bytes:
    rows = "".join(
        f"<Part>{_tag('PartNumber', str(each.number))}{_tag('LastModified', stamp(each.modified_ms))}"
        f"{_tag('ETag', chr(34) + each.etag + chr(34))}{_tag('Size', str(each.size))}</Part>"
        for each in found
    )
    head = _tag("Bucket", bucket) + _tag("Key", key) + _tag("UploadId", upload_id)
    return _result("ListPartsResult", f"{head}<IsTruncated>false</IsTruncated>{rows}")


def uploads(bucket: str, found: Sequence[Upload]) -> bytes:
    rows = "".join(
        f"<Upload>{_tag('Key', each.key)}{_tag('UploadId', each.id)}"
        f"{_tag('Initiated', stamp(each.begun_ms))}</Upload>"
        for each in found
    )
    return _result(
        "ListMultipartUploadsResult", f"{_tag('Bucket', bucket)}<IsTruncated>false</IsTruncated>{rows}"
    )


def deleted(keys: Sequence[str], *, quiet: bool) -> bytes:
    rows = "" if quiet else "".join(f"<Deleted>{_tag('Key', key)}</Deleted>" for key in keys)
    return _result("DeleteResult", rows)


def location() -> bytes:
    return _document(f'<LocationConstraint xmlns="{_SPACE}"/>')


def empty(root: str, inner: str = "") -> bytes:
    """A part of S3 that is not used here, as it answers then."""
    return _result(root, inner)


def access() -> bytes:
    grant = (
        '<Grant><Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser">'
        f"{_OWNER}</Grantee><Permission>FULL_CONTROL</Permission></Grant>"
    )
    return _result(
        "AccessControlPolicy", f"<Owner>{_OWNER}</Owner><AccessControlList>{grant}</AccessControlList>"
    )


def stamp(ms: int) -> str:
    """
    >>> stamp(1_000)
    '1970-01-01T00:00:01.000Z'
    """
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03d}Z"


def http_date(ms: int) -> str:
    return email.utils.formatdate(ms // 1000, usegmt=True)


def _tag(name: str, text: str) -> str:
    return f"<{name}>{escape(_legal(text))}</{name}>"


def _legal(text: str) -> str:
    """XML 1.0 has no place for most control characters."""
    return (
        "".join(c if c >= " " or c in "\t\n\r" else "\ufffd" for c in text)
        if not text.isprintable()
        else text
    )


def _result(root: str, inner: str) -> bytes:
    return _document(f'<{root} xmlns="{_SPACE}">{inner}</{root}>')


def _document(body: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'.encode()
