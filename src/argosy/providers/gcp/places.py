"""In which zones a type of machine is, and a reservation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from argosy.infra import border
from argosy.model.ids import Clock
from argosy.providers.gcp.account import Account
from argosy.providers.gcp.wire import last, region_of

FRESH_S: Final = 3600.0
_SHOWN: Final = 12


class Places:
    """Zones of types, kept for an hour."""

    def __init__(self, account: Account, clock: Clock) -> None:
        self._account, self._clock = account, clock
        self._known: dict[str, tuple[float, set[str], set[str]]] = {}  # type -> (when, has it, all)

    async def zones(self, kind: str, region: str) -> Sequence[str]:
        """Of a region, in order. Raises `RequestRefused` for a type or region that does not exist, and
        `OutOfCapacity` for a region that has not the type."""
        at_s, with_it, every = self._known.get(kind, (0.0, set(), set()))
        if not every or self._clock.monotonic_s() - at_s > FRESH_S:
            with_it, every = await self._ask(kind)
            self._known[kind] = (self._clock.monotonic_s(), with_it, every)
        if not any(region_of(zone) == region for zone in every):
            known = ", ".join(sorted({region_of(zone) for zone in every})[:_SHOWN])
            raise border.RequestRefused(
                "infra",
                f"Google Cloud has no region `{region}`; there are {known}, ... (`gcloud compute regions "
                "list`)",
            )
        if not with_it:
            raise border.RequestRefused(
                "instance_type",
                f"Google Cloud has no type of machine `{kind}` that this project may use; `gcloud compute "
                "machine-types list` shows them",
            )
        return sorted(zone for zone in with_it if region_of(zone) == region)

    async def _ask(self, kind: str) -> tuple[set[str], set[str]]:
        with_it, every = set(), set()
        query = (("filter", f'name = "{kind}"'),)
        async for page in self._account.aggregated("machineTypes", query):
            every |= {last(place) for place in page.items if place.startswith("zones/")}
            with_it |= {last(place) for place, scope in page.items.items() if scope.named}
        return with_it, every

    async def reserved(self, names: Collection[str]) -> set[str]:
        """Zones with reservations of these names."""
        wanted = {last(name) for name in names}
        return {
            last(place)
            async for page in self._account.aggregated("reservations", ())
            for place, scope in page.items.items()
            for each in scope.named
            if each.name in wanted
        }
