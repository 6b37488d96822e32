"""How many replicas a service wants."""

from __future__ import annotations

import datetime as dt

import pytest
from msgspec.structs import replace

from argosy.controllers.service.scaling import FRESH, wanted_replicas
from argosy.controllers.service.work import Language, quantile
from argosy.model.calendar import is_between, parse_cron, zone_of
from argosy.model.scaling import (
    CONCURRENCY,
    GPU,
    LATENCY,
    QUEUE,
    REQUESTS,
    WORK,
    Cron,
    Formula,
    Memory,
    Policy,
    Scaled,
    Seen,
    Target,
)

HOUR = 3_600_000


def _seen(now_s: float = 1000, ready: int = 1, **kwargs: object) -> Seen:
    return replace(Seen(now_ms=int(now_s * 1000), ready=ready), **kwargs)


def _policy(*targets: Target, **kwargs: object) -> Policy:
    return replace(Policy(formula=Formula.TARGET, min_replicas=1, max_replicas=20, targets=targets), **kwargs)


def _later(policy: Policy, seen: Seen, seconds: int, memory: Memory = FRESH, step: int = 10) -> Scaled:
    """The last of the answers to the same signals over some time; what was wanted is there at once."""
    answer = wanted_replicas(policy, seen, memory)
    for _ in range(step, seconds + 1, step):
        seen = replace(seen, now_ms=seen.now_ms + step * 1000, ready=answer.replicas)
        answer = wanted_replicas(policy, seen, answer.memory)
    return answer


def test_a_fixed_number_stays() -> None:
    answer = wanted_replicas(Policy(min_replicas=3, max_replicas=3), _seen(held=99))
    assert (answer.replicas, answer.why) == (3, "the number of replicas is fixed")


@pytest.mark.parametrize(
    ("target", "signals", "ready", "wanted"),
    [
        (Target(signal=REQUESTS, value=10), {REQUESTS: [35.0] * 60}, 2, 4),
        (Target(signal=CONCURRENCY, value=4), {CONCURRENCY: [9.0] * 60}, 2, 3),
        (Target(signal=QUEUE, value=5), {QUEUE: [0.0] * 30 + [10.0] * 30}, 1, 2),  # panic: the last seconds
        (Target(signal="orders", value=5), {"orders": [23.0]}, 4, 5),
        (Target(signal=LATENCY, value=0.5, each=False), {LATENCY: [1.0] * 60}, 3, 6),
        (Target(signal=GPU, value=70, each=False), {GPU: [73.0] * 60}, 3, 3),  # within the tolerance
        (Target(signal=GPU, value=70, each=False), {GPU: [98.0] * 60}, 5, 7),
    ],
)
def test_targets(target: Target, signals: dict[str, list[float]], ready: int, wanted: int) -> None:
    assert wanted_replicas(_policy(target), _seen(ready=ready, signals=signals)).replicas == wanted


def test_the_target_that_needs_the_most_counts() -> None:
    policy = _policy(
        Target(signal=REQUESTS, value=10), Target(signal="jobs", value=1, trigger="aws-sqs-queue")
    )
    answer = wanted_replicas(policy, _seen(ready=3, signals={REQUESTS: [15.0], "jobs": [7.0]}))
    assert answer.replicas == 7
    assert answer.why == "'aws-sqs-queue' is 7, 1 each"


def test_a_long_queue_is_ordered_for_step_by_step() -> None:
    policy, memory, wanted = _policy(Target(signal="jobs", value=1), max_replicas=99), FRESH, []
    seen = _seen(ready=0, signals={"jobs": [500.0]})
    for second in range(0, 40, 5):
        answer = wanted_replicas(policy, replace(seen, now_ms=seen.now_ms + second * 1000), memory)
        memory, seen = answer.memory, replace(seen, starting=answer.replicas)
        wanted.append(answer.replicas)
    assert wanted == [4, 4, 4, 12, 12, 12, 36, 36]


def test_fewer_only_after_the_hold() -> None:
    policy = _policy(Target(signal=REQUESTS, value=1), hold_s=300)
    busy = _later(policy, _seen(ready=5, signals={REQUESTS: [8.0] * 60}), 400)
    assert busy.replicas == 8
    calm = _seen(1410, 8, signals={REQUESTS: [2.0] * 60})
    assert _later(policy, calm, 280, busy.memory).replicas == 8
    answer = _later(policy, calm, 310, busy.memory)
    assert answer.replicas == 2


def test_nothing_is_given_back_on_ignorance() -> None:
    """A server that has just started, or a signal that does not answer, makes no service smaller."""
    policy = _policy(Target(signal=REQUESTS, value=1))
    assert wanted_replicas(policy, _seen(ready=9, signals={REQUESTS: [0.0]})).replicas == 9
    old = Memory(replicas=9, began_ms=1, decided_ms=1, active_ms=1)
    answer = wanted_replicas(policy, _seen(ready=9), old)
    assert (answer.replicas, answer.why) == (9, "'requests' has no value")
    assert wanted_replicas(replace(policy, fallback_replicas=12), _seen(ready=9), old).replicas == 12


def test_more_only_after_the_delay_when_one_is_given() -> None:
    policy = _policy(Target(signal=REQUESTS, value=1), up_delay_s=60)
    seen = _seen(ready=2, signals={REQUESTS: [4.0] * 60})
    first = wanted_replicas(policy, seen)
    assert (first.replicas, first.why) == (2, "'requests' is 4, 1 each; waits whether that lasts")
    assert _later(policy, seen, 60).replicas == 4


def test_zero() -> None:
    policy = _policy(Target(signal=REQUESTS, value=10), min_replicas=0, idle_s=120, hold_s=60)
    idle = _seen(ready=1, signals={REQUESTS: [0.0] * 60})
    assert _later(policy, idle, 110).replicas == 1
    gone = _later(policy, idle, 130)
    assert (gone.replicas, gone.why) == (0, "nothing was asked of it for 120 s")
    asleep = _seen(1131, 0, signals={REQUESTS: [0.0] * 60})
    assert wanted_replicas(policy, asleep, gone.memory).replicas == 0
    woken = wanted_replicas(policy, replace(asleep, held=1), gone.memory)  # also before the next interval
    assert (woken.replicas, woken.why) == (1, "requests wait")
    starts = replace(asleep, now_ms=asleep.now_ms + HOUR, starting=1)
    answer = wanted_replicas(policy, starts, woken.memory)  # its caller left: it is ready once all the same
    assert (answer.replicas, answer.why) == (1, "the first replica starts")


def test_a_trigger_wakes_above_its_activation_only() -> None:
    policy = _policy(Target(signal="jobs", value=5, activation=3), min_replicas=0)
    old = Memory(replicas=0, began_ms=1, decided_ms=1, active_ms=1)
    quiet = wanted_replicas(policy, _seen(ready=0, signals={"jobs": [3.0]}), old)
    assert (quiet.replicas, quiet.why) == (0, "")
    assert wanted_replicas(policy, _seen(ready=0, signals={"jobs": [4.0]}), old).replicas == 1


def test_spare_replicas_are_there_while_there_is_traffic() -> None:
    policy = _policy(Target(signal=REQUESTS, value=10), spare=2, min_replicas=0)
    assert wanted_replicas(policy, _seen(signals={REQUESTS: [12.0] * 60})).replicas == 4
    assert wanted_replicas(policy, _seen(ready=0, signals={REQUESTS: [0.0] * 60})).replicas == 0


def test_bounds_are_said() -> None:
    policy = _policy(Target(signal=REQUESTS, value=1), max_replicas=3)
    answer = wanted_replicas(policy, _seen(ready=3, signals={REQUESTS: [9.0] * 60}))
    assert (answer.replicas, answer.why.rpartition("; ")[2]) == (3, "3 is the maximum")


def test_work_of_starting_replicas_is_not_ordered_twice() -> None:
    policy = Policy(formula=Formula.WORK, min_replicas=1, max_replicas=64)
    signals = {WORK: [2.0] * 600}
    calm = wanted_replicas(policy, _seen(ready=2, signals=signals))
    assert (calm.replicas, calm.why) == (2, "work of 2.0 replicas arrives")
    waits = _seen(ready=2, held=10, held_work_s=70, cold_start_s=30, signals=signals)
    answer = wanted_replicas(policy, waits)
    assert answer.replicas == 4  # 2 and 70 s of work within 5 + 30 s
    again = wanted_replicas(policy, replace(waits, starting=2, now_ms=waits.now_ms + 5000), answer.memory)
    assert again.replicas == 4


def test_a_target_weighs_requests_where_no_gateway_does() -> None:
    policy = Policy(max_replicas=64, targets=(Target(signal=REQUESTS, value=10),))
    seen = _seen(ready=2, held=60, cold_start_s=10, signals={REQUESTS: [40.0] * 600})
    assert wanted_replicas(policy, seen).replicas == 4
    burst = replace(seen, held=900)  # 90 s of work; 5 + 10 s until a new replica has helped
    assert wanted_replicas(policy, burst).replicas == 6  # not more than three times the two that are there
    assert wanted_replicas(policy, replace(burst, ready=4)).replicas == 10


def test_other_targets_count_beside_the_work() -> None:
    jobs = Target(signal="jobs", value=5)
    policy = Policy(max_replicas=64, targets=(Target(signal=REQUESTS, value=10), jobs))
    seen = _seen(ready=2, signals={REQUESTS: [40.0] * 600, "jobs": [12.0]})
    assert wanted_replicas(policy, seen).replicas == 4
    seen = _seen(ready=2, signals={REQUESTS: [40.0] * 600, "jobs": [26.0]})
    assert wanted_replicas(policy, seen).replicas == 6
    assert wanted_replicas(replace(policy, targets=(jobs,)), seen).replicas == 6


def test_work_that_grows_is_ordered_for_as_long_as_a_start_takes() -> None:
    policy = Policy(formula=Formula.WORK, min_replicas=1, max_replicas=64)
    signals = {WORK: [4.0] * 60 + [8.0] * 60}
    seen = _seen(ready=20, signals=signals)
    old = Memory(replicas=20, began_ms=1, decided_ms=1, active_ms=1)
    assert wanted_replicas(policy, replace(seen, cold_start_s=0), old).replicas == 8
    assert wanted_replicas(policy, replace(seen, cold_start_s=60), old).replicas == 12
    assert wanted_replicas(policy, replace(seen, cold_start_s=600), old).replicas == 16


def test_work_of_a_prompt() -> None:
    model = Language(
        prompt_s=0.001, attention_s=1e-6, step_s=0.04, context_s=1e-6, batch=20, answer_tokens=100
    )
    assert model.of(1000) == pytest.approx(1.0 + 0.5 + 100 * (0.002 + 0.001))
    assert quantile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5


def test_an_answer_is_repeated_until_the_next_interval() -> None:
    policy = _policy(Target(signal=REQUESTS, value=1), interval_s=15)
    first = wanted_replicas(policy, _seen(1000, 1, signals={REQUESTS: [2.0]}))
    soon = wanted_replicas(policy, _seen(1010, 1, signals={REQUESTS: [9.0]}), first.memory)
    assert (soon.replicas, soon.again_ms) == (2, 1_015_000)
    narrowed = wanted_replicas(replace(policy, max_replicas=1), _seen(1010, 2), first.memory)
    assert narrowed.replicas == 1  # new bounds count at once


@pytest.mark.parametrize(
    ("text", "now", "last"),
    [
        ("0 8 * * 1-5", "2026-11-29T10:00", "2026-11-27T08:00"),  # a Sunday: Friday's
        ("*/15 * * * *", "2026-11-29T10:14", "2026-11-29T10:00"),
        ("30 6,18 1 * *", "2026-11-29T10:00", "2026-11-01T18:30"),
        ("0 0 13 * fri", "2026-11-14T00:00", "2026-11-13T00:00"),
        ("0 0 13 * 5", "2026-11-21T00:00", "2026-11-20T00:00"),  # either kind of day
        ("0 12 29 feb *", "2026-11-29T10:00", "2024-02-29T12:00"),
        ("5 0 * * 7", "2026-11-29T00:05", "2026-11-29T00:05"),
    ],
)
def test_times_of_the_calendar(text: str, now: str, last: str) -> None:
    assert parse_cron(text).last(dt.datetime.fromisoformat(now)) == dt.datetime.fromisoformat(last)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 8 * *", "'0 8 * *' has 4 fields; a cron expression has 5 (minute hour day month weekday)"),
        ("61 8 * * *", "'61' is no minute: it goes from 0 to 59"),
        ("0 8 * moo *", "'moo' is no month: it goes from 1 to 12"),
        ("0 20-8 * * *", "'20-8' is no hour: 20 is after 8"),
        ("*/0 8 * * *", "'*/0' is no minute: the step must be a number above 0"),
    ],
)
def test_times_that_are_none(text: str, said: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_cron(text)
    assert str(raised.value) == said
    with pytest.raises(
        ValueError, match="'Mars/North' is no time zone; write one like 'Europe/Berlin' or 'UTC'"
    ):
        zone_of("Mars/North")


def test_the_calendar_asks_for_replicas() -> None:
    office = Cron(start="0 8 * * 1-5", end="0 18 * * 1-5", replicas=5, timezone="Asia/Seoul")
    monday = int(dt.datetime(2026, 11, 30, 0, 0, tzinfo=dt.UTC).timestamp() * 1000)  # 9 o'clock in Seoul
    assert is_between(office, monday)
    assert not is_between(office, monday - 2 * HOUR)
    policy = _policy(Target(signal=REQUESTS, value=10), min_replicas=0, crons=(office,))
    quiet = Seen(now_ms=monday, ready=0, signals={REQUESTS: [0.0]})
    answer = wanted_replicas(policy, quiet)
    assert (answer.replicas, answer.why) == (5, "the calendar asks for 5 from '0 8 * * 1-5'")
