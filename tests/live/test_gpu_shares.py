"""Shares of a real card: run where there is one (Volta or newer, MPS installed), skipped with the reason
elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

gpu_share = pytest.importorskip("gpu_share")

OUT_OF_MEMORY = 2
MIB = 1 << 20


@pytest.fixture(scope="module")
def card() -> Iterator[object]:
    with gpu_share.Card() as made:
        try:
            gpu_share.usable_device(made.facts())
        except RuntimeError as error:
            pytest.skip(f"SHARES OF A REAL CARD ARE NOT TESTED HERE: {error}")
        yield made


@pytest.fixture(scope="module")
def quarter(card: object) -> object:
    return card.share(gpu_share.usable_device(card.facts()), 250, "mps")  # type: ignore[attr-defined]


def test_four_programs_see_a_quarter_of_the_memory_each(card: object, quarter: object) -> None:
    for result in card.run([(quarter, "$CUDA info")] * 4):  # type: ignore[attr-defined]
        assert result.fact.exit_code == 0
        assert result.said["free_bytes"] <= quarter.memory_bytes  # type: ignore[attr-defined]
        assert result.said["free_bytes"] > quarter.memory_bytes * 0.8, "a context takes a little"  # type: ignore[attr-defined]


def test_who_wants_more_is_refused_and_the_others_go_on(card: object, quarter: object) -> None:
    size = quarter.memory_bytes  # type: ignore[attr-defined]
    greedy, *others = card.refuse_one_of_four(quarter, size * 3 // 2)  # type: ignore[attr-defined]
    assert greedy.said["error"] == OUT_OF_MEMORY
    assert greedy.said["bytes"] <= size
    for other in others:
        assert (other.fact.exit_code, other.said["error"]) == (0, 0)
        assert other.said["bytes"] >= size // 2
        assert other.said["rounds"] > 1


def test_a_program_that_forgets_its_environment_is_held_all_the_same(card: object, quarter: object) -> None:
    text = "unset CUDA_MPS_PINNED_DEVICE_MEM_LIMIT CUDA_MPS_ACTIVE_THREAD_PERCENTAGE; $CUDA fill "
    size = quarter.memory_bytes  # type: ignore[attr-defined]
    (result,) = card.run([(quarter, f"{text}{size * 3 // 2}")])  # type: ignore[attr-defined]
    assert result.said["error"] == OUT_OF_MEMORY
    assert result.said["bytes"] <= size


def test_four_quarters_do_the_work_of_one_whole_card(card: object) -> None:
    """No timed assertion on how fast: only shares against the whole, with much room."""
    device = gpu_share.usable_device(card.facts())  # type: ignore[attr-defined]
    (whole,) = card.work(device, "", 1000, 1, 3.0)  # type: ignore[attr-defined]
    (alone,) = card.work(device, "mps", 250, 1, 3.0)  # type: ignore[attr-defined]
    quarters = card.work(device, "mps", 250, 4, 3.0)  # type: ignore[attr-defined]
    assert alone < 0.5 * whole, "a quarter alone is held to its part of the multiprocessors"
    assert sum(quarters) > 0.5 * whole
    assert max(quarters) < 2 * median(quarters)


def test_who_fails_with_a_neighbour_is_told_why(card: object, quarter: object) -> None:
    """The documented weakness of MPS: a fault ends all clients of the device. People hear of it."""
    neighbour, faulty = card.run(  # type: ignore[attr-defined]
        [
            (quarter, f"$CUDA hold {64 * MIB} ../over"),
            (
                quarter,
                "until ls ../over.* >/dev/null 2>&1; do sleep 0.1; done; $CUDA fault; sleep 5; touch "
                "../over; exit 1",
            ),
        ]
    )
    assert faulty.said["error"] != 0
    if neighbour.fact.exit_code:
        assert "MPS failed while it ran" in neighbour.fact.detail
