"""Gangs that make do with fewer nodes: as many as can be had, never fewer than they need."""

from __future__ import annotations

import itertools
from typing import TypeVar

import msgspec
import pytest

from argosy.controllers.claims.decide import decide_claim
from argosy.controllers.elastic import GIVEN_BACK_MS
from argosy.controllers.job.decide import decide as decide_job
from argosy.controllers.job.environment import rank_orders
from argosy.controllers.observed import Facts
from argosy.controllers.pool.decide import decide_owned
from argosy.controllers.view import Action, Policy, Put, View, WakeAt
from argosy.model.facts import NodeFacts, RankFact, RankPhase
from argosy.model.kinds.job import job_state
from argosy.model.offer import Capacity, Offer, Placement
from argosy.model.phases import AttemptPhase, ClaimPhase, Desired, NodePhase, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.resources import Accelerator, Infra, Resources
from argosy.model.rows import Attempt, Claim, Node, Row, Workload
from argosy.model.tenancy import Queue, Tenancy
from argosy.planning import Ability
from argosy.store import Snapshot
from argosy.testing.builders import (
    a_choice,
    a_claim,
    a_gpu_shape,
    a_job,
    a_node,
    a_shape,
    a_task,
    an_attempt,
    an_offer,
    changed,
)
from argosy.testing.virtual_time import EPOCH_MS

NOW = EPOCH_MS + 3_600_000
FARM = Offer(
    provider="farm", shape=a_gpu_shape(4, "L4"), capacity=Capacity.OWNED, price_micro_usd=0, nodes_max=6
)
CLOUD = an_offer(
    provider="cloud", region="east", zone="a", shape=a_shape(instance_type="c8"), capacity=Capacity.ON_DEMAND
)
_numbers = itertools.count(1)


def new_id(prefix: str) -> str:
    return f"{prefix}-new{next(_numbers)}"


def a_view(*rows: Row | Tenancy, facts: Facts | None = None, now_ms: int = NOW) -> View:
    return View(
        now_ms=now_ms,
        rows=Snapshot.of(rows),
        observed=facts or Facts(),
        offers=(FARM, CLOUD),
        abilities={
            "farm": Ability(multi_node=True, fractions=True, owned=True),
            "cloud": Ability(multi_node=True),
        },
        policy=Policy(),
        returning=frozenset({"farm"}),
    )


def a_gang(least: int, most: int, *, place: str = "farm", **fields: object) -> Workload:
    wish = Resources(infra=Infra(provider=place))
    if place == "farm":
        wish = msgspec.structs.replace(wish, accelerator=Accelerator(model="L4", milli=4000))
    task = a_task(resources=(wish,), num_nodes=most, min_nodes=least)
    return a_job(id="job-a", task=task, managed=True, project="red", user="ann", **fields)


T = TypeVar("T", Workload, Claim, Attempt)


def rows_of(actions: list[Action], kind: type[T]) -> list[T]:
    return [action.row for action in actions if isinstance(action, Put) and isinstance(action.row, kind)]


def taken(*machines: int) -> list[Row]:
    """Another job on some machines."""
    places = tuple(Placement(rank=rank, node_id=f"farm#{at}") for rank, at in enumerate(machines))
    devices = [
        msgspec.structs.replace(place, devices=FARM_DEVICES, memory_bytes=512 << 30) for place in places
    ]
    job = a_job(id="job-b", managed=True, phase=WorkloadPhase.RUNNING)
    claim = a_claim(
        id="clm-b", workload_id="job-b", count=len(machines), placements=tuple(devices),
        phase=ClaimPhase.HELD, choice=a_choice(offer=FARM),
    )  # fmt: skip
    return [job, claim]


def placed_on_all(view: View) -> tuple[Placement, ...]:
    [claim] = rows_of(decide_owned(view, new_id), Claim)
    return claim.placements


FARM_DEVICES = placed_on_all(a_view(a_gang(1, 1)))[0].devices


@pytest.mark.parametrize(("others", "nodes"), [((), 6), ((0, 1), 4), ((0, 1, 2, 3), 2), ((0, 1, 2, 3, 4), 0)])
def test_it_starts_with_as_many_as_are_free(others: tuple[int, ...], nodes: int) -> None:
    actions = decide_owned(a_view(a_gang(2, 8), *(taken(*others) if others else ())), new_id)
    claims = rows_of(actions, Claim)
    assert [claim.count for claim in claims] == ([nodes] if nodes else [])
    for claim in claims:
        assert len({place.node_id for place in claim.placements}) == nodes


def test_it_keeps_within_its_quota() -> None:
    tenancy = Tenancy(queues=(Queue(path="red", limit={"gpus": 14_000}),))
    [claim] = rows_of(decide_owned(a_view(a_gang(2, 8), tenancy), new_id), Claim)
    assert claim.count == 3  # of 4 GPUs each


def test_what_is_less_than_it_needs_everywhere_is_told() -> None:
    actions = decide_owned(a_view(a_gang(7, 8)), new_id)
    [job] = rows_of(actions, Workload)
    assert (job.phase, job.reason) == (WorkloadPhase.FINISHED, Reason.NO_OFFER)


def test_places_that_refuse_are_asked_for_a_quarter_less_each_round() -> None:
    job = a_gang(2, 8, place="cloud", phase=WorkloadPhase.STARTING)
    sizes = []
    for _ in range(8):
        refused = a_claim(
            workload_id=job.id, phase=ClaimPhase.RELEASING, desired=Desired.END, choice=a_choice(offer=CLOUD),
            reason=Reason.OUT_OF_CAPACITY, detail="no capacity",
        )  # fmt: skip
        [job] = rows_of(decide_job(a_view(job, refused), job, new_id), Workload)
        sizes.append(job_state(job).size)
        assert job.phase is WorkloadPhase.RECOVERING
        if job.retry_ms <= NOW:
            [claim] = rows_of(decide_owned(a_view(job), new_id), Claim)
            assert claim.count == sizes[-1]
        job = changed(job, phase=WorkloadPhase.STARTING)
    assert sizes == [6, 5, 4, 3, 2, 0, 6, 5]  # 0: after a pause, all again


class Running:
    """A gang of five on the farm, of which some nodes have gone silent for good."""

    def __init__(self, least: int, silent: int, *, provider: str = "farm") -> None:
        offer = FARM if provider == "farm" else CLOUD
        places = tuple(
            Placement(rank=rank, node_id=f"farm#{rank}", devices=FARM_DEVICES, memory_bytes=512 << 30)
            for rank in range(5)
        )
        self.claim = a_claim(
            id="clm-a", workload_id="job-a", count=5, placements=places if provider == "farm" else (),
            phase=ClaimPhase.HELD, choice=a_choice(offer=offer),
        )  # fmt: skip
        self.nodes = [
            a_node(
                id=f"nod-{index}", claim_id="clm-a", workload_id="job-a", index=index, provider=provider,
                devices=(0, 1, 2, 3), ready_ms=EPOCH_MS,
                phase=NodePhase.UNREACHABLE if index < silent else NodePhase.READY,
                unreachable_ms=NOW - 600_000 if index < silent else 0,
            )
            for index in range(5)
        ]  # fmt: skip
        placements = tuple(
            Placement(rank=at, node_id=node.id, devices=FARM_DEVICES) for at, node in enumerate(self.nodes)
        )
        self.attempt = an_attempt(
            id="att-a", workload_id="job-a", placements=placements, phase=AttemptPhase.ENDING,
            outcome=Outcome.LOST, reason=Reason.NODE_LOST, detail="node 0 is silent", ending_ms=NOW - 500_000,
            lease_ms=60_000,
        )  # fmt: skip
        self.job = a_gang(
            least,
            8,
            place=provider,
            phase=WorkloadPhase.RUNNING,
            attempts=1,
            attempt_id="att-a",
            ran_on="clm-a",
        )
        self.facts = Facts()
        for node in self.nodes[silent:]:
            self.facts.link_up(node.id, NodeFacts(), NOW - 600_000)
            self.facts.set_ranks(node.id, [], complete=True)

    def after_the_loss(self) -> tuple[Workload, Claim, View]:
        view = a_view(self.job, self.claim, self.attempt, *self.nodes, facts=self.facts)
        view = msgspec.structs.replace(view, fence_ms=lambda attempt_id: 0)
        for node in self.nodes:  # the ranks on the others have been ended
            if node.phase is NodePhase.READY:
                rank = f"att-a.{node.index}"
                self.facts.set_ranks(node.id, [_exited(rank)], complete=True)
        actions = decide_job(view, self.job, new_id)
        [attempt] = rows_of(actions, Attempt)
        assert attempt.phase is AttemptPhase.ENDED
        [job] = rows_of(actions, Workload)
        claim = next(iter(rows_of(actions, Claim)), self.claim)
        later = a_view(job, claim, *self.nodes, facts=self.facts, now_ms=NOW + 1)
        return job, claim, later


def _exited(rank_id: str) -> RankFact:
    return RankFact(id=rank_id, phase=RankPhase.EXITED, exit_code=143)


def test_after_a_loss_it_goes_on_with_the_nodes_that_are_left() -> None:
    job, claim, view = Running(least=2, silent=2).after_the_loss()
    assert claim.desired is Desired.RUN
    assert job_state(job).ran_on == ""  # what was copied is put on every node
    assert rows_of(decide_claim(view, claim, new_id), Claim) == []  # and is not given up for the lost ones
    [starting] = rows_of(decide_job(view, job, new_id), Workload)
    view = a_view(starting, claim, *view.rows.nodes.values(), facts=Facts(), now_ms=NOW + 1)
    decided = decide_claim(view, claim, new_id)
    assert rows_of(decided, Claim) == []  # nor while it starts; and nobody looks again at once, for ever
    assert min(action.at_ms for action in decided if isinstance(action, WakeAt)) > view.now_ms
    [attempt] = rows_of(decide_job(view, starting, new_id), Attempt)
    assert [place.node_id for place in attempt.placements] == ["nod-2", "nod-3", "nod-4"]
    assert [place.rank for place in attempt.placements] == [0, 1, 2]
    nodes = [view.rows.nodes[place.node_id] for place in attempt.placements]
    orders = rank_orders(starting, attempt, nodes, cluster=None, claim=claim, shared_dir="")
    assert {order.env["SKYPILOT_NUM_NODES"] for _, order in orders} == {"3"}
    assert len(orders[0][1].env["ARGOSY_NODE_IPS"].split("\n")) == 3


@pytest.mark.parametrize(("least", "silent", "provider"), [(4, 2, "farm"), (5, 1, "farm"), (2, 2, "cloud")])
def test_where_too_few_are_left_or_all_go_it_asks_anew(least: int, silent: int, provider: str) -> None:
    job, claim, _ = Running(least, silent, provider=provider).after_the_loss()
    assert job.phase is WorkloadPhase.RECOVERING
    assert claim.desired is Desired.END


def test_it_waits_for_its_own_machines_to_come_back_but_not_for_ever() -> None:
    waiting = a_gang(2, 6, phase=WorkloadPhase.RECOVERING, attempts=1, retry_ms=NOW)
    lost = msgspec.structs.replace(
        Running(5, 1).claim, phase=ClaimPhase.RELEASING, desired=Desired.END, workload_id=waiting.id
    )
    assert rows_of(decide_owned(a_view(waiting, lost), new_id), Claim) == []
    one_free = a_view(waiting, lost, now_ms=NOW + GIVEN_BACK_MS)
    assert rows_of(decide_owned(one_free, new_id), Claim) == []  # it holds five of six, and needs two
    [claim] = rows_of(decide_owned(a_view(waiting, now_ms=NOW + 100), new_id), Claim)
    assert claim.count == 6


def test_nodes_that_still_boot_are_waited_for() -> None:
    run = Running(least=2, silent=0)
    booting = [
        node if node.index else msgspec.structs.replace(node, phase=NodePhase.BOOTING, ready_ms=0)
        for node in run.nodes
    ]
    job = a_gang(2, 8, phase=WorkloadPhase.STARTING)
    assert rows_of(decide_job(a_view(job, run.claim, *booting), job, new_id), Attempt) == []
    assert all(isinstance(node, Node) for node in booting)
