"""Hyperstack: machines with GPUs, on demand and spot, which rest without being paid for."""

from __future__ import annotations

from argosy.infra.machine_create import vendor_driver
from argosy.infra.provider import Capabilities, Limits, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="hyperstack",
    title="Hyperstack",
    capabilities=Capabilities(spot=True, stop=True, multi_node=True, machine_images=True),
    limits=Limits(nodes_max=32, text="a gang at Hyperstack has at most 32 nodes"),
    class_name="Hyperstack",
    extra="clouds",
    settings=("HYPERSTACK_API_KEY", "HYPERSTACK_API_URL"),
    credentials=("HYPERSTACK_API_KEY",),
    sign_in="make a key at https://console.hyperstack.cloud and set HYPERSTACK_API_KEY",
    tested="a fake of its API, which its client hyperstack speaks to",
    priced_by_catalog=True,
    prices=PriceSource(keys=("HYPERSTACK_API_KEY",), header="api_key", scheme=""),
)

#: HYPERSTACK_API_URL: another address of the API, for tests.
create = vendor_driver(__name__, "Hyperstack")
