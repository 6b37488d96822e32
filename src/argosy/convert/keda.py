"""KEDA's `ScaledObject`: how many replicas a service has, and what that follows. What it scales stands
elsewhere, so the task that comes of it still needs its program."""

from __future__ import annotations

from typing import Final

from argosy.convert.draft import Document, Draft
from argosy.convert.reading import Fields, text_of
from argosy.spec.source import Node
from argosy.spec.triggers import CPU_FIELDS, CRON, KNOWN

_MOST: Final = 100  # KEDA's own default
_HTTP: Final = ("concurrency", "requestRate")
_DEFAULT_COOLDOWN_S: Final = 300


def convert_scaled_object(node: Node) -> Draft:
    """Errors: "spec-invalid"."""
    draft = Draft()
    fields = Fields(node, "", lambda path, value, why: draft.lose(path, value, why))
    fields.ignore("apiVersion", "kind", "status")
    metadata = fields.section("metadata")
    own_name = metadata.text("name")
    spec = fields.section("spec")
    target = spec.section("scaleTargetRef")
    name = target.text("name")
    target.ignore("apiVersion", "kind")
    draft.set_name(name or own_name)
    least = spec.whole("minReplicaCount") or 0
    most = spec.whole("maxReplicaCount")
    policy: Document = {"min_replicas": least, "max_replicas": _MOST if most is None else most}
    cooldown = spec.whole("cooldownPeriod")
    if cooldown is not None and cooldown != _DEFAULT_COOLDOWN_S:
        policy["downscale_delay_seconds"] = cooldown
    spec.drop("pollingInterval", "values are fetched every 15 s")
    triggers = [found for each in spec.sections("triggers") if (found := _trigger(each, draft)) is not None]
    if triggers:
        policy["triggers"] = triggers
        policy["rule"] = "hpa"
        draft.note("service", "`rule: hpa` scales as KEDA does; without it the house's own rule is used")
    draft.fields["service"] = {"readiness_probe": "/", "replica_policy": policy}
    draft.note("service", "the file says no probe: write the path that answers when a replica is ready")
    if least > 0:
        draft.note("service", f"it never reaches zero: `min_replicas` is {least}")
    draft.note("run", f"write the program of `{name or own_name or 'the deployment'}` here")
    draft.run.append(":")
    fields.close()
    return draft


def _trigger(fields: Fields, draft: Draft) -> Document | None:
    kind = fields.text("type") or ""
    name = fields.text("name")
    metadata = fields.section("metadata")
    known = _known(kind)
    if not known:
        why = "memory that is used does not fall again" if kind == "memory" else "there is no such trigger"
        draft.lose(f"trigger `{kind}`", "", why)
        fields.close(why)
        return None
    given: Document = {}
    for field in known:
        node = metadata.take(field)
        if node is not None:
            given[field] = text_of(node, f"triggers.metadata.{field}")
    fields.drop("authenticationRef", "credentials are those of the server")
    if kind == "cpu":
        metric = fields.text("metricType") or "Utilization"
        given.setdefault("type", metric)
    fields.drop("metricType", "a total over all replicas")
    fields.close("the trigger knows no such field")
    found: Document = {"type": kind}
    if name:
        found["name"] = name
    return found | {"metadata": given}


def _known(kind: str) -> tuple[str, ...]:
    """Fields of a trigger's metadata that mean something here."""
    if kind == "cron":
        return CRON
    if kind == "http":
        return _HTTP
    if kind == "cpu":
        return CPU_FIELDS
    if kind not in KNOWN:
        return ()
    about = KNOWN[kind]
    return (about.target, about.activation, *about.needs, *about.may)
