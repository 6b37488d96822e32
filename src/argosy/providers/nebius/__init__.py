"""Nebius: prices only. It cannot be launched on yet."""

from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="nebius",
    title="Nebius",
    capabilities=Capabilities(),
    class_name="Nebius",
    extra="nebius",
    task_fields=("region_configs", "use_internal_ips"),
    prices=PriceSource(keys=("NEBIUS_IAM_TOKEN",), sdk=True),
)
