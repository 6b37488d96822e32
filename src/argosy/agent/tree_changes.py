"""What an earlier tree left at a target becomes the next tree: only what differs is told, looked up and
written.

A change says from which tree it starts. It is done only where just that tree lies, with all of its files and
links as they were placed; else nothing is touched, and the whole tree has to be told. The look for that may
be made before the change is known (`look_ahead`), while others still find out what has changed.
"""

from __future__ import annotations

import os
import time

from argosy.agent.looks import as_recorded
from argosy.agent.orders import Refused
from argosy.agent.outside import is_below, write_json
from argosy.agent.placing import Entry, Placing, refuse_contradictions
from argosy.agent.targets import Known, Targets, stamp_of
from argosy.agent.trees import Trees, seal, unseal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_S = 60.0  # so long what was seen ahead of a change is kept


class _Look:
    """What lies at a path, when all of it is as it was placed."""

    __slots__ = ("at_s", "known", "path", "record", "stamp")

    def __init__(self, path: str, record: str, known: Known) -> None:
        self.path, self.record, self.known = path, record, known
        self.stamp = _stamp(record)
        self.at_s = time.monotonic()

    def is_current(self, path: str) -> bool:
        is_young = time.monotonic() - self.at_s < LOOK_S
        return path == self.path and is_young and self.stamp == _stamp(self.record)


class TreeChanges:
    """Changes of the trees of one node. Not for two threads at once."""

    def __init__(self, trees: Trees, targets: Targets) -> None:
        self._trees, self._targets = trees, targets
        self._look: _Look | None = None

    def lying(self, target: str) -> str:
        """The digest of the tree that was placed there last; "" when it cannot be changed."""
        try:
            path = self._targets.resolve(target)
        except Refused:
            return ""
        if not is_below(path, self._targets.home):
            return ""  # nodes share it: a change would need all of them
        look = self._look
        known = look.known if look and look.is_current(path) else Known(self._targets.record_path(path))
        return known.digest if known.base == path and "" not in known.files else ""

    def look_ahead(self, target: str) -> None:
        """Look at what lies there, for the change that follows within `LOOK_S`."""
        try:
            path = self._targets.resolve(target)
        except Refused:
            return
        if self._look is None or not self._look.is_current(path):
            self._look = self._seen(path)

    def forget(self) -> None:
        """Give back the memory of a look that nobody needed."""
        if self._look is not None and time.monotonic() - self._look.at_s >= LOOK_S:
            self._look = None

    def _seen(self, path: str) -> _Look | None:
        record = self._targets.record_path(path)
        if not is_below(path, self._targets.home):
            return None
        look = _Look(path, record, Known(record))
        known = look.known
        if known.base != path or not known.digest or "" in known.files or not os.path.isdir(path):
            return None
        if len(as_recorded(path, known.files)) != len(known.files):
            return None
        for link, leads_to in known.links.items():
            try:
                if os.readlink(path + "/" + link) != leads_to:
                    return None
            except OSError:
                return None
        return look

    def change(self, order: dict[str, object]) -> Callable[[], None] | None:
        """Make the change; None when something else lies there. What is returned writes down what lies there
        now, and must be called before anything else is done here. Raises Refused, Busy when a chunk is
        missing, OSError."""
        target, since, digest = order.get("target"), order.get("since"), order.get("digest")
        told, removed, folders = order.get("entries"), order.get("removed"), order.get("folders")
        if not isinstance(target, str) or not isinstance(since, str) or not isinstance(digest, str):
            raise Refused("tree", "`target`, `since` and `digest` must be text")
        if not isinstance(told, list) or not _are_paths(removed) or not _are_paths(folders):
            raise Refused("tree", "`entries`, `removed` and `folders` must be lists")
        entries = sorted((Entry(item) for item in told), key=lambda entry: entry.parts)
        refuse_contradictions(entries)
        path = self._targets.resolve(target)
        look, self._look = self._look, None
        if look is None or not look.is_current(path):
            look = self._seen(path)
        if look is None or not since or look.known.digest != since:
            return None
        return self._changed(look, target, entries, (removed, folders), digest)  # type: ignore[arg-type]

    def _changed(
        self, look: _Look, target: str, entries: list[Entry], gone: tuple[list[str], list[str]], digest: str
    ) -> Callable[[], None]:
        removed, folders = gone
        known, record = look.known, look.record
        placing = Placing(self._trees, known, target)
        new = placing.new
        new.base, new.files, new.links = known.base, dict(known.files), dict(known.links)
        unseal(record)
        try:
            placing.open(known.base)
            try:
                placing.make_way(entries)
                for entry in entries:
                    other = new.links if entry.kind == "f" else new.files
                    other.pop(entry.path, None)
                    if entry.kind == "d":
                        new.links.pop(entry.path, None)
                    placing.place_one(entry)
                placing.remove(
                    [path for path in removed if path in known.files or path in known.links], folders
                )
                placing.close_folders()
            finally:
                placing.close()
        except BaseException:
            write_json(record, {**vars(new), "digest": "", "folders": known.folders})
            raise
        named = {entry.path for entry in entries}
        for path in removed:
            if path not in named:
                new.files.pop(path, None)
                new.links.pop(path, None)
        new.folders = sorted(set(known.folders).difference(folders).union(_above(entries)))
        new.digest = digest

        def write_down() -> None:
            write_json(record, vars(new))
            seal(record, new)
            self._look = _Look(look.path, record, new)
            self._trees.tidy({chunk for entry in entries for chunk in entry.chunks})

        return write_down


def _above(entries: list[Entry]) -> set[str]:
    folders = {entry.path for entry in entries if entry.kind == "d"}
    for entry in entries:
        pieces = entry.path.split("/")
        folders.update("/".join(pieces[:count]) for count in range(1, len(pieces)))
    return folders


def _are_paths(paths: object) -> bool:
    return isinstance(paths, list) and all(isinstance(path, str) for path in paths)


def _stamp(record: str) -> list[object] | None:
    try:
        return stamp_of(os.stat(record))
    except OSError:
        return None
