"""Copies between this machine and the server's buckets, and within the server: several at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from argosy.api.location import Location
from argosy.client.buckets import PARALLEL, Buckets, Place, is_same, parse_place
from argosy.model.errors import ArgosyError

_SIDES: Final = "places on the server are argosy://BUCKET/KEY; a folder here is copied with -r"


class Transfer:
    """Copies, several at once, with progress. `copied` and `removed` tell what was done, or would be."""

    def __init__(
        self, location: Location, cwd: Path, on_bytes: Callable[[int, int], None], *, dryrun: bool = False
    ) -> None:
        self.buckets = Buckets(location)
        self.dryrun = dryrun
        self.copied: list[tuple[str, str, int]] = []
        self.removed: list[str] = []
        self._cwd, self._on_bytes, self._bytes = cwd, on_bytes, 0

    def __enter__(self) -> Transfer:
        return self

    def __exit__(self, *_: object) -> None:
        self.buckets.close()

    def copy(self, source: str, target: str, *, recursive: bool, removes: bool = False) -> None:
        works = self._works(source, target, recursive=recursive)
        self._do(works)
        if removes:
            gone = [parse_place(each) or self._cwd / each for each, _, _ in self.copied]
            self._remove(gone)

    def sync(self, source: str, target: str, *, removes: bool) -> None:
        one, other = parse_place(source), parse_place(target)
        if (one is None) == (other is None):
            raise ArgosyError(
                "usage", "one side is a folder here and the other argosy://BUCKET/PREFIX", hint=_SIDES
            )
        works = self._works(source, target, recursive=True)
        at = one or other
        assert at is not None
        there = {each.key: each for each in self.buckets.every(_folder(at))}
        wanted = []
        for work in works:
            key, path = (work.there.key, work.here)
            stored = there.get(key)
            if stored is None or path is None or not is_same(path, stored):
                wanted.append(work)
        self._do(wanted)
        if not removes:
            return
        if other is not None:
            keys = {work.there.key for work in works}
            self._remove([Place(at.bucket, key) for key in there if key not in keys])
        else:
            folder = self._cwd / target
            kept = {work.here for work in works}
            self._remove([path for path in _files(folder) if path not in kept])

    def _remove(self, gone: Sequence[Path | Place]) -> None:
        keys: dict[str, list[str]] = {}
        for each in gone:
            if isinstance(each, Path):
                self.removed.append(str(each))
                if not self.dryrun:
                    each.unlink(missing_ok=True)
            else:
                self.removed.append(each.render())
                keys.setdefault(each.bucket, []).append(each.key)
        for bucket, some in keys.items() if not self.dryrun else ():
            self.buckets.remove(bucket, some)

    def _works(self, source: str, target: str, *, recursive: bool) -> list[_Work]:
        one, other = parse_place(source), parse_place(target)
        if one is None and other is None:
            raise ArgosyError(
                "usage", "one side is on the server: write it as argosy://BUCKET/KEY", hint=_SIDES
            )
        if one is None:
            assert other is not None
            return _uploads(self._cwd / source, other, recursive=recursive)
        if recursive:
            found = [(each.key, each.size) for each in self.buckets.every(_folder(one))]
            cut = len(_folder(one).key)
        else:
            stored = self.buckets.find(one)
            found = [(one.key, stored.size)] if stored is not None else []
            cut = one.key.rfind("/") + 1
        if not found:
            hint = f"`argosy storage ls {one.render()}` shows what begins with it; -r copies that"
            raise ArgosyError("not-found", f"there is no `{one.render()}`", hint=hint)
        to = other or self._cwd / target
        return [
            _Work.down(one.bucket, key, size, to, key[cut:], target, recursive=recursive)
            for key, size in found
        ]

    def _do(self, works: Sequence[_Work]) -> None:
        total = sum(work.size for work in works)

        def on_bytes(count: int) -> None:
            self._bytes += count
            self._on_bytes(self._bytes, total)

        def one(work: _Work) -> None:
            if not self.dryrun:
                work.do(self.buckets, on_bytes)

        with ThreadPoolExecutor(PARALLEL) as pool:
            for work, _ in zip(works, pool.map(one, works), strict=True):
                self.copied.append((work.source, work.target, work.size))


class _Work:
    """One copy. `here` None: both sides are on the server."""

    def __init__(self, here: Path | None, there: Place, size: int, act: Callable[..., Any]) -> None:
        self.here, self.there, self.size, self._act = here, there, size, act
        self.source = self.target = ""

    def do(self, buckets: Buckets, on_bytes: Callable[[int], None]) -> None:
        self._act(buckets, on_bytes)

    @classmethod
    def up(cls, path: Path, place: Place) -> _Work:
        work = cls(path, place, path.stat().st_size, lambda buckets, told: buckets.upload(path, place, told))
        work.source, work.target = str(path), place.render()
        return work

    @classmethod
    def down(
        cls, bucket: str, key: str, size: int, to: Path | Place, name: str, target: str, *, recursive: bool
    ) -> _Work:
        source = Place(bucket, key)
        if isinstance(to, Place):
            inside = recursive or not to.key or to.key.endswith("/")
            aim = Place(to.bucket, (_folder(to).key if recursive else to.key) + name if inside else to.key)

            def act(buckets: Buckets, told: Callable[[int], None]) -> None:
                buckets.copy(source, aim)
                told(size)

            work = cls(None, source, size, act)
            work.source, work.target = source.render(), aim.render()
            return work
        path = to / _inside(name) if recursive or target.endswith("/") or to.is_dir() else to
        work = cls(path, source, size, lambda buckets, told: buckets.download(source, path, told))
        work.source, work.target = source.render(), str(path)
        return work


def _inside(name: str) -> str:
    """A key as a path below a folder. Raises ArgosyError for one that would leave it."""
    parts = name.split("/")
    if name.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise ArgosyError(
            "usage", f"the object `{name}` cannot be a file below a folder", hint="copy it alone, with a name"
        )
    return name


def _folder(place: Place) -> Place:
    key = place.key if not place.key or place.key.endswith("/") else place.key + "/"
    return place._replace(key=key)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _uploads(source: Path, target: Place, *, recursive: bool) -> list[_Work]:
    if not source.exists():
        raise ArgosyError("not-found", f"there is no `{source}` here", hint="check the path")
    if source.is_dir():
        if not recursive:
            raise ArgosyError("usage", f"`{source}` is a folder: copy it with -r", hint=_SIDES)
        head = _folder(target)
        return [
            _Work.up(path, head._replace(key=head.key + path.relative_to(source).as_posix()))
            for path in _files(source)
        ]
    key = target.key + source.name if not target.key or target.key.endswith("/") else target.key
    return [_Work.up(source, target._replace(key=key))]
