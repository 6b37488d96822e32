"""Virtual folders of this server: which is meant, who may do what, and their rows and bytes changed together.

A row is written before the disk is touched; what is done to the disk is safe to repeat, and is repeated when
the folder is used next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from argosy.identity.deciding import may, visible
from argosy.infra.buckets import OpensBuckets
from argosy.model.access import NOBODY, Caller, Target
from argosy.model.errors import ArgosyError
from argosy.model.folders import (
    OWN_VOLUME,
    WORDS,
    Access,
    Folder,
    FolderGrant,
    Turn,
    access,
    answered,
    check_folder_name,
    check_room,
    used_for,
)
from argosy.model.ids import Clock, Ids
from argosy.server.folder_volumes import FolderVolumes, no_stores
from argosy.server.guarding import forbidden
from argosy.server.keeping import Keeping
from argosy.storage.folders.beneath import Beneath
from argosy.storage.folders.disk import VolumeDisk
from argosy.store.errors import Conflict
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store

_TRIES: Final = 20  # when several change one folder at a time


class Folders:
    """`state_dir`: the volume `server` is a folder of it; `stores`: object stores as they are now."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ids: Ids,
        state_dir: str,
        stores: Callable[[], OpensBuckets] = no_stores,
    ) -> None:
        self._store, self._clock, self._ids = store, clock, ids
        self.volumes = FolderVolumes(store, clock, ids, Path(state_dir), stores)
        self.keeping = Keeping()

    # -- which is meant, and what the caller may -----------------------------------------------------

    def access_of(self, folder: Folder, caller: Caller) -> Access:
        """What the caller may do with it. What a project was given, its members have as far as their role
        goes; a credential for other projects opens nothing."""
        limit = caller.limit
        if limit is not None and limit.projects is not None and folder.project not in limit.projects:
            return Access.NOTHING
        now_ms = self._clock.now_ms()
        manages = bool(may(caller, "members.write", Target(folder.project)))
        writes = access(folder, caller.name, _projects(caller, "folders.write"), now_ms, manages=manages)
        if writes >= Access.READ:
            return writes
        reads = access(folder, caller.name, _projects(caller, "folders.read"), now_ms, manages=manages)
        return min(reads, Access.READ)

    async def find(self, caller: Caller, name: str, least: Access = Access.READ) -> Folder:
        """The folder that is meant, by id or name: one's own first. Raises "not-found" for what the caller
        may not see, "forbidden" for what they may see and not do."""
        rows = await self._store.snapshot()
        found = [each for each in self._called(rows, caller, name) if self.access_of(each, caller)]
        if not found:
            raise no_folder(name)
        folder = found[0]
        if len(found) > 1 and folder.project != found[1].project and folder.owner != caller.name:
            where = ", ".join(sorted(each.project for each in found))
            raise ArgosyError(
                "conflict", f"there are several folders `{name}`: in {where}", hint="name its id"
            )
        has = self.access_of(folder, caller)
        if has < least:
            raise forbidden(f"you have `{WORDS[has]}` on `{folder.name}`, and this needs `{WORDS[least]}`")
        return folder

    async def usable(self, id: str, name: str, least: Access) -> tuple[Folder, Access]:
        """The folder of what runs for `name`, and what they may do with it now; "": it was launched over the
        socket. Raises "not-found", "forbidden", and "conflict" for one in the trash."""
        rows = await self._store.snapshot()
        folder = rows.people.get(id)
        if not isinstance(folder, Folder) or not folder.is_live:
            raise no_folder(id)
        if folder.trashed_ms:
            raise in_trash(folder)
        has = self.access_of(folder, _now(rows, name)) if name else Access.MANAGE
        if has < least:
            raise forbidden(
                f"`{name}` has `{WORDS[has]}` on `{folder.name}`, and this needs `{WORDS[least]}`"
            )
        return folder, has

    def _called(self, rows: Snapshot, caller: Caller, name: str) -> list[Folder]:
        by_id = rows.people.get(name)
        if isinstance(by_id, Folder):
            return [by_id]
        found = [each for each in rows.people.values() if isinstance(each, Folder) and each.name == name]
        if name.startswith("."):
            found = [each for each in found if each.owner == caller.name or not caller.name]
        here = caller.project or "default"
        return sorted(
            found, key=lambda each: (bool(each.trashed_ms), each.owner != caller.name, each.project != here)
        )

    async def all(self, caller: Caller) -> list[tuple[Folder, Access]]:
        """Folders that the caller may use or was invited to."""
        rows = await self._store.snapshot()
        found = []
        for each in rows.people.values():
            if isinstance(each, Folder):
                has = self.access_of(each, caller)
                asked = any(one.to == caller.name and caller.name for one in each.invitations)
                if has or (asked and not each.trashed_ms):
                    found.append((each, has))
        return sorted(found, key=lambda pair: (pair[0].name, pair[0].created_ms))

    async def check_known(self, to: str) -> None:
        """Raises "not-found" for somebody whom nobody knows: who gets such a name later would have what was
        given to it."""
        rows = await self._store.snapshot()
        kind, _, project = to.partition(":")
        if kind == "project" and project:
            if not _has_project(rows, project):
                hint = f"`argosy project create {project}` makes it; `argosy project ls` lists them"
                raise ArgosyError("not-found", f"there is no project `{project}`", hint=hint)
            return
        if not to or ":" in to:
            raise ArgosyError("usage", f"`{to}` is nobody", hint="a user's name, or project:NAME")
        if not _has_accounts(rows):
            why = "this server has no accounts, and whoever reaches it has every folder"
            hint = f"`argosy user add {to}` makes the account; then share it"
            raise ArgosyError("not-found", f"there is no user `{to}`: {why}", hint=hint)
        from argosy.identity.directory import user_called  # not before there is an account

        if user_called(rows, to) is None:
            raise ArgosyError(
                "not-found",
                f"there is no user `{to}`",
                hint="`argosy user ls` lists them; to a whole project: project:NAME",
            )

    # -- changes --------------------------------------------------------------------------------------

    async def make(self, caller: Caller, wanted: Folder, source: Folder | None = None) -> Folder:
        """A new folder, empty or a clone. Raises "usage", "conflict", "not-found", "disk-full"."""
        check_folder_name(wanted.name)
        used_for(wanted, wanted.use)
        disk = await self.disk(wanted)
        if source is not None and source.volume != wanted.volume:
            raise ArgosyError(
                "usage",
                f"`{source.name}` is on the volume `{source.volume}`, and a clone stays on its volume",
                hint=f"leave --volume away, or make it on {source.volume}",
            )
        new = msgspec.structs.replace(wanted, id=self._ids.new("fld"), created_ms=self._clock.now_ms())
        if not new.owner:
            new = msgspec.structs.replace(new, grants=(FolderGrant(to=f"project:{new.project}", level="rw"),))
        if source is not None:
            used = await asyncio.to_thread(disk.used_bytes, source.id)
            check_room(new, used)
            new = msgspec.structs.replace(new, used_bytes=used, counted_ms=new.created_ms)
        try:
            [made] = await self._store.commit([new])
        except Conflict:
            raise _taken(new.name) from None
        assert isinstance(made, Folder)
        try:
            if source is not None:
                await asyncio.to_thread(disk.clone, source.id, made.id, made.quota_bytes)
            held = await asyncio.to_thread(disk.make, made.id, made.quota_bytes)
        except (ArgosyError, OSError):
            await self._store.commit([msgspec.structs.replace(made, removed_ms=self._clock.now_ms())])
            raise
        return await self._note(made, quota_by=held) if held else made

    async def change(self, caller: Caller, name: str, turn: Turn, least: Access) -> Folder:
        """Write what `turn` makes of the folder. Raises what it raises, and what `find` does."""
        for _ in range(_TRIES):
            folder = await self.find(caller, name, least)
            changed = turn(folder)
            if _on_disk(changed) != _on_disk(folder):
                await self.disk(folder)
            renamed = bool(changed.unique) and changed.unique != folder.unique
            if renamed and (await self._store.snapshot()).entry_called(changed.unique) is not None:
                raise _taken(folder.name)
            try:
                [written] = await self._store.commit([changed])
            except Conflict:
                continue  # somebody else was faster: look again
            assert isinstance(written, Folder)
            return await self._carry_out(folder, written)
        raise ArgosyError(
            "conflict", f"`{name}` is being changed by several people at once", hint="try again"
        )

    async def _carry_out(self, before: Folder, after: Folder) -> Folder:
        if _on_disk(after) == _on_disk(before):
            return after
        disk = await self.disk(after)
        if bool(after.trashed_ms) != bool(before.trashed_ms):
            await asyncio.to_thread(disk.trash if after.trashed_ms else disk.restore, after.id)
        if after.quota_bytes != before.quota_bytes:
            held = await asyncio.to_thread(disk.limit, after.id, after.quota_bytes)
            return await self._note(after, quota_by=held)
        return after

    async def answer(self, name: str, folder_name: str, now_ms: int, *, accepts: bool) -> Folder:
        """Whoever was invited says yes or no. Raises "not-found", "conflict"."""
        for _ in range(_TRIES):
            rows = await self._store.snapshot()
            asked = _invited(rows, name, folder_name)
            changed = answered(asked, name, now_ms, accepts=accepts)
            try:
                [written] = await self._store.commit([changed])
            except Conflict:
                continue
            assert isinstance(written, Folder)
            return written
        raise ArgosyError(
            "conflict", f"`{folder_name}` is being changed by several people at once", hint="try again"
        )

    async def add_used(self, folder: Folder, more_bytes: int) -> Folder:
        """What came or went through us."""
        return await self._note(folder, more_bytes=more_bytes)

    async def _note(
        self, folder: Folder, *, more_bytes: int = 0, counted: int | None = None, quota_by: str | None = None
    ) -> Folder:
        """Written beside whatever else changes in it. `counted`: all bytes that there are."""
        for _ in range(_TRIES):
            rows = await self._store.snapshot()
            now = rows.people.get(folder.id)
            if not isinstance(now, Folder):
                return folder
            used = max(0, now.used_bytes + more_bytes) if counted is None else counted
            counted_ms = now.counted_ms if counted is None else self._clock.now_ms()
            changed = msgspec.structs.replace(now, used_bytes=used, counted_ms=counted_ms)
            if quota_by is not None:
                changed = msgspec.structs.replace(changed, quota_by=quota_by)
            if msgspec.structs.replace(changed, counted_ms=now.counted_ms) == now and now.counted_ms:
                return changed  # nothing new: no row is written for the time alone
            try:
                [written] = await self._store.commit([changed])
            except Conflict:
                continue
            assert isinstance(written, Folder)
            return written
        return folder

    async def count(self, folder: Folder) -> Folder:
        """Count its bytes on the disk."""
        disk = await self.disk(folder)
        return await self._note(folder, counted=await asyncio.to_thread(disk.used_bytes, folder.id))

    # -- their bytes ------------------------------------------------------------------------------------

    async def disk(self, folder: Folder) -> VolumeDisk:
        """Raises Elsewhere."""
        if folder.volume == OWN_VOLUME:
            self.keeping.check()
        return self.volumes.disk_of(await self.volumes.named(folder.volume))

    async def beneath(self, folder: Folder) -> Beneath:
        """Its files; it is made on the disk when it is not there yet."""
        if folder.trashed_ms:
            raise in_trash(folder)
        disk = await self.disk(folder)
        if not await asyncio.to_thread(disk.is_made, folder.id):
            await asyncio.to_thread(disk.make, folder.id, folder.quota_bytes)
        return disk.beneath(folder.id)


def _invited(rows: Snapshot, name: str, folder_name: str) -> Folder:
    """The folder to which somebody was invited; an empty one: there is none."""
    for each in rows.people.values():
        is_meant = isinstance(each, Folder) and folder_name in (each.id, each.name)
        if isinstance(each, Folder) and is_meant and any(one.to == name for one in each.invitations):
            return each
    return Folder(id="", created_ms=0, name=folder_name, project="")


def _on_disk(folder: Folder) -> tuple[bool, int]:
    """What of a folder the disk knows, too."""
    return bool(folder.trashed_ms), folder.quota_bytes


def _now(rows: Snapshot, name: str) -> Caller:
    """Somebody with the rights of now; of who is no more, or may not come in, none."""
    from argosy.identity.directory import Directory, user_called  # not before there is an account

    user = user_called(rows, name)
    if user is None or not user.is_live or user.is_disabled:
        return NOBODY
    return Caller(id=user.id, name=user.name, via="job", grants=tuple(Directory().grants_of(rows, user)))


def _projects(caller: Caller, permission: str) -> frozenset[str]:
    seen = visible(caller, permission)
    return (seen.whole or frozenset()) | (seen.own or frozenset())


def _has_accounts(rows: Snapshot) -> bool:
    """Whether names mean accounts."""
    from argosy.model.people import User

    return any(isinstance(each, User) for each in rows.people.values())


def _has_project(rows: Snapshot, name: str) -> bool:
    """Whether it was made, or, where none was, whether something is in it."""
    from argosy.model.people import Project

    if name == "default" or rows.entry_called(f"project:{name}") is not None:
        return True
    if any(isinstance(each, Project) for each in rows.people.values()):
        return False
    folders = {each.project for each in rows.people.values() if isinstance(each, Folder)}
    return name in folders or any(each.project == name for each in rows.workloads.values())


def no_folder(name: str) -> ArgosyError:
    return ArgosyError(
        "not-found", f"there is no folder `{name}`", hint="`argosy folder ls` lists those you may use"
    )


def in_trash(folder: Folder) -> ArgosyError:
    return ArgosyError(
        "conflict", f"`{folder.name}` is in the trash", hint=f"argosy folder restore {folder.name}"
    )


def _taken(name: str) -> ArgosyError:
    return ArgosyError(
        "conflict", f"there is a folder or volume `{name}` already", hint="choose another name"
    )
