"""Grams of CO2 per kWh: Google's own regions, neighbours on the same grid, states, countries, and the user's
word."""

from __future__ import annotations

from pathlib import Path

import pytest

from argosy.catalog import Catalog
from argosy.catalog.grids import GOOGLE, Grid
from argosy.catalog.listing import region_rows


@pytest.fixture(scope="module")
def grids() -> dict[tuple[str, str], Grid]:
    return Catalog.load().grids()


def test_google_regions_have_their_own_figure(grids: dict[tuple[str, str], Grid]) -> None:
    known = {fact.region for fact in Catalog.load().regions("gcp")} & set(GOOGLE)
    assert len(known) > 30
    assert {region: grids["gcp", region] for region in known} == {
        region: Grid(GOOGLE[region], "Google Cloud region carbon data 2025", "", False) for region in known
    }


@pytest.mark.parametrize(
    ("provider", "region", "like"),
    [
        ("aws", "us-east-1", "us-east4"),  # both in Northern Virginia
        ("aws", "eu-north-1", "europe-north2"),
        ("aws", "ap-northeast-2", "asia-northeast3"),
        ("aws", "ap-northeast-3", "asia-northeast2"),
        ("azure", "francecentral", "europe-west9"),
    ],
)
def test_others_have_that_of_their_neighbour(
    grids: dict[tuple[str, str], Grid], provider: str, region: str, like: str
) -> None:
    found = grids[provider, region]
    assert (found.grams_per_kwh, found.stands_for, found.estimated) == (GOOGLE[like], f"gcp/{like}", True)


@pytest.mark.parametrize(
    ("provider", "region", "grams", "stands_for", "source"),
    [
        ("aws", "eu-west-1", 290.8, "Ireland", "Ember by way of Our World in Data, 2023"),
        ("azure", "norwayeast", 30.1, "Norway", "Ember by way of Our World in Data, 2023"),
        ("aws", "me-central-1", 561.1, "the United Arab Emirates", "Ember by way of Our World in Data, 2022"),
        ("azure", "westus", 179.1, "California", "EPA eGRID2023"),
        ("azure", "westcentralus", 831.6, "Wyoming", "EPA eGRID2023"),
    ],
)
def test_what_has_no_neighbour_has_that_of_its_state_or_country(
    grids: dict[tuple[str, str], Grid], provider: str, region: str, grams: float, stands_for: str, source: str
) -> None:
    assert grids[provider, region] == Grid(grams, source, stands_for, True)


def test_what_nobody_tells_is_not_known(grids: dict[tuple[str, str], Grid]) -> None:
    assert ("aws", "ca-west-1") not in grids  # Calgary is far from Toronto, and unlike the average of Canada
    every = Catalog.load().regions()
    assert sum((fact.provider, fact.region) not in grids for fact in every) < 10


def test_regions_show_it_with_its_source() -> None:
    rows = {(row.provider, row.region): row for row in region_rows(Catalog.load())}
    ireland = rows["aws", "eu-west-1"]
    assert (ireland.carbon_g_per_kwh, ireland.carbon_estimated) == (290.8, True)
    assert ireland.carbon_source == "Ember by way of Our World in Data, 2023, Ireland"
    assert rows["gcp", "us-west1"].carbon_source == "Google Cloud region carbon data 2025"
    assert not rows["gcp", "us-west1"].carbon_estimated
    assert rows["aws", "ca-west-1"].carbon_g_per_kwh is None


def test_the_user_knows_better(tmp_path: Path) -> None:
    (tmp_path / "terms.toml").write_text(
        '[carbon]\n"aws/eu-west-1" = 250\n"aws/us-east-1" = 0\n"ssh/lab" = 12.5\nlocal = '
        '30\n"gcp/us-west1" = -1\n'
    )
    catalog = Catalog.load(tmp_path)
    found = {place: grid.grams_per_kwh for place, grid in catalog.grids().items()}
    assert (found["aws", "eu-west-1"], found["aws", "us-east-1"], found["ssh", "lab"]) == (250, 0, 12.5)
    assert found["local", ""] == 30
    assert catalog.grids()["aws", "eu-west-1"] == Grid(250, "terms.toml", "", False)
    assert catalog.warnings == ("terms.toml: carbon.gcp/us-west1: -1 g/kWh makes no sense; it is left out",)
    assert found["gcp", "us-west1"] == GOOGLE["us-west1"]
