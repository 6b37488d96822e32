"""The vendors' own clients speak to the fakes, which are thereby known to speak their wire format.

Nightly, and each skips where its package is not installed: pydo, verda, hyperstack, cudo-compute.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from argosy.testing.fake_cudo import KEY as CUDO_KEY
from argosy.testing.fake_cudo import PROJECT as CUDO_PROJECT
from argosy.testing.fake_cudo import FakeCudo
from argosy.testing.fake_digitalocean import KEY as DIGITALOCEAN_KEY
from argosy.testing.fake_digitalocean import FakeDigitalOcean
from argosy.testing.fake_hyperstack import KEY as HYPERSTACK_KEY
from argosy.testing.fake_hyperstack import FakeHyperstack
from argosy.testing.fake_verda import CLIENT as VERDA_CLIENT
from argosy.testing.fake_verda import KEY as VERDA_KEY
from argosy.testing.fake_verda import FakeVerda

pytestmark = pytest.mark.nightly


def the_client(name: str) -> Any:
    """The module of a vendor's client, which has no types of ours."""
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"{name.partition('.')[0]} IS NOT INSTALLED: the fake is not checked against it")


def test_digitalocean() -> None:
    pydo = the_client("pydo")
    with FakeDigitalOcean() as cloud:
        # Its own policy sends a token over TLS only.
        policy = the_client("azure.core.pipeline.policies").HeadersPolicy(
            base_headers={"authorization": f"Bearer {DIGITALOCEAN_KEY}"}
        )
        client = pydo.Client(token=DIGITALOCEAN_KEY, endpoint=cloud.url, authentication_policy=policy)
        key = {"name": "a", "public_key": "ssh-ed25519 " + "A" * 68}
        made = client.ssh_keys.create(body=key)["ssh_key"]
        assert client.ssh_keys.get(made["fingerprint"])["ssh_key"] == made
        asked = {
            "name": "clm-0000000000000000000z-0",
            "region": "nyc3",
            "size": "gpu-h100x1-80gb",
            "image": "gpu-h100x1-base",
            "ssh_keys": [made["fingerprint"]],
            "tags": ["argosy"],
            "user_data": "#cloud-config\n",
        }
        droplet = client.droplets.create(body=asked)["droplet"]
        listed = client.droplets.list(type="gpus", per_page=200)["droplets"]
        assert [each["id"] for each in listed] == [droplet["id"]]
        assert client.droplets.list(tag_name="argosy")["droplets"] == []
        assert client.droplets.get(droplet["id"])["droplet"]["size_slug"] == "gpu-h100x1-80gb"
        assert client.droplet_actions.list(droplet["id"])["actions"][0]["type"] == "create"
        cloud.rest(cloud.machines()[0])
        client.droplet_actions.post(droplet["id"], body={"type": "power_on"})
        assert client.account.get()["account"]["status"] == "active"
        assert len(client.sizes.list(per_page=200)["sizes"]) == 3
        client.droplets.destroy(droplet["id"])
        assert cloud.machines() == []


def test_verda() -> None:
    verda = the_client("verda")
    with FakeVerda() as cloud:
        client = verda.VerdaClient(VERDA_CLIENT, VERDA_KEY, base_url=f"{cloud.url}/v1")
        key = client.ssh_keys.create("argosy", "ssh-ed25519 AAAA argosy")
        assert [each.id for each in client.ssh_keys.get()] == [key.id]
        images = [each.image_type for each in client.images.get("1H100.80S.30V")]
        made = client.instances.create(
            "1H100.80S.30V",
            images[1],
            "clm-0000000000000000000z-0",
            "argosy 1",
            ssh_key_ids=[key.id],
            location="FIN-01",
            os_volume={"name": "a", "size": 100, "on_spot_discontinue": "delete_permanently"},
            is_spot=True,
            pricing="FIXED_PRICE",
        )
        assert (made.status, made.hostname, made.is_spot) == ("running", "clm-0000000000000000000z-0", True)
        assert [each.id for each in client.instances.get()] == [made.id]
        client.instances.action(made.id, "shutdown")
        client.instances.action(made.id, "start")
        assert {each["location_code"] for each in client.instances.get_availabilities(is_spot=False)} == {
            "FIN-01",
            "ICE-01",
        }
        assert client.balance.get().amount == 42.5
        client.instances.action(made.id, "delete", [made.os_volume_id], delete_permanently=True)
        assert (cloud.machines(), cloud.volumes) == ([], {})


def test_hyperstack() -> None:
    hyperstack = the_client("hyperstack")
    with FakeHyperstack() as cloud:
        setting = hyperstack.Configuration(host=f"{cloud.url}/v1", api_key={"apiKey": HYPERSTACK_KEY})
        with hyperstack.ApiClient(setting) as client:
            environments = hyperstack.EnvironmentApi(client)
            environments.create_environment({"name": "argosy-CANADA-1", "region": "CANADA-1"})
            assert environments.list_environments(page="2", page_size="100").count == 121
            keys = hyperstack.KeypairApi(client)
            key = {"name": "argosy", "environment_name": "argosy-CANADA-1", "public_key": "ssh-ed25519 A"}
            keys.import_key_pair(key)
            assert keys.list_key_pairs().keypairs[0].name == "argosy"
            images = hyperstack.ImageApi(client).list_images(region="CANADA-1").images[0].images
            asked = {
                "name": "clm-0000000000000000000z-0",
                "environment_name": "argosy-CANADA-1",
                "flavor_name": "n3-H100x1",
                "image_name": images[2].name,
                "key_name": "argosy",
                "count": 1,
                "labels": ["argosy"],
                "assign_floating_ip": True,
                "enable_port_randomization": False,
            }
            machines = hyperstack.VirtualMachineApi(client)
            made = machines.create_vms(asked).instances[0]
            listed = machines.list_vms(page=1, page_size=100).instances[0]
            assert (listed.id, listed.status, listed.labels) == (made.id, "ACTIVE", ["argosy"])
            assert (listed.environment.region, listed.flavor.name) == ("CANADA-1", "n3-H100x1")
            machines.hibernate_vm(made.id)
            assert machines.get_vm(made.id).instance.status == "HIBERNATED"
            machines.restore_vm_from_hibernation(made.id)
            flavors = hyperstack.FlavorApi(client).list_flavors(region="CANADA-1").data
            assert flavors[0].flavors[0].stock_available is True
            assert hyperstack.CreditApi(client).get_user_credit().data.can_create_instance is True
            machines.delete_vm(made.id)
            assert cloud.machines() == []


def test_cudo() -> None:
    cudo = the_client("cudo_compute")
    with FakeCudo() as cloud:
        setting = cudo.Configuration()
        setting.host, setting.api_key["Authorization"] = cloud.url, CUDO_KEY
        setting.api_key_prefix["Authorization"] = "Bearer"
        machines = cudo.VirtualMachinesApi(cudo.ApiClient(setting))
        images = [each.id for each in machines.list_public_vm_images().images]
        asked = cudo.CreateVMBody(
            vm_id="clm-0000000000000000000z-0",
            data_center_id="se-stockholm-1",
            machine_type="ice-lake-a40",
            vcpus=4,
            memory_gib=16,
            gpus=1,
            boot_disk_image_id=images[-2],
            boot_disk=cudo.Disk(size_gib=100, storage_class="STORAGE_CLASS_NETWORK"),
            ssh_key_source="SSH_KEY_SOURCE_NONE",
            custom_ssh_keys=["ssh-ed25519 AAAA argosy"],
            metadata={"argosy-claim": "clm-0000000000000000000z"},
        )
        made = machines.create_vm(CUDO_PROJECT, asked)
        (listed,) = machines.list_vms(CUDO_PROJECT).vms
        assert (listed.id, listed.state, listed.short_state) == (made.id, "ACTIVE", "runn")
        assert listed.metadata == {"argosy-claim": "clm-0000000000000000000z"}
        assert machines.get_vm(CUDO_PROJECT, made.id).vm.datacenter_id == "se-stockholm-1"
        types = machines.list_vm_machine_types2().machine_types
        assert (types[0].machine_type, types[0].max_gpu_free) == ("ice-lake-a40", 8)
        machines.terminate_vm(CUDO_PROJECT, made.id)
        assert cloud.machines() == []
