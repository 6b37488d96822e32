"""Services: replicas behind one endpoint, and the revisions that replace each other there."""

from __future__ import annotations

import msgspec

from argosy.api.endpoint import Done, Reply, Request, endpoint
from argosy.api.service_keys import ServiceKeyView
from argosy.model.serving import ROLLING, Strategy
from argosy.model.task import Task


class OwnCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate with its chain, and its key, in PEM. It is kept for the gateways alone."""

    certificate: str
    key: str

    def __repr__(self) -> str:
        return "OwnCertificate(...)"


class ServeRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Make a service, or give one a new revision: `task` is what each replica runs."""

    name: str
    task: Task
    update: bool = False  # the service is there
    strategy: Strategy = ROLLING
    force: bool = False  # also a revision that was rolled back before
    note: str = ""
    certificate: OwnCertificate | None = None  # of `service.tls`
    user: str = ""
    project: str = ""


class ScaleRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """So many replicas, whatever the file says; None: as the file says."""

    replicas: int | None = None


class RevisionRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """0: the revision that is on its way, or, to go back, the one before."""

    revision: int = 0


class DownRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    now: bool = False  # requests that are under way are cut


class AccessRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """`public`: while it has no keys, it answers everybody, also where others reach the gateway."""

    public: bool


class ReplicaView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """One replica."""

    number: int
    job: str  # its id: `argosy serve logs SERVICE NUMBER` shows its log
    revision: int
    state: str  # starting, warming, ready, suspect, draining
    since_ms: int = 0
    place: str = ""  # infrastructure, region and zone
    resources: str = ""
    address: str = ""
    in_flight: int = 0
    hourly_micro_usd: int = 0
    requests_milli_per_s: int = 0  # in the last minute, as of the service
    errors: int = 0
    p50_ms: int = 0
    p99_ms: int = 0
    tokens_milli_per_s: int = 0
    detail: str = ""  # why it is not ready
    last_lines: tuple[str, ...] = ()  # of what it printed, while it is not ready


class RevisionView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """One revision that serves, or is on its way."""

    number: int
    weight: int = 0  # thousandths of the requests
    ready: int = 0
    wanted: int = 0
    made_ms: int = 0
    note: str = ""
    requests: int = 0
    errors: int = 0
    requests_milli_per_s: int = 0  # in the last minute, as of the service
    p50_ms: int = 0
    p99_ms: int = 0
    tokens_milli_per_s: int = 0
    hourly_micro_usd: int = 0


class RolloutView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """The way to the newest revision."""

    old: int
    new: int
    strategy: str
    phase: str
    step: int = 0
    steps: tuple[int, ...] = ()  # thousandths of the requests
    since_ms: int = 0
    detail: str = ""


class ServiceView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """One service."""

    id: str
    name: str
    status: str  # starting, ready, no-replica, updating, failing, stopping
    endpoint: str = ""  # where requests go; "": nowhere yet
    server_endpoint: str = ""  # likewise at the server's own port, for keys and public ones; "": it has none
    revision: int = 0  # that serves; 0: none does yet
    ready: int = 0
    wanted: int = 0  # replicas
    held: int = 0  # requests that wait for a replica
    in_flight: int = 0  # requests that replicas work on
    requests_milli_per_s: int = 0  # in the last minute: requests per second x 1000
    errors: int = 0  # in the last minute: answers 5xx, cut streams, time-outs
    p50_ms: int = 0  # half of the last minute's answers were complete by then
    p99_ms: int = 0
    tokens_milli_per_s: int = 0  # of prompts and answers of language models
    #: What so many cost at the price and the pace of the last minute; 0: none passed, or it costs nothing.
    micro_usd_per_million_requests: int = 0
    micro_usd_per_million_tokens: int = 0
    why: str = ""  # why so many replicas are wanted
    rollout: RolloutView | None = None
    revisions: tuple[RevisionView, ...] = ()
    replicas: tuple[ReplicaView, ...] = ()
    hourly_micro_usd: int = 0
    user: str = ""
    project: str = ""
    models: tuple[str, ...] = ()  # names that requests to language models say
    shared: str = ""  # name of the endpoint that it shares with other services
    shared_endpoint: str = ""
    share_milli: int = 0  # of the requests there that name no model, in thousandths
    access: str = ""  # who may send requests: machine (whoever is on it), public, keys, nobody
    budgets: tuple[ServiceKeyView, ...] = ()  # keys that have one, and what was spent of it
    created_ms: int = 0
    detail: str = ""
    last_lines: tuple[str, ...] = ()  # that the replica printed which ended last, while none is ready
    failures: tuple[str, ...] = ()  # of replicas that ended by themselves, the newest last


class ServiceList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    services: tuple[ServiceView, ...]


class ServiceReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """A service after a request, and what there is to say about it."""

    service: ServiceView
    said: str = ""
    warnings: tuple[str, ...] = ()


class ServiceCalls:
    @endpoint("POST", "/services", ServeRequest, permission="services.write")
    def apply_service(
        self,
        name: str,
        task: Task,
        *,
        update: bool = False,
        strategy: Strategy = ROLLING,
        force: bool = False,
        note: str = "",
        certificate: OwnCertificate | None = None,
        user: str = "",
        project: str = "",
    ) -> ServiceReply:
        """Make a service, or with `update` give one a new revision.

        Errors: "conflict" when it is there already, "not-found" when there is none to update, "no-offer".
        """

    @endpoint("GET", "/services", permission="services.read")
    def services(self) -> ServiceList:
        """All live services, with their replicas."""

    @endpoint("GET", "/services/{service}", permission="services.read")
    def service(self, service: str) -> ServiceView:
        """One service. Errors: "not-found"."""

    @endpoint("POST", "/services/{service}/scale", ScaleRequest, permission="services.write")
    def scale_service(self, service: str, replicas: int | None = None) -> ServiceReply:
        """Another number of replicas. Errors: "not-found"."""

    @endpoint("POST", "/services/{service}/promote", RevisionRequest, permission="services.write")
    def promote_service(self, service: str, revision: int = 0) -> ServiceReply:
        """Let a new revision take over without further waiting. Errors: "not-found", "wrong-state"."""

    @endpoint("POST", "/services/{service}/rollback", RevisionRequest, permission="services.write")
    def rollback_service(self, service: str, revision: int = 0) -> ServiceReply:
        """Go back to an earlier revision. Errors: "not-found", "wrong-state"."""

    @endpoint("POST", "/services/{service}/access", AccessRequest, permission="services.write")
    def set_service_access(self, service: str, public: bool) -> ServiceReply:
        """Whether a service without keys answers everybody. Errors: "not-found"."""

    @endpoint("POST", "/services/{service}/down", DownRequest, permission="services.write")
    def down_service(self, service: str, *, now: bool = False) -> Done:
        """End a service and its replicas, after the requests that are under way. Errors: "not-found"."""
