"""Who asks Azure, what `check` tells, and what quotas close."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from azure_lab import INFINIBAND, KIND, Lab, a_claim, lab, served

from argosy.infra import border
from argosy.infra.machine_driver import MachineDriver
from argosy.infra.provider import Want
from argosy.model.offer import Capacity, Offer, Shape
from argosy.planning.offered import closes
from argosy.providers.azure.identity import assertion
from argosy.testing.fake_azure_ground import CLIENT, SECRET, SUBSCRIPTION, TENANT, TOKEN

__all__ = ("lab", "served")  # fixtures


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
