"""What keeps a cluster from resting, and when it rests: jobs, connections, GPUs at work, the longest time."""

from __future__ import annotations

import msgspec
import pytest

from argosy.controllers.cluster.decide import decide
from argosy.controllers.cluster.idle import idle_since_ms, in_use, stops_at_ms
from argosy.controllers.observed import Facts
from argosy.controllers.view import Action, Policy, Put, View, WakeAt, terminals_of
from argosy.model.facts import Device, NodeFacts
from argosy.model.phases import ClaimPhase, Desired, NodePhase, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.resources import Autostop
from argosy.model.rows import Row, Workload
from argosy.planning import Ability
from argosy.store import Snapshot
from argosy.testing.builders import a_claim, a_cluster, a_job, a_node, an_offer, changed

NOW = 1_000_000_000
MINUTE = 60_000


def gpus(*loads: int) -> NodeFacts:
    return NodeFacts(
        devices=tuple(Device(index=i, model="H100", utilisation_percent=load) for i, load in enumerate(loads))
    )


def a_view(*rows: Row, facts: Facts, now_ms: int) -> View:
    return View(
        now_ms=now_ms, rows=Snapshot.of(rows), observed=facts, offers=[an_offer()],
        abilities={"pool": Ability(owned=True)}, policy=Policy(),
    )  # fmt: skip


class Small:
    """A running cluster of one node that has been without jobs for two hours."""

    def __init__(self, policy: Autostop, *, up_ms: int = NOW - 180 * MINUTE) -> None:
        self.claim = a_claim(id="clm-0", workload_id="clu-0", phase=ClaimPhase.HELD, count=1)
        self.node = a_node(id="nod-0", claim_id="clm-0", workload_id="clu-0", phase=NodePhase.READY)
        made = a_cluster(id="clu-0", phase=WorkloadPhase.RUNNING, started_ms=up_ms)
        idle_ms = NOW - 120 * MINUTE
        self.cluster: Workload = changed(made, autostop=policy, active_ms=idle_ms, up_ms=up_ms)
        self.facts = Facts()

    def view(self, now_ms: int, *more: Workload) -> View:
        return a_view(self.cluster, self.claim, self.node, *more, facts=self.facts, now_ms=now_ms)

    def decided(self, now_ms: int, *more: Workload) -> list[Action]:
        return decide(self.view(now_ms, *more), self.cluster, lambda prefix: f"{prefix}-new")

    def desired(self, now_ms: int, *more: Workload) -> Desired:
        rows = [action.row for action in self.decided(now_ms, *more) if isinstance(action, Put)]
        return next((row.desired for row in rows if isinstance(row, Workload)), self.cluster.desired)


HOUR = Autostop(idle_s=3600)


def test_gpus_at_work_are_use_although_no_job_runs() -> None:
    small = Small(HOUR)
    small.facts.link_up("nod-0", gpus(0, 83), NOW - 10 * MINUTE)
    assert small.desired(NOW) is Desired.RUN
    assert small.decided(NOW) == [WakeAt("clu-0", NOW + 50 * MINUTE)]
    small.facts.set_node("nod-0", gpus(0, 0), NOW - 5 * MINUTE)  # bursts: the last work counts
    assert idle_since_ms(small.cluster, [small.node], small.facts) == NOW - 10 * MINUTE
    assert small.desired(NOW + 49 * MINUTE) is Desired.RUN
    assert small.desired(NOW + 50 * MINUTE) is Desired.STOP


def test_a_load_below_five_percent_is_none() -> None:
    small = Small(HOUR)
    small.facts.link_up("nod-0", gpus(4), NOW - 70 * MINUTE)
    small.facts.set_node("nod-0", gpus(4), NOW)
    assert small.desired(NOW) is Desired.STOP


def test_a_server_that_just_began_to_look_does_not_stop_what_it_never_saw() -> None:
    small = Small(HOUR)
    small.facts.link_up("nod-0", gpus(0), NOW)
    assert small.desired(NOW) is Desired.RUN
    assert small.desired(NOW + 60 * MINUTE) is Desired.STOP
    unknown = Small(HOUR)  # a driver that tells no load says nothing about work
    unknown.facts.link_up("nod-0", gpus(-1), NOW)
    assert unknown.desired(NOW) is Desired.STOP


@pytest.mark.parametrize(
    ("wait_for", "jobs", "connection", "gpu"),
    [
        ("jobs_and_ssh", True, True, True),
        ("jobs", True, False, False),
        ("gpu", False, True, True),
        ("none", False, False, False),
    ],
)
def test_what_counts_is_the_policy_s(wait_for: str, jobs: bool, connection: bool, gpu: bool) -> None:
    policy = msgspec.structs.replace(HOUR, wait_for=wait_for)
    job = a_job(id="job-0", host_id="clu-0", phase=WorkloadPhase.RUNNING)
    small = Small(policy)
    small.facts.link_up("nod-0", NodeFacts(), NOW)
    assert (in_use(small.cluster, [job], [small.node], small.facts, NOW) == "1 job") is jobs
    small.facts.begin(terminals_of("clu-0"))
    assert (small.desired(NOW) is Desired.RUN) is connection
    small.facts.end(terminals_of("clu-0"))
    small.facts.set_node("nod-0", gpus(50), NOW)
    assert (small.desired(NOW) is Desired.RUN) is gpu


def test_people_see_why_it_is_not_idle_and_when_it_stops() -> None:
    small = Small(HOUR)
    small.facts.link_up("nod-0", gpus(50), NOW)
    small.facts.begin(terminals_of("clu-0"))
    job = a_job(id="job-0", host_id="clu-0", phase=WorkloadPhase.RUNNING)
    seen = (small.cluster, [job, job], [small.node], small.facts)
    assert in_use(*seen, NOW) == "2 jobs, an open terminal or connection, GPUs at work"
    assert in_use(*seen, NOW + 2 * MINUTE) == "2 jobs, an open terminal or connection"
    assert stops_at_ms(small.cluster, [small.node], small.facts) == NOW + 60 * MINUTE
    busy = small.cluster.with_status(active_ms=0)
    assert stops_at_ms(busy, [small.node], small.facts) == 0


def test_the_longest_time_holds_whatever_runs() -> None:
    small = Small(Autostop(max_s=4 * 3600, down=True))
    job = a_job(id="job-0", host_id="clu-0", phase=WorkloadPhase.RUNNING)
    assert WakeAt("clu-0", NOW + 60 * MINUTE) in small.decided(NOW, job)
    assert stops_at_ms(small.cluster, [small.node], small.facts) == NOW + 60 * MINUTE
    put = next(each for each in small.decided(NOW + 60 * MINUTE, job) if isinstance(each, Put))
    assert isinstance(put.row, Workload)
    assert (put.row.desired, put.row.reason) == (Desired.END, Reason.MAX_DURATION)
    assert put.row.detail == "was up for 4h, which is its `max_duration`"


def test_the_longest_time_begins_anew_with_each_start() -> None:
    small = Small(Autostop(max_s=3600))
    starting = msgspec.structs.replace(small.cluster, phase=WorkloadPhase.STARTING)
    small.facts.link_up("nod-0", NodeFacts(), NOW)
    view = a_view(starting, small.claim, small.node, facts=small.facts, now_ms=NOW)
    put = next(each for each in decide(view, starting, lambda prefix: prefix) if isinstance(each, Put))
    assert isinstance(put.row, Workload)
    small.cluster = put.row
    assert (put.row.phase, small.desired(NOW + 59 * MINUTE)) == (WorkloadPhase.RUNNING, Desired.RUN)
    assert small.desired(NOW + 60 * MINUTE) is Desired.STOP
