"""Ray clusters: a claim is one submitted job that holds our agent on each of its nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from argosy.infra.provider import Capabilities, Manifest

if TYPE_CHECKING:
    from pathlib import Path

    from argosy.infra.provider import Setting
    from argosy.infra.ssh import Ssh
    from argosy.providers.ray.provider import RayProvider

MANIFEST: Final = Manifest(
    name="ray",
    title="Ray",
    capabilities=Capabilities(multi_node=True),
    class_name="Ray",
    region_is_rest=True,
    own=True,
    credentials=(
        "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "~/.argosy/ray.yaml", "/tmp/ray/ray_current_cluster",
    ),
    extra="clouds",
    tested="a fake of its API whose jobs really run; real Ray 2.60, the oldest 2.9 by hand",
    reads_task_fields=True,
    command_field="entrypoint",
    task_fields=(
        "entrypoint", "runtime_env", "entrypoint_num_cpus", "entrypoint_num_gpus", "entrypoint_memory",
        "entrypoint_resources", "native", "resources", "provision_timeout",
    ),
)  # fmt: skip


def create(setting: Setting) -> RayProvider:
    """The driver for the clusters that are known: `ray.yaml`, RAY_ADDRESS, and the one of this machine.
    Raises ArgosyError when that file cannot be used."""
    from argosy.infra.machine_notes import Notes
    from argosy.infra.tombstones import Tombstones
    from argosy.providers.ray.api import RayApi
    from argosy.providers.ray.cluster import Cluster, Means
    from argosy.providers.ray.known import find_clusters
    from argosy.providers.ray.native import NativeClaim
    from argosy.providers.ray.provider import RayProvider

    means = Means(
        clock=setting.clock,
        ids=setting.ids,
        dialled=setting.dialled,
        released=Tombstones(setting.root / "released"),
        notes=Notes(setting.root / "native", NativeClaim),
        ssh=lambda: _ssh(setting),
        agent=lambda: _agent(setting),
    )
    return RayProvider(
        {
            name: Cluster(name, RayApi(each, clock=setting.clock, environ=setting.environ), each, means)
            for name, each in find_clusters(setting.home, setting.environ).items()
        }
    )


def _ssh(setting: Setting) -> Ssh:
    from argosy.infra.ssh import Ssh

    return Ssh(setting.root / "ssh", setting.ids, setting.environ)


def _agent(setting: Setting) -> Path:
    from argosy.infra.boot import agent_zipapp

    return agent_zipapp(setting.root / "agent")
