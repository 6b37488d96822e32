"""`service` of a task file: what it becomes, and what is wrong with it."""

from __future__ import annotations

import pytest
from click import UsageError

from argosy.cli.services import parse_steps, strategy_of
from argosy.model.errors import ArgosyError
from argosy.model.serving import Serving
from argosy.spec import parse_task


def serving(text: str, resources: str = "{}") -> Serving:
    source = f"run: x\nresources: {resources}\nservice: {text}\n"
    found = parse_task(source, source="t.yaml").tasks[0].service
    assert found is not None
    return found


def test_the_forms_of_a_probe() -> None:
    assert serving("{readiness_probe: /health, replicas: 2}").probe.path == "/health"
    probe = serving(
        "{readiness_probe: {path: /v1, post_data: {a: [1, b]}, headers: {X: y}, initial_delay_seconds: 60,"
        " timeout_seconds: 0.5}}"
    ).probe
    assert (probe.body, probe.headers, probe.start_ms, probe.timeout_ms) == (
        '{"a":[1,"b"]}', {"X": "y"}, 60_000, 500,
    )  # fmt: skip


def test_how_many_replicas() -> None:
    assert serving("{replicas: 3}").replicas.is_fixed
    replicas = serving(
        "{replica_policy: {min_replicas: 0, max_replicas: 5, target_qps_per_replica: {L4: 1.5, A100: 5}}}"
    ).replicas
    assert (replicas.least, replicas.most, replicas.qps_milli) == (0, 5, {"L4": 1500, "A100": 5000})


def test_the_port_stands_in_the_service_or_in_the_resources() -> None:
    assert serving("{replicas: 1, ports: 9000}", "{ports: [8080]}").port == 9000
    assert serving("{replicas: 1}", "{ports: [8080, 8081]}").port == 8080
    assert serving("{replicas: 1}").port == 0


def test_a_domain_is_one_host() -> None:
    assert serving("{domain: Chat.Example.org}").hosts == ("chat.example.org",)
    for wrong in ("https://chat.example.org", "chat", "chat.example.org:8000", "a..b", "-a.b"):
        with pytest.raises(ArgosyError, match="is not the name of a host"):
            serving(f"{{domain: '{wrong}'}}")


def test_users_are_told_apart_by_a_part_of_requests() -> None:
    for text in ("key", "address", "header:x-user", "cookie:Sid"):
        assert serving(f"{{affinity: '{text}'}}").affinity == text
    for wrong in ("user", "header", "header:", "key:x", "cookie:a b"):
        with pytest.raises(ArgosyError, match="tells no user apart"):
            serving(f"{{affinity: '{wrong}'}}")


def test_another_service_may_read_the_prompts() -> None:
    assert serving("{prefill: chat-prefill}").prefill == "chat-prefill"
    both = serving("{prefill: chat-prefill, bootstrap_port: 8998}")
    assert (both.prefill, both.bootstrap_port) == ("chat-prefill", 8998)
    assert serving("{bootstrap_port: 8998}").bootstrap_port == 0, "nobody reads the prompts"
    with pytest.raises(ArgosyError, match="bootstrap_port"):
        serving("{prefill: chat-prefill, bootstrap_port: 70000}")


def test_a_replica_lets_requests_end_for_as_long_as_its_service_says() -> None:
    assert serving("{drain_seconds: 90}").drain_ms == 90_000
    assert serving("{drain_seconds: 0}").drain_ms == 0
    assert serving("{replicas: 2}").drain_ms == 600_000


def test_grpc_finds_its_service_by_the_host() -> None:
    assert serving("{domain: a.example.org, grpc: true}").grpc
    [warning] = parse_task("run: x\nservice: {grpc: true}\n", source="t.yaml").warnings
    assert warning.what == "`grpc` has no `domain`, so nobody gets through by gRPC"
    assert "calls of gRPC find their service by the host" in warning.hint


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("{readiness_probe: health}", "the probe path `health` does not begin with `/`", "write `/health`"),
        (
            "{replica_policy: {min_replicas: 4, max_replicas: 2, target_qps_per_replica: 1}}",
            "`max_replicas: 2` is below `min_replicas: 4`",
            "raise the one or lower the other",
        ),
        (
            "{replicas: 2, replica_policy: {min_replicas: 1}}",
            "`replicas` and `replica_policy` exclude each other",
            "keep one of the two",
        ),
        (
            "{replica_policy: {max_replicas: 3, target_qps_per_replica: 0}}",
            "`target_qps_per_replica` is not above 0",
            "write how many requests per second one replica takes, such as `2.5`",
        ),
        ("{ports: 8000-8010}", "a service listens on one port, not on `8000-8010`", "write one port such as"),
    ],
)
def test_what_is_wrong_is_told_with_the_fix(text: str, what: str, hint: str) -> None:
    with pytest.raises(ArgosyError) as caught:
        serving(text)
    assert caught.value.what == what and caught.value.hint.startswith(hint)


def test_a_range_that_nothing_moves_in_is_told() -> None:
    parsed = parse_task("run: x\nservice: {replica_policy: {min_replicas: 1, max_replicas: 3}}\n")
    assert [each.what for each in parsed.warnings] == ["nothing says when there are more replicas than 1"]


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ("50,10", "the steps `50,10` do not grow: write for example 5,25,100"),
        ("10,200", "`10,200` are no steps: write percentages such as 5,25,100"),
        ("a", "`a` are no steps: write percentages such as 5,25,100"),
    ],
)
def test_shares_that_cannot_be(steps: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_steps(steps)
    assert caught.value.message == text


def test_one_way_at_a_time() -> None:
    flags = dict.fromkeys(
        ("canary", "steps", "bake", "blue_green", "shadow", "ab", "surge", "manual", "mode")
    )
    with pytest.raises(UsageError, match="--canary and --blue-green exclude each other"):
        strategy_of({**flags, "canary": 10, "blue_green": True})
    assert strategy_of({**flags, "canary": 10}).steps == (100, 500, 1000)
    assert strategy_of({**flags, "mode": "blue_green"}).name == "blue-green"
