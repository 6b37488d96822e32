"""What drivers of several clusters share: which of them a claim belongs to, one call for a claim at a time,
quotes of all that answer, and what each told last of claims."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from argosy.infra import border
from argosy.infra.claim_checks import check_claim
from argosy.infra.provider import Diagnostic, Manifest
from argosy.infra.to_its_end import ToItsEnd
from argosy.infra.tombstones import is_claim_id
from argosy.model.facts import ClaimFact
from argosy.model.offer import Offer
from argosy.model.rows import Claim

_log: Final = logging.getLogger(__name__)


class Holds(Protocol):
    @property
    def name(self) -> str: ...

    async def release(self, claim_id: str) -> None: ...


H = TypeVar("H", bound=Holds)


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


class Several(Generic[H]):
    """The clusters of one driver. `known`: those in use, by name; `noun`: how sentences call them."""

    def __init__(self, manifest: Manifest, known: Callable[[], Mapping[str, H]], *, noun: str) -> None:
        self._manifest, self._known, self._noun = manifest, known, noun
        self._locks: dict[str, asyncio.Lock] = {}
        self._to_its_end = ToItsEnd()
        self._told = LastTold()

    async def findings(self, ask: Callable[[H], Awaitable[Sequence[Diagnostic]]]) -> list[Diagnostic]:
        """What each says of itself, asked at the same time."""
        found = await asyncio.gather(*(ask(each) for each in self._known().values()))
        return [each for findings in found for each in findings]

    async def quote(self, ask: Callable[[H], Awaitable[Sequence[Offer]]]) -> list[Offer]:
        """What every cluster has. One that does not answer is left out, unless it is the only one: then what
        it raised is raised."""
        clusters = list(self._known().values())
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

    def home_of(self, claim: Claim) -> H:
        """The cluster that a claim is ordered from. Raises `RequestRefused` for what none could make."""
        check_claim(claim, self._manifest.name, self._manifest.title)
        offer = claim.choice.offer
        cluster = self._known().get(offer.region)
        if cluster is None:
            known = ", ".join(sorted(self._known())) or "none"
            text = f"there is no {self._noun} `{offer.region}`; known are: {known}"
            raise border.RequestRefused("infra", text)
        return cluster

    async def alone(self, claim_id: str, work: Coroutine[Any, Any, None]) -> None:
        """Carry out work on a claim to its end, with nothing else on that claim beside it."""

        async def locked() -> None:
            async with self._locks.setdefault(claim_id, asyncio.Lock()):
                await work

        await self._to_its_end(locked())

    async def observe(
        self, claim_ids: Sequence[str], ask: Callable[[H], Awaitable[Sequence[ClaimFact]]]
    ) -> list[ClaimFact]:
        known = self._known()
        told = [
            self._told.facts(each.name, claim_ids, ask(each), is_only=len(known) == 1)
            for each in known.values()
        ]
        return [fact for facts in await asyncio.gather(*told) for fact in facts]

    async def release(self, claim_id: str, *, at_home: bool = False) -> None:
        """On every cluster: only they know which of them has it, and each has to remember that it is over.
        `at_home`: where it was seen, if it was seen anywhere."""
        known = self._known()
        homes = [known[name] for name in self._told.homes(claim_id)] if at_home else []

        async def everywhere() -> None:
            await asyncio.gather(*(each.release(claim_id) for each in homes or known.values()))

        if is_claim_id(claim_id):
            await self.alone(claim_id, everywhere())
            self._locks.pop(claim_id, None)
