"""`triggers` of a service, in KEDA's words: what outside of a service says how many replicas it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from argosy.model.calendar import parse_cron, zone_of
from argosy.model.errors import suggest
from argosy.model.scaling import (
    CONCURRENCY,
    CPU,
    GPU,
    LATENCY,
    QUEUE,
    REQUESTS,
    TOKENS,
    Cron,
    Target,
    Trigger,
)
from argosy.spec.findings import Findings, excerpt
from argosy.spec.shapes import AsText, Entry, Field, ListOf, MapOf, Number, Section, Table, Text

TRIGGERS: Final = ListOf(
    Table(
        "service.replica_policy.triggers",
        (
            Field("type", Text(), "What is looked at.", "prometheus"),
            Field("name", Text(), "How explanations call it.", "queue"),
            Field(
                "metadata",
                MapOf(Text("a field of the trigger"), AsText()),
                "Where it is, and how much of it one replica takes.",
                "{serverAddress: http://prom:9090, query: sum(jobs), threshold: 5}",
                verbatim=True,
            ),
        ),
    ),
    maximum=32,
)


class Known(NamedTuple):
    """One type of trigger: the fields of its metadata, as KEDA calls them."""

    target: str  # how much one replica takes
    activation: str
    default: float  # of `target`; 0: it must be given
    needs: tuple[str, ...]
    may: tuple[str, ...] = ()


KNOWN: Final[Mapping[str, Known]] = {
    "aws-sqs-queue": Known(
        "queueLength",
        "activationQueueLength",
        5,
        ("queueURL",),
        ("awsRegion", "awsEndpoint", "scaleOnInFlight", "scaleOnDelayed", "identityOwner"),
    ),
    "prometheus": Known(
        "threshold", "activationThreshold", 0, ("serverAddress", "query"), ("metricName", "namespace")
    ),
    "redis": Known(
        "listLength", "activationListLength", 5, ("listName",), ("address", "host", "port", "databaseIndex")
    ),
    "kafka": Known(
        "lagThreshold",
        "activationLagThreshold",
        10,
        ("bootstrapServers", "consumerGroup", "topic"),
        ("offsetResetPolicy", "allowIdleConsumers", "scaleToZeroOnInvalidOffset", "tls", "version"),
    ),
    "metrics-api": Known(
        "targetValue", "activationTargetValue", 0, ("url", "valueLocation"), ("format", "method")
    ),
}
CRON: Final = ("timezone", "start", "end", "desiredReplicas")
CPU_FIELDS: Final = ("value", "type", "containerName")
_LATER: Final = {"memory": "memory that is used does not fall again: use `cpu`, or a `prometheus` trigger"}
TYPES: Final = (*KNOWN, "cpu", "cron", "http")
#: `targets`: signals that every service has. True: so much for each replica; False: a mean over all of them.
METRICS: Final[Mapping[str, bool]] = {
    REQUESTS: True,
    CONCURRENCY: True,
    QUEUE: True,
    TOKENS: True,
    LATENCY: False,
    GPU: False,
    CPU: False,
}
TARGETS: Final = MapOf(Text("a metric"), Number())


class Triggers(NamedTuple):
    """What was read."""

    triggers: tuple[Trigger, ...] = ()  # whose values have to be fetched
    targets: tuple[Target, ...] = ()
    crons: tuple[Cron, ...] = ()


def build_triggers(policy: Section, findings: Findings) -> Triggers:
    """The triggers of a `replica_policy`."""
    triggers: list[Trigger] = []
    targets: list[Target] = []
    crons: list[Cron] = []
    for number, each in enumerate(policy.get("triggers", tuple) or ()):
        if not isinstance(each, Section):
            continue
        kind = each.get("type", str) or ""
        given = each.get("metadata", object)
        entries = given if isinstance(given, tuple) else ()
        metadata = {str(one.key): str(one.value) for one in entries if isinstance(one, Entry)}
        name = each.get("name", str) or f"{kind}-{number}"
        if kind == "cron":
            crons += _cron(each, metadata, findings)
        elif kind == "http":
            targets += _http(each, metadata, findings)
        elif kind == "cpu":
            targets += _cpu(each, metadata, findings)
        elif kind in KNOWN:
            triggers += _fetched(each, kind, name, metadata, findings)
        else:
            text = f"there is no trigger of type `{excerpt(kind)}`"
            hint = suggest(kind, TYPES, otherwise=f"known are {', '.join(TYPES)}")
            if kind in _LATER:
                text, hint = f"triggers of type `{kind}` are not followed yet", _LATER[kind]
            findings.error(each.place, text, hint)
    targets += build_targets(policy, findings)
    return Triggers(tuple(triggers), (*targets, *map(target_of, triggers)), tuple(crons))


def build_targets(policy: Section, findings: Findings) -> list[Target]:
    """The `targets` of a `replica_policy`: signals of the service itself."""
    found: list[Target] = []
    given = policy.get("targets", object)
    for each in given if isinstance(given, tuple) else ():
        name, place = str(each.key), policy.places["targets"]
        if name not in METRICS:
            hint = suggest(name, METRICS, otherwise=f"known are {', '.join(METRICS)}; others are `triggers`")
            findings.error(place, f"there is no metric `{excerpt(name)}`", hint)
            continue
        value = float(each.value)
        if value <= 0:
            findings.error(place, f"the target of `{name}` is not above 0", f"write one like `{name}: 5`")
            continue
        found.append(Target(signal=name, value=value, each=METRICS[name], trigger=f"targets.{name}"))
    return found


def target_of(trigger: Trigger) -> Target:
    """What the policy makes of a trigger."""
    return Target(
        signal=trigger.name, value=trigger.target, activation=trigger.activation, trigger=trigger.name
    )


def _unknown(
    place: Section, kind: str, metadata: Mapping[str, str], known: tuple[str, ...], findings: Findings
) -> None:
    for name in metadata:
        if name not in known:
            hint = suggest(name, known, otherwise=f"known are {', '.join(known)}")
            findings.error(place.place, f"a `{kind}` trigger has no field `{excerpt(name)}`", hint)


def _fetched(
    place: Section, kind: str, name: str, metadata: Mapping[str, str], findings: Findings
) -> list[Trigger]:
    known = KNOWN[kind]
    _unknown(place, kind, metadata, (known.target, known.activation, *known.needs, *known.may), findings)
    missing = [field for field in known.needs if not metadata.get(field)]
    if kind == "redis" and not metadata.get("address") and not metadata.get("host"):
        missing.append("address")
    if not known.default and known.target not in metadata:
        missing.append(known.target)
    for field in missing:
        findings.error(
            place.place, f"the `{kind}` trigger has no `{field}`", f"write `{field}:` below `metadata`"
        )
    target = _number(place, known.target, metadata.get(known.target, str(known.default)), findings)
    activation = _number(place, known.activation, metadata.get(known.activation, "0"), findings)
    if missing or target is None or activation is None:
        return []
    if target <= 0:
        findings.error(place.place, f"`{known.target}` is not above 0", "write how much one replica takes")
        return []
    if kind == "kafka" and metadata.get("tls", "disable") not in ("enable", "disable"):
        findings.error(place.place, "`tls` is neither `enable` nor `disable`", "write one of them")
    kept = (known.activation,) if kind == "kafka" else (known.target, known.activation)
    rest = {key: value for key, value in metadata.items() if key not in kept}
    return [Trigger(kind=kind, name=name, target=target, activation=activation, metadata=rest)]


def _number(place: Section, name: str, text: str, findings: Findings) -> float | None:
    try:
        return float(text)
    except ValueError:
        findings.error(place.place, f"`{name}` is no number: `{excerpt(text)}`", "write one like `5`")
        return None


def _cron(place: Section, metadata: Mapping[str, str], findings: Findings) -> list[Cron]:
    _unknown(place, "cron", metadata, CRON, findings)
    missing = [name for name in CRON[1:] if not metadata.get(name)]
    for name in missing:
        findings.error(
            place.place, f"the `cron` trigger has no `{name}`", f"write `{name}:` below `metadata`"
        )
    if missing:
        return []
    replicas = _number(place, "desiredReplicas", metadata["desiredReplicas"], findings)
    cron = Cron(
        start=metadata["start"],
        end=metadata["end"],
        replicas=int(replicas or 0),
        timezone=metadata.get("timezone", "UTC"),
    )
    try:
        for text in (cron.start, cron.end):
            parse_cron(text)
        zone_of(cron.timezone)
    except ValueError as error:
        findings.error(place.place, str(error), "write one like `0 8 * * 1-5`")
        return []
    return [cron]


def _cpu(place: Section, metadata: Mapping[str, str], findings: Findings) -> list[Target]:
    """Per cent of the CPUs of the machines of its replicas, as a mean."""
    _unknown(place, "cpu", metadata, CPU_FIELDS, findings)
    if metadata.get("type", "Utilization") != "Utilization":
        findings.error(
            place.place, "a `cpu` trigger follows a utilisation here", "write `value: 60`, in per cent"
        )
        return []
    if "value" not in metadata:
        findings.error(place.place, "the `cpu` trigger has no `value`", "write `value: 60` below `metadata`")
        return []
    value = _number(place, "value", metadata["value"], findings)
    if value is not None and value <= 0:
        findings.error(place.place, "`value` is not above 0", "write per cent, such as `60`")
    return [Target(signal=CPU, value=value, each=False, trigger="cpu")] if value and value > 0 else []


def _http(place: Section, metadata: Mapping[str, str], findings: Findings) -> list[Target]:
    """KEDA's HTTP add-on: requests at once, or per second, that one replica takes."""
    fields = {"concurrency": CONCURRENCY, "requestRate": REQUESTS}
    _unknown(place, "http", metadata, tuple(fields), findings)
    found = []
    for name, signal in fields.items():
        value = _number(place, name, metadata[name], findings) if name in metadata else None
        if value is not None and value > 0:
            found.append(Target(signal=signal, value=value, trigger="http"))
    if not found:
        findings.error(
            place.place, "the `http` trigger says no number", "write `concurrency: 10` below `metadata`"
        )
    return found
