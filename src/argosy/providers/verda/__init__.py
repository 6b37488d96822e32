"""Verda, formerly DataCrunch: prices only. It cannot be launched on yet."""

from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="verda",
    title="Verda, formerly DataCrunch",
    capabilities=Capabilities(),
    class_name="Verda",
    prices=PriceSource(keys=("VERDA_CLIENT_ID", "VERDA_CLIENT_SECRET"), login=True),
)
