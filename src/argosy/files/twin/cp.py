"""cp: as GNU cp, but each file appears whole: it is written beside its target and renamed."""

from __future__ import annotations

import os
import stat

from argosy.files.twin.copying import Copier, Keep, Way
from argosy.files.twin.options import table, take_options
from argosy.files.twin.session import Session, Usage
from argosy.files.twin.walk import Dir, Kind, Tool, Walk, join, target_path

_TABLE = table(
    "a:archive r:recursive R p d P:no-dereference n:no-clobber u:update v:verbose f:force"
    " T:no-target-directory x:one-file-system",
    target_directory="t=",
    preserve="?",
    no_preserve="=",
    reflink="?",
    sparse="=",
)
_WHEN = {"never": 0, "auto": 1, "always": 2, None: 2}
_USUAL = "mode,ownership,timestamps"
_KINDS = {
    "mode": "mode",
    "ownership": "owner",
    "timestamps": "times",
    "links": "links",
    "xattr": "xattrs",
    "context": "",
}


class Cp(Tool):
    def __init__(self, session: Session) -> None:
        self.session = session
        self.recursive = self.no_dereference = self.no_target = self.newer = self.no_clobber = False
        self.into = ""
        self.keep = Keep()
        self.copier = Copier(session, self.keep)
        self.walk = Walk(session, self)
        self.made: set[tuple[int, int]] = set()

    def take(self, words: list[str]) -> list[str]:
        given, operands = take_options(words, _TABLE)
        for name, value in given:
            self.recursive |= name in ("archive", "recursive", "R")
            self.no_dereference |= name in ("archive", "d", "no-dereference")
            self.no_target |= name == "no-target-directory"
            self.newer |= name == "update"
            self.no_clobber |= name == "no-clobber"
            self.session.verbose |= name == "verbose"
            self.session.one_fs |= name == "one-file-system"
            if name in ("archive", "p", "preserve", "d", "no-preserve"):
                lists = {"archive": "all", "p": _USUAL, "d": "links"}
                self._preserve(lists.get(name, value or _USUAL), on=name != "no-preserve")
            elif name == "target-directory":
                self.into = value or ""
            elif name in ("reflink", "sparse"):
                if value not in _WHEN:
                    raise Usage(f"invalid option or value: '{value}'")
                setattr(self.keep, name, _WHEN[value])
        return operands

    def _preserve(self, text: str, *, on: bool) -> None:
        for word in text.split(","):
            if word != "all" and word not in _KINDS:
                raise Usage(f"invalid option or value: '{text}'")
            for each in _KINDS if word == "all" else (word,):
                if _KINDS[each]:
                    setattr(self.keep, _KINDS[each], on)

    def enter(self, folder: Dir, fd: int) -> bool:
        assert folder.st is not None
        if folder.parent and (folder.st.st_dev, folder.st.st_ino) in self.made:
            self.session.complain("cannot copy a directory into itself:", folder.path)
            folder.failed = True
            return False
        if self.session.dryrun:
            self.session.told("copy", folder.path, target_path(folder))
            return True
        if not self.copier.make_target(self.walk, folder):
            folder.failed = True
            return False
        if folder.parent is None and folder.keys[1]:
            self.made.add(folder.keys[1])
        return True

    def entry(self, folder: Dir, fd: int, name: str, kind: Kind) -> None:
        path, to_path = join(folder.path, name), join(target_path(folder), name)
        try:
            st = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if self.session.dryrun:
                self.copy_one(Way(folder, fd, None, name, name, path, to_path, st))
                return
            with self.walk.grip(folder, 1) as to:
                self.copy_one(Way(folder, fd, to, name, name, path, to_path, st))
        except OSError as error:
            self.session.complain("cannot access", path, error)

    def leave(self, folder: Dir) -> None:
        if folder.error and not self.session.dryrun:
            self.copier.make_target(self.walk, folder)  # one that cannot be read has an empty copy
        if not self.session.dryrun:
            self.copier.finish_target(self.walk, folder)

    def copy_one(self, way: Way) -> None:
        if not self._stays(way) and (self.session.dryrun or self.copier.copy(way)):
            self.session.told("copy", way.path, way.to_path)

    def _stays(self, way: Way) -> bool:
        if not (self.newer or self.no_clobber) or (way.folder and way.folder.fresh):
            return False
        try:
            there = os.stat(way.to_name, dir_fd=way.to, follow_symlinks=False)
        except OSError:
            return False
        return self.no_clobber or way.st.st_mtime_ns <= there.st_mtime_ns

    def named(self, path: str, to: str) -> None:
        through = not self.recursive and not self.no_dereference
        try:
            st = os.stat(path, follow_symlinks=through)
        except OSError as error:
            self.session.complain("cannot access", path, error)
            return
        there = _stat(to)
        folder = stat.S_ISDIR(st.st_mode)
        if there and (there.st_dev, there.st_ino) == (st.st_dev, st.st_ino):
            text = (
                "cannot copy a directory into itself:" if folder else "source and target are the same file:"
            )
            self.session.complain(text, path)
        elif folder and not self.recursive:
            self.session.complain("-r not specified; omitting directory", path)
        elif folder and there and not stat.S_ISDIR(there.st_mode):
            self.session.complain("cannot overwrite non-directory", to)
        elif folder:
            self.walk.root(path, st, to)
        elif there and stat.S_ISDIR(there.st_mode):
            self.session.complain("cannot overwrite directory", to)
        else:
            self._file(path, to, st, through)

    def _file(self, path: str, to: str, st: os.stat_result, through: bool) -> None:
        self.session.entries += 1
        above, slash, name = to.rpartition("/")
        try:
            at = os.open(above or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if slash else None
        except OSError as error:
            self.session.complain("cannot create", to, error)
            return
        self.copy_one(Way(None, None, at, path, name, path, to, st, through))
        if at is not None:
            os.close(at)


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def run(session: Session, words: list[str]) -> int:
    """Run cp. Raises Usage."""
    tool = Cp(session)
    paths = tool.take(words)
    if not paths:
        raise Usage("missing file operand")
    if not tool.into and len(paths) < 2:
        raise Usage(f"missing destination file operand after '{paths[0]}'")
    last = tool.into or paths.pop()
    there = _stat(last)
    is_folder = there is not None and stat.S_ISDIR(there.st_mode)
    into = bool(tool.into) or (is_folder and not tool.no_target)
    if (tool.into and not is_folder) or (not into and len(paths) > 1):
        raise Usage(f"target is not a directory: '{last}'")
    for path in paths:
        name = (path.rstrip("/") or "/").rpartition("/")[2]
        tool.named(path, join(last, name) if into and name not in (".", "..", "") else last)
    tool.walk.run()
    if session.json:
        session.summary()
    return int(session.errors > 0)
