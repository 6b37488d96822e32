"""DigitalOcean: prices only. It cannot be launched on yet."""

from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="digitalocean",
    title="DigitalOcean",
    capabilities=Capabilities(),
    aliases=("do",),
    class_name="DO",
    prices=PriceSource(keys=("DIGITALOCEAN_TOKEN",)),
)
