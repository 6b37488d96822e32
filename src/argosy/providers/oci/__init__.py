"""Oracle Cloud Infrastructure: prices only. It cannot be launched on yet."""

from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="oci",
    title="Oracle Cloud Infrastructure",
    capabilities=Capabilities(),
    class_name="OCI",
    task_fields=("region_configs",),
    prices=PriceSource(),
)
