"""Fluidstack: what an account has there are Kubernetes and Slurm clusters, which the drivers of those use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

if TYPE_CHECKING:
    from argosy.infra.machine_driver import MachineDriver
    from argosy.infra.provider import Setting

MANIFEST = Manifest(
    name="fluidstack",
    title="Fluidstack",
    capabilities=Capabilities(),
    class_name="Fluidstack",
    extra="clouds",
    settings=(
        "FLUIDSTACK_TOKEN",
        "FLUIDSTACK_API_KEY",
        "ARGOSY_FLUIDSTACK_PLATFORM",
        "ARGOSY_FLUIDSTACK_URL",
    ),
    credentials=("FLUIDSTACK_TOKEN", "FLUIDSTACK_API_KEY and ARGOSY_FLUIDSTACK_PLATFORM"),
    sign_in="make a token in the console of Fluidstack and set FLUIDSTACK_TOKEN",
    priced_by_catalog=True,
    prices=PriceSource(keys=("FLUIDSTACK_API_KEY",), header="api-key", scheme=""),
    observe_s=60.0,
    tested="a fake of its API as published; the old platform against its old SDK's models",
)


def create(setting: Setting) -> MachineDriver:
    """The driver. ARGOSY_FLUIDSTACK_PLATFORM=old: the account is one of the old platform, which makes
    machines; ARGOSY_FLUIDSTACK_URL: another address of the API, for tests."""
    from argosy.infra.machine_driver import MachineDriver

    if setting.environ.get("ARGOSY_FLUIDSTACK_PLATFORM") == "old":
        from argosy.providers.fluidstack.platform import Platform

        return MachineDriver(Platform(setting), setting)
    from argosy.providers.fluidstack.provider import Fluidstack

    return MachineDriver(Fluidstack(setting), setting)
