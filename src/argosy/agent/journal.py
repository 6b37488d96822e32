"""The journal of starts: which ranks have been started here, and which must never start (again).

A rank's program waits behind a gate until its line is on the disk, so whatever kills the agent, or the
machine, its successor knows about every program that ran.
"""

from __future__ import annotations

import os

STARTED = "s"  # its program may have run
SPENT = "f"  # forgotten by the server: an order for it that comes late is ignored
NOT_STARTED = "u"  # takes STARTED back: the agent was killed before the gate was opened

KEPT_MAX = 5000  # the newest ones


class Journal:
    """Append-only, one line per event; compacted when it is loaded."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.started: dict[str, None] = {}
        self.spent: dict[str, None] = {}
        lines = self._load()
        if len(lines) > 2 * KEPT_MAX:
            self._compact()
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _load(self) -> list[str]:
        try:
            with open(self._path, encoding="ascii", errors="replace") as file:
                lines = file.read().split("\n")
        except OSError:
            return []
        for line in lines[:-1]:  # what was cut off in mid-line had not been promised
            self._apply(line[:1], line[2:])
        return lines

    def _apply(self, kind: str, rank_id: str) -> None:
        if kind == STARTED:
            self.started[rank_id] = None
        elif kind == SPENT:
            self.started.pop(rank_id, None)
            self.spent[rank_id] = None
            if len(self.spent) > KEPT_MAX:
                del self.spent[next(iter(self.spent))]
        elif kind == NOT_STARTED:
            self.started.pop(rank_id, None)

    def _compact(self) -> None:
        temporary = self._path + ".new"
        with open(temporary, "w", encoding="ascii") as file:
            for kind, ids in ((SPENT, self.spent), (STARTED, self.started)):
                file.writelines("%s %s\n" % (kind, rank_id) for rank_id in ids)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)

    def note(self, kind: str, ids: list[str]) -> None:
        """Append, and remember. Raises OSError."""
        for rank_id in ids:
            self._apply(kind, rank_id)
        data = "".join("%s %s\n" % (kind, rank_id) for rank_id in ids).encode("ascii")
        if os.write(self._handle, data) != len(data):
            raise OSError(28, os.strerror(28))  # ENOSPC

    def flush(self) -> None:
        """To the disk itself; may take long, so it is called in a thread. Raises OSError."""
        os.fdatasync(self._handle)
