"""What is checked when something is ordered or starts in the simulated world: intent, and once only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from argosy.model.phases import AttemptPhase
from argosy.model.rows import Claim, Node

if TYPE_CHECKING:
    from argosy.testing.machines import Machine
    from argosy.testing.world import World


def check_claim_intent(world: World, claim: Claim) -> None:
    if world.knows_rows and not isinstance(world.rows.get(claim.id), Claim):
        world.violate("intent-first", f"machines of {claim.id} are ordered, and no such claim is committed")


def check_rank_intent(world: World, machine: Machine, order_id: str) -> None:
    if not world.knows_rows:
        return
    attempt = world.attempt_of(order_id)
    rank = int(order_id.rpartition(".")[2])
    if attempt is None:
        world.violate("intent-first", f"rank {order_id} is ordered, and no such attempt is committed")
        return
    node = next((world.rows.get(p.node_id) for p in attempt.placements if p.rank == rank), None)
    if not isinstance(node, Node) or f"{node.claim_id}/{node.index}" != machine.address:
        world.violate(
            "intent-first", f"rank {order_id} is ordered on {machine.address}, not where it was placed"
        )


def check_start(world: World, rank_id: str) -> None:
    attempt_id = rank_id.rpartition(".")[0]
    if rank_id in world.running:
        world.violate("rank-once", f"{rank_id} runs on {world.running[rank_id]} and is started again")
    elif rank_id in world.starts:
        world.violate("finished-never-restarts", f"{rank_id} had ended and is started again")
    attempt = world.attempt_of(rank_id)
    if attempt is None:
        return
    if attempt.phase is AttemptPhase.ENDED:
        world.violate("finished-never-restarts", f"{rank_id} starts after its attempt was recorded as ended")
    missing = [p.rank for p in attempt.placements if f"{attempt_id}.{p.rank}" not in world.prepared]
    if missing:
        world.violate("gang-together", f"{rank_id} starts before ranks {missing} of its gang are prepared")
    for other_id in world.running:
        other = world.attempt_of(other_id)
        if other is not None and other.workload_id == attempt.workload_id and other.id != attempt.id:
            world.violate("one-attempt", f"{rank_id} starts while {other_id} of the same job still runs")
            break
