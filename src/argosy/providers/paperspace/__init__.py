"""Paperspace: shipped prices only. It cannot be launched on yet."""

from argosy.infra.provider import Capabilities, Manifest

MANIFEST = Manifest(
    name="paperspace",
    title="Paperspace",
    capabilities=Capabilities(),
    class_name="Paperspace",
    unpriced="its public API tells which machines are available, not what they cost",
)
