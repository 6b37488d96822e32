"""The server's object stores: `buckets.yaml` is read again when it changes, and its own buckets are among
them."""

from __future__ import annotations

import asyncio
import http.client
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from argosy.infra.buckets import UrlUnknown
from argosy.infra.system import SystemClock, SystemIds
from argosy.server.everywhere import SPOOL
from argosy.server.objects import Objects
from argosy.testing.s3_site import Site


def test_stores_follow_their_settings(tmp_path: Path) -> None:
    objects = Objects(tmp_path / "objects", SystemClock(), SystemIds(), {"HOME": str(tmp_path)})
    own = objects.stores.open("argosy://data/x")
    own.bucket.make()
    own.bucket.write("x", [b"hello"])
    assert b"".join(objects.stores.open("argosy://data/x").bucket.read("x")) == b"hello"
    assert own.bucket.sign("x", "GET", 60) is None  # it listens nowhere
    with pytest.raises(UrlUnknown):
        objects.stores.open("minio://data")
    (tmp_path / "buckets.yaml").write_text("minio: {endpoint: 'https://minio.lab'}\n")
    assert objects.stores.open("minio://data/a").bucket.url == "minio://data"
    (tmp_path / "buckets.yaml").write_text("minio: [\n")
    with pytest.raises(UrlUnknown) as error:
        objects.stores.open("minio://data")
    assert error.value.what.startswith("buckets.yaml cannot be read: ")
    objects.close()


def test_the_server_signs_addresses_of_its_own_objects(tmp_path: Path) -> None:
    objects = Objects(tmp_path / "shelf", SystemClock(), SystemIds())
    site = Site(tmp_path / "shelf", objects)
    try:
        objects.address = site.address
        bucket = objects.stores.open("argosy://data/x").bucket
        bucket.make()
        bucket.write("a b", [b"hello"])
        url = bucket.sign("a b", "GET", 60)
        assert url is not None
        split = urlsplit(url)
        for path, status in ((split.path, 200), ("/data/other", 403)):
            connection = http.client.HTTPConnection(split.netloc, timeout=90)
            connection.request("GET", f"{path}?{split.query}")
            response = connection.getresponse()
            assert response.status == status and (status != 200 or response.read() == b"hello")
            connection.close()
    finally:
        site.close()
        objects.close()


def test_the_servers_own_disk_is_for_who_is_there(tmp_path: Path) -> None:
    """Over TCP nobody reads the server's files or networks through it, whatever they may do with buckets."""
    objects = Objects(tmp_path / "shelf", SystemClock(), SystemIds())
    (tmp_path / "secret").write_text("x")
    site = Site(tmp_path / "unused", app=objects.for_owner)
    try:
        connection = http.client.HTTPConnection(site.address.partition("://")[2], timeout=90)
        for bucket in ("file:%2F%2F", "http:%2F%2F169.254.169.254", "https:%2F%2Finside"):
            connection.request("GET", f"/s3/{bucket}{tmp_path}/secret")
            response = connection.getresponse()
            assert response.status == 403
            assert b"is of the server's own machine: only its owner may name it" in response.read()
        connection.close()
    finally:
        site.close()
        objects.close()


class Later(SystemClock):
    """A clock that a test sets forward."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


def test_what_broken_copies_left_is_taken_back_after_a_day(tmp_path: Path) -> None:
    """Uploads to another store that came half, and whole ones that were never sent on."""
    clock = Later()
    objects = Objects(tmp_path / "objects", clock, SystemIds())
    folder = objects.shelf.folder
    folder.index.keep_bucket(SPOOL)
    upload = folder.begin_upload(SPOOL, "half", {})
    for name, held in (("half", True), ("whole", False)):
        writing = folder.begin()
        writing.add([b"x" * 1000])
        written = writing.end()
        if held:
            folder.put_part(SPOOL, name, upload, 1, written)
        else:
            folder.put(SPOOL, name, written, {})
    assert asyncio.run(objects.sweep()) == 0
    assert len(folder.index.files()) == 2
    assert asyncio.run(objects.shelf.buckets()) == []  # nobody sees it
    clock.ahead_ms = 25 * 3600 * 1000
    asyncio.run(objects.sweep())
    assert not folder.index.files() and not list((tmp_path / "objects" / "files").rglob("*/*"))
    objects.close()
