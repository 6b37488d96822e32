"""Folders of the fake server: rows by the rules of the model, files in memory, and as much of uploads and
downloads as our own client speaks."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from argosy.api.endpoint import Done, Request
from argosy.api.folders import (
    AnswerRequest,
    FileList,
    FileView,
    FolderChange,
    FolderList,
    FolderRequest,
    FolderView,
    GrantView,
    ShareRequest,
    VolumeList,
    VolumeRequest,
    VolumeView,
)
from argosy.api.volumes import NamedVolumeList, NamedVolumeRequest, NamedVolumeView
from argosy.model import folders as rules
from argosy.model.errors import ArgosyError
from argosy.model.folders import Folder
from argosy.testing.shared_answers import STARTED_MS

#: Endpoints whose replies are bytes, or headers alone.
RAW: Final = frozenset({"begin_upload", "upload_offset", "continue_upload", "file_content", "folder_archive"})
_ME: Final = "ada"
_UNTIL_MS: Final = STARTED_MS + 30 * rules.DAY_MS


class FakeFolders:
    """`held[folder][path]` are bytes; everything belongs to `ada`."""

    def __init__(self) -> None:
        self.rows: dict[str, Folder] = {}
        self.held: dict[str, dict[str, bytes]] = {}
        self.volumes = {"server": VolumeView(name="server", path="/fake/folders")}
        self.named: dict[str, NamedVolumeView] = {}
        self._uploads: dict[str, tuple[str, int, bytes]] = {}

    def add(self, name: str, files: Mapping[str, bytes] = MappingProxyType({}), owner: str = _ME) -> Folder:
        row = Folder(
            id=f"fld-{len(self.rows) + 1}", created_ms=STARTED_MS, name=name, project="default", owner=owner
        )
        self.rows[name], self.held[name] = row, dict(files)
        return row

    def answer(self, endpoint: str, path: dict[str, str], query: dict[str, str]) -> object:
        """To a request without a body. None: no endpoint of these."""
        match endpoint:
            case "folders":
                kept = [
                    each
                    for each in self.rows.values()
                    if query.get("trashed") == "true" or not each.trashed_ms
                ]
                return FolderList(folders=tuple(map(self._view, kept)))
            case "folder":
                return self._view(self._named(path["folder"]))
            case "purge_folder":
                gone = self.rows.pop(self._named(path["folder"]).name)
                return Done(names=(gone.name,))
            case "unshare_folder":
                return self._put(rules.unshared(self._named(path["folder"]), path["to"]))
            case "folder_files":
                held = self.held[self._named(path["folder"]).name]
                rows = [FileView(name=name, kind="file", size=len(data)) for name, data in held.items()]
                return FileList(files=tuple(rows))
            case "remove_files":
                del self.held[self._named(path["folder"]).name][query["path"]]
                return Done(names=(query["path"],))
            case "volumes":
                return VolumeList(volumes=tuple(self.volumes.values()))
            case "named_volumes":
                return NamedVolumeList(volumes=tuple(self.named.values()))
            case "delete_volume":
                return self.named.pop(path["volume"])
            case "remove_volume":
                del self.volumes[path["volume"]]
                return Done(names=(path["volume"],))
        return None

    def change(self, request: Request, path: dict[str, str]) -> object:
        """The reply to a request with a body. None: it is about something else."""
        match request:
            case FolderRequest():
                made = self.add(request.name, self.held.get(request.clone_of, {}))
                used = sum(map(len, self.held[made.name].values()))
                return self._put(
                    msgspec.structs.replace(made, quota_bytes=request.quota_bytes, used_bytes=used)
                )
            case FolderChange():
                row = self._named(path["folder"])
                if request.trashed is not None:
                    row = rules.trashed(row, STARTED_MS) if request.trashed else rules.restored(row)
                if request.quota_bytes is not None:
                    row = rules.with_quota(row, request.quota_bytes)
                if request.owner is not None:
                    row = rules.transferred(row, request.owner)
                return self._put(row)
            case ShareRequest():
                row, to, level = self._named(path["folder"]), request.to, request.level
                if request.invite:
                    return self._put(rules.invited(row, to, level, by=_ME, until_ms=_UNTIL_MS))
                return self._put(rules.shared(row, to, level, request.until_ms))
            case AnswerRequest():
                row = self._named(path["folder"])
                self._put(rules.answered(row, request.user or _ME, STARTED_MS, accepts=request.accept))
                return Done(names=(row.name,))
            case NamedVolumeRequest():
                self.named[request.name] = NamedVolumeView(
                    name=request.name,
                    project="default",
                    owner=_ME,
                    type=request.type,
                    infra=request.infra,
                    size_bytes=request.size_bytes,
                    created_ms=STARTED_MS,
                    made_ms=STARTED_MS,
                    is_ours=request.size_bytes > 0,
                )
                return self.named[request.name]
            case VolumeRequest():
                new = VolumeView(name=request.name, path=request.path, node_path=request.node_path)
                self.volumes[request.name] = new
                return new
        return None

    def raw(
        self, endpoint: str, path: dict[str, str], query: dict[str, str], headers: dict[str, str], body: bytes
    ) -> bytes:
        """A whole reply to one of `RAW`."""
        held = self.held[self._named(path["folder"]).name]
        match endpoint:
            case "begin_upload":
                told = dict(each.split(" ") for each in headers["upload-metadata"].split(","))
                name, size = base64.b64decode(told["path"]).decode(), int(headers["upload-length"])
                upload = f"upl-{len(self._uploads) + 1}"
                self._uploads[upload] = (name, size, body)
                if len(body) == size:
                    held[name] = body
                where = f"/v1/folders/{path['folder']}/uploads/{upload}"
                return _reply(201, b"", location=where, upload_offset=str(len(body)))
            case "upload_offset" | "continue_upload":
                name, size, data = self._uploads[path["upload"]]
                data += body
                self._uploads[path["upload"]] = (name, size, data)
                if len(data) == size:
                    held[name] = data
                return _reply(204, b"", upload_offset=str(len(data)))
            case "file_content":
                data = held[query["path"]]
                first, _, last = headers.get("range", "").removeprefix("bytes=").partition("-")
                if not first:
                    return _reply(200, data, etag='"1"')
                part = data[int(first) : int(last) + 1 if last else None]
                return _reply(206, part, etag='"1"', content_range=f"bytes {first}-{last}/{len(data)}")
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for name, data in held.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return _reply(200, stream.getvalue())

    def _named(self, name: str) -> Folder:
        for row in self.rows.values():
            if name in (row.name, row.id):
                return row
        raise ArgosyError("not-found", f"there is no folder `{name}`", hint="`argosy folder ls` lists them")

    def _put(self, row: Folder) -> FolderView:
        self.rows[row.name] = row
        return self._view(row)

    def _view(self, row: Folder) -> FolderView:
        grants = tuple(GrantView(to=each.to, level=each.level, until_ms=each.until_ms) for each in row.grants)
        asked = tuple(
            GrantView(to=each.to, level=each.level, until_ms=each.until_ms) for each in row.invitations
        )
        return FolderView(
            id=row.id,
            name=row.name,
            project=row.project,
            owner=row.owner,
            access="manage",
            quota_bytes=row.quota_bytes,
            used_bytes=row.used_bytes,
            created_ms=row.created_ms,
            trashed_ms=row.trashed_ms,
            purge_at_ms=rules.purge_at_ms(row),
            invited_by=next((each.by for each in row.invitations if each.to == _ME), ""),
            grants=grants,
            invitations=asked,
        )


def _reply(status: int, body: bytes, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
