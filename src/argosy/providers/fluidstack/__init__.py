"""Fluidstack: prices only. It cannot be launched on yet."""

from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="fluidstack",
    title="Fluidstack",
    capabilities=Capabilities(),
    class_name="Fluidstack",
    prices=PriceSource(keys=("FLUIDSTACK_API_KEY",), header="api-key", scheme=""),
)
