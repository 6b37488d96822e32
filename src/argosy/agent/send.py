"""Files of a node go to an object store: a process of its own, which an agent starts for one copy.

What it says and is told comes over the socket at handle 3 (`argosy.infra.agent_sending` is the other end):

    to us    {"path", "changes": only what is not as it was fetched}
    from us  {"count", "single", "removed", "reshaped"}, then `count` lines [path, size], of changes also
             what it was, and its mode (-1: as it was told, or not known); then `removed` lines [path, what it
             was]; then `reshaped` lines [path, where it leads as a link, mode, what it was, its mode then]
    to us    {"put": index, "href": address, "headers"} | {"give": index}
    from us  {"done": index} | {"failed": index, "status", "why"} | {"changed": index}
             after give: {"data": index, "size"} and so many bytes, again and again, then {"done" | "changed"}
    to us    {"end": true}

At any time it may say {"error": field, "text"} and end. Links are not followed.
"""

from __future__ import annotations

import errno
import json
import os
import queue
import socket
import stat
import sys
import threading

from argosy.agent import shapes
from argosy.agent.download import Failed, StoreClient
from argosy.agent.fetch import HANDLE
from argosy.agent.looks import etag_of, read_journal
from argosy.agent.orders import Refused
from argosy.agent.taking import WORKERS
from argosy.agent.targets import Known, Targets, is_as_recorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FILES_MAX = 1000000
_PIECE_BYTES = 1 << 20
_READS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Send:
    """One run."""

    def __init__(self, stream: socket.socket, targets: Targets) -> None:
        self._stream, self._targets = stream, targets
        self._source = stream.makefile("rb")
        self._sending = threading.Lock()
        self._work: queue.SimpleQueue[tuple[int, str, dict[str, str]]] = queue.SimpleQueue()
        self._files: list[tuple[str, int]] = []

    def run(self) -> None:
        """Raises Refused, OSError, and EOFError when the server has gone."""
        order = self._line()
        base = self._targets.resolve(str(order["path"]))
        single = os.path.isfile(base) and not os.path.islink(base)
        self._base = base
        rows: list[tuple[object, ...]] = []
        removed: list[tuple[str, str]] = []
        reshaped: list[tuple[object, ...]] = []
        if order.get("changes"):
            rows, removed, reshaped = self._changes(base)
            self._files = [(str(row[0]), int(str(row[1]))) for row in rows]
        else:
            self._files = [("", os.path.getsize(base))] if single else list(_files_below(base))
            rows = [*self._files]
        if len(self._files) > _FILES_MAX:
            raise Refused("path", "more than %d files lie there" % _FILES_MAX)
        lines = "".join(json.dumps(row) + "\n" for row in [*rows, *removed, *reshaped])
        head = {"count": len(rows), "single": single, "removed": len(removed), "reshaped": len(reshaped)}
        self._stream.sendall((json.dumps(head) + "\n" + lines).encode())
        started = False
        while True:
            order = self._line()
            if "put" in order:
                if not started:
                    for _ in range(WORKERS):
                        threading.Thread(target=self._work_on, daemon=True).start()
                    started = True
                self._work.put((order["put"], order["href"], order.get("headers", {})))
            elif "give" in order:
                self._give(order["give"])
            elif order.get("end"):
                return

    def _changes(
        self, base: str
    ) -> tuple[list[tuple[object, ...]], list[tuple[str, str]], list[tuple[object, ...]]]:
        """Files that are not as they were fetched, with what they were, those that are no more, and what has
        other modes or became a link. Nothing of a place that was not fetched, or is a mount."""
        record = self._targets.record_path(base)
        known = Known(record)
        if known.base != base:
            known = Known()
        read_journal(record, base, known)
        if known.base != base or os.path.ismount(base):
            return [], [], []
        shape = shapes.noted(record, base)
        rows: list[tuple[object, ...]] = []
        reshaped: list[tuple[object, ...]] = []
        for path, size in _files_below(base):
            if path.startswith(".argosy-"):
                continue  # parts of what was not fetched to its end
            old, mode, was = known.files.get(path), shapes.mode_at(os.path.join(base, path)), shapes.UNTOLD
            if old is not None:
                was = shape.mode_of(path)
            if old is None or not is_as_recorded(os.path.join(base, path), old):
                link = shapes.LINK + shape.links[path] if path in shape.links else ""
                rows.append((path, size, (etag_of(old) or "") if old else link, mode if mode != was else -1))
            elif shapes.UNTOLD not in (was, mode) and mode != was:
                reshaped.append((path, "", mode, etag_of(old) or "", was))
        links = shapes.links_below(base)
        for path, target in links.items():
            if shape.links.get(path) != target:
                replaced = known.files.get(path)
                old_link = shapes.LINK + shape.links[path] if path in shape.links else ""
                reshaped.append((path, target, -1, (etag_of(replaced) or "") if replaced else old_link, -1))
        removed = [
            (path, etag_of(old) or "")
            for path, old in known.files.items()
            if not os.path.lexists(os.path.join(base, path))
        ]
        removed += [
            (path, shapes.LINK + target)
            for path, target in shape.links.items()
            if not os.path.lexists(os.path.join(base, path))
        ]
        return rows, removed, reshaped

    def _open(self, index: int) -> int:
        path = self._files[index][0]
        return os.open(os.path.join(self._base, path) if path else self._base, _READS)

    def _work_on(self) -> None:
        client = StoreClient()
        while True:
            index, href, headers = self._work.get()
            try:
                self._say(self._put(client, index, href, headers))
            except OSError as error:
                self._say({"failed": index, "status": -1, "why": error.strerror or type(error).__name__})

    def _put(self, client: StoreClient, index: int, href: str, headers: dict[str, str]) -> dict[str, object]:
        handle = self._open(index)
        try:
            for _ in range(2):
                before = os.fstat(handle)
                if before.st_size != self._files[index][1]:
                    return {"changed": index}
                try:
                    client.put(href, handle, before.st_size, headers)
                except Failed as error:
                    if not _is_same(before, os.fstat(handle)):
                        continue
                    return {"failed": index, "status": error.status, "why": str(error)}
                if _is_same(before, os.fstat(handle)):
                    return {"done": index}
            return {"changed": index}
        finally:
            os.close(handle)

    def _give(self, index: int) -> None:
        try:
            handle = self._open(index)
        except OSError as error:
            self._say({"failed": index, "status": -1, "why": error.strerror or type(error).__name__})
            return
        try:
            before, left = os.fstat(handle), self._files[index][1]
            while left:
                piece = os.read(handle, min(_PIECE_BYTES, left))
                if not piece:
                    break
                left -= len(piece)
                with self._sending:
                    self._stream.sendall(json.dumps({"data": index, "size": len(piece)}).encode() + b"\n")
                    self._stream.sendall(piece)
            is_whole = not left and before.st_size == self._files[index][1]
            same = is_whole and _is_same(before, os.fstat(handle))
            self._say({"done" if same else "changed": index})
        finally:
            os.close(handle)

    def _line(self) -> Any:  # Any: JSON
        line = self._source.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return json.loads(line)

    def _say(self, what: dict[str, object]) -> None:
        with self._sending:
            self._stream.sendall(json.dumps(what).encode() + b"\n")


def _files_below(base: str) -> list[tuple[str, int]]:
    found = []
    for folder, names, files in os.walk(base):
        names.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)
            info = os.lstat(path)
            if stat.S_ISREG(info.st_mode):
                relative = os.path.relpath(path, base)
                try:
                    relative.encode("utf-8")
                except UnicodeEncodeError:
                    raise Refused("path", "%r has a name that is not text; rename it" % relative) from None
                found.append((relative, info.st_size))
    return found


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def run(root: str, home: str, node_name: str) -> int:
    """The life of this process. Exit status: 0 done, 1 it said what was wrong."""
    send = Send(socket.socket(fileno=HANDLE), Targets(root, home, node_name))
    said: dict[str, object]
    try:
        send.run()
        return 0
    except (EOFError, BrokenPipeError, ConnectionError):
        return 1
    except Refused as error:
        said = {"error": error.field, "text": str(error)}
    except OSError as error:
        said = {"error": "transient", "text": "%s: %s" % (node_name, error.strerror or errno.errorcode)}
    except (KeyError, ValueError, TypeError, IndexError) as error:
        sys.stderr.write("argosy-agent: send: %s: %s\n" % (type(error).__name__, error))
        said = {"error": "body", "text": "%s: %s" % (type(error).__name__, error)}
    try:
        send._say(said)
    except OSError:
        pass
    return 1
