"""Routes: what a gateway is told about services and their replicas, and the counters that come back.

The server sends a whole `RouteTable` each time; its generation grows. A gateway that has taken a table over
says so with the generation in its `GatewayCounters`: from then on no new request goes to a replica that the
table drains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal

import msgspec

from argosy.model.service_keys import Period, Prices

#: Weights of revisions, and shares, are parts of this.
WHOLE: Final = 10_000
#: Upper bounds of the latency buckets in milliseconds; one more bucket holds what took longer.
LATENCY_BOUNDS_MS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000)

PolicyName = Literal[
    "round-robin",
    "least-outstanding",
    "power-of-two",
    "consistent-hash",
    "least-work",
    "least-tokens",
    "prefix-aware",
]
ReplicaState = Literal["ready", "draining"]
Attribute = Literal["header", "cookie", "key", "address"]


class HashBy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What tells the user of a request: a header or cookie of this name, its API key, its address."""

    attribute: Attribute
    name: str = ""  # of the header or cookie


class Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a replica is chosen among those of one revision."""

    name: PolicyName = "least-outstanding"
    hash_by: HashBy = HashBy(attribute="address")  # of `consistent-hash`
    bound_percent: int = 125  # of `consistent-hash`: no replica has more than this share of the mean load


class ReplicaRoute(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One replica. `address` is `host:port`, `[v6]:port` or the path of a unix socket."""

    id: str
    address: str
    state: ReplicaState = "ready"
    max_concurrency: int = 0  # requests at once; 0: no limit
    slow_start_s: int = 0  # after it came into the table, its share grows over so many seconds
    region: str = ""


class RevisionRoute(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One revision of a service. The weights of all revisions are relative to their sum."""

    id: str
    weight: int = WHOLE  # 0: no requests but shadow copies
    replicas: tuple[ReplicaRoute, ...] = ()


class Shadow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Copies of requests go to `revision`; its answers are thrown away, and nothing of it is ever retried."""

    revision: str
    share: int = WHOLE
    max_body_bytes: int = 1 << 20  # larger requests are not copied
    max_concurrency: int = 16  # copies at once; more are dropped and counted
    shadow_safe: bool = False  # the user says that requests other than GET and HEAD may be copied


class Holding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happens to requests while no replica is ready."""

    max_held: int = 100
    timeout_s: int = 300
    start_s: int = 60  # how long a replica takes to start; `Retry-After` tells what is left of it
    comments_s: int = 0  # streaming clients get a comment so often (it commits status 200); 0: never


class KeyRoute(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An API key with its limits; 0 is no limit. The secret itself is never sent, only its SHA-256."""

    id: str
    sha256: str  # hexadecimal
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    max_concurrency: int = 0
    budget_micro_usd: int = 0  # in each period
    period: Period = "month"
    expires_at_ms: int = 0
    scope: str = ""  # services whose keys have one scope and id have their limits together; "": the service


class ServiceRoute(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One service: where its requests come from (hosts or a path prefix) and where they go."""

    id: str
    name: str
    project: str = ""
    hosts: tuple[str, ...] = ()  # `web.example.org` or `*.example.org`, in lower case
    prefix: str = ""  # `/s/NAME`: requests below it belong to the service
    keep_prefix: bool = False  # replicas see the path with its prefix
    protocol: Literal["http", "grpc"] = "http"  # gRPC goes from the edge straight to the replicas
    models: tuple[str, ...] = ()  # language models that it answers for under the common base URL
    revisions: tuple[RevisionRoute, ...] = ()
    sticky_by: HashBy | None = None  # users stay with their revision
    policy: Policy = Policy()
    shadow: Shadow | None = None
    holding: Holding | None = None  # None: requests without a ready replica are refused at once
    #: Without `keys` only a public service answers anybody; others answer programs on the gateway's machine,
    #: where nobody else reaches it.
    public: bool = False
    keys: tuple[KeyRoute, ...] = ()
    prices: Prices = Prices()  # by which budgets of keys are spent
    pass_authorization: bool = False  # replicas see the header that held the key
    origins: tuple[str, ...] = ()  # other origins whose pages may open WebSockets; `*`: all
    prefill: str = ""  # id of the service that reads the prompts of its requests first
    bootstrap_port: int = (
        0  # of those readers, which get the same request at the same time (SGLang); 0: vLLM's
    )
    retry_post: bool = False  # requests that are not idempotent may be sent again before the first byte
    max_body_bytes: int = 0  # 0: no limit
    answer_timeout_s: int = 600  # until the first byte of the answer
    drain_ws_s: int = 30  # WebSockets of a draining replica are closed (1001) after so long


class Member(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A service behind a shared endpoint. Weights are relative to their sum."""

    service: str  # its id
    weight: int = WHOLE


class EndpointRoute(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One endpoint of several services, each with a model or a version of one. A request that names the model
    of a member goes to it; the others are shared out by weight."""

    name: str
    hosts: tuple[str, ...] = ()
    prefix: str = ""
    members: tuple[Member, ...] = ()


class PeerRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One of several gateways on a machine: its sockets, that for requests and that for control."""

    id: str
    address: str
    control: str


class RouteTable(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that one gateway routes. A table replaces the one before."""

    generation: int
    region: str = ""  # of this gateway: the nearest replicas that are well come first
    #: Groups of regions, the nearest first; those that no group has are the farthest.
    near: tuple[tuple[str, ...], ...] = ()
    own: str = ""  # which of `peers` it is
    peers: tuple[PeerRoute, ...] = ()  # all gateways that are up; fewer than two: it is alone
    services: tuple[ServiceRoute, ...] = ()
    endpoints: tuple[EndpointRoute, ...] = ()


class Listening(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a gateway takes requests, as it tells beside its control socket."""

    urls: tuple[str, ...] = ()  # `http://HOST:PORT`
    region: str = ""
    is_local: bool = True  # only programs on its own machine reach it


class ReplicaCounters(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Of one replica since the gateway started, also of one that left the table with requests in flight."""

    id: str
    revision: str
    state: Literal["ready", "suspect", "draining", "gone"] = "ready"
    in_flight: int = 0
    requests: int = 0
    errors: int = 0  # 5xx, cut answers, time-outs, refused connections
    latency: list[int] = msgspec.field(default_factory=list)  # until the end, by LATENCY_BOUNDS_MS
    latency_ms: int = 0  # sum
    input_tokens: int = 0
    output_tokens: int = 0
    last_use_ms: int = 0


class RevisionCounters(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Of one revision since the gateway started, shadow copies not counted among the others."""

    id: str
    requests: int = 0
    errors: int = 0  # 5xx, cut answers, time-outs; not 4xx and not clients that left
    latency: list[int] = msgspec.field(default_factory=list)  # until the end, by LATENCY_BOUNDS_MS
    first_byte: list[int] = msgspec.field(default_factory=list)  # until the first byte, likewise
    latency_ms: int = 0  # sum
    first_byte_ms: int = 0  # sum
    input_tokens: int = 0
    output_tokens: int = 0
    shadowed: int = 0  # copies sent
    shadow_dropped: int = 0
    shadow_errors: int = 0


class KeyCounters(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Of one API key since the gateway started."""

    id: str
    requests: int = 0
    refused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    spent_micro_usd: int = 0  # of its budget, in the period that it is now
    last_use_ms: int = 0


class ServiceCounters(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Of one service since the gateway started."""

    id: str
    requests: int = 0
    in_flight: int = 0
    held: int = 0  # now
    held_total: int = 0
    held_refused: int = 0
    refused: int = 0  # by keys and limits
    retries: int = 0
    work_ms: int = 0  # of replicas, for all requests together, where the policy weighs requests
    last_use_ms: int = 0
    replicas: list[ReplicaCounters] = msgspec.field(default_factory=list)
    revisions: list[RevisionCounters] = msgspec.field(default_factory=list)
    keys: list[KeyCounters] = msgspec.field(default_factory=list)


class GatewayCounters(msgspec.Struct, kw_only=True, omit_defaults=True):
    """All counters of one gateway. They begin at 0 when it starts: `since_ms` tells two lives apart."""

    generation: int  # of the table that every worker has taken over; 0: none yet
    since_ms: int
    services: list[ServiceCounters] = msgspec.field(default_factory=list)


class Wanted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Requests of a service wait for a replica."""

    service: str
    held: int
    oldest_s: float = 0.0


class Wants(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer of a long poll: what waits now. `sequence` goes into the next question."""

    sequence: int
    wanted: tuple[Wanted, ...] = ()


def tiers_of(table: RouteTable) -> Mapping[str, int]:
    """How far a region is for the gateway of a table; what is not in it is `len()` of it. Empty: no region is
    nearer than another.

    >>> tiers_of(RouteTable(generation=1, region="a/x", near=(("a/x",), ("b/y", "b/z"))))
    {'a/x': 0, 'b/y': 1, 'b/z': 1}
    """
    if not table.region:
        return {}
    near = table.near or ((table.region,),)
    return {region: distance for distance, group in enumerate(near) for region in group}


def check_table(table: RouteTable) -> list[str]:
    """What is wrong with a table, in sentences; a gateway refuses it as a whole.

    >>> service = ServiceRoute(id="svc-1", name="web", prefix="s/web")
    >>> check_table(RouteTable(generation=1, services=(service,)))
    ['service `web`: its prefix `s/web` does not begin with `/`']
    """
    known = {service.id for service in table.services}
    missing = [
        f"endpoint `{each.name}`: its service `{member.service}` is not in the table"
        for each in table.endpoints
        for member in each.members
        if member.service not in known
    ]
    return [*_clashes(table), *missing, *(line for each in table.services for line in _faults(each))]


def _clashes(table: RouteTable) -> Iterator[str]:
    owners: dict[tuple[str, str], ServiceRoute | EndpointRoute] = {}
    everything: list[ServiceRoute | EndpointRoute] = [*table.services, *table.endpoints]
    for each in everything:
        kind = "service" if isinstance(each, ServiceRoute) else "endpoint"
        places = [("host", host) for host in each.hosts]
        if isinstance(each, ServiceRoute):
            places.append(("id", each.id))
        if each.prefix:
            places.append(("prefix", each.prefix))
        for place in places:
            other = owners.setdefault(place, each)
            if other is not each:
                yield f"{kind} `{each.name}`: its {place[0]} `{place[1]}` belongs to `{other.name}` already"


def _faults(service: ServiceRoute) -> Iterator[str]:
    said = f"service `{service.name}`:"
    if service.prefix and not service.prefix.startswith("/"):
        yield f"{said} its prefix `{service.prefix}` does not begin with `/`"
    if service.prefix.endswith("/"):
        yield f"{said} its prefix `{service.prefix}` ends with `/`"
    ids = [revision.id for revision in service.revisions]
    if len(set(ids)) != len(ids):
        yield f"{said} two revisions have the same id"
    if any(revision.weight < 0 for revision in service.revisions):
        yield f"{said} a weight is below 0"
    if service.shadow is not None and service.shadow.revision not in ids:
        yield f"{said} the shadow revision `{service.shadow.revision}` is not in the table"
    for revision in service.revisions:
        for replica in revision.replicas:
            if not _is_address(replica.address):
                yield f"{said} the address of `{replica.id}` is not HOST:PORT or a path: `{replica.address}`"


def _is_address(text: str) -> bool:
    if text.startswith("/"):
        return "\0" not in text
    host, colon, port = text.rpartition(":")
    return bool(colon and host) and port.isascii() and port.isdigit() and 0 < int(port) < 65536
