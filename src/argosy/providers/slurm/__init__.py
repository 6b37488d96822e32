"""Slurm clusters: a claim is one job of N nodes that holds our agent on each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from argosy.infra.provider import Capabilities, Manifest

if TYPE_CHECKING:
    from argosy.infra.provider import Setting
    from argosy.providers.slurm.provider import SlurmProvider

MANIFEST: Final = Manifest(
    name="slurm",
    tested="real Slurm 22.05",
    title="Slurm",
    capabilities=Capabilities(multi_node=True),
    class_name="Slurm",
    own=True,
    credentials=(
        "SLURM_CONF",
        "/etc/slurm/slurm.conf",
        "/etc/slurm-llnl/slurm.conf",
        "/run/slurm/conf/slurm.conf",
        "~/.argosy/slurm.yaml",
        "~/.slurm/config",
    ),
    reads_task_fields=True,
    array_field="native",
    task_fields=("sbatch_options", "quota", "cpu_partition", "provision_timeout", "partition", "account",
    "qos",
                 "time", "constraint", "reservation", "native"),
)  # fmt: skip


def create(setting: Setting) -> SlurmProvider:
    """The driver for the clusters that are known: this machine's own, and those of `slurm.yaml`. Raises
    ArgosyError when that file cannot be used."""
    from argosy.infra.boot import agent_zipapp
    from argosy.infra.ssh import Ssh
    from argosy.providers.slurm.cluster import Cluster
    from argosy.providers.slurm.known import find_clusters
    from argosy.providers.slurm.provider import SlurmProvider
    from argosy.providers.slurm.runner import LocalRunner, Runner, SshRunner, target_of

    ssh = Ssh(setting.root / "ssh", setting.ids, setting.environ)
    clusters = {}
    for name, settings in find_clusters(setting.root.parent.parent, setting.environ).items():
        runner: Runner = LocalRunner(setting.environ)
        if settings.login:
            to = target_of(settings.login, key_file=settings.key_file, config_file=settings.ssh_config)
            runner = SshRunner(ssh, to)
        clusters[name] = Cluster(
            name, runner, settings, clock=setting.clock, agent=lambda: agent_zipapp(setting.root / "agent")
        )
    return SlurmProvider(clusters)
