"""DigitalOcean: droplets with and without GPUs, on demand."""

from __future__ import annotations

from argosy.infra.machine_create import vendor_driver
from argosy.infra.provider import Capabilities, Limits, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="digitalocean",
    title="DigitalOcean",
    capabilities=Capabilities(multi_node=True, machine_images=True, quotas=True),
    limits=Limits(nodes_max=64, text="DigitalOcean takes 250 calls a minute: a gang has at most 64 nodes"),
    aliases=("do",),
    class_name="DO",
    extra="clouds",
    settings=("DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN", "DIGITALOCEAN_API_URL"),
    credentials=("DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN", "~/.config/doctl/config.yaml"),
    sign_in="doctl auth init",
    tested="a fake of its API with real hosts, which its client pydo speaks to",
    priced_by_catalog=True,
    prices=PriceSource(keys=("DIGITALOCEAN_TOKEN",)),
)

#: DIGITALOCEAN_API_URL: another address of the API, for tests.
create = vendor_driver(__name__, "DigitalOcean")
