"""What HAProxy is told when it is the edge: TLS and HTTP/2 end there, requests go to the gateway's own
socket, gRPC goes straight to the replicas. Pure: text of the configuration, and commands for the runtime
API.

Each line has a reason: `http-no-delay` because chunks of streams are held back 120 ms without it; `retry-
on` with `disable-l7-retry` for POST because what is not idempotent is sent once; `http-reuse safe` because
an idle connection may have died; `expose-fd` because a reload must not lose a connection; fields that
clients may not set are deleted before ours are set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from argosy.model.routes import ReplicaRoute, RouteTable, ServiceRoute

#: Servers of one backend that can be filled without a reload.
SLOTS: Final = 16

_TEMPLATE: Final = """\
global
  nbthread {threads}
  hard-stop-after 600s
  stats socket {stats} mode 600 level admin expose-fd listeners
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode http
  option http-no-delay
  option redispatch
  retries 2
  retry-on conn-failure empty-response
  http-reuse safe
  timeout connect 3s
  timeout client 600s
  timeout server 600s
  timeout tunnel 1h
  timeout http-request 10s
  timeout http-keep-alive 75s
frontend edge
{binds}
  http-request del-header ^x[-_](forwarded|argosy|original|rewrite)[-_].*$ -m reg
  http-request del-header ^(forwarded|x[-_]real[-_]ip|proxy)$ -m reg
  http-request set-header x-forwarded-for %[src]
  http-request set-header x-forwarded-proto https if {{ ssl_fc }}
  http-request set-header x-forwarded-proto http unless {{ ssl_fc }}
{uses}
  default_backend gateway
backend gateway
  http-request disable-l7-retry if METH_POST
  server gateway unix@{inner}
"""


class EdgeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Of one edge; paths are absolute."""

    folder: str
    inner: str  # the gateway's socket for its edge
    listen: tuple[str, ...] = ()  # HOST:PORT: HTTP/1.1, and HTTP/2 from who knows
    tls: tuple[str, ...] = ()  # HOST:PORT
    threads: int = 1

    @property
    def stats(self) -> str:
        return self.folder + "/stats.sock"

    @property
    def certificates(self) -> str:
        return self.folder + "/certificates"


def grpc_services(table: RouteTable) -> list[ServiceRoute]:
    """The services that the edge sends to replicas by itself."""
    return [service for service in table.services if service.protocol == "grpc" and service.hosts]


def render_config(settings: EdgeSettings, services: Sequence[ServiceRoute]) -> str:
    """The configuration. It changes only with what a reload is needed for."""
    binds = [f"  bind {listen}" for listen in settings.listen]
    binds += [f"  bind {listen} ssl crt {settings.certificates} alpn h2,http/1.1" for listen in settings.tls]
    uses = [
        f"  use_backend {_backend(service)} if {{ req.hdr(content-type) -m beg application/grpc }} "
        f"{{ req.hdr(host),field(1,:),lower -m {_match(host)} }}"
        for service in services
        for host in service.hosts
    ]
    text = _TEMPLATE.format(
        threads=settings.threads,
        stats=settings.stats,
        inner=settings.inner,
        binds="\n".join(binds),
        uses="\n".join(uses),
    )
    return text + "".join(_render_backend(service) for service in services)


def _backend(service: ServiceRoute) -> str:
    return "grpc-" + "".join(letter if letter.isalnum() else "-" for letter in service.id)


def _match(host: str) -> str:
    return f"end {host[1:]}" if host.startswith("*.") else f"str {host}"


def _render_backend(service: ServiceRoute) -> str:
    lines = [f"backend {_backend(service)}", "  balance leastconn", "  http-request disable-l7-retry"]
    if service.keys:
        hashes = " ".join(sorted(key.sha256.lower() for key in service.keys))
        lines += [
            "  http-request set-var(txn.key) req.hdr(authorization),word(2,' '),sha2(256),hex,lower",
            f"  http-request deny deny_status 401 unless {{ var(txn.key) -m str {hashes} }}",
        ]
        if not service.pass_authorization:
            lines.append("  http-request del-header authorization")
    elif not service.public:
        lines.append("  http-request deny deny_status 401")
    lines.append(f"  server-template r 1-{slots(service)} 127.0.0.1:1 disabled proto h2")
    return "\n".join(lines) + "\n"


def slots(service: ServiceRoute) -> int:
    """Places for replicas, with room to grow."""
    count = len(replicas(service))
    return SLOTS * (1 + count // SLOTS)


def replicas(service: ServiceRoute) -> list[ReplicaRoute]:
    """Those that requests may go to or still are at, in a steady order."""
    found = [replica for revision in service.revisions if revision.weight for replica in revision.replicas]
    return sorted(found, key=lambda replica: replica.id)


def place_replicas(service: ServiceRoute, before: dict[str, int]) -> dict[str, int]:
    """Which replica has which slot (from 1): who has one keeps it."""
    there = [replica.id for replica in replicas(service)]
    placed = {id: slot for id, slot in before.items() if id in there}
    free = iter(sorted(set(range(1, slots(service) + 1)) - set(placed.values())))
    return {id: placed.get(id) or next(free) for id in there}


def render_commands(
    service: ServiceRoute, places: dict[str, int], addresses: dict[str, tuple[str, int]]
) -> list[str]:
    """Commands of the runtime API that bring the servers of a service to what the table says.
    `addresses`: IP and port by the replica's id; who has none is not used."""
    backend, commands = _backend(service), []
    used: set[int] = set()
    for replica in replicas(service):
        slot = places[replica.id]
        if replica.id not in addresses:
            continue
        used.add(slot)
        ip, port = addresses[replica.id]
        commands.append(f"set server {backend}/r{slot} addr {ip} port {port}")
        commands.append(
            f"set server {backend}/r{slot} state {'drain' if replica.state == 'draining' else 'ready'}"
        )
    for slot in sorted(set(range(1, slots(service) + 1)) - used):
        commands.append(f"set server {backend}/r{slot} state maint")
    return commands
