"""The server that keeps the servers' own files, among several: the first that had some."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from argosy.infra.agent_port import Channel
from argosy.infra.border import Unreachable
from argosy.model.errors import ArgosyError
from argosy.server.keeping import Keeping, has_files
from argosy.server.peers.calls import Calls
from argosy.server.peers.membership import Membership
from argosy.server.peers.words import PassOn
from argosy.store.servers import FILES, Servers

_log: Final = logging.getLogger(__name__)
_ALWAYS_MS: Final = 100 * 365 * 86_400_000


class SharedKeeping(Keeping):
    """`open` first."""

    def __init__(self, servers: Servers, membership: Membership, calls: Calls, state_dir: Path) -> None:
        self._servers, self._membership, self._calls = servers, membership, calls
        self._state_dir = state_dir
        self.is_here = False

    async def open(self) -> None:
        """A server that has files keeps them, unless another does."""
        has = has_files(self._state_dir)
        keeper = await self._servers.holder(FILES)
        if has or keeper == self._membership.me.id:
            await self.settled()
        if has and not self.is_here:
            _log.warning(
                "buckets and folders in %s are not seen: the server `%s` keeps those of this database",
                self._state_dir,
                self._name_of(keeper),
            )

    async def settled(self) -> bool:
        if not self.is_here:
            self.is_here = await self._servers.take(FILES, self._membership.me.id, _ALWAYS_MS) > 0
        return self.is_here

    async def reach(self, door: str, address: str) -> Channel:
        keeper = await self._servers.holder(FILES)
        seen = self._membership.seen(keeper)
        try:
            if seen is None or seen.peer not in self._calls.others:
                raise Unreachable("it is not there")
            _, channel = await self._calls.ask(seen.peer, PassOn(door=door, address=address))
        except Unreachable as error:
            name = self._name_of(keeper)
            raise ArgosyError(
                "transient",
                f"this is on the disk of the server `{name}`, which keeps buckets and folders: {error}",
                hint=f"start it again; if it never comes back, `argosy server peers --forget {name}`",
            ) from None
        return channel

    def _name_of(self, id: str) -> str:
        seen = self._membership.seen(id)
        return seen.peer.name if seen is not None else id
