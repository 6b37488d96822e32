"""Whose jobs these are: the name that the user gave, the shell says, or the system knows."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys

import pytest

from argosy.client.login import user_name

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({"ARGOSY_USER": "ann", "USER": "root", "LOGNAME": "root"}, "ann"),
        ({"ARGOSY_USER": " ", "USER": "bob"}, "bob"),
        ({"LOGNAME": "cho"}, "cho"),
        ({}, ME),  # cron, containers, services
        ({"HOME": "/somewhere/else", "USER": ""}, ME),
    ],
)
def test_the_name(env: dict[str, str], name: str) -> None:
    assert user_name(env) == name


def test_a_uid_that_the_system_does_not_know() -> None:
    if os.getuid() != 0:
        pytest.skip("only root may become somebody else")
    code = "import os; from argosy.client.login import user_name; os.setuid(54321); print(user_name({}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "uid-54321\n"
