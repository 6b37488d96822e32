"""Each decision as a table: rows and facts in, actions out. No store, no loop, no time."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from argosy.controllers.claims.decide import decide_claim
from argosy.controllers.cluster.decide import decide as decide_cluster
from argosy.controllers.job.decide import decide as decide_job
from argosy.controllers.observed import Facts
from argosy.controllers.pool.decide import decide_owned
from argosy.controllers.view import (
    Action,
    Emit,
    EnsureClaim,
    Failure,
    Policy,
    PrepareRanks,
    Put,
    ReleaseClaim,
    RunRanks,
    StopRanks,
    View,
    WakeAt,
    terminals_of,
)
from argosy.model.facts import ClaimFact, ClaimState, NodeFacts, NodeSighting, Notice, RankFact, RankPhase
from argosy.model.kinds.job import job_spec, job_task
from argosy.model.offer import Placement
from argosy.model.phases import AttemptPhase, ClaimPhase, Desired, NodePhase, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.resources import Autostop, Recovery, Resources
from argosy.model.rows import Attempt, Claim, Node, Row, Workload
from argosy.model.task import StorageMount
from argosy.planning import Ability
from argosy.store import Snapshot
from argosy.testing.builders import a_claim, a_cluster, a_job, a_node, a_task, an_attempt, an_offer, changed
from argosy.testing.virtual_time import EPOCH_MS

NOW = EPOCH_MS + 1_000_000
_counter = itertools.count(1)


def new_id(prefix: str) -> str:
    return f"{prefix}-new{next(_counter)}"


def a_view(*rows: Row, facts: Facts | None = None, now_ms: int = NOW) -> View:
    return View(
        now_ms=now_ms,
        rows=Snapshot.of(rows),
        observed=facts or Facts(),
        offers=[an_offer()],
        abilities={"pool": Ability(multi_node=True, fractions=True, owned=True)},
        policy=Policy(),
    )


def puts(actions: list[Action]) -> dict[str, Row]:
    return {action.row.id: action.row for action in actions if isinstance(action, Put)}


def effects(actions: list[Action]) -> list[Action]:
    return [
        a for a in actions if isinstance(a, EnsureClaim | ReleaseClaim | PrepareRanks | RunRanks | StopRanks)
    ]


class World:
    """One cluster (or managed job) with nodes that answer, and a job with an attempt on all of them."""

    def __init__(
        self,
        ranks: int = 1,
        *,
        managed: bool = False,
        attempt: AttemptPhase = AttemptPhase.RUNNING,
        **job: object,
    ) -> None:
        recovery = job.pop("recovery", Recovery())
        task = a_task(
            num_nodes=ranks,
            resources=(Resources(recovery=recovery),),
            max_duration_s=job.pop("max_duration_s", None),
        )
        self.cluster = (
            None if managed else a_cluster(id="clu-0", phase=WorkloadPhase.RUNNING, num_nodes=ranks)
        )
        owner = "job-0" if managed else "clu-0"
        self.claim: Claim = a_claim(id="clm-0", workload_id=owner, count=ranks, phase=ClaimPhase.HELD)
        self.nodes: list[Node] = [
            a_node(
                id=f"nod-{i}", index=i, workload_id=owner, claim_id="clm-0", phase=NodePhase.READY, ready_ms=1
            )
            for i in range(ranks)
        ]
        running = attempt is AttemptPhase.RUNNING
        self.job: Workload = a_job(
            id="job-0", task=task, managed=managed, attempts=1, attempt_id="att-0",
            phase=WorkloadPhase.RUNNING if running else WorkloadPhase.STARTING, **job,
        )  # fmt: skip
        placements = tuple(Placement(rank=i, node_id=f"nod-{i}") for i in range(ranks))
        self.attempt: Attempt = an_attempt(
            id="att-0",
            workload_id="job-0",
            placements=placements,
            phase=attempt,
            running_ms=NOW - 60_000 if running else 0,
        )
        self.facts = Facts()
        for node in self.nodes:
            self.facts.link_up(node.id, NodeFacts(cpus_milli=8000), NOW)

    def says(self, rank: int, phase: RankPhase, **fields: object) -> World:
        self.facts.set_ranks(
            f"nod-{rank}", [RankFact(id=f"att-0.{rank}", phase=phase, **fields)], complete=False
        )
        return self

    def decide(self, now_ms: int = NOW) -> list[Action]:
        rows = [self.job, self.attempt, self.claim, *self.nodes, *([self.cluster] if self.cluster else [])]
        return decide_job(a_view(*rows, facts=self.facts, now_ms=now_ms), self.job, new_id)

    def changes(self) -> tuple[Attempt, Workload]:
        rows = puts(self.decide())
        return rows.get("att-0", self.attempt), rows.get("job-0", self.job)  # type: ignore[return-value]


# -- attempts ---------------------------------------------------------------------------------------


def test_a_placed_attempt_is_prepared_where_the_agent_does_not_know_it() -> None:
    [order] = effects(World(2, attempt=AttemptPhase.PLACED).says(1, RankPhase.PREPARING).decide())
    assert isinstance(order, PrepareRanks)
    assert [each.id for each in order.orders] == ["att-0.0"]
    assert not order.orders[0].run_now


def test_a_gang_of_one_runs_without_a_barrier() -> None:
    [order] = effects(World(1, attempt=AttemptPhase.PLACED).decide())
    assert isinstance(order, PrepareRanks)
    assert order.orders[0].run_now


def test_a_gang_runs_only_when_every_rank_is_ready_and_the_intent_is_written_first() -> None:
    world = World(2, attempt=AttemptPhase.PREPARING).says(0, RankPhase.READY).says(1, RankPhase.PREPARING)
    assert world.decide() == []
    world.says(1, RankPhase.READY)
    actions = world.decide()
    assert effects(actions) == []
    attempt, job = world.changes()
    assert (attempt.phase, job.phase) == (AttemptPhase.RUNNING, WorkloadPhase.RUNNING)
    world.attempt = attempt
    assert effects(world.decide()) == [
        RunRanks("att-0", "nod-0", ("att-0.0",)),
        RunRanks("att-0", "nod-1", ("att-0.1",)),
    ]


def test_success_needs_every_rank() -> None:
    world = World(2).says(0, RankPhase.EXITED, exit_code=0).says(1, RankPhase.RUNNING)
    assert puts(world.decide()) == {}
    attempt, job = world.says(1, RankPhase.EXITED, exit_code=0).changes()
    assert (attempt.outcome, attempt.exit_codes) == (Outcome.SUCCEEDED, (0, 0))
    assert (job.phase, job.outcome) == (WorkloadPhase.FINISHED, Outcome.SUCCEEDED)


def test_the_first_failing_rank_ends_the_gang() -> None:
    world = World(2).says(0, RankPhase.EXITED, exit_code=3).says(1, RankPhase.RUNNING)
    attempt, job = world.changes()
    assert (attempt.phase, attempt.outcome, attempt.detail) == (
        AttemptPhase.ENDING,
        Outcome.FAILED,
        "rank 0 exited with code 3",
    )
    assert job.is_live
    world.attempt = attempt
    assert StopRanks("att-0", "nod-1", ("att-0.1",), 10.0, "user-code-failed") in effects(world.decide())
    attempt, job = world.says(1, RankPhase.EXITED, exit_code=143).changes()
    assert (attempt.phase, attempt.exit_codes, job.outcome) == (AttemptPhase.ENDED, (3, 143), Outcome.FAILED)


def test_the_rank_that_failed_first_is_named_not_the_one_that_was_told_to_stop() -> None:
    world = World(2).says(0, RankPhase.EXITED, exit_code=143, ended_ms=9)
    attempt, _ = world.says(1, RankPhase.EXITED, exit_code=3, ended_ms=5).changes()
    assert (attempt.failed_rank, attempt.exit_codes, attempt.detail) == (
        1,
        (143, 3),
        "rank 1 exited with code 3",
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"exit_code": 1, "stage": "setup"}, Reason.SETUP_FAILED),
        ({"exit_code": 137, "oom": True}, Reason.OUT_OF_MEMORY),
        ({"exit_code": 1, "detail": "disk full on n while logging: 5 bytes kept"}, Reason.LOG_DISK_FULL),
        ({"exit_code": 1}, Reason.USER_CODE_FAILED),
    ],
)
def test_why_it_failed(fields: dict[str, object], reason: Reason) -> None:
    assert World().says(0, RankPhase.EXITED, **fields).changes()[1].reason is reason


@pytest.mark.parametrize(
    ("code", "reason", "leaves"),
    [("disk-full", Reason.NODE_UNFIT, True), ("request-refused", Reason.PREPARE_FAILED, False)],
)
def test_a_node_whose_disk_is_full_is_left_and_a_wrong_order_is_not(
    code: str, reason: Reason, leaves: bool
) -> None:
    world = World(managed=True, attempt=AttemptPhase.PREPARING)
    text = "disk full on n"
    world.facts.set_failure("att-0", Failure(code=code, text=text, at_ms=NOW, count=1, after_ms=NOW))
    attempt, _ = world.changes()
    assert (attempt.outcome, attempt.reason, attempt.detail) == (Outcome.FAILED, reason, text)
    world.attempt = attempt
    rows = puts(world.says(0, RankPhase.EXITED, exit_code=143).decide())
    assert rows["job-0"].phase is WorkloadPhase.RECOVERING  # type: ignore[union-attr]
    assert ("clm-0" in rows) is leaves


def test_cancelling_writes_the_intent_then_stops_the_ranks() -> None:
    world = World(desired=Desired.END).says(0, RankPhase.RUNNING)
    attempt, job = world.changes()
    assert (attempt.phase, attempt.outcome) == (AttemptPhase.ENDING, Outcome.CANCELLED)
    assert effects(world.decide()) == []
    world.attempt = attempt
    assert effects(world.decide()) == [StopRanks("att-0", "nod-0", ("att-0.0",), 10.0, "cancelled-by-user")]
    _, job = world.says(0, RankPhase.EXITED, exit_code=143).changes()
    assert (job.outcome, job.reason) == (Outcome.CANCELLED, Reason.CANCELLED_BY_USER)


@pytest.mark.parametrize("managed", [False, True])
def test_the_end_of_a_job_is_told(managed: bool) -> None:
    world = World(managed=managed).says(0, RankPhase.EXITED, exit_code=3)
    told = [action.event for action in world.decide() if isinstance(action, Emit)]
    assert [(each.subject, each.code) for each in told] == [(world.job.id, "failed")]
    assert "3" in told[0].text


def test_max_duration_ends_a_job_and_is_not_an_error_to_retry() -> None:
    world = World(managed=True, max_duration_s=30, recovery=Recovery(max_restarts_on_errors=5)).says(
        0, RankPhase.RUNNING
    )
    attempt, _ = world.changes()
    assert (attempt.phase, attempt.reason) == (AttemptPhase.ENDING, Reason.MAX_DURATION)
    world.attempt = attempt
    _, job = world.says(0, RankPhase.EXITED, exit_code=143).changes()
    assert (job.phase, job.reason) == (WorkloadPhase.FINISHED, Reason.MAX_DURATION)


def test_success_seen_after_the_node_was_lost_is_still_success() -> None:
    world = World(managed=True).says(0, RankPhase.EXITED, exit_code=0)
    world.nodes[0] = msgspec.structs.replace(world.nodes[0], phase=NodePhase.DRAINING)
    assert world.changes()[1].outcome is Outcome.SUCCEEDED


def test_a_short_silence_is_waited_out_and_a_long_one_is_a_loss() -> None:
    world = World()
    world.facts.link_down("nod-0", NOW)
    assert puts(world.decide()) == {}
    world.nodes[0] = msgspec.structs.replace(
        world.nodes[0], phase=NodePhase.UNREACHABLE, unreachable_ms=NOW - 200_000
    )
    attempt, _job = world.changes()
    assert (attempt.phase, attempt.outcome) == (AttemptPhase.ENDING, Outcome.LOST)
    world.attempt = attempt
    assert world.changes()[1].outcome is Outcome.LOST  # bound to a cluster: does not wait for ever


# -- managed jobs -----------------------------------------------------------------------------------


def test_a_lost_managed_job_gives_up_its_claim_and_waits_until_it_is_gone() -> None:
    world = World(managed=True).says(0, RankPhase.VANISHED)
    rows = puts(world.decide())
    job, claim = rows["job-0"], rows["clm-0"]
    assert isinstance(job, Workload) and isinstance(claim, Claim)
    assert (job.phase, job.status.recoveries, claim.desired) == (WorkloadPhase.RECOVERING, 1, Desired.END)
    assert decide_job(a_view(job, claim, *world.nodes), job, new_id) == []
    assert puts(decide_owned(a_view(job, claim, *world.nodes), new_id)) == {}  # the old claim is not gone yet
    assert {type(row) for row in puts(decide_owned(a_view(job), new_id)).values()} == {Claim, Workload}


def test_a_managed_job_on_a_silent_node_does_not_start_again_before_the_provider_confirms() -> None:
    world = World(managed=True, attempt=AttemptPhase.ENDING)
    world.attempt = msgspec.structs.replace(
        world.attempt, outcome=Outcome.LOST, reason=Reason.NODE_LOST, ending_ms=NOW - 10**7
    )
    world.facts.link_down("nod-0", NOW - 10**7)
    world.nodes[0] = msgspec.structs.replace(
        world.nodes[0], phase=NodePhase.UNREACHABLE, unreachable_ms=NOW - 10**7
    )
    assert "att-0" not in puts(world.decide())
    world.nodes[0] = msgspec.structs.replace(world.nodes[0], phase=NodePhase.GONE)
    assert world.changes()[1].phase is WorkloadPhase.RECOVERING


def test_an_attempt_ends_only_when_its_node_has_taken_the_stop_of_every_rank() -> None:
    """Also of one that the node does not know: another server's order may still be on its way."""
    world = World(attempt=AttemptPhase.PLACED)
    world.attempt = msgspec.structs.replace(
        world.attempt, phase=AttemptPhase.ENDING, outcome=Outcome.PREEMPTED
    )
    assert [type(each) for each in effects(world.decide())] == [StopRanks] and not puts(world.decide())
    world.facts.ordered("nod-0", ["att-0.0"])
    assert [type(each) for each in effects(world.decide())] == [StopRanks] and not puts(world.decide())
    world.says(0, RankPhase.EXITED, exit_code=143).facts.ordered("nod-0", ["att-0.0"])  # known is known
    assert puts(world.decide())["att-0"].phase is AttemptPhase.ENDED


@pytest.mark.parametrize(
    ("recovery", "errors", "code", "again", "spent"),
    [
        (Recovery(), 0, 1, False, 0),
        (Recovery(max_restarts_on_errors=2), 0, 1, True, 1),
        (Recovery(max_restarts_on_errors=2), 2, 1, False, 2),
        (Recovery(recover_on_exit_codes=(42,)), 0, 42, True, 0),
        (Recovery(recover_on_exit_codes=(42,)), 0, 41, False, 0),
    ],
)
def test_errors_restart_as_often_as_the_user_allows(
    recovery: Recovery, errors: int, code: int, again: bool, spent: int
) -> None:
    world = World(managed=True, recovery=recovery, errors=errors).says(0, RankPhase.EXITED, exit_code=code)
    _, job = world.changes()
    assert (job.phase is WorkloadPhase.RECOVERING, job.status.errors) == (again, spent)
    if again:  # on the claim that it has
        later = msgspec.structs.replace(job, retry_ms=0)
        assert (
            puts(decide_job(a_view(later, world.claim, *world.nodes), later, new_id))["job-0"].phase
            is WorkloadPhase.STARTING
        )


def test_managed_jobs_wait_in_order_for_a_busy_machine() -> None:
    running = a_claim(workload_id="job-a", count=1, phase=ClaimPhase.HELD)  # holds all 8 CPUs
    waiting = [a_job(managed=True, number=n) for n in (2, 3)]
    assert puts(decide_owned(a_view(running, *waiting), new_id)) == {}
    rows = puts(decide_owned(a_view(*waiting), new_id))
    claims = [row for row in rows.values() if isinstance(row, Claim)]
    assert [claim.workload_id for claim in claims] == [job.id for job in waiting]
    assert all(claim.placements[0].node_id == "pool" for claim in claims)


# -- claims -----------------------------------------------------------------------------------------


def test_an_order_is_repeated_until_it_is_held() -> None:
    owner, claim = a_cluster(id="clu-0"), a_claim(id="clm-0")
    facts = Facts()
    assert decide_claim(a_view(owner, claim, facts=facts), claim, new_id) == [EnsureClaim(claim)]
    facts.begin("clm-0")
    assert decide_claim(a_view(owner, claim, facts=facts), claim, new_id) == []
    facts.end("clm-0")
    facts.set_claim(
        ClaimFact(claim_id="clm-0", state=ClaimState.HELD, nodes=(NodeSighting(index=0, address="/a"),))
    )
    rows = puts(decide_claim(a_view(owner, claim, facts=facts), claim, new_id))
    assert rows["clm-0"].phase is ClaimPhase.HELD
    assert {type(row) for row in rows.values()} == {Claim, Node}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("out-of-capacity", Reason.OUT_OF_CAPACITY),
        ("credentials-rejected", Reason.CREDENTIALS),
        ("request-refused", Reason.PROVIDER_REFUSED),
    ],
)
def test_a_refused_order_is_released_with_its_reason(code: str, reason: Reason) -> None:
    claim, facts = a_claim(id="clm-0"), Facts()
    facts.set_failure("clm-0", Failure(code=code, text="no", at_ms=NOW, count=1, after_ms=NOW))
    released = puts(decide_claim(a_view(a_cluster(id="clu-0"), claim, facts=facts), claim, new_id))["clm-0"]
    assert isinstance(released, Claim)
    assert (released.phase, released.reason, released.detail) == (ClaimPhase.RELEASING, reason, "no")


@pytest.mark.parametrize("managed", [True, False])
def test_a_node_that_falls_silent_before_anything_has_begun_is_given_up(managed: bool) -> None:
    """Healing does not bring back every node: others are asked for. What runs already decides for itself."""
    world = World(2, managed=managed)
    owner = changed(world.cluster or world.job, phase=WorkloadPhase.STARTING)
    silent = msgspec.structs.replace(world.nodes[1], phase=NodePhase.UNREACHABLE, unreachable_ms=NOW)

    def decide(owner: Workload, now_ms: int) -> list[Action]:
        view = a_view(owner, world.claim, world.nodes[0], silent, facts=world.facts, now_ms=now_ms)
        return decide_claim(view, world.claim, new_id)

    world.facts.link_down("nod-1", NOW)
    lost_ms = NOW + a_view(owner).policy.lost_after_ms
    assert "clm-0" not in puts(decide(owner, lost_ms - 1)) and WakeAt("clm-0", lost_ms) in decide(owner, NOW)
    claim = puts(decide(owner, lost_ms))["clm-0"]
    assert isinstance(claim, Claim)
    assert (claim.phase, claim.reason) == (ClaimPhase.RELEASING, Reason.NODE_LOST)
    assert claim.detail == f"node 1 has not answered for {(lost_ms - NOW) // 1000} s"
    running = msgspec.structs.replace(owner, phase=WorkloadPhase.RUNNING)
    assert "clm-0" not in puts(decide(running, lost_ms))


def test_nodes_that_were_taken_away_before_they_could_rest_are_given_up() -> None:
    claim, facts = a_claim(id="clm-0", desired=Desired.STOP), Facts()
    facts.set_claim(ClaimFact(claim_id="clm-0", state=ClaimState.PREEMPTED))
    released = puts(decide_claim(a_view(a_cluster(id="clu-0"), claim, facts=facts), claim, new_id))["clm-0"]
    assert (released.phase, released.reason) == (ClaimPhase.RELEASING, Reason.PREEMPTED)


def test_a_claim_whose_owner_is_gone_is_released_and_gone_only_when_the_provider_says_so() -> None:
    claim, node = a_claim(id="clm-0", phase=ClaimPhase.HELD), a_node(id="nod-0", phase=NodePhase.READY)
    rows = puts(decide_claim(a_view(claim, node), claim, new_id))
    assert (rows["clm-0"].phase, rows["nod-0"].phase) == (ClaimPhase.RELEASING, NodePhase.DRAINING)
    claim = rows["clm-0"]
    assert isinstance(claim, Claim)
    facts = Facts()
    assert decide_claim(a_view(claim, node, facts=facts), claim, new_id) == [ReleaseClaim(claim)]
    facts.set_claim(ClaimFact(claim_id="clm-0", state=ClaimState.RELEASED))
    rows = puts(decide_claim(a_view(claim, node, facts=facts), claim, new_id))
    assert (rows["clm-0"].phase, rows["nod-0"].phase) == (ClaimPhase.GONE, NodePhase.GONE)


def test_a_dead_agent_makes_the_node_unreachable_and_is_healed() -> None:
    world, facts = World(), Facts()
    facts.link_up("nod-0", NodeFacts(), NOW - 60_000)
    facts.link_down("nod-0", NOW - 4_000)
    rows = [world.cluster, world.claim, *world.nodes]
    actions = decide_claim(a_view(*rows, facts=facts), world.claim, new_id)
    assert puts(actions)["nod-0"].phase is NodePhase.UNREACHABLE
    assert effects(actions) == [EnsureClaim(world.claim)]
    silent = puts(actions)["nod-0"]
    facts.link_up("nod-0", NodeFacts(cpus_milli=4000), NOW)
    back = puts(decide_claim(a_view(world.cluster, world.claim, silent, facts=facts), world.claim, new_id))[
        "nod-0"
    ]
    assert back.phase is NodePhase.READY


def test_cost_counts_held_time_only() -> None:
    claim = a_claim(held_ms=NOW - 1_800_000, cost_micro_usd=5, spent_ms=1000)
    claim = msgspec.structs.replace(
        claim, choice=msgspec.structs.replace(claim.choice, price_micro_usd=2_000_000)
    )
    settled = claim.settled(NOW)
    for later in (claim.cost_until(NOW), settled.cost_until(NOW), settled.cost_until(NOW + 10**9)):
        assert later == 1_000_005
    assert settled.held_until(NOW + 10**9) == claim.held_until(NOW) == 1_801_000


# -- clusters ---------------------------------------------------------------------------------------


def test_a_cluster_orders_a_claim_and_runs_when_every_node_answers() -> None:
    cluster = a_cluster(id="clu-0")
    rows = puts(decide_owned(a_view(cluster), new_id))
    assert rows["clu-0"].phase is WorkloadPhase.STARTING
    [claim] = [row for row in rows.values() if isinstance(row, Claim)]
    assert claim.phase is ClaimPhase.REQUESTED


def test_an_impossible_cluster_fails_and_takes_its_queue_along() -> None:
    cluster = a_cluster(id="clu-0", num_nodes=1, resources=(Resources(instance_type="none"),))
    job = a_job(host_id="clu-0")
    rows = puts(decide_owned(a_view(cluster, job), new_id))
    assert (rows["clu-0"].outcome, rows[job.id].reason) == (Outcome.FAILED, Reason.CLUSTER_GONE)


def test_jobs_are_placed_side_by_side_in_order() -> None:
    world = World()
    jobs = [a_job(id=f"job-{n}", number=n, host_id="clu-0") for n in (1, 2)]
    rows = puts(
        decide_cluster(a_view(world.cluster, world.claim, *world.nodes, *jobs), world.cluster, new_id)
    )
    assert [rows[job.id].phase for job in jobs] == [WorkloadPhase.STARTING] * 2
    assert len([row for row in rows.values() if isinstance(row, Attempt)]) == 2


def test_an_idle_cluster_rests_or_goes_after_its_time() -> None:
    for down, desired in ((False, Desired.STOP), (True, Desired.END)):
        world = World()
        idle = changed(world.cluster, autostop=Autostop(idle_s=60, down=down), active_ms=NOW - 61_000)
        rows = puts(decide_cluster(a_view(idle, world.claim, *world.nodes), idle, new_id))
        assert (rows["clu-0"].desired, rows["clu-0"].reason) == (desired, Reason.IDLE)


def test_an_open_terminal_keeps_a_cluster_awake_unless_told_otherwise() -> None:
    world, facts = World(), Facts()
    facts.begin(terminals_of("clu-0"))
    for wait_for, awake in (("jobs_and_ssh", True), ("jobs", False)):
        policy = Autostop(idle_s=60, wait_for=wait_for)
        idle = changed(world.cluster, autostop=policy, active_ms=NOW - 61_000)
        rows = puts(decide_cluster(a_view(idle, world.claim, *world.nodes, facts=facts), idle, new_id))
        assert (rows["clu-0"].desired is Desired.RUN) is awake
        assert (rows["clu-0"].status.active_ms == 0) is awake


def test_down_ends_jobs_then_claims_then_the_cluster() -> None:
    world = World(desired=Desired.RUN)
    cluster = msgspec.structs.replace(world.cluster, desired=Desired.END)
    rows = puts(
        decide_cluster(a_view(cluster, world.job, world.attempt, world.claim, *world.nodes), cluster, new_id)
    )
    assert (rows["job-0"].desired, rows["clu-0"].phase) == (Desired.END, WorkloadPhase.STOPPING)
    cluster = rows["clu-0"]
    rows = puts(decide_cluster(a_view(cluster, world.claim, *world.nodes), cluster, new_id))
    assert rows["clm-0"].desired is Desired.END
    rows = puts(decide_cluster(a_view(cluster), cluster, new_id))
    assert rows["clu-0"].phase is WorkloadPhase.FINISHED


@pytest.mark.parametrize("desired", [Desired.END, Desired.STOP])
def test_a_cluster_goes_when_what_its_jobs_have_written_is_in_its_store(desired: Desired) -> None:
    world = World(host_id="clu-0", desired=Desired.END)
    mounts = (StorageMount(target="/data", sources=("s3://b",), mode="MOUNT_CACHED"),)
    spec = job_spec(world.job)
    task = msgspec.structs.replace(spec.task, storage_mounts=mounts)
    job = msgspec.structs.replace(world.job, spec=msgspec.structs.replace(spec, task=task))
    ending = msgspec.structs.replace(
        world.attempt, phase=AttemptPhase.ENDING, outcome=Outcome.CANCELLED, ending_ms=NOW - 90_000
    )
    cluster = msgspec.structs.replace(world.cluster, desired=desired, phase=WorkloadPhase.STOPPING)
    cluster = cluster.with_status(active_ms=NOW - 3_600_000)  # longer than any grace

    def goes() -> bool:
        view = a_view(cluster, job, ending, world.claim, *world.nodes, facts=world.facts)
        return "clm-0" in puts(decide_cluster(view, cluster, new_id))

    assert goes()  # its program was not heard of since it was told to end
    world.says(0, RankPhase.EXITED, exit_code=143)
    assert not goes()
    world.facts.begin("att-0")  # it is being sent
    assert not goes()
    world.facts.end("att-0")
    world.facts.set_settled("att-0")
    assert goes()


def test_stop_keeps_queued_jobs_and_rests_when_the_claim_rests() -> None:
    world = World()
    cluster = msgspec.structs.replace(world.cluster, desired=Desired.STOP)
    queued = a_job(id="job-9", number=9, host_id="clu-0")
    rows = puts(decide_cluster(a_view(cluster, queued, world.claim, *world.nodes), cluster, new_id))
    assert "job-9" not in rows
    cluster = rows["clu-0"]
    rows = puts(decide_cluster(a_view(cluster, queued, world.claim, *world.nodes), cluster, new_id))
    assert rows["clm-0"].desired is Desired.STOP
    rest = msgspec.structs.replace(world.claim, desired=Desired.STOP, phase=ClaimPhase.STOPPED)
    assert (
        puts(decide_cluster(a_view(cluster, queued, rest), cluster, new_id))["clu-0"].phase
        is WorkloadPhase.STOPPED
    )


def test_a_preempted_cluster_says_so() -> None:
    world = World()
    gone = msgspec.structs.replace(
        world.claim, phase=ClaimPhase.RELEASING, reason=Reason.PREEMPTED, detail="taken"
    )
    row = puts(decide_cluster(a_view(world.cluster, gone), world.cluster, new_id))["clu-0"]
    assert (row.outcome, row.detail) == (Outcome.PREEMPTED, "taken")


# -- notices ----------------------------------------------------------------------------------------


def _told(world: World, node: int, code: str = "terminate", in_s: int = 120) -> None:
    notice = Notice(code=code, at_ms=NOW + in_s * 1000)
    world.facts.set_node(f"nod-{node}", NodeFacts(cpus_milli=8000, notice=notice), NOW)


def test_a_notice_ends_the_attempt_with_all_the_time_that_is_left() -> None:
    world = World(2, managed=True).says(0, RankPhase.RUNNING).says(1, RankPhase.RUNNING)
    _told(world, 1)
    actions = world.decide()
    attempt = puts(actions)["att-0"]
    assert isinstance(attempt, Attempt)
    assert (attempt.phase, attempt.outcome, attempt.detail) == (
        AttemptPhase.ENDING,
        Outcome.PREEMPTED,
        "node 1 is taken away in 120 s (terminate)",
    )
    assert puts(actions).keys() == {"att-0"}, "the claim stays until the ranks have ended"
    world.attempt = attempt
    stops = [each for each in world.decide() if isinstance(each, StopRanks)]
    assert [(each.node_id, each.grace_s) for each in stops] == [("nod-0", 115.0), ("nod-1", 115.0)]
    assert not puts(world.decide(NOW + 119_000))
    late = puts(world.decide(NOW + 121_000))["clm-0"]
    assert isinstance(late, Claim)
    assert late.desired is Desired.END


def test_a_job_goes_on_elsewhere_as_soon_as_its_ranks_have_ended() -> None:
    world = World(1, managed=True).says(0, RankPhase.RUNNING)
    _told(world, 0)
    world.attempt = puts(world.decide())["att-0"]  # type: ignore[assignment]
    world.says(0, RankPhase.EXITED, exit_code=143)
    attempt, job = world.changes()
    assert (attempt.phase, job.phase, job.retry_ms) == (AttemptPhase.ENDED, WorkloadPhase.RECOVERING, NOW)
    claim = puts(world.decide())["clm-0"]
    assert isinstance(claim, Claim)
    rows = [job, msgspec.structs.replace(claim, phase=ClaimPhase.RELEASING), *world.nodes]
    ordered = puts(decide_owned(a_view(*rows, facts=world.facts), new_id))
    assert any(isinstance(row, Claim) and row.id != "clm-0" for row in ordered.values())


def test_advice_and_notices_to_clusters_end_nothing() -> None:
    advised = World(1, managed=True).says(0, RankPhase.RUNNING)
    _told(advised, 0, code="rebalance")
    assert puts(advised.decide()) == {}
    bound = World(1).says(0, RankPhase.RUNNING)
    _told(bound, 0)
    assert puts(bound.decide()) == {}


def test_a_provider_may_give_notice_of_a_node_too() -> None:
    """Who drains a host wants it empty: managed jobs there have their grace and go on elsewhere."""
    world = World(2, managed=True).says(0, RankPhase.RUNNING).says(1, RankPhase.RUNNING)
    drained = NodeFacts(notice=Notice(code="maintenance", at_ms=NOW - 1000, text="lab/gpu2 is drained"))
    nodes = (NodeSighting(index=0, address="a"), NodeSighting(index=1, address="b", facts=drained))
    world.facts.set_claim(ClaimFact(claim_id="clm-0", state=ClaimState.HELD, nodes=nodes))
    attempt = puts(world.decide())["att-0"]
    assert isinstance(attempt, Attempt)
    assert (attempt.outcome, attempt.detail) == (Outcome.PREEMPTED, "lab/gpu2 is drained")
    world.attempt = attempt
    stops = [each for each in world.decide() if isinstance(each, StopRanks)]
    assert {each.grace_s for each in stops} == {float(job_task(world.job).grace_s)}


# -- leases -----------------------------------------------------------------------------------------


def _leased_world(attempt: AttemptPhase = AttemptPhase.RUNNING, **recovery: object) -> World:
    world = World(1, managed=True, attempt=attempt, recovery=Recovery(**recovery)).says(0, RankPhase.RUNNING)  # type: ignore[arg-type]
    world.attempt = msgspec.structs.replace(world.attempt, lease_ms=60_000)
    world.facts.link_down("nod-0", NOW - 40_000)
    world.nodes[0] = msgspec.structs.replace(
        world.nodes[0], phase=NodePhase.UNREACHABLE, unreachable_ms=NOW - 35_000
    )
    return world


def test_half_a_lease_without_its_node_loses_an_attempt() -> None:
    world = _leased_world()
    assert puts(world.decide(NOW - 10_000)) == {}
    attempt, _ = world.changes()
    assert (attempt.phase, attempt.outcome, attempt.reason) == (
        AttemptPhase.ENDING,
        Outcome.LOST,
        Reason.NODE_LOST,
    )


@pytest.mark.parametrize(("fence_ms", "ends"), [(None, False), (1, False), (0, True)])
def test_what_cannot_be_reached_is_over_when_its_lease_is(fence_ms: int | None, ends: bool) -> None:
    world = _leased_world()
    world.attempt = world.changes()[0]
    rows = [world.job, world.attempt, world.claim, *world.nodes]
    view = a_view(*rows, facts=world.facts)
    if fence_ms is not None:
        view = msgspec.structs.replace(view, fence_ms=lambda attempt_id: fence_ms)
    actions = decide_job(view, world.job, new_id)
    attempt = puts(actions).get("att-0", world.attempt)
    assert isinstance(attempt, Attempt)
    assert (attempt.phase is AttemptPhase.ENDED) == ends
    if fence_ms:
        assert WakeAt("att-0", NOW + fence_ms) in actions


@pytest.mark.parametrize(
    ("recovery", "returns", "able", "leased"),
    [
        ({}, True, True, True),
        ({}, False, True, False),
        ({}, True, False, False),
        ({"at_most_once": True}, False, True, True),
        ({"at_most_once": False}, True, True, False),
    ],
)
def test_who_gets_a_lease(recovery: dict[str, object], returns: bool, able: bool, leased: bool) -> None:
    world = World(1, managed=True, attempt=AttemptPhase.PLACED, recovery=Recovery(**recovery))  # type: ignore[arg-type]
    world.facts.set_node("nod-0", NodeFacts(cpus_milli=8000, leases=able), NOW)
    job = changed(world.job, phase=WorkloadPhase.STARTING)
    provider = world.claim.choice.offer.provider
    view = a_view(job, world.claim, *world.nodes, facts=world.facts)
    view = msgspec.structs.replace(view, returning=frozenset({provider} if returns else ()))
    [attempt] = [row for row in puts(decide_job(view, job, new_id)).values() if isinstance(row, Attempt)]
    assert bool(attempt.lease_ms) == leased


def test_who_may_run_twice_goes_on_after_two_minutes_of_silence() -> None:
    world = _leased_world(at_most_once=False)
    world.attempt = msgspec.structs.replace(world.changes()[0], lease_ms=0)
    assert not any(isinstance(row, Workload) for row in puts(world.decide(NOW + 80_000)).values())
    assert any(isinstance(row, Workload) for row in puts(world.decide(NOW + 90_000)).values())


# -- signals ----------------------------------------------------------------------------------------


def test_a_machine_that_shuts_down_ends_programs_by_signals_and_that_is_no_failure() -> None:
    world = World(1, managed=True).says(0, RankPhase.EXITED, exit_code=143, ended_ms=NOW)
    assert world.decide() == [WakeAt("job-0", NOW + 5000)]
    world.facts.link_down("nod-0", NOW + 800)
    rows = puts(world.decide(NOW + 1000))
    attempt, job = rows["att-0"], rows["job-0"]
    assert isinstance(attempt, Attempt) and isinstance(job, Workload)
    assert (attempt.outcome, attempt.reason, job.phase) == (
        Outcome.LOST,
        Reason.NODE_LOST,
        WorkloadPhase.RECOVERING,
    )


@pytest.mark.parametrize(
    ("managed", "fields"),
    [
        (False, {"exit_code": 143, "ended_ms": NOW}),
        (True, {"exit_code": 3, "ended_ms": NOW}),
        (True, {"exit_code": 137, "oom": True, "ended_ms": NOW}),
        (True, {"exit_code": 143, "ended_ms": NOW - 5000}),
        (True, {"exit_code": 143, "ended_ms": NOW + 3_600_000}),
    ],
)
def test_other_failures_are_told_at_once(managed: bool, fields: dict[str, object]) -> None:
    world = World(1, managed=managed).says(0, RankPhase.EXITED, **fields)
    assert world.changes()[0].outcome is Outcome.FAILED
