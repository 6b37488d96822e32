"""The Ray provider on a fake cluster whose jobs really run: the suite for every provider, and what is special
here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_subject import RaySubject

from argosy.infra.boot import agent_zipapp
from argosy.testing.conformance.provider import CASES, Case, NotApplicable, case_name, hold
from argosy.testing.fake_ray import FakeRay

_TOKEN = "t0ken-of-the-cluster"
#: Many jobs: in CI not at all.
SLOW = {"cancelled_in_mid_call_leaves_nothing_unowned", "ensure_after_a_cancelled_one_completes_it"}


@pytest.fixture(scope="module")
def zipapp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agent_zipapp(tmp_path_factory.mktemp("agent"))


@pytest.fixture(scope="module")
def ray() -> Iterator[FakeRay]:
    cluster = FakeRay({"CPU": 8.0}, {"CPU": 8.0}, token=_TOKEN)
    yield cluster
    cluster.close()


@pytest.fixture
def subject(ray: FakeRay, zipapp: Path, tmp_path: Path) -> Iterator[RaySubject]:
    yield RaySubject(ray, zipapp, tmp_path)
    ray.clear()
    for node in ray.nodes:
        node.is_alive, node.message = True, None


def _slow(case: Case) -> tuple[pytest.MarkDecorator, ...]:
    return (pytest.mark.nightly,) if case_name(case) in SLOW else ()


@pytest.mark.parametrize(
    "case", [pytest.param(each, marks=_slow(each), id=case_name(each)) for each in CASES]
)
def test_conformance(case: Case, subject: RaySubject) -> None:
    async def main() -> None:
        try:
            await hold(case, subject)  # type: ignore[arg-type]
        finally:
            await subject.cluster.close()

    try:
        asyncio.run(main())
    except NotApplicable as reason:
        pytest.skip(str(reason))
