"""Services: replicas of a program behind one endpoint, which new revisions replace without a lost request."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from argosy.model.kinds.kind import Kind, spec_of, status_of
from argosy.model.offer import Confirmed
from argosy.model.rows import KindSpec, KindStatus, Workload
from argosy.model.service_keys import AccessKey as AccessKey
from argosy.model.service_keys import Prices
from argosy.model.serving import Serving, Strategy
from argosy.model.task import Task

KEPT: Final = 10  # revisions that are remembered, to go back to


class ReplicaState(StrEnum):
    """Where one replica is: starting → warming → ready ⇄ suspect → draining, and then it is gone."""

    STARTING = "starting"  # its node or its program is not there yet
    WARMING = "warming"  # its program runs and has not answered the probe yet
    READY = "ready"  # it takes requests
    SUSPECT = "suspect"  # it does not answer: no new requests, and a look each second
    DRAINING = "draining"  # no new requests; it ends when those under way are done


class RolloutPhase(StrEnum):
    PROGRESSING = "progressing"  # replicas of the new revision are started
    PAUSED = "paused"  # it waits for `promote` or `rollback`
    BAKING = "baking"  # it takes its share of the requests and is watched
    PROMOTED = "promoted"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"


class Revision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One state of what is served. Never changed: another state is another revision."""

    number: int
    digest: str  # of all that makes a difference
    task: Task
    confirmed: Confirmed | None = None  # what its launch was told to keep to, for each replica
    strategy: Strategy = Strategy()
    made_ms: int = 0
    note: str = ""

    @property
    def serving(self) -> Serving:
        return self.task.service or Serving()


class ServiceSpec(KindSpec, frozen=True, kw_only=True, omit_defaults=True, tag="service", tag_field="kind"):
    """What is to be served: the revision that is wanted, and earlier ones."""

    revisions: tuple[Revision, ...]  # oldest first
    wanted: int  # number of the revision that is to serve
    fixed: int | None = None  # so many replicas, whatever the revision says (`serve scale`)
    promote: int = 0  # revision that a person has promoted
    public: bool = False  # it answers whoever reaches the gateway
    keys: tuple[AccessKey, ...] = ()  # with any, no request passes without one
    prices: Prices = Prices()  # by which budgets of keys are spent


class Replica(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One replica as it is known: a child job, and where it is on its way."""

    job_id: str
    number: int
    revision: int
    port: int
    on_demand: bool = False  # it is, where its task asks for spot
    state: ReplicaState = ReplicaState.STARTING
    since_ms: int = 0  # in this state
    made_ms: int = 0
    ready_ms: int = 0  # first time ready; 0: never
    is_proven: bool = False  # it was ready for a minute without a break
    attempt_id: str = ""  # whose readiness this is
    place: str = ""  # `provider/region/zone`, as far as it is known
    address: str = ""  # HOST:PORT, or the path of a socket, where requests reach it
    left: int = 0  # the generation of the routes that it is no longer in; 0: it is in them, or never was
    why: str = ""


class TakenBack(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A place whose spot machine was taken back from a replica."""

    place: str
    at_ms: int


class Failed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A replica that ended by itself."""

    job_id: str
    number: int
    revision: int
    at_ms: int
    was_proven: bool
    detail: str = ""


class Rollout(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The way from one revision to another."""

    old: int  # 0: there was none
    new: int
    phase: RolloutPhase = RolloutPhase.PROGRESSING
    step: int = 0  # of the strategy
    since_ms: int = 0  # in this step and phase
    began_ms: int = 0
    failed: int = 0  # replicas of the new revision that ended by themselves
    why: str = ""
    errors: float = 0.0  # evidence against the new revision under earlier shares, as logarithms
    slow: float = 0.0

    @property
    def is_over(self) -> bool:
        return self.phase in (RolloutPhase.PROMOTED, RolloutPhase.ROLLED_BACK)


class ServiceStatus(
    KindStatus, frozen=True, kw_only=True, omit_defaults=True, tag="service", tag_field="kind"
):
    """How far a service is."""

    replicas: tuple[Replica, ...] = ()  # live ones, by number
    made: int = 0  # replicas that were made so far: the last one's number
    failed: tuple[Failed, ...] = ()  # the last ones that ended by themselves
    rollout: Rollout | None = None  # the last one
    serves: int = 0  # the revision that is good; 0: none was ready yet
    generation: int = 1  # of its routes: one more with each change
    weights: tuple[tuple[int, int], ...] = ()  # (revision, thousandths of the requests)
    target: int = -1  # replicas that the load wants; -1: nobody has said yet
    scaled_ms: int = 0  # when that changed last
    scaled_why: str = ""
    bad: tuple[str, ...] = ()  # digests of revisions that were rolled back
    taken_back: tuple[TakenBack, ...] = ()  # places of spot machines, the newest last
    start_s: int = 0  # how long the last replica took from its order to its first answer


#: The spec of a row that is a service.
service_spec: Final = spec_of(ServiceSpec)
#: The status of a row that is a service.
service_state: Final = status_of(ServiceStatus)


def revision_of(row: Workload, number: int) -> Revision | None:
    """A revision of a service; None when it is not kept any more."""
    return next((each for each in service_spec(row).revisions if each.number == number), None)


def wanted_revision(row: Workload) -> Revision:
    """The revision that is to serve."""
    found = revision_of(row, service_spec(row).wanted)
    assert found is not None
    return found


SERVICE: Final = Kind(
    name="service",
    resource="services",
    decided_by="argosy.controllers.service.decide",
    prefix="svc",
    spec=ServiceSpec,
    status=ServiceStatus,
    gangs=lambda row: (),  # its replicas ask for nodes, it does not
    title=lambda row: f"service `{row.name}`",
    named=True,
    tends=True,  # requests that are under way are answered first
    programs=lambda row: tuple(each.task for each in service_spec(row).revisions),
)
