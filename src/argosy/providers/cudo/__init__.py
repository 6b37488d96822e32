"""Cudo Compute: machines of any size with and without GPUs, on demand."""

from __future__ import annotations

from argosy.infra.machine_create import vendor_driver
from argosy.infra.provider import Capabilities, Limits, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="cudo",
    title="Cudo Compute",
    capabilities=Capabilities(multi_node=True, disks=True, machine_images=True),
    limits=Limits(
        nodes_max=16, text="nodes at Cudo reach each other over the internet: a gang has at most 16"
    ),
    class_name="Cudo",
    extra="clouds",
    settings=("CUDO_API_KEY", "CUDO_PROJECT", "CUDO_API_URL"),
    credentials=("CUDO_API_KEY and CUDO_PROJECT", "~/.config/cudo/cudo.yml"),
    sign_in="cudoctl init",
    tested="a fake of its API, which its client cudo-compute speaks to",
    priced_by_catalog=True,
    prices=PriceSource(),
)

#: CUDO_API_URL: another address of the API, for tests.
create = vendor_driver(__name__, "Cudo")
