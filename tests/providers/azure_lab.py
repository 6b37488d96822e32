"""One driver of Azure at a time, against one fake: what its tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from argosy.infra import border
from argosy.infra.machine_driver import MachineDriver
from argosy.model.resources import Resources
from argosy.model.rows import Claim
from argosy.providers.azure.provider import Azure
from argosy.testing.conformance.cloud import MovedClock, a_machine_claim, a_setting
from argosy.testing.fake_azure import FakeAzure
from argosy.testing.fake_azure_ground import SUBSCRIPTION

KIND, INFINIBAND = "Standard_D4s_v5", "Standard_ND96isr_H100_v5"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/argosy-eastus"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FakeAzure, MovedClock]]:
    clock = MovedClock()
    with FakeAzure(now=clock.now_s) as fake:
        yield fake, clock


class Lab:
    def __init__(self, fake: FakeAzure, clock: MovedClock, root: Path) -> None:
        self.fake, self.clock, self.root = fake, clock, root

    def run(
        self, act: Callable[[MachineDriver], Awaitable[object]], environ: dict[str, str] | None = None
    ) -> Any:
        setting = a_setting(self.root, self.clock, self.fake.environ() if environ is None else environ)
        driver = MachineDriver(Azure(setting, wait_s=0.0, check_s=60), setting, settle_s=0.0)

        async def all_of_it() -> object:
            try:
                return await act(driver)
            finally:
                await driver.disconnect()

        return asyncio.run(all_of_it())

    def ensure(self, claim: Claim) -> None:
        self.run(lambda driver: driver.ensure(claim))

    def refused(
        self, kind: type[border.BorderError], claim: Claim, environ: dict[str, str] | None = None
    ) -> str:
        """What an order is refused with; nothing is left of it."""
        with pytest.raises(kind) as caught:
            self.run(lambda driver: driver.ensure(claim), environ)
        assert self.fake.leftovers() == []
        return str(caught.value)

    def order(self) -> Any:
        """The last order of a machine."""
        return self.fake.called("put_machine")[-1].body

    def thing(self, kind: str, name: str, location: str = "eastus") -> str:
        """Something that people made before."""
        id = f"{GROUP}/providers/{kind}/{name}"
        self.fake.things[id.lower()] = {"location": location, "id": id}
        return id


@pytest.fixture
def lab(served: tuple[FakeAzure, MovedClock], tmp_path: Path) -> Lab:
    fake, clock = served
    fake.reset()
    return Lab(fake, clock, tmp_path)


def a_claim(wish: Resources | None = None, **facts: Any) -> Claim:
    return a_machine_claim("azure", facts.pop("kind", KIND), region="eastus", wish=wish, **facts)


def with_config(**fields: Any) -> Resources:
    return Resources(config=msgspec.json.encode({"azure": fields}).decode())
