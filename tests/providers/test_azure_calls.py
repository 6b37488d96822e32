"""What Azure's driver sends, and makes of replies: identities, networks, gangs, quotas, late failures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from argosy.infra import border
from argosy.infra.machine_driver import MachineDriver
from argosy.infra.machines import MachineState
from argosy.infra.provider import Want
from argosy.model.facts import ClaimState
from argosy.model.offer import Capacity, Offer, Shape
from argosy.model.phases import Desired
from argosy.model.resources import Infra, Networking, Resources
from argosy.model.rows import Claim
from argosy.model.units import GIB
from argosy.planning.offered import closes
from argosy.providers.azure.identity import assertion
from argosy.providers.azure.provider import Azure
from argosy.providers.azure.wishes import wishes_of
from argosy.testing.conformance.cloud import MovedClock, a_machine_claim, a_setting
from argosy.testing.fake_azure import FakeAzure
from argosy.testing.fake_azure_ground import CLIENT, SECRET, SUBSCRIPTION, TENANT, TOKEN
from argosy.testing.fake_cloud import Ask

KIND, INFINIBAND = "Standard_D4s_v5", "Standard_ND96isr_H100_v5"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/argosy-eastus"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FakeAzure, MovedClock]]:
    clock = MovedClock()
    with FakeAzure(now=clock.now_s) as fake:
        yield fake, clock


class Lab:
    def __init__(self, fake: FakeAzure, clock: MovedClock, root: Path) -> None:
        self.fake, self.clock, self.root = fake, clock, root

    def run(
        self, act: Callable[[MachineDriver], Awaitable[object]], environ: dict[str, str] | None = None
    ) -> Any:
        setting = a_setting(self.root, self.clock, self.fake.environ() if environ is None else environ)
        driver = MachineDriver(Azure(setting, wait_s=0.0, check_s=60), setting, settle_s=0.0)

        async def all_of_it() -> object:
            try:
                return await act(driver)
            finally:
                await driver.disconnect()

        return asyncio.run(all_of_it())

    def ensure(self, claim: Claim) -> None:
        self.run(lambda driver: driver.ensure(claim))

    def refused(
        self, kind: type[border.BorderError], claim: Claim, environ: dict[str, str] | None = None
    ) -> str:
        """What an order is refused with; nothing is left of it."""
        with pytest.raises(kind) as caught:
            self.run(lambda driver: driver.ensure(claim), environ)
        assert self.fake.leftovers() == []
        return str(caught.value)

    def order(self) -> Any:
        """The last order of a machine."""
        return self.fake.called("put_machine")[-1].body

    def thing(self, kind: str, name: str, location: str = "eastus") -> str:
        """Something that people made before."""
        id = f"{GROUP}/providers/{kind}/{name}"
        self.fake.things[id.lower()] = {"location": location, "id": id}
        return id


@pytest.fixture
def lab(served: tuple[FakeAzure, MovedClock], tmp_path: Path) -> Lab:
    fake, clock = served
    fake.reset()
    return Lab(fake, clock, tmp_path)


def a_claim(wish: Resources | None = None, **facts: Any) -> Claim:
    return a_machine_claim("azure", facts.pop("kind", KIND), region="eastus", wish=wish, **facts)


def with_config(**fields: Any) -> Resources:
    return Resources(config=msgspec.json.encode({"azure": fields}).decode())


# -- who asks -----------------------------------------------------------------------------------------------


def a_certificate(folder: Path) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "argosy")])
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin + timedelta(9))
    kind, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    text = key.private_bytes(serialization.Encoding.PEM, kind, none)
    path = folder / "cert.pem"
    path.write_bytes(text + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return path


def sent(lab: Lab) -> str:
    (ask,) = lab.fake.called("token")
    return str(ask.body.decode())


def test_a_principal_signs_in_with_a_certificate(lab: Lab, tmp_path: Path) -> None:
    environ = lab.fake.environ() | {"AZURE_CLIENT_CERTIFICATE_PATH": str(a_certificate(tmp_path))}
    del environ["AZURE_CLIENT_SECRET"]
    assert lab.run(lambda driver: driver.observe([]), environ) == []
    assert "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer" in sent(
        lab
    )
    (tmp_path / "cert.pem").write_text("nothing")
    with pytest.raises(border.CredentialsRejected, match="no PEM file with a private key"):
        lab.run(lambda driver: driver.observe([]), environ)


def test_an_assertion_is_signed_by_its_key(tmp_path: Path) -> None:
    import base64

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    pem = a_certificate(tmp_path).read_bytes()
    head, body, signature = assertion(pem, CLIENT, "https://login/x", 1_000, "jwt-1", None).split(".")

    def raw(part: str) -> bytes:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))

    certificate = x509.load_pem_x509_certificate(pem)
    assert raw(msgspec.json.decode(raw(head))["x5t#S256"]) == certificate.fingerprint(hashes.SHA256())
    told = {"aud": "https://login/x", "iss": CLIENT, "sub": CLIENT, "jti": "jwt-1", "nbf": 1000, "exp": 1600}
    assert msgspec.json.decode(raw(body)) == told
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    key.verify(raw(signature), f"{head}.{body}".encode(), pss, hashes.SHA256())


def test_a_federated_token_and_a_managed_identity_sign_in(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a.b.c\n")
    environ = lab.fake.environ() | {"AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token")}
    del environ["AZURE_CLIENT_SECRET"]
    lab.run(lambda driver: driver.observe([]), environ)
    assert "client_assertion=a.b.c" in sent(lab)
    managed = {
        "ARGOSY_AZURE_IDENTITY": "managed",
        "ARGOSY_AZURE_METADATA_URL": lab.fake.url,
        "ARGOSY_AZURE_URL": lab.fake.url,
    }
    assert lab.run(lambda driver: driver.observe([]), managed) == []  # the only subscription that there is
    managed["ARGOSY_AZURE_IDENTITY"] = "another"
    with pytest.raises(border.CredentialsRejected, match="Identity not found"):
        lab.run(lambda driver: driver.observe([]), managed)


def test_the_login_of_az_signs_in(lab: Lab, tmp_path: Path) -> None:
    program = tmp_path / "az"
    told = {"accessToken": TOKEN, "expires_on": 4_000_000_000, "subscription": SUBSCRIPTION, "tenant": TENANT}
    program.write_text(f"#!/bin/sh\necho '{msgspec.json.encode(told).decode()}'\n")
    program.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "ARGOSY_AZURE_URL": lab.fake.url, "HOME": str(tmp_path)}
    assert lab.run(lambda driver: driver.observe([]), environ) == []
    program.write_text("#!/bin/sh\necho \"ERROR: Please run 'az login' to setup account.\" >&2; exit 1\n")
    text = lab.refused(border.CredentialsRejected, a_claim(), environ)
    assert text == (
        "`az` has no login to use: Please run 'az login' to setup account; sign in with `az login`"
    )


def test_without_credentials_it_says_where_they_are_looked_for(lab: Lab) -> None:
    assert lab.refused(border.CredentialsRejected, a_claim(), {"PATH": "/nowhere"}) == (
        "Microsoft Azure has no credentials to use: neither AZURE_TENANT_ID, AZURE_CLIENT_ID and "
        "AZURE_CLIENT_SECRET are set, nor is the program `az` there; sign in with `az login`"
    )
    environ = lab.fake.environ() | {"AZURE_CLIENT_SECRET": "wrong"}
    text = lab.refused(border.CredentialsRejected, a_claim(), environ)
    assert "AADSTS7000215: Invalid client secret provided" in text
    assert "`az login`" in text
    assert SECRET not in text


# -- what check tells ---------------------------------------------------------------------------------------


def checked(lab: Lab) -> list[tuple[bool, str, str]]:
    return [(each.ok, each.what, each.hint) for each in lab.run(lambda driver: driver.check())]


def test_check_names_what_is_missing(lab: Lab) -> None:
    assert [ok for ok, _, _ in checked(lab)] == [True, True, True, True]
    lab.fake.families = {"Standard_NC4as_T4_v3": ("f", 4, 1), INFINIBAND: ("g", 96, 8)}
    lab.fake.limits = {"eastus": {"f": 4, "g": 0}, "westeurope": {"f": 0, "g": 0}}
    assert checked(lab)[-1][1] == "quotas have room for 1 of 2 sizes with accelerators"
    lab.fake.allowed = ["Microsoft.Compute/*", "Microsoft.Network/*/read", "*/join/action", "*/groups/read"]
    lab.fake.allowed += ["Microsoft.Resources/subscriptions/resourceGroups/*"]
    ok, what, hint = checked(lab)[-1]
    assert (ok, what) == (
        False,
        "these credentials may not do Microsoft.Network/virtualNetworks/write, "
        "Microsoft.Network/networkSecurityGroups/write, Microsoft.Network/networkInterfaces/write, "
        "Microsoft.Network/publicIPAddresses/write in the whole subscription",
    )
    assert hint.startswith("`az role assignment create --assignee CLIENT --role Contributor --scope /subscr")
    lab.fake.allowed, lab.fake.unregistered = ["*"], {"Microsoft.Network"}
    assert checked(lab)[-1] == (
        False,
        "Microsoft.Network is not registered in the subscription",
        "`az provider register --namespace Microsoft.Network` registers it",
    )
    lab.fake.state = "Disabled"
    assert checked(lab) == [
        (
            False,
            f"the subscription {SUBSCRIPTION} (Fake) is Disabled",
            "look at its cost and billing pages in the Azure portal",
        )
    ]


def test_machines_of_others_are_named_with_the_command_that_ends_them(lab: Lab) -> None:
    claim = a_claim()
    lab.ensure(claim)
    lab.root = lab.root / "another"
    ok, what, hint = checked(lab)[-1]
    assert (ok, claim.id in what) == (False, True)
    assert f"`az vm delete --yes --resource-group argosy-eastus --name {claim.id}-0`" in hint


# -- quotas -------------------------------------------------------------------------------------------------


def test_quotas_close_what_cannot_be_had(lab: Lab) -> None:
    lab.fake.families = {
        "Standard_NC4as_T4_v3": ("Standard NCASv3_T4 Family", 4, 1),
        "Standard_NC64as_T4_v3": ("Standard NCASv3_T4 Family", 64, 4),
        INFINIBAND: ("standardNDSH100v5Family", 96, 8),
        KIND: ("standardDSv5Family", 4, 0),
    }
    some = {"standardNCASv3_T4Family": 8, "standardNDSH100v5Family": 0, "standardDSv5Family": 0, "cores": 10}
    none = some | {"standardNCASv3_T4Family": 0, "lowPriorityCores": 0}
    lab.fake.limits = {"eastus": some, "westeurope": none}

    async def quotes(driver: MachineDriver) -> object:
        first = await driver.vendor.quote(Want())
        asked = len(lab.fake.called("usages"))
        assert await driver.vendor.quote(Want()) == first
        assert len(lab.fake.called("usages")) == asked  # they are kept for some minutes
        return first

    offers: list[Offer] = list(lab.run(quotes))
    assert sorted(
        (each.shape.instance_type, each.region, each.capacity.value, each.closed.partition(";")[0])
        for each in offers
    ) == [
        ("", "westeurope", "spot", "the Azure quota `lowPriorityCores vCPUs` is 0 in westeurope"),
        (
            "Standard_NC4as_T4_v3",
            "westeurope",
            "on-demand",
            "the Azure quota `standardNCASv3_T4Family vCPUs` is 0 in westeurope",
        ),
        (
            "Standard_NC64as_T4_v3",
            "",
            "on-demand",
            "the Azure quota `standardNCASv3_T4Family vCPUs` is 8 in every region, and one of "
            "Standard_NC64as_T4_v3 has 64",
        ),
        (INFINIBAND, "", "on-demand", "the Azure quota `standardNDSH100v5Family vCPUs` is 0 in every region"),
    ]
    row = Offer(
        provider="azure",
        region="eastus",
        shape=Shape(instance_type=INFINIBAND),
        capacity=Capacity.ON_DEMAND,
        price_micro_usd=1,
    )
    assert [each.shape.instance_type for each in offers if closes(each, row)] == [INFINIBAND]


def test_a_gang_that_its_quota_has_no_room_for_is_not_begun(lab: Lab) -> None:
    lab.fake.families = {INFINIBAND: ("standardNDSH100v5Family", 96, 8)}
    lab.fake.limits, lab.fake.used = (
        {"eastus": {"standardNDSH100v5Family": 200}},
        {"standardNDSH100v5Family": 96},
    )

    async def act(driver: MachineDriver) -> None:
        assert list(await driver.vendor.quote(Want())) == []
        with pytest.raises(border.QuotaExceeded) as caught:
            await driver.ensure(a_claim(kind=INFINIBAND, accelerator="H100", count=2))
        assert str(caught.value) == (
            "the Azure quota `standardNDSH100v5Family vCPUs` has 104 of 200 left in eastus, and 2 x "
            f"{INFINIBAND} need 192; raise it in the portal under Quotas, or with `az quota`"
        )
        await driver.ensure(a_claim(kind=INFINIBAND, accelerator="H100"))  # one fits, or Azure says

    lab.run(act)
    assert len(lab.fake.called("put_machine")) == 1


def test_who_may_not_read_quotas_is_not_stopped(lab: Lab) -> None:
    text = "The client 'x' does not have authorization to perform action 'Microsoft.Compute/skus/read'"
    lab.fake.refuse("skus", lab.fake.error(403, "AuthorizationFailed", text))
    assert list(lab.run(lambda driver: driver.vendor.quote(Want()))) == []


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
