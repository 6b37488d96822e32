"""Keys of what is mounted on nodes, renewed before they end, for as long as it may be used.

Expiry times are not stored: after a restart the server renews the keys of everything that runs at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, NamedTuple

from argosy.controllers.folder_links import Mounted
from argosy.controllers.mount_kinds import MountKinds
from argosy.controllers.view import Rows
from argosy.infra.agent_port import AgentDirectory, MountOrder
from argosy.infra.border import BorderError
from argosy.infra.buckets import BucketError, MountKeys
from argosy.model.ids import Clock
from argosy.model.kinds import task_of
from argosy.model.mounts import is_mounted, storage_of
from argosy.model.phases import AttemptPhase, NodePhase
from argosy.model.rows import Workload

_log = logging.getLogger(__name__)

_LOOK_S: Final = 20.0
_LAST_S: Final = 300.0  # when keys that could not be renewed end this soon, people are told
_FOREVER_S: Final = float("inf")


class _Due(NamedTuple):
    what: Mounted
    at_s: float  # when new keys are to be had, as Unix time
    ends_s: float


Orders = Callable[[Mounted], Awaitable[tuple[MountOrder, MountKeys]]]
Tells = Callable[[Workload, str], Awaitable[None]]


class KeyRenewals:
    """Of one server. `orders`: makes an order with new keys; `tells`: a text for those who look at a job."""

    def __init__(
        self,
        agents: AgentDirectory,
        clock: Clock,
        orders: Orders,
        tells: Tells,
        kinds: MountKinds,
        close: Callable[[], None],
    ) -> None:
        self._agents, self._clock, self._orders, self._tells = agents, clock, orders, tells
        self._kinds, self._close = kinds, close
        self._due: dict[tuple[str, str], _Due] = {}  # by node and target
        self._told: set[tuple[str, str]] = set()  # whose end people were told

    def note(self, what: Mounted, keys: MountKeys) -> None:
        """It has these keys now. New ones are made when half of their time is over."""
        now_s = self._clock.now_ms() / 1000
        ends_s = keys.expires_s or _FOREVER_S
        at_s = now_s + max(0.0, ends_s - now_s) / 2 if keys.expires_s else _FOREVER_S
        self._due[_key(what)] = _Due(what, at_s, ends_s)
        self._told.discard(_key(what))

    async def keep_fresh(self, rows: Callable[[], Rows | None]) -> None:
        """Until cancelled."""
        try:
            while True:
                await asyncio.sleep(_LOOK_S)
                known = rows()
                if known is not None:
                    await self.renew(known)
        finally:
            self._close()

    async def renew(self, rows: Rows) -> None:
        """Renew what is due; forget what is mounted no longer."""
        for what in self._in_use(rows):
            self._due.setdefault(_key(what), _Due(what, 0.0, _FOREVER_S))
        now_s = self._clock.now_ms() / 1000
        running = {attempt.workload_id for attempt in rows.attempts.values()}
        for key, due in list(self._due.items()):
            node = rows.nodes.get(due.what.node.id)
            stays = due.what.job.host_id is not None or due.what.job.id in running
            if node is None or node.phase in (NodePhase.GONE, NodePhase.STOPPED) or not stays:
                del self._due[key]
                self._kinds.of(due.what.mount).drop(key)
                self._told.discard(key)
            elif not self._kinds.of(due.what.mount).hold(due.what) and due.at_s <= now_s:
                await self._renew(due, now_s)

    async def _renew(self, due: _Due, now_s: float) -> None:
        what = due.what
        why = "somebody is in the folder, and its store needs a new mount for new keys"
        try:
            order, keys = await self._orders(what)
            if not keys.expires_s:
                self.note(what, keys)
                return
            agent = await self._agents.get(what.node)
            if await agent.mount(order):
                self.note(what, keys)
                return
        except (BorderError, BucketError, OSError) as error:
            why = str(error)
        _log.info("keys of %s on %s are not renewed now: %s", what.mount.target, what.node.id, why)
        if due.ends_s - now_s < _LAST_S and _key(what) not in self._told:
            self._told.add(_key(what))
            await self._tells(
                what.job, f"the keys of {what.mount.target} end soon and are not renewed: {why}"
            )

    def _in_use(self, rows: Rows) -> Iterator[Mounted]:
        """What attempts that run have mounted."""
        for attempt in rows.attempts.values():
            job = rows.workloads.get(attempt.workload_id)
            task = task_of(job) if job is not None else None
            if (
                job is None
                or task is None
                or attempt.phase not in (AttemptPhase.RUNNING, AttemptPhase.ENDING)
            ):
                continue
            for mount in storage_of(task):
                used = attempt.phase is AttemptPhase.RUNNING or self._kinds.of(mount).lasts
                for place in attempt.placements if used and is_mounted(mount) else ():
                    if (node := rows.nodes.get(place.node_id)) is not None:
                        yield Mounted(job, node, mount)


def _key(what: Mounted) -> tuple[str, str]:
    return what.node.id, what.mount.target
