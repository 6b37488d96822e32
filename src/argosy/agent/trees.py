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
from argosy.agent.outside import content_of, is_below, write_json
from argosy.agent.rank import warn
from argosy.agent.targets import Known, Targets, is_as_recorded, stamp_of
from argosy.agent.wire import CHUNK_LIMIT_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
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


class Entry:
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
        self.parts = parts_of(path)
        if kind == "l" and (not target or "\0" in target):
            raise Refused("tree", "the link %r leads nowhere" % path)


def parts_of(path: str) -> list[bytes]:
    parts = path.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise Refused("tree", "%r is not a relative path inside the tree" % path)
    try:
        return [part.encode("utf-8") for part in parts]
    except UnicodeEncodeError:
        raise Refused("tree", "%r is not text" % path) from None


class Trees:
    """The chunk store and the placed trees of one node. Not for two threads at once (the daemon holds a
    lock)."""

    def __init__(
        self, root: str, home: str, node_name: str, store_limit_bytes: int = STORE_LIMIT_BYTES
    ) -> None:
        self.targets = Targets(root, home, node_name)
        self._node_name = node_name
        self._chunks = self.targets.root + "/chunks"
        self._placed = self.targets.placed
        self._outside = self.targets.outside
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
        records = [self._placed + "/" + name for name in os.listdir(self._placed) if name.endswith(".json")]
        for known in map(Known, records + self._outside.records()):
            for path, record in known.files.items():
                chunks: list[str] = record[3]  # type: ignore[assignment]
                hits = wanted.intersection(chunks)
                if not hits:
                    continue
                file = os.path.join(known.base, path) if path else known.base
                if not is_as_recorded(file, record):
                    continue
                for index, digest in enumerate(chunks):
                    if digest in hits:
                        found[digest] = (file, index * CHUNK_LIMIT_BYTES)
        return found

    def tidy(self, used: set[str]) -> None:
        """Bring the store back within its limit."""
        try:
            self._collect(used)
        except OSError as error:
            warn("cannot tidy the chunk store: %s" % error.strerror)

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

    # ---- placing

    def holds(self, target: str, digest: str) -> bool:
        """Whether this tree was the last to be placed there, and none of its files is gone or was replaced.
        Costs a look at its folders; at its files only when something was made or removed in one of them."""
        try:
            path = self.targets.resolve(target, is_link=True)
        except Refused:
            return False
        record_path = self.targets.record_path(path)
        try:
            with open(_seal_path(record_path), encoding="utf-8") as file:
                noted = json.load(file)
        except (OSError, ValueError):
            return False
        if not digest or noted["digest"] != digest or noted["base"] != path:
            return False
        if all(ns and _changed_ns(path, folder) == ns for folder, ns in noted["folders"].items()):
            return True
        known = Known(record_path)
        if known.base != path or known.digest != digest or not known.is_intact():
            return False
        seal(record_path, known)
        return True

    def place(self, tree: dict[str, object], target: str, digest: str = "") -> None:
        """Make the tree appear. What an earlier one put there and this one lacks is removed, unless somebody
        changed it. Raises Refused (the reason and what to do), Busy when chunks are not here, OSError."""
        raw = tree.get("entries")
        if not isinstance(raw, list):
            raise Refused("tree", "a tree needs a list of entries")
        entries = sorted((Entry(item) for item in raw), key=lambda entry: entry.parts)
        refuse_contradictions(entries)
        is_file = bool(tree.get("is_file", False))
        if is_file and (len(entries) != 1 or entries[0].kind not in "fl"):
            raise Refused("tree", "the tree of one file must hold just that file")
        if is_file and target.endswith("/"):
            target = target + entries[0].path
        path = self.targets.resolve(target, is_file and entries[0].kind == "l")
        if is_below(path, self.targets.home):
            self._place_at(path, entries, is_file, target, digest)
        else:
            with self._outside.claimed(
                path, content_of(entries), lambda: self.targets.top_to_make(path, target)
            ):
                self._place_at(path, entries, is_file, target, digest)
        self.tidy({chunk for entry in entries for chunk in entry.chunks})

    def _place_at(self, path: str, entries: list[Entry], is_file: bool, target: str, digest: str) -> None:
        record_path = self.targets.record_path(path)
        known = Known(record_path)
        if known.base != path:
            known = Known()
        placing = Placing(self, known, target)
        new = placing.new
        new.base = path
        unseal(record_path)
        try:
            if is_file:
                entry = entries[0]
                entry.parts = [os.fsencode(posixpath.basename(path))]
                entry.path = ""
                placing.place(posixpath.dirname(path), entries, removes=False)
            else:
                placing.place(path, entries, removes=True)
            new.digest = digest
        except BaseException:
            new.files = {**known.files, **new.files}
            new.links = {**known.links, **new.links}
            new.folders = known.folders
            raise
        finally:
            if vars(new) != vars(known):
                write_json(record_path, vars(new))
        if digest:
            seal(record_path, new)

    def release_outside(self) -> None:
        """This node is given up: what it put outside of its home goes, unless others use it too, or somebody
        changed it. Raises OSError."""
        with self._outside.given_up() as paths:
            for path in paths:
                record_path = self.targets.record_path(path)
                known = Known(record_path)
                if known.base != path:
                    continue
                if "" in known.files:
                    if is_as_recorded(path, known.files[""]):
                        os.unlink(path)
                elif os.path.isdir(path):
                    Placing(self, known, path).place(path, [], removes=True)
                os.unlink(record_path)
                unseal(record_path)

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


class Placing:
    """One run of `place`."""

    def __init__(self, trees: Trees | None, known: Known, target: str) -> None:
        self.new = Known()
        self._trees = trees
        self._known = known
        self._target = target
        self._chunks_in_files: dict[str, tuple[str, int]] = {}
        self._folder_modes: list[tuple[list[bytes], int]] = []
        self._open: list[tuple[bytes, int]] = []  # the folders from the target down to the present one
        self._top = -1

    def place(self, base: str, entries: list[Entry], removes: bool) -> None:
        self.open(base)
        try:
            self.make_way(entries)
            for entry in entries:
                self.place_one(entry)
            if removes:
                self.remove_stale(entries)
            self.close_folders()
        finally:
            self.close()

    def close_folders(self) -> None:
        """Folders get the modes that the tree says, the inner ones first."""
        for parts, mode in reversed(self._folder_modes):
            os.fchmod(self.folder(parts), mode)

    def open(self, base: str) -> None:
        """Begin at this folder, which is made where it is missing. Raises Refused."""
        try:
            os.makedirs(base, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            text = "`%s`: a file is where a folder should be; remove it, or choose another target"
            raise Refused("target", text % self._target) from None
        self._top = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop()[1])
        os.close(self._top)

    def make_way(self, entries: list[Entry]) -> None:
        """Where a file or a link comes in place of a folder that we made, what we put into it goes first."""
        folders = set(self._known.folders)
        for top in [entry.path for entry in entries if entry.kind != "d" and entry.path in folders]:
            inside = top + "/"
            known = (*self._known.files, *self._known.links)
            self.remove(
                [path for path in known if path.startswith(inside)],
                [path for path in folders if path.startswith(inside) or path == top],
            )

    def remove_stale(self, entries: list[Entry]) -> None:
        """What an earlier tree put here and this one lacks, as far as nobody has changed it."""
        named = {entry.path for entry in entries}
        folders = {
            "/".join(entry.path.split("/")[:n]) for entry in entries for n in range(1, len(entry.parts))
        }
        self.new.folders = sorted(folders | {entry.path for entry in entries if entry.kind == "d"})
        gone = [path for path in (*self._known.files, *self._known.links) if path and path not in named]
        self.remove(gone, set(self._known.folders).difference(self.new.folders))

    def remove(self, paths: Iterable[str], folders: Iterable[str]) -> None:
        """Files and links, as far as nobody has changed them, and folders in which nothing is left."""
        for path in paths:
            folder, name = self._parent_of(path)
            try:
                link = self._known.links.get(path)
                if link is not None:
                    same = os.readlink(name, dir_fd=folder) == link.encode("utf-8")
                else:
                    same = stamp_of(os.lstat(name, dir_fd=folder)) == self._known.files[path][:3]
                if same:
                    os.unlink(name, dir_fd=folder)
            except OSError:
                pass  # gone, or something else by now
            os.close(folder)
        for path in sorted(folders, reverse=True):
            folder, name = self._parent_of(path)
            try:
                os.rmdir(name, dir_fd=folder)
            except OSError:
                pass  # somebody's things are in it
            os.close(folder)

    def _parent_of(self, path: str) -> tuple[int, bytes]:
        """A handle of the folder that holds `path`, and the name in it; a name that is nowhere when the way
        there is gone or leads through a link."""
        *above, name = [part.encode("utf-8") for part in path.split("/")]
        handle = os.dup(self._top)
        for part in above:
            try:
                inner = os.open(part, _FOLDER, dir_fd=handle)
            except OSError:
                return handle, b""
            os.close(handle)
            handle = inner
        return handle, name

    def place_one(self, entry: Entry) -> None:
        name = entry.parts[-1]
        if entry.kind == "d":
            self.folder(entry.parts)
            # A scanner that tells no mode of a folder must not make one that cannot be entered.
            self._folder_modes.append((entry.parts, entry.mode if entry.mode & 0o111 else 0o755))
            return
        folder = self.folder(entry.parts[:-1])
        if entry.kind == "l":
            self._place_link(folder, name, entry.target.encode("utf-8"))
            self.new.links[entry.path] = entry.target
        else:
            self._place_file(folder, name, entry)

    def folder(self, parts: list[bytes]) -> int:
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

    def _place_file(self, folder: int, name: bytes, entry: Entry) -> None:
        record = self._known.files.get(entry.path)
        try:
            info = os.lstat(name, dir_fd=folder)
        except FileNotFoundError:
            info = None
        if (
            info is not None
            and record is not None
            and stat.S_ISREG(info.st_mode)
            and record[:3] == stamp_of(info)
            and record[3] == entry.chunks
        ):
            if stat.S_IMODE(info.st_mode) != entry.mode:
                os.chmod(name, entry.mode, dir_fd=folder)
            self.new.files[entry.path] = record
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
        self.new.files[entry.path] = [*stamp_of(info), entry.chunks]

    def _copy_chunk(self, digest: str, sink: int) -> int:
        """Append a chunk, checked against its name: files that serve as a source may have changed."""
        import hashlib

        assert self._trees is not None
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
        self.put(temporary, folder, name, folder)

    def put(self, temporary: bytes, source: int, name: bytes, folder: int) -> None:
        """Move a finished file of the folder `source` to its place. Raises Refused."""
        try:
            os.replace(temporary, name, src_dir_fd=source, dst_dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            try:
                os.rmdir(name, dir_fd=folder)
            except OSError:
                _unlink(temporary, source)
                text = "%s/%s is a folder with files in it where a file should be; remove it, or choose another target"  # noqa: E501
                raise Refused("target", text % (self._target, name.decode("utf-8", "replace"))) from None
            os.replace(temporary, name, src_dir_fd=source, dst_dir_fd=folder)


def refuse_contradictions(entries: list[Entry]) -> None:
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


def _changed_ns(base: str, folder: str) -> int:
    """When something was last made, renamed or removed in a folder; 0 when it is none any more."""
    try:
        info = os.lstat(base + "/" + folder if folder else base)
    except OSError:
        return 0
    return info.st_mtime_ns if stat.S_ISDIR(info.st_mode) else 0


def _seal_path(record_path: str) -> str:
    return record_path[: -len(".json")] + ".seal"


def seal(record_path: str, known: Known) -> None:
    """Note when the folders of a placed tree changed last: while they have not, its files are all there."""
    folders = {folder: _changed_ns(known.base, folder) for folder in ("", *known.folders)}
    write_json(_seal_path(record_path), {"base": known.base, "digest": known.digest, "folders": folders})


def unseal(record_path: str) -> None:
    try:
        os.unlink(_seal_path(record_path))
    except FileNotFoundError:
        pass
