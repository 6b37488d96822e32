"""Checks of a claim that every driver makes before it orders anything. Pure."""

from __future__ import annotations

from argosy.infra import border
from argosy.infra.tombstones import is_claim_id
from argosy.model.rows import Claim


def check_claim(claim: Claim, provider: str, title: str) -> None:
    """It is a claim, for this provider, of at least one node. Raises `RequestRefused`."""
    if not is_claim_id(claim.id):
        raise border.RequestRefused("claim", f"`{claim.id}` is not the id of a claim")
    if claim.choice.offer.provider != provider:
        raise border.RequestRefused("provider", f"`{claim.choice.offer.provider}` is not {title}")
    if claim.count < 1:
        raise border.RequestRefused("num_nodes", "a claim has at least one node")
