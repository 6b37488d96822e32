"""SortedMap against a dict."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from argosy.store.sorted_map import SortedMap

KEYS = st.text(alphabet="ab\0c", max_size=4)
CHANGES = st.lists(st.dictionaries(KEYS, st.one_of(st.none(), st.integers()), max_size=12), max_size=20)


def check(made: SortedMap[int], model: dict[str, int]) -> None:
    assert len(made) == len(model)
    assert list(made.items()) == sorted(model.items())
    assert list(made) == sorted(model) and list(made.values()) == [model[key] for key in sorted(model)]
    assert made == model
    for key in model:
        assert made[key] == model[key] and key in made
        for beginning in {key[:1], key[:2], key}:
            expected = tuple(model[other] for other in sorted(model) if other.startswith(beginning))
            assert made.span(beginning) == expected
    assert made.get("zz") is None and "zz" not in made and made.get("zz", 5) == 5
    assert made.span("zz") == ()


@given(CHANGES)
def test_is_a_dict_that_never_changes(steps: list[dict[str, int | None]]) -> None:
    made: SortedMap[int] = SortedMap()
    model: dict[str, int] = {}
    past = [(made, dict(model))]
    for changes in steps:
        made = made.changed(changes)
        for key, value in changes.items():
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
        past.append((made, dict(model)))
    for old, was in past:
        check(old, was)
        seen = list(made.differences(old))
        keys = sorted(key for key in was.keys() | model.keys() if was.get(key) != model.get(key))
        assert [pair for pair in seen if pair[0] != pair[1]] == [
            (was.get(key), model.get(key)) for key in keys
        ]


@given(st.randoms(use_true_random=False), st.sampled_from([50, 500, 3000]))
def test_large_maps_grow_and_shrink(dice, size: int) -> None:  # type: ignore[no-untyped-def]
    model = {f"{dice.randrange(10)}/{dice.randrange(10**6):06d}": n for n in range(size)}
    made = SortedMap[int]().changed(model)
    check_large(made, model)
    while model:
        gone = dice.sample(sorted(model), k=min(len(model), dice.randrange(1, max(2, size // 5))))
        fresh = {f"{dice.randrange(10)}/{dice.randrange(10**6):06d}": 1 for _ in range(len(gone) // 3)}
        made = made.changed({**dict.fromkeys(gone), **fresh})
        model = {key: value for key, value in model.items() if key not in gone} | fresh
        check_large(made, model)


def check_large(made: SortedMap[int], model: dict[str, int]) -> None:
    assert list(made.items()) == sorted(model.items())
    for beginning in map(str, range(10)):
        assert made.span(beginning) == tuple(
            value for key, value in sorted(model.items()) if key.startswith(beginning)
        )


def test_a_change_copies_little() -> None:
    large = SortedMap[int]().changed({f"{n:05d}": n for n in range(5000)})
    changed = large.changed({"02500": -1})
    shared = sum(a is b for a, b in zip(large._chunks, changed._chunks, strict=True))
    assert shared == len(large._chunks) - 1
    assert max(len(keys) for keys, _ in large._chunks) <= 128
    emptied = large.changed({f"{n:05d}": None for n in range(5000) if n % 50})
    assert len(emptied) == 100 and len(emptied._chunks) < 15  # thin chunks were joined
