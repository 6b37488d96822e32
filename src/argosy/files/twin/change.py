"""chmod and chown: a folder is changed before it is entered, as GNU does, and never through a link that lies
in it."""

from __future__ import annotations

import os
import stat

from argosy.files.twin.modes import Mode, id_of, parse_mode
from argosy.files.twin.options import table, take_options
from argosy.files.twin.session import Session, Usage
from argosy.files.twin.walk import Dir, Kind, Tool, Walk, join

_TABLE = table(
    "R:recursive v:verbose c:changes f:quiet :silent h:no-dereference P:preserve-root :dereference",
    reference="=",
    **{"from": "="},
)


class Change(Tool):
    """What both share."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.recursive = self.changes_only = self.no_dereference = False
        self.reference, self.only = "", ""
        self.walk = Walk(session, self)

    def take(self, words: list[str]) -> list[str]:
        given, operands = take_options(words, _TABLE)
        for name, value in given:
            self.recursive |= name == "recursive"
            self.no_dereference |= name == "no-dereference"
            self.changes_only |= name == "changes"
            self.session.verbose |= name in ("verbose", "changes")
            self.session.quiet |= name in ("quiet", "silent")
            self.reference = (value or "") if name == "reference" else self.reference
            self.only = (value or "") if name == "from" else self.only
        return operands

    def tell(self, path: str, changed: bool) -> None:
        if changed:
            self.session.told("change", path)
        elif (self.session.verbose and not self.changes_only) or self.session.dryrun:
            self.session.told("keep", path)
            self.session.changed -= 1

    def change(self, at: int | None, name: str, path: str, *, follow: bool) -> None:
        raise NotImplementedError

    def links_themselves(self) -> bool:
        return self.no_dereference

    def before(self, folder: Dir) -> bool:
        try:
            with self.walk.parent_grip(folder) as at:
                self.change(at, folder.name, folder.path, follow=folder.parent is None and self.follows)
        except OSError as error:
            self.session.failed("cannot access", folder.path, error)
        return True

    def begin(self, paths: list[str]) -> int:
        if not paths:
            raise Usage("missing operand")
        for path in paths:
            follow = not self.links_themselves()
            try:
                st = os.stat(path, follow_symlinks=follow)
            except OSError as error:
                self.session.failed("cannot access", path, error)
                continue
            if self.recursive and stat.S_ISDIR(st.st_mode):
                if path == "/":
                    raise Usage("it is dangerous to work on all of '/'")
                self.walk.root(path, st)
            else:
                self.session.entries += 1
                self.change(None, path, path, follow=follow)
        self.walk.run()
        if self.session.json:
            self.session.summary()
        return int(self.session.errors > 0)


class Chmod(Change):
    follows = True

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.mode = Mode()
        self.surprising = False  # the mode was written as an option: what the umask keeps back is said

    def change(self, at: int | None, name: str, path: str, *, follow: bool) -> None:
        try:
            st = os.stat(name, dir_fd=at, follow_symlinks=follow)
        except OSError as error:
            self.session.failed("cannot access", path, error)
            return
        if stat.S_ISLNK(st.st_mode):
            return
        old, folder = st.st_mode & 0o7777, stat.S_ISDIR(st.st_mode)
        now = self.mode.applied(old, folder=folder, umask=self.session.umask)
        if not self.session.dryrun:
            try:
                set_mode(at, name, now, st, follow=follow)
            except OSError as error:
                self.session.failed("changing permissions of", path, error)
                return
        self.tell(path, now != old)
        if self.surprising and now & ~self.mode.applied(old, folder=folder, umask=0):
            self.session.complain("the umask keeps back permissions of", path)

    def entry(self, folder: Dir, fd: int, name: str, kind: Kind) -> None:
        if kind != stat.S_IFLNK:
            self.change(fd, name, join(folder.path, name), follow=False)


def set_mode(at: int | None, name: str, mode: int, st: os.stat_result, *, follow: bool) -> None:
    """Set the mode of what `st` was seen of. Without `follow` never through a link that came between: the
    file is opened as a mere path first. Raises OSError."""
    if follow:
        os.chmod(name, mode, dir_fd=at)
        return
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    try:
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            return
        os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


class Chown(Change):
    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.owner, self.group = -1, -1
        self.from_owner, self.from_group = -1, -1

    def links_themselves(self) -> bool:
        return self.no_dereference or self.recursive

    def change(self, at: int | None, name: str, path: str, *, follow: bool) -> None:
        try:
            st = os.stat(name, dir_fd=at, follow_symlinks=follow)
        except OSError as error:
            self.session.failed("cannot access", path, error)
            return
        if self.from_owner not in (-1, st.st_uid) or self.from_group not in (-1, st.st_gid):
            return
        if not self.session.dryrun:
            try:
                os.chown(name, self.owner, self.group, dir_fd=at, follow_symlinks=follow)
            except OSError as error:
                self.session.failed("changing ownership of", path, error)
                return
        self.tell(path, self.owner not in (-1, st.st_uid) or self.group not in (-1, st.st_gid))

    def entry(self, folder: Dir, fd: int, name: str, kind: Kind) -> None:
        self.change(fd, name, join(folder.path, name), follow=False)


def run_chmod(session: Session, words: list[str]) -> int:
    """Run chmod. Raises Usage."""
    tool = Chmod(session)
    rest = list(words)
    for index, word in enumerate(words):
        mode = parse_mode(word) if word[:1] == "-" and word[1:2] and word[1] in "rwxXstugoa,+-=" else None
        if mode is not None:
            tool.mode, tool.surprising = mode, True
            del rest[index]
            break
    operands = tool.take(rest)
    if tool.reference:
        try:
            tool.mode = Mode(octal=os.stat(tool.reference).st_mode & 0o7777)
        except OSError as error:
            session.complain("cannot access", tool.reference, error)
            return 1
    elif not tool.surprising and operands:
        mode = parse_mode(operands[0])
        if mode is None:
            raise Usage(f"invalid mode: '{operands[0]}'")
        tool.mode, operands = mode, operands[1:]
    return tool.begin(operands)


def run_chown(session: Session, words: list[str]) -> int:
    """Run chown. Raises Usage."""
    tool = Chown(session)
    operands = tool.take(words)
    if tool.only:
        tool.from_owner, tool.from_group = _owner(tool.only)
    if tool.reference:
        try:
            st = os.stat(tool.reference)
        except OSError as error:
            session.complain("cannot access", tool.reference, error)
            return 1
        tool.owner, tool.group = st.st_uid, st.st_gid
    elif operands:
        tool.owner, tool.group = _owner(operands[0])
        operands = operands[1:]
    return tool.begin(operands)


def _owner(text: str) -> tuple[int, int]:
    user, _, group = text.partition(":")
    numbers = [id_of(name, group=kind) if name else -1 for name, kind in ((user, False), (group, True))]
    if numbers[0] is None or numbers[1] is None:
        raise Usage(f"nobody is called '{text}'")
    return numbers[0], numbers[1]
