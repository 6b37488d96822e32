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
    from argosy.model.served import ServedFact
    from argosy.model.tenancy import QueueUsage
    from argosy.planning.availability import Memory
    from argosy.scheduler.ask import Waiting
    from argosy.scheduler.picture import Pending, PoolPicture


class ObservedFacts(Protocol):
    """Newest facts, for people to see. `revision` changes whenever something that they see has changed."""

    @property
    def revision(self) -> int: ...

    def node(self, node_id: str) -> NodeFacts | None: ...

    def rank(self, rank_id: str) -> RankFact | None: ...

    def busy(self, subject: str) -> bool: ...

    def served(self, service_id: str) -> ServedFact | None: ...

    def gpu_used_ms(self, node_id: str) -> int: ...

    def used(self, subject: str) -> tuple[int, str]: ...

    def set_used(self, subject: str, now_ms: int, by: str) -> bool:
        """Somebody uses a session now. Whether that is news after half a minute."""


class Picture(Protocol):
    """Why workloads wait, machines with who holds them, and what queues use, as the scheduler left them."""

    @property
    def seq(self) -> int:
        """The commit up to which it has seen the rows."""

    def pending(self, rows: Snapshot, workload: Workload, now_ms: int) -> Pending | None:
        """Why a workload of `rows` waits, in one line, with its place and start; None when it waits for no
        pool. `rows` may be newer than the picture."""

    def knows(self, rows: Snapshot, workload: Workload) -> bool:
        """False when a later picture may say more about a workload than this one."""

    def explain(self, rows: Snapshot, workload: Workload, now_ms: int) -> Waiting | None:
        """Why a queued cluster or job does not start now: the whole story; None when it waits for no pool."""

    def line_of(self, workload: Workload) -> tuple[str, int]:
        """The pool that a workload waits for, as people call it, and how many wait for it; ("", 0): for
        none."""

    def never(self, workload: Workload) -> str:
        """Why no state of the machines that a workload, not in the rows yet, would wait for could ever hold
        it; "" when some could, or when it may go elsewhere."""

    @property
    def pools(self) -> Sequence[PoolPicture]:
        """Every pool: the owned machines of each provider first, then the nodes of clusters, by name."""

    @property
    def usage(self) -> Sequence[QueueUsage]:
        """What every queue of the tree has and may have of the owned machines, by path. A cluster counts with
        all its nodes."""


class Controllers(Protocol):
    """Decides and acts on rows. Woken after every commit of the server; a full pass runs anyway."""

    @property
    def observed(self) -> ObservedFacts: ...

    def wake(self, *ids: str) -> None:
        """Look at these rows soon. Carries no data, never blocks."""

    def attended(self, cluster_id: str) -> AbstractContextManager[None]:
        """Somebody has a terminal there: meanwhile the cluster is not idle."""

    @property
    def picture(self) -> Picture:
        """What the last pass left of all pools. To be read at once: the next pass makes another."""

    async def pictured(self, seq: int) -> Picture:
        """The picture of a pass that began after commit `seq`; after a moment whatever there is."""

    def refusals(self) -> Memory:
        """Where capacity was not there when it was asked for, lately."""

    async def refresh(self) -> None:
        """Ask every provider now what it has of ours."""

    async def run(self) -> None:
        """Until cancelled."""


class Seat(Protocol):
    """The place of this server's controllers among those of others."""

    def attended(self, cluster_id: str) -> AbstractContextManager[None]:
        """As `Controllers.attended`."""

    def attending(self) -> Mapping[str, int]:
        """Clusters where somebody is at work through this server, with how many."""

    def uses(self) -> Mapping[str, tuple[int, str]]:
        """When each session was used last, and by what, as far as this server knows."""

    def begin_to_decide(self) -> None:
        """Another server decided until now."""
