"""Cudo Compute: prices only. It cannot be launched on yet."""

from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="cudo", title="Cudo Compute", capabilities=Capabilities(), class_name="Cudo", prices=PriceSource()
)
