"""Sizes of folders, counted again every minute where bytes may change without passing through the server.

What comes through the server is known at once. What programs write on a volume itself is not: a folder with
a quota, or on a volume that nodes see, is counted again after a minute, and later where counting takes long.
"""

from __future__ import annotations

import logging
from typing import Final

from argosy.model.errors import ArgosyError
from argosy.model.folders import Folder
from argosy.model.ids import Clock
from argosy.server.folders import Folders
from argosy.server.keeping import Elsewhere
from argosy.store.store import Store

_log: Final = logging.getLogger(__name__)
_EVERY_S: Final = 40.0  # it is looked at every 15 s: a change is seen within a minute
_REST: Final = 10  # at most a part in so many of the time is spent on counting one folder


class FolderCounting:
    def __init__(self, folders: Folders, store: Store, clock: Clock) -> None:
        self._folders, self._store, self._clock = folders, store, clock
        self._due_s: dict[str, float] = {}  # by folder; since this server runs

    async def look(self) -> None:
        """Count what is due, one after another."""
        seen = {each.name: bool(each.node_path) for each in await self._folders.volumes.all()}
        rows = (await self._store.snapshot()).people.values()
        wanted = [row for row in rows if isinstance(row, Folder) and _may_change(row, seen)]
        self._due_s = {row.id: self._due_s.get(row.id, 0.0) for row in wanted}
        for row in wanted:
            began_s = self._clock.monotonic_s()
            if began_s < self._due_s[row.id]:
                continue
            try:
                await self._folders.count(row)
            except Elsewhere:
                pass  # whoever has it counts it
            except (ArgosyError, OSError) as error:
                _log.warning("folder %s is counted later: %s", row.id, error)
            now_s = self._clock.monotonic_s()
            self._due_s[row.id] = now_s + max(_EVERY_S, _REST * (now_s - began_s))


def _may_change(folder: Folder, seen: dict[str, bool]) -> bool:
    return not folder.trashed_ms and (bool(folder.quota_bytes) or seen.get(folder.volume, False))
