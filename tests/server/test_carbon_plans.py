"""Plans by carbon through the real API, with and without the user's own figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argosy.api.location import Location
from argosy.client.client import Client
from argosy.model.resources import Accelerator, Infra, Resources
from argosy.model.task import Task
from argosy.model.units import Bound
from argosy.testing.idle_server import IdleServer


@pytest.fixture
def client() -> Iterator[Client]:
    with IdleServer() as running:
        yield Client(Location(socket=running.socket))


def told(client: Client, **wish: Any) -> tuple[str, str, float | None]:
    """Where it runs best, why, and its carbon."""
    task = Task(run="x", resources=(Resources(**wish),), estimated_s=36_000)
    reply = client.plan(task, prices=True, objective="carbon", distinct=True)
    first = reply.offers[0]
    return f"{first.provider}/{first.region}", reply.text, first.carbon_g


def say(client: Client, text: str) -> None:
    folder = Path(client.catalog().folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "terms.toml").write_text(text)


def test_nothing_is_known_of_own_machines_until_the_user_says(client: Client) -> None:
    mine: dict[str, Any] = {"infra": Infra(provider="pool"), "cpus": Bound(1000)}
    assert told(client, **mine) == (
        "pool/",
        "pool (owned): the carbon of no choice is known (no figure for the grid of pool), so the cheapest "
        "is first",
        None,
    )
    say(client, "[carbon]\npool = 30\n")
    place, text, grams = told(client, **mine)
    assert (place, text) == ("pool/", "pool (owned): ~1 g CO2")
    assert grams == pytest.approx(30 * 1 * 4 * 1.2 / 1000 * 10)


def test_the_users_figure_changes_where_it_runs_best(client: Client) -> None:
    wish: dict[str, Any] = {
        "infra": Infra(provider="aws"),
        "accelerator": Accelerator(model="H100", milli=8000),
        "use_spot": False,
    }
    place, text, grams = told(client, **wish)
    assert place == "aws/ca-central-1"  # Montreal: hydro power
    assert grams is not None and f"~{grams:,.0f} g CO2" in text
    say(client, '[carbon]\n"aws/us-east-1" = 1\n')
    place, text, _ = told(client, **wish)
    assert place == "aws/us-east-1"
    assert text.startswith("aws/us-east-1")


def test_regions_show_what_the_user_says(client: Client) -> None:
    say(client, '[carbon]\n"aws/ca-west-1" = 490\n')
    rows = {row.region: row for row in client.regions("aws").regions}
    calgary = rows["ca-west-1"]
    assert (calgary.carbon_g_per_kwh, calgary.carbon_estimated, calgary.carbon_source) == (
        490,
        False,
        "terms.toml",
    )
    assert rows["eu-west-1"].carbon_estimated
