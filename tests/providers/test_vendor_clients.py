"""The vendors' own clients speak to the fakes, which are thereby known to speak their wire format.

Nightly, and each skips where its package is not installed: pydo.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from argosy.testing.fake_digitalocean import KEY as DIGITALOCEAN_KEY
from argosy.testing.fake_digitalocean import FakeDigitalOcean

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
