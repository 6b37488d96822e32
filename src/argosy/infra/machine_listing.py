"""What a cloud lists of ours. Regions with claims are asked every time; all of them by the first look and now
and then: what others left there is found, too."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from argosy.infra import border
from argosy.infra.machine_notes import Notes
from argosy.infra.machine_vendor import Vendor
from argosy.infra.machines import Machine, Note, by_claim
from argosy.model.ids import Clock

SWEEP_S: Final = 1800.0  # all regions at least so often
STALE_S: Final = 300.0  # a region that does not answer is taken as it was so long


class MachineListing:
    def __init__(self, vendor: Vendor, notes: Notes[Note], clock: Clock) -> None:
        self._vendor, self._notes, self._clock = vendor, notes, clock
        self._swept_s: float | None = None
        self._last: dict[str, tuple[float, list[Machine]]] = {}  # region -> its listing
        self._seen: dict[str, tuple[Machine, ...]] = {}  # claim -> as it was listed last
        self._going: dict[str, asyncio.Task[list[Machine]]] = {}  # by region

    async def machines(self, claim_ids: Sequence[str]) -> list[Machine]:
        """All of ours, or those of some claims. Raises a border error when a region with claims cannot be
        asked and nothing is known of it."""
        regions = await (self._where(claim_ids) if claim_ids else self._all())
        found = await asyncio.gather(*(self._look(region, stale=not claim_ids) for region in sorted(regions)))
        machines = [
            each for listed in found for each in listed if not claim_ids or each.claim_id in claim_ids
        ]
        self._remember(machines, claim_ids or list(self._seen))
        return machines

    async def everywhere(self) -> list[Machine]:
        """All with a mark, in every region that may be used."""
        found = await asyncio.gather(*(self._ask(region) for region in sorted(await self._regions())))
        return [each for listed in found for each in listed]

    async def of_claim(self, region: str, claim_id: str) -> list[Machine]:
        """In order of the nodes. Raises a border error."""
        place = region if self._vendor.by_region else ""
        machines = by_claim(each for each in await self._ask(place) if each.claim_id == claim_id)
        self._remember(machines.get(claim_id, ()), [claim_id])
        return machines.get(claim_id, [])

    async def machine(self, claim_id: str, address: str) -> Machine | None:
        """One of a claim's machines, as it was listed last; asked for when it is not known."""
        for fresh in (False, True):
            if fresh:
                region = address.partition("/")[0]
                await self.of_claim(region, claim_id)
            for each in self._seen.get(claim_id, ()):
                if each.address == address and each.host:
                    return each
        return None

    def last(self, claim_id: str) -> Sequence[Machine]:
        return self._seen.get(claim_id, ())

    def forget(self, claim_id: str) -> None:
        """Something was done to its machines: what was listed before holds no longer."""
        self._seen.pop(claim_id, None)
        self._going.clear()
        self._last = {region: (-1e9, listed) for region, (_, listed) in self._last.items()}

    def _remember(self, machines: Sequence[Machine], claim_ids: Sequence[str]) -> None:
        for claim_id in claim_ids:
            self._seen.pop(claim_id, None)
        self._seen.update({claim_id: tuple(group) for claim_id, group in by_claim(machines).items()})

    async def _regions(self) -> set[str]:
        return set(await self._vendor.regions()) if self._vendor.by_region else {""}

    async def _where(self, claim_ids: Sequence[str]) -> set[str]:
        if not self._vendor.by_region:
            return {""}
        regions = set()
        for claim_id in claim_ids:
            note, seen = self._notes.load(claim_id), self._seen.get(claim_id)
            if note is not None:
                regions.add(note.region)
            elif seen:
                regions.add(seen[0].region)
            else:
                return await self._regions()
        return regions

    async def _all(self) -> set[str]:
        if not self._vendor.by_region:
            return {""}
        now_s = self._clock.monotonic_s()
        noted = {note.region for note in self._notes.all()}
        if self._swept_s is None or now_s - self._swept_s > SWEEP_S:
            regions = await self._regions()
            self._swept_s = now_s
            return regions | noted
        return {region for region, (_, listed) in self._last.items() if listed} | noted

    async def _look(self, region: str, *, stale: bool) -> list[Machine]:
        """As `_ask`, with what somebody else asks at this moment, or asked a moment ago. `stale`: a short
        silence is bridged by what was listed before."""
        at_s, old = self._last.get(region, (0.0, []))
        age_s = self._clock.monotonic_s() - at_s
        if region in self._last and age_s < self._vendor.fresh_s:
            return old
        going = self._going.get(region)
        if going is None or going.done():
            going = self._going[region] = asyncio.get_running_loop().create_task(self._ask(region))
            going.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            return await asyncio.shield(going)
        except border.Transient:
            if not stale or region not in self._last or age_s > STALE_S:
                self._swept_s = None
                raise
            return old

    async def _ask(self, region: str) -> list[Machine]:
        listed = list(await self._vendor.listed(region))
        self._last[region] = (self._clock.monotonic_s(), listed)
        return listed
