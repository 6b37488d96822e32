"""Hyperstack: prices only. It cannot be launched on yet."""

from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="hyperstack",
    title="Hyperstack",
    capabilities=Capabilities(),
    class_name="Hyperstack",
    prices=PriceSource(keys=("HYPERSTACK_API_KEY",), header="api_key", scheme=""),
)
