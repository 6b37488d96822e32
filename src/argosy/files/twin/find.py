"""find: tests and actions of GNU find that are in common use."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from argosy.files.twin.modes import id_of, parse_mode
from argosy.files.twin.patterns import matches
from argosy.files.twin.session import Session, Usage
from argosy.files.twin.walk import Dir, Kind, Tool, Walk, join

_KINDS = {
    "f": stat.S_IFREG,
    "d": stat.S_IFDIR,
    "l": stat.S_IFLNK,
    "b": stat.S_IFBLK,
    "c": stat.S_IFCHR,
    "p": stat.S_IFIFO,
    "s": stat.S_IFSOCK,
}
_WORDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFBLK: "block",
    stat.S_IFCHR: "char",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_UNITS = {"c": 1, "w": 2, "b": 512, "k": 1024, "M": 1 << 20, "G": 1 << 30, "": 512}


class Entry:
    """What is looked at; its stat is asked for when a test needs it."""

    __slots__ = ("_kind", "_st", "at", "depth", "name", "path", "pruned", "session", "unknown")

    def __init__(
        self, session: Session, at: int | None, name: str, path: str, kind: Kind, depth: int
    ) -> None:
        self.session, self.at, self.name, self.path, self.depth = session, at, name, path, depth
        self._kind, self._st = kind, None  # type: int, os.stat_result | None
        self.pruned = self.unknown = False

    @property
    def st(self) -> os.stat_result | None:
        if self._st is None and not self.unknown:
            try:
                self._st = os.stat(self.name, dir_fd=self.at, follow_symlinks=False)
            except OSError as error:
                self.unknown = True
                self.session.complain("cannot access", self.path, error)
        return self._st

    @property
    def seen(self) -> os.stat_result | None:
        return self._st

    @property
    def kind(self) -> int:
        if not self._kind and self.st is not None:
            self._kind = stat.S_IFMT(self.st.st_mode)
        return self._kind


Test = Callable[[Entry], bool]


class _Parser:
    """Words to one function that tests and acts."""

    def __init__(self, session: Session, words: Sequence[str]) -> None:
        self.session, self.words, self.at = session, words, 0
        self.acts = self.deep = False
        self.deepest, self.shallowest = 1 << 60, 0
        self.now = int(time.time())

    def whole(self) -> Test:
        test = self.alternatives() if self.words else _always
        if self.at < len(self.words):
            self.wrong(f"what is this: '{self.words[self.at]}'")
        if self.acts:
            return test
        return lambda entry: test(entry) and self.print(entry, "\n")

    def wrong(self, text: str) -> NoReturn:
        raise Usage(text)

    def next(self) -> str:
        return self.words[self.at] if self.at < len(self.words) else ""

    def argument(self, of: str) -> str:
        if self.at >= len(self.words):
            self.wrong(f"missing argument to '{of}'")
        self.at += 1
        return self.words[self.at - 1]

    def alternatives(self) -> Test:
        left = self.conjunction()
        while self.next() in ("-o", "-or"):
            self.at += 1
            left = _either(left, self.conjunction())
        return left

    def conjunction(self) -> Test:
        left = self.primary()
        while self.at < len(self.words) and self.next() not in (")", "-o", "-or"):
            self.at += self.next() in ("-a", "-and")
            left = _both(left, self.primary())
        return left

    def primary(self) -> Test:
        word = self.argument("an operator")
        if word == "(":
            inner = self.alternatives()
            if self.next() != ")":
                self.wrong("missing ')'")
            self.at += 1
            return inner
        if word in ("!", "-not"):
            inner = self.primary()
            return lambda entry: not inner(entry)
        make = self.makers().get(word)
        if make is None and re.fullmatch(r"-[acm](time|min)", word):
            make = self.time_test
        if make is None:
            self.wrong(f"unknown predicate '{word}'")
        return make(word)

    def makers(self) -> dict[str, Callable[[str], Test]]:
        groups: dict[Callable[[str], Test], str] = {
            self.name_test: "-name -iname",
            self.path_test: "-path -wholename",
            self.type_test: "-type",
            self.size_test: "-size",
            self.perm_test: "-perm",
            self.newer_test: "-newer",
            self.limit: "-maxdepth -mindepth",
            self.number_test: "-links -inum -uid -gid",
            self.owner_test: "-user -group",
            self.plain: "-empty -true -false",
            self.action: "-print -print0 -prune -delete -quit",
            self.option: "-depth -xdev -mount",
        }
        return {word: make for make, words in groups.items() for word in words.split()}

    # --- tests ---

    def name_test(self, word: str) -> Test:
        pattern, fold = self.argument(word), word == "-iname"

        def holds(entry: Entry) -> bool:
            name = entry.name
            if not entry.depth and "/" in name and not name.endswith("/"):
                name = name.rpartition("/")[2]
            return matches(pattern, name, fold=fold)

        return holds

    def path_test(self, word: str) -> Test:
        pattern = self.argument(word)
        return lambda entry: matches(pattern, entry.path)

    def type_test(self, word: str) -> Test:
        letters = self.argument(word).split(",")
        if any(each not in _KINDS for each in letters):
            self.wrong(f"unknown argument to -type: '{','.join(letters)}'")
        kinds = [_KINDS[each] for each in letters]
        return lambda entry: entry.kind in kinds

    def number(self, word: str, more: str = "") -> tuple[Callable[[int], bool], str]:
        """[+-]N and what may follow. Returns the comparison, and what followed."""
        text = self.argument(word)
        found = re.fullmatch(
            rf"([+-]?)([0-9]{{1,18}})([{more}]?)" if more else r"([+-]?)([0-9]{1,18})()", text
        )
        if found is None:
            self.wrong(f"not a number: '{text}'")
        sign, number = found[1], int(found[2])
        if sign == "+":
            return (lambda value: value > number), found[3]
        if sign == "-":
            return (lambda value: value < number), found[3]
        return (lambda value: value == number), found[3]

    def size_test(self, word: str) -> Test:
        fits, letter = self.number(word, "cwbkMG")
        unit = _UNITS[letter]
        return lambda entry: entry.st is not None and fits(-(-entry.st.st_size // unit))

    def number_test(self, word: str) -> Test:
        fits, _ = self.number(word)
        field = {"-links": "st_nlink", "-inum": "st_ino", "-uid": "st_uid", "-gid": "st_gid"}[word]
        return lambda entry: entry.st is not None and fits(getattr(entry.st, field))

    def owner_test(self, word: str) -> Test:
        name, group = self.argument(word), word == "-group"
        number = id_of(name, group=group)
        if number is None:
            self.wrong(f"nobody is called '{name}'")
        if group:
            return lambda entry: entry.st is not None and entry.st.st_gid == number
        return lambda entry: entry.st is not None and entry.st.st_uid == number

    def time_test(self, word: str) -> Test:
        fits, _ = self.number(word)
        field, days = f"st_{word[1]}time", word.endswith("time")

        def holds(entry: Entry) -> bool:
            if entry.st is None:
                return False
            age = self.now - int(getattr(entry.st, field))
            if days:
                return fits(age // 86400 if age >= 0 else -1)
            return fits(-(-age // 60) if age >= 0 else 0)

        return holds

    def newer_test(self, word: str) -> Test:
        path = self.argument(word)
        try:
            at = os.lstat(path).st_mtime_ns
        except OSError:
            self.wrong(f"cannot access '{path}'")
        return lambda entry: entry.st is not None and entry.st.st_mtime_ns > at

    def perm_test(self, word: str) -> Test:
        text = self.argument(word)
        mode = parse_mode(text.lstrip("-/") if text[:1] in "-/" else text)
        if mode is None:
            self.wrong(f"not a mode: '{text}'")
        wanted = mode.applied(0, folder=False, umask=0)

        def holds(entry: Entry) -> bool:
            if entry.st is None:
                return False
            has = entry.st.st_mode & 0o7777
            if text[0] == "-":
                return has & wanted == wanted
            return (not wanted or bool(has & wanted)) if text[0] == "/" else has == wanted

        return holds

    def plain(self, word: str) -> Test:
        return {"-empty": self.empty, "-true": _always, "-false": lambda entry: False}[word]

    def empty(self, entry: Entry) -> bool:
        if entry.kind == stat.S_IFREG:
            return entry.st is not None and entry.st.st_size == 0
        if entry.kind != stat.S_IFDIR:
            return False
        try:
            fd = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=entry.at)
            try:
                with os.scandir(fd) as listing:
                    return next(listing, None) is None
            finally:
                os.close(fd)
        except OSError as error:
            self.session.complain("cannot read directory", entry.path, error)
            return False

    # --- options and actions ---

    def limit(self, word: str) -> Test:
        text = self.argument(word)
        if not text.isdigit():
            self.wrong(f"not a number: '{text}'")
        if word == "-maxdepth":
            self.deepest = int(text)
        else:
            self.shallowest = int(text)
        return _always

    def option(self, word: str) -> Test:
        if word == "-depth":
            self.deep = True
        else:
            self.session.one_fs = True
        return _always

    def action(self, word: str) -> Test:
        self.acts |= word not in ("-prune", "-quit")
        self.deep |= word == "-delete"
        return {
            "-print": lambda entry: self.print(entry, "\n"),
            "-print0": lambda entry: self.print(entry, "\0"),
            "-prune": _prune,
            "-delete": self.delete,
            "-quit": self.quit,
        }[word]

    def print(self, entry: Entry, end: str) -> bool:
        if self.session.json:
            size = {"size": entry.seen.st_size} if entry.seen is not None else {}
            self.session.put_json(path=entry.path, type=_WORDS.get(entry.kind, "other"), **size)
        else:
            self.session.put(entry.path, end)
        return True

    def delete(self, entry: Entry) -> bool:
        if not entry.depth and entry.name == ".":
            return True
        if self.session.dryrun:
            self.session.told("remove", entry.path)
            return True
        try:
            if entry.kind == stat.S_IFDIR:
                os.rmdir(entry.name, dir_fd=entry.at)
            else:
                os.unlink(entry.name, dir_fd=entry.at)
        except OSError as error:
            self.session.complain("cannot delete", entry.path, error)
            return False
        return True

    def quit(self, entry: Entry) -> bool:
        self.session.stopped = True
        return True


def _always(entry: Entry) -> bool:
    return True


def _prune(entry: Entry) -> bool:
    entry.pruned = True
    return True


def _both(left: Test, right: Test) -> Test:
    return lambda entry: left(entry) and right(entry)


def _either(left: Test, right: Test) -> Test:
    return lambda entry: left(entry) or right(entry)


class Find(Tool):
    def __init__(self, session: Session, parser: _Parser, test: Test) -> None:
        self.session, self.parser, self.test = session, parser, test
        self.walk = Walk(session, self)

    def look(self, entry: Entry) -> bool:
        if entry.depth >= self.parser.shallowest:
            self.test(entry)
        return not entry.pruned and entry.depth < self.parser.deepest

    def at_dir(self, folder: Dir) -> bool:
        try:
            with self.walk.parent_grip(folder) as at:
                return self.look(
                    Entry(self.session, at, folder.name, folder.path, stat.S_IFDIR, folder.depth)
                )
        except OSError as error:
            self.session.complain("cannot access", folder.path, error)
            return False

    def before(self, folder: Dir) -> bool:
        return folder.depth < self.parser.deepest if self.parser.deep else self.at_dir(folder)

    def leave(self, folder: Dir) -> None:
        if self.parser.deep and not self.session.stopped:
            self.at_dir(folder)

    def entry(self, folder: Dir, fd: int, name: str, kind: Kind) -> None:
        if folder.depth < self.parser.deepest:
            self.look(Entry(self.session, fd, name, join(folder.path, name), kind, folder.depth + 1))


def run(session: Session, words: list[str]) -> int:
    """Run find. Raises Usage."""
    paths = 0
    while paths < len(words) and words[paths][:1] not in ("-", "(", "!"):
        paths += 1
    parser = _Parser(session, words[paths:])
    tool = Find(session, parser, parser.whole())
    for path in words[:paths] or ["."]:
        try:
            st = os.lstat(path)
        except OSError as error:
            session.complain("cannot access", path, error)
            continue
        if stat.S_ISDIR(st.st_mode):
            tool.walk.root(path, st)
        else:
            session.entries += 1
            tool.look(Entry(session, None, path, path, stat.S_IFMT(st.st_mode), 0))
    tool.walk.run()
    return int(session.errors > 0)
