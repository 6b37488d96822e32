"""What a launch shows of its plan."""

from __future__ import annotations

import msgspec
import pytest
from command_line import CommandLine

from argosy.model.offer import Plan
from argosy.model.task import Task
from argosy.testing.fake_server import FakeServer


def test_a_managed_job_that_has_no_place_yet_shows_no_empty_table(
    argosy: CommandLine, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = server.planned

    def nowhere(task: Task) -> Plan:
        return msgspec.structs.replace(made(task), choices=())

    monkeypatch.setattr(server, "planned", nowhere)
    done = argosy("jobs", "launch", "-y", "-d", "--", "x")
    assert done.status == 0 and "is queued" in done.out and "INSTANCE" not in done.err
