"""Files of a session: `~` is its own home, filled when it starts for the first time."""

from __future__ import annotations

import pytest

from argosy.controllers.effects import place_of_mount
from argosy.controllers.view import PrepareRanks
from argosy.infra.agent_port import AppOrder, RankOrder
from argosy.testing.builders import a_job, an_attempt

HOME = "/shared/checkpoints/ses-1"


def prepared(app: AppOrder | None, job: int, attempt: int) -> PrepareRanks:
    order = RankOrder(id="att-1.0", job="job-1", attempt=attempt, run="true", app=app)
    return PrepareRanks(an_attempt(number=attempt), a_job(number=job), "nod-1", (order,))


@pytest.mark.parametrize(
    ("target", "job", "attempt", "place"),
    [
        ("~/.config", 1, 1, HOME + "/.config"),
        ("~/.config", 2, 1, ""),  # what the session changed stays
        ("~/.config", 1, 2, ""),
        ("/data", 2, 1, "/data"),
        ("data", 1, 1, "workdir/data"),
    ],
)
def test_of_a_session(target: str, job: int, attempt: int, place: str) -> None:
    app = AppOrder(name="terminal", home=HOME)
    assert place_of_mount(target, prepared(app, job, attempt)) == place


def test_of_a_job_it_is_the_nodes_home() -> None:
    assert place_of_mount("~/.config", prepared(None, 3, 2)) == "~/.config"
