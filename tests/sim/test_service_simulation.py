"""Services in a world that fails: 4 seeds here and 300 each night, with rollouts good and bad, and requests
that no
drain may cut."""

from __future__ import annotations

import msgspec
import pytest
from replayer import Replayer

from argosy.testing.faults import Faults
from argosy.testing.sim_services import ServiceSimulation

LIMIT_S = 280  # of one chunk, on a machine that does other things as well

pytestmark = pytest.mark.timeout(LIMIT_S + 20)


def test_all_laws_hold(replayer: Replayer) -> None:
    done = replayer.run("--services", 0, 3)
    assert done.returncode == 0, done.stdout


#: A revision that answered and then failed was taken for good; a third one left one of two replicas.
BROKE = (6, 7)
#: The clock of the servers jumped back, and replicas were counted over a negative time; the only revision
#: that ever answered ends after three seconds, and was waited for.
BROKE_AT_NIGHT = (1009, 1010, 1013, 1066)


def test_what_once_broke_a_law(replayer: Replayer) -> None:
    done = replayer.run("--services", ",".join(map(str, BROKE)))
    assert done.returncode == 0, done.stdout[-3000:]


def test_who_is_given_notice_is_replaced_ahead_and_cuts_no_request() -> None:
    rough = msgspec.structs.replace(Faults(), preemptions_per_h=20.0, notice=1.0)
    outcome = ServiceSimulation(5003, faults=rough, minutes=10).run()
    assert any("replaces a replica ahead" in line for line in outcome.log)


@pytest.mark.nightly
def test_what_once_broke_a_law_at_night(replayer: Replayer) -> None:
    done = replayer.run("--services", ",".join(map(str, BROKE_AT_NIGHT)))
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.nightly
@pytest.mark.parametrize("first", range(1000, 1300, 10))
def test_all_laws_hold_at_night(first: int, replayer: Replayer) -> None:
    done = replayer.run("--services", first, first + 9)
    assert done.returncode == 0, done.stdout
