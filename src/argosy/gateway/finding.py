"""From a request to its service: by its address, by the model that it names, by its turn where services share
an endpoint."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from argosy.gateway.directory import MODELS, Directory, list_models
from argosy.gateway.endpoints import Endpoint
from argosy.gateway.exchange import Answer, Exchange, NeedBody, refusal
from argosy.gateway.service import Service
from argosy.gateway.usage import asked_of, model_of
from argosy.model.routes import EndpointRoute, RouteTable

_MODEL_BODY: Final = 32 << 20
_CHALLENGE: Final = b"/.well-known/acme-challenge/"
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,256}")

#: A service and how many bytes of the path are its prefix; an answer in its place; what has to be seen first.
Found = tuple[Service, int] | Answer | NeedBody


class Finder:
    """Finds services by one table."""

    def __init__(self, proofs: Path | None = None) -> None:
        self._proofs = proofs
        self._directory = Directory()
        self._endpoints: dict[str, Endpoint] = {}

    def take_table(self, table: RouteTable, services: Mapping[str, Service]) -> None:
        endpoints = [self._endpoint(route, services) for route in table.endpoints]
        self._endpoints = {endpoint.route.name: endpoint for endpoint in endpoints}
        self._directory = Directory(services.values(), endpoints)

    def _endpoint(self, route: EndpointRoute, services: Mapping[str, Service]) -> Endpoint:
        """The one of before, if it is the same: turns go on."""
        before, new = self._endpoints.get(route.name), Endpoint(route, services)
        if before is not None and before.is_as(new):
            return before
        return new

    def find(self, exchange: Exchange) -> Found:
        """Where a request goes."""
        if exchange.head.path.startswith(_CHALLENGE) and self._proofs is not None:
            return self.prove(exchange.head.path)
        found = self._directory.find(exchange.head)
        if found is None:
            if self._directory.names_models(exchange.head):
                return self._find_model(exchange)
            return refusal(404, "not-found", "no service has this address")
        place, prefix = found
        if isinstance(place, Endpoint):
            return self._share_out(exchange, place, prefix)
        return place, prefix

    def prove(self, path: bytes) -> Answer:
        """Answer an authority (ACME, http-01)."""
        token = path.removeprefix(_CHALLENGE).decode("latin-1")
        if self._proofs is not None and _TOKEN.fullmatch(token) is not None:
            with contextlib.suppress(OSError):
                text = (self._proofs / token).read_bytes()
                return Answer(status=200, body=text, content_type=b"application/octet-stream")
        return refusal(404, "not-found", "no such proof is asked for")

    # --- shared endpoints --------------------------------------------------------------------------

    def _share_out(self, exchange: Exchange, endpoint: Endpoint, prefix: int) -> Found:
        head = exchange.head
        if head.method == b"GET" and endpoint.has_models and head.path[prefix:] == MODELS + b"models":
            return self._list_shared(exchange, endpoint)
        limit = endpoint.body_limit(exchange)
        if limit:
            return NeedBody(limit=limit)
        chosen = endpoint.choose(exchange)
        if isinstance(chosen, str):
            there = ", ".join(endpoint.models)
            return refusal(404, "model_not_found", f"there is no model `{chosen}` here; there is: {there}")
        return chosen, prefix

    def _list_shared(self, exchange: Exchange, endpoint: Endpoint) -> Answer:
        """Its models, for whoever may ask one of them."""
        mine = self._directory.models_for(exchange)
        if isinstance(mine, Answer):
            return mine
        return list_models(model for model in endpoint.models if model in mine)

    # --- language models under one address -----------------------------------------------------------

    def _find_model(self, exchange: Exchange) -> Found:
        head = exchange.head
        if exchange.body is not None and head.method == b"POST":
            lasting = self._directory.lasting_models(head)
            meant = lasting.get(model_of(exchange)) if lasting else None
            if meant is not None:
                return meant, 0
        mine = self._directory.models_for(exchange)
        if isinstance(mine, Answer):
            return mine
        if head.method == b"GET" and head.path == MODELS + b"models":
            return list_models(mine)
        if head.method != b"POST":
            return refusal(404, "not-found", "no service has this address")
        if exchange.body is None and head.length:
            return NeedBody(limit=_MODEL_BODY)
        try:
            asked = asked_of(exchange)
        except ValueError as error:
            return refusal(400, "bad-request", str(error))
        service = mine.get(asked.model)
        if service is not None:
            return service, 0
        endpoint = self._endpoints.get(asked.model)
        if endpoint is not None:
            return self._share_out(exchange, endpoint, 0)
        known = ", ".join(sorted(mine)) or "none"
        return refusal(
            404, "model_not_found", f"there is no model `{asked.model}` for this key; there is: {known}"
        )
