"""Vast.ai: a marketplace of containers on other people's hosts, rented or bid for."""

from __future__ import annotations

from argosy.infra.machine_create import vendor_driver
from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="vast",
    title="Vast.ai",
    capabilities=Capabilities(spot=True, stop=True, images=True, disks=True, ports=True),
    class_name="Vast",
    extra="clouds",
    settings=("VAST_API_KEY", "ARGOSY_VAST_URL"),
    credentials=("VAST_API_KEY", "~/.config/vastai/vast_api_key", "~/.vast_api_key"),
    sign_in="make a key at https://cloud.vast.ai/manage-keys/ and set VAST_API_KEY, or "
    "`vastai set api-key KEY`",
    task_fields=("datacenter_only", "min_reliability", "create_instance_kwargs"),
    reads_task_fields=True,
    prices=PriceSource(),
    observe_s=20.0,
    tested="a fake of its API, which its own SDK speaks to",
)

#: ARGOSY_VAST_URL: another address of the API, for tests.
create = vendor_driver(__name__, "Vast")
