"""Each place that Argosy runs on against each thing that may be wrong: every cell is a test, or says why the
place knows no such answer. A new driver fails here until its row is full."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path
from typing import Final

import pytest

from argosy.infra.provider import Manifest
from argosy.providers import find_providers, is_launchable
from argosy.providers.enabling import standing_of
from argosy.testing.conformance import refusals
from argosy.testing.conformance.refusals import REFUSALS

REPO = Path(__file__).parents[2]
PLACES: Final = {name: module.MANIFEST for name, module in find_providers().items() if is_launchable(module)}
#: What may be wrong; for places on `testing.fake_cloud` the case of `REFUSALS` that all of them pass.
WRONG: Final = {
    "wrong credentials": refusals.rejected_credentials_say_what_to_do,
    "an unknown region": refusals.a_region_that_it_does_not_have_is_named,
    "an unknown type": refusals.a_type_that_it_does_not_have_is_named,
    "quota 0": refusals.a_quota_of_zero_leaves_nothing,
    "no capacity": refusals.no_room_leaves_nothing,
    "a name or field that it refuses": refusals.what_an_order_may_not_say_is_told_in_its_words,
    "a key that it does not know": refusals.a_key_that_it_does_not_know_is_told,
    "an account without billing": refusals.an_account_that_nobody_pays_for_is_told,
    "a disabled account": refusals.an_account_that_is_disabled_is_told,
    "a web page": refusals.a_page_instead_of_an_answer_is_named,
    "429 for an hour": refusals.too_many_calls_wait_as_long_as_they_are_told,
    "a clock that is off": refusals.a_clock_that_is_off_is_named,
}
#: Rows of places that are no clouds of machines, and of what is not as everywhere.
OWN: Final = tomllib.loads((Path(__file__).parent / "refusals.toml").read_text("utf-8"))
#: Files of tests that are not called like their place, or whose refusals are not `test_refusals`.
FILES: Final = {"fluidstack": ("test_fluidstack", "test_refusals_of_the_old_platform")}


def shared(place: str) -> set[object]:
    """The cases of `REFUSALS` that the tests of a place run."""
    file, name = FILES.get(place, (f"test_{place}", "test_refusals"))
    if not (REPO / "tests" / "providers" / f"{file}.py").exists():
        return set()
    pytest.importorskip("aiohttp")
    test = getattr(importlib.import_module(file), name)
    marks = [each for each in test.pytestmark if each.name == "parametrize" and each.args[0] == "case"]
    return {getattr(case, "values", (case,))[0] for mark in marks for case in mark.args[1]}


def test_each_thing_that_may_be_wrong_has_a_case() -> None:
    assert set(WRONG.values()) == set(REFUSALS)


@pytest.mark.parametrize("place", PLACES)
def test_every_cell_is_filled(place: str) -> None:
    own: dict[str, str] = OWN.get(place, {})
    assert own.keys() <= WRONG.keys()
    cases = shared(place) if own.keys() < WRONG.keys() else set()
    assert [what for what, case in WRONG.items() if case not in cases and what not in own] == []
    for what, where in own.items():
        if where.startswith("- "):
            continue
        file, _, test = where.partition("::")
        text = (REPO / "tests" / "providers" / f"{file}.py").read_text("utf-8")
        found = re.search(rf"^def {test}\(.*?(?=^[^\s)]|\Z)", text, re.MULTILINE | re.DOTALL)
        assert found is not None, (place, what, where)
        assert re.search(r"assert .*(==|\bin\b|fullmatch)", found[0]), f"{where} looks at no text"


@pytest.mark.parametrize(
    "manifest", [each for each in PLACES.values() if each.credentials], ids=lambda each: each.name
)
def test_missing_credentials_say_every_place_where_they_are_looked_for(manifest: Manifest) -> None:
    """And the command, or the page, by which they are made."""
    standing = standing_of(manifest, {"HOME": "/nonexistent", "PATH": ""})
    if standing.in_use:
        pytest.skip(f"this machine has {standing.found}")
    assert standing.fact.startswith(f"{manifest.title} is not in use") or manifest.name in standing.fact
    assert [each for each in manifest.credentials if each not in standing.fix] == []
    assert manifest.sign_in in standing.fix
