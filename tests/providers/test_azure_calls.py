"""What Azure's driver sends, and makes of replies: networks, gangs, late failures."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from azure_lab import GROUP, INFINIBAND, KIND, Lab, a_claim, lab, served, with_config

from argosy.infra import border
from argosy.infra.machine_driver import MachineDriver
from argosy.infra.machines import MachineState
from argosy.infra.provider import Want
from argosy.model.facts import ClaimState
from argosy.model.phases import Desired
from argosy.model.resources import Infra, Networking, Resources
from argosy.model.rows import Claim
from argosy.model.units import GIB
from argosy.providers.azure.wishes import wishes_of
from argosy.testing.conformance.cloud import a_machine_claim
from argosy.testing.fake_cloud import Ask

__all__ = ("lab", "served")  # fixtures


# -- orders -------------------------------------------------------------------------------------------------


def test_an_order_says_all_that_a_task_asks_for(lab: Lab) -> None:
    ids = {
        "remote_identity": lab.thing(
            "Microsoft.ManagedIdentity/userAssignedIdentities", "train", "westeurope"
        ),
        "kms_key": lab.thing("Microsoft.Compute/diskEncryptionSets", "vault"),
        "capacity_reservation": lab.thing("Microsoft.Compute/capacityReservationGroups", "paid"),
    }
    lab.thing("Microsoft.Compute/diskEncryptionSets", "vault", "westeurope").replace("eastus", "x")
    ids["kms_key"] = lab.thing("Microsoft.Compute/diskEncryptionSets", "vault")
    config = {"remote_identity": "train", "kms_key": "vault", "capacity_reservation": "paid"}
    wish = msgspec.structs.replace(
        with_config(**config, encrypted=True, ssh_user="me"),
        disk_size_bytes=200 * GIB,
        disk_tier="high",
        ports=("8080", "9000-9010"),
        labels=(("team", "vision"),),
        image_id="/communityGalleries/lab/images/ours/versions/latest",
    )
    claim = a_claim(wish, zone="2")
    lab.ensure(claim)
    order = lab.order()
    inside = order.properties
    assert list(order.identity.user_assigned_identities) == [ids["remote_identity"]]
    assert inside.capacity_reservation.capacity_reservation_group.id == ids["capacity_reservation"]
    disk = inside.storage_profile.os_disk
    assert (disk.disk_size_gb, disk.managed_disk.storage_account_type) == (200, "Premium_LRS")
    assert disk.managed_disk.disk_encryption_set.id == ids["kms_key"]
    assert inside.security_profile.encryption_at_host
    assert inside.os_profile.admin_username == "me"
    assert order.zones == ["2"]
    assert order.tags["team"] == "vision"
    image = inside.storage_profile.image_reference
    assert image.community_gallery_image_id == "/communityGalleries/lab/images/ours/versions/latest"
    assert {option for _, option in order.options()} == {"Delete"}
    (rules,) = lab.fake.security.values()
    opened = {each.name: each.properties for each in rules.properties.security_rules}
    assert opened["ports"].destination_port_ranges == ["8080", "9000-9010"]
    assert opened["ssh"].source_address_prefix == "*"
    (machine,) = lab.run(lambda driver: driver.vendor.listed(""))
    assert (machine.user, machine.zone, machine.state) == ("me", "eastus-2", MachineState.RUNNING)
    assert (machine.host, machine.ip) == ("198.51.100.2", "10.0.0.5")


def test_spot_and_the_usual_images(lab: Lab) -> None:
    lab.run(lambda driver: driver.ensure(a_claim(spot=True)))
    inside = lab.order().properties
    assert (inside.priority, inside.eviction_policy, inside.billing_profile.max_price) == (
        "Spot",
        "Deallocate",
        -1,
    )
    assert inside.storage_profile.image_reference.offer == "ubuntu-24_04-lts"
    lab.run(lambda driver: driver.ensure(a_claim(kind="Standard_NC4as_T4_v3", accelerator="T4")))
    assert lab.order().properties.storage_profile.image_reference.offer == "ubuntu-hpc"


def test_a_zone_a_highest_price_and_a_fast_network(lab: Lab) -> None:
    wish = Resources(infra=Infra(provider="azure", region="eastus", zone="3"), max_hourly_micro_usd=1_000_000)
    fast = msgspec.structs.replace(wish, network_tier="best")
    lab.ensure(a_claim(fast, spot=True, count=2))
    order = lab.order()
    assert order.zones == ["3"]
    assert order.properties.billing_profile.max_price == 0.5
    (card,) = order.properties.network_profile.network_interface_configurations
    assert card.properties.enable_accelerated_networking


@pytest.mark.parametrize(
    ("kind", "arch", "sku"),
    [
        ("Standard_D2_v3", "x86_64", "server-gen1"),
        ("Standard_A1_v2", "x86_64", "server-gen1"),
        ("Standard_D2s_v3", "x86_64", "server"),
        ("Standard_B1s", "x86_64", "server"),
        ("Standard_D4_v5", "x86_64", "server"),
        ("Standard_D2ps_v5", "arm64", "server-arm64"),
    ],
)
def test_images_by_generation_and_processor(kind: str, arch: str, sku: str) -> None:
    claim = a_claim(kind=kind)
    shape = msgspec.structs.replace(claim.choice.offer.shape, arch=arch)
    offer = msgspec.structs.replace(claim.choice.offer, shape=shape)
    claim = msgspec.structs.replace(claim, choice=msgspec.structs.replace(claim.choice, offer=offer))
    assert wishes_of(claim).image["sku"] == sku


def test_machines_join_the_network_of_the_task(lab: Lab) -> None:
    lab.run(lambda driver: driver.ensure(a_claim()))  # makes the usual one
    (own,) = lab.fake.networks.values()
    lab.fake.networks[f"{GROUP}/providers/Microsoft.Network/virtualNetworks/lab".lower()] = own
    lab.fake.security[f"{GROUP}/providers/Microsoft.Network/networkSecurityGroups/strict".lower()] = next(
        iter(lab.fake.security.values())
    )
    net = Networking(vpc_name="lab", subnet_names=("argosy",), security_groups=("strict",))
    lab.run(
        lambda driver: driver.ensure(a_claim(Resources(networking=net))),
        lab.fake.environ() | {"ARGOSY_AZURE_ADDRESS": "private"},
    )
    order = lab.order()
    card = order.properties.network_profile.network_interface_configurations[0].properties
    assert card.network_security_group.id.endswith("/networksecuritygroups/strict")
    assert card.ip_configurations[0].properties.subnet.id.endswith("/virtualnetworks/lab/subnets/argosy")
    assert not order.is_public
    for wrong, text in (
        (
            Networking(vpc_name="nowhere"),
            "there is no virtual network `nowhere` in eastus: it has argosy, lab",
        ),
        (Networking(vpc_name="lab", subnet_names=("x",)), "lab in eastus has no subnet x"),
    ):
        with pytest.raises(border.RequestRefused, match=text):
            lab.ensure(a_claim(Resources(networking=wrong)))


@pytest.mark.parametrize(
    ("claim", "field", "text"),
    [
        (a_claim(kind="Standard_X1"), "instance_type", "Standard_X1 provided for the VM size is not valid"),
        (a_claim(Resources(image_id="ubuntu")), "image_id", "`ubuntu` is not an image of Azure: give a URN"),
        (a_claim(Resources(disk_tier="ultra")), "disk_tier", "Azure has no OS disk of the tier `ultra`"),
        (a_claim(with_config(encrypted="maybe")), "config.azure", "Expected `bool`"),
        (
            a_claim(with_config(kms_key="k")),
            "config.azure.kms_key",
            "none of diskEncryptionSets with the name",
        ),
        (
            a_claim(with_config(remote_identity="SERVICE_ACCOUNT")),
            "config.azure.remote_identity",
            "az identity",
        ),
        (a_claim(with_config(resource_group_vm="lab")), "config.azure.resource_group_vm", "az group create"),
        (a_claim(Resources(labels=(("a/b", "x"),))), "request", "InvalidTagNameCharacters"),
        (a_claim(with_config(ssh_user="root")), "adminUsername", "The name is not allowed"),
        (
            a_claim(Resources(networking=Networking(security_groups=("a", "b")))),
            "networking.security_groups",
            "one network security group",
        ),
        (
            a_claim(kind="Standard_NV36ads_A10_v5", accelerator="A10"),
            "image_id",
            "needs a GRID driver, which no public image of Azure has",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "." not in value and " " not in value else "",
)
def test_what_cannot_be_meant(lab: Lab, claim: Claim, field: str, text: str) -> None:
    with pytest.raises(border.RequestRefused) as caught:
        lab.ensure(claim)
    assert text in str(caught.value)
    assert caught.value.field == field
    assert lab.fake.leftovers() == []


def test_an_unknown_region_is_named(lab: Lab) -> None:
    claim = a_machine_claim("azure", KIND, region="mars")
    assert "The provided location 'mars' is not available" in lab.refused(border.RequestRefused, claim)


# -- gangs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spot", "kind"), [(False, "availabilitysets"), (True, "proximityplacementgroups")])
def test_a_gang_with_infiniband_is_joined_and_leaves_nothing(lab: Lab, spot: bool, kind: str) -> None:
    claim = a_claim(kind=INFINIBAND, accelerator="H100", count=2, spot=spot)
    lab.fake.end_s = 30

    async def act(driver: MachineDriver) -> None:
        await driver.ensure(claim)
        (id,) = lab.fake.things
        assert kind in id
        assert [list(ask.body.refers()) for ask in lab.fake.called("put_machine")] == [
            [lab.fake.things[id]["id"]]
        ] * 2
        assert len(lab.fake.called("put_set") + lab.fake.called("put_placement")) == 1
        await driver.release(claim.id)
        assert id in lab.fake.leftovers()  # not while machines are in it
        lab.clock.s += 60
        assert await driver.observe([]) == []

    lab.run(act)
    assert lab.fake.leftovers() == []


def test_a_gang_that_has_no_room_leaves_nothing(lab: Lab) -> None:
    lab.fake.capacity[(INFINIBAND, "")] = 1
    text = lab.refused(border.OutOfCapacity, a_claim(kind=INFINIBAND, accelerator="H100", count=2))
    assert f"Azure has no {INFINIBAND} in eastus now: Allocation failed" in text


# -- what is told late --------------------------------------------------------------------------------------


def test_a_network_that_somebody_removed_is_made_anew(lab: Lab) -> None:
    first, second = a_claim(), a_claim()

    async def act(driver: MachineDriver) -> None:
        await driver.ensure(first)
        await driver.release(first.id)
        lab.fake.groups.clear()
        lab.fake.networks.clear()
        lab.fake.security.clear()
        with pytest.raises(border.Transient, match="was removed by somebody, and is made anew"):
            await driver.ensure(second)
        await driver.ensure(second)
        assert len(lab.fake.machines()) == 1

    lab.run(act)


@pytest.mark.parametrize("count", [1, 2])
def test_where_azure_finds_nothing_each_zone_is_asked(lab: Lab, count: int) -> None:
    lab.fake.only_in_zones = True
    lab.fake.capacity[(KIND, "1")] = count - 1
    claim = a_claim(count=count)

    async def act(driver: MachineDriver) -> None:
        await driver.quote(Want())  # by then the zones of regions are known
        await driver.ensure(claim)
        assert [(each.zone, each.state) for each in lab.fake.machines() if each.is_live] == [
            ("2", "running")
        ] * count

        await driver.release(claim.id)
        lab.fake.capacity |= {(KIND, "1"): 0, (KIND, "2"): 0, (KIND, "3"): 0}
        told = f"no zone of eastus has {KIND}: .* in eastus now: .* in eastus-1 now: .* in eastus-3 now: "
        with pytest.raises(border.OutOfCapacity, match=told):
            await driver.ensure(a_claim())

    lab.run(act)
    assert lab.fake.leftovers() == []


def test_an_operation_that_tells_only_where_its_result_will_be(lab: Lab) -> None:
    lab.fake.by_location = True
    lab.ensure(a_claim())
    assert len(lab.fake.called("operation")) >= 1
    lab.fake.capacity[(KIND, "")] = 1
    with pytest.raises(border.OutOfCapacity, match="Allocation failed"):
        lab.ensure(a_claim())


def test_a_refusal_at_once_is_read_too(lab: Lab) -> None:
    lab.fake.late, lab.fake.capacity[(KIND, "")] = False, 0
    assert "SkuNotAvailable" in lab.refused(border.OutOfCapacity, a_claim())


def test_a_machine_that_fails_later_is_an_error_and_goes(lab: Lab) -> None:
    claim = a_claim(count=2)

    async def act(driver: MachineDriver) -> None:
        lab.fake.boot_s = 60
        await driver.ensure(claim)
        first, second = lab.fake.machines()
        error = {"code": "ZonalAllocationFailed", "message": "Allocation failed. Not enough capacity."}
        second.state, second.due, second.extra["error"] = "failed", None, error
        lab.clock.s += 61
        with pytest.raises(border.OutOfCapacity, match=f"Azure has no {KIND} now: Allocation failed"):
            await driver.ensure(claim)
        assert lab.fake.leftovers() == []
        assert first.state == "ended"

    lab.run(act)


def test_a_machine_that_is_busy_is_deleted_later(lab: Lab) -> None:
    claim = a_claim()

    async def act(driver: MachineDriver) -> None:
        lab.fake.boot_s = 60
        await driver.ensure(claim)
        with pytest.raises(border.Transient, match="Another operation"):
            await driver.release(claim.id)
        lab.clock.s += 61
        (fact,) = await driver.observe([])  # it is still there, and the server releases it again
        assert fact.claim_id == claim.id
        await driver.release(claim.id)

    lab.run(act)
    assert lab.fake.leftovers() == []


def test_machines_at_rest_wait_for_room_where_they_are(lab: Lab) -> None:
    claim = a_claim()
    resting = msgspec.structs.replace(claim, desired=Desired.STOP)

    async def act(driver: MachineDriver) -> None:
        await driver.ensure(claim)
        await driver.ensure(resting)
        lab.fake.capacity[(KIND, "")] = 0
        with pytest.raises(border.Transient, match="the machines at rest cannot start yet: Azure has no"):
            await driver.ensure(claim)
        (fact,) = await driver.observe([claim.id])
        assert fact.state is ClaimState.STOPPED  # Azure calls it failed, and it has its disk
        del lab.fake.capacity[(KIND, "")]
        await driver.ensure(claim)
        (fact,) = await driver.observe([claim.id])
        assert fact.state is ClaimState.HELD

    lab.run(act)


def test_what_is_shut_down_from_inside_is_gone_and_deleted(lab: Lab) -> None:
    claim = a_claim()

    async def act(driver: MachineDriver) -> None:
        await driver.ensure(claim)
        (machine,) = lab.fake.machines()
        machine.state = "down"
        (fact,) = await driver.observe([claim.id])
        assert (fact.state, fact.detail) == (
            ClaimState.GONE,
            f"{claim.id}-0 in eastus has ended: it was shut down from inside",
        )
        await driver.release(claim.id)

    lab.run(act)
    assert lab.fake.leftovers() == []


def test_a_machine_that_one_of_two_listings_lacks_is_as_it_was(lab: Lab) -> None:
    claim = a_claim()

    async def act(driver: MachineDriver) -> None:
        await driver.ensure(claim)
        (before,) = await driver.observe([claim.id])
        assert before.state is ClaimState.HELD
        lab.fake.hides_states = True
        assert await driver.observe([claim.id]) == [before]

    lab.run(act)


def test_the_token_goes_to_no_other_host(lab: Lab) -> None:
    def elsewhere(ask: Ask[Any], entries: list[Any]) -> object:
        return {"value": entries, "nextLink": "http://example.net/next"}

    lab.fake.page = elsewhere  # type: ignore[method-assign]
    try:
        with pytest.raises(border.Transient, match="another host"):
            lab.run(lambda driver: driver.observe([]))
    finally:
        del lab.fake.page
