"""Requests that a cloud of virtual machines is not asked for, because its manifest rules them out. Pure."""

from __future__ import annotations

from argosy.infra import border
from argosy.infra.claim_checks import check_claim
from argosy.infra.machine_images import asked_image
from argosy.infra.provider import Manifest
from argosy.model.offer import Capacity
from argosy.model.phases import Desired
from argosy.model.rows import Claim


def refuse(manifest: Manifest, claim: Claim) -> None:
    """Raises `RequestRefused` or `Unsupported`."""
    offer, can, title = claim.choice.offer, manifest.capabilities, manifest.title
    check_claim(claim, manifest.name, title)
    if claim.count > 1 and not can.multi_node:
        raise border.Unsupported(f"{title} gives single machines: it joins no nodes into one network")
    if claim.choice.accelerators_milli % 1000:
        raise border.Unsupported(f"{title} rents whole machines: a part of an accelerator cannot be had")
    if offer.capacity is Capacity.SPOT and not can.spot:
        raise border.Unsupported(f"{title} has no spot machines")
    if claim.desired is Desired.STOP and not can.stop:
        raise border.Unsupported(f"machines of {title} cannot rest: they can only go")
    if claim.desired is Desired.STOP and offer.capacity is Capacity.SPOT:
        raise border.Unsupported(f"spot machines of {title} cannot rest: they can only go")
    if (claim.choice.resources.image_id or "").startswith("docker:") and not can.images:
        raise border.Unsupported(f"machines of {title} run no container images; leave `image_id` out")
    if can.machine_images:
        asked_image(claim)
    if not offer.shape.instance_type:
        raise border.RequestRefused("infra", f"an order at {title} names a type of machine")
