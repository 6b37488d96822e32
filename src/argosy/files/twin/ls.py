"""ls: listings of folders, in order. With -R folders are read side by side and printed one after another."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass, field

from argosy.files.twin.facts import kind_words
from argosy.files.twin.modes import name_of
from argosy.files.twin.options import table, take_options
from argosy.files.twin.session import Session, human
from argosy.files.twin.walk import Dir, Kind, Tool, Walk, join

_TABLE = table("a:all A:almost-all l R:recursive d:directory S t r:reverse U n h:human-readable i:inode 1")
_HALF_YEAR_S = 31556952 // 2


@dataclass
class Row:
    name: str
    st: os.stat_result | None = None
    link: str = ""
    below: Listing | None = None


@dataclass
class Listing:
    path: str
    rows: list[Row] = field(default_factory=list)


class Ls(Tool):
    follows = True

    def __init__(self, session: Session, given: set[str]) -> None:
        self.session, self.given = session, given
        self.flat = "R" not in given and "recursive" not in given
        self.long = bool(given & {"l", "n"})
        self.wants_stat = self.long or session.json or bool(given & {"S", "t", "inode"})
        self.walk = Walk(session, self)
        self.files, self.folders = Listing(""), Listing("")
        self.missing = self.begun = False
        self.now = time.time()
        self._names: dict[tuple[int, bool], str] = {}

    # --- reading ---

    def hidden(self, name: str) -> bool:
        return name.startswith(".") and not self.given & {"all", "almost-all"}

    def row(self, name: str, at: int | None, path: str) -> Row:
        made = Row(name)
        if not self.wants_stat:
            return made
        try:
            made.st = os.stat(name, dir_fd=at, follow_symlinks=False)
            if stat.S_ISLNK(made.st.st_mode) and self.long:
                made.link = os.readlink(name, dir_fd=at)
        except OSError as error:
            self.session.complain("cannot access", path, error)
        return made

    def before(self, folder: Dir) -> bool:
        if folder.parent is None:
            return True
        if self.hidden(folder.name):
            return False
        with self.walk.parent_grip(folder) as at:
            row = self.row(folder.name, at, folder.path)
        folder.more = row.below = Listing(folder.path)
        folder.parent.more.rows.append(row)
        return True

    def enter(self, folder: Dir, fd: int) -> bool:
        if "all" in self.given:
            folder.more.rows += [self.row(name, fd, join(folder.path, name)) for name in (".", "..")]
        return True

    def entry(self, folder: Dir, fd: int, name: str, kind: Kind) -> None:
        if not self.hidden(name):
            folder.more.rows.append(self.row(name, fd, join(folder.path, name)))

    def named(self, path: str) -> None:
        as_is = "directory" in self.given
        try:
            try:
                st = os.stat(path, follow_symlinks=not self.long and not as_is)
            except OSError:
                st = os.lstat(path)
        except OSError as error:
            self.session.complain("cannot access", path, error)
            self.missing = True
            return
        if not stat.S_ISDIR(st.st_mode) or as_is:
            self.files.rows.append(self.row(path, None, path))
            return
        listing = Listing(path)
        self.folders.rows.append(Row(path, st, below=listing))
        self.walk.root(path, st).more = listing

    # --- printing ---

    def sorted(self, rows: list[Row]) -> list[Row]:
        if "U" in self.given:
            return rows

        def key(row: Row) -> tuple[int, bytes]:
            first = 0
            if row.st is not None and "S" in self.given:
                first = -row.st.st_size
            elif row.st is not None and "t" in self.given:
                first = -row.st.st_mtime_ns
            return first, os.fsencode(row.name)

        return sorted(rows, key=key, reverse="reverse" in self.given)

    def owner(self, number: int, *, group: bool) -> str:
        if "n" in self.given:
            return str(number)
        known = self._names.get((number, group))
        if known is None:
            known = self._names[(number, group)] = name_of(number, group=group) or str(number)
        return known

    def size(self, st: os.stat_result) -> str:
        return human(st.st_size) if "human-readable" in self.given else str(st.st_size)

    def columns(self, st: os.stat_result) -> list[str]:
        if stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
            size = f"{os.major(st.st_rdev)}, {os.minor(st.st_rdev):3d}"
        else:
            size = self.size(st)
        return [
            str(st.st_nlink), self.owner(st.st_uid, group=False), self.owner(st.st_gid, group=True), size,
            str(st.st_ino),
        ]  # fmt: skip

    def when(self, at: float) -> str:
        local = time.localtime(at)
        month = "JanFebMarAprMayJunJulAugSepOctNovDec"[3 * local.tm_mon - 3 : 3 * local.tm_mon]
        old = at > self.now or at <= self.now - _HALF_YEAR_S
        clock = f"{local.tm_year:5d}" if old else f"{local.tm_hour:02d}:{local.tm_min:02d}"
        return f"{month} {local.tm_mday:2d} {clock}"

    def print_rows(self, rows: list[Row], folder: str = "") -> None:
        rows = [row for row in self.sorted(rows) if row.st is not None or not self.wants_stat]
        if self.session.json:
            for row in rows:
                assert row.st is not None
                self.session.put_json(
                    path=join(folder, row.name) if folder else row.name, kind=kind_words(row.st),
                    size=row.st.st_size, mode=f"{row.st.st_mode & 0o7777:04o}", mtime=int(row.st.st_mtime),
                )  # fmt: skip
            return
        cells = [self.columns(row.st) if row.st is not None else ["", "", "", "", ""] for row in rows]
        widths = [max((len(cell[at]) for cell in cells), default=0) for at in range(5)]
        for row, cell in zip(rows, cells):  # noqa: B905  Python 3.8 has no strict
            text = f"{cell[4]:>{widths[4]}} " if "inode" in self.given else ""
            if self.long and row.st is not None:
                left = "<" if "n" not in self.given else ">"
                text += (
                    f"{stat.filemode(row.st.st_mode)} {cell[0]:>{widths[0]}} {cell[1]:{left}{widths[1]}} "
                    f"{cell[2]:{left}{widths[2]}} {cell[3]:>{widths[3]}} {self.when(row.st.st_mtime)} "
                )
            self.session.put(text + row.name + (f" -> {row.link}" if self.long and row.link else ""))

    def print_listing(self, listing: Listing, *, titled: bool) -> None:
        if titled and not self.session.json:
            self.session.put(("\n" if self.begun or self.files.rows else "") + listing.path + ":")
        self.begun = True
        if self.long and not self.session.json:
            blocks = sum(row.st.st_blocks for row in listing.rows if row.st is not None)
            total = human(blocks * 512) if "human-readable" in self.given else str((blocks + 1) // 2)
            self.session.put(f"total {total}")
        self.print_rows(listing.rows, listing.path)
        for row in self.sorted(listing.rows):
            if row.below is not None:
                self.print_listing(row.below, titled=True)


def run(session: Session, words: list[str]) -> int:
    """Run ls. Raises Usage."""
    given, paths = take_options(words, _TABLE)
    tool = Ls(session, {name for name, _ in given})
    for path in paths or ["."]:
        tool.named(path)
    tool.walk.run()
    tool.print_rows(tool.files.rows)
    titled = not tool.flat or len(paths) > 1
    for row in tool.sorted(tool.folders.rows):
        if row.below is not None:
            tool.print_listing(row.below, titled=titled)
    return 2 if tool.missing else int(session.errors > 0)
