"""Samsung Cloud Platform: shipped prices only. It cannot be launched on yet."""

from argosy.infra.provider import Capabilities, Manifest

MANIFEST = Manifest(
    name="scp",
    title="Samsung Cloud Platform",
    capabilities=Capabilities(),
    class_name="SCP",
    unpriced="its price list does not tell which machine and region a price is for",
)
