"""What `argosy check` finds out about Azure: who we are, the subscription, and what we may do in it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.machine_vendor import findings_of
from argosy.infra.provider import Diagnostic
from argosy.providers.azure import MANIFEST
from argosy.providers.azure.arm import RESOURCES, SUBSCRIPTIONS, Arm, Subscription
from argosy.providers.azure.quotas import Quotas

_AUTHORIZATION: Final = "2022-04-01"
#: What orders, listings and releases do.
ACTIONS: Final = (
    "Microsoft.Resources/subscriptions/resourceGroups/read",
    "Microsoft.Resources/subscriptions/resourceGroups/write",
    "Microsoft.Compute/virtualMachines/read",
    "Microsoft.Compute/virtualMachines/write",
    "Microsoft.Compute/virtualMachines/delete",
    "Microsoft.Compute/virtualMachines/start/action",
    "Microsoft.Compute/virtualMachines/deallocate/action",
    "Microsoft.Compute/disks/write",
    "Microsoft.Compute/availabilitySets/write",
    "Microsoft.Compute/availabilitySets/delete",
    "Microsoft.Compute/proximityPlacementGroups/write",
    "Microsoft.Compute/proximityPlacementGroups/delete",
    "Microsoft.Compute/skus/read",
    "Microsoft.Compute/locations/usages/read",
    "Microsoft.Network/virtualNetworks/read",
    "Microsoft.Network/virtualNetworks/write",
    "Microsoft.Network/virtualNetworks/subnets/read",
    "Microsoft.Network/virtualNetworks/subnets/join/action",
    "Microsoft.Network/networkSecurityGroups/read",
    "Microsoft.Network/networkSecurityGroups/write",
    "Microsoft.Network/networkSecurityGroups/join/action",
    "Microsoft.Network/networkInterfaces/read",
    "Microsoft.Network/networkInterfaces/write",
    "Microsoft.Network/networkInterfaces/join/action",
    "Microsoft.Network/publicIPAddresses/read",
    "Microsoft.Network/publicIPAddresses/write",
    "Microsoft.Network/publicIPAddresses/join/action",
)
_SPACES: Final = ("Microsoft.Compute", "Microsoft.Network")


class Permission(msgspec.Struct, frozen=True, rename="camel"):
    """Patterns of one role."""

    actions: list[str] = []
    not_actions: list[str] = []


class _Space(msgspec.Struct, frozen=True, rename="camel"):
    namespace: str
    registration_state: str = ""


def missing(permissions: Sequence[Permission], actions: Sequence[str] = ACTIONS) -> list[str]:
    """What no role allows.

    >>> missing([Permission(actions=["Microsoft.Compute/*"], not_actions=["*/delete"])], ["Microsoft.Compute/disks/write"])
    []
    """  # noqa: E501
    return [each for each in actions if not any(_allows(role, each) for role in permissions)]


def _allows(role: Permission, action: str) -> bool:
    return _matches(role.actions, action) and not _matches(role.not_actions, action)


def _matches(patterns: Sequence[str], action: str) -> bool:
    return any(re.fullmatch(re.escape(each).replace(r"\*", ".*"), action, re.IGNORECASE) for each in patterns)


async def findings(arm: Arm, quotas: Quotas, quotas_s: float) -> list[Diagnostic]:
    """`quotas_s`: so long the quotas are waited for; their answer is kept for plans in any case."""

    async def subscription() -> str:
        found = await arm.get(await arm.path(""), SUBSCRIPTIONS, Subscription)
        name = f"the subscription {found.subscription_id} ({found.display_name})"
        if found.state not in ("Enabled", "Warned", ""):
            raise border.CredentialsRejected(
                f"{name} is {found.state}; look at its cost and billing pages in the Azure portal"
            )
        return f"signed in; {name} is used"

    async def rights() -> str:
        scope = await arm.path("")
        path = f"{scope}/providers/Microsoft.Authorization/permissions"
        lacks = missing(await arm.listed(path, _AUTHORIZATION, Permission))
        if lacks:
            more = f" and {len(lacks) - 4} more" if len(lacks) > 4 else ""
            raise border.CredentialsRejected(
                f"these credentials may not do {', '.join(lacks[:4])}{more} in the whole "
                "subscription; `az role assignment create --assignee CLIENT --role Contributor --scope "
                f"{scope}` gives them the right"
            )
        return "all that launches need is allowed"

    async def registered() -> str:
        paths = [await arm.path(f"/providers/{name}") for name in _SPACES]
        spaces = await asyncio.gather(*(arm.get(path, RESOURCES, _Space) for path in paths))
        for name, space in zip(_SPACES, spaces, strict=True):
            if space.registration_state not in ("Registered", "Registering"):
                raise border.RequestRefused(
                    "subscription",
                    f"{name} is not registered in the subscription; `az provider register --namespace "
                    f"{name}` registers it",
                )
        return f"{' and '.join(_SPACES)} are registered"

    async def limits() -> str:
        try:
            async with asyncio.timeout(quotas_s):
                return await quotas.summary()
        except TimeoutError:
            return "quotas are being asked for"

    return await findings_of(MANIFEST, subscription, rights, registered, limits)
