"""Virtual folders: named folders on volumes, shared by people and projects, and the files in them.

Uploads speak tus 1.0 (creation, termination): POST announces a file, PATCH sends bytes at an offset, HEAD
tells where it is. Downloads have ranges; a folder comes as one tar stream.
"""

from __future__ import annotations

from typing import Annotated

from argosy.api.endpoint import Done, Reply, Request, endpoint


class GrantView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    to: str  # a user, or `project:NAME`
    level: str  # ro | rw | rw+delete
    until_ms: int = 0


class IoView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """What went through the server since it started."""

    reads: int = 0  # requests
    read_bytes: int = 0
    writes: int = 0  # requests
    written_bytes: int = 0
    since_ms: int = 0


class NfsView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """What the server's kernel has counted of an NFS mount since it was mounted, whoever read and wrote.
    Times are means of a call, in milliseconds."""

    server: str  # filer:/export
    calls: int = 0
    sent_again: int = 0
    timeouts: int = 0
    read_bytes: int = 0  # from the filer: without what the cache answers
    written_bytes: int = 0
    read_ms: float = 0.0
    write_ms: float = 0.0
    waiting_ms: float = 0.0  # before it is sent, of the kind of call that waits longest


class FolderView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    name: str
    project: str
    owner: str = ""  # "": the project
    volume: str = "server"
    use: str = "general"  # general | data | model
    access: str = ""  # of the caller: ro | rw | rw+delete | manage; "": only invited
    quota_bytes: int = 0
    quota_by: str = (
        ""  # the file system that stops every write beyond it; "": counted, writes through us stop
    )
    used_bytes: int = 0
    counted_ms: int = 0
    created_ms: int = 0
    trashed_ms: int = 0
    purge_at_ms: int = 0  # when the trash gives it up for good
    invited_by: str = ""  # an invitation waits for the caller
    io: IoView | None = None
    grants: tuple[GrantView, ...] = ()  # for who manages it
    invitations: tuple[GrantView, ...] = ()


class FolderList(Reply, frozen=True, kw_only=True):
    folders: tuple[FolderView, ...]


class FolderRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    project: str = ""  # "": as for everything that is made
    volume: str = "server"
    use: str = "general"
    quota_bytes: int = 0
    for_project: bool = False  # it belongs to the project, not to who makes it
    clone_of: str = ""  # with all that this folder holds
    user: str = ""  # over the socket: who makes it


class ShareRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    to: str
    level: str = "ro"
    until_ms: int = 0
    invite: bool = False  # they are asked first


class AnswerRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    accept: bool = True
    user: str = ""  # over the socket: who answers


class FolderChange(Request, frozen=True, kw_only=True, omit_defaults=True):
    """What is given changes."""

    owner: str | None = None  # "": the project
    quota_bytes: int | None = None
    trashed: bool | None = None
    use: str | None = None


class FileView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    kind: str  # file | folder | link | other
    size: int = 0
    mtime_ms: int = 0


class FileList(Reply, frozen=True, kw_only=True):
    files: tuple[FileView, ...]


class PathRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    path: str
    to: str = ""  # rename to; "": make a folder
    replace: bool = False  # a file that is at `to`


class VolumeView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    path: str
    node_path: str = ""  # where nodes see the same bytes
    folders: int = 0
    free_bytes: int = 0
    total_bytes: int = 0
    io: IoView | None = None  # of the folders that the caller may use
    nfs: NfsView | None = None


class VolumeList(Reply, frozen=True, kw_only=True):
    volumes: tuple[VolumeView, ...]


class VolumeRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    path: str
    node_path: str = ""


class FolderCalls:
    @endpoint("GET", "/folders", permission="folders.read")
    def folders(self, trashed: Annotated[bool, "also those in the trash"] = False) -> FolderList:
        """Folders that the caller may use, and invitations that wait for them."""

    @endpoint("POST", "/folders", FolderRequest, permission="folders.write")
    def make_folder(
        self,
        name: str,
        project: str = "",
        volume: str = "server",
        use: str = "general",
        quota_bytes: int = 0,
        for_project: bool = False,
        clone_of: str = "",
        user: str = "",
    ) -> FolderView:
        """A new folder, empty or a clone. Errors: "usage", "conflict", "not-found"."""

    @endpoint("GET", "/folders/{folder}", permission="folders.read")
    def folder(self, folder: str, count: Annotated[bool, "count its bytes now"] = False) -> FolderView:
        """One folder, by name or id. Errors: "not-found"."""

    @endpoint("PUT", "/folders/{folder}", FolderChange, permission="folders.write")
    def change_folder(self, folder: str, request: FolderChange) -> FolderView:
        """Transfer it, set its quota, put it into the trash, or restore it. Errors: "not-found", "forbidden",
        "conflict" (also for the trash while a job or session has a link to it)."""

    @endpoint("DELETE", "/folders/{folder}", permission="folders.write")
    def purge_folder(self, folder: str) -> Done:
        """Remove a folder in the trash for good. Errors: "not-found", "conflict"."""

    @endpoint("POST", "/folders/{folder}/grants", ShareRequest, permission="folders.write")
    def share_folder(
        self, folder: str, to: str, level: str = "ro", until_ms: int = 0, invite: bool = False
    ) -> FolderView:
        """Let somebody use it. Errors: "not-found", "forbidden", "usage"."""

    @endpoint("DELETE", "/folders/{folder}/grants/{to}", permission="folders.write")
    def unshare_folder(self, folder: str, to: str) -> FolderView:
        """Take it back, also an invitation. Errors: "not-found", "forbidden"."""

    @endpoint("POST", "/folders/{folder}/answer", AnswerRequest, permission="folders.read")
    def answer_invitation(self, folder: str, accept: bool = True, user: str = "") -> Done:
        """Accept an invitation, or decline it. Errors: "not-found", "conflict"."""

    @endpoint("GET", "/folders/{folder}/files", permission="folders.read")
    def folder_files(self, folder: str, path: Annotated[str, "below the folder"] = "") -> FileList:
        """What is in it. Errors: "not-found"."""

    @endpoint("POST", "/folders/{folder}/files", PathRequest, permission="folders.write")
    def change_files(self, folder: str, path: str, to: str = "", replace: bool = False) -> Done:
        """Make a folder in it, or rename within it. Errors: "not-found", "conflict", "forbidden"."""

    @endpoint("DELETE", "/folders/{folder}/files", permission="folders.write")
    def remove_files(self, folder: str, path: Annotated[str, "below the folder"]) -> Done:
        """Remove a file or a folder in it. Errors: "not-found", "forbidden"."""

    @endpoint("GET", "/folders/{folder}/content", permission="folders.read")
    def file_content(self, folder: str, path: Annotated[str, "below the folder"]) -> bytes:
        """The bytes of a file; with `Range`, some of them. Errors: "not-found"."""

    @endpoint("GET", "/folders/{folder}/archive", permission="folders.read")
    def folder_archive(self, folder: str, path: Annotated[str, "below the folder"] = "") -> bytes:
        """All below a folder as one tar stream. Errors: "not-found"."""

    @endpoint("POST", "/folders/{folder}/uploads", permission="folders.write")
    def begin_upload(self, folder: str) -> bytes:
        """Announce a file (tus: `Upload-Length`, `Upload-Metadata` with `path`, perhaps `sha256`, `replace`,
        and `key`, a name of the bytes that their sender keeps), perhaps with its first bytes. Answers 201
        with `Location` and `Upload-Offset`: with the same `key`, of the upload that broke off. 200: it is
        there already. Errors: "over-quota", "forbidden", "conflict"."""

    @endpoint("HEAD", "/folders/{folder}/uploads/{upload}", permission="folders.read")
    def upload_offset(self, folder: str, upload: str) -> bytes:
        """Where an upload is (tus: `Upload-Offset`)."""

    @endpoint("PATCH", "/folders/{folder}/uploads/{upload}", permission="folders.write")
    def continue_upload(self, folder: str, upload: str) -> bytes:
        """Bytes at `Upload-Offset` (tus). With the last one the file is there, when its sum is what was told
        (with the announcement, or now as `Upload-Sha256`). Errors: "conflict", "over-quota"."""

    @endpoint("DELETE", "/folders/{folder}/uploads/{upload}", permission="folders.write")
    def give_up_upload(self, folder: str, upload: str) -> bytes:
        """Forget an upload (tus: 204)."""

    @endpoint("GET", "/volumes", permission="folders.read")
    def volumes(self) -> VolumeList:
        """Where folders may be."""

    @endpoint("GET", "/volumes/metrics", permission="folders.read")
    def volume_metrics(self) -> bytes:
        """What folders and volumes hold, and what goes in and out, for Prometheus."""

    @endpoint("POST", "/volumes", VolumeRequest, permission="server.write")
    def make_volume(self, name: str, path: str, node_path: str = "") -> VolumeView:
        """A path of the server for folders. Errors: "usage", "conflict"."""

    @endpoint("DELETE", "/volumes/{volume}", permission="server.write")
    def remove_volume(self, volume: str) -> Done:
        """Forget a volume without folders; its bytes stay. Errors: "not-found", "conflict"."""
