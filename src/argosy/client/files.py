"""Folders and files as trees: what is sent, what is left out, and what need not be read again.

Which files travel: everything except `.git`, and except what the ignore files name. They add up: every
`.gitignore` holds for its folder and below, as in git, and `.argosyignore` (or `.skyignore`) in the folder
itself speaks last, so that a line `!pattern` there takes something back. A line `!.git` there sends `.git`.
Links travel as links, wherever they lead.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from argosy.client.ignore import Rules, is_ignored, parse_rules
from argosy.client.looking import (
    Look,
    Notes,
    Rows,
    Said,
    cache_file,
    known_of,
    noted,
    render_said,
    save_notes,
    stamp_of,
    write_cache,
)
from argosy.model.errors import ArgosyError
from argosy.model.tree import CHUNK_BYTES, Entry, Tree, TreeChange, folders_above

IGNORE_FILES: Final = (".skyignore", ".argosyignore")  # in the folder itself; the last one speaks last
GIT: Final = ".git"
ASKS_FOR_GIT: Final = frozenset({"!.git", "!.git/", "!/.git", "!/.git/"})
FOLDERS_AGAIN: Final = 500  # of which more differ, all of them are scanned
READ_TRIES: Final = 5
#: A file touched this shortly before it was hashed may change again without a new time stamp: not cached.
SETTLED_NS: Final = 1_000_000_000
Take = Callable[[str, bytes], None]  # a chunk: digest and bytes
Hear = Callable[[int, int], None]  # entries so far, and bytes that were read


class Known(msgspec.Struct, frozen=True, array_like=True):
    """A file as it was when it was hashed."""

    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int
    chunks: tuple[str, ...]


class Scanned(NamedTuple):
    """A tree, where its files lie, and what the user should know."""

    tree: Tree
    root: Path  # the folder, or the single file itself
    warnings: tuple[str, ...]
    hashed_bytes: int  # what had to be read; the rest was known

    @property
    def size_bytes(self) -> int:
        return sum(entry.size for entry in self.tree.entries)


class Rescanned(NamedTuple):
    """What has changed since a tree was noted, and where its files lie."""

    change: TreeChange
    scanned: Scanned  # what is new in it
    notes: Notes  # for the next time, but for the digest of the tree


class HashCache:
    """Digests of files by path and stat, in one file per scanned folder below `<state>/cache/hashes`.

    Losing it costs time only. A broken one counts as empty.
    """

    def __init__(self, home: Path | None, root: Path, known: Mapping[str, Known] = {}) -> None:
        self.file: Path | None = None
        self._known = dict(known)
        self._fresh: dict[str, Known] = {}
        if home is not None:
            self.file = cache_file(home, root)
            try:
                self._known = msgspec.msgpack.decode(self.file.read_bytes(), type=dict[str, Known])
            except (OSError, msgspec.DecodeError):
                self._known = {}

    def get(self, path: str, info: os.stat_result) -> tuple[str, ...] | None:
        known = self._known.get(path)
        if (
            known is None
            or known.mtime_ns != info.st_mtime_ns
            or known.size != info.st_size
            or known.inode != info.st_ino
            or known.ctime_ns != info.st_ctime_ns
        ):
            return None
        self._fresh[path] = known
        return known.chunks

    def put(self, path: str, info: os.stat_result, chunks: tuple[str, ...], now_ns: int) -> None:
        if max(info.st_mtime_ns, info.st_ctime_ns) > now_ns - SETTLED_NS:
            return
        self._fresh[path] = Known(info.st_size, info.st_mtime_ns, info.st_ino, info.st_ctime_ns, chunks)

    def save(self) -> None:
        """Keep what the last scan saw."""
        if self.file is not None and self._fresh != self._known:
            write_cache(self.file, msgspec.msgpack.encode(self._fresh))


def check_source(source: Path, what: str) -> os.stat_result:
    """What is to be sent is there. Errors: "workdir-missing"."""
    try:
        info = source.stat()
    except OSError as error:
        resolved = Path(os.path.abspath(source))  # noqa: PTH100  links must stay visible
        why = (
            "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        )
        raise ArgosyError("workdir-missing", f"{what} `{resolved}` {why}") from None
    if not stat.S_ISDIR(info.st_mode) and not stat.S_ISREG(info.st_mode):
        raise ArgosyError("workdir-missing", f"{what} `{source}` is neither a folder nor a file")
    if what == "workdir" and stat.S_ISREG(info.st_mode):
        raise ArgosyError(
            "workdir-missing", f"workdir `{source}` is a file, not a folder", hint="name its folder"
        )
    return info


def scan(
    source: Path,
    *,
    what: str = "workdir",
    home: Path | None = None,
    now_ns: int,
    progress: Hear | None = None,
    take: Take | None = None,
) -> Scanned:
    """The tree of a folder or a single file, reading only files that the cache in `home` does not know.

    `what` names the field in errors; `progress(files, bytes hashed)` is told now and then; `take` gets each
    chunk that is read.
    Errors: "workdir-missing", "spec-unreadable" (a file that may not be read, a name that is not UTF-8),
    "conflict" (a file that never holds still).
    """
    if stat.S_ISDIR(check_source(source, what).st_mode):
        root = Path(os.path.realpath(source))
        given = os.path.abspath(source)  # noqa: PTH100  absolute links may be written with it
        return _Scanner(root, given, HashCache(home, root), what, now_ns, progress, take).folder()
    real = Path(os.path.realpath(source))
    scanner = _Scanner(real.parent, "", HashCache(home, real), what, now_ns, progress, take)
    return scanner.single(real, source.name)


def rescan(
    seen: Look, given: Path, *, what: str = "workdir", now_ns: int, progress: Hear | None = None
) -> Rescanned | None:
    """What has changed in a folder (`given` names it) since the notes were written; None: it has to be
    scanned as a whole. Errors: as of `scan`."""
    if len(seen.differing) + len(seen.gone) > FOLDERS_AGAIN:
        return None
    known = {
        path: Known(size, mtime_ns, inode, ctime_ns, chunks)
        for path, ((_, size, mtime_ns, inode, ctime_ns), chunks) in known_of(
            seen.notes, seen.differing
        ).items()
    }
    cache = HashCache(None, Path(seen.root), known)
    name = os.path.abspath(given)  # noqa: PTH100  absolute links may be written with it
    return _Scanner(Path(seen.root), name, cache, what, now_ns, progress).again(seen)


class _Scanner:
    def __init__(
        self,
        root: Path,
        given: str,
        cache: HashCache,
        what: str,
        now_ns: int,
        progress: Hear | None,
        take: Take | None = None,
    ) -> None:
        self._root = root
        self._root_text = os.fspath(root)
        self._given = given
        self._cache = cache
        self._what = what
        self._now_ns = now_ns
        self._progress, self._take = progress, take
        self._entries: list[Entry] = []
        self._visited = 0  # entries
        self._warnings: list[str] = []
        self._hashed_bytes = 0
        self._own_rules: list[Rules] = []  # of the ignore files in the folder itself, which speak last
        self._rule_files: list[str] = []
        self._sends_git = False
        self._left_out: set[str] = set()
        self._leaving: list[str] = []  # links that lead outside
        self._said: dict[str, Said] = {}
        self._folders: dict[str, tuple[str, msgspec.Raw]] = {}  # what was seen in each, for the next look

    def folder(self) -> Scanned:
        left = [
            ("", self._load_top_rules())
        ]  # a list, not recursion: folders may be deeper than Python's stack
        while left:
            left += reversed(self._visit(*left.pop()))
        self._entries.sort(key=lambda entry: entry.path)
        return self._finish(Tree(entries=tuple(self._entries)), self._root)

    def again(self, seen: Look) -> Rescanned | None:
        """Only the folders that differ; None: all of it has to be scanned."""
        top = self._load_top_rules()
        known, files = seen.notes.folders, {path for path, _ in seen.notes.rules}
        for below in seen.differing:
            rules = list(top)
            parents = [each + "/" for each in folders_above(below.rstrip("/"))]
            for folder in ["", *parents] if below else []:
                path = self._root / folder / ".gitignore"
                if os.fspath(path) in files:
                    rules.append(self._load_rules(path, folder))
            inner = self._visit(below, rules)
            if below not in self._folders or not files.issuperset(self._rule_files):
                return None
            if any(folder not in known and folder not in seen.differing for folder, _ in inner):
                return None  # it came while we looked
        before = {
            entry.path: entry
            for below in (*seen.differing, *seen.gone)
            if below in known
            for entry in seen.notes.note(below).entries
        }
        count = len(before)
        entries = [entry for entry in self._entries if before.pop(entry.path, None) != entry]
        change = TreeChange(since=seen.notes.digest, entries=tuple(entries), removed=tuple(before))
        self._entries = sorted(entries, key=lambda entry: entry.path)
        tree = Tree(entries=tuple(self._entries))
        gone = {*seen.gone, *seen.differing}
        notes = msgspec.structs.replace(
            seen.notes,
            entries=seen.notes.entries + self._visited - count,
            left_out=seen.notes.left_out | self._left_out,
            folders={path: each for path, each in known.items() if path not in gone} | self._folders,
            said={path: each for path, each in seen.notes.said.items() if path not in gone} | self._said,
        )
        return Rescanned(change, Scanned(tree, self._root, notes.warnings, self._hashed_bytes), notes)

    def _load_top_rules(self) -> list[Rules]:
        rules: list[Rules] = []
        for path in (self._root / ".git" / "info" / "exclude", *(self._root / name for name in IGNORE_FILES)):
            if path.is_file():
                (rules if path.name == "exclude" else self._own_rules).append(self._load_rules(path))
        self._sends_git = any(
            line.strip() in ASKS_FOR_GIT
            for name in IGNORE_FILES
            if (self._root / name).is_file()
            for line in (self._root / name).read_text("utf-8", "surrogateescape").splitlines()
        )
        return rules

    def single(self, real: Path, name: str) -> Scanned:
        info = real.stat()
        entry = self._file(real.name, info, os.fspath(real))
        if entry is None:
            raise ArgosyError("workdir-missing", f"{self._what} `{real}` does not exist")
        tree = Tree(
            entries=(msgspec.structs.replace(entry, path=_checked_name(name, self._what)),), is_file=True
        )
        return self._finish(tree, real)

    def _finish(self, tree: Tree, root: Path) -> Scanned:
        self._cache.save()
        if self._cache.file is not None and any(signature for signature, _ in self._folders.values()):
            with suppress(OSError):  # an ignore file went while we looked
                rules = tuple((path, stamp_of(os.stat(path))) for path in self._rule_files)  # noqa: PTH116
                notes = Notes(
                    tree.digest(),
                    len(tree.entries),
                    rules,
                    frozenset(self._left_out),
                    self._folders,
                    self._said,
                )
                save_notes(notes, self._cache.file)
        if self._progress:
            self._progress(len(tree.entries), self._hashed_bytes)
        warnings = (*render_said(self._said), *self._warnings)
        return Scanned(tree, root, warnings, self._hashed_bytes)

    def _load_rules(self, path: Path, below: str = "") -> Rules:
        self._rule_files.append(os.fspath(path))
        try:
            return parse_rules(path.read_text("utf-8", "surrogateescape"), below)
        except OSError as error:
            raise ArgosyError("spec-unreadable", f"`{path}` cannot be read: {error.strerror}") from None

    def _visit(self, below: str, rules: list[Rules]) -> list[tuple[str, list[Rules]]]:
        """Take in one folder (`below` is "" or ends with `/`). Returns the folders in it, with their
        rules."""
        folders: list[tuple[str, list[Rules]]] = []
        try:
            with os.scandir(f"{self._root_text}/{below}" if below else self._root_text) as found:
                items = sorted(found, key=lambda item: item.name)  # as nodes want them
        except FileNotFoundError:
            return folders  # it went while we looked
        except OSError as error:
            raise self._unreadable(below or ".", error) from None
        if any(item.name == ".gitignore" for item in items):
            rules = [*rules, self._load_rules(self._root / below / ".gitignore", below)]
        asked = [*rules, *self._own_rules]
        rows: Rows = []
        young: set[str] = set()
        begun = len(self._entries)
        for item in items:
            path = below + item.name
            is_folder = item.is_dir(follow_symlinks=False)
            if (item.name == GIT and not self._sends_git) or (asked and is_ignored(path, is_folder, asked)):
                self._left_out.add(path + "/" if is_folder else path)
                continue
            try:
                info = item.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._unreadable(path, error) from None
            if not item.name.isascii():
                _checked_name(path, self._what)
            if is_folder:
                rows.append((item.name, info.st_mode))
            else:
                rows.append((item.name, *stamp_of(info)))
                if max(info.st_mtime_ns, info.st_ctime_ns) > self._now_ns - SETTLED_NS:
                    young.add(item.name)
            if is_folder:
                self._entries.append(Entry(path=path, kind="d", mode=info.st_mode & 0o777))
                folders.append((path + "/", rules))
            elif stat.S_ISLNK(info.st_mode):
                self._link(path)
            elif stat.S_ISREG(info.st_mode):
                entry = self._file(path, info, item.path)
                if entry is not None:
                    self._entries.append(entry)
            else:
                self._warnings.append(f"{path} is left out: it is a {_kind(info.st_mode)}")
            if self._progress and len(self._entries) % 512 == 0:
                self._progress(len(self._entries), self._hashed_bytes)
        self._folders[below] = noted(rows, self._entries[begun:], young)
        self._visited += len(self._entries) - begun
        if self._warnings or self._leaving:
            self._said[below] = Said(tuple(self._warnings), tuple(self._leaving))
            self._warnings, self._leaving = [], []
        return folders

    def _file(self, path: str, info: os.stat_result, full: str) -> Entry | None:
        chunks = self._cache.get(path, info)
        if chunks is None:
            try:
                hashed = self._hash(path, full)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise self._unreadable(path, error) from None
            info, chunks = hashed
            self._cache.put(path, info, chunks, self._now_ns)
        return Entry(path=path, kind="f", mode=info.st_mode & 0o777, size=info.st_size, chunks=chunks)

    def _hash(self, path: str, full: str) -> tuple[os.stat_result, tuple[str, ...]]:
        """Digests of the file as it was at one moment: what was appended later counts next time."""
        for _ in range(READ_TRIES):
            handle = os.open(full, os.O_RDONLY | os.O_CLOEXEC)
            try:
                before = os.fstat(handle)
                chunks: list[str] = []
                left = before.st_size
                while left:
                    data = _read_exactly(handle, min(left, CHUNK_BYTES))
                    if not data:
                        break  # it became shorter
                    chunks.append(hashlib.sha256(data).hexdigest())
                    if self._take is not None:
                        self._take(chunks[-1], data)
                    left -= len(data)
                    self._hashed_bytes += len(data)
                    if self._progress and before.st_size > CHUNK_BYTES:
                        self._progress(len(self._entries), self._hashed_bytes)
                after = os.fstat(handle)
            finally:
                os.close(handle)
            if left == 0 and (
                after.st_size > before.st_size
                or (after.st_size, after.st_mtime_ns, after.st_ctime_ns)
                == (before.st_size, before.st_mtime_ns, before.st_ctime_ns)
            ):
                return before, tuple(chunks)
        raise ArgosyError(
            "conflict",
            f"{self._what}: `{path}` keeps changing while it is read",
            hint="wait for what writes it, or list it in `.argosyignore`",
        )

    def _link(self, path: str) -> None:
        try:
            target = os.readlink(f"{self._root_text}/{path}")  # noqa: PTH115  it may not be UTF-8
        except OSError:
            return
        if not target.isascii():
            _checked_name(target, self._what)
        folder = os.path.dirname(path)  # noqa: PTH120
        if os.path.isabs(target):  # noqa: PTH117
            # An absolute link that stays inside means another place on the node: made relative.
            for root in (self._root_text, self._given):
                inside = os.path.relpath(target, root)
                if inside != ".." and not inside.startswith("../"):
                    break
            else:
                self._leaving.append(f"{path} -> {target}")
                self._entries.append(Entry(path=path, kind="l", mode=0o777, target=target))
                return
            kept = os.path.relpath(inside, folder or ".")
        else:
            kept = target
        if os.path.normpath(os.path.join(folder, kept)).split("/")[0] == "..":  # noqa: PTH118
            self._leaving.append(f"{path} -> {target}")
        self._entries.append(Entry(path=path, kind="l", mode=0o777, target=kept))

    def _unreadable(self, path: str, error: OSError) -> ArgosyError:
        return ArgosyError(
            "spec-unreadable",
            f"{self._what}: `{path}` cannot be read: {error.strerror}",
            hint="make it readable, or list it in `.argosyignore`",
        )


def _read_exactly(descriptor: int, size: int) -> bytes:
    """`size` bytes, fewer only at the end of the file."""
    data = os.read(descriptor, size)
    if len(data) == size or not data:
        return data
    parts = [data]
    left = size - len(data)
    while left:
        data = os.read(descriptor, left)
        if not data:
            break
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


def _checked_name(path: str, what: str) -> str:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise ArgosyError(
            "spec-unreadable",
            f"{what}: the name `{shown}` is not UTF-8",
            hint="rename it, or list it in `.argosyignore`",
        ) from None
    return path


def _kind(mode: int) -> str:
    for test, name in (
        (stat.S_ISFIFO, "named pipe"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISBLK, "block device"),
        (stat.S_ISCHR, "character device"),
    ):
        if test(mode):
            return name
    return "special file"


def read_chunks(scanned: Scanned, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """Each wanted chunk once, with its bytes.

    A chunk of a file that changed since the scan does not come: who asked sees that it is missing and scans
    again.
    """
    left = set(wanted)
    for entry in scanned.tree.entries:
        if left.isdisjoint(entry.chunks):
            continue
        try:
            with open(source_path(scanned, entry), "rb", buffering=0) as file:
                for index, digest in enumerate(entry.chunks):
                    if digest not in left:
                        continue
                    offset = index * CHUNK_BYTES
                    file.seek(offset)
                    data = _read_exactly(file.fileno(), min(CHUNK_BYTES, entry.size - offset))
                    if hashlib.sha256(data).hexdigest() == digest:
                        left.discard(digest)
                        yield digest, data
        except OSError:
            continue


def source_path(scanned: Scanned, entry: Entry) -> str:
    """Where the bytes of an entry lie."""
    return str(scanned.root) if scanned.tree.is_file else os.path.join(scanned.root, entry.path)  # noqa: PTH118
