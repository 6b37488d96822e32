"""Quotas of vCPUs by family of sizes and region: what the subscription may not have closes rows of the
catalog.

The families of sizes come from one region's list of sizes, once a day; the limits of all regions every ten
minutes, in the background. What of a limit is in use Azure counts itself, when something is ordered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.machine_vendor import closed_offer
from argosy.model.ids import Clock
from argosy.model.offer import Capacity, Offer
from argosy.providers.azure import MANIFEST
from argosy.providers.azure.arm import COMPUTE, SUBSCRIPTIONS, Arm

SIZES: Final = "2021-07-01"
FRESH_S: Final = 600.0
_SIZES_S: Final = 86_400.0
_PARALLEL: Final = 12
_HOME: Final = "eastus"  # where all families are listed that Azure has
_SPOT, _ALL = "lowprioritycores", "cores"


class _UsageName(msgspec.Struct, frozen=True, rename="camel"):
    value: str
    localized_value: str = ""


class Usage(msgspec.Struct, frozen=True, rename="camel"):
    """One quota of one region."""

    name: _UsageName
    limit: int
    current_value: int = 0

    @property
    def title(self) -> str:
        return self.name.localized_value or self.name.value


class _Capability(msgspec.Struct, frozen=True):
    name: str
    value: str


class Size(msgspec.Struct, frozen=True, rename="camel"):
    """A size as the list of sizes has it."""

    name: str
    resource_type: str = ""
    family: str = ""
    capabilities: list[_Capability] = []

    def number(self, name: str) -> float:
        found = next((each.value for each in self.capabilities if each.name == name), "0")
        return float(found) if found.replace(".", "", 1).isdigit() else 0.0


class _LocationKind(msgspec.Struct, frozen=True, rename="camel"):
    region_type: str = "Physical"


class _Zone(msgspec.Struct, frozen=True, rename="camel"):
    logical_zone: str  # as orders name it, in this subscription


class Location(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    metadata: _LocationKind = _LocationKind()
    availability_zone_mappings: list[_Zone] = []


Limits = Mapping[str, Mapping[str, Usage]]  # region -> family, as `family_of` writes it


def family_of(name: str) -> str:
    """Azure writes the same family with blanks and without, and in capitals or not.

    >>> family_of("Standard NCASv3_T4 Family"), family_of("standardNCASv3_T4Family")
    ('standardncasv3_t4family', 'standardncasv3_t4family')
    """
    return name.replace(" ", "").lower()


def closed(sizes: Iterable[Size], limits: Limits, now_ms: int) -> list[Offer]:
    """What cannot be had for want of quota: sizes with accelerators by region, or at once where that holds
    for all regions; spot machines, and whole regions.

    Sizes without accelerators are refused when they are ordered: they are many, and usual quotas have them.
    """
    found: list[Offer] = []
    for size in sizes:
        cpus, family = size.number("vCPUs"), family_of(size.family)
        if not size.number("GPUs") or not cpus or size.resource_type != "virtualMachines":
            continue
        short = {
            region: usages[family]
            for region, usages in limits.items()
            if family in usages and usages[family].limit < cpus
        }
        if short and len(short) == len(limits):
            usage = max(short.values(), key=lambda each: each.limit)
            found.append(_offer(size, "", usage, "in every region", now_ms))
        else:
            found += [_offer(size, region, usage, f"in {region}", now_ms) for region, usage in short.items()]
    for capacity, name in ((Capacity.SPOT, _SPOT), (Capacity.ON_DEMAND, _ALL)):
        for region, usages in limits.items():
            if name in usages and usages[name].limit == 0:
                offer = _offer(None, region, usages[name], f"in {region}", now_ms)
                found.append(msgspec.structs.replace(offer, capacity=capacity))
    return found


def _offer(size: Size | None, region: str, usage: Usage, where: str, now_ms: int) -> Offer:
    cpus = size.number("vCPUs") if size is not None else 1
    needs = f", and one of {size.name} has {cpus:g}" if size is not None and usage.limit else ""
    fix = "raise it in the portal under Quotas"
    why = f"the Azure quota `{usage.title}` is {usage.limit} {where}{needs}; {fix}"
    return closed_offer(MANIFEST.name, size.name if size is not None else "", why, now_ms, region=region)


class Quotas:
    """What Azure says of the subscription's limits. Who may not read them is not stopped here."""

    def __init__(self, arm: Arm, clock: Clock) -> None:
        self._arm, self._clock = arm, clock
        self._sizes: tuple[float, Sequence[Size]] | None = None
        self._limits: tuple[float, Limits] | None = None
        self._zones: dict[str, tuple[str, ...]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def offers(self) -> Sequence[Offer]:
        """Those that are closed, as they were known last; the first call waits until they are known."""
        if self._limits is None or self._clock.monotonic_s() - self._limits[0] > FRESH_S:
            if self._asking is None or self._asking.done():
                self._asking = asyncio.get_running_loop().create_task(self._look())
            if self._limits is None:
                await asyncio.shield(self._asking)
        sizes = self._sizes[1] if self._sizes is not None else ()
        limits = self._limits[1] if self._limits is not None else {}
        return closed(sizes, limits, self._clock.now_ms())

    async def check(self, kind: str, count: int, region: str, *, spot: bool) -> None:
        """Raises `QuotaExceeded` when a gang does not fit into what is left: rather than when half of it is
        made. Asks only for sizes whose family is known by now, and stops nobody who may not read quotas."""
        size = next((each for each in (self._sizes or (0, ()))[1] if each.name == kind), None)
        if size is None:
            return
        try:
            usages = await self.of_region(region)
        except border.BorderError:
            return
        usage = usages.get(_SPOT if spot else family_of(size.family))
        needs = int(size.number("vCPUs")) * count
        if usage is not None and usage.limit - usage.current_value < needs:
            left = max(usage.limit - usage.current_value, 0)
            raise border.QuotaExceeded(
                usage.title,
                str(usage.limit),
                f"the Azure quota `{usage.title}` has {left} of {usage.limit} left in {region}, and {count} "
                f"x {kind} need {needs}; raise it in the portal under Quotas, or with `az quota`",
            )

    def zones(self, region: str) -> tuple[str, ...]:
        """The availability zones of a region, as they are known by now."""
        return self._zones.get(region, ())

    async def summary(self) -> str:
        """How many sizes with accelerators can be ordered somewhere."""
        gone = {each.shape.instance_type for each in await self.offers() if not each.region}
        sizes = self._sizes[1] if self._sizes is not None else ()
        if not sizes:
            return "quotas cannot be read: what has none is refused when it is ordered"
        return f"quotas have room for {len(sizes) - len(gone)} of {len(sizes)} sizes with accelerators"

    async def of_region(self, region: str) -> Mapping[str, Usage]:
        """By family. Raises a border error."""
        path = await self._arm.path(f"/providers/Microsoft.Compute/locations/{region}/usages")
        found = await self._arm.listed(path, COMPUTE, Usage)
        return {family_of(each.name.value): each for each in found}

    async def _look(self) -> None:
        now_s = self._clock.monotonic_s()
        try:
            path = await self._arm.path("/locations")
            locations = await self._arm.listed(path, SUBSCRIPTIONS, Location)
            physical = [each for each in locations if each.metadata.region_type == "Physical"]
            regions = [each.name for each in physical]
            zones = {each.name: each.availability_zone_mappings for each in physical}
            self._zones = {name: tuple(sorted(z.logical_zone for z in each)) for name, each in zones.items()}
            if self._sizes is None or now_s - self._sizes[0] > _SIZES_S:
                home = _HOME if _HOME in regions else next(iter(regions), _HOME)
                self._sizes = (now_s, await self._in(home))
        except border.BorderError:
            self._limits = (now_s, self._limits[1] if self._limits is not None else {})
            return
        gate = asyncio.Semaphore(_PARALLEL)
        limits: dict[str, Mapping[str, Usage]] = {}

        async def one(region: str) -> None:
            async with gate:
                try:
                    limits[region] = await self.of_region(region)
                except border.BorderError:
                    return  # where nothing may be read, nothing is closed

        await asyncio.gather(*(one(region) for region in regions))
        self._limits = (now_s, limits)

    async def _in(self, region: str) -> Sequence[Size]:
        path = await self._arm.path("/providers/Microsoft.Compute/skus")
        query = [("$filter", f"location eq '{region}'")]
        found = await self._arm.listed(path, SIZES, Size, query=query)
        return [each for each in found if each.resource_type == "virtualMachines" and each.number("GPUs")]

    def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
