"""One endpoint of several services: by the model that a request names, else by weights."""

from __future__ import annotations

from collections.abc import Mapping

from argosy.gateway.exchange import Exchange
from argosy.gateway.service import Service
from argosy.gateway.usage import model_of
from argosy.model.routes import EndpointRoute

_BODY_MAX = 32 << 20


class Chosen:
    """A member with its weight, as it takes its turns."""

    __slots__ = ("given", "models", "service", "weight")

    def __init__(self, service: Service, weight: int) -> None:
        self.service = service
        self.weight = weight
        self.models = frozenset(service.route.models)
        self.given = 0


class Endpoint:
    """The members of one table; turns go on from table to table."""

    def __init__(self, route: EndpointRoute, services: Mapping[str, Service]) -> None:
        self.route = route
        self.members = [Chosen(services[each.service], each.weight) for each in route.members]
        self.has_models = any(member.models for member in self.members)

    def is_as(self, other: Endpoint) -> bool:
        """It shares the same services out in the same way."""
        mine = [(each.service, each.models) for each in self.members]
        return self.route == other.route and mine == [(each.service, each.models) for each in other.members]

    @property
    def models(self) -> list[str]:
        """All that its members answer for."""
        return sorted({model for member in self.members for model in member.models})

    def body_limit(self, exchange: Exchange) -> int:
        """So much of the body has to be seen for a choice; 0: nothing."""
        head = exchange.head
        kind = head.get(b"content-type") or b""
        asks = self.has_models and head.method == b"POST" and head.length and b"json" in kind.lower()
        return _BODY_MAX if asks and exchange.body is None else 0

    def choose(self, exchange: Exchange) -> Service | str:
        """The service of a request; or the model that it names and nobody has."""
        asked = model_of(exchange) if self.has_models else ""
        if asked and asked != self.route.name:
            for member in self.members:
                if asked in member.models:
                    return member.service
            return asked
        return self._next().service

    def _next(self) -> Chosen:
        """Whose turn it is: of any thousand in a row each member gets its share exactly. Members without a
        replica that is ready are left out while others have one."""
        open_now = [each for each in self.members if each.weight and each.service.is_open]
        among = open_now or [each for each in self.members if each.weight] or self.members
        total = sum(each.weight for each in among) or 1
        for each in among:
            each.given += each.weight
        best = max(among, key=_given)
        best.given -= total
        return best


def _given(member: Chosen) -> int:
    return member.given
