"""The rows of the one database. Frozen; a change is a new row with the next `rev`, written by
`store.commit`."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from argosy.model.facts import NodeFacts
from argosy.model.offer import Choice, Placement, Tried
from argosy.model.phases import AttemptPhase, ClaimPhase, Desired, NodePhase, Outcome, WorkloadPhase
from argosy.model.reasons import Reason


class KindSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="none", tag_field="kind"):
    """What was asked for, in the words of one kind of workload; each kind has its own (`model/kinds`)."""


class KindStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="none", tag_field="kind"):
    """How far it is, in the words of one kind of workload: columns that other kinds do not have. All kinds
    may ask for machines."""

    tried: tuple[Tried, ...] = ()  # places that gave none, the latest last
    round_ms: int = 0  # those since then are not asked again
    hedge_id: str = ""  # the second order of this round: a claim


class WorkloadColumns(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What all kinds of workloads have in common."""

    id: str
    kind: str  # its name in the registry of kinds
    name: str
    project: str = "default"
    user: str = ""
    number: int = 0  # jobs: 1, 2, 3 ... within their host, or among those without one
    parent_id: str | None = None  # the workload whose life it shares
    host_id: str | None = None  # the workload on whose nodes it runs; None: it has nodes of its own
    desired: Desired = Desired.RUN
    phase: WorkloadPhase = WorkloadPhase.QUEUED
    outcome: Outcome | None = None
    reason: Reason | None = None
    detail: str = ""
    created_ms: int
    started_ms: int = 0  # first time running
    ended_ms: int = 0
    queue: str = ""  # path of the leaf in the tree of queues that it counts in
    retry_ms: int = 0  # not before this time
    rev: int = 0

    @property
    def is_live(self) -> bool:
        return self.phase is not WorkloadPhase.FINISHED


class Workload(WorkloadColumns, frozen=True, kw_only=True, omit_defaults=True):
    """What a user wants to exist: spec (what was asked for), status (how far it is), and shared columns."""

    spec: KindSpec
    status: KindStatus

    def with_status(self, **changes: Any) -> Workload:  # Any: fields of this kind's status
        """The row with other values in its kind's status."""
        return msgspec.structs.replace(self, status=msgspec.structs.replace(self.status, **changes))


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One gang execution of a task."""

    id: str
    workload_id: str
    number: int  # 1, 2, 3 ...
    placements: tuple[Placement, ...]
    phase: AttemptPhase = AttemptPhase.PLACED
    outcome: Outcome | None = None
    reason: Reason | None = None
    detail: str = ""
    exit_codes: tuple[int | None, ...] = ()  # by rank
    failed_rank: int | None = None  # the first that failed by itself
    why: str = ""  # why it was started when and where it was
    room_for: str = ""  # of one that was evicted: the workload that it makes room for
    lease_ms: int = 0  # its ranks end when their server was not heard for so long; 0: they go on
    placed_ms: int
    running_ms: int = 0
    ending_ms: int = 0  # when it was told to stop
    ended_ms: int = 0
    rev: int = 0

    @property
    def is_live(self) -> bool:
        return self.phase is not AttemptPhase.ENDED


class Claim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An all-or-none order for `count` nodes from an offer."""

    id: str
    workload_id: str  # the owner
    choice: Choice
    alternatives: tuple[Choice, ...] = ()  # what to try after this one, in order
    count: int
    placements: tuple[
        Placement, ...
    ] = ()  # owned machines: which one and what of it, by node; (): the provider chooses
    config: str = ""  # JSON text of the task's `config`; a provider reads what is under its own name
    guests: tuple[str, ...] = ()  # other workloads of the same owner that use a part of its machine
    left: bool = False  # its owner has gone, and it stays for its guests
    desired: Desired = Desired.RUN
    phase: ClaimPhase = ClaimPhase.REQUESTED
    reason: Reason | None = None
    detail: str = ""
    tag: str = ""  # of the database that knows it: only on its way to a provider, who gives it back
    requested_ms: int
    held_ms: int = 0  # since when it is held; 0: it is not
    spent_ms: int = 0  # held in earlier periods
    cost_micro_usd: int = 0  # spent in earlier periods
    gone_ms: int = 0
    rev: int = 0

    @property
    def is_live(self) -> bool:
        return self.phase is not ClaimPhase.GONE

    def held_until(self, now_ms: int) -> int:
        """Milliseconds for which its nodes were held, all periods together."""
        return self.spent_ms + (max(0, now_ms - self.held_ms) if self.held_ms else 0)

    def cost_until(self, now_ms: int) -> int:
        """Micro-USD for all nodes, all periods together."""
        present_ms = max(0, now_ms - self.held_ms) if self.held_ms else 0
        return self.cost_micro_usd + self.choice.price_micro_usd * present_ms // 3_600_000

    def settled(self, now_ms: int) -> Claim:
        """The present period, if there is one, is over."""
        return msgspec.structs.replace(
            self, spent_ms=self.held_until(now_ms), cost_micro_usd=self.cost_until(now_ms), held_ms=0
        )


class Node(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A machine, or a slice of one, with our agent on it."""

    id: str
    claim_id: str
    workload_id: str
    provider: str
    index: int  # rank of the node in its claim
    address: str = ""  # the provider's handle
    ip: str = "127.0.0.1"
    phase: NodePhase = NodePhase.BOOTING
    reason: Reason | None = None
    facts: NodeFacts = NodeFacts()
    cpus_milli: int = 0  # what jobs may share here
    memory_bytes: int = 0
    devices: tuple[int, ...] = ()  # indices of `facts.devices` that belong to this node
    ready_ms: int = 0
    unreachable_ms: int = 0
    rev: int = 0

    @property
    def is_live(self) -> bool:
        return self.phase is not NodePhase.GONE


Row = Workload | Attempt | Claim | Node

#: What `commit(expect=…)` of the store calls the `taken` of a snapshot: how often claims began to hold
#: something.
CLAIMS_TAKEN: Final = "claims-taken"
#: The same of the `begun` of a snapshot: how many workloads have begun to live.
WORKLOADS_BEGUN: Final = "workloads-begun"


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What we tell people. `seq` is given by the store."""

    at_ms: int
    subject: str  # id of a row
    code: str  # kebab-case
    text: str
    seq: int = 0
    tell: bool = False  # somebody asked to be told: it goes to the outbox, too
