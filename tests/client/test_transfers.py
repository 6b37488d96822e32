"""Copies and synchronisation against real stores over HTTP: straight by signed addresses and through the
server, held against a model; and what goes wrong on the way."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from argosy.api.location import Location
from argosy.api.storage import SignReply
from argosy.client import buckets as client_buckets
from argosy.client import landing
from argosy.client.transfers import Transfer
from argosy.facades.s3 import answers
from argosy.infra.buckets import Bucket, CredentialsExpired, parse_encryption
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.errors import ArgosyError
from argosy.model.syncing import is_digest
from argosy.server.objects import Objects
from argosy.testing.s3_site import Site


class House:
    """A server's object stores behind its own door, and a foreign store that signs addresses."""

    def __init__(self, root: Path) -> None:
        self.foreign = Site(root / "foreign")
        id, secret = self.foreign.key
        home = root / "home"
        home.mkdir()
        (home / "buckets.yaml").write_text(f"own: {{endpoint: '{self.foreign.address}'}}\n")
        environ = {"OWN_ACCESS_KEY_ID": id, "OWN_SECRET_ACCESS_KEY": secret, "HOME": str(root)}
        self.objects = Objects(home / "objects", SystemClock(), SystemIds(), environ)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope["argosy.local"] = True
            await self.objects.for_owner(scope, receive, send)

        self._door = Site(root / "unused", app=app)
        self.location = Location(None, "127.0.0.1", self._door.port)
        self.asked: list[tuple[str, str, int]] = []
        self.signs = True

    def sign(self, bucket: str, keys: Sequence[str], method: str, encryption: str = "") -> SignReply:
        self.asked.append((bucket, method, len(keys)))
        if not self.signs:
            return SignReply(urls=("",) * len(keys))
        made = self.objects.stores.open(f"{bucket}/", parse_encryption(encryption)).bucket
        urls = tuple(made.sign(key, method, 60) or "" for key in keys)
        return SignReply(urls=urls, headers=made.traits.put_headers if method == "PUT" else {})

    def bucket(self, front: str) -> Bucket:
        made = self.objects.stores.open(f"{front}://{SystemIds().new('bkt')}/").bucket
        made.make()
        return made

    def transfer(self, cwd: Path, **options: Any) -> Transfer:
        return Transfer(self.location, cwd, lambda done, total: None, sign=self.sign, **options)

    def close(self) -> None:
        self._door.close()
        self.foreign.close()
        self.objects.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("house"))
    yield made
    made.close()


def held(bucket: Bucket) -> dict[str, bytes]:
    return {each.key: b"".join(bucket.read(each.key)) for each in bucket.page().objects}


def on_disk(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def fill(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (1_700_000_000, 1_700_000_000))  # the same time, whatever the bytes


NAMES = ["a", "b/c", "b/d e%&+", "ü", unicodedata.normalize("NFD", "ü"), "x/y/z", ".hidden", "ß?*[1]"]
FILES = st.dictionaries(st.sampled_from(NAMES), st.sampled_from([b"", b"one", b"two", b"three"]), max_size=8)


@given(source=FILES, target=FILES, removes=st.booleans(), signs=st.booleans(), way=st.integers(0, 4))
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_sync_is_as_its_model(
    house: House,
    tmp_path_factory: pytest.TempPathFactory,
    source: dict[str, bytes],
    target: dict[str, bytes],
    removes: bool,
    signs: bool,
    way: int,
) -> None:
    """The target has what the source has, and with `removes` nothing else; what is equal is not copied. Up,
    down and from store to store; files of equal size and time that differ; names in both Unicode forms."""
    folder = tmp_path_factory.mktemp("sync")
    house.signs = signs
    one, other = house.bucket("own"), house.bucket("argosy" if way == 3 else "own")
    wanted = source if removes else target | source
    differ = {name for name, data in source.items() if target.get(name) != data}
    mine, theirs = folder / "mine", folder / "theirs"
    mine.mkdir()
    theirs.mkdir()
    names = {
        0: (str(mine), f"{other.url}/p"),
        1: (f"{one.url}/p", str(theirs)),
        2: (f"{one.url}/p", f"{other.url}/p"),
        3: (f"{one.url}/p", f"{other.url}/p"),
        4: (f"file://{mine}", f"{other.url}/p"),
    }[way]
    fill(mine, source)
    fill(theirs, target)
    for bucket, files in ((one, source), (other, target)):
        for name, data in files.items():
            bucket.write(f"p/{name}", [data])
    with house.transfer(folder) as transfer:
        transfer.sync(*names, removes=removes)
    copied = {each[0].rpartition("/p/")[2] if way in (1, 2, 3) else each[0] for each in transfer.copied}
    if way in (0, 4):
        copied = {each.rpartition("/mine/")[2] for each in copied}
    if way == 1:
        assert on_disk(theirs) == wanted
    else:
        assert held(other) == {f"p/{name}": data for name, data in wanted.items()}
    assert copied >= differ and (way == 4 or copied == differ)
    assert len(transfer.removed) == (len(target.keys() - source.keys()) if removes else 0)


def test_files_go_straight_and_addresses_are_asked_for_together(house: House, tmp_path: Path) -> None:
    house.signs, bucket = True, house.bucket("own")
    fill(tmp_path / "f", {f"{n:04}": b"x" * n for n in range(30)})
    house.asked.clear()
    with house.transfer(tmp_path) as transfer:
        transfer.copy("f", f"{bucket.url}/f", recursive=True)
    assert house.asked == [(bucket.url, "PUT", 30)]
    assert len(held(bucket)) == 30
    big = os.urandom(20 << 20)
    (tmp_path / "big").write_bytes(big)
    for signs in (True, False):
        house.signs = signs
        with house.transfer(tmp_path) as transfer:
            transfer.copy("big", f"{bucket.url}/big", recursive=False)
            transfer.copy(f"{bucket.url}/big", f"back-{signs}", recursive=False)
        assert (tmp_path / f"back-{signs}").read_bytes() == big
    assert list(house.objects.shelf.folder.index.page(".spool", "", "", "", 10).objects) == []


def test_a_download_goes_on_where_it_broke_off(house: House, tmp_path: Path) -> None:
    house.signs, bucket = True, house.bucket("own")
    data = os.urandom(12 << 20)
    bucket.write("big", [data])
    taken: list[int] = []

    def cut(done: int, total: int) -> None:
        taken.append(done)
        if done > 6 << 20 and len(taken) < 10_000:
            raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        Transfer(house.location, tmp_path, cut, sign=house.sign) as transfer,
    ):
        transfer.copy(f"{bucket.url}/big", "big", recursive=False)
    assert not (tmp_path / "big").exists()
    (part,) = tmp_path.glob(".big.*.part")
    kept = part.stat().st_size
    assert 6 << 20 <= kept < len(data)
    seen: list[int] = []
    with Transfer(house.location, tmp_path, lambda done, _: seen.append(done), sign=house.sign) as transfer:
        transfer.copy(f"{bucket.url}/big", "big", recursive=False)
    assert seen[0] == kept  # what was there already is not fetched again
    assert (tmp_path / "big").read_bytes() == data and not list(tmp_path.glob(".big.*"))


@pytest.mark.parametrize("signs", [True, False])
def test_a_large_file_comes_in_ranges_and_goes_on_after_the_last_without_a_gap(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signs: bool
) -> None:
    monkeypatch.setattr(landing, "_SPLIT_BYTES", 4 << 20)
    monkeypatch.setattr(landing, "_RANGE_BYTES", 1 << 20)
    house.signs, bucket = signs, house.bucket("own")
    data = os.urandom((12 << 20) + 7)
    info = bucket.write("big", [data])
    assert is_digest(info.etag)
    lost = True

    def cut(done: int, total: int) -> None:
        if lost and done > 6 << 20:
            raise KeyboardInterrupt

    def get() -> None:
        with Transfer(house.location, tmp_path, cut, sign=house.sign) as transfer:
            transfer.copy(f"{bucket.url}/big", "big", recursive=False)

    with pytest.raises(KeyboardInterrupt):
        get()
    (part,) = tmp_path.glob(".big.*.part")
    kept = part.read_bytes()
    assert data.startswith(kept) and len(kept) % (1 << 20) == 0
    lost = False
    get()
    assert (tmp_path / "big").read_bytes() == data and not list(tmp_path.glob(".big.*"))
    if signs:  # a digest that is not right is found, also of ranges
        real = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda fd, view, at: real(fd, bytes(len(view)), at))
        with pytest.raises(ArgosyError) as error:
            get()
        assert error.value.what == f"`{tmp_path}/big` did not arrive as it was stored: its MD5 differs"


@pytest.mark.parametrize("signs", [True, False])
def test_a_file_that_changes_while_it_is_read_is_not_stored(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signs: bool
) -> None:
    house.signs, bucket = signs, house.bucket("own")
    path = tmp_path / "log"
    for size in (100_000, 40 << 20):
        path.write_bytes(b"x" * size)

        def grow(done: int, total: int, path: Path = path) -> None:
            with path.open("ab") as file:
                file.write(b"more")

        if size < 1 << 20:  # too small for a callback in the middle: it changes right after it is looked at
            real = os.fstat
            monkeypatch.setattr(os, "fstat", lambda fd, real=real: (real(fd), path.open("ab").write(b"m"))[0])
        with (
            pytest.raises(ArgosyError) as error,
            Transfer(house.location, tmp_path, grow, sign=house.sign) as transfer,
        ):
            transfer.copy("log", f"{bucket.url}/log", recursive=False)
        monkeypatch.undo()
        assert error.value.what == f"`{path}` changed while it was read: it is not stored"
        assert error.value.hint == "repeat it when nobody writes the file"
        assert held(bucket) == {}


def test_what_has_no_room_is_refused_before_it_comes(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = house.bucket("own")
    bucket.write("big", [b"x" * 5000])

    class Full:
        f_bavail, f_frsize = 1, 4096

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    with pytest.raises(ArgosyError) as error, house.transfer(tmp_path) as transfer:
        transfer.copy(f"{bucket.url}/big", "big", recursive=False)
    assert (error.value.code, error.value.what) == (
        "disk-full",
        f"the disk of `{tmp_path}` is full (4 KB free, and 4.9 KB are to come)",
    )


def test_a_disk_that_fills_leaves_nothing_half(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = house.bucket("own")
    for key in ("a", "b"):
        bucket.write(key, [b"x" * 50_000])

    def full(fd: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    with pytest.raises(ArgosyError) as error, house.transfer(tmp_path) as transfer:
        monkeypatch.setattr(os, "write", full)
        try:
            transfer.copy(f"{bucket.url}/", "here", recursive=True)
        finally:
            monkeypatch.undo()
    assert error.value.code == "disk-full"
    assert on_disk(tmp_path) == {}


def test_credentials_that_expire_on_the_way_say_how_to_go_on(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the files are there, the error says so, and the repeated command copies the other half."""
    house.signs, bucket = False, house.bucket("own")
    monkeypatch.setattr(client_buckets, "PARALLEL", 1)
    files = {f"{n:02}": b"x" * n for n in range(10)}
    fill(tmp_path / "f", files)
    opened = house.objects.stores.open(f"{bucket.url}/").bucket
    real, count = type(opened).write, 0

    def write(self: Any, key: str, data: Any, extra: Any) -> Any:
        nonlocal count
        count += 1
        if 5 < count <= 15:
            raise CredentialsExpired(f"the credentials for {bucket.url} have expired", "sign in, then repeat")
        return real(self, key, data, extra)

    monkeypatch.setattr(type(opened), "write", write)
    with pytest.raises(ArgosyError) as error, house.transfer(tmp_path) as transfer:
        transfer.sync("f", f"{bucket.url}/f", removes=True)
    there = len(held(bucket))
    assert error.value.code == "forbidden" and 0 < there < 10
    assert error.value.what == f"{10 - there} of 10 files were not copied"
    assert error.value.details == (f"the credentials for {bucket.url} have expired",)
    assert error.value.hint == "sign in, then repeat; repeat the command for the rest"
    count = 100
    with house.transfer(tmp_path) as transfer:
        transfer.sync("f", f"{bucket.url}/f", removes=True)
    assert len(transfer.copied) == 10 - there
    assert held(bucket) == {f"f/{name}": data for name, data in files.items()}


def test_why_an_object_cannot_be_looked_at_is_said(tmp_path: Path) -> None:
    """An answer to HEAD has no body that could say it."""
    asked: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["method"])
        why = ArgosyError("server-unreachable", "the store lab does not answer", hint="check the endpoint")
        _, told = answers.refusal(why, "")
        body = told if scope["method"] == "GET" else b""
        head = [(b"content-length", str(len(told)).encode())]
        await send({"type": "http.response.start", "status": 503, "headers": head})
        await send({"type": "http.response.body", "body": body})

    site = Site(tmp_path, app=app)
    held = client_buckets.Buckets(Location(None, "127.0.0.1", site.port))
    with pytest.raises(ArgosyError) as error:
        held.find(client_buckets.Place("lab://data", "k"))
    held.close()
    site.close()
    assert (error.value.what, error.value.hint) == ("the store lab does not answer", "check the endpoint")
    assert asked == ["HEAD", "GET"]


@pytest.mark.parametrize("signs", [True, False])
def test_an_encryption_that_the_store_does_not_have_is_refused(
    house: House, tmp_path: Path, signs: bool
) -> None:
    """Nothing is stored as it was not asked for, whichever way it would have gone."""
    house.signs, own, ours = signs, house.bucket("own"), house.bucket("argosy")
    (tmp_path / "small").write_bytes(b"x")
    (tmp_path / "big").write_bytes(b"x" * (17 << 20))
    for bucket, what in ((own, "do not encrypt"), (ours, "do not encrypt")):
        for name in ("small", "big"):
            with (
                pytest.raises(ArgosyError) as error,
                house.transfer(tmp_path, encryption="AES256") as transfer,
            ):
                transfer.copy(name, f"{bucket.url}/{name}", recursive=False)
            assert what in error.value.what
        assert held(bucket) == {}
