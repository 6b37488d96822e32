"""Verda, formerly DataCrunch: machines with GPUs, on demand and spot."""

from __future__ import annotations

from argosy.infra.machine_create import vendor_driver
from argosy.infra.provider import Capabilities, Limits, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="verda",
    title="Verda",
    aliases=("datacrunch",),
    capabilities=Capabilities(spot=True, multi_node=True, disks=True, machine_images=True),
    limits=Limits(
        nodes_max=16, text="nodes at Verda reach each other over the internet: a gang has at most 16"
    ),
    class_name="Verda",
    extra="clouds",
    settings=(
        "VERDA_CLIENT_ID",
        "VERDA_CLIENT_SECRET",
        "DATACRUNCH_CLIENT_ID",
        "DATACRUNCH_CLIENT_SECRET",
        "VERDA_API_URL",
    ),
    credentials=(
        "VERDA_CLIENT_ID and VERDA_CLIENT_SECRET",
        "DATACRUNCH_CLIENT_ID and DATACRUNCH_CLIENT_SECRET",
        "~/.verda/config.json",
    ),
    sign_in="make credentials of the API at https://console.verda.com and set VERDA_CLIENT_ID and "
    "VERDA_CLIENT_SECRET",
    tested="a fake of its API with real hosts, which its client verda speaks to",
    priced_by_catalog=True,
    prices=PriceSource(keys=("VERDA_CLIENT_ID", "VERDA_CLIENT_SECRET"), login=True),
)

#: VERDA_API_URL: another address of the API, for tests.
create = vendor_driver(__name__, "Verda")
