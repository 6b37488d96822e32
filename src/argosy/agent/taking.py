"""Objects that come to a node: as bytes from the server, or from their store by addresses; each appears when
it is whole."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import queue
import socket
import threading
import time

from argosy.agent.placing import Placing, parts_of
from argosy.agent.targets import stamp_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, TextIO, Tuple

    from argosy.agent.download import Failed, StoreClient

    Row = List[Any]
    Files = Dict[str, Row]
    Required = Tuple[str, str]

WORKERS = 16
PART_BYTES = 16 << 20
_BUFFER_BYTES = 256 << 10
_TELL_S = 0.2
_TELL_FILES = 128
_MD5_MAX_BYTES = 32 << 20  # up to this size content is checked against an MD5
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Incoming:
    """One object on its way. `parts`: those that are missing; `path` "": the target itself."""

    __slots__ = ("etag", "index", "names", "over", "parts", "path", "size")

    def __init__(self, index: int, path: str, size: int, etag: str, name: str) -> None:
        self.index, self.path, self.size, self.etag = index, path, size, etag
        self.names = parts_of(path or name)
        self.parts: set[int] = set()
        self.over = False  # it is in its place, or given up here

    def draft(self) -> bytes:
        """What it is called until then. Found out when it comes: a list of many begins sooner."""
        what = "%s\0%s\0%d" % (self.path, self.etag, self.size)
        return hashlib.sha256(what.encode()).hexdigest()[:32].encode()


class Server:
    """The other end of one copy. `control`: where the next connection would come from."""

    def __init__(self, stream: socket.socket, control: socket.socket) -> None:
        self._stream, self._control = stream, control
        self.source = stream.makefile("rb", _BUFFER_BYTES)
        self._sending = threading.Lock()

    def line(self) -> Any:  # Any: JSON
        line = self.source.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return json.loads(line.decode())

    def say(self, what: dict[str, object]) -> None:
        with self._sending:
            self._stream.sendall(json.dumps(what).encode() + b"\n")

    def rows(self, count: int) -> list[Row]:
        """So many lines that are lists."""
        lines = [self.source.readline() for _ in range(count)]
        if lines and not lines[-1].endswith(b"\n"):
            raise EOFError
        rows: list[Row] = json.loads(b"[" + b",".join(lines) + b"]")  # at once: it takes a third
        return rows

    def end(self, field: str, text: str) -> None:
        """Say what is wrong, and end this process."""
        self._control.close()  # first: a connection that comes from now on needs another process
        try:
            self.say({"error": field, "text": text})
            self._stream.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        os._exit(1)


class Taking:
    """All objects of one copy. They grow in the folder `drafts` (a handle), go to where `placing` is, and
    are noted in `files` and `journal`. `required`: how they must be encrypted."""

    def __init__(
        self,
        server: Server,
        placing: Placing,
        drafts: int,
        journal: TextIO,
        files: Files,
        required: Required,
        md5: bool,
    ) -> None:
        self._server, self._placing, self._drafts, self._journal = server, placing, drafts, journal
        self._noted, self._required, self._md5 = files, required, md5
        self._placing_lock, self._parts_lock = threading.Lock(), threading.Lock()
        self._work: queue.SimpleQueue[tuple[Incoming, str, int] | None] = queue.SimpleQueue()
        self._files: dict[int, Incoming] = {}
        self._done: list[int] = []  # and not told
        self._ordered = self._finished = 0
        self.bytes = 0
        self._told_s = 0.0
        self._begun: set[int] = set()

    def take(self, need: list[Incoming], is_known: bool) -> None:
        self._files = {each.index: each for each in need}
        have = {}
        for each in need:
            count = max(1, -(-each.size // PART_BYTES))
            each.parts = set(range(count))
            if count > 1:
                each.parts -= _finished_parts(each, self._drafts)
                first = min(each.parts, default=count)
                if first:
                    have[each.index] = first * PART_BYTES
        if not is_known:
            size = sum(each.size for each in need)
            self._server.say({"need": [each.index for each in need], "have": have, "bytes": size})
        if not need:
            return
        workers = [threading.Thread(target=self._work_on, daemon=True) for _ in range(WORKERS)]
        started = 0
        while True:
            order = self._server.line()
            if "url" in order:
                if not started:
                    for worker in workers:
                        worker.start()
                    started = len(workers)
                each = self._begin(order["url"])
                if not each.parts:
                    self._complete_now(each)
                for part in sorted(each.parts):
                    self._work.put((each, order["href"], part))
            elif "data" in order:
                self._take_data(self._begin(order["data"]), int(order["first"]), int(order["size"]))
            elif order.get("tell"):
                self._tell(True)
            elif order.get("end"):
                self._tell(True)
                break
        for _ in range(started):
            self._work.put(None)

    def _begin(self, index: int) -> Incoming:
        each = self._files[index]
        with self._placing_lock:
            if each.over or each.index not in self._begun:
                self._begun.add(index)
                self._ordered += 1
            each.over = False
        return each

    def _take_data(self, each: Incoming, first: int, size: int) -> None:
        """Bytes that the server sends, in order of their offsets."""
        handle = os.open(each.draft(), _FLAGS | (0 if first else os.O_TRUNC), 0o600, dir_fd=self._drafts)
        try:
            left, at = size, first
            while left:
                piece = self._server.source.read(min(left, 1 << 20))
                if not piece:
                    raise EOFError
                _write(handle, piece, at)
                at += len(piece)
                left -= len(piece)
                self.bytes += len(piece)
            if at == each.size and first:
                os.ftruncate(handle, each.size)
            if at >= each.size:
                self._complete(each, handle)
        finally:
            os.close(handle)
        if at < each.size:
            for part in range(first // PART_BYTES, at // PART_BYTES):
                _note_part(each, part, self._drafts)
        self._tell(False)

    def _work_on(self) -> None:
        from argosy.agent.download import Failed, StoreClient  # TLS: not needed where the server sends all

        client = StoreClient(self._required)
        while True:
            task = self._work.get()
            if task is None:
                break
            each, href, part = task
            try:
                if not each.over:
                    self._download(client, each, href, part)
            except Failed as error:
                self._give_up(each, error)
            except OSError as error:
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                self._server.end("disk" if full else "target", str(error.strerror))
        client.close()

    def _download(self, client: StoreClient, each: Incoming, href: str, part: int) -> None:
        first = part * PART_BYTES
        count = min(PART_BYTES, each.size - first)
        whole = each.size <= PART_BYTES
        checks = self._md5 and whole and 0 < each.size <= _MD5_MAX_BYTES and len(each.etag) == 32
        digest = _new_md5() if checks else None
        handle = os.open(each.draft(), _FLAGS, 0o600, dir_fd=self._drafts)
        try:

            def sink(piece: bytes, offset: int) -> None:
                _write(handle, piece, offset)
                if digest is not None:
                    digest.update(piece)
                self.bytes += len(piece)
                self._tell()

            if count:
                client.get(href, first, count, whole, each.etag, sink)
            is_md5 = client.encryption in ("", "AES256")  # with a key of the user's it is another digest
            if digest is not None and is_md5 and digest.hexdigest() != each.etag:
                raise client.failed("the bytes that came are not those of the object")
            if whole:
                os.ftruncate(handle, each.size)
        finally:
            os.close(handle)
        with self._parts_lock:
            each.parts.discard(part)
            is_last = not each.parts
            if not whole and not is_last:
                _note_part(each, part, self._drafts)
        if is_last:
            self._complete_now(each)

    def _give_up(self, each: Incoming, error: Failed) -> None:
        with self._placing_lock:
            if each.over:
                return
            each.over = True
            self._finished += 1
        self._server.say({"failed": each.index, "status": error.status, "why": str(error)})

    def _complete_now(self, each: Incoming) -> None:
        handle = os.open(each.draft(), _FLAGS, 0o600, dir_fd=self._drafts)
        try:
            self._complete(each, handle)
        finally:
            os.close(handle)
        self._tell()

    def _complete(self, each: Incoming, handle: int) -> None:
        """All bytes are here: the file appears, and is written down."""
        with self._placing_lock:
            if each.over:
                return
            each.over = True
            self._finished += 1
            os.fchmod(handle, 0o644)
            info = os.fstat(handle)
            folder = self._placing.folder(each.names[:-1])
            self._placing.put(each.draft(), self._drafts, each.names[-1], folder)
            if each.size > PART_BYTES:
                try:
                    os.unlink(each.draft() + b".parts", dir_fd=self._drafts)
                except FileNotFoundError:
                    pass
            row = [*stamp_of(info), ["e:" + each.etag]]
            self._noted[each.path] = row
            self._journal.write(json.dumps([each.path, row]) + "\n")
            self._done.append(each.index)

    def _tell(self, now: bool | None = None) -> None:
        """What is done, a few times a second and when nothing is left to wait for; `now`: whether it is, if
        that is known."""
        now_s = time.monotonic()
        with self._placing_lock:
            if now is None:
                now = self._finished == self._ordered or len(self._done) >= _TELL_FILES
            if now_s - self._told_s < _TELL_S and not now:
                return
            self._told_s = now_s
            done, self._done = self._done, []
            self._journal.flush()
        self._server.say({"done": done, "bytes": self.bytes})


def _finished_parts(each: Incoming, drafts: int) -> set[int]:
    try:
        handle = os.open(each.draft() + b".parts", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=drafts)
    except OSError:
        return set()
    with open(handle, encoding="ascii") as file:
        return {int(line) for line in file if line.endswith("\n") and line.strip().isdigit()}


def _note_part(each: Incoming, part: int, drafts: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(each.draft() + b".parts", flags, 0o600, dir_fd=drafts)
    os.write(handle, b"%d\n" % part)
    os.close(handle)


def _new_md5() -> hashlib._Hash | None:
    try:
        return hashlib.md5()  # noqa: S324  what stores vouch with
    except ValueError:  # a machine that does not allow it
        return None


def _write(handle: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(handle, view, offset)
        view, offset = view[count:], offset + count
