"""A request that was let in goes to a replica, or waits for one."""

from __future__ import annotations

from collections.abc import Callable

from argosy.gateway.exchange import Answer, Exchange, Forward, refusal
from argosy.gateway.service import Service
from argosy.gateway.trip import Trip


def send(exchange: Exchange, trip: Trip) -> Forward | None:
    """To a replica that takes it; None: there is none now."""
    service = trip.service
    replica = service.choose(exchange, trip.tried)
    if replica is None:
        return None
    trip.replica = replica
    service.sent(exchange, replica)
    forward = service.forward(exchange, replica, trip.prefix, trip.fields)
    if len(service.revisions) > 1 and not exchange.tries:
        exchange.answer_fields += b"x-argosy-variant: %b\r\n" % replica.revision.id.encode()
    if trip.copies:
        trip.copies = False
        service.send_copy(exchange, forward)
    return forward


def hold(exchange: Exchange, trip: Trip, on_want: Callable[[], None]) -> Answer | None:
    """Let a request wait for a replica, where its service allows that; `on_want` is called when it waits."""
    service = trip.service
    rule = service.route.holding
    if rule is None:
        text = f"no replica of `{service.route.name}` takes requests now"
        return refusal(503, "no-replica", text, fields=b"retry-after: 1\r\n")
    refused = service.queue.hold(exchange, rule, service.route.name)
    if refused is not None:
        return refused
    trip.is_held = True
    on_want()
    return None


def release(service: Service) -> None:
    """Send what waits and can be sent."""
    if not service.queue.is_empty:
        service.queue.release(_send_held)


def _send_held(exchange: Exchange) -> Forward | None:
    trip = exchange.memo
    return send(exchange, trip) if isinstance(trip, Trip) else None
