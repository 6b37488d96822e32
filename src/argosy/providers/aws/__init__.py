"""Amazon Web Services: prices only. It cannot be launched on yet."""

from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="aws",
    title="Amazon Web Services",
    capabilities=Capabilities(),
    class_name="AWS",
    extra="aws",
    task_fields=("vpc_name", "subnet_names", "security_group_name", "remote_identity"),
    prices=PriceSource(sdk=True),
)
