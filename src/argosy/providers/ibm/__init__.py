"""IBM Cloud: prices only. It cannot be launched on yet."""

from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="ibm", title="IBM Cloud", capabilities=Capabilities(), class_name="IBM", prices=PriceSource()
)
