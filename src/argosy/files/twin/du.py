"""du: sums of what folders hold. A file with several names counts once."""

from __future__ import annotations

import os
import stat

from argosy.files.twin.options import table, take_options
from argosy.files.twin.patterns import matches
from argosy.files.twin.session import Session, Usage, human
from argosy.files.twin.walk import Dir, Kind, Tool, Walk, join

_TABLE = {
    **table(
        "a:all b:bytes c:total h:human-readable k m l:count-links s:summarize S:separate-dirs"
        " x:one-file-system 0:null P:no-dereference :apparent-size :inodes",
        block_size="B=",
        exclude="=",
    ),
    "d": ("max-depth", "="),
    "max-depth": ("max-depth", "="),
}


class Du(Tool):
    def __init__(self, session: Session, words: list[str]) -> None:
        self.session = session
        self.all = self.apparent = self.total = self.count_links = self.own_only = self.inodes = False
        self.human, self.end, self.block, self.deepest = False, "\n", 1024, 1 << 60
        self.excluded: list[str] = []
        given, self.roots = take_options(words, _TABLE)
        for name, value in given:
            self._take(name, value or "")
        if self.all and self.deepest == 0:
            raise Usage("cannot both summarize and show all entries")
        self.roots = self.roots or ["."]
        self.seen: set[tuple[int, int]] = set()
        self.sums = [0, 0]
        self.walk = Walk(session, self)

    def _take(self, name: str, value: str) -> None:
        flags = {
            "all": "all", "total": "total", "human-readable": "human", "count-links": "count_links",
            "separate-dirs": "own_only", "apparent-size": "apparent", "inodes": "inodes",
        }  # fmt: skip
        if name in flags:
            setattr(self, flags[name], True)
        elif name == "bytes":
            self.apparent, self.block = True, 1
        elif name in ("k", "m"):
            self.block = 1024 if name == "k" else 1 << 20
        elif name == "summarize":
            self.deepest = 0
        elif name == "one-file-system":
            self.session.one_fs = True
        elif name == "null":
            self.end = "\0"
        elif name == "exclude":
            self.excluded.append(value)
        elif name == "max-depth":
            if not value.isdigit():
                raise Usage(f"invalid option or value: '{value}'")
            self.deepest = int(value)
        elif name == "block-size":
            self.block = _size(value)

    def size_of(self, st: os.stat_result) -> int:
        return st.st_size if self.apparent else st.st_blocks * 512

    def first(self, st: os.stat_result) -> bool:
        key = (st.st_dev, st.st_ino)
        with self.session.lock:
            if key in self.seen:
                return False
            self.seen.add(key)
            return True

    def counts(self, st: os.stat_result) -> bool:
        return self.count_links or stat.S_ISDIR(st.st_mode) or st.st_nlink < 2 or self.first(st)

    def skipped(self, name: str, path: str) -> bool:
        return any(matches(each, name) or matches(each, path) for each in self.excluded)

    def show(self, path: str, size: int, files: int) -> None:
        shown = files if self.inodes else size
        if self.session.json:
            self.session.put_json(path=path, **{"inodes" if self.inodes else "bytes": shown})
            return
        text = human(shown) if self.human else str(shown if self.inodes else -(-shown // self.block))
        self.session.put(f"{text}\t{path}", self.end)

    def before(self, folder: Dir) -> bool:
        folder.more = bool(self.excluded) and self.skipped(folder.name, folder.path)
        return not folder.more

    def enter(self, folder: Dir, fd: int) -> bool:
        assert folder.st is not None
        if len(self.roots) > 1 and not self.count_links and folder.parent and not self.first(folder.st):
            folder.more = True
            return False
        return True

    def entry(self, folder: Dir, fd: int, name: str, kind: Kind) -> None:
        path = join(folder.path, name)
        if self.excluded and self.skipped(name, path):
            return
        try:
            st = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            self.session.complain("cannot access", path, error)
            return
        key = folder.keys[0]
        if (self.session.one_fs and key and st.st_dev != key[0]) or not self.counts(st):
            return
        with self.session.lock:
            folder.own_bytes += self.size_of(st)
            folder.own_files += 1
        if self.all and folder.depth < self.deepest:
            self.show(path, self.size_of(st), 1)

    def leave(self, folder: Dir) -> None:
        if folder.more:
            return
        above = folder.parent
        if folder.st is None:
            try:
                with self.walk.parent_grip(folder) as at:
                    folder.st = os.stat(folder.name, dir_fd=at, follow_symlinks=False)
            except OSError:
                pass
        if (
            self.session.one_fs
            and above
            and folder.st
            and above.keys[0]
            and folder.st.st_dev != above.keys[0][0]
        ):
            return
        if folder.st is not None:
            folder.own_bytes += self.size_of(folder.st)
            folder.own_files += 1
        size, files = folder.bytes + folder.own_bytes, folder.files + folder.own_files
        with self.session.lock:
            if above:
                above.bytes += size
                above.files += files
            else:
                self.sums[0] += size
                self.sums[1] += files
        if folder.depth <= self.deepest:
            own = self.own_only
            self.show(folder.path, folder.own_bytes if own else size, folder.own_files if own else files)

    def sum_root(self, path: str) -> None:
        try:
            st = os.lstat(path)
        except OSError as error:
            self.session.complain("cannot access", path, error)
            return
        if not self.counts(st) or (stat.S_ISDIR(st.st_mode) and not self.count_links and not self.first(st)):
            return
        if stat.S_ISDIR(st.st_mode):
            self.walk.root(path, st)
            self.walk.run()
            return
        self.session.entries += 1
        self.sums[0] += self.size_of(st)
        self.sums[1] += 1
        self.show(path, self.size_of(st), 1)


def _size(text: str) -> int:
    digits = text.rstrip("kKMGTPE")
    letter = text[len(digits) :].upper()
    if len(letter) > 1 or not (digits or letter) or (digits and not digits.isdigit()):
        raise Usage(f"invalid option or value: '{text}'")
    size = int(digits or "1") << (10 * ("KMGTPE".index(letter) + 1) if letter else 0)
    if not size:
        raise Usage(f"invalid option or value: '{text}'")
    return size


def run(session: Session, words: list[str]) -> int:
    """Run du. What the user named is summed one after another: the first one has the files that several
    hold."""
    tool = Du(session, words)
    for path in tool.roots:
        tool.sum_root(path)
    if tool.total:
        tool.show("total", *tool.sums)
    return int(session.errors > 0)
