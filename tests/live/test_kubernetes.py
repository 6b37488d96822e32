"""One pod in the current context of the kubeconfig: `pytest tests/live/test_kubernetes.py --max-cost 1`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from argosy.infra.provider import Provider, Want
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.offer import Choice
from argosy.model.resources import Resources
from argosy.providers import load_providers, standings
from argosy.testing.builders import a_claim
from live.cloud_life import _reached, _released


def test_one_pod(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    if float(pytestconfig.getoption("--max-cost", default=0.0)) <= 0:
        pytest.skip(
            "KUBERNETES IS NOT TRIED FOR REAL: give --max-cost DOLLARS (a pod of one CPU, for minutes)"
        )
    (standing,) = [each for each in standings(os.environ) if each.name == "kubernetes"]
    if not standing.in_use:
        pytest.skip(f"KUBERNETES IS NOT TRIED FOR REAL: {standing.fact}; {standing.fix}")
    providers = load_providers(["kubernetes"], tmp_path, SystemClock(), SystemIds(), os.environ)
    asyncio.run(_live(providers.get("kubernetes")))


async def _live(provider: Provider) -> None:
    findings = await provider.check()
    assert findings[0].ok, f"{findings[0].what}: {findings[0].hint}"
    offer = next(each for each in await provider.quote(Want()) if each.shape.accelerator is None)
    choice = Choice(offer=offer, resources=Resources(), cpus_milli=1000, memory_bytes=512 << 20)
    ids = SystemIds()
    now_ms = SystemClock().now_ms()
    claim = a_claim(choice=choice, count=1, id=ids.new("clm"), tag="sto-live", requested_ms=now_ms)
    try:
        await provider.ensure(claim)
        await _reached(provider, claim)
    finally:
        await _released(provider, claim)
