"""Slurm clusters: a claim is one job of N nodes that holds our agent on each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from argosy.infra.provider import Capabilities, Manifest

if TYPE_CHECKING:
    from argosy.infra.provider import Setting
    from argosy.providers.slurm.provider import SlurmProvider

MANIFEST: Final = Manifest(
    name="slurm",
    title="Slurm",
    capabilities=Capabilities(multi_node=True),
    class_name="Slurm",
    own=True,
    task_fields=("sbatch_options", "quota", "cpu_partition", "provision_timeout", "partition", "account",
    "qos",
                 "time", "constraint", "reservation", "native"),
)  # fmt: skip


def create(setting: Setting) -> SlurmProvider:
    """The driver for the login node that this server stands on."""
    from argosy.infra.boot import agent_zipapp
    from argosy.providers.slurm.cluster import Cluster
    from argosy.providers.slurm.provider import SlurmProvider
    from argosy.providers.slurm.runner import LocalRunner
    from argosy.providers.slurm.settings import ClusterSettings

    here = Cluster(
        "local",
        LocalRunner(setting.environ),
        ClusterSettings(),
        clock=setting.clock,
        agent=lambda: agent_zipapp(setting.root / "agent"),
    )
    return SlurmProvider({here.name: here})
