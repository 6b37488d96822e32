"""Who shares the simulated machines: a tree of queues drawn for a seed, and people in it who do not all
behave alike."""

from __future__ import annotations

import random

import msgspec

from argosy.model.scheduling import Isolation, Scheduling
from argosy.model.tenancy import Group, Queue, SharePolicy, Tenancy

PEOPLE = (("red", "ann"), ("red", "bob"), ("blue", "cid"), ("blue", "dee"), ("green", "eve"))


class Person(msgspec.Struct, frozen=True):
    project: str
    user: str


def draw_tenancy(dice: random.Random) -> Tenancy:
    """Some seeds have no tree at all; others guarantees, lending and limits that fit the machines of
    `sim_provider.a_market` (8 A100 and 16 L4). Protections are short, so that there is something to see in
    twenty minutes."""
    policy = SharePolicy(
        preemption=dice.random() < 0.85,
        consolidation=dice.random() < 0.3,
        backfill=dice.choice(["easy", "easy", "conservative", "none"]),
        attained_service=dice.random() < 0.3,
        min_runtime_s=dice.choice([0, 30, 120]),
        aging_s=dice.choice([600, 86_400]),
        half_life_s=dice.choice([600, 7 * 86_400]),
    )
    if dice.random() < 0.3:
        return Tenancy(policy=policy)
    gpus = 1000 * dice.choice([4, 8])
    red = {"gpus": gpus, "cpus": 16_000} if dice.random() < 0.7 else {"gpus/A100": 4000}
    queues = [
        Queue(path="org", limit={"jobs": 40} if dice.random() < 0.3 else {}),
        Queue(
            path="org/red",
            guaranteed=red,
            deserved={name: 2 * amount for name, amount in red.items()} if dice.random() < 0.5 else {},
            lend_limit=dict.fromkeys(red, 0) if dice.random() < 0.1 else {},
        ),
        Queue(
            path="org/blue",
            deserved={"gpus": 6000},
            limit={"gpus": 12_000, "jobs": 6} if dice.random() < 0.6 else {},
            weight_milli=dice.choice([500, 1000, 3000]),
        ),
    ]
    if dice.random() < 0.4:
        queues.append(Queue(path="org/blue/cid", limit={"gpus": 4000, "cpus": 24_000}))
    groups: tuple[Group, ...] = ()
    if dice.random() < 0.3:
        groups = (Group(name="quiet", nodes=("farm#3",), queues=("org/red",)),)
    queues = [
        msgspec.structs.replace(each, lend_limit=each.lend_limit if each.deserved else {}) for each in queues
    ]
    return Tenancy(queues=tuple(queues), groups=groups, policy=policy)


def draw_person(dice: random.Random) -> Person:
    return Person(*dice.choice(PEOPLE))


def draw_scheduling(dice: random.Random, *, has_gpu: bool) -> Scheduling:
    """The wish of one task."""
    preemptible = dice.random() < 0.6
    return Scheduling(
        preemptible=preemptible,
        checkpoint=preemptible and dice.random() < 0.7,
        isolation=Isolation.MEMORY if has_gpu and dice.random() < 0.15 else Isolation.NONE,
        share="any" if dice.random() < 0.5 else "own",
    )
