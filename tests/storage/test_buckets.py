"""Every object store passes one suite; a URL finds its store; what a store is takes one file and one line."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argosy.infra.buckets import (
    Bucket,
    BucketError,
    BucketMissing,
    ChangedMeanwhile,
    Encryption,
    NotEncrypted,
    Opened,
    StoreSettings,
    UrlUnknown,
)
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.object_urls import split_url
from argosy.storage.bucket_life import is_there, release_bucket
from argosy.storage.buckets import STORES, Stores, open_bucket, sections_of
from argosy.storage.buckets.files import FolderBucket
from argosy.storage.shelf_bucket import ShelfBucket
from argosy.storage.shelf_folder import ShelfFolder
from argosy.testing.conformance.bucket import CASES, Case, NotApplicable, case_name
from argosy.testing.fake_gcs import FakeGcs
from argosy.testing.s3_site import Site


def settings(tmp_path: Path, environ: dict[str, str] | None = None, yaml: str = "") -> StoreSettings:
    return StoreSettings(
        environ=environ or {}, home=tmp_path, clock=SystemClock(), sections=sections_of(yaml)
    )


class Folders:
    awkward_keys = False

    def __init__(self, root: Path) -> None:
        self._root = root

    def bucket(self) -> Bucket:
        root = self._root / SystemIds().new("bkt")
        return FolderBucket(root, f"file://{root}")


class Shelves:
    awkward_keys = True

    def __init__(self, root: Path) -> None:
        self._folder = ShelfFolder(root, SystemClock(), SystemIds())

    def bucket(self) -> Bucket:
        return ShelfBucket(self._folder, SystemIds().new("bkt"))


class Moto:
    """moto's S3: what boto3 and the other stores of its kind agree on."""

    awkward_keys = False  # its server takes `a/` and `a//b` apart itself

    def __init__(self, root: Path, endpoint: str) -> None:
        environ = {
            "AWS_ACCESS_KEY_ID": "AKIA",
            "AWS_SECRET_ACCESS_KEY": "SECRET",
            "AWS_ENDPOINT_URL": endpoint,
        }
        self._settings = settings(root, environ)

    def bucket(self) -> Bucket:
        return open_bucket(f"s3://{SystemIds().new('bkt')}/", self._settings).bucket


class Embedded:
    """The server's buckets as programs see them: over S3."""

    awkward_keys = True

    def __init__(self, root: Path, site: Site) -> None:
        environ = {"OWN_ACCESS_KEY_ID": site.key[0], "OWN_SECRET_ACCESS_KEY": site.key[1]}
        self._settings = settings(root, environ, f"own: {{endpoint: '{site.address}'}}")

    def bucket(self) -> Bucket:
        return open_bucket(f"own://{SystemIds().new('bkt')}/", self._settings).bucket


class Google:
    """Google's wire format."""

    awkward_keys = False

    def __init__(self, root: Path, site: Site, fake: FakeGcs) -> None:
        environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(fake.key_file(root / "key.json"))}
        self._settings = settings(root, environ, f"gs: {{endpoint: '{site.address}'}}")

    def bucket(self) -> Bucket:
        return open_bucket(f"gs://{SystemIds().new('bkt')}/", self._settings).bucket


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, FakeGcs]]:
    pytest.importorskip("obstore", reason="obstore is not installed")
    fake = FakeGcs(tmp_path_factory.mktemp("gcs"))
    made = Site(tmp_path_factory.mktemp("unused"), app=fake)
    yield made, fake
    made.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("shelf"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def moto_endpoint() -> Iterator[str]:
    pytest.importorskip("moto", reason="moto is not installed")
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def hold(case: Case, subject: Any) -> None:
    try:
        case(subject)
    except NotApplicable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_a_folder_is_a_bucket(case: Case, tmp_path: Path) -> None:
    hold(case, Folders(tmp_path))


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_the_servers_own_buckets(case: Case, tmp_path: Path) -> None:
    hold(case, Shelves(tmp_path))


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_s3(case: Case, tmp_path: Path, moto_endpoint: str) -> None:
    hold(case, Moto(tmp_path, moto_endpoint))


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_the_embedded_store_as_programs_see_it(case: Case, tmp_path: Path, site: Site) -> None:
    hold(case, Embedded(tmp_path, site))


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_google_cloud_storage(case: Case, tmp_path: Path, google: tuple[Site, FakeGcs]) -> None:
    hold(case, Google(tmp_path, *google))


# -- URLs -----------------------------------------------------------------------------------------------


def test_a_url_finds_its_store(tmp_path: Path) -> None:
    yaml = "minio: {endpoint: 'https://minio.lab:9000', region: lab}\nr2: {account: abc}\noci: {account: ns}"
    stores = Stores(settings(tmp_path, {}, yaml))
    seen = {
        "s3://data/a/b": ("s3://data", "a/b"),
        "S3://data": ("s3://data", ""),
        "r2://data/a": ("r2://data", "a"),
        "oci://data/a": ("oci://data", "a"),
        "nebius://data/a": ("nebius://data", "a"),
        "cos://eu-de/data/a": ("cos://eu-de/data", "a"),
        "cw://data/a": ("cw://data", "a"),
        "hf://me/net/a/b": ("hf://me/net", "a/b"),
        "hf://datasets/me/net@v1/a": ("hf://datasets/me/net@v1", "a"),
        "https://example.org/a/b": ("https://example.org", "a/b"),
        "minio://data/a": ("minio://data", "a"),
        "file:///tmp/x/": ("file://", "tmp/x/"),
    }
    for url, (bucket, key) in seen.items():
        opened = stores.open(url)
        assert (opened.bucket.url, opened.key) == (bucket, key), url
        assert split_url(url) == (bucket, key), url  # what clients take apart themselves
    assert stores.open("s3://data/a").bucket is stores.open("s3://data/b").bucket


@pytest.mark.parametrize(
    ("url", "what", "hint"),
    [
        ("ftp://x/y", "no object store has URLs that begin with ftp://", "known are argosy, "),
        ("data/x", "`data/x` is no URL of an object store", "s3://BUCKET/KEY"),
        ("s3://", "`s3://` names no bucket", "s3://BUCKET/KEY"),
        ("r2://data/x", "the account of Cloudflare R2 is not known", "set R2_ACCOUNT_ID or"),
        ("file://x", "`file://x` is no path on this machine", "three slashes"),
        ("odd://data", "buckets.yaml: `odd`: Object contains unknown field `secret`", "docs/storage.md"),
        ("bare://data", "`bare` in buckets.yaml has no endpoint", "https://HOST"),
    ],
)
def test_a_url_that_cannot_be_meant_is_said(url: str, what: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(BucketError) as error:
        open_bucket(url, settings(tmp_path, {}, "odd: {secret: x}\nbare: {region: x}"))
    assert what in error.value.what and hint in error.value.hint


def test_credentials_are_looked_for_and_missing_ones_said(tmp_path: Path) -> None:
    bucket = open_bucket("s3://data/x", settings(tmp_path)).bucket
    with pytest.raises(BucketError) as error:
        bucket.head("x")
    assert error.value.what == (
        "there are no credentials for s3:// (looked for AWS_ACCESS_KEY_ID and ~/.aws/credentials [default])"
    )
    assert error.value.hint.startswith("sign in: `aws configure`")
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text(
        "[default]\naws_access_key_id = AK1\naws_secret_access_key = S\n[nebius]\naws_access_key_id=AK2\n"
        "aws_secret_access_key=T\n"
    )
    for url, id in (("s3://data/x", "AK1"), ("nebius://data/x", "AK2")):
        signed = open_bucket(url, settings(tmp_path)).bucket.sign("x", "GET", 60)
        assert signed is not None and f"X-Amz-Credential={id}%2F" in signed
    with pytest.raises(UrlUnknown) as wrong:
        open_bucket("s3://data/x", settings(tmp_path), Encryption(key_id="k"))
    assert wrong.value.what == "`encryption` has a key_id and no type"


def test_a_new_store_is_one_module_and_one_line(tmp_path: Path) -> None:
    """The toy: nothing else knows it."""
    toy = types.ModuleType("argosy_toy_store")

    def open_url(url: str, settings: StoreSettings, encryption: Encryption) -> Opened:
        return Opened(FolderBucket(tmp_path, "toy://all"), url.removeprefix("toy://all/"))

    toy.open_url = open_url  # type: ignore[attr-defined]
    sys.modules["argosy_toy_store.store"] = toy
    try:
        stores = Stores(settings(tmp_path), {**STORES, "argosy_toy_store.store": ("toy://*",)})
        opened = stores.open("toy://all/k")
        opened.bucket.write(opened.key, [b"x"])
        assert (tmp_path / "k").read_bytes() == b"x"
    finally:
        del sys.modules["argosy_toy_store.store"]
    source = Path(sys.modules["argosy"].__file__ or "").parent
    for name in ("nebius", "cw"):
        knows = [
            path.relative_to(source).as_posix()
            for path in (*source.glob("storage/*.py"), *source.glob("infra/buckets.py"))
            if f"{name}://" in path.read_text()
        ]
        assert knows == []


def test_what_is_encrypted_on_the_way_in_may_be_required_on_the_way_out(
    tmp_path: Path, moto_endpoint: str
) -> None:
    own = Moto(tmp_path, moto_endpoint)._settings
    name = SystemIds().new("bkt")
    plain = open_bucket(f"s3://{name}/", own).bucket
    plain.make()
    plain.write("plain", [b"x"])
    for wish in (Encryption(type="AES256"), Encryption(type="aws:kms", key_id="k-1")):
        bucket = open_bucket(f"s3://{name}/", own, wish).bucket
        bucket.write("k", [b"y"])
        assert b"".join(bucket.read("k")) == b"y"
        bucket.write("big", [b"z" * (17 << 20)])
        assert bucket.head("big").size == 17 << 20
        bucket.copy("k", "copied")
        assert bucket.head("copied").size == 1
    with pytest.raises(NotEncrypted) as error:
        bucket.head("plain")
    assert error.value.what == (
        f"s3://{name}/plain is not encrypted with aws:kms (key k-1), as is required: it is with nothing"
    )


def test_buckets_that_tasks_bring_along(tmp_path: Path, moto_endpoint: str) -> None:
    bucket = Moto(tmp_path, moto_endpoint).bucket()
    assert not is_there(bucket)
    bucket.make()
    assert is_there(bucket)
    for number in range(3):
        bucket.write(f"a/{number}", [b"x"])
    release_bucket(bucket)
    release_bucket(bucket)
    with pytest.raises(BucketMissing):
        bucket.page()


def test_other_bytes_of_the_same_size_and_time_are_another_version(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path, "file:///data")
    written = bucket.write("model", [b"one"])
    assert bucket.head("model").etag == written.etag
    times = (tmp_path / "model").stat()
    with (tmp_path / "model").open("r+b") as file:
        file.write(b"two")
    os.utime(tmp_path / "model", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert bucket.head("model").etag != written.etag
    with pytest.raises(ChangedMeanwhile):
        list(bucket.read("model", etag=written.etag))


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * (3 << 20))
    pieces = FolderBucket(tmp_path, "file:///data").read("log")
    next(pieces)
    with (tmp_path / "log").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ChangedMeanwhile) as error:
        list(pieces)
    assert error.value.what == "file:///data/log changed while it was read"
    assert error.value.hint == "repeat it when nobody writes the file"
