"""Every defence of the list is where the list says, and its tests are there; by night it is taken out."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutations import MUTATIONS, REPO, Bench, Mutation, text_of

#: What was suffered elsewhere; each is in the list, most with several defences.
ATTACKS = 50


def _name(mutation: Mutation) -> str:
    return f"{mutation.attack}: {mutation.defence}".replace(" ", "-")


def test_every_defence_stands_once_where_the_list_says() -> None:
    wrong = [_name(each) for each in MUTATIONS if text_of(each).count(each.old) != 1 or each.old == each.new]
    assert wrong == [], "it moved or changed: say in mutations.toml where it is now"
    assert len({each.attack for each in MUTATIONS}) >= ATTACKS
    assert len({_name(each) for each in MUTATIONS}) == len(MUTATIONS)


def test_every_test_of_the_list_is_there() -> None:
    missing = []
    for test in {test for each in MUTATIONS for test in each.tests}:
        file, _, name = test.partition("::")
        path = REPO / "tests" / file
        if not path.is_file() or f"def {name.partition('[')[0]}" not in path.read_text():
            missing.append(test)
    assert missing == []


@pytest.mark.nightly
@pytest.mark.parametrize("mutation", MUTATIONS, ids=_name)
def test_a_defence_that_is_missing_is_noticed(mutation: Mutation, tmp_path: Path) -> None:
    result = Bench(tmp_path).run(mutation)
    assert result.is_found, result.said
