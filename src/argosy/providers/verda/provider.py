"""Calls of the Verda API (v1): instances, keys, images, and what can be had where.

There is no user data: machines let in a key object of the account and make their host keys themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.http_json import Ask, How, HttpJson, Service
from argosy.infra.http_words import Said
from argosy.infra.machine_access import Bearer, Token, home_text, lacks
from argosy.infra.machine_images import asked_image, newest
from argosy.infra.machine_vendor import MachineOrder, RestVendor, closed_offer, findings_of
from argosy.infra.machines import Machine, MachineState, mark_in_words, words_of
from argosy.infra.once import Once
from argosy.infra.provider import Diagnostic, Setting, Want
from argosy.model.offer import Capacity, Offer
from argosy.providers.verda import MANIFEST

URL: Final = "https://api.verda.com"
DISK_GB: Final = 100
_STATES: Final = {
    "running": MachineState.RUNNING,
    "offline": MachineState.STOPPED,
    "starting_hibernation": MachineState.STOPPING,
    "hibernating": MachineState.STOPPED,
    "discontinued": MachineState.ENDED,
    "deleting": MachineState.ENDED,
    "notfound": MachineState.ENDED,
    "not_found": MachineState.ENDED,
    "error": MachineState.FAILED,
    "installation_failed": MachineState.FAILED,
    "no_capacity": MachineState.FAILED,
}  # any other word: it is being made


class _Token(msgspec.Struct, frozen=True):
    access_token: str
    expires_in: float


class _Instance(msgspec.Struct, frozen=True):
    id: str
    status: str | None = None
    hostname: str | None = None
    description: str | None = None
    created_at: str | None = None
    instance_type: str | None = None
    location: str | None = None
    ip: str | None = None
    os_volume_id: str | None = None
    volume_ids: list[str] | None = None
    is_spot: bool | None = None


class _Key(msgspec.Struct, frozen=True):
    id: str
    key: str


class _Image(msgspec.Struct, frozen=True):
    image_type: str


class _Stock(msgspec.Struct, frozen=True):
    location_code: str
    availabilities: list[str]


class _Type(msgspec.Struct, frozen=True):
    instance_type: str


class _Balance(msgspec.Struct, frozen=True):
    amount: float
    currency: str


class _Done(msgspec.Struct, frozen=True):
    status: str = ""
    error: str | None = None


class Verda(RestVendor):
    manifest = MANIFEST
    place = "a location: `verda/FIN-01`"
    own_host_keys = True
    fresh_s = 1.0

    def __init__(self, setting: Setting, *, call_every_s: float = 0.2) -> None:
        super().__init__(setting, "VERDA_API_URL", URL, words, every_s=call_every_s)
        service = Service(title=MANIFEST.title, sign_in=MANIFEST.how_to_sign_in, words=words)
        self._door = HttpJson(setting.environ.get("VERDA_API_URL") or URL, service, clock=setting.clock)
        self._bearer = Bearer(self._new_token, setting.clock, early_s=60.0)
        self._keys: Once[str, str] = Once()  # our key -> its id, when the account has it
        self._images: Once[str, str] = Once()  # by type of machine

    async def _sign(self, ask: Ask) -> Mapping[str, str]:
        return await self._bearer.sign(ask)

    async def _new_token(self) -> Token:
        client, secret = self._credentials()
        body = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret}
        told = await self._door.call("POST", "/v1/oauth2/token", json=body, into=_Token, how=How(safe=True))
        return Token(told.access_token, told.expires_in)

    def _credentials(self) -> tuple[str, str]:
        environ = self._setting.environ
        for name in ("VERDA", "DATACRUNCH"):
            client, secret = environ.get(f"{name}_CLIENT_ID"), environ.get(f"{name}_CLIENT_SECRET")
            if client and secret:
                return client, secret
        text = home_text(environ, ".verda/config.json")
        try:
            told = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            found = [msgspec.json.decode(told[key], type=str) for key in ("client_id", "client_secret")]
        except (msgspec.MsgspecError, KeyError):
            raise lacks(MANIFEST, "credentials") from None
        return found[0], found[1]

    async def check(self) -> Sequence[Diagnostic]:
        async def balance() -> str:
            told = await self._http.call("GET", "/v1/balance", into=_Balance)
            if told.amount <= 0:
                raise border.QuotaExceeded(
                    "balance", "0", "the balance at Verda is used up; add to it at https://console.verda.com"
                )
            return f"the credentials are accepted; the balance is {told.amount:.2f} {told.currency}"

        return await findings_of(MANIFEST, balance)

    async def quote(self, want: Want) -> Sequence[Offer]:
        """Types are closed where there is none now, until the next look."""
        types = await self._http.call("GET", "/v1/instance-types", into=list[_Type])
        offers: list[Offer] = []
        for capacity in (Capacity.ON_DEMAND, Capacity.SPOT):
            query = [("is_spot", "true" if capacity is Capacity.SPOT else "false")]
            stocks = await self._http.call("GET", "/v1/instance-availability", into=list[_Stock], query=query)
            for each in types:
                lacks = [
                    stock.location_code for stock in stocks if each.instance_type not in stock.availabilities
                ]
                regions = [""] if len(lacks) == len(stocks) else lacks
                offers += [self._closed(each, region, capacity) for region in regions]
        return offers

    def _closed(self, told: _Type, region: str, capacity: Capacity) -> Offer:
        why = f"{region or 'no location of Verda'} has {'none' if region else 'one'} now"
        now_ms, kind = self._clock.now_ms(), told.instance_type
        return closed_offer(MANIFEST.name, kind, why, now_ms, region=region, capacity=capacity)

    async def prepare(self, order: MachineOrder) -> None:
        await self._our_key(order.opens)
        await self._image(order)

    async def create(self, order: MachineOrder, index: int) -> str:
        claim, spot = order.claim, order.claim.choice.offer.capacity is Capacity.SPOT
        name = order.name(index)
        gb = -(-claim.choice.resources.disk_size_bytes // 10**9) or DISK_GB
        volume: dict[str, object] = {"name": name, "size": gb}
        if spot:  # by default the disk of a machine that was taken back stays, and is paid for
            volume["on_spot_discontinue"] = "delete_permanently"
        asked = {
            "instance_type": order.kind,
            "image": await self._image(order),
            "hostname": name,
            "description": words_of(claim),
            "location_code": order.region,
            "ssh_key_ids": [await self._our_key(order.opens)],
            "os_volume": volume,
            "is_spot": spot,
            "pricing": "FIXED_PRICE",
        }
        reply = await self._http.send("POST", "/v1/instances", json=asked, scope=order.scope)
        return _id_in(reply.body)

    async def _our_key(self, opens: str) -> str:
        async def found() -> str:
            keys = await self._http.call("GET", "/v1/sshkeys", into=list[_Key])
            known = [each.id for each in keys if opens.split()[1] in each.key.split()]
            body = {"name": "argosy", "key": opens}
            path = "/v1/sshkeys"
            return known[0] if known else _id_in((await self._http.send("POST", path, json=body)).body)

        return await self._keys.get(opens, found)

    async def _image(self, order: MachineOrder) -> str:
        """The task's, else the newest Ubuntu that its type can start from, with CUDA where it has GPUs."""
        kind = order.kind

        async def found() -> str:
            query = [("instance_type", kind)]
            images = await self._http.call("GET", "/v1/images", into=list[_Image], query=query)
            cuda = not kind.startswith("CPU.")
            names = [each.image_type for each in images if each.image_type.startswith("ubuntu-")]
            fit = [name for name in names if ("cuda" in name) == cuda and "cluster" not in name] or names
            if not fit:
                raise border.RequestRefused("instance_type", f"Verda has no image of Ubuntu for {kind}")
            return newest(fit)

        return asked_image(order.claim) or await self._images.get(kind, found)

    async def listed(self, region: str) -> Sequence[Machine]:
        told = await self._http.call("GET", "/v1/instances", into=list[_Instance])
        return [machine for each in told if (machine := _machine(each)) is not None]

    async def delete(self, machine: Machine) -> None:
        """With its disks, which would stay and be paid for."""
        path = f"/v1/instances/{machine.id}"
        reply = await self._http.send("GET", path, how=How(fine=(400, 404)))
        if reply.status >= 400:
            return
        told = self._http.read(reply, _Instance)
        if _STATES.get(told.status or "") is MachineState.ENDED:
            return
        volumes = dict.fromkeys(each for each in (told.os_volume_id, *(told.volume_ids or ())) if each)
        body = {
            "id": [machine.id],
            "action": "delete",
            "volume_ids": list(volumes),
            "delete_permanently": True,
        }
        await self._act(body)

    async def start(self, machine: Machine) -> None:
        """Somebody has shut it down. It costs the same, so Argosy lets none rest."""
        await self._act({"id": [machine.id], "action": "start"})

    async def _act(self, body: dict[str, object]) -> None:
        reply = await self._http.send("PUT", "/v1/instances", json=body, how=How(fine=(404,)))
        if reply.status == 404 or not reply.body.strip():
            return
        for each in self._http.read(reply, list[_Done]):
            if each.status == "error":
                raise border.Transient(f"Verda says: {each.error or 'the action failed'}", 5)

    async def close(self) -> None:
        await super().close()
        await self._door.close()


def _id_in(body: bytes) -> str:
    """Bare, or as JSON."""
    return body.decode("utf-8", "replace").strip().strip('"')


def _machine(told: _Instance) -> Machine | None:
    mark = mark_in_words(told.hostname or "", told.description or "")
    if mark is None:
        return None
    state, error = _STATES.get(told.status or "", MachineState.STARTING), None
    if told.status == "no_capacity":
        scope = f"{told.instance_type} in {told.location}"
        error = border.OutOfCapacity(scope, f"Verda has no {scope} now")
    if told.status == "discontinued" and told.is_spot:
        state = MachineState.PREEMPTED
    return Machine(
        id=told.id,
        mark=mark,
        state=state,
        region=told.location or "",
        kind=told.instance_type or "",
        spot=bool(told.is_spot),
        host=told.ip or "",
        created=told.created_at or "",
        said=f"its status is {told.status}" if state is MachineState.FAILED else "",
        error=error,
        stays=state is MachineState.FAILED,
    )


def words(said: Said) -> border.BorderError | None:
    what = f"Verda says: {said.words}"
    if said.code == "insufficient_funds":
        return border.QuotaExceeded("balance", "reached", f"{what}; add to it at https://console.verda.com")
    if said.code == "service_unavailable" and said.scope:  # said of orders: it has none
        return border.OutOfCapacity(said.scope, f"Verda has no {said.scope} now: {said.text}")
    if re.search(r"can't \w+ an? (provisioning|ordered|restoring)", said.text, re.IGNORECASE):
        return border.Transient(what, 10)
    return None
