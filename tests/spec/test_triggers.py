"""`triggers` of a service."""

from __future__ import annotations

from typing import get_args

import pytest

from argosy.controllers.service.routes import POLICIES
from argosy.controllers.service.target import scaling_policy
from argosy.model.errors import ArgosyError
from argosy.model.kinds.service import Revision
from argosy.model.routes import PolicyName
from argosy.model.scaling import CONCURRENCY, Formula, Target
from argosy.model.serving import BALANCES
from argosy.spec.parse import parse_task

HEAD = "run: x\nservice:\n  readiness_probe: /\n  replica_policy:\n    min_replicas: 0\n    max_replicas: 9\n"


def _task(text: str) -> str:
    return HEAD + f"    triggers:\n      - {{{text}}}\n"


def test_triggers_become_targets_of_the_policy() -> None:
    text = _task(
        "type: redis, name: jobs, metadata: {address: 'r:6379', listName: jobs, activationListLength: 2}"
    )
    text += "      - {type: http, metadata: {concurrency: 4}}\n    rule: hpa\n"
    (task,) = parse_task(text).tasks
    policy = scaling_policy(Revision(number=1, digest="d", task=task))
    assert policy.formula is Formula.HPA
    assert policy.targets == (
        Target(signal=CONCURRENCY, value=4, trigger="http"),
        Target(signal="jobs", value=5, activation=2, trigger="jobs"),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("type: prometeus", "there is no trigger of type `prometeus`"),
        ("type: memory", "triggers of type `memory` are not followed yet"),
        ("type: kafka, metadata: {topic: t, consumerGroup: g}", "`kafka` trigger has no `bootstrapServers`"),
        ("type: kafka, metadata: {bootstrapServers: b, topic: t, consumerGroup: g, tls: on}", "is neither"),
        ("type: cpu", "the `cpu` trigger has no `value`"),
        ("type: cpu, metadata: {value: 500m, type: AverageValue}", "`cpu` trigger follows a utilisation"),
        ("type: cpu, metadata: {value: lots}", "`value` is no number: `lots`"),
        ("type: redis, metadata: {listName: a}", "the `redis` trigger has no `address`"),
        ("type: redis, metadata: {address: 'a:1', listName: a, lenght: 4}", "a `redis` trigger has no field"),
        ("type: prometheus, metadata: {serverAddress: 'http://p', query: x}", "has no `threshold`"),
        ("type: aws-sqs-queue, metadata: {queueURL: u, queueLength: many}", "is no number: `many`"),
        ("type: aws-sqs-queue, metadata: {queueURL: u, queueLength: 0}", "`queueLength` is not above 0"),
        ("type: cron, metadata: {start: 0 8 * * *, end: 0 9 * * *}", "has no `desiredReplicas`"),
        ("type: cron, metadata: {start: 0 8 * *, end: 0 9 * * *, desiredReplicas: 2}", "has 4 fields"),
        ("type: cron, metadata: {timezone: X, start: 0 8 * * *, end: 0 9 * * *, desiredReplicas: 2}", "'X'"),
        ("type: http, metadata: {}", "the `http` trigger says no number"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_trigger(text: str, said: str) -> None:
    with pytest.raises(ArgosyError) as raised:
        parse_task(_task(text))
    assert said in str(raised.value.what)


def test_every_way_to_choose_a_replica_is_known_to_gateways() -> None:
    assert set(POLICIES) == set(BALANCES)
    assert set(POLICIES.values()) == set(get_args(PolicyName))


def test_targets_are_signals_of_the_service_itself() -> None:
    text = HEAD + "    targets: {concurrency: 8, latency: 0.5, gpu: 70, queue: 2, tokens: 900, cpu: 60}\n"
    (task,) = parse_task(text).tasks
    policy = scaling_policy(Revision(number=1, digest="d", task=task))
    told = [(each.signal, each.value, each.each) for each in policy.targets]
    assert told == [
        ("concurrency", 8, True),
        ("latency", 0.5, False),
        ("gpu", 70, False),
        ("queue", 2, True),
        ("tokens", 900, True),
        ("cpu", 60, False),
    ]


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("{latencyy: 1}", "there is no metric `latencyy`", "did you mean `latency`?"),
        ("{temperature: 1}", "there is no metric `temperature`", "others are `triggers`"),
        ("{gpu: 0}", "the target of `gpu` is not above 0", "write one like `gpu: 5`"),
    ],
)
def test_a_metric_that_does_not_exist(text: str, said: str, hint: str) -> None:
    with pytest.raises(ArgosyError) as raised:
        parse_task(HEAD + f"    targets: {text}\n")
    assert said in str(raised.value.what) and hint in str(raised.value.hint)
