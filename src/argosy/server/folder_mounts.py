"""Folders in tasks: `volumes: {/data: train:ro}` becomes files that a node places.

Where nodes see the folder's volume, `/data` is a link to it, and all nodes see the same bytes. Elsewhere a
folder that is only read is copied: as it is when the task is launched, and only what nodes do not have
travels. One that is written is mounted through the server (`node_folders`), and so is one that is too large
for a copy. Folders whose name begins with a dot come without being asked for, at `~/NAME`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import posixpath
import stat
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from argosy.model.access import Caller, Target
from argosy.model.errors import ArgosyError
from argosy.model.folders import Access, Folder
from argosy.model.own_volumes import type_of
from argosy.model.task import FileMount, Task, VolumeMount
from argosy.model.tree import CHUNK_BYTES, Entry, Tree
from argosy.model.units import many, render_bytes
from argosy.server.folders import Folders
from argosy.server.guarding import require
from argosy.server.keeping import Elsewhere
from argosy.storage.blobs import BlobStore
from argosy.storage.folders.beneath import Beneath, split

_log: Final = logging.getLogger(__name__)
_FILES_MAX: Final = 200_000  # of one copy
_LINE_BYTES_S: Final = 125_000_000  # of what is told of times
_SPEED: Final = "at 1 Gbit/s 1 GB in 8 s"
_DOT_FILES_MAX: Final = 10_000  # of a copy that nobody asked for by name
_DOT_BYTES_MAX: Final = 256 << 20


class Resolved(NamedTuple):
    """A folder that a task gets without asking."""

    volume: VolumeMount
    mount: FileMount


class FolderMounts:
    def __init__(self, folders: Folders, blobs: BlobStore) -> None:
        self._folders, self._blobs = folders, blobs

    async def resolved(self, task: Task, caller: Caller, owner: str = "", *, links: bool = True) -> Task:
        """With a file mount for each of its volumes; folders that have a size are made when they are missing,
        and are `owner`'s then. `links` False: what runs could not follow one. Raises "not-found",
        "forbidden", "conflict", "usage"."""
        volumes, mounts = list[VolumeMount](), list[FileMount]()
        for each in task.volumes:
            if not each.folder:
                volumes.append(msgspec.structs.replace(each, is_linked=False, is_served=False))
                if not type_of(each):
                    mounts.append(await self._of_nodes(each))
                continue
            await self._make(each, caller, owner)
            folder, place = await self._found(each, caller, links=links)
            served = not place and await self._is_served(each, folder, links=links)
            if not served:
                mounts.append(await self._mount(each, folder, place))
            volumes.append(
                msgspec.structs.replace(
                    each,
                    folder=folder.id,
                    name=folder.name,
                    is_linked=bool(place),
                    is_served=served,
                    as_user=caller.name,
                )
            )
        if not volumes:
            return task
        return msgspec.structs.replace(task, volumes=tuple(volumes), file_mounts=(*task.file_mounts, *mounts))

    async def dots(self, caller: Caller, owner: str, *, links: bool = True) -> list[Resolved]:
        """The dot folders of `owner`, each at `~/NAME`. What cannot be copied is left out; `told` says so."""
        found = []
        for folder in await self._dots_of(caller, owner):
            wanted = VolumeMount(target=f"~/{folder.name}", folder=folder.id, read_only=True)
            try:
                _, place = await self._found(wanted, caller, links=links)
                if not place:
                    await self._check_small(folder)
                mount = await self._mount(wanted, folder, place)
            except Elsewhere:
                raise
            except ArgosyError as error:
                _log.warning("the dot folder %s is left out: %s", folder.id, error.what)
                continue
            volume = msgspec.structs.replace(wanted, is_linked=bool(place), read_only=not place)
            found.append(Resolved(volume, mount))
        return found

    async def told(self, task: Task, caller: Caller, owner: str = "") -> tuple[str, ...]:
        """What nodes will get for each volume of the task, and for the dot folders of `owner`; with what a
        copy costs."""
        lines = []
        for each in task.volumes:
            if not each.folder:
                lines += [] if type_of(each) else [_node_line(each)]
            elif await self._is_new(each, caller):
                size = render_bytes(each.size_bytes)
                lines.append(f"`{each.target}` is a new folder, `{each.folder}`, with a quota of {size}")
            else:
                folder, place = await self._found(each, caller)
                lines.append(await self._line(each, folder, place, task.num_nodes))
        for folder in await self._dots_of(caller, owner):
            wanted = VolumeMount(target=f"~/{folder.name}", folder=folder.id, read_only=True)
            if wanted.target in targets_of(task):
                continue
            try:
                _, place = await self._found(wanted, caller)
                if not place:
                    await self._check_small(folder)
                lines.append(await self._line(wanted, folder, place))
            except Elsewhere:
                raise
            except ArgosyError as error:
                lines.append(f"`{folder.name}` is left out: {error.what}")
        return tuple(lines)

    async def _is_new(self, wanted: VolumeMount, caller: Caller) -> bool:
        """Whether it is to be made."""
        if not wanted.size_bytes:
            return False
        try:
            await self._folders.find(caller, wanted.folder)
        except ArgosyError as error:
            if error.code != "not-found":
                raise
            return True
        return False

    async def _make(self, wanted: VolumeMount, caller: Caller, owner: str) -> None:
        """A folder with a size that is not there yet: its quota."""
        if await self._is_new(wanted, caller):
            project = caller.project or "default"
            require(caller, Target(project, caller.name), "folders.write")
            folder = Folder(
                id="",
                created_ms=0,
                name=wanted.folder,
                project=project,
                owner=owner or caller.name,
                quota_bytes=wanted.size_bytes,
            )
            made = await self._folders.make(caller, folder)
            if wanted.sub_path:
                beneath = await self._folders.beneath(made)
                await asyncio.to_thread(beneath.make_folder, wanted.sub_path)

    async def _of_nodes(self, wanted: VolumeMount) -> FileMount:
        """An empty folder of each node."""
        digest = await self._blobs.put_tree(msgspec.json.encode(Tree(entries=())))
        return FileMount(target=wanted.target, source="volume:", tree=digest)

    async def _dots_of(self, caller: Caller, owner: str) -> list[Folder]:
        """Of several with one name that of the caller's project."""
        if not owner:
            return []
        here = caller.project or "default"
        mine = [
            folder
            for folder, has in await self._folders.all(caller)
            if folder.is_dot and folder.owner == owner and has and not folder.trashed_ms
        ]
        mine.sort(key=lambda folder: folder.project == here)
        return sorted({folder.name: folder for folder in mine}.values(), key=lambda folder: folder.name)

    async def _found(self, wanted: VolumeMount, caller: Caller, *, links: bool = True) -> tuple[Folder, str]:
        """The folder, and where nodes see it; "": they get a copy. Raises as `resolved`."""
        least = Access.READ if wanted.read_only else Access.WRITE
        folder = await self._folders.find(caller, wanted.folder, least)
        volume, beneath = (
            await self._folders.volumes.named(folder.volume),
            await self._folders.beneath(folder),
        )
        parts = split(wanted.sub_path)
        await asyncio.to_thread(beneath.list, wanted.sub_path)  # it is there
        writes = self._folders.access_of(folder, caller) >= Access.WRITE
        if links and volume.node_path and writes:  # through a link nobody is held to reading
            return folder, posixpath.join(volume.node_path, folder.id, *parts)
        if not wanted.read_only and not links:
            raise ArgosyError(
                "conflict",
                f"`{wanted.target}`: a session cannot write to the folder `{folder.name}` itself",
                hint=f"write `{wanted.folder}:ro` for a copy; results go back with argosy folder upload",
            )
        return folder, ""

    async def _is_served(self, wanted: VolumeMount, folder: Folder, *, links: bool) -> bool:
        """Whether nodes reach it through the server, instead of getting a copy beforehand. Raises "usage" for
        a file."""
        if wanted.read_only:
            files, _ = await self._size(folder, wanted.sub_path, _FILES_MAX)
            return links and files > _FILES_MAX
        beneath = await self._folders.beneath(folder)
        there = await asyncio.to_thread(beneath.stat, wanted.sub_path) if wanted.sub_path else None
        if there is not None and not stat.S_ISDIR(there.st_mode):
            raise ArgosyError(
                "usage",
                f"`{wanted.target}`: `{wanted.sub_path}` of `{folder.name}` is a file, which is only read",
                hint="name the folder that it is in, or write `:ro` for a copy",
            )
        return True

    async def _mount(self, wanted: VolumeMount, folder: Folder, place: str) -> FileMount:
        parts = split(wanted.sub_path)
        if place:
            link = Entry(path=parts[-1] if parts else folder.name, kind="l", target=place)
            tree = Tree(entries=(link,), is_file=True)
        else:
            tree = await self._copied(folder, await self._folders.beneath(folder), wanted.sub_path)
        digest = await self._blobs.put_tree(msgspec.json.encode(tree))
        source = _called(folder, wanted)
        return FileMount(target=wanted.target, source=source, tree=digest, is_file=tree.is_file)

    async def _line(self, wanted: VolumeMount, folder: Folder, place: str, nodes: int = 1) -> str:
        name = _called(folder, wanted).removeprefix("folder:")
        if place:
            return f"`{wanted.target}` is a link to {place}: all nodes see `{name}` itself, nothing travels"
        files, size = await self._size(folder, wanted.sub_path, _FILES_MAX)
        if files > _FILES_MAX:
            return (
                f"`{wanted.target}` is `{name}` itself, mounted through the server, as more than "
                f"{_FILES_MAX:,} files are no copy: what is read travels, {_SPEED}; nodes need rclone and "
                "FUSE"
            )
        cost = f"{many(files, 'file')} ({_cost(size, nodes)})"
        if wanted.read_only:
            return (
                f"`{wanted.target}` is a copy of `{name}`, as it is at the launch: {cost} through the "
                "server, what a node has already does not travel again"
            )
        return (
            f"`{wanted.target}` is `{name}` itself, mounted through the server where nodes have rclone and "
            f"FUSE: only what is read and written travels, {_SPEED}; elsewhere a copy, {cost}, whose changes "
            "go back at the end, at most as fast; out of a cloud they are its egress"
        )

    async def _size(self, folder: Folder, path: str, most: int) -> tuple[int, int]:
        """Files and bytes; more than `most` files are not looked at."""
        beneath = await self._folders.beneath(folder)

        def count() -> tuple[int, int]:
            files = size = 0
            for _, fd, st in beneath.walk(path, opens=False):
                if fd is not None:
                    files, size = files + 1, size + st.st_size
                if files > most:
                    break
            return files, size

        return await asyncio.to_thread(count)

    async def _check_small(self, folder: Folder) -> None:
        """Raises "too-large" for a dot folder that would make every launch slow."""
        files, size = await self._size(folder, "", _DOT_FILES_MAX)
        if files > _DOT_FILES_MAX or size > _DOT_BYTES_MAX:
            raise ArgosyError(
                "too-large",
                f"a dot folder that is copied has at most {_DOT_FILES_MAX:,} files and "
                f"{render_bytes(_DOT_BYTES_MAX)}",
                hint="keep it on a volume that nodes see, or name it in `volumes`",
            )

    async def _copied(self, folder: Folder, beneath: Beneath, path: str) -> Tree:
        """Its files as they are now, kept by content, and links, which lead where they say on a node."""
        entries: list[Entry] = []
        walk = beneath.walk(path, links=True)
        while (found := await asyncio.to_thread(next, walk, None)) is not None:
            name, fd, st = found
            if len(entries) == _FILES_MAX:
                raise _too_many(folder, _FILES_MAX)
            if not _is_text(name):
                raise ArgosyError(
                    "usage",
                    f"a name in `{folder.name}` is no UTF-8: {name!a}",
                    hint="rename it, then launch again",
                )
            if stat.S_ISLNK(st.st_mode):
                target = await asyncio.to_thread(beneath.read_link, f"{path}/{name}" if path else name)
                if _is_text(target) and target:
                    entries.append(Entry(path=name, kind="l", target=target))
                continue
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


def with_dots(task: Task, dots: Sequence[Resolved]) -> Task:
    """With the dot folders for whose place the task has nothing of its own."""
    taken = targets_of(task)
    new = [each for each in dots if each.volume.target not in taken]
    if not new:
        return task
    return msgspec.structs.replace(
        task,
        volumes=(*task.volumes, *(each.volume for each in new)),
        file_mounts=(*task.file_mounts, *(each.mount for each in new)),
    )


def targets_of(task: Task) -> set[str]:
    """Where the task has files of its own."""
    own = [*(each.target for each in task.volumes), *(each.target for each in task.file_mounts)]
    own += [each.target for each in task.storage_mounts]
    return {target.rstrip("/") for target in own}


def _node_line(wanted: VolumeMount) -> str:
    size = f"; {render_bytes(wanted.size_bytes)} are not set aside" if wanted.size_bytes else ""
    return f"`{wanted.target}` is an empty folder on each node's own disk, and goes with the node{size}"


def _cost(size: int, nodes: int) -> str:
    """Bytes, and how long they take where that is worth telling.

    >>> _cost(3_400_000_000, 4)
    '3.2 GB to each of 4 nodes, 27 s each at 1 Gbit/s'
    """
    each = f" to each of {nodes} nodes" if nodes > 1 else ""
    seconds = size // _LINE_BYTES_S
    slow = f", {seconds} s{' each' if each else ''} at 1 Gbit/s" if seconds else ""
    return render_bytes(size) + each + slow


def _called(folder: Folder, wanted: VolumeMount) -> str:
    return "/".join((f"folder:{folder.name}", *split(wanted.sub_path)))


def _too_many(folder: Folder, most: int) -> ArgosyError:
    return ArgosyError(
        "too-large",
        f"`{folder.name}` has more than {most:,} files, too many for a copy",
        hint="keep it on a volume that nodes see, or mount a part of it: NAME/PART:ro",
    )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
