"""Transfers between stores: what they are planned to cost, that they are checked, and that those of a killed
server go on."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from argosy.api.storage import TransferRequest, TransferState, TransferView
from argosy.catalog.catalog import Traffic
from argosy.cli.storage_transfers import render_plan
from argosy.infra.buckets import PLAIN, Bucket, BucketError, CredentialsExpired, Extra, Opened, StoreBusy
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.errors import ArgosyError
from argosy.model.objects import ObjectInfo
from argosy.server.objects import Objects
from argosy.server.transfers import Transfers
from argosy.storage.buckets import files
from argosy.testing.s3_site import Site


class Pair:
    """A cloud's store, which is the embedded one behind S3, and this server's own."""

    def __init__(self, root: Path) -> None:
        self.root, self.site = root, Site(root / "cloud")
        id, secret = self.site.key
        environ = {
            "AWS_ACCESS_KEY_ID": id,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_ENDPOINT_URL": self.site.address,
            "AWS_REGION": "eu-central-1",
        }
        self.objects = Objects(root / "objects", SystemClock(), SystemIds(), environ)
        self.priced: list[tuple[str, str]] = []
        self.waited: list[float] = []

    def bucket(self, front: str) -> Bucket:
        made = self.objects.stores.open(f"{front}://{SystemIds().new('bkt')}/").bucket
        made.make()
        return made

    def tariff(self, src: str, dst: str) -> Traffic:
        self.priced.append((src, dst))
        return Traffic(micro_usd_per_gb=90_000, estimated=False, as_of="2026-11-01")

    def transfers(self, stores: Any = None) -> Transfers:
        return Transfers(
            stores or (lambda: self.objects.stores),
            self.root / "transfers",
            self.tariff,
            SystemClock(),
            SystemIds(),
            self.waited.append,
        )


class Odd:
    """A bucket whose writes go as a test wants."""

    def __init__(self, inner: Bucket, write: Any) -> None:
        self._inner, self._write = inner, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, key: str, data: Iterable[bytes], extra: Extra = PLAIN) -> ObjectInfo:
        made: ObjectInfo = self._write(self._inner, key, data, extra)
        return made


class OddStores:
    def __init__(self, inner: Any, bucket: Bucket, write: Any) -> None:
        self._inner, self._url, self._odd = inner, bucket.url, Odd(bucket, write)

    def open(self, url: str) -> Opened:
        opened: Opened = self._inner.open(url)
        return Opened(self._odd, opened.key) if opened.bucket.url == self._url else opened  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("pair"))
    yield made
    made.site.close()
    made.objects.close()


def fill(bucket: Bucket, count: int, size: int = 100) -> dict[str, bytes]:
    held = {f"in/{n:03}": bytes([n % 256]) * (size + n) for n in range(count)}
    for key, data in held.items():
        bucket.write(key, [data])
    return held


def ended(transfers: Transfers, view: TransferView) -> TransferView:
    transfers._runs[view.id].thread.join(30)
    return transfers.view(view.id)


def read(bucket: Bucket) -> dict[str, bytes]:
    return {each.key: b"".join(bucket.read(each.key)) for each in bucket.page().objects}


def test_a_plan_tells_what_is_copied_and_what_it_costs(pair: Pair) -> None:
    source, target = pair.bucket("s3"), pair.bucket("argosy")
    source.write("in/a", [b"x" * 2_000_000])
    source.write("in/b", [b"same"])
    target.write("out/b", [b"same"])
    target.write("out/gone", [b"old"])
    request = TransferRequest(source=f"{source.url}/in", target=f"{target.url}/out", delete=True)
    view = pair.transfers().plan(request).view
    assert pair.priced[-1] == ("aws/eu-central-1", "internet")
    assert render_plan(view) == [
        f"{source.url}/in/ (aws/eu-central-1) -> {target.url}/out/",
        "1 file, 1.9 MB to copy; 1 file there already",
        "1 file to remove from the target",
        "egress about $0.0002 ($0.09 a GB, 2026-11-01)",
        "about 1s",
    ]
    back = TransferRequest(source=f"{target.url}/out", target=f"{source.url}/back")
    assert "no egress is charged" in render_plan(pair.transfers().plan(back).view)
    assert read(target) == {"out/b": b"same", "out/gone": b"old"}  # nothing was done


def test_a_transfer_copies_checks_and_removes(pair: Pair) -> None:
    source, target = pair.bucket("s3"), pair.bucket("argosy")
    held = fill(source, 20)
    source.write("in/big", [b"z" * (20 << 20)])
    target.write("out/gone", [b"old"])
    transfers = pair.transfers()
    request = TransferRequest(source=f"{source.url}/in", target=f"{target.url}/out", delete=True, key="k1")
    begun = transfers.start(request)
    assert transfers.start(request).id == begun.id  # the same wish is the same transfer
    view = ended(transfers, begun)
    assert (view.state, view.files_done, view.problem) == (TransferState.DONE, 21, None)
    assert view.bytes_done == view.bytes == sum(map(len, held.values())) + (20 << 20)
    found = read(target)
    assert found.pop("out/big") == b"z" * (20 << 20)
    assert found == {f"out/{key[3:]}": data for key, data in held.items()}
    again = ended(transfers, transfers.start(TransferRequest(source=request.source, target=request.target)))
    assert (again.files, again.same) == (0, 21)
    assert [each.id for each in transfers.all()][::-1][0] == begun.id


def test_what_a_killed_server_left_goes_on_and_sends_only_the_rest(pair: Pair) -> None:
    source, target = pair.bucket("s3"), pair.bucket("argosy")
    held = fill(source, 30)
    written, dead = threading.Semaphore(0), threading.Event()

    def write(inner: Bucket, key: str, data: Iterable[bytes], extra: Extra) -> ObjectInfo:
        if dead.is_set():
            raise StoreBusy("the process is gone")
        made = inner.write(key, data, extra)
        written.release()
        return made

    first = pair.transfers(lambda: OddStores(pair.objects.stores, target, write))
    begun = first.start(TransferRequest(source=f"{source.url}/in", target=f"{target.url}/in"))
    for _ in range(5):
        assert written.acquire(timeout=90)
    dead.set()
    first.close()  # as the end of a process, the last note says that it runs
    first._runs[begun.id].thread.join(30)
    kept = len(read(target))
    assert 5 <= kept < 30
    count = 0

    def counted(inner: Bucket, key: str, data: Iterable[bytes], extra: Extra) -> ObjectInfo:
        nonlocal count
        count += 1
        return inner.write(key, data, extra)

    second = pair.transfers(lambda: OddStores(pair.objects.stores, target, counted))
    assert next(each for each in second.all() if each.id == begun.id).state is TransferState.RUNNING
    second.view(begun.id)
    view = ended(second, begun)
    assert (view.state, count) == (TransferState.DONE, 30 - kept)
    assert read(target) == held


def test_bytes_that_a_store_changes_are_found(pair: Pair) -> None:
    """Every store is read again unless it vouches for what it has; what is wrong three times is told."""
    source, target = pair.bucket("s3"), pair.bucket("argosy")
    fill(source, 3)

    def write(inner: Bucket, key: str, data: Iterable[bytes], extra: Extra) -> ObjectInfo:
        whole = b"".join(data)
        return inner.write(key, [whole[:-1] + b"!" if key == "in/001" else whole], extra)

    transfers = pair.transfers(lambda: OddStores(pair.objects.stores, target, write))
    view = ended(
        transfers, transfers.start(TransferRequest(source=f"{source.url}/in", target=f"{target.url}/in"))
    )
    assert view.state is TransferState.FAILED
    assert view.failed == (f"001: {target.url}/in/001 is not what was sent",)
    assert view.files_done == 2


def test_expired_credentials_end_it_and_say_how_it_goes_on(pair: Pair) -> None:
    source, target = pair.bucket("s3"), pair.bucket("argosy")
    held, good = fill(source, 30), threading.Semaphore(8)
    renewed = False

    def write(inner: Bucket, key: str, data: Iterable[bytes], extra: Extra) -> ObjectInfo:
        if not renewed and not good.acquire(blocking=False):
            raise CredentialsExpired(f"the credentials for {target.url} have expired", "sign in, then repeat")
        return inner.write(key, data, extra)

    transfers = pair.transfers(lambda: OddStores(pair.objects.stores, target, write))
    request = TransferRequest(source=f"{source.url}/in", target=f"{target.url}/in")
    view = ended(transfers, transfers.start(request))
    assert view.state is TransferState.FAILED and view.problem is not None
    assert view.problem.what == f"the credentials for {target.url} have expired"
    assert view.files_done == 8
    renewed = True
    view = ended(transfers, transfers.start(request))
    assert (view.state, view.files) == (TransferState.DONE, 22)
    assert read(target) == held


def test_a_busy_store_is_waited_for(pair: Pair) -> None:
    source, target, times = pair.bucket("s3"), pair.bucket("argosy"), [0]
    fill(source, 1)
    pair.waited.clear()

    def write(inner: Bucket, key: str, data: Iterable[bytes], extra: Extra) -> ObjectInfo:
        times[0] += 1
        if times[0] < 3:
            raise StoreBusy("busy", after_s=7)
        return inner.write(key, data, extra)

    transfers = pair.transfers(lambda: OddStores(pair.objects.stores, target, write))
    request = TransferRequest(source=f"{source.url}/in", target=f"{target.url}/in")
    assert ended(transfers, transfers.start(request)).state is TransferState.DONE
    assert pair.waited == [7, 7]


def test_a_full_disk_on_the_servers_side_is_said(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pair.bucket("s3")
    fill(source, 3)

    def full(fd: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_all", full)
    transfers = pair.transfers()
    view = ended(
        transfers, transfers.start(TransferRequest(source=f"{source.url}/in", target=f"file://{tmp_path}/x"))
    )
    assert view.problem is not None and view.problem.code == "disk-full"
    assert view.problem.hint == "free some space, then repeat"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_cannot_be_meant_is_refused_before_anything_happens(pair: Pair) -> None:
    source, transfers = pair.bucket("s3"), pair.transfers()
    for target, what in (
        (f"{source.url}/in/deeper", f"{source.url}/in/deeper/ lies in {source.url}/in/"),
        ("https://example.org/x", "https://example.org can only be read"),
    ):
        with pytest.raises(ArgosyError) as error:
            transfers.plan(TransferRequest(source=f"{source.url}/in", target=target))
        assert error.value.what == what
    missing = "s3://no-such-bucket/in"
    with pytest.raises(BucketError) as gone:
        transfers.plan(TransferRequest(source=missing, target=f"{source.url}/in"))
    assert gone.value.what == "there is no bucket s3://no-such-bucket"
    with pytest.raises(ArgosyError) as unknown:
        transfers.view("trf-none")
    assert unknown.value.what == "there is no transfer `trf-none`"
