"""What AWS lists of ours, by region. Regions with claims are asked every time; all that the account may use,
by the first look and now and then: what others left there is found, too."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from argosy.infra import border
from argosy.infra.machine_notes import Notes
from argosy.model.ids import Clock
from argosy.providers.aws.account import Account
from argosy.providers.aws.orders import Order
from argosy.providers.aws.states import CLAIM, Machine, by_claim, in_order, machines_of

SWEEP_S: Final = 1800.0  # all regions at least so often
STALE_S: Final = 300.0  # a region that does not answer is taken as it was so long
_IDS_AT_ONCE: Final = 200  # values of one filter


class Listing:
    def __init__(self, account: Account, orders: Notes[Order], clock: Clock) -> None:
        self._account, self._orders, self._clock = account, orders, clock
        self._swept_s: float | None = None
        self._last: dict[str, tuple[float, list[Machine]]] = {}  # region -> whole listings
        self._seen: dict[str, tuple[Machine, ...]] = {}  # claim -> as it was listed last

    async def machines(self, claim_ids: Sequence[str]) -> list[Machine]:
        """All of ours, or those of some claims. Raises a border error when a region with claims cannot be
        asked and nothing is known of it."""
        regions = await (self._where(claim_ids) if claim_ids else self._all())
        found = await asyncio.gather(*(self._ask(region, claim_ids) for region in sorted(regions)))
        machines = [each for listed in found for each in listed]
        self._remember(machines, claim_ids or list(self._seen))
        return machines

    async def everywhere(self) -> list[Machine]:
        """All of ours and of other servers, in every region that may be used."""
        regions = sorted(await self._account.enabled_regions())
        found = await asyncio.gather(*(self._ask(region, ()) for region in regions))
        return [each for listed in found for each in listed]

    async def of_claim(self, region: str, claim_id: str) -> list[Machine]:
        """In order. Raises a border error."""
        machines = in_order(await self._ask(region, [claim_id]))
        self._remember(machines, [claim_id])
        return machines

    async def machine(self, region: str, id: str) -> Machine | None:
        """One of ours by its id, as it was listed last; asked for when it is not known."""
        for group in self._seen.values():
            for each in group:
                if each.id == id and each.state == "running":
                    return each
        fine = ("InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed")
        answer = await self._account.call("ec2", region, "describe_instances", fine=fine, InstanceIds=[id])
        found = machines_of(region, answer["Reservations"] if answer is not None else ())
        self._remember(found, [])
        return found[0] if found else None

    def last(self, claim_id: str) -> Sequence[Machine]:
        return self._seen.get(claim_id, ())

    def forget(self, claim_id: str) -> None:
        self._seen.pop(claim_id, None)

    def _remember(self, machines: Sequence[Machine], claim_ids: Sequence[str]) -> None:
        groups = by_claim(machines)
        for claim_id in claim_ids:
            self._seen.pop(claim_id, None)
        self._seen.update({claim_id: tuple(group) for claim_id, group in groups.items()})

    async def _where(self, claim_ids: Sequence[str]) -> set[str]:
        regions = set()
        for claim_id in claim_ids:
            order, seen = self._orders.load(claim_id), self._seen.get(claim_id)
            if order is not None:
                regions.add(order.region)
            elif seen:
                regions.add(seen[0].region)
            else:
                return set(await self._account.enabled_regions())
        return regions

    async def _all(self) -> set[str]:
        now_s = self._clock.monotonic_s()
        if self._swept_s is None or now_s - self._swept_s > SWEEP_S:
            regions = set(await self._account.enabled_regions())
            self._swept_s = now_s
            return regions | {order.region for order in self._orders.all()}
        with_some = {region for region, (_, listed) in self._last.items() if listed}
        return with_some | {order.region for order in self._orders.all()}

    async def _ask(self, region: str, claim_ids: Sequence[str]) -> list[Machine]:
        now_s = self._clock.monotonic_s()
        if not claim_ids:
            filters = [{"Name": "tag-key", "Values": [CLAIM]}]
            try:
                listed = machines_of(region, await self._describe(region, filters))
            except border.Transient:
                at_s, old = self._last.get(region, (0.0, []))
                if region not in self._last or now_s - at_s > STALE_S:
                    self._swept_s = None
                    raise
                return old
            self._last[region] = (now_s, listed)
            return listed
        found: list[Machine] = []
        for at in range(0, len(claim_ids), _IDS_AT_ONCE):
            some = list(claim_ids[at : at + _IDS_AT_ONCE])
            found += machines_of(
                region, await self._describe(region, [{"Name": f"tag:{CLAIM}", "Values": some}])
            )
        return found

    async def _describe(self, region: str, filters: list[dict[str, Any]]) -> list[Any]:
        return await self._account.pages(
            "ec2", region, "describe_instances", "Reservations", Filters=filters, MaxResults=1000
        )
