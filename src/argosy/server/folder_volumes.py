"""The volumes of folders: paths of the server, and buckets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from argosy.infra.buckets import OpensBuckets
from argosy.model.errors import ArgosyError
from argosy.model.folders import OWN_VOLUME, Folder, Volume, check_folder_name
from argosy.model.ids import Clock, Ids
from argosy.storage.folders.disk import VolumeDisk
from argosy.store.store import Store


def no_stores() -> OpensBuckets:
    raise ArgosyError("unsupported", "this server has no object stores")


class FolderVolumes:
    """`stores`: object stores as they are now."""

    def __init__(
        self, store: Store, clock: Clock, ids: Ids, state_dir: Path, stores: Callable[[], OpensBuckets]
    ) -> None:
        self._store, self._clock, self._ids, self._stores = store, clock, ids, stores
        self._own = state_dir / "folders"
        self._disks: dict[str, VolumeDisk] = {}

    async def all(self) -> list[Volume]:
        rows = await self._store.snapshot()
        made = [each for each in rows.people.values() if isinstance(each, Volume)]
        own = Volume(id=OWN_VOLUME, created_ms=0, name=OWN_VOLUME, path=str(self._own))
        return sorted([own, *made], key=lambda each: each.name)

    async def named(self, name: str) -> Volume:
        """Raises "not-found"."""
        for each in await self.all():
            if each.name == name:
                return each
        raise ArgosyError(
            "not-found", f"there is no volume `{name}`", hint="`argosy folder volumes` lists them"
        )

    async def add(self, name: str, path: str, node_path: str) -> Volume:
        """Raises "usage", "conflict", and a BucketError."""
        check_folder_name(name)
        root: Path | str = Path(path)
        if "://" in path:
            root = path.rstrip("/")
            if node_path:
                raise ArgosyError(
                    "usage", f"{path} is a bucket, which nodes see through the server", hint="no --on-nodes"
                )
            await asyncio.to_thread(self._look_at, path)
        elif not Path(path).is_absolute() or not Path(path).is_dir():
            raise ArgosyError(
                "usage",
                f"`{path}` is no folder of the server",
                hint="an absolute path that is there, or the URL of a bucket",
            )
        if any(each.name == name or each.path == str(root) for each in await self.all()):
            raise ArgosyError("conflict", f"the volume `{name}` or its path is there already")
        new = Volume(
            id=self._ids.new("vol"),
            created_ms=self._clock.now_ms(),
            name=name,
            path=str(root),
            node_path=node_path,
        )
        [made] = await self._store.commit([new])
        assert isinstance(made, Volume)
        return made

    def _look_at(self, url: str) -> None:
        """Raises a BucketError for a bucket that cannot be used."""
        opened = self._stores().open(url)
        if not opened.bucket.traits.writes:
            raise ArgosyError("usage", f"{url} can only be read", hint="name a bucket that can be written")
        opened.bucket.page(prefix=opened.key, most=1)

    async def remove(self, name: str) -> None:
        """Raises "not-found", "conflict"."""
        volume = await self.named(name)
        rows = await self._store.snapshot()
        held = [
            each.name for each in rows.people.values() if isinstance(each, Folder) and each.volume == name
        ]
        if volume.id == OWN_VOLUME or held:
            why = f"folders are on it, such as `{held[0]}`" if held else "it is the server's own"
            raise ArgosyError(
                "conflict", f"the volume `{name}` stays: {why}", hint="remove its folders first"
            )
        await self._store.commit([msgspec.structs.replace(volume, removed_ms=self._clock.now_ms())])

    def disk_of(self, volume: Volume) -> VolumeDisk:
        """Raises a BucketError."""
        known = self._disks.get(volume.path)
        if known is None:
            known = self._bucket_volume(volume) if volume.is_bucket else VolumeDisk(Path(volume.path))
            self._disks[volume.path] = known
        return known

    def _bucket_volume(self, volume: Volume) -> VolumeDisk:
        from argosy.storage.folders.bucket_volume import BucketVolume  # not before there is one

        opened = self._stores().open(volume.path)
        return BucketVolume(opened.bucket, opened.key, self._own.parent / "folder-buckets" / volume.name)
