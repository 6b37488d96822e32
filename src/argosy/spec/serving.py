"""From the `service` of a task file to the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from argosy.model.resources import Resources
from argosy.model.serving import WEIGHING, Probe, Replicas, Serving
from argosy.spec.findings import Findings, excerpt
from argosy.spec.shapes import Entry, Section
from argosy.spec.triggers import build_triggers

HEALTH: Final = "/health"  # where a function's program says that it is there
_PORT_HINT: Final = (
    "write one port such as `ports: 8000`, or none: the program then reads $ARGOSY_SERVICE_PORT"
)


def build_serving(task: Section, candidates: Sequence[Resources], findings: Findings) -> Serving | None:
    """None for a task that does not serve."""
    section = task.get("service", Section)
    function = "function" in task
    if section is None and function:
        return Serving(probe=Probe(path=HEALTH))
    if section is None or "pool" in section or "workers" in section:
        return None
    tls = section.get("tls", Section)
    balancer = section.get("load_balancer", Section)
    domain = section.get("domain", str)
    port = _port(section, findings) or _port_of(candidates)
    grpc = section.get("grpc", bool) or False
    if grpc and not domain:
        findings.warn(
            section.places["grpc"],
            "`grpc` has no `domain`, so nobody gets through by gRPC",
            "add `domain: NAME.example.org`: calls of gRPC find their service by the host",
        )
    return Serving(
        probe=_probe(section, findings) if not function else Probe(path=HEALTH),
        replicas=_replicas(section, findings),
        balance=section.get("load_balancing_policy", str) or "least_load",
        port=port,
        models=_models(section),
        endpoint=section.get("endpoint", str) or "",
        share_milli=round(float(share) * 10)
        if isinstance(share := section.get("share", object), int | float)
        else 0,
        affinity=section.get("affinity", str) or "",
        prefill=section.get("prefill", str) or "",
        bootstrap_port=_bootstrap_port(section, findings),
        drain_ms=_or(_ms(section, "drain_seconds"), Serving().drain_ms),
        stream_ms=(_ms(balancer, "stream_timeout_seconds") or 0) if balancer is not None else 0,
        hosts=(domain,) if domain else (),
        grpc=grpc,
        keyfile=(tls.get("keyfile", str) or "") if tls is not None else "",
        certfile=(tls.get("certfile", str) or "") if tls is not None else "",
    )


def _bootstrap_port(section: Section, findings: Findings) -> int:
    port = section.get("bootstrap_port", int) or 0
    if port and not section.get("prefill", str):
        findings.warn(
            section.places["bootstrap_port"],
            "`bootstrap_port` does nothing without `prefill`",
            "say which service reads the prompts: `prefill: NAME`",
        )
        return 0
    return port


def _models(section: Section) -> tuple[str, ...]:
    given = section.get("model", tuple)
    return tuple(str(each) for each in given) if given else ()


def _ms(section: Section, name: str) -> int | None:
    value = section.get(name, object)
    return round(value * 1000) if isinstance(value, int | float) else None


def _probe(section: Section, findings: Findings) -> Probe:
    given = section.get("readiness_probe", object)
    if isinstance(given, str):
        return Probe(path=_path(given, section, findings))
    if not isinstance(given, Section):
        return Probe()
    body = given.get("post_data", object)
    if isinstance(body, Section):
        body = body.plain
    default = Probe()
    times = {
        "start_ms": _ms(given, "initial_delay_seconds"),
        "timeout_ms": _ms(given, "timeout_seconds"),
        "every_ms": _ms(given, "endpoint_probe_interval_seconds"),
        "failing_ms": _ms(given, "consecutive_failure_threshold_timeout"),
    }
    return Probe(
        path=_path(given.get("path", str) or "/", given, findings),
        body=body if isinstance(body, str) else msgspec.json.encode(body).decode() if body else "",
        headers=_pairs(given.get("headers", object)),
        start_ms=_or(times["start_ms"], default.start_ms),
        timeout_ms=max(1, _or(times["timeout_ms"], default.timeout_ms)),
        every_ms=max(100, _or(times["every_ms"], default.every_ms)),
        failing_ms=_or(times["failing_ms"], default.failing_ms),
    )


def _pairs(given: object) -> dict[str, str]:
    """What a mapping of texts was read as."""
    entries = given if isinstance(given, tuple) else ()
    return {str(each.key): str(each.value) for each in entries if isinstance(each, Entry)}


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _path(text: str, section: Section, findings: Findings) -> str:
    if not text.startswith("/"):
        place = section.places.get("path") or section.places.get("readiness_probe") or section.place
        findings.error(place, f"the probe path `{excerpt(text)}` does not begin with `/`", f"write `/{text}`")
    return text


def _replicas(section: Section, findings: Findings) -> Replicas:
    fixed, policy = section.get("replicas", int), section.get("replica_policy", Section)
    if policy is None:
        return Replicas(least=1 if fixed is None else fixed, most=1 if fixed is None else fixed)
    if fixed is not None:
        findings.error(
            section.places["replicas"],
            "`replicas` and `replica_policy` exclude each other",
            "keep one of the two",
        )
    least = policy.get("min_replicas", int)
    least = 1 if least is None else least
    most = policy.get("max_replicas", int)
    if most is not None and most < least:
        findings.error(
            policy.places["max_replicas"],
            f"`max_replicas: {most}` is below `min_replicas: {least}`",
            "raise the one or lower the other",
        )
    qps = policy.get("target_qps_per_replica", object)
    targets: dict[str, int] = {}
    if isinstance(qps, int | float):
        targets = {"": round(qps * 1000)}
    elif qps is not None:
        targets = {name: round(float(value) * 1000) for name, value in _pairs(qps).items()}
    if any(value <= 0 for value in targets.values()):
        findings.error(
            policy.places["target_qps_per_replica"],
            "`target_qps_per_replica` is not above 0",
            "write how many requests per second one replica takes, such as `2.5`",
        )
    read = build_triggers(policy, findings)
    weighs = section.get("load_balancing_policy", str) in WEIGHING
    follows = targets or read.targets or read.crons or weighs
    if most is not None and most > least and not follows:
        findings.warn(
            policy.places["max_replicas"],
            f"nothing says when there are more replicas than {least}",
            "add `target_qps_per_replica: 5`",
        )
    default = Replicas()
    return Replicas(
        least=least,
        most=max(least, most if most is not None else least),
        spare=policy.get("num_overprovision", int) or 0,
        qps_milli=targets,
        formula=policy.get("rule", str) or "",
        targets=read.targets,
        triggers=read.triggers,
        crons=read.crons,
        up_ms=_or(_ms(policy, "upscale_delay_seconds"), default.up_ms),
        down_ms=_or(_ms(policy, "downscale_delay_seconds"), default.down_ms),
        on_demand=policy.get("base_ondemand_fallback_replicas", int) or 0,
        fallback=policy.get("dynamic_ondemand_fallback", bool) or False,
        spread=policy.get("spread", str) or ("zone" if policy.get("spot_placer", str) else ""),
        evade=policy.get("spot_placer", str) is not None,
    )


def _port(section: Section, findings: Findings) -> int:
    text = section.get("ports", object)
    if text is None:
        return 0
    if not str(text).isdecimal():
        findings.error(section.places["ports"], f"a service listens on one port, not on `{text}`", _PORT_HINT)
        return 0
    return int(str(text))


def _port_of(candidates: Sequence[Resources]) -> int:
    """The first port of `resources`, which is where SkyPilot's services say it."""
    ports = candidates[0].ports if candidates else ()
    return int(ports[0].partition("-")[0]) if ports else 0
