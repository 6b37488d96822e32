"""Tables on narrow terminals: whole words, no line wider than the terminal, and the first column as it is."""

from __future__ import annotations

import io

import pytest

from argosy.cli.screen import Screen

OFFERS = ("INFRA", "INSTANCE", "CPUS", "KIND", "$/H", "SOURCE")
ROWS = [
    [
        "aws/us-east-1/use1-az1",
        "p4d.24xlarge",
        "96",
        "on-demand",
        "$21.96",
        "AWS Price List, read in November",
    ],
    ["lambda/us-east-1", "gpu_8x_a100", "124", "on-demand", "$10.32", "list of instance types"],
]
WHY = "waits for 2 CPUs: 2 of 2 in use by train, evaluate and somebody-with-a-very-long-name"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(
    width: int, columns: tuple[str, ...], rows: list[list[str]], spare: tuple[str, ...] = ()
) -> list[str]:
    screen, terminal = Screen({"COLUMNS": str(width), "NO_COLOR": "1"}), Terminal()
    screen.table(columns, rows, stream=terminal, right=("CPUS", "$/H"), spare=spare)
    return terminal.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 80, 120])
def test_columns_go_before_words_are_cut(width: int) -> None:
    lines = drawn(width, OFFERS, ROWS, spare=("SOURCE", "CPUS", "KIND", "INSTANCE"))
    assert all(len(line) <= width for line in lines), lines
    words = {word for row in ROWS for cell in row for word in cell.split()} | set(OFFERS)
    assert {word for line in lines for word in line.split()} <= words
    text = "\n".join(lines)
    assert "aws/us-east-1/use1-az1" in text and "$10.32" in text
    assert ("p4d.24xlarge" in text) == (width >= 80)


@pytest.mark.parametrize("width", [40, 80])
def test_a_sentence_is_broken_between_words(width: int) -> None:
    lines = drawn(width, ("ID", "STATUS", "DETAIL"), [["12", "queued", WHY]], spare=("STATUS",))
    assert all(len(line) <= width for line in lines), lines
    told = " ".join(line[lines[0].index("DETAIL") :].strip() for line in lines[1:])
    shortened = "somebody-with-a-very-lo" if width == 40 else "somebody-with-a-very-long-name"
    assert (
        told.startswith("waits for 2 CPUs: 2 of 2 in use by train, evaluate and") and shortened[:20] in told
    )


def test_the_first_column_is_never_cut() -> None:
    name = "a-name-that-must-be-copied-" + "x" * 40
    assert drawn(40, ("NAME", "STATUS"), [[name, "running"]]) == ["NAME", name]


def test_colours_do_not_move_columns() -> None:
    screen, terminal = Screen({"COLUMNS": "80", "TERM": "xterm"}), Terminal()
    screen.table(("NAME", "STATUS", "INFRA"), [["dev", "running", "local"]], stream=terminal)
    assert terminal.getvalue().splitlines()[1] == "dev   \x1b[32mrunning\x1b[0m  local"
