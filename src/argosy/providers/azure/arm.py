"""Calls of Azure Resource Manager in one subscription: pages, operations that take time, things by name."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import msgspec

from argosy.infra import border
from argosy.infra.http_json import How, HttpJson, Query, Reply, Service
from argosy.infra.http_words import error_of, said_of
from argosy.infra.provider import Setting
from argosy.providers.azure import MANIFEST
from argosy.providers.azure.errors import words
from argosy.providers.azure.identity import Identity, chosen_subscription

URL: Final = "https://management.azure.com"
COMPUTE: Final = "2024-07-01"
NETWORK: Final = "2024-05-01"
RESOURCES: Final = "2022-09-01"
SUBSCRIPTIONS: Final = "2022-12-01"
_PAGES_MAX: Final = 1000
_POLL_S, _POLL_MAX_S = 1.0, 10.0
_USUAL: Final = How()

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True, rename="camel"):
    value: list[T]
    next_link: str | None = None


class Subscription(msgspec.Struct, frozen=True, rename="camel"):
    subscription_id: str
    display_name: str = ""
    state: str = ""  # Enabled | Warned | PastDue | Disabled | Deleted


class _Operation(msgspec.Struct, frozen=True):
    status: str = ""


class Named(msgspec.Struct, frozen=True):
    id: str
    name: str
    location: str = ""


class Arm:
    """`subscription()` is asked for once: it is set, chosen by `az`, or the only one that there is."""

    def __init__(self, setting: Setting) -> None:
        base = setting.environ.get("ARGOSY_AZURE_URL") or URL
        self._environ, self._clock = setting.environ, setting.clock
        self.identity = Identity(setting, base.rstrip("/"))
        service = Service(
            title=MANIFEST.title, sign_in=f"sign in with {MANIFEST.how_to_sign_in}", words=words
        )
        self._http = HttpJson(base, service, clock=setting.clock, sign=self.identity.sign)
        self._subscription = chosen_subscription(setting.environ)

    async def subscription(self) -> str:
        """Its id. Raises `CredentialsRejected` when it is not clear which one is meant."""
        if not self._subscription:
            await self.identity.token()
            self._subscription = self.identity.subscription
        if not self._subscription:
            found = await self.listed("/subscriptions", SUBSCRIPTIONS, Subscription)
            if len(found) != 1:
                ids = ", ".join(f"{each.subscription_id} ({each.display_name})" for each in found[:8])
                raise border.CredentialsRejected(
                    f"{MANIFEST.title} gives these credentials {len(found)} subscriptions"
                    + (f": {ids}; set AZURE_SUBSCRIPTION_ID to one of them" if found else "")
                    + ("" if found else "; give them a role: `az role assignment create --role Contributor`")
                )
            self._subscription = found[0].subscription_id
        return self._subscription

    async def path(self, rest: str) -> str:
        """Of something in the subscription."""
        return f"/subscriptions/{await self.subscription()}{rest}"

    async def get(self, path: str, version: str, into: type[T]) -> T:
        return await self._http.call("GET", path, into=into, query=[("api-version", version)])

    async def find(self, path: str, version: str, into: type[T]) -> T | None:
        """None: it is not there."""
        return await self._http.find(path, into=into, query=[("api-version", version)])

    async def listed(self, path: str, version: str, kind: type[T], query: Query = ()) -> list[T]:
        """All pages."""
        found: list[T] = []
        query, into = [("api-version", version), *query], Page[kind]  # type: ignore[valid-type]
        for _ in range(_PAGES_MAX):
            page = await self._http.call("GET", path, into=into, query=query)
            found += page.value
            if not page.next_link:
                return found
            if not page.next_link.startswith(f"{self._http.base}/"):  # our token goes nowhere else
                raise border.Transient(f"{MANIFEST.title} sends us to another host for the next page", 60)
            path, query = page.next_link, ()
        raise border.Transient(f"{MANIFEST.title} lists more than {_PAGES_MAX} pages at {path}", 60)

    async def send(
        self,
        method: str,
        path: str,
        version: str,
        *,
        json: object = None,
        query: Query = (),
        scope: str = "",
        how: How = _USUAL,
    ) -> Reply:
        """A call that may begin an operation: `ends` waits for it."""
        query = [("api-version", version), *query]
        return await self._http.send(method, path, query=query, json=json, scope=scope, how=how)

    async def put(self, path: str, version: str, body: object, *, wait_s: float, scope: str = "") -> None:
        """Make it so, and wait until it is. Raises a border error; `Transient` when that takes longer."""
        reply = await self.send("PUT", path, version, json=body, scope=scope)
        if not await self.ends(reply, wait_s, scope=scope):
            raise border.Transient(f"{MANIFEST.title} is still making {path.rpartition('/')[2]}", 5)

    async def ends(self, reply: Reply, wait_s: float, *, scope: str = "") -> bool:
        """Whether the operation that a reply began has ended well within about `wait_s`. Raises what it
        failed with. An operation tells its status; where a reply names only the place of the result, that is
        there when the operation has ended."""
        operation = reply.headers.get("azure-asyncoperation", "")
        url = operation or (reply.headers.get("location", "") if reply.status == 202 else "")
        if not url:
            return True
        if not url.startswith(f"{self._http.base}/"):
            raise border.Transient(f"{MANIFEST.title} sends us to another host for an operation", 60)
        waited_s = 0.0
        while True:
            told = await self._http.send("GET", url, scope=scope)
            status = self._http.read(told, _Operation).status.lower() if operation else ""
            if status == "succeeded" or (not operation and told.status != 202):
                return True
            if status in ("failed", "canceled"):
                raise self.error(told.body, scope)
            if waited_s >= wait_s:
                return False
            after = told.headers.get("retry-after", "")
            step_s = min(float(after) if after.isdigit() else _POLL_S, _POLL_MAX_S, wait_s - waited_s)
            await asyncio.sleep(max(step_s, 0.1))
            waited_s += max(step_s, 0.1)

    def error(self, body: bytes, scope: str, status: int = 400) -> border.BorderError:
        """What an operation, or a machine, says that it failed with."""
        now_s = self._clock.now_ms() / 1000
        title, sign_in = MANIFEST.title, MANIFEST.how_to_sign_in
        said = said_of(status, {}, body, title=title, sign_in=sign_in, scope=scope, now_s=now_s)
        return error_of(said, words)

    async def named(self, kind: str, version: str, name: str, *, region: str, field: str) -> str:
        """The id of something that a task names, by its name or its id. Raises `RequestRefused`."""
        if name.startswith("/"):
            return name
        path = await self.path(f"/providers/{kind}")
        alike = [each for each in await self.listed(path, version, Named) if each.name == name]
        here = [each for each in alike if not region or each.location.lower() == region]
        what = kind.rpartition("/")[2]
        if not here:
            there = f"; {', '.join(each.location for each in alike)} has one" if alike else ""
            raise border.RequestRefused(
                field, f"there is none of {what} with the name `{name}` in {region}{there}: give its id"
            )
        if len(here) > 1:
            ids = " or ".join(each.id for each in here[:4])
            raise border.RequestRefused(field, f"several of {what} are called `{name}`: give the id, {ids}")
        return here[0].id

    async def close(self) -> None:
        await self._http.close()
        await self.identity.close()


def group_of(id: str) -> str:
    """The resource group in an id of Azure.

    >>> group_of("/subscriptions/s/resourceGroups/lab/providers/Microsoft.Compute/virtualMachines/a")
    'lab'
    """
    parts: Sequence[str] = id.split("/")
    lower = [each.lower() for each in parts]
    return parts[lower.index("resourcegroups") + 1] if "resourcegroups" in lower[:-1] else ""
