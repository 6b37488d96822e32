"""Vast.ai: prices only. It cannot be launched on yet."""

from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="vast",
    title="Vast.ai",
    capabilities=Capabilities(),
    class_name="Vast",
    task_fields=("datacenter_only", "create_instance_kwargs"),
    prices=PriceSource(),
)
