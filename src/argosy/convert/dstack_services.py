"""A dstack service: port, probe, replicas and how they are scaled."""

from __future__ import annotations

import re

from argosy.convert.draft import Document, Draft
from argosy.convert.dstack_resources import read_resources
from argosy.convert.dstack_values import duration_s, joined, port_of, range_text
from argosy.convert.reading import Fields, looks_secret
from argosy.spec.findings import excerpt
from argosy.spec.source import Items, Pairs


def read_service(fields: Fields, draft: Draft) -> None:
    """What makes a service of a run: port, probe, replicas and how they are scaled."""
    service: Document = {}
    node = fields.take("port")
    if node is not None:
        port = port_of(node, "port")
        draft.ports([port])
        service["ports"] = int(port)
    service["readiness_probe"] = _probe(fields, draft)
    scaling = fields.section("scaling")
    replicas = fields.take("replicas")
    policy: Document = {}
    if isinstance(replicas, Items):
        for index, group in enumerate(replicas.items):
            inner = fields.below(group, f"replicas[{index}]")
            if index == 0 and isinstance(group, Pairs):
                count = inner.take("count")
                replicas = count
                scaling = inner.section("scaling")
                read_resources(inner.section("resources"), draft)
                commands = inner.texts("commands")
                if commands:
                    draft.lost = [line for line in draft.lost if not line.startswith("the entry point of")]
                    draft.run[:] = [joined(commands)]
                draft.note("service", "of several groups of replicas the first is taken")
    text = range_text(replicas, "replicas") if replicas is not None else "1"
    low, dots, high = text.replace(" ", "").partition("..")
    if not re.fullmatch(r"[0-9]{0,5}", low) or not re.fullmatch(r"[0-9]{0,5}", high) or not (low or high):
        raise fields.wrong(f"`replicas` must be a number or a range, found `{excerpt(text)}`")
    if dots and low != high:
        policy = {"min_replicas": int(low or 0), "max_replicas": int(high or low)}
    else:
        service["replicas"] = int(low)
    target = scaling.text("target")
    if target and policy:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", target):
            raise scaling.wrong(f"`scaling.target` must be a number, found `{excerpt(target)}`")
        policy["target_qps_per_replica"] = float(target)
    elif target:
        scaling.lose("target", target, "the number of replicas is fixed")
    metric = scaling.text("metric")
    if metric and metric != "rps":
        scaling.lose("metric", metric, "replicas are counted by requests per second")
    for name, ours in (
        ("scale_up_delay", "upscale_delay_seconds"),
        ("scale_down_delay", "downscale_delay_seconds"),
    ):
        delay = scaling.text(name)
        if delay and policy:
            policy[ours] = duration_s(fields, name, delay)
        elif delay:
            scaling.lose(name, delay, "the number of replicas is fixed")
    if policy:
        service["replica_policy"] = policy
    draft.fields["service"] = service


def _probe(fields: Fields, draft: Draft) -> object:
    probe: Document = {}
    for index, section in enumerate(fields.sections("probes")):
        if index:
            section.close("there is one probe")
            continue
        section.ignore("type")
        probe["path"] = section.text("url") or "/"
        method = (section.text("method") or "get").lower()
        body = section.text("body")
        if method == "post" or body:
            probe["post_data"] = body or ""
        elif method != "get":
            section.lose("method", method, "probes are GET or POST")
        headers: Document = {}
        for header in section.sections("headers"):
            name, value = header.text("name") or "?", header.text("value") or ""
            if looks_secret(name) or name.lower() == "authorization":
                header.lose("name", name, "its value is a secret; give the probe another way in")
            else:
                headers[name] = value
        if headers:
            probe["headers"] = headers
        for name, ours in (("timeout", "timeout_seconds"), ("interval", "endpoint_probe_interval_seconds")):
            text = section.text(name)
            if text:
                probe[ours] = duration_s(fields, f"probes[0].{name}", text)
        section.drop("ready_after", "one answer is enough")
        section.drop("until_ready", "a replica is probed as long as it lives")
    if not probe:
        model = "model" in fields
        draft.note("service", "there was no probe; the path is a guess")
        return "/v1/models" if model else "/"
    return probe["path"] if len(probe) == 1 else probe
