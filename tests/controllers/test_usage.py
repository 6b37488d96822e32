"""How busy the machines of replicas are, as a signal of the autoscaler."""

from __future__ import annotations

from argosy.controllers.observed import Facts
from argosy.controllers.service.scaling import wanted_replicas
from argosy.controllers.usage import Usage
from argosy.model.facts import Device, NodeFacts, RankFact, RankPhase
from argosy.model.kinds.service import Replica, ReplicaState
from argosy.model.scaling import CPU, GPU, Formula, Policy, Seen, Target


def _facts(*loads: tuple[int, int]) -> Facts:
    """(load of a machine with 4 CPUs in thousandths, per cent of its GPU; -1: not known) of each."""
    facts = Facts()
    for number, (load, gpu) in enumerate(loads):
        devices = (Device(index=0, model="L4", utilisation_percent=gpu),)
        facts.link_up(f"nod-{number}", NodeFacts(cpus_milli=4000, load_milli=load, devices=devices), 0)
        rank = RankFact(id=f"att-{number}.0", phase=RankPhase.RUNNING)
        facts.set_ranks(f"nod-{number}", [rank], complete=True)
    return facts


def _replica(number: int, state: ReplicaState = ReplicaState.READY) -> Replica:
    return Replica(
        job_id=f"job-{number}", number=number, revision=1, port=1, state=state, attempt_id=f"att-{number}"
    )


def test_means_over_the_machines_of_ready_replicas() -> None:
    usage, facts = Usage(), _facts((2000, 90), (4000, 50), (400, 0))
    replicas = [_replica(0), _replica(1), _replica(2, ReplicaState.WARMING), _replica(7)]
    assert usage.signals("svc", replicas, facts, ["requests"]) == {}
    assert usage.signals("svc", replicas, facts, [GPU, CPU]) == {CPU: [75.0], GPU: [70.0]}
    assert usage.signals("svc", replicas, facts, [GPU]) == {GPU: [70.0, 70.0]}
    usage.forget("svc")
    assert usage.signals("svc", replicas, facts, [GPU]) == {GPU: [70.0]}


def test_a_machine_that_does_not_say_gives_no_value() -> None:
    assert Usage().signals("svc", [_replica(0)], _facts((100, -1)), [GPU]) == {}


def test_replicas_grow_with_the_utilisation() -> None:
    target = Target(signal=GPU, value=70, each=False)
    policy = Policy(min_replicas=1, max_replicas=9, formula=Formula.TARGET, targets=(target,))
    seen = Seen(now_ms=100_000, ready=2, signals={GPU: [98.0] * 60})
    assert wanted_replicas(policy, seen).replicas == 3
    assert wanted_replicas(policy, Seen(now_ms=100_000, ready=2, signals={})).replicas == 2, "no value"
