"""Facts as they come in: the newest only, in memory, made again by asking after a restart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from argosy.controllers.view import Failure, Link
from argosy.infra.agent_port import Lease
from argosy.model.facts import ClaimFact, NodeFacts, RankFact, RankPhase
from argosy.model.served import ReplicaFact, ServedFact

_SAVED_MAX: Final = 10_000
_USED_NEWS_MS: Final = 30_000
_NONE: dict[str, RankFact] = {}
AT_WORK_PERCENT: Final = 5  # a GPU that does less is idle: drivers and displays make a little load


class Facts:
    """Implements `view.Observed`. Written by links and effects, read by decisions and by the server's
    views."""

    def __init__(self) -> None:
        self.revision = 0  # changes whenever something that people see has changed
        self._links: dict[str, Link] = {}
        self._ranks: dict[str, dict[str, RankFact]] = {}
        self._node_of_rank: dict[str, str] = {}
        self._claims: dict[str, ClaimFact] = {}
        self._misses: dict[str, int] = {}
        self._failures: dict[str, Failure] = {}
        self._busy: dict[str, int] = {}
        self._saved: dict[str, None] = {}
        self._settled: dict[str, None] = {}
        self._sent: dict[str, int] = {}  # by node whose link is up: what its agent's clock said last
        self._gpu_used_ms: dict[str, int] = {}
        self.replicas: dict[str, ReplicaFact] = {}  # by id of the job
        self.services: dict[str, ServedFact] = {}  # by id
        self._used: dict[str, tuple[int, str]] = {}  # by session: when, and by what

    # -- reading ------------------------------------------------------------------------------------

    def link(self, node_id: str) -> Link | None:
        return self._links.get(node_id)

    def node(self, node_id: str) -> NodeFacts | None:
        link = self._links.get(node_id)
        return link.facts if link is not None else None

    def rank(self, rank_id: str) -> RankFact | None:
        return self._ranks.get(self._node_of_rank.get(rank_id, ""), _NONE).get(rank_id)

    def node_of(self, rank_id: str) -> NodeFacts | None:
        """The machine that a rank runs on, as its agent sees it."""
        return self.node(self._node_of_rank.get(rank_id, ""))

    def ranks_on(self, node_id: str) -> Mapping[str, RankFact]:
        return self._ranks.get(node_id, _NONE)

    def claim(self, claim_id: str) -> ClaimFact | None:
        return self._claims.get(claim_id)

    def misses(self, claim_id: str) -> int:
        return self._misses.get(claim_id, 0)

    def failure(self, subject: str) -> Failure | None:
        return self._failures.get(subject)

    def saved(self, attempt_id: str) -> bool:
        return attempt_id in self._saved

    def settled(self, attempt_id: str) -> bool:
        return attempt_id in self._settled

    def busy(self, subject: str) -> bool:
        return subject in self._busy

    def replica(self, job_id: str) -> ReplicaFact | None:
        return self.replicas.get(job_id)

    def served(self, service_id: str) -> ServedFact | None:
        return self.services.get(service_id)

    def gpu_used_ms(self, node_id: str) -> int:
        return self._gpu_used_ms.get(node_id, 0)

    def used(self, subject: str) -> tuple[int, str]:
        return self._used.get(subject, (0, ""))

    def uses(self) -> Mapping[str, tuple[int, str]]:
        """When each session was used last, and by what."""
        return self._used

    # -- writing ------------------------------------------------------------------------------------

    def link_up(self, node_id: str, facts: NodeFacts, now_ms: int) -> None:
        old = self._links.get(node_id)
        boot = old.boot + 1 if old is not None else 1
        self._links[node_id] = Link(up=True, since_ms=now_ms, facts=facts, boot=boot)
        self._note_load(node_id, facts, now_ms)
        self.revision += 1

    def link_down(self, node_id: str, now_ms: int) -> bool:
        """Whether it was up."""
        old = self._links.get(node_id)
        self._sent.pop(node_id, None)
        if old is not None and not old.up:
            return False
        facts, boot = (old.facts, old.boot) if old is not None else (NodeFacts(), 0)
        self._links[node_id] = Link(up=False, since_ms=now_ms, facts=facts, boot=boot)
        self.revision += 1
        return old is not None

    def note_sent(self, node_id: str, sent: int) -> None:
        """The agent's clock when it sent the last report."""
        self._sent[node_id] = sent

    def lease(self, node_id: str, ms: int) -> Lease | None:
        """A lease that begins with the last report; None: nothing was heard on this link yet."""
        link, sent = self._links.get(node_id), self._sent.get(node_id)
        if link is None or not link.up or sent is None:
            return None
        return Lease(boot=link.facts.boot_id, sent=sent, ms=ms)

    def _note_load(self, node_id: str, facts: NodeFacts, now_ms: int) -> None:
        """A device that was never seen busy may have been busy before we looked: it counts as used from then
        on."""
        loads = [device.utilisation_percent for device in facts.devices]
        if max(loads, default=-1) >= AT_WORK_PERCENT:
            self._gpu_used_ms[node_id] = now_ms
        elif max(loads, default=-1) >= 0:
            self._gpu_used_ms.setdefault(node_id, now_ms)

    def set_node(self, node_id: str, facts: NodeFacts, now_ms: int) -> bool:
        """Whether decisions depend on what is new."""
        old = self._links.get(node_id)
        if old is None:
            return False
        self._links[node_id] = msgspec.structs.replace(old, facts=facts)
        self._note_load(node_id, facts, now_ms)
        self.revision += 1
        return old.facts.notice != facts.notice

    def set_ranks(self, node_id: str, ranks: Iterable[RankFact], *, complete: bool) -> None:
        """`complete`: these are all ranks of the node; otherwise only those that changed."""
        mine = self._ranks.setdefault(node_id, {})
        if complete:
            for rank_id in mine:
                self._node_of_rank.pop(rank_id, None)
            mine.clear()
        for fact in ranks:
            mine[fact.id] = fact
            self._node_of_rank[fact.id] = node_id

    def ordered(self, node_id: str, rank_ids: Iterable[str]) -> None:
        """The agent has taken orders for these ranks. It has them from now on, also before it tells of them
        by itself: who looked meanwhile would hold them for ranks that never were."""
        known = self._ranks.get(node_id, _NONE)
        news = [RankFact(id=id, phase=RankPhase.PREPARING) for id in rank_ids if id not in known]
        self.set_ranks(node_id, news, complete=False)

    def drop_ranks(self, node_id: str, rank_ids: Iterable[str]) -> None:
        mine = self._ranks.get(node_id, {})
        for rank_id in rank_ids:
            mine.pop(rank_id, None)
            self._node_of_rank.pop(rank_id, None)

    def drop_node(self, node_id: str) -> None:
        self.drop_ranks(node_id, list(self._ranks.get(node_id, ())))
        self._ranks.pop(node_id, None)
        self._gpu_used_ms.pop(node_id, None)
        if self._links.pop(node_id, None) is not None:
            self.revision += 1

    def set_claim(self, fact: ClaimFact) -> bool:
        """Whether it was new."""
        news = self._claims.get(fact.claim_id) != fact
        self._claims[fact.claim_id] = fact
        return news

    def set_misses(self, claim_id: str, times: int) -> None:
        if times:
            self._misses[claim_id] = times
        else:
            self._misses.pop(claim_id, None)

    def forget_claims(self) -> None:
        """What providers have said: another server has decided since."""
        self._claims.clear()
        self._misses.clear()
        self._failures.clear()

    def drop_claim(self, claim_id: str) -> None:
        self._misses.pop(claim_id, None)
        self._claims.pop(claim_id, None)
        self._failures.pop(claim_id, None)

    def set_used(self, subject: str, now_ms: int, by: str) -> bool:
        """Whether it is news after half a minute."""
        before_ms, _ = self._used.get(subject, (0, ""))
        self._used[subject] = (now_ms, by)
        return now_ms - before_ms > _USED_NEWS_MS

    def begin(self, subject: str) -> None:
        self._busy[subject] = self._busy.get(subject, 0) + 1

    def end(self, subject: str) -> None:
        left = self._busy.get(subject, 0) - 1
        if left > 0:
            self._busy[subject] = left
        else:
            self._busy.pop(subject, None)

    def set_saved(self, attempt_id: str) -> None:
        """What its ranks kept is copied, or cannot be."""
        self._saved[attempt_id] = None
        if len(self._saved) > _SAVED_MAX:
            del self._saved[next(iter(self._saved))]

    def set_settled(self, attempt_id: str) -> None:
        """What its ranks have written is in its stores."""
        self._settled[attempt_id] = None
        if len(self._settled) > _SAVED_MAX:
            del self._settled[next(iter(self._settled))]

    def set_failure(self, subject: str, failure: Failure) -> None:
        self._failures[subject] = failure

    def clear_failure(self, subject: str) -> None:
        self._failures.pop(subject, None)
