"""Files by content: a bounded store of chunks, and trees that appear where they are wanted.

The safety of `place` does not rest on clever path arithmetic: every folder below the target is opened
relative to its parent without following links, so no entry can lead outside, whatever is on the disk.
"""

from __future__ import annotations

import errno
import json
import os
import posixpath
import re
import stat
import time
import zlib

from argosy.agent.orders import Busy, Refused
from argosy.agent.rank import warn
from argosy.agent.wire import CHUNK_LIMIT_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

STORE_LIMIT_BYTES = 1 << 30  # chunks kept for the next tree; files that were placed serve as well
_DIGEST = re.compile(r"[0-9a-f]{64}")
_COPY_BYTES = 1 << 20
_ARRIVING_S = 600.0
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class NewChunk:
    """A chunk on its way into the store; it appears there when it is complete and is what it says it is."""

    def __init__(self, path: str, digest: str) -> None:
        import hashlib  # here, because it costs 5 MB that an idle agent does not need

        self._path = path
        self._digest = digest
        self._hash = hashlib.sha256()
        self._temporary = "%s.%d-%d" % (path, os.getpid(), id(self))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._handle = os.open(self._temporary, flags, 0o600)

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        while data:
            data = data[os.write(self._handle, data) :]

    def __enter__(self) -> NewChunk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)
        try:
            if kind is None:
                if self._hash.hexdigest() != self._digest:
                    raise Refused("chunks", "the bytes of chunk %s are not what it says" % self._digest)
                os.replace(self._temporary, self._path)
        finally:
            if os.path.lexists(self._temporary):
                os.unlink(self._temporary)


class _Entry:
    """An entry of a tree, checked. `parts` are its path's components as bytes."""

    __slots__ = ("chunks", "kind", "mode", "parts", "path", "size", "target")

    def __init__(self, raw: object) -> None:
        if not isinstance(raw, dict):
            raise Refused("tree", "an entry of a tree must be an object")
        path, kind, mode = raw.get("path"), raw.get("kind"), raw.get("mode", 0o644)
        size, chunks, target = raw.get("size", 0), raw.get("chunks", []), raw.get("target", "")
        if not isinstance(path, str) or not isinstance(target, str) or kind not in ("f", "d", "l"):
            raise Refused("tree", "an entry of a tree needs a path and a kind f, d or l")
        if not isinstance(mode, int) or not isinstance(size, int) or not isinstance(chunks, list):
            raise Refused("tree", "%r has a mode, size or chunks of the wrong type" % path)
        if not all(isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in chunks):
            raise Refused("tree", "%r names a chunk that is not a SHA-256" % path)
        self.path = path
        self.kind = kind
        self.mode = mode & 0o777
        self.size = size
        self.chunks: list[str] = chunks
        self.target = target
        self.parts = _parts(path)
        if kind == "l":
            where = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
            if not target or "\0" in target or target.startswith("/") or where.split("/")[0] == "..":
                raise Refused("tree", "the link %r leads outside of its tree: %r" % (path, target))


def _parts(path: str) -> list[bytes]:
    parts = path.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise Refused("tree", "%r is not a relative path inside the tree" % path)
    try:
        return [part.encode("utf-8") for part in parts]
    except UnicodeEncodeError:
        raise Refused("tree", "%r is not text" % path) from None


class _Known(dict):  # type: ignore[type-arg]
    """What was placed at one target: path -> [size, mtime_ns, inode, chunks]. Tells which files are as we
    left them."""


class Trees:
    """The chunk store and the placed trees of one node. Not for two threads at once (the daemon holds a
    lock)."""

    def __init__(
        self, root: str, home: str, node_name: str, store_limit_bytes: int = STORE_LIMIT_BYTES
    ) -> None:
        self._root = os.path.realpath(root)
        self._home = os.path.realpath(home)
        self._node_name = node_name
        self._chunks = self._root + "/chunks"
        self._placed = self._root + "/placed"
        self._limit_bytes = store_limit_bytes
        os.makedirs(self._chunks, mode=0o700, exist_ok=True)
        os.makedirs(self._placed, mode=0o700, exist_ok=True)
        for name in os.listdir(self._chunks):
            if "." in name:  # a chunk that an agent was writing when it was killed
                os.unlink(self._chunks + "/" + name)

    # ---- chunks

    def missing(self, digests: list[str]) -> list[str]:
        """Which of these are neither in the store nor in a file that was placed and has not changed since."""
        wanted = dict.fromkeys(digests)
        if not all(isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in wanted):
            raise Refused("digests", "a digest must be 64 hex digits")
        absent = [digest for digest in wanted if not os.path.exists(self._chunks + "/" + digest)]
        if absent:
            placed = self._find_placed(set(absent))
            absent = [digest for digest in absent if digest not in placed]
        return absent

    def new_chunk(self, digest: str, size: int) -> NewChunk:
        """Raises Refused; the chunk's own check happens when it is closed."""
        if not _DIGEST.fullmatch(digest) or not 0 <= size <= CHUNK_LIMIT_BYTES:
            raise Refused("chunks", "a chunk needs a SHA-256 and at most %d bytes" % CHUNK_LIMIT_BYTES)
        return NewChunk(self._chunks + "/" + digest, digest)

    def _find_placed(self, wanted: set[str]) -> dict[str, tuple[str, int]]:
        """Where these chunks can be read again: file and offset."""
        found: dict[str, tuple[str, int]] = {}
        for name in os.listdir(self._placed):
            if name == "created.json":
                continue
            base, known = self._load_known(self._placed + "/" + name)
            for path, record in known.items():
                hits = wanted.intersection(record[3])
                if not hits:
                    continue
                file = os.path.join(base, path) if path else base
                if not _is_as_recorded(file, record):
                    continue
                for index, digest in enumerate(record[3]):
                    if digest in hits:
                        found[digest] = (file, index * CHUNK_LIMIT_BYTES)
        return found

    def _collect(self, used: set[str]) -> None:
        """Drop the chunks that were longest unused until the store is within its limit, but none that has
        just arrived and waits for its tree."""
        entries = []
        total = 0
        arrived_after_s = time.time() - _ARRIVING_S
        with os.scandir(self._chunks) as listing:
            for entry in listing:
                info = entry.stat()
                total += info.st_size
                if entry.name in used or info.st_mtime < arrived_after_s:
                    entries.append((info.st_mtime_ns, info.st_size, entry.path))
        for _, size, path in sorted(entries):
            if total <= self._limit_bytes:
                break
            os.unlink(path)
            total -= size

    # ---- targets

    def _resolve(self, target: str) -> str:
        """The target's absolute path. Raises Refused for what may not be touched."""
        if "\0" in target:
            raise Refused("target", "a target must not hold NUL")
        if ".." in target.split("/"):
            raise Refused("target", "`%s`: a target must not hold `..`; write the path without it" % target)
        if target == "~" or target.startswith("~/"):
            target = target[2:]
        elif target.startswith("~"):
            raise Refused("target", "`%s`: the homes of other users are not available; use `~/...`" % target)
        if not target.startswith("/"):
            path = posixpath.normpath(posixpath.join(self._home, target))
            self._refuse_links(path, target)
            return path
        path = posixpath.normpath("/" + target.lstrip("/"))
        path = posixpath.join(os.path.realpath(posixpath.dirname(path)), posixpath.basename(path))
        if _is_below(path, self._home):
            self._refuse_links(path, target)
            return path
        if _is_below(path, self._root) or _is_below(self._root, path):
            raise Refused("target", "`%s` belongs to Argosy itself; choose a target below `~`" % target)
        if any(_is_below(path, created) for created in self._created()):
            return path
        if os.path.lexists(path):
            raise Refused(
                "target",
                "`%s` exists on %s and was not made by Argosy; choose a new path, or one below `~`"
                % (target, self._node_name),
            )
        top = path
        while not os.path.lexists(posixpath.dirname(top)):
            top = posixpath.dirname(top)
        if not os.access(posixpath.dirname(top), os.W_OK | os.X_OK):
            raise Refused(
                "target",
                "`%s`: may not write in %s on %s; choose a target below `~`"
                % (target, posixpath.dirname(top), self._node_name),
            )
        self._remember_created(top)
        return path

    def _refuse_links(self, path: str, target: str) -> None:
        """A link on the way from home to the target could lead anywhere."""
        place = self._home
        for part in posixpath.relpath(path, self._home).split("/"):
            place = posixpath.join(place, part)
            if os.path.islink(place):
                raise Refused(
                    "target",
                    "`%s`: %s is a symbolic link; choose a target that is not behind one" % (target, place),
                )

    def _created(self) -> list[str]:
        try:
            with open(self._placed + "/created.json", encoding="utf-8") as file:
                return [str(path) for path in json.load(file)]
        except (OSError, ValueError):
            return []

    def _remember_created(self, path: str) -> None:
        _write_json(self._placed + "/created.json", [*self._created(), path])

    # ---- placing

    def place(self, tree: dict[str, object], target: str) -> None:
        """Make the tree appear. Raises Refused (the reason and what to do), Busy when chunks are not here,
        OSError."""
        raw = tree.get("entries")
        if not isinstance(raw, list):
            raise Refused("tree", "a tree needs a list of entries")
        entries = sorted((_Entry(item) for item in raw), key=lambda entry: entry.parts)
        _refuse_contradictions(entries)
        is_file = bool(tree.get("is_file", False))
        if is_file and (len(entries) != 1 or entries[0].kind != "f"):
            raise Refused("tree", "the tree of one file must hold just that file")
        if is_file and target.endswith("/"):
            target = target + entries[0].path
        path = self._resolve(target)
        record_path = "%s/%08x-%d.json" % (
            self._placed,
            zlib.crc32(path.encode("utf-8", "replace")),
            len(path),
        )
        base, known = self._load_known(record_path)
        if base != path:
            known = _Known()
        placing = _Placing(self, known, target)
        try:
            if is_file:
                entry = entries[0]
                entry.parts = [os.fsencode(posixpath.basename(path))]
                entry.path = ""
                placing.place(posixpath.dirname(path), entries)
            else:
                placing.place(path, entries)
        finally:
            if placing.changed:
                for name, record in known.items():
                    placing.records.setdefault(name, record)
                _write_json(record_path, {"base": path, "files": placing.records})
        try:
            self._collect({digest for entry in entries for digest in entry.chunks})
        except OSError as error:
            warn("cannot tidy the chunk store: %s" % error.strerror)

    def _load_known(self, path: str) -> tuple[str, _Known]:
        try:
            with open(path, encoding="utf-8") as file:
                data = json.load(file)
            return str(data["base"]), _Known(data["files"])
        except (OSError, ValueError, KeyError, TypeError):
            return "", _Known()

    def open_chunk(self, digest: str, placed: dict[str, tuple[str, int]]) -> tuple[int, int]:
        """A handle and the offset in it. Raises Busy when the chunk is not here."""
        try:
            handle = os.open(self._chunks + "/" + digest, os.O_RDONLY | os.O_CLOEXEC)
            os.utime(handle)
            return handle, 0
        except FileNotFoundError:
            pass
        if not placed:
            placed.update(self._find_placed({digest}))
        if digest not in placed:
            placed.update(self._find_placed({digest}))
        if digest in placed:
            path, offset = placed[digest]
            try:
                return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), offset
            except OSError:
                pass
        raise Busy("chunk %s is not on %s; send it again" % (digest, self._node_name))


class _Placing:
    """One run of `place`."""

    def __init__(self, trees: Trees, known: _Known, target: str) -> None:
        self._trees = trees
        self._known = known
        self._target = target
        self._chunks_in_files: dict[str, tuple[str, int]] = {}
        self._folder_modes: list[tuple[list[bytes], int]] = []
        self._open: list[tuple[bytes, int]] = []  # the folders from the target down to the present one
        self._top = -1
        self.records: dict[str, list[object]] = {}
        self.changed = False

    def place(self, base: str, entries: list[_Entry]) -> None:
        try:
            os.makedirs(base, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            text = "`%s`: a file is where a folder should be; remove it, or choose another target"
            raise Refused("target", text % self._target) from None
        self._top = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for entry in entries:
                self._place_one(entry)
            for parts, mode in reversed(self._folder_modes):
                os.fchmod(self._folder(parts), mode)
        finally:
            while self._open:
                os.close(self._open.pop()[1])
            os.close(self._top)

    def _place_one(self, entry: _Entry) -> None:
        name = entry.parts[-1]
        if entry.kind == "d":
            self._folder(entry.parts)
            # A scanner that tells no mode of a folder must not make one that cannot be entered.
            self._folder_modes.append((entry.parts, entry.mode if entry.mode & 0o111 else 0o755))
            return
        folder = self._folder(entry.parts[:-1])
        if entry.kind == "l":
            self._place_link(folder, name, entry.target.encode("utf-8"))
        else:
            self._place_file(folder, name, entry)

    def _folder(self, parts: list[bytes]) -> int:
        """A handle of this folder, made where it is missing. A link in the way gives place to a real
        folder."""
        same = 0
        while same < len(parts) and same < len(self._open) and self._open[same][0] == parts[same]:
            same += 1
        while len(self._open) > same:
            os.close(self._open.pop()[1])
        for part in parts[same:]:
            parent = self._open[-1][1] if self._open else self._top
            try:
                handle = os.open(part, _FOLDER, dir_fd=parent)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.EACCES):
                    raise
                if error.errno == errno.EACCES:
                    os.chmod(part, 0o700, dir_fd=parent)
                else:
                    if error.errno != errno.ENOENT:
                        os.unlink(part, dir_fd=parent)
                    os.mkdir(part, 0o755, dir_fd=parent)
                handle = os.open(part, _FOLDER, dir_fd=parent)
            mode = stat.S_IMODE(os.fstat(handle).st_mode)
            if (
                mode & 0o300 != 0o300
            ):  # ours, but closed: its mode is set again at the end if the tree names it
                os.fchmod(handle, mode | 0o700)
            self._open.append((part, handle))
        return self._open[-1][1] if self._open else self._top

    def _place_link(self, folder: int, name: bytes, target: bytes) -> None:
        try:
            if os.readlink(name, dir_fd=folder) == target:
                return
        except OSError:
            pass
        temporary = _temporary(name)
        _unlink(temporary, folder)
        os.symlink(target, temporary, dir_fd=folder)
        self._put(temporary, name, folder)

    def _place_file(self, folder: int, name: bytes, entry: _Entry) -> None:
        record = self._known.get(entry.path)
        try:
            info = os.lstat(name, dir_fd=folder)
        except FileNotFoundError:
            info = None
        if (
            info is not None
            and record is not None
            and stat.S_ISREG(info.st_mode)
            and record[:3] == [info.st_size, info.st_mtime_ns, info.st_ino]
            and record[3] == entry.chunks
        ):
            if stat.S_IMODE(info.st_mode) != entry.mode:
                os.chmod(name, entry.mode, dir_fd=folder)
            self.records[entry.path] = record
            return
        temporary = _temporary(name)
        _unlink(temporary, folder)
        handle = os.open(
            temporary,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
            dir_fd=folder,
        )
        try:
            try:
                written = 0
                for digest in entry.chunks:
                    written += self._copy_chunk(digest, handle)
                if written != entry.size:
                    raise Refused(
                        "tree", "%r is said to have %d bytes but has %d" % (entry.path, entry.size, written)
                    )
                os.fchmod(handle, entry.mode)
                info = os.fstat(handle)
            finally:
                os.close(handle)
            self._put(temporary, name, folder)
        except BaseException:
            _unlink(temporary, folder)
            raise
        self.records[entry.path] = [info.st_size, info.st_mtime_ns, info.st_ino, entry.chunks]
        self.changed = True

    def _copy_chunk(self, digest: str, sink: int) -> int:
        """Append a chunk, checked against its name: files that serve as a source may have changed."""
        import hashlib

        source, offset = self._trees.open_chunk(digest, self._chunks_in_files)
        checked = hashlib.sha256()
        copied = 0
        try:
            while copied < CHUNK_LIMIT_BYTES:
                data = os.pread(source, min(_COPY_BYTES, CHUNK_LIMIT_BYTES - copied), offset + copied)
                if not data:
                    break
                checked.update(data)
                copied += len(data)
                view = memoryview(data)
                while view:
                    view = view[os.write(sink, view) :]
        finally:
            os.close(source)
        if checked.hexdigest() != digest:
            self._chunks_in_files.pop(digest, None)
            raise Busy("chunk %s has changed on this node; send it again" % digest)
        return copied

    def _put(self, temporary: bytes, name: bytes, folder: int) -> None:
        try:
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            try:
                os.rmdir(name, dir_fd=folder)
            except OSError:
                _unlink(temporary, folder)
                text = "%s/%s is a folder with files in it where a file should be; remove it, or choose another target"  # noqa: E501
                raise Refused("target", text % (self._target, name.decode("utf-8", "replace"))) from None
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)


def _refuse_contradictions(entries: list[_Entry]) -> None:
    """One thing per path, and only folders hold things."""
    kinds: dict[tuple[bytes, ...], str] = {}
    for entry in entries:
        key = tuple(entry.parts)
        if key in kinds:
            raise Refused("tree", "%r appears twice in the tree" % entry.path)
        kinds[key] = entry.kind
        for length in range(1, len(key)):
            if kinds.get(key[:length], "d") != "d":
                raise Refused("tree", "%r goes through something that is not a folder" % entry.path)


def _temporary(name: bytes) -> bytes:
    return b".argosy-new-%08x" % zlib.crc32(name)


def _unlink(name: bytes, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _is_as_recorded(path: str, record: list[object]) -> bool:
    try:
        info = os.lstat(path)
    except OSError:
        return False
    return [info.st_size, info.st_mtime_ns, info.st_ino] == record[:3]


def _write_json(path: str, value: object) -> None:
    temporary = path + ".new"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(temporary, path)
