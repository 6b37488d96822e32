"""The clusters of Fluidstack, when there is a token: `pytest tests/live/test_fluidstack.py`. Listing costs
nothing, and nothing is ordered."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from argosy.infra.provider import Diagnostic, Provider
from argosy.infra.system import SystemClock, SystemIds
from argosy.providers import load_providers


def test_clusters_are_listed(tmp_path: Path) -> None:
    if not os.environ.get("FLUIDSTACK_TOKEN"):
        pytest.skip("FLUIDSTACK IS NOT TRIED FOR REAL: set FLUIDSTACK_TOKEN")
    provider = load_providers(["fluidstack"], tmp_path, SystemClock(), SystemIds(), os.environ).get(
        "fluidstack"
    )
    first, *clusters = asyncio.run(_findings(provider))
    assert first.ok, f"{first.what}: {first.hint}"
    print("\n".join(f"{each.what}  {each.hint}" for each in clusters))


async def _findings(provider: Provider) -> list[Diagnostic]:
    return list(await provider.check())
