"""What appears at a target: entries of a tree, each put in its place when it is whole.

The safety of it does not rest on clever path arithmetic: every folder below the target is opened relative to
its parent without following links, so no entry can lead outside, whatever is on the disk.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import zlib

from argosy.agent.orders import Busy, Refused
from argosy.agent.targets import Known, stamp_of
from argosy.agent.wire import CHUNK_LIMIT_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from argosy.agent.trees import Trees

DIGEST = re.compile(r"[0-9a-f]{64}")
_NEVER = frozenset((b"", b".", b".."))
_COPY_BYTES = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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
        for digest in chunks:
            if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
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
    try:
        parts = path.encode("utf-8").split(b"/")
    except UnicodeEncodeError:
        raise Refused("tree", "%r is not text" % path) from None
    if not _NEVER.isdisjoint(parts) or "\0" in path:
        raise Refused("tree", "%r is not a relative path inside the tree" % path)
    return parts


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
        folders = {entry.path.rpartition("/")[0] for entry in entries}
        folders = {
            "/".join(folder.split("/")[:n]) for folder in folders for n in range(1, folder.count("/") + 2)
        }
        folders.discard("")
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
        if record is not None and record[3] == entry.chunks and self._is_there(folder, name, record, entry):
            self.new.files[entry.path] = record
            return
        temporary = _temporary(name)
        try:
            handle = os.open(temporary, _NEW, 0o600, dir_fd=folder)
        except FileExistsError:
            _unlink(temporary, folder)
            handle = os.open(temporary, _NEW, 0o600, dir_fd=folder)
        try:
            try:
                written = 0
                for digest in entry.chunks:
                    written += self.copy_chunk(digest, handle)
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

    def _is_there(self, folder: int, name: bytes, record: list[object], entry: Entry) -> bool:
        """Whether the file is as we left it; it gets its mode."""
        try:
            info = os.lstat(name, dir_fd=folder)
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(info.st_mode) or record[:3] != stamp_of(info):
            return False
        if stat.S_IMODE(info.st_mode) != entry.mode:
            os.chmod(name, entry.mode, dir_fd=folder)
        return True

    def copy_chunk(self, digest: str, sink: int) -> int:
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
                write_all(sink, data)
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
    kinds: dict[str, str] = {}
    inside = ""  # a folder of which that is known
    for entry in entries:
        path = entry.path
        if path in kinds:
            raise Refused("tree", "%r appears twice in the tree" % path)
        kinds[path] = entry.kind
        above = path.rpartition("/")[0]
        if above == inside:
            continue
        for length in range(1, len(entry.parts)):
            if kinds.get("/".join(path.split("/")[:length]), "d") != "d":
                raise Refused("tree", "%r goes through something that is not a folder" % path)
        inside = above


def write_all(sink: int, data: bytes) -> None:
    """Append all of it. Raises OSError."""
    written = os.write(sink, data) if data else 0
    while written < len(data):
        written += os.write(sink, data[written:])


def _temporary(name: bytes) -> bytes:
    return b".argosy-new-%08x" % zlib.crc32(name)


def _unlink(name: bytes, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
