"""Folders in tasks: `volumes: {/data: train:ro}` becomes files that a node places.

Where nodes see the folder's volume, `/data` is a link to it, and all nodes see the same bytes. Elsewhere a
folder that is only read is copied: as it is when the task is launched, and only what nodes do not have
travels.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import posixpath
from typing import Final

import msgspec

from argosy.model.access import Caller
from argosy.model.errors import ArgosyError
from argosy.model.folders import Access, Folder
from argosy.model.task import FileMount, Task, VolumeMount
from argosy.model.tree import CHUNK_BYTES, Entry, Tree
from argosy.server.folders import Folders
from argosy.storage.blobs import BlobStore
from argosy.storage.folders.beneath import Beneath, split

_FILES_MAX: Final = 200_000  # of one copy


class FolderMounts:
    def __init__(self, folders: Folders, blobs: BlobStore) -> None:
        self._folders, self._blobs = folders, blobs

    async def resolved(self, task: Task, caller: Caller) -> Task:
        """With a file mount for each of its volumes. Raises "not-found", "forbidden", "conflict", "usage"."""
        wanted = [each for each in task.volumes if each.folder]
        if not wanted:
            return task
        mounts = [await self._mount(each, caller) for each in wanted]
        return msgspec.structs.replace(task, file_mounts=(*task.file_mounts, *mounts))

    async def _mount(self, wanted: VolumeMount, caller: Caller) -> FileMount:
        least = Access.READ if wanted.read_only else Access.WRITE
        folder = await self._folders.find(caller, wanted.folder, least)
        volume, beneath = await self._folders.volume(folder.volume), await self._folders.beneath(folder)
        parts = split(wanted.sub_path)
        await asyncio.to_thread(beneath.list, wanted.sub_path)  # it is there
        source = f"folder:{folder.name}" + (f"/{'/'.join(parts)}" if parts else "")
        writes = self._folders.access_of(folder, caller) >= Access.WRITE
        if volume.node_path and writes:  # through a link nobody is held to reading
            place = posixpath.join(volume.node_path, folder.id, *parts)
            link = Entry(path=parts[-1] if parts else folder.name, kind="l", target=place)
            tree = Tree(entries=(link,), is_file=True)
        elif wanted.read_only:
            tree = await self._copied(folder, beneath, wanted.sub_path)
        else:
            raise ArgosyError(
                "conflict",
                f"`{wanted.target}`: nodes do not see the volume `{volume.name}` of `{folder.name}`, so that "
                "they cannot write there",
                hint=f"write `{wanted.folder}:ro` for a copy, or keep it on a volume that nodes see: "
                "argosy folder volumes --add NAME PATH --on-nodes PATH",
            )
        digest = await self._blobs.put_tree(msgspec.json.encode(tree))
        return FileMount(target=wanted.target, source=source, tree=digest, is_file=tree.is_file)

    async def _copied(self, folder: Folder, beneath: Beneath, path: str) -> Tree:
        """Its files as they are now, kept by content. Links are left out."""
        entries: list[Entry] = []
        walk = beneath.walk(path)
        while (found := await asyncio.to_thread(next, walk, None)) is not None:
            name, fd, st = found
            if len(entries) == _FILES_MAX:
                raise ArgosyError(
                    "too-large",
                    f"`{folder.name}` has more than {_FILES_MAX:,} files, too many for a copy",
                    hint="keep it on a volume that nodes see, or mount a part of it: NAME/PART:ro",
                )
            if not _is_text(name):
                raise ArgosyError(
                    "usage",
                    f"a name in `{folder.name}` is no UTF-8: {name!a}",
                    hint="rename it, then launch again",
                )
            if fd is None:
                entries.append(Entry(path=name, kind="d", mode=st.st_mode & 0o777))
                continue
            chunks = [await self._chunk(fd, at) for at in range(0, st.st_size, CHUNK_BYTES)]
            entries.append(
                Entry(path=name, kind="f", mode=st.st_mode & 0o777, size=st.st_size, chunks=tuple(chunks))
            )
        return Tree(entries=tuple(sorted(entries, key=lambda each: each.path)))

    async def _chunk(self, fd: int, at: int) -> str:
        def read() -> tuple[str, bytes]:
            data = os.pread(fd, CHUNK_BYTES, at)
            return hashlib.sha256(data).hexdigest(), data

        digest, data = await asyncio.to_thread(read)
        if await self._blobs.missing([digest]):
            await self._blobs.put(digest, data)
        return digest


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
