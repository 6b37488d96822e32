"""Kinds of storage that appear in tasks: object stores, and folders that nodes reach through the server.

Each kind knows what it opens, what a mount of it needs on the server, what becomes of a copy, and its words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

from argosy.controllers.folder_links import FolderCopies, FolderLinks, HasShape, Mounted
from argosy.infra.agent_port import AgentPort, Shape
from argosy.infra.border import RequestRefused
from argosy.infra.buckets import Bucket, Encryption, OpensBuckets
from argosy.model.mounts import ServedFolder, extra_of, is_written, options_of, url_of
from argosy.model.rows import Node, Workload
from argosy.model.task import StorageMount


class MountKind(Protocol):
    may_be_empty: bool  # whether a copy of nothing is meant
    lasts: bool  # whether it is needed while a job ends
    look: str  # what to do when something was not written; `{name}` is its name

    def opened(self, mount: StorageMount) -> tuple[Bucket, str]:
        """Its files. Raises `BucketError`, RequestRefused."""

    def shape(self, bucket: Bucket) -> Shape | None:
        """What a copy of a listed bucket has besides bytes; None: nothing."""

    def place(self, mount: StorageMount) -> str:
        """Where its files are, for comparing with others of its kind."""

    def options(self, mount: StorageMount) -> tuple[str, ...]:
        """How it is mounted, as `options_of`."""

    def hold(self, what: Mounted) -> bool:
        """What the server keeps ready while it is mounted. False: nothing, and its keys may end."""

    def drop(self, key: tuple[str, str]) -> None:
        """By node and target: nothing is kept ready any more."""

    def copied(self, mount: StorageMount, why: RequestRefused) -> str:
        """What is said when it is copied because it cannot be mounted. Raises RequestRefused when it must
        not be."""

    async def is_free(self, agent: AgentPort, job: Workload, node: Node, mount: StorageMount) -> bool:
        """Whether a copy may be made now. Raises a border error."""

    async def bring_back(self, agent: AgentPort, job: Workload, index: int, mount: StorageMount) -> None:
        """What was changed in a node's copy is where it came from. Raises a border error."""


class OfStore:
    may_be_empty = False
    lasts = False
    look = "look whether the server's credentials may write there"

    def __init__(self, stores: Callable[[], OpensBuckets] | None) -> None:
        self._stores = stores

    def opened(self, mount: StorageMount) -> tuple[Bucket, str]:
        if self._stores is None:
            raise RequestRefused("storage", f"`{mount.target}`: this server has no object stores")
        wish = extra_of(mount).encryption
        opened = self._stores().open(url_of(mount), Encryption(type=wish.type, key_id=wish.key_id))
        return opened.bucket, opened.key

    def shape(self, bucket: Bucket) -> Shape | None:
        return None

    def place(self, mount: StorageMount) -> str:
        return url_of(mount)

    def options(self, mount: StorageMount) -> tuple[str, ...]:
        return options_of(mount)

    def hold(self, what: Mounted) -> bool:
        return False

    def drop(self, key: tuple[str, str]) -> None:
        """Nothing is kept."""

    def copied(self, mount: StorageMount, why: RequestRefused) -> str:
        if not is_written(mount):
            return f"{why}: {mount.target} is copied"
        raise RequestRefused(
            "storage",
            f"`{mount.target}`: {why}; say `mode: COPY`, or `config: {{mount: {{read_only: true}}}}` "
            "if it is only read: then it is copied where it cannot be mounted",
        ) from None

    async def is_free(self, agent: AgentPort, job: Workload, node: Node, mount: StorageMount) -> bool:
        return True

    async def bring_back(self, agent: AgentPort, job: Workload, index: int, mount: StorageMount) -> None:
        """Copies are only read."""


class OfFolder:
    """Its mounts are `ServedFolder`s."""

    may_be_empty = True
    lasts = True
    look = "look whether you may still write there: argosy folder info {name}"

    def __init__(self, copies: FolderCopies, links: FolderLinks) -> None:
        self._copies, self._links = copies, links

    def opened(self, mount: StorageMount) -> tuple[Bucket, str]:
        folder = cast(ServedFolder, mount)
        return self._copies.bucket(folder), folder.sub_path

    def shape(self, bucket: Bucket) -> Shape | None:
        return cast(HasShape, bucket).shape

    def place(self, mount: StorageMount) -> str:
        """By its id: names of folders are not unique."""
        folder = cast(ServedFolder, mount)
        return f"folder://{folder.folder}/{folder.sub_path}"

    def options(self, mount: StorageMount) -> tuple[str, ...]:
        return ("dir-cache-time=2s",)

    def hold(self, what: Mounted) -> bool:
        self._links.keep(what)
        return True

    def drop(self, key: tuple[str, str]) -> None:
        self._links.drop(key)

    def copied(self, mount: StorageMount, why: RequestRefused) -> str:
        back = ", and what changes there goes back at the end of the job" if is_written(mount) else ""
        return f"{why}: {mount.target} is a copy of {url_of(mount)}{back}"

    async def is_free(self, agent: AgentPort, job: Workload, node: Node, mount: StorageMount) -> bool:
        return await self._copies.is_free(agent, job, node, cast(ServedFolder, mount))

    async def bring_back(self, agent: AgentPort, job: Workload, index: int, mount: StorageMount) -> None:
        await self._copies.bring_back(agent, job, index, cast(ServedFolder, mount))


class MountKinds:
    """Of one server."""

    def __init__(self, store: OfStore, folder: OfFolder) -> None:
        self._store, self._folder = store, folder

    def of(self, mount: StorageMount) -> MountKind:
        return self._folder if isinstance(mount, ServedFolder) else self._store
