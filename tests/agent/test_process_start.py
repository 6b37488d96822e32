"""The way to start programs on Pythons whose `posix_spawn` cannot make sessions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from argosy.agent import processes

STARTS = [
    processes.spawn,
    lambda *a, append: processes._fork_and_exec(*a, append, os.O_WRONLY | os.O_APPEND | os.O_CREAT),
]


@pytest.mark.parametrize("start", STARTS, ids=["posix_spawn", "fork"])
def test_a_program_gets_its_own_session_files_and_signals(tmp_path: Path, start: object) -> None:
    out = tmp_path / "out"
    script = (
        "echo $ONE; readlink /proc/self/fd/0; echo error >&2; cut -d' ' -f6 /proc/$$/stat; echo $$; exit 7"
    )
    pid = start(
        ["/bin/sh", "-c", script],
        {"ONE": "1", "PATH": os.environ["PATH"]},
        "/dev/null",
        str(out),
        append=True,
    )  # type: ignore[operator]
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    one, stdin, error, session, shell = out.read_text().split()
    assert (one, stdin, error) == ("1", "/dev/null", "error")
    assert session == shell == str(pid)


@pytest.mark.parametrize("start", STARTS, ids=["posix_spawn", "fork"])
def test_what_cannot_be_started_raises(tmp_path: Path, start: object) -> None:
    with pytest.raises(FileNotFoundError):
        start(["/no/such/program"], {}, "/dev/null", str(tmp_path / "out"), append=True)  # type: ignore[operator]
    with pytest.raises(FileNotFoundError):
        start(["/bin/sh", "-c", "true"], {}, "/dev/null", str(tmp_path / "no/such/folder"), append=True)  # type: ignore[operator]
