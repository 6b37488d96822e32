"""rm: entries of a folder in turn, folders side by side, and a folder itself when all below it is gone."""

from __future__ import annotations

import errno
import os
import stat

from argosy.files.twin.options import table, take_options
from argosy.files.twin.session import Session, Usage
from argosy.files.twin.walk import Dir, Kind, Tool, Walk, join

_TABLE = table("r:recursive R f:force v:verbose d:dir :one-file-system", preserve_root="?")


class Remove(Tool):
    slices = False  # the folder's lock is held for each of them anyway
    tries_unread = True

    def __init__(self, session: Session) -> None:
        self.session = session
        self.recursive = self.force = self.empty_dirs = False
        self.walk = Walk(session, self)

    def entry(self, folder: Dir, fd: int, name: str, kind: Kind) -> None:
        path = join(folder.path, name)
        try:
            if not self.session.dryrun:
                os.unlink(name, dir_fd=fd)
        except OSError as error:
            if not (self.force and error.errno == errno.ENOENT):
                self.session.complain("cannot remove", path, error)
                folder.failed = True
            return
        self.session.told("remove", path)

    def leave(self, folder: Dir) -> None:
        other = self.session.one_fs and folder.parent and not folder.error and _other_device(folder)
        gone = False
        if other:
            self.session.complain("skipping, it is on another device:", folder.path)
        elif not folder.failed or folder.error:
            gone = self._remove_dir(folder)
        if gone:
            self.session.told("remove", folder.path)
        elif folder.parent:
            folder.parent.failed = True

    def _remove_dir(self, folder: Dir) -> bool:
        if self.session.dryrun:
            return not folder.error
        try:
            with self.walk.parent_grip(folder) as at:
                os.rmdir(folder.name, dir_fd=at)
        except OSError as error:
            if self.force and error.errno == errno.ENOENT:
                return True
            self.session.complain("cannot remove", folder.path, folder.error or error)
            return False
        return True

    def named(self, path: str) -> None:
        try:
            st = os.lstat(path)
        except OSError as error:
            if not self.force or error.errno not in (errno.ENOENT, errno.ENOTDIR):
                self.session.complain("cannot remove", path, error)
            return
        folder = stat.S_ISDIR(st.st_mode)
        if folder and self.recursive:
            self.walk.root(path, st)
            return
        self.session.entries += 1
        if folder and not self.empty_dirs:
            self.session.complain("cannot remove", path, errno.EISDIR)
            return
        try:
            if not self.session.dryrun:
                (os.rmdir if folder else os.unlink)(path)
        except OSError as error:
            self.session.complain("cannot remove", path, error)
            return
        self.session.told("remove", path)

    def refused(self, path: str) -> bool:
        if (path.rstrip("/") or "/").rpartition("/")[2] in (".", ".."):
            self.session.complain("refusing to remove '.' or '..':", path)
            return True
        try:
            st, root = os.lstat(path), os.lstat("/")
        except OSError:
            return False
        if (st.st_dev, st.st_ino) == (root.st_dev, root.st_ino):
            self.session.complain("it is dangerous to work on all of", path)
            return True
        return False


def _other_device(folder: Dir) -> bool:
    own, above = folder.keys[0], folder.parent.keys[0] if folder.parent else None
    return bool(own and above and own[0] != above[0])


def run(session: Session, words: list[str]) -> int:
    """Run rm. Raises Usage."""
    tool = Remove(session)
    given, operands = take_options(words, _TABLE)
    names = {name for name, _ in given}
    tool.recursive, tool.force, tool.empty_dirs = (
        bool(names & {"recursive", "R"}),
        "force" in names,
        "dir" in names,
    )
    session.verbose |= "verbose" in names
    session.one_fs |= "one-file-system" in names
    if not operands and not tool.force:
        raise Usage("missing operand")
    for path in operands:
        if not tool.refused(path):
            tool.named(path)
    tool.walk.run()
    if session.json:
        session.summary()
    return int(session.errors > 0)
