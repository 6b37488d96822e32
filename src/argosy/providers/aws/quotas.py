"""Quotas of vCPUs: which one a machine counts in, and whether an order fits into it.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-on-demand-instances.html#ec2-on-demand-instances-limits
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.once import Once
from argosy.model.ids import Clock
from argosy.providers.aws.account import Account
from argosy.providers.aws.errors import quota_page
from argosy.providers.aws.wishes import Wishes

FRESH_S: Final = 600.0


class Quota(msgspec.Struct, frozen=True):
    code: str
    name: str  # as the console lists it


_STANDARD: Final = "Standard (A, C, D, H, I, M, R, T, Z)"
#: Letters that types begin with -> (on demand, spot).
_BY_FAMILY: Final[tuple[tuple[str, Quota, Quota], ...]] = (
    (
        r"p[56]",
        Quota("L-417A185B", "Running On-Demand P instances"),
        Quota("L-C4BD4855", "All P5 Spot Instance Requests"),
    ),
    (
        r"p\d",
        Quota("L-417A185B", "Running On-Demand P instances"),
        Quota("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests"),
    ),
    (
        r"(g|gr|vt)\d",
        Quota("L-DB2E81BA", "Running On-Demand G and VT instances"),
        Quota("L-3819A6DF", "All G and VT Spot Instance Requests"),
    ),
    (
        r"inf\d",
        Quota("L-1945791B", "Running On-Demand Inf instances"),
        Quota("L-B5D1601B", "All Inf Spot Instance Requests"),
    ),
    (
        r"trn\d",
        Quota("L-2C3B7624", "Running On-Demand Trn instances"),
        Quota("L-6B0D517C", "All Trn Spot Instance Requests"),
    ),
    (
        r"dl\d",
        Quota("L-6E869C2A", "Running On-Demand DL instances"),
        Quota("L-85EED4F7", "All DL Spot Instance Requests"),
    ),
    (
        r"f\d",
        Quota("L-74FC7D96", "Running On-Demand F instances"),
        Quota("L-88CF9481", "All F Spot Instance Requests"),
    ),
    (
        r"x\d",
        Quota("L-7295265B", "Running On-Demand X instances"),
        Quota("L-E3A00192", "All X Spot Instance Requests"),
    ),
    (
        r"[acdhimrtz]\d|(im|is)\d",
        Quota("L-1216C47A", f"Running On-Demand {_STANDARD} instances"),
        Quota("L-34B43A08", f"All {_STANDARD} Spot Instance Requests"),
    ),
)


def quota_of(kind: str, *, spot: bool) -> Quota | None:
    """Which quota a type of machine counts in; None: not known, AWS itself decides.

    >>> quota_of("p4d.24xlarge", spot=False).code, quota_of("g6.xlarge", spot=True).code, quota_of("u-6tb1.metal", spot=False)
    ('L-417A185B', 'L-3819A6DF', None)
    """  # noqa: E501
    for pattern, on_demand, spots in _BY_FAMILY:
        if re.match(rf"(?:{pattern})", kind):
            return spots if spot else on_demand
    return None


class Quotas:
    """What Service Quotas says, kept for ten minutes."""

    def __init__(self, account: Account, clock: Clock) -> None:
        self._account = account
        self._known: Once[tuple[str, str], float | None] = Once(clock, FRESH_S)

    async def check(self, wishes: Wishes) -> None:
        """Raises `QuotaExceeded` when the whole quota has no room for so many vCPUs. What of it is in use
        AWS counts itself; who may not read quotas is not stopped here."""
        quota, cpus = quota_of(wishes.kind, spot=wishes.spot), wishes.cpus * wishes.count
        if quota is None or not cpus:
            return
        region, code = wishes.region, quota.code
        limit = await self._known.get((region, code), lambda: self._ask(region, code))
        if limit is not None and limit < cpus:
            raise quota_error(region, quota, limit, f"{cpus} vCPUs of {wishes.kind}")

    def forget(self, region: str) -> None:
        """AWS refused for want of quota: it is asked anew."""
        self._known.forget(lambda key: key[0] == region)

    async def _ask(self, region: str, code: str) -> float | None:
        try:
            answer = await self._account.call(
                "service-quotas", region, "get_service_quota", ServiceCode="ec2", QuotaCode=code
            )
        except border.BorderError:
            return None
        return float(answer["Quota"]["Value"])


def quota_error(region: str, quota: Quota, limit: float, needs: str) -> border.QuotaExceeded:
    text = (
        f"the AWS quota `{quota.name}` ({quota.code}) is {limit:g} vCPUs in {region}, and this needs "
        f"{needs}; raise it: {quota_page(region, quota.code)}, or `aws service-quotas "
        f"request-service-quota-increase --service-code ec2 --region {region} --quota-code {quota.code} "
        "--desired-value N`"
    )
    return border.QuotaExceeded(quota.name, f"{limit:g}", text)


def named_quota(wishes: Wishes, error: border.QuotaExceeded) -> border.QuotaExceeded:
    """AWS says only that it is too much; which quota that is follows from the type."""
    quota = quota_of(wishes.kind, spot=wishes.spot)
    if quota is None or "vCPU" not in error.what:
        return error
    needs = f"{wishes.cpus * wishes.count} more vCPUs of {wishes.kind}"
    text = f"the AWS quota `{quota.name}` ({quota.code}) has no room for {needs} in {wishes.region}: {error}"
    return border.QuotaExceeded(quota.name, error.limit, text)
