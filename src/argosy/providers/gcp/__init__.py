"""Google Cloud: prices only. It cannot be launched on yet."""

from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="gcp",
    title="Google Cloud",
    capabilities=Capabilities(),
    class_name="GCP",
    task_fields=(
        "vpc_name",
        "subnet_names",
        "managed_instance_group",
        "enable_gvnic",
        "enable_gpu_direct",
        "placement_policy",
    ),
    prices=PriceSource(keys=("GOOGLE_API_KEY",), header="X-Goog-Api-Key", scheme=""),
)
