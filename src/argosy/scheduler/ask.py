"""The input of the pool scheduler (machines, asks, allocations) and its output. Amounts are integers.

The types have `gc=False`, so the garbage collector does not track them: they cannot be part of a reference
cycle, and a collection that visits everything a large pool holds takes half a second.
"""

from __future__ import annotations

import msgspec

from argosy.model.facts import Device
from argosy.model.offer import Placement
from argosy.model.scheduling import Isolation

WHOLE_MILLI = 1000
UNANSWERED = "does not answer"  # why a machine is closed whose agent is silent


class Machine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One node of a pool."""

    id: str
    index: int = 0  # its place among the others: breaks ties
    name: str = ""  # as people call it
    cpus_milli: int = 0  # what may be given away
    memory_bytes: int = 0
    devices: tuple[Device, ...] = ()
    arch: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()  # from the widest: (block, rack, leaf); (): all nodes are alike
    groups: tuple[str, ...] = ()  # resource groups that it belongs to; (): everybody's
    sharing: tuple[str, ...] = ()  # how it can share a device: mps, mig; taking turns always works
    open: bool = True  # False: takes nothing new (draining, not answering)
    closed: str = ""  # then why, as the end of a sentence: `does not answer`


class Need(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What each rank needs. Equal needs are one class: where one does not fit, none does."""

    cpus_milli: int = 0
    memory_bytes: int = 0
    gpu_milli: int = 0  # 250: a quarter of one device; 2000: two whole ones
    models: tuple[str, ...] = ()  # any of these; (): any model
    gpu_memory_bytes: int = 0  # every device has at least so much
    arch: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()  # resource groups that may be used besides everybody's nodes
    only_group: str = ""  # a node of this group and no other
    only: tuple[str, ...] = ()  # ids of machines: one of these and no other
    isolation: Isolation = Isolation.NONE
    tenant: str = ""  # fractions share a device within one tenant,
    open: bool = False  # or with everybody who says so too


class Ask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A gang that wants to run: all its ranks or none."""

    id: str
    needs: tuple[Need, ...]  # candidates in order of preference
    num_nodes: int = 1
    required: str = ""  # level of `model.scheduling.LEVELS`
    preferred: str = ""
    spread: str = ""
    queue: str = ""  # path of its leaf
    urgency: int = 3  # index in `PRIORITY_CLASSES`: 0 is the most urgent
    priority: int = 0  # among those of one class: higher goes first
    submitted_ms: int = 0
    number: int = 0  # breaks ties before the id
    label: str = ""  # the number as people know it, where that is another
    preemptible: bool = False
    checkpoint: bool = False
    estimate_s: int | None = None  # how long it runs once started
    guessed: bool = False  # the estimate is good enough to reckon with, not to promise anything by
    attained: int = 0  # milli-GPU x ms (of a job without GPU: milli-CPU x ms) that earlier attempts have used
    not_before_ms: int = 0
    evictions: int = 0  # how often it has made room: each time it is protected twice as long


class Running(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An allocation: who holds a part of the pool."""

    ask: Ask
    placements: tuple[Placement, ...]
    started_ms: int
    checkpoint_ms: int = 0  # of its last checkpoint; 0: none known
    leaving: bool = False  # is being ended: its room comes soon, and it is not ended twice
    stuck: bool = False  # it does not end although it was told to often: nobody waits for its room


class Start(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Begin now, here. `why` is kept with the attempt."""

    ask_id: str
    placements: tuple[Placement, ...]
    why: str = ""


class Evict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """End a running job, with its grace, to make room for `for_id`. It waits again with its place in the
    order."""

    job_id: str
    for_id: str
    kind: str  # preempt | reclaim | consolidate
    why: str


class Reservation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Capacity that is kept for a pending job from `starts_at_ms` on."""

    ask_id: str
    starts_at_ms: int
    placements: tuple[Placement, ...]


class Waiting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why an ask does not start now.

    `code`: quota | limit | capacity | order | fragmented | group | topology | isolation | later | never.
    """

    ask_id: str
    code: str
    text: str
    place: int = 0  # in its own queue, from 1; 0: not told
    starts_at_ms: int | None = None  # when it probably will; None: not known
    owed: str = ""  # of a request that its queue deserves: when that is taken back; "": not told


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one cycle decided. Evictions first: a start never counts on room that is not free yet."""

    starts: tuple[Start, ...] = ()
    evictions: tuple[Evict, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    wake_ms: int | None = None  # look again then, though nothing happens
