"""Copies between object stores that the server makes: planned with what they cost, checked, and again from
where they were when a server was killed.

    <folder>/ID.json    what was asked for and how far it is

What is there already is not copied again: a transfer that is repeated, or taken up by another server, lists
both sides anew. Everything runs in threads of its own; calls here block.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from argosy.api.storage import TransferRequest, TransferState, TransferView
from argosy.catalog.catalog import Traffic
from argosy.infra.bucket_entries import entries
from argosy.infra.buckets import (
    AccessRefused,
    Bucket,
    BucketError,
    BucketMissing,
    Damaged,
    Extra,
    NoSpace,
    ObjectMissing,
    OpensBuckets,
    StoreBusy,
)
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock, Ids
from argosy.model.syncing import Entry, Rules, Steps, same_objects, steps
from argosy.planning.dag import DEFAULT_BANDWIDTH_BYTES_PER_S, provider_of_url
from argosy.storage.disk import write_whole

PARALLEL: Final = 8
_TRIES: Final = 4
_PER_OBJECT_S: Final = 0.1  # of waiting, in one of the parallel copies
_BOOT_S: Final = 120  # of a node
_NEAR_BYTES_PER_S: Final = 1_250_000_000 // 2  # of a node in the store's own region
_NEAR_PARALLEL: Final = 32
_TOLD_S: Final = 1.0  # how often it is written down
_GB: Final = 1_000_000_000
_FATAL: Final = (AccessRefused, BucketMissing, NoSpace)
Tariff = Callable[[str, str], Traffic]


class Side(NamedTuple):
    bucket: Bucket
    prefix: str  # ends in `/`, or is empty

    @property
    def url(self) -> str:
        return f"{self.bucket.url}/{self.prefix}"

    @property
    def place(self) -> str:
        """Where it is, as the catalog names places; "": with us, or not known."""
        provider = provider_of_url(self.bucket.url)
        return f"{provider}/{self.bucket.region}".rstrip("/") if provider else ""


class Planned(NamedTuple):
    source: Side
    target: Side
    todo: Steps
    view: TransferView


class Transfers:
    """`tariff`: what a GB costs from one place to another."""

    def __init__(
        self,
        stores: Callable[[], OpensBuckets],
        folder: Path,
        tariff: Tariff,
        clock: Clock,
        ids: Ids,
        wait: Callable[[float], None],
    ) -> None:
        self._stores, self._folder, self._tariff = stores, folder, tariff
        self._clock, self._ids, self._wait = clock, ids, wait
        self._lock = threading.Lock()
        self._runs: dict[str, Run] = {}
        self._stopping = threading.Event()

    def plan(self, request: TransferRequest, id: str = "") -> Planned:
        """Lists both sides. Raises ArgosyError."""
        source, target = self._side(request.source), self._side(request.target)
        if not target.bucket.traits.writes:
            raise ArgosyError(
                "usage", f"{target.bucket.url} can only be read", hint="name a bucket of yours as the target"
            )
        if source.url == target.url or (
            source.bucket.url == target.bucket.url and target.prefix.startswith(source.prefix)
        ):
            raise ArgosyError(
                "usage", f"{target.url} lies in {source.url}", hint="name a target outside of the source"
            )
        rules = Rules(include=request.include, exclude=request.exclude)
        todo = steps(entries(*source), entries(*target), same_objects, rules, removes=request.delete)
        size = sum(each.size for each in todo.copies)
        traffic = self._tariff(source.place or "", "internet")  # it comes here first
        inside = source.bucket.url == target.bucket.url
        rate = 0 if inside or not source.place else traffic.micro_usd_per_gb
        near = self._tariff(source.place, target.place or "internet") if source.place else None
        near_s = _BOOT_S + 2 * size / _NEAR_BYTES_PER_S + len(todo.copies) * _PER_OBJECT_S / _NEAR_PARALLEL
        view = TransferView(
            id=id,
            source=source.url,
            target=target.url,
            source_place=source.place,
            target_place=target.place,
            state=TransferState.PLANNED,
            files=len(todo.copies),
            bytes=size,
            same=todo.same,
            removes=len(todo.removes),
            egress_micro_usd=-(-size * rate // _GB),
            egress_micro_usd_per_gb=rate,
            egress_note=traffic.note if rate or traffic.estimated else "",
            egress_as_of=traffic.as_of if rate else "",
            seconds=int(size / DEFAULT_BANDWIDTH_BYTES_PER_S + len(todo.copies) * _PER_OBJECT_S / PARALLEL)
            + 1,
            near_egress_micro_usd=-(-size * near.micro_usd_per_gb // _GB) if near is not None else 0,
            near_seconds=int(near_s) + 1 if near is not None and not inside else 0,
        )
        return Planned(source, target, todo, view)

    def _side(self, url: str) -> Side:
        opened = self._stores().open(url)
        key = opened.key
        return Side(opened.bucket, key if not key or key.endswith("/") else f"{key}/")

    def start(self, request: TransferRequest) -> TransferView:
        """Plan and begin. The same `key` again is the transfer that it began."""
        id = f"trf-{hashlib.sha256(request.key.encode()).hexdigest()[:20]}" if request.key else ""
        id = id or self._ids.new("trf")
        with self._lock:
            if (found := self._runs.get(id)) is not None:
                return found.view
            run = Run(self, id, request)
            self._runs[id] = run
        run.begin()
        return run.view

    def view(self, id: str) -> TransferView:
        """How far it is; one that a killed server left goes on. Raises `not-found`."""
        with self._lock:
            run = self._runs.get(id)
            if run is None:
                told = self._read(id)
                if told.view.state not in (TransferState.PLANNED, TransferState.RUNNING):
                    return told.view
                run = self._runs[id] = Run(self, id, told.request)
                run.view = told.view
                run.begin()
        return run.view

    def all(self) -> list[TransferView]:
        """Newest first; nothing is taken up again by looking."""
        paths = sorted(self._folder.glob("trf-*.json"), key=lambda path: -path.stat().st_mtime)
        return [
            run.view if (run := self._runs.get(path.stem)) is not None else self._read(path.stem).view
            for path in paths
        ]

    def cancel(self, id: str) -> None:
        """What was copied stays."""
        with self._lock:
            run = self._runs.get(id)
            told = None if run is not None else self._read(id)
        if run is not None:
            run.stop(TransferState.CANCELLED)
        elif told is not None and told.view.state in (TransferState.PLANNED, TransferState.RUNNING):
            view = msgspec.structs.replace(told.view, state=TransferState.CANCELLED)
            self.keep(_Journal(request=told.request, view=view))

    def close(self) -> None:
        """The server ends: threads stop at their next piece, and who comes next goes on."""
        self._stopping.set()
        for run in list(self._runs.values()):
            run.stop(None)

    # -- for runs -------------------------------------------------------------------------------------------

    def keep(self, journal: _Journal) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(self._folder / f"{journal.view.id}.json", msgspec.json.encode(journal))

    def _read(self, id: str) -> _Journal:
        path = self._folder / f"{id}.json"
        if not id.startswith("trf-") or "/" in id or not path.exists():
            raise ArgosyError(
                "not-found", f"there is no transfer `{id}`", hint="`argosy storage transfers` lists them"
            )
        return msgspec.json.decode(path.read_bytes(), type=_Journal)

    def now_s(self) -> float:
        return self._clock.monotonic_s()

    def wait(self, seconds: float) -> None:
        self._wait(seconds)


class _Journal(msgspec.Struct, frozen=True, kw_only=True):
    request: TransferRequest
    view: TransferView


class _Stopped(Exception):
    """The transfer is called off, or the server ends."""


class Run:
    """One transfer in a thread. `view` is how far it is."""

    def __init__(self, transfers: Transfers, id: str, request: TransferRequest) -> None:
        self._transfers, self._request = transfers, request
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._ends: TransferState | None = None
        self._told_s = -_TOLD_S
        self.view = TransferView(
            id=id, source=request.source, target=request.target, state=TransferState.PLANNED
        )
        self.thread = threading.Thread(target=self._work, name=id, daemon=True)

    def begin(self) -> None:
        self._keep(at_once=True)
        self.thread.start()

    def stop(self, state: TransferState | None) -> None:
        """None: it goes on with the next server."""
        self._ends = state
        self._stop.set()

    def _keep(self, *, at_once: bool = False) -> None:
        now_s = self._transfers.now_s()
        if at_once or now_s - self._told_s >= _TOLD_S:
            self._told_s = now_s
            self._transfers.keep(_Journal(request=self._request, view=self.view))

    def _change(self, **facts: object) -> None:
        self.view = msgspec.structs.replace(self.view, **facts)

    def _work(self) -> None:
        try:
            planned = self._transfers.plan(self._request, self.view.id)
            self._change(**{**msgspec.structs.asdict(planned.view), "state": TransferState.RUNNING})
            self._keep(at_once=True)
            self._copy_all(planned)
            if planned.todo.removes and not self.view.failed:
                planned.target.bucket.remove([planned.target.prefix + name for name in planned.todo.removes])
            self._change(state=TransferState.FAILED if self.view.failed else TransferState.DONE)
        except _Stopped:
            if self._ends is None:
                return
            self._change(state=self._ends)
        except ArgosyError as error:
            self._change(state=TransferState.FAILED, problem=error.problem())
        except Exception as error:  # noqa: BLE001  a thread's outermost handler: who looks sees what happened
            what = f"the transfer broke: {type(error).__name__}: {error}"
            self._change(state=TransferState.FAILED, problem=ArgosyError("internal", what).problem())
        self._keep(at_once=True)

    def _copy_all(self, planned: Planned) -> None:
        with ThreadPoolExecutor(PARALLEL) as pool:
            for error in pool.map(lambda entry: self._one(planned, entry), planned.todo.copies):
                if error is not None:
                    self._stop.set()
                    raise error
        if self._stop.is_set():
            raise _Stopped

    def _one(self, planned: Planned, entry: Entry) -> ArgosyError | None:
        """What must end everything; what only this object meets is told in the view."""
        for left in reversed(range(_TRIES)):
            if self._stop.is_set():
                return None
            try:
                self._copy(planned, entry)
                with self._lock:
                    self._change(files_done=self.view.files_done + 1)
                    self._keep()
                return None
            except _Stopped:
                return None
            except _FATAL as error:
                return error
            except StoreBusy as error:
                if not left:
                    return error
                self._transfers.wait(max(error.after_s, 0.5 * (_TRIES - left)))
            except ObjectMissing:
                return None  # it was removed meanwhile
            except BucketError as error:
                if not left or not isinstance(error, Damaged):
                    self._failed(entry, error)
                    return None
        return None

    def _failed(self, entry: Entry, error: BucketError) -> None:
        with self._lock:
            if len(self.view.failed) < 100:
                self._change(failed=(*self.view.failed, f"{entry.name}: {error.what}"))

    def _copy(self, planned: Planned, entry: Entry) -> None:
        """One object, whole and checked. Raises BucketError, _Stopped."""
        source, target = planned.source, planned.target
        name, to = source.prefix + entry.name, target.prefix + entry.name
        if source.bucket.url == target.bucket.url:
            source.bucket.copy(name, to)
            self._count(entry.size)
            return
        passed = _Passed(source.bucket.read(name, etag=entry.etag), self._count, self._stop)
        made = None
        try:
            made = target.bucket.write(to, passed, Extra(size=entry.size))
            if made.size != passed.count or passed.count != entry.size:
                raise Damaged(f"{target.bucket.url}/{to} has {made.size} of {entry.size} bytes", "repeat it")
            self._check(planned, passed.digest.hexdigest(), made.etag, to)
        except BaseException:
            self._count(-passed.count)
            raise

    def _check(self, planned: Planned, digest: str, etag: str, to: str) -> None:
        """That what is there is what was read: by the digest that the store tells, or by reading it again."""
        bucket = planned.target.bucket
        if digest == etag or (bucket.traits.md5_etags and "-" in etag):
            return  # of an object in parts, the store itself compared each with the MD5 that came with it
        again = hashlib.md5(usedforsecurity=False)
        for piece in bucket.read(to):
            again.update(piece)
        if again.hexdigest() != digest:
            raise Damaged(f"{bucket.url}/{to} is not what was sent", "repeat it")

    def _count(self, more: int) -> None:
        with self._lock:
            self._change(bytes_done=self.view.bytes_done + more)
            self._keep()


class _Passed:
    """Pieces that are counted and digested as they pass, until the transfer is stopped."""

    def __init__(
        self, pieces: Iterator[bytes], on_bytes: Callable[[int], None], stop: threading.Event
    ) -> None:
        self._pieces, self._on_bytes, self._stop = pieces, on_bytes, stop
        self.digest = hashlib.md5(usedforsecurity=False)
        self.count = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if self._stop.is_set():
                raise _Stopped
            self.digest.update(piece)
            self.count += len(piece)
            yield piece
            self._on_bytes(len(piece))
