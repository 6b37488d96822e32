"""Calls of Samsung Cloud Platform's API, as published: virtual servers of a project, signed requests.

There is no listing of marks: a server's name is its claim and node. A script at the first boot lets us in,
and the machines make their host keys themselves."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from argosy.infra import border
from argosy.infra.http_json import Ask, How, Query
from argosy.infra.http_words import Said
from argosy.infra.machine_access import home_text, lacks
from argosy.infra.machine_images import asked_image, newest
from argosy.infra.machine_vendor import MachineOrder, RestVendor, findings_of
from argosy.infra.machines import Machine, MachineState, Mark, of_name, words_of
from argosy.infra.once import Once
from argosy.infra.provider import Diagnostic, Setting, Want
from argosy.model.offer import Offer
from argosy.providers.scp import MANIFEST
from argosy.providers.scp.network import Network

URL: Final = "https://openapi.samsungsdscloud.com"
DISK_GB: Final = 100  # the least; a multiple of 10
_DISK_PRODUCT: Final = "PRODUCT-sRlJ34iBr9hOxN9J5PrQxo"  # SSD
_SERVERS: Final = "/virtual-server/v2/virtual-servers"
_SIZE: Final = 100
_NAME_MAX: Final = 28
_STATES: Final = {
    "RUNNING": MachineState.RUNNING,
    "STOPPING": MachineState.STOPPING,
    "STOPPED": MachineState.STOPPED,
    "TERMINATING": MachineState.ENDED,
    "TERMINATED": MachineState.ENDED,
    "DELETING": MachineState.ENDED,
    "DELETED": MachineState.ENDED,
    "ERROR": MachineState.FAILED,
    "FAILED": MachineState.FAILED,
}  # any other word (CREATING, EDITING, STARTING, RESTARTING): it is being made, or started


class Access(NamedTuple):
    key: str
    secret: str
    project: str


class _Server(msgspec.Struct, frozen=True, rename="camel"):
    virtual_server_id: str
    virtual_server_name: str | None = None
    virtual_server_state: str | None = None
    service_zone_id: str | None = None
    server_type: str | None = None
    ip: str | None = None
    created_dt: str | None = None


class _Servers(msgspec.Struct, frozen=True, rename="camel"):
    contents: list[_Server]
    total_count: int = 0


class _Nic(msgspec.Struct, frozen=True, rename="camel"):
    subnet_type: str
    ip: str = ""
    nat_ip: str | None = None


class _Image(msgspec.Struct, frozen=True, rename="camel"):
    image_id: str
    image_name: str
    os_type: str


class Scp(RestVendor):
    manifest = MANIFEST
    place = "a service zone: `scp/KOREA-WEST-1-SCP-B001`"
    own_host_keys = True
    fresh_s = 1.0

    def __init__(self, setting: Setting, *, call_every_s: float = 0.2) -> None:
        super().__init__(setting, "SCP_API_URL", URL, words, every_s=call_every_s)
        self._images: Once[tuple[str, bool], str] = Once()
        self._addresses: dict[str, str] = {}  # by the id of a server that runs
        self._network = Network(self._http, MANIFEST.title)

    def _access(self) -> Access:
        environ = self._setting.environ
        told = Access(
            environ.get("SCP_ACCESS_KEY", ""),
            environ.get("SCP_SECRET_KEY", ""),
            environ.get("SCP_PROJECT_ID", ""),
        )
        found = told if all(told) else _access_in(home_text(environ, ".scp/scp_credential"))
        if not all(found):
            raise lacks(MANIFEST, "access key, secret key and project")
        return found

    async def _sign(self, ask: Ask) -> dict[str, str]:
        access, stamp = self._access(), str(self._clock.now_ms())
        return {
            "X-Cmp-AccessKey": access.key,
            "X-Cmp-ClientType": "OpenApi",
            "X-Cmp-ProjectId": access.project,
            "X-Cmp-Timestamp": stamp,
            "X-Cmp-Signature": signature(access, ask.method, ask.url, stamp),
        }

    async def check(self) -> Sequence[Diagnostic]:
        async def zones() -> str:
            found = await self._network.zones(self._access().project)
            return f"the access key is accepted; the project has the service zones {', '.join(sorted(found))}"

        return await findings_of(MANIFEST, zones)

    async def quote(self, want: Want) -> Sequence[Offer]:
        """Nothing differs from the catalog, if the key is accepted: no call tells what is left."""
        await self._network.zones(self._access().project)
        return ()

    async def prepare(self, order: MachineOrder) -> None:
        place = await self._network.place(self._access().project, order.region)
        await self._image(order, place.zone_id)

    async def create(self, order: MachineOrder, index: int) -> str:
        claim, name = order.claim, order.name(index)
        if len(name) > _NAME_MAX:
            raise border.RequestRefused("name", f"`{name}` has more than {_NAME_MAX} characters")
        place = await self._network.place(self._access().project, order.region)
        wanted_gb = max(DISK_GB, -(-claim.choice.resources.disk_size_bytes // 10**10) * 10)
        asked = {
            "virtualServerName": name,
            "serviceZoneId": place.zone_id,
            "serverType": order.kind,
            "imageId": await self._image(order, place.zone_id),
            "contractId": "None",
            "keyPairId": place.key_pair_id,
            "initialScript": {
                "encodingType": "base64",
                "initialScriptShell": "bash",
                "initialScriptType": "text",
                "initialScriptContent": base64.b64encode(_script(order.opens).encode()).decode(),
            },
            "blockStorage": {
                "blockStorageName": words_of(claim)[:_NAME_MAX].strip(),
                "diskSize": wanted_gb,
                "encryptEnabled": False,
                "productId": _DISK_PRODUCT,
            },
            "nic": {"natEnabled": True, "subnetId": place.subnet_id},
            "securityGroupIds": [place.group_id],
            "deletionProtectionEnabled": False,
        }
        path = "/virtual-server/v4/virtual-servers"
        return await self._http.call(
            "POST", path, json=asked, into=str, scope=order.scope, under="resourceId"
        )

    async def _image(self, order: MachineOrder, zone_id: str) -> str:
        """The task's, else the newest Ubuntu of its zone; one for GPUs where there are GPUs."""
        gpu = bool(order.claim.choice.offer.shape.accelerator)

        async def found() -> str:
            path, query = "/image/v2/standard-images", [("serviceZoneId", zone_id), ("size", "999")]
            images = await self._http.call("GET", path, into=list[_Image], query=query, under="contents")
            ids = {each.image_name: each.image_id for each in images if each.os_type == "UBUNTU"}
            fit = [name for name in ids if ("GPU" in name.upper()) == gpu] or list(ids)
            if not fit:
                raise border.RequestRefused("image", "Samsung Cloud Platform has no image of Ubuntu there")
            return ids[newest(fit)]

        return asked_image(order.claim) or await self._images.get((zone_id, gpu), found)

    async def listed(self, region: str) -> Sequence[Machine]:
        seen = [0]

        def following(page: _Servers) -> Query | None:
            seen[0] += 1
            return [("page", seen[0])] if seen[0] * _SIZE < page.total_count else None

        pages = self._http.pages(_SERVERS, into=_Servers, following=following, query=[("size", _SIZE)])
        told = [
            each async for page in pages for each in page.contents if of_name(each.virtual_server_name or "")
        ]
        names = (
            {id: name for name, id in (await self._network.zones(self._access().project)).items()}
            if told
            else {}
        )
        return [await self._machine(each, names.get(each.service_zone_id or "", "")) for each in told]

    async def _machine(self, told: _Server, zone: str) -> Machine:
        claim_id, index = of_name(told.virtual_server_name or "") or ("", 0)
        state = _STATES.get(told.virtual_server_state or "", MachineState.STARTING)
        failed = state is MachineState.FAILED
        return Machine(
            id=told.virtual_server_id,
            mark=Mark(claim_id=claim_id, index=index),
            state=state,
            region=zone,
            kind=told.server_type or "",
            host=await self._address(told) if state is MachineState.RUNNING else "",
            ip=told.ip or "",
            created=told.created_dt or "",
            said=f"its state is {told.virtual_server_state}" if failed else "",
            stays=failed,
        )

    async def _address(self, told: _Server) -> str:
        if told.virtual_server_id not in self._addresses:
            path = f"{_SERVERS}/{told.virtual_server_id}/nics"
            nics = await self._http.call("GET", path, into=list[_Nic], under="contents")
            found = (each.nat_ip for each in nics if each.subnet_type == "PUBLIC" and each.nat_ip)
            if address := next(found, ""):
                self._addresses[told.virtual_server_id] = address
        return self._addresses.get(told.virtual_server_id, "")

    async def delete(self, machine: Machine) -> None:
        self._addresses.pop(machine.id, None)
        await self._http.drop(f"{_SERVERS}/{machine.id}")

    async def stop(self, machine: Machine) -> None:
        self._addresses.pop(machine.id, None)
        await self._http.send("POST", f"{_SERVERS}/{machine.id}/stop", json={}, how=How(safe=True))

    async def start(self, machine: Machine) -> None:
        path, scope = f"{_SERVERS}/{machine.id}/start", f"{machine.kind} in {machine.region}"
        await self._http.send("POST", path, json={}, scope=scope, how=How(safe=True))


def signature(access: Access, method: str, url: str, stamp: str) -> str:
    """Of a request. `url`: as it is sent, with its query; `stamp`: when, in ms."""
    message = f"{method}{url}{stamp}{access.key}{access.project}OpenApi"
    digest = hmac.new(access.secret.encode(), message.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def _script(opens: str) -> str:
    return (
        "#!/bin/bash\n"
        "mkdir -p -m 700 /root/.ssh\n"
        f"echo '{opens}' >> /root/.ssh/authorized_keys\n"
        "chmod 600 /root/.ssh/authorized_keys\n"
        "systemctl mask --now --no-block apt-daily.timer apt-daily-upgrade.timer || true\n"
    )


def words(said: Said) -> border.BorderError | None:
    what = f"Samsung Cloud Platform says: {said.words}"
    if "ongoing request" in said.text.lower():
        return border.Transient(what, 10)
    if said.scope and re.search(r"insufficient|not available|shortage", said.text, re.IGNORECASE):
        return border.OutOfCapacity(
            said.scope, f"Samsung Cloud Platform has no {said.scope} now: {said.text}"
        )
    return None


def _access_in(text: str) -> Access:
    """`key = value`, line by line."""
    told = dict(re.findall(r"^\s*(?:scp_)?(\w+)\s*=\s*(\S+)", text, re.MULTILINE))
    return Access(told.get("access_key", ""), told.get("secret_key", ""), told.get("project_id", ""))
