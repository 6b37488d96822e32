"""Which service a request is for: by its host, by the prefix of its path, or by the model that it names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, cast

import msgspec

from argosy.gateway.endpoints import Endpoint
from argosy.gateway.exchange import Answer, Exchange
from argosy.gateway.heads import RequestHead
from argosy.gateway.limits import Key
from argosy.gateway.service import Service

#: Requests to language models of all services come in below this path.
MODELS: Final = b"/v1/"


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """As OpenAI's `/v1/models` lists one."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "argosy"


class Models(msgspec.Struct, frozen=True, kw_only=True):
    """As OpenAI's `/v1/models` answers."""

    data: tuple[Model, ...]
    object: str = "list"


class Directory:
    """The addresses of one table."""

    def __init__(self, services: Iterable[Service] = (), endpoints: Iterable[Endpoint] = ()) -> None:
        self._hosts: dict[bytes, Service | Endpoint] = {}
        self._wildcards: dict[bytes, Service | Endpoint] = {}
        self._prefixes: dict[bytes, Service | Endpoint] = {}
        self._with_key: dict[bytes, list[Service]] = {}  # with models, by SHA-256 of a key
        self._keyless: list[Service] = []  # with models
        self._keyed: Service | None = None  # one of those with keys
        places: list[Service | Endpoint] = [*endpoints, *services]
        for each in places:
            for host in each.route.hosts:
                if host.startswith("*."):
                    self._wildcards[host[1:].lower().encode()] = each
                else:
                    self._hosts[host.lower().encode()] = each
            if each.route.prefix:
                self._prefixes[each.route.prefix.encode()] = each
            if isinstance(each, Service) and each.route.models:
                self._add_models(each)
        self._lasting = {digest: _models_of(holders, digest) for digest, holders in self._with_key.items()}
        self._depths = tuple(sorted({prefix.count(b"/") for prefix in self._prefixes}, reverse=True))

    def _add_models(self, service: Service) -> None:
        if not service.keys:
            self._keyless.append(service)
            return
        self._keyed = self._keyed or service
        for digest in service.keys.digests:
            self._with_key.setdefault(digest, []).append(service)

    def find(self, head: RequestHead) -> tuple[Service | Endpoint, int] | None:
        """The service or shared endpoint of a request, and how many bytes of its path are the prefix."""
        known, place = head.place
        if known is not self:
            place = self._find(head)
            head.place = (self, place)
        return cast("tuple[Service | Endpoint, int] | None", place)

    def _find(self, head: RequestHead) -> tuple[Service | Endpoint, int] | None:
        service = self._hosts.get(head.host)
        if service is None and self._wildcards:
            dot = head.host.find(b".")
            service = self._wildcards.get(head.host[dot:]) if dot > 0 else None
        if service is not None:
            return service, 0
        for depth in self._depths:
            prefix = b"/".join(head.path.split(b"/", depth + 1)[: depth + 1])
            service = self._prefixes.get(prefix)
            if service is not None:
                return service, len(prefix)
        return None

    def names_models(self, head: RequestHead) -> bool:
        """It is a request to a language model under the common address."""
        return bool(self._keyless or self._keyed) and head.path.startswith(MODELS)

    def lasting_models(self, head: RequestHead) -> dict[str, Service] | None:
        """The models of a request's key, where no service says when that ends; None: `models_for` has to say.
        Whether the key is good the service itself finds out."""
        return self._lasting.get(head.key_digest())

    def models_for(self, exchange: Exchange) -> dict[str, Service] | Answer:
        """The models that the caller may ask, with their services; or why it may ask none."""
        mine: dict[str, Service] = {}
        holders = self._with_key.get(exchange.head.key_digest(), ())
        for service in holders:
            if isinstance(service.keys.find(exchange, notes=False), Key):
                for model in service.route.models:
                    mine.setdefault(model, service)
        for service in self._keyless:
            if service.route.public or exchange.is_local:
                for model in service.route.models:
                    mine.setdefault(model, service)
        if mine or self._keyed is None:
            return mine
        refused = self._keyed.keys.find(exchange)
        return refused if isinstance(refused, Answer) else mine


def _models_of(holders: Iterable[Service], digest: bytes) -> dict[str, Service] | None:
    """What a key may ask; None where that changes with the clock."""
    mine: dict[str, Service] = {}
    for service in holders:
        if service.keys.ends(digest):
            return None
        for model in service.route.models:
            mine.setdefault(model, service)
    return mine


def list_models(models: Iterable[str]) -> Answer:
    """As OpenAI's `/v1/models` answers."""
    listed = Models(data=tuple(Model(id=name) for name in sorted(models)))
    return Answer(status=200, body=msgspec.json.encode(listed))
