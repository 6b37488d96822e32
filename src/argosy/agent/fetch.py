"""Objects of a store become files below a target: a process of its own, which an agent starts for one copy.

What it says and is told comes over the socket at handle 3 (`argosy.infra.agent_data` is the other end):

    to us    {"target", "single", "full", "md5", "digest": of all files, "groups": how many, "count"}, then
             `count` lines [path, size, etag, index]
    from us  {"groups": digests}, when there are groups and the digest is not that of what is here
    to us    {"groups": those that differ, "count"}, then lines as above: all files of these
    from us  {"need": [index, ...], "have": {index: bytes of it that are here}, "bytes"}; when it is empty,
             the last line follows at once
    to us    {"url": index, "href": address} | {"data": index, "first": offset, "size"} and so many bytes
    from us  {"done": [index, ...], "bytes": of all} | {"failed": index, "status", "why"}
    to us    {"end": true}
    from us  {"files", "bytes", "removed"}

At any time it may say {"error": field, "text"} and end. Nothing half written is ever visible: files grow in a
folder of their own below the target and are renamed when they are complete. What was done stays done when it
is ended in the middle: whole files are in a journal, and parts of large ones beside them. Where
little is new that journal stays, as part of what is known.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import posixpath
import queue
import socket
import sys
import threading
import time

from argosy.agent.listing import digest_of, digests_of_groups, group_of
from argosy.agent.orders import Refused
from argosy.agent.outside import is_below, write_json
from argosy.agent.targets import Known, Targets, is_as_recorded, stamp_of
from argosy.agent.trees import Entry, Placing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from argosy.agent.download import Failed, StoreClient

HANDLE = 3
WORKERS = 16
PART_BYTES = 16 << 20
_DRAFTS = b".argosy-new"
_TELL_S = 0.2
_TELL_FILES = 128
_JOURNAL_MAX_BYTES = 1 << 20
_JOURNAL_MAX = 500  # files that are new: fewer are left in the journal, which the next run reads
_MD5_MAX_BYTES = 32 << 20  # up to this size content is checked against an MD5
_LISTING = "listing:"  # before a digest that is of a listing, not of a tree
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class _File:
    """One object on its way. `parts`: those that are missing; `path` "": the target itself."""

    __slots__ = ("draft", "entry", "etag", "index", "lock", "over", "parts", "path", "size")

    def __init__(self, index: int, path: str, size: int, etag: str, name: str) -> None:
        self.index, self.path, self.size, self.etag = index, path, size, etag
        self.entry = Entry({"path": path or name, "kind": "f", "size": size})
        self.entry.chunks = ["e:" + etag]
        if not path:
            self.entry.path = ""
        self.draft = hashlib.sha256(("%s\0%s\0%d" % (path, etag, size)).encode()).hexdigest()[:32].encode()
        self.parts: set[int] = set()
        self.over = False  # it is in its place, or given up here
        self.lock = threading.Lock()


class _Plan:
    """What lies at `path` in the end. `kept`: records of files that are there; `rows`: [path, size, etag,
    index] of files that may not be."""

    __slots__ = ("kept", "path", "record", "rows", "single", "target")

    def __init__(
        self,
        path: str,
        record: str,
        target: str,
        kept: dict[str, list[Any]],
        rows: list[list[Any]],
        single: bool,
    ) -> None:
        self.path, self.record, self.target = path, record, target
        self.kept, self.rows, self.single = kept, rows, single


class Fetch:
    """One run. `stream`: to the server."""

    def __init__(self, stream: socket.socket, targets: Targets, node_name: str) -> None:
        self.stream, self._targets, self._node = stream, targets, node_name
        self._source = stream.makefile("rb")
        self._sending, self._placing_lock = threading.Lock(), threading.Lock()
        self._work: queue.SimpleQueue[tuple[_File, str, int] | None] = queue.SimpleQueue()
        self._files: dict[int, _File] = {}
        self._done: list[int] = []  # and not told
        self._ordered = self._finished = 0
        self._bytes = 0
        self._told_s = 0.0
        self._begun: set[int] = set()
        self._md5 = False
        self._required = ("", "")

    def run(self) -> None:
        """Raises Refused, OSError, and EOFError when the server has gone."""
        head = self.line()
        rows = self.rows(head)
        self._md5 = bool(head.get("md5"))
        self._required = (str(head.get("encryption", "")), str(head.get("key_id", "")))
        single, target = bool(head.get("single")), str(head["target"])
        if single and target.endswith("/"):
            target += rows[0][0].rpartition("/")[2]
        path = self._targets.resolve(target)
        if single:
            rows[0][0] = ""
        self._name = posixpath.basename(path)
        record = self._targets.record_path(path)
        os.makedirs(os.path.dirname(record), mode=0o700, exist_ok=True)
        with open(record + ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # nodes of one machine may want the same files at one place
            known = Known(record)
            if known.base != path:
                known = Known()
            read_journal(record, path, known)
            kept: dict[str, list[Any]] = {}
            if head.get("groups"):
                kept, rows = _compare(self, path, known, str(head["digest"]), int(head["groups"]))
            if not is_below(path, self._targets.home):
                content = str(head.get("digest")) + ("1" if single else "")
                with self._targets.outside.claimed(
                    path, content, lambda: _top(self._targets, self._node, path, target)
                ):
                    pass
            plan = _Plan(path, record, target, kept, rows, single)
            removed = self._fetch(plan, known, bool(head.get("full")), str(head.get("digest", "")))
        self.say({"files": len(kept) + len(rows), "bytes": self._bytes, "removed": removed})

    def rows(self, order: dict[str, Any]) -> list[list[Any]]:
        return [self.line() for _ in range(int(order["count"]))]

    def _file(self, row: list[Any]) -> _File:
        return _File(int(row[3]), row[0], int(row[1]), row[2], self._name)

    def _fetch(self, plan: _Plan, known: Known, full: bool, digest: str) -> int:
        """How many files of an earlier copy have gone."""
        path, record = plan.path, plan.record
        is_ours = is_below(path, self._targets.home)
        if (
            not plan.rows
            and len(plan.kept) == len(known.files)
            and os.path.lexists(path)  # of an empty folder it is made
            and (is_ours or not os.path.exists(record + ".journal"))
        ):
            self.say({"need": []})
            return 0
        base = posixpath.dirname(path) if plan.single else path
        placing = Placing(None, known, plan.target)
        placing.open(base)
        new = placing.new
        new.base, new.files = path, dict(plan.kept)
        drafts = _open_drafts(base)
        try:
            self._placing, self._drafts, self._new = placing, drafts, new
            need = []
            for row in plan.rows:
                old = known.files.get(row[0])
                is_old = old is not None and not full and old[0] == row[1] and old[3] == ["e:" + row[2]]
                if (
                    old is not None
                    and is_old
                    and is_as_recorded(path + "/" + row[0] if row[0] else path, old)
                ):
                    new.files[row[0]] = old
                else:
                    need.append(self._file(row))
            _check_room(self._node, base, plan.target, need)
            with open(record + ".journal", "a", encoding="utf-8") as self._journal:
                self._take(need)
                if need:
                    self._journal.write(json.dumps([None, _LISTING + digest]) + "\n")
            gone = len(set(known.files) - set(new.files))
            is_long = len(need) > _JOURNAL_MAX or os.path.getsize(record + ".journal") > _JOURNAL_MAX_BYTES
            if gone or is_long or not is_ours:
                if not plan.single:
                    placing.remove_stale([Entry({"path": name, "kind": "f"}) for name in new.files])
                new.digest = _LISTING + digest
                write_json(record, vars(new))
                os.unlink(record + ".journal")
            return gone
        finally:
            placing.close()
            _close_drafts(drafts, base)

    # ---- taking files

    def _take(self, need: list[_File]) -> None:
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
        self.say({"need": [each.index for each in need], "have": have, "bytes": sum(e.size for e in need)})
        if not need:
            return
        workers = [threading.Thread(target=self._work_on, daemon=True) for _ in range(WORKERS)]
        started = 0
        while True:
            order = self.line()
            if "url" in order:
                if not started:
                    for worker in workers:
                        worker.start()
                    started = len(workers)
                each = self._begin(order["url"])
                if not each.parts:
                    self._complete(each)
                for part in sorted(each.parts):
                    self._work.put((each, order["href"], part))
            elif "data" in order:
                self._take_data(self._begin(order["data"]), int(order["first"]), int(order["size"]))
            elif order.get("end"):
                break
        for _ in range(started):
            self._work.put(None)

    def _begin(self, index: int) -> _File:
        each = self._files[index]
        with self._placing_lock:
            if each.over or each.index not in self._begun:
                self._begun.add(index)
                self._ordered += 1
            each.over = False
        return each

    def _take_data(self, each: _File, first: int, size: int) -> None:
        """Bytes that the server sends, in order of their offsets."""
        handle = os.open(each.draft, _FLAGS, 0o600, dir_fd=self._drafts)
        try:
            left, at = size, first
            while left:
                piece = self._source.read(min(left, 1 << 20))
                if not piece:
                    raise EOFError
                _write(handle, piece, at)
                at += len(piece)
                left -= len(piece)
                self._bytes += len(piece)
            if at == each.size:
                os.ftruncate(handle, each.size)
        finally:
            os.close(handle)
        if at >= each.size:
            self._complete(each)
        else:
            for part in range(first // PART_BYTES, at // PART_BYTES):
                _note_part(each, part, self._drafts)
        self._tell()

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
                _end(
                    self,
                    "disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "target",
                    str(error.strerror),
                )
        client.close()

    def _download(self, client: StoreClient, each: _File, href: str, part: int) -> None:
        first = part * PART_BYTES
        count = min(PART_BYTES, each.size - first)
        whole = each.size <= PART_BYTES
        checks = self._md5 and whole and 0 < each.size <= _MD5_MAX_BYTES and len(each.etag) == 32
        digest = _new_md5() if checks else None
        handle = os.open(each.draft, _FLAGS, 0o600, dir_fd=self._drafts)
        try:

            def sink(piece: bytes, offset: int) -> None:
                _write(handle, piece, offset)
                if digest is not None:
                    digest.update(piece)
                self._bytes += len(piece)
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
        with each.lock:
            each.parts.discard(part)
            is_last = not each.parts
            if not whole and not is_last:
                _note_part(each, part, self._drafts)
        if is_last:
            self._complete(each)

    def _give_up(self, each: _File, error: Failed) -> None:
        with self._placing_lock:
            if each.over:
                return
            each.over = True
            self._finished += 1
        self.say({"failed": each.index, "status": error.status, "why": str(error)})

    def _complete(self, each: _File) -> None:
        """All bytes are here: the file appears, and is written down."""
        with self._placing_lock:
            if each.over:
                return
            each.over = True
            self._finished += 1
            handle = os.open(each.draft, _FLAGS, 0o600, dir_fd=self._drafts)
            try:
                os.fchmod(handle, 0o644)
                info = os.fstat(handle)
            finally:
                os.close(handle)
            folder = self._placing.folder(each.entry.parts[:-1])
            self._placing.put(each.draft, self._drafts, each.entry.parts[-1], folder)
            try:
                os.unlink(each.draft + b".parts", dir_fd=self._drafts)
            except FileNotFoundError:
                pass
            row = [*stamp_of(info), each.entry.chunks]
            self._new.files[each.path] = row
            self._journal.write(json.dumps([each.path, row]) + "\n")
            self._done.append(each.index)
        self._tell()

    # ---- the server

    def line(self) -> Any:  # Any: JSON
        line = self._source.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return json.loads(line)

    def say(self, what: dict[str, object]) -> None:
        with self._sending:
            self.stream.sendall(json.dumps(what).encode() + b"\n")

    def _tell(self) -> None:
        """What is done, a few times a second and when nothing is left to wait for."""
        now_s = time.monotonic()
        with self._placing_lock:
            waits = self._finished == self._ordered or len(self._done) >= _TELL_FILES
            if now_s - self._told_s < _TELL_S and not waits:
                return
            self._told_s = now_s
            done, self._done = self._done, []
            self._journal.flush()
        self.say({"done": done, "bytes": self._bytes})


def _compare(
    fetch: Fetch, path: str, known: Known, digest: str, groups: int
) -> tuple[dict[str, list[Any]], list[list[Any]]]:
    """Files that are here as they should be, and rows of those of which that is not known."""
    here = {
        name: row
        for name, row in known.files.items()
        if is_as_recorded(path + "/" + name, row) and etag_of(row) is not None
    }
    if known.digest and len(here) == len(known.files) and known.digest == _LISTING + digest:
        return here, []
    told = [(name, row[0], etag_of(row)) for name, row in here.items()]
    if digest_of(told) == digest:
        return here, []
    fetch.say({"groups": digests_of_groups(told, groups)})
    order = fetch.line()
    rows, new = fetch.rows(order), set(order["groups"])
    return {name: row for name, row in here.items() if group_of(name, groups) not in new}, rows


def _top(targets: Targets, node: str, path: str, target: str) -> str:
    try:
        if not os.listdir(path):
            return path + "/"  # an empty folder of the machine: it stays
    except NotADirectoryError:
        pass
    except FileNotFoundError:
        return targets.top_to_make(path, target)
    raise Refused(
        "target",
        "`%s` on %s is not empty and was not made by Argosy; choose a new path, or one below `~`"
        % (target, node),
    )


def _check_room(node: str, base: str, target: str, need: list[_File]) -> None:
    disk = os.statvfs(base)
    free, wanted = disk.f_bavail * disk.f_frsize, sum(each.size for each in need)
    if wanted > free:
        largest = max(need, key=lambda each: each.size)
        raise Refused(
            "disk",
            "`%s` needs %s on %s, where %s are free (the largest file is `%s` with %s); ask for a larger "
            "`disk_size`, leave files out with `sync: {exclude: …}`, or use `mode: MOUNT`"
            % (target, _size(wanted), node, _size(free), largest.path or target, _size(largest.size)),
        )


def _end(fetch: Fetch, field: str, text: str) -> None:
    try:
        fetch.say({"error": field, "text": text})
        fetch.stream.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    os._exit(1)


def _finished_parts(each: _File, drafts: int) -> set[int]:
    try:
        handle = os.open(each.draft + b".parts", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=drafts)
    except OSError:
        return set()
    with open(handle, encoding="ascii") as file:
        return {int(line) for line in file if line.endswith("\n") and line.strip().isdigit()}


def _note_part(each: _File, part: int, drafts: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(each.draft + b".parts", flags, 0o600, dir_fd=drafts)
    os.write(handle, b"%d\n" % part)
    os.close(handle)


def _open_drafts(base: str) -> int:
    top = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            os.mkdir(_DRAFTS, 0o700, dir_fd=top)
        except FileExistsError:
            pass
        return os.open(_DRAFTS, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    finally:
        os.close(top)


def _close_drafts(handle: int, base: str) -> None:
    os.close(handle)
    try:
        os.rmdir(os.path.join(os.fsencode(base), _DRAFTS))
    except OSError:
        pass  # parts of what was not finished


def read_journal(record: str, path: str, known: Known) -> None:
    """Files that an earlier run has finished before it was ended."""
    try:
        with open(record + ".journal", encoding="utf-8") as file:
            lines = file.readlines()
    except OSError:
        return
    known.base = path
    for line in lines:
        try:
            name, row = json.loads(line)
        except ValueError:
            break
        if name is None:
            known.digest = row  # all files that are known by now
        else:
            known.digest, known.files[name] = "", row


def etag_of(row: list[Any]) -> str | None:
    """Of a file that was fetched; None: it was placed with a tree."""
    chunks = row[3]
    return chunks[0][2:] if len(chunks) == 1 and chunks[0].startswith("e:") else None


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


def _size(count: int) -> str:
    for unit, name in ((1 << 30, "GB"), (1 << 20, "MB")):
        if count >= unit:
            return "%.1f %s" % (count / unit, name)
    return "%d KB" % -(-count // 1024)


def run(root: str, home: str, node_name: str) -> int:
    """The life of this process. Exit status: 0 done, 1 it said what was wrong."""
    stream = socket.socket(fileno=HANDLE)
    fetch = Fetch(stream, Targets(root, home, node_name), node_name)
    try:
        fetch.run()
        return 0
    except EOFError:
        return 1
    except Refused as error:
        _end(fetch, error.field, str(error))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        text = "disk full on " + node_name if full else "%s: %s" % (node_name, error.strerror or error)
        _end(fetch, "disk" if full else "transient", text)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        sys.stderr.write("argosy-agent: fetch: %s: %s\n" % (type(error).__name__, error))
        _end(fetch, "body", "%s: %s" % (type(error).__name__, error))
    return 1
