"""Infrastructures that have a name already, so that task files and programs may speak of them: no more.

Whoever writes a driver or prices for one takes its line from here to a folder.
"""

from __future__ import annotations

from typing import Final

from argosy.infra.provider import Capabilities, Manifest

_OWNED: Final = Capabilities(owned=True)
_RENTED: Final = Capabilities()
_POD_FIELDS: Final = ("pod_config", "custom_metadata", "provision_timeout")
_CLUSTER_FIELDS: Final = (
    *_POD_FIELDS,
    *("dws", "kueue", "quota", "remote_identity", "enable_docker", "set_pod_resource_limits"),
    *("namespace", "autoscaler", "ports"),
)

PLANNED: Final = (
    Manifest(
        name="kubernetes",
        title="Kubernetes",
        capabilities=_OWNED,
        aliases=("k8s",),
        class_name="Kubernetes",
        region_is_rest=True,
        task_fields=_CLUSTER_FIELDS,
    ),
    Manifest(name="vsphere", title="VMware vSphere", capabilities=_OWNED, class_name="Vsphere"),
    Manifest(name="hyperbolic", title="Hyperbolic", capabilities=_RENTED, class_name="Hyperbolic"),
    Manifest(name="mithril", title="Mithril", capabilities=_RENTED, class_name="Mithril"),
    Manifest(
        name="primeintellect", title="Prime Intellect", class_name="PrimeIntellect", capabilities=_RENTED
    ),
    Manifest(name="seeweb", title="Seeweb", capabilities=_RENTED, class_name="Seeweb"),
    Manifest(name="shadeform", title="Shadeform", capabilities=_RENTED, class_name="Shadeform"),
    Manifest(name="yotta", title="Yotta", capabilities=_RENTED, class_name="Yotta"),
)
