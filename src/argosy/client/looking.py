"""What the last scan of a folder found, and one look that tells in which of its folders something differs.

The notes of a scan hold for each folder a digest of all names and stats in it. While they are the same, none
of its files is looked at again; where they differ, only that folder is scanned.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from argosy.model.tree import Entry

#: Of each thing in a folder its name and stats; of a folder its name and mode.
Rows = list[tuple[Any, ...]]  # Any: a text, then numbers
FOLDER_ROW: Final = 2
LINKS_NAMED: Final = 5  # in the warning about links that lead outside
Stamp = tuple[int, int, int, int, int]
Known = dict[str, tuple[Stamp, tuple[str, ...]]]  # of files: their stats, and their chunks


class Note(msgspec.Struct, frozen=True, array_like=True):
    """One folder as it was scanned, without what lies in the folders in it. Rows of files that may have
    changed since they were read hold no stats."""

    rows: Rows
    entries: tuple[Entry, ...] = ()


class Said(NamedTuple):
    """What users should know of one folder."""

    warnings: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()  # links that lead outside


class Notes(msgspec.Struct, frozen=True, array_like=True):
    """A whole folder as it was scanned. Of each folder in it the digest of its rows ("": some of its files
    were too young to be trusted) and its note."""

    digest: str  # of the tree
    entries: int
    rules: tuple[tuple[str, tuple[int, ...]], ...]  # ignore files, with their stats
    left_out: frozenset[str]  # paths; those of folders end with `/`
    folders: dict[str, tuple[str, msgspec.Raw]]  # by path, which is "" or ends with `/`
    said: dict[str, Said] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        return render_said(self.said)

    def note(self, below: str) -> Note:
        """Raises DecodeError, KeyError."""
        return msgspec.msgpack.decode(self.folders[below][1], type=Note)


class Look(NamedTuple):
    """`differing`: folders that are new or others than in the notes; `gone`: those that are no more."""

    root: str
    notes: Notes
    differing: tuple[str, ...]
    gone: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        return not self.differing and not self.gone


def render_said(said: Mapping[str, Said]) -> tuple[str, ...]:
    told = [each for _, each in sorted(said.items())]
    warnings = [warning for each in told for warning in each.warnings]
    leaving = [link for each in told for link in each.leaving]
    if leaving:
        names = ", ".join(leaving[:LINKS_NAMED])
        more = f" and {len(leaving) - LINKS_NAMED} more" if len(leaving) > LINKS_NAMED else ""
        warnings.append(f"links that lead outside travel as they are: {names}{more}")
    return tuple(warnings)


def cache_file(home: Path, root: Path) -> Path:
    return home / "cache" / "hashes" / hashlib.sha256(os.fsencode(root)).hexdigest()[:32]


def write_cache(file: Path, data: bytes) -> None:
    """A full disk or a read-only home is no error."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        for folder in file.parents[2::-1]:  # the state folder, `cache`, `hashes`: the owner's alone
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(file)
    except OSError:
        with suppress(OSError):
            part.unlink()


def load_notes(source: Path, home: Path | None) -> Notes | None:
    """Of the last scan of a folder, unless the files that say what is left out have changed since."""
    if home is None or not source.is_dir():
        return None
    try:
        data = cache_file(home, Path(os.path.realpath(source))).with_suffix(".whole").read_bytes()
        notes = msgspec.msgpack.decode(data, type=Notes)
        if all(stamp_of(os.stat(path)) == stamp for path, stamp in notes.rules):  # noqa: PTH116
            return notes
    except (OSError, msgspec.MsgspecError):
        pass
    return None


def save_notes(notes: Notes, cache: Path) -> None:
    """Beside the digests of the files of that folder (`cache_file`)."""
    write_cache(cache.with_suffix(".whole"), msgspec.msgpack.encode(notes))


def look(source: Path, notes: Notes) -> Look | None:
    """One look at all names and stats; None: it cannot be read."""
    root = os.path.realpath(source)
    differing: list[str] = []
    gone = set(notes.folders)
    left = [""]
    try:
        while left:
            below = left.pop()
            rows = sorted(_rows(root, below, notes.left_out))
            gone.discard(below)
            if notes.folders.get(below, ("", b""))[0] != signature_of(rows):
                differing.append(below)
            left += [f"{below}{row[0]}/" for row in rows if len(row) == FOLDER_ROW]
    except (OSError, UnicodeEncodeError):
        return None
    return Look(root, notes, tuple(differing), tuple(gone))


def stamp_of(info: os.stat_result) -> Stamp:
    return info.st_mode, info.st_size, info.st_mtime_ns, info.st_ino, info.st_ctime_ns


def signature_of(rows: Rows) -> str:
    """Of the rows of one folder, sorted. Raises UnicodeEncodeError for a name that is not UTF-8."""
    return hashlib.blake2b(msgspec.msgpack.encode(rows), digest_size=16).hexdigest()


def _rows(root: str, below: str, left_out: Collection[str]) -> Rows:
    """All names and stats in a folder, without what is left out. Raises OSError."""
    # Names below a handle are found in half the time that whole paths take.
    handle = os.open(f"{root}/{below}", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(handle) as items:
            return [row for item in items if (row := _row(item, below, left_out))]
    finally:
        os.close(handle)


def _row(item: os.DirEntry[str], below: str, left_out: Collection[str]) -> tuple[Any, ...]:
    """Empty: it is left out. Raises OSError."""
    if item.is_dir(follow_symlinks=False):
        is_out = f"{below}{item.name}/" in left_out
        return () if is_out else (item.name, item.stat(follow_symlinks=False).st_mode)
    if left_out and below + item.name in left_out:
        return ()
    info = item.stat(follow_symlinks=False)
    return item.name, info.st_mode, info.st_size, info.st_mtime_ns, info.st_ino, info.st_ctime_ns


def known_of(notes: Notes, folders: Iterable[str]) -> Known:
    """Files of these folders as they were scanned."""
    known: Known = {}
    for below in folders:
        if below not in notes.folders:
            continue
        note = notes.note(below)
        chunks: Mapping[str, tuple[str, ...]] = {each.path: each.chunks for each in note.entries}
        for name, *stats in note.rows:
            if len(stats) > 1 and stat.S_ISREG(stats[0]) and below + name in chunks:
                mode, size, mtime_ns, inode, ctime_ns = stats
                known[below + name] = (mode, size, mtime_ns, inode, ctime_ns), chunks[below + name]
    return known


def noted(rows: Rows, entries: Iterable[Entry], young: Collection[str]) -> tuple[str, msgspec.Raw]:
    """A folder for the notes. `young`: names of files that may change again without new stats."""
    rows = sorted(rows)
    signature = "" if young else signature_of(rows)
    kept = [(row[0], 0, 0, 0, 0, 0) if row[0] in young else row for row in rows]
    return signature, msgspec.Raw(msgspec.msgpack.encode(Note(kept, tuple(entries))))
