"""Virtual folders: made, shared, trashed, restored; what is in them. Bytes travel in `folder_transfers`."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec

from argosy.api.endpoint import Done
from argosy.api.folders import (
    AnswerRequest,
    FileList,
    FileView,
    FolderChange,
    FolderList,
    FolderRequest,
    FolderView,
    GrantView,
    PathRequest,
    ShareRequest,
    VolumeList,
    VolumeRequest,
    VolumeView,
)
from argosy.model import folders as rules
from argosy.model.access import Caller
from argosy.model.errors import ArgosyError
from argosy.model.folders import WORDS, Access, Folder, Volume
from argosy.server.exchange import Exchange
from argosy.server.folder_counting import FolderCounting
from argosy.server.folder_mounts import FolderMounts
from argosy.server.folder_traffic import prometheus
from argosy.server.folder_transfers import FolderDownloads
from argosy.server.folder_trash import FolderTrash
from argosy.server.folder_uploads import FolderUploads
from argosy.server.guarding import made_by, project_of, require_new
from argosy.server.services import Services

_INVITED_MS = 30 * rules.DAY_MS


class FolderFeature:
    def __init__(self, services: Services) -> None:
        self._clock = services.clock
        self._folders, self._traffic = services.objects.folders.folders, services.objects.folders.traffic
        services.intake.folders = FolderMounts(self._folders, services.blobs)
        self._trash = FolderTrash(self._folders, services.store, services.clock)
        services.housekeeping.also(self._trash.sweep)
        self._downloads = FolderDownloads(self._folders, self._traffic)
        self._uploads = FolderUploads(self._folders, services.clock, services.ids, self._traffic)
        services.housekeeping.also(self._uploads.sweep)
        services.housekeeping.often(FolderCounting(self._folders, services.store, services.clock).look)

    # -- folders --------------------------------------------------------------------------------------

    async def folders(self, exchange: Exchange) -> FolderList:
        trashed = exchange.flag("trashed")
        found = [
            self._view(folder, exchange.caller)
            for folder, _ in await self._folders.all(exchange.caller)
            if trashed or not folder.trashed_ms
        ]
        return FolderList(folders=tuple(found))

    async def make_folder(self, exchange: Exchange) -> FolderView:
        request, caller = await exchange.decode(FolderRequest), exchange.caller
        project = project_of(caller, request.project)
        require_new(caller, project)
        source = await self._folders.find(caller, request.clone_of) if request.clone_of else None
        wanted = Folder(
            id="",
            created_ms=0,
            name=request.name,
            project=project,
            owner="" if request.for_project else made_by(caller, request.user),
            volume=source.volume if source and request.volume == rules.OWN_VOLUME else request.volume,
            use=request.use,
            quota_bytes=_size(request.quota_bytes),
        )
        return self._view(await self._folders.make(caller, wanted, source), caller)

    async def folder(self, exchange: Exchange) -> FolderView:
        folder = await self._folders.find(exchange.caller, exchange.path["folder"])
        if exchange.flag("count"):
            folder = await self._folders.count(folder)
        return self._view(folder, exchange.caller)

    async def change_folder(self, exchange: Exchange) -> FolderView:
        request = await exchange.decode(FolderChange)
        if request.owner:
            await self._folders.check_known(request.owner)
        now_ms, holders = self._clock.now_ms(), list[str]()
        if request.trashed:
            folder = await self._folders.find(exchange.caller, exchange.path["folder"], Access.MANAGE)
            holders = await self._trash.holders(folder)

        def turn(folder: Folder) -> Folder:
            if request.trashed is True:
                folder = rules.trashed(folder, now_ms, holders)
            elif request.trashed is False:
                folder = rules.restored(folder)
            if request.quota_bytes is not None:
                folder = rules.with_quota(folder, _size(request.quota_bytes))
            if request.use is not None:
                folder = rules.used_for(folder, request.use)
            if request.owner is not None:
                folder = rules.transferred(folder, request.owner)
            return folder

        return await self._changed(exchange, turn)

    async def purge_folder(self, exchange: Exchange) -> Done:
        gone = await self._trash.purge(exchange.caller, exchange.path["folder"])
        return Done(names=(gone.name,))

    async def share_folder(self, exchange: Exchange) -> FolderView:
        request, caller = await exchange.decode(ShareRequest), exchange.caller
        await self._folders.check_known(request.to)
        until_ms = request.until_ms or self._clock.now_ms() + _INVITED_MS

        def turn(folder: Folder) -> Folder:
            if request.invite:
                return rules.invited(folder, request.to, request.level, by=caller.name, until_ms=until_ms)
            return rules.shared(folder, request.to, request.level, request.until_ms)

        return await self._changed(exchange, turn)

    async def unshare_folder(self, exchange: Exchange) -> FolderView:
        return await self._changed(exchange, lambda folder: rules.unshared(folder, exchange.path["to"]))

    async def answer_invitation(self, exchange: Exchange) -> Done:
        request = await exchange.decode(AnswerRequest)
        name = made_by(exchange.caller, request.user)
        folder = await self._folders.answer(
            name, exchange.path["folder"], self._clock.now_ms(), accepts=request.accept
        )
        return Done(names=(folder.name,))

    async def _changed(self, exchange: Exchange, turn: rules.Turn) -> FolderView:
        caller = exchange.caller
        folder = await self._folders.change(caller, exchange.path["folder"], turn, Access.MANAGE)
        return self._view(folder, caller)

    def _view(self, folder: Folder, caller: Caller) -> FolderView:
        has = self._folders.access_of(folder, caller)
        manages = has is Access.MANAGE
        asked = next((each for each in folder.invitations if caller.name and each.to == caller.name), None)
        return FolderView(
            id=folder.id,
            name=folder.name,
            project=folder.project,
            owner=folder.owner,
            volume=folder.volume,
            use=folder.use,
            access=WORDS[has],
            quota_bytes=folder.quota_bytes,
            quota_by=folder.quota_by,
            used_bytes=folder.used_bytes,
            counted_ms=folder.counted_ms,
            created_ms=folder.created_ms,
            trashed_ms=folder.trashed_ms,
            purge_at_ms=rules.purge_at_ms(folder),
            io=self._traffic.of(folder.id) if has else None,
            invited_by=(asked.by or folder.owner or folder.project) if asked else "",
            grants=tuple(
                GrantView(to=each.to, level=each.level, until_ms=each.until_ms) for each in folder.grants
            )
            if manages
            else (),
            invitations=tuple(
                GrantView(to=each.to, level=each.level, until_ms=each.until_ms) for each in folder.invitations
            )
            if manages
            else (),
        )

    # -- files ----------------------------------------------------------------------------------------

    async def folder_files(self, exchange: Exchange) -> FileList:
        folder = await self._folders.find(exchange.caller, exchange.path["folder"])
        beneath = await self._folders.beneath(folder)
        found = await asyncio.to_thread(beneath.list, exchange.text("path"))
        return FileList(files=tuple(FileView(**each._asdict()) for each in found))

    async def change_files(self, exchange: Exchange) -> Done:
        request = await exchange.decode(PathRequest)
        least = Access.REMOVE if request.to else Access.WRITE
        folder = await self._folders.find(exchange.caller, exchange.path["folder"], least)
        beneath = await self._folders.beneath(folder)
        if request.to:
            await asyncio.to_thread(beneath.rename, request.path, request.to, replace=request.replace)
        else:
            await asyncio.to_thread(beneath.make_folder, request.path)
        self._traffic.wrote(folder.id, 0)
        return Done(names=(request.to or request.path,))

    async def remove_files(self, exchange: Exchange) -> Done:
        folder = await self._folders.find(exchange.caller, exchange.path["folder"], Access.REMOVE)
        beneath = await self._folders.beneath(folder)
        gone = await asyncio.to_thread(beneath.remove, exchange.text("path"))
        await self._folders.add_used(folder, -gone)
        self._traffic.wrote(folder.id, 0)
        return Done(names=(exchange.text("path"),))

    async def file_content(self, exchange: Exchange) -> None:
        await self._downloads.content(exchange)

    async def folder_archive(self, exchange: Exchange) -> None:
        await self._downloads.archive(exchange)

    async def begin_upload(self, exchange: Exchange) -> None:
        await self._uploads.begin(exchange)

    async def upload_offset(self, exchange: Exchange) -> None:
        await self._uploads.offset(exchange)

    async def continue_upload(self, exchange: Exchange) -> None:
        await self._uploads.append(exchange)

    async def give_up_upload(self, exchange: Exchange) -> None:
        await self._uploads.give_up(exchange)

    # -- volumes --------------------------------------------------------------------------------------

    async def volumes(self, exchange: Exchange) -> VolumeList:
        self._folders.keeping.check()  # the room on its own volume is that of who keeps it
        held = [folder for folder, has in await self._folders.all(exchange.caller) if has]
        rows = []
        for each in await self._folders.volumes.all():
            mine = [folder.id for folder in held if folder.volume == each.name]
            seen = _volume(each, len(mine))
            nfs = await self._traffic.nfs(each.path)
            rows.append(msgspec.structs.replace(seen, io=self._traffic.of(*mine), nfs=nfs))
        return VolumeList(volumes=tuple(rows))

    async def volume_metrics(self, exchange: Exchange) -> None:
        folders = await self.folders(exchange)
        volumes = await self.volumes(exchange)
        mine = (each for each in folders.folders if each.access)
        body = prometheus(mine, volumes.volumes)
        exchange.answered = True
        headers = [
            (b"content-type", b"text/plain; version=0.0.4"),
            (b"content-length", str(len(body)).encode()),
        ]
        await exchange.send({"type": "http.response.start", "status": 200, "headers": headers})
        await exchange.send({"type": "http.response.body", "body": body})

    async def make_volume(self, exchange: Exchange) -> VolumeView:
        request = await exchange.decode(VolumeRequest)
        return _volume(await self._folders.volumes.add(request.name, request.path, request.node_path), 0)

    async def remove_volume(self, exchange: Exchange) -> Done:
        await self._folders.volumes.remove(exchange.path["volume"])
        return Done(names=(exchange.path["volume"],))


def _volume(volume: Volume, folders: int) -> VolumeView:
    try:
        if volume.is_bucket:
            raise OSError("a bucket has no end")
        usage = shutil.disk_usage(
            next(each for each in (Path(volume.path), *Path(volume.path).parents) if each.exists())
        )
        free, total = usage.free, usage.total
    except OSError:
        free = total = 0
    return VolumeView(
        name=volume.name,
        path=volume.path,
        node_path=volume.node_path,
        folders=folders,
        free_bytes=free,
        total_bytes=total,
    )


def _size(quota_bytes: int) -> int:
    if quota_bytes < 0:
        raise ArgosyError("usage", "a quota is not negative", hint="0 means none")
    return quota_bytes
