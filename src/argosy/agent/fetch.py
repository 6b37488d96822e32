"""Objects of a store become files below a target: a process of its own, which an agent starts for its first
copy and keeps for the next ones for a while.

The agent hands it one connection after another over the socket at handle 3. What it says and is told there
(`argosy.infra.agent_data` is the other end):

    from us  {"state": token}, when the agent was told the target before anything else: "" when files differ
             from what was noted there (`looks`)
    to us    {"target", "single", "full", "md5", "digest": of all files, "groups": how many, "count"}, then
             `count` lines [path, size, etag, index]
    from us  {"groups": digests}, when there are groups and the digest is not that of what is here
    to us    {"groups": those that differ, "count"}, then lines as above: all files of these
    from us  {"need": [index, ...], "have": {index: bytes of it that are here}, "bytes"}; when it is empty,
             the last line follows at once
    to us    or, to a state that it knows: the same with {"since": token, "removed": [path, ...]}, and lines
             of what is new since then, all of which it needs: it says no more about that
    to us    {"url": index, "href": address} | {"data": index, "first": offset, "size"} and so many bytes
    from us  {"done": [index, ...], "bytes": of all} | {"failed": index, "status", "why"}
    to us    {"tell": true}: what is done is to be told, though little is
    to us    {"end": true}
    from us  {"files", "bytes", "removed", "token": of what lies there now}

At any time it may say {"error": field, "text"} and end. Nothing half written is ever visible: files grow in a
folder of their own below the target and are renamed when they are complete. What was done stays done when it
is ended in the middle: whole files are in a journal, and parts of large ones beside them. Where
little is new that journal stays, as part of what is noted.
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

from argosy.agent import handing
from argosy.agent.listing import digest_of, digests_of_groups, group_of
from argosy.agent.looks import DRAFTS, Look, Looks, etag_of
from argosy.agent.orders import Busy, Refused
from argosy.agent.outside import is_below, write_json
from argosy.agent.targets import Targets, stamp_of
from argosy.agent.trees import Entry, Placing, parts_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from argosy.agent.download import Failed, StoreClient

HANDLE = 3
IDLE_S = 600.0
WORKERS = 16
PART_BYTES = 16 << 20
_BUFFER_BYTES = 256 << 10
_TELL_S = 0.2
_TELL_FILES = 128
_JOURNAL_MAX_BYTES = 1 << 20
_JOURNAL_MAX = 500  # files that are new: fewer are left in the journal, which the next run reads
_MD5_MAX_BYTES = 32 << 20  # up to this size content is checked against an MD5
_LISTING = "listing:"  # before a digest that is of a listing, not of a tree
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class _File:
    """One object on its way. `parts`: those that are missing; `path` "": the target itself."""

    __slots__ = ("chunks", "draft", "etag", "index", "lock", "names", "over", "parts", "path", "size")

    def __init__(self, index: int, path: str, size: int, etag: str, name: str) -> None:
        self.index, self.path, self.size, self.etag = index, path, size, etag
        self.names = parts_of(path or name)
        self.chunks = ["e:" + etag]
        self.draft = hashlib.sha256(("%s\0%s\0%d" % (path, etag, size)).encode()).hexdigest()[:32].encode()
        self.parts: set[int] = set()
        self.over = False  # it is in its place, or given up here
        self.lock = threading.Lock()


class _Plan:
    """What lies at `path` in the end. `kept`: records of files that are there; `rows`: [path, size, etag,
    index] of files that may not be, and are not when it is `sure`."""

    __slots__ = ("digest", "full", "kept", "looked", "path", "record", "rows", "single", "sure", "target")

    def __init__(self, head: dict[str, Any], target: str, record: str, looked: Look) -> None:
        self.target, self.record, self.looked, self.path = target, record, looked, looked.path
        self.single, self.full, self.digest = (
            bool(head.get("single")),
            bool(head.get("full")),
            str(head.get("digest", "")),
        )
        self.kept: dict[str, list[Any]] = {}
        self.rows: list[list[Any]] = []
        self.sure = False


class Fetch:
    """One run. `stream`: to the server; `looks` are those of earlier runs; `control`: where the next
    connection would come from."""

    def __init__(
        self, stream: socket.socket, targets: Targets, node_name: str, looks: Looks, control: socket.socket
    ) -> None:
        self.stream, self._targets, self._node = stream, targets, node_name
        self._looks, self.control = looks, control
        self._source = stream.makefile("rb", _BUFFER_BYTES)
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
        self._token = ""

    def run(self, early: str = "") -> None:
        """`early`: the target, where that is known before the order comes. Raises Refused, Busy, OSError, and
        EOFError when the server has gone."""
        looked = None
        if early:
            path = self._targets.resolve(early)
            looked = self._looks.look(path, self._targets.record_path(path))
            self.say({"state": looked.token})
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
            if looked is None or not looked.is_current(path):
                looked = self._looks.look(path, record)
            plan = _Plan(head, target, record, looked)
            self._compare(plan, head, rows)
            if not is_below(path, self._targets.home):
                content = plan.digest + ("1" if single else "")
                with self._targets.outside.claimed(
                    path, content, lambda: _top(self._targets, self._node, path, target)
                ):
                    pass
            removed = self._fetch(plan)
        files = len(plan.kept) + len(plan.rows)
        self.say({"files": files, "bytes": self._bytes, "removed": removed, "token": self._token})

    def rows(self, order: dict[str, Any]) -> list[list[Any]]:
        lines = [self._source.readline() for _ in range(int(order["count"]))]
        if lines and not lines[-1].endswith(b"\n"):
            raise EOFError
        rows: list[list[Any]] = json.loads(b"[" + b",".join(lines) + b"]")  # at once: it takes a third
        return rows

    def _file(self, row: list[Any]) -> _File:
        return _File(int(row[3]), row[0], int(row[1]), row[2], self._name)

    def _compare(self, plan: _Plan, head: dict[str, Any], rows: list[list[Any]]) -> None:
        """Find out what is there as it should be, and of which files that is not known."""
        known, here, since = plan.looked.known, plan.looked.here, str(head.get("since", ""))
        plan.rows = rows
        if since:
            if plan.looked.token != since:
                raise Busy("`%s` on %s has changed meanwhile; copy again" % (plan.target, self._node))
            gone = {row[0] for row in rows}.union(head.get("removed", ()))
            plan.kept = {name: row for name, row in here.items() if name not in gone} if gone else here
            plan.sure = True
        elif groups := int(head.get("groups") or 0):
            here = {name: row for name, row in here.items() if etag_of(row) is not None}
            is_whole = len(here) == len(known.files)
            if is_whole and known.digest and known.digest == _LISTING + plan.digest:
                plan.kept = here
                return
            told = [(name, row[0], etag_of(row)) for name, row in here.items()]
            if digest_of(told) == plan.digest:
                plan.kept = here
                return
            self.say({"groups": digests_of_groups(told, groups)})
            order = self.line()
            plan.rows, new = self.rows(order), set(order["groups"])
            plan.kept = {name: row for name, row in here.items() if group_of(name, groups) not in new}

    def _fetch(self, plan: _Plan) -> int:
        """How many files of an earlier copy have gone."""
        known, record = plan.looked.known, plan.record
        is_ours = is_below(plan.path, self._targets.home)
        has_journal = os.path.exists(record + ".journal")
        self._token = os.urandom(12).hex()
        if (
            not plan.rows
            and len(plan.kept) == len(known.files)
            and os.path.lexists(plan.path)  # of an empty folder it is made
            and (is_ours or not has_journal)
        ):
            if not plan.sure:
                self.say({"need": []})
            self._token = known.token
            return 0
        base = posixpath.dirname(plan.path) if plan.single else plan.path
        placing = Placing(None, known, plan.target)
        placing.open(base)
        self._placing, self._new = placing, placing.new
        self._new.base, self._new.files, self._new.folders = plan.path, dict(plan.kept), known.folders
        self._drafts = _open_drafts(base)
        try:
            need = self._needed(plan)
            _check_room(self._node, base, plan.target, need)
            with open(record + ".journal", "a", encoding="utf-8") as self._journal:
                self._take(need, plan.sure)
                if need:
                    self._note_end(plan)
            return self._settle(plan, len(need) > _JOURNAL_MAX, is_ours)
        finally:
            placing.close()
            _close_drafts(self._drafts, base)

    def _needed(self, plan: _Plan) -> list[_File]:
        if plan.sure:
            return [self._file(row) for row in plan.rows]
        need = []
        for row in plan.rows:
            old = None if plan.full else plan.looked.here.get(row[0])
            if old is not None and old[0] == row[1] and old[3] == ["e:" + row[2]]:
                self._new.files[row[0]] = old
            else:
                need.append(self._file(row))
        return need

    def _note_end(self, plan: _Plan) -> None:
        digest = _LISTING + plan.digest if plan.digest else ""
        self._journal.write(json.dumps([None, digest, self._token]) + "\n")

    def _settle(self, plan: _Plan, is_long: bool, is_ours: bool) -> int:
        """Remove what has gone, and leave what is noted in order. How many files have gone."""
        known, new, journal = plan.looked.known, self._new, plan.record + ".journal"
        gone = len(known.files.keys() - new.files.keys())
        if gone or is_long or not is_ours or os.path.getsize(journal) > _JOURNAL_MAX_BYTES:
            new.folders = sorted(_folders_of(new.files)) if not plan.single else []
            if gone and not plan.single:
                known.folders = sorted(set(known.folders).union(_folders_of(known.files)))
                self._placing.remove_stale([Entry({"path": name, "kind": "f"}) for name in new.files])
            write_json(plan.record, {**vars(new), **self._ends(plan)})
            os.unlink(journal)
        new.digest, new.token = self._ends(plan).values()
        self._looks.keep(plan.record, new)
        return gone

    def _ends(self, plan: _Plan) -> dict[str, str]:
        return {"digest": _LISTING + plan.digest if plan.digest else "", "token": self._token}

    # ---- taking files

    def _take(self, need: list[_File], is_known: bool) -> None:
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
            self.say({"need": [each.index for each in need], "have": have, "bytes": size})
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
        handle = os.open(each.draft, _FLAGS | (0 if first else os.O_TRUNC), 0o600, dir_fd=self._drafts)
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
            self._complete_now(each)

    def _give_up(self, each: _File, error: Failed) -> None:
        with self._placing_lock:
            if each.over:
                return
            each.over = True
            self._finished += 1
        self.say({"failed": each.index, "status": error.status, "why": str(error)})

    def _complete_now(self, each: _File) -> None:
        handle = os.open(each.draft, _FLAGS, 0o600, dir_fd=self._drafts)
        try:
            self._complete(each, handle)
        finally:
            os.close(handle)
        self._tell()

    def _complete(self, each: _File, handle: int) -> None:
        """All bytes are here: the file appears, and is written down."""
        with self._placing_lock:
            if each.over:
                return
            each.over = True
            self._finished += 1
            os.fchmod(handle, 0o644)
            info = os.fstat(handle)
            folder = self._placing.folder(each.names[:-1])
            self._placing.put(each.draft, self._drafts, each.names[-1], folder)
            if each.size > PART_BYTES:
                try:
                    os.unlink(each.draft + b".parts", dir_fd=self._drafts)
                except FileNotFoundError:
                    pass
            row = [*stamp_of(info), each.chunks]
            self._new.files[each.path] = row
            self._journal.write(json.dumps([each.path, row]) + "\n")
            self._done.append(each.index)

    # ---- the server

    def line(self) -> Any:  # Any: JSON
        line = self._source.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return json.loads(line.decode())

    def say(self, what: dict[str, object]) -> None:
        with self._sending:
            self.stream.sendall(json.dumps(what).encode() + b"\n")

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
        self.say({"done": done, "bytes": self._bytes})


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
    fetch.control.close()  # first: a connection that comes from now on needs another process
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
            os.mkdir(DRAFTS, 0o700, dir_fd=top)
        except FileExistsError:
            pass
        return os.open(DRAFTS, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    finally:
        os.close(top)


def _close_drafts(handle: int, base: str) -> None:
    os.close(handle)
    try:
        os.rmdir(os.path.join(base, DRAFTS))
    except OSError:
        pass  # parts of what was not finished


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


def _folders_of(paths: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        above = path.rpartition("/")[0]
        while above and above not in found:
            found.add(above)
            above = above.rpartition("/")[0]
    return found


def run(root: str, home: str, node_name: str) -> int:
    """The life of this process. Exit status: 0 nothing came for long, or the agent has gone; 1 a copy ended
    in a way that it told."""
    control = socket.socket(fileno=HANDLE)
    looks = Looks()
    while True:
        handed = handing.take(control, IDLE_S)
        if handed is None:
            return 0
        stream, early = handed
        targets = Targets(root, home, node_name)
        if not _one(Fetch(stream, targets, node_name, looks, control), node_name, early):
            control.close()
            return 1
        stream.shutdown(socket.SHUT_RDWR)


def _one(fetch: Fetch, node_name: str, early: str) -> bool:
    try:
        fetch.run(early)
        return True
    except EOFError:
        pass
    except Refused as error:
        _end(fetch, error.field, str(error))
    except Busy as error:
        _end(fetch, "transient", str(error))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        text = "disk full on " + node_name if full else "%s: %s" % (node_name, error.strerror or error)
        _end(fetch, "disk" if full else "transient", text)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        sys.stderr.write("argosy-agent: fetch: %s: %s\n" % (type(error).__name__, error))
        _end(fetch, "body", "%s: %s" % (type(error).__name__, error))
    return False
