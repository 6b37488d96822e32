"""Paperspace: machines with GPUs, on demand, which rest with their disks."""

from __future__ import annotations

from argosy.infra.machine_create import vendor_driver
from argosy.infra.provider import Capabilities, Limits, Manifest

MANIFEST = Manifest(
    name="paperspace",
    title="Paperspace",
    capabilities=Capabilities(stop=True, multi_node=True, disks=True, machine_images=True),
    limits=Limits(nodes_max=16, text="a gang at Paperspace has at most 16 nodes"),
    class_name="Paperspace",
    extra="clouds",
    settings=("PAPERSPACE_API_KEY", "PAPERSPACE_API_URL"),
    credentials=("PAPERSPACE_API_KEY", "~/.paperspace/config.json"),
    sign_in="make a key at https://console.paperspace.com/settings/apikeys and set PAPERSPACE_API_KEY",
    tested="a fake of its API",
    priced_by_catalog=True,
    unpriced="its public API tells which machines are available, not what they cost",
)

#: PAPERSPACE_API_URL: another address of the API, for tests.
create = vendor_driver(__name__, "Paperspace")
