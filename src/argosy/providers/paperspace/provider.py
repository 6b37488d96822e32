"""Calls of the Paperspace API (v1): machines, templates, and the script and network that ours have.

A machine has a name and no labels: `clm-...-0 argosy NODES TAG`. There is no user data: a startup script lets
us in, and the machines make their host keys themselves."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Final, Generic, TypeVar

import msgspec

from argosy.infra import border
from argosy.infra.http_json import How, Query
from argosy.infra.http_words import Said
from argosy.infra.machine_access import home_text
from argosy.infra.machine_images import asked_image
from argosy.infra.machine_vendor import MachineOrder, RestVendor, findings_of
from argosy.infra.machines import Machine, MachineState, mark_in_words, words_of
from argosy.infra.once import Once
from argosy.infra.provider import Diagnostic, Setting, Want
from argosy.model.offer import Offer
from argosy.model.rows import Claim
from argosy.providers.paperspace import MANIFEST

T = TypeVar("T")

URL: Final = "https://api.paperspace.com"
DISKS_GB: Final = (50, 100, 250, 500, 1000, 2000)
DISK_GB: Final = 100
_STATES: Final = {
    "ready": MachineState.RUNNING,
    "stopping": MachineState.STOPPING,
    "off": MachineState.STOPPED,
    "failed": MachineState.FAILED,
}  # any other word: it is being made, or started
_ASKED_AFTER_S: Final = 20.0  # what is being made for so long is asked what became of it
_MADE_WITHIN_S: Final = 600.0
_PAGE: Final = 120
_BOX: Final = re.compile(r"ml.in.a.box", re.IGNORECASE)  # templates with drivers and CUDA


class _Page(msgspec.Struct, Generic[T], frozen=True, rename="camel"):
    items: list[T]
    has_more: bool = False
    next_page: str | None = None


class _Machine(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    name: str | None = None
    state: str | None = None
    machine_type: str | None = None
    region: str | None = None
    dt_created: str | None = None
    public_ip: str | None = None
    private_ip: str | None = None
    dt_deleted: str | None = None


class _Named(msgspec.Struct, frozen=True):
    id: str
    name: str


class _Fit(msgspec.Struct, frozen=True, rename="camel"):
    machine_type_label: str
    is_available: bool


class _Template(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    name: str
    operating_system_label: str
    available_machine_types: list[_Fit]
    default_size_gb: int | None = None


class _Event(msgspec.Struct, frozen=True):
    name: str
    state: str
    error: str | None = None


class Paperspace(RestVendor):
    manifest = MANIFEST
    place = "a region"
    own_host_keys = True
    fresh_s = 1.0

    def __init__(self, setting: Setting, *, call_every_s: float = 0.2) -> None:
        super().__init__(setting, "PAPERSPACE_API_URL", URL, words, every_s=call_every_s)
        self._objects: Once[str, str] = Once()  # of the account: what it is -> its id
        self._templates: Once[str, _Template] = Once()  # by type of machine

    def key(self) -> str:
        environ = self._setting.environ
        return environ.get("PAPERSPACE_API_KEY") or _key_in(home_text(environ, ".paperspace/config.json"))

    async def check(self) -> Sequence[Diagnostic]:
        async def machines() -> str:
            await self._accepted()
            return "the key is accepted"

        return await findings_of(MANIFEST, machines)

    async def _accepted(self) -> None:
        await self._http.call("GET", "/v1/machines", into=msgspec.Raw, query=[("limit", 1)])

    async def quote(self, want: Want) -> Sequence[Offer]:
        """Nothing differs from the catalog, if the key is accepted: no call tells what is left."""
        await self._accepted()
        return ()

    def refuse(self, claim: Claim) -> None:
        wanted = claim.choice.resources.disk_size_bytes
        if wanted > DISKS_GB[-1] * 10**9:
            raise border.RequestRefused("disk_size", f"disks at Paperspace have at most {DISKS_GB[-1]} GB")

    async def prepare(self, order: MachineOrder) -> None:
        await self._template_of(order)
        await self._script_id(order)
        await self._network_id(order)

    async def _template_of(self, order: MachineOrder) -> _Template:
        if asked := asked_image(order.claim):
            return _Template(asked, asked, "", [])
        gpu = bool(order.claim.choice.offer.shape.accelerator)
        return await self._templates.get(order.kind, lambda: self._template(order.kind, gpu=gpu))

    async def _script_id(self, order: MachineOrder) -> str:
        digest = hashlib.sha256(order.opens.encode()).hexdigest()[:10]
        script = {"name": f"argosy-{digest}", "script": _script(order.opens), "isRunOnce": True}
        return await self._objects.get(digest, lambda: self._object("/v1/startup-scripts", script))

    async def _network_id(self, order: MachineOrder) -> str | None:
        if order.claim.count == 1:
            return None
        network = {"name": f"argosy-{order.region}", "region": order.region}
        return await self._objects.get(order.region, lambda: self._object("/v1/private-networks", network))

    async def create(self, order: MachineOrder, index: int) -> str:
        claim, template = order.claim, await self._template_of(order)
        wanted = -(-claim.choice.resources.disk_size_bytes // 10**9) or DISK_GB
        wanted = max(wanted, template.default_size_gb or 0)
        asked = {
            "name": f"{order.name(index)} {words_of(claim)}",
            "machineType": order.kind,
            "templateId": template.id,
            "region": order.region,
            "diskSize": next((gb for gb in DISKS_GB if gb >= wanted), DISKS_GB[-1]),
            "publicIpType": "dynamic",
            "startupScriptId": await self._script_id(order),
            "networkId": await self._network_id(order),
            "startOnCreate": True,
            "enableNvlink": order.kind.endswith("x8"),
            "autoShutdownEnabled": False,
        }
        asked = {key: value for key, value in asked.items() if value is not None}
        return await self._http.call(
            "POST", "/v1/machines", json=asked, into=str, scope=order.scope, under="data.id"
        )

    async def _object(self, path: str, wanted: Mapping[str, object]) -> str:
        """The id of a script or a network of the account, which is made when it is not there. They are free,
        and stay for the next machines."""
        pages = self._pages(path, _Page[_Named], [("name", str(wanted["name"]))])
        found = [each.id async for page in pages for each in page.items if each.name == wanted["name"]]
        return found[0] if found else (await self._http.call("POST", path, json=wanted, into=_Named)).id

    async def _template(self, kind: str, *, gpu: bool) -> _Template:
        """The newest Ubuntu that its type of machine can start from; with drivers where there are GPUs."""
        fit = [
            each
            async for page in self._pages("/v1/os-templates", _Page[_Template])
            for each in page.items
            if each.operating_system_label.startswith("Ubuntu")
            and any(kind == of.machine_type_label and of.is_available for of in each.available_machine_types)
        ]
        if not fit:
            raise border.RequestRefused(
                "instance_type", f"Paperspace has no template of Ubuntu for `{kind}`: is it one of its types?"
            )
        boxes = [each for each in fit if bool(_BOX.search(each.name)) == gpu] or fit
        return max(boxes, key=lambda each: (each.operating_system_label, each.name))

    async def listed(self, region: str) -> Sequence[Machine]:
        pages = self._pages("/v1/machines", _Page[_Machine])
        told = [each async for page in pages for each in page.items]
        return [machine for each in told if (machine := await self._machine(each)) is not None]

    async def _machine(self, told: _Machine) -> Machine | None:
        name, _, words = (told.name or "").partition(" ")
        mark = mark_in_words(name, words)
        if mark is None:
            return None
        state = (
            MachineState.ENDED if told.dt_deleted else _STATES.get(told.state or "", MachineState.STARTING)
        )
        said = "its state is failed" if state is MachineState.FAILED else ""
        if told.state == "provisioning" and not told.dt_deleted:
            said = await self._why_not(told)
            state = MachineState.FAILED if said else state
        return Machine(
            id=told.id,
            mark=mark,
            state=state,
            region=told.region or "",
            kind=told.machine_type or "",
            user="paperspace",
            host=told.public_ip or "",
            ip=told.private_ip or "",
            created=told.dt_created or "",
            said=said,
            stays=state is MachineState.FAILED,
        )

    async def _why_not(self, told: _Machine) -> str:
        """Why a machine will not be made; "": it may be. Without room it is never ready."""
        if not told.dt_created:
            return ""
        created_s = datetime.fromisoformat(told.dt_created.replace("Z", "+00:00")).timestamp()
        age_s = self._clock.now_ms() / 1000 - created_s
        if age_s < _ASKED_AFTER_S:
            return ""
        query: Query = [("machineId", told.id), ("limit", 10)]
        events = await self._http.call("GET", "/v1/machine-events", into=_Page[_Event], query=query)
        for each in events.items:
            if each.name == "create" and each.state in ("error", "cancelled"):
                return each.error or f"its creation is {each.state}"
        return "" if age_s < _MADE_WITHIN_S else f"it was not ready within {_MADE_WITHIN_S / 60:.0f} minutes"

    async def delete(self, machine: Machine) -> None:
        await self._http.drop(f"/v1/machines/{machine.id}")

    async def stop(self, machine: Machine) -> None:
        await self._http.send("PATCH", f"/v1/machines/{machine.id}/stop", how=How(safe=True))

    async def start(self, machine: Machine) -> None:
        path, scope = f"/v1/machines/{machine.id}/start", f"{machine.kind} in {machine.region}"
        await self._http.send("PATCH", path, scope=scope, how=How(safe=True))

    def _pages(self, path: str, into: type[_Page[T]], query: Query = ()) -> AsyncIterator[_Page[T]]:
        def following(page: _Page[T]) -> Query | None:
            return [("after", page.next_page)] if page.has_more and page.next_page else None

        more: Query = [*query, ("limit", _PAGE)]
        return self._http.pages(path, into=into, following=following, query=more)


def _script(opens: str) -> str:
    """Runs once, as root: our key may log in, and nothing installs packages meanwhile."""
    return (
        "#!/bin/sh\n"
        "install -d -m 700 -o paperspace -g paperspace /home/paperspace/.ssh\n"
        f"echo '{opens}' >> /home/paperspace/.ssh/authorized_keys\n"
        "chown paperspace: /home/paperspace/.ssh/authorized_keys\n"
        "chmod 600 /home/paperspace/.ssh/authorized_keys\n"
        "systemctl mask --now --no-block apt-daily.timer apt-daily-upgrade.timer || true\n"
    )


def words(said: Said) -> border.BorderError | None:
    what = f"Paperspace says: {said.words}"
    if "machine is currently" in said.text.lower():
        return border.Transient(what, 5)
    if re.search(r"limit|not (enabled|approved) for", said.text, re.IGNORECASE) and said.status in (400, 403):
        more = "ask for more at https://console.paperspace.com, or use less"
        return border.QuotaExceeded("machines", "reached", f"{what}; {more}")
    return None


def _key_in(text: str) -> str:
    try:
        return msgspec.json.decode(msgspec.json.decode(text, type=dict[str, msgspec.Raw])["apiKey"], type=str)
    except (msgspec.MsgspecError, KeyError):
        return ""
