"""Files in which people name clusters."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from argosy.infra.cluster_file import read_clusters
from argosy.model.errors import ArgosyError


class Lab(msgspec.Struct, forbid_unknown_fields=True):
    address: str


def read(path: Path) -> dict[str, Lab]:
    return read_clusters(path, Lab, example="address: HOST", page="docs/lab.md")


def test_clusters_by_name(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    assert read(file) == {}
    file.write_text("")
    assert read(file) == {}
    file.write_text("clusters: {a: {address: x}, b-1.c: {address: y}}\n")
    assert [*read(file)] == ["a", "b-1.c"]


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        (
            "clusters: [",
            "is not a list of clusters: while parsing",
            "write `clusters: {NAME: {address: HOST}}`",
        ),
        ("clusters: {a: {addres: x}}", "unknown field `addres`", "docs/lab.md has all fields"),
        ("cluster: {}", "unknown field `cluster`", "docs/lab.md has all fields"),
        ("clusters: {a/b: {address: x}}", "`a/b` in ", "use letters, digits, dots, dashes and underscores"),
    ],
)
def test_what_cannot_be_used_is_said_with_the_form(text: str, said: str, hint: str, tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(text)
    with pytest.raises(ArgosyError) as caught:
        read(file)
    assert caught.value.code == "spec-invalid"
    assert said in str(caught.value)
    assert hint in caught.value.hint


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ArgosyError, match="cannot be read") as caught:
        read(tmp_path)
    assert caught.value.code == "spec-unreadable"
