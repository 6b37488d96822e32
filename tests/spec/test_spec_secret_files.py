"""Secrets that are files: what may be written."""

from __future__ import annotations

import pytest

from argosy.model.errors import ArgosyError
from argosy.spec.parse import parse_task
from argosy.spec.render import render_task


def test_where_a_secret_is_a_file() -> None:
    task = parse_task("secrets: {KEY: k}\nsecret_files: {KEY: /run/secrets/key}\nrun: x").tasks[0]
    assert (task.secrets, task.secret_files) == ({"KEY": "k"}, {"KEY": "/run/secrets/key"})
    assert "secret_files:\n  KEY: /run/secrets/key\n" in render_task(task)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("{KEY: a/b}", "neither a name nor a path from `/`"),
        ("{KEY: ~/key}", "neither a name nor a path from `/`"),
        ("{KEY: /run/../etc/x}", "is no path of a file"),
    ],
)
def test_what_cannot_be_a_file(line: str, text: str) -> None:
    with pytest.raises(ArgosyError) as told:
        parse_task(f"secrets: {{KEY: k}}\nsecret_files: {line}\nrun: x")
    assert text in str(told.value)
