"""The embedded store through boto3: what clients of S3 expect, and what they are refused."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("boto3", reason="boto3 is not installed")

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from argosy.facades.s3 import crc
from argosy.facades.s3.bodies import Body
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.objects import Written
from argosy.server import raw_bodies
from argosy.storage.shelf_folder import ShelfFolder
from argosy.testing.s3_site import Site

MIB = 1 << 20


def client_of(site: Site, key: tuple[str, str] | None = None, **config: Any) -> Any:
    key_id, secret = key or site.key
    return boto3.client(
        "s3",
        endpoint_url=site.address,
        region_name="us-east-1",
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        config=Config(retries={"max_attempts": 1}, **config),
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("shelf"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def s3(site: Site) -> Any:
    client = client_of(site)
    client.create_bucket(Bucket="lab")
    return client


def code_of(error: pytest.ExceptionInfo[Any]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_an_object_comes_back_as_it_was_put(s3: Any) -> None:
    body = b"x" * 100_000
    put = s3.put_object(
        Bucket="lab", Key="a/ü b+c.bin", Body=body, ContentType="text/plain", Metadata={"who": "me"}
    )
    assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    got = s3.get_object(Bucket="lab", Key="a/ü b+c.bin")
    assert got["Body"].read() == body
    assert (got["ContentType"], got["Metadata"]) == ("text/plain", {"who": "me"})
    assert s3.head_object(Bucket="lab", Key="a/ü b+c.bin")["ContentLength"] == len(body)
    some = s3.get_object(Bucket="lab", Key="a/ü b+c.bin", Range="bytes=-10")
    assert (some["ContentRange"], some["Body"].read()) == ("bytes 99990-99999/100000", b"x" * 10)
    s3.copy_object(Bucket="lab", Key="copy", CopySource={"Bucket": "lab", "Key": "a/ü b+c.bin"})
    assert s3.get_object(Bucket="lab", Key="copy")["Metadata"] == {"who": "me"}
    s3.delete_objects(Bucket="lab", Delete={"Objects": [{"Key": "copy"}, {"Key": "a/ü b+c.bin"}]})
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket="lab", Key="copy")
    assert code_of(error) == "NoSuchKey"


def test_an_md5_that_was_compared_is_not_made_again(tmp_path: Path) -> None:
    """Of a small object it is half of the work."""
    shelf = ShelfFolder(tmp_path, SystemClock(), SystemIds())
    shelf.make_bucket("data")
    for told, etag in (("0" * 32, "0" * 32), ("", "900150983cd24fb0d6963f7d28e17f72")):
        written = Written(extents=(), size=3, md5="", held=(b"a", b"bc"), check=lambda held, told=told: told)
        assert shelf.put("data", "k", written, {}).etag == etag
        assert b"".join(shelf.read(shelf.index.head("data", "k"), 0, 3)) == b"abc"
    body = Body({"content-length": "3", "content-md5": "kAFQmDzST7DWlj99KOF/cg=="}, None)
    assert body.check_held((b"a", b"bc")) == "900150983cd24fb0d6963f7d28e17f72"
    assert Body({"content-length": "3"}, None).check_held((b"abc",)) == ""


def test_listings_by_prefix_page_and_delimiter(s3: Any) -> None:
    keys = ["a", "a/b", "a-b", "a/c/d", "b", "ä", "c/1", "c/2", "c<&>'\""]
    s3.create_bucket(Bucket="listed")
    for key in keys:
        s3.put_object(Bucket="listed", Key=key, Body=b"")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="listed", PaginationConfig={"PageSize": 2})
    assert [each["Key"] for page in pages for each in page["Contents"]] == sorted(keys)
    for size in (1, 2, 1000):
        found = []
        pages = s3.get_paginator("list_objects_v2").paginate(
            Bucket="listed", Delimiter="/", PaginationConfig={"PageSize": size}
        )
        for page in pages:
            found += [each["Key"] for each in page.get("Contents", ())]
            found += [each["Prefix"] for each in page.get("CommonPrefixes", ())]
        assert sorted(found) == sorted(["a", "a-b", "a/", "b", "c/", "c<&>'\"", "ä"])
    below = s3.list_objects_v2(Bucket="listed", Prefix="a/", Delimiter="/")
    assert [each["Key"] for each in below["Contents"]] == ["a/b"]
    assert [each["Prefix"] for each in below["CommonPrefixes"]] == ["a/c/"]
    old = s3.get_paginator("list_objects").paginate(Bucket="listed", PaginationConfig={"PageSize": 3})
    assert [each["Key"] for page in old for each in page["Contents"]] == sorted(keys)


def test_uploads_in_parts(site: Site, s3: Any, tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_bytes(bytes(range(256)) * (6 * MIB // 256) * 3)
    s3.upload_file(str(source), "lab", "big")
    head = s3.head_object(Bucket="lab", Key="big")
    assert head["ContentLength"] == 18 * MIB
    assert head["ETag"].endswith('-3"')
    part = s3.get_object(Bucket="lab", Key="big", Range=f"bytes={8 * MIB - 5}-{8 * MIB + 4}")["Body"].read()
    assert part == source.read_bytes()[8 * MIB - 5 : 8 * MIB + 5]
    upload = s3.create_multipart_upload(Bucket="lab", Key="none")["UploadId"]
    s3.upload_part(Bucket="lab", Key="none", UploadId=upload, PartNumber=1, Body=b"small")
    s3.upload_part(Bucket="lab", Key="none", UploadId=upload, PartNumber=2, Body=b"last")
    listed = s3.list_parts(Bucket="lab", Key="none", UploadId=upload)["Parts"]
    parts = [{"PartNumber": each["PartNumber"], "ETag": each["ETag"]} for each in listed]
    with pytest.raises(ClientError) as error:
        s3.complete_multipart_upload(
            Bucket="lab", Key="none", UploadId=upload, MultipartUpload={"Parts": parts}
        )
    assert code_of(error) == "EntityTooSmall"
    s3.abort_multipart_upload(Bucket="lab", Key="none", UploadId=upload)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="lab")
    s3.delete_object(Bucket="lab", Key="big")
    assert site.ask(site.shelf.usage("lab"))[1] == 0


@pytest.mark.parametrize("by_kernel", [True, False])
def test_large_bodies_are_parts_of_files(site: Site, s3: Any, tmp_path: Path, by_kernel: bool) -> None:
    """One after the other on one connection: sent by the kernel, and as any other body while all of its
    threads are busy."""
    source = tmp_path / "big"
    source.write_bytes(os.urandom(6 * MIB) * 3 + b"end")
    s3.upload_file(str(source), "lab", "parts")
    data = source.read_bytes()
    signs = client_of(site, signature_version="s3v4")
    url = urlsplit(signs.generate_presigned_url("get_object", Params={"Bucket": "lab", "Key": "parts"}))
    taken = [raw_bodies._taken.acquire(blocking=False) for _ in range(0 if by_kernel else 1000)]
    try:
        connection = http.client.HTTPConnection("127.0.0.1", site.port)
        for first, last in ((0, len(data)), (MIB, 15 * MIB), (7, 8 * MIB + 1), (len(data) - 5, len(data))):
            headers = {"range": f"bytes={first}-{last - 1}"}
            connection.request("GET", f"{url.path}?{url.query}", headers=headers)
            answer = connection.getresponse()
            assert answer.status == 206
            assert answer.read() == data[first:last]
        connection.close()
    finally:
        for _ in range(taken.count(True)):
            raw_bodies._taken.release()


def test_writes_with_conditions(s3: Any) -> None:
    s3.put_object(Bucket="lab", Key="once", Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket="lab", Key="once", Body=b"2", IfNoneMatch="*")
    assert code_of(error) == "PreconditionFailed"
    etag = s3.head_object(Bucket="lab", Key="once")["ETag"]
    s3.put_object(Bucket="lab", Key="once", Body=b"3", IfMatch=etag)
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket="lab", Key="once", Body=b"4", IfMatch=etag)
    assert code_of(error) == "PreconditionFailed"
    assert s3.get_object(Bucket="lab", Key="once")["Body"].read() == b"3"
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket="lab", Key="once", IfNoneMatch=s3.head_object(Bucket="lab", Key="once")["ETag"])
    assert code_of(error) == "304"


def test_a_presigned_url_lets_its_holder_in_until_it_expires(site: Site, s3: Any) -> None:
    s3 = client_of(site, signature_version="s3v4")
    s3.put_object(Bucket="lab", Key="signed", Body=b"data")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "lab", "Key": "signed"}, ExpiresIn=60)
    path = url.partition(f":{site.port}")[2]
    assert fetched(site, path) == (200, b"data")
    assert fetched(site, path[:-1] + ("0" if path[-1] != "0" else "1"))[0] == 403
    put = s3.generate_presigned_url("put_object", Params={"Bucket": "lab", "Key": "signed"}, ExpiresIn=60)
    assert fetched(site, put.partition(f":{site.port}")[2], b"more")[0] == 200
    assert s3.get_object(Bucket="lab", Key="signed")["Body"].read() == b"more"


def fetched(site: Site, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=90)
    try:
        connection.request("GET" if body is None else "PUT", path, body=body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_whoever_has_no_key_or_a_wrong_one_is_refused(site: Site, s3: Any) -> None:
    assert fetched(site, "/lab/once")[0] == 403
    for key, code in (
        ((site.key[0], "wrong"), "SignatureDoesNotMatch"),
        (("AR0", "x"), "InvalidAccessKeyId"),
    ):
        with pytest.raises(ClientError) as error:
            client_of(site, key).list_buckets()
        assert code_of(error) == code
    s3.create_bucket(Bucket="other")
    reader = client_of(site, site.ask(site.shelf.make_key("reader", bucket="lab", reads_only=True)))
    assert [each["Name"] for each in reader.list_buckets()["Buckets"]] == ["lab"]
    for call in (
        lambda: reader.put_object(Bucket="lab", Key="x", Body=b""),
        lambda: reader.list_objects_v2(Bucket="other"),
        lambda: reader.delete_object(Bucket="lab", Key="once"),
    ):
        with pytest.raises(ClientError) as error:
            call()
        assert code_of(error) == "AccessDenied"
    site.ask(site.shelf.remove_key("reader"))
    with pytest.raises(ClientError) as error:
        reader.list_buckets()
    assert code_of(error) == "InvalidAccessKeyId"


@pytest.mark.parametrize("signing", ["s3v4-chunked", "unsigned"])
def test_bodies_that_are_changed_on_their_way_are_not_seen(site: Site, s3: Any, signing: str) -> None:
    """A proxy that damages a body: the checksum or the signature says so, and nothing is stored."""
    client = client_of(site, s3={"payload_signing_enabled": signing == "s3v4-chunked"})

    def damage(request: Any, **_: object) -> None:
        data = request.body if isinstance(request.body, bytes) else request.body.read()
        request.body = data.replace(b"right", b"wrong")

    client.meta.events.register("before-send.s3.PutObject", damage)
    with pytest.raises(ClientError) as error:
        client.put_object(Bucket="lab", Key="damaged", Body=b"right" * 10)
    assert code_of(error) in ("BadDigest", "XAmzContentSHA256Mismatch")
    with pytest.raises(ClientError):
        s3.head_object(Bucket="lab", Key="damaged")


def test_what_this_store_has_not_is_said(s3: Any) -> None:
    assert "Status" not in s3.get_bucket_versioning(Bucket="lab")
    assert s3.get_bucket_location(Bucket="lab")["LocationConstraint"] is None
    for call, code in (
        (lambda: s3.get_bucket_policy(Bucket="lab"), "NoSuchBucketPolicy"),
        (
            lambda: s3.put_bucket_versioning(Bucket="lab", VersioningConfiguration={"Status": "Enabled"}),
            "NotImplemented",
        ),
        (lambda: s3.create_bucket(Bucket="lab"), "BucketAlreadyOwnedByYou"),
        (lambda: s3.delete_bucket(Bucket="listed"), "BucketNotEmpty"),
        (lambda: s3.list_objects_v2(Bucket="nowhere"), "NoSuchBucket"),
        (lambda: s3.put_object(Bucket="lab", Key="k" * 1025, Body=b""), "KeyTooLongError"),
    ):
        with pytest.raises(ClientError) as error:
            call()
        assert code_of(error) == code


def test_what_a_killed_server_left_is_swept(site: Site, s3: Any) -> None:
    """A file without a row is nobody's; one that is young may be on its way."""
    folder = next((site.root / "files").iterdir())
    (folder / "lost").write_bytes(b"x")
    assert site.ask(site.shelf.sweep()) == 0
    import os

    os.utime(folder / "lost", (1, 1))
    assert site.ask(site.shelf.sweep()) == 1
    assert s3.get_object(Bucket="lab", Key="once")["Body"].read() == b"3"


@pytest.mark.parametrize("size", [0, 1, 255, 256, 5_000, 100_001])
@pytest.mark.parametrize("name", ["crc32c", "crc64nvme"])
def test_checks_by_lanes_are_those_of_one_table(name: str, size: int) -> None:
    """Whatever the pieces: against the definition, bit by bit of a table."""
    bits, polynomial = {"crc32c": (32, 0x82F63B78), "crc64nvme": (64, 0x9A6C9329AC4BC9B5)}[name]
    data = hashlib.sha256(b"x").digest() * (size // 32 + 1)
    data = data[:size]
    ones = (1 << bits) - 1
    value = ones
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (polynomial if value & 1 else 0)
    wanted = (value ^ ones).to_bytes(bits // 8, "big")
    for step in (size or 1, 777, 4096):
        digest = getattr(crc, name)()
        for at in range(0, size, step):
            digest.update(data[at : at + step])
        assert digest.digest() == wanted, step


@pytest.mark.parametrize("name", ["crc32c", "crc64nvme"])
def test_checksums_are_checked_and_told_again(site: Site, s3: Any, name: str) -> None:
    header, body = f"x-amz-checksum-{name}", b"hello" * 1000
    signer = client_of(site, signature_version="s3v4")
    url = signer.generate_presigned_url("put_object", Params={"Bucket": "lab", "Key": f"sum-{name}"})
    right = base64.b64encode(getattr(crc, name)().digest_of(body)).decode()
    path = url.partition("://")[2].partition("/")[2]
    for value, status in ((base64.b64encode(bytes(len(right) * 3 // 4 - 2)).decode(), 400), (right, 200)):
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=90)
        connection.request("PUT", f"/{path}", body=body, headers={header: value})
        response = connection.getresponse()
        told = response.read()
        assert response.status == status, told
        assert status == 200 or b"<Code>BadDigest</Code>" in told
        connection.close()
    head = s3.head_object(Bucket="lab", Key=f"sum-{name}", ChecksumMode="ENABLED")
    assert head["ResponseMetadata"]["HTTPHeaders"][header] == right
