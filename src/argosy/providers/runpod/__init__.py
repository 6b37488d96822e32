"""RunPod: prices only. It cannot be launched on yet."""

from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="runpod",
    title="RunPod",
    capabilities=Capabilities(),
    class_name="RunPod",
    task_fields=("allowed_cuda_versions",),
    prices=PriceSource(keys=("RUNPOD_API_KEY",)),
)
