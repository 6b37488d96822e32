"""Vast.ai: a marketplace of containers on other people's hosts, rented or bid for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

if TYPE_CHECKING:
    from argosy.infra.machine_driver import MachineDriver
    from argosy.infra.provider import Setting

MANIFEST = Manifest(
    name="vast",
    title="Vast.ai",
    capabilities=Capabilities(spot=True, stop=True, images=True, disks=True, ports=True),
    class_name="Vast",
    extra="clouds",
    settings=("VAST_API_KEY", "ARGOSY_VAST_URL"),
    credentials=("VAST_API_KEY", "~/.config/vastai/vast_api_key", "~/.vast_api_key"),
    sign_in="vastai set api-key KEY",
    task_fields=("datacenter_only", "min_reliability", "create_instance_kwargs"),
    reads_task_fields=True,
    prices=PriceSource(),
    observe_s=20.0,
    tested="a fake of its API, which its own SDK speaks to",
)


def create(setting: Setting) -> MachineDriver:
    """The driver. ARGOSY_VAST_URL: another address of the API, for tests."""
    from argosy.infra.machine_driver import MachineDriver
    from argosy.providers.vast.provider import Vast

    return MachineDriver(Vast(setting), setting)
