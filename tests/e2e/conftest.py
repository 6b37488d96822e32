"""`house` is shared by the tests of one worker; tests that kill servers take a `fresh_house`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e_house import House


@pytest.fixture(scope="session")
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


@pytest.fixture
def fresh_house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _leave_nothing_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """Clusters of a finished test would share the processors with the tests that follow."""
    yield
    if "house" in request.fixturenames:
        shared: House = request.getfixturevalue("house")
        if shared.clusters():
            shared.run("down", "--all", "--yes", ok=False)
