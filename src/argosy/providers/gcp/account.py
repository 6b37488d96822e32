"""Calls of Compute Engine in one project, and the operations that they begin."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, TypeVar

from argosy.infra import border
from argosy.infra.http_json import How, HttpJson, Query, Service
from argosy.infra.machines import most_telling
from argosy.infra.provider import Setting
from argosy.providers.gcp import MANIFEST
from argosy.providers.gcp.credentials import Credentials
from argosy.providers.gcp.errors import error_in, words
from argosy.providers.gcp.orders import Pending
from argosy.providers.gcp.wire import Aggregated, Operation, Operations

URL: Final = "https://compute.googleapis.com"
PAGE: Final = 500
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.2, 2.0
_SPACE: Final = uuid.UUID("5d0d1c3e-7a53-4b3a-9d6f-6a1b8f2f7c11")
T = TypeVar("T")


class Account:
    """`patience_s`: so long an order waits for the end of its operation."""

    def __init__(self, setting: Setting, *, patience_s: float = 30.0) -> None:
        self.credentials = Credentials(setting)
        self._ids, self._patience_s = setting.ids, patience_s
        self.http = HttpJson(
            setting.environ.get("ARGOSY_GCP_API_URL") or URL,
            Service(title=MANIFEST.title, sign_in=MANIFEST.how_to_sign_in, words=words),
            clock=setting.clock,
            sign=self.credentials.sign,
        )

    async def path(self, rest: str) -> str:
        """A path inside of our project, or of another one (`projects/...`)."""
        if rest.startswith("projects/"):
            return f"/compute/v1/{rest}"
        return f"/compute/v1/projects/{await self.credentials.project()}" + (f"/{rest}" if rest else "")

    async def get(self, rest: str, into: type[T], query: Query = ()) -> T:
        return await self.http.call("GET", await self.path(rest), into=into, query=query)

    async def find(self, rest: str, into: type[T]) -> T | None:
        """None: there is no such thing."""
        return await self.http.find(await self.path(rest), into=into)

    async def aggregated(self, kind: str, query: Query) -> AsyncIterator[Aggregated]:
        """All pages of a listing of all zones."""
        pages = self.http.pages(
            await self.path(f"aggregated/{kind}"),
            into=Aggregated,
            query=[*query, ("maxResults", PAGE), ("returnPartialSuccess", "true")],
            following=lambda page: [("pageToken", page.next_page_token)] if page.next_page_token else None,
        )
        async for page in pages:
            yield page

    async def begin(
        self, method: str, rest: str, scope: str, json: Mapping[str, Any] | None = None, query: Query = ()
    ) -> Operation:
        """Begin some work. A call whose reply is lost is repeated with the same `requestId`, and Google does
        it once."""
        token = uuid.uuid5(_SPACE, f"{self._ids.new('req')} {method} {rest}")
        return await self.http.call(
            method,
            await self.path(rest),
            into=Operation,
            query=[*query, ("requestId", str(token))],
            json=json,
            scope=scope,
            how=How(safe=True),
        )

    async def drop(self, rest: str) -> None:
        """Begin to delete; what is not there is deleted."""
        await self.http.drop(await self.path(rest))

    async def drop_soon(self, rest: str) -> bool:
        """Begin to delete what others may still use. Whether it was there; `Transient`: not now."""
        how = How(safe=False, fine=(404,))
        return (await self.http.send("DELETE", await self.path(rest), how=how)).status != 404

    async def look(self, place: str, name: str) -> Operation | None:
        """An operation as it is now; None: Google has forgotten it. `place`: `zones/us-central1-a`, ..."""
        return await self.find(f"{place}/operations/{name}", Operation)

    async def ended(self, order: Pending) -> tuple[bool, border.BorderError | None]:
        """Whether an order's operation has ended, and its error."""
        now = await self.look(f"zones/{order.zone}", order.operation)
        if now is None:
            return True, None
        return now.is_done, error_in(now, order.scope)

    async def finish(self, place: str, operation: Operation, scope: str) -> bool:
        """Waits for the end of an operation, a bounded time. Whether it has ended well; False: not yet.
        Raises its error."""
        waited_s, step_s = 0.0, _FIRST_LOOK_S
        now: Operation | None = operation
        while now is not None:
            error = error_in(now, scope)
            if error is not None:
                raise error
            if now.is_done:
                return True
            if waited_s >= self._patience_s:
                return False
            await asyncio.sleep(step_s)
            waited_s += step_s
            step_s = min(step_s * 1.5, _LONGEST_LOOK_S)
            try:
                now = await self.look(place, operation.name)
            except border.Transient:
                pass  # what it became is seen by the next look
        return True

    async def reason(self, place: str, operation: Operation, scope: str) -> border.BorderError | None:
        """Why one of the machines that an operation should make was not made; None: nobody says more."""
        if not operation.operation_group_id:
            return None
        query = (("filter", f"operationGroupId={operation.operation_group_id}"), ("maxResults", PAGE))
        try:
            every = (await self.get(f"{place}/operations", Operations, query)).items
        except border.BorderError:
            return None
        errors = [error for each in every if (error := error_in(each, scope)) is not None]
        errors = [each for each in errors if "VM_MIN_COUNT_NOT_REACHED" not in str(each)]
        return most_telling(errors) if errors else None

    async def close(self) -> None:
        await self.http.close()
        await self.credentials.close()
