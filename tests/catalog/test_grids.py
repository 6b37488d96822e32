"""Grams of CO2 per kWh: Google's own regions, neighbours on the same grid, and the user's word."""

from __future__ import annotations

from pathlib import Path

import pytest

from argosy.catalog import Catalog
from argosy.catalog.grids import GOOGLE


def test_google_regions_have_their_own_figure() -> None:
    grids = Catalog.load().grids()
    known = {fact.region for fact in Catalog.load().regions("gcp")} & set(GOOGLE)
    assert len(known) > 30
    assert {region: grids["gcp", region] for region in known} == {region: GOOGLE[region] for region in known}


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
def test_others_have_that_of_their_neighbour(provider: str, region: str, like: str) -> None:
    assert Catalog.load().grids()[provider, region] == GOOGLE[like]


def test_what_has_no_neighbour_is_not_known() -> None:
    grids = Catalog.load().grids()
    assert ("aws", "eu-west-1") not in grids  # no region of Google in Ireland
    assert ("aws", "ca-west-1") not in grids  # Calgary is far from Toronto


def test_the_user_knows_better(tmp_path: Path) -> None:
    (tmp_path / "terms.toml").write_text(
        '[carbon]\n"aws/eu-west-1" = 250\n"aws/us-east-1" = 0\n"ssh/lab" = 12.5\nlocal = 30\n"gcp/us-west1" = -1\n'
    )
    catalog = Catalog.load(tmp_path)
    grids = catalog.grids()
    assert (grids["aws", "eu-west-1"], grids["aws", "us-east-1"], grids["ssh", "lab"]) == (250, 0, 12.5)
    assert grids["local", ""] == 30
    assert catalog.warnings == ("terms.toml: carbon.gcp/us-west1: -1 g/kWh makes no sense; it is left out",)
    assert grids["gcp", "us-west1"] == GOOGLE["us-west1"]
