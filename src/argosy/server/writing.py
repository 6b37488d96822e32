"""Writes of requests: once for each idempotency key, repeated after a conflict, with an event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from argosy.api.endpoint import Reply
from argosy.model.access import Caller
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.model.offer import Choice
from argosy.model.phases import ClaimPhase, Desired
from argosy.model.rows import Event, Row, Workload
from argosy.server.exchange import encode
from argosy.server.guarding import require_over
from argosy.server.naming import cluster_called
from argosy.server.ports import Controllers
from argosy.server.refusals import no_cluster
from argosy.store.errors import Conflict, KeyUsed
from argosy.store.snapshot import Snapshot
from argosy.store.store import Numbered, Store

T = TypeVar("T")
MANAGED: Final = "managed"  # scope of the numbers of managed jobs
_TRIES: Final = 24  # somebody else may write between our reading and our writing


class Batch(NamedTuple):
    """Rows that are to stand under fresh numbers."""

    scope: str
    size: int
    rows: Callable[[int], Sequence[Workload]]  # from the first number; pure
    secrets: Mapping[str, Mapping[str, str]] = MappingProxyType({})  # by id of the row
    expect: Mapping[str, int] = MappingProxyType({})  # other rows, with the revisions that must hold


class Writer:
    """Commits what requests ask for and wakes the controllers."""

    def __init__(self, *, store: Store, controllers: Controllers, clock: Clock) -> None:
        self._store, self._controllers, self._clock = store, controllers, clock
        # Who was in somebody's way once writes alone from then on, and newcomers stand behind.
        self._alone = asyncio.Lock()

    async def live_cluster(self, name: str, caller: Caller) -> Workload | None:
        """Raises `wrong-state` when it is being ended, `conflict` when several clusters are called so."""
        cluster = cluster_called(await self._store.snapshot(), name, caller)
        if cluster is not None and cluster.desired is Desired.END:
            raise ArgosyError(
                "wrong-state",
                f"cluster `{name}` is being taken down",
                hint="wait until `argosy status` does not list it, or choose another name",
            )
        return cluster

    async def cluster(self, name: str, caller: Caller, permission: str = "") -> Workload:
        """The live cluster that is meant, over which the caller has `permission` ("": the endpoint's). Raises
        `not-found`, `forbidden`, `wrong-state`, `conflict`."""
        cluster = await self.live_cluster(name, caller)
        if cluster is None:
            raise no_cluster(name, await self._store.snapshot(), caller)
        require_over(caller, cluster, permission)
        return cluster

    async def once(self, key: str, act: Callable[[], Awaitable[bytes]]) -> bytes:
        """`act`, or what it answered when the same key came before."""
        if key:
            known = await self._store.load_key(key)
            if known is not None:
                return known
        try:
            return await self.retried(act)
        except KeyUsed as used:
            return used.reply

    async def retried(self, act: Callable[[], Awaitable[T]]) -> T:
        """A conflict means: somebody else wrote, read again, this time while no other request writes.
        (Controllers and other servers may.)"""
        if not self._alone.locked():
            try:
                return await act()
            except Conflict:
                pass
        async with self._alone:
            for _ in range(_TRIES - 1):
                try:
                    return await act()
                except Conflict:
                    continue
            return await act()

    async def commit(
        self,
        batch: Batch,
        make: Callable[[Sequence[Workload]], tuple[Sequence[Row], Reply]],
        key: str,
        *,
        events: Sequence[Event] = (),
        wake: Sequence[str] = (),
    ) -> bytes:
        """Write rows under numbers that follow each other without a gap; what the request is answered.

        `make`: from the numbered rows to all that is written, and the answer; it may be called several times.
        Clusters of `wake`, on which the rows run, must not end under them.
        """
        made: list[tuple[Sequence[Row], bytes]] = []

        def number(first: int) -> tuple[Sequence[Row], bytes]:
            puts, reply = make(batch.rows(first))
            made[:] = [(puts, encode(reply))]
            return made[0]

        expect = dict(batch.expect)
        for cluster_id in wake:
            cluster = (await self._store.snapshot()).workloads.get(cluster_id)
            if cluster is None or cluster.desired is Desired.END:
                raise Conflict([cluster_id])
            expect[cluster_id] = cluster.rev
        await self._store.commit(
            expect=expect,
            events=events,
            secrets=batch.secrets,
            key=(key, b"") if key else None,
            numbered=Numbered(batch.scope, batch.size, number),
        )
        puts, body = made[0]
        # Jobs of a cluster are placed by the cluster: a thousand of them are one wake-up.
        self._controllers.wake(*wake, *(() if wake else (row.id for row in puts)))
        return body

    def event(self, subject: str, code: str, text: str) -> Event:
        return Event(at_ms=self._clock.now_ms(), subject=subject, code=code, text=text)


def choice_of(snapshot: Snapshot, cluster: Workload) -> Choice | None:
    """What the cluster has or was ordered; None: nothing yet."""
    for claim in snapshot.claims_of(cluster.id):
        if claim.phase is not ClaimPhase.RELEASING:
            return claim.choice
    return None
