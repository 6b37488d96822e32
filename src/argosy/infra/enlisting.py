"""What a provider offers besides the six verbs where people name its hosts (`Manifest.enlists`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from argosy.model.enlisting import HostOrder, HostReport, HostState


class Enlists(Protocol):
    """All of it raises ArgosyError for what people ask wrongly."""

    async def examine(self, order: HostOrder) -> HostReport:
        """Go there and look: whether it works, what it is, what to do. Nothing is written down but a host key
        that was accepted."""

    async def enlist(self, orders: Sequence[HostOrder]) -> None:
        """These hosts are in their pools from now on."""

    async def enlisted(self) -> Sequence[HostState]:
        """All hosts of all pools, as they were seen last."""

    async def close(self, hosts: Sequence[str], state: str) -> Sequence[str]:
        """They take nothing new (`cordoned`, `drained`), or are open again (""). Names are `gpu1`,
        `lab/gpu1`, or `lab` for all of it; the ids that were meant come back."""

    async def dismiss(self, hosts: Sequence[str], *, force: bool) -> Sequence[str]:
        """They are in no pool any more. Refused while something of ours runs there, unless `force`."""
