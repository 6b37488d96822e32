"""Nebius: whole machines, on demand and preemptible, with InfiniBand between those with eight GPUs."""

from __future__ import annotations

from argosy.infra.machine_create import vendor_driver
from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="nebius",
    title="Nebius",
    capabilities=Capabilities(
        spot=True, stop=True, multi_node=True, machine_images=True, networks=True, disks=True, quotas=True
    ),
    class_name="Nebius",
    extra="nebius",
    settings=("NEBIUS_IAM_TOKEN", "NEBIUS_PROFILE", "NEBIUS_PROJECT_ID", "ARGOSY_NEBIUS_ENDPOINT"),
    credentials=(
        "NEBIUS_IAM_TOKEN",
        "~/.nebius/NEBIUS_IAM_TOKEN.txt",
        "~/.nebius/credentials.json",
        "~/.nebius/config.yaml",
    ),
    sign_in="nebius profile create",
    task_fields=("region_configs", "use_internal_ips"),
    reads_task_fields=True,
    priced_by_catalog=True,
    prices=PriceSource(keys=("NEBIUS_IAM_TOKEN",), sdk=True),
    tested="a fake that speaks gRPC in the vendor's own messages",
)

#: NEBIUS_PROJECT_ID: the project in which machines are made, where a region has several;
#: ARGOSY_NEBIUS_ENDPOINT: `host:port` of one server for all services without TLS, for tests.
create = vendor_driver(__name__, "Nebius")
