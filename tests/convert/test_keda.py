"""KEDA's scaled objects become the `service` of a task."""

from __future__ import annotations

from argosy.convert import convert
from argosy.model.scaling import Cron, Target
from argosy.spec.parse import parse_task

SEED = """
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: inference-scaler
spec:
  scaleTargetRef:
    name: inference-deployment
  minReplicaCount: 1
  maxReplicaCount: 20
  triggers:
    - type: aws-sqs-queue
      metadata:
        queueURL: https://sqs.us-east-1.amazonaws.com/123456789/inference-queue
        queueLength: '5'
"""


def test_a_queue_of_a_textbook() -> None:
    found = convert(SEED, source="scaler.yaml")
    (task,) = parse_task(found.yaml).tasks
    assert task.name == "inference-deployment"
    assert task.service is not None
    replicas = task.service.replicas
    assert (replicas.least, replicas.most, replicas.formula) == (1, 20, "hpa")
    assert replicas.targets == (Target(signal="aws-sqs-queue-0", value=5, trigger="aws-sqs-queue-0"),)
    assert replicas.triggers[0].metadata == {
        "queueURL": "https://sqs.us-east-1.amazonaws.com/123456789/inference-queue"
    }
    assert found.not_carried == ()
    assert any("it never reaches zero" in note for note in found.notes)


def test_other_triggers_and_what_is_not_known() -> None:
    text = """
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: s, labels: {a: b}}
spec:
  scaleTargetRef: {name: web}
  pollingInterval: 10
  cooldownPeriod: 60
  fallback: {failureThreshold: 3, replicas: 6}
  triggers:
    - type: prometheus
      name: load
      metadata: {serverAddress: http://prom:9090, query: sum(x), threshold: '2', ignoreNullValues: 'false'}
      authenticationRef: {name: creds}
    - type: cron
      metadata: {timezone: Asia/Seoul, start: 0 8 * * *, end: 0 18 * * *, desiredReplicas: '4'}
    - type: kafka
      metadata: {topic: t, bootstrapServers: 'b:9092', consumerGroup: g, lagThreshold: '50', sasl: plaintext}
    - type: cpu
      metricType: Utilization
      metadata: {value: '60'}
    - type: memory
      metadata: {value: '60'}
    - type: rabbitmq
      metadata: {queueName: q}
"""
    found = convert(text, source="scaler.yaml")
    (task,) = parse_task(found.yaml).tasks
    assert task.service is not None
    replicas = task.service.replicas
    assert (replicas.least, replicas.most, replicas.down_ms) == (0, 100, 60_000)
    assert replicas.crons == (Cron(start="0 8 * * *", end="0 18 * * *", replicas=4, timezone="Asia/Seoul"),)
    assert [each.name for each in replicas.triggers] == ["load", "kafka-2"]
    assert Target(signal="cpu", value=60, each=False, trigger="cpu") in replicas.targets
    lost = "\n".join(found.not_carried)
    for said in (
        "ignoreNullValues",
        "fallback",
        "trigger `memory`",
        "sasl",
        "trigger `rabbitmq`",
        "pollingInterval",
    ):
        assert said in lost
