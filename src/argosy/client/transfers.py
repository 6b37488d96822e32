"""Copies between this machine and object stores, and between stores: several at once, checked, and again from
where they broke off.

Files go straight to and from a store that signs addresses, else through the server; between two stores the
server copies.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from argosy.api.location import Location
from argosy.client.buckets import PARALLEL, Buckets, Place, Stored, is_same, parse_place
from argosy.client.direct import Direct, NotDirect, Sign
from argosy.client.landing import disk_full
from argosy.model.errors import ArgosyError
from argosy.model.syncing import Entry, Rules, Steps, fits, not_on_disk, same_objects, steps, wild_split
from argosy.model.units import many

_SIDES: Final = "stores are s3://BUCKET/KEY, argosy://BUCKET/KEY and others; a folder here is copied with -r"
_BATCH: Final = 500
_TRIES: Final = 3
#: What stops everything: the next file would meet it, too.
_FATAL: Final = frozenset(("forbidden", "unauthorized", "disk-full", "server-unreachable", "unsupported"))
_EVERYTHING: Final = Rules()
Side = Path | Place


class Work(NamedTuple):
    """One copy. `stored`: what the source is, where it is an object."""

    source: Side
    target: Side
    size: int
    stored: Stored | None = None

    def render(self) -> tuple[str, str, int]:
        return _said(self.source), _said(self.target), self.size


class Transfer:
    """Copies with progress. `copied`, `removed` and `failed` tell what was done, or would be."""

    def __init__(
        self,
        location: Location,
        cwd: Path,
        on_bytes: Callable[[int, int], None],
        *,
        sign: Sign,
        dryrun: bool = False,
        encryption: str = "",
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.buckets, self._direct = Buckets(location, encryption), Direct(sign, encryption)
        self.dryrun, self._wait = dryrun, wait
        self.copied: list[tuple[str, str, int]] = []
        self.removed: list[str] = []
        self.failed: list[tuple[str, ArgosyError]] = []
        self._cwd, self._on_bytes, self._bytes = cwd, on_bytes, 0

    def __enter__(self) -> Transfer:
        return self

    def __exit__(self, *_: object) -> None:
        self.buckets.close()
        self._direct.close()

    # -- what is asked for ----------------------------------------------------------------------------------

    def copy(
        self, source: str, target: str, *, recursive: bool, removes: bool = False, rules: Rules = _EVERYTHING
    ) -> None:
        works = self._works(source, target, recursive=recursive, rules=rules)
        done = self._do(works)
        if removes:
            self._remove([work.source for work in done])
        self._tell()

    def sync(self, source: str, target: str, *, removes: bool, rules: Rules = _EVERYTHING) -> None:
        one, other = self._side(source), self._side(target)
        if isinstance(one, Path) and isinstance(other, Path):
            raise ArgosyError("usage", "one side is an object store, and neither is", hint=_SIDES)
        have, had = self._listed(one, must_be=True), self._listed(other)
        todo = self._steps(one, other, have, had, rules, removes=removes)
        wanted = [each.name for each in todo.copies]
        self._do(self._between(one, other, {name: have[name] for name in wanted}))
        if todo.removes and not self.failed:
            self._remove([_below(other, name) for name in todo.removes])
        self._tell()

    def remove(self, place: Place, *, recursive: bool, rules: Rules = _EVERYTHING) -> None:
        prefix, pattern = wild_split(place.key)
        if recursive or pattern:
            found = self._under(Place(place.bucket, prefix), pattern, recursive=recursive, rules=rules)
            gone = [Place(place.bucket, key) for key in found]
        else:
            if self.buckets.find(place) is None:
                raise _nothing(place, "removes")
            gone = [place]
        self._remove(gone)

    def sizes(self, place: Place, rules: Rules = _EVERYTHING) -> list[int]:
        prefix, pattern = wild_split(place.key)
        at = Place(place.bucket, prefix)
        return [each.size for each in self._under(at, pattern, recursive=True, rules=rules).values()]

    # -- what there is --------------------------------------------------------------------------------------

    def _side(self, text: str) -> Side:
        place = parse_place(text)
        return self._cwd / text if place is None else _folder(place)

    def _listed(self, side: Side, *, must_be: bool = False) -> dict[str, Entry | Stored]:
        if isinstance(side, Path):
            if must_be and not side.is_dir():
                raise ArgosyError("not-found", f"there is no folder `{side}` here", hint="check the path")
            return {
                name: Entry(name=name, size=told.st_size, modified_ms=told.st_mtime_ns // 1_000_000)
                for name, told in _files(side)
            }
        cut = len(side.key)
        return {each.key[cut:]: each for each in self.buckets.every(side) if _is_file(each)}

    def _steps(
        self,
        one: Side,
        other: Side,
        have: dict[str, Entry | Stored],
        had: dict[str, Entry | Stored],
        rules: Rules,
        *,
        removes: bool,
    ) -> Steps:
        def same(source: Entry, target: Entry) -> bool:
            there = (have if isinstance(other, Path) else had)[source.name]
            path = one if isinstance(one, Path) else other
            if isinstance(path, Path) and isinstance(there, Stored):
                return is_same(path / source.name, there)
            return same_objects(source, target)

        mine = [_entry(name, each) for name, each in have.items()]
        theirs = [_entry(name, each) for name, each in had.items()]
        return steps(mine, theirs, same, rules, removes=removes)

    def _under(self, at: Place, pattern: str, *, recursive: bool, rules: Rules) -> dict[str, Stored]:
        """Objects by their keys: what begins with a place, or what a pattern fits."""
        patterns = [pattern, f"{pattern}/**"] if recursive else [pattern]
        if "/" not in pattern:
            patterns = [f"**/{each}" for each in patterns]
        cut = len(at.key)
        return {
            each.key: each
            for each in self.buckets.every(at)
            if (not pattern or any(fits(one, each.key) for one in patterns))
            and rules.takes(each.key[cut:] or each.key)
        }

    def _works(self, source: str, target: str, *, recursive: bool, rules: Rules) -> list[Work]:
        one, other = parse_place(source), parse_place(target)
        if one is None and other is None:
            raise ArgosyError("usage", "one side is an object store, and neither is", hint=_SIDES)
        if one is None:
            assert other is not None
            return _uploads(self._cwd / source, other, recursive=recursive, rules=rules)
        prefix, pattern = wild_split(one.key)
        if recursive and not pattern:
            at = _folder(one)
            found = self._under(at, "", recursive=True, rules=rules)
            cut = len(at.key)
        elif pattern:
            found = self._under(Place(one.bucket, prefix), pattern, recursive=recursive, rules=rules)
            cut = len(prefix)
        else:
            stored = self.buckets.find(one)
            found = {one.key: stored} if stored is not None else {}
            cut = one.key.rfind("/") + 1
        found = {key: each for key, each in found.items() if _is_file(each)}
        if not found:
            raise _nothing(one, "copies")
        many = recursive or bool(pattern)
        named = {key[cut:]: each for key, each in found.items()}
        if isinstance(other, Place):
            inside = many or not other.key or other.key.endswith("/")
            to: Side = _folder(other) if many else other
        else:
            to = self._cwd / target
            inside = many or target.endswith("/") or to.is_dir()
        if inside:
            return self._between(Place(one.bucket, ""), to, dict(named))
        only = next(iter(named.values()))
        return [Work(Place(one.bucket, only.key), to, only.size, only)]

    def _between(self, one: Side, other: Side, wanted: dict[str, Entry | Stored]) -> list[Work]:
        """Copies of these names. Those that a disk cannot hold are told at the end."""
        bad = not_on_disk(wanted) if isinstance(other, Path) else {}
        for name, why in bad.items():
            what = f"the object `{name}` cannot be a file below a folder: {why}"
            self.failed.append((name, ArgosyError("usage", what, hint="copy it alone, with a name")))
        works = []
        for name, each in wanted.items():
            if name in bad:
                continue
            stored = each if isinstance(each, Stored) else None
            source = Place(one.bucket, stored.key) if stored and isinstance(one, Place) else _below(one, name)
            works.append(Work(source, _below(other, name), each.size, stored))
        return works

    # -- what is done ---------------------------------------------------------------------------------------

    def _do(self, works: Sequence[Work]) -> list[Work]:
        """Those that were copied."""
        total = sum(work.size for work in works)
        if self.dryrun:
            self.copied += [work.render() for work in works]
            return []
        self._room(works)
        done: list[Work] = []
        with ThreadPoolExecutor(PARALLEL) as pool:
            for at in range(0, len(works), _BATCH):
                batch = works[at : at + _BATCH]
                self._prepare(batch)
                for work, error in zip(batch, pool.map(lambda w: self._one(w, total), batch), strict=True):
                    if error is None:
                        done.append(work)
                        self.copied.append(work.render())
                    else:
                        self.failed.append((work.render()[0], error))
                if any(error.code in _FATAL for _, error in self.failed):
                    self._tell()
        return done

    def _prepare(self, batch: Sequence[Work]) -> None:
        """All go the same way: up, down, or from store to store."""
        if isinstance(batch[0].source, Path):
            self._direct.prepare([w.target for w in batch if isinstance(w.target, Place)], "PUT")
        elif isinstance(batch[0].target, Path):
            self._direct.prepare([w.source for w in batch if isinstance(w.source, Place)], "GET")

    def _room(self, works: Sequence[Work]) -> None:
        """Raises `disk-full` before anything comes that has no room."""
        paths = [work.target for work in works if isinstance(work.target, Path)]
        if not paths:
            return
        folder = next(each for each in paths[0].parents if each.exists())
        needs, told = sum(work.size for work in works), os.statvfs(folder)
        if needs > told.f_bavail * told.f_frsize:
            raise disk_full(folder, needs)

    def _one(self, work: Work, total: int) -> ArgosyError | None:
        if any(error.code in _FATAL for _, error in self.failed):
            return self.failed[0][1]
        own = _Counted(self, total)
        for left in reversed(range(_TRIES)):
            try:
                self._act(work, own)
                return None
            except ArgosyError as error:
                if error.code != "transient" or not left:
                    return error
                self._wait(0.5 * (_TRIES - left))
            except OSError as error:
                return ArgosyError("usage", f"{work.render()[0]}: {error.strerror or error}", hint="check it")
            own.again()
        return None

    def _act(self, work: Work, on_bytes: _Counted) -> None:
        source, target = work.source, work.target
        if isinstance(source, Path) and isinstance(target, Place):
            try:
                self._direct.upload(source, target, on_bytes)
            except NotDirect:
                on_bytes.again()
                self.buckets.upload(source, target, on_bytes)
        elif isinstance(source, Place) and isinstance(target, Place):
            self.buckets.copy(source, target)
            on_bytes(work.size)
        elif isinstance(source, Place) and isinstance(target, Path) and work.stored is not None:
            try:
                self._direct.download(source, target, work.stored, on_bytes)
            except NotDirect:
                on_bytes.again()
                self.buckets.download(source, target, work.stored, on_bytes)

    def count(self, more: int, total: int) -> None:
        self._bytes += more
        self._on_bytes(self._bytes, total)

    def _remove(self, gone: Sequence[Side]) -> None:
        keys: dict[str, list[str]] = {}
        for each in gone:
            self.removed.append(_said(each))
            if isinstance(each, Place):
                keys.setdefault(each.bucket, []).append(each.key)
            elif not self.dryrun:
                each.unlink(missing_ok=True)
        for bucket, some in keys.items() if not self.dryrun else ():
            self.buckets.remove(bucket, some)

    def _tell(self) -> None:
        """Raises what went wrong, when something did."""
        if not self.failed:
            return
        first = next((e for _, e in self.failed if e.code in _FATAL), self.failed[0][1])
        if len(self.failed) == 1 and not self.copied:
            raise first
        lines = tuple(dict.fromkeys(error.what for _, error in self.failed))
        more = (f"and {len(lines) - 10} more",) if len(lines) > 10 else ()
        what = f"{len(self.failed)} of {many(len(self.failed) + len(self.copied), 'file')} were not copied"
        hint = f"{first.hint}; repeat the command for the rest" if first.hint else ""
        raise ArgosyError(first.code, what, hint=hint, details=(*lines[:10], *more))


class _Counted:
    """Bytes of one copy, which are taken back when it begins again."""

    def __init__(self, transfer: Transfer, total: int) -> None:
        self._transfer, self._total, self._count = transfer, total, 0

    def __call__(self, count: int) -> None:
        self._count += count
        self._transfer.count(count, self._total)

    def again(self) -> None:
        self._transfer.count(-self._count, self._total)
        self._count = 0


def _said(side: Side) -> str:
    return side.render() if isinstance(side, Place) else str(side)


def _below(side: Side, name: str) -> Side:
    return side._replace(key=side.key + name) if isinstance(side, Place) else side / name


def _entry(name: str, each: Entry | Stored) -> Entry:
    if isinstance(each, Entry):
        return each
    return Entry(name=name, size=each.size, modified_ms=each.modified_ms, etag=each.etag)


def _is_file(each: Stored) -> bool:
    """An empty object whose name ends in `/` only stands for a folder."""
    return not (each.key.endswith("/") and not each.size)


def _folder(place: Place) -> Place:
    key = place.key if not place.key or place.key.endswith("/") else place.key + "/"
    return place._replace(key=key)


def _nothing(place: Place, verb: str) -> ArgosyError:
    hint = f"`argosy storage ls {place.render()}` shows what begins with it; -r {verb} that"
    return ArgosyError("not-found", f"there is no `{place.render()}`", hint=hint)


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Files below a folder by their names with `/`, in order; what a copy left half done is none."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not (path.name.startswith(".") and path.name.endswith(".part")):
            yield path.relative_to(folder).as_posix(), path.stat()


def _uploads(source: Path, target: Place, *, recursive: bool, rules: Rules) -> list[Work]:
    if not source.exists():
        raise ArgosyError("not-found", f"there is no `{source}` here", hint="check the path")
    if source.is_dir():
        if not recursive:
            raise ArgosyError("usage", f"`{source}` is a folder: copy it with -r", hint=_SIDES)
        head = _folder(target)
        return [
            Work(source / name, head._replace(key=head.key + name), told.st_size)
            for name, told in _files(source)
            if rules.takes(name)
        ]
    key = target.key + source.name if not target.key or target.key.endswith("/") else target.key
    return [Work(source, target._replace(key=key), source.stat().st_size)]
