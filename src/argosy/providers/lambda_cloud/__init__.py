"""Lambda: prices only. It cannot be launched on yet."""

from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="lambda",
    title="Lambda",
    capabilities=Capabilities(),
    class_name="Lambda",
    prices=PriceSource(keys=("LAMBDA_API_KEY",)),
)
