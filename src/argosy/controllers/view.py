"""What a decision sees (committed rows, observed facts, offers, the time) and what it may answer.

Law: a `decide` function reads nothing but its view and returns nothing but actions. The shell commits the
`Put`s of one decision together and only then performs its effects; every effect names rows that were already
committed when the view was taken, so whoever repeats it after a crash does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self
from weakref import WeakKeyDictionary

import msgspec

from argosy.infra.agent_port import RankOrder
from argosy.infra.provider import Providers
from argosy.model.areas import Atlas
from argosy.model.entry import Entry
from argosy.model.facts import ClaimFact, NodeFacts, RankFact
from argosy.model.offer import Offer
from argosy.model.rows import Attempt, Claim, Event, Node, Row, Workload
from argosy.model.served import ReplicaFact, ServedFact
from argosy.model.tenancy import Tenancy
from argosy.planning import Ability
from argosy.planning.availability import Memory
from argosy.planning.offered import Priced
from argosy.scheduler.estimate import History

if TYPE_CHECKING:
    from argosy.controllers.pool.caches import PoolCaches


class Rows(Protocol):
    """Live rows at one moment (a `store.Snapshot`)."""

    @property
    def workloads(self) -> Mapping[str, Workload]: ...
    @property
    def attempts(self) -> Mapping[str, Attempt]: ...
    @property
    def claims(self) -> Mapping[str, Claim]: ...
    @property
    def nodes(self) -> Mapping[str, Node]: ...
    @property
    def tenancy(self) -> Tenancy: ...
    @property
    def taken(self) -> int: ...

    def news(self, before: Self) -> Iterable[tuple[Row | None, Row | None]]: ...

    def jobs_of(self, host_id: str) -> Sequence[Workload]: ...

    def waiters_of(self, workload_id: str) -> Sequence[Workload]: ...

    def ends_for(self, workload_id: str) -> Sequence[Workload]: ...

    def children_of(self, parent_id: str) -> Sequence[Workload]: ...

    def named(self, kind: str) -> Sequence[Workload]: ...

    def managed_jobs(self) -> Sequence[Workload]: ...

    def attempt_of(self, workload_id: str) -> Attempt | None: ...

    def claims_of(self, workload_id: str) -> Sequence[Claim]: ...

    def claims_shared_by(self, workload_id: str) -> Sequence[Claim]: ...

    def nodes_of_claim(self, claim_id: str) -> Sequence[Node]: ...

    def nodes_of(self, workload_id: str) -> Sequence[Node]: ...

    def entries_of(self, owner_id: str) -> Sequence[Entry]: ...


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """The connection to a node's agent. `ranks` is complete while `up`."""

    up: bool
    since_ms: int
    facts: NodeFacts = NodeFacts()
    boot: int = 0  # counts reconnections


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An effect that failed. `code` is the name of the border error in kebab-case."""

    code: str
    text: str
    at_ms: int
    count: int  # in a row
    after_ms: int  # not before this time again


class Observed(Protocol):
    """Facts, newest only. Lost in a crash and observed again."""

    def link(self, node_id: str) -> Link | None: ...

    def rank(self, rank_id: str) -> RankFact | None: ...

    def ranks_on(self, node_id: str) -> Mapping[str, RankFact]: ...

    def claim(self, claim_id: str) -> ClaimFact | None: ...

    def misses(self, claim_id: str) -> int:
        """In how many listings of its provider in a row the claim was absent, with its links down."""

    def failure(self, subject: str) -> Failure | None:
        """Of the last effect on a claim (its id) or on an attempt (its id)."""

    def saved(self, attempt_id: str) -> bool:
        """Whether it was tried to copy what the ended ranks of an attempt have kept."""

    def settled(self, attempt_id: str) -> bool:
        """Whether what the ended ranks of an attempt have written is in its stores."""

    def busy(self, subject: str) -> bool:
        """Whether an effect on this claim or attempt is under way in this process, or a terminal is open
        (`terminals_of`)."""

    def replica(self, job_id: str) -> ReplicaFact | None:
        """How a replica of a service answers."""

    def served(self, service_id: str) -> ServedFact | None:
        """What gateways say of a service."""

    def gpu_used_ms(self, node_id: str) -> int:
        """When a GPU of the node was last seen at work, or was first seen at all; 0: it tells no load."""

    def used(self, subject: str) -> tuple[int, str]:
        """When people last used a session through this server, and by what; (0, "") when they did not."""


def data_of(attempt_id: str) -> str:
    """The subject of a failure to bring what an attempt has written to its stores."""
    return f"data of {attempt_id}"


def terminals_of(cluster_id: str) -> str:
    """The subject that is busy while somebody has a terminal on the cluster."""
    return f"terminals of {cluster_id}"


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Times that decisions use, in ms."""

    link_grace_ms: int = (
        3_000  # a link may be down so long before the node counts as unreachable; silence counts
    )
    heal_every_ms: int = 10_000  # how often an unreachable node's claim is ensured again
    lost_after_ms: int = 120_000  # a node unreachable for so long has lost its ranks
    doubt_ms: int = 5_000  # so long after a signal ended a rank its machine may be found to have gone
    lease_ms: int = 60_000  # of ranks that must not run twice: how long they go on without their server
    boot_limit_ms: int = 1_800_000  # a claim that is not held and ready by then is given up
    kill_margin_ms: int = 5_000  # on top of a rank's grace, before a stopping cluster stops waiting
    copy_every_ms: int = 60_000  # so often what a running job keeps on its nodes is copied, when it changed
    save_ms: int = 60_000  # so long the nodes of ended ranks are kept until what they left is copied
    notice_reserve_ms: int = 5_000  # ranks that were given notice have ended so long before it is carried out
    foresee_every_ms: int = 5_000  # readers are told so often anew when those start who are first in line
    retry_base_ms: int = 2_000
    retry_max_ms: int = 60_000


class Prices(Protocol):
    """What decisions ask of the catalog."""

    def atlas(self) -> Atlas:
        """Where regions are."""

    def priced(self) -> Priced | None:
        """Rows that can be launched: the same object until they change."""


def abilities_of(providers: Providers) -> dict[str, Ability]:
    """What the planner needs to know of each provider, from its manifest."""
    found = {}
    for name, provider in providers.all().items():
        can = provider.manifest.capabilities
        found[name] = Ability(
            spot=can.spot,
            multi_node=can.multi_node,
            fractions=can.fractions,
            owned=can.owned,
            ports=can.ports,
            images=can.images,
            machine_images=can.machine_images,
            networks=can.networks,
            quotas=can.quotas,
            nodes_max=provider.manifest.limits.nodes_max,
            nodes_text=provider.manifest.limits.text,
        )
    return found


def shared_dirs_of(providers: Providers) -> dict[str, str]:
    """By provider: a folder that all its nodes share and that outlives claims."""
    return {name: provider.manifest.shared_dir for name, provider in providers.all().items()}


class Known(NamedTuple):
    """What manifests say, for decisions."""

    abilities: Mapping[str, Ability]
    shared_dirs: Mapping[str, str]
    returning: frozenset[str]


_KNOWN: WeakKeyDictionary[Providers, Known] = WeakKeyDictionary()


def known_of(providers: Providers) -> Known:
    """Worked out once: manifests do not change while a server runs, and every pass takes several views."""
    known = _KNOWN.get(providers)
    if known is None:
        known = Known(abilities_of(providers), shared_dirs_of(providers), returning_of(providers))
        _KNOWN[providers] = known
    return known


def returning_of(providers: Providers) -> frozenset[str]:
    """Providers whose silent nodes may come back."""
    return frozenset(name for name, provider in providers.all().items() if provider.manifest.may_return)


class View(msgspec.Struct, frozen=True, kw_only=True):
    now_ms: int
    rows: Rows
    observed: Observed
    offers: Sequence[Offer]
    abilities: Mapping[str, Ability]
    shared_dirs: Mapping[
        str, str
    ] = {}  # by provider: a folder that all its nodes share and that outlives claims
    returning: frozenset[str] = frozenset()  # providers whose silent nodes may come back
    copies: bool = False  # whether what jobs keep on their nodes is copied to the server
    fence_ms: Callable[[str], int] | None = (
        None  # for how long ranks of an ending attempt with a lease may go on unseen; None: not known
    )
    policy: Policy = Policy()
    tag: str = ""  # of the database: what providers have of ours says so
    silent: frozenset[str] = frozenset()  # providers that have not said yet what they have
    pools: PoolCaches | None = None  # books of the pools, kept from view to view; None: made from the rows
    history: History = History()  # run times of the past
    memory: Memory = Memory()  # where capacity was refused lately
    priced: Priced | None = None  # rows of the catalog that can be launched; None: there are none
    atlas: Callable[[], Atlas] | None = (
        None  # where regions are, for wishes that care; None: no country is known
    )


# -- actions ----------------------------------------------------------------------------------------


class Put(msgspec.Struct, frozen=True):
    """Write this row. New rows have rev 0."""

    row: Row


class Expect(msgspec.Struct, frozen=True):
    """Write all of this decision only if `id` is at `rev` still: what was decided on is as it was."""

    id: str
    rev: int


class Emit(msgspec.Struct, frozen=True):
    event: Event


class EnsureClaim(msgspec.Struct, frozen=True):
    claim: Claim


class ReleaseClaim(msgspec.Struct, frozen=True):
    claim: Claim


class PrepareRanks(msgspec.Struct, frozen=True):
    """Place files on the node, then prepare the orders there. The shell adds the secrets."""

    attempt: Attempt
    job: Workload
    node_id: str
    orders: tuple[RankOrder, ...]


class RunRanks(msgspec.Struct, frozen=True):
    attempt_id: str
    node_id: str
    rank_ids: tuple[str, ...]


class StopRanks(msgspec.Struct, frozen=True):
    attempt_id: str
    node_id: str
    rank_ids: tuple[str, ...]
    grace_s: float
    why: str = ""  # for hooks of the task: a `Reason`


class SaveCheckpoint(msgspec.Struct, frozen=True):
    """Copy what the ended ranks of an attempt have kept, before their nodes are given back."""

    attempt_id: str
    job: Workload
    nodes: tuple[Node, ...]  # by rank


class SettleData(msgspec.Struct, frozen=True):
    """Send what the ended ranks of an attempt have written to its stores, before their nodes are given
    back."""

    attempt: Attempt
    job: Workload
    nodes: tuple[Node, ...]  # by rank


class ForgetRanks(msgspec.Struct, frozen=True):
    node_id: str
    rank_ids: tuple[str, ...]


class Learn(msgspec.Struct, frozen=True):
    """Record this fact as what is observed of the claim."""

    fact: ClaimFact


class Miss(msgspec.Struct, frozen=True):
    """The claim was absent from so many listings in a row."""

    claim_id: str
    times: int


class ReleaseOrphan(msgspec.Struct, frozen=True):
    """Give back what a provider has of ours and no live row wants."""

    provider: str
    claim_id: str


class WakeAt(msgspec.Struct, frozen=True):
    """Decide about `subject` again at `at_ms`."""

    subject: str
    at_ms: int


class NewId(Protocol):
    def __call__(self, prefix: str) -> str: ...


Action = (
    Put
    | Expect
    | Emit
    | EnsureClaim
    | ReleaseClaim
    | PrepareRanks
    | RunRanks
    | StopRanks
    | SaveCheckpoint
    | SettleData
    | ForgetRanks
    | Learn
    | Miss
    | ReleaseOrphan
    | WakeAt
)


def event(view: View, subject: str, code: str, text: str) -> Emit:
    return Emit(Event(at_ms=view.now_ms, subject=subject, code=code, text=text))


def backoff_ms(policy: Policy, count: int) -> int:
    """2, 4, 8 ... seconds, up to a minute."""
    return int(min(policy.retry_max_ms, policy.retry_base_ms * 2 ** min(count - 1, 10)))
