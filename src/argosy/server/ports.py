"""What the server needs of the controllers. The real one is `controllers.shell.Shell`; tests have one that
does nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from argosy.model.facts import NodeFacts, RankFact
from argosy.store.snapshot import Snapshot

if TYPE_CHECKING:
    from argosy.model.rows import Workload
    from argosy.model.tenancy import QueueUsage
    from argosy.planning.availability import Memory
    from argosy.scheduler.ask import Waiting
    from argosy.scheduler.picture import PoolPicture


class ObservedFacts(Protocol):
    """Newest facts, for people to see. `revision` changes whenever something that they see has changed."""

    @property
    def revision(self) -> int: ...

    def node(self, node_id: str) -> NodeFacts | None: ...

    def rank(self, rank_id: str) -> RankFact | None: ...


class Controllers(Protocol):
    """Decides and acts on rows. Woken after every commit of the server; a full pass runs anyway."""

    @property
    def observed(self) -> ObservedFacts: ...

    def wake(self, *ids: str) -> None:
        """Look at these rows soon. Carries no data, never blocks."""

    def attended(self, cluster_id: str) -> AbstractContextManager[None]:
        """Somebody has a terminal there: meanwhile the cluster is not idle."""

    def waits(self, rows: Snapshot) -> Mapping[str, str]:
        """Why queued clusters and managed jobs wait, by id."""

    def explain(self, rows: Snapshot, workload_id: str) -> Waiting | None:
        """Why a queued cluster or job does not start now; None when it waits for no pool."""

    def explain_new(self, rows: Snapshot, workload: Workload) -> str:
        """Why no state of the machines that a workload, not in the rows yet, would wait for could ever hold
        it; "" when some could, or when it may go elsewhere."""

    def pools(self, rows: Snapshot) -> Sequence[PoolPicture]:
        """Every pool: the owned machines of each provider first, then the nodes of clusters, by name."""

    def queue_usage(self, rows: Snapshot) -> Sequence[QueueUsage]:
        """What every queue of the tree has and may have of the owned machines, by path. A cluster counts with
        all its nodes."""

    def refusals(self) -> Memory:
        """Where capacity was not there when it was asked for, lately."""

    async def refresh(self) -> None:
        """Ask every provider now what it has of ours."""

    async def run(self) -> None:
        """Until cancelled."""
