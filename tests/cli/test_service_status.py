"""`serve status` on a terminal: the pace, latencies and prices of services and their replicas, and why."""

from __future__ import annotations

import msgspec
from command_line import CommandLine

from argosy.api.services import ReplicaView, RevisionView, RolloutView, ServiceList, ServiceView
from argosy.testing.fake_server import FakeServer
from argosy.testing.shared_answers import STARTED_MS

REPLICAS = (
    ReplicaView(
        number=1, job="job-1", revision=1, state="ready", since_ms=STARTED_MS, place="aws/us-east-1",
        in_flight=3, hourly_micro_usd=1_200_000, requests_milli_per_s=20_500, p50_ms=12, p99_ms=250,
    ),
    ReplicaView(number=2, job="job-2", revision=2, state="warming", since_ms=STARTED_MS,
                place="gcp/us-central1", detail="/health answers 503", last_lines=("loads weights",)),
)  # fmt: skip
SERVICE = ServiceView(
    id="svc-1", name="chat", status="updating", endpoint="http://127.0.0.1:8000/s/chat", revision=1, ready=1,
    wanted=2, requests_milli_per_s=20_500, p50_ms=12, p99_ms=250, hourly_micro_usd=1_200_000,
    micro_usd_per_million_tokens=420_000, replicas=REPLICAS,
    revisions=(
        RevisionView(number=1, weight=900, ready=1), RevisionView(number=2, weight=100, ready=1),
    ),
    rollout=RolloutView(old=1, new=2, strategy="canary", phase="baking", steps=(100, 1000), detail="30 s"),
    failures=("replica 0 of revision 2: exit code 1",),
)  # fmt: skip


def _cells(line: str) -> list[str]:
    return [each.strip() for each in line.split("  ") if each.strip()]


def test_the_columns_of_services_and_replicas(argosy: CommandLine, server: FakeServer) -> None:
    plain = msgspec.structs.replace(
        SERVICE, name="plain", micro_usd_per_million_tokens=0, micro_usd_per_million_requests=20_000,
        replicas=(), rollout=None, status="ready", revisions=(), failures=(),
    )  # fmt: skip
    server.raw_failures["services"] = [(200, msgspec.json.encode(ServiceList(services=(SERVICE, plain))))]
    shown = argosy("serve", "status")
    lines = [line for line in shown.out.splitlines() if line.strip()]
    assert _cells(lines[0])[:7] == ["SERVICE", "STATUS", "READY", "REVISION", "REQ/S", "P50", "P99"]
    assert _cells(lines[1]) == [
        "chat", "updating", "1/2", "1 90% 2 10%", "20.5", "12 ms", "250 ms", SERVICE.endpoint, "$1.20",
        "$0.42 tokens",
    ]  # fmt: skip
    assert _cells(lines[2])[-1] == "$0.02 requests"
    assert _cells(lines[3]) == [
        "REPLICA", "REVISION", "STATE", "FOR", "PLACE", "IN FLIGHT", "REQ/S", "P50", "P99", "$/H", "DETAIL",
    ]  # fmt: skip
    assert _cells(lines[4]) == [
        "chat/1", "1", "ready", "1h", "aws/us-east-1", "3", "20.5", "12 ms", "250 ms", "$1.20",
    ]  # fmt: skip
    assert _cells(lines[5]) == ["chat/2", "2", "warming", "1h", "gcp/us-central1", "/health answers 503"]
    assert "chat: revision 1 → 2, canary 10% → 100%: baking; 30 s" in shown.err
    assert "replica 0 of revision 2: exit code 1" in shown.err and "chat/2: loads weights" in shown.err


def test_programs_get_the_endpoint_alone(argosy: CommandLine, server: FakeServer) -> None:
    server.raw_failures["services"] = [(200, msgspec.json.encode(ServiceList(services=(SERVICE,))))]
    assert argosy.good("serve", "status", "--endpoint") == f"{SERVICE.endpoint}\n"


def test_without_services_it_says_how_one_is_made(argosy: CommandLine, server: FakeServer) -> None:
    server.raw_failures["services"] = [(200, msgspec.json.encode(ServiceList(services=())))]
    assert argosy.good("serve", "status") == "No services. Make one: argosy serve up FILE.yaml\n"
