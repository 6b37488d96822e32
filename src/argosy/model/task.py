"""Task: a program, its resources, its number of nodes. What a user writes, after parsing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from argosy.model.hooks import Hook
from argosy.model.notify import Notify
from argosy.model.resources import Resources
from argosy.model.scheduling import Scheduling
from argosy.model.serving import Serving


class GitSource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    url: str
    ref: str | None = None


class FileMount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`source` appears at `target` on every node.

    A local source is replaced by the digest of its tree when the client has uploaded it.
    """

    target: str  # `~/x`, relative to the working directory, or absolute
    source: str  # as the user wrote it: a local path or a URL
    tree: str | None = None  # digest of the uploaded tree
    is_file: bool = False  # the source is one file, not a folder


class DataSize(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much a task reads from or writes to a URL."""

    url: str
    size_bytes: int


class SyncRules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What of `file_mounts` travels (`model.patterns`). `mode` full: also what is on the node already."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    mode: str = ""  # incremental | full; "": as usual, incremental


class StorageMount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Object storage that appears at `target` on every node (`model.mounts`)."""

    target: str
    sources: tuple[str, ...] = ()  # URLs, or local paths that fill a new bucket
    name: str | None = None  # of the bucket
    store: str | None = None  # which kind of store a new bucket is made in
    mode: str = "MOUNT"  # MOUNT | MOUNT_CACHED | COPY
    persistent: bool = True
    extra: str = ""  # JSON text of the fields that have no place above


class VolumeMount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A virtual folder that appears at `target` on every node; the server makes a `FileMount` of it."""

    target: str
    folder: str  # its name, or its id; its id once the server has looked; "": it is no folder of the server
    sub_path: str = ""  # a folder in it
    read_only: bool = False
    is_linked: bool = False  # nodes have a link to it, as the server found: it stays while this lives
    is_served: bool = False  # nodes reach it through the server, as the server found: mounted, else copied
    name: str = ""  # of the folder, for people, once the server has looked; of a volume of a place
    type: str = ""  # a kind of volume that a place has itself (`model.own_volumes`)
    size_bytes: int = 0  # of what is made when it is not there
    as_user: str = ""  # whose access counts then; "": it was launched over the socket
    extra: str = ""  # JSON text of its fields, of those that have a place above what is written again


class Returned(msgspec.Struct, frozen=True, kw_only=True):
    """What lies at `path` when the program has ended goes to `url`."""

    path: str  # as `FileMount.target`
    url: str


class CheckpointRules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where copies of what a job keeps are, and how many stay."""

    to: str = ""  # URL of an object store; "": the server
    keep_last: int = 1
    keep_every_s: int = 0  # of the older ones, one for each such period; 0: none


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A program x resources x number of nodes."""

    name: str | None = None
    workdir: str | None = None  # as the user wrote it
    workdir_git: GitSource | None = None
    workdir_tree: str | None = None  # digest of the uploaded tree
    setup: str = ""
    run: str = ""
    envs: dict[str, str] = {}
    secrets: dict[
        str, str
    ] = {}  # values only between client and server; the server keeps names here, values elsewhere
    secret_files: dict[str, str] = {}  # secrets that are files instead of variables: where, by name
    num_nodes: int = 1
    min_nodes: int = 0  # a managed job runs on fewer, down to so many, where it must; 0: on `num_nodes` alone
    resources: tuple[Resources, ...] = (Resources(),)  # candidates
    ordered: bool = False  # candidates in order of preference rather than by price
    file_mounts: tuple[FileMount, ...] = ()  # local sources only
    storage_mounts: tuple[StorageMount, ...] = ()
    volumes: tuple[VolumeMount, ...] = ()
    sync: SyncRules = SyncRules()
    max_duration_s: int | None = None
    grace_s: int = 10  # between SIGTERM and SIGKILL
    scheduling: Scheduling = Scheduling()
    deadline_s: int | None = None  # after it was submitted
    deadline_at_ms: int | None = None  # or at this time (UTC)
    estimated_s: int | None = None  # how long all of it runs, as the user believes
    progress_milli: int = 0  # thousandths of it that were done before it was submitted
    objective: str = "cost"  # cost | time | carbon: what the best place is
    inputs: tuple[DataSize, ...] = ()
    outputs: tuple[DataSize, ...] = ()
    returns: tuple[Returned, ...] = ()  # `outputs` by path
    checkpoints: CheckpointRules = CheckpointRules()
    hooks: tuple[Hook, ...] = ()  # at most one for each moment
    notify: tuple[
        Notify, ...
    ] = ()  # who is told of its start and end; addresses only between client and server
    service: Serving | None = None  # how it is served, by `serve up`; other launches take no notice of it
    config: str = ""  # JSON text of the task's `config:`; read by who needs it
    extra: str = ""  # JSON text of the accepted fields that have no place here yet
    not_executed: tuple[str, ...] = ()  # fields that were accepted and do nothing yet

    def __repr__(self) -> str:
        """As of any struct, with the values of secrets masked."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        values["secrets"] = dict.fromkeys(self.secrets, "***")
        return f"Task({', '.join(f'{name}={value!r}' for name, value in values.items())})"


#: How every warning about fields that are not supported yet begins, in the client and in the server.
IGNORED: Final = "not supported yet, ignored: "


def render_ignored(fields: Iterable[str]) -> str:
    """
    >>> render_ignored(["service", "file_mounts /data"])
    'not supported yet, ignored: service, file_mounts /data'
    >>> render_ignored(["pool"])
    'not supported yet, ignored: pool (`argosy jobs pool apply NAME FILE` makes it)'
    """
    made = {"pool": "pool (`argosy jobs pool apply NAME FILE` makes it)"}
    return IGNORED + ", ".join(made.get(field, field) for field in fields)
