"""Units, ids, errors: what is read, what is refused, and that nothing is lost between machine and text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.model.errors import CODES, ArgosyError, Problem, render_error
from argosy.model.ids import make_id
from argosy.model.units import (
    GIB,
    Bound,
    parse_cpus,
    parse_duration_s,
    parse_milli,
    parse_size,
    render_bytes,
    render_duration,
    render_milli,
    render_price,
)


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("4", Bound(4000, True)),
        ("4+", Bound(4000)),
        (0.5, Bound(500, True)),
        (" 2.5+ ", Bound(2500)),
        (8, Bound(8000, True)),
    ],
)
def test_cpus(text: str | float, bound: Bound) -> None:
    assert parse_cpus(text) == bound


def test_a_bound_holds_exactly_or_from_there_on() -> None:
    assert Bound(4000).holds(8000)
    assert not Bound(4000, exact=True).holds(8000)
    assert not Bound(4000).holds(3999)


@pytest.mark.parametrize("text", ["", "four", "-1", "0", "nan", "inf", "1e999", "4++"])
def test_what_is_no_number_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="`"):
        parse_cpus(text)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("8", 8 * GIB),
        (8, 8 * GIB),
        ("512MB", 512 << 20),
        ("1.5TB", 1536 * GIB),
        ("2 gib", 2 * GIB),
        ("10b", 10),
    ],
)
def test_sizes(text: str | int, amount: int) -> None:
    assert parse_size(text) == amount


@pytest.mark.parametrize("text", ["8X", "GB", "-8", "0", "8 GB GB", "1.2.3"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="`"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 600), ("90s", 90), ("36h", 129600), ("1h30m", 5400), ("2d", 172800), (1.5, 90)],
)
def test_durations(text: str | float, seconds: int) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "1h 30x", "h1", "--5m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration_s(text)


@given(st.integers(1, 10**7))
def test_milli_survive_their_text(milli: int) -> None:
    assert parse_milli(render_milli(milli)) == milli


@given(st.integers(0, 1 << 60), st.floats(0, 1e9))
def test_rendering_never_fails(amount: int, seconds: float) -> None:
    assert render_bytes(amount)
    assert render_price(amount).startswith("$")
    assert render_duration(seconds)


@given(st.integers(0, (1 << 50) - 1), st.integers(0, (1 << 50) - 1), st.integers(0, (1 << 50) - 1))
def test_ids_sort_by_time_then_dice(early_ms: int, late_ms: int, dice: int) -> None:
    early_ms, late_ms = sorted((early_ms, late_ms))
    first, second = make_id("job", early_ms, dice), make_id("job", late_ms, dice)
    assert (first < second) == (early_ms < late_ms)
    assert len(first) == len("job-") + 20


def test_an_error_states_the_fact_then_the_fix() -> None:
    error = ArgosyError("not-found", "there is no cluster `x`", details=("y is near",))
    assert (
        render_error(error) == f"error: there is no cluster `x`\n  y is near\nhint: {CODES['not-found'].hint}"
    )
    placed = ArgosyError(
        "spec-invalid", "unknown field `acelerators`", where="a.yaml:6:3", hint="did you mean `accelerators`?"
    )
    assert (
        render_error(placed) == "a.yaml:6:3: unknown field `acelerators`\nhint: did you mean `accelerators`?"
    )


@pytest.mark.parametrize("code", sorted(CODES))
def test_errors_survive_the_wire(code: str) -> None:
    error = ArgosyError(code, "what", hint="do", where="here", details=("a", "b"))
    back = ArgosyError.from_problem(error.problem())
    assert (back.code, back.what, back.hint, back.where, back.details) == (
        code,
        "what",
        "do",
        "here",
        ("a", "b"),
    )
    assert back.exit_status == CODES[code].exit


def test_an_unknown_code_is_a_bug_here_and_internal_from_a_peer() -> None:
    with pytest.raises(ValueError, match="CODES"):
        ArgosyError("no-such-code", "x")
    assert ArgosyError.from_problem(Problem(code="from-the-future", what="x")).code == "internal"
