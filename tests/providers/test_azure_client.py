"""Azure's own client speaks to the fake, and its models know every field that the driver sends.

Nightly; skips where azure-mgmt-compute and azure-mgmt-network are not installed.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from argosy.infra.machine_driver import MachineDriver
from argosy.model.resources import Resources
from argosy.providers.azure.network import security_group
from argosy.providers.azure.orders import availability_set, placement
from argosy.providers.azure.provider import Azure
from argosy.testing.conformance.cloud import MovedClock, a_machine_claim, a_setting
from argosy.testing.fake_azure import FakeAzure
from argosy.testing.fake_azure_ground import SUBSCRIPTION, TOKEN

pytestmark = pytest.mark.nightly

ALL = {"kms_key": "/k", "capacity_reservation": "/r", "remote_identity": "/i", "encrypted": True}


def the_client(name: str) -> Any:
    """The module of a vendor's client, which has no types of ours."""
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"{name} IS NOT INSTALLED: the fake is not checked against it")


def unknown(body: object, model: Any, path: str = "") -> list[str]:
    """Fields of a body that a model, or those that it holds, does not know."""
    if isinstance(body, list):
        inner = getattr(model, "__getitem__", None)
        return [each for one in body for each in unknown(one, inner and model[0], path)]
    if not isinstance(body, Mapping) or not hasattr(model, "_attr_to_rest_field"):
        return []
    known = {field._rest_name: name for name, field in type(model)._attr_to_rest_field.items()}
    found = [f"{path}.{key}" for key in body if key not in known]
    for key, value in body.items():
        if key in known:
            inside = getattr(model, known[key])
            found += (
                [
                    each
                    for one, two in zip(value, inside or [], strict=False)
                    for each in unknown(one, two, path + "." + key)
                ]
                if isinstance(value, list)
                else unknown(value, inside, f"{path}.{key}")
            )
    return found


@pytest.fixture
def cloud() -> Any:
    with FakeAzure(now=MovedClock().now_s) as fake:
        yield fake


def clients(cloud: FakeAzure) -> tuple[Any, Any]:
    compute, network = the_client("azure.mgmt.compute"), the_client("azure.mgmt.network")
    policies = the_client("azure.core.pipeline.policies")
    # Its own policy sends a token over TLS only.
    policy = policies.HeadersPolicy(base_headers={"authorization": f"Bearer {TOKEN}"})
    more = {"base_url": cloud.url, "authentication_policy": policy, "polling_interval": 0}
    return (
        compute.ComputeManagementClient(object(), SUBSCRIPTION, **more),
        network.NetworkManagementClient(object(), SUBSCRIPTION, **more),
    )


async def order(cloud: FakeAzure, root: Path, *, spot: bool) -> None:
    for each in ("/k", "/r", "/i"):
        cloud.things[each] = {"location": "eastus", "id": each}
    setting = a_setting(root, MovedClock(), cloud.environ())
    driver = MachineDriver(Azure(setting, wait_s=0.0), setting, settle_s=0.0)
    wish = Resources(config=msgspec.json.encode({"azure": ALL}).decode(), ports=("8080",))
    kind, zone = "Standard_D4s_v5", "1"
    await driver.ensure(a_machine_claim("azure", kind, region="eastus", zone=zone, spot=spot, wish=wish))
    await driver.disconnect()


def test_every_field_that_is_sent_is_one_of_azures(cloud: FakeAzure, tmp_path: Path) -> None:
    compute, network = the_client("azure.mgmt.compute.models"), the_client("azure.mgmt.network.models")
    asyncio.run(order(cloud, tmp_path, spot=True))
    sent = msgspec.to_builtins(cloud.called("put_machine")[-1].body)
    assert len(msgspec.json.encode(sent)) > 1500
    assert unknown(sent, compute.VirtualMachine(sent)) == []
    for body, model in (
        (availability_set("eastus"), compute.AvailabilitySet),
        (placement("eastus", "1"), compute.ProximityPlacementGroup),
        (security_group("eastus", "*", ("1",)), network.NetworkSecurityGroup),
        (msgspec.to_builtins(cloud.called("put_network")[-1].body), network.VirtualNetwork),
    ):
        assert unknown(body, model(body)) == []
    assert unknown({"properties": {"x": 1}}, compute.VirtualMachine({"properties": {"x": 1}})) == [
        ".properties.x"
    ]


def test_azures_own_client_speaks_to_the_fake(cloud: FakeAzure, tmp_path: Path) -> None:
    compute, network = clients(cloud)
    asyncio.run(order(cloud, tmp_path, spot=False))
    body = msgspec.to_builtins(cloud.called("put_machine")[-1].body)
    group, name = "argosy-eastus", "clm-0000000000000000000z-0"
    body["properties"] = {key: value for key, value in body["properties"].items() if value}
    missing = the_client("azure.core").MatchConditions.IfMissing  # `If-None-Match: *`
    made = compute.virtual_machines.begin_create_or_update(group, name, body, match_condition=missing)
    assert made.status() in ("InProgress", "Succeeded")
    cloud.page_size = 1
    listed = list(compute.virtual_machines.list_all())
    assert [each.name for each in listed][-1] == name
    assert listed[-1].tags["argosy-node"] == "0"
    states = list(compute.virtual_machines.list_all(status_only="true"))
    assert [status.code for status in states[-1].instance_view.statuses] == [
        "ProvisioningState/succeeded",
        "PowerState/running",
    ]
    cards = {each.id: each for each in network.network_interfaces.list_all()}
    card = cards[listed[-1].network_profile.network_interfaces[0].id]
    public = {each.id: each.ip_address for each in network.public_ip_addresses.list_all()}
    assert public[card.ip_configurations[0].public_ip_address.id].startswith("198.51.100.")
    compute.virtual_machines.begin_deallocate(group, name).result()
    compute.virtual_machines.begin_start(group, name).result()
    compute.virtual_machines.begin_delete(group, name, force_deletion=True).result()
    assert [each.name for each in compute.virtual_machines.list_all()] == [listed[0].name]
    cloud.limits = {"eastus": {"cores": 10}}
    assert [each.limit for each in compute.usage.list("eastus")] == [10]
    cloud.families = {"Standard_NC4as_T4_v3": ("standardNCASv3_T4Family", 4, 1)}
    (sku,) = compute.resource_skus.list(filter="location eq 'eastus'")
    assert (sku.name, sku.family) == ("Standard_NC4as_T4_v3", "standardNCASv3_T4Family")
    subnet = network.subnets.get(group, "argosy", "argosy")
    assert subnet.name == "argosy"
