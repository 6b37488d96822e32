"""Which image machines start from: the one that a task names, else the newest that fits. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from argosy.infra import border
from argosy.model.rows import Claim


def asked_image(claim: Claim) -> str:
    """What a task names, as its cloud calls it; "": nothing. Raises `RequestRefused` where images are given
    by region, and there is none for the claim's."""
    asked, region = claim.choice.resources, claim.choice.offer.region
    if asked.image_id:
        return asked.image_id
    images = (msgspec.json.decode(asked.extra) if asked.extra else {}).get("image_id")
    if not isinstance(images, dict):
        return ""
    if region not in images:
        raise border.RequestRefused(
            "image_id", f"`image_id` has no image for {region}: it has {', '.join(images)}"
        )
    return str(images[region])


def newest(names: Iterable[str]) -> str:
    """By the numbers in them; of equals the plainest. Raises ValueError for none.

    >>> newest(["Ubuntu 22.04", "Ubuntu 24.04 with Docker", "Ubuntu 24.04", "Ubuntu 9.10"])
    'Ubuntu 24.04'
    """
    return max(names, key=lambda name: ([int(each) for each in re.findall(r"\d+", name)], -len(name)))
