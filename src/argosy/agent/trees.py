"""Files by content: a bounded store of chunks, and trees that appear where they are wanted (`placing`)."""

from __future__ import annotations

import json
import os
import posixpath
import stat
import time

from argosy.agent.orders import Busy, Refused
from argosy.agent.outside import content_of, is_below, write_json
from argosy.agent.placing import DIGEST, Entry, Placing, refuse_contradictions
from argosy.agent.rank import warn
from argosy.agent.targets import Known, Targets, is_as_recorded
from argosy.agent.wire import CHUNK_LIMIT_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    Start = Callable[["Trees", Known, str], Placing]

STORE_LIMIT_BYTES = 1 << 30  # chunks kept for the next tree; files that were placed serve as well
_ARRIVING_S = 600.0


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
        if not all(isinstance(digest, str) and DIGEST.fullmatch(digest) for digest in wanted):
            raise Refused("digests", "a digest must be 64 hex digits")
        absent = [digest for digest in wanted if not os.path.exists(self._chunks + "/" + digest)]
        if absent:
            placed = self._find_placed(set(absent))
            absent = [digest for digest in absent if digest not in placed]
        return absent

    def is_bare(self) -> bool:
        """Nothing was placed here, and no chunk is stored: all of a tree is missing."""
        return not (os.listdir(self._chunks) or os.listdir(self._placed) or self._outside.records())

    def new_chunk(self, digest: str, size: int) -> NewChunk:
        """Raises Refused; the chunk's own check happens when it is closed."""
        if not DIGEST.fullmatch(digest) or not 0 <= size <= CHUNK_LIMIT_BYTES:
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

    def place(
        self, tree: dict[str, object], target: str, digest: str = "", start: Start | None = None
    ) -> None:
        """Make the tree appear. What an earlier one put there and this one lacks is removed, unless somebody
        changed it. `start`: what places it, when its chunks come meanwhile. Raises Refused (the reason and
        what to do), Busy when chunks are not here, OSError."""
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

        def begin(known: Known) -> Placing:
            return (start or Placing)(self, known, target)

        if is_below(path, self.targets.home):
            self._place_at(path, entries, is_file, digest, begin)
        else:
            with self._outside.claimed(
                path, content_of(entries), lambda: self.targets.top_to_make(path, target)
            ):
                self._place_at(path, entries, is_file, digest, begin)
        self.tidy({chunk for entry in entries for chunk in entry.chunks})

    def _place_at(
        self, path: str, entries: list[Entry], is_file: bool, digest: str, begin: Callable[[Known], Placing]
    ) -> None:
        record_path = self.targets.record_path(path)
        known = Known(record_path)
        if known.base != path:
            known = Known()
        placing = begin(known)
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
