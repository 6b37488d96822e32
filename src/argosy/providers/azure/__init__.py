"""Microsoft Azure: prices only. It cannot be launched on yet."""

from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="azure",
    title="Microsoft Azure",
    capabilities=Capabilities(),
    class_name="Azure",
    task_fields=("resource_group_vm", "storage_account"),
    prices=PriceSource(),
)
