"""The counters of a gateway as Prometheus reads them (text format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from argosy.model.exposition import sample
from argosy.model.routes import LATENCY_BOUNDS_MS, GatewayCounters, RevisionCounters, ServiceCounters

_PREFIX: Final = "argosy_gateway_"

Sample = tuple[str, dict[str, str], float]


def render_metrics(counters: GatewayCounters) -> str:
    """All metrics, each with its type, samples of one metric together."""
    samples: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    for name, kind, labels, value in _samples(counters):
        family = (
            name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
            if kind == "histogram"
            else name
        )
        kinds[family] = kind
        samples.setdefault(family, []).append(sample(_PREFIX + name, labels, value))
    lines: list[str] = []
    for family, told_samples in samples.items():
        lines += [f"# TYPE {_PREFIX}{family} {kinds[family]}", *told_samples]
    return "\n".join(lines) + "\n"


def _samples(counters: GatewayCounters) -> Iterator[tuple[str, str, dict[str, str], float]]:
    yield "generation", "gauge", {}, counters.generation
    for service in counters.services:
        yield from _of_service(service)


def _of_service(service: ServiceCounters) -> Iterator[tuple[str, str, dict[str, str], float]]:
    labels = {"service": service.id}
    yield "service_requests_total", "counter", labels, service.requests
    yield "service_in_flight", "gauge", labels, service.in_flight
    yield "held_requests", "gauge", labels, service.held
    yield "held_refused_total", "counter", labels, service.held_refused
    yield "refused_total", "counter", labels, service.refused
    yield "retries_total", "counter", labels, service.retries
    for revision in service.revisions:
        yield from _of_revision({**labels, "revision": revision.id}, revision)
    for replica in service.replicas:
        told = {**labels, "revision": replica.revision, "replica": replica.id}
        yield "replica_requests_total", "counter", told, replica.requests
        yield "replica_errors_total", "counter", told, replica.errors
        yield "replica_in_flight", "gauge", told, replica.in_flight
        yield "replica_ready", "gauge", told, float(replica.state == "ready")
        if replica.requests:
            yield "replica_tokens_total", "counter", {**told, "direction": "input"}, replica.input_tokens
            yield "replica_tokens_total", "counter", {**told, "direction": "output"}, replica.output_tokens
            yield from _histogram("replica_duration_seconds", told, replica.latency, replica.latency_ms)
    for key in service.keys:
        told = {**labels, "key": key.id}
        yield "key_requests_total", "counter", told, key.requests
        yield "key_refused_total", "counter", told, key.refused
        yield "key_tokens_total", "counter", {**told, "direction": "input"}, key.input_tokens
        yield "key_tokens_total", "counter", {**told, "direction": "output"}, key.output_tokens


def _of_revision(
    labels: dict[str, str], revision: RevisionCounters
) -> Iterator[tuple[str, str, dict[str, str], float]]:
    yield "requests_total", "counter", labels, revision.requests
    yield "errors_total", "counter", labels, revision.errors
    yield "tokens_total", "counter", {**labels, "direction": "input"}, revision.input_tokens
    yield "tokens_total", "counter", {**labels, "direction": "output"}, revision.output_tokens
    yield "shadowed_total", "counter", labels, revision.shadowed
    for name, counts, total_ms in (
        ("duration_seconds", revision.latency, revision.latency_ms),
        ("first_byte_seconds", revision.first_byte, revision.first_byte_ms),
    ):
        yield from _histogram(name, labels, counts, total_ms)


def _histogram(
    name: str, labels: dict[str, str], counts: Iterable[int], total_ms: int
) -> Iterator[tuple[str, str, dict[str, str], float]]:
    seen = 0
    for bound, count in zip((*(f"{ms / 1000:g}" for ms in LATENCY_BOUNDS_MS), "+Inf"), counts, strict=False):
        seen += count
        yield f"{name}_bucket", "histogram", {**labels, "le": bound}, seen
    yield f"{name}_sum", "histogram", labels, total_ms / 1000
    yield f"{name}_count", "histogram", labels, seen
