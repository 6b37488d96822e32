"""Machines with the tag of a claim that is unknown here: what `check` reports about them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from argosy.infra import border
from argosy.infra.machine_listing import MachineListing
from argosy.infra.machine_vendor import Vendor
from argosy.infra.machines import name_of
from argosy.infra.provider import Diagnostic

_SHOWN: Final = 10


async def strangers(vendor: Vendor, listing: MachineListing, known: Collection[str]) -> list[Diagnostic]:
    """One finding, or none. `known`: the claims of this server's notes. Never raises."""
    name = vendor.manifest.name
    try:
        every = [each for each in await listing.everywhere() if each.is_live]
    except border.BorderError as error:
        hint = "try again, or read the server's log"
        return [Diagnostic(provider=name, ok=False, what=str(error), hint=hint)]
    found = [each for each in every if each.claim_id not in known]
    if not found:
        return []
    names = ", ".join(sorted(name_of(each.claim_id, each.index) for each in found)[:_SHOWN])
    what = f"machines of claims that this server does not know, {len(found)}: {names}"
    first = found[0]
    called = name_of(first.claim_id, first.index)
    words = {"id": first.id, "region": first.region, "zone": first.zone, "name": called}
    command = vendor.end_command.format(**words)
    fix = "they are another server's, or were left by one that is gone: `argosy down` there"
    hint = f"{fix}, or `{command}`" if command else f"{fix}, or end them in the console"
    return [Diagnostic(provider=name, ok=False, what=what, hint=hint)]
