"""Rollouts: the old revision stays until the new one is good, and everybody is answered meanwhile."""

from __future__ import annotations

import pytest
from service_stage import Stage

from argosy.model.kinds.service import RolloutPhase
from argosy.model.served import Count
from argosy.model.serving import Strategy, canary_steps

_CANARY = Strategy(name="canary", steps=canary_steps(10), bake_ms=60_000, bake_requests=10)


def a_stage(replicas: int = 4) -> Stage:
    stage = Stage(replicas=replicas)
    stage.beat()
    stage.least_ready = 10_000
    return stage


def phase(stage: Stage) -> RolloutPhase:
    assert stage.state.rollout is not None
    return stage.state.rollout.phase


def test_a_rolling_update_replaces_all_and_never_has_fewer_ready() -> None:
    stage = a_stage(4)
    stage.update(replicas=4)
    seen = []
    for _ in range(60):
        stage.beat()
        seen.append(dict(stage.weights))
        assert len(stage.replicas()) <= 4 + 1 + 1, "surge is one; one may be on its way out"
    assert stage.least_ready >= 4 and stage.ready(2) == 4 and stage.ready(1) == 0
    assert phase(stage) is RolloutPhase.PROMOTED and stage.state.serves == 2 and stage.weights == {2: 1000}
    assert all(sum(each.values()) == 1000 for each in seen)


def test_a_revision_without_machines_changes_nothing() -> None:
    stage = a_stage(4)
    stage.room = 4
    stage.update(replicas=4)
    stage.beat(times=600)
    assert stage.ready(1) == 4 and stage.weights == {1: 1000} and phase(stage) is RolloutPhase.PROGRESSING


@pytest.mark.parametrize("how", ["broken", "crashing"])
def test_a_revision_that_does_not_become_ready_is_taken_back_and_remembered(how: str) -> None:
    stage = a_stage(4)
    getattr(stage, how).add(2)
    stage.update(replicas=4)
    stage.beat(times=100)
    assert phase(stage) is RolloutPhase.ROLLED_BACK and stage.state.bad == ("digest-2",)
    assert stage.least_ready >= 4 and stage.ready(1) == 4 and stage.weights == {1: 1000}
    assert stage.told("rolling-back")[0].startswith(
        "revision 2 is rolled back: its replicas do not become ready"
    )
    made = stage.state.made
    stage.beat(10, times=30)
    assert stage.state.made == made, "nothing more of it is started"


def test_a_canary_goes_step_by_step_and_waits_for_requests() -> None:
    stage = a_stage(4)
    stage.update(_CANARY, replicas=4)
    stage.beat(times=9)
    assert stage.weights == {1: 900, 2: 100} and stage.ready(2) == 1 and phase(stage) is RolloutPhase.BAKING
    stage.beat(10, times=30)
    assert stage.weights == {1: 900, 2: 100}, "nobody has asked it anything"
    assert stage.state.rollout is not None
    assert stage.state.rollout.why == "answered: 0 requests; the next step begins after 10"
    stage.counts = {2: Count(requests=10)}
    stage.beat(10, times=3)
    assert stage.weights == {1: 500, 2: 500} and stage.ready(2) == 2
    stage.counts = {2: Count(requests=100)}
    stage.beat(10, times=20)
    assert stage.weights == {2: 1000} and phase(stage) is RolloutPhase.PROMOTED and stage.least_ready >= 4


def test_a_canary_is_promoted_by_hand_and_taken_back_by_hand() -> None:
    stage = a_stage(4)
    stage.update(_CANARY, replicas=4)
    stage.beat(times=9)
    stage.want(promote=2)
    stage.beat(times=60)
    assert stage.state.serves == 2 and stage.weights == {2: 1000}
    stage.update(_CANARY, replicas=4)
    stage.beat(times=9)
    stage.want(wanted=2)
    stage.beat(times=9)
    assert phase(stage) is RolloutPhase.ROLLED_BACK and stage.weights == {2: 1000} and stage.state.bad == ()


def test_blue_and_green_switch_at_once_and_blue_stays_for_a_while() -> None:
    stage = a_stage(3)
    stage.update(Strategy(name="blue-green", keep_ms=600_000), replicas=3)
    stage.beat(times=9)
    assert (stage.ready(1), stage.ready(2)) == (3, 3) and stage.weights == {2: 1000}
    generation = stage.state.generation
    stage.want(wanted=1)
    stage.beat()
    assert stage.weights == {1: 1000} and stage.state.generation > generation, "back at once"
    stage.update(Strategy(name="blue-green", keep_ms=600_000), replicas=3)
    stage.beat(times=9)
    stage.beat(600)
    stage.beat(times=9)
    assert (stage.ready(1), stage.ready(3)) == (0, 3) and phase(stage) is RolloutPhase.PROMOTED


def test_a_shadow_gets_no_requests_until_it_is_promoted() -> None:
    stage = a_stage(2)
    stage.update(Strategy(name="shadow"))
    stage.beat(times=12)
    assert stage.weights == {1: 1000} and stage.ready(2) == 1 and phase(stage) is RolloutPhase.PAUSED
    stage.want(promote=2)
    stage.beat(times=20)
    assert stage.weights == {2: 1000} and stage.ready(2) == 2


def test_users_of_an_experiment_are_shared_out_until_somebody_decides() -> None:
    stage = a_stage(4)
    stage.update(Strategy(name="ab", steps=(250,)), replicas=4)
    stage.beat(100, times=50)
    assert stage.weights == {1: 750, 2: 250} and phase(stage) is RolloutPhase.PAUSED


def test_a_newer_revision_takes_the_place_of_one_that_is_on_its_way() -> None:
    stage = a_stage(4)
    stage.broken = {2}
    stage.update(replicas=4)
    stage.beat(times=12)
    stage.update(replicas=4)
    stage.beat(times=60)
    assert stage.state.serves == 3 and stage.ready(3) == 4 and len(stage.replicas()) == 4
    assert stage.told("rollout-superseded") == ["revision 2 makes way for revision 3"]


def test_what_a_third_revision_has_ready_stays_until_the_old_one_is_back() -> None:
    stage = a_stage(2)
    stage.update(replicas=2)
    stage.beat(times=6)
    assert (stage.ready(1), stage.ready(2)) == (1, 2)
    stage.room = 3  # machines that are there already
    stage.busy = {each.job_id: 1 for each in stage.replicas() if each.revision == 2}  # they drain for long
    stage.update(replicas=2)
    stage.beat()
    stage.want(wanted=1)
    stage.beat(times=5)
    assert stage.ready(1) == stage.ready(2) == 1 and stage.weights == {1: 500, 2: 500}
    assert phase(stage) is RolloutPhase.ROLLING_BACK
    stage.room, stage.busy = 100, {}
    stage.beat(times=60)
    assert phase(stage) is RolloutPhase.ROLLED_BACK and stage.least_ready == 2
    assert stage.ready(1) == len(stage.replicas()) == 2 and stage.weights == {1: 1000}


def test_a_first_revision_that_never_worked_makes_way_at_once() -> None:
    stage = Stage(replicas=2)
    stage.broken = {1}
    stage.beat(times=9)
    stage.update()
    stage.beat(times=12)
    assert stage.state.serves == 2 and stage.ready(2) == 2 and len(stage.replicas()) == 2


def test_a_rollout_of_a_service_at_zero_starts_one_to_see_whether_it_is_good() -> None:
    stage = a_stage(2)
    stage.want(fixed=0)
    stage.beat(times=9)
    assert not stage.replicas()
    stage.update()
    stage.beat(times=12)
    assert stage.state.serves == 2
    stage.beat(times=9)
    assert not stage.replicas()


def test_a_canary_that_fails_more_often_is_taken_back_by_its_answers() -> None:
    stage = a_stage(4)
    stage.update(_CANARY, replicas=4)
    stage.beat(times=9)
    stage.counts = {1: Count(requests=9000, errors=90), 2: Count(requests=1000, errors=10)}
    stage.beat()
    assert phase(stage) is RolloutPhase.BAKING, "one in a hundred fails, as before"
    stage.counts = {1: Count(requests=9000, errors=90), 2: Count(requests=1000, errors=40)}
    stage.beat()
    assert phase(stage) is RolloutPhase.ROLLED_BACK and stage.weights == {1: 1000}
    assert stage.told("rolling-back")[0].startswith("revision 2 is rolled back: 40 of 1,000 requests failed")
    assert stage.state.bad == ("digest-2",)


def test_a_revision_whose_every_answer_fails_needs_no_statistics() -> None:
    stage = a_stage(4)
    stage.update(replicas=4)
    stage.room = 5
    stage.counts = {1: Count(requests=100), 2: Count(requests=20, errors=20)}
    stage.beat(times=12)
    assert phase(stage) is RolloutPhase.ROLLED_BACK
    assert stage.told("rolling-back") == ["revision 2 is rolled back: 20 of 20 requests failed"]


def test_nothing_is_taken_back_by_itself_where_a_person_decides() -> None:
    stage = a_stage(4)
    stage.update(Strategy(name="canary", steps=(100, 1000), auto=False, bake_ms=1000), replicas=4)
    stage.counts = {1: Count(requests=100), 2: Count(requests=20, errors=20)}
    stage.beat(10, times=12)
    assert phase(stage) is RolloutPhase.PAUSED and stage.weights == {1: 900, 2: 100}
