"""What drivers of several clusters share: quotes of all that answer, and what each told last of claims."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

from argosy.infra import border
from argosy.model.facts import ClaimFact
from argosy.model.offer import Offer

_log: Final = logging.getLogger(__name__)


class Named(Protocol):
    @property
    def name(self) -> str: ...


C = TypeVar("C", bound=Named)


async def offers_of_all(clusters: Sequence[C], ask: Callable[[C], Awaitable[Sequence[Offer]]]) -> list[Offer]:
    """What every cluster has. One that does not answer is left out, unless it is the only one: then what it
    raised is raised."""
    found = await asyncio.gather(*(ask(each) for each in clusters), return_exceptions=True)
    offers: list[Offer] = []
    for cluster, answer in zip(clusters, found, strict=True):
        if isinstance(answer, border.BorderError) and len(clusters) > 1:
            _log.warning("cluster %s gives no quote: %s", cluster.name, answer)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            offers += answer
    return offers


class LastTold:
    """What each cluster told last of claims: one that does not answer has not lost them."""

    def __init__(self) -> None:
        self._by_cluster: dict[str, dict[str, ClaimFact]] = {}

    async def facts(
        self, cluster: str, claim_ids: Sequence[str], asked: Awaitable[Sequence[ClaimFact]], *, is_only: bool
    ) -> list[ClaimFact]:
        """What it tells now, or told last. Raises a border error of the only one.

        Args:
            asked: its facts of these claims; of all when `claim_ids` is empty.
        """
        seen = self._by_cluster.setdefault(cluster, {})
        try:
            facts = await asked
        except border.BorderError:
            if is_only:
                raise
            return [fact for name, fact in seen.items() if not claim_ids or name in claim_ids]
        for name in claim_ids or list(seen):
            seen.pop(name, None)
        seen.update({fact.claim_id: fact for fact in facts})
        return list(facts)

    def homes(self, claim_id: str) -> list[str]:
        """The clusters that have told of a claim."""
        return [cluster for cluster, seen in self._by_cluster.items() if claim_id in seen]
