"""GPU servers by SSH: pools of hosts that exist, named by whoever runs the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from argosy.infra.provider import Capabilities, Manifest

if TYPE_CHECKING:
    from argosy.infra.provider import Setting
    from argosy.providers.ssh.provider import SshProvider

MANIFEST = Manifest(
    name="ssh",
    tested="real sshd in network namespaces",
    title="GPU servers by SSH",
    capabilities=Capabilities(stop=True, multi_node=True, fractions=True, owned=True),
    class_name="SSH",
    task_fields=("pod_config", "custom_metadata", "provision_timeout"),
    enlists=True,
    may_return=True,
    enabled_by_default=True,
)


def create(setting: Setting) -> SshProvider:
    """The driver. Nothing is asked of any host before there is a pool."""
    from argosy.providers.ssh.provider import SshProvider

    return SshProvider(setting)
