"""The suite for every provider, before a fake API server with the rights that the printed role gives."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from kube_cluster import KubeSubject, a_kube

from argosy.testing.conformance.provider import CASES, Case, NotApplicable, case_name, hold


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_conformance(case: Case, tmp_path: Path) -> None:
    async def run() -> None:
        async with a_kube(tmp_path) as kube:
            subject = KubeSubject(kube, tmp_path / "driver")
            try:
                await hold(case, subject)
            finally:
                await subject.provider.disconnect()

    try:
        asyncio.run(run())
    except NotApplicable as why:
        pytest.skip(str(why))
