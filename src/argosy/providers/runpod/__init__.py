"""RunPod: pods (containers with GPUs), on demand and spot, and clusters of pods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from argosy.infra.provider import Capabilities, Limits, Manifest
from argosy.model.priced import PriceSource

if TYPE_CHECKING:
    from argosy.infra.machine_driver import MachineDriver
    from argosy.infra.provider import Setting

MANIFEST = Manifest(
    name="runpod",
    title="RunPod",
    capabilities=Capabilities(spot=True, multi_node=True, images=True, disks=True, zones=True, ports=True),
    limits=Limits(nodes_max=250, text="a cluster of RunPod has at most 250 pods"),
    class_name="RunPod",
    extra="clouds",
    settings=("RUNPOD_API_KEY", "ARGOSY_RUNPOD_URL"),
    credentials=("RUNPOD_API_KEY", "~/.runpod/config.toml"),
    sign_in="make a key at https://console.runpod.io/user/settings and set RUNPOD_API_KEY, or "
    "`runpod config`",
    task_fields=("allowed_cuda_versions", "network_volume", "network_volume_path", "bid_per_gpu", "registry"),
    reads_task_fields=True,
    volume_types=("runpod-network-volume",),
    priced_by_catalog=True,
    prices=PriceSource(keys=("RUNPOD_API_KEY",)),
    tested="a fake of its API with real hosts, held to its OpenAPI",
)


def create(setting: Setting) -> MachineDriver:
    """The driver. ARGOSY_RUNPOD_URL: another address of the API, for tests."""
    from argosy.providers.runpod.provider import RunPod
    from argosy.providers.runpod.volumes import RunPodDriver

    return RunPodDriver(RunPod(setting), setting)
