"""The user's folder: private catalogs, terms, refreshed prices, and what happens when any of it is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from argosy.catalog import Catalog, Fetched, PriceRow, keep_refreshed
from argosy.catalog.catalog import SHIPPED
from argosy.catalog.table import Table, rows_of
from argosy.model.errors import ArgosyError
from argosy.model.market import DAY_MS, Note
from argosy.model.offer import Capacity
from argosy.model.resources import Accelerator, Resources
from argosy.model.units import GIB, Bound
from argosy.planning.ability import Ability
from argosy.planning.market import rank

HEAD = "provider,instance_type,accelerator,accelerator_count,vcpus,memory_gib,region,zone,price_usd_hour,spot_price_usd_hour\n"  # noqa: E501


def usd(
    catalog: Catalog, provider: str, instance_type: str, region: str, capacity: Capacity = Capacity.ON_DEMAND
) -> float:
    found = catalog.prices_for(instance_type, provider=provider, region=region, capacity=capacity)
    return found[0].price_micro_usd / 1e6


def test_an_empty_or_missing_folder_changes_nothing(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing", None):
        catalog = Catalog.load(folder)
        assert catalog.warnings == ()
        assert len(catalog.providers) == 16


def test_private_machines_are_offers_like_others(tmp_path: Path) -> None:
    (tmp_path / "lab.csv").write_text(
        HEAD
        + "campus,box,RTX6000,4,64,512,seoul,,0.5,\n"
        + "aws,p4d.24xlarge,A100,8,96,1152,us-east-1,use1-az1,10,3\n"
    )
    catalog = Catalog.load(tmp_path)
    assert catalog.warnings == ()
    assert "campus" in catalog.providers
    wish = Resources(accelerator=Accelerator(model="RTX6000", milli=4000))
    (choice,) = rank([wish], 1, catalog.market).plan.choices
    assert (choice.offer.provider, choice.offer.region, choice.price_micro_usd) == (
        "campus",
        "seoul",
        500_000,
    )
    prices = {
        o.zone: o.price_micro_usd
        for o in catalog.prices_for(
            "p4d.24xlarge", provider="aws", region="us-east-1", capacity=Capacity.ON_DEMAND
        )
    }
    assert prices["use1-az1"] == 10_000_000  # the private row replaces the public one
    assert prices["use1-az2"] == 21_957_642
    assert ("campus", "seoul") in {(fact.provider, fact.region) for fact in catalog.regions()}
    assert catalog.age("campus", 20_000 * DAY_MS).source == "private"
    assert catalog.unknown_place("campus", "seoul") is None


def test_bad_rows_are_left_out_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "lab.csv").write_text(
        HEAD
        + "campus,good,,,8,32,seoul,,0.1,\n"
        + "campus,free,,,8,32,seoul,,0,\n"
        + "campus,owed,,,8,32,seoul,,-1.5,\n"
        + "campus,word,,,8,32,seoul,,cheap,\n"
        + "campus,none,,,8,32,seoul,,,\n"
        + "campus,tiny,,,0,32,seoul,,1,\n"
        + "Cam pus,box,,,8,32,seoul,,1,\n"
        + "campus,nan,,,8,32,seoul,,nan,\n"
    )
    catalog = Catalog.load(tmp_path)
    assert catalog.warnings == (
        "lab.csv:3: price_usd_hour of `free` is 0: a price must be above 0; the row is left out",
        "lab.csv:4: price_usd_hour of `owed` is -1.5: a price must be above 0; the row is left out",
        "lab.csv:5: `cheap` in column price_usd_hour is not a number; the row is left out",
        "lab.csv:6: `none` has no price; the row is left out",
        "lab.csv:7: vcpus `0` must be above 0; the row is left out",
        "lab.csv:8: `Cam pus` is no name of a provider; the row is left out",
        "lab.csv:9: `nan` in column price_usd_hour is not a number; the row is left out",
    )
    assert len(catalog.market.block("campus")) == 1


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("a,b\n1,2\n", "the private catalog lab.csv is left out: it has no column provider"),
        (
            HEAD.replace("zone", "colour") + "campus,box,,,8,32,seoul,,1,\n",
            "the private catalog lab.csv is left out: it has an unknown column `colour`",
        ),
    ],
)
def test_a_private_catalog_with_other_columns_is_left_out(tmp_path: Path, text: str, warning: str) -> None:
    (tmp_path / "lab.csv").write_text(text)
    catalog = Catalog.load(tmp_path)
    assert catalog.warnings == (warning,)
    assert len(catalog.providers) == 16


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "lab.csv").write_bytes(b"\xff\xfe\x00\x01")
    (warning,) = Catalog.load(tmp_path).warnings
    assert warning.startswith("the private catalog lab.csv cannot be read and is left out: ")


def test_discounts_and_savings_plans(tmp_path: Path) -> None:
    plain = Catalog.load()
    (tmp_path / "terms.toml").write_text(
        """
        [[discount]]
        provider = "aws"
        family = "p4d"
        percent = 25
        name = "enterprise"

        [[discount]]
        provider = "aws"
        region = "us-*"
        percent = 10

        [[savings_plan]]
        provider = "gcp"
        family = "a2-*"
        percent = 40
        commit_usd_hour = 100.0
        """
    )
    catalog = Catalog.load(tmp_path)
    assert catalog.warnings == ()
    for provider, machine, region, share in (
        ("aws", "p4d.24xlarge", "us-east-1", 0.75),  # the larger of two
        ("aws", "g6.xlarge", "us-east-1", 0.90),
        ("aws", "g6.xlarge", "eu-central-1", 1.0),
        ("gcp", "a2-highgpu-8g", "us-central1", 0.6),
        ("gcp", "g2-standard-4", "us-central1", 1.0),
    ):
        assert usd(catalog, provider, machine, region) == pytest.approx(
            share * usd(plain, provider, machine, region), rel=1e-5
        ), (machine, region)
    assert usd(catalog, "aws", "p4d.24xlarge", "us-east-1", Capacity.SPOT) == usd(
        plain, "aws", "p4d.24xlarge", "us-east-1", Capacity.SPOT
    )
    offer = catalog.prices_for(
        "p4d.24xlarge", provider="aws", region="us-east-1", capacity=Capacity.ON_DEMAND
    )[0]
    assert catalog.source_of(offer)[1] == "list price less 25% (enterprise)"
    for lane in catalog.market.block("aws").lanes:  # still sorted: the planner relies on it
        for kind in range(len(catalog.market.block("aws").instance_types)):
            rows = list(lane.price[lane.start[kind] : lane.start[kind + 1]])
            assert rows == sorted(rows)


def test_reserved_capacity_is_a_few_nodes_at_a_price(tmp_path: Path) -> None:
    (tmp_path / "terms.toml").write_text(
        """
        [owned]
        ssh = 1.25
        "ssh/lab" = 0.5
        [[reserved]]
        provider = "aws"
        instance_type = "p4d.24xlarge"
        region = "us-east-1"
        nodes = 2
        price_usd_hour = 8.0
        [[reserved]]
        provider = "campus"
        instance_type = "big"
        nodes = 1
        price_usd_hour = 0
        cpus = 64
        memory_gib = 256
        until = "2027-01-31"
        """
    )
    catalog = Catalog.load(tmp_path)
    assert catalog.warnings == ()
    assert catalog.owned_price_micro_usd("ssh", "lab") == 500_000
    assert catalog.owned_price_micro_usd("ssh", "other") == 1_250_000
    assert catalog.owned_price_micro_usd("local") is None
    first, second = catalog.owned(20_779 * DAY_MS)
    assert catalog.owned(20_850 * DAY_MS) == (first,)  # the other one has run out
    assert (first.capacity, first.nodes_max, first.shape.accelerators_milli) == (Capacity.RESERVED, 2, 8000)
    assert second.shape.memory_bytes == 256 * GIB
    wish = Resources(accelerator=Accelerator(model="A100", milli=8000), use_spot=False)
    abilities = {"aws": Ability(spot=True, multi_node=True)}
    two = rank([wish], 2, catalog.market, offers=[first, second], abilities=abilities).plan.choices
    assert two[0].offer == first
    three = rank([wish], 3, catalog.market, offers=[first, second], abilities=abilities).plan
    assert three.choices[0].offer.capacity is Capacity.ON_DEMAND
    assert "has 2 nodes at present, asked for 3" in {each.text for each in three.rejected}


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            '[[discount]]\nprovider = "aws"\npercent = 120\n',
            "terms.toml: discount[0]: percent 120 must be above 0 and below 100; it is left out",
        ),
        (
            '[[reserved]]\nprovider = "aws"\ninstance_type = "p99.huge"\nnodes = 1\nprice_usd_hour = 1.0\n',
            "terms.toml: reserved[0]: `p99.huge` of aws is not known; give its cpus, memory_gib and "
            "accelerator; "
            "it is left out",
        ),
        (
            '[[reserved]]\nprovider = "aws"\ninstance_type = "g6.xlarge"\nnodes = 1\nprice_usd_hour = -1.0\n',
            "terms.toml: reserved[0]: price -1 is below 0; it is left out",
        ),
        (
            '[[discount]]\nprovider = "awz"\npercent = 20\n',
            "terms.toml: discount[0]: there are no prices of `awz`; it is left out",
        ),
        (
            '[[reserved]]\nprovider = "aws"\ninstance_type = "g6.xlarge"\nnodes = 1\nprice_usd_hour = '
            '1.0\nuntil = "soon"\n',
            "terms.toml: reserved[0]: `soon` is not a date; write for example `2027-01-31`; it is left out",
        ),
        ("[owned]\nssh = -2.0\n", "terms.toml: owned.ssh: price -2 is below 0; it is left out"),
    ],
)
def test_terms_that_make_no_sense_are_left_out(tmp_path: Path, text: str, warning: str) -> None:
    (tmp_path / "terms.toml").write_text(text)
    assert Catalog.load(tmp_path).warnings == (warning,)


@pytest.mark.parametrize(
    "text", ["[[discount", '[[discount]]\nprovider = "aws"\npercent = 5\ncolour = "red"\n']
)
def test_terms_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "terms.toml").write_text(text)
    (warning,) = Catalog.load(tmp_path).warnings
    assert warning.startswith("terms.toml cannot be used: ")
    assert warning.endswith("; list prices are shown, without discounts and reserved machines")


# --- refreshed prices ------------------------------------------------------------------------------


def rows_at(price: float, *, count: int = 4, capacity: Capacity = Capacity.ON_DEMAND) -> tuple[PriceRow, ...]:
    return tuple(
        PriceRow(f"m{index}", "", 0, 0, 4000, 16 * GIB, 0, "x86_64", "r1", "", capacity,
                 round(price * 1e6), Note(20_600, "a test"))
        for index in range(count)
    )  # fmt: skip


def fetched(rows: tuple[PriceRow, ...], *capacities: Capacity) -> Fetched:
    return Fetched(
        provider="fluidstack", rows=rows, capacities=frozenset(capacities or (Capacity.ON_DEMAND,))
    )


def test_a_refresh_replaces_the_shipped_prices(tmp_path: Path) -> None:
    before = Catalog.load().market.block("fluidstack")
    kept = keep_refreshed(tmp_path, fetched(rows_at(2.0)), before, "2026-11-22")
    assert kept.render() == "fluidstack: 4 prices (before: 1)"
    catalog = Catalog.load(tmp_path)
    assert catalog.prices_for("H100_NVLINK_80GB::8", provider="fluidstack") == []
    assert usd(catalog, "fluidstack", "m1", "r1") == 2.0
    assert (
        catalog.age("fluidstack", 20_610 * DAY_MS).render()
        == "prices of fluidstack are 10 days old (2026-05-27)"
    )
    assert catalog.age("fluidstack", 20_610 * DAY_MS).source == "refreshed"
    assert [path.name for path in (tmp_path / "live").iterdir()] == ["fluidstack.prices"]


def test_a_refresh_of_spot_prices_leaves_the_others(tmp_path: Path) -> None:
    keep_refreshed(tmp_path, fetched(rows_at(2.0)), None, "2026-11-22")
    before = Catalog.load(tmp_path).market.block("fluidstack")
    keep_refreshed(
        tmp_path, fetched(rows_at(0.5, capacity=Capacity.SPOT), Capacity.SPOT), before, "2026-11-23"
    )
    catalog = Catalog.load(tmp_path)
    assert usd(catalog, "fluidstack", "m0", "r1") == 2.0
    assert usd(catalog, "fluidstack", "m0", "r1", Capacity.SPOT) == 0.5


@pytest.mark.parametrize("count", [0, 1])
def test_a_refresh_that_shrinks_strangely_is_refused(tmp_path: Path, count: int) -> None:
    keep_refreshed(tmp_path, fetched(rows_at(2.0)), None, "2026-11-22")
    old = (tmp_path / "live" / "fluidstack.prices").read_bytes()
    before = Catalog.load(tmp_path).market.block("fluidstack")
    with pytest.raises(ArgosyError) as caught:
        keep_refreshed(tmp_path, fetched(rows_at(1.0, count=count)), before, "2026-11-23")
    assert caught.value.what == (
        f"the new prices of fluidstack are refused: {count} instead of 4 before; the old ones are kept"
    )
    assert (tmp_path / "live" / "fluidstack.prices").read_bytes() == old
    keep_refreshed(tmp_path, fetched(rows_at(1.0, count=2)), before, "2026-11-23")  # half is believed


def test_prices_of_zero_are_not_taken(tmp_path: Path) -> None:
    rows = (
        *rows_at(2.0),
        *(row._replace(price_micro_usd=0, instance_type="free") for row in rows_at(1.0, count=1)),
    )
    kept = keep_refreshed(tmp_path, fetched(rows), None, "2026-11-22")
    assert (kept.after, kept.skipped) == (4, 1)
    assert kept.render() == "fluidstack: 4 prices (before: 0, 1 entry skipped)"


def test_a_full_disk_keeps_the_old_prices(tmp_path: Path) -> None:
    (tmp_path / "live").write_text("a file where the folder should be")
    with pytest.raises(ArgosyError, match="the old ones are kept") as caught:
        keep_refreshed(tmp_path, fetched(rows_at(2.0)), None, "2026-11-22")
    assert caught.value.code == "disk-full"


@pytest.mark.parametrize("damage", ["cut", "other", "section", "wrong-provider"])
def test_a_corrupt_user_catalog_falls_back(tmp_path: Path, damage: str) -> None:
    live = tmp_path / "live"
    live.mkdir()
    path = live / "lambda.prices"
    keep_refreshed(
        tmp_path,
        Fetched(provider="lambda", rows=rows_at(9.0), capacities=frozenset([Capacity.ON_DEMAND])),
        None,
        "2026-11-22",
    )
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[:30])
    elif damage == "other":
        path.write_text("hello")
    elif damage == "section":
        path.write_bytes(data[:-3] + b"abc")
    else:
        shutil.copy(path, live / "nebius.prices")
        path = live / "nebius.prices"
        (live / "lambda.prices").unlink()
    provider = path.stem
    catalog = Catalog.load(tmp_path)
    shipped = Table.open(SHIPPED).block(provider)
    assert list(rows_of(catalog.market.block(provider))) == list(rows_of(shipped))
    (warning,) = catalog.warnings
    assert warning.startswith(f"the catalog file live/{provider}.prices cannot be used: ")
    assert warning.endswith(
        f"; the shipped prices are used instead. `argosy catalog refresh {provider}` makes it again"
    )
    assert catalog.age(provider, 20_700 * DAY_MS).source == "shipped"
    found = rank([Resources(cpus=Bound(1000))], 1, catalog.market, limit=3)
    assert len(found.plan.choices) == 3
