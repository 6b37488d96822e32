"""Orders and the fake's answers, read by Google's own models: field by field, unknown ones refused."""

from __future__ import annotations

import importlib
import json
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip(
    "google.cloud.compute_v1", reason="google-cloud-compute is not installed: its models are not asked"
)
pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from gcp_world import World, a_claim_for

from argosy.testing.conformance.cloud import MovedClock
from argosy.testing.fake_gcp import ACCOUNT, FakeGcp

compute: Any = importlib.import_module("google.cloud.compute_v1")
pytestmark = pytest.mark.nightly
_V1 = "/compute/v1/projects/lab-1"


def bodies(fake: FakeGcp) -> dict[str, list[Any]]:
    """What was sent, by handler, as JSON."""
    found: dict[str, list[Any]] = {}
    for name, ask in fake.calls:
        if ask.body is not None and not isinstance(ask.body, bytes):
            whole = msgspec.to_builtins(ask.body)
            found.setdefault(name, []).append(_without_empty(whole))
    return found


def _without_empty(value: Any) -> Any:
    """Defaults of the fake's structs stand for fields that were not sent."""
    if isinstance(value, dict):
        kept = {key: _without_empty(each) for key, each in value.items()}
        return {key: each for key, each in kept.items() if each not in ("", None, [], {})}
    return [_without_empty(each) for each in value] if isinstance(value, list) else value


def test_orders_are_read_by_googles_models(tmp_path: Path) -> None:
    clock = MovedClock()
    with FakeGcp(now=clock.now_s) as fake:
        world = World(fake, clock, tmp_path, fake.sign_in(tmp_path))
        fake.reservations["block"] = "us-central1-a"
        queue = {"run_duration": 3600, "provision_timeout": 600}
        claims = [
            a_claim_for(count=2, spot=True, ports=("8000",), labels=(("team", "ai"),)),
            a_claim_for("c4-standard-48", count=2, network_tier="best"),
            a_claim_for("a4-highgpu-8g", accelerator="B200", disk_tier="ultra"),
            a_claim_for("n1-standard-8", accelerator="T4", config={"remote_identity": ACCOUNT}),
            a_claim_for("a3-highgpu-8g", accelerator="H100", config={"managed_instance_group": queue}),
            a_claim_for(config={"specific_reservations": "block", "kms_key": "projects/p/x"}),
        ]

        async def act() -> None:
            for claim in claims:
                await world.driver.ensure(claim)

        world.run(act)
        sent = bodies(fake)
        assert sent.keys() == {"insert", "bulk_insert", "add_firewall", "add_policy"}
        models = {
            "insert": compute.Instance,
            "bulk_insert": compute.BulkInsertInstanceResource,
            "add_firewall": compute.Firewall,
            "add_policy": compute.ResourcePolicy,
        }
        for name, found in sent.items():
            for each in found:
                models[name].from_json(json.dumps(each), ignore_unknown_fields=False)
        for each in sent["insert"]:
            _known(compute.Scheduling.ProvisioningModel, each["scheduling"]["provisioningModel"])
            affinity = each["reservationAffinity"]["consumeReservationType"]
            _known(compute.ReservationAffinity.ConsumeReservationType, affinity)


def _known(enum: Any, value: str) -> None:
    assert value in {each.name for each in enum}, value


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/aggregated/instances?maxResults=10", "InstanceAggregatedList"),
        ("/aggregated/machineTypes?maxResults=10", "MachineTypeAggregatedList"),
        ("/aggregated/reservations?maxResults=10", "ReservationAggregatedList"),
        ("", "Project"),
        ("/regions", "RegionList"),
        ("/global/networks/lab", "Network"),
        ("/regions/us-central1/subnetworks/gpu", "Subnetwork"),
        ("/global/firewalls/argosy-ssh-default", "Firewall"),
        ("/zones/us-central1-a/operations/LAST", "Operation"),
    ],
)
def test_answers_are_read_by_googles_models(path: str, model: str, tmp_path: Path) -> None:
    clock = MovedClock()
    with FakeGcp(now=clock.now_s) as fake:
        world = World(fake, clock, tmp_path, fake.sign_in(tmp_path))
        fake.reservations["block"] = "us-central1-a"
        fake.limits["", "GPUS_ALL_REGIONS"] = 4.0
        world.run(lambda: world.driver.ensure(a_claim_for(zone="us-central1-a")))
        url = fake.url + _V1 + path.replace("LAST", list(fake.operations)[-1])
        token = next(iter(fake.tokens))
        request = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request) as reply:
            text = reply.read().decode()
        getattr(compute, model).from_json(text, ignore_unknown_fields=False)
        for each in fake.made.values():
            _known(compute.Instance.Status, fake.told(each)["status"])


def test_tpus_are_read_by_googles_models(tmp_path: Path) -> None:
    tpu: Any = pytest.importorskip("google.cloud.tpu_v2", reason="google-cloud-tpu is not installed")
    clock = MovedClock()
    with FakeGcp(now=clock.now_s) as fake:
        world = World(fake, clock, tmp_path, fake.sign_in(tmp_path))
        queue = {"run_duration": 3600, "provision_timeout": 600}
        spot = a_claim_for("tpu-v6e-8", zone="us-central1-a", accelerator="tpu-v6e-8", spot=True)
        queued = a_claim_for(
            "tpu-v5p-16",
            zone="us-central1-a",
            count=4,
            spot=True,
            accelerator="tpu-v5p-16",
            config={"managed_instance_group": queue},
        )

        async def act() -> None:
            for claim in (spot, queued):
                await world.driver.ensure(claim)

        world.run(act)
        sent = bodies(fake)
        (node,), (resource,) = sent["create_tpu"], sent["queue_tpus"]
        tpu.Node.from_json(json.dumps(node), ignore_unknown_fields=False)
        tpu.QueuedResource.from_json(json.dumps(resource), ignore_unknown_fields=False)
        for name in fake.queue:
            text = json.dumps(fake.told_queued(name))
            tpu.QueuedResource.from_json(text, ignore_unknown_fields=False)
        for machine in fake.machines():
            told = fake.told_tpu(machine)
            tpu.Node.from_json(json.dumps(told), ignore_unknown_fields=False)
            _known(tpu.Node.State, told["state"])
