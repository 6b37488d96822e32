"""What object stores refuse, in the words that people read; and what is mended without a word: another
region, a store that is busy, credentials that were renewed."""

from __future__ import annotations

import base64
import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from argosy.api.storage import TransferRequest
from argosy.catalog.catalog import Traffic
from argosy.infra.buckets import (
    BY_ITSELF,
    AccessRefused,
    Bucket,
    BucketError,
    BucketInUse,
    BucketMissing,
    ConditionFailed,
    CredentialsExpired,
    CredentialsMissing,
    Damaged,
    Encryption,
    NoSpace,
    NotEncrypted,
    NotPossible,
    Opened,
    RequestRefused,
    StoreBusy,
    StoreSettings,
    StoreUnreachable,
    UrlUnknown,
    WrongRegion,
)
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.object_urls import NAME_RULE
from argosy.server.transfers import Transfers
from argosy.storage import s3_compatible
from argosy.storage.buckets import open_bucket, sections_of
from argosy.storage.s3_bucket import S3Bucket
from argosy.storage.s3_compatible import KeyRing
from argosy.storage.s3_signing import Keys
from argosy.storage.s3_wire import Site, Wire
from argosy.storage.shelf_bucket import ShelfBucket
from argosy.storage.shelf_folder import ShelfFolder

SECRET = "wJalrXUtnFEMI/SECRET"


class Store(http.server.BaseHTTPRequestHandler):
    """An S3 that answers as it is told: one answer after the other, the last one for ever."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        self.rfile.read(length)
        told: Script = self.server.script  # type: ignore[attr-defined]
        told.seen.append((self.command, self.path, dict(self.headers.items())))
        status, headers, body = told.answers[0] if len(told.answers) == 1 else told.answers.pop(0)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "content-length" not in headers:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET


class Script:
    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.waited: list[float] = []

    def error(self, status: int, code: str, text: str = "told", **headers: str) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{text}</Message></Error>"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.append((status, named, body.encode()))

    def fine(self, body: bytes = b"<ListBucketResult/>", **headers: str) -> None:
        self.answers.append((200, {name.replace("_", "-"): value for name, value in headers.items()}, body))

    def bucket(
        self, encryption: Encryption = BY_ITSELF, keys: Keys | None = None, name: str = "data"
    ) -> Bucket:
        site = Site(
            title="Amazon S3",
            endpoint=self.endpoint,
            region="us-east-1",
            bucket_url="s3://{bucket}",
            sign_in="sign in: `aws configure`",
        )
        held = keys or Keys(id="AKIA", secret=SECRET)
        return S3Bucket(Wire(site, name, lambda: held, lambda: 1.8e9, self.waited.append), encryption)


@pytest.fixture
def script() -> Iterator[Script]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store)
    server.script = made = Script(server.server_port)  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


def get(bucket: Bucket) -> object:
    return b"".join(bucket.read("a/b"))


def put(bucket: Bucket) -> object:
    return bucket.write("a/b", [b"x"])


def page(bucket: Bucket) -> object:
    return bucket.page()


@pytest.mark.parametrize(
    ("status", "code", "act", "kind", "what", "hint"),
    [
        (404, "NoSuchBucket", page, BucketMissing, "there is no bucket s3://data",
         "check its name; `argosy storage create` makes one"),
        (400, "InvalidBucketName", page, RequestRefused, "s3://data cannot be a bucket",
         f"a bucket's name has {NAME_RULE}"),
        (403, "AccessDenied", get, AccessRefused,
         "Amazon S3 does not let us do that with s3://data/a/b (told)",
         "ask the owner of s3://data for access, or use other credentials: sign in: `aws configure`"),
        (400, "ExpiredToken", put, CredentialsExpired, "the credentials for s3://data have expired",
         "sign in: `aws configure`, then repeat: what was copied is not copied again"),
        (403, "InvalidAccessKeyId", page, CredentialsMissing,
         "Amazon S3 does not accept the credentials for s3://data (InvalidAccessKeyId)",
         "sign in: `aws configure`"),
        (403, "SignatureDoesNotMatch", page, CredentialsMissing,
         "Amazon S3 does not accept the credentials for s3://data (SignatureDoesNotMatch)",
         "sign in: `aws configure`"),
        (403, "RequestTimeTooSkewed", page, AccessRefused,
         "the clock of this machine is more than 15 minutes off, says Amazon S3", "set the clock"),
        (507, "InsufficientStorage", put, NoSpace, "there is no room left behind s3://data (told)",
         "free some, then repeat"),
        (400, "BadDigest", put, Damaged, "s3://data/a/b did not arrive as it was sent (BadDigest)",
         "repeat it"),
        (412, "PreconditionFailed", put, ConditionFailed, "s3://data/a/b is not as it was expected",
         "look at it again, then repeat"),
        (409, "BucketNotEmpty", Bucket.drop, BucketInUse, "s3://data: told",
         "empty it first, or choose another name"),
        (501, "NotImplemented", put, NotPossible, "Amazon S3 cannot do that (told)", ""),
        (400, "KeyTooLongError", put, RequestRefused, "Amazon S3 refuses s3://data/a/b: told", ""),
        (503, "SlowDown", page, StoreBusy, "Amazon S3 is busy (SlowDown)", "it is tried again by itself"),
    ],
)  # fmt: skip
def test_what_a_store_refuses_is_said(
    script: Script,
    status: int,
    code: str,
    act: Callable[[Bucket], object],
    kind: type[BucketError],
    what: str,
    hint: str,
) -> None:
    script.error(status, code)
    bucket = script.bucket()
    with pytest.raises(kind) as error:
        bucket.drop() if act is Bucket.drop else act(bucket)
    assert error.value.what == what
    assert error.value.hint == hint or not hint
    assert SECRET not in f"{error.value!r} {error.value.hint}"


def test_a_bucket_in_another_region_is_asked_there(script: Script) -> None:
    """Both ways in which S3 says so; the addresses that are signed afterwards are of that region, too."""
    script.error(301, "PermanentRedirect", x_amz_bucket_region="eu-west-3")
    script.fine()
    bucket = script.bucket()
    bucket.page()
    assert bucket.region == "eu-west-3"
    assert [each[2]["authorization"].split("/")[2] for each in script.seen] == ["us-east-1", "eu-west-3"]
    assert "%2Feu-west-3%2Fs3%2F" in str(bucket.sign("k", "GET", 60))
    script.answers[:] = [
        (
            400,
            {},
            b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>x</Message>"
            b"<Region>ap-south-1</Region></Error>",
        )
    ]
    script.fine()
    other = script.bucket()
    other.page()
    assert other.region == "ap-south-1"


def test_a_copy_from_a_bucket_in_another_region_shows_that_region_s_egress(
    script: Script, tmp_path: Path
) -> None:
    script.error(301, "PermanentRedirect", x_amz_bucket_region="ap-south-1")
    row = "<Contents><Key>x</Key><Size>2000000000</Size><ETag>e</ETag></Contents>"
    script.fine(f"<ListBucketResult>{row}</ListBucketResult>".encode())
    source, target = script.bucket(), ShelfBucket(ShelfFolder(tmp_path, SystemClock(), SystemIds()), "lab")
    target.make()

    class Both:
        def open(self, url: str, encryption: Encryption = BY_ITSELF) -> Opened:
            return Opened(source if url.startswith("s3:") else target, "")

    def tariff(src: str, dst: str) -> Traffic:
        return Traffic(micro_usd_per_gb=109_300 if src == "aws/ap-south-1" else 0, estimated=False)

    transfers = Transfers(lambda: Both(), tmp_path, tariff, SystemClock(), SystemIds(), lambda _: None)
    view = transfers.plan(TransferRequest(source="s3://data/", target="argosy://lab/")).view
    assert (view.source_place, view.egress_micro_usd) == ("aws/ap-south-1", 218_600)


def test_a_bucket_that_cannot_be_is_not_to_be_made(script: Script, tmp_path: Path) -> None:
    rule = "a name has 3 to 63 lower-case letters, digits, dots or -, a letter or digit first and last"
    script.error(404, "NoSuchBucket")
    shelf = ShelfFolder(tmp_path, SystemClock(), SystemIds())
    for name in ("My_Data", "ab"):
        for bucket in (script.bucket(name=name), ShelfBucket(shelf, name)):
            with pytest.raises(BucketMissing) as error:
                bucket.page()
            assert error.value.what == f"there is no bucket {bucket.url}"
            assert error.value.hint == f"no bucket can be called `{name}`: {rule}"


def test_a_redirect_that_leads_nowhere_is_said(script: Script) -> None:
    script.error(301, "PermanentRedirect")
    with pytest.raises(WrongRegion) as error:
        script.bucket().page()
    assert error.value.what == "the bucket s3://data is in another region, not in us-east-1"
    assert error.value.hint == "say so: `region: REGION` for s3 in buckets.yaml"


def test_a_wrong_endpoint_is_said(script: Script) -> None:
    script.answers.append((200, {}, b"<!doctype html><html><body>Console</body></html>"))
    script.answers[:] = [(404, {}, b"<!doctype html><html><body>Console</body></html>")]
    with pytest.raises(StoreUnreachable) as error:
        script.bucket().page()
    assert error.value.what == f"{script.endpoint} answers with a web page (404): it is no object store"
    assert (
        error.value.hint == "check the endpoint of s3://data: it is the one for S3 clients, not the console's"
    )
    site = Site(
        title="the store lab",
        endpoint="http://127.0.0.1:9",
        region="x",
        bucket_url="lab://{bucket}",
        sign_in="",
    )
    with pytest.raises(StoreUnreachable) as silent:
        S3Bucket(Wire(site, "data", lambda: None, lambda: 0.0, lambda s: None)).page()
    assert silent.value.what == ("the store lab does not answer at http://127.0.0.1:9 (Connection refused)")
    assert silent.value.hint.startswith("check the endpoint of lab://data")


def test_a_busy_store_is_asked_again_with_patience(script: Script) -> None:
    script.error(503, "SlowDown")
    script.error(500, "InternalError")
    script.fine()
    script.bucket().page()
    assert len(script.seen) == 3 and script.waited == sorted(script.waited) and len(script.waited) == 2


def test_bytes_that_end_too_early_are_not_taken_for_all(script: Script) -> None:
    script.answers.append((200, {"content-length": "10", "connection": "close"}, b"half"))
    with pytest.raises((Damaged, StoreUnreachable)):
        get(script.bucket())


def test_what_is_read_must_be_encrypted_as_is_required(script: Script) -> None:
    wanted = Encryption(type="aws:kms", key_id="1234")
    script.fine(b"x", x_amz_server_side_encryption="AES256")
    bucket = script.bucket(wanted)
    with pytest.raises(NotEncrypted) as error:
        get(bucket)
    assert error.value.what == (
        "s3://data/a/b is not encrypted with aws:kms (key 1234), as is required: it is with AES256"
    )
    script.answers.clear()
    script.fine(b"x")
    with pytest.raises(NotEncrypted) as plain:
        bucket.head("a/b")
    assert plain.value.what.endswith("as is required: it is with nothing")
    script.answers.clear()
    key = "arn:aws:kms:us-east-1:1:key/1234"
    script.fine(b"x", x_amz_server_side_encryption="aws:kms", x_amz_server_side_encryption_aws_kms_key_id=key)
    assert get(bucket) == b"x"


def test_what_is_written_asks_for_its_encryption(script: Script) -> None:
    """In one piece, in parts, in copies, and in the addresses that are signed."""
    script.fine(b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
    bucket = script.bucket(Encryption(type="aws:kms", key_id="k1"))
    put(bucket)
    bucket.write("big", [b"x" * (20 << 20)])
    asked = [
        (method, path.partition("?")[2].partition("=")[0], headers.get("x-amz-server-side-encryption"))
        for method, path, headers in script.seen
    ]
    assert asked[0] == ("PUT", "", "aws:kms")
    assert ("POST", "uploads", "aws:kms") in asked
    assert script.seen[0][2]["x-amz-server-side-encryption-aws-kms-key-id"] == "k1"
    assert bucket.traits.put_headers["x-amz-server-side-encryption"] == "aws:kms"
    url = str(bucket.sign("k", "PUT", 60))
    assert "X-Amz-SignedHeaders=host%3Bx-amz-server-side-encryption%3B" in url


KEY = bytes(range(32))
WITH_KEY = "x-amz-server-side-encryption-customer"


def with_key(script: Script) -> S3Bucket:
    whole = script.bucket(Encryption(type="customer", key_id="lab"))
    assert isinstance(whole, S3Bucket)
    return S3Bucket(whole._wire, Encryption(type="customer", key_id="lab"), customer_key=KEY)


def test_a_key_of_the_customer_goes_with_every_request_and_to_nobody_else(script: Script) -> None:
    digest = base64.b64encode(hashlib.md5(KEY, usedforsecurity=False).digest()).decode()
    answer = {f"{WITH_KEY}-algorithm".replace("-", "_"): "AES256"}
    answer[f"{WITH_KEY}-key-md5".replace("-", "_")] = digest
    script.fine(b"x", **answer)
    bucket = with_key(script)
    assert get(bucket) == b"x"
    bucket.head("a/b")
    put(bucket)
    script.answers.clear()
    script.fine(b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
    bucket.write("big", [b"x" * (20 << 20)])
    script.answers.clear()
    script.fine(b"<CopyObjectResult/>", **answer)
    bucket.copy("a/b", "c")
    for method, path, headers in script.seen:
        if method in ("GET", "HEAD", "PUT") or "uploads" in path:
            assert headers[f"{WITH_KEY}-key"] == base64.b64encode(KEY).decode(), (method, path)
            assert headers[f"{WITH_KEY}-key-md5"] == digest
    copied = script.seen[-1][2]
    assert copied["x-amz-copy-source-server-side-encryption-customer-key-md5"] == digest
    traits = bucket.traits
    assert (traits.signs, traits.mounts, traits.md5_etags, dict(traits.put_headers)) == (False,) * 3 + ({},)
    assert bucket.sign("a", "GET", 60) is None


def test_what_is_read_must_be_encrypted_with_the_customer_s_key(script: Script) -> None:
    said = "s3://data/a/b is not encrypted with customer (key lab), as is required: it is with "
    script.fine(b"x", x_amz_server_side_encryption="AES256")
    with pytest.raises(NotEncrypted) as told:
        get(with_key(script))
    assert told.value.what == said + "AES256"
    script.answers.clear()
    script.error(400, "InvalidRequest", "The encryption parameters are not applicable to this object.")
    with pytest.raises(NotEncrypted) as told:
        get(with_key(script))
    assert told.value.what == said + "another key, or none of the customer"
    with pytest.raises(RequestRefused) as other:
        get(script.bucket())
    assert other.value.what == "s3://data/a/b is encrypted with a key of the customer"
    assert other.value.hint == "name it: `encryption: {type: customer, key_id: NAME}`"


def test_keys_of_the_customer_are_files_that_buckets_yaml_names(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(KEY)
    (tmp_path / "text").write_bytes(base64.b64encode(KEY) + b"\n")
    (tmp_path / "short").write_bytes(b"x" * 16)
    sections = {"customer_keys": '{"good": "good", "text": "text", "short": "short", "none": "none"}'}
    own = StoreSettings(environ={}, home=tmp_path, clock=SystemClock(), sections=sections)
    for name in ("good", "text"):
        bucket = open_bucket("s3://data", own, Encryption(type="customer", key_id=name)).bucket
        assert isinstance(bucket, S3Bucket) and bucket._key == KEY
    for name, what in (
        ("", "`encryption: {type: customer}` names no key"),
        ("else", "the customer's key `else` is not known"),
        ("none", "the customer's key `none` cannot be read: No such file or directory"),
        ("short", "the customer's key `short` is not 32 bytes, nor base64 of so many"),
    ):
        with pytest.raises(UrlUnknown) as error:
            open_bucket("s3://data", own, Encryption(type="customer", key_id=name))
        assert error.value.what == what and error.value.hint


@pytest.mark.parametrize(
    ("url", "section", "where"),
    [
        ("lab://data/x", "lab: {endpoint: 'http://store.lab:9000'}", "lab:// is at http://store.lab:9000"),
        ("s3://data/x", "s3: {endpoint: 'http://store.lab'}", "s3:// is at http://store.lab"),
        ("http://host.lab/x", "", "http:// is at http://host.lab"),
    ],
)
def test_data_goes_without_tls_only_where_the_user_has_said_so(
    tmp_path: Path, url: str, section: str, where: str
) -> None:
    def opened(yaml: str) -> None:
        sections = sections_of(yaml)
        open_bucket(url, StoreSettings(environ={}, home=tmp_path, clock=SystemClock(), sections=sections))

    with pytest.raises(UrlUnknown) as error:
        opened(section)
    assert error.value.what == f"{where}: keys and data would go there without TLS"
    scheme = where.partition(":")[0]
    assert error.value.hint == (
        f"write https://, or `{scheme}: {{tls: false}}` in buckets.yaml if that network is yours"
    )
    opened(section.replace("}", ", tls: false}") if section else "http: {tls: false}")
    if section:
        opened(section.replace("store.lab", "127.0.0.1"))


def test_an_encryption_that_a_store_does_not_have_is_refused(tmp_path: Path) -> None:
    own = StoreSettings(environ={"R2_ACCOUNT_ID": "a"}, home=tmp_path, clock=SystemClock())
    for url, kind, what in (
        ("r2://data", "AES256", "Cloudflare R2 does not encrypt with `AES256`"),
        ("s3://data", "rot13", "Amazon S3 does not encrypt with `rot13`"),
        ("file:///tmp", "AES256", "files are not encrypted by Argosy"),
    ):
        with pytest.raises(NotPossible) as error:
            open_bucket(url, own, Encryption(type=kind))
        assert error.value.what == what


class Clock(SystemClock):
    def __init__(self) -> None:
        super().__init__()
        self.at_ms = 0

    def now_ms(self) -> int:
        return self.at_ms


def test_renewed_credentials_are_found(tmp_path: Path) -> None:
    """A file that another program writes anew is read again within a minute."""
    path, clock = tmp_path / ".aws" / "credentials", Clock()
    path.parent.mkdir()
    settings = StoreSettings(environ={}, home=tmp_path, clock=clock)
    preset = s3_compatible.Preset(scheme="s3", title="S3", endpoint="https://x", sign_in="sign in")
    ring = KeyRing(preset, s3_compatible.Settings(), settings)
    for name, later_ms in (("one", 0), ("two", 61_000)):
        path.write_text(f"[default]\naws_access_key_id={name}\naws_secret_access_key=s\n")
        clock.at_ms += later_ms
        keys = ring.keys()
        assert keys is not None and keys.id == name
