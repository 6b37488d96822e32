"""One owned offer for many different machines: what a gang gets of them, what is said where it does not fit,
and machines that close or vanish while something runs there."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from argosy.controllers.observed import Facts
from argosy.controllers.pool.caches import PoolCaches
from argosy.controllers.pool.decide import decide_owned
from argosy.controllers.pool.pictures import Picture
from argosy.controllers.view import Action, Put, View
from argosy.infra.owned import offers_of_machines
from argosy.model.facts import NodeFacts
from argosy.model.offer import Offer, OwnedMachine
from argosy.model.phases import ClaimPhase, Desired, WorkloadPhase
from argosy.model.resources import Accelerator, Infra, Resources
from argosy.model.rows import Claim, Row, Workload
from argosy.model.scheduling import Scheduling
from argosy.model.units import GIB, Bound
from argosy.planning import Ability, plan, usage_by_provider
from argosy.server.pool_views import view_pool
from argosy.store.snapshot import Snapshot
from argosy.testing.builders import a_cluster, a_job, a_task, changed, some_devices
from argosy.testing.virtual_time import EPOCH_MS

ABLE = {"ssh": Ability(multi_node=True, fractions=True, owned=True)}
NOW = EPOCH_MS + 60_000
_counter = itertools.count(1)


def host(
    name: str, gpus: int, model: str = "H100", *, cpus: int = 32, closed: str = "", **facts: object
) -> OwnedMachine:
    known = NodeFacts(
        hostname=name,
        arch="x86_64",
        cpus_milli=cpus * 1000,
        memory_bytes=cpus * 4 * GIB,
        devices=some_devices(gpus, model),
        **facts,
    )
    return OwnedMachine(name=name, facts=known, closed=closed)


LAB = (host("gpu1", 8), host("gpu2", 8, cpus=64), host("gpu3", 4, "A100", cpus=16), host("cpu1", 0, cpus=96))


def lab(*machines: OwnedMachine) -> list[Offer]:
    return offers_of_machines("ssh", "lab", machines or LAB)


def a_view(*rows: Row, offers: list[Offer]) -> View:
    return View(
        now_ms=NOW,
        rows=Snapshot.of(rows),
        observed=Facts(),
        offers=tuple(offers),
        abilities=ABLE,
        pools=PoolCaches(),
    )


def a_wish(gpus: int = 0, model: str | None = "H100", **fields: object) -> Resources:
    gpu = Accelerator(model=model, milli=gpus) if gpus else None
    return Resources(accelerator=gpu, **fields)


def job_of(wish: Resources, nodes: int, **scheduling: object) -> Workload:
    task = a_task(resources=(wish,), num_nodes=nodes, scheduling=Scheduling(**scheduling))
    return a_job(task=task, managed=True, name="train")


def new_id(prefix: str) -> str:
    return f"{prefix}-new{next(_counter)}"


def places(actions: list[Action]) -> list[str]:
    [claim] = [each.row for each in actions if isinstance(each, Put) and isinstance(each.row, Claim)]
    assert not claim.choice.offer.machines, "claims do not carry the whole pool"
    return sorted(place.node_id for place in claim.placements)


@pytest.mark.parametrize(
    ("wish", "nodes", "expected"),
    [
        (a_wish(8000), 2, ["ssh/lab#gpu1", "ssh/lab#gpu2"]),
        (a_wish(1000), 2, ["ssh/lab#gpu1", "ssh/lab#gpu2"]),  # a node is a machine: not twice on one
        (a_wish(4000, "A100"), 1, ["ssh/lab#gpu3"]),
        (a_wish(1000, None), 3, None),  # of one model: two have H100, one has A100
        (a_wish(cpus=Bound(60_000)), 2, ["ssh/lab#cpu1", "ssh/lab#gpu2"]),
        (a_wish(), 4, ["ssh/lab#cpu1", "ssh/lab#gpu1", "ssh/lab#gpu2", "ssh/lab#gpu3"]),
        (a_wish(500, infra=Infra(provider="ssh", region="lab", zone="gpu2")), 1, ["ssh/lab#gpu2"]),
        (a_wish(infra=Infra(provider="ssh", region="lab", zone="cpu1")), 1, ["ssh/lab#cpu1"]),
    ],
)
def test_a_gang_gets_machines_that_suit_it(wish: Resources, nodes: int, expected: list[str] | None) -> None:
    job = job_of(wish, nodes)
    actions = decide_owned(a_view(job, offers=lab()), new_id)
    if expected is None:
        assert not [each for each in actions if isinstance(each, Put) and isinstance(each.row, Claim)]
    else:
        assert places(actions) == expected


@pytest.mark.parametrize(
    ("reported_mib", "asked_gib", "fits"),
    [(81_559, 80, True), (81_559, 81, False), (23_034, 24, True), (22_528, 24, False)],
)
def test_cards_are_asked_for_by_the_memory_that_they_are_sold_with(
    reported_mib: int, asked_gib: int, fits: bool
) -> None:
    known = host("gpu1", 1)
    (card,) = known.facts.devices
    seen = msgspec.structs.replace(card, memory_bytes=reported_mib << 20)
    offers = lab(msgspec.structs.replace(known, facts=msgspec.structs.replace(known.facts, devices=(seen,))))
    wish = Resources(accelerator=Accelerator(model=None, milli=1000, memory_min_bytes=asked_gib * GIB))
    made = plan([wish], 1, offers, abilities=ABLE)
    assert [each.code for each in made.rejected] == ([] if fits else ["accelerator-memory"])
    actions = decide_owned(a_view(job_of(wish, 1), offers=offers), new_id)
    claims = [each.row for each in actions if isinstance(each, Put) and isinstance(each.row, Claim)]
    assert len(claims) == fits


@pytest.mark.parametrize(
    ("wish", "nodes", "told"),
    [
        (a_wish(8000), 3, "accelerator: has 2 machines with 8 H100, asked for 3"),
        (a_wish(16000), 1, "accelerator: its largest machine has 8, asked for 16 H100"),
        (a_wish(cpus=Bound(60_000)), 3, "cpus: has 2 machines with 60 CPUs, asked for 3"),
        (a_wish(memory=Bound(300 * GIB)), 2, "memory: has 1 machine with 300 GB of memory, asked for 2"),
        (a_wish(), 5, "nodes: has 4 machines, asked for 5 nodes, each on a machine of its own"),
        (a_wish(8000, cpus=Bound(60_000)), 2, "capacity: has 1 machine with 8 H100 and 60 CPUs, asked for 2"),
        (
            a_wish(infra=Infra(provider="ssh", region="lab", zone="gpu9")),
            1,
            "zone: `infra` asks for zone gpu9",
        ),
        (
            a_wish(infra=Infra(provider="ssh", region="lab", zone="gpu1")),
            2,
            "nodes: has 1 machine, asked for 2 nodes, each on a machine of its own",
        ),
    ],
)
def test_what_does_not_fit_says_what_there_is(wish: Resources, nodes: int, told: str) -> None:
    made = plan(
        [wish],
        nodes,
        lab(host("gpu1", 8), host("gpu2", 8, cpus=64), host("cpu1", 0, cpus=96), host("cpu2", 0)),
        abilities=ABLE,
    )
    assert made.choices == ()
    assert [f"{each.code}: {each.text}" for each in made.rejected] == [told]


def test_what_is_in_use_or_closed_is_waited_for() -> None:
    """Per machine: eight free devices on two machines are no machine with eight."""
    job = job_of(a_wish(1000), 2)
    actions = decide_owned(a_view(job, offers=lab()), new_id)
    [claim] = [each.row for each in actions if isinstance(each, Put) and isinstance(each.row, Claim)]
    usage = usage_by_provider([claim], {job.id: "train"})
    made = plan([a_wish(8000)], 1, lab(), abilities=ABLE, usage=usage)
    assert [each.text for each in made.rejected if each.code == "busy"] == [
        "waits for 1 machine with 8 H100: 0 of 2 are free (in use by train)"
    ]
    closed = lab(host("gpu1", 8, closed="does not answer"), host("gpu2", 8))
    made = plan([a_wish(8000)], 2, closed, abilities=ABLE, usage={})
    assert [each.text for each in made.rejected] == [
        "waits for 2 machines with 8 H100: 1 of 2 are free (gpu1 does not answer)"
    ]


def test_a_closed_machine_takes_nothing_new_and_the_job_waits_for_it() -> None:
    machines = (host("gpu1", 8, closed="is drained"), host("gpu2", 4))
    job = job_of(a_wish(8000), 1)
    view = a_view(job, offers=lab(*machines))
    actions = decide_owned(view, new_id)
    assert not [each for each in actions if isinstance(each, Put)]
    told = Picture(view).pending(view.rows, job, NOW)
    assert told is not None
    assert told.text == "The only suitable node is drained."
    opened = msgspec.structs.replace(view, offers=tuple(lab(host("gpu1", 8), host("gpu2", 4))))
    assert places(decide_owned(opened, new_id)) == ["ssh/lab#gpu1"]


def test_a_claim_on_a_machine_that_closes_or_vanishes_keeps_its_room() -> None:
    job = job_of(a_wish(8000), 1)
    view = a_view(job, offers=lab(host("gpu1", 8)))
    actions = decide_owned(view, new_id)
    rows = {each.row.id: each.row for each in actions if isinstance(each, Put)}
    other = job_of(a_wish(1000), 1)
    for machines in ((host("gpu1", 8, closed="does not answer"), host("gpu2", 0)), (host("gpu2", 0),)):
        gone = a_view(*rows.values(), other, offers=lab(*machines))
        assert not [
            each.row
            for each in decide_owned(gone, new_id)
            if isinstance(each, Put) and isinstance(each.row, Claim)
        ]
    back = a_view(*rows.values(), other, offers=lab(host("gpu1", 8)))
    assert not [
        each.row
        for each in decide_owned(back, new_id)
        if isinstance(each, Put) and isinstance(each.row, Claim)
    ]


def test_domains_of_machines_keep_a_gang_together() -> None:
    machines = [host(f"gpu{n}", 8, domains=(f"rack{n // 2}",)) for n in range(4)]
    job = job_of(a_wish(8000), 2, required="block")
    assert places(decide_owned(a_view(job, offers=lab(*machines)), new_id)) in (
        ["ssh/lab#gpu0", "ssh/lab#gpu1"],
        ["ssh/lab#gpu2", "ssh/lab#gpu3"],
    )


def test_labels_and_taints_choose_a_machine() -> None:
    machines = [
        host("gpu1", 8, taints=("broken",)),
        host("gpu2", 8, labels=(("disk", "nvme"),)),
        host("gpu3", 8),
    ]
    labelled = job_of(a_wish(1000), 1, labels=(("disk", "nvme"),))
    assert places(decide_owned(a_view(labelled, offers=lab(*machines)), new_id)) == ["ssh/lab#gpu2"]
    plain = job_of(a_wish(8000), 2)
    assert places(decide_owned(a_view(plain, offers=lab(*machines)), new_id)) == [
        "ssh/lab#gpu2",
        "ssh/lab#gpu3",
    ]


def test_each_place_is_a_pool_of_its_own_in_pictures() -> None:
    machines = (host("gpu1", 8), host("gpu2", 8, closed="is cordoned"))
    offers = [*lab(*machines), *offers_of_machines("ssh", "attic", (host("old", 1, "V100"),))]
    view = a_view(offers=offers)
    assert view.pools is not None
    view.pools.owned(view)
    pools = [view_pool(each) for each in Picture(view).pools]
    assert [(pool.id, [(each.name, each.closed) for each in pool.machines]) for pool in pools] == [
        ("ssh/attic", [("ssh/attic/old", "")]),
        ("ssh/lab", [("ssh/lab/gpu1", ""), ("ssh/lab/gpu2", "is cordoned")]),
    ]
    assert [(gang.model, gang.gpus, gang.num_nodes) for gang in pools[1].gangs] == [
        ("H100", 1, 1),
        ("H100", 2, 1),
        ("H100", 4, 1),
        ("H100", 8, 1),
    ]


def test_offers_of_machines_without_any_accelerator() -> None:
    [offer] = offers_of_machines(
        "ssh", "lab", (host("a", 0, cpus=8), host("b", 0, cpus=16)), price_micro_usd=5, now_ms=7
    )
    assert (offer.shape.cpus_milli, offer.shape.accelerator, offer.nodes_max, offer.quoted_at_ms) == (
        16_000,
        None,
        2,
        7,
    )


def test_a_gang_at_rest_starts_on_its_own_machines_again() -> None:
    cluster = a_cluster(num_nodes=2, resources=(a_wish(8000),), name="dev")
    view = a_view(cluster, offers=lab(host("gpu1", 8), host("gpu2", 8)))
    [claim] = [
        each.row
        for each in decide_owned(view, new_id)
        if isinstance(each, Put) and isinstance(each.row, Claim)
    ]
    swapped = tuple(
        msgspec.structs.replace(place, rank=1 - place.rank) for place in reversed(claim.placements)
    )
    resting = changed(claim, phase=ClaimPhase.STOPPED, desired=Desired.STOP, placements=swapped)
    stopped = changed(cluster, phase=WorkloadPhase.STOPPED)
    more = (host("gpu0", 8), host("gpu1", 8), host("gpu2", 8), host("gpu3", 8))
    view = a_view(stopped, resting, offers=lab(*more))
    actions = decide_owned(view, new_id)
    [again] = [each.row for each in actions if isinstance(each, Put) and isinstance(each.row, Claim)]
    assert again.placements == swapped
    drained = (host("gpu1", 8, closed="is drained"), host("gpu2", 8), host("gpu3", 8))
    view = a_view(stopped, resting, offers=lab(*drained))
    assert not [each for each in decide_owned(view, new_id) if isinstance(each, Put)]
