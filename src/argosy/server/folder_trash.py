"""The trash of folders: which workloads still need a folder that is to be trashed, and which folders are
deleted for good.

A folder that goes for good is marked first. Its bytes go, then its row: what a crash left is taken up by the
next sweep, and nobody can restore a part of a folder.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import msgspec

from argosy.model import folders as rules
from argosy.model.access import Caller
from argosy.model.errors import ArgosyError
from argosy.model.folders import Access, Folder
from argosy.model.ids import Clock
from argosy.model.kinds import programs_of, title
from argosy.server.folders import Folders
from argosy.server.keeping import Elsewhere
from argosy.store.errors import Conflict
from argosy.store.store import Store

_PATIENCE_S: Final = 5.0  # so long a request waits for what it removes
_log: Final = logging.getLogger(__name__)


class FolderTrash:
    def __init__(self, folders: Folders, store: Store, clock: Clock) -> None:
        self._folders, self._store, self._clock = folders, store, clock
        self._purging: set[asyncio.Future[bool]] = set()

    async def holders(self, folder: Folder) -> list[str]:
        """What runs, or waits to run, with the folder itself: `job 3 of ann`."""
        rows = await self._store.snapshot()
        return [
            f"{title(row)} of {row.user}" if row.user else title(row)
            for row in rows.workloads.values()
            for task in programs_of(row)
            if any((each.is_linked or each.is_served) and each.folder == folder.id for each in task.volumes)
        ]

    async def purge(self, caller: Caller, name: str) -> Folder:
        """For good. What takes long goes on after the answer, gently. Raises "conflict" for what is not in
        the trash, "transient" for what could not be removed whole."""
        folder = await self._folders.find(caller, name, Access.MANAGE)
        await self._folders.disk(folder)  # it is here
        purging = asyncio.ensure_future(self._purge(rules.going(folder)))
        self._purging.add(purging)
        purging.add_done_callback(self._purging.discard)
        done, _ = await asyncio.wait({purging}, timeout=_PATIENCE_S)
        if done and not purging.result():
            raise ArgosyError(
                "transient",
                f"not all of `{folder.name}` could be removed",
                hint="the server tries again once a day; its log says why",
            )
        return folder

    async def sweep(self) -> int:
        """Purge what has been in the trash for its time, and what an earlier purge left; how many."""
        now_ms, gone = self._clock.now_ms(), 0
        for row in list((await self._store.snapshot()).people.values()):
            if not isinstance(row, Folder) or not (row.is_going or rules.is_over(row, now_ms)):
                continue
            try:
                disk = await self._folders.disk(row)
                if not row.is_going and not await asyncio.to_thread(disk.has, row.id):
                    _log.warning(
                        "the volume `%s` does not have %s: it stays in the trash", row.volume, row.id
                    )
                    continue
                gone += await self._purge(rules.going(row))
            except Elsewhere:
                pass  # whoever has it purges it
            except (ArgosyError, OSError, Conflict) as error:
                _log.warning("folder %s is purged later: %s", row.id, error)
        return gone

    async def _purge(self, marked: Folder) -> bool:
        """Whether all of it is gone."""
        [written] = await self._store.commit([marked])
        disk = await self._folders.disk(marked)
        await asyncio.to_thread(disk.trash, marked.id)
        if not await asyncio.to_thread(disk.purge, marked.id):
            _log.warning("not all of folder %s could be removed: it is tried again", marked.id)
            return False
        await self._store.commit([msgspec.structs.replace(written, removed_ms=self._clock.now_ms())])
        _log.info("folder %s left the trash for good", marked.id)
        return True
