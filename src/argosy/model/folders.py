"""Virtual folders: named folders on volumes that people and projects share. Rows, and what may be done. Pure.

Every change is a function of the folder as it is: it returns the new row, or raises `ArgosyError` with what
is wrong. What is allowed is decided by `access` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Final

import msgspec

from argosy.model.entry import Entry
from argosy.model.errors import ArgosyError
from argosy.model.units import render_bytes

OWN_VOLUME: Final = "server"  # a folder of the server's state, always there
TRASH_DAYS: Final = 14
DAY_MS: Final = 86_400_000


class Access(IntEnum):
    """What somebody may do with a folder; each includes those before it."""

    NOTHING = 0
    READ = 1  # ro: list and read
    WRITE = 2  # rw: also make and change files
    REMOVE = 3  # rw+delete: also remove and rename files
    MANAGE = 4  # also share, trash, restore, transfer, set the quota


LEVELS: Final = {"ro": Access.READ, "rw": Access.WRITE, "rw+delete": Access.REMOVE}
WORDS: Final = {
    Access.NOTHING: "",
    **{level: word for word, level in LEVELS.items()},
    Access.MANAGE: "manage",
}
USES: Final = ("general", "data", "model")  # data and model: only who manages it writes


Turn = Callable[["Folder"], "Folder"]  # a change of a folder


class FolderGrant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody may use the folder. `to`: a user's name, or `project:NAME` for everybody of a project."""

    to: str
    level: str  # ro | rw | rw+delete
    until_ms: int = 0  # 0: until it is taken back


class Invitation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody was asked whether they want the folder: a grant once they accept."""

    to: str
    level: str
    by: str
    until_ms: int  # later it has expired


class Volume(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="volume"):
    """A place where folders are: a path of the server, perhaps of a NAS that nodes also see, or a bucket."""

    name: str
    path: str  # absolute, on the server; a URL: of a bucket, or of a prefix in one
    node_path: str = ""  # where nodes see the same bytes; "": they do not

    @property
    def unique(self) -> str:
        return f"volume:{self.name}" if self.is_live else ""

    @property
    def is_bucket(self) -> bool:
        return "://" in self.path


class Folder(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="folder"):
    """A folder. Its bytes are in `ID` on its volume, or in the trash of that volume."""

    name: str
    project: str
    owner: str = ""  # name of a user; "": the project's
    volume: str = OWN_VOLUME
    use: str = "general"  # general | data | model
    quota_bytes: int = 0  # 0: none
    quota_by: str = ""  # the file system that holds it: a write beyond it fails, whoever writes; "": we count
    used_bytes: int = 0  # when it was last counted, with what came through us since
    counted_ms: int = 0  # 0: never
    trashed_ms: int = 0  # 0: it is there
    is_going: bool = False  # it leaves the trash for good: some of it may be gone already
    grants: tuple[FolderGrant, ...] = ()
    invitations: tuple[Invitation, ...] = ()

    @property
    def is_dot(self) -> bool:
        """Folders whose name begins with a dot are in every session of their owner."""
        return self.name.startswith(".")

    @property
    def unique(self) -> str:
        if not self.is_live or self.trashed_ms:
            return ""
        return called(self.project, self.owner, self.name)


def called(project: str, owner: str, name: str) -> str:
    """By what a folder is found: names are unique within a project, dot folders within their owner."""
    return f"folder:{project}:{owner if name.startswith('.') else ''}:{name}"


def access(folder: Folder, name: str, projects: frozenset[str], now_ms: int, *, manages: bool) -> Access:
    """What `name`, who is in `projects`, may do with the folder. `manages`: as who may manage all folders of
    its project, such as its administrators."""
    if not folder.is_live:
        return Access.NOTHING
    if manages or (folder.owner and folder.owner == name):
        most = Access.MANAGE
    else:
        most = max((_granted(each, name, projects, now_ms) for each in folder.grants), default=Access.NOTHING)
    if folder.use != "general" and most < Access.MANAGE:
        most = min(most, Access.READ)
    if folder.trashed_ms and most < Access.MANAGE:
        return Access.NOTHING
    return most


def _granted(grant: FolderGrant, name: str, projects: frozenset[str], now_ms: int) -> Access:
    if grant.until_ms and grant.until_ms <= now_ms:
        return Access.NOTHING
    kind, _, project = grant.to.partition(":")
    mine = project in projects if kind == "project" and project else bool(name) and grant.to == name
    return LEVELS[grant.level] if mine else Access.NOTHING


def shared(folder: Folder, to: str, level: str, until_ms: int = 0) -> Folder:
    """With a grant, in place of an older one to the same. Raises "usage", "conflict"."""
    _check_there(folder)
    _check_level(level)
    if to == folder.owner:
        raise ArgosyError("usage", f"`{to}` owns `{folder.name}` already", hint="share it with somebody else")
    grant = FolderGrant(to=to, level=level, until_ms=until_ms)
    others = tuple(each for each in folder.grants if each.to != to)
    asked = tuple(each for each in folder.invitations if each.to != to)
    return msgspec.structs.replace(folder, grants=(*others, grant), invitations=asked)


def unshared(folder: Folder, to: str) -> Folder:
    """Without grants and invitations of `to`. Raises "not-found"."""
    grants = tuple(each for each in folder.grants if each.to != to)
    asked = tuple(each for each in folder.invitations if each.to != to)
    if (grants, asked) == (folder.grants, folder.invitations):
        raise ArgosyError(
            "not-found",
            f"`{folder.name}` is not shared with `{to}`",
            hint=f"`argosy folder info {folder.name}` shows with whom it is",
        )
    return msgspec.structs.replace(folder, grants=grants, invitations=asked)


def invited(folder: Folder, to: str, level: str, *, by: str, until_ms: int) -> Folder:
    """With an invitation, in place of an older one. Raises "usage", "conflict"."""
    _check_there(folder)
    _check_level(level)
    if to == folder.owner or any(each.to == to and each.level == level for each in folder.grants):
        raise ArgosyError("usage", f"`{to}` has `{folder.name}` already", hint="invite somebody else")
    asked = tuple(each for each in folder.invitations if each.to != to)
    new = Invitation(to=to, level=level, by=by, until_ms=until_ms)
    return msgspec.structs.replace(folder, invitations=(*asked, new))


def answered(folder: Folder, name: str, now_ms: int, *, accepts: bool) -> Folder:
    """The invitation of `name` becomes a grant, or goes. Raises "not-found", "conflict"."""
    mine = next((each for each in folder.invitations if each.to == name), None)
    if mine is None or not folder.is_live:
        raise ArgosyError(
            "not-found",
            f"nobody invited you to a folder `{folder.name}`",
            hint="`argosy folder ls` shows invitations that wait for you",
        )
    if mine.until_ms <= now_ms:
        raise ArgosyError(
            "conflict",
            f"the invitation to `{folder.name}` has expired",
            hint=f"ask `{mine.by}` for a new one" if mine.by else "ask for a new one",
        )
    rest = msgspec.structs.replace(
        folder, invitations=tuple(each for each in folder.invitations if each is not mine)
    )
    return shared(rest, name, mine.level) if accepts else rest


def transferred(folder: Folder, to: str) -> Folder:
    """Owned by somebody else, who needs no grant then; `to` "": the project. Raises "usage", "conflict"."""
    _check_there(folder)
    if to == folder.owner:
        raise ArgosyError("usage", f"`{folder.name}` belongs to `{to}` already", hint="name somebody else")
    grants = tuple(each for each in folder.grants if each.to != to)
    return msgspec.structs.replace(folder, owner=to, grants=grants)


def trashed(folder: Folder, now_ms: int, holders: Sequence[str] = ()) -> Folder:
    """In the trash, where it can be restored from. `holders`: who needs it. Raises "conflict"."""
    _check_there(folder)
    if holders:
        more = f" and {len(holders) - 3} more" if len(holders) > 3 else ""
        raise ArgosyError(
            "conflict",
            f"`{folder.name}` is in use by {', '.join(holders[:3])}{more}",
            hint="it can go to the trash when they have ended",
        )
    return msgspec.structs.replace(folder, trashed_ms=now_ms)


def restored(folder: Folder) -> Folder:
    """Out of the trash. Raises "conflict"."""
    if not folder.trashed_ms:
        raise ArgosyError("conflict", f"`{folder.name}` is not in the trash", hint="nothing is to be done")
    if folder.is_going:
        raise ArgosyError(
            "conflict", f"`{folder.name}` is being removed for good", hint="it cannot be restored any more"
        )
    return msgspec.structs.replace(folder, trashed_ms=0)


def going(folder: Folder) -> Folder:
    """On its way out of the trash for good. Raises "conflict" for what is not in the trash."""
    if not folder.trashed_ms:
        raise ArgosyError(
            "conflict",
            f"`{folder.name}` is not in the trash, and only what is there goes for good",
            hint=f"first: argosy folder rm {folder.name}",
        )
    return msgspec.structs.replace(folder, is_going=True)


def purge_at_ms(folder: Folder) -> int:
    """When the trash gives it up; 0 for one that is not there."""
    return folder.trashed_ms + TRASH_DAYS * DAY_MS if folder.trashed_ms else 0


def is_over(folder: Folder, now_ms: int) -> bool:
    """Whether its time in the trash has passed."""
    return bool(folder.trashed_ms) and folder.is_live and purge_at_ms(folder) <= now_ms


def with_quota(folder: Folder, quota_bytes: int) -> Folder:
    """With another quota; 0: none. It may be below what is used: then nothing more comes in."""
    return msgspec.structs.replace(folder, quota_bytes=quota_bytes)


def used_for(folder: Folder, use: str) -> Folder:
    """Made for another use. Raises "usage"."""
    if use not in USES:
        raise ArgosyError("usage", f"`{use}` is no use of a folder", hint=f"one of {', '.join(USES)}")
    return msgspec.structs.replace(folder, use=use)


def check_room(folder: Folder, more_bytes: int, coming_bytes: int = 0) -> None:
    """Raises "over-quota" when `more_bytes` do not fit beside what is there and `coming_bytes` of other
    uploads."""
    if not folder.quota_bytes or folder.used_bytes + coming_bytes + more_bytes <= folder.quota_bytes:
        return
    coming = f" and {render_bytes(coming_bytes)} are on their way" if coming_bytes else ""
    raise ArgosyError(
        "over-quota",
        f"`{folder.name}` has {render_bytes(folder.quota_bytes)}, of which {render_bytes(folder.used_bytes)} "
        f"are used{coming}; {render_bytes(more_bytes)} more do not fit",
        hint=f"remove files, or ask who manages it for more: argosy folder quota {folder.name} SIZE",
    )


def check_folder_name(name: str) -> str:
    """Raises "usage" for what cannot be a folder's name."""
    plain = name.removeprefix(".")
    good = plain and len(name) <= 64 and all(char.isalnum() or char in "-_." for char in plain)
    if not good or not plain[0].isalnum() or not name.isascii():
        raise ArgosyError(
            "usage",
            f"`{name}` cannot be a folder's name",
            hint="letters, digits, `-`, `_`, `.`, at most 64; a dot first: in every session of its owner",
        )
    return name


def _check_there(folder: Folder) -> None:
    if folder.trashed_ms:
        raise ArgosyError(
            "conflict", f"`{folder.name}` is in the trash", hint=f"argosy folder restore {folder.name}"
        )


def _check_level(level: str) -> None:
    if level not in LEVELS:
        raise ArgosyError("usage", f"`{level}` is no level of access", hint=f"one of {', '.join(LEVELS)}")
