"""sync SOURCE TARGET: the target becomes what the source is. Files of the same size and time stay as they
are; with --delete what the source does not have goes."""

from __future__ import annotations

import os
import stat

from argosy.files.twin.change import set_mode
from argosy.files.twin.copying import BLOCK, Copier, Keep, Way, remove_tree
from argosy.files.twin.options import table, take_options
from argosy.files.twin.session import Session, Usage
from argosy.files.twin.walk import Dir, Kind, Tool, Walk, join, target_path

_TABLE = table(":delete c:checksum :size-only n v:verbose x:one-file-system a:archive r:recursive")


class Sync(Tool):
    follows = True

    def __init__(self, session: Session) -> None:
        self.session = session
        self.deletes = self.by_content = self.by_size = False
        keep = Keep()
        keep.mode = keep.owner = keep.times = keep.links = keep.xattrs = True
        self.copier = Copier(session, keep)
        self.walk = Walk(session, self)

    def take(self, words: list[str]) -> list[str]:
        given, operands = take_options(words, _TABLE)
        names = {name for name, _ in given}
        self.deletes, self.by_content = "delete" in names, "checksum" in names
        self.by_size = "size-only" in names
        self.session.dryrun |= "n" in names
        self.session.verbose |= "verbose" in names
        self.session.one_fs |= "one-file-system" in names
        return operands

    # --- folders ---

    def before(self, folder: Dir) -> bool:
        """Something else than a folder where a folder goes is removed."""
        if folder.parent is None or folder.parent.fresh:
            return True
        try:
            with self.walk.parent_grip(folder, 1) as at:
                st = os.stat(folder.name, dir_fd=at, follow_symlinks=False)
                if stat.S_ISDIR(st.st_mode):
                    return True
                if not self.session.dryrun:
                    os.unlink(folder.name, dir_fd=at)
        except FileNotFoundError:
            return True
        except OSError as error:
            self.session.complain("cannot remove", target_path(folder), error)
            return False
        self.session.told("remove", target_path(folder))
        return not self.session.dryrun

    def enter(self, folder: Dir, fd: int) -> bool:
        if self.session.dryrun:
            self._open_target(folder)
            return True
        if not self.copier.make_target(self.walk, folder):
            folder.failed = True
            return False
        self.session.changed += folder.fresh
        return True

    def _open_target(self, folder: Dir) -> None:
        """Without changing anything: the target's folder is opened where it is there."""
        try:
            if folder.parent is not None and folder.parent.keys[1] is None:
                raise FileNotFoundError
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if folder.parent else 0)
            with self.walk.parent_grip(folder, 1) as at:
                fd = os.open(folder.name if folder.parent else folder.to, flags, dir_fd=at)
        except OSError:
            folder.fresh = True
            self.session.told("create directory", target_path(folder))
            return
        self.walk.keep(folder, 1, fd)
        if folder.fds[1] != fd:
            os.close(fd)

    def leave(self, folder: Dir) -> None:
        known = folder.keys[0] is not None and folder.keys[1] is not None
        if self.deletes and not folder.failed and not folder.fresh and known:
            self._remove_extra(folder)
        if not self.session.dryrun:
            self.copier.finish_target(self.walk, folder)

    def _remove_extra(self, folder: Dir) -> None:
        """Names that the source does not have. Nothing goes where the source could not be read."""
        try:
            with self.walk.grip(folder, 1) as to, self.walk.grip(folder, 0) as at:
                for name in os.listdir(to):
                    try:
                        os.stat(name, dir_fd=at, follow_symlinks=False)
                        continue
                    except FileNotFoundError:
                        path = join(target_path(folder), name)
                    if self.session.dryrun:
                        self.session.told("remove", path)
                    else:
                        remove_tree(self.session, to, name, path)
        except OSError as error:
            self.session.complain("cannot read directory", target_path(folder), error)

    # --- entries ---

    def entry(self, folder: Dir, fd: int, name: str, kind: Kind) -> None:
        path, to_path = join(folder.path, name), join(target_path(folder), name)
        try:
            st = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return  # it went away while we looked
        except OSError as error:
            self.session.complain("cannot access", path, error)
            return
        if folder.keys[1] is None:
            self.session.told("copy", path, to_path)  # a dry run, and its folder is not there
            return
        try:
            with self.walk.grip(folder, 1) as to:
                self._bring(Way(folder, fd, to, name, name, path, to_path, st))
        except OSError as error:
            self.session.complain("cannot write", to_path, error)

    def _bring(self, way: Way) -> None:
        assert way.to is not None
        there = None
        if not (way.folder and way.folder.fresh):
            try:
                there = os.stat(way.to_name, dir_fd=way.to, follow_symlinks=False)
            except FileNotFoundError:
                pass
        if there and self._same(way, there):
            self._adjust(way, there)
            return
        if there and stat.S_ISDIR(there.st_mode):
            if not self.deletes:
                self.session.complain("a directory is in the way (--delete removes it):", way.to_path)
                return
            if not self.session.dryrun and not remove_tree(self.session, way.to, way.to_name, way.to_path):
                return
        if self.session.dryrun or self.copier.copy(way):
            self.session.told("copy", way.path, way.to_path)

    def _same(self, way: Way, there: os.stat_result) -> bool:
        st = way.st
        if stat.S_IFMT(st.st_mode) != stat.S_IFMT(there.st_mode):
            return False
        if stat.S_ISLNK(st.st_mode):
            return os.readlink(way.name, dir_fd=way.at) == os.readlink(way.to_name, dir_fd=way.to)
        if not stat.S_ISREG(st.st_mode):
            return st.st_rdev == there.st_rdev
        if st.st_size != there.st_size or (st.st_nlink > 1 and there.st_nlink != st.st_nlink):
            return False
        if self.by_content:
            return _same_bytes(way)
        return self.by_size or st.st_mtime_ns == there.st_mtime_ns

    def _adjust(self, way: Way, there: os.stat_result) -> None:
        """Of what is the same, owner, mode and times follow the source."""
        st, link = way.st, stat.S_ISLNK(way.st.st_mode)
        owner = (st.st_uid, st.st_gid) != (there.st_uid, there.st_gid)
        mode = not link and (st.st_mode ^ there.st_mode) & 0o7777
        times = st.st_mtime_ns != there.st_mtime_ns
        if not (owner or mode or times):
            return
        if not self.session.dryrun:
            try:
                if owner:
                    os.chown(way.to_name, st.st_uid, st.st_gid, dir_fd=way.to, follow_symlinks=False)
                if (mode or owner) and not link:
                    set_mode(way.to, way.to_name, st.st_mode & 0o7777, there, follow=False)
                if times:
                    both = (st.st_atime_ns, st.st_mtime_ns)
                    os.utime(way.to_name, ns=both, dir_fd=way.to, follow_symlinks=False)
            except PermissionError:
                pass
        self.session.told("adjust", way.to_path)


def _same_bytes(way: Way) -> bool:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(way.name, "rb", opener=lambda name, _: os.open(name, flags, dir_fd=way.at)) as one:
        with open(way.to_name, "rb", opener=lambda name, _: os.open(name, flags, dir_fd=way.to)) as other:
            while True:
                data = one.read(BLOCK)
                if data != other.read(BLOCK):
                    return False
                if not data:
                    return True


def _lies_in(path: str, above: os.stat_result) -> bool:
    """Whether the folder, or the one where it will be made, lies in `above` or is it."""
    real = os.path.realpath(path)
    while True:
        try:
            st = os.stat(real)
            if (st.st_dev, st.st_ino) == (above.st_dev, above.st_ino):
                return True
        except OSError:
            pass
        if real == "/":
            return False
        real = os.path.dirname(real)


def run(session: Session, words: list[str]) -> int:
    """Run sync. Raises Usage."""
    tool = Sync(session)
    paths = tool.take(words)
    if len(paths) > 2:
        raise Usage(f"one source and one target, not also '{paths[2]}'")
    if len(paths) < 2:
        raise Usage("missing operand: sync SOURCE TARGET")
    source, target = paths
    try:
        st = os.stat(source)
    except OSError as error:
        session.complain("cannot access", source, error)
        return 1
    if not stat.S_ISDIR(st.st_mode):
        raise Usage(f"the source is not a directory: '{source}'")
    there = None
    try:
        there = os.stat(target)
    except OSError:
        pass
    if there and not stat.S_ISDIR(there.st_mode):
        raise Usage(f"the target is not a directory: '{target}'")
    if _lies_in(target, st) or (there and _lies_in(source, there)):
        raise Usage(f"source and target lie in each other: '{target}'")
    tool.walk.root(source, st, target)
    tool.walk.run()
    if session.json:
        session.summary()
    return int(session.errors > 0)
