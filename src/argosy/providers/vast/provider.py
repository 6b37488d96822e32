"""Containers of Vast.ai. Offers are live and each of them is one host's: it is gone when somebody takes it,
so an order tries the next one. There is no token; the environment carries the mark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.http_json import How
from argosy.infra.http_words import Said
from argosy.infra.machine_access import home_text
from argosy.infra.machine_container import open_ports
from argosy.infra.machine_vendor import MachineOrder, RestVendor, findings_of
from argosy.infra.machines import Machine
from argosy.infra.provider import Diagnostic, Setting, Want
from argosy.model.offer import Capacity, Offer
from argosy.model.resources import Resources
from argosy.model.rows import Claim
from argosy.providers.vast import MANIFEST
from argosy.providers.vast.asks import Ask, region_of, shape_of
from argosy.providers.vast.orders import (
    best_first,
    disk_gb,
    highest_usd,
    kind_of,
    rent_of,
    search_of,
    settings_of,
)
from argosy.providers.vast.states import Page, machine_of

if TYPE_CHECKING:
    from argosy.catalog.refresh.book import Book

URL: Final = "https://console.vast.ai"
_TRIES: Final = 5  # offers that are tried for one machine
_PAGE: Final = 25
_KNOWN_S: Final = 60.0  # searches are counted by the day
_STALE_S: Final = 900.0


class _Done(msgspec.Struct, frozen=True):
    success: bool = False
    new_contract: int | None = None
    error: str = ""
    msg: str = ""


class Vast(RestVendor):
    manifest = MANIFEST
    lag_s = 20.0
    fresh_s = 2.0
    parallel = 1
    end_command = "vastai destroy instance {id}"

    def __init__(self, setting: Setting, *, every_s: float = 0.3) -> None:
        super().__init__(setting, "ARGOSY_VAST_URL", URL, words, every_s=every_s, burst=5)
        self._searched: dict[bytes, tuple[float, list[Ask]]] = {}
        self._book: Book | None = None

    def key(self) -> str:
        environ = self._setting.environ
        files = (".config/vastai/vast_api_key", ".vast_api_key")
        return environ.get("VAST_API_KEY") or next(
            filter(None, (home_text(environ, each) for each in files)), ""
        )

    async def check(self) -> Sequence[Diagnostic]:
        async def credit() -> str:
            path = "/api/v0/users/current/"
            usd = await self._http.call("GET", path, into=float | None, under="credit")  # type: ignore[arg-type]
            if usd is not None and usd <= 0:
                raise border.QuotaExceeded(
                    "balance", "0", "the account has no credit; add some at https://cloud.vast.ai/billing/"
                )
            return f"the key is accepted; {usd or 0:.2f} $ of credit"

        return await findings_of(MANIFEST, credit)

    # -- offers ---------------------------------------------------------------------------------------------

    async def quote(self, want: Want) -> Sequence[Offer]:
        """What hosts offer now, the cheapest of each kind and place, as often as there is one."""
        asked = [settings_of(each) for each in want.resources]
        settings = asked[0] if asked and asked.count(asked[0]) == len(asked) else settings_of(Resources())
        asks = await self._search(search_of(settings, spot=False))
        now_ms = self._clock.now_ms()
        found: dict[tuple[str, str, Capacity], Offer] = {}
        for ask in asks:
            shape = shape_of(ask, self._names())
            if shape is None:
                continue
            for capacity, usd in ((Capacity.ON_DEMAND, ask.dph_total), (Capacity.SPOT, ask.min_bid)):
                if not usd:
                    continue
                key = (region_of(ask), shape.instance_type, capacity)
                micro, before = round(usd * 1e6), found.get(key)
                found[key] = Offer(
                    provider=MANIFEST.name,
                    region=key[0],
                    shape=shape,
                    capacity=capacity,
                    price_micro_usd=micro if before is None else min(micro, before.price_micro_usd),
                    quoted_at_ms=now_ms,
                    nodes_max=1 if before is None else (before.nodes_max or 0) + 1,
                )
        return list(found.values())

    async def _search(self, query: dict[str, Any], *, fresh: bool = False) -> list[Ask]:
        """Offers. An answer serves a minute; while Vast.ai wants no more searches, the last one does."""
        key, now_s = msgspec.json.encode(query), self._clock.monotonic_s()
        at_s, known = self._searched.get(key, (-1e9, []))
        if not fresh and now_s - at_s < _KNOWN_S:
            return known
        try:
            path, how = "/api/v0/bundles/", How(safe=True)
            offers = await self._http.call("POST", path, json=query, into=list[Ask], how=how, under="offers")
        except border.Transient:
            if now_s - at_s < _STALE_S:
                return known
            raise
        self._searched = {
            each: value for each, value in self._searched.items() if now_s - value[0] < _STALE_S
        } | {key: (now_s, offers)}
        return offers

    def _names(self) -> Book:
        """How the catalog calls what hosts have."""
        if self._book is None:
            from argosy.catalog.catalog import Catalog
            from argosy.catalog.refresh.book import Book

            self._book = Book(MANIFEST.name, None, Catalog.load().accelerators(), 0)
        return self._book

    def refuse(self, claim: Claim) -> None:
        settings_of(claim.choice.resources)
        kind_of(claim.choice.offer.shape.instance_type)
        if not claim.choice.offer.region:
            raise border.RequestRefused("infra", "an order at Vast.ai names the place of the host")

    # -- orders ---------------------------------------------------------------------------------------------

    async def create(self, order: MachineOrder, index: int) -> str:
        spot = order.claim.choice.offer.capacity is Capacity.SPOT
        wish = order.claim.choice.resources
        gpus, model = kind_of(order.kind)
        query = search_of(settings_of(wish), spot=spot, disk_gb=disk_gb(wish), gpu_name=model, num_gpus=gpus)
        query["direct_port_count"] = {"gte": 1 + len(open_ports(wish))}
        names = self._names()
        asks = [
            ask
            for ask in await self._search(query, fresh=True)
            if region_of(ask) == order.region
            and (shape := shape_of(ask, names)) is not None
            and shape.instance_type == order.kind
        ]
        refusal = border.OutOfCapacity(order.scope, f"no host of Vast.ai offers {order.scope} now")
        for ask in best_first(asks, highest_usd(order), spot=spot)[:_TRIES]:
            try:
                return await self._rent(order, index, ask)
            except border.OutOfCapacity as error:
                refusal = error
        raise refusal

    async def _rent(self, order: MachineOrder, index: int, ask: Ask) -> str:
        reply = await self._http.send(
            "PUT",
            f"/api/v0/asks/{ask.id}/",
            json=rent_of(order, index, ask),
            scope=order.scope,
            how=How(safe=False, fine=(400, 404, 410)),
        )
        done = self._http.read(reply, _Done)
        if reply.status < 300 and done.success and done.new_contract is not None:
            return str(done.new_contract)
        if done.new_contract is not None:  # a bid below the others' makes a container that stands still
            await self._destroy(str(done.new_contract))
        raise refused(done, reply.status, order.scope)

    async def listed(self, region: str) -> Sequence[Machine]:
        query: list[tuple[str, str | int]] = [
            ("limit", _PAGE),
            ("order_by", '[{"col":"id","dir":"asc"}]'),
            ("select_filters", "{}"),
        ]
        pages = self._http.pages(
            "/api/v1/instances/",
            into=Page,
            query=query,
            following=lambda page: [("after_token", page.next_token)] if page.next_token else None,
        )
        return [
            machine
            async for page in pages
            for each in page.instances
            if (machine := machine_of(each)) is not None
        ]

    async def delete(self, machine: Machine) -> None:
        await self._destroy(machine.id)

    async def _destroy(self, id: str) -> None:
        path = f"/api/v0/instances/{id}/"
        await self._http.send("DELETE", path, json={}, how=How(fine=(404, 410)))

    async def stop(self, machine: Machine) -> None:
        await self._set(machine, "stopped")

    async def start(self, machine: Machine) -> None:
        await self._set(machine, "running")

    async def _set(self, machine: Machine, state: str) -> None:
        path = f"/api/v0/instances/{machine.id}/"
        done = await self._http.call("PUT", path, json={"state": state}, into=_Done, scope=machine.id)
        if not done.success:
            what = done.msg or done.error or "nobody says why"
            raise border.OutOfCapacity(machine.region, f"the host does not let {machine.id} run: {what}")


def refused(done: _Done, status: int, scope: str) -> border.BorderError:
    """The error of an answer that says `success: false`."""
    said = Said(
        title=MANIFEST.title,
        sign_in=MANIFEST.how_to_sign_in,
        status=status,
        code=done.error,
        text=done.msg,
        scope=scope,
    )
    own = words(said)
    return own or border.RequestRefused("request", f"Vast.ai says: {said.words}")


def words(said: Said) -> border.BorderError | None:
    """Codes of Vast.ai."""
    text = f"{said.code} {said.text}".lower()
    if "search_quota_exceeded" in text:
        return border.Transient(f"Vast.ai allows no more searches today: {said.words}", 3600)
    if "credit" in text or "balance" in text:
        return border.QuotaExceeded(
            "balance", "reached", f"Vast.ai says: {said.words}; add credit at https://cloud.vast.ai/billing/"
        )
    if (
        "no_such_ask" in text
        or "not available" in text
        or "no longer available" in text
        or said.code.startswith("bid")
    ):
        return border.OutOfCapacity(said.scope, f"the offer of {said.scope} is gone: {said.words}")
    return None
