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

The first of these may hold {"shape"}: modes of files and links (`shapes`), which are there before the last
line is said.

At any time it may say {"error": field, "text"} and end. Nothing half written is ever visible: files grow in a
folder of their own below the target and are renamed when they are complete. What was done stays done when it
is ended in the middle: whole files are in a journal, and parts of large ones beside them. Where
little is new that journal stays, as part of what is noted.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import posixpath
import socket
import sys

from argosy.agent import handing
from argosy.agent.listing import digest_of, digests_of_groups, group_of
from argosy.agent.looks import DRAFTS, Look, Looks, etag_of
from argosy.agent.orders import Busy, Refused
from argosy.agent.outside import is_below, write_json
from argosy.agent.placing import Entry, Placing
from argosy.agent.shapes import Shape, apply
from argosy.agent.taking import Incoming, Server, Taking
from argosy.agent.targets import Targets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


HANDLE = 3
IDLE_S = 600.0
_JOURNAL_MAX_BYTES = 1 << 20
_JOURNAL_MAX = 500  # files that are new: fewer are left in the journal, which the next run reads
_LISTING = "listing:"  # before a digest that is of a listing, not of a tree


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
        self.server = Server(stream, control)
        self._targets, self._node, self._looks = targets, node_name, looks
        self._bytes = 0
        self._md5 = False
        self._required = ("", "")
        self._token = ""
        self._shape: Shape | None = None
        self._has_ended = False

    def run(self, early: str = "") -> None:
        """`early`: the target, where that is known before the order comes. Raises Refused, Busy, OSError, and
        EOFError when the server has gone."""
        looked = None
        if early:
            path = self._targets.resolve(early)
            looked = self._looks.look(path, self._targets.record_path(path))
            self.server.say({"state": looked.token})
        head = self.server.line()
        rows = self.server.rows(int(head["count"]))
        self._md5 = bool(head.get("md5"))
        self._required = (str(head.get("encryption", "")), str(head.get("key_id", "")))
        self._shape = Shape(head["shape"]) if "shape" in head else None
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
            if not self._has_ended:
                self._say_end(plan, removed)

    def _say_end(self, plan: _Plan, removed: int) -> None:
        self._has_ended = True
        if self._shape is not None and not plan.single:
            apply(plan.record, plan.path, self._shape, [*plan.kept, *(row[0] for row in plan.rows)])
        files = len(plan.kept) + len(plan.rows)
        self.server.say({"files": files, "bytes": self._bytes, "removed": removed, "token": self._token})

    def _file(self, row: list[Any]) -> Incoming:
        return Incoming(int(row[3]), row[0], int(row[1]), row[2], self._name)

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
            self.server.say({"groups": digests_of_groups(told, groups)})
            order = self.server.line()
            plan.rows, new = self.server.rows(int(order["count"])), set(order["groups"])
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
                self.server.say({"need": []})
            self._token = known.token
            return 0
        base = posixpath.dirname(plan.path) if plan.single else plan.path
        placing = Placing(None, known, plan.target)
        placing.open(base)
        self._placing, self._new = placing, placing.new
        self._new.base, self._new.files, self._new.folders = plan.path, dict(plan.kept), known.folders
        try:
            drafts = _open_drafts(base)
            try:
                need = self._needed(plan)
                _check_room(self._node, drafts, plan.target, need)
                self._take(plan, need, placing, drafts)
            finally:
                _close_drafts(drafts, base)
            return self._settle(plan, len(need) > _JOURNAL_MAX, is_ours)
        finally:
            placing.close()

    def _take(self, plan: _Plan, need: list[Incoming], placing: Placing, drafts: int) -> None:
        with open(plan.record + ".journal", "a", encoding="utf-8") as journal:
            taking = Taking(self.server, placing, drafts, journal, self._new.files, self._required, self._md5)
            taking.take(need, plan.sure)
            self._bytes = taking.bytes
            if need:
                journal.write(json.dumps([None, *self._ends(plan).values()]) + "\n")

    def _needed(self, plan: _Plan) -> list[Incoming]:
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

    def _settle(self, plan: _Plan, is_long: bool, is_ours: bool) -> int:
        """Remove what has gone, and leave what is noted in order. How many files have gone."""
        known, new, journal = plan.looked.known, self._new, plan.record + ".journal"
        gone = len(known.files.keys() - new.files.keys())
        if not gone:
            self._say_end(plan, 0)  # all of it is in the journal: what follows may be repeated
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


def _check_room(node: str, drafts: int, target: str, need: list[Incoming]) -> None:
    """What is there of them already takes no more room."""
    disk = os.fstatvfs(drafts)
    free, wanted = disk.f_bavail * disk.f_frsize, sum(each.size for each in need)
    begun = {os.fsencode(name) for name in os.listdir(drafts)}
    for each in need if begun else ():
        if each.draft() in begun:
            wanted -= min(each.size, os.stat(each.draft(), dir_fd=drafts).st_blocks * 512)
    if wanted > free:
        largest = max(need, key=lambda each: each.size)
        raise Refused(
            "disk",
            "`%s` needs %s on %s, where %s are free (the largest file is `%s` with %s); ask for a larger "
            "`disk_size`, leave files out with `sync: {exclude: …}`, or use `mode: MOUNT`"
            % (target, _size(wanted), node, _size(free), largest.path or target, _size(largest.size)),
        )


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
        handing.say_ready(control)


def _one(fetch: Fetch, node_name: str, early: str) -> bool:
    try:
        fetch.run(early)
        return True
    except EOFError:
        pass
    except Refused as error:
        fetch.server.end(error.field, str(error))
    except Busy as error:
        fetch.server.end("transient", str(error))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        text = "disk full on " + node_name if full else "%s: %s" % (node_name, error.strerror or error)
        fetch.server.end("disk" if full else "transient", text)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        sys.stderr.write("argosy-agent: fetch: %s: %s\n" % (type(error).__name__, error))
        fetch.server.end("body", "%s: %s" % (type(error).__name__, error))
    return False
